//! What audits have found out of the source's tables, so that the next one asks only for those that have moved.
//!
//! What SQLite says of a table (its columns, its indexes, its foreign keys) follows from the rows that
//! `sqlite_schema` has of it and of its indexes. While these are the same to the letter, nothing is asked
//! again: an audit then costs one reading of `sqlite_schema`, however many tables there are.

use super::describe::{Looked, SourceTable};
use super::triggers::{Trigger, triggers};
use crate::error::Result;
use crate::source::sql::{Sql, exact};
use crate::value::digest;
use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

/// By table, as its name is written.
#[derive(Debug, Default)]
pub(crate) struct Known(HashMap<String, One>);

#[derive(Debug)]
struct One {
    rows: u64,
    looked: Looked,
    /// The triggers that it asks for under an id.
    triggers: Option<(i64, Arc<SourceTable>, Arc<Vec<Trigger>>)>,
}

impl Known {
    /// What is known of a table whose rows have this digest.
    pub fn look(&self, name: &str, rows: u64) -> Option<Looked> {
        self.0.get(name).filter(|one| one.rows == rows).map(|one| one.looked.clone())
    }

    /// Remembers what was looked at just now, and nothing else.
    pub fn replace(&mut self, all: Vec<(String, u64, Looked)>) {
        let mut before = std::mem::take(&mut self.0);
        for (name, rows, looked) in all {
            let triggers = before.remove(&name).and_then(|one| one.triggers);
            self.0.insert(name, One { rows, looked, triggers });
        }
    }

    /// The triggers of a table, as [`triggers`] makes them.
    pub fn triggers(&mut self, t: &Arc<SourceTable>, id: i64) -> Arc<Vec<Trigger>> {
        let one = self.0.get_mut(&t.table.name);
        let made = one.as_ref().and_then(|one| one.triggers.as_ref());
        if let Some((_, _, made)) = made.filter(|(of, table, _)| *of == id && Arc::ptr_eq(table, t)) {
            return Arc::clone(made);
        }
        let made = Arc::new(triggers(t, id));
        if let Some(one) = one {
            one.triggers = Some((id, Arc::clone(t), Arc::clone(&made)));
        }
        made
    }
}

/// What is known of a source, for whoever has it open in this process.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedKnown(Arc<Mutex<Known>>);

impl SharedKnown {
    /// Lends it out. Whoever comes meanwhile finds nothing and asks for everything.
    pub fn with<T>(&self, work: impl FnOnce(&mut Known) -> T) -> T {
        let take = || std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let mut known = take();
        let done = work(&mut known);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = known;
        done
    }
}

/// The schema's rows of tables and indexes.
#[derive(Default)]
pub(super) struct Rows {
    /// One number for the rows of each table, by its name in lower case.
    digests: HashMap<String, u64>,
    /// The vector indexes, in lower case; libSQL keeps each in an ordinary table with `_shadow` behind its name.
    pub vectors: HashSet<String>,
}

impl Rows {
    pub fn read(sql: &mut Sql) -> Result<Self> {
        let columns = ["type", "name", "tbl_name", "rootpage", "sql"].map(str::to_owned);
        let query = format!(
            "SELECT rowid, CAST(name AS BLOB), CAST(tbl_name AS BLOB), sql IS NOT NULL AND type = 'index' AND sql LIKE '%libsql_vector_idx%', {} \
             FROM sqlite_schema WHERE type IN ('table', 'index') ORDER BY rowid",
            exact(&columns)
        );
        let mut out = Self::default();
        sql.rows(&query, &[], |row| {
            let mut values = vec![row.value(0)?];
            row.exact(4, columns.len(), &mut values)?;
            // A name that is no text belongs to no table that can be captured.
            let table = row.text(2).ok().flatten().unwrap_or_default().to_ascii_lowercase();
            if row.integer(3)? == 1 {
                out.vectors.extend(row.text(1).ok().flatten().map(|name| name.to_ascii_lowercase()));
            }
            let one = out.digests.entry(table).or_default();
            *one = one.rotate_left(7) ^ digest(&values);
            Ok(ControlFlow::<()>::Continue(()))
        })?;
        Ok(out)
    }

    /// One number for all that the schema says of this table.
    pub fn digest(&self, name: &str) -> Option<u64> {
        self.digests.get(&name.to_ascii_lowercase()).copied()
    }
}

#[cfg(test)]
#[cfg(feature = "local")]
mod tests {
    use super::*;
    use crate::capture::describe::describe;

    const CHANGES: &[&str] = &[
        "CREATE TABLE p(k PRIMARY KEY, v UNIQUE); CREATE TABLE c(a INTEGER PRIMARY KEY, r TEXT REFERENCES p(k))",
        "ALTER TABLE p ADD COLUMN w INT",
        "CREATE UNIQUE INDEX i ON p(w) WHERE v > 1",
        "DROP INDEX i; CREATE UNIQUE INDEX i ON p(w)",
        // Of the parent no row moves, and its images may be falsified from here on.
        "DROP TABLE c; CREATE TABLE c(a INTEGER PRIMARY KEY, r INTEGER REFERENCES p(k))",
        "ALTER TABLE p RENAME COLUMN k TO l",
        "ALTER TABLE c RENAME TO P2",
        "DROP TABLE p; CREATE TABLE P(k PRIMARY KEY, v UNIQUE) WITHOUT ROWID",
        "VACUUM",
    ];

    #[test]
    fn what_is_known_of_a_table_is_what_is_found_when_it_is_asked_again() {
        let mut sql = Sql::scratch().unwrap();
        let mut known = Known::default();
        for change in CHANGES {
            sql.script(change).unwrap();
            let asked = format!("{:?}", describe(&mut sql, &mut Known::default()).unwrap());
            assert_eq!(format!("{:?}", describe(&mut sql, &mut known).unwrap()), asked, "{change}");
            let (first, again) =
                (describe(&mut sql, &mut known).unwrap(), describe(&mut sql, &mut known).unwrap());
            let same = first.tables.iter().zip(&again.tables).all(|(a, b)| Arc::ptr_eq(a, b));
            assert!(same, "asked again though nothing moved: {change}");
        }
    }
}
