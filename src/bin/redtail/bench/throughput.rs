//! `bench drain` and `bench copy`: a backlog, and a first copy, from end to end, beside two floors measured
//! in the same run: reading alone (the same rows, by the same join) and writing alone (the very bytes
//! that the replica then holds, sorted, in one redb transaction with fsync). Then both at once, which have nothing
//! to do with each other: what this machine has cores and memory for.

use super::lag::{Dir, broken, connect, tempdir};
use super::median;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use redtail::{Config, Error, Kind, Replica, Replicator, Result, Source};
use serde_json::{Value as Json, json};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Instant;

const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("redtail.rows");
const PIECES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("redtail.pieces");
const COLUMNS: &str = "t.id, t.name, t.score, t.at";

/// What is measured.
#[derive(Clone, Copy, PartialEq)]
pub enum What {
    Copy,
    Drain,
}

/// The shape of the work.
#[derive(Clone, Copy)]
pub struct Shape {
    pub rows: u64,
    pub changes: u64,
    /// How many rows the changes are spread over.
    pub spread: u64,
    /// Rows of 2 KB, 1.5 KB of which are a blob.
    pub wide: bool,
}

/// One run, in seconds.
struct Run {
    redtail: f64,
    reading: f64,
    writing: f64,
    at_once: f64,
    /// Rows that were applied.
    rows: u64,
}

#[allow(clippy::cast_precision_loss)]
pub async fn throughput(what: What, shape: Shape, count: u32) -> Result<Json> {
    let name = if what == What::Copy { "copy" } else { "drain" };
    let mut runs = Vec::new();
    for n in 1..=count {
        runs.push(one(what, shape).await?);
        let _ = writeln!(io::stderr(), "bench {name}: run {n} of {count}");
    }
    let items = if what == What::Copy { shape.rows } else { shape.changes };
    let median_of = |of: fn(&Run) -> f64| median(&runs.iter().map(of).collect::<Vec<_>>());
    let (redtail, reading, writing) =
        (median_of(|r| r.redtail), median_of(|r| r.reading), median_of(|r| r.writing));
    let at_once = median_of(|r| r.at_once);
    let row = if shape.wide {
        "2 KB in 4 columns, 1.5 KB of it a blob, integer key"
    } else {
        "4 columns, integer key"
    };
    Ok(json!({
        "what": name, "rows": shape.rows, "runs": count, "synchronous": "NORMAL", "row": row,
        "durability": "every-window", "items": items, "distinct_rows": runs.first().map(|r| r.rows),
        "seconds": redtail, "per_second": items as f64 / redtail,
        "reading_alone_seconds": reading, "writing_alone_seconds": writing,
        "share_of_slower_floor": reading.max(writing) / redtail,
        "both_at_once_seconds": at_once, "share_of_both_at_once": at_once / redtail,
    }))
}

pub fn for_people(said: &Json, out: &mut impl io::Write) -> io::Result<()> {
    let number = |key: &str| said.get(key).and_then(Json::as_f64).unwrap_or_default();
    let text = |key: &str| said.get(key).and_then(Json::as_str).unwrap_or_default();
    let name = text("what");
    let items = if name == "copy" { "rows" } else { "changes" };
    writeln!(
        out,
        "{} {items} of a table of {} rows ({}), {} distinct rows, median of {} runs, fsync every window, source synchronous=NORMAL",
        number("items"),
        number("rows"),
        text("row"),
        number("distinct_rows"),
        number("runs")
    )?;
    writeln!(out, "{name:16} {:.3} s, {:.0} {items}/s", number("seconds"), number("per_second"))?;
    writeln!(out, "reading alone    {:.3} s", number("reading_alone_seconds"))?;
    writeln!(out, "writing alone    {:.3} s", number("writing_alone_seconds"))?;
    writeln!(out, "both at once     {:.3} s", number("both_at_once_seconds"))?;
    writeln!(
        out,
        "share of the slower floor: {:.2}; of both at once: {:.2}",
        number("share_of_slower_floor"),
        number("share_of_both_at_once")
    )
}

async fn one(what: What, shape: Shape) -> Result<Run> {
    let dir = tempdir()?;
    let db = dir.0.join("app.db");
    let config = Config::default();
    super::cost::fill(&db, shape.rows).await.map_err(|e| broken(&e))?;
    if shape.wide {
        widen(&db).await.map_err(|e| broken(&e))?;
    }
    let source = Source::open(&db.display().to_string(), &config)?;
    source.init().await?;
    let path = dir.0.join("cache.redb");
    let copied = sync(&source, &path, &config).await?;
    if what == What::Copy {
        let query = format!("SELECT {COLUMNS} FROM kv AS t ORDER BY t.id");
        return floors(&dir, &db, &path, &query, None, copied).await;
    }
    let head = source.head().await?.map_or(0, |p| p.seq);
    change(&db, shape).await.map_err(|e| broken(&e))?;
    let drained = sync(&source, &path, &config).await?;
    let join = format!(
        "SELECT {COLUMNS} FROM (SELECT DISTINCT k0 FROM _redtail_changelog WHERE seq > {head} ORDER BY k0 LIMIT -1) AS l JOIN kv AS t ON t.id = l.k0"
    );
    floors(&dir, &db, &path, &join, Some(head), drained).await
}

/// The floors beside what redtail took, in seconds. `changed` is the head before the changes of a drain.
async fn floors(
    dir: &Dir,
    db: &Path,
    replica: &Path,
    query: &str,
    changed: Option<u64>,
    redtail: f64,
) -> Result<Run> {
    let (reading, ids) = read(db, query).await?;
    let ids = changed.map(|_| ids.as_slice());
    let wrong = |e: redb::Error| Error::new(Kind::Replica, format!("bench: {e}"));
    let (file, rows) = prepared(&dir.0.join("floor.redb"), replica, ids).map_err(wrong)?;
    let writing = insert(&file, &rows).map_err(wrong)?;
    drop((file, rows));
    let (file, rows) = prepared(&dir.0.join("floor_again.redb"), replica, ids).map_err(wrong)?;
    let began = Instant::now();
    let count = rows.len() as u64;
    let written = std::thread::spawn(move || insert(&file, &rows).map(drop));
    read(db, query).await?;
    let panicked = |_| Error::new(Kind::Replica, "bench: the writing floor panicked");
    written.join().map_err(panicked)?.map_err(wrong)?;
    let at_once = began.elapsed().as_secs_f64();
    Ok(Run { redtail, reading, writing, at_once, rows: count })
}

/// How long a sync takes, in seconds. The replica is open by then, as the floors' files are: what opening one takes is
/// measured by `bench resume`.
async fn sync(source: &Source, path: &Path, config: &Config) -> Result<f64> {
    let replica = Replica::open(path, config)?;
    let began = Instant::now();
    Replicator::new(source.clone(), replica, config.clone()).sync_once().await?;
    Ok(began.elapsed().as_secs_f64())
}

/// Makes the rows wide: `score` becomes a blob.
async fn widen(db: &Path) -> std::result::Result<(), libsql::Error> {
    let connection = connect(db).await?;
    let sql = "CREATE TABLE wide(id INTEGER PRIMARY KEY, name TEXT, score BLOB, at INTEGER);
        INSERT INTO wide SELECT id, printf('%0450d', id), randomblob(1536), at FROM kv;
        DROP TABLE kv;
        ALTER TABLE wide RENAME TO kv;
        PRAGMA wal_checkpoint(TRUNCATE);";
    connection.execute_batch(sql).await.map(|_| ())
}

/// Updates of rows chosen by a generator that is the same in every run.
async fn change(db: &Path, shape: Shape) -> std::result::Result<(), libsql::Error> {
    let connection = connect(db).await?;
    let set = if shape.wide { "score = randomblob(1536)" } else { "score = score + 1" };
    let update = connection.prepare(&format!("UPDATE kv SET {set}, at = ?1 WHERE id = ?2")).await?;
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
        update.execute((i.cast_signed(), (state % shape.spread + 1).cast_signed())).await?;
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

/// A row's name, its record, and the pieces of its long values.
type Row = (Vec<u8>, Vec<u8>, Vec<(Vec<u8>, Vec<u8>)>);

/// A bare redb file, and the replica's own bytes to be written into it: all of them, or, into a file that has them
/// all already, those of the changed rows.
fn prepared(
    floor: &Path,
    replica: &Path,
    changed: Option<&[i64]>,
) -> std::result::Result<(Database, Vec<Row>), redb::Error> {
    let cache = Config::default().cache_bytes;
    let mut rows = all(replica, cache)?;
    let db = redb::Builder::new().set_cache_size(cache).create(floor)?;
    if let Some(ids) = changed {
        insert(&db, &rows)?;
        // The rows are in the order of their ids, from 1 on.
        let mut wanted = ids.iter().copied().peekable();
        let mut id = 0;
        rows.retain(|_| {
            id += 1;
            wanted.next_if_eq(&id).is_some()
        });
    }
    Ok((db, rows))
}

fn all(replica: &Path, cache: usize) -> std::result::Result<Vec<Row>, redb::Error> {
    let db = redb::Builder::new().set_cache_size(cache).open_read_only(replica)?;
    let read = db.begin_read()?;
    let pieces = read.open_table(PIECES)?;
    let mut pieces = pieces.iter()?.map(|entry| entry.map(|(k, v)| (k.value().to_vec(), v.value().to_vec())));
    let mut next = pieces.next().transpose()?;
    let mut rows = Vec::new();
    for entry in read.open_table(ROWS)?.iter()? {
        let (name, record) = entry?;
        let mut own = Vec::new();
        while let Some(piece) = next.take_if(|(piece, _)| piece.starts_with(name.value())) {
            own.push(piece);
            next = pieces.next().transpose()?;
        }
        rows.push((name.value().to_vec(), record.value().to_vec(), own));
    }
    Ok(rows)
}

/// Writes rows in one transaction with fsync. How long it took, in seconds.
fn insert(db: &Database, rows: &[Row]) -> std::result::Result<f64, redb::Error> {
    let began = Instant::now();
    let txn = db.begin_write()?;
    {
        let (mut table, mut pieces) = (txn.open_table(ROWS)?, txn.open_table(PIECES)?);
        for (key, value, long) in rows {
            table.insert(key.as_slice(), value.as_slice())?;
            for (name, piece) in long {
                pieces.insert(name.as_slice(), piece.as_slice())?;
            }
        }
    }
    txn.commit()?;
    Ok(began.elapsed().as_secs_f64())
}
