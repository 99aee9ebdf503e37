//! `bench remote`: lag, traffic and drains of a server that stands ready for it; starts nothing itself.
//!
//! Writes to tables of its own on that server (`redtail_bench…`) as an application would, over its own HTTP
//! client, and takes them and the capture away again.

use super::lag::{Covered, lags, watched};
use super::percentiles::Percentiles;
use crate::settings::Settings;
use crate::{Exit, failure};
use redtail::{Config, Error, Kind, Replica, Replicator, Source};
use serde_json::{Value as Json, json};
use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Rows that one statement of the writer makes: a server gives a transaction five seconds.
const STEP: u64 = 20_000;
const TABLE: &str = "CREATE TABLE redtail_bench(id INTEGER PRIMARY KEY, name TEXT, score REAL, at INTEGER)";
const DROP: &str = "DROP TABLE IF EXISTS redtail_bench";

/// The application: one connection that sends single statements.
#[derive(Clone)]
struct Application {
    agent: ureq::Agent,
    url: String,
    token: Option<String>,
}

impl Application {
    fn run(&self, sql: &str) -> redtail::Result<Instant> {
        let wrong = |what: String| Error::new(Kind::Source, format!("bench remote: {what}"));
        let body =
            json!({ "requests": [{ "type": "execute", "stmt": { "sql": sql } }, { "type": "close" }] });
        let mut request =
            self.agent.post(format!("{}/v3/pipeline", self.url)).content_type("application/json");
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let mut answer = request.send(body.to_string()).map_err(|e| wrong(e.to_string()))?;
        let text = answer.body_mut().read_to_string().map_err(|e| wrong(e.to_string()))?;
        let at = Instant::now();
        let said: Json = serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?;
        match said.pointer("/results/0/error/message").and_then(Json::as_str) {
            Some(refused) => Err(wrong(refused.to_owned())),
            None => Ok(at),
        }
    }

    fn insert(&self, from: u64, rows: u64) -> redtail::Result<()> {
        for first in (from..from + rows).step_by(usize::try_from(STEP).unwrap_or(1)) {
            let last = (first + STEP).min(from + rows);
            self.run(&format!(
                "WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {last}) \
                 INSERT INTO redtail_bench SELECT i, 'a name of ordinary length', i * 0.5, i FROM n"
            ))?;
        }
        Ok(())
    }
}

/// What one run measures.
struct Setting {
    rate: u32,
    time: Duration,
    rows: u64,
    table: u64,
}

pub async fn remote(
    settings: &Settings,
    rate: u32,
    seconds: u64,
    rows: u64,
    table: u64,
    as_json: bool,
) -> Exit {
    if rate == 0 || seconds == 0 || rows == 0 || table < rows {
        return Err(Error::usage(
            "bench remote: --rate, --seconds and --rows must be above 0, --table not below --rows",
        ));
    }
    let url = settings.source()?.replacen("libsql://", "https://", 1).trim_end_matches('/').to_owned();
    let token = std::env::var("TURSO_AUTH_TOKEN").ok();
    let app = Application { agent: ureq::Agent::new_with_defaults(), url, token };
    let setting = Setting { rate, time: Duration::from_secs(seconds), rows, table };
    app.run(DROP)?;
    let found = measure(settings, &app, &setting).await;
    app.run(DROP)?;
    Source::open(settings.source()?, &settings.config)?.remove().await?;
    let found = found?;
    let mut out = io::stdout();
    let written = if as_json {
        writeln!(out, "{found}")
    } else {
        let mut lines = found.as_object().into_iter().flatten();
        lines.try_for_each(|(name, value)| writeln!(out, "{name:<12} {value}"))
    };
    written.map(|()| 0).map_err(|e| failure(&e))
}

async fn measure(settings: &Settings, app: &Application, setting: &Setting) -> redtail::Result<Json> {
    app.run(TABLE)?;
    let listening = lag(settings, app, setting, true).await?;
    let polling = lag(settings, app, setting, false).await?;
    app.run("DELETE FROM redtail_bench")?;

    let dir = super::lag::tempdir()?;
    let replica = Replica::open(dir.0.join("cache.redb"), &settings.config)?;
    let source = Source::open(settings.source()?, &settings.config)?;
    let replicator = Replicator::new(source, replica, settings.config.clone());
    replicator.sync_once().await?;
    app.insert(0, setting.rows)?;
    let new_rows = drain(&replicator, setting.rows).await?;
    app.insert(setting.rows, setting.table - setting.rows)?;
    replicator.sync_once().await?;
    let every = (setting.table / setting.rows).max(1);
    for first in (0..setting.table).step_by(usize::try_from(STEP * every).unwrap_or(1)) {
        let last = first + STEP * every;
        app.run(&format!(
            "UPDATE redtail_bench SET score = score + 1 WHERE id >= {first} AND id < {last} AND id % {every} = 0"
        ))?;
    }
    let scattered = drain(&replicator, setting.table.div_ceil(every)).await?;
    let config = Config { ..settings.config.clone() };
    let fresh = Replica::open(dir.0.join("copy.redb"), &config)?;
    let copier = Replicator::new(Source::open(settings.source()?, &config)?, fresh, config);
    let copy = drain(&copier, setting.table).await?;
    Ok(json!({
        "rate": setting.rate, "seconds": setting.time.as_secs(), "row": "4 columns, integer key",
        "durability": "every-window", "listening": listening, "polling": polling,
        "new_rows": new_rows, "scattered_updates": scattered, "first_copy": copy,
    }))
}

/// Follows while the application writes single rows.
#[allow(clippy::cast_precision_loss)]
async fn lag(
    settings: &Settings,
    app: &Application,
    setting: &Setting,
    events: bool,
) -> redtail::Result<Json> {
    let config = Config { events, ..settings.config.clone() };
    let dir = super::lag::tempdir()?;
    let source = Source::open(settings.source()?, &config)?;
    source.init().await?;
    let replica = Replica::open(dir.0.join("cache.redb"), &config)?;
    let replicator = Arc::new(Replicator::new(source.clone(), replica, config));
    replicator.sync_once().await?;
    let head = replicator.progress().borrow().position.map_or(0, |p| p.seq);
    let before = source.traffic().unwrap_or_default();
    let (app, rate, time) = (app.clone(), setting.rate, setting.time);
    let write = move || {
        std::thread::spawn(move || {
            let (mut commits, begun) = (Vec::new(), Instant::now());
            for i in 0.. {
                let due = begun + Duration::from_secs(1) * i / rate;
                if due >= begun + time {
                    break;
                }
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                commits.push(app.run(&format!(
                    "INSERT INTO redtail_bench(name, score, at) VALUES ('a name of ordinary length', {i}.5, {i})"
                ))?);
            }
            Ok(commits)
        })
    };
    let (commits, covered): (Vec<Instant>, Vec<Covered>) = watched(replicator, head, write).await?;
    let after = source.traffic().unwrap_or_default();
    let changes = commits.len() as u64;
    let each = |n: u64| (n as f64 / changes as f64 * 100.0).round() / 100.0;
    Ok(json!({
        "lag_ms": Percentiles::of(lags(head, &commits, &covered)).json(),
        "requests_per_change": each(after.requests - before.requests),
        "rows_read_per_change": each(after.rows_read - before.rows_read),
    }))
}

/// Brings the replica up, and says how fast.
#[allow(clippy::cast_precision_loss)]
async fn drain(replicator: &Replicator, changes: u64) -> redtail::Result<Json> {
    let before = replicator.traffic().unwrap_or_default();
    let begun = Instant::now();
    replicator.sync_once().await?;
    let seconds = begun.elapsed().as_secs_f64();
    let after = replicator.traffic().unwrap_or_default();
    Ok(json!({
        "changes": changes,
        "seconds": (seconds * 1e3).round() / 1e3,
        "changes_per_second": (changes as f64 / seconds).round(),
        "requests": after.requests - before.requests,
        "rows_read": after.rows_read - before.rows_read,
    }))
}
