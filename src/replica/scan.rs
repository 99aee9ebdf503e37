//! Reads the replica: one consistent view, rows straight from the page.

use super::slot::Ticket;
use super::{PIECES, ROWS, apply::after_all, count_name, cursor, failed, meta, prefix, tables};
use crate::cursor::{Cursor, Position};
use crate::error::{Error, Kind, Result};
use crate::key;
use crate::record::state::TableState;
use crate::record::{Archived, Place, has_long, unseal};
use crate::schema::{Column, Table};
use crate::value::{Value, ValueRef};
use crate::window::TableNo;
use redb::{OwnedAccessGuard, OwnedRange, ReadOnlyTable, ReadTransaction};
use std::collections::HashMap;
use std::ops::Bound;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_128;

type Bytes = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// A consistent view of the replica: it does not change while it is held.
pub struct Snapshot {
    read: ReadTransaction,
    cursor: Option<Cursor>,
    tables: Vec<Held>,
    ticket: Arc<Ticket>,
}

/// A table in a snapshot, with the shapes its rows may have.
struct Held {
    no: TableNo,
    state: TableState,
    shapes: Shapes,
}

/// The definitions by which rows of a table were read: the last one is in force.
type Shapes = Arc<Vec<(u16, Table)>>;

/// What a snapshot knows of a table besides its rows.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TableInfo {
    /// The definition in force.
    pub table: Table,
    /// How many rows the replica has.
    pub rows: u64,
    /// Set while the table is brought to equality with the source: rows copied so far.
    pub reconciling: Option<u64>,
}

impl Snapshot {
    pub(super) fn new(read: ReadTransaction, ticket: Arc<Ticket>) -> Result<Self> {
        let (cursor, tables) = ticket.guarded(|| Ok((cursor(&read)?, tables(&read)?)))?;
        let held = |(no, state): (TableNo, TableState)| {
            let mut shapes = state.former.clone();
            shapes.push((state.shape, state.table.clone()));
            Held { no, state, shapes: Arc::new(shapes) }
        };
        let tables = tables.into_iter().map(held).collect();
        Ok(Self { read, cursor, tables, ticket })
    }

    /// Up to where the source's history is applied; `None` in a replica that has seen no source.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.cursor.map(|c| c.position())
    }

    /// The largest head that any row here was read at.
    #[must_use]
    pub fn horizon(&self) -> u64 {
        self.cursor.map_or(0, |c| c.horizon)
    }

    /// Whether this view shows one state of the source: cursor = horizon, and no table is reconciled.
    #[must_use]
    pub fn is_consistent(&self) -> bool {
        self.cursor.is_some_and(|c| c.seq == c.horizon)
            && self.tables.iter().all(|t| t.state.reconcile.is_none())
    }

    /// Every replicated table, in the order in which redtail met them.
    ///
    /// # Errors
    /// `Damaged` if a count cannot be read.
    pub fn tables(&self) -> Result<Vec<TableInfo>> {
        let info = |held: &Held| {
            let rows = meta(&self.read, &count_name(held.no))?;
            Ok(TableInfo {
                table: held.state.table.clone(),
                rows: rows.and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes),
                reconciling: held.state.reconcile.as_ref().map(|p| p.copied),
            })
        };
        self.ticket.guarded(|| self.tables.iter().map(info).collect())
    }

    /// The definition of a table by its name, compared as SQLite compares names.
    ///
    /// # Errors
    /// `Usage` if it is not replicated.
    pub fn table(&self, name: &str) -> Result<&Table> {
        self.held(name).map(|held| &held.state.table)
    }

    fn held(&self, name: &str) -> Result<&Held> {
        let exact = self.tables.iter().find(|t| t.state.table.name == name);
        let found =
            exact.or_else(|| self.tables.iter().find(|t| t.state.table.name.eq_ignore_ascii_case(name)));
        found.ok_or_else(|| {
            Error::unknown("table", name, self.tables.iter().map(|t| t.state.table.name.as_str()))
        })
    }

    /// One row by its key, one value a component of the primary key (the rowid where there is none).
    ///
    /// # Errors
    /// `Usage` for an unknown table or a key of another width, `Damaged` if the record is.
    pub fn get(&self, table: &str, key: &[Value]) -> Result<Option<Row>> {
        let held = self.held(table)?;
        let width = held.state.table.key.parts.len();
        if key.len() != width {
            let names = held.state.table.key_names().join(", ");
            return Err(Error::usage(format!(
                "table {table:?}: its key has {width} values ({names}), not {}",
                key.len()
            )));
        }
        let mut name = prefix(held.no).to_vec();
        let joined = held.state.table.key.nullable.then_some(ValueRef::Null);
        held.state.table.key.encode(&mut name, key.iter().map(Value::as_ref).chain(joined));
        self.ticket.guarded(|| {
            let rows: Bytes = self.read.open_table(ROWS).map_err(failed)?;
            let Some(record) = rows.get_owned(name.as_slice()).map_err(failed)? else { return Ok(None) };
            let pieces = self.read.open_table(PIECES).map_err(failed)?;
            Row::new(name, record, &held.shapes, &pieces, &self.ticket).map(Some)
        })
    }

    /// All rows of a table, in key order.
    ///
    /// # Errors
    /// `Usage` for an unknown table.
    pub fn scan(&self, table: &str) -> Result<Scan> {
        self.scan_after(table, &[])
    }

    /// The rows of a table behind a place that [`Row::place`] gave, in key order; whether there still is a row
    /// at that place makes no difference. So a table is read page by page, each from a view of its own.
    ///
    /// # Errors
    /// `Usage` for an unknown table.
    pub fn scan_after(&self, table: &str, place: &[u8]) -> Result<Scan> {
        let held = self.held(table)?;
        self.ticket.guarded(|| {
            let rows: Bytes = self.read.open_table(ROWS).map_err(failed)?;
            let pieces = self.read.open_table(PIECES).map_err(failed)?;
            let lower = [prefix(held.no).as_slice(), place].concat();
            let upper = after_all(&prefix(held.no));
            let upper = upper.as_ref().map(Vec::as_slice);
            // No key is empty.
            let range =
                rows.range_owned::<&[u8]>((Bound::Excluded(lower.as_slice()), upper)).map_err(failed)?;
            let (shapes, ticket) = (Arc::clone(&held.shapes), Arc::clone(&self.ticket));
            Ok(Scan { range, shapes, pieces, ticket, ended: false })
        })
    }
}

/// The rows of a table, one after another.
pub struct Scan {
    range: OwnedRange<&'static [u8], &'static [u8]>,
    shapes: Shapes,
    pieces: Bytes,
    ticket: Arc<Ticket>,
    /// After an error nothing more is read.
    ended: bool,
}

impl Iterator for Scan {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let Self { range, shapes, pieces, ticket, .. } = self;
        let next = ticket.guarded(|| {
            let Some(entry) = range.next() else { return Ok(None) };
            let (name, record) = entry.map_err(failed)?;
            Row::new(name.value().to_vec(), record, shapes, pieces, ticket).map(Some)
        });
        self.ended = next.is_err();
        next.transpose()
    }
}

/// A row of the replica, read in place: only values longer than a record holds are copied.
pub struct Row {
    record: OwnedAccessGuard<&'static [u8]>,
    name: Vec<u8>,
    shapes: Shapes,
    shape: usize,
    long: HashMap<usize, Vec<u8>>,
    /// The row's page belongs to its snapshot.
    _ticket: Arc<Ticket>,
}

impl Row {
    fn new(
        name: Vec<u8>,
        record: OwnedAccessGuard<&'static [u8]>,
        shapes: &Shapes,
        pieces: &Bytes,
        ticket: &Arc<Ticket>,
    ) -> Result<Self> {
        let archived = Archived::new(record.value())?;
        let shape = shapes
            .iter()
            .rposition(|(number, table)| *number == archived.shape() && table.columns.len() == archived.len())
            .ok_or_else(|| {
                Error::new(Kind::Damaged, "replica: a row has a shape that its table never had")
            })?;
        let mut long = HashMap::new();
        if has_long(record.value()) {
            for column in 0..archived.len() {
                if let Some(Place::Outside { len, hash, .. }) = archived.place(column) {
                    long.insert(column, load(&name, column, (len, hash), pieces)?);
                }
            }
        }
        Ok(Self { record, name, shapes: Arc::clone(shapes), shape, long, _ticket: Arc::clone(ticket) })
    }

    /// The definition by which this row was read from the source.
    #[must_use]
    pub fn table(&self) -> &Table {
        let (_, table) =
            self.shapes.get(self.shape).unwrap_or_else(|| unreachable!("a shape found in `new`"));
        table
    }

    /// Where this row stands among those of its table: its key in canonical form. Only of use to
    /// [`Snapshot::scan_after`].
    #[must_use]
    pub fn place(&self) -> &[u8] {
        self.name.get(prefix(0).len()..).unwrap_or_default()
    }

    /// The columns, in the source's order.
    #[must_use]
    pub fn columns(&self) -> &[Column] {
        &self.table().columns
    }

    /// All values, in the order of the columns.
    ///
    /// # Errors
    /// `Damaged` if the record is.
    pub fn values(&self) -> Result<Vec<ValueRef<'_>>> {
        let archived = Archived::new(self.record.value())?;
        (0..archived.len()).map(|i| self.of(archived, i)).collect()
    }

    /// The value of a column by its position.
    ///
    /// # Errors
    /// `Usage` if there is no such column.
    pub fn value(&self, column: usize) -> Result<ValueRef<'_>> {
        self.of(Archived::new(self.record.value())?, column)
    }

    /// The value of a column by its name, compared as SQLite compares names.
    ///
    /// # Errors
    /// `Usage` if there is no such column.
    pub fn get(&self, column: &str) -> Result<ValueRef<'_>> {
        let found = self.table().column(column);
        let found = found
            .ok_or_else(|| Error::usage(format!("table {}: has no column {column:?}", self.table().name)))?;
        self.value(found)
    }

    fn of<'a>(&'a self, archived: Archived<'a>, column: usize) -> Result<ValueRef<'a>> {
        match archived.place(column) {
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
    if out.len() as u64 != len || xxh3_128(&out) != hash {
        return Err(Error::new(Kind::Damaged, "replica: a long value is not the one that its row names"));
    }
    Ok(out)
}
