//! Configuration: `redtail.toml`, `REDTAIL_*`, flags; the later one wins. Unknown keys are refused.
//!
//! Here is what a text says; `load` knows where texts come from.

mod keys;
#[cfg(not(fuzzing))]
mod load;
mod tables;
mod values;

use crate::endpoint;
use keys::KEYS;
#[cfg(not(fuzzing))]
pub use load::reason;
use redtail::{Config, Error, Result};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Everything a command needs to know.
pub struct Settings {
    source: Option<String>,
    replica: Option<PathBuf>,
    pub config: Config,
    pub endpoint: endpoint::Options,
}

/// What is said of single tables.
const TABLES: &str = "tables";

impl Settings {
    pub fn new() -> Self {
        let endpoint = endpoint::Options::default();
        Self { source: None, replica: None, config: Config::default(), endpoint }
    }

    /// Takes what a file says; `shown` is its name.
    pub fn parse(&mut self, text: &str, shown: &str) -> Result<()> {
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
    pub fn shown(&self) -> Table {
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
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "source = \"app.db\"\nreplica = \"c.redb\"\ndurability = { interval_ms = 50 }\n\
        on_divergence = \"stop\"\ncache_bytes = 67_108_864\nmax_snapshot = \"2s\"\ninclude = [\"*\"]\n\
        [changelog]\nmax_rows = 10_000\nretain_min = \"1h\"\n[tables.episodes]\ncolumns = [\"a\", \"b\"]\n\
        where = \"a IS NULL\"\nmask = { b = \"substr(b,1,2)\" }\nkeep_latest = { by = \"a\", rows = 1000 }\n";

    /// The rows of the tables in docs/configuration.md: section, key, default.
    fn documented() -> Vec<(String, String)> {
        let page = include_str!("../../../../docs/configuration.md");
        let mut section = "";
        let mut rows = Vec::new();
        for line in page.lines() {
            if let Some(heading) = line.strip_prefix("## ") {
                section = if heading.starts_with("`[changelog]`") { "changelog." } else { "-" };
            }
            let mut cells = line.split('|').skip(1).map(str::trim);
            if let (Some(key), Some(default)) = (cells.next().and_then(|c| c.strip_prefix('`')), cells.next())
            {
                rows.push((format!("{section}{}", key.trim_end_matches('`')), default.to_owned()));
            }
        }
        rows.retain(|(key, _)| !key.starts_with('-'));
        rows
    }

    #[test]
    fn the_page_of_settings_has_every_key_with_its_default() {
        let (rows, settings) = (documented(), Settings::new());
        for key in &KEYS {
            let row = rows.iter().find(|(name, _)| name == key.name);
            let (_, default) = row.unwrap_or_else(|| panic!("{} is not in docs/configuration.md", key.name));
            let bare = Some(default.as_str()).filter(|d| d.parse::<u64>().is_ok());
            let said = default.split('`').nth(1).or(bare).map(|text| {
                let table = format!("v = {text}").parse::<Table>();
                table.unwrap_or_else(|e| panic!("{}: {default}: {e}", key.name)).remove("v").unwrap()
            });
            assert_eq!(said, (key.get)(&settings), "{}", key.name);
        }
        for (name, _) in rows {
            assert!(KEYS.iter().any(|key| key.name == name), "{name} is no key");
        }
    }

    /// `REDTAIL_FUZZ_ROUNDS` sets how many texts; `REDTAIL_SEED` which.
    #[test]
    fn no_text_makes_the_configuration_panic_and_what_is_refused_is_one_line() {
        let number = |name: &str| std::env::var(name).ok().map(|n| n.parse::<u64>().expect("a number"));
        let (rounds, seed) =
            (number("REDTAIL_FUZZ_ROUNDS").unwrap_or(20_000), number("REDTAIL_SEED").unwrap_or(7));
        let mut state = seed;
        let mut below = |limit: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap() % limit
        };
        let edges =
            ["-1", "9223372036854775808", "\"\"", "[]", "{}", "\0", "\u{FEFF}", "nan", "=", "\n", ".", "é"];
        let mut refused = 0;
        for round in 0..rounds {
            let mut text: Vec<char> = GOOD.chars().collect();
            for _ in 0..=below(3) {
                let at = below(text.len());
                let end = (at + below(8)).min(text.len());
                text.splice(at..end, edges[below(edges.len())].chars());
            }
            let text: String = text.into_iter().collect();
            let parsed = std::panic::catch_unwind(|| Settings::new().parse(&text, "f.toml"));
            let Ok(parsed) = parsed else { panic!("round {round} of seed {seed}: {text:?}") };
            if let Err(e) = parsed {
                refused += 1;
                assert_eq!(e.to_string().lines().count(), 1, "{e}: {text:?}");
                assert_eq!(e.kind(), redtail::Kind::Usage, "{e}");
            }
        }
        assert!(refused * 2 > rounds, "{refused} of {rounds} texts were refused");
    }
}
