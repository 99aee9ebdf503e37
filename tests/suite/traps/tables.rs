//! Tables that are ordinary but do not look it: their kinds, their names, their width.

use crate::support::trial::{Control, Script, Trial};

/// Names that end a statement, a string or a line, or stand for something else.
const NAMES: &[&str] = &[
    "select",
    "a b",
    "a'b",
    "a\"\"b",
    "a`b",
    "[x]",
    "x); DROP TABLE t; --",
    "two\nlines",
    "🦀 ünï",
    "%s?1:a@b$c",
    "/* c */",
    "TABLE",
    "new",
    "_redtail",
    "null",
    "sqlite",
    "日本語",
    "\\",
    "''",
    "1",
    ".",
    "t",
    "main",
    "rowid",
];

// Attacks: names are quoted wherever they are written, and bound where they are values.
#[test]
fn names_of_every_kind_are_followed() {
    let test = "names_of_every_kind_are_followed";
    for live in [false, true] {
        let Some(mut trial) = Trial::begin(test, None) else { return };
        let mut sql = vec![
            "PRAGMA journal_mode = WAL".to_owned(),
            "CREATE TABLE beat(n)".to_owned(),
            "INSERT INTO beat VALUES (0)".to_owned(),
        ];
        let mut more = Vec::new();
        for name in NAMES {
            let n = format!("\"{name}\"");
            sql.push(format!(
                "CREATE TABLE {n}({n} TEXT PRIMARY KEY, \"k {name}\" UNIQUE, \"v {name}\" DEFAULT 'it''s')"
            ));
            sql.push(format!("CREATE UNIQUE INDEX \"i {name}\" ON {n}(lower({n} || \"v {name}\")) WHERE \"v {name}\" <> 'x'''"));
            sql.push(format!("INSERT INTO {n}({n}, \"k {name}\") VALUES ('a', 1), ('b', 2), ('c', 3)"));
            more.push(format!("UPDATE {n} SET {n} = {n} || {n}, \"v {name}\" = 'q' WHERE {n} = 'b'"));
            more.push(format!("REPLACE INTO {n} VALUES ('d', 1, 'x')"));
            more.push(format!("DELETE FROM {n} WHERE {n} = 'c'"));
        }
        trial.application(&sql);
        trial.follow(live);
        trial.application(&more);
        let compared = trial.assert_equal("written");
        assert_eq!(compared.tables, 1 + NAMES.len() as u64);
    }
}

// Attacks: the rowid is reached by whichever of its names no column hides.
#[test]
fn columns_called_rowid_oid_and_rowid_underscored_are_followed() {
    let test = "columns_called_rowid_oid_and_rowid_underscored_are_followed";
    let script = Script {
        setup: &[
            "CREATE TABLE a(rowid, v)",
            "CREATE TABLE b(oid, rowid TEXT, v)",
            "CREATE TABLE c(ROWID PRIMARY KEY, _RowId_, v)",
            "CREATE TABLE d(rowid, oid, _rowid_, id INTEGER PRIMARY KEY)",
            "CREATE TABLE e(rowid TEXT NOT NULL PRIMARY KEY, oid UNIQUE, _rowid_)",
            "INSERT INTO a VALUES (7, 1), (7, 2), (NULL, 3)",
            "INSERT INTO b VALUES (7, 7, 1), (8, 8, 2)",
            "INSERT INTO c VALUES (NULL, 1, 1), (NULL, 1, 2), (5, 1, 3)",
            "INSERT INTO d VALUES (9, 9, 9, 1), (9, 9, 9, 2)",
            "INSERT INTO e VALUES ('x', 1, 1), ('y', 2, 2)",
        ],
        steps: &[
            &[
                "UPDATE a SET rowid = v",
                "UPDATE b SET oid = 'x', _rowid_ = _rowid_ + 10",
                "UPDATE c SET rowid = v",
                "UPDATE d SET rowid = id",
                "REPLACE INTO e VALUES ('z', 1, 3)",
            ],
            &[
                "DELETE FROM a WHERE oid = 2",
                "DELETE FROM b WHERE _rowid_ = 11",
                "REPLACE INTO c(oid, rowid) VALUES (3, 'new')",
                "DELETE FROM d WHERE rowid = 1",
                "UPDATE e SET rowid = rowid || rowid",
            ],
        ],
    };
    script.holds(test);
    script.is_caught(test, Control::Edited(&[("OLD._rowid_", "OLD.rowid"), ("OLD.oid", "OLD.rowid")]));
}

// Attacks: what a definition may say besides columns.
#[test]
fn tables_of_every_kind_are_followed() {
    let test = "tables_of_every_kind_are_followed";
    let script = Script {
        setup: &[
            "CREATE TABLE auto(id INTEGER PRIMARY KEY AUTOINCREMENT, v)",
            "CREATE TABLE down(id INTEGER PRIMARY KEY DESC, v)",
            "CREATE TABLE strict(id INT PRIMARY KEY, t TEXT NOT NULL, r REAL, b BLOB, a ANY) STRICT",
            "CREATE TABLE gen(a INT, b AS (a * 2), c TEXT AS (a || 'x') STORED, d, PRIMARY KEY(a))",
            "CREATE TABLE genonly(v AS (w + 1), w)",
            "CREATE TABLE without(a, b, c DEFAULT 1.0, PRIMARY KEY(b DESC, a)) WITHOUT ROWID",
            "CREATE TABLE bare(x)",
            "CREATE TABLE checked(x CHECK (x <> 3), y NOT NULL ON CONFLICT IGNORE, UNIQUE(x) ON CONFLICT REPLACE)",
            "CREATE TABLE typed(a VARCHAR(10), b DECIMAL(5,2), c BOOLEAN, d DATETIME, e FLOATING POINT, f \"\", PRIMARY KEY(b, a))",
            "INSERT INTO auto(v) VALUES (1), (2)",
            "INSERT INTO down VALUES (5, 1), (6, 2), (NULL, 3)",
        ],
        steps: &[
            &[
                "DELETE FROM auto",
                "INSERT INTO auto(v) VALUES (3)",
                "UPDATE down SET id = id + 1, v = 9 WHERE id = 6",
                "DELETE FROM down WHERE id IS NULL",
            ],
            &[
                "INSERT INTO strict VALUES (1, 'a', 1, x'00', 1), (2, 'b', 2.5, NULL, '1')",
                "UPDATE strict SET a = 1.0, id = id + 1 WHERE id = 2",
                "INSERT INTO gen(a, d) VALUES (1, 1), ('2', 2)",
                "UPDATE gen SET a = a + 10",
            ],
            &[
                "INSERT INTO genonly(w) VALUES (1), (1)",
                "UPDATE genonly SET w = 5 WHERE rowid = 1",
                "INSERT INTO without(a, b) VALUES (1, 1), ('1', 1), (1.5, 'x')",
                "UPDATE without SET a = b, b = a",
            ],
            &[
                "INSERT INTO bare VALUES (1), (1), (NULL)",
                "DELETE FROM bare WHERE rowid = 2",
                "INSERT INTO checked VALUES (1, 1), (1, NULL), (1, 2), (4, 4)",
                "!UPDATE checked SET x = 3",
                "UPDATE checked SET x = 1",
            ],
            &[
                "INSERT INTO typed VALUES (1, '1.50', 'true', 'now', '1', '1'), ('a', 'b', 0, 0, 'x', x'')",
                "UPDATE typed SET a = 7, b = b || 1",
                "DELETE FROM without",
                "DELETE FROM auto",
            ],
        ],
    };
    script.holds(test);
    script.is_caught(test, Control::Fault("drop-delta"));
}

// Attacks: two columns for a value would pass SQLite's limit of 2,000 columns a SELECT.
#[test]
fn a_table_of_a_thousand_columns_is_followed() {
    let test = "a_table_of_a_thousand_columns_is_followed";
    for key in ["PRIMARY KEY", "INTEGER PRIMARY KEY", ""] {
        let Some(mut trial) = Trial::begin(test, None) else { return };
        let names: Vec<String> = (0..1000).map(|i| format!("c{i}")).collect();
        let create = format!("CREATE TABLE wide(c0 {key}, {})", names[1..].join(","));
        let values = |first: &str| {
            format!("{first},{}", (1..1000).map(|i| format!("'{i}'")).collect::<Vec<_>>().join(","))
        };
        let insert =
            format!("INSERT INTO wide VALUES ({}), ({}), ({})", values("1"), values("2"), values("3"));
        trial.application(&["CREATE TABLE beat(n)", "INSERT INTO beat VALUES (0)", &create, &insert]);
        trial.follow(false);
        trial.application(&[
            "UPDATE wide SET c999 = x'00', c500 = 1.5 WHERE c0 = 2",
            "UPDATE wide SET c0 = 9 WHERE c0 = 3",
            "DELETE FROM wide WHERE c0 = 1",
        ]);
        trial.assert_equal("written");
    }
}

// Attacks: a table that reads cannot take in is said so, by name, and never taken to be empty.
#[test]
fn a_table_of_two_thousand_columns_is_followed_or_skipped_by_name() {
    let test = "a_table_of_two_thousand_columns_is_followed_or_skipped_by_name";
    let Some(mut trial) = Trial::begin(test, None) else { return };
    let names: Vec<String> = (0..2000).map(|i| format!("c{i}")).collect();
    let create = format!("CREATE TABLE wide({})", names.join(","));
    trial.application(&[
        "PRAGMA journal_mode = WAL",
        "CREATE TABLE beat(n)",
        "INSERT INTO beat VALUES (0)",
        &create,
    ]);
    trial.follow(true);
    let status = trial.run().status();
    let told = |list: &str| status[list].as_array().unwrap().iter().any(|t| t["name"] == "wide");
    assert!(told("tables") != told("skipped"), "one of the two: {status:#}");
}

// Attacks: an index's own text, in every way that SQLite lets it be written.
#[test]
fn the_text_of_an_index_is_taken_over_however_it_is_written() {
    let test = "the_text_of_an_index_is_taken_over_however_it_is_written";
    let script = Script {
        setup: &[
            "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b TEXT, \"on\", [where], `c d`, \"lower\")",
            "CREATE UNIQUE INDEX IF NOT EXISTS \"on\" ON t(b COLLATE NOCASE || 'x', a + 1 DESC)",
            "CREATE UNIQUE INDEX main.[where] /* ( */ ON \"t\" (CASE WHEN \"on\" IN ('a,b', ')') THEN [where] ELSE `c d` END) WHERE \"where\" IS NOT NULL -- tail",
            "CREATE UNIQUE INDEX [lower ( x] ON [t](lower(\"lower\"), (a), ((b)) COLLATE \"NOCASE\" ASC)\nWHERE a BETWEEN 1 AND (5)",
            "CREATE UNIQUE INDEX t_in ON t(coalesce(\"lower\", 'WHERE') COLLATE NOCASE COLLATE RTRIM) WHERE ((\"on\")) <> 'where'",
            "CREATE UNIQUE INDEX t_like ON t(substr('--' || b, 3)) WHERE b GLOB '*/[*]*'",
            "INSERT INTO t VALUES (1, 1, 'B', 'a,b', 1, 10, 'L1'), (2, 2, 'C', ')', 2, 20, 'L2'), (3, 3, 'D', 'z', 3, 30, 'L3'), (4, 3, 'x/*y', NULL, NULL, 3, 'L4')",
        ],
        steps: &[
            &["REPLACE INTO t VALUES (10, 1, 'b', NULL, NULL, NULL, 'n1')"],
            &["REPLACE INTO t VALUES (11, 50, 'q', 'other', 0, 2, 'n2')"],
            &["REPLACE INTO t VALUES (12, 3, 'd', NULL, NULL, 5, 'l3')"],
            &[
                "UPDATE OR REPLACE t SET \"lower\" = 'N2  ', \"on\" = 'q' WHERE id = 12",
                "UPDATE OR REPLACE t SET b = 'x/*y' WHERE id = 11",
            ],
        ],
    };
    script.holds(test);
    script.is_caught(test, Control::Fault("no-eviction"));
}
