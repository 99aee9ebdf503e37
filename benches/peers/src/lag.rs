//! From the application's commit to the row being readable where it was brought to.
//!
//! Single rows are inserted at a fixed rate. A commit is when its answer is there; a row is visible when redtail's
//! window is on disk in the replica, when the embedded replica shows it to a query, or when it is in a map.

use crate::application::{Answered, Application};
use crate::percentiles::Percentiles;
use crate::server::Server;
use crate::{Options, Result};
use redtail::{Config, Durability, Replica, Replicator, Source, State};
use serde_json::Value as Json;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

/// How often the poll asks.
const POLL: Duration = Duration::from_millis(100);
/// The longest to wait for a follower after the last commit.
const LATE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    Listening,
    /// The same, but on disk every 50 ms.
    Interval,
    Polling,
    Replica,
    Poll,
    Timer,
}

pub const SUBJECTS: [Subject; 6] = [
    Subject::Listening,
    Subject::Interval,
    Subject::Polling,
    Subject::Replica,
    Subject::Poll,
    Subject::Timer,
];

impl Subject {
    pub fn name(self) -> &'static str {
        match self {
            Self::Listening => "redtail, listening",
            Self::Interval => "redtail, listening, fsync every 50 ms",
            Self::Polling => "redtail, polling",
            Self::Replica => "embedded replica, tight loop",
            Self::Poll => "rows above the last id, every 100 ms",
            Self::Timer => "newest rows again, by a timer",
        }
    }
}

pub struct Lag {
    pub percentiles: Percentiles,
    pub requests_per_change: f64,
    /// `None` where the server does not tell.
    pub rows_read_per_change: Option<f64>,
}

/// Up to which row was seen, when; and what that cost.
struct Followed {
    seen: Vec<(u64, Instant)>,
    requests: u64,
    rows_read: Option<u64>,
}

type Until = watch::Receiver<Option<u64>>;

pub async fn measure(subject: Subject, server: &mut Server, options: &Options) -> Result<Lag> {
    server.renew();
    let dir = tempfile::tempdir()?;
    let app = Application::begin(server.url())?;
    app.insert(1, options.newest + 1)?;
    let (last, until) = watch::channel(None);
    let (ready, is_ready) = oneshot::channel();
    let url = server.url();
    let following = match subject {
        Subject::Listening => {
            spawn(redtail(url, dir.path().join("r"), true, Durability::EveryWindow, ready, until))
        }
        Subject::Polling => {
            spawn(redtail(url, dir.path().join("r"), false, Durability::EveryWindow, ready, until))
        }
        Subject::Interval => {
            let durability = Durability::Interval(Duration::from_millis(50));
            spawn(redtail(url, dir.path().join("r"), true, durability, ready, until))
        }
        Subject::Replica => spawn(replica(url, dir.path().join("r"), ready, until)),
        Subject::Poll => {
            let app = app.clone();
            tokio::task::spawn_blocking(move || asking(&app, POLL, newer, ready, &until))
        }
        Subject::Timer => {
            let (app, every, newest) = (app.clone(), options.timer, options.newest);
            let sql =
                move |_| format!("SELECT id, name, score, at FROM peers ORDER BY id DESC LIMIT {newest}");
            tokio::task::spawn_blocking(move || asking(&app, every, sql, ready, &until))
        }
    };
    if is_ready.await.is_err() {
        return Err(following.await?.err().unwrap_or_else(|| "a follower ended early".into()));
    }
    let (first, rate, seconds) = (options.newest + 1, options.rate, options.seconds);
    let writing = tokio::task::spawn_blocking(move || write(&app, first, rate, seconds));
    let commits = writing.await??;
    last.send_replace(Some(options.newest + commits.len() as u64));
    let followed =
        tokio::time::timeout(LATE, following).await.map_err(|_| "a follower does not catch up")???;
    let each = |n: u64| n as f64 / commits.len() as f64;
    Ok(Lag {
        percentiles: Percentiles::of(lags(options.newest, &commits, &followed.seen)),
        requests_per_change: each(followed.requests),
        rows_read_per_change: followed.rows_read.map(each),
    })
}

fn spawn(
    following: impl Future<Output = Result<Followed>> + Send + 'static,
) -> tokio::task::JoinHandle<Result<Followed>> {
    tokio::spawn(following)
}

/// Writes at a fixed rate; a late transaction does not make the next one later.
fn write(app: &Application, first: u64, rate: u64, seconds: u64) -> Result<Vec<Instant>> {
    let begun = Instant::now();
    (0..rate * seconds)
        .map(|i| {
            let due = begun + Duration::from_secs_f64(i as f64 / rate as f64);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            app.insert_one(first + i)
        })
        .collect()
}

fn lags(before: u64, commits: &[Instant], seen: &[(u64, Instant)]) -> Vec<Duration> {
    let mut seen = seen.iter().peekable();
    let mut out = Vec::with_capacity(commits.len());
    for (row, commit) in (before + 1..).zip(commits) {
        while seen.next_if(|(through, _)| *through < row).is_some() {}
        out.extend(seen.peek().map(|(_, at)| at.saturating_duration_since(*commit)));
    }
    out
}

async fn redtail(
    url: String,
    path: std::path::PathBuf,
    events: bool,
    durability: Durability,
    ready: oneshot::Sender<()>,
    mut until: Until,
) -> Result<Followed> {
    let config = Config { events, durability, ..Config::default() };
    let replica = Replica::open(path, &config)?;
    let replicator = Arc::new(Replicator::new(Source::open(&url, &config)?, replica, config));
    replicator.sync_once().await?;
    let mut progress = replicator.progress();
    let head = progress.borrow().position.map_or(0, |p| p.seq);
    let (stop, stopped) = oneshot::channel::<()>();
    let runs = Arc::clone(&replicator);
    let running = tokio::spawn(async move { runs.run(async { drop(stopped.await) }).await });
    progress.wait_for(|p| p.state == State::Following).await?;
    let before = replicator.traffic().unwrap_or_default();
    // Each further entry is a further row.
    let rows = replicator.replica().snapshot()?.count("peers")?;
    let _ = ready.send(());
    let mut seen = Vec::new();
    loop {
        tokio::select! {
            changed = progress.changed() => changed?,
            changed = until.changed() => changed?,
        }
        let now = progress.borrow_and_update().clone();
        if let (Some(position), Some(at)) = (now.position, now.applied_at) {
            seen.push((rows + position.seq.saturating_sub(head), at));
        }
        if until.borrow().is_some_and(|last| seen.last().is_some_and(|(row, _)| *row >= last)) {
            break;
        }
    }
    let after = replicator.traffic().unwrap_or_default();
    let _ = stop.send(());
    running.await??;
    Ok(Followed {
        seen,
        requests: after.requests - before.requests,
        rows_read: Some(after.rows_read - before.rows_read),
    })
}

async fn replica(
    url: String,
    path: std::path::PathBuf,
    ready: oneshot::Sender<()>,
    until: Until,
) -> Result<Followed> {
    let asked = Arc::new(AtomicU64::new(0));
    let db = embedded(url, &path, &asked).await?;
    db.sync().await?;
    let connection = db.connect()?;
    let before = asked.load(Ordering::Relaxed);
    let _ = ready.send(());
    let (mut seen, mut last) = (Vec::new(), 0);
    while until.borrow().is_none_or(|until| last < until) {
        db.sync().await?;
        let mut rows = connection.query("SELECT max(id) FROM peers", ()).await?;
        let now = rows.next().await?.ok_or("no row")?.get::<u64>(0)?;
        if now > last {
            last = now;
            seen.push((now, Instant::now()));
        }
    }
    Ok(Followed { seen, requests: asked.load(Ordering::Relaxed) - before, rows_read: None })
}

/// libSQL's embedded replica; `asked` counts its requests.
pub async fn embedded(
    url: String,
    path: &std::path::Path,
    asked: &Arc<AtomicU64>,
) -> Result<libsql::Database> {
    let asked = Arc::clone(asked);
    let built = libsql::Builder::new_remote_replica(path, url, String::new())
        .connector(connector())
        .namespace("default")
        .read_your_writes(false)
        .http_request_callback(move |_| {
            asked.fetch_add(1, Ordering::Relaxed);
        })
        .build();
    Ok(built.await?)
}

/// As libsql makes it itself, without TLS.
pub fn connector() -> hyper::client::HttpConnector {
    let mut http = hyper::client::HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http
}

fn newer(last: u64) -> String {
    format!("SELECT id, name, score, at FROM peers WHERE id > {last} ORDER BY id")
}

/// Asks at equal distances, and keeps what comes in a map.
fn asking(
    app: &Application,
    every: Duration,
    sql: impl Fn(u64) -> String,
    ready: oneshot::Sender<()>,
    until: &Until,
) -> Result<Followed> {
    let mut cache: HashMap<u64, Json> = HashMap::new();
    let mut last = 0;
    let mut take = |answered: Answered, last: &mut u64| {
        for row in answered.rows {
            let id = row.pointer("/0/value").and_then(Json::as_str).and_then(|id| id.parse().ok());
            *last = (*last).max(id.unwrap_or(0));
            cache.insert(id.unwrap_or(0), row);
        }
        answered.rows_read
    };
    take(app.run(&sql(0))?, &mut last);
    let _ = ready.send(());
    let (mut seen, mut requests, mut rows_read) = (Vec::new(), 0, 0);
    let mut due = Instant::now();
    while until.borrow().is_none_or(|until| last < until) {
        due += every;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        rows_read += take(app.run(&sql(last))?, &mut last);
        requests += 1;
        seen.push((last, Instant::now()));
    }
    Ok(Followed { seen, requests, rows_read: Some(rows_read) })
}
