//! NULL in a primary key: the rowid joins it.

use std::time::{Duration, Instant};

use crate::support::trial::{Control, Script, Trial};

// Attacks: the rowid as one more component of a key that has a NULL.
#[test]
fn rows_with_null_in_their_key_are_told_apart() {
    let test = "rows_with_null_in_their_key_are_told_apart";
    let script = Script {
        setup: &[
            "CREATE TABLE t(k PRIMARY KEY, v)",
            "CREATE TABLE c(a TEXT COLLATE NOCASE, b, v, PRIMARY KEY(a, b))",
            "CREATE TABLE n(a NOT NULL, b, PRIMARY KEY(a, b))",
            "CREATE TABLE u(k INT PRIMARY KEY, x UNIQUE)",
            "INSERT INTO t VALUES (NULL, 1), (NULL, 2), (NULL, 3), (1, 4)",
            "INSERT INTO c VALUES (NULL, 1, 1), ('a', NULL, 2), ('a', NULL, 3), (NULL, NULL, 4), ('A', 1, 5)",
            "INSERT INTO n VALUES (1, NULL), (1, NULL), (1, 1)",
            "INSERT INTO u VALUES (NULL, 1), (NULL, 2), (NULL, 3)",
        ],
        steps: &[
            &[
                "UPDATE t SET v = v * 10 WHERE v = 2",
                "DELETE FROM t WHERE v = 1",
                "UPDATE c SET v = 0 WHERE b IS NULL",
                "REPLACE INTO u VALUES (NULL, 2)",
            ],
            &[
                "UPDATE t SET k = 2 WHERE v = 3",
                "UPDATE t SET k = NULL WHERE k = 1",
                "UPDATE c SET a = upper(a)",
                "DELETE FROM n WHERE rowid = 1",
            ],
            &[
                "INSERT INTO t VALUES (NULL, 7), (NULL, 7)",
                "REPLACE INTO t(rowid, k, v) VALUES (2, NULL, 8), (3, 3, 8)",
                "UPDATE n SET b = a, a = 2 WHERE b IS NULL",
            ],
            &[
                "UPDATE t SET rowid = rowid + 100",
                "UPDATE OR REPLACE t SET rowid = 103 WHERE rowid = 104",
                "UPDATE u SET k = x",
                "UPDATE u SET k = NULL",
            ],
            &["DELETE FROM t WHERE k IS NULL", "DELETE FROM c WHERE a IS NULL", "DELETE FROM u"],
        ],
    };
    script.holds(test);
    script.is_caught(test, Control::Edited(&[("NEW.rowid", "NULL"), ("OLD.rowid", "NULL")]));
}

// Attacks: what is read back by rowid must not be searched by the key's index: NULLs would make it quadratic.
#[test]
fn many_rows_with_null_in_their_key_are_read_back_in_time_that_grows_with_them() {
    let test = "many_rows_with_null_in_their_key_are_read_back_in_time_that_grows_with_them";
    let Some(mut trial) = Trial::begin(test, None) else { return };
    // Their square is a billion and a half: no machine does that in the time that is given.
    let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40000) INSERT INTO t SELECT NULL, NULL, i FROM n";
    trial.application(&["CREATE TABLE t(a, b, v, PRIMARY KEY(a, b))", fill]);
    trial.follow(false);
    trial.application(&["UPDATE t SET v = -v", "DELETE FROM t WHERE v % 3 = 0"]);
    let begun = Instant::now();
    trial.assert_equal("all rows updated");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}
