//! REPLACE removes rows through every uniqueness, and fires no trigger for them.

use crate::support::trial::{Control, Script};

const FAULT: Control<'_> = Control::Fault("no-eviction");

// Attacks: one search for each unique index besides the key's own, inserts and updates, several rows at once.
#[test]
fn rows_that_replace_evicts_through_secondary_indexes_are_deleted() {
    let test = "rows_that_replace_evicts_through_secondary_indexes_are_deleted";
    let script = Script {
        setup: &[
            "CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE, b, c, UNIQUE(b, c))",
            "CREATE UNIQUE INDEX t_c ON t(c)",
            "INSERT INTO t VALUES (1, 'a1', 'b1', 'c1'), (2, 'a2', 'b2', 'c2'), (3, 'a3', 'b3', 'c3'), (4, 'a4', 'b4', 'c4'), (5, NULL, NULL, NULL), (6, NULL, NULL, NULL)",
        ],
        steps: &[
            &["REPLACE INTO t VALUES (9, 'a1', 'b2', 'c3')"],
            &[
                "UPDATE OR REPLACE t SET a = 'a2', c = 'c4' WHERE id = 9",
                "INSERT OR REPLACE INTO t VALUES (10, NULL, NULL, 'c4')",
            ],
            &["UPDATE OR REPLACE t SET a = 'same'", "INSERT INTO t(a, b) VALUES ('x', 1), ('y', 2)"],
            &["INSERT OR REPLACE INTO t(a, c) SELECT b, a FROM t WHERE b IS NOT NULL"],
        ],
    };
    script.holds(test);
    script.is_caught(test, FAULT);
}

// Attacks: the same searches, where the schema itself says REPLACE.
#[test]
fn rows_that_the_schemas_own_conflict_clause_evicts_are_deleted() {
    let test = "rows_that_the_schemas_own_conflict_clause_evicts_are_deleted";
    let script = Script {
        setup: &[
            "CREATE TABLE t(k TEXT PRIMARY KEY ON CONFLICT REPLACE, u UNIQUE ON CONFLICT REPLACE, n NOT NULL ON CONFLICT REPLACE DEFAULT 'z' UNIQUE ON CONFLICT REPLACE)",
            "CREATE TABLE w(k PRIMARY KEY, u UNIQUE ON CONFLICT REPLACE) WITHOUT ROWID",
            "INSERT INTO t VALUES ('a', 1, 'x'), ('b', 2, 'y'), ('c', 3, 'z')",
            "INSERT INTO w VALUES (1, 1), (2, 2), ('2', '2'), (x'32', x'32')",
        ],
        steps: &[
            &["INSERT INTO t VALUES ('d', 1, 'y')", "INSERT INTO w VALUES (3, 2.0)"],
            &["INSERT INTO t VALUES ('e', 4, NULL)", "UPDATE w SET u = '2' WHERE k = 1"],
            &["UPDATE t SET n = NULL", "UPDATE w SET u = 7"],
        ],
    };
    script.holds(test);
    script.is_caught(test, FAULT);
}

// Attacks: the search by rowid on tables whose key is not the rowid.
#[test]
fn rows_that_are_evicted_by_their_rowid_are_deleted() {
    let test = "rows_that_are_evicted_by_their_rowid_are_deleted";
    let script = Script {
        setup: &[
            "CREATE TABLE t(k TEXT PRIMARY KEY, v)",
            "CREATE TABLE d(id INTEGER PRIMARY KEY DESC, v)",
            "CREATE TABLE o(rowid TEXT PRIMARY KEY, v)",
            "INSERT INTO t(rowid, k, v) VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 3)",
            "INSERT INTO d(rowid, id, v) VALUES (1, 11, 1), (2, 12, 2), (3, 13, 3)",
            "INSERT INTO o(oid, rowid) VALUES (1, 'x'), (2, 'y'), (3, 'z')",
        ],
        steps: &[
            &["REPLACE INTO t(rowid, k, v) VALUES (1, 'z', 9)", "REPLACE INTO o(oid, rowid) VALUES (1, 'w')"],
            &["UPDATE OR REPLACE t SET rowid = 3 WHERE k = 'b'", "REPLACE INTO d(rowid, id) VALUES (2, 99)"],
            &[
                "UPDATE OR REPLACE d SET rowid = 3 WHERE id = 11",
                "UPDATE OR REPLACE o SET _rowid_ = 3 WHERE rowid = 'y'",
            ],
        ],
    };
    script.holds(test);
    script.is_caught(test, FAULT);
    script.is_caught(
        test,
        Control::Edited(&[("_r.rowid = NEW.rowid", "0"), ("_r._rowid_ = NEW._rowid_", "0")]),
    );
}

// Attacks: the index's collation, which may be another than the column's.
#[test]
fn rows_evicted_under_the_indexes_collation_are_deleted() {
    let test = "rows_evicted_under_the_indexes_collation_are_deleted";
    let script = Script {
        setup: &[
            "CREATE TABLE t(id INTEGER PRIMARY KEY, n TEXT, r TEXT, c TEXT COLLATE NOCASE)",
            "CREATE UNIQUE INDEX t_n ON t(n COLLATE NOCASE)",
            "CREATE UNIQUE INDEX t_r ON t(r COLLATE RTRIM)",
            "CREATE UNIQUE INDEX t_c ON t(c)",
            "INSERT INTO t VALUES (1, 'One', 'x  ', 'C'), (2, 'Two', 'y', 'D'), (3, 'Three', 'z', 'E')",
        ],
        steps: &[
            &[
                "REPLACE INTO t VALUES (10, 'oNE', 'q', 'q')",
                "REPLACE INTO t VALUES (11, 'w', 'y     ', 'w')",
            ],
            &[
                "UPDATE OR REPLACE t SET c = 'e' WHERE id = 10",
                "UPDATE OR REPLACE t SET n = 'W', r = 'q    '",
            ],
        ],
    };
    script.holds(test);
    script.is_caught(test, FAULT);
    let binary = &[("COLLATE \"NOCASE\"", "COLLATE \"BINARY\""), ("COLLATE \"RTRIM\"", "COLLATE \"BINARY\"")];
    script.is_caught(test, Control::Edited(binary));
}

// Attacks: partial and expression indexes are looked at by their own text, from comments and orders freed.
#[test]
fn rows_evicted_through_partial_and_expression_indexes_are_deleted() {
    let test = "rows_evicted_through_partial_and_expression_indexes_are_deleted";
    let script = Script {
        setup: &[
            "CREATE TABLE t(id INTEGER PRIMARY KEY, owner, name TEXT, active, j TEXT)",
            "CREATE UNIQUE INDEX t_p ON t(owner) WHERE active",
            "CREATE UNIQUE INDEX t_e ON t(lower(name) COLLATE NOCASE DESC, owner /* , ) */ ASC) -- WHERE 0",
            "CREATE UNIQUE INDEX t_x ON t(length(j), substr(j, 1, 1)) WHERE j IS NOT NULL AND name <> 'a -- '",
            "INSERT INTO t VALUES (1, 'o1', 'N1', 1, 'xa'), (2, 'o2', 'N2', 0, 'ya'), (3, 'o2', 'N3', 1, 'za'), (4, 'o3', 'N4', 0, NULL)",
        ],
        steps: &[
            &[
                "REPLACE INTO t VALUES (10, 'o1', 'other', 2.5, NULL)",
                "REPLACE INTO t VALUES (11, 'o2', 'n3', 0, NULL)",
            ],
            &[
                "UPDATE OR REPLACE t SET active = 1 WHERE owner = 'o2'",
                "UPDATE OR REPLACE t SET j = 'qq' WHERE id IN (1, 4)",
            ],
            &[
                "REPLACE INTO t VALUES (12, 'o4', 'n9', 1, 'qz')",
                "UPDATE OR REPLACE t SET owner = 'o4', name = 'N9'",
            ],
        ],
    };
    script.holds(test);
    script.is_caught(test, FAULT);
}

// Attacks: REPLACE puts a NOT NULL column's default in place of NULL after the BEFORE triggers ran.
#[test]
fn rows_evicted_by_a_columns_default_are_deleted() {
    let test = "rows_evicted_by_a_columns_default_are_deleted";
    let script = Script {
        setup: &[
            "CREATE TABLE t(id INTEGER PRIMARY KEY, c NOT NULL DEFAULT 'z' UNIQUE, e TEXT NOT NULL DEFAULT (1 + 1))",
            "CREATE UNIQUE INDEX t_e ON t(e || '!')",
            "CREATE TABLE k(a NOT NULL DEFAULT 7, b, PRIMARY KEY(a, b))",
            "INSERT INTO t VALUES (1, 'z', 'x'), (2, 'y', '2'), (3, 'w', 'v')",
            "INSERT INTO k VALUES (7, 1), (8, 1)",
        ],
        steps: &[
            &["REPLACE INTO t VALUES (10, NULL, 'n')", "REPLACE INTO k VALUES (NULL, 1)"],
            &[
                "UPDATE OR REPLACE t SET e = NULL WHERE id = 3",
                "UPDATE OR REPLACE k SET a = NULL WHERE a = 8",
            ],
        ],
    };
    script.holds(test);
    script.is_caught(test, FAULT);
    script.is_caught(
        test,
        Control::Edited(&[
            ("coalesce(NEW.\"c\",('z'))", "NEW.\"c\""),
            ("coalesce(NEW.\"e\",(1 + 1))", "NEW.\"e\""),
        ]),
    );
}

// Attacks: before an insert an automatic key reads as −1, so terms made of it are left out.
#[test]
fn rows_evicted_through_terms_of_an_automatic_key_are_deleted() {
    let test = "rows_evicted_through_terms_of_an_automatic_key_are_deleted";
    let script = Script {
        setup: &[
            "CREATE TABLE t(id INTEGER PRIMARY KEY, n)",
            "CREATE UNIQUE INDEX t_e ON t(n, id % 10)",
            "CREATE TABLE p(id INTEGER PRIMARY KEY, n)",
            "CREATE UNIQUE INDEX p_p ON p(n) WHERE id > 0",
            "CREATE TABLE g(id INTEGER PRIMARY KEY, n, r AS (id % 10), UNIQUE(n, r))",
            "CREATE TABLE s(id INTEGER PRIMARY KEY, n, r AS (n || id % 2) STORED)",
            "CREATE UNIQUE INDEX s_r ON s(n, r || 'x')",
            "INSERT INTO t VALUES (1, 'a'), (10, 'b')",
            "INSERT INTO p VALUES (1, 'a'), (10, 'b')",
            "INSERT INTO g(id, n) VALUES (1, 'a'), (10, 'b')",
            "INSERT INTO s(id, n) VALUES (1, 'a'), (10, 'b')",
        ],
        steps: &[
            &[
                "REPLACE INTO t(n) VALUES ('a')",
                "REPLACE INTO p(n) VALUES ('a')",
                "REPLACE INTO g(n) VALUES ('a')",
                "REPLACE INTO s(n) VALUES ('a')",
            ],
            &[
                "UPDATE OR REPLACE t SET id = id + 10, n = 'b' WHERE id = 10",
                "UPDATE OR REPLACE g SET id = 21, n = 'a' WHERE id = 10",
            ],
            &[
                "UPDATE OR REPLACE t SET n = 'q', id = id * 10",
                "UPDATE OR REPLACE p SET n = 1",
                "UPDATE OR REPLACE s SET n = 1, id = id * 2",
            ],
        ],
    };
    script.holds(test);
    script.is_caught(test, FAULT);
    // As if the term of the automatic key, or a predicate over it, were asked as well.
    let asked = (
        "_r.\"n\" = NEW.\"n\" COLLATE \"BINARY\";",
        "_r.\"n\" = NEW.\"n\" COLLATE \"BINARY\" AND NEW.\"id\" > 0;",
    );
    script.is_caught(test, Control::Edited(&[asked]));
}

// Attacks: an alias for the table, which may be called new or old, and columns of those names.
#[test]
fn tables_and_columns_called_new_and_old_are_told_from_the_rows() {
    let test = "tables_and_columns_called_new_and_old_are_told_from_the_rows";
    let script = Script {
        setup: &[
            "CREATE TABLE new(id INTEGER PRIMARY KEY, old, new, UNIQUE(old))",
            "CREATE TABLE old(new PRIMARY KEY, old)",
            "CREATE UNIQUE INDEX old_e ON old(lower(old)) WHERE old <> 'new'",
            "CREATE TABLE _r(_n TEXT PRIMARY KEY, _r UNIQUE, _t, _l)",
            "CREATE UNIQUE INDEX _r_e ON _r(_t || _l)",
            "INSERT INTO new VALUES (1, 'a', 'x'), (2, 'b', 'y')",
            "INSERT INTO old VALUES (1, 'A'), (2, 'B'), (3, 'new'), (4, 'new')",
            "INSERT INTO _r VALUES ('a', 1, 1, 1), ('b', 2, 2, 2), ('c', 3, 3, 3)",
        ],
        steps: &[
            &[
                "REPLACE INTO new VALUES (3, 'a', 'z')",
                "REPLACE INTO old VALUES (9, 'a')",
                "REPLACE INTO _r VALUES ('d', 1, 2, 2)",
            ],
            &[
                "UPDATE OR REPLACE new SET old = 'b'",
                "UPDATE OR REPLACE old SET old = 'b' WHERE new = 9",
                "UPDATE OR REPLACE _r SET _t = 3, _l = 3",
            ],
        ],
    };
    script.holds(test);
    script.is_caught(test, FAULT);
}

// Attacks: "has it changed" is asked by bytes and type; a change of case alone may evict.
#[test]
fn an_update_that_changes_only_the_case_may_evict() {
    let test = "an_update_that_changes_only_the_case_may_evict";
    let script = Script {
        setup: &[
            "CREATE TABLE t(id INTEGER PRIMARY KEY, n TEXT COLLATE NOCASE)",
            "CREATE UNIQUE INDEX t_n ON t(n COLLATE BINARY)",
            "INSERT INTO t VALUES (1, 'a'), (2, 'A'), (3, 'b')",
        ],
        steps: &[&["UPDATE OR REPLACE t SET n = 'A' WHERE id = 1"], &["UPDATE OR REPLACE t SET n = 'B'"]],
    };
    script.holds(test);
    script.is_caught(test, FAULT);
    script.is_caught(test, Control::Edited(&[("IS NOT OLD.\"n\" COLLATE BINARY", "IS NOT OLD.\"n\"")]));
}

// Attacks: generated columns may hide anything: an index over one is always searched.
#[test]
fn rows_evicted_through_generated_columns_are_deleted() {
    let test = "rows_evicted_through_generated_columns_are_deleted";
    let script = Script {
        setup: &[
            "CREATE TABLE t(k TEXT PRIMARY KEY, a, b, v AS (a + b) VIRTUAL UNIQUE, s TEXT AS (a || '-' || b) STORED)",
            "CREATE UNIQUE INDEX t_s ON t(s, v) WHERE v > 0",
            "INSERT INTO t(k, a, b) VALUES ('x', 1, 2), ('y', 3, 4), ('z', 5, 6)",
        ],
        steps: &[
            &["REPLACE INTO t(k, a, b) VALUES ('w', 2, 1)"],
            &["UPDATE OR REPLACE t SET a = 4, b = 3 WHERE k = 'z'"],
        ],
    };
    script.holds(test);
    script.is_caught(test, FAULT);
}

// Attacks: an entry of a key that might be evicted proves nothing; the read decides. And with
// recursive_triggers ON the delete triggers do fire.
#[test]
fn keys_that_might_have_been_evicted_and_were_not_stay() {
    let test = "keys_that_might_have_been_evicted_and_were_not_stay";
    let script = Script {
        setup: &[
            "CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE, v)",
            "INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 3)",
        ],
        steps: &[
            &[
                "INSERT OR IGNORE INTO t VALUES (9, 'a', 0)",
                "!INSERT INTO t VALUES (9, 'b', 0)",
                "!INSERT OR FAIL INTO t VALUES (9, 'n', 0), (10, 'b', 0)",
            ],
            &[
                "INSERT INTO t VALUES (10, 'a', 7) ON CONFLICT(u) DO UPDATE SET v = excluded.v, u = 'aa' ON CONFLICT DO NOTHING",
            ],
            &[
                "BEGIN",
                "!INSERT OR ROLLBACK INTO t VALUES (11, 'b', 0)",
                "UPDATE OR IGNORE t SET u = 'c'",
                "!UPDATE OR ABORT t SET u = 'c'",
            ],
            &["BEGIN", "REPLACE INTO t VALUES (12, 'b', 0)", "ROLLBACK"],
            &[
                "PRAGMA recursive_triggers = ON",
                "REPLACE INTO t VALUES (13, 'b', 0)",
                "UPDATE OR REPLACE t SET u = 'c' WHERE id = 13",
            ],
        ],
    };
    script.holds(test);
}
