//! `init` and `remove`: capture comes and goes, and nothing of the application's is touched.

use serde_json::Value;
use tempfile::TempDir;

use crate::support::oracle::Oracle;
use crate::support::redtail::Redtail;

/// One of everything that a schema may hold, and rows that fire its triggers.
const RICH: &[&str] = &[
    "PRAGMA user_version = 4711",
    "CREATE TABLE author(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, born)",
    "CREATE UNIQUE INDEX author_name ON author(lower(name)) WHERE born IS NOT NULL",
    "CREATE TABLE book(isbn TEXT PRIMARY KEY, author INTEGER REFERENCES author(id) ON DELETE CASCADE, title TEXT)
       WITHOUT ROWID",
    "CREATE INDEX book_author ON book(author, title DESC)",
    "CREATE TABLE journal(at, what)",
    "CREATE VIEW shelf AS SELECT name, title FROM author JOIN book ON author = author.id",
    "CREATE TRIGGER author_log AFTER UPDATE ON author BEGIN INSERT INTO journal VALUES (NEW.id, 'author'); END",
    "CREATE TRIGGER book_check BEFORE INSERT ON book WHEN NEW.title = '' BEGIN SELECT RAISE(IGNORE); END",
    "CREATE TRIGGER shelf_in INSTEAD OF INSERT ON shelf BEGIN INSERT INTO author(name) VALUES (NEW.name); END",
    "INSERT INTO author(name, born) VALUES ('Ann', 1900), ('Bob', NULL), ('Cy', 1.5)",
    "INSERT INTO book VALUES ('1', 1, 'One'), ('2', 1, ''), ('3', 2, 'Three')",
    "UPDATE author SET name = 'Anna' WHERE id = 1",
    "DELETE FROM author WHERE id = 3",
];

/// No AUTOINCREMENT: a `sqlite_sequence` that appears could never be taken away again.
const PLAIN: &[&str] =
    &["CREATE TABLE note(id INTEGER PRIMARY KEY, body)", "INSERT INTO note VALUES (1, 'a')"];

#[test]
fn remove_leaves_the_schema_and_every_row_as_they_were() {
    stays("remove_leaves_the_schema_and_every_row_as_they_were", RICH, false);
}

#[test]
fn remove_leaves_a_plain_schema_as_it_was() {
    stays("remove_leaves_a_plain_schema_as_it_was", PLAIN, false);
}

#[test]
fn remove_by_force_leaves_the_schema_as_it_was_though_a_replica_follows() {
    stays("remove_by_force_leaves_the_schema_as_it_was_though_a_replica_follows", RICH, true);
}

#[test]
fn init_twice_changes_nothing_the_second_time() {
    let Some(mut oracle) = Oracle::start("init_twice_changes_nothing_the_second_time") else { return };
    let folder = TempDir::new().unwrap();
    let redtail = Redtail::new(folder.path());
    let source = redtail.path("source.db");
    oracle.script(&source, RICH);
    let plain = oracle.schema(&source);

    redtail.ok(&["init", "-s", "source.db"]);
    let once = oracle.schema(&source);
    assert_ne!(once["schema"], plain["schema"], "capture is installed");
    assert_eq!(once["user_version"], plain["user_version"]);
    let version = oracle.integers(&source, "SELECT schema_version FROM pragma_schema_version");
    let entries = oracle.query(&source, "SELECT count(*), max(seq) FROM _redtail_changelog");

    redtail.ok(&["init", "-s", "source.db"]);
    assert_eq!(oracle.schema(&source), once);
    assert_eq!(oracle.integers(&source, "SELECT schema_version FROM pragma_schema_version"), version);
    assert_eq!(oracle.query(&source, "SELECT count(*), max(seq) FROM _redtail_changelog"), entries);
}

fn stays(test: &str, sql: &[&str], followed: bool) {
    let Some(mut oracle) = Oracle::start(test) else { return };
    let folder = TempDir::new().unwrap();
    let redtail = Redtail::new(folder.path());
    let source = redtail.path("source.db");
    oracle.script(&source, sql);
    let before = oracle.schema(&source);
    let rows = all_rows(&mut oracle, &redtail, "before");
    let counters = sequences(&mut oracle, &redtail);

    if followed {
        redtail.sync("source.db", "replica.redb");
        redtail.ok(&["remove", "-s", "source.db", "--force"]);
    } else {
        redtail.ok(&["init", "-s", "source.db"]);
        assert_ne!(oracle.schema(&source), before, "capture is installed");
        redtail.ok(&["remove", "-s", "source.db"]);
    }
    assert_eq!(oracle.schema(&source), before);
    assert_eq!(all_rows(&mut oracle, &redtail, "after"), rows, "every row");
    assert_eq!(sequences(&mut oracle, &redtail), counters, "every AUTOINCREMENT");
    assert_eq!(oracle.query(&source, "PRAGMA integrity_check")[0][0]["value"], "ok");

    // What was taken out can be put in again, and taken out again.
    redtail.ok(&["init", "-s", "source.db"]);
    redtail.ok(&["remove", "-s", "source.db"]);
    assert_eq!(oracle.schema(&source), before);
}

/// Every row of every table, typed, as the oracle reads it.
fn all_rows(oracle: &mut Oracle, redtail: &Redtail, name: &str) -> String {
    let out = redtail.path(name);
    let count = oracle.dump(&redtail.path("source.db"), &out);
    assert!(count > 0, "there is something to lose");
    std::fs::read_to_string(out).unwrap()
}

/// The AUTOINCREMENT counters, or nothing where no table has one.
fn sequences(oracle: &mut Oracle, redtail: &Redtail) -> Value {
    let source = redtail.path("source.db");
    let exists = "SELECT count(*) FROM sqlite_schema WHERE name = 'sqlite_sequence'";
    if oracle.integers(&source, exists) == [0] {
        return Value::Null;
    }
    oracle.query(&source, "SELECT name, seq FROM sqlite_sequence ORDER BY name")
}
