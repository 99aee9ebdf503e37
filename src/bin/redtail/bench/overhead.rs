//! `bench overhead`: what capture adds to an application's writes. The writer is libsql with prepared
//! statements; each kind of write runs without capture, with it, with the least that enters the same (the floor: one
//! trigger, key and time, nothing bounded), and with two triggers of other makers' kinds: one that keeps a JSON image
//! of the row, and one into an AUTOINCREMENT table.
//!
//! The variants of one run follow each other closely and their order turns from run to run, so that what
//! the machine does meanwhile falls on all of them.

use super::lag::{broken, connect, tempdir};
use super::median;
use redtail::{Config, Source};
use serde_json::{Value as Json, json};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Instant;

/// What watches the table.
#[derive(Clone, Copy, PartialEq)]
enum Watched {
    Nothing,
    Capture,
    Floor,
    JsonImage,
    Autoincrement,
}

const WATCHED: [(Watched, &str); 5] = [
    (Watched::Nothing, "alone"),
    (Watched::Capture, "captured"),
    (Watched::Floor, "floor"),
    (Watched::JsonImage, "json_image"),
    (Watched::Autoincrement, "autoincrement"),
];

/// A kind of write.
struct Kind {
    name: &'static str,
    /// The table, and what is in it beforehand.
    table: &'static str,
    /// What the triggers of the other makers fire after.
    event: &'static str,
    statement: &'static str,
    /// Rows in one transaction, and how many of those.
    rows: u64,
    transactions: u64,
    /// Bytes of the blob that is bound, if there is one.
    blob: usize,
    /// Columns of the JSON image.
    image: &'static str,
}

const NARROW: &str = "CREATE TABLE w(id INTEGER PRIMARY KEY, name TEXT, score REAL, at INTEGER)";
const INSERT: &str = "INSERT INTO w(name, score, at) VALUES ('a name of ordinary length', ?1 * 0.5, ?1)";
const IMAGE: &str = "'id', NEW.id, 'name', NEW.name, 'score', NEW.score, 'at', NEW.at";

const KINDS: [Kind; 5] = [
    Kind {
        name: "single_row_transactions",
        table: NARROW,
        event: "INSERT",
        statement: INSERT,
        rows: 1,
        transactions: 20_000,
        blob: 0,
        image: IMAGE,
    },
    Kind {
        name: "bulk_narrow_rows",
        table: NARROW,
        event: "INSERT",
        statement: INSERT,
        rows: 200_000,
        transactions: 1,
        blob: 0,
        image: IMAGE,
    },
    Kind {
        name: "bulk_updates",
        table: "CREATE TABLE w(id INTEGER PRIMARY KEY, name TEXT, score REAL, at INTEGER); \
                INSERT INTO w(name, score, at) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000) \
                SELECT 'a name of ordinary length', i * 0.5, i FROM n",
        event: "UPDATE",
        statement: "UPDATE w SET score = ?1 * 0.25 WHERE id = ?1 + 1",
        rows: 200_000,
        transactions: 1,
        blob: 0,
        image: IMAGE,
    },
    Kind {
        name: "bulk_2_kb_rows",
        table: "CREATE TABLE w(id INTEGER PRIMARY KEY, name TEXT, note TEXT, at INTEGER, body BLOB)",
        event: "INSERT",
        statement: "INSERT INTO w(name, note, at, body) VALUES ('a name of ordinary length', printf('%0400d', ?1), ?1, ?2)",
        rows: 20_000,
        transactions: 1,
        blob: 1_536,
        image: "'id', NEW.id, 'name', NEW.name, 'note', NEW.note, 'at', NEW.at, 'body', hex(NEW.body)",
    },
    Kind {
        name: "single_row_with_a_unique_index",
        table: "CREATE TABLE w(id INTEGER PRIMARY KEY, name TEXT UNIQUE, score REAL, at INTEGER)",
        event: "INSERT",
        statement: "INSERT INTO w(name, score, at) VALUES (printf('name %d', (?1 * 7919) % 1000003), ?1 * 0.5, ?1)",
        rows: 1,
        transactions: 20_000,
        blob: 0,
        image: IMAGE,
    },
];

/// The writes of every kind, as medians of `runs`.
pub async fn overhead(runs: u32) -> redtail::Result<Json> {
    let mut out = serde_json::Map::new();
    for kind in &KINDS {
        let mut seconds: Vec<Vec<f64>> = vec![Vec::new(); WATCHED.len()];
        for run in 0..runs as usize {
            for turn in 0..WATCHED.len() {
                let n = (turn + run) % WATCHED.len();
                let (Some((watched, _)), Some(seconds)) = (WATCHED.get(n), seconds.get_mut(n)) else {
                    continue;
                };
                seconds.push(one(kind, *watched).await?);
            }
            let _ = writeln!(io::stderr(), "bench overhead: {}: run {} of {runs}", kind.name, run + 1);
        }
        let rows = kind.rows * kind.transactions;
        out.insert(kind.name.to_owned(), describe(rows, &seconds));
    }
    Ok(json!({
        "what": "overhead", "runs": runs, "synchronous": "NORMAL", "writer": "libsql, prepared statements",
        "kinds": out,
    }))
}

#[allow(clippy::cast_precision_loss)]
fn describe(rows: u64, seconds: &[Vec<f64>]) -> Json {
    let medians: Vec<f64> = seconds.iter().map(|s| median(s)).collect();
    let alone = medians.first().copied().unwrap_or_default();
    let mut said = serde_json::Map::new();
    said.insert("rows".to_owned(), json!(rows));
    for ((_, name), took) in WATCHED.iter().zip(medians) {
        let each = took / rows as f64 * 1e6;
        said.insert((*name).to_owned(), json!({ "us_per_row": each, "times": took / alone }));
    }
    Json::Object(said)
}

/// The table as text for people.
pub fn for_people(said: &Json, out: &mut impl io::Write) -> io::Result<()> {
    let runs = said.get("runs").and_then(Json::as_u64).unwrap_or_default();
    writeln!(
        out,
        "writes by libsql with prepared statements, synchronous=NORMAL, WAL, median of {runs} runs; microseconds a row, and times what they take alone"
    )?;
    for (kind, found) in said.get("kinds").and_then(Json::as_object).into_iter().flatten() {
        write!(out, "{kind:32}")?;
        for (_, name) in WATCHED {
            let number =
                |key| found.pointer(&format!("/{name}/{key}")).and_then(Json::as_f64).unwrap_or_default();
            write!(out, "  {name} {:.2} ({:.2}x)", number("us_per_row"), number("times"))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

async fn one(kind: &Kind, watched: Watched) -> redtail::Result<f64> {
    let dir = tempdir()?;
    let db = dir.0.join("app.db");
    let connection = connect(&db).await.map_err(|e| broken(&e))?;
    let prepare = format!("PRAGMA journal_mode = WAL; {};", kind.table);
    connection.execute_batch(&prepare).await.map_err(|e| broken(&e))?;
    let event = kind.event;
    match watched {
        Watched::Nothing => {}
        Watched::Capture => drop(Source::open(&db.display().to_string(), &Config::default())?.init().await?),
        Watched::Floor => {
            let sql = format!(
                "CREATE TABLE log(seq INTEGER PRIMARY KEY, tbl, op, at, k0); \
                 CREATE TRIGGER entry AFTER {event} ON w BEGIN INSERT INTO log(tbl, op, at, k0) \
                 VALUES (1, 1, CAST((julianday('now')-2440587.5)*86400000 AS INTEGER), NEW.id); END;"
            );
            connection.execute_batch(&sql).await.map_err(|e| broken(&e))?;
        }
        Watched::JsonImage => {
            let sql = format!(
                "CREATE TABLE log(seq INTEGER PRIMARY KEY, tbl TEXT, op TEXT, image TEXT); \
                 CREATE TRIGGER image AFTER {event} ON w BEGIN \
                 INSERT INTO log(tbl, op, image) VALUES ('w', '{event}', json_object({})); END;",
                kind.image
            );
            connection.execute_batch(&sql).await.map_err(|e| broken(&e))?;
        }
        Watched::Autoincrement => {
            let sql = format!(
                "CREATE TABLE log(seq INTEGER PRIMARY KEY AUTOINCREMENT, tbl TEXT, op TEXT, key INTEGER); \
                 CREATE TRIGGER entry AFTER {event} ON w BEGIN \
                 INSERT INTO log(tbl, op, key) VALUES ('w', '{event}', NEW.id); END;"
            );
            connection.execute_batch(&sql).await.map_err(|e| broken(&e))?;
        }
    }
    drop(connection);
    write(&db, kind).await.map_err(|e| broken(&e))
}

/// How long the writes took, in seconds.
async fn write(db: &Path, kind: &Kind) -> Result<f64, libsql::Error> {
    let connection = connect(db).await?;
    let statement = connection.prepare(kind.statement).await?;
    let blob = vec![7_u8; kind.blob];
    let began = Instant::now();
    for transaction in 0..kind.transactions {
        if kind.rows > 1 {
            connection.execute_batch("BEGIN").await?;
        }
        for row in 0..kind.rows {
            let n = (transaction * kind.rows + row).cast_signed();
            if blob.is_empty() {
                statement.execute([n]).await?;
            } else {
                statement.execute((n, blob.clone())).await?;
            }
            statement.reset();
        }
        if kind.rows > 1 {
            connection.execute_batch("COMMIT").await?;
        }
    }
    Ok(began.elapsed().as_secs_f64())
}
