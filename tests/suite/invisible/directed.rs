//! Statements by which a capture is most easily seen, one list for each reason.

use super::Pair;

const TABLE: &[&str] = &[
    "CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE, b NOT NULL DEFAULT 'z', c)",
    "CREATE UNIQUE INDEX t_e ON t(lower(b), c) WHERE c IS NOT NULL",
    "INSERT INTO t VALUES (1, 'a', 'x', 1), (2, 'b', 'y', 2), (5, 'c', 'z', NULL)",
];

// Attacks: entries are inserted by the application's own statement, and must not be counted with it.
#[test]
fn counts_and_the_last_rowid_are_the_applications() {
    let Some(mut pair) = Pair::start("counts_and_the_last_rowid_are_the_applications") else { return };
    pair.assert_same(
        TABLE,
        &[
            "SELECT changes(), last_insert_rowid()",
            "INSERT INTO t(a) VALUES ('d') RETURNING id, last_insert_rowid(), changes()",
            "INSERT INTO t(a) VALUES ('e'), ('f'), ('g')",
            "UPDATE t SET c = id",
            "UPDATE t SET id = id + 100 WHERE id < 3",
            "REPLACE INTO t(a, b) VALUES ('d', 'new') RETURNING *",
            "UPDATE OR REPLACE t SET a = 'e' WHERE a = 'f' RETURNING *",
            "INSERT INTO t(a) VALUES ('e') ON CONFLICT(a) DO UPDATE SET c = changes() RETURNING *",
            "INSERT OR IGNORE INTO t(a) VALUES ('e')",
            "DELETE FROM t WHERE id > 100 RETURNING id",
            "DELETE FROM t",
            "DELETE FROM t",
            "INSERT INTO t(a) SELECT 1 WHERE 0",
            "SELECT changes(), last_insert_rowid()",
        ],
    );
}

// Attacks: what the application's own triggers see of counts and rowids, in the middle of a statement.
#[test]
fn counts_inside_the_applications_triggers_are_its_own() {
    let Some(mut pair) = Pair::start("counts_inside_the_applications_triggers_are_its_own") else { return };
    let mut setup = TABLE.to_vec();
    setup.push("CREATE TABLE log(id INTEGER PRIMARY KEY, what, n, r)");
    let events =
        ["BEFORE INSERT", "AFTER INSERT", "BEFORE UPDATE", "AFTER UPDATE", "BEFORE DELETE", "AFTER DELETE"];
    let triggers: Vec<String> = events
        .iter()
        .flat_map(|event| {
            ["early", "late"].map(|when| {
                format!("CREATE TRIGGER \"{when} {event}\" {event} ON t BEGIN INSERT INTO log(what, n, r) VALUES ('{when} {event}', changes(), last_insert_rowid());
                         UPDATE log SET n = n + changes() * 1000 WHERE id = last_insert_rowid(); END")
            })
        })
        .collect();
    let (early, late): (Vec<&str>, Vec<&str>) =
        triggers.iter().map(String::as_str).partition(|t| t.contains("\"early"));
    let mut script = late;
    script.extend([
        "INSERT INTO t(a) VALUES ('d'), ('e')",
        "UPDATE t SET c = 9 WHERE id > 2",
        "UPDATE OR REPLACE t SET a = 'd', id = id + 10 WHERE id = 2",
        "REPLACE INTO t(a, b) VALUES ('a', 'q')",
        "DELETE FROM t WHERE c IS NULL",
        "PRAGMA recursive_triggers = ON",
        "REPLACE INTO t(a) VALUES ('d')",
        "SELECT * FROM log",
        "DELETE FROM t",
        "SELECT * FROM log",
    ]);
    setup.extend(early);
    pair.assert_same(&setup, &script);
}

// Attacks: every kind of refusal, with its code and its words.
#[test]
fn errors_are_the_databases_own() {
    let Some(mut pair) = Pair::start("errors_are_the_databases_own") else { return };
    let mut setup = TABLE.to_vec();
    setup.extend([
        "CREATE TABLE p(k TEXT PRIMARY KEY) WITHOUT ROWID",
        "CREATE TABLE f(a REFERENCES p(k), b CHECK (b > 0), c NOT NULL)",
        "CREATE TABLE s(a INT, b BLOB) STRICT",
        "CREATE TRIGGER f_no BEFORE INSERT ON f WHEN NEW.b = 13 BEGIN SELECT RAISE(ABORT, 'unlucky'); END",
        "INSERT INTO p VALUES ('k')",
        "INSERT INTO f VALUES ('k', 1, 1)",
    ]);
    let words = ["", " OR ABORT", " OR FAIL", " OR IGNORE", " OR ROLLBACK", " OR REPLACE"];
    let script: Vec<String> = ["PRAGMA foreign_keys = ON".to_owned()]
        .into_iter()
        .chain(words.iter().flat_map(|or| {
            [
                format!("INSERT{or} INTO t(a) VALUES ('new{or}'), ('a')"),
                format!("INSERT{or} INTO t(id, a) VALUES (1, 'other')"),
                format!("UPDATE{or} t SET a = 'b'"),
                format!("UPDATE{or} t SET b = 'X', c = 1"),
                format!("UPDATE{or} t SET b = NULL WHERE id = 2"),
                format!("INSERT{or} INTO f VALUES ('none', 1, 1)"),
                format!("INSERT{or} INTO f VALUES ('k', 0, 1)"),
                format!("INSERT{or} INTO f VALUES ('k', 1, NULL)"),
                format!("INSERT{or} INTO f VALUES ('k', 13, 1)"),
                format!("INSERT{or} INTO s VALUES ('x', 1)"),
                format!("UPDATE{or} p SET k = 'moved'"),
                format!("INSERT{or} INTO p VALUES ('k')"),
                "BEGIN".to_owned(),
                format!("INSERT{or} INTO p VALUES ('l'), ('k')"),
                "ROLLBACK".to_owned(),
            ]
        }))
        .chain(
            [
                "DELETE FROM p",
                "DROP TABLE p",
                "INSERT INTO t SELECT * FROM nowhere",
                "UPDATE t SET nothing = 1",
            ]
            .map(str::to_owned),
        )
        .collect();
    pair.assert_same(&setup, &script.iter().map(String::as_str).collect::<Vec<_>>());
}

// Attacks: triggers name key columns and those of unique indexes, so that other columns come and go freely.
#[test]
fn schema_changes_succeed_and_fail_as_without_capture() {
    let Some(mut pair) = Pair::start("schema_changes_succeed_and_fail_as_without_capture") else { return };
    let mut setup = TABLE.to_vec();
    setup.extend([
        "CREATE TABLE u(k TEXT PRIMARY KEY, v, w, lower)",
        "CREATE UNIQUE INDEX u_e ON u(lower(v))",
        "INSERT INTO u VALUES ('a', 'b', 'c', 'd')",
        "CREATE TABLE w(k INTEGER PRIMARY KEY, b, c TEXT, d, e)",
        "CREATE UNIQUE INDEX w_c ON w(CASE WHEN b > c THEN b ELSE 'z' END, k > 0) WHERE d > 'a'",
        "INSERT INTO w VALUES (1, 1, '2', 'b', NULL)",
        "CREATE VIEW shown AS SELECT a, b FROM t",
    ]);
    pair.assert_same(
        &setup,
        &[
            "ALTER TABLE u ADD COLUMN x DEFAULT 7",
            "ALTER TABLE u DROP COLUMN w",
            "ALTER TABLE u DROP COLUMN v",
            "ALTER TABLE u DROP COLUMN k",
            "ALTER TABLE u RENAME COLUMN v TO vv",
            "ALTER TABLE u RENAME COLUMN k TO \"the key\"",
            "INSERT INTO u(\"the key\", vv) VALUES ('c', 'c'), ('d', 'B')",
            "REPLACE INTO u(\"the key\", vv) VALUES ('c', 'B')",
            "ALTER TABLE u RENAME TO \"u 2\"",
            "ALTER TABLE w RENAME COLUMN b TO bb",
            "ALTER TABLE w RENAME COLUMN c TO \"the c\"",
            "ALTER TABLE w RENAME COLUMN d TO dd",
            "ALTER TABLE w DROP COLUMN e",
            "REPLACE INTO w(bb, \"the c\", dd) VALUES (0, '1', 'c') RETURNING *",
            "ALTER TABLE w RENAME TO w2",
            "UPDATE OR REPLACE w2 SET dd = 'bb' RETURNING *",
            "UPDATE \"u 2\" SET vv = 'q', x = changes()",
            "ALTER TABLE t RENAME COLUMN a TO aa",
            "ALTER TABLE t RENAME TO t2",
            "DROP VIEW shown",
            "ALTER TABLE t RENAME TO t2",
            "INSERT INTO t2(aa) VALUES ('new') RETURNING *",
            "BEGIN",
            "CREATE TABLE anew(id INTEGER PRIMARY KEY, aa UNIQUE)",
            "INSERT INTO anew SELECT id, aa FROM t2",
            "DROP TABLE t2",
            "ALTER TABLE anew RENAME TO t2",
            "INSERT INTO t2(aa) VALUES ('newer') RETURNING *",
            "COMMIT",
            "DROP INDEX u_e",
            "UPDATE \"u 2\" SET vv = 'Q' RETURNING *",
            "CREATE UNIQUE INDEX u_f ON \"u 2\"(vv, x)",
            "REPLACE INTO \"u 2\"(\"the key\", vv) VALUES ('x', 'Q')",
            "DROP TABLE \"u 2\"",
            "SELECT * FROM t2",
        ],
    );
}

// Attacks: names of the application that are ours inside the triggers, and tables without any rowid's name.
#[test]
fn nothing_is_seen_in_tables_of_strange_shapes() {
    let Some(mut pair) = Pair::start("nothing_is_seen_in_tables_of_strange_shapes") else { return };
    pair.assert_same(
        &[
            "CREATE TABLE new(old, new UNIQUE, _r, _n, PRIMARY KEY(old))",
            "CREATE UNIQUE INDEX new_e ON new(_r || _n)",
            "CREATE TABLE rowid(rowid, oid UNIQUE, _rowid_, id INTEGER PRIMARY KEY)",
            "CREATE TABLE app(k TEXT COLLATE app PRIMARY KEY, f)",
            "CREATE UNIQUE INDEX app_f ON app(app_twice(f))",
            "CREATE TABLE g(id INTEGER PRIMARY KEY, n, r AS (id % 3), UNIQUE(n, r))",
        ],
        &[
            "INSERT INTO new VALUES (1, 2, 3, 4), (NULL, 3, 4, 5) RETURNING *, rowid",
            "REPLACE INTO new VALUES (NULL, 2, 4, 5) RETURNING *, rowid",
            "UPDATE OR REPLACE new SET rowid = 9, new = 7 RETURNING *, rowid",
            "INSERT INTO rowid VALUES (1, 2, 3, NULL), (1, 3, 3, NULL) RETURNING *",
            "UPDATE OR IGNORE rowid SET oid = 2 RETURNING *",
            "INSERT INTO app VALUES ('a', 1), ('A', 2)",
            "INSERT OR IGNORE INTO app VALUES ('a', 1), ('A', 2), ('b', x'00')",
            "REPLACE INTO app VALUES ('A', 2), ('b', 2) RETURNING *",
            "INSERT INTO g(n) VALUES (1), (1), (1), (1) RETURNING *",
            "REPLACE INTO g(n) VALUES (1), (1) RETURNING *",
            "UPDATE g SET id = id + 1 WHERE id > 1 RETURNING *",
            "INSERT INTO new(old, _r) VALUES (x'00', zeroblob(100000)), ('', '') RETURNING length(_r)",
        ],
    );
}
