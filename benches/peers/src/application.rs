//! The application: writes to the server, and reads from it where a follower is no more than a query.

use crate::{Failure, Result};
use serde_json::{Value as Json, json};
use std::time::Instant;

/// Rows that one statement makes: a server gives a transaction five seconds.
const STEP: u64 = 20_000;
const TABLE: &str = "CREATE TABLE peers(id INTEGER PRIMARY KEY, name TEXT, score REAL, at INTEGER)";

/// A client that sends single statements and keeps its connection.
#[derive(Clone)]
pub struct Application {
    agent: ureq::Agent,
    url: String,
}

pub struct Answered {
    pub rows: Vec<Json>,
    /// As the server counts them.
    pub rows_read: u64,
    /// When the answer was there.
    pub at: Instant,
}

impl Application {
    /// With an empty table.
    pub fn begin(url: String) -> Result<Self> {
        let app = Self { agent: ureq::Agent::new_with_defaults(), url };
        app.run(TABLE)?;
        Ok(app)
    }

    pub fn run(&self, sql: &str) -> Result<Answered> {
        let body =
            json!({ "requests": [{ "type": "execute", "stmt": { "sql": sql } }, { "type": "close" }] });
        let request = self.agent.post(format!("{}/v3/pipeline", self.url)).content_type("application/json");
        let text =
            request.send(body.to_string())?.body_mut().with_config().limit(1 << 30).read_to_string()?;
        let at = Instant::now();
        let mut said: Json = serde_json::from_str(&text)?;
        if let Some(refused) = said.pointer("/results/0/error/message").and_then(Json::as_str) {
            return Err(Failure::from(refused.to_owned()));
        }
        let rows_read = said.pointer("/results/0/response/result/rows_read").and_then(Json::as_u64);
        let rows = said.pointer_mut("/results/0/response/result/rows").map(Json::take);
        let Some(Json::Array(rows)) = rows else { return Err("an answer without rows".into()) };
        Ok(Answered { rows, rows_read: rows_read.unwrap_or(0), at })
    }

    /// One row, in a transaction of its own; when that was committed.
    pub fn insert_one(&self, id: u64) -> Result<Instant> {
        let sql = format!("INSERT INTO peers VALUES ({id}, 'a name of ordinary length', {id}.5, {id})");
        self.run(&sql).map(|answered| answered.at)
    }

    /// Rows `from..to`.
    pub fn insert(&self, from: u64, to: u64) -> Result<()> {
        steps(from, to, STEP).try_for_each(|(first, last)| {
            let sql = format!(
                "WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {last}) \
                 INSERT INTO peers SELECT i, 'a name of ordinary length', i * 0.5, i FROM n"
            );
            self.run(&sql).map(drop)
        })
    }

    /// Updates every `every`-th row.
    pub fn scatter(&self, to: u64, every: u64) -> Result<()> {
        steps(0, to, STEP * every).try_for_each(|(first, last)| {
            let sql = format!(
                "UPDATE peers SET score = score + 1 WHERE id >= {first} AND id < {last} AND id % {every} = 0"
            );
            self.run(&sql).map(drop)
        })
    }
}

fn steps(from: u64, to: u64, step: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..(to - from).div_ceil(step)).map(move |n| (from + n * step, (from + (n + 1) * step).min(to)))
}
