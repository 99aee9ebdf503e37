//! `bench cost`: what an application pays. A writer without any patience (`busy_timeout = 0`) writes
//! single-row transactions at a fixed rate: alone without capture, with it, with a changelog at its cap,
//! and beside a redtail that copies the whole table, follows, acknowledges, prunes and verifies meanwhile.

use super::lag::{Dir, broken, tempdir};
use super::percentiles::Percentiles;
use redtail::{Changelog, Config, Error, Kind, Replica, Replicator, Source};
use serde_json::{Value as Json, json};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is beside the writer.
#[derive(Clone, Copy, PartialEq)]
enum Beside {
    NoCapture,
    Capture,
    CaptureAtItsCap,
    Redtail,
}

const PHASES: [(Beside, &str); 4] = [
    (Beside::NoCapture, "alone, not captured"),
    (Beside::Capture, "alone, captured"),
    (Beside::CaptureAtItsCap, "alone, captured, at its cap"),
    (Beside::Redtail, "beside redtail"),
];

/// What a writer saw.
#[derive(Default)]
struct Seen {
    times: Vec<Duration>,
    /// When another connection's lock refused a write, since the first write was due, in seconds.
    refused_at: Vec<f64>,
    /// The largest size of the WAL file, in bytes.
    wal: u64,
    verified: u64,
}

pub async fn cost(rows: u64, rate: u32, time: Duration, ack_interval: Duration) -> redtail::Result<Json> {
    let mut phases = Vec::new();
    for (beside, name) in PHASES {
        let seen = phase(beside, rows, rate, time, ack_interval).await?;
        phases.push(json!({
            "what": name, "write_ms": Percentiles::of(seen.times).json(), "busy": seen.refused_at.len(),
            "refused_at_seconds": seen.refused_at, "wal_bytes": seen.wal, "verifies": seen.verified,
        }));
        let _ = writeln!(io::stderr(), "bench cost: {name}");
    }
    Ok(json!({
        "what": "cost", "rows": rows, "rate": rate, "seconds": time.as_secs(), "synchronous": "NORMAL",
        "ack_interval_seconds": ack_interval.as_secs_f64(), "phases": phases,
    }))
}

pub fn for_people(said: &Json, out: &mut impl io::Write) -> io::Result<()> {
    let number = |key: &str| said.get(key).and_then(Json::as_u64).unwrap_or_default();
    writeln!(
        out,
        "{} single-row updates/s for {} s in a table of {} 4-column rows, busy_timeout=0, synchronous=NORMAL, WAL; acknowledged every {} s",
        number("rate"),
        number("seconds"),
        number("rows"),
        said.get("ack_interval_seconds").and_then(Json::as_f64).unwrap_or_default()
    )?;
    for phase in said.get("phases").and_then(Json::as_array).into_iter().flatten() {
        let number = |key: &str| phase.get(key).and_then(Json::as_u64).unwrap_or_default();
        let name = phase.get("what").and_then(Json::as_str).unwrap_or_default();
        let times = phase.get("write_ms").map(Percentiles::from_json).unwrap_or_default();
        let (busy, wal, verified) = (number("busy"), number("wal_bytes") / 1024, number("verifies"));
        writeln!(out, "{name:28} {times}  refused {busy}  WAL {wal} KiB  verified {verified} times")?;
    }
    Ok(())
}

async fn phase(
    beside: Beside,
    rows: u64,
    rate: u32,
    time: Duration,
    ack_interval: Duration,
) -> redtail::Result<Seen> {
    let dir = tempdir()?;
    let db = dir.0.join("app.db");
    fill(&db, rows).await.map_err(|e| broken(&e))?;
    let config = Config {
        ack_interval,
        changelog: Changelog {
            max_rows: (beside == Beside::CaptureAtItsCap).then_some(1),
            retain_min: Duration::ZERO,
            ..Changelog::default()
        },
        ..Config::default()
    };
    let source = Source::open(&db.display().to_string(), &config)?;
    if beside != Beside::NoCapture {
        source.init().await?;
    }
    let path = db.clone();
    let writing = std::thread::spawn(move || futures::executor::block_on(write(&path, rows, rate, time)));
    let verified = if beside == Beside::Redtail { follow(&dir, source, config, time).await? } else { 0 };
    let joined = tokio::task::spawn_blocking(move || writing.join()).await;
    let joined = joined.map_err(|e| Error::new(Kind::Stopped, e.to_string()))?;
    let seen = joined
        .map_err(|_| Error::new(Kind::Source, "bench: the writer panicked"))?
        .map_err(|e| broken(&e))?;
    Ok(Seen { verified, ..seen })
}

pub async fn fill(db: &Path, rows: u64) -> Result<(), libsql::Error> {
    let connection = libsql::Builder::new_local(db).build().await?.connect()?;
    let fill = format!(
        "PRAGMA journal_mode = WAL;
         CREATE TABLE kv(id INTEGER PRIMARY KEY, name TEXT, score REAL, at INTEGER);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
         INSERT INTO kv SELECT i, 'a name of ordinary length', i * 0.5, i FROM n;
         PRAGMA wal_checkpoint(TRUNCATE);"
    );
    connection.execute_batch(&fill).await.map(|_| ())
}

/// Copies, follows, and verifies again and again until the time is over. How often it verified.
async fn follow(dir: &Dir, source: Source, config: Config, time: Duration) -> redtail::Result<u64> {
    let begun = Instant::now();
    let replica = Replica::open(dir.0.join("cache.redb"), &config)?;
    let replicator = Arc::new(Replicator::new(source, replica, config));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn({
        let replicator = Arc::clone(&replicator);
        async move { replicator.run(async { drop(stopped.await) }).await }
    });
    let mut progress = replicator.progress();
    let whole = progress.wait_for(|p| p.consistent && p.lag_entries() == Some(0));
    // A copy that is not through by then was still work beside the writer.
    let copied = tokio::time::timeout(time, whole).await.is_ok();
    let mut verified = 0;
    while copied && begun.elapsed() < time {
        let found = replicator.verify(&[], false).await?;
        if found.count > 0 {
            return Err(Error::new(Kind::Replica, format!("bench cost: {} differences", found.count)));
        }
        verified += 1;
    }
    let _ = stop.send(());
    running.await.map_err(|e| Error::new(Kind::Stopped, e.to_string()))??;
    Ok(verified)
}

/// Updates one row a transaction; what is refused is counted and tried again at once.
async fn write(db: &Path, rows: u64, rate: u32, time: Duration) -> Result<Seen, libsql::Error> {
    let connection = libsql::Builder::new_local(db).build().await?.connect()?;
    connection.busy_timeout(Duration::ZERO)?;
    connection.execute_batch("PRAGMA synchronous = NORMAL").await?;
    let update = connection.prepare("UPDATE kv SET score = ?1 WHERE id = ?2").await?;
    let mut wal = db.as_os_str().to_owned();
    wal.push("-wal");
    let mut seen = Seen::default();
    let begun = Instant::now();
    for i in 0u32.. {
        let due = begun + Duration::from_secs(1) * i / rate;
        if due >= begun + time {
            break;
        }
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let id = (u64::from(i).wrapping_mul(7_919) % rows + 1).cast_signed();
        let started = Instant::now();
        let mut refused = None;
        loop {
            let done = update.execute((f64::from(i), id)).await;
            update.reset();
            match done {
                Ok(_) => break,
                Err(libsql::Error::SqliteFailure(code, _)) if code & 0xff == 5 => {
                    refused.get_or_insert_with(|| begun.elapsed().as_secs_f64());
                }
                Err(e) => return Err(e),
            }
        }
        seen.refused_at.extend(refused);
        seen.times.push(started.elapsed());
        if i.is_multiple_of(100) {
            seen.wal = seen.wal.max(std::fs::metadata(&wal).map_or(0, |m| m.len()));
        }
    }
    Ok(seen)
}
