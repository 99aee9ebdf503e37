//! The SQL text by which one captured table is read: the rows that entries name, the row under a key, and
//! the rows of a range. Only text and what is bound to it; `read` runs it.

use super::exact::{Holds, Term, exact, marked};
use super::keep::{Condition, Order};
use super::select::Selection;
use super::sql::{placeholder, quote};
use crate::capture::describe::SourceTable;
use crate::fault;
use crate::value::Value;
use crate::window::Boundary;

/// The queries on one table of the source.
#[derive(Clone, Copy)]
pub(super) struct Query<'a> {
    pub source: &'a SourceTable,
    pub selection: &'a Selection,
    /// The last row that is kept, where only the newest are.
    pub boundary: Option<&'a Boundary>,
}

impl Query<'_> {
    /// Whether the rowid is selected in front of the columns: it is the key, or may join it.
    pub fn with_rowid(&self) -> bool {
        let key = &self.source.table.key;
        key.nullable || key.has_rowid()
    }

    fn rowid(&self) -> String {
        format!("_t.{}", self.source.rowid.unwrap_or("rowid"))
    }

    /// The key's parts, without the rowid that joins a NULL, as columns of the table, with collations.
    fn parts(&self) -> Vec<(String, &'static str)> {
        let table = &self.source.table;
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
        let rowid = self.with_rowid().then(|| (self.rowid(), Holds::Integer));
        let columns = self.selection.columns.iter().enumerate().map(|(i, c)| match &c.mask {
            Some(mask) => (format!("({mask}\n)"), Holds::Any),
            None if self.is_alias(i) => (format!("_t.{}", quote(&c.name)), Holds::Integer),
            None => (format!("_t.{}", quote(&c.name)), c.holds),
        });
        let list: Vec<(String, Holds)> = rowid.into_iter().chain(columns).collect();
        marked(list.iter().map(|(sql, holds)| Term { sql, holds: *holds }))
    }

    /// Whether the column is the rowid by another name.
    fn is_alias(&self, column: usize) -> bool {
        self.source.alias && self.selection.table.key.parts.iter().any(|p| p.column == Some(column))
    }

    /// The table, and the condition on its rows that is the same for every reading; never without one, so
    /// that others can be put behind it.
    pub fn from(&self) -> String {
        let filter = self.filter().unwrap_or_else(|| "1".to_owned());
        format!("{} AS _t WHERE {filter}", quote(&self.source.table.name))
    }

    fn filter(&self) -> Option<String> {
        self.selection.filter.as_ref().map(|f| format!("({f}\n)"))
    }

    /// Which rows are replicated, where not all are. `first` is the number of the first value bound.
    fn selected(&self, first: usize) -> Option<Condition> {
        let kept = self.boundary.zip(self.selection.keep.as_ref());
        let kept = kept.map(|(boundary, keep)| Order { keep, key: self.order() }.inside(boundary, first));
        let sql: Vec<String> = self.filter().into_iter().chain(kept.iter().map(|c| c.sql.clone())).collect();
        let binds = kept.map(|c| c.binds).unwrap_or_default();
        (!sql.is_empty()).then(|| Condition { sql: sql.join(" AND "), binds })
    }

    /// What has to be bound to [`Query::named`] behind its own three.
    pub fn named_binds(&self) -> Vec<Value> {
        self.selected(4).map(|c| c.binds).unwrap_or_default()
    }

    /// What rows are sorted by: the parts of the key, and the rowid where NULL may stand in them.
    pub fn order(&self) -> Vec<(String, &'static str)> {
        let rowid = self.source.table.key.nullable.then(|| (self.rowid(), "BINARY"));
        self.parts().into_iter().chain(rowid).collect()
    }

    /// Some rows, in no order.
    pub fn some(&self, condition: &str, rows: usize) -> String {
        format!("SELECT {} FROM {} AND {condition} LIMIT {rows}", self.row_list(), self.from())
    }

    fn entry_columns(&self) -> Vec<String> {
        (0..self.source.table.key.width()).map(|i| format!("k{i}")).collect()
    }

    /// Entries are sorted before they are joined: rows then come, and go into the replica, in key order.
    /// GROUP BY takes out what is double while it sorts; DISTINCT would keep a b-tree of all keys beside the
    /// sorter, at eight times the cost. `LIMIT -1` keeps SQLite from dropping the inner ORDER BY.
    fn named_from(&self, filter: &str, on: &str) -> String {
        let keys = self.entry_columns();
        let collations = self.source.table.key.collations();
        let order: Vec<String> =
            keys.iter().zip(collations).map(|(k, c)| format!("{k} COLLATE {}", c.name())).collect();
        let order = order.join(",");
        // The deliberate fault: what was entered as deleted is not looked for.
        let deleted = "SELECT 1 FROM _redtail_changelog AS _d WHERE _d.tbl = ?1 AND _d.seq > ?2 AND _d.op = 3 AND _d.k0 IS _l._redtail_k0";
        let on = if fault::trust_op() { format!("{on} AND NOT EXISTS ({deleted})") } else { on.to_owned() };
        // A filter or mask names columns of the table alone: no name of ours may stand beside them.
        let renamed: Vec<String> = keys.iter().map(|k| format!("{k} AS _redtail_{k}")).collect();
        let entered: Vec<String> = keys.iter().map(|k| format!("_l._redtail_{k}")).collect();
        let on = [on].into_iter().chain(self.selected(4).map(|c| c.sql)).collect::<Vec<_>>().join(" AND ");
        format!(
            "SELECT {},{} FROM (SELECT {} FROM _redtail_changelog WHERE tbl = ?1 AND seq > ?2 AND seq <= ?3 \
             AND op <> 0{filter} GROUP BY {order} ORDER BY {order} LIMIT -1) AS _l LEFT JOIN {} AS _t ON {on}",
            exact(&entered),
            self.row_list(),
            renamed.join(","),
            quote(&self.source.table.name),
        )
    }

    pub fn named(&self) -> String {
        let parts = self.parts();
        let mut on: Vec<String> = parts
            .iter()
            .enumerate()
            .map(|(i, (x, c))| format!("{x} = _l._redtail_k{i} COLLATE {c}"))
            .collect();
        if self.source.table.key.nullable {
            on.push(format!("_l._redtail_k{} IS NULL", parts.len()));
        }
        self.named_from("", &on.join(" AND "))
    }

    /// Whether every key is an integer, by which SQLite finds the row itself.
    pub fn is_by_rowid(&self) -> bool {
        let key = &self.source.table.key;
        key.width() == 1 && (self.source.alias || key.has_rowid())
    }

    /// The rows under the keys of a list, in its order; what is read is as in [`Query::named`]. A list holds JSON
    /// integers. What SQLite calls its columns must not stand beside those that a filter or a mask names.
    pub fn listed(&self) -> String {
        let entered = Term { sql: "_l._redtail_k0", holds: Holds::Integer };
        // By the column's name where there is one: other columns may be called `rowid`.
        let on = self.parts().into_iter().map(|(key, _)| format!("{key} = _l._redtail_k0"));
        let on = on.chain(self.selected(2).map(|c| c.sql)).collect::<Vec<_>>().join(" AND ");
        format!(
            "SELECT {},{} FROM (SELECT value AS _redtail_k0 FROM json_each(?1)) AS _l LEFT JOIN {} AS _t ON {on}",
            marked([entered].into_iter()),
            self.row_list(),
            quote(&self.source.table.name),
        )
    }

    /// What has to be bound to [`Query::listed`] behind its list.
    pub fn listed_binds(&self) -> Vec<Value> {
        self.selected(2).map(|c| c.binds).unwrap_or_default()
    }

    /// The unary plus keeps SQLite from searching by the key's index, where NULLs would make it quadratic.
    pub fn named_by_rowid(&self) -> String {
        let parts = self.parts();
        let last = parts.len();
        let mut on = vec![format!("{} = _l._redtail_k{last}", self.rowid())];
        on.extend(
            parts.iter().enumerate().map(|(i, (x, c))| format!("+{x} IS _l._redtail_k{i} COLLATE {c}")),
        );
        self.named_from(&format!(" AND k{last} IS NOT NULL"), &on.join(" AND "))
    }

    /// Finds the row with this key, if it is replicated.
    pub fn at(&self, values: &[Value]) -> (String, Vec<Value>) {
        let (mut terms, mut binds) = (Vec::new(), Vec::new());
        let rowid = (self.rowid(), "BINARY");
        let joined = self.source.table.key.nullable.then_some(rowid);
        for ((part, collation), value) in self.parts().into_iter().chain(joined).zip(values) {
            let is_rowid = terms.len() == self.source.table.key.parts.len();
            match value {
                Value::Null if is_rowid => {}
                Value::Null => terms.push(format!("{part} IS NULL")),
                _ => {
                    binds.push(value.clone());
                    terms.push(format!("{part} = {} COLLATE {collation}", placeholder(binds.len(), value)));
                }
            }
        }
        if let Some(selected) = self.selected(binds.len() + 1) {
            terms.push(selected.sql);
            binds.extend(selected.binds);
        }
        let table = quote(&self.source.table.name);
        (format!("SELECT {} FROM {table} AS _t WHERE {}", self.row_list(), terms.join(" AND ")), binds)
    }

    /// The rows that fulfil a condition and are replicated, in the order of the key's own index, so that nothing
    /// has to be sorted.
    pub fn range(&self, condition: Condition, rows: usize) -> (String, Vec<Value>) {
        let mut binds = condition.binds;
        let selected = self.selected(binds.len() + 1);
        let mut terms = vec![condition.sql];
        if let Some(selected) = selected {
            terms.push(selected.sql);
            binds.extend(selected.binds);
        }
        terms.retain(|t| !t.is_empty());
        let filter = if terms.is_empty() { String::new() } else { format!(" WHERE {}", terms.join(" AND ")) };
        let down = |i: usize| if self.is_downwards(i) { " DESC" } else { "" };
        let order = self.order();
        let order: Vec<String> =
            order.iter().enumerate().map(|(i, (x, c))| format!("{x} COLLATE {c}{}", down(i))).collect();
        let table = quote(&self.source.table.name);
        let list = self.row_list();
        let query =
            format!("SELECT {list} FROM {table} AS _t{filter} ORDER BY {} LIMIT {rows}", order.join(","));
        (query, binds)
    }

    fn is_downwards(&self, part: usize) -> bool {
        self.source.downwards.get(part).copied().unwrap_or(false)
    }

    /// The conditions that together say "behind this key", each a search of its own, in the order of `range`.
    ///
    /// A row value comparison would say it in one, but not where NULL may stand in the key.
    pub fn behind(&self, place: &[Value]) -> Vec<Condition> {
        if place.is_empty() {
            return vec![Condition::default()];
        }
        let key = &self.source.table.key;
        let parts = self.order();
        let mut out = Vec::new();
        // Without a NULL in it the key is unique, and its row may have been replaced under a higher rowid.
        let null = place.iter().take(key.parts.len()).any(|v| matches!(v, Value::Null));
        let levels = if null { parts.len() } else { key.parts.len() };
        for last in (0..levels.min(place.len())).rev() {
            let (Some(end), Some(value)) = (parts.get(last), place.get(last)) else { continue };
            for how in behind_one(value, self.is_downwards(last), key.nullable) {
                let mut binds = Vec::new();
                let equal = parts.iter().zip(place).take(last);
                let mut terms: Vec<String> =
                    equal.map(|(part, value)| compare(part, "=", value, &mut binds)).collect();
                terms.push(compare(end, how, value, &mut binds));
                out.push(Condition { sql: terms.join(" AND "), binds });
            }
        }
        out
    }
}

/// What lies behind a value in one part of a key. NULL comes first, and downwards last.
fn behind_one(value: &Value, downwards: bool, nullable: bool) -> &'static [&'static str] {
    match (downwards, value) {
        (false, Value::Null) => &["IS NOT NULL"],
        (false, _) => &[">"],
        (true, Value::Null) => &[],
        (true, _) if nullable => &["<", "IS NULL"],
        (true, _) => &["<"],
    }
}

/// A part of the key against a value, which is bound; NULL equals NULL.
fn compare((part, collation): &(String, &str), how: &str, value: &Value, binds: &mut Vec<Value>) -> String {
    match (how, value) {
        ("IS NULL" | "IS NOT NULL", _) => format!("{part} {how}"),
        (_, Value::Null) => format!("{part} IS NULL"),
        _ => {
            binds.push(value.clone());
            format!("{part} {how} {} COLLATE {collation}", placeholder(binds.len(), value))
        }
    }
}

#[cfg(test)]
#[cfg(feature = "local")]
mod tests {
    use super::*;
    use crate::capture::describe::describe;
    use crate::source::sql::Sql;
    use std::ops::ControlFlow;
    use std::time::Duration;

    const TABLES: &[(&str, &str)] = &[
        ("rowid", "(a, b)"),
        ("alias", "(a INTEGER PRIMARY KEY, b)"),
        ("text", "(a TEXT COLLATE NOCASE PRIMARY KEY, b)"),
        ("down", "(a, b, PRIMARY KEY(a DESC, b DESC))"),
        ("mixed", "(a NOT NULL, b NOT NULL, PRIMARY KEY(a DESC, b))"),
        ("mixed_nulls", "(a, b TEXT COLLATE NOCASE, c, PRIMARY KEY(a, b DESC, c))"),
        ("mixed_without", "(a, b COLLATE RTRIM, PRIMARY KEY(b, a DESC)) WITHOUT ROWID"),
    ];

    /// The plans of the queries on this table that sort, or that read it as a whole to find a place.
    fn slow(sql: &mut Sql, source: &SourceTable) -> Vec<String> {
        let selection = Selection::of(source, None, sql).unwrap();
        let query = Query { source, selection: &selection, boundary: None };
        let key = &query.source.table.key;
        // NULL in each set of parts; a rowid that joins them is never NULL.
        let sets = if key.nullable { 1_u32 << key.parts.len() } else { 1 };
        let value = |set: u32, i: usize| if set & (1 << i) == 0 { Value::Integer(5) } else { Value::Null };
        let places: Vec<Vec<Value>> =
            (0..sets).map(|set| (0..key.width()).map(|i| value(set, i)).collect()).collect();
        let mut found = Vec::new();
        for condition in places.iter().chain([&Vec::new()]).flat_map(|place| query.behind(place)) {
            let from_the_start = condition.sql.is_empty();
            let (text, _) = query.range(condition, 10);
            let plan = format!("EXPLAIN QUERY PLAN {text}");
            sql.rows(&plan, &[], |row| {
                let line = row.text(3)?.unwrap_or_default();
                let whole = line.starts_with("SCAN") && !from_the_start;
                if line.contains("TEMP B-TREE") || whole {
                    found.push(format!("{text}: {line}"));
                }
                Ok(ControlFlow::<()>::Continue(()))
            })
            .unwrap();
        }
        found
    }

    #[test]
    fn no_range_sorts_a_table_or_reads_what_lies_before_it() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("plans.db");
        std::fs::File::create(&path).unwrap();
        let mut sql = Sql::open(&path, Duration::ZERO).unwrap();
        for (name, columns) in TABLES {
            sql.script(&format!("CREATE TABLE {name}{columns}")).unwrap();
        }
        let described = describe(&mut sql, &mut crate::capture::known::Known::default()).unwrap();
        assert_eq!(described.tables.len(), TABLES.len());
        for table in &described.tables {
            assert_eq!(slow(&mut sql, table), Vec::<String>::new());
        }
        // The control: the same table read upwards is sorted each time.
        let mixed = described.tables.iter().find(|t| t.table.name == "mixed").unwrap();
        let mut upwards = SourceTable::clone(mixed);
        upwards.downwards.clear();
        assert!(!slow(&mut sql, &upwards).is_empty());
    }
}
