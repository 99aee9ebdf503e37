//! Random schemas and scripts that collide a lot: few values, many constraints.

use crate::support::Chance;

/// Every table has the columns a, b and c, and d, which no index names.
const TABLES: &[&str] = &[
    "t0(id INTEGER PRIMARY KEY, a UNIQUE, b, c DEFAULT 'z', d)",
    "t1(k TEXT COLLATE NOCASE PRIMARY KEY, a NOT NULL DEFAULT 'z' UNIQUE, b, c, d)",
    "t2(a, b, c UNIQUE ON CONFLICT REPLACE, d, PRIMARY KEY(a, b)) WITHOUT ROWID",
    "t3(id INTEGER PRIMARY KEY AUTOINCREMENT, a, b CHECK (b IS NOT 7), c NOT NULL DEFAULT (1 + 1), d)",
    "t4(a, b, c, d)",
    "t5(a INT, b TEXT, c AS (a + 1), d, g AS (b || a) STORED UNIQUE)",
    "t6(a INTEGER REFERENCES t0(id) ON DELETE CASCADE ON UPDATE CASCADE, b REFERENCES t1(k) ON DELETE SET NULL, c UNIQUE, d)",
    "t7(a INT, b TEXT NOT NULL, c ANY, d ANY, PRIMARY KEY(a, b)) STRICT",
    "t8(a PRIMARY KEY DESC ON CONFLICT IGNORE, b UNIQUE ON CONFLICT FAIL, c REFERENCES t8(a) DEFERRABLE INITIALLY DEFERRED, d)",
];

/// Unique indexes on a table, `%` for its name.
const INDEXES: &[&str] = &[
    "CREATE UNIQUE INDEX %_p ON %(b) WHERE c IS NOT NULL",
    "CREATE UNIQUE INDEX %_e ON %(lower(b), a)",
    "CREATE UNIQUE INDEX %_n ON %(b COLLATE NOCASE DESC, c)",
    "CREATE UNIQUE INDEX %_x ON %(coalesce(a, b)) WHERE typeof(b) = 'text'",
    "CREATE INDEX %_i ON %(c)",
];

/// Triggers of the application. What they note of the statement's counts must not be ours.
const TRIGGERS: &[&str] = &[
    "CREATE TRIGGER %_ai AFTER INSERT ON % BEGIN INSERT INTO log VALUES ('%', changes(), last_insert_rowid(), NEW.a, NEW.b); END",
    "CREATE TRIGGER %_au AFTER UPDATE ON % BEGIN INSERT INTO log VALUES ('u', changes(), last_insert_rowid(), OLD.a, NEW.b); END",
    "CREATE TRIGGER %_ad AFTER DELETE ON % BEGIN INSERT INTO log SELECT 'd', changes(), last_insert_rowid(), OLD.a, count(*) FROM %; END",
    "CREATE TRIGGER %_bi BEFORE INSERT ON % WHEN NEW.a = 2 BEGIN SELECT RAISE(IGNORE); END",
    "CREATE TRIGGER %_bu BEFORE UPDATE ON % BEGIN INSERT INTO log VALUES ('b', changes(), last_insert_rowid(), NEW.a, NEW.c); END",
    "CREATE TRIGGER %_af AFTER UPDATE ON % WHEN NEW.b = 'B' BEGIN SELECT RAISE(FAIL, 'no B'); END",
    "CREATE TRIGGER %_ar AFTER INSERT ON % WHEN NEW.b = 'q' BEGIN SELECT RAISE(ROLLBACK, 'no q'); END",
    "CREATE TRIGGER %_ab AFTER DELETE ON % WHEN OLD.a = 3 BEGIN SELECT RAISE(ABORT, 'no 3'); END",
    "CREATE TRIGGER %_as AFTER INSERT ON % WHEN NEW.d IS NULL BEGIN UPDATE % SET d = last_insert_rowid() + changes() WHERE a IS NEW.a; END",
];

const VALUES: &[&str] = &[
    "1", "2", "3", "'a'", "'A'", "'b'", "'B'", "'q'", "NULL", "1.0", "x'61'", "'z'", "''", "7", "-1", "'1'",
    "2.5",
];
const PREDICATES: &[&str] =
    &["a = 1", "b = 'a'", "c IS NULL", "a IN (1, 3, 'z')", "1", "b > 'A'", "d IS NULL", "a IS NOT b"];
const CLAUSES: &[&str] =
    &["", "", "", " OR REPLACE", " OR REPLACE", " OR IGNORE", " OR FAIL", " OR ABORT", " OR ROLLBACK"];
const RETURNING: &[&str] = &["", "", " RETURNING *", " RETURNING a, changes(), last_insert_rowid()"];

/// A schema with some rows, and its tables.
pub(super) struct Schema {
    pub(super) setup: Vec<String>,
    tables: Vec<String>,
}

impl Schema {
    pub(super) fn generate(chance: &mut Chance) -> Self {
        let mut setup = vec!["CREATE TABLE log(t, n, r, a, b)".to_owned()];
        let mut tables = Vec::new();
        for (i, table) in TABLES.iter().enumerate() {
            // The first two are the parents of others.
            if chance.one_in(3) || i < 2 {
                setup.push(format!("CREATE TABLE {table}"));
                tables.push(format!("t{i}"));
            }
        }
        for table in &tables {
            setup.extend(objects(chance, table, 6));
            for _ in 0..chance.below(6) {
                setup.push(format!("INSERT OR IGNORE INTO {table}(a, b) VALUES {}", tuple(chance, 2)));
            }
        }
        Self { setup, tables }
    }

    pub(super) fn script(&self, chance: &mut Chance) -> Vec<String> {
        let mut script = vec!["PRAGMA foreign_keys = ON".to_owned()];
        for table in &self.tables {
            // These are made after capture.
            script.extend(objects(chance, table, 12));
        }
        script.extend((0..25).map(|_| statement(chance, &self.tables)));
        script
    }
}

/// One of so many of a table's indexes and triggers.
fn objects(chance: &mut Chance, table: &str, one_in: u64) -> Vec<String> {
    let texts = INDEXES.iter().chain(TRIGGERS);
    texts.filter(|_| chance.one_in(one_in)).map(|text| text.replace('%', table)).collect()
}

fn tuple(chance: &mut Chance, width: usize) -> String {
    let values: Vec<&str> = (0..width).map(|_| chance.pick(VALUES)).collect();
    format!("({})", values.join(", "))
}

fn columns(chance: &mut Chance) -> (&'static str, usize) {
    chance.pick(&[
        ("(a, b, d)", 3),
        ("(a, b)", 2),
        ("(b, a)", 2),
        ("(a)", 1),
        ("(b, c)", 2),
        ("(rowid, a, b)", 3),
        ("(k, a)", 2),
        ("(id, b, d)", 3),
    ])
}

fn statement(chance: &mut Chance, tables: &[String]) -> String {
    let t = &tables[chance.index(tables.len())];
    let u = &tables[chance.index(tables.len())];
    let (clause, returning, predicate) =
        (chance.pick(CLAUSES), chance.pick(RETURNING), chance.pick(PREDICATES));
    let (column, value) = (chance.pick(&["a", "b", "c", "d", "rowid", "id", "k"]), chance.pick(VALUES));
    match chance.below(24) {
        0..6 => {
            let (names, width) = columns(chance);
            let rows: Vec<String> = (0..=chance.below(3)).map(|_| tuple(chance, width)).collect();
            format!("INSERT{clause} INTO {t}{names} VALUES {}{returning}", rows.join(", "))
        }
        6 => format!(
            "INSERT INTO {t}(a, b) VALUES {} ON CONFLICT DO UPDATE SET b = {value}, d = excluded.a{returning}",
            tuple(chance, 2)
        ),
        7 => format!(
            "INSERT{clause} INTO {t}(a, b) SELECT b, a FROM {u} WHERE {predicate} ORDER BY 1, 2{returning}"
        ),
        8..12 => format!("UPDATE{clause} {t} SET {column} = {value} WHERE {predicate}{returning}"),
        12 => format!("UPDATE{clause} {t} SET a = b, b = a, d = {value} WHERE {predicate}"),
        13 => format!(
            "UPDATE{clause} {t} SET b = x.b FROM (SELECT * FROM {u} ORDER BY a LIMIT 1) AS x WHERE {t}.a = x.a"
        ),
        14 | 15 => format!("DELETE FROM {t} WHERE {predicate}{returning}"),
        16 => format!("DELETE FROM {t}"),
        17 => chance.pick(&["BEGIN", "BEGIN IMMEDIATE", "COMMIT", "ROLLBACK", "END"]).to_owned(),
        18 => chance.pick(&["SAVEPOINT s", "ROLLBACK TO s", "RELEASE s"]).to_owned(),
        19 => chance
            .pick(&[
                "PRAGMA recursive_triggers = ON",
                "PRAGMA recursive_triggers = OFF",
                "PRAGMA defer_foreign_keys = ON",
            ])
            .to_owned(),
        20 => format!("SELECT *, changes(), last_insert_rowid() FROM {t} ORDER BY a, b, c, d"),
        21 => definition(chance, t),
        22 => format!("SELECT changes(), last_insert_rowid(), count(*), max(a) FROM {t} WHERE {predicate}"),
        _ => format!("REPLACE INTO {t}(a, b) VALUES {}{returning}", tuple(chance, 2)),
    }
}

/// A change of the schema. None of those that docs/capture.md lists as seen.
fn definition(chance: &mut Chance, t: &str) -> String {
    match chance.below(8) {
        0 => format!("ALTER TABLE {t} ADD COLUMN e{} DEFAULT 5", chance.below(3)),
        1 => format!("ALTER TABLE {t} DROP COLUMN d"),
        2 => format!("ALTER TABLE {t} RENAME COLUMN d TO dd"),
        3 => format!("ALTER TABLE {t} RENAME COLUMN b TO bb"),
        4 => format!("ALTER TABLE {t} RENAME TO {t}x"),
        5 => format!("DROP TABLE {t}"),
        6 => chance.pick(INDEXES).replace('%', t),
        _ => chance.pick(TRIGGERS).replace('%', t),
    }
}
