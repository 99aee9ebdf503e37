//! What changed, kept: each window's net changes go into redb in the same transaction as its rows.
//!
//! Nothing here runs unless somebody subscribes or `keep_changes` asks for it. A change is what a key's row was
//! before the window and after it; what is the same is no change. Windows are pruned whole, oldest first. redb's
//! tables here: CHANGES (`window number + table number + canonical key` to both rows), WINDOWS (by number, where and
//! when each ended) and SHAPES (the definitions by which kept rows were read).

use super::apply::{Open, Writer, after_all};
use super::guard::failed;
use super::{HISTORY, META, TABLES, cursor_in, prefix};
use crate::config::{Config, KeepChanges};
use crate::cursor::{Cursor, Nonce, Position};
use crate::error::Result;
use crate::fault;
use crate::record::history::{
    Floor, History, Kept, Net, Side, decode_history, decode_kept, decode_net, encode_history, encode_kept,
    encode_net, encode_shape,
};
use crate::record::state::{TableState, decode_table};
use crate::record::{self, Archived, Delta, Deltas, has_long, same_values, unseal};
use crate::schema::Table;
use crate::window::{End, TableNo};
use redb::{ReadableTable, TableDefinition, WriteTransaction};
use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

pub(super) const CHANGES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("redtail.changes");
pub(super) const WINDOWS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("redtail.windows");
pub(super) const SHAPES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("redtail.shapes");

/// Old windows that one transaction prunes at most: more than it adds, and never for long.
const PRUNE: usize = 64;
/// Rows of a table that is gone, looked at at once.
const GONE: usize = 10_000;

/// Whether changes are recorded, and up to which window they can be told. One for each open replica.
pub(super) struct Recorder {
    subscribers: AtomicUsize,
    visible: watch::Sender<Told>,
    durable: watch::Sender<Told>,
}

/// Up to which window, of which history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub id: u64,
    pub next: u64,
}

impl Recorder {
    pub fn new() -> Self {
        let told = || watch::Sender::new(Told::default());
        Self { subscribers: AtomicUsize::new(0), visible: told(), durable: told() }
    }

    pub fn has_subscribers(&self) -> bool {
        self.subscribers.load(Ordering::Acquire) > 0
    }

    pub fn subscribe(&self) {
        self.subscribers.fetch_add(1, Ordering::AcqRel);
    }

    pub fn unsubscribe(&self) {
        self.subscribers.fetch_sub(1, Ordering::AcqRel);
    }

    pub fn told(&self, durable: bool) -> watch::Receiver<Told> {
        if durable { self.durable.subscribe() } else { self.visible.subscribe() }
    }

    /// What was there when the replica was opened is on disk.
    pub fn begun(&self, history: &History) {
        let told = Told { id: history.id, next: history.next };
        for sender in [&self.visible, &self.durable] {
            sender.send_if_modified(|now| now.id != told.id && std::mem::replace(now, told) != told);
        }
    }

    fn committed(&self, told: Told, durable: bool) {
        self.visible.send_replace(told);
        if durable {
            self.durable.send_replace(told);
        }
    }

    pub fn synced(&self) {
        let now = *self.visible.borrow();
        self.durable.send_if_modified(|was| std::mem::replace(was, now) != now);
    }
}

/// What the writer knows of recording.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Limits {
    keep: Option<KeepChanges>,
    /// How many changes a subscriber may be behind.
    subscriber_rows: u64,
}

impl Limits {
    pub fn of(config: &Config) -> Self {
        Self { keep: config.keep_changes, subscriber_rows: config.subscriber_rows }
    }

    fn rows(self, subscribed: bool) -> u64 {
        let kept = self.keep.map_or(0, |k| k.rows);
        if subscribed { kept.max(self.subscriber_rows) } else { kept }
    }

    fn age(self, subscribed: bool) -> Option<Duration> {
        self.keep.filter(|_| !subscribed).and_then(|k| k.age)
    }
}

/// redb's tables of the history, in one write transaction that records.
pub(super) struct Recording<'t> {
    changes: redb::Table<'t, &'static [u8], &'static [u8]>,
    windows: redb::Table<'t, u64, &'static [u8]>,
    shapes: redb::Table<'t, &'static [u8], &'static [u8]>,
    history: History,
    /// Changes of this window so far, net.
    rows: u64,
    known: HashSet<(TableNo, u16)>,
    /// What comes was read from a range.
    pub reading: bool,
}

/// Opens the history to be recorded; `None` if nobody asks for it. What is left of an earlier one is deleted then.
/// `whole`: no table is being reconciled.
pub(super) fn begin<'t>(
    txn: &'t WriteTransaction,
    meta: &mut redb::Table<'t, &'static str, &'static [u8]>,
    recorder: &Recorder,
    (limits, whole): (Limits, bool),
    left: &mut bool,
) -> Result<Option<Recording<'t>>> {
    if limits.keep.is_none() && !recorder.has_subscribers() {
        if std::mem::take(left) {
            forget(txn, meta)?;
        }
        return Ok(None);
    }
    *left = true;
    let history = match stored(meta)? {
        Some(history) => history,
        None => start(cursor_in(meta)?, whole)?,
    };
    Ok(Some(Recording {
        changes: txn.open_table(CHANGES).map_err(failed)?,
        windows: txn.open_table(WINDOWS).map_err(failed)?,
        shapes: txn.open_table(SHAPES).map_err(failed)?,
        history,
        rows: 0,
        known: HashSet::new(),
        reading: false,
    }))
}

/// The history as this transaction has it; one is begun if there is none.
pub(super) fn ensure(txn: &WriteTransaction) -> Result<History> {
    let states = txn.open_table(TABLES).map_err(failed)?;
    let mut whole = true;
    for entry in states.iter().map_err(failed)? {
        whole &= decode_table(entry.map_err(failed)?.1.value())?.reconcile.is_none();
    }
    let mut meta = txn.open_table(META).map_err(failed)?;
    match stored(&meta)? {
        Some(history) => Ok(history),
        None => {
            let history = start(cursor_in(&meta)?, whole)?;
            meta.insert(HISTORY, encode_history(&history)?.as_slice()).map_err(failed)?;
            for table in [CHANGES, SHAPES] {
                txn.open_table(table).map_err(failed)?;
            }
            txn.open_table(WINDOWS).map_err(failed)?;
            Ok(history)
        }
    }
}

fn stored(meta: &impl ReadableTable<&'static str, &'static [u8]>) -> Result<Option<History>> {
    meta.get(HISTORY).map_err(failed)?.map(|h| decode_history(h.value())).transpose()
}

/// A history that begins where the replica is.
fn start(at: Option<Cursor>, whole: bool) -> Result<History> {
    let id = Nonce::new()?.0.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let settled = at.filter(|c| whole && c.seq == c.horizon).map(|c| c.position());
    let floor = at.map(|c| Floor { position: c.position(), exact: settled.is_some() });
    Ok(History { id, next: 0, rows: 0, floor, settled })
}

fn forget(txn: &WriteTransaction, meta: &mut redb::Table<'_, &'static str, &'static [u8]>) -> Result<()> {
    for table in [CHANGES, SHAPES] {
        txn.delete_table(table).map_err(failed)?;
    }
    txn.delete_table(WINDOWS).map_err(failed)?;
    meta.remove(HISTORY).map_err(failed)?;
    Ok(())
}

pub(super) fn change_name(window: u64, name: &[u8]) -> Vec<u8> {
    [window.to_be_bytes().as_slice(), name].concat()
}

pub(super) fn shape_name(no: TableNo, shape: u16) -> Vec<u8> {
    [no.to_be_bytes().as_slice(), shape.to_be_bytes().as_slice()].concat()
}

/// The definition of this number, if the table has or had it.
pub(super) fn definition(state: &TableState, shape: u16) -> Option<&Table> {
    let current = (state.shape == shape).then_some(&state.table);
    current.or_else(|| state.former.iter().rfind(|(n, _)| *n == shape).map(|(_, t)| t))
}

impl Recording<'_> {
    /// Notes what becomes of a row. `before` is what it is now: what it was before the window stands already if the
    /// window touched it before.
    fn note(
        &mut self,
        (no, state): (TableNo, &TableState),
        name: &[u8],
        before: Option<Side>,
        after: Option<Side>,
    ) -> Result<()> {
        if fault::drops_change() {
            return Ok(());
        }
        let place = change_name(self.history.next, name);
        let earlier =
            self.changes.get(place.as_slice()).map_err(failed)?.map(|n| decode_net(n.value())).transpose()?;
        let touched = earlier.is_some();
        let before = earlier.map_or(before, |net| net.before);
        let same = match (&before, &after) {
            (None, None) => true,
            (Some(a), Some(b)) => is_same(state, &a.record, &b.record),
            _ => false,
        };
        if same {
            if touched {
                self.changes.remove(place.as_slice()).map_err(failed)?;
                self.rows -= 1;
            }
            return Ok(());
        }
        for side in before.iter().chain(&after) {
            self.define(no, state, &side.record)?;
        }
        let net = Net { read: self.reading, before, after };
        self.changes.insert(place.as_slice(), encode_net(&net)?.as_slice()).map_err(failed)?;
        self.rows += u64::from(!touched);
        Ok(())
    }

    fn define(&mut self, no: TableNo, state: &TableState, record: &[u8]) -> Result<()> {
        let shape = record::shape(record);
        if !self.known.contains(&(no, shape)) {
            let Some(table) = definition(state, shape) else { return Ok(()) };
            self.known.insert((no, shape));
            let name = shape_name(no, shape);
            self.shapes.insert(name.as_slice(), encode_shape(shape, table)?.as_slice()).map_err(failed)?;
        }
        Ok(())
    }

    /// Ends the window: nothing of it is kept if nothing changed. Prunes what is beyond the limits.
    pub fn close(
        mut self,
        meta: &mut redb::Table<'_, &'static str, &'static [u8]>,
        end: &End,
        consistent: bool,
        (limits, subscribed): (Limits, bool),
    ) -> Result<Told> {
        let position = end.cursor.position();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        if self.rows > 0 && !fault::drops_window() {
            let fresh = self.history.settled != Some(position);
            let kept = Kept { position, fresh, consistent, time_ms, rows: self.rows };
            self.windows.insert(self.history.next, encode_kept(&kept)?.as_slice()).map_err(failed)?;
            self.history.next += 1;
            self.history.rows += self.rows;
        }
        if consistent {
            self.history.settled = Some(position);
        }
        self.history.floor.get_or_insert(Floor { position, exact: true });
        self.prune(limits.rows(subscribed), limits.age(subscribed), time_ms)?;
        meta.insert(HISTORY, encode_history(&self.history)?.as_slice()).map_err(failed)?;
        Ok(Told { id: self.history.id, next: self.history.next })
    }

    fn prune(&mut self, rows: u64, age: Option<Duration>, now_ms: u64) -> Result<()> {
        let oldest = age.map(|age| now_ms.saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)));
        for _ in 0..PRUNE {
            let first = self.windows.first().map_err(failed)?;
            let Some((number, kept)) = first
                .map(|(n, k)| Ok::<_, crate::Error>((n.value(), decode_kept(k.value())?)))
                .transpose()?
            else {
                return Ok(());
            };
            let old = oldest.is_some_and(|oldest| kept.time_ms < oldest);
            // The newest stays, however large it is: nobody could have seen it.
            if number + 1 >= self.history.next || !(self.history.rows > rows || old) {
                return Ok(());
            }
            let lower = number.to_be_bytes();
            let upper = after_all(&lower);
            let bounds = (Bound::Included(lower.as_slice()), upper.as_ref().map(Vec::as_slice));
            self.changes.retain_in::<&[u8], _>(bounds, |_, _| false).map_err(failed)?;
            self.windows.remove(number).map_err(failed)?;
            self.history.rows = self.history.rows.saturating_sub(kept.rows);
            let floor = self.history.floor;
            let higher = |f: &Position| f.log_id == kept.position.log_id && f.seq > kept.position.seq;
            let back = floor.map(|f| f.position).filter(higher);
            let lost = floor.is_some_and(|f| f.position == kept.position && !f.exact);
            self.history.floor = Some(match back {
                // The source went back once: whoever stands in between may have seen either.
                Some(higher) => Floor { position: higher, exact: false },
                None => Floor { position: kept.position, exact: kept.fresh && !lost },
            });
        }
        Ok(())
    }
}

/// Whether two records say the same: the same values in columns of the same names.
fn is_same(state: &TableState, a: &[u8], b: &[u8]) -> bool {
    if !same_values(a, b) {
        return false;
    }
    let (a, b) = (record::shape(a), record::shape(b));
    let names = |t: &Table| t.columns.iter().map(|c| c.name.clone()).collect::<Vec<_>>();
    a == b || definition(state, a).map(names) == definition(state, b).map(names)
}

/// A row as it stands, with its long values; `None` if there is none, or if it is damaged: then it is as good as new.
fn standing(open: &Open<'_>, name: &[u8]) -> Result<Option<Side>> {
    let Some(record) = open.rows.get(name).map_err(failed)?.map(|r| r.value().to_vec()) else {
        return Ok(None);
    };
    if Archived::new(&record).is_err() {
        return Ok(None);
    }
    let longs = if has_long(&record) { longs(&open.pieces, name)? } else { Vec::new() };
    Ok(Some(Side { record, longs }))
}

pub(super) fn longs(
    pieces: &impl ReadableTable<&'static [u8], &'static [u8]>,
    name: &[u8],
) -> Result<Vec<(u16, Vec<u8>)>> {
    let upper = after_all(name);
    let bounds = (Bound::Included(name), upper.as_ref().map(Vec::as_slice));
    let mut columns: BTreeMap<u16, Vec<u8>> = BTreeMap::new();
    for entry in pieces.range::<&[u8]>(bounds).map_err(failed)? {
        let (place, piece) = entry.map_err(failed)?;
        let Some((column, _)) = place.value().get(name.len()..).and_then(<[u8]>::split_first_chunk::<2>)
        else {
            continue;
        };
        columns.entry(u16::from_be_bytes(*column)).or_default().extend_from_slice(unseal(piece.value())?);
    }
    Ok(columns.into_iter().collect())
}

fn coming(delta: &Delta<'_>) -> Option<Side> {
    let longs = || delta.longs().map(|(column, bytes)| (column, bytes.to_vec())).collect();
    delta.record.map(|record| Side { record: record.to_vec(), longs: longs() })
}

impl Writer {
    /// Notes what a delta is about to change.
    pub(super) fn note(
        &self,
        no: TableNo,
        name: &[u8],
        delta: &Delta<'_>,
        open: &mut Open<'_>,
    ) -> Result<()> {
        let Some(state) = self.tables.get(&no) else { return Ok(()) };
        let before = standing(open, name)?;
        let Some(recording) = &mut open.recording else { return Ok(()) };
        recording.note((no, state), name, before, coming(delta))
    }

    /// Notes rows that were put where nothing stood.
    pub(super) fn note_new(&self, no: TableNo, rows: &Deltas, open: &mut Open<'_>) -> Result<()> {
        let (Some(state), Some(recording)) = (self.tables.get(&no), &mut open.recording) else {
            return Ok(());
        };
        let mut name = prefix(no).to_vec();
        for delta in rows.iter() {
            name.truncate(4);
            name.extend_from_slice(delta.key);
            recording.note((no, state), &name, None, coming(&delta))?;
        }
        Ok(())
    }

    /// Notes that every row of a table is about to go.
    pub(super) fn note_gone(&self, no: TableNo, open: &mut Open<'_>) -> Result<()> {
        let Some(state) = self.tables.get(&no).filter(|_| open.recording.is_some()) else { return Ok(()) };
        let upper = after_all(&prefix(no));
        let mut lower = Bound::Included(prefix(no).to_vec());
        loop {
            let bounds = (lower.as_ref().map(Vec::as_slice), upper.as_ref().map(Vec::as_slice));
            let mut names = Vec::new();
            for entry in open.rows.range::<&[u8]>(bounds).map_err(failed)?.take(GONE) {
                names.push(entry.map_err(failed)?.0.value().to_vec());
            }
            for name in &names {
                let before = standing(open, name)?;
                if let Some(recording) = &mut open.recording {
                    recording.note((no, state), name, before, None)?;
                }
            }
            match names.pop() {
                Some(last) => lower = Bound::Excluded(last),
                None => return Ok(()),
            }
        }
    }

    /// No table is being reconciled.
    pub(super) fn is_whole(&self) -> bool {
        self.tables.values().all(|t| t.reconcile.is_none())
    }

    /// Ends what is recorded of a window, if anything is.
    pub(super) fn close_recording(&self, open: &mut Open<'_>, end: &End) -> Result<Option<Told>> {
        let Some(recording) = open.recording.take() else { return Ok(None) };
        let consistent = self.is_whole() && end.cursor.seq == end.cursor.horizon;
        let limits = (self.recorded, self.replica.recorder.has_subscribers());
        recording.close(&mut open.meta, end, consistent, limits).map(Some)
    }

    /// Tells subscribers of what was committed.
    pub(super) fn tell(&self, told: Option<Told>, durable: bool) {
        if let Some(told) = told {
            self.replica.recorder.committed(told, durable);
        }
    }
}
