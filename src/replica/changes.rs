//! Reads what changed: windows of the kept history, part by part, each in a view of its own.
//!
//! A reader holds no view between two parts: the history it has not come to yet may be pruned under its feet, and
//! then it is told so.

use super::guard::failed;
use super::history::{CHANGES, SHAPES, Told, WINDOWS, change_name, ensure, shape_name};
use super::row::{Definitions, Row, Shapes};
use super::{HISTORY, META, Replica, apply::after_all, cursor};
use crate::cursor::Position;
use crate::error::{Error, Kind, Result};
use crate::record::history::{
    History, Kept, Net, Side, decode_history, decode_kept, decode_net, decode_shape,
};
use crate::schema::Table;
use crate::value::Value;
use crate::window::TableNo;
use redb::{ReadTransaction, ReadableTable as _};
use std::collections::HashMap;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// What happened to a row.
///
/// ```
/// use redtail::Op;
///
/// assert_eq!([Op::Create, Op::Update, Op::Delete, Op::Read].map(Op::letter), ["c", "u", "d", "r"]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Op {
    /// It is new in the source.
    Create,
    /// It has other values, or other columns.
    Update,
    /// It is gone, or no longer among what is replicated.
    Delete,
    /// It is new here, and was found by reading the table: a first copy, or a repair.
    Read,
}

impl Op {
    /// The letter by which Debezium's envelope names it: `c`, `u`, `d`, `r`.
    #[must_use]
    pub fn letter(self) -> &'static str {
        match self {
            Self::Create => "c",
            Self::Update => "u",
            Self::Delete => "d",
            Self::Read => "r",
        }
    }
}

/// What became of one row in a window: its state before the window and after it, whatever lay between.
///
/// ```no_run
/// # fn told(change: &redtail::Change) -> redtail::Result<()> {
/// let was = change.before().map(|row| row.text("name")).transpose()?.flatten();
/// let is = change.after().map(|row| row.text("name")).transpose()?.flatten();
/// println!("{} {:?}: {was:?} is {is:?} now", change.table().name, change.key()?);
/// # Ok(())
/// # }
/// ```
pub struct Change {
    op: Op,
    before: Option<Row>,
    after: Option<Row>,
}

impl Change {
    /// What happened to the row.
    #[must_use]
    pub fn op(&self) -> Op {
        self.op
    }

    /// The row as the replica had it before the window; `None` if it had none.
    #[must_use]
    pub fn before(&self) -> Option<&Row> {
        self.before.as_ref()
    }

    /// The row as the replica has it after the window; `None` if it has none.
    #[must_use]
    pub fn after(&self) -> Option<&Row> {
        self.after.as_ref()
    }

    /// The row after the window, or, if it is gone, the one before.
    #[must_use]
    pub fn row(&self) -> &Row {
        let row = self.after.as_ref().or(self.before.as_ref());
        row.unwrap_or_else(|| unreachable!("a change has one side at least"))
    }

    /// The definition by which [`Change::row`] was read from the source.
    #[must_use]
    pub fn table(&self) -> &Table {
        self.row().table()
    }

    /// The row's key, as [`Row::key`] gives it.
    ///
    /// # Errors
    /// `Damaged` if it cannot be read.
    pub fn key(&self) -> Result<Vec<Value>> {
        self.row().key()
    }

    /// The columns whose values differ between before and after; all of them where only one side is there.
    ///
    /// # Errors
    /// `Damaged` if a row cannot be read.
    pub fn changed(&self) -> Result<Vec<&str>> {
        let row = self.row();
        let (Some(before), Some(_)) = (&self.before, &self.after) else {
            return Ok(row.columns().iter().map(|c| c.name.as_str()).collect());
        };
        let (values, old) = (row.values()?, before.values()?);
        let differs = |(i, name): (usize, &str)| {
            let was = before.columns().iter().position(|c| c.name == name);
            (was.and_then(|was| old.get(was)) != values.get(i)).then(|| row.columns().get(i))
        };
        let mut changed: Vec<&str> = (row.columns().iter().enumerate())
            .filter_map(|(i, c)| differs((i, &c.name)).flatten())
            .map(|c| c.name.as_str())
            .collect();
        let gone = before.columns().iter().filter(|c| !row.columns().iter().any(|n| n.name == c.name));
        changed.extend(gone.map(|c| c.name.as_str()));
        Ok(changed)
    }
}

/// What one window changed, net: a key stands in it at most once. A large one comes in parts.
///
/// ```no_run
/// # async fn follow(replicator: &redtail::Replicator) -> redtail::Result<()> {
/// let mut changes = replicator.changes().await?;
/// while let Some(window) = changes.next().await.transpose()? {
///     println!("{} changes up to {}", window.changes.len(), window.position);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Window {
    /// The window's end.
    pub position: Position,
    /// From where to resume once these changes are dealt with: the last end of a window at which the replica showed one
    /// state of the source. It moves on with the last part of a consistent window; `None` before the first.
    pub resume: Option<Position>,
    /// This is the window's last part.
    pub is_last: bool,
    /// The replica showed one state of the source after this window.
    pub consistent: bool,
    /// When it was applied, by the clock of this machine.
    pub applied_at: SystemTime,
    /// The changes, by table and key.
    pub changes: Vec<Change>,
}

/// How much of a window comes at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub rows: usize,
    pub bytes: usize,
}

/// A place in the history.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    history: u64,
    /// The window that comes next, or that is being read.
    window: u64,
    /// The name in it behind which to go on; empty at its start.
    after: Vec<u8>,
    /// The end of the last window that was told whole, and consistent.
    resume: Option<Position>,
}

/// As long as it is held, changes are recorded.
pub(crate) struct Subscription(Replica);

impl Drop for Subscription {
    fn drop(&mut self) {
        self.0.recorder.unsubscribe();
    }
}

impl Subscription {
    pub fn told(&self, durable: bool) -> watch::Receiver<Told> {
        self.0.recorder.told(durable)
    }

    pub fn replica(&self) -> &Replica {
        &self.0
    }
}

impl Place {
    pub fn resume(&self) -> Option<Position> {
        self.resume
    }

    /// Whether there is something behind it.
    ///
    /// Another history counts: whoever reads on is told that it is not his.
    pub fn is_before(&self, told: Told) -> bool {
        if told.id == self.history { self.window < told.next } else { told != Told::default() }
    }

    /// Goes on behind everything that a snapshot shows.
    ///
    /// `position`: where it is, if it is consistent.
    pub fn skip_to(&mut self, told: Told, position: Option<Position>) {
        if told.id == self.history && told.next > self.window {
            (self.window, self.resume) = (told.next, position);
            self.after.clear();
        }
    }
}

impl Replica {
    /// Has every change recorded from here on. Waits for the writer's transaction to end: what it does not record is
    /// in every snapshot that is taken after this call.
    pub(crate) fn subscribe(&self) -> Result<(Subscription, Place)> {
        let txn = self.db.begin_write()?;
        self.recorder.subscribe();
        let subscription = Subscription(self.clone());
        let history = self.guarded(|| {
            let history = ensure(&txn)?;
            txn.commit().map_err(failed)?;
            Ok(history)
        })?;
        self.recorder.begun(&history);
        // Where it was settled last, unless it has moved on since without being consistent: then that is told again.
        let resume = history.settled;
        Ok((subscription, Place { history: history.id, window: history.next, after: Vec::new(), resume }))
    }

    /// The place behind a position; `None` if nothing was ever recorded.
    ///
    /// # Errors
    /// `Lagged` if changes behind it are no longer kept, `Divergence` if it is of another log, or ahead.
    pub(crate) fn place_of(&self, position: Position) -> Result<Option<Place>> {
        let read = self.db.begin_read()?;
        self.guarded(|| {
            let Some(history) = history(&read)? else { return Ok(None) };
            let at = cursor(&read)?.map(|c| c.position());
            let window = find(&read, &history, position, at)?;
            Ok(Some(Place { history: history.id, window, after: Vec::new(), resume: Some(position) }))
        })
    }

    /// Whoever subscribes finds the history that was kept so far.
    pub(super) fn begin_history(&self) -> Result<()> {
        let read = self.db.begin_read()?;
        if let Some(history) = self.guarded(|| history(&read))? {
            self.recorder.begun(&history);
        }
        Ok(())
    }

    /// The next part of what changed behind a place; `None` at the history's end.
    ///
    /// # Errors
    /// `Lagged` if it is no longer kept.
    pub(crate) fn part(&self, place: &mut Place, limits: Part) -> Result<Option<Window>> {
        let read = self.db.begin_read()?;
        self.guarded(|| {
            let history =
                history(&read)?.filter(|h| h.id == place.history).ok_or_else(|| anew(place.resume))?;
            if place.window >= history.next {
                return Ok(None);
            }
            let windows = read.open_table(WINDOWS).map_err(failed)?;
            let kept =
                windows.get(place.window).map_err(failed)?.map(|k| decode_kept(k.value())).transpose()?;
            let Some(kept) = kept else { return Err(lagged(place.resume, &history)) };
            read_part(&read, place, &kept, limits).map(Some)
        })
    }
}

/// What a replica has kept of what changed, window by window, up to its end.
///
/// ```no_run
/// # fn list(replica: &redtail::Replica, from: redtail::Position) -> redtail::Result<()> {
/// for window in replica.kept_changes(Some(from))? {
///     println!("{} changes up to {}", window.as_ref().map_or(0, |w| w.changes.len()), window?.position);
/// }
/// # Ok(())
/// # }
/// ```
pub struct KeptChanges {
    replica: Replica,
    place: Place,
    part: Part,
    ended: bool,
}

impl Replica {
    /// What is kept of what changed behind a position, or of all, whether or not anything follows the source now.
    /// Nothing is kept unless [`crate::Config::keep_changes`] says so.
    ///
    /// # Errors
    /// `Lagged` if changes behind the position are no longer kept, or nothing ever was; `Divergence` if it is of
    /// another log, or ahead.
    pub fn kept_changes(&self, from: Option<Position>) -> Result<KeptChanges> {
        let place = match from {
            Some(position) => self.place_of(position)?,
            None => self.oldest()?,
        };
        let place =
            place.ok_or_else(|| Error::new(Kind::Lagged, "changes: none are kept (`keep_changes`)"))?;
        let defaults = crate::Config::default();
        let part = Part { rows: defaults.chunk_rows, bytes: defaults.chunk_bytes };
        Ok(KeptChanges { replica: self.clone(), place, part, ended: false })
    }

    fn oldest(&self) -> Result<Option<Place>> {
        let read = self.db.begin_read()?;
        self.guarded(|| {
            let Some(history) = history(&read)? else { return Ok(None) };
            let windows = read.open_table(WINDOWS).map_err(failed)?;
            let window = windows.first().map_err(failed)?.map_or(history.next, |(number, _)| number.value());
            // What is kept begins somewhere in the past of what there is.
            let resume = None;
            Ok(Some(Place { history: history.id, window, after: Vec::new(), resume }))
        })
    }
}

impl Iterator for KeptChanges {
    type Item = Result<Window>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.replica.part(&mut self.place, self.part);
        self.ended = !matches!(next, Ok(Some(_)));
        next.transpose()
    }
}

pub(super) fn told(read: &ReadTransaction) -> Result<Told> {
    Ok(history(read)?.map_or_else(Told::default, |h| Told { id: h.id, next: h.next }))
}

pub(super) fn history(read: &ReadTransaction) -> Result<Option<History>> {
    let meta = read.open_table(META).map_err(failed)?;
    let found = meta.get_owned(HISTORY).map_err(failed)?;
    found.map(|h| decode_history(h.value())).transpose()
}

/// The first window that somebody at this position may not have seen.
fn find(read: &ReadTransaction, history: &History, position: Position, at: Option<Position>) -> Result<u64> {
    let same = |p: Position| p.log_id == position.log_id;
    let floor = history.floor.filter(|f| same(f.position));
    if floor.is_some_and(|f| position.seq < f.position.seq || (position == f.position && !f.exact)) {
        return Err(lagged(Some(position), history));
    }
    let (mut first, mut behind, mut met) = (None, None, false);
    let windows = read.open_table(WINDOWS).map_err(failed)?;
    for entry in windows.iter().map_err(failed)? {
        let (number, kept) = entry.map_err(failed)?;
        let (number, kept) = (number.value(), decode_kept(kept.value())?);
        first.get_or_insert(number);
        // Whoever was consistent there has seen what led there. A later repair ends where it began, and is none of it.
        let seen = kept.position == position && kept.fresh;
        if met || (same(kept.position) && kept.position.seq >= position.seq) {
            if !seen {
                return Ok(number);
            }
            met = true;
        }
        if same(kept.position) {
            behind = Some(number + 1);
        }
    }
    if met {
        return Ok(history.next);
    }
    let known = behind.is_some() || floor.is_some() || at.is_some_and(same);
    if !known {
        let what = format!("position {position}: it is not of a log that this replica has followed");
        return Err(Error::new(Kind::Divergence, what));
    }
    if at.is_some_and(|at| same(at) && position.seq > at.seq) {
        let what =
            format!("position {position}: it is ahead of this replica, which went back with its source");
        return Err(Error::new(Kind::Divergence, what));
    }
    // The log ended with the last of its windows, or goes on behind it.
    Ok(behind
        .unwrap_or_else(|| if at.is_some_and(same) { history.next } else { first.unwrap_or(history.next) }))
}

fn lagged(from: Option<Position>, history: &History) -> Error {
    let from = from.map_or_else(|| "the beginning".to_owned(), |p| format!("position {p}"));
    let kept = history.floor.map_or_else(|| "nothing".to_owned(), |f| f.position.to_string());
    let what = format!(
        "changes behind {from} are no longer kept (the oldest follow {kept}): take a snapshot, and go on from there"
    );
    Error::new(Kind::Lagged, what)
}

fn anew(from: Option<Position>) -> Error {
    let from = from.map_or_else(|| "the beginning".to_owned(), |p| format!("position {p}"));
    let what =
        format!("changes behind {from}: the replica was made anew; take a snapshot, and go on from there");
    Error::new(Kind::Lagged, what)
}

/// Tells what became of a key. Where it is spelt anew (`a` and `A` under NOCASE, 1 and 1.0), somebody who goes by the
/// spelling has two rows: the old one goes, the new one comes.
fn tell(read: bool, before: Option<Row>, after: Option<Row>, out: &mut Vec<Change>) -> Result<()> {
    let (before, after) = match (before, after) {
        (Some(before), Some(after)) if before.key()? != after.key()? => {
            out.push(Change { op: Op::Delete, before: Some(before), after: None });
            (None, Some(after))
        }
        sides => sides,
    };
    let op = match (&before, &after) {
        (None, _) if read => Op::Read,
        (None, _) => Op::Create,
        (Some(_), Some(_)) => Op::Update,
        (Some(_), None) => Op::Delete,
    };
    out.push(Change { op, before, after });
    Ok(())
}

fn read_part(read: &ReadTransaction, place: &mut Place, kept: &Kept, limits: Part) -> Result<Window> {
    let changes = read.open_table(CHANGES).map_err(failed)?;
    let shapes = read.open_table(SHAPES).map_err(failed)?;
    let mut known: HashMap<(TableNo, u16), Shapes> = HashMap::new();
    let upper = after_all(&place.window.to_be_bytes());
    let lower = change_name(place.window, &place.after);
    let bounds = (Bound::Excluded(lower.as_slice()), upper.as_ref().map(Vec::as_slice));
    let (mut out, mut bytes, mut is_last) = (Vec::new(), 0, true);
    for entry in changes.range::<&[u8]>(bounds).map_err(failed)? {
        let (name, net) = entry.map_err(failed)?;
        if out.len() >= limits.rows || bytes >= limits.bytes {
            is_last = false;
            break;
        }
        let name = name.value().get(8..).unwrap_or_default();
        bytes += net.value().len();
        let mut row = |side: Side| {
            let no: TableNo = name.first_chunk().map_or(0, |no| u32::from_be_bytes(*no));
            let at = (no, crate::record::shape(&side.record));
            let shapes = match known.get(&at) {
                Some(found) => Arc::clone(found),
                None => {
                    let stored = shapes.get(shape_name(at.0, at.1).as_slice()).map_err(failed)?;
                    let stored = stored.ok_or_else(|| {
                        Error::new(
                            Kind::Damaged,
                            "replica: a kept change has a shape that its table never had",
                        )
                    })?;
                    let all = vec![(at.1, decode_shape(stored.value())?)];
                    let found = Arc::new(Definitions { all, ticket: None });
                    known.insert(at, Arc::clone(&found));
                    found
                }
            };
            Row::kept(name.to_vec(), side, shapes)
        };
        let Net { read, before, after } = decode_net(net.value())?;
        let before = before.map(&mut row).transpose()?;
        let after = after.map(&mut row).transpose()?;
        place.after = name.to_vec();
        tell(read, before, after, &mut out)?;
    }
    if is_last {
        place.after.clear();
        place.window += 1;
        if kept.consistent {
            place.resume = Some(kept.position);
        }
    }
    Ok(Window {
        position: kept.position,
        resume: place.resume,
        is_last,
        consistent: kept.consistent,
        applied_at: UNIX_EPOCH + Duration::from_millis(kept.time_ms),
        changes: out,
    })
}

/// Operation and table; no values.
impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = &self.table().name;
        f.debug_struct("Change").field("op", &self.op).field("table", table).finish_non_exhaustive()
    }
}

/// From where on.
impl fmt::Debug for KeptChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptChanges").field("place", &self.place).finish_non_exhaustive()
    }
}
