//! What no trigger can capture: `verify` finds it, and so does `run` where `audit_every` says when to look.

use serde_json::{Value, json};

use crate::support::note;
use crate::support::redtail::Output;
use crate::support::trial::Trial;

const TABLES: &[&str] = &[
    "PRAGMA journal_mode = WAL",
    "CREATE TABLE beat(n)",
    "INSERT INTO beat VALUES (0)",
    "CREATE TABLE t(id INTEGER PRIMARY KEY, b BLOB)",
    "INSERT INTO t VALUES (1, x'00000000'), (2, x'00'), (5, x'05')",
    "CREATE TABLE e(id INTEGER PRIMARY KEY, a, b, UNIQUE(a, b))",
    "INSERT INTO e VALUES (21, 1, 1), (22, 2, 2)",
    "CREATE TRIGGER e_b BEFORE UPDATE OF a ON e BEGIN UPDATE e SET b = NEW.a WHERE id = OLD.id; END",
];

/// A way to write past the triggers, and the rows (by table and key) that are found to differ afterwards.
struct Way {
    name: &'static str,
    write: fn(&mut Trial) -> Value,
    differ: &'static [(&'static str, &'static str)],
}

const WAYS: &[Way] = &[
    Way { name: "a write into a blob in place", write: into_a_blob, differ: &[("t", "[1]")] },
    Way {
        name: "a TEMP trigger that ignores",
        write: |trial| {
            trial.application(&[
                "CREATE TEMP TRIGGER hide AFTER INSERT ON t BEGIN SELECT RAISE(IGNORE); END",
                "INSERT INTO t VALUES (3, x'03')",
            ]);
            json!({"written": true})
        },
        differ: &[("t", "[3]")],
    },
    Way {
        name: "triggers switched off",
        write: switched_off,
        differ: &[("t", "[2]"), ("t", "[4]"), ("t", "[5]")],
    },
    Way {
        name: "a BEFORE trigger that changes another column of the index, under REPLACE",
        write: |trial| {
            trial.application(&["UPDATE OR REPLACE e SET a = 2 WHERE id = 21"]);
            json!({"written": true})
        },
        differ: &[("e", "[22]")],
    },
];

fn into_a_blob(trial: &mut Trial) -> Value {
    let db = trial.source();
    trial
        .oracle
        .ask(&json!({"op": "blob", "db": db, "table": "t", "column": "b", "rowid": 1, "hex": "ff00ff00"}))
}

fn switched_off(trial: &mut Trial) -> Value {
    let sql = [
        "UPDATE t SET b = x'22' WHERE id = 2",
        "INSERT INTO t VALUES (4, x'04')",
        "DELETE FROM t WHERE id = 5",
    ];
    let db = trial.source();
    trial.oracle.ask(&json!({"op": "untriggered", "db": db, "sql": sql}))
}

fn begin(test: &str) -> Option<Trial> {
    let mut trial = Trial::begin(test, None)?;
    trial.application(TABLES);
    Some(trial)
}

/// Says what this machine's Python cannot do.
fn written(test: &str, way: &Way, trial: &mut Trial) -> bool {
    let written = (way.write)(trial)["written"] == true;
    if !written {
        note(&format!("skipped: {test}: this Python has no way to make {}", way.name));
    }
    written
}

fn verify(trial: &Trial, more: &[&str]) -> Output {
    trial.redtail.run(&[&["verify", "-s", "source.db", "-r", "replica.redb", "--json"], more].concat())
}

// Attacks: `verify` finds what no trigger can tell, and mends it.
#[test]
fn what_no_trigger_can_capture_is_found_by_verify() {
    let test = "what_no_trigger_can_capture_is_found_by_verify";
    for way in WAYS {
        let Some(mut trial) = begin(test) else { return };
        trial.follow(false);
        if !written(test, way, &mut trial) {
            continue;
        }
        assert!(!trial.compare().equal, "{} was captured: say so in the documents", way.name);
        let found = verify(&trial, &[]);
        assert_eq!(found.code, Some(1), "{}: {found:#?}", way.name);
        let named: Vec<_> = found.json_lines().into_iter().filter(|l| l["key"].is_array()).collect();
        let named: Vec<_> =
            named.iter().map(|l| (l["table"].as_str().unwrap(), l["key"].to_string())).collect();
        let mut named: Vec<_> = named.iter().map(|(table, key)| (*table, key.as_str())).collect();
        named.sort_unstable();
        assert_eq!(named, way.differ, "{}", way.name);
        assert_eq!(verify(&trial, &["--repair"]).code, Some(0), "{}", way.name);
        assert_eq!(verify(&trial, &[]).code, Some(0), "{}", way.name);
        trial.assert_equal(way.name);
    }
}

// Attacks: a `run` that is told to looks by itself.
#[test]
fn what_no_trigger_can_capture_is_found_by_the_clock() {
    let test = "what_no_trigger_can_capture_is_found_by_the_clock";
    let Some(mut trial) = begin(test) else { return };
    trial.redtail = trial.redtail.with_env("REDTAIL_AUDIT_EVERY", "300ms");
    trial.follow(true);
    let mut hidden = 0;
    for way in WAYS {
        if written(test, way, &mut trial) {
            trial.becomes_equal(way.name);
            hidden += way.differ.len();
        }
    }
    // The rows are mended a moment before they are counted.
    trial.run().until("every difference is counted", |s| s["work"]["audits"]["differences"] == hidden);
    let said = trial.run().said();
    assert!(said.contains("mended, in e; something writes past capture (triggers switched off?)"), "{said}");
    trial.stop();
}

/// Lives of one `run` that are tried: each is far shorter than the time between two comparisons.
const LIVES: usize = 200;

// Attacks: a time that is counted from the start of a process never comes for one that is started anew more often.
#[test]
fn the_clock_goes_on_from_one_run_to_the_next() {
    let test = "the_clock_goes_on_from_one_run_to_the_next";
    let Some(mut trial) = begin(test) else { return };
    trial.redtail = trial.redtail.with_env("REDTAIL_AUDIT_EVERY", "2s");
    trial.follow(true);
    let way = Way { name: "a TEMP trigger that ignores", ..WAYS[1] };
    assert!(written(test, &way, &mut trial));
    let mended = (0..LIVES).any(|_| {
        trial.stop();
        trial.live();
        trial.compare().equal
    });
    assert!(mended, "it was never compared");
    trial.stop();
}
