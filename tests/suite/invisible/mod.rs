//! Capture is not seen by the application: the same script, on a database with capture and on one without,
//! gives the same rows, counts, rowids and errors at every step, and the same tables in the end.
//!
//! The only exceptions are those that docs/capture.md lists.

mod cost;
mod directed;
mod documented;
mod generate;
mod random;

use std::fs;
use std::path::{Path, PathBuf};

use redtail::{Config, Source};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::oracle::Oracle;

/// Two databases that start alike, one captured, each with an application of its own.
struct Pair {
    plain: Oracle,
    captured: Oracle,
    folder: TempDir,
}

impl Pair {
    /// `None`, after saying so, where there is no oracle.
    fn start(test: &str) -> Option<Self> {
        let (plain, captured) = (Oracle::application(test)?, Oracle::application(test)?);
        Some(Self { plain, captured, folder: TempDir::new().unwrap() })
    }

    /// Sets up both and captures one. `visible` is run on the captured one by itself, to make capture seen.
    fn set_up(&mut self, setup: &[String], visible: &[String]) {
        let (plain, captured) = self.files();
        for file in [&plain, &captured] {
            let _ = fs::remove_file(file);
        }
        self.plain.ask(&json!({"op": "play", "db": plain, "sql": setup}));
        fs::copy(&plain, &captured).unwrap();
        init(&captured);
        self.captured.script(&captured, visible);
    }

    /// Whether the simplest triggers, on every table, are seen in the same way: then it is not capture that is
    /// seen, but that there is a trigger at all. (One that calls a function makes SQLite keep a statement
    /// journal, and a statement that is refused in its middle then leaves nothing.)
    fn is_as_with_any_trigger(&mut self, setup: &[String], script: &[String]) -> bool {
        self.set_up(setup, &[]);
        let (plain, _) = self.files();
        let tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT GLOB 'sqlite_*'";
        let names = self.plain.query(&plain, tables);
        let mut sql = vec!["CREATE TABLE _redtail_any(id INTEGER PRIMARY KEY, x)".to_owned()];
        for name in names.as_array().unwrap().iter().map(|row| row[0]["value"].as_str().unwrap()) {
            for event in [
                "BEFORE INSERT",
                "BEFORE UPDATE",
                "BEFORE DELETE",
                "AFTER INSERT",
                "AFTER UPDATE",
                "AFTER DELETE",
            ] {
                sql.push(format!(
                    "CREATE TRIGGER \"_redtail_{event}_{name}\" {event} ON \"{name}\" BEGIN INSERT INTO _redtail_any(x) VALUES (julianday('now')); END"
                ));
            }
        }
        self.plain.script(&plain, &sql);
        let same = self.difference(script).is_none();
        self.set_up(setup, &[]);
        same
    }

    fn files(&self) -> (PathBuf, PathBuf) {
        (self.folder.path().join("plain.db"), self.folder.path().join("captured.db"))
    }

    /// Runs a script on a copy of each; answers the first thing that differs.
    fn difference(&mut self, script: &[String]) -> Option<String> {
        let [plain, captured] = [self.files().0, self.files().1].map(|file| {
            let copy = file.with_extension("copy");
            fs::copy(file, &copy).unwrap();
            copy
        });
        let request = |db: &Path| json!({"op": "play", "db": db, "sql": script});
        let without = self.plain.ask(&request(&plain));
        let with = self.captured.ask(&request(&captured));
        for (i, sql) in script.iter().enumerate() {
            let (a, b) = (&without["answers"][i], &with["answers"][i]);
            if a != b {
                return Some(format!("statement {i}: {sql}\n  without capture: {a}\n  with capture:    {b}"));
            }
        }
        let (a, b) = (without["contents"].as_object().unwrap(), with["contents"].as_object().unwrap());
        let differs = |name: &&String| a.get(*name) != b.get(*name);
        let name = a.keys().chain(b.keys()).find(differs)?;
        Some(format!(
            "contents of {name}:\n  without capture: {}\n  with capture:    {}",
            show(a.get(name)),
            show(b.get(name))
        ))
    }

    /// Sets up, runs a script, and fails with the first difference.
    fn assert_same(&mut self, setup: &[&str], script: &[&str]) {
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        self.set_up(&owned(setup), &[]);
        if let Some(difference) = self.difference(&owned(script)) {
            panic!("capture is seen: {difference}\nsetup: {setup:#?}\nscript: {script:#?}");
        }
    }
}

fn show(value: Option<&Value>) -> String {
    value.map_or_else(|| "none".to_owned(), Value::to_string)
}

/// Installs capture, in this process.
fn init(db: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let source = Source::open(db.to_str().unwrap(), &Config::default()).unwrap();
    runtime.block_on(source.init()).unwrap();
}
