//! What is replicated is what the configuration says, and nothing else: after any statement, and after
//! any change of the configuration.

use std::fmt::Write as _;
use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::oracle::Oracle;
use crate::support::redtail::{Redtail, Run};
use crate::support::{Chance, note};

/// What is said of one table, and the SELECT that says the same.
struct Choice {
    toml: &'static str,
    columns: &'static [&'static str],
    select: &'static str,
}

const ALL: &[&str] = &["id", "at", "kind", "email", "n"];

/// `{n}` is how many rows are kept.
const CHOICES: &[Choice] = &[
    Choice { toml: "", columns: ALL, select: "SELECT * FROM t" },
    Choice { toml: "columns = ['n', 'id']", columns: &["id", "n"], select: "SELECT id, n FROM t" },
    Choice {
        toml: "where = \"kind = 'a' OR n IN (1, 2) -- both\"",
        columns: ALL,
        select: "SELECT * FROM t WHERE kind = 'a' OR n IN (1, 2)",
    },
    Choice {
        toml: "mask = { email = \"substr(email,1,2)||'***'\", n = 'n % 10' }",
        columns: ALL,
        select: "SELECT id, at, kind, substr(email,1,2)||'***' AS email, n % 10 AS n FROM t",
    },
    Choice {
        toml: "keep_latest = { by = 'at', rows = {n} }",
        columns: ALL,
        select: "SELECT * FROM t ORDER BY at DESC, id LIMIT {n}",
    },
    Choice {
        toml: "columns = ['id', 'at', 'email']\nwhere = \"kind IS NOT 'b'\"\nmask = { email = 'NULL' }\nkeep_latest = { by = 'at', rows = {n} }",
        columns: &["id", "at", "email"],
        select: "SELECT id, at, NULL AS email FROM t WHERE kind IS NOT 'b' ORDER BY at DESC, id LIMIT {n}",
    },
];

const TABLES: &[&str] = &[
    "CREATE TABLE t(id INTEGER PRIMARY KEY, at, kind, email, n INTEGER)",
    "CREATE TABLE t(id TEXT PRIMARY KEY NOT NULL, at TEXT, kind TEXT, email TEXT UNIQUE, n)",
    "CREATE TABLE t(id PRIMARY KEY NOT NULL, at REAL, kind, email, n) WITHOUT ROWID",
    "CREATE TABLE t(id COLLATE NOCASE PRIMARY KEY NOT NULL, at INT, kind COLLATE NOCASE, email, n)",
    "CREATE TABLE t(id, at, kind, email, n, PRIMARY KEY(id))",
];

fn statement(chance: &mut Chance) -> String {
    let id = ["1", "2", "3", "'a'", "'B'", "'ä'", "x'00'", "4.5", "50", "'e'", "17", "'zz'"];
    let at = ["NULL", "1", "2", "2", "3", "10", "11.5", "'2026'", "'2027-01-01'", "x'ff'", "100", "101"];
    let kind = ["'a'", "'b'", "'c'", "NULL"];
    let (id, other) = (chance.pick(&id), chance.pick(&id));
    let (at, kind) = (chance.pick(&at), chance.pick(&kind));
    let (n, email) = (chance.below(30), chance.below(40));
    match chance.below(10) {
        0..=3 => format!("INSERT OR REPLACE INTO t VALUES ({id}, {at}, {kind}, 'mail{email}@x', {n})"),
        4 => format!("UPDATE OR REPLACE t SET at = {at} WHERE id = {id}"),
        5 => format!("UPDATE OR IGNORE t SET kind = {kind}, n = {n} WHERE n > {}", chance.below(30)),
        6 => format!("DELETE FROM t WHERE id = {id}"),
        7 => format!("UPDATE OR REPLACE t SET id = {id} WHERE id = {other}"),
        8 => format!(
            "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < {}) INSERT OR REPLACE INTO t SELECT i + {n}, i % 5, {kind}, 'many' || i, i FROM c",
            1 + chance.below(40)
        ),
        _ => "DELETE FROM t WHERE n % 3 = 0".to_owned(),
    }
}

struct Case {
    oracle: Oracle,
    redtail: Redtail,
    run: Option<Run>,
    selects: Value,
    said: String,
    /// Dropped last.
    _folder: TempDir,
}

impl Case {
    /// A table of some kind, what is replicated of it, and its first rows. `None` without an oracle.
    fn begin(test: &str, chance: &mut Chance, fault: Option<&str>) -> Option<Self> {
        let oracle = Oracle::start(test)?;
        let folder = TempDir::new().unwrap();
        let mut redtail = Redtail::new(folder.path());
        // Small windows and pieces: boundaries move in the middle of a backlog and of a copy.
        if chance.one_in(3) {
            redtail = redtail.with_env("REDTAIL_WINDOW_ENTRIES", "4").with_env("REDTAIL_CHUNK_ROWS", "9");
        }
        if let Some(fault) = fault {
            redtail = redtail.with_env("REDTAIL_FAULT", fault);
        }
        let mut case =
            Self { oracle, redtail, run: None, selects: json!({}), said: String::new(), _folder: folder };
        let choice = &CHOICES[chance.index(CHOICES.len())];
        case.configure(choice, 1 + chance.below(12));
        let table = chance.pick(TABLES);
        let setup =
            ["PRAGMA journal_mode = WAL", table, "CREATE INDEX t_at ON t(at)", "CREATE TABLE left_out(x)"];
        case.application(&setup.map(str::to_owned));
        case.application(&(0..chance.below(30)).map(|_| statement(chance)).collect::<Vec<_>>());
        let found = case.compare();
        assert!(found.is_none(), "the first copy: {found:?}");
        Some(case)
    }

    /// Perhaps another configuration, perhaps a `run`, and some statements. Whether all is equal.
    fn step(&mut self, chance: &mut Chance) -> bool {
        if chance.one_in(4) {
            self.run = None;
            self.configure(&CHOICES[chance.index(CHOICES.len())], 1 + chance.below(12));
            let found = self.compare();
            assert!(found.is_none(), "another configuration: {found:?}");
        }
        if chance.one_in(3) && self.run.is_none() {
            self.run = Some(self.redtail.spawn_run("s.db", "r.redb"));
        }
        self.application(&(0..=chance.below(12)).map(|_| statement(chance)).collect::<Vec<_>>());
        let found = self.compare();
        if let Some(found) = &found {
            note(found);
        }
        found.is_none()
    }

    fn configure(&mut self, choice: &Choice, keep: u64) {
        let n = keep.to_string();
        let toml = format!(
            "source = 's.db'\nreplica = 'r.redb'\nexclude = ['left_*']\n[tables.T]\n{}\n",
            choice.toml.replace("{n}", &n)
        );
        writeln!(self.said, "-- {toml}").unwrap();
        fs::write(self.redtail.path("redtail.toml"), toml).unwrap();
        let select = json!({"columns": choice.columns, "sql": choice.select.replace("{n}", &n)});
        self.selects = json!({"t": select, "left_out": null});
    }

    fn application(&mut self, sql: &[String]) {
        let db = self.redtail.path("s.db");
        self.said.push_str(&sql.join(";\n"));
        self.said.push_str(";\n");
        // What the database refuses changes nothing.
        self.oracle.ask(&json!({"op": "begin", "db": db}));
        self.oracle.ask(&json!({"op": "play", "sql": sql}));
    }

    /// What was played and what differs, if anything does.
    fn compare(&mut self) -> Option<String> {
        match &mut self.run {
            Some(run) => drop(run.caught_up()),
            None => self.redtail.sync("s.db", "r.redb"),
        }
        let dump = self.redtail.path("dump.jsonl");
        self.redtail.dump("r.redb", &dump);
        let found = self.oracle.compare_selected(&self.redtail.path("s.db"), &dump, &self.selects);
        (!found.equal).then(|| format!("{}\n{:#?}", self.said, found.differences))
    }
}

/// Plays so many random cases; fails at the first difference.
fn play(test: &str, cases: u64, fault: Option<&str>) -> bool {
    let mut chance = Chance::new(test);
    let mut steps = 0;
    for number in 0..cases {
        let Some(mut case) = Case::begin(test, &mut chance, fault) else { return true };
        for _ in 0..6 {
            steps += 1;
            if !case.step(&mut chance) {
                return false;
            }
        }
        let verified = case.redtail.ok(&["verify", "-s", "s.db", "-r", "r.redb"]);
        assert!(verified.contains("equal"), "case {number}: {verified}");
    }
    note(&format!("{test}: {cases} cases, {steps} steps"));
    true
}

/// Scripts in a usual run; `REDTAIL_SELECTIONS` says how many in another.
const CASES: u64 = 12;

#[test]
fn after_any_statement_the_replica_is_what_the_configuration_selects() {
    let test = "after_any_statement_the_replica_is_what_the_configuration_selects";
    let cases = std::env::var("REDTAIL_SELECTIONS").map_or(CASES, |n| n.parse().unwrap());
    assert!(play(test, cases, None));
}

#[test]
fn a_boundary_that_stands_still_is_caught() {
    if cfg!(debug_assertions) {
        let test = "a_boundary_that_stands_still_is_caught";
        let caught = Oracle::start(test).is_none() || !play(test, 200, Some("stale-boundary"));
        assert!(caught, "200 cases without a difference");
    }
}
