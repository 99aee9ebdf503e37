//! What of a captured table is replicated: its columns, its rows, and what stands in a column's place.
//!
//! A filter or mask is SQL of the configuration. It must depend on its own row alone and always give the
//! same result, or entries could not tell which rows it moves; SQLite asks the same of a partial index,
//! so it is asked there, in a database of its own that is never written to a file.

use super::exact::Holds;
use super::sql::{Sql, quote};
use crate::capture::describe::{SourceColumn, SourceTable};
use crate::config::TableConfig;
use crate::error::{Error, Result};
use crate::schema::{Column, Key, KeyPart, Table, is_real};
use crate::value::Value;
use xxhash_rust::xxh3::xxh3_128;

/// What of a table is replicated, found to be right for its definition.
#[derive(Clone)]
pub(crate) struct Selection {
    /// The table as the replica has it.
    pub table: Table,
    pub columns: Vec<Selected>,
    pub filter: Option<String>,
    pub keep: Option<Keep>,
    /// Changes with the configuration: then the table is reconciled. 0 where nothing is configured.
    pub hash: u128,
}

/// A replicated column.
#[derive(Clone)]
pub(crate) struct Selected {
    pub name: String,
    /// What stands in its place.
    pub mask: Option<String>,
    /// The source turns its integers into reals.
    pub real: bool,
    /// What may be expected of its values. A column with an affinity keeps no −0.0, but a generated one is not
    /// stored.
    pub holds: Holds,
}

/// Only the first rows in the order of a column, descending, and of the key.
#[derive(Clone)]
pub(crate) struct Keep {
    pub by: String,
    pub rows: u64,
}

impl Selection {
    /// # Errors
    /// `Usage` if the configuration does not fit the table; the error says where and what would be right.
    pub fn of(t: &SourceTable, config: Option<&TableConfig>, sql: &mut Sql) -> Result<Self> {
        let plain = |(c, described): (&Column, &SourceColumn)| Selected {
            name: c.name.clone(),
            mask: None,
            real: is_real(&c.declared),
            holds: if described.hidden == 0 { Holds::of(&c.declared) } else { Holds::Any },
        };
        let mut selection = Self {
            table: t.table.clone(),
            columns: t.table.columns.iter().zip(&t.columns).map(plain).collect(),
            filter: None,
            keep: None,
            hash: 0,
        };
        let section = format!("tables.{}", t.table.name);
        if let Some(config) = &config.map(TableConfig::selection).filter(|c| *c != TableConfig::default()) {
            selection.narrow(t, config, &section)?;
            selection.mask(t, config, &section)?;
            if let Some(filter) = &config.filter {
                check(t, filter).map_err(|e| e.during(format!("{section}.where")))?;
            }
            selection.filter.clone_from(&config.filter);
            selection.keep(t, config, &section, sql)?;
            selection.hash = xxh3_128(format!("{config:?}").as_bytes());
        }
        for name in config.iter().flat_map(|c| c.index.iter().flatten()) {
            if selection.table.column(name).is_none() {
                let columns = selection.table.columns.iter().map(|c| c.name.as_str());
                return Err(Error::unknown("column", name, columns).during(format!("{section}.index")));
            }
        }
        Ok(selection)
    }

    /// Only the listed columns, in the source's order.
    fn narrow(&mut self, t: &SourceTable, config: &TableConfig, section: &str) -> Result<()> {
        let Some(wanted) = &config.columns else { return Ok(()) };
        for name in wanted {
            known(t, name, &format!("{section}.columns"))?;
        }
        let is_wanted = |name: &str| wanted.iter().any(|w| w.eq_ignore_ascii_case(name));
        let kept: Vec<usize> =
            t.table.columns.iter().enumerate().filter(|(_, c)| is_wanted(&c.name)).map(|(i, _)| i).collect();
        let part = |p: &KeyPart| {
            let column = match p.column {
                None => None,
                Some(i) => Some(kept.iter().position(|k| *k == i).ok_or(i)?),
            };
            Ok(KeyPart { column, collation: p.collation })
        };
        let parts: std::result::Result<Vec<KeyPart>, usize> = t.table.key.parts.iter().map(part).collect();
        let parts = parts.map_err(|i| {
            let name = t.table.columns.get(i).map_or("", |c| c.name.as_str());
            Error::usage(format!("{section}.columns: {name:?} is of the table's key; add it"))
        })?;
        self.table.key = Key { parts, nullable: t.table.key.nullable };
        self.table.columns.retain(|c| is_wanted(&c.name));
        self.columns.retain(|c| is_wanted(&c.name));
        Ok(())
    }

    fn mask(&mut self, t: &SourceTable, config: &TableConfig, section: &str) -> Result<()> {
        for (name, mask) in &config.mask {
            let here = format!("{section}.mask.{name}");
            let i = known(t, name, &here)?;
            if t.table.key.parts.iter().any(|p| p.column == Some(i)) {
                return Err(Error::usage(format!(
                    "{here}: a column of the table's key cannot be masked; exclude the table, or leave the mask out"
                )));
            }
            check(t, mask).map_err(|e| e.during(&here))?;
            if let Some(column) = self.columns.iter_mut().find(|c| c.name.eq_ignore_ascii_case(name)) {
                (column.mask, column.real, column.holds) = (Some(mask.clone()), false, Holds::Any);
            }
        }
        Ok(())
    }

    fn keep(&mut self, t: &SourceTable, config: &TableConfig, section: &str, sql: &mut Sql) -> Result<()> {
        let Some(keep) = &config.keep_latest else { return Ok(()) };
        let here = format!("{section}.keep_latest");
        let by = known(t, &keep.by, &here)?;
        let name = t.table.columns.get(by).map_or_else(String::new, |c| c.name.clone());
        let alias = t.alias && t.table.key.parts.iter().any(|p| p.column == Some(by));
        if !keep.allow_scan && !alias && !is_indexed(t, &name, sql)? {
            return Err(Error::usage(format!(
                "{here}: no index begins with {name:?}, so that every window would read the whole table; make one, or set allow_scan = true"
            )));
        }
        self.keep = Some(Keep { by: name, rows: keep.rows });
        Ok(())
    }
}

/// The position of a column of the source.
fn known(t: &SourceTable, name: &str, here: &str) -> Result<usize> {
    t.table.column(name).ok_or_else(|| {
        Error::unknown("column", name, t.table.columns.iter().map(|c| c.name.as_str())).during(here)
    })
}

/// Whether a whole index begins with this column.
fn is_indexed(t: &SourceTable, column: &str, sql: &mut Sql) -> Result<bool> {
    let query = "SELECT 1 FROM pragma_index_list(?1, 'main') AS l, pragma_index_xinfo(l.name, 'main') AS x \
                 WHERE l.partial = 0 AND x.seqno = 0 AND x.name = ?2";
    let text = |s: &str| Value::Text(s.as_bytes().to_vec());
    Ok(sql.integer(query, &[text(&t.table.name), text(column)])?.is_some())
}

/// Whether SQLite would take this expression into a partial index of such a table.
fn check(t: &SourceTable, expression: &str) -> Result<()> {
    // Where it is not the key, a copy of the row has another one, and no entry tells.
    let key = &t.table.key;
    if !t.alias && !key.has_rowid() && t.names_rowid(expression) {
        return Err(Error::usage(
            "the rowid is no value of the row here; an expression on columns of the same row is wanted",
        ));
    }
    // SQLite takes it for a string, and a filter on a column that was renamed or dropped would empty the replica.
    if let Some(name) = t.stray(expression) {
        return Err(Error::unknown("column", &name, t.table.columns.iter().map(|c| c.name.as_str())));
    }
    let mut scratch = Sql::scratch()?;
    let table = quote(&t.table.name);
    let columns: Vec<String> = t.table.columns.iter().map(|c| quote(&c.name)).collect();
    scratch.script(&format!("CREATE TABLE {table}({})", columns.join(",")))?;
    let first = columns.first().map_or("rowid", String::as_str);
    // On its own as well, so that brackets cannot reach out of it; a line of its own ends a comment.
    let checked = scratch
        .check(&format!("SELECT 1 FROM {table} WHERE {expression}\n"))
        .and_then(|()| {
            scratch.script(&format!("CREATE INDEX \"_redtail_i\" ON {table}({first}) WHERE ({expression}\n) IS NOT NULL"))
        })
        // Some functions are found not to be deterministic only when they run.
        .and_then(|()| scratch.run(&format!("INSERT INTO {table} DEFAULT VALUES")));
    checked.map_err(|e| {
        Error::usage(format!(
            "{e}; an expression on columns of the same row is wanted, such as SQLite takes in a partial index"
        ))
    })
}
