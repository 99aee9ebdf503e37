//! The one write: pieces of windows go into redb, rows and cursor in one transaction.
//!
//! Must never commit before a window's end, and never commit rows without the cursor that they belong
//! to. Windows that have arrived meanwhile join the transaction; only a backlog's are waited for.

use super::history::{self, Limits, Recording};
use super::index::{INDEX, Indexes};
use super::projecting::{PROJECTED, Projecting};
use super::{
    CURSOR, META, NEXT, PAST, PIECES, ROWS, Replica, SEEN, TABLES, count_name, failed, guard, meta, prefix,
};
use crate::config::{Config, Durability};
use crate::error::{Error, Kind, Result};
use crate::fault;
use crate::record::state::{TableState, encode_cursor, encode_past, encode_table};
use crate::record::{Delta, Deltas, has_long, pieces, seal};
use crate::source::local::Pieces;
use crate::value::Value;
use crate::window::{Change, End, Piece, REMEMBER, Remembered, TableNo};
use crate::work::Brought;
use futures::FutureExt as _;
use redb::ReadableTable as _;
use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

/// Windows that may share one transaction: enough to catch up with what arrived during one fsync.
const MERGE: usize = 4;
/// Old windows are forgotten once in so many.
const FORGET_EVERY: u64 = 256;

/// One committed transaction, as the world is told of it.
#[derive(Clone, Debug)]
pub(crate) struct Applied {
    pub end: End,
    /// When the commit returned: from here on readers see it.
    pub at: Instant,
    /// It is on disk, not only visible.
    pub durable: bool,
    /// Nothing, if it only put on disk what was visible.
    pub brought: Brought,
    pub reconciling: Vec<String>,
}

/// A key at which replica and source differ.
///
/// ```no_run
/// # async fn follow(replicator: &redtail::Replicator) -> redtail::Result<()> {
/// for difference in replicator.verify(&[], false).await?.differences {
///     println!("{} {:?}: {}", difference.table, difference.key, difference.what);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Difference {
    /// The table's name.
    pub table: String,
    /// The key's components, in canonical form.
    pub key: Vec<Value>,
    /// What differs: the row is missing in the replica, is only there, or has other values.
    pub what: &'static str,
}

/// Differences that a comparison found: the first ones named, all of them counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Differences {
    pub named: Vec<Difference>,
    pub count: u64,
}

pub(crate) struct Writer {
    pub(super) replica: Replica,
    durability: Durability,
    pub(super) indexes: Indexes,
    pub(super) projecting: Projecting,
    pub(super) recorded: Limits,
    /// There may be something of an earlier recording.
    left: bool,
    pub(super) tables: BTreeMap<TableNo, TableState>,
    pub(super) counts: BTreeMap<TableNo, u64>,
    next_no: TableNo,
    /// Tables that are being reconciled by sweep: what is put is marked as seen.
    pub(super) sweeping: HashSet<TableNo>,
    pub differences: Differences,
    /// Rows that ranges brought, for any purpose.
    pub copied: u64,
    /// Windows that were remembered since the start.
    remembered: u64,
    /// When the oldest commit that is not on disk yet was made.
    unsynced: Option<Instant>,
    /// The stream of windows ended with an error: it is not the replica's.
    source_failed: bool,
    /// What the stream ended with once whole windows were there to be committed.
    failed_next: Option<Error>,
    /// Whole windows were given up with one that was cut off: alone, they would have been applied.
    pub lost: bool,
    /// The last row's name in redb: its room is used again.
    name: Vec<u8>,
}

/// redb's tables of one write transaction.
pub(super) struct Open<'t> {
    pub meta: redb::Table<'t, &'static str, &'static [u8]>,
    pub states: redb::Table<'t, u32, &'static [u8]>,
    pub rows: redb::Table<'t, &'static [u8], &'static [u8]>,
    pub pieces: redb::Table<'t, &'static [u8], &'static [u8]>,
    pub seen: redb::Table<'t, &'static [u8], ()>,
    pub past: redb::Table<'t, u64, &'static [u8]>,
    /// Set where what changes is recorded.
    pub recording: Option<Recording<'t>>,
    /// Set where there are secondary indexes.
    pub index: Option<redb::Table<'t, &'static [u8], &'static [u8]>>,
    /// Set where an application has projections.
    pub projected: Option<redb::Table<'t, &'static [u8], &'static [u8]>>,
}

/// What one transaction has touched besides rows.
#[derive(Default)]
pub(super) struct Touched {
    pub states: HashSet<TableNo>,
    pub counts: HashSet<TableNo>,
    pub brought: Brought,
}

impl Writer {
    pub fn new(replica: &Replica, durability: Durability) -> Result<Self> {
        let start = replica.start()?;
        let read = replica.db.begin_read()?;
        let counts = replica.guarded(|| {
            let mut counts = BTreeMap::new();
            for (no, _) in &start.tables {
                let count = meta(&read, &count_name(*no))?.and_then(|b| b.try_into().ok());
                counts.insert(*no, count.map_or(0, u64::from_le_bytes));
            }
            Ok(counts)
        })?;
        let by_sweep = |(_, t): &&(TableNo, TableState)| t.reconcile.as_ref().is_some_and(|p| p.by_sweep);
        let sweeping = start.tables.iter().filter(by_sweep).map(|(no, _)| *no).collect();
        Ok(Self {
            replica: replica.clone(),
            durability,
            indexes: Indexes::default(),
            projecting: Projecting::default(),
            recorded: Limits::default(),
            left: true,
            tables: start.tables.into_iter().collect(),
            counts,
            next_no: start.next_no,
            sweeping,
            differences: Differences::default(),
            copied: 0,
            remembered: 0,
            unsynced: None,
            source_failed: false,
            failed_next: None,
            lost: false,
            name: Vec::new(),
        })
    }

    /// Records what changes as the configuration says.
    pub fn recording(mut self, config: &Config) -> Self {
        self.recorded = Limits::of(config);
        self
    }

    /// Applies windows until the stream ends. Returns once everything that was applied is on disk.
    ///
    /// # Errors
    /// The stream's own, and the replica's, by what caused them.
    pub async fn run(&mut self, pieces: Pieces, publish: impl FnMut(Applied)) -> Result<()> {
        // What a panic leaves behind is given up: the next session has a new writer.
        let ended = AssertUnwindSafe(self.apply(pieces, publish)).catch_unwind().await;
        let ended = ended.unwrap_or_else(|panic| Err(guard::panicked(panic.as_ref())));
        if self.source_failed { ended } else { self.replica.db.watched.noted(ended) }
    }

    async fn apply(&mut self, mut pieces: Pieces, mut publish: impl FnMut(Applied)) -> Result<()> {
        loop {
            let next = match (self.durability, self.unsynced) {
                (Durability::Interval(every), Some(since)) => {
                    let due = tokio::time::Instant::from_std(since + every);
                    match tokio::time::timeout_at(due, pieces.next()).await {
                        Ok(next) => next,
                        Err(_) => {
                            self.sync(&mut publish)?;
                            continue;
                        }
                    }
                }
                _ => pieces.next().await,
            };
            let Some(first) = next else { break };
            let first = self.received(first)?;
            let Some(applied) = self.transaction(first, &mut pieces).await? else { break };
            publish(applied);
            if let Some(e) = self.failed_next.take() {
                self.source_failed = true;
                return Err(e);
            }
        }
        if self.unsynced.is_some() { self.sync(&mut publish) } else { Ok(()) }
    }

    fn received(&mut self, piece: Result<Piece>) -> Result<Piece> {
        self.source_failed = piece.is_err();
        piece
    }

    /// Puts everything that is visible on disk: an empty commit with fsync.
    fn sync(&mut self, publish: &mut impl FnMut(Applied)) -> Result<()> {
        let start = self.replica.start()?;
        self.commit(self.replica.db.begin_write()?)?;
        self.unsynced = None;
        self.replica.recorder.synced();
        if let Some(cursor) = start.cursor {
            let at = Instant::now();
            let end = End { cursor, head: cursor.seq, read_at: at, done: false, gather: Duration::ZERO };
            let brought = Brought::default();
            publish(Applied { end, at, durable: true, brought, reconciling: self.reconciling() });
        }
        Ok(())
    }

    /// A commit that finds no room on the disk waits for it.
    fn commit(&self, txn: redb::WriteTransaction) -> Result<()> {
        self.replica.db.watched.health.committing(|| txn.commit().map_err(failed))
    }

    fn reconciling(&self) -> Vec<String> {
        self.tables.values().filter(|t| t.reconcile.is_some()).map(|t| t.table.name.clone()).collect()
    }

    /// One redb transaction: whole windows, their rows and the last one's cursor. `None` if the stream
    /// ended in the middle of a window: then nothing of it was applied.
    async fn transaction(&mut self, first: Piece, pieces: &mut Pieces) -> Result<Option<Applied>> {
        let db = std::sync::Arc::clone(&self.replica.db);
        if let (true, Some(end)) = (fault::cursor_apart(), &first.end) {
            let txn = db.begin_write()?;
            let cursor = encode_cursor(&end.cursor)?;
            drop(txn.open_table(META).map_err(failed)?.insert(CURSOR, cursor.as_slice()).map_err(failed)?);
            txn.commit().map_err(failed)?;
        }
        let mut txn = db.begin_write()?;
        let lazy = matches!(self.durability, Durability::Interval(_));
        if lazy {
            txn.set_durability(redb::Durability::None)
                .map_err(|e| Error::new(Kind::Replica, format!("replica: {e}")))?;
        }
        let mut touched = Touched::default();
        let (end, told) = {
            let mut open = Open {
                meta: txn.open_table(META).map_err(failed)?,
                states: txn.open_table(TABLES).map_err(failed)?,
                rows: txn.open_table(ROWS).map_err(failed)?,
                pieces: txn.open_table(PIECES).map_err(failed)?,
                seen: txn.open_table(SEEN).map_err(failed)?,
                past: txn.open_table(PAST).map_err(failed)?,
                recording: None,
                index: None,
                projected: None,
            };
            if !self.indexes.is_empty() {
                open.index = Some(txn.open_table(INDEX).map_err(failed)?);
            }
            if !self.projecting.is_empty() {
                open.projected = Some(txn.open_table(PROJECTED).map_err(failed)?);
            }
            let recorder = &self.replica.recorder;
            let how = (self.recorded, self.is_whole());
            open.recording = history::begin(&txn, &mut open.meta, recorder, how, &mut self.left)?;
            let Some(end) = self.windows(first, pieces, &mut open, &mut touched).await? else {
                return Ok(None);
            };
            self.close(&mut open, &touched, &end)?;
            self.close_indexes(&mut open)?;
            self.close_projections(&mut open)?;
            (end, self.close_recording(&mut open, &end)?)
        };
        self.commit(txn)?;
        self.tell(told, !lazy);
        let at = Instant::now();
        if lazy {
            self.unsynced.get_or_insert(at);
        }
        self.copied += touched.brought.copied;
        let reconciling = self.reconciling();
        Ok(Some(Applied {
            end,
            at,
            durable: !lazy || fault::early_ack(),
            brought: touched.brought,
            reconciling,
        }))
    }

    /// Applies pieces up to the end of a window, and those windows that are there by then.
    async fn windows(
        &mut self,
        first: Piece,
        pieces: &mut Pieces,
        open: &mut Open<'_>,
        touched: &mut Touched,
    ) -> Result<Option<End>> {
        let began = Instant::now();
        let mut piece = first;
        let mut merged = 1;
        let mut whole = None;
        loop {
            for change in piece.changes {
                self.change(change, open, touched)?;
            }
            let between = piece.end.is_some();
            let mut until = None;
            if let Some(end) = piece.end {
                touched.brought.windows += 1;
                // What is recorded of a transaction is for those who want it soon.
                let gathers = open.recording.is_none() && began.elapsed() < end.gather;
                if end.done || !gathers && (merged >= MERGE || pieces.is_empty()) {
                    return Ok(Some(end));
                }
                merged += 1;
                whole = Some(end);
                until = gathers.then(|| tokio::time::Instant::from_std(began + end.gather));
            }
            // What was to come at once may not: the source may be away by now.
            let next = match until {
                Some(until) => match tokio::time::timeout_at(until, pieces.next()).await {
                    Ok(next) => next,
                    Err(_) => return Ok(whole),
                },
                None => pieces.next().await,
            };
            piece = match next {
                Some(Ok(piece)) => piece,
                ended if between => {
                    self.failed_next = ended.and_then(Result::err);
                    return Ok(whole);
                }
                ended => {
                    self.lost = whole.is_some();
                    return ended.map_or(Ok(None), |e| self.received(e).map(|_| None));
                }
            };
        }
    }

    /// Writes what belongs to the rows: states, counts and the cursor.
    fn close(&self, open: &mut Open<'_>, touched: &Touched, end: &End) -> Result<()> {
        for no in &touched.states {
            match self.tables.get(no) {
                Some(state) => drop(open.states.insert(no, encode_table(state)?.as_slice()).map_err(failed)?),
                None => drop(open.states.remove(no).map_err(failed)?),
            }
        }
        for no in &touched.counts {
            let name = count_name(*no);
            match self.counts.get(no) {
                Some(n) => {
                    drop(open.meta.insert(name.as_str(), seal(&n.to_le_bytes()).as_slice()).map_err(failed)?);
                }
                None => drop(open.meta.remove(name.as_str()).map_err(failed)?),
            }
        }
        if !touched.states.is_empty() {
            open.meta.insert(NEXT, seal(&self.next_no.to_le_bytes()).as_slice()).map_err(failed)?;
        }
        open.meta.insert(CURSOR, encode_cursor(&end.cursor)?.as_slice()).map_err(failed)?;
        Ok(())
    }

    fn change(&mut self, change: Change, open: &mut Open<'_>, touched: &mut Touched) -> Result<()> {
        match change {
            Change::Define(no, state) => {
                self.next_no = self.next_no.max(no + 1);
                self.tables.insert(no, *state);
                self.index_defined(no);
                self.project_defined(no);
                self.counts.entry(no).or_default();
                touched.states.insert(no);
                touched.counts.insert(no);
            }
            Change::Forget(no) => {
                self.note_gone(no, open)?;
                self.index_forget(no, open)?;
                self.project_forget(no, open)?;
                take_all(&mut open.rows, &prefix(no))?;
                take_all(&mut open.pieces, &prefix(no))?;
                self.tables.remove(&no);
                self.counts.remove(&no);
                touched.states.insert(no);
                touched.counts.insert(no);
            }
            Change::Deltas(no, deltas) => {
                self.seen_null_keys(no, &deltas, touched);
                touched.brought.changed += deltas.len() as u64;
                touched.brought.bytes += deltas.bytes() as u64;
                for delta in deltas.iter().filter(|_| !fault::drops_delta()) {
                    self.delta(no, &delta, open)?;
                }
                touched.counts.insert(no);
            }
            Change::Keep(no, kept) => {
                if let Some(state) = self.tables.get_mut(&no) {
                    state.kept = kept;
                    touched.states.insert(no);
                }
            }
            Change::Range(range) => {
                open.recording.iter_mut().for_each(|r| r.reading = true);
                self.range(range, open, touched)?;
                open.recording.iter_mut().for_each(|r| r.reading = false);
            }
            Change::Remember(entries) => self.remember(&entries, open)?,
            Change::ForgetPast => open.past.retain(|_, _| false).map_err(failed)?,
        }
        Ok(())
    }

    fn remember(&mut self, entries: &[Remembered], open: &mut Open<'_>) -> Result<()> {
        let Some(last) = entries.last() else { return Ok(()) };
        open.past.insert(last.seq, encode_past(entries)?.as_slice()).map_err(failed)?;
        self.remembered += 1;
        if self.remembered.is_multiple_of(FORGET_EVERY) {
            open.past.retain_in(..last.seq.saturating_sub(REMEMBER), |_, _| false).map_err(failed)?;
        }
        Ok(())
    }

    pub(super) fn seen_null_keys(&mut self, no: TableNo, deltas: &Deltas, touched: &mut Touched) {
        if let Some(state) = self.tables.get_mut(&no).filter(|t| deltas.null_keys && !t.null_keys) {
            state.null_keys = true;
            touched.states.insert(no);
        }
    }

    pub(super) fn delta(&mut self, no: TableNo, delta: &Delta<'_>, open: &mut Open<'_>) -> Result<()> {
        let mut name = std::mem::take(&mut self.name);
        name.clear();
        name.extend_from_slice(&prefix(no));
        name.extend_from_slice(delta.key);
        let done = self.delta_under(no, &name, delta, open);
        self.name = name;
        done
    }

    fn delta_under(
        &mut self,
        no: TableNo,
        name: &[u8],
        delta: &Delta<'_>,
        open: &mut Open<'_>,
    ) -> Result<()> {
        if open.recording.is_some() {
            self.note(no, name, delta, open)?;
        }
        if open.index.is_some() {
            self.reindex(no, name, delta, open)?;
        }
        if open.projected.is_some() {
            self.project(no, name, delta, open)?;
        }
        if self.sweeping.contains(&no) {
            match delta.record {
                Some(_) => drop(open.seen.insert(name, ()).map_err(failed)?),
                None => drop(open.seen.remove(name).map_err(failed)?),
            }
        }
        let count = self.counts.entry(no).or_default();
        let had_long = match delta.record {
            Some(record) => {
                let old = open.rows.insert(name, record).map_err(failed)?;
                *count += u64::from(old.is_none());
                old.is_some_and(|old| has_long(old.value()))
            }
            None => {
                let old = open.rows.remove(name).map_err(failed)?;
                *count -= u64::from(old.is_some());
                old.is_some_and(|old| has_long(old.value()))
            }
        };
        if had_long {
            take_all(&mut open.pieces, name)?;
        }
        put_longs(name, delta, open)
    }
}

pub(super) fn row_name(no: TableNo, key: &[u8]) -> Vec<u8> {
    [prefix(no).as_slice(), key].concat()
}

/// The name behind everything that begins with `prefix`.
pub(super) fn after_all(prefix: &[u8]) -> Bound<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xFF {
            end.push(last + 1);
            return Bound::Excluded(end);
        }
    }
    Bound::Unbounded
}

pub(super) fn take_all<V: redb::Value + 'static>(
    table: &mut redb::Table<'_, &'static [u8], V>,
    prefix: &[u8],
) -> Result<()> {
    let upper = after_all(prefix);
    table
        .retain_in::<&[u8], _>((Bound::Included(prefix), upper.as_ref().map(Vec::as_slice)), |_, _| false)
        .map_err(failed)
}

/// Takes out the first so many of what begins with `prefix`; answers whether that was all.
pub(super) fn take_some(
    table: &mut redb::Table<'_, &'static [u8], &'static [u8]>,
    prefix: &[u8],
    most: usize,
) -> Result<bool> {
    let upper = after_all(prefix);
    let bounds = (Bound::Included(prefix), upper.as_ref().map(Vec::as_slice));
    let mut names = Vec::new();
    for entry in table.range::<&[u8]>(bounds).map_err(failed)?.take(most) {
        names.push(entry.map_err(failed)?.0.value().to_vec());
    }
    for name in &names {
        table.remove(name.as_slice()).map_err(failed)?;
    }
    Ok(names.len() < most)
}

pub(super) fn put_longs(name: &[u8], delta: &Delta<'_>, open: &mut Open<'_>) -> Result<()> {
    for (column, bytes) in delta.longs() {
        for (i, piece) in (0u32..).zip(pieces(bytes, name.len())) {
            let name = [name, column.to_be_bytes().as_slice(), i.to_be_bytes().as_slice()].concat();
            open.pieces.insert(name.as_slice(), seal(piece).as_slice()).map_err(failed)?;
        }
    }
    Ok(())
}
