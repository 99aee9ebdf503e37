//! Several replicas of one source: what is kept for whom, who is dropped, and who is noticed.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::oracle::Oracle;
use crate::support::redtail::{Redtail, Run};
use crate::support::{assert_equal, note, poll};

const SETUP: &[&str] = &[
    "PRAGMA journal_mode = WAL",
    "CREATE TABLE t(k INTEGER PRIMARY KEY, v)",
    "INSERT INTO t VALUES (1, 'a'), (2, 'b')",
];
const ENTRIES: &str = "SELECT count(*), min(seq), max(seq) FROM _redtail_changelog";

/// A redtail in a hurry: everything that usually takes minutes or days.
fn hasty(folder: &Path) -> Redtail {
    Redtail::new(folder)
        .with_env("REDTAIL_ACK_INTERVAL", "20ms")
        .with_env("REDTAIL_CHANGELOG_RETAIN_MIN", "0s")
}

fn write(oracle: &mut Oracle, redtail: &Redtail, rows: usize) {
    let sql = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) INSERT INTO t(v) SELECT 'row ' || i FROM n"
    );
    oracle.script(&redtail.path("s.db"), &[sql]);
}

fn consumers(redtail: &Redtail, replica: &str) -> Vec<Value> {
    redtail.status("s.db", replica)["consumers"].as_array().unwrap().clone()
}

/// What the source knows of the consumer whose replica this is.
fn acknowledged(redtail: &Redtail, replica: &str) -> Option<u64> {
    let status = redtail.status("s.db", replica);
    let all = status["consumers"].as_array().unwrap();
    all.iter().find(|c| c["id"] == status["consumer"]).map(|c| c["acknowledged"].as_u64().unwrap())
}

/// Waits until the source knows that everything up to its head is on this replica's disk.
fn is_acknowledged(redtail: &Redtail, run: &mut Run, replica: &str) {
    let head = run.caught_up()["head"].as_u64();
    assert!(head.is_some());
    let known = poll(|| (acknowledged(redtail, replica) == head).then_some(()));
    assert!(
        known.is_some(),
        "{replica} is not acknowledged up to {head:?}: {:?}",
        consumers(redtail, replica)
    );
}

#[test]
fn entries_are_kept_for_who_is_behind_and_dropped_for_who_is_dead() {
    let test = "entries_are_kept_for_who_is_behind_and_dropped_for_who_is_dead";
    let Some(mut oracle) = Oracle::start(test) else { return };
    let folder = TempDir::new().unwrap();
    let redtail = hasty(folder.path());
    let source = redtail.path("s.db");
    oracle.script(&source, SETUP);
    // Each has a folder of its own, for its control socket.
    for name in ["a", "b", "c"] {
        fs::create_dir(redtail.path(name)).unwrap();
    }
    let mut a = redtail.spawn_run("s.db", "a/r.redb");
    is_acknowledged(&redtail, &mut a, "a/r.redb");
    let mut b = redtail.spawn_run("s.db", "b/r.redb");
    is_acknowledged(&redtail, &mut b, "b/r.redb");
    let mut c = redtail.spawn_run("s.db", "c/r.redb");
    is_acknowledged(&redtail, &mut c, "c/r.redb");
    assert_eq!(consumers(&redtail, "a/r.redb").len(), 3);

    // One is paused, one is killed: everything since is kept for them.
    b.stand_still();
    let behind = acknowledged(&redtail, "c/r.redb").unwrap();
    c.kill9();
    write(&mut oracle, &redtail, 3_000);
    is_acknowledged(&redtail, &mut a, "a/r.redb");
    let kept = oracle.integers(&source, ENTRIES);
    assert!(
        kept[1] <= i64::try_from(behind).unwrap() && kept[0] >= 3_000,
        "entries {kept:?}, needed from {behind}"
    );

    // Both go on from where they were, and then nobody needs the old entries.
    b.go_on();
    let mut c = redtail.spawn_run("s.db", "c/r.redb");
    for (run, replica) in [(&mut b, "b/r.redb"), (&mut c, "c/r.redb")] {
        is_acknowledged(&redtail, run, replica);
        let copied = run.status()["rows_copied"].as_u64().unwrap();
        assert!(copied < 3_000, "{replica} went on, it did not start again: {copied} rows copied");
    }
    let pruned = poll(|| (oracle.integers(&source, ENTRIES)[0] < 100).then_some(()));
    assert!(pruned.is_some(), "nobody needs them: {:?}", oracle.integers(&source, ENTRIES));
    for replica in ["a/r.redb", "b/r.redb", "c/r.redb"] {
        assert_equal(&mut oracle, &redtail, "s.db", replica);
    }

    // One is away for longer than a consumer may be: it is dropped, and is rebuilt when it returns.
    c.stop();
    a.stop();
    b.stop();
    let impatient = redtail.with_env("REDTAIL_CHANGELOG_CONSUMER_TIMEOUT", "300ms");
    let mut a = impatient.spawn_run("s.db", "a/r.redb");
    a.live();
    // The two that are away are dropped as soon as they were unseen for so long.
    let alone = poll(|| {
        write(&mut oracle, &redtail, 10);
        (consumers(&redtail, "a/r.redb").len() == 1).then_some(())
    });
    assert!(alone.is_some(), "{:?}", consumers(&redtail, "a/r.redb"));
    write(&mut oracle, &redtail, 3_000);
    is_acknowledged(&redtail, &mut a, "a/r.redb");
    let pruned = poll(|| {
        write(&mut oracle, &redtail, 1);
        (oracle.integers(&source, ENTRIES)[0] < 100).then_some(())
    });
    assert!(pruned.is_some(), "{:?}", oracle.integers(&source, ENTRIES));
    a.stop();
    let back = redtail.run(&["sync", "-s", "s.db", "-r", "b/r.redb"]);
    assert_eq!(back.code, Some(0), "{back:#?}");
    assert!(back.stderr.contains("diverged") && back.stderr.contains("dropped"), "loudly: {}", back.stderr);
    for replica in ["a/r.redb", "b/r.redb"] {
        redtail.sync("s.db", replica);
        assert_equal(&mut oracle, &redtail, "s.db", replica);
    }
    note(&format!("{test}: {:?}", oracle.integers(&source, ENTRIES)));
}

#[test]
fn a_copied_replica_file_is_noticed_and_becomes_a_consumer_of_its_own() {
    let test = "a_copied_replica_file_is_noticed_and_becomes_a_consumer_of_its_own";
    let Some(mut oracle) = Oracle::start(test) else { return };
    let folder = TempDir::new().unwrap();
    let redtail = hasty(folder.path());
    oracle.script(&redtail.path("s.db"), SETUP);
    for name in ["a", "b"] {
        fs::create_dir(redtail.path(name)).unwrap();
    }
    redtail.sync("s.db", "a/r.redb");
    fs::copy(redtail.path("a/r.redb"), redtail.path("b/r.redb")).unwrap();
    // Both run at once: whoever acknowledges second finds that the other did.
    let mut a = redtail.spawn_run("s.db", "a/r.redb");
    a.caught_up();
    let mut b = redtail.spawn_run("s.db", "b/r.redb");
    b.caught_up();
    let two = poll(|| {
        write(&mut oracle, &redtail, 1);
        let ids = [a.status()["consumer"].clone(), b.status()["consumer"].clone()];
        let known = consumers(&redtail, "a/r.redb");
        let both = ids.iter().all(|id| known.iter().any(|c| c["id"] == *id));
        (ids[0] != ids[1] && both).then_some(())
    });
    assert!(two.is_some(), "{:?}", consumers(&redtail, "a/r.redb"));
    write(&mut oracle, &redtail, 500);
    is_acknowledged(&redtail, &mut a, "a/r.redb");
    is_acknowledged(&redtail, &mut b, "b/r.redb");
    a.stop();
    b.stop();
    for replica in ["a/r.redb", "b/r.redb"] {
        assert_equal(&mut oracle, &redtail, "s.db", replica);
    }
}

#[test]
fn capture_is_the_union_of_what_the_consumers_want() {
    let Some(mut oracle) = Oracle::start("capture_is_the_union_of_what_the_consumers_want") else { return };
    let folder = TempDir::new().unwrap();
    let redtail = hasty(folder.path());
    let source = redtail.path("s.db");
    oracle.script(&source, SETUP);
    oracle.script(&source, &["CREATE TABLE one(x)", "CREATE TABLE two(x)", "CREATE TABLE Three(x)"]);
    let captured = |oracle: &mut Oracle| {
        let rows = oracle.query(&source, "SELECT DISTINCT tbl_name FROM sqlite_master WHERE type = 'trigger' AND tbl_name NOT GLOB '_redtail_*' ORDER BY 1");
        rows.as_array()
            .unwrap()
            .iter()
            .map(|r| r[0]["value"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let first = redtail.with_env("REDTAIL_INCLUDE", "['T*']");
    let second = redtail.with_env("REDTAIL_EXCLUDE", "['t?ree', 't']");
    first.sync("s.db", "a.redb");
    assert_eq!(captured(&mut oracle), ["Three", "t", "two"]);
    second.sync("s.db", "b.redb");
    assert_eq!(captured(&mut oracle), ["Three", "one", "t", "two"]);
    let names = |redtail: &Redtail, replica: &str| {
        let status = redtail.status("s.db", replica);
        let tables = status["tables"].as_array().unwrap().iter();
        tables.map(|t| t["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&first, "a.redb").len(), 3);
    assert_eq!(names(&second, "b.redb").len(), 2);
    // An init asks for what its own configuration and the consumers want, and for nothing else.
    redtail.with_env("REDTAIL_INCLUDE", "['one']").ok(&["init", "-s", "s.db"]);
    assert_eq!(captured(&mut oracle), ["Three", "one", "t", "two"]);
    oracle.script(&source, &["DELETE FROM _redtail_consumers WHERE wants LIKE '%T*%'"]);
    redtail.with_env("REDTAIL_INCLUDE", "['one']").ok(&["init", "-s", "s.db"]);
    assert_eq!(captured(&mut oracle), ["one", "two"]);
    second.sync("s.db", "b.redb");
    // A table that is asked for again is copied anew, however it changed meanwhile.
    oracle.script(&source, &["INSERT INTO t VALUES (50, 'unseen')"]);
    redtail.sync("s.db", "a.redb");
    assert_equal(&mut oracle, &redtail, "s.db", "a.redb");
}

#[test]
fn remove_is_refused_while_other_replicas_may_follow() {
    let Some(mut oracle) = Oracle::start("remove_is_refused_while_other_replicas_may_follow") else { return };
    let folder = TempDir::new().unwrap();
    let redtail = hasty(folder.path());
    oracle.script(&redtail.path("s.db"), SETUP);
    redtail.sync("s.db", "a.redb");
    redtail.sync("s.db", "b.redb");
    for args in [&["remove", "-s", "s.db"] as &[&str], &["remove", "-s", "s.db", "-r", "a.redb"]] {
        let refused = redtail.run(args);
        assert_eq!(refused.code, Some(2), "{refused:#?}");
        refused.assert_one_line("remove", &["s.db", "may still follow it", "--force"]);
    }
    oracle.script(&redtail.path("s.db"), &["DELETE FROM _redtail_consumers WHERE rowid = 2"]);
    redtail.ok(&["remove", "-s", "s.db", "-r", "a.redb"]);
    assert!(redtail.ok(&["remove", "-s", "s.db"]).contains("no capture in"));
}
