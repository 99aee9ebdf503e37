//! Rows that name others which are not there: foreign keys, inside the replica.
//!
//! The source enforces its foreign keys only where it is told to, and a replica that has some rows alone (a filter, only
//! the newest) may lack what others name. Nothing is held in memory: each named row is looked up by its key, or along an
//! index.

use super::scan::Snapshot;
use crate::error::Result;
use crate::lookup::Key;
use crate::schema::{Table, is_numeric};
use crate::source::Reference;
use crate::value::Value;

/// Orphans that are named; beyond it they are only counted.
const NAMED: usize = 100;

/// A row that names another which is not there.
///
/// ```no_run
/// # async fn check(source: &redtail::Source, replica: &redtail::Replica) -> redtail::Result<()> {
/// let found = replica.snapshot()?.orphans(&source.references().await?)?;
/// for orphan in &found.named {
///     println!("{} {:?} names a row that {} lacks", orphan.table, orphan.key, orphan.parent);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Orphan {
    /// The table of the row.
    pub table: String,
    /// The row's key.
    pub key: Vec<Value>,
    /// The columns that name the other one.
    pub columns: Vec<String>,
    /// The table in which it is not.
    pub parent: String,
}

/// What checking foreign keys came to.
///
/// ```no_run
/// # async fn check(source: &redtail::Source, replica: &redtail::Replica) -> redtail::Result<()> {
/// let found = replica.snapshot()?.orphans(&source.references().await?)?;
/// println!("{} of {} rows", found.count, found.rows);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Orphans {
    /// The first ones, by table and key.
    pub named: Vec<Orphan>,
    /// How many there are.
    pub count: u64,
    /// Rows that were looked at, once for each foreign key of their table.
    pub rows: u64,
    /// Foreign keys that could not be checked, and why.
    pub unchecked: Vec<(Reference, String)>,
}

/// How named rows are looked up.
enum Way {
    /// By the key: for each of its components, which of the reference's columns it is.
    Key(Vec<usize>),
    /// Along the index of the parent's columns.
    Index(Vec<String>),
}

impl Snapshot {
    /// Looks for rows that name others, by these foreign keys (see [`crate::Source::references`]), which are not in the
    /// replica. A row with NULL in one of the columns names none, as in SQLite.
    ///
    /// # Errors
    /// `Damaged` if a row cannot be read.
    pub fn orphans(&self, references: &[Reference]) -> Result<Orphans> {
        let mut found = Orphans::default();
        for reference in references {
            // What is not replicated has no rows here that could be orphans.
            let Ok(table) = self.table(&reference.table) else { continue };
            let way = match self.way(reference) {
                Ok(way) => way,
                Err(why) => {
                    found.unchecked.push((reference.clone(), why));
                    continue;
                }
            };
            if let Some(lost) = reference.columns.iter().find(|c| table.column(c).is_none()) {
                let why = format!("column {lost} of {} is not replicated", table.name);
                found.unchecked.push((reference.clone(), why));
                continue;
            }
            for row in self.scan(&reference.table)? {
                let row = row?;
                found.rows += 1;
                let values = reference.columns.iter().map(|c| row.get(c.as_str()).map(Value::from));
                let values: Vec<Value> = values.collect::<Result<_>>()?;
                if values.iter().any(|v| matches!(v, Value::Null))
                    || self.is_there(reference, &way, values)?
                {
                    continue;
                }
                found.count += 1;
                if found.named.len() < NAMED {
                    let (table, columns) = (row.table().name.clone(), reference.columns.clone());
                    found.named.push(Orphan {
                        table,
                        key: row.key()?,
                        columns,
                        parent: reference.parent.clone(),
                    });
                }
            }
        }
        Ok(found)
    }

    fn way(&self, reference: &Reference) -> std::result::Result<Way, String> {
        let parent =
            self.table(&reference.parent).map_err(|_| format!("{} is not replicated", reference.parent))?;
        let key = parent.key_names();
        if reference.parent_columns.is_empty() && key.len() == reference.columns.len() {
            return Ok(Way::Key((0..key.len()).collect()));
        }
        let of_key = |name: &&str| reference.parent_columns.iter().position(|c| c.eq_ignore_ascii_case(name));
        if let Some(order) = key.iter().map(of_key).collect::<Option<Vec<usize>>>()
            && order.len() == reference.parent_columns.len()
        {
            return Ok(Way::Key(order));
        }
        let columns: Vec<&str> = reference.parent_columns.iter().map(String::as_str).collect();
        match self.index(&reference.parent, &columns) {
            Ok(_) => Ok(Way::Index(reference.parent_columns.clone())),
            Err(_) => Err(format!("{} has no index ({}) here", reference.parent, columns.join(", "))),
        }
    }

    fn is_there(&self, reference: &Reference, way: &Way, values: Vec<Value>) -> Result<bool> {
        let parent = self.table(&reference.parent)?;
        match way {
            Way::Key(order) => {
                let names = parent.key_names();
                let value = |(name, at): (&&str, &usize)| {
                    values.get(*at).cloned().map(|v| as_stored(v, parent, name))
                };
                let key: Vec<Value> = names.iter().zip(order).filter_map(value).collect();
                Ok(self.get(&reference.parent, key)?.is_some())
            }
            Way::Index(columns) => {
                let names: Vec<&str> = columns.iter().map(String::as_str).collect();
                let values = values.into_iter().zip(&names).map(|(v, name)| as_stored(v, parent, name));
                let key: Key = values.collect::<Vec<_>>().into();
                let mut rows = self.index(&reference.parent, &names)?.range(key.clone()..=key)?;
                Ok(rows.next().transpose()?.is_some())
            }
        }
    }
}

/// A value as a column of the parent would hold it: SQLite compares by the parent's affinity.
fn as_stored(value: Value, parent: &Table, column: &str) -> Value {
    let declared =
        parent.column(column).and_then(|c| parent.columns.get(c)).map_or("", |c| c.declared.as_str());
    let text = ["CHAR", "CLOB", "TEXT"].iter().any(|t| declared.to_ascii_uppercase().contains(t));
    match &value {
        Value::Text(t) if is_numeric(declared) => {
            let number = std::str::from_utf8(t).ok().map(str::trim);
            let integer = number.and_then(|n| n.parse().ok()).map(Value::Integer);
            let real = || number.and_then(|n| n.parse().ok()).map(Value::Real);
            integer.or_else(real).unwrap_or(value)
        }
        Value::Integer(i) if text && !is_numeric(declared) => Value::Text(i.to_string().into_bytes()),
        _ => value,
    }
}
