//! Generates the triggers of one table: which of them enters which key, and when.
//!
//! Reads nothing and runs nothing: a table's definition goes in, SQL text comes out, always the same
//! text for the same definition, because `audit` compares it with what is installed.
//!
//! Why OLD keys are entered BEFORE: an application's AFTER trigger that fires earlier can say
//! RAISE(IGNORE) or RAISE(FAIL), which keeps the row and skips the triggers behind it; and in AFTER
//! triggers of a foreign-key parent the images may carry the child column's affinity. An automatic
//! rowid is known only AFTER INSERT; there ours fires first because the newest trigger of a table does,
//! and `audit` sees to it that ours are the newest.

use super::describe::SourceTable;
use super::evict;
use crate::fault;
use crate::source::sql::quote;

/// What an entry says happened: a hint for people; the read decides.
#[derive(Clone, Copy)]
pub(crate) enum Op {
    Reset = 0,
    Insert = 1,
    Update = 2,
    Delete = 3,
    /// This key might have been evicted by a REPLACE.
    Evict = 4,
}

/// Milliseconds since 1970, by functions that every SQLite since 3.7 has.
pub(crate) const NOW_MS: &str = "CAST((julianday('now')-2440587.5)*86400000 AS INTEGER)";

/// A trigger: its name and the statement that makes it.
#[derive(Debug)]
pub(crate) struct Trigger {
    pub name: String,
    pub sql: String,
}

/// The key's components of the row called `row` (NEW, OLD, or an alias of the table).
///
/// Where NULL may stand in the key, the rowid joins it as one more component, set only beside a NULL.
pub(crate) fn key_expressions(t: &SourceTable, row: &str) -> Vec<String> {
    let rowid = t.rowid.unwrap_or("rowid");
    let column =
        |i: usize| t.table.columns.get(i).map_or_else(String::new, |c| format!("{row}.{}", quote(&c.name)));
    let mut out: Vec<String> =
        t.table.key.parts.iter().map(|p| p.column.map_or_else(|| format!("{row}.{rowid}"), column)).collect();
    if t.table.key.nullable {
        let any = out.iter().map(|x| format!("{x} IS NULL")).collect::<Vec<_>>().join(" OR ");
        out.push(format!("CASE WHEN {any} THEN {row}.{rowid} END"));
    }
    out
}

/// Whether the key of OLD is not that of NEW, by bytes and type: a column's own collation would hide a
/// change of case.
fn key_differs(t: &SourceTable) -> String {
    let pairs = key_expressions(t, "OLD").into_iter().zip(key_expressions(t, "NEW"));
    pairs.map(|(old, new)| format!("{old} IS NOT {new} COLLATE BINARY")).collect::<Vec<_>>().join(" OR ")
}

/// One statement of a trigger: enters the key that `expressions` give, for the rows of `from`.
pub(crate) fn enter(id: i64, op: Op, expressions: &[String], from: &str) -> String {
    let columns: Vec<String> = (0..expressions.len()).map(|i| format!("k{i}")).collect();
    format!(
        "INSERT INTO _redtail_changelog(tbl,op,at,{}) SELECT {id},{},{NOW_MS},{}{from};",
        columns.join(","),
        op as u8,
        expressions.join(",")
    )
}

/// Everything the capture of `t` consists of, in the order in which it is made.
pub(crate) fn triggers(t: &SourceTable, id: i64) -> Vec<Trigger> {
    let (old, new) = (key_expressions(t, "OLD"), key_expressions(t, "NEW"));
    let moved = format!(" WHERE {}", key_differs(t));
    let mut before_insert = Vec::new();
    if t.coerced {
        before_insert.push(enter(id, Op::Insert, &new, ""));
    }
    before_insert.extend(evict::before_insert(t, id));
    let mut before_update = vec![enter(id, Op::Update, &old, ""), enter(id, Op::Update, &new, &moved)];
    if fault::after_only() {
        (before_insert, before_update) = (evict::before_insert(t, id), Vec::new());
    }
    before_update.extend(evict::before_update(t, id));
    let after_update = if fault::after_only() { enter(id, Op::Update, &old, "") } else { String::new() };
    let delete = if fault::after_only() { "AFTER DELETE" } else { "BEFORE DELETE" };
    let parts = [
        ("bi", "BEFORE INSERT", before_insert),
        ("bu", "BEFORE UPDATE", before_update),
        ("bd", delete, vec![enter(id, Op::Delete, &old, "")]),
        ("ai", "AFTER INSERT", vec![enter(id, Op::Insert, &new, "")]),
        ("au", "AFTER UPDATE", vec![after_update + &enter(id, Op::Update, &new, &moved)]),
    ];
    let make = |(suffix, when, body): (&str, &str, Vec<String>)| {
        let name = format!("_redtail_{id}_{suffix}");
        let on = quote(&t.table.name);
        let sql = format!("CREATE TRIGGER {} {when} ON {on} BEGIN {} END", quote(&name), body.join(" "));
        (!body.is_empty()).then_some(Trigger { name, sql })
    };
    parts.into_iter().filter_map(make).collect()
}
