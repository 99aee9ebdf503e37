//! A source that is a real server (sqld), by the same judge: the application is another client of it, and
//! what the server holds is read from its file by Python's sqlite3.

mod circumstances;
mod faults;
mod follow;
mod limits;
mod tls;
mod token;
mod urls;
mod values;

use std::time::Duration;

use tempfile::TempDir;

use crate::support::oracle::{Comparison, Oracle};
use crate::support::poll;
use crate::support::redtail::{Redtail, Run};
use crate::support::server::Server;

const REPLICA: &str = "replica.redb";

/// A server, a replica that follows it, and the judge.
struct Remote {
    oracle: Oracle,
    server: Server,
    redtail: Redtail,
    /// What redtail is given as its source: the server, or what stands before it.
    source: String,
    /// Dropped last.
    _folder: TempDir,
}

impl Remote {
    /// `None`, after saying so, where there is no oracle or no server.
    fn begin(test: &str) -> Option<Self> {
        Self::with(test, &[])
    }

    fn with(test: &str, options: &[&str]) -> Option<Self> {
        let oracle = Oracle::start(test)?;
        let server = Server::with(test, options)?;
        let folder = TempDir::new().unwrap();
        let redtail = Redtail::new(folder.path())
            .with_env("REDTAIL_POLL", "\"20ms\"")
            .with_env("REDTAIL_LAGGING", "\"300ms\"")
            .with_env("REDTAIL_REQUEST_TIMEOUT", "\"3s\"");
        let source = server.url();
        Some(Self { oracle, server, redtail, source, _folder: folder })
    }

    fn application<S: AsRef<str>>(&mut self, sql: &[S]) {
        self.oracle.script(&self.server.database(), sql);
    }

    fn sync(&self) {
        self.redtail.sync(&self.source, REPLICA);
    }

    fn run(&self) -> Run {
        self.redtail.spawn_run(&self.source, REPLICA)
    }

    fn compare(&mut self) -> Comparison {
        let dump = self.redtail.path("compared.jsonl");
        self.redtail.dump(REPLICA, &dump);
        self.oracle.compare(&self.server.database(), &dump)
    }

    fn assert_equal(&mut self, what: &str) -> Comparison {
        let compared = self.compare();
        let first = &compared.differences;
        assert!(compared.equal, "{what}: {} differences, the first: {first:#?}", compared.count);
        compared
    }

    fn head(&mut self) -> i64 {
        self.oracle.integers(&self.server.database(), "SELECT max(seq) FROM _redtail_changelog")[0]
    }

    /// The same where a table was made, which has no entry: until the `run` knows it.
    fn follows_with(&mut self, run: &mut Run, table: &str) {
        let known = poll(|| {
            run.assert_running();
            let text = self.redtail.run(&["status", "-r", REPLICA, "--json"]);
            let status: serde_json::Value = serde_json::from_str(&text.stdout).ok()?;
            status["tables"].as_array()?.iter().any(|t| t["name"] == table).then_some(())
        });
        assert!(known.is_some(), "table {table} is not known");
        self.follows(run);
    }

    /// Waits until a `run` has applied the server's head, read by somebody else, and is consistent.
    fn follows(&mut self, run: &mut Run) {
        let head = self.head();
        let mut last = serde_json::Value::Null;
        let reached = poll(|| {
            run.assert_running();
            let text = self.redtail.run(&["status", "-r", REPLICA, "--json"]);
            last = serde_json::from_str(&text.stdout).ok()?;
            (last["cursor"].as_i64() >= Some(head) && last["consistent"] == true).then_some(())
        });
        assert!(reached.is_some(), "head {head} is not reached: {last:#}");
    }
}

/// For so long a server may be away in these tests.
const AWAY: Duration = Duration::from_millis(300);
