//! `bench lag`: from the application's commit to the replica's, visible and durable, beside a bare loop.
//!
//! A thread writes single-row transactions at a fixed rate into a database file and notes when each
//! commit returned. A row's lag ends when the first commit that covers its entry returned. The floor is
//! the least that any follower must do: wait, read the window with its join, commit to redb with fsync.

use super::floor;
use super::percentiles::{self, Percentiles};
use crate::failure;
use redtail::{Config, Durability, Error, Kind, Replica, Replicator, Source};
use serde_json::{Value as Json, json};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const TABLE: &str = "PRAGMA journal_mode = WAL;
    CREATE TABLE kv(id INTEGER PRIMARY KEY, name TEXT, score REAL, at INTEGER);";

/// When a commit covered everything up to a seq.
pub type Covered = (u64, Instant);

/// The work of one measurement.
#[derive(Clone, Copy)]
pub struct Load {
    /// Transactions a second.
    pub rate: u32,
    pub time: Duration,
    pub runs: u32,
}

/// All three distributions; with `curves`, whole ones for a plot.
pub async fn lag(load: Load, curves: bool) -> redtail::Result<Json> {
    let Load { rate, time, runs } = load;
    let (mut durable, mut visible, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    let mut timelines = Json::Null;
    for run in 1..=runs {
        let floor = one(rate, time, Subject::Floor).await?;
        let synced = one(rate, time, Subject::Redtail(Durability::EveryWindow)).await?;
        let shown =
            one(rate, time, Subject::Redtail(Durability::Interval(Duration::from_millis(50)))).await?;
        if run == runs && curves {
            let line = |samples: &[Duration]| percentiles::timeline(samples, rate);
            timelines = json!({ "durable": line(&synced), "visible": line(&shown), "floor": line(&floor) });
        }
        bare.extend(floor);
        durable.extend(synced);
        visible.extend(shown);
        let _ = writeln!(io::stderr(), "bench lag: run {run} of {runs}");
    }
    let curve = |samples: &[Duration]| if curves { percentiles::curve(samples) } else { Json::Null };
    let plotted = json!({ "durable": curve(&durable), "visible": curve(&visible), "floor": curve(&bare) });
    let [durable, visible, bare] = [durable, visible, bare].map(Percentiles::of);
    let mut said = json!({
        "what": "lag", "rate": rate, "seconds": time.as_secs(), "runs": runs, "synchronous": "NORMAL",
        "row": "4 columns, integer key", "durable_ms": durable.json(), "visible_ms": visible.json(),
        "floor_ms": bare.json(), "durable_to_floor": durable.p50 / bare.p50,
    });
    if let (true, Some(said)) = (curves, said.as_object_mut()) {
        said.insert("curves".to_owned(), plotted);
        said.insert("timelines".to_owned(), timelines);
    }
    Ok(said)
}

pub fn for_people(said: &Json, out: &mut impl io::Write) -> io::Result<()> {
    let number = |key: &str| said.get(key).and_then(Json::as_f64).unwrap_or_default();
    writeln!(
        out,
        "{} single-row transactions/s, {} runs of {} s each, 4-column rows, source synchronous=NORMAL",
        number("rate"),
        number("runs"),
        number("seconds")
    )?;
    let lines = [
        ("durable", "durable_ms", "fsync every window"),
        ("visible", "visible_ms", "fsync every 50 ms"),
        ("floor", "floor_ms", "bare loop, fsync every window"),
    ];
    for (name, key, how) in lines {
        let shown = said.get(key).map(Percentiles::from_json).unwrap_or_default();
        writeln!(out, "{name:8} {shown}  ({how})")?;
    }
    writeln!(out, "durable / floor: {:.2} at p50", number("durable_to_floor"))
}

#[derive(Clone, Copy)]
enum Subject {
    Floor,
    Redtail(Durability),
}

/// One run: a fresh database, a writer, and something that follows it.
async fn one(rate: u32, time: Duration, subject: Subject) -> redtail::Result<Vec<Duration>> {
    let dir = tempdir()?;
    let db = dir.0.join("app.db");
    connect(&db).await.map_err(|e| broken(&e))?.execute_batch(TABLE).await.map_err(|e| broken(&e))?;
    let config = Config {
        durability: if let Subject::Redtail(durability) = subject {
            durability
        } else {
            Durability::EveryWindow
        },
        ..Config::default()
    };
    let source = Source::open(&db.display().to_string(), &config)?;
    source.init().await?;
    let head = source.head().await?.map_or(0, |p| p.seq);
    let path = db.clone();
    let write = move || std::thread::spawn(move || futures::executor::block_on(write(&path, rate, time)));
    let (commits, covered) = match subject {
        Subject::Floor => {
            let follower = floor::Follower::start(&db, &dir.0.join("floor.redb"), head)?;
            let commits = join(write()).await?;
            (commits.clone(), follower.end(head + commits.len() as u64)?)
        }
        Subject::Redtail(_) => {
            let replica = Replica::open(dir.0.join("cache.redb"), &config)?;
            let replicator = Arc::new(Replicator::new(source, replica, config));
            replicator.sync_once().await?;
            follow(replicator, head, write).await?
        }
    };
    Ok(lags(head, &commits, &covered))
}

type Commits = Vec<Instant>;
type Writing = std::thread::JoinHandle<Result<Commits, libsql::Error>>;

async fn follow(
    replicator: Arc<Replicator>,
    head: u64,
    write: impl FnOnce() -> Writing + Send + 'static,
) -> redtail::Result<(Commits, Vec<Covered>)> {
    let write =
        move || std::thread::spawn(move || write().join().map_err(|_| gone())?.map_err(|e| broken(&e)));
    watched(replicator, head, write).await
}

fn gone() -> Error {
    Error::new(Kind::Source, "bench: the writer panicked")
}

/// Follows while somebody writes; says when each commit returned, and when each position was applied.
pub async fn watched(
    replicator: Arc<Replicator>,
    head: u64,
    write: impl FnOnce() -> std::thread::JoinHandle<redtail::Result<Commits>> + Send + 'static,
) -> redtail::Result<(Commits, Vec<Covered>)> {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn({
        let replicator = Arc::clone(&replicator);
        async move { replicator.run(async { drop(stopped.await) }).await }
    });
    let mut progress = replicator.progress();
    let watching = tokio::spawn(async move {
        let mut covered = Vec::new();
        while progress.changed().await.is_ok() {
            let now = progress.borrow_and_update().clone();
            if let (Some(position), Some(at)) = (now.position, now.applied_at) {
                covered.push((position.seq, at));
            }
        }
        covered
    });
    let joined = tokio::task::spawn_blocking(move || write().join()).await;
    let commits = joined.map_err(|e| Error::new(Kind::Stopped, e.to_string()))?.map_err(|_| gone())??;
    let last = head + commits.len() as u64;
    let mut progress = replicator.progress();
    let level = progress.wait_for(|p| p.position.is_some_and(|p| p.seq >= last));
    tokio::time::timeout(Duration::from_secs(30), level)
        .await
        .map_err(|_| Error::new(Kind::Unavailable, "bench lag: the replica did not catch up within 30 s"))?
        .map_err(|e| Error::new(Kind::Stopped, e.to_string()))?;
    let _ = stop.send(());
    running.await.map_err(|e| Error::new(Kind::Stopped, e.to_string()))??;
    drop(replicator);
    let covered = watching.await.map_err(|e| Error::new(Kind::Stopped, e.to_string()))?;
    Ok((commits, covered))
}

/// Each transaction enters one entry: the n-th commit is entry head + n.
pub fn lags(head: u64, commits: &[Instant], covered: &[Covered]) -> Vec<Duration> {
    let mut covered = covered.iter().peekable();
    let mut out = Vec::with_capacity(commits.len());
    for (seq, commit) in (head + 1..).zip(commits) {
        while covered.next_if(|(through, _)| *through < seq).is_some() {}
        if let Some((_, at)) = covered.peek() {
            out.push(at.saturating_duration_since(*commit));
        }
    }
    out
}

async fn join(writing: Writing) -> redtail::Result<Commits> {
    let joined = tokio::task::spawn_blocking(move || writing.join()).await;
    let joined = joined.map_err(|e| Error::new(Kind::Stopped, e.to_string()))?;
    joined.map_err(|_| Error::new(Kind::Source, "bench: the writer panicked"))?.map_err(|e| broken(&e))
}

/// Writes at a fixed rate; a late transaction does not make the next one later.
async fn write(db: &Path, rate: u32, time: Duration) -> Result<Commits, libsql::Error> {
    let connection = connect(db).await?;
    let insert = connection
        .prepare("INSERT INTO kv(name, score, at) VALUES ('a name of ordinary length', ?1, ?2)")
        .await?;
    let mut commits = Vec::new();
    let begun = Instant::now();
    for i in 0.. {
        let due = begun + Duration::from_secs(1) * i / rate;
        if due >= begun + time {
            break;
        }
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        insert.execute((f64::from(i) * 0.5, i64::from(i))).await?;
        commits.push(Instant::now());
        insert.reset();
    }
    Ok(commits)
}

pub async fn connect(db: &Path) -> Result<libsql::Connection, libsql::Error> {
    let connection = libsql::Builder::new_local(db).build().await?.connect()?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.execute_batch("PRAGMA synchronous = NORMAL").await?;
    Ok(connection)
}

pub fn broken(e: &libsql::Error) -> Error {
    Error::new(Kind::Source, format!("bench: {e}"))
}

/// A folder that goes away with its value.
pub struct Dir(pub std::path::PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub fn tempdir() -> redtail::Result<Dir> {
    let nanos =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    let dir = std::env::temp_dir().join(format!("redtail-bench-{}-{nanos}", std::process::id()));
    std::fs::create_dir(&dir).map(|()| Dir(dir)).map_err(|e| failure(&e))
}
