//! The newest rows of a table, and no others: where the boundary lies, and what crosses it.
//!
//! The rows kept are those at or before a boundary row in the order `by DESC, key`. It is found anew in
//! the snapshot of every window that touches the table. A row crosses it either because an entry names
//! it, and then the window's own reading decides, or because others came or went: then it lies between
//! the old boundary and the new one, and is read from there. Everything here is text and what is bound
//! to it; what is compared is compared by SQLite, in its own order.

use super::read::{Limits, Reader};
use super::select::Keep;
use super::sql::{Sql, exact, placeholder, quote};
use crate::error::Result;
use crate::fault;
use crate::record::Deltas;
use crate::value::Value;
use crate::window::{Boundary, Kept};
use std::ops::ControlFlow;

/// What crossed the boundary since it was last known.
pub(super) enum Crossed {
    Nothing,
    /// These rows, and those that left.
    Rows(Deltas),
    /// Too many to say, or nobody knows: the table has to be reconciled.
    Everything,
}

/// A condition, and what is bound in it.
#[derive(Clone, Debug, Default)]
pub(super) struct Condition {
    pub sql: String,
    pub binds: Vec<Value>,
}

/// The order of one table's rows.
pub(super) struct Order<'a> {
    pub keep: &'a Keep,
    /// The components of the key as columns of `_t`, with their collations; the rowid last, where NULL may
    /// stand in the others.
    pub key: Vec<(String, &'static str)>,
}

impl Order<'_> {
    pub fn by(&self) -> String {
        format!("_t.{}", quote(&self.keep.by))
    }

    /// The rows that are kept. `first` is the number of the first value bound.
    pub fn inside(&self, boundary: &Boundary, first: usize) -> Condition {
        self.side(boundary, first, true)
    }

    /// The rows that are not kept.
    pub fn outside(&self, boundary: &Boundary, first: usize) -> Condition {
        self.side(boundary, first, false)
    }

    fn side(&self, boundary: &Boundary, first: usize, inside: bool) -> Condition {
        let mut condition = Condition::default();
        let by = self.by();
        let Some((value, key)) = boundary.0.split_first() else { return condition };
        let mut bind = |value: &Value| {
            condition.binds.push(value.clone());
            placeholder(first + condition.binds.len() - 1, value)
        };
        // NULL comes last in descending order.
        condition.sql = if matches!(value, Value::Null) {
            let beside = beside(&self.key, key, inside, &mut bind);
            if inside {
                format!("({by} IS NOT NULL OR {beside})")
            } else {
                format!("({by} IS NULL AND {beside})")
            }
        } else {
            let at = bind(value);
            let beside = beside(&self.key, key, inside, &mut bind);
            // The first term is implied: it is what an index can be searched by.
            if inside {
                format!("({by} >= {at} AND ({by} > {at} OR {beside}))")
            } else {
                format!("(({by} <= {at} AND ({by} < {at} OR {beside})) OR {by} IS NULL)")
            }
        };
        condition
    }
}

/// The rows that have the boundary's `by`, and a key at or before its key, or behind it.
fn beside(
    key: &[(String, &'static str)],
    values: &[Value],
    inside: bool,
    bind: &mut impl FnMut(&Value) -> String,
) -> String {
    let mut terms = Vec::new();
    let mut same: Vec<String> = Vec::new();
    let last = key.len().min(values.len());
    for (i, ((column, collation), value)) in key.iter().zip(values).enumerate() {
        let null = matches!(value, Value::Null);
        let at = if null { String::new() } else { bind(value) };
        // NULL comes first in ascending order.
        let strictly = match (inside, null) {
            (true, true) => "0".to_owned(),
            (true, false) => format!("({column} IS NULL OR {column} < {at} COLLATE {collation})"),
            (false, true) => format!("{column} IS NOT NULL"),
            (false, false) => format!("{column} > {at} COLLATE {collation}"),
        };
        let equal =
            if null { format!("{column} IS NULL") } else { format!("{column} = {at} COLLATE {collation}") };
        terms.push(same.iter().cloned().chain([strictly]).collect::<Vec<_>>().join(" AND "));
        same.push(equal);
        if inside && i + 1 == last {
            terms.push(same.join(" AND "));
        }
    }
    format!("({})", terms.join(" OR "))
}

impl Reader {
    /// Finds the boundary in this snapshot; says what crossed it.
    pub(super) fn move_boundary(&mut self, sql: &mut Sql, limits: Limits) -> Result<Crossed> {
        let Some(keep) = self.selection.keep.clone() else { return Ok(Crossed::Nothing) };
        let order = Order { keep: &keep, key: self.query().order() };
        if fault::stale_boundary() && self.kept != Kept::Unknown {
            return Ok(Crossed::Nothing);
        }
        let new = self.boundary(sql, &order)?;
        let old = std::mem::replace(&mut self.kept, new);
        if old == self.kept {
            return Ok(Crossed::Nothing);
        }
        let (Kept::To(old), new) = (&old, self.kept.boundary()) else { return Ok(Crossed::Everything) };
        let mut rows = Deltas::of(self.shape);
        let all = Condition { sql: "1".to_owned(), binds: Vec::new() };
        let came = new.map_or(all, |new| order.inside(new, 1));
        self.between(sql, came, |first| order.outside(old, first), limits, true, &mut rows)?;
        if let Some(new) = new {
            let went = order.inside(old, 1);
            self.between(sql, went, |first| order.outside(new, first), limits, false, &mut rows)?;
        }
        Ok(if rows.len() < limits.rows { Crossed::Rows(rows) } else { Crossed::Everything })
    }

    /// Reads rows that fulfil both conditions: to put them, or to delete them.
    fn between(
        &self,
        sql: &mut Sql,
        one: Condition,
        other: impl FnOnce(usize) -> Condition,
        limits: Limits,
        put: bool,
        out: &mut Deltas,
    ) -> Result<()> {
        let other = other(one.binds.len() + 1);
        let condition = format!("{} AND {}", one.sql, other.sql);
        let binds = [one.binds, other.binds].concat();
        let query = self.query().some(&condition, limits.rows.saturating_sub(out.len()));
        let read = sql.rows(&query, &binds, |row| {
            if let Some(read) = self.row(row, 0)? {
                if put { self.put(out, &read)? } else { out.delete(&read.key) }
            }
            Ok(ControlFlow::<()>::Continue(()))
        });
        read.map(|_| ()).map_err(|e| self.describe(e))
    }

    /// The last row that is kept in this snapshot: its `by` is found first, because an index alone gives
    /// that; only among those equal to it does the key count.
    fn boundary(&self, sql: &mut Sql, order: &Order<'_>) -> Result<Kept> {
        let (by, from) = (order.by(), self.query().from());
        let skip = order.keep.rows.saturating_sub(1);
        let last = format!(
            "SELECT {} FROM {from} ORDER BY {by} DESC LIMIT 1 OFFSET {skip}",
            exact(std::slice::from_ref(&by))
        );
        let Some(last) = first_row(sql, &last, &[], 1)? else { return Ok(Kept::All) };
        let (above, equal) = match last.first() {
            Some(Value::Null) | None => (format!("{by} IS NOT NULL"), format!("{by} IS NULL")),
            Some(value) => {
                let at = placeholder(1, value);
                (format!("{by} > {at}"), format!("{by} = {at}"))
            }
        };
        let binds: Vec<Value> = last.iter().filter(|v| !matches!(v, Value::Null)).cloned().collect();
        let above = sql.integer(&format!("SELECT count(*) FROM {from} AND {above}"), &binds)?;
        let rest = skip.saturating_sub(above.and_then(|n| u64::try_from(n).ok()).unwrap_or(0));
        let columns: Vec<String> = order.key.iter().map(|(column, _)| column.clone()).collect();
        let sorted: Vec<String> = order.key.iter().map(|(x, c)| format!("{x} COLLATE {c}")).collect();
        let key = format!(
            "SELECT {} FROM {from} AND {equal} ORDER BY {} LIMIT 1 OFFSET {rest}",
            exact(&columns),
            sorted.join(",")
        );
        let key = first_row(sql, &key, &binds, columns.len())?;
        Ok(key.map_or(Kept::Unknown, |key| Kept::To(Boundary([last, key].concat()))))
    }
}

fn first_row(sql: &mut Sql, query: &str, binds: &[Value], width: usize) -> Result<Option<Vec<Value>>> {
    sql.rows(query, binds, |row| {
        let mut values = Vec::with_capacity(width);
        row.exact(0, width, &mut values)?;
        Ok(ControlFlow::Break(values))
    })
}
