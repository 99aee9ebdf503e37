//! Reads the source's schema: every table of it, what its key is, and what else can make a row unique.
//!
//! Must be called inside a read transaction, so that what it says belongs to one snapshot. It only
//! reads; what follows from it is `triggers` (what we install) and `audit` (whether that is there).

use super::known::{Known, Rows};
use super::sqltext;
use crate::error::Result;
use crate::key::Collation;
use crate::schema::{Column, Key, KeyPart, Table, is_numeric};
use crate::source::sql::Sql;
use crate::value::Value;
use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

/// A table that can be captured, as the source defines it.
#[derive(Clone, Debug)]
pub(crate) struct SourceTable {
    pub table: Table,
    pub columns: Vec<SourceColumn>,
    /// A name by which the rowid can be reached; `None` in WITHOUT ROWID tables and where columns hide it.
    pub rowid: Option<&'static str>,
    /// The key is an INTEGER PRIMARY KEY, which is the rowid itself.
    pub alias: bool,
    /// Whether each part of the key is sorted downwards in its index; empty if all go the same way, with the
    /// rowid that joins a NULL.
    pub downwards: Vec<bool>,
    /// The unique indexes other than the key's own.
    pub unique: Vec<UniqueIndex>,
    /// The expressions of the generated columns, as the CREATE TABLE has them.
    pub generated: HashMap<String, String>,
    /// The CREATE TABLE names its first key column more than once: a generated column may be made of it.
    pub key_mentioned: bool,
    /// Referenced by a numeric foreign key while a key column here is not numeric (capture.md: falsified AFTER images).
    pub coerced: bool,
    /// Everything of the definition that matters for the rows, as text to be hashed.
    pub definition: String,
    foreign_keys: Vec<(String, String)>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SourceColumn {
    pub name: String,
    pub declared: String,
    pub not_null: bool,
    pub default: Option<String>,
    primary_key: i64,
    /// 0 ordinary, 2 virtual and 3 stored generated column.
    pub hidden: i64,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct UniqueIndex {
    pub parts: Vec<IndexPart>,
    /// The CREATE INDEX statement; `None` for a constraint's index.
    pub sql: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct IndexPart {
    /// −1 is the rowid, −2 an expression.
    pub cid: i64,
    pub name: Option<String>,
    pub collation: String,
    descending: bool,
}

struct Index {
    name: String,
    unique: bool,
    primary: bool,
    parts: Vec<IndexPart>,
}

/// A table that is not replicated, and why.
///
/// ```no_run
/// # async fn look(source: &redtail::Source) -> redtail::Result<()> {
/// for skipped in source.init().await?.skipped {
///     println!("{}: {}", skipped.name, skipped.reason);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Skipped {
    /// The table's name.
    pub name: String,
    /// Why it is not replicated.
    pub reason: String,
}

/// What a table was found to be, or why it cannot be captured.
pub(crate) type Looked = std::result::Result<Arc<SourceTable>, String>;

/// The tables of the source, those that can be captured and those that cannot.
#[derive(Clone, Debug, Default)]
pub(crate) struct Described {
    pub tables: Vec<Arc<SourceTable>>,
    pub skipped: Vec<Skipped>,
}

/// Not by `pragma_table_list`: that resolves every view, which takes seconds where views stand on views.
pub(super) const TABLES: &str = "SELECT CAST(name AS BLOB), sql LIKE 'CREATE VIRTUAL TABLE %' FROM sqlite_schema \
                      WHERE type = 'table' ORDER BY name";
/// Rows only of a table WITHOUT ROWID (<https://sqlite.org/pragma.html#pragma_index_info>).
const WITHOUT_ROWID: &str = "SELECT 1 FROM pragma_index_info(?1, 'main')";
const COLUMNS: &str = "SELECT CAST(name AS BLOB), CAST(type AS BLOB), \"notnull\", CAST(dflt_value AS BLOB), pk, hidden \
                       FROM pragma_table_xinfo(?1, 'main') WHERE hidden <> 1 ORDER BY cid";
const INDEXES: &str = "SELECT CAST(name AS BLOB), \"unique\", CAST(origin AS BLOB) \
                       FROM pragma_index_list(?1, 'main') ORDER BY seq";
const INDEX_PARTS: &str = "SELECT cid, CAST(name AS BLOB), CAST(coll AS BLOB), \"desc\" \
                           FROM pragma_index_xinfo(?1, 'main') WHERE key = 1 ORDER BY seqno";
const CREATE_INDEX: &str = "SELECT CAST(sql AS BLOB) FROM sqlite_schema WHERE type = 'index' AND name = ?1";
const FOREIGN_KEYS: &str = "SELECT CAST(\"table\" AS BLOB), CAST(\"from\" AS BLOB) \
                            FROM pragma_foreign_key_list(?1, 'main') ORDER BY id, seq";
const PLACE: &str =
    "SELECT rowid, rootpage, CAST(sql AS BLOB) FROM sqlite_schema WHERE type = 'table' AND name = ?1";

/// Every unique index.
pub(super) const UNIQUE: &str = "SELECT CAST(i.name AS BLOB) FROM sqlite_schema AS t, pragma_index_list(t.name) AS i \
     WHERE t.type = 'table' AND i.\"unique\"";

/// More key columns than this fall back to the rowid.
const MAX_KEY_COLUMNS: usize = 64;
/// The endings by which virtual tables name what they keep in ordinary tables.
const SHADOWS: [&str; 11] =
    ["content", "segments", "segdir", "docsize", "stat", "data", "idx", "config", "node", "parent", "rowid"];

impl SourceTable {
    pub fn column(&self, name: &str) -> Option<&SourceColumn> {
        self.columns.iter().find(|c| c.name.eq_ignore_ascii_case(name))
    }
}

/// Describes every table of `main`; those that have not moved since the last time by what is known of them.
pub(crate) fn describe(sql: &mut Sql, known: &mut Known) -> Result<Described> {
    let mut listed = Vec::new();
    sql.rows(TABLES, &[], |row| {
        listed.push((row.text(0).ok().flatten(), row.integer(1)? == 1));
        Ok(ControlFlow::<()>::Continue(()))
    })?;
    let virtuals: HashSet<String> = listed
        .iter()
        .filter(|(_, is_virtual)| *is_virtual)
        .filter_map(|(name, _)| name.as_ref().map(|n| n.to_ascii_lowercase()))
        .collect();
    let rows = Rows::read(sql)?;
    let seen = |name: &str| rows.digest(name).and_then(|digest| known.look(name, digest));
    let new = |name: &&str| seen(name).is_none();
    let tables = listed.iter().filter(|(_, is_virtual)| !is_virtual);
    ask_ahead(sql, tables.filter_map(|(name, _)| name.as_deref()).filter(new))?;
    let (mut out, mut all) = (Described::default(), Vec::new());
    for (name, is_virtual) in listed {
        let Some(name) = name else {
            out.skip("(unreadable)", "its name is not valid text");
            continue;
        };
        let low = name.to_ascii_lowercase();
        if low.starts_with("sqlite_") || low.starts_with("_redtail_") {
            continue;
        }
        if let Some(reason) = unfit(&low, is_virtual, &virtuals, &rows.vectors) {
            out.skip(&name, &reason);
            continue;
        }
        let looked = match seen(&name) {
            Some(looked) => looked,
            None => look(sql, &name)?.map(Arc::new),
        };
        all.extend(rows.digest(&name).map(|digest| (name, digest, looked)));
    }
    mark_coerced(all.iter_mut().filter_map(|(.., looked)| looked.as_mut().ok()));
    for (name, _, looked) in &all {
        match looked {
            Ok(table) => out.tables.push(Arc::clone(table)),
            Err(reason) => out.skip(name, reason),
        }
    }
    known.replace(all);
    Ok(out)
}

/// Has a server answer at once what will be asked of every table and every unique index.
fn ask_ahead<'a>(sql: &mut Sql, tables: impl Iterator<Item = &'a str>) -> Result<()> {
    if !sql.is_server() {
        return Ok(());
    }
    let mut wanted = Vec::new();
    for table in tables.filter(|t| !t.starts_with("sqlite_") && !t.starts_with("_redtail_")) {
        wanted.extend(
            [WITHOUT_ROWID, COLUMNS, INDEXES, FOREIGN_KEYS, PLACE].map(|q| (q.to_owned(), vec![text(table)])),
        );
    }
    sql.rows(UNIQUE, &[], |row| {
        if let Some(index) = row.text(0).ok().flatten() {
            wanted.extend([INDEX_PARTS, CREATE_INDEX].map(|q| (q.to_owned(), vec![text(&index)])));
        }
        Ok(ControlFlow::<()>::Continue(()))
    })?;
    sql.ahead(&wanted)
}

impl Described {
    fn skip(&mut self, name: &str, reason: &str) {
        self.skipped.push(Skipped { name: name.to_owned(), reason: reason.to_owned() });
    }
}

/// Why a table cannot be captured whatever its columns are.
fn unfit(
    low: &str,
    is_virtual: bool,
    virtuals: &HashSet<String>,
    vectors: &HashSet<String>,
) -> Option<String> {
    let shadow = low.rsplit_once('_').is_some_and(|(v, end)| virtuals.contains(v) && SHADOWS.contains(&end));
    let index = low.strip_suffix("_shadow").is_some_and(|index| vectors.contains(index));
    let reason = match (is_virtual, shadow, index) {
        (true, ..) => "a virtual table; its content belongs to its module",
        (_, true, _) => "a shadow table of a virtual table",
        _ if low.starts_with("libsql_") => "a table of libSQL's own",
        (.., true) => "the shadow table of a vector index",
        _ => return None,
    };
    Some(reason.to_owned())
}

fn look(sql: &mut Sql, name: &str) -> Result<std::result::Result<SourceTable, String>> {
    let without_rowid = sql.rows(WITHOUT_ROWID, &[text(name)], |_| Ok(ControlFlow::Break(())))?.is_some();
    let columns = columns(sql, name)?;
    if columns.is_empty() {
        return Ok(Err("its columns cannot be read".into()));
    }
    if columns.len() > 32_767 {
        return Ok(Err("too many columns".into()));
    }
    let taken = |n: &&str| columns.iter().any(|c| c.name.eq_ignore_ascii_case(n));
    let rowid =
        if without_rowid { None } else { ["rowid", "_rowid_", "oid"].into_iter().find(|n| !taken(n)) };
    let indexes = indexes(sql, name)?;
    let (key, key_index, alias) = match choose_key(&columns, &indexes, rowid, without_rowid) {
        Ok(key) => key,
        Err(reason) => return Ok(Err(reason)),
    };
    let mut unique = Vec::new();
    for index in indexes.iter().filter(|i| i.unique && Some(i.name.as_str()) != key_index) {
        let text =
            sql.rows(CREATE_INDEX, &[text(&index.name)], |row| Ok(ControlFlow::Break(row.text(0)?)))?;
        unique.push(UniqueIndex { parts: index.parts.clone(), sql: text.flatten() });
    }
    let downwards: Vec<bool> = indexes
        .iter()
        .filter(|i| Some(i.name.as_str()) == key_index)
        .flat_map(|i| i.parts.iter().map(|p| p.descending))
        .collect();
    // The rowid that joins a NULL goes upwards.
    let upwards = key.nullable || downwards.first() == Some(&false);
    let mixed = downwards.contains(&upwards);
    let downwards = if mixed { downwards } else { Vec::new() };
    let foreign_keys = foreign_keys(sql, name)?;
    let (place, create) = place(sql, name)?;
    let definition = format!("{columns:?}{key:?}{downwards:?}{unique:?}{foreign_keys:?}{place}");
    let table = Table {
        name: name.to_owned(),
        columns: columns
            .iter()
            .map(|c| Column { name: c.name.clone(), declared: c.declared.clone() })
            .collect(),
        key,
    };
    let first = table.key_names().first().copied().unwrap_or_default().to_owned();
    let named = sqltext::words(&create).iter().filter(|w| w.eq_ignore_ascii_case(&first)).count();
    let key_mentioned = named > 1;
    let hidden = |name: &String| columns.iter().any(|c| c.name == *name && c.hidden != 0);
    let generated = sqltext::generated(&create).into_iter().filter(|(name, _)| hidden(name)).collect();
    let coerced = false;
    Ok(Ok(SourceTable {
        table,
        columns,
        rowid,
        alias,
        downwards,
        unique,
        generated,
        key_mentioned,
        coerced,
        definition,
        foreign_keys,
    }))
}

fn text(s: &str) -> Value {
    Value::Text(s.as_bytes().to_vec())
}

fn columns(sql: &mut Sql, table: &str) -> Result<Vec<SourceColumn>> {
    let mut out = Vec::new();
    sql.rows(COLUMNS, &[text(table)], |row| {
        out.push(SourceColumn {
            name: row.text(0)?.unwrap_or_default(),
            declared: row.text(1)?.unwrap_or_default(),
            not_null: row.integer(2)? != 0,
            default: row.text(3)?,
            primary_key: row.integer(4)?,
            hidden: row.integer(5)?,
        });
        Ok(ControlFlow::<()>::Continue(()))
    })?;
    Ok(out)
}

fn indexes(sql: &mut Sql, table: &str) -> Result<Vec<Index>> {
    let mut out = Vec::new();
    sql.rows(INDEXES, &[text(table)], |row| {
        let primary = row.text(2)?.as_deref() == Some("pk");
        let name = row.text(0)?.unwrap_or_default();
        out.push(Index { name, unique: row.integer(1)? != 0, primary, parts: Vec::new() });
        Ok(ControlFlow::<()>::Continue(()))
    })?;
    for index in out.iter_mut().filter(|i| i.unique) {
        let parts = &mut index.parts;
        sql.rows(INDEX_PARTS, &[text(&index.name)], |row| {
            let collation = row.text(2)?.unwrap_or_default();
            let descending = row.integer(3)? != 0;
            parts.push(IndexPart { cid: row.integer(0)?, name: row.text(1)?, collation, descending });
            Ok(ControlFlow::<()>::Continue(()))
        })?;
    }
    Ok(out)
}

fn foreign_keys(sql: &mut Sql, table: &str) -> Result<Vec<(String, String)>> {
    let mut out = Vec::new();
    sql.rows(FOREIGN_KEYS, &[text(table)], |row| {
        out.push((row.text(0)?.unwrap_or_default(), row.text(1)?.unwrap_or_default()));
        Ok(ControlFlow::<()>::Continue(()))
    })?;
    Ok(out)
}

/// The table's row in `sqlite_schema`: a copy-and-rename under the same name changes it.
fn place(sql: &mut Sql, table: &str) -> Result<(String, String)> {
    let place = sql.rows(PLACE, &[text(table)], |row| {
        let create = row.text(2)?.unwrap_or_default();
        Ok(ControlFlow::Break((format!("{:?}{:?}{create}", row.value(0)?, row.value(1)?), create)))
    })?;
    Ok(place.unwrap_or_default())
}

type ChosenKey<'a> = (Key, Option<&'a str>, bool);

/// The declared primary key if it can be ordered here, else the rowid.
fn choose_key<'a>(
    columns: &[SourceColumn],
    indexes: &'a [Index],
    rowid: Option<&str>,
    without_rowid: bool,
) -> std::result::Result<ChosenKey<'a>, String> {
    let of_rowid =
        || Key { parts: vec![KeyPart { column: None, collation: Collation::Binary }], nullable: false };
    let primary: Vec<usize> =
        (0..columns.len()).filter(|i| columns.get(*i).is_some_and(|c| c.primary_key > 0)).collect();
    let index = indexes.iter().find(|i| i.primary);
    // One primary key column without an index of its own is the rowid itself ("INTEGER PRIMARY KEY").
    if let ([column], None, false) = (primary.as_slice(), index, without_rowid) {
        let part = KeyPart { column: Some(*column), collation: Collation::Binary };
        return Ok((Key { parts: vec![part], nullable: false }, None, true));
    }
    let Some(index) = index else {
        return match rowid {
            Some(_) => Ok((of_rowid(), None, false)),
            None => Err("its only key is the rowid, which columns of that name hide".into()),
        };
    };
    let part = |p: &IndexPart| {
        let column = columns.iter().position(|c| Some(c.name.as_str()) == p.name.as_deref())?;
        Some(KeyPart { column: Some(column), collation: Collation::named(&p.collation)? })
    };
    let parts: Option<Vec<KeyPart>> = index.parts.iter().map(part).collect();
    match parts {
        Some(parts) if parts.len() <= MAX_KEY_COLUMNS => {
            let not_null = |p: &KeyPart| p.column.and_then(|i| columns.get(i)).is_some_and(|c| c.not_null);
            let nullable = !without_rowid && !parts.iter().all(not_null);
            if nullable && rowid.is_none() {
                return Err("NULL may stand in its primary key, and columns named rowid, _rowid_ and oid hide the rowid".into());
            }
            Ok((Key { parts, nullable }, Some(&index.name), false))
        }
        _ if without_rowid => Err(format!(
            "its primary key has a collation that is unknown here, or more than {MAX_KEY_COLUMNS} columns, and it has no rowid"
        )),
        _ if rowid.is_some() => Ok((of_rowid(), None, false)),
        _ => Err("its primary key has a collation that is unknown here, and its rowid is hidden".into()),
    }
}

/// Finds the parents whose AFTER images SQLite may falsify: the child's scan applies the child column's
/// affinity to the parent's key in place.
fn mark_coerced<'a>(tables: impl Iterator<Item = &'a mut Arc<SourceTable>>) {
    let mut tables: Vec<_> = tables.collect();
    let mut numeric_parents = HashSet::new();
    for t in &tables {
        for (parent, from) in &t.foreign_keys {
            // ANY is numeric but in STRICT tables.
            let numeric = |d: &str| is_numeric(d) || d.eq_ignore_ascii_case("any");
            if t.column(from).is_some_and(|c| numeric(&c.declared)) {
                numeric_parents.insert(parent.to_ascii_lowercase());
            }
        }
    }
    for t in &mut tables {
        let keys = t.table.key.parts.iter().filter_map(|p| p.column).filter_map(|i| t.columns.get(i));
        let loose = !t.alias && keys.clone().any(|c| !is_numeric(&c.declared));
        let coerced = loose && numeric_parents.contains(&t.table.name.to_ascii_lowercase());
        if coerced != t.coerced {
            Arc::make_mut(t).coerced = coerced;
        }
    }
}
