//! Projections: what an application makes of each row of a table, kept in the transaction of the rows.
//!
//! redb's table here: PROJECTED (`projection number + row's key` to record). Which projections there are stands in META.
//! At every committed cursor a projection is that of the rows at this cursor: a new one is made of the rows that are
//! there before windows are applied, in small transactions that remember how far they came, and nobody reads it before
//! it is whole; each row that is put, and each that goes, takes its record along; and a writer that does not know a
//! projection takes it out rather than leave it behind.

use super::apply::{Open, Writer, after_all, row_name, take_all, take_some};
use super::guard::failed;
use super::history::longs;
use super::project::{Projector, Projectors, stored};
use super::row::{Definitions, Row, Shapes};
use super::{META, PIECES, ROWS, prefix};
use crate::error::{Error, Result};
use crate::fault;
use crate::record::history::Side;
use crate::record::state::{ProjectionState, TableState, encode_projections};
use crate::record::{Delta, Deltas, has_long};
use crate::window::{Purpose, Range, TableNo};
use redb::{ReadableTable, TableDefinition, WriteTransaction};
use std::collections::{HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

pub(super) const PROJECTED: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("redtail.projected");
pub(super) const PROJECTIONS: &str = "projections";

/// Records that are made, or deleted, in one transaction.
const STEP: usize = if cfg!(test) { 7 } else { 10_000 };

/// What the writer knows of projections.
#[derive(Default)]
pub(super) struct Projecting {
    wanted: Projectors,
    active: Vec<Active>,
    /// The definitions by which rows of a table were read, as a [`Row`] wants them.
    shapes: HashMap<TableNo, Shapes>,
    /// They have changed in this transaction.
    touched: bool,
    /// Projections of which it was said already that a row has no record.
    told: HashSet<u32>,
}

struct Active {
    state: ProjectionState,
    projector: Arc<dyn Projector>,
}

/// A row as it comes: its name in redb, its record and its long values.
type Coming<'a> = (&'a [u8], &'a [u8], Vec<(u16, Vec<u8>)>);

impl Projecting {
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty() && self.active.is_empty()
    }

    fn states(&self) -> Vec<ProjectionState> {
        self.active.iter().map(|a| a.state.clone()).collect()
    }

    fn of_table(&self, no: TableNo) -> impl Iterator<Item = &Active> {
        self.active.iter().filter(move |a| a.state.table == no)
    }

    /// Adds what a table lacks; `made` if there is nothing to make it of.
    fn add(&mut self, no: TableNo, table: &str, made: bool) {
        let wanted: Vec<Arc<dyn Projector>> = self.wanted.of_table(table).cloned().collect();
        for projector in wanted {
            if self.of_table(no).any(|a| a.state.name == projector.name()) {
                continue;
            }
            let number = self.active.iter().map(|a| a.state.number + 1).max().unwrap_or(1);
            let (name, version, size) = (projector.name().to_owned(), projector.version(), projector.size());
            let through = (!made).then(Vec::new);
            let state = ProjectionState { number, table: no, name, version, size, through };
            self.active.push(Active { state, projector });
            self.touched = true;
        }
    }

    fn shapes_of(&mut self, no: TableNo, state: &TableState) -> Shapes {
        let all = || state.former.iter().cloned().chain([(state.shape, state.table.clone())]).collect();
        let new = || Arc::new(Definitions { all: all(), ticket: None });
        Arc::clone(self.shapes.entry(no).or_insert_with(new))
    }

    /// What stands in a projection for this row.
    fn record(
        &mut self,
        at: usize,
        shapes: Shapes,
        (name, record, longs): Coming<'_>,
    ) -> Result<Option<Vec<u8>>> {
        let row = Row::kept(name.to_vec(), Side { record: record.to_vec(), longs }, shapes)?;
        let Some(Active { state, projector }) = self.active.get(at) else { return Ok(None) };
        let (record, why) = stored(projector.as_ref(), &row);
        if let Some(why) = why.filter(|_| self.told.insert(state.number)) {
            let (table, name) = (projector.table(), projector.name());
            tracing::warn!(
                "table {table}: a row has no record in projection {name:?}: {why}; whoever reads it is told"
            );
        }
        Ok(record)
    }
}

fn save(txn: &WriteTransaction, states: &Vec<ProjectionState>) -> Result<()> {
    let mut meta = txn.open_table(META).map_err(failed)?;
    meta.insert(PROJECTIONS, encode_projections(states)?.as_slice()).map_err(failed)?;
    Ok(())
}

impl Writer {
    /// Keeps these projections.
    ///
    /// # Errors
    /// `Usage` if two of them have one name; the replica's, if what is new cannot be made.
    pub fn projecting(mut self, wanted: &Projectors) -> Result<Self> {
        wanted.check()?;
        let read = self.replica.db.begin_read()?;
        let states = self.replica.guarded(|| super::projections(&read))?;
        drop(read);
        self.projecting.wanted = wanted.clone();
        let replica = self.replica.clone();
        replica.guarded(|| self.take_over(states))?;
        let tables: Vec<(TableNo, String)> =
            self.tables.iter().map(|(no, t)| (*no, t.table.name.clone())).collect();
        for (no, name) in tables {
            self.projecting.add(no, &name, self.counts.get(&no) == Some(&0));
        }
        replica.guarded(|| self.make())?;
        Ok(self)
    }

    /// Goes on with those that fit what is wanted, and deletes the others.
    fn take_over(&mut self, states: Vec<ProjectionState>) -> Result<()> {
        let mut gone = Vec::new();
        for state in states {
            let table = self.tables.get(&state.table).map(|t| t.table.name.as_str());
            let fits = |p: &&Arc<dyn Projector>| {
                (p.name(), p.version(), p.size()) == (state.name.as_str(), state.version, state.size)
            };
            match table.and_then(|table| self.projecting.wanted.of_table(table).find(fits)).cloned() {
                Some(projector) => self.projecting.active.push(Active { state, projector }),
                None => gone.push(state),
            }
        }
        while let Some(going) = gone.last_mut() {
            // Whatever is left of it if this ends half way is not whole.
            going.through = Some(Vec::new());
            let number = going.number;
            let txn = self.replica.db.begin_write()?;
            let all = {
                let mut projected = txn.open_table(PROJECTED).map_err(failed)?;
                take_some(&mut projected, &prefix(number), STEP)?
            };
            if all {
                gone.pop();
            }
            let left = self.projecting.states().into_iter().chain(gone.iter().cloned()).collect();
            save(&txn, &left)?;
            txn.commit().map_err(failed)?;
        }
        Ok(())
    }

    /// Makes what is not made yet of the rows that are there, from where it was left.
    fn make(&mut self) -> Result<()> {
        while let Some(at) = self.projecting.active.iter().position(|a| a.state.through.is_some()) {
            let txn = self.replica.db.begin_write()?;
            let through = self.make_some(&txn, at)?;
            if let Some(active) = self.projecting.active.get_mut(at) {
                active.state.through = through;
            }
            save(&txn, &self.projecting.states())?;
            txn.commit().map_err(failed)?;
            self.projecting.touched = false;
        }
        // Of tables without a row nothing had to be made.
        if std::mem::take(&mut self.projecting.touched) {
            let txn = self.replica.db.begin_write()?;
            save(&txn, &self.projecting.states())?;
            txn.commit().map_err(failed)?;
        }
        Ok(())
    }

    /// One step of it: the key of the last row, `None` if there is no more.
    fn make_some(&mut self, txn: &WriteTransaction, at: usize) -> Result<Option<Vec<u8>>> {
        let Some(state) = self.projecting.active.get(at).map(|a| a.state.clone()) else { return Ok(None) };
        let Some(table) = self.tables.get(&state.table) else { return Ok(None) };
        let shapes = self.projecting.shapes_of(state.table, table);
        let mut to = txn.open_table(PROJECTED).map_err(failed)?;
        let (rows, pieces) = (txn.open_table(ROWS).map_err(failed)?, txn.open_table(PIECES).map_err(failed)?);
        let lower = row_name(state.table, state.through.as_deref().unwrap_or_default());
        let upper = after_all(&prefix(state.table));
        let bounds = (Bound::Excluded(lower.as_slice()), upper.as_ref().map(Vec::as_slice));
        let (mut last, mut count) = (None, 0);
        for entry in rows.range::<&[u8]>(bounds).map_err(failed)?.take(STEP) {
            let (name, record) = entry.map_err(failed)?;
            let (name, record) = (name.value(), record.value());
            let long = if has_long(record) { longs(&pieces, name)? } else { Vec::new() };
            let key = name.get(4..).unwrap_or_default();
            if let Some(made) = self.projecting.record(at, Arc::clone(&shapes), (name, record, long))? {
                to.insert(row_name(state.number, key).as_slice(), made.as_slice()).map_err(failed)?;
            }
            last = Some(key.to_vec());
            count += 1;
        }
        Ok(last.filter(|_| count == STEP))
    }

    /// Brings what is made of a row to where it is after this delta.
    pub(super) fn project(
        &mut self,
        no: TableNo,
        name: &[u8],
        delta: &Delta<'_>,
        open: &mut Open<'_>,
    ) -> Result<()> {
        let (Some(table), Some(projected)) = (self.tables.get(&no), &mut open.projected) else {
            return Ok(());
        };
        for at in 0..self.projecting.active.len() {
            let Some(number) = self.projecting.active.get(at).filter(|a| a.state.table == no) else {
                continue;
            };
            let place = row_name(number.state.number, delta.key);
            let made = match delta.record {
                Some(record) => {
                    let shapes = self.projecting.shapes_of(no, table);
                    let long = delta.longs().map(|(column, bytes)| (column, bytes.to_vec())).collect();
                    self.projecting.record(at, shapes, (name, record, long))?
                }
                None => None,
            };
            if fault::stale_projection() && projected.get(place.as_slice()).map_err(failed)?.is_some() {
                continue;
            }
            match made {
                Some(made) => drop(projected.insert(place.as_slice(), made.as_slice()).map_err(failed)?),
                None => drop(projected.remove(place.as_slice()).map_err(failed)?),
            }
        }
        Ok(())
    }

    /// Makes it of rows that were put where nothing stood.
    pub(super) fn project_new(&mut self, no: TableNo, rows: &Deltas, open: &mut Open<'_>) -> Result<()> {
        if open.projected.is_none() || self.projecting.of_table(no).next().is_none() {
            return Ok(());
        }
        let mut name = prefix(no).to_vec();
        for delta in rows.iter() {
            name.truncate(4);
            name.extend_from_slice(delta.key);
            self.project(no, &name, &delta, open)?;
        }
        Ok(())
    }

    /// A table was defined: if it is new, its projections are, too.
    pub(super) fn project_defined(&mut self, no: TableNo) {
        self.projecting.shapes.remove(&no);
        let Some(name) = self.tables.get(&no).map(|t| t.table.name.clone()) else { return };
        // Of a table that has rows it was made before the first window.
        if self.counts.get(&no).is_none_or(|n| *n == 0) {
            self.projecting.add(no, &name, true);
        }
    }

    /// A table is gone, with what was made of it.
    pub(super) fn project_forget(&mut self, no: TableNo, open: &mut Open<'_>) -> Result<()> {
        self.projecting.shapes.remove(&no);
        let Some(projected) = &mut open.projected else { return Ok(()) };
        for active in self.projecting.active.iter().filter(|a| a.state.table == no) {
            take_all(projected, &prefix(active.state.number))?;
        }
        let before = self.projecting.active.len();
        self.projecting.active.retain(|a| a.state.table != no);
        self.projecting.touched |= before != self.projecting.active.len();
        Ok(())
    }

    /// Writes down which projections there are, if that has changed.
    pub(super) fn close_projections(&mut self, open: &mut Open<'_>) -> Result<()> {
        if std::mem::take(&mut self.projecting.touched) {
            let states = encode_projections(&self.projecting.states())?;
            open.meta.insert(PROJECTIONS, states.as_slice()).map_err(failed)?;
        }
        Ok(())
    }

    /// Compares what was made of the rows of a range with what they give now, and says or mends what differs.
    pub(super) fn verify_projected(
        &mut self,
        range: &Range,
        (lower, upper): (Bound<Vec<u8>>, Bound<Vec<u8>>),
        open: &mut Open<'_>,
    ) -> Result<()> {
        if range.purpose == Purpose::Reconcile {
            return Ok(());
        }
        for at in 0..self.projecting.active.len() {
            let of = self.projecting.active.get(at).map(|a| a.state.clone());
            let Some(state) = of.filter(|s| s.table == range.table) else { continue };
            let there = |bound: &Bound<Vec<u8>>, number: u32| {
                bound.as_ref().map(|name| row_name(number, name.get(4..).unwrap_or_default()))
            };
            let (from, to) = (
                there(&lower, state.number),
                match &upper {
                    Bound::Included(_) => there(&upper, state.number),
                    _ => after_all(&prefix(state.number)),
                },
            );
            for (name, made) in self.differing(at, &state, ((&lower, &upper), (&from, &to)), open)? {
                let key = name.get(4..).unwrap_or_default();
                self.differ(range, key, "has another record in a projection");
                let Some(projected) = open.projected.as_mut().filter(|_| range.purpose == Purpose::Repair)
                else {
                    continue;
                };
                match made {
                    Some(made) => drop(projected.insert(name.as_slice(), made.as_slice()).map_err(failed)?),
                    None => drop(projected.remove(name.as_slice()).map_err(failed)?),
                }
            }
        }
        Ok(())
    }

    /// The records of a projection that are not what the rows give, and what they should be.
    fn differing(
        &mut self,
        at: usize,
        state: &ProjectionState,
        ((lower, upper), (from, to)): (Bounds<'_>, Bounds<'_>),
        open: &Open<'_>,
    ) -> Result<Vec<Differing>> {
        let (Some(table), Some(projected)) = (self.tables.get(&state.table), &open.projected) else {
            return Ok(Vec::new());
        };
        let shapes = self.projecting.shapes_of(state.table, table);
        let mut found = Vec::new();
        let rows = (lower.as_ref().map(Vec::as_slice), upper.as_ref().map(Vec::as_slice));
        for entry in open.rows.range::<&[u8]>(rows).map_err(failed)? {
            let (name, record) = entry.map_err(failed)?;
            let (name, record) = (name.value(), record.value());
            let long = if has_long(record) { longs(&open.pieces, name)? } else { Vec::new() };
            let made = self.projecting.record(at, Arc::clone(&shapes), (name, record, long))?;
            let place = row_name(state.number, name.get(4..).unwrap_or_default());
            let stands = projected.get(place.as_slice()).map_err(failed)?;
            if stands.as_ref().map(redb::AccessGuard::value) != made.as_deref() {
                found.push((place, made));
            }
        }
        let records = (from.as_ref().map(Vec::as_slice), to.as_ref().map(Vec::as_slice));
        for entry in projected.range::<&[u8]>(records).map_err(failed)? {
            let (place, _) = entry.map_err(failed)?;
            let name = row_name(state.table, place.value().get(4..).unwrap_or_default());
            if open.rows.get(name.as_slice()).map_err(failed)?.is_none() {
                found.push((place.value().to_vec(), None));
            }
        }
        Ok(found)
    }
}

/// The name of a record, and what should stand there.
type Differing = (Vec<u8>, Option<Vec<u8>>);
type Bounds<'a> = (&'a Bound<Vec<u8>>, &'a Bound<Vec<u8>>);

/// # Errors
/// `Usage`, always: what to say where there is no such projection to be read.
pub(super) fn missing<T>(table: &str, name: &str, version: u32, states: &[ProjectionState]) -> Result<T> {
    let there = match states.iter().find(|s| s.name == name) {
        Some(s) if s.through.is_some() => "it is being made".to_owned(),
        Some(s) if s.version != version => format!("version {} is there", s.version),
        Some(_) => "its type was another one; raise its version with it".to_owned(),
        None if states.is_empty() => "it has none".to_owned(),
        None => {
            let names: Vec<String> = states.iter().map(|s| format!("{:?}", s.name)).collect();
            format!("it has {}", names.join(", "))
        }
    };
    Err(Error::usage(format!(
        "table {table}: no projection {name:?} in version {version}; {there}; a replicator that is `projecting` makes it"
    )))
}
