//! What a replicated table looks like: its columns and its key.
//!
//! Owns the words; reads nothing. How a definition is found in a source is `source/capture/audit`.

use crate::key::{self, Collation};
use crate::value::ValueRef;

/// A table's definition as the replica keeps it.
///
/// ```no_run
/// # fn read(replica: &redtail::Replica) -> redtail::Result<()> {
/// let snapshot = replica.snapshot()?;
/// let table = snapshot.table("episodes")?;
/// println!("{}, by {:?}", table.name, table.key_names());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Table {
    /// The table's name, as the source spells it.
    pub name: String,
    /// The columns in the source's order, generated ones included.
    pub columns: Vec<Column>,
    pub(crate) key: Key,
}

/// A column of a replicated table.
///
/// ```no_run
/// # fn read(replica: &redtail::Replica) -> redtail::Result<()> {
/// for column in &replica.snapshot()?.table("episodes")?.columns {
///     println!("{} {}", column.name, column.declared);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Column {
    /// The column's name, as the source spells it.
    pub name: String,
    /// The declared type, empty if there is none.
    pub declared: String,
}

/// How the rows of a table are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub parts: Vec<KeyPart>,
    /// NULL may stand in a part: then the rowid is one more component, NULL where no part is.
    pub nullable: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyPart {
    /// Index into the table's columns; `None` is the rowid.
    pub column: Option<usize>,
    pub collation: Collation,
}

impl Key {
    /// The collations of the components, the rowid that joins a NULL included.
    pub fn collations(&self) -> Vec<Collation> {
        let joined = self.nullable.then_some(Collation::Binary);
        self.parts.iter().map(|p| p.collation).chain(joined).collect()
    }

    /// Whether the rowid is the key.
    pub fn has_rowid(&self) -> bool {
        self.parts.iter().any(|p| p.column.is_none())
    }

    /// How many values one key has.
    pub fn width(&self) -> usize {
        self.parts.len() + usize::from(self.nullable)
    }

    /// Appends the canonical key of these components to `out`.
    pub fn encode<'a>(&self, out: &mut Vec<u8>, values: impl Iterator<Item = ValueRef<'a>>) {
        let joined = self.nullable.then_some(Collation::Binary);
        for (value, collation) in values.zip(self.parts.iter().map(|p| p.collation).chain(joined)) {
            key::push(out, value, collation);
        }
    }
}

impl Table {
    /// The position of a column by its name; SQLite compares names without case.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name.eq_ignore_ascii_case(name))
    }

    /// The names of the key's columns; `rowid` where the key is the rowid.
    #[must_use]
    pub fn key_names(&self) -> Vec<&str> {
        let name =
            |p: &KeyPart| p.column.and_then(|i| self.columns.get(i)).map_or("rowid", |c| c.name.as_str());
        self.key.parts.iter().map(name).collect()
    }

    /// The declared type of the key's n-th component: `INTEGER` for the rowid.
    #[must_use]
    pub fn key_declared(&self, n: usize) -> &str {
        let part = self.key.parts.get(n).and_then(|p| p.column);
        part.and_then(|i| self.columns.get(i)).map_or("INTEGER", |c| c.declared.as_str())
    }
}

/// SQLite's rule for a declared type: does a column of it turn text that looks like a number into one?
///
/// Source: "Determination Of Column Affinity" in SQLite's documentation of datatypes.
///
/// ```
/// assert!(redtail::is_numeric("BIGINT") && !redtail::is_numeric("VARCHAR(10)"));
/// ```
#[must_use]
pub fn is_numeric(declared: &str) -> bool {
    let d = declared.to_ascii_uppercase();
    if d.contains("INT") {
        return true;
    }
    !d.is_empty() && d != "ANY" && !["CHAR", "CLOB", "TEXT", "BLOB"].iter().any(|t| d.contains(t))
}

/// The type to which a CAST gives an expression the affinity of a column of this declared type, and the
/// storage classes whose values such a CAST leaves as they are; `None` where there is no affinity.
///
/// `ANY` has one in ordinary tables and none in STRICT ones, and is left alone.
#[must_use]
pub(crate) fn affinity(declared: &str) -> Option<(&'static str, &'static str)> {
    let d = declared.to_ascii_uppercase();
    if is_real(&d) {
        return Some(("REAL", "'real','null'"));
    }
    if is_numeric(&d) {
        return Some(("NUMERIC", "'integer','real','null'"));
    }
    ["CHAR", "CLOB", "TEXT"].iter().any(|t| d.contains(t)).then_some(("TEXT", "'text','null'"))
}

/// SQLite's rule for a declared type: does a column of it turn integers into reals?
#[must_use]
pub(crate) fn is_real(declared: &str) -> bool {
    let d = declared.to_ascii_uppercase();
    let other = ["INT", "CHAR", "CLOB", "TEXT", "BLOB"].iter().any(|t| d.contains(t));
    !other && ["REAL", "FLOA", "DOUB"].iter().any(|t| d.contains(t))
}
