//! What the next window will ask of a server, so that one request answers all of it; and how much of it.
//!
//! Only what an undisturbed window asks: whatever else happens (an audit, a divergence, a row too large for
//! one answer) costs a snapshot of several round trips, by the same code.

use super::local::{Follower, Observer, Tracked};
use super::place;
use super::writers::Writers;
use crate::error::Result;
use crate::record::state::{Progress, TableState};
use crate::value::Value;
use crate::window::{Kept, TableNo};
use std::collections::{HashSet, VecDeque};
use std::time::Instant;

/// A statement and what is bound to it.
pub(super) type Wanted = (String, Vec<Value>);

/// How much is asked for at once; follows from how large the answers are.
#[derive(Debug)]
pub(super) struct Paging {
    /// Entries of a window.
    pub entries: u64,
    /// Rows of a range.
    pub rows: usize,
    /// Even one row is too large for one answer.
    pub in_pieces: bool,
    /// The next snapshot is asked statement by statement.
    pub closely: bool,
    /// The last window did not reach the head.
    pub catching_up: bool,
    /// How many entries the window has that was begun.
    pub begun: u64,
    /// The windows that are asked for behind it: the entry before each, and how many entries it has.
    asked: VecDeque<(u64, u64)>,
    busy: Busy,
}

/// The tables whose rows are asked for beforehand where there are many.
#[derive(Debug, Default)]
struct Busy {
    /// The ids of those of the last windows, the latest first.
    ids: Vec<i64>,
    /// The window has entries of others.
    surprised: bool,
    /// The last one had, and is read again.
    again: bool,
}

/// Each table that is asked for beforehand costs every window a statement; where there are more, only as many are.
const FORESEEN: usize = 8;

const MOST_ENTRIES: u64 = 40_000;
const MOST_ROWS: usize = 40_000;
/// Below this many bytes an answer may double.
const SMALL: usize = 2_500_000;

/// What a follower knew before a window.
pub(super) struct Before {
    tables: Vec<Was>,
    audited: Option<(i64, Instant)>,
    next_no: TableNo,
    next_id: i64,
    writers: Writers,
    schema: (i64, u64),
    verify_begun: bool,
}

struct Was {
    no: TableNo,
    state: TableState,
    compare: Option<Progress>,
    kept: Option<Kept>,
}

impl Default for Paging {
    fn default() -> Self {
        Self {
            entries: 4_000,
            rows: 4_000,
            in_pieces: false,
            closely: false,
            catching_up: false,
            begun: 0,
            asked: VecDeque::new(),
            busy: Busy::default(),
        }
    }
}

impl Paging {
    /// The server would not answer so much.
    pub fn shrink(&mut self) {
        if self.entries == 1 && self.rows == 1 {
            self.in_pieces = true;
        }
        self.entries = (self.entries / 4).max(1);
        self.rows = (self.rows / 4).max(1);
    }

    /// The window is about these tables; the next ones probably, too.
    pub fn will_read(&mut self, ids: &HashSet<i64>) {
        let Busy { ids: busy, surprised, .. } = &mut self.busy;
        *surprised = !ids.iter().all(|id| busy.contains(id));
        busy.retain(|id| !ids.contains(id));
        busy.splice(0..0, ids.iter().copied());
        busy.truncate(FORESEEN.max(ids.len()));
    }

    /// An answer of so many bytes came.
    pub fn answered(&mut self, bytes: usize) {
        self.in_pieces = false;
        if bytes < SMALL {
            self.entries = (self.entries * 2).min(MOST_ENTRIES);
            self.rows = (self.rows * 2).min(MOST_ROWS);
        } else if bytes > SMALL * 2 {
            self.entries = (self.entries * 3 / 4).max(1);
            self.rows = (self.rows * 3 / 4).max(1);
        }
    }
}

impl<O: Observer> Follower<O> {
    /// Nothing for a file, or where it is known beforehand that more will be asked.
    pub(super) fn foresee(&mut self) -> Vec<Wanted> {
        let closely = std::mem::take(&mut self.paging.closely);
        let cursor = self.cursor.filter(|_| !closely);
        if self.sql.asked_ahead() != self.paging.asked.len() {
            // Another transaction came between, an acknowledgement's: its answers are gone.
            self.paging.asked.clear();
        }
        let asked =
            self.paging.asked.pop_front().filter(|(after, _)| cursor.is_some_and(|c| c.seq == *after));
        self.paging.begun = asked.map_or_else(|| self.window_entries(), |(_, entries)| entries);
        if asked.is_none() {
            self.paging.asked.clear();
        }
        cursor.map_or_else(Vec::new, |c| self.foresee_from(c.seq, c.horizon, self.paging.begun))
    }

    /// Asks for the next window of a backlog before this one, which goes up to `through`, is taken apart; and for the
    /// one behind it, once this one is and if the head stands still: else it would not be wanted by then, because the
    /// horizon has moved.
    pub(super) fn ask_ahead(&mut self, through: u64, horizon: u64, most: usize) {
        if self.sql.asked_at().is_none() || self.paging.asked.len() >= most {
            return;
        }
        self.note_answer();
        self.paging.catching_up = true;
        let after =
            self.paging.asked.back().map_or(through, |(after, entries)| after.saturating_add(*entries));
        let entries = self.window_entries();
        let wanted = self.foresee_from(after, horizon, entries);
        if after < horizon && !wanted.is_empty() {
            self.paging.asked.push_back((after, entries));
            self.sql.ask_ahead(wanted);
        }
    }

    fn foresee_from(&self, after: u64, horizon: u64, entries: u64) -> Vec<Wanted> {
        let audited = self.audited.is_some_and(|(_, at)| at.elapsed() < self.audit_every());
        if !self.sql.is_server() || !audited || self.paging.in_pieces {
            return Vec::new();
        }
        let seq = Value::Integer(i64::try_from(after).unwrap_or(i64::MAX));
        let bound = after.saturating_add(entries);
        let span = [seq.clone(), Value::Integer(i64::try_from(bound).unwrap_or(i64::MAX))];
        let mut out =
            vec![("PRAGMA schema_version".to_owned(), Vec::new()), (place::look_query(), Vec::new())];
        if horizon != after {
            let horizon = Value::Integer(i64::try_from(horizon).unwrap_or(i64::MAX));
            out.push((place::fingerprint_query(), vec![horizon]));
        }
        out.push((self.recent_query(), span.to_vec()));
        if self.paging.catching_up {
            out.push((place::fingerprint_query(), vec![seq]));
            out.push((place::others_query(), span.to_vec()));
            out.push((place::head_query(), Vec::new()));
        }
        let few = self.tables.len() <= FORESEEN;
        for reader in self.tables.values().filter_map(|t| t.reader.as_ref()) {
            let foreseen = few || self.paging.busy.ids.contains(&reader.captured.id);
            if foreseen && reader.selection.keep.is_none() {
                out.extend(reader.window_queries((after, bound)));
            }
        }
        if !self.paging.catching_up {
            out.extend(self.range_queries());
        }
        out
    }

    fn range_queries(&self) -> Vec<Wanted> {
        let reconciling = self.tables.values().find(|t| t.state.reconcile.is_some());
        let comparing = || self.tables.values().find(|t| t.compare.is_some());
        let Some(tracked) = reconciling.or_else(comparing) else { return Vec::new() };
        let from: Option<&Progress> = tracked.state.reconcile.as_ref().or(tracked.compare.as_ref());
        match (from, tracked.reader.as_ref().filter(|r| r.selection.keep.is_none())) {
            (Some(from), Some(reader)) => reader.range_queries(from, self.range_rows()),
            _ => Vec::new(),
        }
    }

    /// What a window may change before it is known that it has to be read again; nothing for a file, where
    /// that cannot be.
    pub(super) fn before(&self) -> Option<Before> {
        let one = |(no, t): (&TableNo, &Tracked)| Was {
            no: *no,
            state: t.state.clone(),
            compare: t.compare.clone(),
            kept: t.reader.as_ref().map(|r| r.kept.clone()),
        };
        self.sql.is_server().then(|| Before {
            tables: self.tables.iter().map(one).collect(),
            audited: self.audited,
            next_no: self.next_no,
            next_id: self.next_id,
            writers: self.writers.clone(),
            schema: self.schema,
            verify_begun: self.verify_begun,
        })
    }

    /// Puts it back: whatever the window would have handed on is handed on by the next.
    pub(super) fn restore(&mut self, before: Before) {
        let mut now = std::mem::take(&mut self.tables);
        let same = before.audited == self.audited;
        for was in before.tables {
            let mut reader = now.remove(&was.no).and_then(|t| t.reader).filter(|_| same);
            if let (Some(reader), Some(kept)) = (&mut reader, was.kept) {
                reader.kept = kept;
            }
            self.tables.insert(was.no, Tracked { state: was.state, reader, compare: was.compare });
        }
        // Readers made by an audit of the window go with it.
        self.audited = before.audited.filter(|_| same);
        (self.next_no, self.next_id, self.schema) = (before.next_no, before.next_id, before.schema);
        self.verify_begun = before.verify_begun;
        self.writers = before.writers;
    }

    /// Begins the snapshot of a window, and says from when on it may be. `None` if it has to be begun again, with less
    /// or more closely.
    pub(super) fn begin(&mut self) -> Result<Option<Instant>> {
        self.sql.set_in_pieces(self.paging.in_pieces);
        let foreseen = self.foresee();
        let now = Instant::now();
        let begun = self.sql.begin(&foreseen);
        if self.sql.take_too_large() {
            self.paging.shrink();
            return Ok(None);
        }
        begun?;
        Ok(Some(self.sql.asked_at().unwrap_or(now)))
    }

    /// Not before the bounds of this window are no longer asked for.
    fn note_answer(&mut self) {
        if let Some(bytes) = self.sql.take_last_answer() {
            self.paging.answered(bytes);
        }
    }

    /// Whether what came of the snapshot is of no use, because it was too much or not foreseen.
    pub(super) fn is_to_repeat(&mut self, failed: bool) -> bool {
        let (missed, too_large) = (self.sql.take_missed(), self.sql.take_too_large());
        if failed && too_large && !self.paging.in_pieces {
            self.paging.shrink();
            self.paging.closely = true;
            return true;
        }
        let surprised = std::mem::take(&mut self.paging.busy.surprised);
        // Once: there may be yet another table each time.
        let again = !std::mem::take(&mut self.paging.busy.again) && surprised;
        if failed && missed {
            (self.paging.closely, self.paging.busy.again) = (!again, again);
            return true;
        }
        if !failed {
            self.note_answer();
        }
        false
    }

    /// How many rows of a range are asked for at once.
    pub(super) fn range_rows(&self) -> usize {
        if self.sql.is_server() {
            return self.paging.rows.min(self.config.chunk_rows).max(1);
        }
        self.limits(Instant::now()).rows
    }
}
