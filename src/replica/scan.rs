//! Reads the replica: one consistent view of it, by key, by ranges and beginnings of keys, forwards and backwards.

use super::history::Told;
use super::index::{INDEX, is_same, stale};
use super::row::{Bytes, Definitions, Row, Shapes};
use super::slot::Ticket;
use super::{
    PIECES, ROWS, apply::after_all, changes, count_name, cursor, failed, indexes, meta, prefix, tables,
};
use crate::cursor::{Cursor, Position};
use crate::error::{Error, Result};
use crate::key::{self, Collation};
use crate::lookup::{Key, KeyRange};
use crate::record::state::{IndexState, TableState};
use crate::schema::Table;
use crate::value::{Value, ValueRef};
use crate::window::TableNo;
use redb::{OwnedRange, ReadTransaction};
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

/// A consistent view of the replica: it does not change while it is held.
///
/// ```no_run
/// # fn read(replica: &redtail::Replica) -> redtail::Result<()> {
/// let snapshot = replica.snapshot()?;
/// println!("at {:?}, consistent: {}", snapshot.position(), snapshot.is_consistent());
/// let row = snapshot.get("parts", (17, "leg"))?;
/// println!("{} parts, that one: {:?}", snapshot.count("parts")?, row);
/// # Ok(())
/// # }
/// ```
pub struct Snapshot {
    read: ReadTransaction,
    /// Opened once: finding a table in redb takes as long as finding a row.
    rows: Bytes,
    pieces: Bytes,
    cursor: Option<Cursor>,
    tables: Vec<Held>,
    ticket: Arc<Ticket>,
}

/// A table in a snapshot, with the shapes its rows may have.
pub(super) struct Held {
    pub no: TableNo,
    pub state: TableState,
    /// Rows keep the snapshot's ticket by them.
    shapes: Shapes,
}

/// What a snapshot knows of a table besides its rows.
///
/// ```no_run
/// # fn read(replica: &redtail::Replica) -> redtail::Result<()> {
/// for info in replica.snapshot()?.tables()? {
///     println!("{}: {} rows", info.table.name, info.rows);
/// }
/// # Ok(())
/// # }
/// ```
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
        let open = |table| ticket.guarded(|| read.open_table(table).map_err(failed));
        let (rows, pieces) = (open(ROWS)?, open(PIECES)?);
        let held = |(no, state): (TableNo, TableState)| {
            let mut shapes = state.former.clone();
            shapes.push((state.shape, state.table.clone()));
            Held {
                no,
                state,
                shapes: Arc::new(Definitions { all: shapes, ticket: Some(Arc::clone(&ticket)) }),
            }
        };
        let tables = tables.into_iter().map(held).collect();
        Ok(Self { read, rows, pieces, cursor, tables, ticket })
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

    pub(super) fn parts(&self) -> (&Arc<Ticket>, &ReadTransaction) {
        (&self.ticket, &self.read)
    }

    pub(super) fn held(&self, name: &str) -> Result<&Held> {
        let exact = self.tables.iter().find(|t| t.state.table.name == name);
        let found =
            exact.or_else(|| self.tables.iter().find(|t| t.state.table.name.eq_ignore_ascii_case(name)));
        found.ok_or_else(|| {
            Error::unknown("table", name, self.tables.iter().map(|t| t.state.table.name.as_str()))
        })
    }

    /// Up to which window the kept history goes here.
    pub(crate) fn told(&self) -> Told {
        self.ticket.guarded(|| changes::told(&self.read)).unwrap_or_default()
    }

    /// How many rows the replica has of a table; nothing is counted for it.
    ///
    /// # Errors
    /// `Usage` for an unknown table.
    pub fn count(&self, table: &str) -> Result<u64> {
        let no = self.held(table)?.no;
        let rows = self.ticket.guarded(|| meta(&self.read, &count_name(no)))?;
        Ok(rows.and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes))
    }

    /// One row by its key, one value a component of the primary key (the rowid where there is none).
    ///
    /// # Errors
    /// `Usage` for an unknown table or a key of another width, `Damaged` if the record is.
    pub fn get(&self, table: &str, key: impl Into<Key>) -> Result<Option<Row>> {
        let held = self.held(table)?;
        let name = place(held, held.no, &key.into())?;
        let mut row = None;
        self.ticket.guarded(|| {
            if let Some(record) = self.rows.get_owned(name.as_slice()).map_err(failed)? {
                // A row is large: it is not handed through the guard.
                row = Some(Row::new(name, record, &held.shapes, &self.pieces)?);
            }
            Ok(())
        })?;
        Ok(row)
    }

    /// All rows of a table, in key order; from the end with [`Iterator::rev`].
    ///
    /// # Errors
    /// `Usage` for an unknown table.
    pub fn scan(&self, table: &str) -> Result<Scan> {
        self.range(table, ..)
    }

    /// The rows of a table behind a place that [`Row::place`] gave, in key order; whether there still is a row
    /// at that place makes no difference. So a table is read page by page, each from a view of its own.
    ///
    /// # Errors
    /// `Usage` for an unknown table.
    pub fn scan_after(&self, table: &str, place: &[u8]) -> Result<Scan> {
        let held = self.held(table)?;
        // No key is empty.
        let lower = Bound::Excluded([prefix(held.no).as_slice(), place].concat());
        self.walk(held, (lower, after_all(&prefix(held.no))))
    }

    /// The rows whose keys lie in a range, in key order.
    ///
    /// Keys are in SQLite's order: NULL, numbers by value, text by its bytes (in the collation of the key's column),
    /// blobs. The bounds may give the first components alone (see [`KeyRange`]).
    ///
    /// ```no_run
    /// # fn read(snapshot: &redtail::Snapshot) -> redtail::Result<()> {
    /// for row in snapshot.range("episodes", "e100".."e200")?.rev().take(10) {
    ///     println!("{:?}", row?.text("task_type")?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `Usage` for an unknown table, or a bound with more values than its key has.
    pub fn range(&self, table: &str, range: impl Into<KeyRange>) -> Result<Scan> {
        let (held, range) = (self.held(table)?, range.into());
        let bounds = bounds(&prefix(held.no), &range, |out, key| encode(held, out, key))?;
        self.walk(held, bounds)
    }

    /// The rows whose keys begin with these values, the last of which is the beginning of a text or a blob: with
    /// `"e1"` those of `"e1"`, `"e10"`, `"e17b"`.
    ///
    /// # Errors
    /// `Usage` as in [`Snapshot::range`], and if the last value is neither text nor blob.
    pub fn prefix(&self, table: &str, key: impl Into<Key>) -> Result<Scan> {
        let (held, key) = (self.held(table)?, key.into());
        let mut lower = prefix(held.no).to_vec();
        begin(held, &mut lower, &key)?;
        let upper = after_all(&lower);
        self.walk(held, (Bound::Included(lower), upper))
    }

    /// An index that the configuration declares for this table, by its columns.
    ///
    /// ```no_run
    /// # fn read(snapshot: &redtail::Snapshot) -> redtail::Result<()> {
    /// let by_time = snapshot.index("episodes", &["start_time"])?;
    /// for row in by_time.range(1_700_000_000..)?.rev().take(10) {
    ///     println!("{:?}", row?.text("episode_id")?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `Usage` for an unknown table, or if there is no such index; the error names those that there are.
    pub fn index(&self, table: &str, columns: &[&str]) -> Result<Index<'_>> {
        let held = self.held(table)?;
        let states = self.ticket.guarded(|| indexes(&self.read))?;
        let columns: Vec<String> = columns.iter().map(|c| (*c).to_owned()).collect();
        let is_of = |s: &&IndexState| s.table == held.no && s.through.is_none();
        if let Some(state) = states.iter().filter(is_of).find(|s| is_same(&s.columns, &columns)) {
            return Ok(Index { snapshot: self, held, state: state.clone() });
        }
        let there: Vec<String> =
            states.iter().filter(is_of).map(|s| format!("({})", s.columns.join(", "))).collect();
        let there =
            if there.is_empty() { "it has none".to_owned() } else { format!("it has {}", there.join(", ")) };
        let (name, wanted) = (&held.state.table.name, columns.join(", "));
        Err(Error::usage(format!(
            "table {name}: no index ({wanted}); {there}; `index` in the configuration declares them"
        )))
    }

    fn walk(&self, held: &Held, bounds: Bounds) -> Result<Scan> {
        self.walk_along(held, bounds, None)
    }

    fn walk_along(&self, held: &Held, (lower, upper): Bounds, index: Option<IndexState>) -> Result<Scan> {
        self.ticket.guarded(|| {
            let rows: Bytes = self.read.open_table(ROWS).map_err(failed)?;
            let pieces = self.read.open_table(PIECES).map_err(failed)?;
            let ended = is_empty(&lower, &upper);
            // redb takes no range whose end lies before its start.
            let lower = if ended { Bound::Unbounded } else { lower };
            let bounds = (lower.as_ref().map(Vec::as_slice), upper.as_ref().map(Vec::as_slice));
            let (range, along) = match index {
                None => (rows.range_owned::<&[u8]>(bounds).map_err(failed)?, None),
                Some(state) => {
                    let entries: Bytes = self.read.open_table(INDEX).map_err(failed)?;
                    (
                        entries.range_owned::<&[u8]>(bounds).map_err(failed)?,
                        Some(Along { state, rows, says: Vec::new() }),
                    )
                }
            };
            let (shapes, ticket) = (Arc::clone(&held.shapes), Arc::clone(&self.ticket));
            Ok(Scan { range, along, shapes, pieces, ticket, ended })
        })
    }
}

/// Rows of a table in the order of other columns: numbers by value, text by its bytes, then by key.
///
/// ```no_run
/// # fn read(replica: &redtail::Replica) -> redtail::Result<()> {
/// let snapshot = replica.snapshot()?;
/// let by_time = snapshot.index("episodes", &["start_time"])?;
/// for row in by_time.range(1_700_000_000..)? {
///     println!("{:?}", row?.key()?);
/// }
/// # Ok(())
/// # }
/// ```
pub struct Index<'s> {
    snapshot: &'s Snapshot,
    held: &'s Held,
    state: IndexState,
}

impl Index<'_> {
    /// All rows, in the index's order; from the end with [`Iterator::rev`].
    ///
    /// # Errors
    /// `Damaged` if it cannot be read.
    pub fn scan(&self) -> Result<Scan> {
        self.range(..)
    }

    /// The rows whose values lie in a range; a bound may give the first columns alone (see [`KeyRange`]), so that
    /// `x..=x` is all rows with this value.
    ///
    /// # Errors
    /// `Usage` for a bound with more values than the index has columns.
    pub fn range(&self, range: impl Into<KeyRange>) -> Result<Scan> {
        let bounds = bounds(&prefix(self.state.number), &range.into(), |out, key| self.encode(out, key))?;
        self.snapshot.walk_along(self.held, bounds, Some(self.state.clone()))
    }

    /// The rows whose values begin with these, the last of which is the beginning of a text or a blob.
    ///
    /// # Errors
    /// `Usage` as in [`Index::range`], and if the last value is neither text nor blob.
    pub fn prefix(&self, values: impl Into<Key>) -> Result<Scan> {
        let values = values.into();
        let mut lower = prefix(self.state.number).to_vec();
        self.encode(&mut lower, &values)?;
        if let Some((last, first)) = values.values().split_last() {
            lower.truncate(4);
            self.encode(&mut lower, &first.into())?;
            if !key::push_beginning(&mut lower, last.as_ref(), Collation::Binary) {
                return Err(no_beginning(&self.held.state.table.name, last));
            }
        }
        let upper = after_all(&lower);
        self.snapshot.walk_along(self.held, (Bound::Included(lower), upper), Some(self.state.clone()))
    }

    fn encode(&self, out: &mut Vec<u8>, key: &Key) -> Result<()> {
        let (values, columns) = (key.values(), &self.state.columns);
        if values.len() > columns.len() {
            let (name, names) = (&self.held.state.table.name, columns.join(", "));
            return Err(Error::usage(format!(
                "table {name}: its index ({names}) has {} columns, not {}",
                columns.len(),
                values.len()
            )));
        }
        for value in values {
            key::push(out, value.as_ref(), Collation::Binary);
        }
        Ok(())
    }
}

/// The table's name and the columns.
impl fmt::Debug for Index<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = &self.held.state.table.name;
        f.debug_struct("Index")
            .field("table", table)
            .field("columns", &self.state.columns)
            .finish_non_exhaustive()
    }
}

fn no_beginning(table: &str, value: &Value) -> Error {
    let class = value.as_ref().class();
    Error::usage(format!("table {table}: only text and blobs have beginnings, not {class}"))
}

/// The name of what belongs to the row with this key: a table's or a projection's number, and the canonical key.
pub(super) fn place(held: &Held, number: u32, key: &Key) -> Result<Vec<u8>> {
    let (table, key) = (&held.state.table, key.values());
    let width = table.key.parts.len();
    if key.len() != width {
        let (name, names) = (&table.name, table.key_names().join(", "));
        return Err(Error::usage(format!(
            "table {name:?}: its key has {width} values ({names}), not {}",
            key.len()
        )));
    }
    // Room for most keys, so that it grows once at most.
    let mut name =
        Vec::with_capacity(prefix(number).len() + key.iter().map(|v| 16 + v.as_ref().len()).sum::<usize>());
    name.extend_from_slice(&prefix(number));
    let joined = table.key.nullable.then_some(ValueRef::Null);
    table.key.encode(&mut name, key.iter().map(Value::as_ref).chain(joined));
    Ok(name)
}

pub(super) type Bounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

pub(super) fn is_empty(lower: &Bound<Vec<u8>>, upper: &Bound<Vec<u8>>) -> bool {
    match (lower, upper) {
        (Bound::Included(a), Bound::Included(b)) => a > b,
        (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) => a >= b,
        _ => false,
    }
}

/// The bytes between which a range of keys lies; `encode` appends the canonical form of a key, whole or not.
pub(super) fn bounds(
    prefix: &[u8],
    range: &KeyRange,
    encode: impl Fn(&mut Vec<u8>, &Key) -> Result<()>,
) -> Result<Bounds> {
    let name = |key: &Key| {
        let mut out = prefix.to_vec();
        encode(&mut out, key).map(|()| out)
    };
    let lower = match &range.lower {
        Bound::Included(key) => Bound::Included(name(key)?),
        // All that begin with it lie before its end.
        Bound::Excluded(key) => match after_all(&name(key)?) {
            Bound::Excluded(end) | Bound::Included(end) => Bound::Included(end),
            Bound::Unbounded => Bound::Excluded(name(key)?),
        },
        Bound::Unbounded => Bound::Included(prefix.to_vec()),
    };
    let upper = match &range.upper {
        Bound::Included(key) => after_all(&name(key)?),
        Bound::Excluded(key) => Bound::Excluded(name(key)?),
        Bound::Unbounded => after_all(prefix),
    };
    Ok((lower, upper))
}

pub(super) fn encode(held: &Held, out: &mut Vec<u8>, key: &Key) -> Result<()> {
    let table = &held.state.table;
    let (values, width) = (key.values(), table.key.width());
    if values.len() > width {
        let (name, names) = (&table.name, table.key_names().join(", "));
        return Err(Error::usage(format!(
            "table {name:?}: its key has {width} values ({names}), not {}",
            values.len()
        )));
    }
    table.key.encode(out, values.iter().map(Value::as_ref));
    Ok(())
}

/// Appends what all keys have in common that begin like this one.
pub(super) fn begin(held: &Held, out: &mut Vec<u8>, key: &Key) -> Result<()> {
    let Some((last, first)) = key.values().split_last() else { return Ok(()) };
    encode(held, out, &first.into())?;
    let collation = held.state.table.key.collations().get(first.len()).copied();
    match collation.map(|c| key::push_beginning(out, last.as_ref(), c)) {
        Some(true) => Ok(()),
        None => encode(held, out, key),
        Some(false) => Err(no_beginning(&held.state.table.name, last)),
    }
}

/// Where it is, and of what tables; no rows.
impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.tables.iter().map(|t| t.state.table.name.as_str()).collect();
        f.debug_struct("Snapshot")
            .field("position", &self.position())
            .field("tables", &names)
            .finish_non_exhaustive()
    }
}

/// The rows of a table, one after another, from either end.
///
/// ```no_run
/// # fn read(replica: &redtail::Replica) -> redtail::Result<()> {
/// for row in replica.snapshot()?.scan("episodes")?.rev().take(10) {
///     println!("{:?}", row?.values()?);
/// }
/// # Ok(())
/// # }
/// ```
pub struct Scan {
    range: OwnedRange<&'static [u8], &'static [u8]>,
    along: Option<Along>,
    shapes: Shapes,
    pieces: Bytes,
    ticket: Arc<Ticket>,
    /// After an error nothing more is read.
    ended: bool,
}

/// The index along which a scan goes, and the rows that its entries name.
struct Along {
    state: IndexState,
    rows: Bytes,
    /// What the last row's entry has to be: its room is used again.
    says: Vec<u8>,
}

impl Along {
    /// The row that an entry names, if it is what the entry says.
    fn row(&mut self, (name, key): (&[u8], &[u8]), (shapes, pieces): (&Shapes, &Bytes)) -> Result<Row> {
        let table = || shapes.all.last().map_or("", |(_, t)| t.name.as_str());
        let row_name = [prefix(self.state.table).as_slice(), key].concat();
        let Some(record) = self.rows.get_owned(row_name.as_slice()).map_err(failed)? else {
            return stale(table(), &self.state.columns);
        };
        let row = Row::new(row_name, record, shapes, pieces)?;
        self.says.clear();
        self.says.extend_from_slice(&prefix(self.state.number));
        row.push_indexed(&mut self.says, &self.state.columns)?;
        self.says.extend_from_slice(key);
        if self.says == name { Ok(row) } else { stale(table(), &self.state.columns) }
    }
}

impl Scan {
    fn step(&mut self, from_end: bool) -> Option<Result<Row>> {
        if self.ended {
            return None;
        }
        let Self { range, along, shapes, pieces, ticket, .. } = self;
        let mut row = None;
        let read = ticket.guarded(|| {
            let Some(entry) = (if from_end { range.next_back() } else { range.next() }) else {
                return Ok(());
            };
            let (name, record) = entry.map_err(failed)?;
            row = Some(match along {
                Some(along) => along.row((name.value(), record.value()), (shapes, pieces))?,
                None => Row::new(name.value().to_vec(), record, shapes, pieces)?,
            });
            Ok(())
        });
        self.ended = read.is_err();
        match read {
            Ok(()) => row.map(Ok),
            Err(e) => Some(Err(e)),
        }
    }
}

impl Iterator for Scan {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step(false)
    }
}

impl DoubleEndedIterator for Scan {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.step(true)
    }
}

/// The definition of the table whose rows it gives.
impl fmt::Debug for Scan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = self.shapes.all.last().map(|(_, t)| t.name.as_str());
        f.debug_struct("Scan").field("table", &table).finish_non_exhaustive()
    }
}
