//! `bench`: figures, each beside a floor or a peer measured in the same run.

mod cost;
mod floor;
mod lag;
mod overhead;
pub mod percentiles;
mod read;
#[cfg(feature = "remote")]
mod remote;
mod report;
mod resume;
mod throughput;

use crate::args::Bench;
use crate::settings::Settings;
use crate::{Exit, failure};
use lag::Load;
use redtail::{Error, Result};
use serde_json::{Value as Json, json};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;
use throughput::{Shape, What, throughput};

/// Rows that are updated again and again where the figure is about hot rows.
const HOT: u64 = 1_000;

pub async fn bench(settings: &Settings, bench: Bench) -> Exit {
    match bench {
        Bench::Lag { rate, seconds, runs, json } => {
            above_0("lag", &[("rate", rate.into()), ("seconds", seconds), ("runs", runs.into())])?;
            print(&lag::lag(Load { rate, time: Duration::from_secs(seconds), runs }, false).await?, json)
        }
        Bench::Copy { rows, runs, wide, json } => {
            above_0("copy", &[("rows", rows), ("runs", runs.into())])?;
            let shape = Shape { rows, changes: rows, spread: rows, wide };
            print(&throughput(What::Copy, shape, runs).await?, json)
        }
        Bench::Drain { rows, changes, spread, runs, wide, json } => {
            let spread = spread.unwrap_or(rows).min(rows);
            let given = [("rows", rows), ("changes", changes), ("spread", spread), ("runs", runs.into())];
            above_0("drain", &given)?;
            print(&throughput(What::Drain, Shape { rows, changes, spread, wide }, runs).await?, json)
        }
        Bench::Cost { rows, rate, seconds, ack_interval, json } => {
            above_0("cost", &[("rows", rows), ("rate", rate.into()), ("seconds", seconds)])?;
            print(&cost::cost(rows, rate, Duration::from_secs(seconds), ack_interval.into()).await?, json)
        }
        Bench::Overhead { runs, json } => {
            above_0("overhead", &[("runs", runs.into())])?;
            print(&overhead::overhead(runs).await?, json)
        }
        Bench::Read { rows, runs, json } => {
            above_0("read", &[("rows", rows), ("runs", runs.into())])?;
            print(&read::read(rows, runs).await?, json)
        }
        Bench::Resume { rows, runs, json } => {
            above_0("resume", &[("rows", rows), ("runs", runs.into())])?;
            print(&resume::resume(rows, runs).await?, json)
        }
        Bench::All { rows, runs, json, html } => {
            above_0("all", &[("rows", rows), ("runs", runs.into())])?;
            all(rows, runs, json, html.as_deref()).await
        }
        #[cfg(feature = "remote")]
        Bench::Remote { rate, seconds, rows, table, json } => {
            remote::remote(settings, rate, seconds, rows, table, json).await
        }
        #[cfg(not(feature = "remote"))]
        Bench::Remote { .. } => {
            Err(Error::usage(format!("bench remote: {:?}: built without servers", settings.source()?)))
        }
    }
}

/// Everything that needs no server, as one report.
async fn all(rows: u64, runs: u32, as_json: bool, html: Option<&Path>) -> Exit {
    if let Some(path) = html {
        // Known before, not after a quarter of an hour.
        std::fs::write(path, "").map_err(|e| Error::usage(format!("bench all: {}: {e}", path.display())))?;
    }
    let load = Load { rate: 1_000, time: Duration::from_secs(3), runs };
    let plain = Shape { rows, changes: rows, spread: rows, wide: false };
    let wide = Shape {
        rows: (rows / 10).max(1),
        changes: (rows / 10).max(1),
        spread: (rows / 10).max(1),
        wide: true,
    };
    let parts = vec![
        lag::lag(load, true).await?,
        throughput(What::Copy, plain, runs).await?,
        throughput(What::Drain, plain, runs).await?,
        throughput(What::Drain, Shape { spread: HOT.min(rows), ..plain }, runs).await?,
        throughput(What::Copy, wide, runs).await?,
        throughput(What::Drain, wide, runs).await?,
        overhead::overhead(runs).await?,
        cost::cost(rows, 1_000, Duration::from_secs(10), redtail::Config::default().ack_interval).await?,
        read::read(rows, runs).await?,
        resume::resume(rows, runs).await?,
    ];
    if let Some(path) = html {
        let page = report::page(&parts);
        std::fs::write(path, page)
            .map_err(|e| Error::usage(format!("bench all: {}: {e}", path.display())))?;
    }
    if as_json {
        return print(&json!({ "what": "all", "parts": parts }), true);
    }
    for part in &parts {
        print(part, false)?;
        writeln!(io::stdout()).map_err(|e| failure(&e))?;
    }
    Ok(0)
}

fn above_0(name: &str, given: &[(&str, u64)]) -> Result<()> {
    if given.iter().all(|(_, value)| *value > 0) {
        return Ok(());
    }
    let names: Vec<String> = given.iter().map(|(name, _)| format!("--{name}")).collect();
    let (last, others) = names.split_last().map_or(("", &[][..]), |(last, others)| (last.as_str(), others));
    let all = if others.is_empty() { last.to_owned() } else { format!("{} and {last}", others.join(", ")) };
    Err(Error::usage(format!("bench {name}: {all} must be above 0")))
}

fn print(said: &Json, as_json: bool) -> Exit {
    let mut out = io::stdout();
    let written = if as_json { writeln!(out, "{said}") } else { text(said, &mut out) };
    written.map(|()| 0).map_err(|e| failure(&e))
}

/// A part of the report for people.
fn text(said: &Json, out: &mut impl io::Write) -> io::Result<()> {
    match said.get("what").and_then(Json::as_str) {
        Some("lag") => lag::for_people(said, out),
        Some("cost") => cost::for_people(said, out),
        Some("overhead") => overhead::for_people(said, out),
        Some("read") => read::for_people(said, out),
        Some("resume") => resume::for_people(said, out),
        _ => throughput::for_people(said, out),
    }
}

/// The one in the middle; 0 of none.
fn median(all: &[f64]) -> f64 {
    let mut all = all.to_vec();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or_default()
}
