//! The few places where capture is seen, each with its way round: what docs/capture.md says, and no more.

use super::{Pair, init};

fn owned(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

const SETUP: &[&str] = &[
    "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)",
    "CREATE UNIQUE INDEX t_a ON t(a)",
    "INSERT INTO t VALUES (1, 1, 1)",
];

/// The one statement that is seen, of a script that is not otherwise.
fn assert_only(pair: &mut Pair, script: &[&str], seen: &str) {
    let difference = pair.difference(&owned(script)).expect("it is seen");
    let first = difference.lines().next().unwrap_or_default();
    assert!(first.ends_with(seen), "{difference}");
}

#[test]
fn a_column_of_a_dropped_unique_index_is_dropped_after_a_repair() {
    let Some(mut pair) = Pair::start("a_column_of_a_dropped_unique_index_is_dropped_after_a_repair") else {
        return;
    };
    pair.set_up(&owned(SETUP), &[]);
    assert_only(&mut pair, &["DROP INDEX t_a", "ALTER TABLE t DROP COLUMN a"], "ALTER TABLE t DROP COLUMN a");
    // The way round: let the repair come between.
    let (plain, captured) = pair.files();
    for file in [plain, captured.clone()] {
        pair.plain.script(&file, &["DROP INDEX t_a", "INSERT INTO t VALUES (2, 1, 1)"]);
    }
    init(&captured);
    assert_eq!(
        pair.difference(&owned(&[
            "ALTER TABLE t DROP COLUMN a",
            "INSERT INTO t VALUES (3, 1)",
            "SELECT * FROM t"
        ])),
        None
    );
}

#[test]
fn a_changelog_dropped_by_hand_fails_writes_until_a_repair() {
    let Some(mut pair) = Pair::start("a_changelog_dropped_by_hand_fails_writes_until_a_repair") else {
        return;
    };
    let gone = "DROP TABLE _redtail_changelog";
    pair.set_up(&owned(SETUP), &owned(&[gone]));
    assert_only(
        &mut pair,
        &["SELECT * FROM t", "INSERT INTO t VALUES (2, 2, 2)"],
        "INSERT INTO t VALUES (2, 2, 2)",
    );
    pair.set_up(&owned(SETUP), &owned(&[gone]));
    let (_, captured) = pair.files();
    init(&captured);
    assert_eq!(pair.difference(&owned(&["INSERT INTO t VALUES (2, 2, 2)", "SELECT * FROM t"])), None);
}

/// What any trigger shows, and not capture alone.
#[test]
fn what_any_trigger_shows_is_shown() {
    let Some(mut pair) = Pair::start("what_any_trigger_shows_is_shown") else { return };
    let setup = [
        "CREATE TABLE p(id INTEGER PRIMARY KEY)",
        "CREATE TABLE c(a REFERENCES p(id))",
        "CREATE TABLE s(a INT, b TEXT NOT NULL, PRIMARY KEY(a, b)) STRICT",
    ];
    let scripts: [&[&str]; 4] = [
        // The number that a row had before a foreign key refused it.
        &["PRAGMA foreign_keys = ON", "INSERT INTO c VALUES (5)"],
        // Of two rules that are broken, the other one.
        &["INSERT INTO s(a) VALUES ('x')"],
        // A statement refused in its middle leaves nothing.
        &["BEGIN", "INSERT OR IGNORE INTO p VALUES (1), ('x')", "COMMIT"],
        // VACUUM leaves the size of the schema behind.
        &["VACUUM"],
    ];
    for script in scripts {
        pair.set_up(&owned(&setup), &[]);
        assert!(pair.difference(&owned(script)).is_some(), "{script:?} shows nothing: take it off the list");
        if script[0] != "VACUUM" {
            assert!(pair.is_as_with_any_trigger(&owned(&setup), &owned(script)), "{script:?}");
        }
    }
}
