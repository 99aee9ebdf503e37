//! The keys of a long window where they are rowids: gathered from the changelog as lists of integers, sorted
//! here, and handed back as lists that a table is joined to.
//!
//! SQLite's sorter, through which they go otherwise, takes longer than to gather, sort and hand back, and every
//! key that passes it has to be told from a value of another class.

use super::sql::{Row, Sql};
use crate::error::Result;
use crate::fault;
use crate::value::Value;
use std::fmt::Write as _;
use std::ops::ControlFlow;

/// Shorter windows are read by one statement: what it does more for an entry is less than what two statements cost.
const LEAST: u64 = 2_000;
/// Entries in one list from the changelog, and keys in one that is joined: bounds the memory they take.
const GATHERED: u64 = 100_000;
pub(super) const JOINED: usize = 20_000;

/// Text would be the list's own digits: only where the greatest is a number all of them are, or NULL.
const GATHER: &str = "SELECT count(*), CASE typeof(max(k0)) WHEN 'integer' THEN group_concat(k0) END \
    FROM _redtail_changelog WHERE tbl = ?1 AND seq > ?2 AND seq <= ?3 AND op <> 0";

/// Whether a window is long enough.
pub(super) fn is_worth((after, through): (u64, u64)) -> bool {
    through.saturating_sub(after) >= if fault::short_lists() { 1 } else { LEAST }
}

/// Whether a list comes apart here: a table of the application may have the function's name, and a virtual one of that
/// name takes arguments, too.
pub(super) fn works(sql: &mut Sql) -> bool {
    let mut read = Vec::new();
    let each = |row: &Row<'_>| {
        read.push(row.integer(0)?);
        Ok(ControlFlow::<()>::Continue(()))
    };
    let keys = [-1, 5, 7];
    sql.rows("SELECT value FROM json_each(?1)", &[as_list(&keys)], each).is_ok() && read == keys
}

/// The keys that the entries of `(after, through]` name in the table with this id, sorted, each once.
/// `None` if one of them is no integer: somebody else has written to the changelog.
pub(super) fn gather(sql: &mut Sql, table: i64, (after, through): (u64, u64)) -> Result<Option<Vec<i64>>> {
    let mut keys = Vec::new();
    let mut from = after;
    while from < through {
        let to = through.min(from.saturating_add(GATHERED));
        let binds = [table, from.cast_signed(), to.cast_signed()].map(Value::Integer);
        let whole = sql.rows(GATHER, &binds, |row| Ok(ControlFlow::Break(append(row, &mut keys)?)))?;
        if whole != Some(true) {
            return Ok(None);
        }
        from = to;
    }
    keys.sort_unstable();
    keys.dedup();
    if fault::drops_listed() {
        keys.pop();
    }
    Ok(Some(keys))
}

/// Whether as many integers came as there are entries.
fn append(row: &Row<'_>, keys: &mut Vec<i64>) -> Result<bool> {
    let (entries, before) = (row.integer(0)?, keys.len());
    if let Value::Text(list) = row.value(1)? {
        for number in list.split(|byte| *byte == b',') {
            let Some(key) = std::str::from_utf8(number).ok().and_then(|n| n.parse().ok()) else {
                return Ok(false);
            };
            keys.push(key);
        }
    }
    Ok(usize::try_from(entries).is_ok_and(|entries| entries == keys.len() - before))
}

/// The same as one value to be bound, which [`Query::listed`](super::query::Query::listed) takes apart.
pub(super) fn as_list(keys: &[i64]) -> Value {
    let mut list = String::with_capacity(keys.len() * 8 + 2);
    for key in keys {
        let before = if list.is_empty() { '[' } else { ',' };
        let _ = write!(list, "{before}{key}");
    }
    list.push(']');
    Value::Text(list.into_bytes())
}

#[cfg(test)]
#[cfg(feature = "local")]
mod tests {
    use super::*;

    fn gathered(sql: &mut Sql, through: u64) -> Option<Vec<i64>> {
        gather(sql, 7, (1, through)).unwrap()
    }

    #[test]
    fn integers_are_gathered_and_a_list_with_anything_else_is_refused() {
        let mut sql = Sql::scratch().unwrap();
        sql.script(
            "CREATE TABLE _redtail_changelog(seq INTEGER PRIMARY KEY, tbl, op, at, k0, k1);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 250000)
             INSERT INTO _redtail_changelog SELECT i, 7, 1, 0, i * 37 % 251 - 100, NULL FROM n;
             UPDATE _redtail_changelog SET k0 = -9223372036854775807 - 1 WHERE seq = 100001;
             UPDATE _redtail_changelog SET k0 = 9223372036854775807 WHERE seq = 100002;
             UPDATE _redtail_changelog SET tbl = 8, k0 = 1000 WHERE seq = 3;
             UPDATE _redtail_changelog SET op = 0, k0 = 'reset' WHERE seq = 4;
             UPDATE _redtail_changelog SET k0 = 2000 WHERE seq IN (1, 250000)",
        )
        .unwrap();
        let expected: Vec<i64> = [i64::MIN].into_iter().chain(-100..151).chain([i64::MAX]).collect();
        assert_eq!(gathered(&mut sql, 249_999), Some(expected));
        assert_eq!(gathered(&mut sql, 1), Some(Vec::new()));
        assert_eq!(gathered(&mut sql, 4), Some(vec![-26]));
        for other in ["'5'", "'5,6'", "''", "x'35'", "5.0", "1.5", "-9e999", "1e18", "NULL"] {
            sql.script(&format!("UPDATE _redtail_changelog SET k0 = {other} WHERE seq = 150000")).unwrap();
            assert_eq!(gathered(&mut sql, 249_999), None, "{other}");
        }
    }

    #[test]
    fn a_list_comes_apart_into_the_same_keys() {
        let keys = [i64::MIN, i64::MIN + 1, -1, 0, 1, 9_007_199_254_740_993, i64::MAX];
        let mut sql = Sql::scratch().unwrap();
        let mut read = Vec::new();
        sql.rows("SELECT value FROM json_each(?1)", &[as_list(&keys)], |row| {
            read.push(row.integer(0)?);
            Ok(ControlFlow::<()>::Continue(()))
        })
        .unwrap();
        assert_eq!(read, keys);
    }
}
