//! VACUUM renumbers the rows of a table that has neither an INTEGER PRIMARY KEY nor an index.

use std::fs;

use crate::support::trial::{Control, Script, Trial};

/// Rows that lie apart, keyed by rowid; and one with NULL in its key.
const SETUP: &[&str] = &[
    "CREATE TABLE bare(x, y)",
    "CREATE TABLE nulls(k PRIMARY KEY, v)",
    "CREATE TABLE own(id INTEGER PRIMARY KEY, v)",
    "INSERT INTO bare VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd'), (5, 'e'), (6, 'f')",
    "INSERT INTO nulls VALUES (NULL, 1), (NULL, 2), (NULL, 3), (4, 4)",
    "INSERT INTO own VALUES (1, 1), (2, 2)",
    "DELETE FROM bare WHERE x IN (1, 3)",
    "DELETE FROM nulls WHERE v = 1",
];

/// What goes wrong if the old numbers are still believed.
const WRITES: [&str; 3] = [
    "DELETE FROM bare WHERE x = 2",
    "UPDATE bare SET y = y || '!' WHERE x = 6",
    "UPDATE nulls SET v = -v WHERE k IS NULL",
];

// Attacks: tables keyed by rowid are reconciled whenever the schema version moved.
#[test]
fn rows_are_found_again_after_vacuum_renumbered_them() {
    let test = "rows_are_found_again_after_vacuum_renumbered_them";
    let script = Script {
        setup: SETUP,
        steps: &[
            &["VACUUM", WRITES[0], WRITES[1], WRITES[2]],
            &["DELETE FROM bare WHERE x = 5", "VACUUM"],
            &["DELETE FROM bare WHERE x = 4", "DELETE FROM bare WHERE x = 6"],
        ],
    };
    script.holds(test);
    script.is_caught(test, Control::Blind);
}

// Attacks: the same, where another change of the schema, which needs a repair, hides it.
#[test]
fn a_vacuum_hidden_behind_other_changes_of_the_schema_is_seen() {
    let test = "a_vacuum_hidden_behind_other_changes_of_the_schema_is_seen";
    let script = Script {
        setup: SETUP,
        steps: &[
            &["VACUUM", "CREATE TABLE more(id INTEGER PRIMARY KEY)", WRITES[0], WRITES[1], WRITES[2]],
            &[
                "ALTER TABLE own ADD COLUMN w",
                "DELETE FROM bare WHERE x = 5",
                "VACUUM",
                "CREATE UNIQUE INDEX own_v ON own(v)",
            ],
            &["DELETE FROM bare WHERE x = 4"],
        ],
    };
    script.holds(test);
    script.is_caught(test, Control::Blind);
}

// Attacks: what another process repaired meanwhile hides nothing either: the replica keeps the schema
// version it was read at.
#[test]
fn a_vacuum_before_somebody_elses_repair_is_seen() {
    let Some(mut trial) = Trial::begin("a_vacuum_before_somebody_elses_repair_is_seen", None) else { return };
    trial.application(&["CREATE TABLE beat(n)", "INSERT INTO beat VALUES (0)"]);
    trial.application(SETUP);
    trial.follow(false);
    trial.application(&["VACUUM", "DROP TRIGGER _redtail_1_ai"]);
    trial.redtail.ok(&["init", "-s", "source.db"]);
    trial.redtail.sync("source.db", "another.redb");
    trial.application(&WRITES);
    trial.assert_equal("after another's repair");
}

// Attacks: a file that is written out and read in again, with its log id and entries, has other numbers.
#[test]
fn a_copy_made_by_vacuum_into_and_put_in_place_is_followed() {
    let Some(mut trial) = Trial::begin("a_copy_made_by_vacuum_into_and_put_in_place_is_followed", None)
    else {
        return;
    };
    trial.application(&["CREATE TABLE beat(n)", "INSERT INTO beat VALUES (0)"]);
    trial.application(SETUP);
    trial.follow(false);
    let copy = trial.source().with_file_name("copy.db");
    trial.application(&[format!("VACUUM INTO '{}'", copy.display())]);
    fs::rename(copy, trial.source()).unwrap();
    trial.application(&WRITES);
    trial.assert_equal("the copy in its place");
}

// Attacks: VACUUM keeps the order in which triggers and view stand: capture is not taken to be another.
#[test]
fn vacuum_leaves_capture_as_it_is() {
    let Some(mut trial) = Trial::begin("vacuum_leaves_capture_as_it_is", None) else { return };
    trial.application(&["PRAGMA journal_mode = WAL", "CREATE TABLE beat(n)", "INSERT INTO beat VALUES (0)"]);
    trial.application(SETUP);
    trial.follow(true);
    let ids = "SELECT count(*), sum(id), max(id) FROM _redtail_tables";
    let before = trial.integers(ids);
    trial.application(&[
        "VACUUM",
        "ANALYZE",
        "REINDEX",
        "DELETE FROM own",
        "PRAGMA auto_vacuum = 1",
        "VACUUM",
    ]);
    trial.assert_equal("after VACUUM");
    assert_eq!(trial.integers(ids), before, "nothing was repaired");
}
