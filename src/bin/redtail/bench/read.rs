//! `bench read`: one row by its key, from the replica and by a prepared libSQL SELECT, in turn; warm.

use super::lag::{broken, connect, tempdir};
use super::median;
use redtail::{Config, Error, Kind, Replica, Replicator, Source, Value};
use serde_json::{Value as Json, json};
use std::hint::black_box;
use std::io;
use std::time::Instant;

/// Reads of each kind in a run.
const READS: u64 = 200_000;

pub async fn read(rows: u64, runs: u32) -> redtail::Result<Json> {
    let dir = tempdir()?;
    let db = dir.0.join("app.db");
    let config = Config::default();
    super::cost::fill(&db, rows).await.map_err(|e| broken(&e))?;
    let source = Source::open(&db.display().to_string(), &config)?;
    let replica = Replica::open(dir.0.join("cache.redb"), &config)?;
    Replicator::new(source, replica.clone(), config).sync_once().await?;
    let (mut replica_ns, mut libsql_ns) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        replica_ns.push(from_replica(&replica, rows)?);
        libsql_ns.push(from_libsql(&db, rows).await.map_err(|e| broken(&e))?);
    }
    let (replica_ns, libsql_ns) = (median(&replica_ns), median(&libsql_ns));
    Ok(json!({
        "what": "read", "rows": rows, "reads": READS, "runs": runs, "row": "4 columns, integer key",
        "replica_ns": replica_ns, "libsql_ns": libsql_ns, "times_faster": libsql_ns / replica_ns,
    }))
}

pub fn for_people(said: &Json, out: &mut impl io::Write) -> io::Result<()> {
    let number = |key: &str| said.get(key).and_then(Json::as_f64).unwrap_or_default();
    writeln!(
        out,
        "{} reads of one row by its key and two of its values, table of {} 4-column rows, warm, median of {} runs",
        number("reads"),
        number("rows"),
        number("runs")
    )?;
    writeln!(out, "replica          {:.0} ns a read", number("replica_ns"))?;
    writeln!(out, "libSQL, prepared {:.0} ns a read", number("libsql_ns"))?;
    writeln!(out, "{:.1} times faster", number("times_faster"))
}

/// Ids in an order that jumps, the same for both.
fn ids(rows: u64) -> impl Iterator<Item = i64> {
    (0..READS).map(move |i| (i.wrapping_mul(7_919) % rows + 1).cast_signed())
}

fn missing() -> Error {
    Error::new(Kind::Replica, "bench read: a row is missing")
}

#[allow(clippy::cast_precision_loss)]
fn from_replica(replica: &Replica, rows: u64) -> redtail::Result<f64> {
    let snapshot = replica.snapshot()?;
    let began = Instant::now();
    for id in ids(rows) {
        let row = snapshot.get("kv", &[Value::Integer(id)])?.ok_or_else(missing)?;
        black_box((row.value(1)?, row.value(2)?));
    }
    Ok(began.elapsed().as_nanos() as f64 / READS as f64)
}

#[allow(clippy::cast_precision_loss)]
async fn from_libsql(db: &std::path::Path, rows: u64) -> Result<f64, libsql::Error> {
    let connection = connect(db).await?;
    let select = connection.prepare("SELECT id, name, score, at FROM kv WHERE id = ?1").await?;
    let began = Instant::now();
    for id in ids(rows) {
        let mut found = select.query([id]).await?;
        if let Some(row) = found.next().await? {
            black_box((row.get_value(1)?, row.get_value(2)?));
        }
        drop(found);
        select.reset();
    }
    Ok(began.elapsed().as_nanos() as f64 / READS as f64)
}
