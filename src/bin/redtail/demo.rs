//! `demo`: an application that writes, a replicator that follows it live, and a comparison at the end.

use crate::bench::percentiles::Percentiles;
use crate::{Exit, failure};
use redtail::{Config, Error, Kind, Replica, Replicator, Source, Value};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The tables of an agent's memory: text keys, JSON text, reals, vectors, a cascade.
const TABLES: &str = "
    PRAGMA journal_mode = WAL;
    CREATE TABLE IF NOT EXISTS episodes(
      episode_id TEXT PRIMARY KEY, task_type TEXT NOT NULL, start_time INTEGER NOT NULL,
      reward REAL, steps TEXT, archived_at INTEGER);
    CREATE INDEX IF NOT EXISTS episodes_by_time ON episodes(start_time);
    CREATE TABLE IF NOT EXISTS patterns(
      pattern_id TEXT PRIMARY KEY, kind TEXT NOT NULL UNIQUE, success_rate REAL, uses INTEGER DEFAULT 0);
    CREATE TABLE IF NOT EXISTS embeddings(
      episode_id TEXT NOT NULL REFERENCES episodes ON DELETE CASCADE, model TEXT NOT NULL, vector BLOB,
      PRIMARY KEY(episode_id, model));";

/// Transactions a second that the demo's application writes.
const RATE: u32 = 500;

pub async fn demo(dir: &Path, seconds: u64) -> Exit {
    let say = |line: String| writeln!(io::stdout(), "{line}").map_err(|e| failure(&e));
    std::fs::create_dir_all(dir).map_err(|e| Error::usage(format!("demo folder {}: {e}", dir.display())))?;
    let (db, cache) = (dir.join("app.db"), dir.join("cache.redb"));
    prepare(&db).await?;
    let config = Config::default();
    let source = Source::open(&db.display().to_string(), &config)?;
    let captured = source.init().await?.captured;
    say(format!("source   {}  ({})", db.display(), captured.join(", ")))?;
    let replica = Replica::open(&cache, &config)?;
    let replicator = Arc::new(Replicator::new(source, replica.clone(), config));
    let begun = Instant::now();
    let position = replicator.sync_once().await?;
    say(format!(
        "replica  {}  (level at {} after {} ms)",
        cache.display(),
        position.seq,
        begun.elapsed().as_millis()
    ))?;

    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn({
        let replicator = Arc::clone(&replicator);
        async move { replicator.run(async { drop(stopped.await) }).await }
    });
    let application = Application::start(db.clone());
    let lags = show(&replicator, &application, Duration::from_secs(seconds)).await?;
    application.stop()?;
    let head = Source::open(&db.display().to_string(), &Config::default())?.head().await?;
    if let Some(head) = head {
        replicator.wait_for(head).at_most(Duration::from_secs(30)).await?;
    }
    say(format!("lag      {lags} (durable, sampled while {RATE} transactions/s were written)"))?;
    let verified = replicator.verify(&[], false).await?;
    let _ = stop.send(());
    running.await.map_err(|e| Error::new(Kind::Stopped, e.to_string()))??;
    say(format!("verify   {} rows compared, {} differences", verified.rows, verified.count))?;
    let snapshot = replica.snapshot()?;
    for info in snapshot.tables()? {
        say(format!("table    {}: {} rows", info.table.name, info.rows))?;
    }
    let reads = read_rate(&snapshot)?;
    say(format!("reads    {reads} rows a second by key, from redb"))?;
    say(format!(
        "try      redtail scan patterns -r {0}; redtail run -s {1} -r {0}",
        cache.display(),
        db.display()
    ))?;
    Ok(u8::from(verified.count > 0))
}

async fn prepare(db: &Path) -> redtail::Result<()> {
    let opened = async {
        let connection = libsql::Builder::new_local(db).build().await?.connect()?;
        connection.execute_batch(TABLES).await?;
        Ok::<_, libsql::Error>(())
    };
    opened.await.map_err(|e| Error::new(Kind::Source, format!("demo database {}: {e}", db.display())))
}

/// The application: a thread that inserts, replaces, updates and deletes.
struct Application {
    written: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Result<(), libsql::Error>>,
}

impl Application {
    fn start(db: PathBuf) -> Self {
        let (written, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, end) = (Arc::clone(&written), Arc::clone(&stop));
        let thread = std::thread::spawn(move || futures::executor::block_on(write(&db, &count, &end)));
        Self { written, stop, thread }
    }

    fn stop(self) -> redtail::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let ended =
            self.thread.join().map_err(|_| Error::new(Kind::Source, "demo: the application panicked"))?;
        ended.map_err(|e| Error::new(Kind::Source, format!("demo: the application failed: {e}")))
    }
}

async fn write(db: &Path, written: &AtomicU64, stop: &AtomicBool) -> Result<(), libsql::Error> {
    let connection = libsql::Builder::new_local(db).build().await?.connect()?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.execute_batch("PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON").await?;
    let begun = Instant::now();
    let first = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(0));
    for i in 0i64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let due = begun + Duration::from_secs(1) * u32::try_from(i).unwrap_or(u32::MAX) / RATE;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let id = format!("e{}", first + i);
        let statement = match i % 5 {
            0 => format!(
                "INSERT INTO patterns VALUES('p{0}', 'kind {1}', 0.5, 0) ON CONFLICT(kind) DO UPDATE SET uses = uses + 1",
                first + i,
                i % 50
            ),
            1 => format!(
                "INSERT OR REPLACE INTO embeddings SELECT episode_id, 'small', randomblob(64) FROM episodes ORDER BY episode_id DESC LIMIT {}",
                1 + i % 3
            ),
            2 if i % 25 == 2 => {
                "DELETE FROM episodes WHERE episode_id = (SELECT min(episode_id) FROM episodes)".to_owned()
            }
            _ => format!(
                "INSERT OR REPLACE INTO episodes VALUES('{id}', 'plan', {}, {}, '[\"look\",\"act\"]', NULL)",
                first + i,
                i % 7
            ),
        };
        connection.execute(&statement, ()).await?;
        written.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Shows where the replica is while the application writes.
async fn show(
    replicator: &Replicator,
    application: &Application,
    time: Duration,
) -> redtail::Result<Percentiles> {
    let mut progress = replicator.progress();
    let mut lags = Vec::new();
    let begun = Instant::now();
    let mut spoken = begun;
    while begun.elapsed() < time {
        let changed = tokio::time::timeout(Duration::from_millis(100), progress.changed()).await;
        let now = progress.borrow_and_update().clone();
        if let (Ok(Ok(())), Some(applied), Some(read)) = (changed, now.applied_at, now.read_at()) {
            lags.push(applied.saturating_duration_since(read));
        }
        if spoken.elapsed() >= Duration::from_secs(1) {
            spoken = Instant::now();
            let written = application.written.load(Ordering::Relaxed);
            let seq = now.position.map_or(0, |p| p.seq);
            let lag = now.lag_entries().unwrap_or(0);
            writeln!(
                io::stdout(),
                "live     {written} transactions written, replica at {seq}, {lag} entries behind"
            )
            .map_err(|e| failure(&e))?;
        }
    }
    Ok(Percentiles::of(lags))
}

/// Point reads a second, over the keys that are there.
fn read_rate(snapshot: &redtail::Snapshot) -> redtail::Result<u64> {
    let keys: Vec<Vec<Value>> =
        snapshot.scan("episodes")?.take(10_000).map(|r| r?.key()).collect::<Result<_, _>>()?;
    let begun = Instant::now();
    for key in &keys {
        snapshot.get("episodes", key)?;
    }
    let nanos = begun.elapsed().as_nanos().max(1);
    Ok(u64::try_from(keys.len() as u128 * 1_000_000_000 / nanos).unwrap_or(u64::MAX))
}
