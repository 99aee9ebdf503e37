//! Negative controls: with a defence taken away, the same random scripts must fail. And the scripts that
//! once did.

use std::process::Command;

use super::case::Stage;
use super::script;
use crate::support::note;
use crate::support::oracle::Oracle;

/// The random test, as it is called from outside.
const RANDOM: &str = "exact::after_every_step_of_any_script_the_replica_equals_the_source";

/// Runs the random test in a process of its own under a deliberate fault: it must fail.
fn is_caught(fault: &str, cases: u32) {
    if !cfg!(debug_assertions) || Oracle::start(fault).is_none() {
        note(&format!("skipped: the control {fault} needs a debug build and the oracle"));
        return;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", RANDOM, "--nocapture"])
        .env("REDTAIL_FAULT", fault)
        .env("REDTAIL_CASES", cases.to_string())
        .env("REDTAIL_SHRINK", "0")
        .output()
        .unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let played = said.lines().find(|l| l.contains(" cases, ")).unwrap_or("no count").to_owned();
    assert!(!output.status.success(), "{fault} was not caught: {played}");
    assert!(said.contains(" failed (again by "), "{fault} failed otherwise:\n{said}");
    note(&format!("{fault} is caught: {played}"));
}

#[test]
fn keys_entered_by_after_triggers_alone_are_caught() {
    is_caught("after-only", 200);
}

#[test]
fn keys_of_evicted_rows_that_are_not_entered_are_caught() {
    is_caught("no-eviction", 200);
}

#[test]
fn a_delete_that_is_believed_without_a_read_is_caught() {
    is_caught("trust-op", 200);
}

#[test]
fn nocase_keys_compared_by_their_bytes_are_caught() {
    is_caught("raw-nocase", 600);
}

#[test]
fn a_schema_version_that_is_ignored_is_caught() {
    is_caught("ignore-schema-version", 200);
}

/// Scripts that found something, as they were shrunk.
const ONCE: &[&[&str]] = &[
    &[
        "CREATE TABLE t(r REAL AS (-b) VIRTUAL, k INTEGER PRIMARY KEY DESC, b REAL NOT NULL) STRICT, WITHOUT ROWID",
        "CREATE UNIQUE INDEX i1 ON t(r COLLATE RTRIM DESC)",
        "-- sync",
        "REPLACE INTO t(k, b) VALUES (1, 2.0)",
        "-- sync",
        "REPLACE INTO t(k, b) VALUES (2, 2.0)",
        "-- sync",
    ],
    &[
        "-- follow",
        "CREATE TABLE t(e TEXT, n REAL COLLATE NOCASE NOT NULL, v, PRIMARY KEY(e, n DESC))",
        "-- sync",
        "REPLACE INTO t VALUES ('a', 0.1, 0)",
        "-- sync",
        "REPLACE INTO t VALUES (NULL, 0.1, 4)",
        "-- sync",
        "UPDATE t SET v = 5 WHERE e IS NULL",
        "-- sync",
    ],
    &["CREATE TABLE t(k TEXT PRIMARY KEY)", "-- sync", "DELETE FROM _redtail_changelog", "-- sync"],
    &["-- follow", "CREATE TABLE t(k PRIMARY KEY)", "-- sync", "DELETE FROM _redtail_changelog", "-- sync"],
    &["CREATE TABLE t(k INTEGER PRIMARY KEY)", "CREATE UNIQUE INDEX i1 ON t(k)", "-- sync"],
    &["CREATE TABLE x(a, b)", "-- sync", "INSERT INTO x VALUES (1.0, x'00')", "DROP TABLE x", "-- sync"],
    &[
        "CREATE TABLE s(c, id REAL AS (c IS NULL) VIRTUAL, d TEXT, PRIMARY KEY(c DESC))",
        "REPLACE INTO s(c, d) VALUES (-1, '')",
        "-- sync",
    ],
    &[
        "-- small windows",
        "PRAGMA encoding = 'utf-16be'",
        "CREATE TABLE t(a DATETIME PRIMARY KEY) WITHOUT ROWID",
        "INSERT INTO t VALUES (char(97, 0, 98)), ('😀'), (9007199254740993), (0.0), (CAST(x'd800' AS TEXT))",
        "-- sync",
        "INSERT INTO t VALUES ('A  '), ('')",
        "ALTER TABLE t ADD COLUMN e INT",
        "-- sync",
    ],
    &[
        "CREATE TABLE x(k INTEGER PRIMARY KEY, e, \"NULL\" NUMERIC AS (k IS NULL) STORED)",
        "CREATE UNIQUE INDEX i1 ON x(e) WHERE \"NULL\" > 0",
        "-- sync",
    ],
    &[
        "CREATE TABLE t(at INTEGER, k BLOB PRIMARY KEY NOT NULL) WITHOUT ROWID",
        "CREATE UNIQUE INDEX i3 ON t(\"rowid\", \"rowid\") WHERE at > 3",
        "-- sync",
    ],
    &[
        "CREATE TABLE a(s BLOB, k INTEGER PRIMARY KEY DESC)",
        "-- sync",
        "ALTER TABLE a RENAME TO v",
        "-- backup",
        "ALTER TABLE v RENAME TO w",
        "CREATE TABLE v(b COLLATE RTRIM, s NUMERIC, PRIMARY KEY(b, s DESC))",
        "-- sync",
        "-- restore",
        "-- sync",
    ],
];

#[test]
fn scripts_that_once_failed_are_followed() {
    let Some(oracle) = Oracle::start("scripts_that_once_failed_are_followed") else { return };
    let mut stage = Stage::new(oracle, "once");
    for steps in ONCE {
        if let Err(failure) = stage.play(&script::read(steps)) {
            panic!("{}\n\n{}", failure.what, failure.transcript);
        }
    }
}
