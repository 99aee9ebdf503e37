//! Secondary indexes: rows of a table in the order of other columns, kept in the transaction of the rows.
//!
//! redb's table here: INDEX (`index number + canonical values + row's key` to the row's key). Which indexes there are
//! stands in META. A new one is built before windows are applied, in small transactions that remember how far they
//! came; one that is no longer wanted is deleted. A row that an index names is compared with what the index says of it.

use super::apply::{Open, Writer, after_all, row_name, take_some};
use super::guard::failed;
use super::history::{definition, longs};
use super::{META, PIECES, ROWS, prefix};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::fault;
use crate::key::{self, Collation};
use crate::record::state::{IndexState, TableState, encode_indexes};
use crate::record::{self, Archived, Delta, Deltas, Place, has_long};
use crate::schema::Table;
use crate::value::ValueRef;
use crate::window::TableNo;
use redb::{ReadableTable, TableDefinition, WriteTransaction};
use std::collections::HashMap;
use std::ops::Bound;

pub(super) const INDEX: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("redtail.index");
pub(super) const INDEXES: &str = "indexes";

/// Rows of an index that are built, or deleted, in one transaction.
const STEP: usize = 10_000;

/// What the writer knows of indexes.
#[derive(Debug, Default)]
pub(super) struct Indexes {
    /// By table, what the configuration wants.
    wanted: Vec<(String, Vec<Vec<String>>)>,
    states: Vec<IndexState>,
    /// They have changed in this transaction.
    touched: bool,
}

impl Indexes {
    pub fn of(config: &Config) -> Self {
        let wanted = config.tables.iter().map(|(name, t)| (name.clone(), t.index.clone()));
        let wanted = wanted.filter(|(_, index)| !index.is_empty()).collect();
        Self { wanted, ..Self::default() }
    }

    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty() && self.states.is_empty()
    }

    fn of_table(&self, no: TableNo) -> impl Iterator<Item = &IndexState> {
        self.states.iter().filter(move |s| s.table == no)
    }

    fn wanted_of(&self, table: &str) -> Vec<Vec<String>> {
        let found = self.wanted.iter().find(|(name, _)| name.eq_ignore_ascii_case(table));
        found.map(|(_, index)| index.clone()).unwrap_or_default()
    }

    /// Adds what a table lacks; `built` if there is nothing to build.
    fn add(&mut self, no: TableNo, table: &str, built: bool) {
        for columns in self.wanted_of(table) {
            if !self.of_table(no).any(|s| is_same(&s.columns, &columns)) {
                let number = self.states.iter().map(|s| s.number + 1).max().unwrap_or(1);
                let through = (!built).then(Vec::new);
                self.states.push(IndexState { number, table: no, columns, through });
                self.touched = true;
            }
        }
    }
}

pub(super) fn is_same(a: &[String], b: &[String]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.eq_ignore_ascii_case(b))
}

/// Appends a row's values as an index has them: in SQLite's order, text by its bytes. A column that the row lacks is
/// NULL.
fn push_values(
    out: &mut Vec<u8>,
    table: &Table,
    archived: Archived<'_>,
    columns: &[String],
    long: &HashMap<u16, &[u8]>,
) {
    for name in columns {
        let column = table.column(name);
        let place = column.and_then(|c| archived.place(c));
        let outside = || column.and_then(|c| u16::try_from(c).ok()).and_then(|c| long.get(&c).copied());
        let value = match place {
            None => ValueRef::Null,
            Some(Place::Here(value)) => value,
            Some(Place::Outside { text: true, .. }) => ValueRef::Text(outside().unwrap_or_default()),
            Some(Place::Outside { text: false, .. }) => ValueRef::Blob(outside().unwrap_or_default()),
        };
        key::push(out, value, Collation::Binary);
    }
}

/// The name of a row in an index; `None` if its record cannot be read.
fn name_of(
    state: &TableState,
    index: &IndexState,
    row: (&[u8], &[u8]),
    long: &HashMap<u16, &[u8]>,
) -> Option<Vec<u8>> {
    let (key, record) = row;
    let archived = Archived::new(record).ok()?;
    let table = definition(state, record::shape(record))?;
    let mut name = prefix(index.number).to_vec();
    push_values(&mut name, table, archived, &index.columns, long);
    name.extend_from_slice(key);
    Some(name)
}

fn borrowed(longs: &[(u16, Vec<u8>)]) -> HashMap<u16, &[u8]> {
    longs.iter().map(|(column, bytes)| (*column, bytes.as_slice())).collect()
}

impl Writer {
    /// Keeps the indexes that the configuration wants.
    ///
    /// # Errors
    /// The replica's, if what is new cannot be built.
    pub fn indexed(mut self, config: &Config) -> Result<Self> {
        self.indexes = Indexes::of(config);
        let read = self.replica.db.begin_read()?;
        self.indexes.states = self.replica.guarded(|| super::indexes(&read))?;
        drop(read);
        let replica = self.replica.clone();
        replica.guarded(|| self.drop_unwanted())?;
        let tables: Vec<(TableNo, String)> =
            self.tables.iter().map(|(no, t)| (*no, t.table.name.clone())).collect();
        for (no, name) in tables {
            self.indexes.add(no, &name, self.counts.get(&no) == Some(&0));
        }
        replica.guarded(|| self.build())?;
        Ok(self)
    }

    /// Deletes indexes that nobody wants, or whose table is gone.
    fn drop_unwanted(&mut self) -> Result<()> {
        let is_wanted = |s: &IndexState| {
            let table = self.tables.get(&s.table).map(|t| self.indexes.wanted_of(&t.table.name));
            table.is_some_and(|wanted| wanted.iter().any(|columns| is_same(columns, &s.columns)))
        };
        let gone: Vec<u32> = self.indexes.states.iter().filter(|s| !is_wanted(s)).map(|s| s.number).collect();
        for number in gone {
            loop {
                // Whatever is left of it if this ends half way is not whole.
                for state in self.indexes.states.iter_mut().filter(|s| s.number == number) {
                    state.through = Some(Vec::new());
                }
                let txn = self.replica.db.begin_write()?;
                let done = {
                    let mut index = txn.open_table(INDEX).map_err(failed)?;
                    take_some(&mut index, &prefix(number), STEP)?
                };
                if done {
                    self.indexes.states.retain(|s| s.number != number);
                }
                self.save_indexes(txn)?;
                if done {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Builds what is not built yet, from where it was left.
    fn build(&mut self) -> Result<()> {
        while let Some(at) = self.indexes.states.iter().position(|s| s.through.is_some()) {
            let txn = self.replica.db.begin_write()?;
            if let Some(index) = self.indexes.states.get_mut(at) {
                let mut to = txn.open_table(INDEX).map_err(failed)?;
                let (rows, pieces) =
                    (txn.open_table(ROWS).map_err(failed)?, txn.open_table(PIECES).map_err(failed)?);
                let Some(state) = self.tables.get(&index.table) else { break };
                let lower = row_name(index.table, index.through.as_deref().unwrap_or_default());
                let upper = after_all(&prefix(index.table));
                let bounds = (Bound::Excluded(lower.as_slice()), upper.as_ref().map(Vec::as_slice));
                let mut last = None;
                let mut count = 0;
                for entry in rows.range::<&[u8]>(bounds).map_err(failed)?.take(STEP) {
                    let (name, record) = entry.map_err(failed)?;
                    let key = name.value().get(4..).unwrap_or_default();
                    let long =
                        if has_long(record.value()) { longs(&pieces, name.value())? } else { Vec::new() };
                    if let Some(name) = name_of(state, index, (key, record.value()), &borrowed(&long)) {
                        to.insert(name.as_slice(), key).map_err(failed)?;
                    }
                    last = Some(key.to_vec());
                    count += 1;
                }
                index.through = last.filter(|_| count == STEP);
            }
            self.save_indexes(txn)?;
        }
        // Of tables without a row nothing had to be built.
        if self.indexes.touched { self.save_indexes(self.replica.db.begin_write()?) } else { Ok(()) }
    }

    /// Writes down which indexes there are, and commits.
    fn save_indexes(&mut self, txn: WriteTransaction) -> Result<()> {
        txn.open_table(META)
            .map_err(failed)?
            .insert(INDEXES, encode_indexes(&self.indexes.states)?.as_slice())
            .map_err(failed)?;
        self.indexes.touched = false;
        txn.commit().map_err(failed)
    }

    /// Moves a row to where it stands in its table's indexes after this delta.
    pub(super) fn reindex(
        &self,
        no: TableNo,
        name: &[u8],
        delta: &Delta<'_>,
        open: &mut Open<'_>,
    ) -> Result<()> {
        let Some(state) = self.tables.get(&no) else { return Ok(()) };
        if self.indexes.of_table(no).next().is_none() {
            return Ok(());
        }
        let old = open.rows.get(name).map_err(failed)?.map(|r| r.value().to_vec());
        let long = match &old {
            Some(record) if has_long(record) => longs(&open.pieces, name)?,
            _ => Vec::new(),
        };
        let Some(entries) = &mut open.index else { return Ok(()) };
        let new_long: HashMap<u16, &[u8]> = delta.longs().collect();
        for index in self.indexes.of_table(no) {
            let was = old.as_ref().and_then(|r| name_of(state, index, (delta.key, r), &borrowed(&long)));
            let is = delta.record.and_then(|r| name_of(state, index, (delta.key, r), &new_long));
            if was == is {
                continue;
            }
            if let Some(was) = was.filter(|_| !fault::stale_index()) {
                entries.remove(was.as_slice()).map_err(failed)?;
            }
            if let Some(is) = is {
                entries.insert(is.as_slice(), delta.key).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Puts rows into their table's indexes that were put where nothing stood.
    pub(super) fn index_new(&self, no: TableNo, rows: &Deltas, open: &mut Open<'_>) -> Result<()> {
        let (Some(state), Some(entries)) = (self.tables.get(&no), &mut open.index) else { return Ok(()) };
        for index in self.indexes.of_table(no) {
            for delta in rows.iter() {
                let long = delta.longs().collect();
                let name = delta.record.and_then(|r| name_of(state, index, (delta.key, r), &long));
                if let Some(name) = name {
                    entries.insert(name.as_slice(), delta.key).map_err(failed)?;
                }
            }
        }
        Ok(())
    }

    /// A table was defined: if it is new, its indexes are, too.
    pub(super) fn index_defined(&mut self, no: TableNo) {
        let Some(name) = self.tables.get(&no).map(|t| t.table.name.clone()) else { return };
        // A table that has rows had its indexes built before the first window.
        if self.counts.get(&no).is_none_or(|n| *n == 0) {
            self.indexes.add(no, &name, true);
        }
    }

    /// A table is gone, with its indexes.
    pub(super) fn index_forget(&mut self, no: TableNo, open: &mut Open<'_>) -> Result<()> {
        let Some(entries) = &mut open.index else { return Ok(()) };
        for index in self.indexes.of_table(no) {
            super::apply::take_all(entries, &prefix(index.number))?;
        }
        let before = self.indexes.states.len();
        self.indexes.states.retain(|s| s.table != no);
        self.indexes.touched |= before != self.indexes.states.len();
        Ok(())
    }

    /// Writes down which indexes there are, if that has changed.
    pub(super) fn close_indexes(&mut self, open: &mut Open<'_>) -> Result<()> {
        if std::mem::take(&mut self.indexes.touched) {
            let states = encode_indexes(&self.indexes.states)?;
            open.meta.insert(INDEXES, states.as_slice()).map_err(failed)?;
        }
        Ok(())
    }
}

/// # Errors
/// `Damaged`, always: what to say of an entry that is not what its row says.
pub(super) fn stale<T>(table: &str, columns: &[String]) -> Result<T> {
    let what = format!("replica: an index of table {table} ({}) does not fit its rows", columns.join(", "));
    Err(Error::new(crate::Kind::Damaged, what))
}
