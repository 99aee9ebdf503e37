//! The independent reader: `oracle.py` kept running as one process for each test.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use super::skip;

/// Python's own reading of a database, in another process.
pub(crate) struct Oracle {
    child: Child,
    /// Taken on drop: its end is what ends the process.
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// What a comparison of a dump with the source came to.
#[derive(Debug)]
pub(crate) struct Comparison {
    /// Whether every value of every row is the same.
    pub(crate) equal: bool,
    /// Rows in the source.
    pub(crate) rows: u64,
    /// Tables in the source.
    pub(crate) tables: u64,
    /// How many differences there are.
    pub(crate) count: u64,
    /// The first of them, described.
    pub(crate) differences: Vec<String>,
}

impl Oracle {
    /// Starts the reader; `None`, after saying so, where there is no Python with its `sqlite3` module.
    pub(crate) fn start(test: &str) -> Option<Self> {
        Self::of("tests/oracle.py", test)
    }

    /// Starts an application with a collation and a function of its own, which knows the oracle's requests too.
    pub(crate) fn application(test: &str) -> Option<Self> {
        Self::of("tests/application.py", test)
    }

    fn of(program: &str, test: &str) -> Option<Self> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(program);
        let started =
            Command::new("python3").arg(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let oracle = started.ok().and_then(|mut child| {
            let requests = child.stdin.take();
            let answers = BufReader::new(child.stdout.take()?);
            let mut oracle = Self { child, requests, answers };
            oracle.answer().filter(|hello| hello["ready"] == true).map(|_| oracle)
        });
        if oracle.is_none() {
            skip("REDTAIL_REQUIRE_ORACLE", &format!("{test}: no python3 with sqlite3 here"));
        }
        oracle
    }

    /// Runs statements in order, each as given; any failure fails the test.
    pub(crate) fn script<S: AsRef<str>>(&mut self, db: &Path, sql: &[S]) {
        let sql: Vec<&str> = sql.iter().map(AsRef::as_ref).collect();
        let answer = self.ask(&json!({"op": "script", "db": db, "sql": sql}));
        assert!(answer.get("unsupported").is_none(), "the server: {}", answer["unsupported"]);
    }

    /// Runs one statement that the database must refuse.
    pub(crate) fn refused(&mut self, db: &Path, sql: &str) {
        self.ask(&json!({"op": "script", "db": db, "sql": [{"sql": sql, "fails": true}]}));
    }

    /// The rows of a SELECT, as typed values.
    pub(crate) fn query(&mut self, db: &Path, sql: &str) -> Value {
        self.ask(&json!({"op": "query", "db": db, "sql": sql}))["rows"].clone()
    }

    /// The integers of a SELECT's first row.
    pub(crate) fn integers(&mut self, db: &Path, sql: &str) -> Vec<i64> {
        let rows = self.query(db, sql);
        let cells = rows[0].as_array().expect("a row");
        cells.iter().map(|cell| cell["value"].as_str().expect("an integer").parse().unwrap()).collect()
    }

    /// All of `sqlite_schema` and the `user_version`.
    pub(crate) fn schema(&mut self, db: &Path) -> Value {
        self.ask(&json!({"op": "schema", "db": db}))
    }

    /// Writes every row of every table of the application to `out`, typed; answers how many.
    pub(crate) fn dump(&mut self, db: &Path, out: &Path) -> u64 {
        self.ask(&json!({"op": "dump", "db": db, "out": out}))["rows"].as_u64().unwrap()
    }

    /// Compares a typed dump of the replica with the source.
    pub(crate) fn compare(&mut self, db: &Path, dump: &Path) -> Comparison {
        self.compare_selected(db, dump, &json!({}))
    }

    /// The same where not everything is replicated: for each such table null, or its columns and a SELECT.
    pub(crate) fn compare_selected(&mut self, db: &Path, dump: &Path, selects: &Value) -> Comparison {
        let answer = self.ask(&json!({"op": "compare", "db": db, "dump": dump, "selects": selects}));
        let differences = answer["differences"].as_array().unwrap();
        Comparison {
            equal: answer["equal"].as_bool().unwrap(),
            rows: answer["rows"].as_u64().unwrap(),
            tables: answer["tables"].as_u64().unwrap(),
            count: answer["count"].as_u64().unwrap(),
            differences: differences.iter().map(|text| text.as_str().unwrap().to_owned()).collect(),
        }
    }

    /// One request as `oracle.py` describes it, and its answer; an error there fails the test.
    pub(crate) fn ask(&mut self, request: &Value) -> Value {
        self.ask_text(&request.to_string())
    }

    /// The same for a request that is text already.
    pub(crate) fn ask_text(&mut self, request: &str) -> Value {
        let requests = self.requests.as_mut().unwrap();
        writeln!(requests, "{request}").unwrap();
        requests.flush().unwrap();
        let answer = self.answer().expect("the oracle answers");
        assert!(answer.get("error").is_none(), "the oracle: {}", answer["error"]);
        answer
    }

    fn answer(&mut self) -> Option<Value> {
        let mut line = String::new();
        self.answers.read_line(&mut line).ok()?;
        serde_json::from_str(&line).ok()
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        drop(self.requests.take());
        // The process ends at the end of its input; nothing is left to hear from it.
        let _ = self.child.wait();
    }
}
