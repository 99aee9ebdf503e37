//! The searches for keys that might be evicted are searches: what a write costs does not grow with the table.
//!
//! Counted in instructions of SQLite's machine, of which a scan takes some for every row.

use std::path::Path;

use serde_json::json;
use tempfile::TempDir;

use super::init;
use crate::support::oracle::Oracle;

const SMALL: u32 = 1_000;
const LARGE: u32 = 20_000;

/// A table with its indexes, how row `i` is made, and one write of every kind.
struct Kind {
    name: &'static str,
    create: &'static [&'static str],
    /// The columns and their values for the number i.
    fill: (&'static str, &'static str),
    writes: &'static [&'static str],
}

const KINDS: &[Kind] = &[
    Kind {
        name: "a unique column",
        create: &["CREATE TABLE x0(id INTEGER PRIMARY KEY, u UNIQUE, v)"],
        fill: ("x0(id, u, v)", "i, 'u' || i, i"),
        writes: &[
            "INSERT INTO x0(u) VALUES ('new')",
            "REPLACE INTO x0(u) VALUES ('u77')",
            "UPDATE OR REPLACE x0 SET u = 'u78' WHERE id = 5",
            "UPDATE x0 SET v = 0 WHERE id = 5",
        ],
    },
    Kind {
        name: "several columns, one of them mostly NULL",
        create: &["CREATE TABLE x1(id INTEGER PRIMARY KEY, a, b, c, UNIQUE(a, b), UNIQUE(c))"],
        fill: ("x1(id, a, b)", "i, i % 10, i"),
        writes: &[
            "INSERT INTO x1(a, b) VALUES (3, -1)",
            "REPLACE INTO x1(a, b) VALUES (7, 77)",
            "UPDATE OR REPLACE x1 SET b = 85 WHERE id = 5",
            "INSERT INTO x1 DEFAULT VALUES",
        ],
    },
    Kind {
        name: "the rowid beside a key of its own",
        create: &["CREATE TABLE x2(k TEXT PRIMARY KEY, v)"],
        fill: ("x2(rowid, k, v)", "i, 'k' || i, i"),
        writes: &[
            "INSERT INTO x2 VALUES ('new', 1)",
            "REPLACE INTO x2(rowid, k) VALUES (77, 'newer')",
            "UPDATE OR REPLACE x2 SET rowid = 78 WHERE k = 'k5'",
        ],
    },
    Kind {
        name: "partial",
        create: &[
            "CREATE TABLE x3(id INTEGER PRIMARY KEY, a, b)",
            "CREATE UNIQUE INDEX x3_p ON x3(a) WHERE b > 3",
        ],
        fill: ("x3(id, a, b)", "i, 'a' || i, i"),
        writes: &[
            "INSERT INTO x3(a, b) VALUES ('new', 7)",
            "REPLACE INTO x3(a, b) VALUES ('a77', 7)",
            "UPDATE OR REPLACE x3 SET a = 'a78' WHERE id = 5",
            "INSERT INTO x3(a, b) VALUES ('a77', 0)",
        ],
    },
    Kind {
        name: "an expression, partial",
        create: &[
            "CREATE TABLE x4(id INTEGER PRIMARY KEY, a, b, c DEFAULT 1)",
            "CREATE UNIQUE INDEX x4_e ON x4(lower(a), b DESC) WHERE c IS NOT NULL",
            "CREATE UNIQUE INDEX x4_f ON x4(a || '-' || b)",
        ],
        fill: ("x4(id, a, b)", "i, 'A' || i, i % 7"),
        writes: &[
            "INSERT INTO x4(a, b) VALUES ('new', 7)",
            "REPLACE INTO x4(a, b) VALUES ('a77', 0)",
            "UPDATE OR REPLACE x4 SET a = 'a78', b = 1 WHERE id = 5",
        ],
    },
    Kind {
        name: "another collation than the column's, in both directions",
        create: &[
            "CREATE TABLE x5(id INTEGER PRIMARY KEY, a TEXT, b TEXT COLLATE NOCASE)",
            "CREATE UNIQUE INDEX x5_a ON x5(a COLLATE NOCASE)",
            "CREATE UNIQUE INDEX x5_b ON x5(b COLLATE BINARY)",
            "CREATE UNIQUE INDEX x5_r ON x5(a COLLATE RTRIM)",
        ],
        fill: ("x5(id, a, b)", "i, 'A' || i, 'B' || i"),
        writes: &[
            "INSERT INTO x5(a, b) VALUES ('new', 'new')",
            "REPLACE INTO x5(a, b) VALUES ('a77', 'b78')",
            "UPDATE OR REPLACE x5 SET a = 'a78  ', b = 'B79' WHERE id = 5",
        ],
    },
    Kind {
        name: "a column whose NULL becomes a default",
        create: &["CREATE TABLE x6(id INTEGER PRIMARY KEY, a NOT NULL DEFAULT 'z' UNIQUE, b)"],
        fill: ("x6(id, a)", "i, 'a' || i"),
        writes: &[
            "INSERT INTO x6(b) VALUES (1)",
            "REPLACE INTO x6(a) VALUES (NULL)",
            "UPDATE OR REPLACE x6 SET a = 'a78' WHERE id = 5",
        ],
    },
    Kind {
        name: "generated columns",
        create: &[
            "CREATE TABLE x7(k TEXT PRIMARY KEY, a, g AS (a || '!') UNIQUE, s AS (a + 1) STORED)",
            "CREATE UNIQUE INDEX x7_s ON x7(s, g) WHERE s > 0",
        ],
        fill: ("x7(k, a)", "'k' || i, i"),
        writes: &[
            "INSERT INTO x7(k, a) VALUES ('new', -7)",
            "REPLACE INTO x7(k, a) VALUES ('newer', 77)",
            "UPDATE OR REPLACE x7 SET a = 78 WHERE k = 'k5'",
        ],
    },
    Kind {
        name: "without rowid",
        create: &[
            "CREATE TABLE x8(a, b, u UNIQUE, PRIMARY KEY(a, b)) WITHOUT ROWID",
            "CREATE UNIQUE INDEX x8_b ON x8(b)",
        ],
        fill: ("x8(a, b, u)", "i, i, i"),
        writes: &[
            "INSERT INTO x8 VALUES (-1, -1, -1)",
            "REPLACE INTO x8 VALUES (-1, 77, 78)",
            "UPDATE OR REPLACE x8 SET u = 79, b = 80 WHERE a = 5",
            "DELETE FROM x8 WHERE a = 5",
        ],
    },
    Kind {
        name: "behind a term of the automatic key",
        create: &[
            "CREATE TABLE x9(id INTEGER PRIMARY KEY, n)",
            "CREATE UNIQUE INDEX x9_e ON x9(n, id % 10)",
            "CREATE UNIQUE INDEX x9_p ON x9(n) WHERE id > 0",
        ],
        fill: ("x9(id, n)", "i, 'n' || i"),
        writes: &[
            "INSERT INTO x9(n) VALUES ('new')",
            "REPLACE INTO x9(n) VALUES ('n77')",
            "UPDATE OR REPLACE x9 SET n = 'n78' WHERE id = 5",
        ],
    },
    Kind {
        name: "NULL in the key",
        create: &["CREATE TABLE xa(a, b, u UNIQUE, PRIMARY KEY(a, b))"],
        fill: ("xa(a, b, u)", "NULL, i % 3, i"),
        writes: &[
            "INSERT INTO xa VALUES (NULL, 1, -1)",
            "REPLACE INTO xa VALUES (NULL, 1, 77)",
            "UPDATE OR REPLACE xa SET u = 78 WHERE u = 5",
            "DELETE FROM xa WHERE u = 5",
        ],
    },
];

/// Terms of the automatic key in front: before an insert only what lies behind them is known.
const LEADING: &[Kind] = &[
    Kind {
        name: "a leading term of the automatic key",
        create: &["CREATE TABLE y0(id INTEGER PRIMARY KEY, n)", "CREATE UNIQUE INDEX y0_e ON y0(id % 10, n)"],
        fill: ("y0(id, n)", "i, 'n' || i"),
        writes: &["INSERT INTO y0(n) VALUES ('new')", "UPDATE OR REPLACE y0 SET n = 'n78' WHERE id = 5"],
    },
    Kind {
        name: "a leading generated column of the automatic key",
        create: &["CREATE TABLE y1(id INTEGER PRIMARY KEY, n, g AS (id % 10), UNIQUE(g, n))"],
        fill: ("y1(id, n)", "i, 'n' || i"),
        writes: &["INSERT INTO y1(n) VALUES ('new')", "UPDATE OR REPLACE y1 SET n = 'n78' WHERE id = 5"],
    },
];

/// What each write costs at so many rows.
fn costs(
    oracle: &mut Oracle,
    db: &Path,
    kinds: &[Kind],
    rows: u32,
    analyzed: bool,
    uncaptured: &[&str],
) -> Vec<u64> {
    let mut sql: Vec<String> = kinds.iter().flat_map(|kind| kind.create).map(|s| (*s).to_owned()).collect();
    for kind in kinds {
        let (into, values) = kind.fill;
        sql.push(format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) INSERT INTO {into} SELECT {values} FROM n"));
    }
    if analyzed {
        sql.push("ANALYZE".to_owned());
    }
    oracle.script(db, &sql);
    init(db);
    oracle.script(db, uncaptured);
    let writes: Vec<&str> = kinds.iter().flat_map(|kind| kind.writes.iter().copied()).collect();
    let counts = oracle.ask(&json!({"op": "cost", "db": db, "sql": writes}))["counts"].clone();
    counts.as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect()
}

/// The writes that cost half as much again on the large table, with what they cost.
fn growing(test: &str, kinds: &[Kind], analyzed: bool, uncaptured: &[&str]) -> Option<Vec<String>> {
    let mut oracle = Oracle::application(test)?;
    let folder = TempDir::new().unwrap();
    let small = costs(&mut oracle, &folder.path().join("small.db"), kinds, SMALL, analyzed, uncaptured);
    let large = costs(&mut oracle, &folder.path().join("large.db"), kinds, LARGE, analyzed, uncaptured);
    let writes = kinds.iter().flat_map(|kind| kind.writes.iter().map(|write| (kind.name, write)));
    let grown = writes.zip(small.iter().zip(&large)).filter(|(_, (small, large))| **large * 2 > **small * 3);
    Some(
        grown
            .map(|((name, write), (small, large))| {
                format!("{name}: {write}: {small} instructions, then {large}")
            })
            .collect(),
    )
}

#[test]
fn what_a_write_costs_does_not_grow_with_the_table() {
    let test = "what_a_write_costs_does_not_grow_with_the_table";
    for analyzed in [false, true] {
        let Some(grown) = growing(test, KINDS, analyzed, &[]) else { return };
        assert!(grown.is_empty(), "analyzed: {analyzed}: {grown:#?}");
    }
}

#[test]
fn terms_of_the_automatic_key_in_front_of_an_index_cost_no_scan() {
    let Some(grown) =
        growing("terms_of_the_automatic_key_in_front_of_an_index_cost_no_scan", LEADING, false, &[])
    else {
        return;
    };
    assert!(grown.is_empty(), "{grown:#?}");
}

/// The control: a search that lost its index is a scan, and is counted as one.
#[test]
fn a_search_without_its_index_is_noticed() {
    let Some(grown) = growing("a_search_without_its_index_is_noticed", KINDS, false, &["DROP INDEX x3_p"])
    else {
        return;
    };
    assert!(
        grown.iter().any(|g| g.starts_with("partial")) && grown.iter().all(|g| g.starts_with("partial")),
        "{grown:#?}"
    );
}
