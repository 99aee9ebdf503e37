//! Configuration: `redtail.toml`, `REDTAIL_*`, flags; the later one wins. Unknown keys are refused.

mod keys;
mod tables;
mod values;

use crate::args::Args;
use crate::{Exit, failure};
use keys::{KEYS, Key};
use redtail::{Config, Error, Result};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Everything a command needs to know.
pub struct Settings {
    source: Option<String>,
    replica: Option<PathBuf>,
    pub config: Config,
}

/// The file that is read when `--config` names none.
const DEFAULT_FILE: &str = "redtail.toml";
/// What is said of single tables.
const TABLES: &str = "tables";

impl Settings {
    pub fn load(args: &Args) -> Result<Self> {
        let mut settings = Self { source: None, replica: None, config: Config::default() };
        let file = args.config.clone().or_else(|| Some(PathBuf::from(DEFAULT_FILE)).filter(|p| p.is_file()));
        if let Some(file) = file {
            settings.read(&file)?;
        }
        for key in &KEYS {
            let variable = key.variable();
            if let Ok(given) = std::env::var(&variable) {
                let value = format!("v = {given}").parse::<Table>().ok().and_then(|mut t| t.remove("v"));
                let value = value.unwrap_or(Value::String(given));
                (key.set)(&mut settings, &value)
                    .map_err(|want| Error::usage(format!("{variable}: {want}")))?;
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
        let table: Table = text.parse().map_err(|e: toml::de::Error| {
            let line =
                e.span().map_or(1, |s| text.get(..s.start).unwrap_or_default().matches('\n').count() + 1);
            Error::usage(format!("config {shown}, line {line}: {}", e.message().replace('\n', "; ")))
        })?;
        self.take(&table, "").map_err(|e| e.during(format!("config {shown}")))
    }

    /// Takes every key of a table; `section` is the table's own name with a dot, or nothing.
    fn take(&mut self, table: &Table, section: &str) -> Result<()> {
        for (key, value) in table {
            let name = format!("{section}{key}");
            let inner = format!("{name}.");
            if let Some(known) = KEYS.iter().find(|k| k.name == name) {
                (known.set)(self, value).map_err(|want| Error::usage(format!("{name}: {want}")))?;
            } else if let (true, Some(tables)) = (name == TABLES, value.as_table()) {
                self.config.tables = tables::read(tables)?;
            } else if let (true, Some(table)) = (keys::is_section(&inner), value.as_table()) {
                self.take(table, &inner)?;
            } else if name == TABLES || keys::is_section(&inner) {
                return Err(Error::usage(format!("{name}: a table is wanted, such as [{name}]")));
            } else {
                return Err(Error::unknown("key", &name, keys::names()));
            }
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

    pub fn has_replica(&self) -> bool {
        self.replica.is_some()
    }

    /// Everything that is in force, as a file that would say the same.
    pub fn show(&self) -> Exit {
        let mut shown = Table::new();
        for key in &KEYS {
            let Some(value) = (key.get)(self) else { continue };
            match key.name.split_once('.') {
                Some((section, name)) => {
                    let section = shown.entry(section).or_insert_with(|| Value::Table(Table::new()));
                    section.as_table_mut().and_then(|t| t.insert(name.to_owned(), value));
                }
                None => drop(shown.insert(key.name.to_owned(), value)),
            }
        }
        if !self.config.tables.is_empty() {
            shown.insert(TABLES.to_owned(), Value::Table(tables::write(&self.config.tables)));
        }
        write!(std::io::stdout(), "{shown}").map(|()| 0).map_err(|e| failure(&e))
    }
}

impl Key {
    fn variable(&self) -> String {
        format!("REDTAIL_{}", self.name.replace('.', "_").to_ascii_uppercase())
    }
}

fn reason(e: &std::io::Error) -> String {
    if e.kind() == std::io::ErrorKind::NotFound { "no such file".to_owned() } else { e.to_string() }
}
