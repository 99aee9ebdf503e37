//! `status --watch`: the running `run`, second by second, on one screen.

use crate::control::{Request, connect, relay_to};
use crate::settings::Settings;
use crate::status::Seen;
use crate::{Exit, failure};
use console::{Term, style};
use indicatif::{BinaryBytes, HumanCount};
use redtail::Source;
use serde_json::Value as Json;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// How often it is asked.
const EVERY: Duration = Duration::from_secs(1);
/// How often the source is asked about its consumers, if it is given.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Samples that a small plot has.
const KEPT: usize = 60;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// What was seen so far.
#[derive(Default)]
struct Watched {
    lags: VecDeque<f64>,
    rates: VecDeque<f64>,
    /// When the last status came, and how many rows it counted.
    last: Option<(Instant, f64)>,
}

/// The screen beside the one that was there; that one comes back at the end.
struct Screen(Term);

impl Screen {
    fn open() -> Self {
        let term = Term::stdout();
        let _ = term.write_str("\x1b[?1049h\x1b[?25l");
        Self(term)
    }

    fn show(&self, text: &str) -> io::Result<()> {
        let (height, width) = self.0.size();
        let lines = text.lines().take(usize::from(height).saturating_sub(1));
        let mut out = String::from("\x1b[H");
        for line in lines {
            let _ = write!(out, "{}\x1b[K\r\n", console::truncate_str(line, width.into(), "…"));
        }
        self.0.write_str(&format!("{out}\x1b[J"))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.0.write_str("\x1b[?25h\x1b[?1049l");
    }
}

pub async fn watch(settings: &Settings, as_json: bool) -> Exit {
    let stop = crate::follow::stopped()?;
    let mut stop = std::pin::pin!(stop);
    let path = settings.replica()?.to_owned();
    if !path.exists() {
        return Err(redtail::Error::usage(format!("replica {}: no such file", path.display())));
    }
    let source =
        if settings.has_source() { Some(Source::open(settings.source()?, &settings.config)?) } else { None };
    let screen = (!as_json && io::stdout().is_terminal()).then(Screen::open);
    let (mut watched, mut seen, mut looked) = (Watched::default(), None, None::<Instant>);
    let mut tick = tokio::time::interval(EVERY);
    loop {
        tokio::select! { _ = tick.tick() => {}, () = &mut stop => return Ok(0) }
        if let Some(source) = source.as_ref().filter(|_| looked.is_none_or(|at| at.elapsed() > LOOK_EVERY)) {
            looked = Some(Instant::now());
            // That the source is away is said by who follows it.
            seen = Seen::look(source).await.ok().or(seen);
        }
        let (asked, about) = (path.clone(), seen.clone());
        let said = tokio::task::spawn_blocking(move || ask(&asked, about)).await.ok().flatten();
        let shown = match &screen {
            Some(screen) => screen.show(&watched.screen(&path, said.as_ref())),
            None if as_json => writeln!(io::stdout(), "{}", said.unwrap_or(Json::Null)),
            None => writeln!(io::stdout(), "{}", line(said.as_ref())),
        };
        shown.map_err(|e| failure(&e))?;
    }
}

/// What the running `run` says; `None` if there is none.
fn ask(replica: &Path, seen: Option<Seen>) -> Option<Json> {
    let mut answer = Vec::new();
    let code = relay_to(connect(replica)?, &Request::Status { seen, json: true }, &mut answer).ok()?;
    if code == 0 { serde_json::from_slice(&answer).ok() } else { None }
}

fn number(said: &Json, name: &str) -> Option<f64> {
    said.pointer(name).and_then(Json::as_f64)
}

fn text<'a>(said: &'a Json, name: &str) -> &'a str {
    said.pointer(name).and_then(Json::as_str).unwrap_or("unknown")
}

fn list<'a>(said: &'a Json, name: &str) -> &'a [Json] {
    said.pointer(name).and_then(Json::as_array).map_or(&[], Vec::as_slice)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn count(n: Option<f64>) -> String {
    n.map_or_else(|| "unknown".to_owned(), |n| HumanCount(n.round() as u64).to_string())
}

fn time(seconds: Option<f64>) -> String {
    match seconds {
        None => "unknown".to_owned(),
        Some(s) if s <= 0.0 => "0 s".to_owned(),
        Some(s) if s < 1.0 => format!("{:.0} ms", (s * 1000.0).max(1.0)),
        Some(s) if s < 120.0 => format!("{s:.1} s"),
        Some(s) if s < 7200.0 => format!("{:.0} min", s / 60.0),
        Some(s) => format!("{:.0} h", s / 3600.0),
    }
}

/// A plot of one line, from nothing to the largest.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn plot(values: &VecDeque<f64>) -> String {
    let most = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    let bar = |v: &f64| BARS.get((v / most * 7.0).round() as usize).copied().unwrap_or('▁');
    values.iter().map(bar).collect()
}

fn keep(values: &mut VecDeque<f64>, value: f64) {
    if values.len() == KEPT {
        values.pop_front();
    }
    values.push_back(value);
}

/// A status in one line.
fn line(said: Option<&Json>) -> String {
    let Some(said) = said else { return "no run holds this replica".to_owned() };
    format!(
        "{}: lag {}, {} entries behind, at {}",
        text(said, "/state"),
        time(number(said, "/lag_seconds")),
        count(number(said, "/lag_entries")),
        count(number(said, "/cursor"))
    )
}

impl Watched {
    fn sample(&mut self, said: &Json) {
        let rows = number(said, "/work/changed").unwrap_or(0.0) + number(said, "/work/copied").unwrap_or(0.0);
        if let Some((at, before)) = self.last {
            keep(&mut self.rates, ((rows - before) / at.elapsed().as_secs_f64().max(0.001)).max(0.0));
        }
        self.last = Some((Instant::now(), rows));
        keep(&mut self.lags, number(said, "/lag_seconds").unwrap_or(0.0));
    }

    /// Everything that fits on a screen, the most wanted first.
    fn screen(&mut self, path: &Path, said: Option<&Json>) -> String {
        let Some(said) = said else {
            self.last = None;
            let waiting = "no run holds this replica; waiting for one";
            return format!(
                "{}  {}\n\n{waiting}\n\nCtrl-C ends this.\n",
                style("redtail").bold(),
                path.display()
            );
        };
        self.sample(said);
        let state = text(said, "/state");
        let state = match state {
            "following" => style(state).green(),
            "retrying" | "refused" | "disk-full" => style(state).red(),
            _ => style(state).yellow(),
        };
        let mut out = String::new();
        let _ = writeln!(
            out,
            "{}  {}  {} → {}",
            style("redtail").bold(),
            state.bold(),
            text(said, "/source"),
            path.display()
        );
        let _ = writeln!(out);
        let lag = time(number(said, "/lag_seconds"));
        let _ = writeln!(out, "lag        {lag:>12}  {}", plot(&self.lags));
        let rate = format!("{}/s", count(self.rates.back().copied()));
        let _ = writeln!(out, "rows       {rate:>12}  {}", plot(&self.rates));
        let entries = count(number(said, "/lag_entries"));
        let _ = writeln!(
            out,
            "behind     {entries:>12}  entries; on disk {} behind",
            time(number(said, "/durable_lag_seconds"))
        );
        let polled = time(number(said, "/last_poll_seconds"));
        let _ = writeln!(out, "source     {polled:>12}  since it was last read");
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let bytes = BinaryBytes(number(said, "/space/bytes").unwrap_or(0.0) as u64).to_string();
        let consistent = if said.pointer("/consistent") == Some(&Json::Bool(true)) {
            "shows one state of the source"
        } else {
            "between two states of the source"
        };
        let _ = writeln!(out, "replica    {bytes:>12}  {consistent}, at {}", count(number(said, "/cursor")));
        if let Some(error) = said.pointer("/error").and_then(Json::as_str) {
            let _ = writeln!(out, "\n{}", style(error).red());
        }
        lists(&mut out, said);
        let _ = writeln!(out, "\n{}", style("Ctrl-C ends this; what runs goes on.").dim());
        out
    }
}

/// Messages, tables and consumers.
fn lists(out: &mut String, said: &Json) {
    for message in list(said, "/recent").iter().take(3) {
        let _ = writeln!(out, "\n{} {}", style("!").yellow(), text(message, "/message"));
        if let Some(todo) = message.pointer("/todo").and_then(Json::as_str) {
            let _ = writeln!(out, "  what to do: {todo}");
        }
    }
    let tables = list(said, "/tables");
    if !tables.is_empty() {
        let _ = writeln!(out, "\n{:>12}  table", "rows");
    }
    for table in tables {
        let copied = number(table, "/copied").map(|n| format!("  reconciling, {} rows read", count(Some(n))));
        let copied = style(copied.unwrap_or_default()).yellow();
        let _ = writeln!(out, "{:>12}  {}{copied}", count(number(table, "/rows")), text(table, "/name"));
    }
    let consumers = list(said, "/consumers");
    if !consumers.is_empty() {
        let _ = writeln!(out, "\n{:>12}  consumer", "behind");
    }
    for c in consumers {
        let this = if c.pointer("/id") == said.pointer("/consumer") { ", this replica" } else { "" };
        let unseen = time(number(c, "/unseen_seconds"));
        let _ =
            writeln!(out, "{:>12}  {}  seen {unseen} ago{this}", count(number(c, "/behind")), text(c, "/id"));
    }
}
