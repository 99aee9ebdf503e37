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

/// One statement of a trigger: enters the key that `expressions` give.
pub(crate) fn enter(id: i64, op: Op, expressions: &[String]) -> String {
    format!("{} VALUES({});", into(expressions), values(id, op, expressions))
}

/// The same for the rows of `from`. Because the changelog has a trigger of its own, SQLite collects what such a
/// statement selects in a table of its own first and keeps a journal for it, also for no row at all: several
/// times the cost of an entry. So it stands behind a trigger's WHEN.
pub(crate) fn enter_from(id: i64, op: Op, expressions: &[String], from: &str) -> String {
    format!("{} SELECT {}{from};", into(expressions), values(id, op, expressions))
}

fn into(expressions: &[String]) -> String {
    let columns: Vec<String> = (0..expressions.len()).map(|i| format!("k{i}")).collect();
    format!("INSERT INTO _redtail_changelog(tbl,op,at,{})", columns.join(","))
}

fn values(id: i64, op: Op, expressions: &[String]) -> String {
    format!("{id},{},{NOW_MS},{}", op as u8, expressions.join(","))
}

/// A trigger to be made: its kind, its event, the condition under which it runs, and its statements.
struct Part {
    kind: &'static str,
    event: &'static str,
    when: Option<String>,
    body: Vec<String>,
}

impl Part {
    fn of(kind: &'static str, event: &'static str, body: String) -> Self {
        Self { kind, event, when: None, body: vec![body] }
    }

    fn when(self, condition: String) -> Self {
        Self { when: Some(condition), ..self }
    }

    fn evicted(
        kind: &'static str,
        event: &'static str,
        searches: Option<(String, Vec<String>)>,
    ) -> Option<Self> {
        searches.map(|(when, body)| Self { kind, event, when: Some(when), body })
    }
}

/// Everything the capture of `t` consists of, in the order in which it is made.
pub(crate) fn triggers(t: &SourceTable, id: i64) -> Vec<Trigger> {
    let (old, new) = (key_expressions(t, "OLD"), key_expressions(t, "NEW"));
    let (after_only, moved) = (fault::after_only(), || key_differs(t));
    let enter_old = |op| enter(id, op, &old);
    let enter_new = |op| enter(id, op, &new);
    let late = after_only.then(|| Part::of("lu", "AFTER UPDATE", enter_old(Op::Update)));
    let delete = if after_only { "AFTER DELETE" } else { "BEFORE DELETE" };
    let early = |part| if after_only { None } else { Some(part) };
    let coerced = t.coerced.then(|| Part::of("bi", "BEFORE INSERT", enter_new(Op::Insert)));
    let parts = [
        coerced.and_then(early),
        Part::evicted("ei", "BEFORE INSERT", evict::before_insert(t, id)),
        early(Part::of("bu", "BEFORE UPDATE", enter_old(Op::Update))),
        early(Part::of("mu", "BEFORE UPDATE", enter_new(Op::Update)).when(moved())),
        Part::evicted("eu", "BEFORE UPDATE", evict::before_update(t, id)),
        Some(Part::of("bd", delete, enter_old(Op::Delete))),
        Some(Part::of("ai", "AFTER INSERT", enter_new(Op::Insert))),
        late,
        Some(Part::of("au", "AFTER UPDATE", enter_new(Op::Update)).when(moved())),
    ];
    let make = |part: Part| {
        let name = format!("_redtail_{id}_{}", part.kind);
        let when = part.when.map(|condition| format!(" WHEN {condition}")).unwrap_or_default();
        let (quoted, on, body) = (quote(&name), quote(&t.table.name), part.body.join(" "));
        let sql = format!("CREATE TRIGGER {quoted} {} ON {on}{when} BEGIN {body} END", part.event);
        Trigger { name, sql }
    };
    parts.into_iter().flatten().map(make).collect()
}
