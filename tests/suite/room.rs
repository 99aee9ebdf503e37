//! Room on the replica's disk: none for a while, given back by `compact`, kept by a long reader.

use std::fs;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tempfile::TempDir;

use crate::support::assert_equal;
use crate::support::oracle::Oracle;
use crate::support::redtail::{Redtail, Run};
use crate::support::writer::application;

const REPLICA: &str = "replica.redb";
const MORE: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
    INSERT INTO items(body) SELECT randomblob(900) FROM n";

fn prepared() -> (TempDir, Redtail) {
    let folder = TempDir::new().unwrap();
    let redtail = Redtail::new(folder.path());
    application(
        &redtail.path("source.db"),
        &[
            "PRAGMA journal_mode = WAL",
            "CREATE TABLE items(id INTEGER PRIMARY KEY, body BLOB)",
            "INSERT INTO items VALUES (1, x'01')",
        ],
    );
    redtail.sync("source.db", REPLICA);
    (folder, redtail)
}

/// The longest that this process may make a file, in bytes.
fn limit(run: &Run, bytes: Option<u64>) {
    let pid = Pid::from_raw(run.pid().cast_signed());
    prlimit(pid, Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
}

#[test]
fn without_room_readers_go_on_the_source_is_let_go_and_it_resumes_by_itself() {
    let test = "without_room_readers_go_on_the_source_is_let_go_and_it_resumes_by_itself";
    let Some(mut oracle) = Oracle::start(test) else { return };
    let (_folder, redtail) = prepared();
    let source = redtail.path("source.db");
    let mut run = redtail.spawn_run_without_room("source.db", REPLICA);
    run.caught_up();
    let len = fs::metadata(redtail.path(REPLICA)).unwrap().len();
    limit(&run, Some(len + 100_000));
    application(&source, &[MORE]);
    let full = run.until("disk full", |status| status["state"] == "disk-full");
    assert!(full["error"].as_str().unwrap().contains("no room on its disk"), "{full:#}");
    assert!(full["lag_entries"].as_u64().unwrap() > 0, "{full:#}");

    // Readers go on with what there is, and nothing of the source is held: its WAL can be emptied.
    for _ in 0..3 {
        assert_eq!(redtail.ok(&["get", "items", "1", "-r", REPLICA]).lines().count(), 1);
        assert_eq!(redtail.ok(&["scan", "items", "-r", REPLICA]).lines().count(), 1);
    }
    let emptied = oracle.integers(&source, "PRAGMA wal_checkpoint(TRUNCATE)");
    assert_eq!(emptied, [0, 0, 0], "a snapshot of the source is still held");
    let told = run.said();
    assert_eq!(
        told.matches("no room on its disk").count(),
        told.matches("waiting for room").count(),
        "{told}"
    );

    limit(&run, None);
    application(&source, &["INSERT INTO items(id, body) VALUES (-5, NULL)"]);
    run.caught_up();
    assert_equal(&mut oracle, &redtail, "source.db", REPLICA);

    // It also ends when it is told to, without room.
    let len = fs::metadata(redtail.path(REPLICA)).unwrap().len();
    limit(&run, Some(len));
    application(&source, &[MORE]);
    run.until("disk full", |status| status["state"] == "disk-full");
    run.stop();
    redtail.sync("source.db", REPLICA);
    assert_equal(&mut oracle, &redtail, "source.db", REPLICA);
}

#[test]
fn compact_gives_space_back_by_itself_and_beside_a_running_run() {
    let test = "compact_gives_space_back_by_itself_and_beside_a_running_run";
    let Some(mut oracle) = Oracle::start(test) else { return };
    let (_folder, redtail) = prepared();
    let source = redtail.path("source.db");
    for beside in [false, true] {
        application(&source, &[MORE, MORE]);
        redtail.sync("source.db", REPLICA);
        application(&source, &["DELETE FROM items WHERE id > 100"]);
        redtail.sync("source.db", REPLICA);
        let before = fs::metadata(redtail.path(REPLICA)).unwrap().len();
        let mut run = beside.then(|| redtail.spawn_run("source.db", REPLICA));
        if let Some(run) = &mut run {
            run.caught_up();
        }
        let said = redtail.ok(&["compact", "--json", "-r", REPLICA]);
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        let after = fs::metadata(redtail.path(REPLICA)).unwrap().len();
        assert!(after * 4 < before, "beside a run: {beside}: {before} to {after}");
        assert!(said["given_back"].as_u64().unwrap() * 2 > before, "{said}");
        if let Some(mut run) = run {
            application(&source, &["INSERT INTO items VALUES (-9, x'09')"]);
            run.caught_up();
            run.stop();
        }
        assert_equal(&mut oracle, &redtail, "source.db", REPLICA);
    }
}
