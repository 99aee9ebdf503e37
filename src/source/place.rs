//! Where the replica stands in the source's history, and whether it still is that history.
//!
//! A source can be restored from a backup, replaced, or rewound by a power loss. That is found before
//! anything is applied: by the log id, by the head, and by the fingerprints of the entries at the cursor
//! and at the horizon. Where an older entry still matches, the keys entered since then are read again;
//! otherwise every table is reconciled.

use super::exact::entry;
use super::local::{Follower, Observer, Tracked};
use crate::capture::HEAD;
use crate::config::OnDivergence;
use crate::cursor::{Cursor, LogId};
use crate::error::{Error, Kind, Result};
use crate::record::state::Progress;
use crate::value::{Value, digest};
use crate::window::{Change, Kept, Piece, REMEMBER, Remembered, TableNo};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::ControlFlow;
use std::time::Instant;

/// What every window looks at first.
#[derive(Clone, Copy)]
pub(super) struct Look {
    pub head: u64,
    pub log_id: LogId,
}

/// What a range of entries is about.
#[derive(Default)]
pub(super) struct Recent {
    /// The fingerprint of the entry that the range begins behind; `None` if it is gone.
    pub at_start: Option<u64>,
    /// The ids of the tables that they name.
    pub ids: HashSet<i64>,
    /// The fingerprint of the last one.
    pub fingerprint: u64,
    /// How many there are: numbers have no gaps, unless somebody made one.
    pub count: u64,
    /// Up to where entries were asked for, and where they end.
    pub ends: (u64, u64),
    /// The last of them, for the replica to remember.
    entries: Vec<Remembered>,
    /// There are older ones, which are not remembered.
    more: bool,
    /// Triggers that were gone by then have written one.
    pub strange: bool,
}

/// The last entry up to `?2`.
const LAST: &str = "min(?2, (SELECT max(seq) FROM _redtail_changelog))";

/// Head and log id.
pub(super) fn look_query() -> String {
    format!("SELECT {HEAD}, (SELECT value FROM _redtail_meta WHERE name = 'log')")
}

/// The tables named by entries that are too old to be remembered, and with each of them how many such entries there
/// are. GROUP BY would sort them all.
pub(super) fn others_query() -> String {
    let those = format!("FROM _redtail_changelog WHERE seq > ?1 AND seq <= max(?1, {LAST} - {REMEMBER})");
    format!("SELECT DISTINCT tbl, (SELECT count(*) {those}) {those}")
}

/// The entry with this seq.
pub(super) fn fingerprint_query() -> String {
    let list = entry(&["tbl", "op", "at", "k0", "k1"].map(str::to_owned));
    format!("SELECT {list} FROM _redtail_changelog WHERE seq = ?1")
}

/// The newest entry.
pub(super) fn head_query() -> String {
    fingerprint_query().replace("?1", "(SELECT max(seq) FROM _redtail_changelog)")
}

impl<O: Observer> Follower<O> {
    /// The head and the log id. `None` if somebody emptied the changelog.
    pub(super) fn look(&mut self) -> Result<Option<Look>> {
        let found = self.sql.rows(&look_query(), &[], |row| {
            let head = if let Value::Integer(head) = row.value(0)? { u64::try_from(head).ok() } else { None };
            let log_id =
                if let Value::Blob(id) = row.value(1)? { id.try_into().ok().map(LogId) } else { None };
            Ok(ControlFlow::Break((head, log_id)))
        })?;
        Ok(found.and_then(|(head, log_id)| Some(Look { head: head?, log_id: log_id.unwrap_or_default() })))
    }

    /// Whether this is a server that shows less than the replica has, of the same log: one that lags, unless
    /// it stays so for longer than `lagging`.
    pub(super) fn is_behind(&mut self, look: Look) -> bool {
        let ahead = |c: Cursor| c.log_id == look.log_id && c.horizon > look.head;
        if !self.sql.is_server() || !self.cursor.is_some_and(ahead) {
            self.behind = None;
            return false;
        }
        if self.behind.is_none() {
            let (shown, head, lagging) = (&self.address, look.head, self.config.lagging);
            tracing::warn!(
                "source {shown}: its head {head} is below the replica's; waited for, up to {lagging:?}"
            );
        }
        self.behind.get_or_insert_with(Instant::now).elapsed() < self.config.lagging
    }

    /// Where the next window begins, and what its entries are about.
    pub(super) fn begin_window(&mut self, look: Look, piece: &mut Piece) -> Result<(Cursor, Recent)> {
        self.sample(look.head)?;
        // A server was asked for so many already.
        let width = if self.sql.is_server() { self.paging.begun } else { self.window_entries() };
        let ends = |seq: u64| (seq.saturating_add(width), look.head.min(seq.saturating_add(width)));
        let mut recent = match self.cursor {
            Some(Cursor { seq, .. }) => self.recent(seq, ends(seq))?,
            None => Recent::default(),
        };
        let cursor = self.locate(look, recent.at_start, piece)?;
        if self.cursor.map(|c| c.seq) != Some(cursor.seq) {
            recent = self.recent(cursor.seq, ends(cursor.seq))?;
        }
        Ok((cursor, recent))
    }

    /// The cursor to read from: the replica's, if the source still has the history it belongs to. `at_cursor` is
    /// the fingerprint of the entry that stands there.
    fn locate(&mut self, look: Look, at_cursor: Option<u64>, piece: &mut Piece) -> Result<Cursor> {
        let Look { head, log_id } = look;
        let Some(cursor) = self.cursor else { return self.begin_here(log_id, head, piece) };
        let why = if cursor.log_id != log_id {
            Some("its capture was installed anew".to_owned())
        } else if cursor.horizon > head {
            Some(format!("its changelog ends at {head}, before {}", cursor.horizon))
        } else if at_cursor != Some(cursor.fingerprint) {
            Some(format!("entry {} is gone or another one", cursor.seq))
        } else if cursor.horizon != cursor.seq
            && self.fingerprint(cursor.horizon)? != Some(cursor.horizon_fingerprint)
        {
            Some(format!("entry {} is gone or another one", cursor.horizon))
        } else {
            return Ok(cursor);
        };
        let why = why.unwrap_or_default();
        if self.in_flight {
            return Err(self.diverged_in_flight(&why));
        }
        if let Some(common) = self.common_past(cursor, log_id, head)? {
            let shown = self.address.to_string();
            tracing::warn!(
                "source {shown} went back: {why}; what changed since entry {} is read again",
                common.seq
            );
            self.observer.diverged(false);
            self.doubt_rowids(piece);
            self.read_again(common.seq, piece)?;
            return Ok(common);
        }
        self.begin_anew(&why, look, piece)
    }

    /// What was handed on since the start is not in `past`: look again from the replica's cursor.
    fn diverged_in_flight(&self, why: &str) -> Error {
        Error::new(Kind::Unavailable, format!("source {} diverged: {why}", self.address))
    }

    /// A cursor behind entries that are missing: what they named is not known.
    pub(super) fn begin_behind(&mut self, missing: u64, look: Look, piece: &mut Piece) -> Result<Cursor> {
        let why = format!("entries are missing behind {}: {missing}", self.cursor.map_or(0, |c| c.seq));
        if self.in_flight {
            return Err(self.diverged_in_flight(&why));
        }
        self.begin_anew(&why, look, piece)
    }

    /// A cursor at the head, every table left to reconcile, if that is wanted.
    fn begin_anew(&mut self, why: &str, look: Look, piece: &mut Piece) -> Result<Cursor> {
        let shown = self.address.to_string();
        if self.config.on_divergence == OnDivergence::Stop || !self.may_repair() {
            let what = format!(
                "source {shown} diverged from the replica: {why}; run with on_divergence = \"rebuild\" to read it anew"
            );
            return Err(Error::new(Kind::Divergence, what));
        }
        tracing::warn!("source {shown} diverged from the replica: {why}; every table is reconciled");
        self.observer.diverged(true);
        self.reconcile_all(piece);
        self.begin_here(look.log_id, look.head, piece)
    }

    pub(super) fn reconcile_all(&mut self, piece: &mut Piece) {
        for (no, tracked) in &mut self.tables {
            reconcile(*no, tracked, piece);
        }
    }

    /// The newest remembered entry that the source still has, as a cursor.
    ///
    /// A row may have been read at the horizon; only where that is the cursor do the remembered keys name
    /// every row that is newer than the common entry.
    fn common_past(&mut self, cursor: Cursor, log_id: LogId, head: u64) -> Result<Option<Cursor>> {
        if cursor.log_id != log_id || cursor.horizon != cursor.seq {
            return Ok(None);
        }
        let past: Vec<(u64, u64)> = self.past.iter().rev().map(|r| (r.seq, r.fingerprint)).collect();
        for (seq, fingerprint) in past.into_iter().filter(|(seq, _)| *seq <= head) {
            if self.fingerprint(seq)? == Some(fingerprint) {
                let (horizon, horizon_fingerprint) = (seq, fingerprint);
                return Ok(Some(Cursor { seq, fingerprint, horizon, horizon_fingerprint, ..cursor }));
            }
        }
        Ok(None)
    }

    /// Has tables reconciled that know rows by a rowid: a VACUUM in either history may have given them others,
    /// and two histories may have come to the same schema version.
    fn doubt_rowids(&mut self, piece: &mut Piece) {
        let by_rowid = |t: &Tracked| t.state.null_keys || t.state.table.key.has_rowid();
        for (no, tracked) in self.tables.iter_mut().filter(|(_, t)| by_rowid(t)) {
            reconcile(*no, tracked, piece);
        }
    }

    /// Reads every key again that was entered behind the common entry: in the source's new history it
    /// may have another row, or none, and no entry that says so.
    fn read_again(&mut self, common: u64, piece: &mut Piece) -> Result<()> {
        let mut keys: BTreeMap<TableNo, BTreeSet<Vec<u8>>> = BTreeMap::new();
        for r in self.past.iter().filter(|r| r.seq > common) {
            if let Some(table) = r.table {
                keys.entry(table).or_default().insert(r.key.clone());
            }
        }
        for (no, keys) in keys {
            let Some(tracked) = self.tables.get_mut(&no) else { continue };
            let Some(reader) = tracked.reader.as_ref() else { continue };
            if reader.selection.keep.is_some() {
                // Others may have come in their place.
                reconcile(no, tracked, piece);
                continue;
            }
            if tracked.state.reconcile.as_ref().is_some_and(|p| p.through.is_empty()) {
                continue; // Every row of it is read anyway, and its keys may have another form by now.
            }
            if let Some(deltas) = reader.keys(&mut self.sql, &keys)? {
                piece.changes.push(Change::Deltas(no, deltas));
            } else {
                reconcile(no, tracked, piece);
            }
        }
        piece.changes.push(Change::ForgetPast);
        self.recent(common - 1, (common, common))?.remember(piece);
        Ok(())
    }

    /// A cursor at the head: everything before it is left to reconcile.
    fn begin_here(&mut self, log_id: LogId, head: u64, piece: &mut Piece) -> Result<Cursor> {
        piece.changes.push(Change::ForgetPast);
        let mut recent = self.recent(head - 1, (head, head))?;
        recent.remember(piece);
        let fingerprint = recent.fingerprint;
        let (seq, horizon) = (head, head);
        Ok(Cursor {
            log_id,
            seq,
            fingerprint,
            horizon,
            horizon_fingerprint: fingerprint,
            ..Cursor::default()
        })
    }

    /// The columns of an entry that are remembered.
    fn entry_columns(&self) -> Vec<String> {
        let width = self.tables.values().map(|t| t.state.table.key.width()).max().unwrap_or(0).max(2);
        let keys = (0..width).map(|i| format!("k{i}"));
        ["tbl", "op", "at"].map(str::to_owned).into_iter().chain(keys).collect()
    }

    /// The last entries of a range, and the one before them.
    pub(super) fn recent_query(&self) -> String {
        let list = entry(&self.entry_columns());
        format!(
            "SELECT seq, {list} FROM _redtail_changelog WHERE seq >= max(?1, {LAST} - {REMEMBER}) AND seq <= ?2 ORDER BY seq"
        )
    }

    /// What the entries of `(after, bound]` are about; `through` is where they end.
    fn recent(&mut self, after: u64, (bound, through): (u64, u64)) -> Result<Recent> {
        let from = after.max(through.saturating_sub(REMEMBER));
        let (query, columns) = (self.recent_query(), self.entry_columns());
        let span = [integer(after), integer(bound)];
        let by_id: HashMap<i64, TableNo> =
            self.tables.iter().map(|(no, t)| (t.state.source_id, *no)).collect();
        let mut recent = Recent { more: from > after, ends: (bound, through), ..Recent::default() };
        let (tables, writers, next_id) = (&self.tables, &self.writers, self.next_id);
        self.sql.rows(&query, &span, |row| {
            let mut values = Vec::with_capacity(columns.len());
            row.exact(1, columns.len(), &mut values)?;
            let (seq, fingerprint) = (u64::try_from(row.integer(0)?).unwrap_or(0), fingerprint_of(&values));
            if seq <= from {
                recent.at_start = (seq == after).then_some(fingerprint);
                return Ok(ControlFlow::<()>::Continue(()));
            }
            let id = if let Some(Value::Integer(id)) = values.first() { *id } else { 0 };
            let table = by_id.get(&id).copied();
            let mut key = Vec::new();
            if let Some(tracked) = table.and_then(|no| tables.get(&no)) {
                tracked.state.table.key.encode(&mut key, values.iter().skip(3).map(Value::as_ref));
            }
            recent.ids.insert(id);
            recent.strange |= !writers.may_write(seq, id, next_id);
            recent.fingerprint = fingerprint;
            recent.entries.push(Remembered { seq, fingerprint, table, key });
            Ok(ControlFlow::Continue(()))
        })?;
        recent.count = recent.entries.len() as u64;
        if recent.more {
            recent.at_start = self.fingerprint(after)?;
            let (writers, mut others) = (&self.writers, 0);
            self.sql.rows(&others_query(), &span, |row| {
                if let Value::Integer(id) = row.value(0)? {
                    recent.ids.insert(id);
                    recent.strange |= !writers.may_write(after + 1, id, next_id);
                }
                others = u64::try_from(row.integer(1)?).unwrap_or(0);
                Ok(ControlFlow::<()>::Continue(()))
            })?;
            recent.count += others;
        }
        Ok(recent)
    }

    /// What tells the newest entry from another one of the same number.
    pub(super) fn fingerprint_of_head(&mut self) -> Result<Option<u64>> {
        self.sql.rows(&head_query(), &[], |row| {
            let mut values = Vec::new();
            row.exact(0, 5, &mut values)?;
            Ok(ControlFlow::Break(fingerprint_of(&values)))
        })
    }

    /// What tells this entry from another one of the same number; `None` if there is none.
    pub(super) fn fingerprint(&mut self, seq: u64) -> Result<Option<u64>> {
        self.sql.rows(&fingerprint_query(), &[integer(seq)], |row| {
            let mut values = Vec::new();
            row.exact(0, 5, &mut values)?;
            Ok(ControlFlow::Break(fingerprint_of(&values)))
        })
    }
}

impl Recent {
    /// Hands the entries on, for the replica to remember.
    pub fn remember(&mut self, piece: &mut Piece) {
        if self.more {
            piece.changes.push(Change::ForgetPast);
        }
        if !self.entries.is_empty() {
            piece.changes.push(Change::Remember(std::mem::take(&mut self.entries)));
        }
    }
}

/// Has a table read from its start.
pub(super) fn reconcile(no: TableNo, tracked: &mut Tracked, piece: &mut Piece) {
    tracked.state.reconcile = Some(Progress::default());
    tracked.state.kept = Kept::Unknown;
    if let Some(reader) = &mut tracked.reader {
        reader.kept = Kept::Unknown;
    }
    piece.changes.push(Change::Define(no, Box::new(tracked.state.clone())));
}

fn integer(n: u64) -> Value {
    Value::Integer(i64::try_from(n).unwrap_or(i64::MAX))
}

/// Of table, op, time and the first two key columns: those that every changelog has.
fn fingerprint_of(values: &[Value]) -> u64 {
    digest(values.iter().take(5))
}
