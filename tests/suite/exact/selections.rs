//! What is replicated of each table: as redtail's configuration, as the oracle judges it, and made at random.

use redtail::{Config, KeepLatest, TableConfig};
use serde_json::{Map, Value, json};

use super::generate::{Generator, Turn};
use super::model::Table;
use super::pool::quoted;
use super::script::Step;

/// By table: an object with `columns`, `where`, `mask` and `keep`, as `selection.py` has it; null leaves it out.
pub(super) type Selections = Map<String, Value>;

/// Says the same to redtail.
pub(super) fn configure(config: &mut Config, selections: &Selections) {
    config.tables.clear();
    config.wants.exclude.clear();
    for (name, wanted) in selections {
        if wanted.is_null() {
            config.wants.exclude.push(name.clone());
        } else {
            config.tables.insert(name.clone(), table_config(wanted));
        }
    }
}

fn table_config(wanted: &Value) -> TableConfig {
    let text = |v: &Value| v.as_str().expect("a text").to_owned();
    let keep = |keep: &Value| KeepLatest {
        by: text(&keep["by"]),
        rows: keep["rows"].as_u64().expect("a number of rows"),
        allow_scan: keep["scan"].as_bool().unwrap_or(false),
    };
    let masks = wanted["mask"].as_object().into_iter().flatten();
    TableConfig {
        columns: wanted["columns"].as_array().map(|list| list.iter().map(text).collect()),
        filter: wanted.get("where").map(text),
        mask: masks.map(|(name, mask)| (name.clone(), text(mask))).collect(),
        keep_latest: wanted.get("keep").map(keep),
        index: Vec::new(),
    }
}

impl Generator {
    /// Another configuration from here on: something else of a table or two, or everything again.
    pub(super) fn configuration(&mut self) -> Turn {
        let mut wanted = self.selections.clone();
        for _ in 0..=self.chance.below(2) {
            let Some(table) = self.some_table().filter(|t| t.columns.len() <= 20) else { continue };
            wanted.retain(|name, _| !name.eq_ignore_ascii_case(&table.name));
            match self.choose(&[
                ("selection: everything", 2),
                ("selection: nothing", 2),
                ("selection: columns", 3),
                ("selection: filter", 4),
                ("selection: masks", 3),
                ("selection: newest rows", 5),
                ("selection: all of it", 3),
            ]) {
                "selection: everything" => {}
                "selection: nothing" => drop(wanted.insert(table.name.clone(), Value::Null)),
                kind => drop(wanted.insert(table.name.clone(), self.selection(&table, kind))),
            }
        }
        self.selections.clone_from(&wanted);
        self.turn(vec![Step::Configure(wanted), Step::Sync])
    }

    fn selection(&mut self, table: &Table, kind: &str) -> Value {
        let all = kind == "selection: all of it";
        let mut out = Map::new();
        if all || kind == "selection: columns" {
            out.insert("columns".to_owned(), json!(self.listed(table)));
        }
        if all || kind == "selection: filter" {
            out.insert("where".to_owned(), json!(self.filter(table)));
        }
        if all || kind == "selection: masks" {
            out.insert("mask".to_owned(), Value::Object(self.masks(table)));
        }
        if all || kind == "selection: newest rows" {
            let by = table.columns[self.chance.index(table.columns.len())].name.clone();
            let (rows, scan) = (1 + self.chance.below(6), !self.chance.one_in(4));
            out.insert("keep".to_owned(), json!({"by": by, "rows": rows, "scan": scan}));
        }
        Value::Object(out)
    }

    /// The key's columns and some others; now and then one of the key is forgotten, which must be refused.
    fn listed(&mut self, table: &Table) -> Vec<String> {
        let mut names: Vec<String> = table
            .columns
            .iter()
            .map(|c| c.name.clone())
            .filter(|n| table.key.contains(n) || self.chance.one_in(2))
            .collect();
        if names.is_empty() {
            names.push(table.columns[0].name.clone());
        }
        if self.once_in(15, "selection: a column forgotten") && names.len() > 1 {
            names.remove(self.chance.index(names.len()));
        }
        self.chance.shuffle(&mut names);
        if self.chance.one_in(4) { names.iter().map(|n| n.to_ascii_uppercase()).collect() } else { names }
    }

    fn filter(&mut self, table: &Table) -> String {
        let one = match self.chance.below(3) {
            0 => self.expression_of(table, false),
            _ => self.predicate(table),
        };
        match self.chance.below(5) {
            0 => format!("{one} OR {}", self.predicate(table)),
            1 => format!("{one} -- that's all"),
            _ => one,
        }
    }

    fn masks(&mut self, table: &Table) -> Selections {
        let mut out = Map::new();
        for column in table.columns.iter().filter(|c| !table.key.contains(&c.name)) {
            if !self.chance.one_in(2) {
                continue;
            }
            let name = quoted(&column.name);
            let mask = match self.chance.below(5) {
                0 => "NULL".to_owned(),
                1 => format!("substr({name}, 1, 1) || '***'"),
                2 => name,
                _ => self.expression_of(table, false),
            };
            out.insert(column.name.clone(), json!(mask));
        }
        if let (Some(key), true) = (table.key.first(), self.once_in(15, "selection: a key masked")) {
            out.insert(key.clone(), json!("NULL"));
        }
        out
    }
}
