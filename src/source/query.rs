//! The SQL text by which one captured table is read: the rows that entries name, the row under a key, and
//! the rows of a range. Only text and what is bound to it; `read` runs it.

use super::sql::{exact, placeholder, quote};
use crate::capture::describe::SourceTable;
use crate::fault;
use crate::value::Value;

/// The queries on one table of the source.
#[derive(Clone, Copy)]
pub(super) struct Query<'a>(pub &'a SourceTable);

impl Query<'_> {
    /// Whether the rowid is selected in front of the columns: it is the key, or may join it.
    pub fn with_rowid(&self) -> bool {
        let key = &self.0.table.key;
        key.nullable || key.parts.iter().any(|p| p.column.is_none())
    }

    fn rowid(&self) -> String {
        format!("_t.{}", self.0.rowid.unwrap_or("rowid"))
    }

    /// The key's parts, without the rowid that joins a NULL, as columns of the table, with collations.
    fn parts(&self) -> Vec<(String, &'static str)> {
        let table = &self.0.table;
        let name =
            |i: usize| table.columns.get(i).map_or_else(String::new, |c| format!("_t.{}", quote(&c.name)));
        table
            .key
            .parts
            .iter()
            .map(|p| (p.column.map_or_else(|| self.rowid(), name), p.collation.name()))
            .collect()
    }

    pub fn row_list(&self) -> String {
        let rowid = self.with_rowid().then(|| self.rowid());
        let columns = self.0.columns.iter().map(|c| format!("_t.{}", quote(&c.name)));
        exact(&rowid.into_iter().chain(columns).collect::<Vec<_>>())
    }

    fn entry_columns(&self) -> Vec<String> {
        (0..self.0.table.key.width()).map(|i| format!("k{i}")).collect()
    }

    /// Entries are sorted before they are joined: rows then come, and go into the replica, in key order.
    /// `LIMIT -1` keeps SQLite from dropping the inner ORDER BY.
    fn named_from(&self, filter: &str, on: &str) -> String {
        let keys = self.entry_columns();
        let collations = self.0.table.key.collations();
        let order: Vec<String> =
            keys.iter().zip(collations).map(|(k, c)| format!("{k} COLLATE {}", c.name())).collect();
        // The deliberate fault: what was entered as deleted is not looked for.
        let deleted = "SELECT 1 FROM _redtail_changelog AS _d WHERE _d.tbl = ?1 AND _d.seq > ?2 AND _d.op = 3 AND _d.k0 IS _l.k0";
        let on = if fault::trust_op() { format!("{on} AND NOT EXISTS ({deleted})") } else { on.to_owned() };
        let entered: Vec<String> = keys.iter().map(|k| format!("_l.{k}")).collect();
        format!(
            "SELECT {},{} FROM (SELECT DISTINCT {} FROM _redtail_changelog WHERE tbl = ?1 AND seq > ?2 AND seq <= ?3 \
             AND op <> 0{filter} ORDER BY {} LIMIT -1) AS _l LEFT JOIN {} AS _t ON {on}",
            exact(&entered),
            self.row_list(),
            keys.join(","),
            order.join(","),
            quote(&self.0.table.name),
        )
    }

    pub fn named(&self) -> String {
        let parts = self.parts();
        let mut on: Vec<String> =
            parts.iter().enumerate().map(|(i, (x, c))| format!("{x} = _l.k{i} COLLATE {c}")).collect();
        if self.0.table.key.nullable {
            on.push(format!("_l.k{} IS NULL", parts.len()));
        }
        self.named_from("", &on.join(" AND "))
    }

    /// The unary plus keeps SQLite from searching by the key's index, where NULLs would make it quadratic.
    pub fn named_by_rowid(&self) -> String {
        let parts = self.parts();
        let last = parts.len();
        let mut on = vec![format!("{} = _l.k{last}", self.rowid())];
        on.extend(parts.iter().enumerate().map(|(i, (x, c))| format!("+{x} IS _l.k{i} COLLATE {c}")));
        self.named_from(&format!(" AND k{last} IS NOT NULL"), &on.join(" AND "))
    }

    /// The condition that finds the row with this key.
    pub fn at(&self, values: &[Value]) -> (String, Vec<Value>) {
        let (mut terms, mut binds) = (Vec::new(), Vec::new());
        let rowid = (self.rowid(), "BINARY");
        let joined = self.0.table.key.nullable.then_some(rowid);
        for ((part, collation), value) in self.parts().into_iter().chain(joined).zip(values) {
            let is_rowid = terms.len() == self.0.table.key.parts.len();
            match value {
                Value::Null if is_rowid => {}
                Value::Null => terms.push(format!("{part} IS NULL")),
                _ => {
                    binds.push(value.clone());
                    terms.push(format!("{part} = {} COLLATE {collation}", placeholder(binds.len(), value)));
                }
            }
        }
        (terms.join(" AND "), binds)
    }

    pub fn range(&self, condition: &str, rows: usize) -> String {
        let mut order: Vec<String> = self.parts().iter().map(|(x, c)| format!("{x} COLLATE {c}")).collect();
        if self.0.table.key.nullable {
            order.push(self.rowid());
        }
        let table = quote(&self.0.table.name);
        let list = self.row_list();
        format!("SELECT {list} FROM {table} AS _t{condition} ORDER BY {} LIMIT {rows}", order.join(","))
    }

    /// The conditions that together say "behind this key", each a search of its own, in key order.
    ///
    /// A row value comparison would say it in one, but not where NULL may stand in the key.
    pub fn behind(&self, place: &[Value]) -> Vec<(String, Vec<Value>)> {
        if place.is_empty() {
            return vec![(String::new(), Vec::new())];
        }
        let mut parts = self.parts();
        if self.0.table.key.nullable {
            parts.push((self.rowid(), "BINARY"));
        }
        let mut out = Vec::new();
        // Without a NULL in it the key is unique, and its row may have been replaced under a higher rowid.
        let null = place.iter().take(self.0.table.key.parts.len()).any(|v| matches!(v, Value::Null));
        let levels = if null { parts.len() } else { self.0.table.key.parts.len() };
        for last in (0..levels.min(place.len())).rev() {
            let mut terms = Vec::new();
            let mut binds = Vec::new();
            for (i, ((part, collation), value)) in parts.iter().zip(place).take(last + 1).enumerate() {
                let compare = if i < last { "=" } else { ">" };
                terms.push(match value {
                    Value::Null if i < last => format!("{part} IS NULL"),
                    Value::Null => format!("{part} IS NOT NULL"),
                    _ => {
                        binds.push(value.clone());
                        format!("{part} {compare} {} COLLATE {collation}", placeholder(binds.len(), value))
                    }
                });
            }
            out.push((format!(" WHERE {}", terms.join(" AND ")), binds));
        }
        out
    }
}
