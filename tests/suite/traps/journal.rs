//! Outside WAL mode whoever reads keeps the application from committing.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::support::trial::Trial;

/// Entries of a backlog that takes longer to read than the application has patience.
const BACKLOG: u64 = 150_000;
/// And of one that takes far longer, however fast the machine.
const LARGE_BACKLOG: u64 = 400_000;
/// What the application does otherwise between two writes: without it nobody would ever read.
const PAUSE: Duration = Duration::from_millis(10);
/// How long the application waits for a lock.
const PATIENCE: Duration = Duration::from_millis(250);

/// An application that writes one row after another: how many writes were done, and how many refused.
fn writer(db: &Path, stop: &Arc<AtomicBool>) -> JoinHandle<(u64, u64)> {
    let (db, stop) = (db.to_owned(), Arc::clone(stop));
    let work = async move {
        let database = libsql::Builder::new_local(db).build().await.unwrap();
        let connection = database.connect().unwrap();
        connection.busy_timeout(PATIENCE).unwrap();
        let (mut done, mut refused) = (0, 0);
        while !stop.load(Ordering::SeqCst) {
            match connection.execute("UPDATE beat SET n = n + 1", ()).await {
                Ok(_) => done += 1,
                Err(libsql::Error::SqliteFailure(5, _)) => refused += 1,
                Err(other) => panic!("{other}"),
            }
            std::thread::park_timeout(PAUSE);
        }
        (done, refused)
    };
    std::thread::spawn(move || tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work))
}

/// What an application sees of a `run` that drains a backlog beside it; `None` without an oracle.
fn drained(test: &str, fault: Option<&'static str>, backlog: u64) -> Option<(u64, u64)> {
    let mut trial = Trial::begin(test, fault)?;
    trial.application(&[
        "PRAGMA journal_mode = DELETE",
        "CREATE TABLE beat(n INTEGER)",
        "INSERT INTO beat VALUES (0)",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)",
    ]);
    trial.follow(false);
    let rows = format!("SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {backlog}");
    trial.application(&[format!(
        "WITH RECURSIVE n(i) AS ({rows}) INSERT INTO t SELECT i, 'some text of the row ' || i FROM n"
    )]);
    let stop = Arc::new(AtomicBool::new(false));
    let writer = writer(&trial.source(), &stop);
    trial.spawn();
    trial.run().until("the backlog is there", |status| {
        let tables = status["tables"].as_array().into_iter().flatten();
        tables.filter(|t| t["name"] == "t").any(|t| t["rows"].as_u64() == Some(backlog))
    });
    stop.store(true, Ordering::SeqCst);
    let seen = writer.join().expect("the writer");
    trial.assert_equal("drained");
    Some(seen)
}

// Attacks: a snapshot outside WAL mode is short, however long the backlog is: a commit waits for one of them.
#[test]
fn a_backlog_outside_wal_mode_keeps_nobody_from_committing() {
    let test = "a_backlog_outside_wal_mode_keeps_nobody_from_committing";
    let Some((done, refused)) = drained(test, None, BACKLOG) else { return };
    assert!(done > 0 && refused == 0, "{done} writes, {refused} refused");
    if cfg!(debug_assertions) {
        let seen = drained(test, Some("long-snapshots"), LARGE_BACKLOG);
        assert!(
            seen.is_none_or(|(_, refused)| refused > 0),
            "whoever reads it at once is in the way: {seen:?}"
        );
    }
}
