//! `bench drain` and `bench copy`: a backlog, and a first copy, from end to end, beside two floors measured
//! in the same run: reading alone (the same rows, by the same join) and writing alone (the very bytes
//! that the replica then holds, sorted, in one redb transaction with fsync).

use super::lag::{Dir, broken, connect, tempdir};
use crate::{Exit, failure};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use redtail::{Config, Error, Kind, Replica, Replicator, Result, Source};
use serde_json::{Value as Json, json};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("redtail.rows");
const FLOOR: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");
const COLUMNS: &str = "t.id, t.name, t.score, t.at";

/// What is measured.
#[derive(Clone, Copy, PartialEq)]
pub enum What {
    Copy,
    Drain,
}

/// One run, in seconds.
struct Run {
    redtail: f64,
    reading: f64,
    writing: f64,
    /// Rows that were applied.
    rows: u64,
}

/// The shape of the work.
#[derive(Clone, Copy)]
pub struct Shape {
    pub rows: u64,
    pub changes: u64,
    pub runs: u32,
}

pub async fn throughput(what: What, shape: Shape, as_json: bool) -> Exit {
    let name = if what == What::Copy { "copy" } else { "drain" };
    if shape.rows == 0 || shape.runs == 0 || shape.changes == 0 {
        return Err(Error::usage(format!("bench {name}: --rows, --changes and --runs must be above 0")));
    }
    let mut runs = Vec::new();
    for n in 1..=shape.runs {
        runs.push(one(what, shape).await?);
        let _ = writeln!(io::stderr(), "bench {name}: run {n} of {}", shape.runs);
    }
    let items = if what == What::Copy { shape.rows } else { shape.changes };
    let said = describe(name, items, shape, &runs);
    let mut out = io::stdout();
    let written = if as_json { writeln!(out, "{said}") } else { for_people(name, &said, &mut out) };
    written.map(|()| 0).map_err(|e| failure(&e))
}

#[allow(clippy::cast_precision_loss)]
fn describe(name: &str, items: u64, shape: Shape, runs: &[Run]) -> Json {
    let median = |of: fn(&Run) -> f64| {
        let mut all: Vec<f64> = runs.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or_default()
    };
    let (redtail, reading, writing) = (median(|r| r.redtail), median(|r| r.reading), median(|r| r.writing));
    json!({
        "what": name, "rows": shape.rows, "runs": shape.runs, "synchronous": "NORMAL", "row": "4 columns, integer key",
        "durability": "every-window", "items": items, "distinct_rows": runs.first().map(|r| r.rows),
        "seconds": redtail, "per_second": items as f64 / redtail,
        "reading_alone_seconds": reading, "writing_alone_seconds": writing,
        "share_of_slower_floor": reading.max(writing) / redtail,
    })
}

fn for_people(name: &str, said: &Json, out: &mut io::Stdout) -> io::Result<()> {
    let number = |key: &str| said.get(key).and_then(Json::as_f64).unwrap_or_default();
    let items = if name == "copy" { "rows" } else { "changes" };
    writeln!(
        out,
        "{} {items} of a table of {} 4-column rows, {} distinct rows, median of {} runs, fsync every window, source synchronous=NORMAL",
        number("items"),
        number("rows"),
        number("distinct_rows"),
        number("runs")
    )?;
    writeln!(out, "{name:16} {:.3} s, {:.0} {items}/s", number("seconds"), number("per_second"))?;
    writeln!(out, "reading alone    {:.3} s", number("reading_alone_seconds"))?;
    writeln!(out, "writing alone    {:.3} s", number("writing_alone_seconds"))?;
    writeln!(out, "share of the slower floor: {:.2}", number("share_of_slower_floor"))
}

async fn one(what: What, shape: Shape) -> Result<Run> {
    let dir = tempdir()?;
    let db = dir.0.join("app.db");
    let config = Config::default();
    super::cost::fill(&db, shape.rows).await.map_err(|e| broken(&e))?;
    let source = Source::open(&db.display().to_string(), &config)?;
    source.init().await?;
    let path = dir.0.join("cache.redb");
    let began = Instant::now();
    sync(&source, &path, &config).await?;
    let copied = began.elapsed();
    if what == What::Copy {
        let reading = read(&db, &format!("SELECT {COLUMNS} FROM kv AS t ORDER BY t.id")).await?;
        let writing = write(&dir, &path, None)?;
        return Ok(Run {
            redtail: copied.as_secs_f64(),
            reading: reading.0,
            writing: writing.0,
            rows: shape.rows,
        });
    }
    let head = source.head().await?.map_or(0, |p| p.seq);
    change(&db, shape).await.map_err(|e| broken(&e))?;
    let began = Instant::now();
    sync(&source, &path, &config).await?;
    let drained = began.elapsed();
    let join = format!(
        "SELECT {COLUMNS} FROM (SELECT DISTINCT k0 FROM _redtail_changelog WHERE seq > {head} ORDER BY k0 LIMIT -1) AS l JOIN kv AS t ON t.id = l.k0"
    );
    let reading = read(&db, &join).await?;
    let writing = write(&dir, &path, Some(reading.1))?;
    Ok(Run { redtail: drained.as_secs_f64(), reading: reading.0, writing: writing.0, rows: writing.1 })
}

async fn sync(source: &Source, path: &Path, config: &Config) -> Result<()> {
    let replica = Replica::open(path, config)?;
    Replicator::new(source.clone(), replica, config.clone()).sync_once().await.map(|_| ())
}

/// Updates of rows chosen by a generator that is the same in every run.
async fn change(db: &Path, shape: Shape) -> std::result::Result<(), libsql::Error> {
    let connection = connect(db).await?;
    let update = connection.prepare("UPDATE kv SET score = score + 1, at = ?1 WHERE id = ?2").await?;
    let mut state: u64 = 0x9E37_79B9_7F4A_7C15;
    for i in 0..shape.changes {
        if i.is_multiple_of(10_000) {
            if i > 0 {
                connection.execute_batch("COMMIT").await?;
            }
            connection.execute_batch("BEGIN").await?;
        }
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        update.execute((i.cast_signed(), (state % shape.rows + 1).cast_signed())).await?;
        update.reset();
    }
    connection.execute_batch("COMMIT").await.map(|_| ())
}

/// Reads every value of a query. How long it took, and the ids.
async fn read(db: &Path, query: &str) -> Result<(f64, Vec<i64>)> {
    let read = async {
        let connection = connect(db).await?;
        let began = Instant::now();
        let mut rows = connection.query(query, ()).await?;
        let mut ids = Vec::new();
        while let Some(row) = rows.next().await? {
            ids.push(row.get::<i64>(0)?);
            for column in 1..4 {
                std::hint::black_box(row.get_value(column)?);
            }
        }
        Ok((began.elapsed().as_secs_f64(), ids))
    };
    read.await.map_err(|e: libsql::Error| broken(&e))
}

/// Writes the replica's own bytes into a bare redb file in one transaction: all of them, or, into a file
/// that has them all already, those of the changed rows. How long that took, and how many rows.
fn write(dir: &Dir, replica: &Path, changed: Option<Vec<i64>>) -> Result<(f64, u64)> {
    bare(dir.0.join("floor.redb"), replica, changed)
        .map_err(|e| Error::new(Kind::Replica, format!("bench: {e}")))
}

fn bare(
    floor: PathBuf,
    replica: &Path,
    changed: Option<Vec<i64>>,
) -> std::result::Result<(f64, u64), redb::Error> {
    let cache = Config::default().cache_bytes;
    let mut all = Vec::new();
    {
        let db = redb::Builder::new().set_cache_size(cache).open_read_only(replica)?;
        for entry in db.begin_read()?.open_table(ROWS)?.iter()? {
            let (key, value) = entry?;
            all.push((key.value().to_vec(), value.value().to_vec()));
        }
    }
    let db = redb::Builder::new().set_cache_size(cache).create(floor)?;
    let mut subset = all;
    if let Some(ids) = changed {
        insert(&db, &subset)?;
        // The rows are in the order of their ids, from 1 on.
        let mut wanted = ids.into_iter().peekable();
        let mut id = 0;
        subset.retain(|_| {
            id += 1;
            wanted.next_if_eq(&id).is_some()
        });
    }
    let began = Instant::now();
    insert(&db, &subset)?;
    let took: Duration = began.elapsed();
    Ok((took.as_secs_f64(), subset.len() as u64))
}

fn insert(db: &Database, rows: &[(Vec<u8>, Vec<u8>)]) -> std::result::Result<(), redb::Error> {
    let txn = db.begin_write()?;
    {
        let mut table = txn.open_table(FLOOR)?;
        for (key, value) in rows {
            table.insert(key.as_slice(), value.as_slice())?;
        }
    }
    Ok(txn.commit()?)
}
