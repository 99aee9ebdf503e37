//! Redtail beside what else can follow a server: one real sqld, the same rows, one run.
//!
//!     cargo run --release --manifest-path benches/peers/Cargo.toml -- [--runs 5] [--rate 100] [--seconds 5]
//!         [--rows 200000] [--table 1000000] [--newest 1000] [--timer-ms 1000] [--json]
//!
//! The server is the one that the tests use, fetched with npm when first needed. Each measurement begins with an empty
//! database there: what one follower installs or leaves behind costs no other. Progress goes to stderr.

mod application;
mod drain;
mod lag;
#[path = "../../../src/bin/redtail/bench/percentiles.rs"]
#[allow(dead_code, clippy::pedantic)]
mod percentiles;
mod report;
#[path = "../../../tests/suite/support/server.rs"]
#[allow(dead_code, clippy::pedantic, clippy::unwrap_used)]
mod server;

use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

pub type Failure = Box<dyn std::error::Error + Send + Sync>;
pub type Result<T> = std::result::Result<T, Failure>;

/// What is measured, and how often.
pub struct Options {
    pub runs: u64,
    /// Single-row transactions a second, while lag is measured.
    pub rate: u64,
    pub seconds: u64,
    /// New rows, and rows updated, of a drain.
    pub rows: u64,
    /// Rows of the table that the updates are scattered over.
    pub table: u64,
    /// Rows that the timer reads again; the table has as many before the first change.
    pub newest: u64,
    pub timer: Duration,
    pub json: bool,
}

impl Options {
    fn read(mut args: impl Iterator<Item = String>) -> Result<Self> {
        let mut given = Self {
            runs: 5,
            rate: 100,
            seconds: 5,
            rows: 200_000,
            table: 1_000_000,
            newest: 1_000,
            timer: Duration::from_secs(1),
            json: false,
        };
        while let Some(flag) = args.next() {
            if flag == "--json" {
                given.json = true;
                continue;
            }
            let value = args.next().and_then(|v| v.parse::<u64>().ok()).filter(|v| *v > 0);
            let value = value.ok_or_else(|| format!("{flag}: give a whole number above 0 behind it"))?;
            match flag.as_str() {
                "--runs" => given.runs = value,
                "--rate" => given.rate = value,
                "--seconds" => given.seconds = value,
                "--rows" => given.rows = value,
                "--table" => given.table = value,
                "--newest" => given.newest = value,
                "--timer-ms" => given.timer = Duration::from_millis(value),
                _ => {
                    return Err(format!(
                        "{flag}: not known; the head of benches/peers/src/main.rs lists them"
                    )
                    .into());
                }
            }
        }
        if given.table < given.rows {
            return Err("--table must not be below --rows".into());
        }
        Ok(given)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(e) => {
            eprintln!("peers: {e}");
            return ExitCode::from(2);
        }
    };
    match measure(&options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("peers: {e}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(options: &Options) -> Result<()> {
    let mut server = server::Server::start("peers").ok_or("no server to measure with")?;
    let (mut lags, mut drains) = (Vec::new(), Vec::new());
    for run in 1..=options.runs {
        // Each goes first and last in turn: a machine gets warm, and a disk full.
        let mut subjects = lag::SUBJECTS.to_vec();
        let mut drainers = drain::SUBJECTS.to_vec();
        if run % 2 == 0 {
            subjects.reverse();
            drainers.reverse();
        }
        for subject in subjects {
            note(&format!("run {run} of {}: lag, {}", options.runs, subject.name()));
            lags.push((subject, lag::measure(subject, &mut server, options).await?));
        }
        for subject in drainers {
            note(&format!("run {run} of {}: drain, {}", options.runs, subject.name()));
            drains.push((subject, drain::measure(subject, &mut server, options).await?));
        }
    }
    let said = json!({
        "what": "peers", "runs": options.runs, "rate": options.rate, "seconds": options.seconds,
        "rows": options.rows, "table": options.table, "newest": options.newest,
        "timer_ms": u64::try_from(options.timer.as_millis()).unwrap_or(u64::MAX),
        "row": "4 columns, integer key", "lag": report::lags(&lags), "drain": report::drains(&drains),
    });
    if options.json {
        println!("{said}");
    } else {
        report::print(&said);
    }
    Ok(())
}

/// What `server` shares with the tests: a probe repeated until it answers.
fn poll<T>(mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(60) {
        if let Some(found) = probe() {
            return Some(found);
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    None
}

fn skip(_: &str, what: &str) {
    note(what);
}

fn note(line: &str) {
    eprintln!("{line}");
}

/// Where the server's package is pinned, and where it is kept once fetched.
fn server_places() -> Option<(PathBuf, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?.parent()?;
    Some((root.join("tests/sqld"), root.join("target/tools")))
}
