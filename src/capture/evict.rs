//! Searches for the keys that a REPLACE might evict: one for every uniqueness other than the key itself.
//!
//! SQLite fires no delete trigger for a row that REPLACE removes through another unique index while
//! `recursive_triggers` is off (its default). So before an insert or update the keys are entered of all
//! rows that stand where the new row wants to stand; whether they went, the read decides. Each search
//! must be able to use its index: it runs inside the application's statement.

use super::describe::{SourceColumn, SourceTable, UniqueIndex};
use super::sqltext;
use super::triggers::{Op, enter_from, key_expressions};
use crate::fault;
use crate::schema::affinity;
use crate::source::sql::quote;
use std::collections::{BTreeMap, BTreeSet};

/// The searches of BEFORE INSERT: whether any finds a row, and the statements that enter what they find.
pub(crate) fn before_insert(t: &SourceTable, id: i64) -> Option<(String, Vec<String>)> {
    searches(t, id, Event::Insert)
}

/// The searches of BEFORE UPDATE: not the row itself, and only if something the index looks at changed.
pub(crate) fn before_update(t: &SourceTable, id: i64) -> Option<(String, Vec<String>)> {
    searches(t, id, Event::Update)
}

#[derive(Clone, Copy, PartialEq)]
enum Event {
    Insert,
    Update,
}

fn searches(t: &SourceTable, id: i64, event: Event) -> Option<(String, Vec<String>)> {
    let mut conditions = Vec::new();
    if fault::no_eviction() {
        return None;
    }
    if let (Some(rowid), false, Some(_)) =
        (t.rowid, t.alias, t.table.key.parts.iter().find(|p| p.column.is_some()))
    {
        // A declared key and a rowid of its own: INSERT OR REPLACE INTO t(rowid, …) evicts by the rowid.
        let moved =
            if event == Event::Update { format!(" AND NEW.{rowid} <> OLD.{rowid}") } else { String::new() };
        conditions.push(format!("_r.{rowid} = NEW.{rowid}{moved}"));
    }
    conditions.extend(t.unique.iter().filter_map(|index| condition(t, index, event)));
    let keys = key_expressions(t, "_r");
    let but_not =
        if event == Event::Update { format!(" AND NOT ({})", the_row_itself(t)) } else { String::new() };
    let table = quote(&t.table.name);
    let froms: Vec<String> =
        conditions.iter().map(|w| format!(" FROM {table} AS _r WHERE {w}{but_not}")).collect();
    let found: Vec<String> = froms.iter().map(|from| format!("EXISTS(SELECT 1{from})")).collect();
    let enter = |from: &String| enter_from(id, Op::Evict, &keys, from);
    (!froms.is_empty()).then(|| (found.join(" OR "), froms.iter().map(enter).collect()))
}

fn the_row_itself(t: &SourceTable) -> String {
    if let Some(rowid) = t.rowid {
        return format!("_r.{rowid} = OLD.{rowid}");
    }
    let columns = t.table.key.parts.iter().filter_map(|p| p.column).filter_map(|i| t.table.columns.get(i));
    let same = |c: &crate::schema::Column| format!("_r.{0} IS OLD.{0} COLLATE BINARY", quote(&c.name));
    columns.map(same).collect::<Vec<_>>().join(" AND ")
}

/// The rows that stand in one unique index where NEW wants to stand; `None` if none ever can.
fn condition(t: &SourceTable, index: &UniqueIndex, event: Event) -> Option<String> {
    if holds_rowid(t, index) {
        return None;
    }
    let (texts, predicate) = texts(t, index);
    let mut terms = Vec::new();
    let mut used = BTreeSet::new();
    for (n, part) in index.parts.iter().enumerate() {
        let collate = quote(&part.collation);
        if let (true, Some(name)) = (part.cid >= 0, part.name.as_deref()) {
            used.insert(name.to_owned());
            if !(event == Event::Insert && unknown_before_insert(t, [name])) {
                terms.push(format!("_r.{} = {} COLLATE {collate}", quote(name), new_value(t, name)));
            }
        } else {
            let text = texts.get(n)?;
            used.extend(mentioned(t, text));
            if let Some(new) = over_new(t, text, event, None) {
                terms.push(format!("({text}) = {new} COLLATE {collate}"));
            }
        }
    }
    if let Some(predicate) = &predicate {
        used.extend(mentioned(t, predicate));
        terms.push(format!("({predicate})"));
        // In doubt it is fulfilled: an entry too many is none too few.
        terms.extend(over_new(t, predicate, event, Some("1")));
    }
    let mut out = if terms.is_empty() { "1".to_owned() } else { terms.join(" AND ") };
    let generated = used.iter().any(|n| t.column(n).is_some_and(|c| c.hidden != 0));
    let bases = bases(t, &used);
    if event == Event::Update && !bases.is_empty() {
        // SQLite computes NEW's generated columns from those columns that a trigger names, and NULLs.
        let named: Vec<String> = bases.iter().map(|n| format!("NEW.{}", quote(n))).collect();
        out = format!("coalesce(1,{}) AND {out}", named.join(","));
    }
    if event == Event::Update && !generated && !used.is_empty() {
        let changed = |n: &String| format!("NEW.{0} IS NOT OLD.{0} COLLATE BINARY", quote(n));
        let changed = used.iter().map(changed).collect::<Vec<_>>().join(" OR ");
        // First of all: an update that touches nothing the index looks at searches nothing.
        out = format!("({changed}) AND {out}");
    }
    Some(out)
}

/// The texts of an index's terms and its predicate, as they mean the same inside a search.
///
/// SQLite takes a rowid's name between double quotes for a string in a term, and in the predicate of a table
/// without a rowid; in a search it would be the rowid.
fn texts(t: &SourceTable, index: &UniqueIndex) -> (Vec<String>, Option<String>) {
    let (terms, predicate) = index.sql.as_deref().map(sqltext::index_terms).unwrap_or_default();
    let is_string = |name: &str| is_rowid_name(t, name);
    let terms = terms.iter().map(|x| sqltext::with_strings(x, is_string)).collect();
    let predicate =
        predicate.map(|x| if t.rowid.is_none() { sqltext::with_strings(&x, is_string) } else { x });
    (terms, predicate)
}

/// Whether a word is a name of the rowid, and not of a column.
fn is_rowid_name(t: &SourceTable, word: &str) -> bool {
    ["rowid", "oid", "_rowid_"].contains(&word.to_ascii_lowercase().as_str()) && t.column(word).is_none()
}

impl SourceTable {
    /// A name between double quotes that is neither a column's nor the rowid's: SQLite takes it for a string.
    pub(crate) fn stray(&self, expression: &str) -> Option<String> {
        let stray = |name: &String| self.column(name).is_none() && !is_rowid_name(self, name);
        sqltext::quoted_columns(expression).into_iter().find(stray)
    }

    /// Whether an expression is made of the rowid, by any of its names.
    pub(crate) fn names_rowid(&self, expression: &str) -> bool {
        sqltext::names(expression).iter().any(|word| is_rowid_name(self, word))
    }
}

/// Whether the rowid is part of the index: then no two rows ever collide in it.
fn holds_rowid(t: &SourceTable, index: &UniqueIndex) -> bool {
    let key = t.table.key_names().first().copied().filter(|_| t.alias);
    index.parts.iter().any(|p| p.cid == -1 || (p.cid >= 0 && key.is_some() && p.name.as_deref() == key))
}

/// In BEFORE INSERT an automatic rowid reads as −1, and a generated column may be made of it (of the
/// INTEGER PRIMARY KEY; it may not name the rowid otherwise: <https://sqlite.org/gencol.html>).
fn unknown_before_insert<'a>(t: &SourceTable, names: impl IntoIterator<Item = &'a str>) -> bool {
    let Some(key) = t.table.key_names().first().copied().filter(|_| t.alias) else { return false };
    names.into_iter().any(|n| {
        key.eq_ignore_ascii_case(n) || (t.key_mentioned && t.column(n).is_some_and(|c| c.hidden != 0))
    })
}

/// NEW's value as the uniqueness check will see it: under REPLACE the default of a NOT NULL column takes
/// the place of NULL only after the BEFORE triggers, and a generated column is computed from it then.
fn new_value(t: &SourceTable, name: &str) -> String {
    new_value_within(t, name, &mut Vec::new())
}

/// `within` are the generated columns whose expressions this one is part of: a keyword that is also a
/// column's name looks like a mention of it, and would have no end.
fn new_value_within(t: &SourceTable, name: &str, within: &mut Vec<String>) -> String {
    let new = format!("NEW.{}", quote(name));
    let Some(column) = t.column(name) else { return new };
    if let Some(default) = replaced_by(column) {
        return format!("coalesce({new},{})", stored(&column.declared, default));
    }
    let Some(expression) = t.generated.get(&column.name) else { return new };
    let defaults = defaults_in(t, expression);
    if defaults.is_empty() || within.contains(&column.name) {
        return new;
    }
    let nulls: Vec<String> = defaults.iter().map(|n| format!("NEW.{} IS NULL", quote(n))).collect();
    within.push(column.name.clone());
    let value = over_values(t, expression, None, within);
    within.pop();
    format!("CASE WHEN {} THEN {value} ELSE {new} END", nulls.join(" OR "))
}

/// A default as it is stored: the column's affinity is applied to it (<https://sqlite.org/datatype3.html#type_affinity>),
/// which an expression over it may see (`length(2)` is 1, `length(2.0)` is 3). What no conversion fits is kept as it is:
/// that shows by a comparison with a CAST, which converts as the affinity does.
fn stored(declared: &str, default: &str) -> String {
    let d = format!("({default})");
    match affinity(declared).map(|(to, _)| to) {
        Some("TEXT") => {
            format!("CASE WHEN typeof{d} IN ('integer','real') THEN CAST({d} AS TEXT) ELSE {d} END")
        }
        Some("REAL") => format!("CASE WHEN CAST({d} AS NUMERIC) = {d} THEN CAST({d} AS REAL) ELSE {d} END"),
        Some(_) => format!(
            "CASE WHEN CAST({d} AS INTEGER) = {d} THEN CAST({d} AS INTEGER) \
             WHEN CAST({d} AS NUMERIC) = {d} THEN CAST({d} AS NUMERIC) ELSE {d} END"
        ),
        None => d,
    }
}

/// The default that REPLACE puts in place of NULL.
fn replaced_by(column: &SourceColumn) -> Option<&str> {
    let default = column.default.as_deref().filter(|_| column.not_null && column.hidden == 0)?;
    (!default.eq_ignore_ascii_case("null")).then_some(default)
}

/// The columns of which an expression is made, directly or through generated ones, that have such a default.
fn defaults_in(t: &SourceTable, expression: &str) -> Vec<String> {
    let mut names = bases(t, &mentioned(t, expression).into_iter().collect());
    names.extend(mentioned(t, expression));
    names.retain(|n| t.column(n).is_some_and(|c| replaced_by(c).is_some()));
    names.into_iter().collect()
}

/// An expression over NEW's values under the columns' names.
fn subquery(t: &SourceTable, expression: &str, within: &mut Vec<String>) -> String {
    let columns = mentioned(t, expression);
    let own = t.rowid.unwrap_or_default();
    let named: Vec<String> = columns
        .iter()
        .map(|n| format!("{} AS {}", new_value_within(t, n, within), alias(n)))
        .chain(rowids(t, expression).iter().map(|name| format!("NEW.{own} AS {name}")))
        .collect();
    let list = if named.is_empty() { "1".to_owned() } else { named.join(",") };
    format!("(SELECT {} FROM (SELECT {list}) AS _n)", aliased(t, expression))
}

/// The name that a subquery gives a column: SQLite does not find TRUE and FALSE there, and would take the outer row's.
fn alias(name: &str) -> String {
    if is_truth(name) { quote(&format!("_redtail_{}", name.to_ascii_lowercase())) } else { quote(name) }
}

fn is_truth(name: &str) -> bool {
    name.eq_ignore_ascii_case("true") || name.eq_ignore_ascii_case("false")
}

/// An expression over columns under these names.
fn aliased(t: &SourceTable, expression: &str) -> String {
    let truth = |word: &str| is_truth(word) && t.column(word).is_some();
    sqltext::with_names(expression, |word| truth(word).then(|| alias(word)))
}

/// The index's own expression over NEW: a subquery that has NEW's values under the columns' names.
///
/// NEW's columns have values that their affinity was applied to, and no affinity of their own, which shows where
/// the expression compares: there they are read as rows of the table itself ([`as_rows`]). Where a value has to be
/// cast for that and the CAST would change it (a blob in a TEXT column), `in_doubt` is taken, or the value that
/// comes out without the CAST.
fn over_new(t: &SourceTable, expression: &str, event: Event, in_doubt: Option<&str>) -> Option<String> {
    let columns = mentioned(t, expression);
    let unknown = unknown_before_insert(t, columns.iter().map(String::as_str));
    if event == Event::Insert && (unknown || !rowids(t, expression).is_empty()) {
        return None;
    }
    Some(over_values(t, expression, in_doubt, &mut Vec::new()))
}

fn over_values(
    t: &SourceTable,
    expression: &str,
    in_doubt: Option<&str>,
    within: &mut Vec<String>,
) -> String {
    let columns = mentioned(t, expression);
    if columns.is_empty() || !sqltext::compares(expression) {
        return subquery(t, expression, within);
    }
    let values: BTreeMap<&str, String> =
        columns.iter().map(|n| (n.as_str(), new_value_within(t, n, within))).collect();
    let value = |n: &str| values.get(n).cloned().unwrap_or_default();
    let fits: Vec<String> = values
        .iter()
        .filter_map(|(n, v)| cast(t, n, v).map(|(_, classes)| format!("typeof({v}) IN ({classes})")))
        .collect();
    let uncast = as_rows(t, expression, value);
    if fits.is_empty() {
        return uncast;
    }
    let typed = as_rows(t, expression, |n| match cast(t, n, &value(n)) {
        Some((to, _)) => format!("CAST({} AS {to})", value(n)),
        None => value(n),
    });
    let otherwise = in_doubt.unwrap_or(&uncast);
    format!("CASE WHEN {} THEN {typed} ELSE {otherwise} END", fits.join(" AND "))
}

/// An expression over these values in the place of columns, each with the affinity and the collation of its own.
///
/// The columns of a compound have what its first part's have. It has no rows here, and its second no table, so
/// that no version flattens it. Later ones (3.41) make a BLOB column of a TEXT one beside a value that may be a
/// number, and of a numeric one beside what may be text: see [`cast`]. They are named again: else the application
/// could not rename one, because SQLite changes it within the part and not in the expression around that.
fn as_rows(t: &SourceTable, expression: &str, value: impl Fn(&str) -> String) -> String {
    let columns = mentioned(t, expression);
    let rowids = rowids(t, expression);
    let (table, own) = (quote(&t.table.name), t.rowid.unwrap_or_default());
    let heads = columns
        .iter()
        .map(|n| format!("{} AS {}", quote(n), alias(n)))
        .chain(rowids.iter().map(|name| format!("{own} AS {name}")));
    let heads = heads.collect::<Vec<_>>().join(",");
    let values = columns.iter().map(|n| value(n)).chain(rowids.iter().map(|_| format!("NEW.{own}")));
    let values = values.collect::<Vec<_>>().join(",");
    format!(
        "(SELECT {} FROM (SELECT {heads} FROM {table} WHERE 0 UNION ALL SELECT {values}) AS _n)",
        aliased(t, expression)
    )
}

/// What a column's new value has to be cast to, to keep the column's affinity, and the classes that the CAST
/// leaves as they are.
fn cast(t: &SourceTable, name: &str, value: &str) -> Option<(&'static str, &'static str)> {
    let computed = !value.starts_with("NEW.");
    affinity(&t.column(name)?.declared).filter(|(to, _)| *to == "TEXT" || computed)
}

/// The names by which an expression has the rowid.
fn rowids(t: &SourceTable, expression: &str) -> BTreeSet<String> {
    let names = sqltext::names(expression);
    let names = names.into_iter().filter(|w| t.rowid.is_some() && is_rowid_name(t, w));
    names.map(|w| w.to_ascii_lowercase()).collect()
}

/// The ordinary columns of which the generated ones among these are made, directly or through others.
fn bases(t: &SourceTable, names: &BTreeSet<String>) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let mut left: Vec<String> = names.iter().cloned().collect();
    while let Some(name) = left.pop() {
        for part in t.generated.get(&name).into_iter().flat_map(|expression| mentioned(t, expression)) {
            if seen.insert(part.clone()) {
                left.push(part);
            }
        }
    }
    seen.retain(|n| !t.generated.contains_key(n));
    seen
}

/// The table's columns that an expression names.
fn mentioned(t: &SourceTable, expression: &str) -> Vec<String> {
    let words: BTreeSet<String> =
        sqltext::words(expression).into_iter().map(|w| w.to_ascii_lowercase()).collect();
    let named = t.columns.iter().filter(|c| words.contains(&c.name.to_ascii_lowercase()));
    named.map(|c| c.name.clone()).collect()
}

/// Whether an insert would have to scan an index, because its first term is made of the automatic key.
pub(crate) fn searchless(t: &SourceTable) -> bool {
    t.unique.iter().any(|index| {
        let (texts, _) = texts(t, index);
        let known = match index.parts.first() {
            Some(first) if first.cid >= 0 => !unknown_before_insert(t, first.name.as_deref()),
            _ => texts.first().is_some_and(|x| over_new(t, x, Event::Insert, None).is_some()),
        };
        !holds_rowid(t, index) && !known
    })
}
