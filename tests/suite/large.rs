//! Large things in little memory: one transaction of very many entries, many tables, rows up to the limit.
//!
//! `REDTAIL_LARGE=1` plays them in the sizes that are promised: 10,000,000 entries, 1,000 tables.

use serde_json::Value;
use tempfile::TempDir;

use crate::support::oracle::Oracle;
use crate::support::redtail::{Redtail, Run};
use crate::support::{assert_equal, note, poll};

/// What a process may take, besides three times the largest row, in KiB.
const MOST: u64 = 256 << 10;

fn size(default: u64, large: u64) -> u64 {
    if std::env::var("REDTAIL_LARGE").is_ok_and(|v| v == "1") { large } else { default }
}

/// The most memory that a process has taken so far, in KiB.
fn peak(run: &Run) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", run.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("the kernel tells it");
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Waits for as long as the cursor or the file moves.
fn caught_up(run: &mut Run) -> Value {
    run.live();
    loop {
        let before = run.status();
        let moved = poll(|| {
            let now = run.status();
            let done = now["consistent"] == true && now["lag_entries"] == 0;
            let moving =
                now["space"]["bytes"] != before["space"]["bytes"] || now["cursor"] != before["cursor"];
            (done || moving).then_some((done, now))
        });
        match moved {
            Some((true, status)) => return status,
            Some((false, _)) => {}
            None => panic!("stands still: {before:#}"),
        }
    }
}

#[test]
fn one_transaction_of_very_many_entries_takes_little_memory_and_survives_a_kill() {
    let test = "one_transaction_of_very_many_entries_takes_little_memory_and_survives_a_kill";
    let Some(mut oracle) = Oracle::start(test) else { return };
    let folder = TempDir::new().unwrap();
    let redtail = Redtail::new(folder.path());
    let source = redtail.path("source.db");
    oracle
        .script(&source, &["PRAGMA journal_mode = WAL", "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b TEXT)"]);
    redtail.sync("source.db", "replica.redb");
    let entries = size(300_000, 10_000_000);
    let insert = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {entries})
         INSERT INTO t SELECT i, i * 7, 'row ' || i FROM n"
    );
    oracle.script(&source, &[insert]);

    // In the middle: the file grows while the window is written, and the cursor has not moved.
    let replica = redtail.path("replica.redb");
    let before = std::fs::metadata(&replica).unwrap().len();
    let run = redtail.spawn_run("source.db", "replica.redb");
    let grown = poll(|| (std::fs::metadata(&replica).unwrap().len() > before + (4 << 20)).then_some(()));
    assert!(grown.is_some(), "nothing was written");
    run.kill9();

    let mut run = redtail.spawn_run("source.db", "replica.redb");
    let status = caught_up(&mut run);
    assert_eq!(status["tables"][0]["rows"].as_u64(), Some(entries), "{status:#}");
    let most = peak(&run);
    note(&format!("{test}: {entries} entries, at most {} MiB", most >> 10));
    assert!(most < MOST, "{most} KiB");
    run.stop();
    assert_equal(&mut oracle, &redtail, "source.db", "replica.redb");
}

#[test]
fn many_tables_are_copied_and_followed_in_little_memory() {
    let test = "many_tables_are_copied_and_followed_in_little_memory";
    let Some(mut oracle) = Oracle::start(test) else { return };
    let folder = TempDir::new().unwrap();
    let redtail = Redtail::new(folder.path());
    let source = redtail.path("source.db");
    let tables = size(200, 1_000);
    let mut sql = vec!["PRAGMA journal_mode = WAL".to_owned(), "BEGIN".to_owned()];
    for n in 0..tables {
        sql.push(format!("CREATE TABLE t{n}(id INTEGER PRIMARY KEY, v TEXT UNIQUE)"));
        sql.push(format!("INSERT INTO t{n} VALUES (1, 'a'), (2, 'b')"));
    }
    sql.push("COMMIT".to_owned());
    oracle.script(&source, &sql);
    let mut run = redtail.spawn_run("source.db", "replica.redb");
    run.caught_up();
    let mut sql = vec!["BEGIN".to_owned()];
    sql.extend((0..tables).map(|n| format!("INSERT OR REPLACE INTO t{n} VALUES (3, 'a')")));
    sql.push("COMMIT".to_owned());
    oracle.script(&source, &sql);
    run.caught_up();
    let most = peak(&run);
    note(&format!("{test}: {tables} tables, at most {} MiB", most >> 10));
    assert!(most < MOST, "{most} KiB");
    run.stop();
    let compared = assert_equal(&mut oracle, &redtail, "source.db", "replica.redb");
    assert_eq!(compared.tables, tables);
}

#[test]
fn a_row_up_to_the_limit_is_replicated_and_one_over_it_is_refused_by_name() {
    let test = "a_row_up_to_the_limit_is_replicated_and_one_over_it_is_refused_by_name";
    let Some(mut oracle) = Oracle::start(test) else { return };
    let folder = TempDir::new().unwrap();
    let redtail = Redtail::new(folder.path());
    let source = redtail.path("source.db");
    let max_row: u64 = 32 << 20;
    let blob = |len: u64| format!("INSERT OR REPLACE INTO big VALUES (7, randomblob({len}))");
    oracle
        .script(&source, &["PRAGMA journal_mode = WAL", "CREATE TABLE big(id INTEGER PRIMARY KEY, b BLOB)"]);
    let mut run = redtail.spawn_run("source.db", "replica.redb");
    run.caught_up();
    oracle.script(&source, &[blob(max_row - 1000)]);
    run.caught_up();
    let most = peak(&run);
    note(&format!("{test}: a row of {} MiB, at most {} MiB", max_row >> 20, most >> 10));
    assert!(most < MOST + 3 * (max_row >> 10), "{most} KiB");
    run.stop();
    assert_equal(&mut oracle, &redtail, "source.db", "replica.redb");

    oracle.script(&source, &[blob(max_row + 1000)]);
    let output = redtail.run(&["sync", "-s", "source.db", "-r", "replica.redb"]);
    assert_eq!(output.code, Some(1), "{output:#?}");
    for fragment in ["big", "7", "max_row"] {
        assert!(output.stderr.contains(fragment), "{output:#?}");
    }
    let raised = redtail.with_env("REDTAIL_MAX_ROW", &(2 * max_row).to_string());
    raised.sync("source.db", "replica.redb");
    assert_equal(&mut oracle, &redtail, "source.db", "replica.redb");
}
