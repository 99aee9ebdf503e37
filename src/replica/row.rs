//! A row, read in place: what it holds, by name or by number, as the type that is asked for.

use super::apply::after_all;
use super::guard::failed;
use super::prefix;
use super::slot::Ticket;
use crate::error::{Error, Kind, Result};
use crate::key::{self, Collation};
use crate::record::history::Side;
use crate::record::{Archived, Place, Spot, has_long, place_at, unseal};
use crate::schema::{Column, Table};
use crate::value::{Value, ValueRef};
use redb::{OwnedAccessGuard, ReadOnlyTable};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_128;

pub(super) type Bytes = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// The definitions by which rows of a table were read: the last one is in force.
pub(super) type Shapes = Arc<Definitions>;

pub(super) struct Definitions {
    pub all: Vec<(u16, Table)>,
    /// Of the snapshot whose rows these are; a row of a kept change has none.
    pub ticket: Option<Arc<Ticket>>,
}

/// Where a row's record is.
enum Record {
    /// In redb's page.
    Page(OwnedAccessGuard<&'static [u8]>),
    /// In a kept change.
    Copy(Vec<u8>),
}

impl Record {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Page(page) => page.value(),
            Self::Copy(bytes) => bytes,
        }
    }
}

/// A row of the replica, read in place: only values longer than a record holds are copied.
///
/// ```no_run
/// # fn read(row: &redtail::Row) -> redtail::Result<()> {
/// let name: Option<&str> = row.text("name")?;
/// let reward = row.real("reward")?.unwrap_or_default();
/// let first = row.integer(0)?;
/// # Ok(())
/// # }
/// ```
pub struct Row {
    record: Record,
    name: Vec<u8>,
    /// With them the ticket: the row's page belongs to its snapshot.
    shapes: Shapes,
    shape: usize,
    spot: Spot,
    long: BTreeMap<usize, Vec<u8>>,
}

impl Row {
    pub(super) fn new(
        name: Vec<u8>,
        record: OwnedAccessGuard<&'static [u8]>,
        shapes: &Shapes,
        pieces: &Bytes,
    ) -> Result<Self> {
        let archived = Archived::new(record.value())?;
        let spot = archived.spot(record.value());
        let shape = shape_of(archived, shapes)?;
        let mut long = BTreeMap::new();
        if has_long(record.value()) {
            for column in 0..archived.len() {
                if let Some(Place::Outside { len, hash, .. }) = archived.place(column) {
                    long.insert(column, load(&name, column, (len, hash), pieces)?);
                }
            }
        }
        debug_assert!(shapes.ticket.is_some(), "a row of a snapshot");
        Ok(Self { record: Record::Page(record), name, shapes: Arc::clone(shapes), shape, spot, long })
    }

    /// A row that is kept with a change.
    pub(super) fn kept(name: Vec<u8>, side: Side, shapes: Shapes) -> Result<Self> {
        let archived = Archived::new(&side.record)?;
        let spot = archived.spot(&side.record);
        let shape = shape_of(archived, &shapes)?;
        let mut long = BTreeMap::new();
        for (column, bytes) in side.longs {
            let column = usize::from(column);
            match archived.place(column) {
                Some(Place::Outside { len, hash, .. }) => is_whole(&bytes, (len, hash))?,
                _ => continue,
            }
            long.insert(column, bytes);
        }
        Ok(Self { record: Record::Copy(side.record), name, shapes, shape, spot, long })
    }

    /// The definition by which this row was read from the source.
    #[must_use]
    pub fn table(&self) -> &Table {
        let (_, table) =
            self.shapes.all.get(self.shape).unwrap_or_else(|| unreachable!("a shape found in `new`"));
        table
    }

    /// Where this row stands among those of its table: its key in canonical form. Only of use to
    /// [`crate::Snapshot::scan_after`].
    #[must_use]
    pub fn place(&self) -> &[u8] {
        self.name.get(prefix(0).len()..).unwrap_or_default()
    }

    /// The columns, in the source's order.
    #[must_use]
    pub fn columns(&self) -> &[Column] {
        &self.table().columns
    }

    /// Appends what an index of these columns has of this row, as `index::push_values` does.
    pub(super) fn push_indexed(&self, out: &mut Vec<u8>, columns: &[String]) -> Result<()> {
        for name in columns {
            let value = match self.table().column(name) {
                Some(column) => self.value(column)?,
                None => ValueRef::Null,
            };
            key::push(out, value, Collation::Binary);
        }
        Ok(())
    }

    /// All values, in the order of the columns.
    ///
    /// # Errors
    /// `Damaged` if the record is.
    pub fn values(&self) -> Result<Vec<ValueRef<'_>>> {
        let archived = Archived::again(self.record.bytes())?;
        (0..archived.len()).map(|i| self.of(archived.place(i), i)).collect()
    }

    /// The value of a column by its position.
    ///
    /// # Errors
    /// `Usage` if there is no such column.
    pub fn value(&self, column: usize) -> Result<ValueRef<'_>> {
        self.of(place_at(self.record.bytes(), self.spot, column)?, column)
    }

    /// The value of a column, by its name (compared as SQLite compares names) or its number, from 0.
    ///
    /// # Errors
    /// `Usage` if there is no such column.
    pub fn get(&self, column: impl ColumnRef) -> Result<ValueRef<'_>> {
        let found = column.find(self.table()).ok_or_else(|| {
            let names = self.table().columns.iter().map(|c| c.name.as_str());
            column.unknown(&self.table().name, names)
        })?;
        self.value(found)
    }

    /// Whether the column holds NULL.
    ///
    /// # Errors
    /// As [`Row::get`].
    pub fn is_null(&self, column: impl ColumnRef) -> Result<bool> {
        Ok(matches!(self.get(column)?, ValueRef::Null))
    }

    /// The column's integer; `None` for NULL.
    ///
    /// # Errors
    /// As [`Row::get`], and `Mismatch` if something else is there.
    pub fn integer(&self, column: impl ColumnRef) -> Result<Option<i64>> {
        match self.get(column)? {
            ValueRef::Null => Ok(None),
            ValueRef::Integer(i) => Ok(Some(i)),
            other => Err(self.mismatch(column, "an integer", other)),
        }
    }

    /// The column's real; `None` for NULL. An integer is none: SQLite keeps the two apart, but for columns that are
    /// declared REAL, where it stores every number as a real.
    ///
    /// # Errors
    /// As [`Row::integer`].
    pub fn real(&self, column: impl ColumnRef) -> Result<Option<f64>> {
        match self.get(column)? {
            ValueRef::Null => Ok(None),
            ValueRef::Real(r) => Ok(Some(r)),
            other => Err(self.mismatch(column, "a real", other)),
        }
    }

    /// The column's text, straight from the page; `None` for NULL.
    ///
    /// # Errors
    /// As [`Row::integer`]; text that is not UTF-8 is a mismatch, and [`Row::get`] gives its bytes.
    pub fn text(&self, column: impl ColumnRef) -> Result<Option<&str>> {
        match self.get(column)? {
            ValueRef::Null => Ok(None),
            ValueRef::Text(t) => std::str::from_utf8(t)
                .map(Some)
                .map_err(|_| self.mismatch(column, "text in UTF-8", ValueRef::Utf16le(t))),
            other => Err(self.mismatch(column, "text", other)),
        }
    }

    /// The column's blob, straight from the page; `None` for NULL.
    ///
    /// # Errors
    /// As [`Row::integer`].
    pub fn blob(&self, column: impl ColumnRef) -> Result<Option<&[u8]>> {
        match self.get(column)? {
            ValueRef::Null => Ok(None),
            ValueRef::Blob(b) => Ok(Some(b)),
            other => Err(self.mismatch(column, "a blob", other)),
        }
    }

    fn mismatch(&self, column: impl ColumnRef, wanted: &str, found: ValueRef<'_>) -> Error {
        let name =
            column.find(self.table()).and_then(|i| self.columns().get(i)).map_or("", |c| c.name.as_str());
        let (table, found) = (&self.table().name, found.class());
        Error::new(
            Kind::Mismatch,
            format!("table {table}, column {name}: {wanted} was expected, {found} is there"),
        )
    }

    fn of<'a>(&'a self, place: Option<Place<'a>>, column: usize) -> Result<ValueRef<'a>> {
        match place {
            Some(Place::Here(value)) => Ok(value),
            Some(Place::Outside { text, .. }) => {
                let bytes = self.long.get(&column).map_or(&[][..], Vec::as_slice);
                Ok(if text { ValueRef::Text(bytes) } else { ValueRef::Blob(bytes) })
            }
            None => Err(Error::usage(format!("table {}: has no column number {column}", self.table().name))),
        }
    }

    /// The key: as the row has it where its columns are the key, else in canonical form. Where NULL
    /// stands in the primary key, the rowid follows as one more value: it is what tells the rows apart.
    ///
    /// # Errors
    /// `Damaged` if the key cannot be read.
    pub fn key(&self) -> Result<Vec<Value>> {
        let key = &self.table().key;
        let columns = key.parts.iter().map(|p| p.column);
        let values = columns.map(|c| c.map(|i| self.value(i).map(ValueRef::to_owned)).transpose());
        let values: Vec<Option<Value>> = values.collect::<Result<_>>()?;
        if !values.iter().any(|v| matches!(v, None | Some(Value::Null))) {
            return Ok(values.into_iter().flatten().collect());
        }
        let bytes = self.name.get(4..).unwrap_or_default();
        key::decode(bytes, &key.collations())
            .ok_or_else(|| Error::new(Kind::Damaged, "replica: a key cannot be read"))
    }
}

/// Puts a long value together and compares it with the hash in its record.
fn load(name: &[u8], column: usize, (len, hash): (u64, u128), pieces: &Bytes) -> Result<Vec<u8>> {
    let column = u16::try_from(column).unwrap_or(u16::MAX).to_be_bytes();
    let lower = [name, column.as_slice()].concat();
    let upper = after_all(&lower);
    let upper = upper.as_ref().map(Vec::as_slice);
    let mut out = Vec::new();
    for entry in pieces.range_owned::<&[u8]>((Bound::Included(lower.as_slice()), upper)).map_err(failed)? {
        let (_, piece) = entry.map_err(failed)?;
        out.extend_from_slice(unseal(piece.value())?);
    }
    is_whole(&out, (len, hash))?;
    Ok(out)
}

fn is_whole(long: &[u8], (len, hash): (u64, u128)) -> Result<()> {
    if long.len() as u64 != len || xxh3_128(long) != hash {
        return Err(Error::new(Kind::Damaged, "replica: a long value is not the one that its row names"));
    }
    Ok(())
}

fn shape_of(archived: Archived<'_>, shapes: &Shapes) -> Result<usize> {
    let found = shapes
        .all
        .iter()
        .rposition(|(number, table)| *number == archived.shape() && table.columns.len() == archived.len());
    found.ok_or_else(|| Error::new(Kind::Damaged, "replica: a row has a shape that its table never had"))
}

/// Names a column: by its name, or by its number, from 0.
///
/// ```no_run
/// # fn read(row: &redtail::Row) -> redtail::Result<()> {
/// assert_eq!(row.text("name")?, row.text(1)?);
/// # Ok(())
/// # }
/// ```
pub trait ColumnRef: Copy + sealed::Sealed {
    /// Its number in this table.
    #[doc(hidden)]
    fn find(self, table: &Table) -> Option<usize>;
    /// The error if there is none.
    #[doc(hidden)]
    fn unknown<'a>(self, table: &str, known: impl Iterator<Item = &'a str> + Clone) -> Error;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for &str {}
    impl Sealed for usize {}
}

impl ColumnRef for &str {
    fn find(self, table: &Table) -> Option<usize> {
        table.column(self)
    }

    fn unknown<'a>(self, table: &str, known: impl Iterator<Item = &'a str> + Clone) -> Error {
        Error::unknown("column", self, known).during(format!("table {table}"))
    }
}

impl ColumnRef for usize {
    fn find(self, table: &Table) -> Option<usize> {
        Some(self).filter(|i| *i < table.columns.len())
    }

    fn unknown<'a>(self, table: &str, known: impl Iterator<Item = &'a str> + Clone) -> Error {
        let count = known.count();
        Error::usage(format!(
            "table {table}: has {count} columns, so there is no number {self} (they count from 0)"
        ))
    }
}

/// The row's table; no values.
impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Row").field("table", &self.table().name).finish_non_exhaustive()
    }
}
