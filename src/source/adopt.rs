//! Definitions: what is known of the tables against what this snapshot says.
//!
//! Runs in the window's own snapshot, so that a definition and the rows read by it belong together. It
//! only decides; repairs are `capture/install`'s.

use super::Skipped;
use super::local::{Follower, Observer, Tracked};
use super::read::Reader;
use super::select::Selection;
use super::sql::{JOURNAL_MODE, Sql, exact};
use super::writers;
use crate::capture::audit::{Audit, Captured, audit, foreseen};
use crate::error::{Error, Kind, Result};
use crate::fault;
use crate::record::state::{Progress, TableState};
use crate::value::digest;
use crate::window::{Change, Kept, Piece, TableNo};
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The whole schema is compared this often even if the schema version stands still: it can be set back.
const AUDIT_EVERY: Duration = Duration::from_secs(30);

const NEXT: &str = "SELECT value FROM _redtail_meta WHERE name = 'next'";

/// Whether the schema or its version has moved since the replica's rows were read.
#[derive(Clone, Copy, Debug)]
enum Moved {
    No,
    /// And the schema is another one.
    Seen,
    /// And the schema is the same to the letter.
    Unseen,
}

impl<O: Observer> Follower<O> {
    pub(super) fn is_audit_due(&self, schema_version: i64) -> bool {
        self.audited.is_none_or(|(version, _)| {
            !fault::ignore_schema_version() && (version != schema_version || self.is_audit_late())
        })
    }

    /// So long ago that the schema is compared though nothing is a sign of anything, in an idle source too.
    pub(super) fn is_audit_late(&self) -> bool {
        // On a busy machine the audit of the clock would find what a missing reset entry hides.
        !fault::ignore_schema_version()
            && !fault::no_reset()
            && self.audited.is_some_and(|(_, at)| at.elapsed() > self.audit_every())
    }

    /// A server bills by the row.
    pub(super) fn audit_every(&self) -> Duration {
        let every = if fault::hasty_clock() { AUDIT_EVERY / 100 } else { AUDIT_EVERY };
        if self.sql.is_server() { every * 10 } else { every }
    }

    /// Compares the whole schema with what is known. `false` if capture has to be repaired first.
    pub(super) fn audit(&mut self, schema_version: i64, read_at: Instant, piece: &mut Piece) -> Result<bool> {
        let mut foreseen = foreseen();
        foreseen.extend([NEXT, writers::IDS, JOURNAL_MODE].map(|query| (query.to_owned(), Vec::new())));
        self.sql.ahead(&foreseen)?;
        let mut found = self.known.with(|known| audit(&mut self.sql, &self.demand, known))?;
        let whole = found.is_whole();
        if !whole {
            if fault::reconcile_early() && self.early {
                found.captured.extend(found.broken.iter().map(|(t, _)| Captured::too_early(t)));
            } else if self.may_repair() {
                return Ok(false);
            } else {
                refuse_broken(&found)?;
            }
        }
        let hash = schema_hash(&mut self.sql)?;
        let before = self.cursor.map(|c| (c.schema_version, c.schema_hash));
        let moved = match before {
            // An equal version of another schema is that of another history: a copy was put back.
            Some(same) if same == (schema_version, hash) => Moved::No,
            // Nothing shows what moved it: something was dropped and made again as it was.
            Some((_, same)) if same == hash => Moved::Unseen,
            Some(_) => Moved::Seen,
            None => Moved::No,
        };
        self.schema = (schema_version, hash);
        let before = self.own_ids();
        self.adopt(&mut found, moved, piece)?;
        self.next_id = self.sql.integer(NEXT, &[])?.unwrap_or(0);
        if whole {
            self.audit_writers(&before)?;
        }
        self.observer.audited(&found);
        self.audited = Some((schema_version, read_at));
        let wal = self.sql.read_journal_mode()?;
        self.wake.set_wal(wal);
        self.observer.journal(wal);
        Ok(true)
    }

    /// Takes over the definitions of this snapshot: what is new or changed is defined and reconciled.
    fn adopt(&mut self, found: &mut Audit, moved: Moved, piece: &mut Piece) -> Result<()> {
        let readers = self.readers(found)?;
        let names: HashSet<&str> = found.captured.iter().map(|c| c.source.table.name.as_str()).collect();
        let gone: Vec<TableNo> = self
            .tables
            .iter()
            .filter(|(_, t)| !names.contains(t.state.table.name.as_str()))
            .map(|(no, _)| *no)
            .collect();
        for no in gone {
            self.tables.remove(&no);
            piece.changes.push(Change::Forget(no));
        }
        for reader in readers {
            self.adopt_table(reader, moved, piece);
        }
        Ok(())
    }

    /// How each captured table is read; one that cannot be read here (a function or collation that this
    /// process lacks) is skipped with the reason, never taken to be empty.
    fn readers(&mut self, found: &mut Audit) -> Result<Vec<Reader>> {
        let (mut all, mut readers) = (Vec::new(), Vec::new());
        for captured in std::mem::take(&mut found.captured) {
            if let Some(reader) = self.same_reader(&captured) {
                found.captured.push(captured);
                readers.push(reader);
                continue;
            }
            let config = self.config.table(&captured.source.table.name);
            let selection = Selection::of(&captured.source, config, &mut self.sql)?;
            all.push(Reader::new(captured, selection, self.sql.encoding(), self.config.max_row));
        }
        let checks: Vec<String> = all.iter().flat_map(Reader::checks).collect();
        self.sql.check_ahead(&checks)?;
        for reader in all {
            match reader.check(&mut self.sql) {
                Ok(()) => {
                    found.captured.push(reader.captured.clone());
                    readers.push(reader);
                }
                // That it could not be asked says nothing of the table.
                Err(e) if e.is_transient() => return Err(e),
                Err(e) => found.skipped.push(Skipped {
                    name: reader.captured.source.table.name.clone(),
                    reason: format!("it cannot be read here: {e}"),
                }),
            }
        }
        Ok(readers)
    }

    /// The reader of a table that has not moved since the last audit of this connection.
    fn same_reader(&mut self, captured: &Captured) -> Option<Reader> {
        let same =
            |r: &Reader| Arc::ptr_eq(&r.captured.source, &captured.source) && r.captured.id == captured.id;
        let tracked = self.tables.values_mut().find(|t| t.reader.as_ref().is_some_and(same));
        let mut reader = tracked?.reader.take()?;
        reader.captured = captured.clone();
        reader.kept = Kept::Unknown;
        Some(reader)
    }

    fn adopt_table(&mut self, mut reader: Reader, moved: Moved, piece: &mut Piece) {
        let captured = reader.captured.clone();
        let known = self.tables.iter().find(|(_, t)| t.state.table.name == captured.source.table.name);
        let known = known.map(|(no, t)| (*no, t.state.clone()));
        let fingerprint = captured.fingerprint ^ reader.selection.hash;
        let by_rowid = captured.source.table.key.has_rowid();
        let same = |s: &TableState| {
            let in_doubt = match moved {
                Moved::No => false,
                // VACUUM may have given rows other rowids.
                Moved::Seen => by_rowid || s.null_keys,
                Moved::Unseen => true,
            };
            s.fingerprint == fingerprint && s.table == reader.selection.table && !in_doubt
        };
        match known {
            Some((no, state)) if same(&state) => {
                reader.shape = state.shape;
                reader.kept.clone_from(&state.kept);
                let compare = self.tables.get(&no).and_then(|t| t.compare.clone());
                self.tables.insert(no, Tracked { state, reader: Some(reader), compare });
            }
            known => {
                let no = known.as_ref().map_or(self.next_no, |(no, _)| *no);
                self.next_no = self.next_no.max(no + 1);
                let state = define(&reader, fingerprint, known.map(|(_, state)| state));
                reader.shape = state.shape;
                piece.changes.push(Change::Define(no, Box::new(state.clone())));
                self.tables.insert(no, Tracked { state, reader: Some(reader), compare: None });
            }
        }
    }
}

/// A table as it is from now on, to be reconciled from its start. Its rows keep their old shape till then.
fn define(reader: &Reader, fingerprint: u128, known: Option<TableState>) -> TableState {
    let table = reader.selection.table.clone();
    let (mut shape, mut former, mut null_keys) = (0, Vec::new(), false);
    if let Some(known) = known {
        (shape, former, null_keys) = (known.shape, known.former, known.null_keys);
        if known.table != table {
            former.push((shape, known.table));
            shape = shape.wrapping_add(1);
        }
    }
    let source_id = reader.captured.id;
    TableState {
        table,
        shape,
        former,
        source_id,
        fingerprint,
        null_keys,
        kept: Kept::Unknown,
        reconcile: Some(Progress::default()),
    }
}

fn refuse_broken(found: &Audit) -> Result<()> {
    let hint = "run `redtail init`, then `redtail sync`";
    if !found.installed {
        return Err(Error::new(Kind::Capture, format!("source: capture is not installed; {hint}")));
    }
    if !found.current {
        return Err(Error::new(
            Kind::Capture,
            format!("source: its capture is an older one or not whole; {hint}"),
        ));
    }
    match found.broken.first() {
        Some((t, why)) => Err(Error::new(Kind::Capture, format!("table {}: {why}; {hint}", t.table.name))),
        None => Ok(()),
    }
}

/// Everything that `sqlite_schema` says, as one number.
fn schema_hash(sql: &mut Sql) -> Result<u64> {
    let columns = ["type", "name", "tbl_name", "rootpage", "sql"].map(str::to_owned);
    let query = format!("SELECT rowid, {} FROM sqlite_schema ORDER BY rowid", exact(&columns));
    let mut all = Vec::new();
    sql.rows(&query, &[], |row| {
        all.push(row.value(0)?);
        row.exact(1, columns.len(), &mut all)?;
        Ok(ControlFlow::<()>::Continue(()))
    })?;
    Ok(digest(&all))
}
