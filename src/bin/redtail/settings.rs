//! Configuration: `redtail.toml`, `REDTAIL_*`, flags; the later one wins. Unknown keys are refused.

use crate::args::Args;
use redtail::{Config, Durability, Error, OnDivergence, Result};
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Value;

/// Everything a command needs to know.
pub struct Settings {
    source: Option<String>,
    replica: Option<PathBuf>,
    pub config: Config,
}

type Set = fn(&mut Settings, &Value) -> std::result::Result<(), &'static str>;

/// Every key, and how its value is taken.
const KEYS: [(&str, Set); 12] = [
    ("source", |s, v| text(v).map(|t| s.source = Some(t.to_owned()))),
    ("replica", |s, v| text(v).map(|t| s.replica = Some(t.into()))),
    ("durability", |s, v| durability(v).map(|d| s.config.durability = d)),
    ("on_divergence", |s, v| on_divergence(v).map(|d| s.config.on_divergence = d)),
    ("cache_bytes", |s, v| count(v).map(|n| s.config.cache_bytes = n)),
    ("chunk_rows", |s, v| count(v).map(|n| s.config.chunk_rows = n)),
    ("chunk_bytes", |s, v| count(v).map(|n| s.config.chunk_bytes = n)),
    ("window_entries", |s, v| count(v).map(|n| s.config.window_entries = n as u64)),
    ("max_row", |s, v| count(v).map(|n| s.config.max_row = n)),
    ("max_snapshot", |s, v| duration(v).map(|d| s.config.max_snapshot = d)),
    ("busy_timeout", |s, v| duration(v).map(|d| s.config.busy_timeout = d)),
    ("poll", |s, v| duration(v).map(|d| s.config.poll = d)),
];

/// The file that is read when `--config` names none.
const DEFAULT_FILE: &str = "redtail.toml";

impl Settings {
    pub fn load(args: &Args) -> Result<Self> {
        let mut settings = Self { source: None, replica: None, config: Config::default() };
        let file = args.config.clone().or_else(|| Some(PathBuf::from(DEFAULT_FILE)).filter(|p| p.is_file()));
        if let Some(file) = file {
            settings.read(&file)?;
        }
        for (name, set) in KEYS {
            let variable = format!("REDTAIL_{}", name.to_ascii_uppercase());
            if let Ok(given) = std::env::var(&variable) {
                let value =
                    format!("v = {given}").parse::<toml::Table>().ok().and_then(|mut t| t.remove("v"));
                let value = value.unwrap_or(Value::String(given));
                set(&mut settings, &value).map_err(|want| Error::usage(format!("{variable}: {want}")))?;
            }
        }
        settings.source = args.source.clone().or(settings.source);
        settings.replica = args.replica.clone().or(settings.replica);
        Ok(settings)
    }

    fn read(&mut self, file: &Path) -> Result<()> {
        let shown = file.display();
        let text = std::fs::read_to_string(file)
            .map_err(|e| Error::usage(format!("config {shown}: {}", reason(&e))))?;
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
            let line =
                e.span().map_or(1, |s| text.get(..s.start).unwrap_or_default().matches('\n').count() + 1);
            Error::usage(format!("config {shown}, line {line}: {}", e.message().replace('\n', "; ")))
        })?;
        for (key, value) in &table {
            let Some((_, set)) = KEYS.iter().find(|(name, _)| name == key) else {
                return Err(Error::unknown("key", key, KEYS.iter().map(|(name, _)| *name))
                    .during(format!("config {shown}")));
            };
            set(self, value).map_err(|want| Error::usage(format!("config {shown}: {key}: {want}")))?;
        }
        Ok(())
    }

    pub fn source(&self) -> Result<&str> {
        self.source
            .as_deref()
            .ok_or_else(|| Error::usage("which source? give --source (-s), or `source` in redtail.toml"))
    }

    pub fn has_source(&self) -> bool {
        self.source.is_some()
    }

    pub fn replica(&self) -> Result<&Path> {
        self.replica
            .as_deref()
            .ok_or_else(|| Error::usage("which replica? give --replica (-r), or `replica` in redtail.toml"))
    }
}

fn reason(e: &std::io::Error) -> String {
    if e.kind() == std::io::ErrorKind::NotFound { "no such file".to_owned() } else { e.to_string() }
}

fn text(v: &Value) -> std::result::Result<&str, &'static str> {
    v.as_str().ok_or("text is wanted, such as \"app.db\"")
}

fn count(v: &Value) -> std::result::Result<usize, &'static str> {
    let n = v.as_integer().and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
    n.ok_or("a whole number above 0 is wanted")
}

fn duration(v: &Value) -> std::result::Result<Duration, &'static str> {
    let parsed = v.as_str().and_then(|t| humantime::parse_duration(t).ok()).filter(|d| !d.is_zero());
    parsed.ok_or("a time is wanted, such as \"250ms\" or \"2s\"")
}

fn durability(v: &Value) -> std::result::Result<Durability, &'static str> {
    let want = "\"every-window\" or { interval_ms = 50 } is wanted";
    if v.as_str() == Some("every-window") {
        return Ok(Durability::EveryWindow);
    }
    let interval =
        v.as_table().filter(|t| t.len() == 1).and_then(|t| t.get("interval_ms")).and_then(Value::as_integer);
    let interval = interval.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0).ok_or(want)?;
    Ok(Durability::Interval(Duration::from_millis(interval)))
}

fn on_divergence(v: &Value) -> std::result::Result<OnDivergence, &'static str> {
    match v.as_str() {
        Some("rebuild") => Ok(OnDivergence::Rebuild),
        Some("stop") => Ok(OnDivergence::Stop),
        _ => Err("\"rebuild\" or \"stop\" is wanted"),
    }
}
