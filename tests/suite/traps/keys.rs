//! What SQLite calls the same key, and what it does not.

use crate::support::trial::{Control, Script, Trial};

// Attacks: NOCASE stops at the first NUL and then compares lengths.
#[test]
fn nocase_keys_are_one_up_to_their_first_nul() {
    let test = "nocase_keys_are_one_up_to_their_first_nul";
    let script = Script {
        setup: &[
            "CREATE TABLE t(k TEXT COLLATE NOCASE PRIMARY KEY, v)",
            "CREATE TABLE w(k TEXT COLLATE NOCASE, n, v, PRIMARY KEY(k, n)) WITHOUT ROWID",
            "INSERT INTO t VALUES ('ab' || char(0) || 'x', 1), ('b', 2), ('Ä', 3), ('', 4), (char(0), 5)",
            "INSERT INTO w SELECT k, 1, v FROM t",
        ],
        steps: &[
            &[
                "REPLACE INTO t VALUES ('AB' || char(0) || 'y', 9)",
                "REPLACE INTO w VALUES ('aB' || char(0) || 'z', 1.0, 9)",
            ],
            &[
                "INSERT INTO t VALUES ('ab' || char(0) || 'xy', 9), ('ä', 9)",
                "!INSERT INTO t VALUES ('B', 9)",
                "REPLACE INTO t VALUES ('B', 9)",
            ],
            &["UPDATE t SET k = upper(k)", "UPDATE w SET k = upper(k), n = n + 0.0"],
            &[
                "DELETE FROM t WHERE k = 'ab' || char(0) || '?'",
                "DELETE FROM w WHERE k = 'b'",
                "INSERT INTO t VALUES (x'00', 9), (char(0, 0), 9)",
            ],
            &["DELETE FROM t WHERE k = char(0)", "UPDATE t SET k = 'b' || char(0) WHERE k = 'B'"],
        ],
    };
    script.holds(test);
    script.is_caught(test, Control::Fault("raw-nocase"));
}

// Attacks: RTRIM drops trailing spaces and nothing else.
#[test]
fn rtrim_keys_are_one_but_for_trailing_spaces() {
    let test = "rtrim_keys_are_one_but_for_trailing_spaces";
    let script = Script {
        setup: &[
            "CREATE TABLE t(k TEXT COLLATE RTRIM PRIMARY KEY, v)",
            "INSERT INTO t VALUES ('a', 1), (' a', 2), ('b' || char(9), 3), ('  ', 4), ('A', 5)",
        ],
        steps: &[
            &[
                "REPLACE INTO t VALUES ('a   ', 9), ('', 9)",
                "INSERT INTO t VALUES ('b' || char(9) || ' x', 9)",
            ],
            &["UPDATE t SET k = k || '  '", "DELETE FROM t WHERE k = 'A'", "DELETE FROM t WHERE k = '  '"],
        ],
    };
    script.holds(test);
    // As if the key were compared by its bytes when it is read back.
    script.is_caught(test, Control::Edited(&[("NEW.\"k\"", "NEW.\"k\" || 'x'")]));
}

// Attacks: an integer equals a real exactly or not at all, and entries keep the storage class.
#[test]
fn numbers_are_one_key_only_if_they_are_exactly_the_same() {
    let test = "numbers_are_one_key_only_if_they_are_exactly_the_same";
    let script = Script {
        setup: &[
            "CREATE TABLE t(k PRIMARY KEY, v)",
            "CREATE TABLE r(k REAL PRIMARY KEY, v)",
            "INSERT INTO t VALUES (1, 1), (9007199254740993, 2), (9007199254740992.0, 3), ('1', 4), (x'31', 5), (0, 6), (9223372036854775807, 7), (9223372036854775808.0, 8), (-9223372036854775808, 9)",
            "INSERT INTO t VALUES (9e999, 10), (-9e999, 11), (5e-324, 12), (0.1, 13), (0.30000000000000004, 14), ('', 15), (x'', 16)",
            "INSERT OR IGNORE INTO r SELECT k, v FROM t WHERE k = k + 0",
        ],
        steps: &[
            &[
                "UPDATE t SET k = 1.0 WHERE k = 1",
                "UPDATE t SET k = -0.0 WHERE k = 0",
                "UPDATE r SET v = v + 1",
            ],
            &[
                "REPLACE INTO t VALUES (1, 'again'), (0, 'again'), (9007199254740993, 'again')",
                "REPLACE INTO r VALUES (1, 'again'), ('1e0', 'and again')",
            ],
            &[
                "DELETE FROM t WHERE k = 9007199254740992.0",
                "DELETE FROM t WHERE k = '1'",
                "UPDATE t SET v = 99 WHERE v IN (7, 8, 13, 15)",
            ],
            &[
                "UPDATE t SET k = CAST(k AS TEXT) WHERE typeof(k) = 'real'",
                "DELETE FROM t WHERE k = 1.0",
                "DELETE FROM r WHERE k > 0",
            ],
        ],
    };
    script.holds(test);
    script.is_caught(
        test,
        Control::Edited(&[
            ("NEW.\"k\"", "CAST(NEW.\"k\" AS REAL)"),
            ("OLD.\"k\"", "CAST(OLD.\"k\" AS REAL)"),
        ]),
    );
    script.is_caught(
        test,
        Control::Edited(&[
            ("NEW.\"k\"", "CAST(NEW.\"k\" AS TEXT)"),
            ("OLD.\"k\"", "CAST(OLD.\"k\" AS TEXT)"),
        ]),
    );
}

// Attacks: deletes are the keys entered minus the keys of rows read; within one window a key is deleted
// under one spelling and inserted under another.
#[test]
fn a_key_deleted_and_inserted_again_within_one_window_stays() {
    let test = "a_key_deleted_and_inserted_again_within_one_window_stays";
    let script = Script {
        setup: &[
            "CREATE TABLE n(k TEXT COLLATE NOCASE PRIMARY KEY, v)",
            "CREATE TABLE m(k PRIMARY KEY, v)",
            "CREATE TABLE i(id INTEGER PRIMARY KEY, v)",
            "INSERT INTO n VALUES ('a', 1), ('b', 2)",
            "INSERT INTO m VALUES (1, 1), (2, 2)",
            "INSERT INTO i VALUES (1, 1), (2, 2)",
        ],
        steps: &[
            &[
                "DELETE FROM n WHERE k = 'a'",
                "INSERT INTO n VALUES ('A', 3)",
                "DELETE FROM m WHERE k = 1",
                "INSERT INTO m VALUES (1.0, 3)",
                "DELETE FROM i",
                "INSERT INTO i(v) VALUES (3)",
            ],
            &[
                "INSERT INTO n VALUES ('c', 3)",
                "DELETE FROM n WHERE k = 'C'",
                "DELETE FROM i",
                "INSERT INTO i VALUES (2, 4)",
            ],
        ],
    };
    script.holds(test);
    script.is_caught(test, Control::Fault("trust-op"));
}

// Attacks: the join compares under the table's own affinity and the key index's collation.
#[test]
fn keys_are_found_again_whatever_affinity_their_column_has() {
    let test = "keys_are_found_again_whatever_affinity_their_column_has";
    let script = Script {
        setup: &[
            "CREATE TABLE t(k TEXT PRIMARY KEY, v)",
            "CREATE TABLE n(k NUMERIC PRIMARY KEY, v)",
            "CREATE TABLE i(k INT PRIMARY KEY, v) WITHOUT ROWID",
            "CREATE TABLE b(k BLOB PRIMARY KEY, v)",
            "CREATE TABLE s(k ANY PRIMARY KEY, v ANY) STRICT, WITHOUT ROWID",
            "CREATE TABLE c(a TEXT COLLATE NOCASE, b INT, c REAL, PRIMARY KEY(c DESC, a COLLATE BINARY, b))",
            "CREATE TABLE seed(k)",
            "INSERT INTO seed VALUES (1), (1.5), ('1'), ('01'), ('1e1'), ('abc'), (x'31'), (x'0001ff'), (' 1 '), (9007199254740993), (1e30), ('0x10')",
        ],
        steps: &[
            &[
                "INSERT OR IGNORE INTO t SELECT k, 1 FROM seed",
                "INSERT OR IGNORE INTO n SELECT k, 1 FROM seed",
                "INSERT OR IGNORE INTO i SELECT k, 1 FROM seed",
                "INSERT OR IGNORE INTO b SELECT k, 1 FROM seed",
                "INSERT OR IGNORE INTO s SELECT k, 1 FROM seed",
                "INSERT OR IGNORE INTO c SELECT k, k, k FROM seed",
            ],
            &[
                "UPDATE t SET v = 2",
                "UPDATE n SET v = 2",
                "UPDATE i SET v = 2",
                "UPDATE b SET v = 2",
                "UPDATE s SET v = 2",
                "UPDATE c SET a = upper(a)",
            ],
            &[
                "UPDATE OR REPLACE t SET k = k || '0'",
                "UPDATE OR REPLACE n SET k = k || '0'",
                "UPDATE OR REPLACE i SET k = k || '0'",
                "UPDATE OR REPLACE b SET k = k || '0'",
                "UPDATE OR REPLACE s SET k = k || '0'",
                "UPDATE OR REPLACE c SET b = b || '0', a = 'q'",
            ],
            &[
                "DELETE FROM t WHERE rowid % 2",
                "DELETE FROM n WHERE rowid % 2",
                "DELETE FROM i",
                "DELETE FROM b WHERE rowid % 2",
                "DELETE FROM s",
                "DELETE FROM c",
            ],
        ],
    };
    script.holds(test);
    script.is_caught(test, Control::Edited(&[("NEW.\"k\"", "CAST(NEW.\"k\" AS BLOB)")]));
}

// Attacks: a key in a collation that is unknown here is keyed by rowid, and its index is one more unique
// index. The function of an index is the application's too: redtail never calls it.
#[test]
fn a_key_in_an_unknown_collation_is_followed_by_its_rowid() {
    let test = "a_key_in_an_unknown_collation_is_followed_by_its_rowid";
    let script = Script {
        setup: &[
            "CREATE TABLE t(k TEXT COLLATE app PRIMARY KEY, v)",
            "CREATE TABLE c(id INTEGER PRIMARY KEY, n TEXT, v)",
            "CREATE UNIQUE INDEX c_n ON c(n COLLATE app, v)",
            "CREATE INDEX c_all ON c(v, n COLLATE app, id)",
            "INSERT INTO t VALUES ('a', 1), ('B', 2), ('c', 3)",
            "INSERT INTO c VALUES (1, 'a', 1), (2, 'B', 2), (3, 'c', 3)",
        ],
        steps: &[
            &["REPLACE INTO t VALUES ('b', 9)", "REPLACE INTO c VALUES (9, 'A', 1)"],
            &[
                "UPDATE t SET k = upper(k)",
                "UPDATE OR REPLACE t SET k = 'A' WHERE k = 'c'",
                "UPDATE OR REPLACE c SET n = 'b', v = 2",
            ],
            &["DELETE FROM t WHERE k = 'a'", "INSERT INTO t VALUES ('z', 1)", "DELETE FROM c"],
        ],
    };
    script.holds(test);
    script.is_caught(test, Control::Fault("no-eviction"));
}

// Attacks: more than 64 key columns fall back to the rowid; the changelog widens up to there.
#[test]
fn very_wide_keys_are_followed() {
    let test = "very_wide_keys_are_followed";
    for width in [20, 64, 65, 100] {
        let Some(mut trial) = Trial::begin(test, None) else { return };
        let names: Vec<String> = (0..width).map(|i| format!("c{i}")).collect();
        let list = names.join(",");
        let create = format!("CREATE TABLE t({list}, v, PRIMARY KEY({list}))");
        let row = |first: &str| {
            format!("({first},{},0)", (1..width).map(|i| i.to_string()).collect::<Vec<_>>().join(","))
        };
        let insert =
            format!("INSERT INTO t VALUES {}, {}, {}, {}", row("0"), row("1"), row("NULL"), row("NULL"));
        trial.application(&["CREATE TABLE beat(n)", "INSERT INTO beat VALUES (0)", &create, &insert]);
        trial.follow(false);
        trial.application(&[
            "UPDATE t SET v = 1 WHERE c0 = 1",
            "UPDATE t SET c5 = 'moved' WHERE c0 = 0",
            "UPDATE t SET v = rowid WHERE c0 IS NULL",
        ]);
        trial.assert_equal(&format!("{width} key columns, updated"));
        trial.application(&[
            "DELETE FROM t WHERE c5 = 'moved' OR v = 4",
            &format!("REPLACE INTO t VALUES {}", row("1")),
        ]);
        trial.assert_equal(&format!("{width} key columns, deleted and replaced"));
    }
}
