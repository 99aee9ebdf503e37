//! `[tables.NAME]`: what is replicated of one table.

use super::values::{list, number, texts};
use redtail::{Error, KeepLatest, Result, TableConfig};
use std::collections::BTreeMap;
use toml::{Table, Value};

const KEYS: [&str; 5] = ["columns", "where", "mask", "keep_latest", "index"];
const KEEP: [&str; 3] = ["by", "rows", "allow_scan"];

pub(super) fn read(tables: &Table) -> Result<BTreeMap<String, TableConfig>> {
    let one = |(name, value): (&String, &Value)| {
        let section = format!("tables.{name}");
        let table = value
            .as_table()
            .ok_or_else(|| wanted(&section, &format!("a table is wanted, such as [{section}]")))?;
        Ok((name.clone(), table_config(table, &section)?))
    };
    tables.iter().map(one).collect()
}

fn table_config(table: &Table, section: &str) -> Result<TableConfig> {
    let mut config = TableConfig::default();
    for (key, value) in table {
        let name = format!("{section}.{key}");
        match key.as_str() {
            "columns" => {
                let columns = texts(value).filter(|c| !c.is_empty());
                let want = "a list of columns is wanted, such as [\"id\", \"name\"]";
                config.columns = Some(columns.ok_or_else(|| wanted(&name, want))?);
            }
            "where" => {
                let want = "an SQL expression is wanted, such as \"archived_at IS NULL\"";
                config.filter = Some(value.as_str().ok_or_else(|| wanted(&name, want))?.to_owned());
            }
            "mask" => {
                let want = "an SQL expression for each column is wanted, such as { email = \"substr(email,1,2)||'***'\" }";
                let masks = value.as_table().ok_or_else(|| wanted(&name, want))?;
                for (column, mask) in masks {
                    let mask = mask.as_str().ok_or_else(|| wanted(&name, want))?;
                    config.mask.insert(column.clone(), mask.to_owned());
                }
            }
            "index" => {
                let want = "a list of lists of columns is wanted, such as [[\"start_time\"], [\"kind\", \"start_time\"]]";
                let lists = value.as_array().map(|all| all.iter().map(texts).collect::<Option<Vec<_>>>());
                let lists = lists.flatten().filter(|all| all.iter().all(|columns| !columns.is_empty()));
                config.index = lists.ok_or_else(|| wanted(&name, want))?;
            }
            "keep_latest" => config.keep_latest = Some(keep_latest(value, &name)?),
            _ => {
                return Err(Error::unknown(
                    "key",
                    &name,
                    KEYS.map(|k| format!("{section}.{k}")).iter().map(String::as_str),
                ));
            }
        }
    }
    Ok(config)
}

fn keep_latest(value: &Value, name: &str) -> Result<KeepLatest> {
    let want = "{ by = \"start_time\", rows = 1000 } is wanted; allow_scan = true may be added";
    let table = value.as_table().ok_or_else(|| wanted(name, want))?;
    if let Some(key) = table.keys().find(|k| !KEEP.contains(&k.as_str())) {
        let known = KEEP.map(|k| format!("{name}.{k}"));
        return Err(Error::unknown("key", &format!("{name}.{key}"), known.iter().map(String::as_str)));
    }
    let by = table.get("by").and_then(Value::as_str);
    let rows =
        table.get("rows").and_then(Value::as_integer).and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0);
    let allow_scan = table.get("allow_scan").map_or(Some(false), Value::as_bool);
    match (by, rows, allow_scan) {
        (Some(by), Some(rows), Some(allow_scan)) => Ok(KeepLatest { by: by.to_owned(), rows, allow_scan }),
        _ => Err(wanted(name, want)),
    }
}

fn wanted(name: &str, want: &str) -> Error {
    Error::usage(format!("{name}: {want}"))
}

/// The same as a file would say it.
pub(super) fn write(tables: &BTreeMap<String, TableConfig>) -> Table {
    let text = |t: &String| Value::String(t.clone());
    let one = |(name, config): (&String, &TableConfig)| {
        let mut table = Table::new();
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                table.insert(key.to_owned(), value);
            }
        };
        put("columns", config.columns.as_deref().map(list));
        put("where", config.filter.as_ref().map(text));
        let masks = config.mask.iter().map(|(column, mask)| (column.clone(), text(mask)));
        put("mask", (!config.mask.is_empty()).then(|| Value::Table(masks.collect())));
        put(
            "keep_latest",
            config.keep_latest.as_ref().map(|keep| {
                let mut table = Table::from_iter([("by".to_owned(), text(&keep.by))]);
                table.extend(number(keep.rows).map(|n| ("rows".to_owned(), n)));
                if keep.allow_scan {
                    table.insert("allow_scan".to_owned(), Value::Boolean(true));
                }
                Value::Table(table)
            }),
        );
        let index = config.index.iter().map(|columns| list(columns)).collect();
        if !config.index.is_empty() {
            table.insert("index".to_owned(), Value::Array(index));
        }
        (name.clone(), Value::Table(table))
    };
    tables.iter().map(one).collect()
}
