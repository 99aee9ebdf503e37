//! kill -9 in the middle of a first copy: it goes on from there, and reads at most one chunk again.

use serde_json::Value;
use tempfile::TempDir;

use crate::support::oracle::Oracle;
use crate::support::redtail::Redtail;
use crate::support::writer::{EVENTS, Ledger, Writer};
use crate::support::{Chance, assert_equal, note};

const ROWS: u64 = 300_000;
const CHUNK: u64 = 600;
/// After so many kills the copy may finish undisturbed.
const MOST_KILLS: u64 = 12;
/// Fewer kills in the middle than this prove too little.
const LEAST_KILLS: u64 = 3;

/// What a running process says of the copy of the one table.
#[derive(Debug)]
struct Progress {
    done: bool,
    /// Rows through which the copy has come, durably, over all processes.
    copied: u64,
    /// Rows that this process has read for it.
    rows_copied: u64,
}

#[test]
fn killed_in_the_middle_of_a_first_copy_it_goes_on_from_there() {
    let test = "killed_in_the_middle_of_a_first_copy_it_goes_on_from_there";
    let Some(mut oracle) = Oracle::start(test) else { return };
    let mut chance = Chance::new(test);
    let folder = TempDir::new().unwrap();
    let redtail = Redtail::new(folder.path()).with_env("REDTAIL_CHUNK_ROWS", &CHUNK.to_string());
    // A crash costs what one transaction holds: here one range.
    let redtail = redtail.with_env("REDTAIL_MAX_TRANSACTION", "0s");
    let source = redtail.path("source.db");
    let fill = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
         INSERT INTO event SELECT i, printf('event %d %0150d', i, i), 0 FROM n"
    );
    oracle.script(&source, &["PRAGMA journal_mode = WAL", EVENTS, fill.as_str()]);
    let writer = Writer::start(&source, Ledger::preloaded(i64::try_from(ROWS).unwrap()), chance.fork());

    let (mut kills, mut in_the_middle) = (0, 0);
    // As last seen before a kill; the process may have read more than it still told.
    let mut copied_before = 0;
    let mut read_again_at_least = 0;
    let mut run = loop {
        let mut run = redtail.spawn_run("source.db", "replica.redb");
        run.live();
        let first = Progress::of(&run.status());
        first.check(copied_before);
        if first.done || kills == MOST_KILLS {
            break run;
        }
        writer.wait_more(20 + chance.below(100));
        let last = Progress::of(&run.status());
        last.check(copied_before);
        if last.done {
            break run;
        }
        writer.wait_more(1 + chance.below(20));
        run.kill9();
        kills += 1;
        in_the_middle += u64::from(last.copied > 0);
        copied_before = last.copied;
        read_again_at_least += last.rows_copied;
    };
    let ledger = writer.stop();
    let last = Progress::of(&run.caught_up());
    run.stop();
    note(&format!(
        "{test}: {in_the_middle} kills in the middle, the last process read {} rows",
        last.rows_copied
    ));

    // What the last process read is exact: at most what was left, and the chunk under way at the kill.
    let all = ROWS + ledger.inserted;
    assert!(
        last.rows_copied <= all - copied_before + CHUNK,
        "{copied_before} of {all} were copied: {last:?}"
    );
    // Over all processes: a lower bound of what was read, and still it must not pass the promise.
    assert!(
        read_again_at_least + last.rows_copied <= all + kills * CHUNK,
        "{kills} kills, {all} rows: {last:?}"
    );
    assert!(in_the_middle >= LEAST_KILLS, "only {in_the_middle} kills fell into the copy: give it more rows");
    assert_eq!(oracle.integers(&source, Ledger::SELECT), ledger.sums(), "the source keeps its commits");
    assert_equal(&mut oracle, &redtail, "source.db", "replica.redb");
}

impl Progress {
    fn of(status: &Value) -> Self {
        let tables = status["tables"].as_array().expect("tables");
        let table = tables.iter().find(|table| table["name"] == "event");
        // Not listed, or not yet begun: nothing is copied so far.
        let waiting = table.is_none_or(|table| table["state"] == "reconciling")
            || status["reconciling"].as_array().is_some_and(|names| names.iter().any(|name| name == "event"));
        Self {
            done: !waiting,
            copied: table.and_then(|table| table["copied"].as_u64()).unwrap_or(0),
            rows_copied: status["rows_copied"].as_u64().unwrap_or_else(|| panic!("rows_copied: {status:#}")),
        }
    }

    /// Holds this moment against what was durable before the kill.
    ///
    /// A process that went on reads only what lies beyond; one that began anew has read all it has copied.
    fn check(&self, copied_before: u64) {
        if self.done {
            return;
        }
        assert!(
            self.copied >= copied_before,
            "the copy went back, {copied_before} rows were durable: {self:?}"
        );
        let beyond = self.copied - copied_before;
        assert!(
            self.rows_copied <= beyond + CHUNK,
            "read again, {copied_before} rows were durable: {self:?}"
        );
    }
}
