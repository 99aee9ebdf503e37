//! What redtail says while it works: on stderr, as lines or as JSON, and the last warnings for whoever asks later.

use crate::advice;
use serde_json::{Value as Json, json};
use std::collections::VecDeque;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// How messages are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Lines for people.
    #[default]
    Text,
    /// An object a line.
    Json,
}

/// Warnings that are kept.
const KEPT: usize = 20;
/// The longest one, in bytes.
const LONGEST: usize = 1000;

/// How messages are written; set once, at the start.
static FORMAT: OnceLock<Format> = OnceLock::new();

static RECENT: Mutex<Recent> = Mutex::new(Recent { count: 0, kept: VecDeque::new() });

/// The last warnings of this process.
struct Recent {
    count: u64,
    kept: VecDeque<Warning>,
}

struct Warning {
    first_at: SystemTime,
    at: SystemTime,
    times: u64,
    said: String,
}

/// Sends the library's messages to stderr: warnings, or more with `-v`.
pub fn start(verbose: u8, format: Format) {
    let _ = FORMAT.set(format);
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        _ => LevelFilter::TRACE,
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_target(false);
    let shown = match format {
        Format::Text => lines.with_ansi(io::stderr().is_terminal()).boxed(),
        Format::Json => {
            lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
        }
    };
    let _ = tracing_subscriber::registry()
        .with(shown.with_filter(level))
        .with(Keep.with_filter(LevelFilter::WARN))
        .try_init();
}

/// One plain line of progress, or an object like the others.
pub fn say(what: &str, line: &str) {
    write("INFO", &format!("{what}: {line}"), "");
}

/// What a command failed of, as its last line.
pub fn failed(error: &redtail::Error) {
    write("ERROR", &error.to_string(), "redtail: ");
}

fn write(level: &str, message: &str, before: &str) {
    let said = if FORMAT.get() == Some(&Format::Json) {
        let now = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        json!({ "timestamp": now, "level": level, "message": message }).to_string()
    } else {
        format!("{before}{message}")
    };
    let _ = writeln!(io::stderr(), "{said}");
}

/// How many warnings there were, and the last ones, the newest first, with what to do.
pub fn recent() -> (u64, Json) {
    let recent = RECENT.lock().unwrap_or_else(PoisonError::into_inner);
    let each = recent.kept.iter().rev().map(|w| {
        let advice = advice::on(&w.said);
        json!({
            "at_ms": ms(w.at),
            "first_at_ms": ms(w.first_at),
            "times": w.times,
            "message": w.said,
            "means": advice.map(|a| a.means),
            "todo": advice.map(|a| a.todo),
        })
    });
    (recent.count, each.collect())
}

fn ms(at: SystemTime) -> u64 {
    u64::try_from(at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis()).unwrap_or(u64::MAX)
}

/// Keeps warnings; the same one again is counted, not kept twice.
struct Keep;

impl<S: Subscriber> Layer<S> for Keep {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() > Level::WARN {
            return;
        }
        let mut said = Said(String::new());
        event.record(&mut said);
        let mut said = said.0;
        let end = (0..=LONGEST.min(said.len())).rev().find(|end| said.is_char_boundary(*end));
        said.truncate(end.unwrap_or(0));
        let now = SystemTime::now();
        let mut recent = RECENT.lock().unwrap_or_else(PoisonError::into_inner);
        recent.count += 1;
        let same = recent.kept.iter().position(|w| without_numbers(&w.said) == without_numbers(&said));
        let before = same.and_then(|i| recent.kept.remove(i));
        let (first_at, times) = before.map_or((now, 1), |w| (w.first_at, w.times + 1));
        if recent.kept.len() == KEPT {
            recent.kept.pop_front();
        }
        recent.kept.push_back(Warning { first_at, at: now, times, said });
    }
}

/// A message but for how long and how many: what is tried again differs in nothing else.
fn without_numbers(said: &str) -> String {
    said.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// The message of an event.
struct Said(String);

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}
