//! The application changes its schema while it writes and while a `run` follows: one process, never started
//! again, and what it had before can be read until the table is whole in its new form.

use serde_json::Value;

use crate::support::redtail::Run;
use crate::support::trial::Trial;
use crate::support::writer::{EVENTS, Ledger, Writer};
use crate::support::{Chance, note, poll};

/// One change of the schema, and what is written around it.
struct Change {
    name: &'static str,
    sql: &'static [&'static str],
}

const START: &[&str] = &[
    "PRAGMA journal_mode = WAL",
    "CREATE TABLE beat(n)",
    "INSERT INTO beat VALUES (0)",
    EVENTS,
    "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, v, w)",
    "CREATE TABLE bare(a, b)",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) INSERT INTO t SELECT i, 'name ' || i, i, i FROM n",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) INSERT INTO bare SELECT i, 'b' FROM n",
];

#[rustfmt::skip]
const CHANGES: &[Change] = &[
    Change { name: "a column added", sql: &[
        "UPDATE t SET v = -1 WHERE id = 1",
        "ALTER TABLE t ADD COLUMN added TEXT DEFAULT 'new'",
        "UPDATE t SET added = 'set' WHERE id < 10",
    ]},
    Change { name: "a column added that has no default", sql: &["ALTER TABLE bare ADD COLUMN c"] },
    Change { name: "a generated column added", sql: &["ALTER TABLE t ADD COLUMN twice AS (v || v)"] },
    Change { name: "a column dropped", sql: &[
        "ALTER TABLE t DROP COLUMN w",
        "INSERT INTO t(id, name) VALUES (1001, 'after the drop')",
    ]},
    Change { name: "a column renamed", sql: &[
        "ALTER TABLE t RENAME COLUMN name TO title",
        "UPDATE t SET title = upper(title) WHERE id % 7 = 0",
    ]},
    Change { name: "the key renamed", sql: &["ALTER TABLE t RENAME COLUMN id TO number", "DELETE FROM t WHERE number = 2"] },
    Change { name: "a column of another type, as libSQL has it", sql: &["ALTER TABLE t ALTER COLUMN title TO title INTEGER"] },
    Change { name: "a table renamed", sql: &["ALTER TABLE t RENAME TO things", "DELETE FROM things WHERE number = 3"] },
    Change { name: "a table that takes the old name", sql: &[
        "CREATE TABLE t(k TEXT PRIMARY KEY, v) WITHOUT ROWID",
        "INSERT INTO t VALUES ('a', 1), ('b', 2)",
    ]},
    Change { name: "two tables that change their names", sql: &[
        "BEGIN IMMEDIATE",
        "ALTER TABLE t RENAME TO interim",
        "ALTER TABLE things RENAME TO t",
        "ALTER TABLE interim RENAME TO things",
        "COMMIT",
        "INSERT INTO things VALUES ('c', 3)",
    ]},
    Change { name: "copied and renamed", sql: &[
        "BEGIN IMMEDIATE",
        "CREATE TABLE new_t(number INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT COLLATE NOCASE NOT NULL, v REAL)",
        "INSERT INTO new_t SELECT number, title, v FROM t",
        "DROP TABLE t",
        "ALTER TABLE new_t RENAME TO t",
        "COMMIT",
        "UPDATE t SET v = v + 1 WHERE number % 5 = 0",
    ]},
    Change { name: "copied and renamed, to another key", sql: &[
        "PRAGMA foreign_keys = OFF",
        "BEGIN IMMEDIATE",
        "CREATE TABLE new_t(number INTEGER, title TEXT COLLATE NOCASE, v, PRIMARY KEY(title, number DESC))",
        "INSERT INTO new_t SELECT number, title, v FROM t",
        "DROP TABLE t",
        "ALTER TABLE new_t RENAME TO t",
        "COMMIT",
        "REPLACE INTO t VALUES (5, 'NAME 5', 'replaced'), (6, NULL, 'no title')",
    ]},
    Change { name: "dropped, and made again as it was", sql: &[
        "DROP TABLE things",
        "CREATE TABLE things(k TEXT PRIMARY KEY, v) WITHOUT ROWID",
        "INSERT INTO things VALUES ('b', 'again')",
    ]},
    Change { name: "the same in one transaction", sql: &[
        "BEGIN IMMEDIATE",
        "DROP TABLE things",
        "CREATE TABLE things(k TEXT PRIMARY KEY, v) WITHOUT ROWID",
        "INSERT INTO things VALUES ('a', 'and again')",
        "COMMIT",
    ]},
    Change { name: "dropped, and made again as another one", sql: &[
        "BEGIN IMMEDIATE",
        "DROP TABLE things",
        "CREATE TABLE things(x BLOB, y)",
        "INSERT INTO things VALUES (x'00', 1), (x'00', 1)",
        "COMMIT",
    ]},
    Change { name: "new tables", sql: &[
        "CREATE TABLE note(id INTEGER PRIMARY KEY, body)",
        "INSERT INTO note(body) VALUES ('one'), ('two')",
        "CREATE TABLE filled AS SELECT number, title FROM t",
        "CREATE TEMP TABLE not_followed(x)",
    ]},
    Change { name: "a unique index made, and rows evicted through it", sql: &[
        "CREATE UNIQUE INDEX note_body ON note(body)",
        "REPLACE INTO note(body) VALUES ('one')",
        "UPDATE OR REPLACE note SET body = 'two' WHERE body = 'one'",
    ]},
    Change { name: "the unique index dropped, and its column", sql: &[
        "DROP INDEX note_body",
        "INSERT INTO note(body) VALUES ('two')",
    ]},
    Change { name: "triggers and views of the application", sql: &[
        "CREATE TRIGGER note_at AFTER INSERT ON note BEGIN UPDATE note SET body = NEW.body || '!' WHERE id = NEW.id; END",
        "CREATE VIEW shown AS SELECT * FROM note",
        "INSERT INTO note(body) VALUES ('three')",
        "DROP TRIGGER note_at",
    ]},
    Change { name: "rows renumbered", sql: &[
        "DELETE FROM bare WHERE a % 3 = 0",
        "VACUUM",
        "UPDATE bare SET b = 'renumbered' WHERE a % 2 = 0",
    ]},
    Change { name: "a column dropped that the search for evicted keys named", sql: &[
        "CREATE UNIQUE INDEX bare_c ON bare(c) WHERE c > 0",
        "UPDATE bare SET c = a",
        "DROP INDEX bare_c",
    ]},
    Change { name: "dropped for good", sql: &["DROP TABLE filled", "DROP VIEW shown"] },
];

/// Plays every change beside a writer; the process must be the same one in the end.
#[test]
fn schema_changes_under_a_live_writer_are_followed_without_a_restart() {
    let test = "schema_changes_under_a_live_writer_are_followed_without_a_restart";
    let mut chance = Chance::new(test);
    let Some(mut trial) = Trial::begin(test, None) else { return };
    trial.application(START);
    trial.follow(true);
    let pid = trial.run().pid();
    let mut ledger = Ledger::default();
    for change in CHANGES {
        let writer = Writer::start(&trial.source(), ledger, chance.fork());
        writer.wait_more(5);
        change.play(&mut trial);
        writer.wait_more(10);
        ledger = writer.stop();
        trial.assert_equal(change.name);
    }
    assert_eq!(trial.integers(Ledger::SELECT), ledger.sums(), "the writer was not disturbed");
    // The column of an index that is gone: only after a repair (docs/capture.md), which was just now.
    trial.application(&["ALTER TABLE note DROP COLUMN body", "ALTER TABLE bare DROP COLUMN c"]);
    trial.assert_equal("columns dropped after their index");
    // Capture taken out and put in again under the same process.
    trial.redtail.ok(&["remove", "-s", "source.db", "--force"]);
    trial.application(&["UPDATE t SET v = 'unseen' WHERE number % 2 = 0", "DELETE FROM bare WHERE a < 50"]);
    trial.redtail.ok(&["init", "-s", "source.db"]);
    trial.becomes_equal("removed and put in again");
    trial.application(&["UPDATE t SET v = 'seen' WHERE number % 3 = 0"]);
    trial.assert_equal("followed on");
    assert_eq!(trial.run().pid(), pid);
}

impl Change {
    fn play(&self, trial: &mut Trial) {
        // SQLite itself has no ALTER COLUMN: that one is libSQL's, and the writer's library plays it.
        if self.sql.iter().any(|sql| sql.contains("ALTER COLUMN")) {
            crate::support::writer::application(&trial.source(), self.sql);
        } else {
            trial.application(self.sql);
        }
    }
}

#[test]
fn a_journal_mode_that_changes_is_followed() {
    let Some(mut trial) = Trial::begin("a_journal_mode_that_changes_is_followed", None) else { return };
    trial.application(&["PRAGMA journal_mode = DELETE"]);
    trial.application(&START[1..]);
    trial.follow(true);
    let pid = trial.run().pid();
    let mode = |trial: &mut Trial| trial.texts("SELECT journal_mode FROM pragma_journal_mode")[0].clone();
    for wanted in ["wal", "delete", "wal"] {
        // Switching away from WAL needs the file for itself: a process that has it open keeps it in WAL.
        let mut tried = 0;
        let switched = poll(|| {
            tried += 1;
            let sql = format!("PRAGMA journal_mode = {wanted}");
            let db = trial.source();
            trial.oracle.ask(&serde_json::json!({"op": "play", "db": db, "sql": [sql]}));
            (mode(&mut trial) == wanted || wanted == "delete").then_some(())
        });
        assert!(switched.is_some(), "{wanted}: after {tried} times");
        trial.application(&[
            "UPDATE t SET v = v + 1 WHERE id % 2 = 0",
            "INSERT INTO bare VALUES (1, 'journal')",
        ]);
        trial.assert_equal(wanted);
    }
    assert_eq!(trial.run().pid(), pid);
}

/// Rows of a table that is under way for a while, as its ranges are of so few rows.
const MANY: u32 = 6_000;
const CHUNK: &str = "60";

/// A `run` with small ranges, each seen by itself; `big` is made, and copied if `copied`.
fn begin_big(test: &str, rows: u32, copied: bool) -> Option<Trial> {
    let mut trial = Trial::begin(test, None)?;
    let each = trial.redtail.with_env("REDTAIL_CHUNK_ROWS", CHUNK);
    trial.redtail = each.with_env("REDTAIL_MAX_TRANSACTION", "0s");
    let fill = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) INSERT INTO big SELECT printf('k%06d', i), i, i % 7 FROM n"
    );
    let setup = [
        "PRAGMA journal_mode = WAL",
        "CREATE TABLE beat(n)",
        "INSERT INTO beat VALUES (0)",
        "CREATE TABLE big(k TEXT NOT NULL PRIMARY KEY, v, w)",
        fill.as_str(),
    ];
    if copied {
        trial.application(&setup);
        trial.follow(true);
    } else {
        trial.application(&setup[..4]);
        trial.follow(true);
        trial.application(&setup[4..]);
    }
    Some(trial)
}

/// What a running process says of one table.
fn reconciling(run: &mut Run, name: &str) -> bool {
    let status = run.status();
    status["reconciling"].as_array().unwrap().iter().any(|table| table == name)
}

// Attacks: until a table is whole in its new form, each of its rows is there in one form or the other.
#[test]
fn rows_stay_readable_while_their_table_is_reconciled() {
    let test = "rows_stay_readable_while_their_table_is_reconciled";
    let rows = MANY * 3;
    let Some(mut trial) = begin_big(test, rows, true) else { return };
    let changes: &[&[&str]] = &[
        &["ALTER TABLE big ADD COLUMN x DEFAULT 5"],
        &["ALTER TABLE big DROP COLUMN w"],
        &[
            "BEGIN IMMEDIATE",
            "CREATE TABLE copy(k TEXT NOT NULL PRIMARY KEY, v, x, y DEFAULT 'y')",
            "INSERT INTO copy(k, v, x) SELECT k, v, x FROM big",
            "DROP TABLE big",
            "ALTER TABLE copy RENAME TO big",
            "COMMIT",
        ],
        &["ALTER TABLE big RENAME COLUMN x TO xx"],
        &["ALTER TABLE big ADD COLUMN z"],
    ];
    let mut looks = 0;
    for change in changes {
        trial.application(change);
        let whole = poll(|| {
            let before = reconciling(trial.run(), "big");
            // The first rows have their new form early, the last ones keep the old one to the end.
            for (key, v) in [("k000001", 1), (format!("k{rows:06}").as_str(), rows)] {
                let line = trial.redtail.ok(&["get", "big", key, "-r", "replica.redb"]);
                let row: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{key}: {e}: {line}"));
                assert_eq!((&row["key"][0], &row["row"]["v"]), (&key.into(), &v.into()), "{row}");
            }
            let after = reconciling(trial.run(), "big");
            looks += u32::from(before && after);
            let found = trial.redtail.ok(&["scan", "big", "-r", "replica.redb"]).lines().count();
            assert_eq!(found, rows as usize, "each row once, in one form or the other");
            (!before && !after).then_some(())
        });
        assert!(whole.is_some(), "{change:?}: never whole");
        trial.assert_equal(&format!("{change:?}"));
    }
    note(&format!("{test}: {looks} looks while it was reconciled"));
    assert!(looks > 0, "never seen under way: give it more rows");
}

// Attacks: a first copy under way whose table gets another definition: what was copied by the old one
// is not taken for the new one's.
#[test]
fn a_change_in_the_middle_of_a_first_copy_begins_that_table_again() {
    let test = "a_change_in_the_middle_of_a_first_copy_begins_that_table_again";
    let changes: &[&[&str]] = &[
        &["ALTER TABLE big ADD COLUMN x DEFAULT 5"],
        &["ALTER TABLE big RENAME COLUMN v TO vv", "UPDATE big SET vv = -vv WHERE vv % 100 = 0"],
        &[
            "BEGIN IMMEDIATE",
            "CREATE TABLE copy(v, k TEXT COLLATE NOCASE NOT NULL PRIMARY KEY)",
            "INSERT INTO copy(k, v) SELECT k, v + 1 FROM big WHERE v % 3 <> 0",
            "DROP TABLE big",
            "ALTER TABLE copy RENAME TO big",
            "COMMIT",
        ],
        &["ALTER TABLE big RENAME TO renamed"],
        &[
            "DROP TABLE big",
            "CREATE TABLE big(k TEXT NOT NULL PRIMARY KEY, v, w)",
            "INSERT INTO big VALUES ('k000001', 'another', 1)",
        ],
        &["DELETE FROM big WHERE v < 50", "VACUUM", "UPDATE big SET w = 'after' WHERE v % 50 = 0"],
        &["CREATE UNIQUE INDEX big_v ON big(v)", "UPDATE OR REPLACE big SET v = v + 1 WHERE v % 1000 = 0"],
    ];
    for change in changes {
        let Some(mut trial) = begin_big(test, MANY, false) else { return };
        // The fill is one window; what makes it a copy under way is a repair of the whole table.
        trial.application(&["CREATE TRIGGER newer AFTER DELETE ON big BEGIN SELECT 1; END"]);
        let under_way = poll(|| {
            let status = trial.run().status();
            let table = status["tables"].as_array().unwrap().iter().find(|t| t["name"] == "big")?.clone();
            let copied = table["copied"].as_u64().unwrap_or(0);
            (table["state"] == "reconciling" && copied > 0 && copied < u64::from(MANY)).then_some(copied)
        });
        let under_way = under_way.expect("a copy under way");
        trial.application(change);
        trial.assert_equal(&format!("after {under_way} rows: {change:?}"));
    }
}
