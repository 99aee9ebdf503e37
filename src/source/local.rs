//! A source that is a file here: one thread that reads windows and hands them on.
//!
//! SQLite runs on the thread that calls it, so the source has its own. The thread reads ahead by the few
//! pieces its channel holds and starts again from the replica's cursor after any error. It writes to
//! the source only through `capture`.

use super::Skipped;
use super::read::{Limits, Reader};
use super::sql::{Row, Sql, exact};
pub(crate) use super::wake::Stop;
use super::wake::{Wake, Woken};
use crate::capture::audit::{Audit, Captured, audit};
use crate::capture::{install, log_id, migrate_is_installed};
use crate::config::{Config, OnDivergence};
use crate::cursor::Cursor;
use crate::error::{Error, Kind, Result};
use crate::fault;
use crate::record::Deltas;
use crate::record::state::{Progress, TableState};
use crate::value::Value;
use crate::window::{Change, End, Goal, Piece, Purpose, Range, Start, TableNo};
use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use xxhash_rust::xxh3::xxh3_64;

/// Pieces between source and replica at once: one being read, one waiting, one being applied.
const IN_FLIGHT: usize = 3;
/// The whole schema is compared this often even if the schema version stands still: it can be set back.
const AUDIT_EVERY: Duration = Duration::from_secs(30);
/// Outside WAL mode a reader blocks the application's commit: a snapshot is this short.
const ROLLBACK_SNAPSHOT: Duration = Duration::from_millis(20);
/// Outside WAL mode a window has at most this many entries, for the same reason.
const ROLLBACK_ENTRIES: u64 = 2_000;

/// A stream of windows, and how to end it.
pub(crate) struct Windows {
    pub pieces: mpsc::Receiver<Result<Piece>>,
    pub stop: Arc<Stop>,
}

/// What the source's thread tells the world besides windows.
pub(crate) trait Observer: Send + 'static {
    /// The replica's last window was, or still is, the source's head at this moment.
    fn level(&self, head: u64, at: Instant);
    /// A table is not replicated, or something was repaired: for people.
    fn audited(&self, audit: &Audit);
}

/// Starts the thread that reads windows from `start` on.
pub(crate) fn follow(
    path: &Path,
    config: &Config,
    start: Start,
    goal: Goal,
    observer: impl Observer,
) -> Result<Windows> {
    let stop = Stop::new();
    let (out, pieces) = mpsc::channel(1);
    let (path, config, at_stop) = (path.to_owned(), config.clone(), Arc::clone(&stop));
    let thread = std::thread::Builder::new().name("redtail-source".into());
    let body = move || {
        let failed = Follower::open(path, config, start, goal, at_stop, out.clone(), observer)
            .and_then(|mut f| f.run());
        match failed {
            Err(e) if e.kind() != Kind::Stopped => drop(out.blocking_send(Err(e))),
            _ => {}
        }
    };
    thread.spawn(body).map_err(|e| Error::new(Kind::Io, format!("cannot start a thread: {e}")))?;
    Ok(Windows { pieces, stop })
}

/// A table as the follower knows it.
struct Tracked {
    state: TableState,
    reader: Option<Reader>,
    /// Set while `verify` compares it: how far it has come.
    compare: Option<Progress>,
}

struct Follower<O> {
    path: PathBuf,
    sql: Sql,
    wake: Wake,
    config: Config,
    stop: Arc<Stop>,
    out: mpsc::Sender<Result<Piece>>,
    observer: O,
    cursor: Option<Cursor>,
    tables: BTreeMap<TableNo, Tracked>,
    next_no: TableNo,
    goal: Goal,
    /// The head found at the start: what a stream that ends goes up to.
    target: Option<u64>,
    audited: Option<(i64, Instant)>,
    verify_begun: bool,
    /// Capture has never been whole yet (only for a deliberate fault).
    early: bool,
}

impl<O: Observer> Follower<O> {
    fn open(
        path: PathBuf,
        config: Config,
        start: Start,
        goal: Goal,
        stop: Arc<Stop>,
        out: mpsc::Sender<Result<Piece>>,
        observer: O,
    ) -> Result<Self> {
        let sql = Sql::open(&path, config.busy_timeout)?;
        let wake = Wake::new(&path, Arc::clone(&stop), config.poll);
        let track = |(no, state)| (no, Tracked { state, reader: None, compare: None });
        Ok(Self {
            tables: start.tables.into_iter().map(track).collect(),
            cursor: start.cursor,
            next_no: start.next_no,
            target: None,
            audited: None,
            verify_begun: false,
            early: true,
            path,
            sql,
            wake,
            config,
            stop,
            out,
            observer,
            goal,
        })
    }

    fn run(&mut self) -> Result<()> {
        loop {
            while self.window()? {
                self.check_stop()?;
            }
            if self.goal != Goal::Follow {
                return Ok(());
            }
            loop {
                match self.wake.wait(&mut self.sql)? {
                    Woken::Changed => break,
                    Woken::Unchanged => self.level(Instant::now()),
                    Woken::Stopped => return Err(Error::stopped()),
                }
            }
        }
    }

    fn check_stop(&self) -> Result<()> {
        if self.stop.is_set() { Err(Error::stopped()) } else { Ok(()) }
    }

    fn level(&self, at: Instant) {
        if let Some(cursor) = self.cursor {
            self.observer.level(cursor.seq, at);
        }
    }

    /// Reads one window and hands it on. Returns whether there is more to read at once.
    fn window(&mut self) -> Result<bool> {
        let read_at = Instant::now();
        self.sql.run("BEGIN")?;
        let result = self.in_snapshot(read_at);
        if self.sql.in_transaction() {
            self.sql.run("ROLLBACK")?;
        }
        match result? {
            Outcome::Repair => {
                let shown = self.path.display();
                let installed =
                    install::install(&mut self.sql).map_err(|e| e.during(format!("source {shown}")))?;
                self.observer.audited(&installed);
                self.audited = None;
                self.early = false;
                Ok(true)
            }
            Outcome::Again => Ok(true),
            Outcome::Level if fault::reconcile_early() && std::mem::take(&mut self.early) => {
                self.audited = None;
                Ok(true)
            }
            Outcome::Level => {
                self.level(read_at);
                Ok(false)
            }
            Outcome::Read { piece, more } => {
                self.send(piece)?;
                Ok(more)
            }
        }
    }

    fn send(&self, piece: Piece) -> Result<()> {
        self.check_stop()?;
        self.out.blocking_send(Ok(piece)).map_err(|_| Error::stopped())
    }

    fn in_snapshot(&mut self, read_at: Instant) -> Result<Outcome> {
        let mut piece = Piece::default();
        let schema_version = self.sql.integer("PRAGMA schema_version", &[])?.unwrap_or(0);
        if self.is_audit_due(schema_version) && !self.audit(schema_version, read_at, &mut piece)? {
            return Ok(Outcome::Repair);
        }
        let head = self.head()?;
        let target = *self.target.get_or_insert(head);
        let mut cursor = self.locate(head, &mut piece)?;
        cursor.schema_version = schema_version;
        let through = head.min(cursor.seq + self.window_entries());
        if cursor.seq < through {
            if !self.read_entries((cursor.seq, through), &mut piece)? {
                // Somebody repaired capture, and the schema version does not show it.
                self.audited = None;
                return Ok(Outcome::Again);
            }
            cursor.fingerprint = self.fingerprint(through)?.unwrap_or_default();
        }
        cursor.seq = through;
        if through == head || cursor.horizon < head {
            cursor.horizon = head;
            cursor.horizon_fingerprint = if through == head {
                cursor.fingerprint
            } else {
                self.fingerprint(head)?.unwrap_or_default()
            };
        }
        if fault::split_window() {
            (cursor.horizon, cursor.horizon_fingerprint) = (cursor.seq, cursor.fingerprint);
        }
        if through == head {
            self.read_range(read_at, &mut piece)?;
        }
        let pending = self.tables.values().any(|t| t.state.reconcile.is_some()) || self.verify_pending();
        let more = through < head || pending;
        let done = through >= target && !pending && self.goal != Goal::Follow;
        let unchanged = self.cursor == Some(cursor) && piece.changes.is_empty() && !done;
        self.cursor = Some(cursor);
        if unchanged {
            return Ok(if more { Outcome::Again } else { Outcome::Level });
        }
        piece.end = Some(End { cursor, head, read_at, done });
        Ok(Outcome::Read { piece, more: more && !done })
    }

    fn is_audit_due(&self, schema_version: i64) -> bool {
        self.audited.is_none_or(|(version, at)| {
            !fault::ignore_schema_version() && (version != schema_version || at.elapsed() > AUDIT_EVERY)
        })
    }

    /// Compares the whole schema with what is known. `false` if capture has to be repaired first.
    fn audit(&mut self, schema_version: i64, read_at: Instant, piece: &mut Piece) -> Result<bool> {
        let mut found = audit(&mut self.sql)?;
        if !found.is_whole() {
            if fault::reconcile_early() && self.early {
                found.captured.extend(found.broken.iter().map(|(t, _)| Captured::too_early(t)));
            } else if self.may_repair() {
                return Ok(false);
            } else {
                refuse_broken(&found)?;
            }
        }
        let before = self.audited.map(|(version, _)| version).or(self.cursor.map(|c| c.schema_version));
        self.adopt(&mut found, before.is_some_and(|version| version != schema_version), piece);
        self.observer.audited(&found);
        self.audited = Some((schema_version, read_at));
        self.wake.wal = journal_is_wal(&mut self.sql)?;
        Ok(true)
    }

    fn may_repair(&self) -> bool {
        !matches!(self.goal, Goal::Verify { .. })
    }

    fn window_entries(&self) -> u64 {
        let most = self.config.window_entries;
        if !self.wake.wal {
            return most.min(ROLLBACK_ENTRIES);
        }
        let by_sweep = self.tables.values().any(|t| t.reader.as_ref().is_some_and(|r| r.by_sweep));
        if by_sweep { most.min(self.config.chunk_rows as u64) } else { most }
    }

    fn limits(&self, read_at: Instant) -> Limits {
        let longest = if self.wake.wal { self.config.max_snapshot } else { ROLLBACK_SNAPSHOT };
        Limits {
            rows: (self.config.chunk_rows / IN_FLIGHT).max(1),
            bytes: (self.config.chunk_bytes / IN_FLIGHT).max(1),
            until: read_at + longest,
        }
    }

    /// Takes over the definitions of this snapshot: what is new or changed is defined and reconciled.
    fn adopt(&mut self, found: &mut Audit, moved: bool, piece: &mut Piece) {
        let readers = self.readers(found);
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
    }

    /// How each captured table is read; one that cannot be read here (a function or collation that this
    /// process lacks) is skipped with the reason, never taken to be empty.
    fn readers(&mut self, found: &mut Audit) -> Vec<Reader> {
        let mut readers = Vec::new();
        for captured in std::mem::take(&mut found.captured) {
            let reader = Reader::new(captured.clone(), self.sql.encoding(), self.config.max_row);
            match reader.check(&mut self.sql) {
                Ok(()) => {
                    found.captured.push(captured);
                    readers.push(reader);
                }
                Err(e) => found.skipped.push(Skipped {
                    name: captured.source.table.name,
                    reason: format!("it cannot be read here: {e}"),
                }),
            }
        }
        readers
    }

    fn adopt_table(&mut self, mut reader: Reader, moved: bool, piece: &mut Piece) {
        let captured = reader.captured.clone();
        let known = self.tables.iter().find(|(_, t)| t.state.table.name == captured.source.table.name);
        let known = known.map(|(no, t)| (*no, t.state.clone()));
        let by_rowid = captured.source.table.key.parts.iter().any(|p| p.column.is_none());
        let same = |s: &TableState| {
            let renumbered = moved && (by_rowid || s.null_keys);
            s.fingerprint == captured.fingerprint && s.table == captured.source.table && !renumbered
        };
        match known {
            Some((no, state)) if same(&state) => {
                reader.shape = state.shape;
                let compare = self.tables.get(&no).and_then(|t| t.compare.clone());
                self.tables.insert(no, Tracked { state, reader: Some(reader), compare });
            }
            known => {
                let no = known.as_ref().map_or(self.next_no, |(no, _)| *no);
                self.next_no = self.next_no.max(no + 1);
                let state = define(&captured, known.map(|(_, state)| state));
                reader.shape = state.shape;
                piece.changes.push(Change::Define(no, Box::new(state.clone())));
                self.tables.insert(no, Tracked { state, reader: Some(reader), compare: None });
            }
        }
    }

    fn head(&mut self) -> Result<u64> {
        let head = self.sql.integer("SELECT max(seq) FROM _redtail_changelog", &[])?;
        head.and_then(|h| u64::try_from(h).ok())
            .ok_or_else(|| Error::new(Kind::Capture, "source: its changelog is empty"))
    }

    /// The cursor to read from: the replica's, if the source still has the history it belongs to.
    fn locate(&mut self, head: u64, piece: &mut Piece) -> Result<Cursor> {
        let log_id = log_id(&mut self.sql)?.unwrap_or_default();
        let Some(cursor) = self.cursor else { return self.begin_at(log_id, head) };
        let why = if cursor.log_id != log_id {
            Some("its capture was installed anew".to_owned())
        } else if cursor.horizon > head {
            Some(format!("its changelog ends at {head}, before {}", cursor.horizon))
        } else if self.fingerprint(cursor.seq)? != Some(cursor.fingerprint) {
            Some(format!("entry {} is gone or another one", cursor.seq))
        } else if cursor.horizon != cursor.seq
            && self.fingerprint(cursor.horizon)? != Some(cursor.horizon_fingerprint)
        {
            Some(format!("entry {} is gone or another one", cursor.horizon))
        } else {
            return Ok(cursor);
        };
        let why = why.unwrap_or_default();
        let shown = self.path.display();
        if self.config.on_divergence == OnDivergence::Stop || !self.may_repair() {
            let what = format!(
                "source {shown} diverged from the replica: {why}; run with on_divergence = \"rebuild\" to read it anew"
            );
            return Err(Error::new(Kind::Divergence, what));
        }
        tracing::warn!("source {shown} diverged from the replica: {why}; every table is reconciled");
        for (no, tracked) in &mut self.tables {
            tracked.state.reconcile = Some(Progress::default());
            piece.changes.push(Change::Define(*no, Box::new(tracked.state.clone())));
        }
        self.begin_at(log_id, head)
    }

    fn begin_at(&mut self, log_id: crate::cursor::LogId, head: u64) -> Result<Cursor> {
        let fingerprint = self.fingerprint(head)?.unwrap_or_default();
        let (seq, horizon) = (head, head);
        Ok(Cursor { log_id, seq, fingerprint, horizon, horizon_fingerprint: fingerprint, schema_version: 0 })
    }

    /// What tells this entry from another one of the same number; `None` if there is none.
    fn fingerprint(&mut self, seq: u64) -> Result<Option<u64>> {
        let list = exact(&["tbl", "op", "at", "k0", "k1"].map(str::to_owned));
        let query = format!("SELECT {list} FROM _redtail_changelog WHERE seq = ?1");
        let bind = [Value::Integer(i64::try_from(seq).unwrap_or(i64::MAX))];
        self.sql.rows(&query, &bind, |row| {
            let mut values = Vec::new();
            row.exact(0, 5, &mut values)?;
            Ok(ControlFlow::Break(xxh3_64(format!("{values:?}").as_bytes())))
        })
    }

    /// Reads the rows that the entries of `(after, through]` name, table by table. `false` if there are
    /// entries of a table that the last audit did not see.
    fn read_entries(&mut self, (after, through): (u64, u64), piece: &mut Piece) -> Result<bool> {
        let mut ids = HashSet::new();
        let binds = [after, through].map(|n| Value::Integer(i64::try_from(n).unwrap_or(i64::MAX)));
        let query = "SELECT DISTINCT tbl FROM _redtail_changelog WHERE seq > ?1 AND seq <= ?2";
        self.sql.rows(query, &binds, |row: &Row<'_>| {
            ids.insert(row.integer(0)?);
            Ok(ControlFlow::<()>::Continue(()))
        })?;
        let newest = self.tables.values().map(|t| t.state.source_id).max().unwrap_or(0);
        if ids.iter().any(|id| *id > newest) && !fault::ignore_schema_version() {
            return Ok(false);
        }
        let limits = self.limits(Instant::now());
        let (out, stop) = (&self.out, &self.stop);
        for (no, tracked) in &mut self.tables {
            let Some(reader) = tracked.reader.as_mut().filter(|r| ids.contains(&r.captured.id)) else {
                continue;
            };
            let null_keys = &mut tracked.state.null_keys;
            let mut flush = |deltas: Deltas| {
                *null_keys |= deltas.null_keys;
                let full = deltas.len() >= limits.rows || deltas.bytes() >= limits.bytes;
                piece.changes.push(Change::Deltas(*no, deltas));
                if !full {
                    return Ok(());
                }
                if stop.is_set() {
                    return Err(Error::stopped());
                }
                out.blocking_send(Ok(std::mem::take(piece))).map_err(|_| Error::stopped())
            };
            reader.window(&mut self.sql, (after, through), limits, &mut flush)?;
        }
        Ok(true)
    }

    /// Reads the next range of the first table that is not whole yet, or that is to be compared.
    fn read_range(&mut self, read_at: Instant, piece: &mut Piece) -> Result<()> {
        let limits = self.limits(read_at);
        let reconciling = self.tables.iter().find(|(_, t)| t.state.reconcile.is_some()).map(|(no, _)| *no);
        if reconciling.is_none() {
            self.begin_verify()?;
        }
        let comparing = || self.tables.iter().find(|(_, t)| t.compare.is_some()).map(|(no, _)| *no);
        let Some(no) = reconciling.or_else(comparing) else { return Ok(()) };
        let Some(tracked) = self.tables.get_mut(&no) else { return Ok(()) };
        let compare = reconciling.is_none();
        let slot = if compare { &mut tracked.compare } else { &mut tracked.state.reconcile };
        let (Some(from), Some(reader)) = (slot.take(), tracked.reader.as_ref()) else { return Ok(()) };
        let (rows, progress) = reader.range(&mut self.sql, &from, limits)?;
        slot.clone_from(&progress);
        tracked.state.null_keys |= rows.null_keys;
        let purpose = match self.goal {
            Goal::Verify { repair: true, .. } if compare => Purpose::Repair,
            Goal::Verify { .. } if compare => Purpose::Verify,
            _ => Purpose::Reconcile,
        };
        piece.changes.push(Change::Range(Range {
            table: no,
            after: from.through,
            rows,
            progress,
            purpose,
            by_sweep: reader.by_sweep,
        }));
        Ok(())
    }

    fn verify_pending(&self) -> bool {
        matches!(self.goal, Goal::Verify { .. })
            && (!self.verify_begun || self.tables.values().any(|t| t.compare.is_some()))
    }

    /// Marks the tables that `verify` was asked for, once everything else is whole.
    fn begin_verify(&mut self) -> Result<()> {
        let Goal::Verify { tables, .. } = &self.goal else { return Ok(()) };
        if std::mem::replace(&mut self.verify_begun, true) {
            return Ok(());
        }
        for name in tables {
            if !self.tables.values().any(|t| t.state.table.name.eq_ignore_ascii_case(name)) {
                return Err(Error::usage(format!(
                    "table {name:?}: not replicated; `redtail status` lists those that are"
                )));
            }
        }
        for tracked in self.tables.values_mut() {
            if tables.is_empty() || tables.iter().any(|n| n.eq_ignore_ascii_case(&tracked.state.table.name)) {
                tracked.compare = Some(Progress::default());
            }
        }
        Ok(())
    }
}

/// A table as it is from now on, to be reconciled from its start. Its rows keep their old shape till then.
fn define(captured: &Captured, known: Option<TableState>) -> TableState {
    let table = captured.source.table.clone();
    let (mut shape, mut former, mut null_keys) = (0, Vec::new(), false);
    if let Some(known) = known {
        (shape, former, null_keys) = (known.shape, known.former, known.null_keys);
        if known.table != table {
            former.push((shape, known.table));
            shape = shape.wrapping_add(1);
        }
    }
    let (source_id, fingerprint) = (captured.id, captured.fingerprint);
    TableState {
        table,
        shape,
        former,
        source_id,
        fingerprint,
        null_keys,
        reconcile: Some(Progress::default()),
    }
}

enum Outcome {
    /// Look again at once; nothing of this snapshot is used.
    Again,
    /// Capture is not whole: nothing of this snapshot may be used.
    Repair,
    /// Nothing has changed.
    Level,
    Read {
        piece: Piece,
        more: bool,
    },
}

fn refuse_broken(found: &Audit) -> Result<()> {
    let hint = "run `redtail init`, then `redtail sync`";
    if !found.installed {
        return Err(Error::new(Kind::Capture, format!("source: capture is not installed; {hint}")));
    }
    match found.broken.first() {
        Some((t, why)) => Err(Error::new(Kind::Capture, format!("table {}: {why}; {hint}", t.table.name))),
        None => Ok(()),
    }
}

fn journal_is_wal(sql: &mut Sql) -> Result<bool> {
    let query = "SELECT CAST(journal_mode AS BLOB) FROM pragma_journal_mode";
    let mode = sql.rows(query, &[], |row| Ok(ControlFlow::Break(row.text(0)?)))?.flatten();
    match mode.as_deref() {
        Some("mvcc") => Err(Error::usage(
            "source: journal mode MVCC is not supported; the order of its entries is not the order of its commits",
        )),
        mode => Ok(mode == Some("wal")),
    }
}

/// Whether capture is there at all, its log id and its head, in one snapshot.
pub(crate) fn look(sql: &mut Sql) -> Result<Option<(crate::cursor::LogId, u64)>> {
    sql.run("BEGIN")?;
    let result = (|| {
        if !migrate_is_installed(sql)? {
            return Ok(None);
        }
        let head = sql.integer("SELECT max(seq) FROM _redtail_changelog", &[])?;
        Ok(log_id(sql)?.zip(head.and_then(|h| u64::try_from(h).ok())))
    })();
    sql.run("ROLLBACK")?;
    result
}
