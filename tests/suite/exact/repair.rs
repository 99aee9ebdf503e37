//! A repair that another process makes must be seen by a replicator that the schema version tells nothing.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;

use crate::support::oracle::Oracle;
use crate::support::redtail::Redtail;
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
    let pid = Pid::from_raw(i32::try_from(run.pid()).unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    oracle.ask(&json!({"op": "take", "table": "t", "which": ""}));
    play(&mut oracle, &["UPDATE t SET v = 'after'"]);
    redtail.ok(&["init", "-s", "source.db"]);
    oracle.ask(&json!({"op": "set_back"}));
    kill_process(pid, Signal::CONT).unwrap();

    // An entry that it understands without looking at the schema, so that it is known to have looked.
    play(&mut oracle, &["UPDATE pulse SET n = 1"]);
    let level =
        poll(|| redtail.ok(&["get", "pulse", "1", "-r", "replica.redb"]).contains("\"n\":1").then_some(()));
    assert!(level.is_some(), "run does not follow");
    let compared = compare(&mut oracle, &redtail, "source.db", "replica.redb");
    run.stop();
    assert!(compared.equal, "\nfailed: {}", compared.differences.join("\n"));
}
