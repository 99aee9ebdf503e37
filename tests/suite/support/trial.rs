//! A script of an application, followed step by step: by `sync` after each, and by a `run` that stays.
//!
//! Its controls take one defence away, by a deliberate fault of debug builds or by other capture triggers
//! than ours, and must see the same script end unequal.

use std::fs;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::sync::Mutex;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::oracle::{Comparison, Oracle};
use super::redtail::{Redtail, Run, is_caught_up};
use super::server::Server;
use super::{note, poll};

const SOURCE: &str = "source.db";
const REPLICA: &str = "replica.redb";
/// The whole schema is compared once, at the start.
const BLIND: &str = "ignore-schema-version";

/// Scripts that are played on files alone, by their tests, and what a server lacks for them. Traps that are no scripts
/// are about files: journal modes, copies put in place, other libraries' hands on the file, triggers switched off.
const FILES_ALONE: &[(&str, &str)] = &[
    (
        "a_key_in_an_unknown_collation_is_followed_by_its_rowid",
        "no server has an application's own collation",
    ),
    ("keys_that_might_have_been_evicted_and_were_not_stay", "sqld refuses to set recursive_triggers"),
    ("rows_are_found_again_after_vacuum_renumbered_them", "sqld refuses VACUUM"),
    ("a_vacuum_hidden_behind_other_changes_of_the_schema_is_seen", "sqld refuses VACUUM"),
];

/// Statements of an application. One that begins with `!` must be refused by the database.
pub(crate) struct Script<'a> {
    pub(crate) setup: &'a [&'a str],
    /// Each step is a connection of its own; after each the replica is compared.
    pub(crate) steps: &'a [&'a [&'a str]],
}

/// How one defence is taken away.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Control<'a> {
    /// A fault of `sync`, by its name.
    Fault(&'static str),
    /// A `run` that does not notice changes of the schema.
    Blind,
    /// The same, with capture triggers in which these texts are replaced. A trigger left empty is dropped.
    Edited(&'a [(&'a str, &'a str)]),
}

/// A source, a replica that follows it, and the judge.
pub(crate) struct Trial {
    pub(crate) oracle: Lent,
    /// With the fault, if there is one.
    pub(crate) redtail: Redtail,
    plain: Redtail,
    run: Option<Run>,
    /// What redtail is given as the source: the file's name, or the server's address.
    given: String,
    server: Option<Server>,
    /// Dropped last.
    _folder: TempDir,
}

/// Oracles that no trial has at the moment: starting one takes longer than most scripts.
static IDLE: Mutex<Vec<Oracle>> = Mutex::new(Vec::new());

/// An oracle that goes back when the trial ends.
pub(crate) struct Lent(Option<Oracle>);

impl Lent {
    fn start(test: &str) -> Option<Self> {
        let idle = IDLE.lock().unwrap().pop();
        idle.or_else(|| Oracle::application(test)).map(|oracle| Self(Some(oracle)))
    }
}

impl Deref for Lent {
    type Target = Oracle;

    fn deref(&self) -> &Oracle {
        self.0.as_ref().expect("until the drop")
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Oracle {
        self.0.as_mut().expect("until the drop")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // One that a test failed with may be in the middle of an answer.
        if !std::thread::panicking() {
            IDLE.lock().unwrap().extend(self.0.take());
        }
    }
}

impl<'a> Script<'a> {
    /// Plays it both ways, and on a server if it can be; every step must end equal.
    pub(crate) fn holds(&self, test: &str) {
        for live in [false, true] {
            let Some(trial) = Trial::begin(test, None) else { return };
            self.ends_equal(trial, live, &self.start(live));
        }
        match FILES_ALONE.iter().find(|(name, _)| *name == test) {
            Some((_, why)) => note(&format!("{test}: on files alone: {why}")),
            None => {
                let Some(trial) = Trial::on_server(test) else { return };
                // The journal is the server's own affair.
                self.ends_equal(trial, true, &self.start(true)[1..]);
            }
        }
    }

    fn ends_equal(&self, mut trial: Trial, live: bool, start: &[&str]) {
        trial.application(start);
        trial.follow(live);
        for (number, step) in self.steps.iter().enumerate() {
            trial.application(step);
            trial.assert_equal(&format!("{}: step {number}, live: {live}: {step:#?}", trial.given));
        }
    }

    /// Plays it without a defence; some step must end unequal, or the script proves nothing.
    pub(crate) fn is_caught(&self, test: &str, control: Control<'_>) {
        if !cfg!(debug_assertions) {
            note(&format!("skipped: {test}: release builds have no deliberate faults"));
            return;
        }
        let (fault, live) = match control {
            Control::Fault(fault) => (fault, false),
            Control::Blind | Control::Edited(_) => (BLIND, true),
        };
        let Some(mut trial) = Trial::begin(test, Some(fault)) else { return };
        trial.application(&self.start(live));
        trial.follow(live);
        if let Control::Edited(changes) = control {
            trial.edit_triggers(changes);
        }
        let caught = self.steps.iter().any(|step| {
            trial.application(step);
            // It may also be noticed by redtail itself.
            let noticed = !live && trial.redtail.run(&["sync", "-s", SOURCE, "-r", REPLICA]).code == Some(1);
            noticed || !trial.compare().equal
        });
        assert!(caught, "{test}: without its defence ({control:?}) the script still ends equal");
    }

    fn start(&self, live: bool) -> Vec<&'a str> {
        // `beat` is written after each step: when its entry is applied, all that came before it was seen.
        let journal = if live { "PRAGMA journal_mode = WAL" } else { "PRAGMA journal_mode = DELETE" };
        [journal, "CREATE TABLE beat(n INTEGER)", "INSERT INTO beat VALUES (0)"]
            .into_iter()
            .chain(self.setup.iter().copied())
            .collect()
    }
}

impl Trial {
    /// `None`, after saying so, where there is no oracle.
    pub(crate) fn begin(test: &str, fault: Option<&'static str>) -> Option<Self> {
        let oracle = Lent::start(test)?;
        let folder = TempDir::new().unwrap();
        let plain = Redtail::new(folder.path());
        let redtail = fault.map_or_else(|| plain.clone(), |fault| plain.with_env("REDTAIL_FAULT", fault));
        let given = SOURCE.to_owned();
        Some(Self { oracle, redtail, plain, run: None, given, server: None, _folder: folder })
    }

    /// The same with a server as the source; `None`, after saying so, where there is none.
    pub(crate) fn on_server(test: &str) -> Option<Self> {
        let mut trial = Self::begin(test, None)?;
        let server = Server::start(test)?;
        trial.given = server.url();
        trial.redtail = trial.redtail.with_env("REDTAIL_POLL", "\"20ms\"");
        trial.server = Some(server);
        Some(trial)
    }

    /// The first copy, and from then on a `run` if it is to be `live`.
    pub(crate) fn follow(&mut self, live: bool) {
        self.redtail.sync(&self.given, REPLICA);
        if live {
            self.live();
        }
        self.assert_equal("the first copy");
    }

    /// Goes on by a `run`.
    pub(crate) fn live(&mut self) {
        self.spawn();
        self.run().caught_up();
    }

    /// Starts a `run` and waits until it can be asked.
    pub(crate) fn spawn(&mut self) {
        self.run = Some(self.redtail.spawn_run(&self.given, REPLICA));
        self.run().live();
    }

    /// Where the source is.
    pub(crate) fn source(&self) -> PathBuf {
        self.server.as_ref().map_or_else(|| self.plain.path(SOURCE), Server::database)
    }

    /// The `run`, which must have been started.
    pub(crate) fn run(&mut self) -> &mut Run {
        self.run.as_mut().expect("a run")
    }

    /// Ends the `run`; from here on it is followed by `sync`.
    pub(crate) fn stop(&mut self) {
        self.run.take().expect("a run").stop();
    }

    /// Runs statements as the application.
    pub(crate) fn application<S: AsRef<str>>(&mut self, sql: &[S]) {
        let one = |statement: &S| match statement.as_ref().strip_prefix('!') {
            Some(refused) => json!({"sql": refused, "fails": true}),
            None => json!(statement.as_ref()),
        };
        let sql: Vec<Value> = sql.iter().map(one).collect();
        let db = self.source();
        let answer = self.oracle.ask(&json!({"op": "script", "db": db, "sql": sql}));
        assert!(answer.get("unsupported").is_none(), "for FILES_ALONE: {}", answer["unsupported"]);
    }

    /// The integers of a SELECT's first row.
    pub(crate) fn integers(&mut self, sql: &str) -> Vec<i64> {
        let db = self.source();
        self.oracle.integers(&db, sql)
    }

    /// The texts of a SELECT's first column.
    pub(crate) fn texts(&mut self, sql: &str) -> Vec<String> {
        let db = self.source();
        let rows = self.oracle.query(&db, sql);
        let text = |row: &Value| row[0]["value"].as_str().expect("text").to_owned();
        rows.as_array().expect("rows").iter().map(text).collect()
    }

    /// Brings the replica up to all that was written so far.
    pub(crate) fn catch_up(&mut self) {
        if self.run.is_some() {
            self.application(&["UPDATE beat SET n = n + 1"]);
            let head = self.integers("SELECT max(seq) FROM _redtail_changelog")[0];
            self.run().until("at the source's head", |status| {
                status["cursor"].as_i64() >= Some(head) && is_caught_up(status)
            });
        } else {
            self.redtail.sync(&self.given, REPLICA);
        }
    }

    /// Catches up and compares.
    pub(crate) fn compare(&mut self) -> Comparison {
        self.catch_up();
        self.compared()
    }

    fn compared(&mut self) -> Comparison {
        let (dump, db) = (self.plain.path("compared.jsonl"), self.source());
        self.plain.dump(REPLICA, &dump);
        self.oracle.compare(&db, &dump)
    }

    /// Catches up; fails with the first differences.
    pub(crate) fn assert_equal(&mut self, what: &str) -> Comparison {
        let compared = self.compare();
        let first = &compared.differences;
        assert!(compared.equal, "{what}: {} differences, the first: {first:#?}", compared.count);
        compared
    }

    /// Waits until the replica is equal: for sources of which another head is no sign that it is.
    pub(crate) fn becomes_equal(&mut self, what: &str) {
        let mut last = None;
        let equal = poll(|| {
            let compared = self.compared();
            let equal = compared.equal.then_some(());
            last = Some(compared);
            equal
        });
        assert!(equal.is_some(), "{what}: {last:#?}");
    }

    /// Waits until a `run` has made it equal, or makes it so by `sync`.
    pub(crate) fn becomes_equal_by(&mut self, live: bool, what: &str) {
        if live {
            self.application(&["UPDATE beat SET n = n + 1"]);
            self.becomes_equal(what);
        } else {
            self.assert_equal(what);
        }
    }

    /// Copies the source's file, as an administrator does while nobody writes.
    pub(crate) fn back_up(&mut self, name: &str) {
        self.application(&["PRAGMA wal_checkpoint(TRUNCATE)"]);
        fs::copy(self.source(), self.plain.path(name)).unwrap();
    }

    /// Puts a copy in the source's place.
    pub(crate) fn put_in_place(&mut self, name: &str) {
        let source = self.source();
        for end in ["-wal", "-shm", "-journal"] {
            let mut beside = source.clone().into_os_string();
            beside.push(end);
            // There may be none.
            let _ = fs::remove_file(beside);
        }
        let copy = self.plain.path("in_place.db");
        fs::copy(self.plain.path(name), &copy).unwrap();
        fs::rename(copy, source).unwrap();
    }

    /// The texts of the capture triggers of one table, or of all, as they stand.
    pub(crate) fn triggers(&mut self, table: &str) -> Vec<String> {
        self.texts(&format!(
            "SELECT sql FROM sqlite_master WHERE type = 'trigger' AND name GLOB '_redtail_*' AND tbl_name GLOB '{table}' ORDER BY rowid"
        ))
    }

    /// What takes the capture triggers of a table away, and what brings them back word for word.
    pub(crate) fn drop_and_recreate(&mut self, table: &str) -> (Vec<String>, Vec<String>) {
        let texts = self.triggers(table);
        (texts.iter().map(|sql| drop_of(sql)).collect(), texts)
    }

    /// Puts other texts in the place of these in every capture trigger; one left empty is dropped.
    pub(crate) fn edit_triggers(&mut self, changes: &[(&str, &str)]) {
        let before = self.triggers("*");
        let mut sql = Vec::new();
        for text in &before {
            let edited = changes.iter().fold(text.clone(), |text, (from, to)| text.replace(from, to));
            if edited != *text {
                sql.push(drop_of(text));
                // A trigger without statements is none.
                let body = edited.split_once("BEGIN").and_then(|(_, body)| body.strip_suffix("END"));
                sql.extend(body.filter(|body| !body.trim().is_empty()).map(|_| edited.clone()));
            }
        }
        assert!(!sql.is_empty(), "nothing to replace by {changes:?} in {before:#?}");
        // A `run` repairs what it sees half done.
        let (begin, end) = (vec!["BEGIN IMMEDIATE".to_owned()], vec!["COMMIT".to_owned()]);
        self.application(&[begin, sql, end].concat());
    }
}

/// Our triggers have plain names between double quotes.
fn drop_of(create: &str) -> String {
    let name = create.split('"').nth(1).expect("a quoted name");
    format!("DROP TRIGGER \"{name}\"")
}
