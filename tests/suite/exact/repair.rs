//! A repair that another process makes must be seen by a replicator that the schema version tells nothing.

use std::path::PathBuf;

use serde_json::json;
use tempfile::TempDir;

use crate::support::oracle::Oracle;
use crate::support::redtail::Redtail;
use crate::support::writer::application;
use crate::support::{compare, poll};

#[test]
fn a_repair_elsewhere_is_seen_though_the_schema_version_was_set_back() {
    let test = "a_repair_elsewhere_is_seen_though_the_schema_version_was_set_back";
    let Some(mut oracle) = Oracle::start(test) else { return };
    let folder = TempDir::new().unwrap();
    let redtail = Redtail::new(folder.path());
    // The commands have none of this process' settings; this one is theirs too.
    let redtail = match std::env::var("REDTAIL_FAULT") {
        Ok(fault) => redtail.with_env("REDTAIL_FAULT", &fault),
        Err(_) => redtail,
    };
    let source = redtail.path("source.db");
    let play = |oracle: &mut Oracle, sql: &[&str]| {
        let answer = oracle.ask(&json!({"op": "play", "sql": sql}));
        assert!(answer["refused"].as_array().unwrap().iter().all(serde_json::Value::is_null), "{answer}");
    };
    oracle.ask(&json!({"op": "begin", "db": source}));
    play(
        &mut oracle,
        &[
            "PRAGMA journal_mode = WAL",
            "CREATE TABLE t(k INTEGER PRIMARY KEY, v)",
            "CREATE TABLE pulse(k INTEGER PRIMARY KEY, n)",
            "INSERT INTO t VALUES (1, 'before')",
            "INSERT INTO pulse VALUES (1, 0)",
        ],
    );
    let mut run = redtail.spawn_run("source.db", "replica.redb");
    run.caught_up();

    // While it stands still, capture is dropped, a row changes, and somebody else repairs capture.
    run.stand_still();
    oracle.ask(&json!({"op": "take", "table": "t", "which": ""}));
    play(&mut oracle, &["UPDATE t SET v = 'after'"]);
    redtail.ok(&["init", "-s", "source.db"]);
    oracle.ask(&json!({"op": "set_back"}));
    run.go_on();

    // An entry that it understands without looking at the schema, so that it is known to have looked.
    play(&mut oracle, &["UPDATE pulse SET n = 1"]);
    let level =
        poll(|| redtail.ok(&["get", "pulse", "1", "-r", "replica.redb"]).contains("\"n\":1").then_some(()));
    assert!(level.is_some(), "run does not follow");
    let compared = compare(&mut oracle, &redtail, "source.db", "replica.redb");
    run.stop();
    assert!(compared.equal, "\nfailed: {}", compared.differences.join("\n"));
}

/// A table whose triggers were dropped and made again elsewhere, and an application that has a statement prepared which
/// runs the old ones: SQLite runs it as it is once the schema version is set back to what it was.
struct Stale {
    oracle: Oracle,
    redtail: Redtail,
    source: PathBuf,
    _folder: TempDir,
}

impl Stale {
    fn begin(test: &str) -> Option<Self> {
        let oracle = Oracle::start(test)?;
        let folder = TempDir::new().unwrap();
        let redtail = Redtail::new(folder.path());
        let source = redtail.path("source.db");
        let mut stale = Self { oracle, redtail, source, _folder: folder };
        stale.oracle.ask(&json!({"op": "begin", "db": stale.source}));
        stale.play(&[
            "PRAGMA journal_mode = WAL",
            "CREATE TABLE t(k INTEGER PRIMARY KEY, v)",
            "CREATE TABLE pulse(k INTEGER PRIMARY KEY, n)",
            "INSERT INTO t VALUES (1, 'a')",
            "INSERT INTO pulse VALUES (1, 0)",
        ]);
        Some(stale)
    }

    fn play(&mut self, sql: &[&str]) {
        let answer = self.oracle.ask(&json!({"op": "play", "sql": sql}));
        assert!(answer["refused"].as_array().unwrap().iter().all(serde_json::Value::is_null), "{answer}");
    }

    /// Prepares the statement, while capture is what it was first.
    fn prepare(&mut self) {
        self.play(&["DELETE FROM t", "INSERT INTO t VALUES (2, 'b'), (3, 'c')"]);
    }

    /// Has capture made anew; the application does not hear of it.
    fn renew(&mut self) {
        self.oracle.ask(&json!({"op": "take", "table": "t", "which": ""}));
        self.redtail.ok(&["init", "-s", "source.db"]);
        self.oracle.ask(&json!({"op": "set_back"}));
    }

    fn assert_equal(&mut self) {
        let written = "SELECT count(*) FROM _redtail_changelog WHERE op = 3 AND tbl NOT IN (SELECT id FROM _redtail_tables) \
             AND seq > (SELECT max(seq) FROM _redtail_changelog WHERE op = 0)";
        let source = self.source.clone();
        assert_eq!(self.oracle.integers(&source, written), [2], "the old triggers did not run");
        let compared = compare(&mut self.oracle, &self.redtail, "source.db", "replica.redb");
        assert!(compared.equal, "\nfailed: {}", compared.differences.join("\n"));
    }
}

// Attacks: entries of an id that is gone are left aside; these are the only sign of what they name.
#[test]
fn entries_of_triggers_that_are_gone_have_every_table_read_again() {
    let test = "entries_of_triggers_that_are_gone_have_every_table_read_again";
    let Some(mut stale) = Stale::begin(test) else { return };
    let sync = ["sync", "-s", "source.db", "-r", "replica.redb"];
    stale.redtail.ok(&sync);
    stale.prepare();
    stale.redtail.ok(&sync);
    stale.renew();
    stale.redtail.ok(&sync);
    stale.play(&["DELETE FROM t"]);
    stale.redtail.ok(&sync);
    stale.assert_equal();
}

#[test]
fn entries_of_triggers_that_are_gone_are_noticed_by_the_running_run() {
    let test = "entries_of_triggers_that_are_gone_are_noticed_by_the_running_run";
    let Some(mut stale) = Stale::begin(test) else { return };
    let mut run = stale.redtail.spawn_run("source.db", "replica.redb");
    run.caught_up();
    stale.prepare();
    run.caught_up();
    // Another connection writes what shows how far it is.
    let source = stale.source.clone();
    let redtail = stale.redtail.clone();
    let follows = |n: u32| {
        application(&source, &[format!("UPDATE pulse SET n = {n}")]);
        let shown = format!("\"n\":{n}");
        let level =
            poll(|| redtail.ok(&["get", "pulse", "1", "-r", "replica.redb"]).contains(&shown).then_some(()));
        assert!(level.is_some(), "run does not follow");
    };
    // It would repair by itself what it sees half done, and then the schema version is not what it was.
    run.stand_still();
    stale.renew();
    run.go_on();
    follows(1);
    stale.play(&["DELETE FROM t"]);
    follows(2);
    run.caught_up();
    stale.assert_equal();
    run.stop();
}
