//! A subscriber that keeps an index of its own (word → keys) in a database of its own, and survives being killed.
//!
//! `cargo run --example derived_index` runs the subscriber as a process, kills it again and again while an application
//! writes, and compares its index with one that is built from the source. `DERIVED_KILLS` says how often (5).

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition, WriteTransaction};
use redtail::{Config, KeepChanges, Kind, Position, Replica, Replicator, Row, Source};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Word and key, for each word of each note.
const WORDS: TableDefinition<'_, (&str, i64), ()> = TableDefinition::new("words");
/// Up to where the index has everything: in the same transaction as the words.
const STATE: TableDefinition<'_, &str, &str> = TableDefinition::new("state");
/// The word of the note that ends it all.
const END: &str = "theend";

#[tokio::main]
async fn main() -> Result<(), Failure> {
    match std::env::args().nth(1) {
        Some(folder) => subscribe(Path::new(&folder)).await,
        None => supervise().await,
    }
}

/// The subscriber: takes up where its index ends, and follows.
async fn subscribe(folder: &Path) -> Result<(), Failure> {
    let keep = KeepChanges { rows: 1_000_000, age: None };
    let config = Config { keep_changes: Some(keep), ..Config::default() };
    let source = Source::open(&folder.join("app.db").display().to_string(), &config)?;
    let replica = Replica::open(folder.join("cache.redb"), &config)?;
    let replicator = Arc::new(Replicator::new(source, replica, config));
    replicator.sync_once().await?;
    tokio::spawn({
        let replicator = Arc::clone(&replicator);
        async move { replicator.run(std::future::pending()).await }
    });
    let index = Database::create(folder.join("words.redb"))?;
    let mut changes = match resume(&replicator, position(&index)?).await? {
        Some(changes) => changes,
        None => build(&replicator, &index).await?,
    };
    // The last note may have been there already when the index was built.
    if is_over(&index)? {
        return Ok(());
    }
    while let Some(window) = changes.next().await {
        let window = window?;
        let txn = index.begin_write()?;
        let mut ended = false;
        for change in &window.changes {
            change.before().map_or(Ok(()), |row| take_out(&txn, row))?;
            change.after().map_or(Ok(()), |row| put_in(&txn, row))?;
            ended |= change.after().is_some_and(|row| row.text("text").ok().flatten() == Some(END));
        }
        if let Some(position) = window.resume {
            txn.open_table(STATE)?.insert("position", position.to_string().as_str())?;
        }
        txn.commit()?;
        if ended {
            return Ok(());
        }
    }
    Err("the changes ended".into())
}

/// The changes behind a position; `None` if there is none, or if changes behind it are no longer kept.
async fn resume(
    replicator: &Replicator,
    from: Option<Position>,
) -> Result<Option<redtail::Changes>, Failure> {
    let Some(position) = from else { return Ok(None) };
    match replicator.changes_from(position).await {
        Ok(changes) => Ok(Some(changes)),
        Err(e) if matches!(e.kind(), Kind::Lagged | Kind::Divergence) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Builds the index from a snapshot; what changes behind it follows.
async fn build(replicator: &Replicator, index: &Database) -> Result<redtail::Changes, Failure> {
    let mut changes = replicator.changes().await?;
    let snapshot = replicator.snapshot_at_head(Duration::from_secs(30)).await?;
    changes.skip_to(&snapshot);
    let txn = index.begin_write()?;
    txn.delete_table(WORDS)?;
    for row in snapshot.scan("notes")? {
        put_in(&txn, &row?)?;
    }
    if let Some(position) = snapshot.position() {
        txn.open_table(STATE)?.insert("position", position.to_string().as_str())?;
    }
    txn.commit()?;
    Ok(changes)
}

fn position(index: &Database) -> Result<Option<Position>, Failure> {
    let txn = index.begin_write()?;
    let position = txn.open_table(STATE)?.get("position")?.map(|p| p.value().parse()).transpose()?;
    txn.commit()?;
    Ok(position)
}

fn is_over(index: &Database) -> Result<bool, Failure> {
    let words = index.begin_read()?.open_table(WORDS)?;
    Ok(words.range((END, i64::MIN)..=(END, i64::MAX))?.next().is_some())
}

fn put_in(txn: &WriteTransaction, row: &Row) -> Result<(), Failure> {
    let id = row.integer("id")?.ok_or("a note without an id")?;
    let mut words = txn.open_table(WORDS)?;
    for word in row.text("text")?.unwrap_or_default().split(' ') {
        words.insert((word, id), ())?;
    }
    Ok(())
}

fn take_out(txn: &WriteTransaction, row: &Row) -> Result<(), Failure> {
    let id = row.integer("id")?.ok_or("a note without an id")?;
    let mut words = txn.open_table(WORDS)?;
    for word in row.text("text")?.unwrap_or_default().split(' ') {
        words.remove((word, id))?;
    }
    Ok(())
}

/// The application, and whoever kills the subscriber.
async fn supervise() -> Result<(), Failure> {
    let kills: u32 = std::env::var("DERIVED_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(5);
    let folder = tempfile::tempdir()?;
    let application = libsql::Builder::new_local(folder.path().join("app.db")).build().await?.connect()?;
    application.busy_timeout(Duration::from_secs(10))?;
    application
        .execute_batch(
            "PRAGMA journal_mode = WAL; CREATE TABLE notes(id INTEGER PRIMARY KEY, text TEXT NOT NULL)",
        )
        .await?;
    let mut subscriber = start(folder.path())?;
    let mut random = 7_u64;
    let mut below = |limit: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % limit
    };
    for _ in 0..kills {
        for _ in 0..50 + below(100) {
            let (id, a, b) = (below(300), below(40), below(40));
            let statement = match below(4) {
                0 => format!("DELETE FROM notes WHERE id = {id}"),
                1 => format!("UPDATE notes SET text = 'w{a} w{b}' WHERE id % 10 = {}", id % 10),
                _ => format!("INSERT OR REPLACE INTO notes VALUES ({id}, 'w{a} w{b} w{}')", a + b),
            };
            application.execute(&statement, ()).await?;
        }
        subscriber.kill()?;
        subscriber.wait()?;
        subscriber = start(folder.path())?;
    }
    application.execute("INSERT INTO notes VALUES (1000, ?1)", [END]).await?;
    let ended = subscriber.wait()?;
    if !ended.success() {
        return Err(format!("the subscriber ended with {ended}").into());
    }

    let mut want = BTreeSet::new();
    let mut rows = application.query("SELECT id, text FROM notes", ()).await?;
    while let Some(row) = rows.next().await? {
        let (id, text): (i64, String) = (row.get(0)?, row.get(1)?);
        want.extend(text.split(' ').map(|word| (word.to_owned(), id)));
    }
    let index = Database::open(folder.path().join("words.redb"))?;
    let mut have = BTreeSet::new();
    for entry in index.begin_read()?.open_table(WORDS)?.iter()? {
        let (name, ()) = entry.map(|(name, value)| (name, value.value()))?;
        have.insert((name.value().0.to_owned(), name.value().1));
    }
    println!(
        "killed {kills} times; the index has {} entries, one built from scratch {}",
        have.len(),
        want.len()
    );
    if have == want {
        println!("they are equal");
        Ok(())
    } else {
        Err(format!("they differ: {:?}", have.symmetric_difference(&want).take(5).collect::<Vec<_>>()).into())
    }
}

fn start(folder: &Path) -> Result<Child, Failure> {
    let this: PathBuf = std::env::current_exe()?;
    Ok(Command::new(this).arg(folder).spawn()?)
}
