//! The source's foreign keys: what in one table names rows of another.

use super::Source;
use crate::error::Result;
use std::ops::ControlFlow;

/// A foreign key.
///
/// ```no_run
/// # async fn look(source: &redtail::Source) -> redtail::Result<()> {
/// for reference in source.references().await? {
///     println!("{} {:?} names {}", reference.table, reference.columns, reference.parent);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reference {
    /// The table whose rows name others.
    pub table: String,
    /// Its columns that do.
    pub columns: Vec<String>,
    /// The table whose rows are named.
    pub parent: String,
    /// The columns by which they are; empty for its primary key.
    pub parent_columns: Vec<String>,
}

const ALL: &str = "SELECT m.name, f.id, f.\"table\", f.\"from\", f.\"to\" \
     FROM sqlite_schema m, pragma_foreign_key_list(m.name) f \
     WHERE m.type = 'table' ORDER BY m.name, f.id, f.seq";

impl Source {
    /// Every foreign key of the source's tables.
    ///
    /// # Errors
    /// As [`Source::head`].
    pub async fn references(&self) -> Result<Vec<Reference>> {
        self.with(|sql| {
            let mut all: Vec<(i64, Reference)> = Vec::new();
            sql.rows(ALL, &[], |row| {
                let (table, id) = (row.text(0)?.unwrap_or_default(), row.integer(1)?);
                let same = all.last().is_some_and(|(last, r)| *last == id && r.table == table);
                if !same {
                    let parent = row.text(2)?.unwrap_or_default();
                    let (columns, parent_columns) = (Vec::new(), Vec::new());
                    all.push((id, Reference { table, columns, parent, parent_columns }));
                }
                if let Some((_, reference)) = all.last_mut() {
                    reference.columns.extend(row.text(3)?);
                    reference.parent_columns.extend(row.text(4)?);
                }
                Ok(ControlFlow::<()>::Continue(()))
            })?;
            Ok(all.into_iter().map(|(_, reference)| reference).collect())
        })
        .await
    }
}
