//! Scripts that are known from the start: what random ones found, and what each deliberate fault breaks.

use super::case::Stage;
use super::script::read;
use crate::support::oracle::Oracle;
use crate::support::server::Server;

/// What the random scripts found, at its shortest; each was wrong once.
#[rustfmt::skip]
const FOUND: &[(&str, &[&str])] = &[
    ("a unique index over a generated column alone", &[
        "CREATE TABLE t(g AS (-b) VIRTUAL, k INTEGER PRIMARY KEY DESC, b REAL NOT NULL) WITHOUT ROWID",
        "CREATE UNIQUE INDEX i ON t(g COLLATE RTRIM DESC)",
        "-- sync",
        "INSERT INTO t(k, b) VALUES (1, 1), (2, 2)",
        "-- sync",
        "INSERT OR REPLACE INTO t(k, b) VALUES (3, 2)",
    ]),
    ("a generated column over a default that takes the place of NULL", &[
        "CREATE TABLE t(k TEXT PRIMARY KEY, n TEXT NOT NULL DEFAULT 'z', g AS (upper(n)) UNIQUE)",
        "INSERT INTO t(k) VALUES ('old')",
        "-- sync",
        "INSERT OR REPLACE INTO t(k, n) VALUES ('new', NULL)",
    ]),
    ("a default that its column's affinity changes, under a generated column", &[
        "CREATE TABLE t(k REAL NOT NULL DEFAULT 2 PRIMARY KEY, g AS (length(k)) UNIQUE) WITHOUT ROWID",
        "CREATE TABLE u(k INTEGER PRIMARY KEY, n NUMERIC NOT NULL DEFAULT '2.0', s TEXT NOT NULL DEFAULT 1.50, r REAL NOT NULL DEFAULT 'x2', i INT NOT NULL DEFAULT 3e0)",
        "CREATE UNIQUE INDEX u_n ON u(typeof(n) || n)",
        "CREATE UNIQUE INDEX u_s ON u(typeof(s) || s || 's')",
        "CREATE UNIQUE INDEX u_r ON u((r || typeof(r)))",
        "CREATE UNIQUE INDEX u_i ON u(length(i), typeof(i)) WHERE i = 3",
        "INSERT INTO t(k) VALUES (-0.0)",
        "INSERT INTO u VALUES (1, 2, 'a', 1, 1), (2, 5, '1.5', 2, 2), (3, 6, 'b', 'x2', 0), (4, 7, 'c', 4, 3)",
        "-- sync",
        "REPLACE INTO t(k) VALUES (NULL)",
        "REPLACE INTO u VALUES (11, NULL, 'd', 11, 11)",
        "REPLACE INTO u VALUES (12, 12, NULL, 12, 12)",
        "REPLACE INTO u VALUES (13, 13, 'e', NULL, 13)",
        "REPLACE INTO u VALUES (14, 14, 'f', 14, NULL)",
        "-- sync",
    ]),
    ("a NULL key after a window without one", &[
        "-- follow",
        "CREATE TABLE t(v UNIQUE, k TEXT PRIMARY KEY)",
        "INSERT INTO t VALUES (1, NULL)",
        "-- sync",
        "INSERT INTO t VALUES (2, 'a')",
        "-- sync",
        "UPDATE t SET v = 3 WHERE k IS NULL",
        "-- sync",
        "DELETE FROM t",
    ]),
    ("bookkeeping dropped beside a table that is left out", &[
        "-- follow",
        "CREATE TABLE t(v)",
        "CREATE TABLE u(v)",
        "-- sync",
        "-- configured: {\"t\":null}",
        "DROP TABLE _redtail_tables",
        "-- sync",
        "INSERT INTO t VALUES (1)",
        "INSERT INTO u VALUES (1)",
        "-- sync",
        "-- configured: {}",
    ]),
    ("an emptied changelog", &[
        "CREATE TABLE t(k)",
        "-- sync",
        "DELETE FROM _redtail_changelog",
        "INSERT INTO t VALUES (1)",
        "-- sync",
    ]),
    ("an emptied changelog, while run runs", &[
        "-- follow",
        "CREATE TABLE t(k)",
        "-- sync",
        "DELETE FROM _redtail_changelog",
        "INSERT INTO t VALUES (1)",
        "-- sync",
    ]),
    ("a generated column that compares, of a column whose NULL becomes a default", &[
        "CREATE TABLE t(k INTEGER PRIMARY KEY NOT NULL DEFAULT 1, g ANY AS (CASE WHEN v > k THEN v ELSE 'no' END), v TEXT) STRICT, WITHOUT ROWID",
        "CREATE UNIQUE INDEX i ON t(g)",
        "INSERT INTO t(k) VALUES (4)",
        "-- sync",
        "REPLACE INTO t(k, v) VALUES (1, '1.0')",
        "-- sync",
        "REPLACE INTO t(k, v) VALUES (NULL, '0.5')",
        "REPLACE INTO t(k, v) VALUES (7, '9')",
        "-- sync",
        "UPDATE OR REPLACE t SET k = 8, v = '2.0'",
    ]),
    ("columns called true and false, in an index on an expression", &[
        "CREATE TABLE t(k INTEGER PRIMARY KEY, \"true\", false TEXT, n INT) WITHOUT ROWID",
        "CREATE UNIQUE INDEX i ON t(CASE WHEN [true] > n THEN [true] ELSE 'no' END DESC)",
        "CREATE UNIQUE INDEX j ON t(lower(False) || TRUE) WHERE \"true\" IS NOT NULL",
        "INSERT INTO t VALUES (1, 'A', 'a', 'A  '), (2, 'x', 'b', 1)",
        "-- sync",
        "REPLACE INTO t VALUES (3, 0.5, 'c', 2)",
        "-- sync",
        "REPLACE INTO t VALUES (4, 'x', 'B', 'y')",
        "-- sync",
        "UPDATE OR REPLACE t SET \"true\" = 'x', false = 'd' WHERE k = 3",
        "ALTER TABLE t RENAME COLUMN [true] TO yes",
        "ALTER TABLE t RENAME COLUMN n TO true",
        "REPLACE INTO t VALUES (5, 'x', 'e', 0)",
    ]),
    ("a unique index that is the key again", &[
        "CREATE TABLE t(k INTEGER PRIMARY KEY AUTOINCREMENT, v)",
        "CREATE UNIQUE INDEX i ON t(k COLLATE BINARY)",
        "-- sync",
        "REPLACE INTO t VALUES (1, 1), (1, 2)",
    ]),
    ("a column called like the rowid, in an index on an expression", &[
        "CREATE TABLE t(a BLOB NOT NULL, b, oid DATETIME, PRIMARY KEY(a))",
        "CREATE UNIQUE INDEX i ON t((b + [oid]))",
        "INSERT INTO t VALUES (1, 1, 1), (2, 2, 2)",
        "-- sync",
        "REPLACE INTO t VALUES (3, 0, 2)",
    ]),
    ("the rowid's name as a string", &[
        "CREATE TABLE t(at, k BLOB PRIMARY KEY NOT NULL) WITHOUT ROWID",
        "CREATE UNIQUE INDEX i ON t(\"rowid\", \"rowid\") WHERE at > 3",
        "INSERT INTO t VALUES (4, 1)",
        "-- sync",
        "REPLACE INTO t VALUES (4, 2)",
    ]),
    ("the rowid's name as a string, beside a rowid", &[
        "CREATE TABLE t(k TEXT PRIMARY KEY, v)",
        "CREATE UNIQUE INDEX i ON t(\"RowId\", v)",
        "INSERT INTO t VALUES ('a', 1), ('b', 2)",
        "-- sync",
        "REPLACE INTO t VALUES ('c', 2)",
        "-- sync",
        "UPDATE OR REPLACE t SET v = 1 WHERE k = 'c'",
    ]),
    ("the rowid in the predicate of an index", &[
        "CREATE TABLE t(k TEXT PRIMARY KEY, v)",
        "CREATE UNIQUE INDEX i ON t(v) WHERE rowid > 1",
        "INSERT INTO t VALUES ('a', 1), ('b', 2), ('c', 3)",
        "-- sync",
        "REPLACE INTO t VALUES ('d', 2)",
        "-- sync",
        "UPDATE OR REPLACE t SET v = 3 WHERE k = 'd'",
    ]),
    ("a predicate that compares text with numbers", &[
        "CREATE TABLE t(e, o TEXT NOT NULL)",
        "CREATE UNIQUE INDEX i ON t(o DESC) WHERE o IN (0, 1, 'a')",
        "INSERT INTO t VALUES (1, 'A'), (2, '1')",
        "-- sync",
        "REPLACE INTO t VALUES (3, 1)",
    ]),
    ("a predicate that compares a blob in a text column", &[
        "CREATE TABLE t(e, o TEXT)",
        "CREATE UNIQUE INDEX i ON t(e) WHERE o > 5",
        "INSERT INTO t VALUES (1, 'A'), (2, x'01')",
        "-- sync",
        "REPLACE INTO t VALUES (2, x'02'), (1, 7)",
    ]),
    ("an expression that compares text with numbers and numbers with text", &[
        "CREATE TABLE t(k TEXT PRIMARY KEY, s TEXT, n INTEGER, r REAL, v)",
        "CREATE UNIQUE INDEX i ON t(CASE WHEN s = 1 THEN v END)",
        "CREATE UNIQUE INDEX j ON t(CASE n WHEN '2' THEN v END)",
        "CREATE UNIQUE INDEX l ON t((CASE WHEN r IN ('3', '4') THEN v END))",
        "INSERT INTO t VALUES ('a', '1', 0, 0, 'x'), ('b', 'b', 2, 0, 'y'), ('c', NULL, NULL, 3, 'z'), ('d', x'31', 'text', 0, 'x')",
        "-- sync",
        "REPLACE INTO t VALUES ('aa', 1, 0, 0, 'x')",
        "REPLACE INTO t VALUES ('bb', 'b', '2', 0, 'y')",
        "REPLACE INTO t VALUES ('cc', NULL, NULL, '3', 'z')",
        "-- sync",
        "UPDATE OR REPLACE t SET s = '1', v = 'x' WHERE k = 'bb'",
    ]),
    ("a generated column made of a column that no trigger names", &[
        "CREATE TABLE t(k INTEGER PRIMARY KEY, a, b, g AS (a || b) VIRTUAL UNIQUE, h AS (g || '!') STORED)",
        "CREATE UNIQUE INDEX i ON t(lower(h))",
        "INSERT INTO t(k, a, b) VALUES (1, 'x', 'y'), (2, 'v', 'y')",
        "-- sync",
        "UPDATE OR REPLACE t SET a = 'x' WHERE k = 2",
    ]),
    ("a table dropped in the window that wrote it", &[
        "CREATE TABLE t(a, b)",
        "-- sync",
        "INSERT INTO t VALUES (1, 1)",
        "DROP TABLE t",
    ]),
    ("a virtual column of real affinity that is a whole number", &[
        "CREATE TABLE t(k PRIMARY KEY, g REAL AS (k IS NULL) VIRTUAL)",
        "INSERT INTO t VALUES (1)",
        "-- sync",
        "INSERT INTO t VALUES (2)",
    ]),
    ("a generated column named by a keyword of its own expression", &[
        "CREATE TABLE t(k INTEGER PRIMARY KEY, e, \"NULL\" AS (k IS NULL) STORED)",
        "CREATE UNIQUE INDEX i ON t(e) WHERE \"NULL\" > 0",
        "-- sync",
        "INSERT INTO t VALUES (1, 1)",
    ]),
    ("a unique index over a generated column of a STRICT table", &[
        "CREATE TABLE t(r REAL AS (-b) VIRTUAL, k INTEGER PRIMARY KEY DESC, b REAL NOT NULL) STRICT, WITHOUT ROWID",
        "CREATE UNIQUE INDEX i1 ON t(r COLLATE RTRIM DESC)",
        "-- sync",
        "REPLACE INTO t(k, b) VALUES (1, 2.0)",
        "-- sync",
        "REPLACE INTO t(k, b) VALUES (2, 2.0)",
    ]),
    ("NULL in a key of two columns, in both directions, while run runs", &[
        "-- follow",
        "CREATE TABLE t(e TEXT, n REAL COLLATE NOCASE NOT NULL, v, PRIMARY KEY(e, n DESC))",
        "-- sync",
        "REPLACE INTO t VALUES ('a', 0.1, 0)",
        "-- sync",
        "REPLACE INTO t VALUES (NULL, 0.1, 4)",
        "-- sync",
        "UPDATE t SET v = 5 WHERE e IS NULL",
    ]),
    ("an emptied changelog, and nothing written", &[
        "CREATE TABLE t(k TEXT PRIMARY KEY)",
        "-- sync",
        "DELETE FROM _redtail_changelog",
    ]),
    ("an emptied changelog, and nothing written, while run runs", &[
        "-- follow",
        "CREATE TABLE t(k PRIMARY KEY)",
        "-- sync",
        "DELETE FROM _redtail_changelog",
    ]),
    ("a virtual column of real affinity beside a key that is sorted downwards", &[
        "CREATE TABLE s(c, id REAL AS (c IS NULL) VIRTUAL, d TEXT, PRIMARY KEY(c DESC))",
        "REPLACE INTO s(c, d) VALUES (-1, '')",
    ]),
    ("a column added where text is sorted otherwise", &[
        "-- small windows",
        "PRAGMA encoding = 'utf-16be'",
        "CREATE TABLE t(a DATETIME PRIMARY KEY) WITHOUT ROWID",
        "INSERT INTO t VALUES (char(97, 0, 98)), ('😀'), (9007199254740993), (0.0), (CAST(x'd800' AS TEXT))",
        "-- sync",
        "INSERT INTO t VALUES ('A  '), ('')",
        "ALTER TABLE t ADD COLUMN e INT",
    ]),
    ("a copy put back in which a table has the name that another got since", &[
        "CREATE TABLE a(s BLOB, k INTEGER PRIMARY KEY DESC)",
        "-- sync",
        "ALTER TABLE a RENAME TO v",
        "-- backup",
        "ALTER TABLE v RENAME TO w",
        "CREATE TABLE v(b COLLATE RTRIM, s NUMERIC, PRIMARY KEY(b, s DESC))",
        "-- sync",
        "-- restore",
    ]),
    ("a unique index that compares a column of any type with one of text", &[
        "CREATE TABLE t(c TEXT, b ANY, d ANY, PRIMARY KEY(b, d)) STRICT",
        "CREATE UNIQUE INDEX i ON t(CASE WHEN b > c THEN b ELSE 'z' END)",
        "INSERT INTO t VALUES ('A', '1', x'')",
        "-- sync",
        "REPLACE INTO t VALUES ('', 9007199254740992.0, -1)",
    ]),
    ("a unique index that compares a numeric column, which has text", &[
        "CREATE TABLE t(k PRIMARY KEY, n NUMERIC, m BLOB, c TEXT)",
        "CREATE UNIQUE INDEX i ON t(n > '5', m < c)",
        "INSERT INTO t VALUES (1, 7, 1, '0')",
        "-- sync",
        "REPLACE INTO t VALUES (2, '!x', 0, '!')",
    ]),
];

/// What only a directed script reaches for sure.
#[rustfmt::skip]
const DIRECTED: &[(&str, &[&str])] = &[
    ("rows changed while capture was gone, repaired elsewhere, nothing to see in the schema", &[
        "CREATE TABLE t(k INTEGER PRIMARY KEY, v)",
        "INSERT INTO t VALUES (1, 1)",
        "-- sync",
        "-- capture dropped: ALL of t",
        "DROP VIEW _redtail_end",
        "UPDATE t SET v = 2",
        "-- init elsewhere",
        "-- schema version set back to what it was before that",
    ]),
    ("the same key in another case", &[
        "CREATE TABLE t(k TEXT COLLATE NOCASE PRIMARY KEY, v)",
        "INSERT INTO t VALUES ('a', 1), (char(97, 0, 98), 2)",
        "-- sync",
        "REPLACE INTO t VALUES ('A', 3), (char(65, 0, 99), 4)",
    ]),
    ("an AFTER trigger that is older keeps ours from running", &[
        "CREATE TABLE t(k TEXT PRIMARY KEY, v)",
        "CREATE TRIGGER g AFTER UPDATE ON t BEGIN SELECT RAISE(IGNORE); END",
        "INSERT INTO t VALUES ('a', 1)",
        "-- sync",
        "UPDATE t SET v = 2",
    ]),
    ("a trigger on a child row keeps those behind it on its parent from running", &[
        "PRAGMA foreign_keys = ON",
        "CREATE TABLE p(k TEXT PRIMARY KEY)",
        "CREATE TABLE c(k TEXT REFERENCES p ON DELETE CASCADE)",
        "CREATE TRIGGER g AFTER DELETE ON c BEGIN SELECT RAISE(FAIL, 'kept'); END",
        "INSERT INTO p VALUES ('a')",
        "INSERT INTO c VALUES ('a')",
        "-- sync",
        "DELETE FROM p",
    ]),
    ("a row replaced through another uniqueness", &[
        "CREATE TABLE t(k INTEGER PRIMARY KEY, u UNIQUE)",
        "INSERT INTO t VALUES (1, 'a')",
        "-- sync",
        "REPLACE INTO t VALUES (2, 'a')",
    ]),
    ("a key in both directions, with NULLs, that is reconciled over rows that are gone", &[
        "-- small windows",
        "CREATE TABLE t(a, b TEXT COLLATE NOCASE, c, v, PRIMARY KEY(a, b DESC, c))",
        "CREATE TABLE w(a, b, v, PRIMARY KEY(a DESC, b)) WITHOUT ROWID",
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 99) INSERT INTO t SELECT nullif(i % 3, 0), nullif(char(97 + i % 5), 'c'), nullif(i, 50), i FROM n",
        "INSERT INTO t VALUES (NULL, NULL, NULL, 1), (NULL, NULL, NULL, 2), (1, NULL, NULL, 3)",
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 99) INSERT INTO w SELECT i % 9, i / 2.0, i FROM n",
        "-- sync",
        "-- capture dropped: ALL of t",
        "DELETE FROM t WHERE v % 4 = 1",
        "UPDATE t SET a = 7, v = 'moved' WHERE v % 4 = 2",
        "-- capture dropped: ALL of w",
        "DELETE FROM w WHERE v % 4 = 1",
        "INSERT INTO w VALUES (10, x'00', 1), (-1, 'z', 1)",
        "-- sync",
        "ALTER TABLE t ADD COLUMN x DEFAULT 1",
        "ALTER TABLE w ADD COLUMN x DEFAULT 1",
        "-- sync",
        "DELETE FROM t WHERE a IS NULL",
        "UPDATE w SET a = a + 1 WHERE b > 20",
    ]),
    ("a row deleted and made again", &[
        "CREATE TABLE t(k INTEGER PRIMARY KEY, v)",
        "INSERT INTO t VALUES (1, 'a')",
        "-- sync",
        "DELETE FROM t",
        "INSERT INTO t VALUES (1, 'b')",
    ]),
    ("a column added and filled, while run runs", &[
        "-- follow",
        "CREATE TABLE t(k INTEGER PRIMARY KEY, v)",
        "INSERT INTO t VALUES (1, 'a')",
        "-- sync",
        "ALTER TABLE t ADD COLUMN w DEFAULT 5",
    ]),
];

/// Times that a table is reconciled while its rows are replaced.
const ADDS: usize = 8;
/// Times that capture is dropped under a replicator that runs; and at a server, which takes its time.
const DROPS: usize = 60;
const DROPS_ON_SERVER: usize = 6;
/// Updates that nothing captures, each time.
const UNSEEN: usize = 12;

#[test]
fn what_random_scripts_found_stays_mended() {
    play("what_random_scripts_found_stays_mended", FOUND);
}

#[test]
fn directed_scripts_hold() {
    play("directed_scripts_hold", DIRECTED);
}

#[test]
fn what_random_scripts_found_stays_mended_at_a_server() {
    play_on_server("what_random_scripts_found_stays_mended_at_a_server", FOUND);
}

#[test]
fn directed_scripts_hold_at_a_server() {
    play_on_server("directed_scripts_hold_at_a_server", DIRECTED);
}

#[test]
fn capture_dropped_beside_a_running_replicator_loses_nothing() {
    let test = "capture_dropped_beside_a_running_replicator_loses_nothing";
    play(test, &[("capture dropped and rows changed, over and over", &capture_dropped(DROPS))]);
}

#[test]
fn capture_dropped_at_a_server_loses_nothing() {
    let test = "capture_dropped_at_a_server_loses_nothing";
    play_on_server(
        test,
        &[("capture dropped and rows changed, over and over", &capture_dropped(DROPS_ON_SERVER))],
    );
}

fn capture_dropped(times: usize) -> Vec<&'static str> {
    let mut script = vec![
        "-- follow",
        "CREATE TABLE t(k INTEGER PRIMARY KEY, v)",
        "INSERT INTO t VALUES (1, 0), (2, 0)",
        "-- sync",
    ];
    for _ in 0..times {
        script.push("-- capture dropped: ALL of t");
        script.extend(["UPDATE t SET v = v + 1"; UNSEEN]);
        script.push("-- sync");
    }
    script
}

#[test]
fn rows_replaced_while_their_table_is_reconciled_are_read_once() {
    let test = "rows_replaced_while_their_table_is_reconciled_are_read_once";
    let adds: Vec<String> = (0..ADDS).map(|n| format!("ALTER TABLE t ADD COLUMN c{n}")).collect();
    let mut script = vec![
        "-- small windows",
        "PRAGMA journal_mode = WAL",
        "-- follow",
        "CREATE TABLE t(k REAL, v, PRIMARY KEY(k))",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300) INSERT INTO t SELECT i / 2.0, i FROM n",
        "INSERT INTO t VALUES (NULL, 1), (NULL, 2)",
        "-- sync",
    ];
    for add in &adds {
        script.push(add);
        script.extend(["REPLACE INTO t(k, v) SELECT k, v + 1 FROM t WHERE k IS NOT NULL"; 5]);
        script.push("-- sync");
    }
    play(test, &[("a table with NULL in its key, rewritten while it is reconciled", &script)]);
}

#[test]
fn bookkeeping_dropped_beside_a_running_replicator_is_made_again() {
    let test = "bookkeeping_dropped_beside_a_running_replicator_is_made_again";
    let mut script: Vec<String> = [
        "PRAGMA journal_mode = WAL",
        "-- follow",
        "CREATE TABLE t(k INTEGER PRIMARY KEY, v)",
        "INSERT INTO t VALUES (1, 0), (2, 0)",
        "-- sync",
    ]
    .map(str::to_owned)
    .to_vec();
    for _ in 0..DROPS / 3 {
        for drop in ["changelog", "consumers", "tables"].map(|t| format!("DROP TABLE _redtail_{t}")) {
            script.extend(["UPDATE t SET v = v + 1".to_owned(), drop, "-- sync".to_owned()]);
        }
    }
    let script: Vec<&str> = script.iter().map(String::as_str).collect();
    play(test, &[("bookkeeping dropped, over and over", &script)]);
}

/// Plays scripts; fails with the ones that do not hold.
pub(super) fn play(test: &str, scripts: &[(&str, &[&str])]) {
    let Some(oracle) = Oracle::start(test) else { return };
    play_at(Stage::new(oracle, test), scripts);
}

/// The same at a server. What it refuses of a script is left out, as the transcript would say.
fn play_on_server(test: &str, scripts: &[(&str, &[&str])]) {
    let Some(oracle) = Oracle::start(test) else { return };
    let Some(server) = Server::start(test) else { return };
    play_at(Stage::new(oracle, test).on(server), scripts);
}

fn play_at(mut stage: Stage, scripts: &[(&str, &[&str])]) {
    let mut failed = Vec::new();
    for (name, steps) in scripts {
        if let Err(failure) = stage.play(&read(steps)) {
            failed.push(format!("failed: {name}\n\n{}\n{}", failure.transcript, failure.what));
        }
    }
    assert!(failed.is_empty(), "{} of {}\n{}", failed.len(), scripts.len(), failed.join("\n"));
}
