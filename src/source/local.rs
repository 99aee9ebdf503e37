//! A source that is a file here: one thread that reads windows and hands them on.
//!
//! SQLite runs on the thread that calls it, so the source has its own. The thread reads ahead by the few
//! pieces its channel holds and starts again from the replica's cursor after any error. It writes to
//! the source only through `capture`.

use super::acknowledge::{Acknowledging, Written};
use super::address::{Address, Waker};
use super::foresee::Paging;
use super::keep::Crossed;
use super::place::Recent;
use super::read::{Limits, Reader};
use super::sql::Sql;
pub(crate) use super::wake::Stop;
use super::wake::Woken;
use super::writers::Writers;
use crate::capture::audit::Audit;
use crate::capture::known::SharedKnown;
use crate::capture::{Demand, HEAD, install, log_id, migrate_is_installed};
use crate::config::Config;
use crate::cursor::{Cursor, LogId, Position};
use crate::error::{Error, Kind, Result};
use crate::fault;
use crate::record::Deltas;
use crate::record::state::{Progress, TableState};
use crate::value::Value;
use crate::window::{Change, End, Goal, Kept, Piece, Purpose, Range, Remembered, Start, TableNo};
use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

/// Pieces between source and replica at once: one being read, one waiting, one being applied.
const IN_FLIGHT: usize = 3;
/// Ranges of a table that is copied share a transaction for so long: enough to make the fsync cheap, while what
/// changes elsewhere waits.
const GATHER_RANGES: Duration = Duration::from_millis(200);
/// So long the end of following waits for the source's file to be closed: longer than a snapshot or a lock lasts.
const CLOSING: Duration = Duration::from_secs(30);
/// As long as nobody would wait.
const FOREVER: Duration = Duration::from_secs(3_600);

/// A stream of windows, and how to end it.
pub(crate) struct Windows {
    pub pieces: Pieces,
    pub stop: Arc<Stop>,
    pub closed: Closed,
}

/// Ready once the source's file is closed.
///
/// Whoever was told that following has ended may put another file in its place. SQLite deletes the WAL of the
/// last connection that it closes, by its name: then it would be the other file's.
pub(crate) struct Closed(Option<oneshot::Receiver<()>>);

impl Closed {
    /// Returns at once for a server: its answer, which nobody waits for, may take as long as it likes.
    pub async fn wait(&mut self) {
        if let Some(closed) = self.0.take()
            && tokio::time::timeout(CLOSING, closed).await.is_err()
        {
            tracing::warn!("the source's file is still open after {CLOSING:?}: what reads it does not end");
        }
    }
}

/// What was read and waits to be applied. It ends when the source's thread does, or is told to: that thread
/// may be in the middle of a request.
pub(crate) struct Pieces {
    waiting: ReceiverStream<Result<Piece>>,
    stop: Arc<Stop>,
}

#[cfg(any(test, feature = "bench"))]
impl From<mpsc::Receiver<Result<Piece>>> for Pieces {
    fn from(waiting: mpsc::Receiver<Result<Piece>>) -> Self {
        Self { waiting: ReceiverStream::new(waiting), stop: Stop::new() }
    }
}

impl Pieces {
    pub async fn next(&mut self) -> Option<Result<Piece>> {
        tokio::select! {
            biased;
            piece = self.waiting.next() => piece,
            () = Arc::clone(&self.stop).ended() => None,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.as_ref().is_empty()
    }
}

/// What the source's thread tells the world besides windows.
pub(crate) trait Observer: Send + 'static {
    /// The replica's last window was, or still is, the source's head at this moment.
    fn level(&self, head: u64, at: Instant);
    /// A table is not replicated, or something was repaired: for people.
    fn audited(&self, audit: &Audit);
    /// The source is not what it was: every table is reconciled, or only what was entered since it went back.
    fn diverged(&self, rebuild: bool);
    /// Whether the source is in WAL mode.
    fn journal(&self, wal: bool);
    /// Up to where the replica has everything of this log on disk; 0 if it has nothing of it.
    fn durable(&self, log_id: LogId) -> u64;
    /// The source was written to; `None` if it may not be.
    fn wrote(&self, written: Option<&Written>);
}

/// Starts the thread that reads windows from `start` on.
pub(crate) fn follow(
    address: &Address,
    config: &Config,
    start: Start,
    goal: Goal,
    acknowledging: Option<Acknowledging>,
    known: SharedKnown,
    observer: impl Observer,
) -> Result<Windows> {
    let stop = Stop::new();
    let (out, pieces) = mpsc::channel(1);
    let (closing, closed) = oneshot::channel::<()>();
    let closed = Closed(address.file().is_some().then_some(closed));
    let (address, config, at_stop) = (address.clone(), config.clone(), Arc::clone(&stop));
    let thread = std::thread::Builder::new().name("redtail-source".into());
    let body = move || {
        let failed = Follower::open(address, config, start, goal, at_stop, out.clone(), observer)
            .and_then(|f| Follower { known, acknowledging, ..f }.run());
        match failed {
            Err(e) if e.kind() != Kind::Stopped => drop(out.blocking_send(Err(e))),
            _ => {}
        }
        drop(closing);
    };
    thread.spawn(body).map_err(|e| Error::new(Kind::Io, format!("cannot start a thread: {e}")))?;
    let pieces = Pieces { waiting: ReceiverStream::new(pieces), stop: Arc::clone(&stop) };
    Ok(Windows { pieces, stop, closed })
}

/// A table as the follower knows it.
pub(super) struct Tracked {
    pub(super) state: TableState,
    pub(super) reader: Option<Reader>,
    /// Set while `verify` compares it: how far it has come.
    pub(super) compare: Option<Progress>,
}

pub(super) struct Follower<O> {
    pub(super) address: Address,
    pub(super) sql: Sql,
    pub(super) wake: Waker,
    pub(super) config: Config,
    pub(super) stop: Arc<Stop>,
    pub(super) out: mpsc::Sender<Result<Piece>>,
    pub(super) observer: O,
    pub(super) cursor: Option<Cursor>,
    /// The last entries that the replica has applied, as it remembers them.
    pub(super) past: Vec<Remembered>,
    /// Windows have been handed on since the start.
    pub(super) in_flight: bool,
    pub(super) tables: BTreeMap<TableNo, Tracked>,
    pub(super) next_no: TableNo,
    /// The id that capture gives next: entries of this or a later one are of a table not audited yet.
    pub(super) next_id: i64,
    pub(super) writers: Writers,
    pub(super) goal: Goal,
    /// How many entries a window has at most, by what the last ones took; `None` before the first.
    pub(super) width: Option<u64>,
    /// The head found at the start: what a stream that ends goes up to.
    pub(super) target: Option<u64>,
    pub(super) audited: Option<(i64, Instant)>,
    pub(super) paging: Paging,
    /// Since when the source has shown less than the replica has.
    pub(super) behind: Option<Instant>,
    /// The schema version of the last audit, and the hash of the schema then.
    pub(super) schema: (i64, u64),
    pub(super) verify_begun: bool,
    /// Which tables this replica wants.
    pub(super) demand: Demand,
    /// What is known of the source's tables.
    pub(super) known: SharedKnown,
    /// `None` where following writes nothing to the source.
    acknowledging: Option<Acknowledging>,
    /// Capture has never been whole yet (only for a deliberate fault).
    pub(super) early: bool,
}

impl<O: Observer> Follower<O> {
    fn open(
        address: Address,
        config: Config,
        start: Start,
        goal: Goal,
        stop: Arc<Stop>,
        out: mpsc::Sender<Result<Piece>>,
        observer: O,
    ) -> Result<Self> {
        let sql = address.connect(&config)?;
        let wake = address.waker(Arc::clone(&stop), &config);
        let track = |(no, state)| (no, Tracked { state, reader: None, compare: None });
        Ok(Self {
            tables: start.tables.into_iter().map(track).collect(),
            cursor: start.cursor,
            past: start.past,
            in_flight: false,
            next_no: start.next_no,
            next_id: 0,
            writers: Writers::default(),
            target: None,
            width: None,
            audited: None,
            paging: Paging::default(),
            behind: None,
            schema: (0, 0),
            verify_begun: false,
            early: true,
            demand: Demand::of_one(&config),
            known: SharedKnown::default(),
            acknowledging: None,
            address,
            sql,
            wake,
            config,
            stop,
            out,
            observer,
            goal,
        })
    }

    fn run(mut self) -> Result<()> {
        loop {
            while self.window()? {
                self.check_stop()?;
                self.acknowledge()?;
            }
            if self.goal != Goal::Follow {
                return Ok(());
            }
            loop {
                self.acknowledge()?;
                match self.wake.wait(&mut self.sql, self.cursor.map_or(0, |c| c.seq))? {
                    Woken::Changed => break,
                    Woken::Unchanged => self.level(Instant::now()),
                    Woken::Stopped => return Err(Error::stopped()),
                }
                if self.is_audit_late() {
                    break;
                }
            }
        }
    }

    /// Tells the source how far the replica is, if it is time to.
    fn acknowledge(&mut self) -> Result<()> {
        let (Some(acknowledging), Some(cursor)) = (&mut self.acknowledging, self.cursor) else {
            return Ok(());
        };
        let durable = self.observer.durable(cursor.log_id);
        if !acknowledging.is_due(durable, &self.config, self.wake.is_wal()) {
            return Ok(());
        }
        let written = acknowledging.write(&mut self.sql, durable, &self.config)?;
        if written.is_some() || acknowledging.read_only {
            self.observer.wrote(written.as_ref());
        }
        Ok(())
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
        let before = self.cursor.map(|c| c.seq);
        let Some(read_at) = self.begin()? else { return Ok(true) };
        let known = self.before();
        let result = self.in_snapshot(read_at);
        if self.sql.in_transaction() {
            self.sql.run("ROLLBACK")?;
        }
        if self.is_to_repeat(result.is_err()) {
            if let Some(known) = known {
                self.restore(known);
            }
            return Ok(true);
        }
        if let (Some(before), Some(after)) = (before, self.cursor) {
            self.pace(after.seq.saturating_sub(before), read_at.elapsed());
        }
        match result? {
            Outcome::Repair => {
                if let Some(path) = self.address.file() {
                    super::owned::refuse(path)?;
                }
                let shown = self.address.to_string();
                let found = self
                    .known
                    .with(|known| install::mend(&mut self.sql, &self.demand, None, known))
                    .map_err(|e| e.during(format!("source {shown}")))?;
                self.observer.audited(&found);
                self.audited = None;
                self.early = false;
                Ok(true)
            }
            Outcome::Again => Ok(true),
            Outcome::Behind => {
                // What an audit of it found was not handed on.
                if let Some(known) = known {
                    self.restore(known);
                }
                match self.wake.wait(&mut self.sql, 0)? {
                    Woken::Stopped => Err(Error::stopped()),
                    Woken::Changed | Woken::Unchanged => Ok(true),
                }
            }
            Outcome::Level if fault::reconcile_early() && std::mem::take(&mut self.early) => {
                self.audited = None;
                Ok(true)
            }
            Outcome::Level => {
                self.level(read_at);
                Ok(false)
            }
            Outcome::Read { piece, more } => {
                self.in_flight = true;
                self.send(piece)?;
                Ok(more)
            }
        }
    }

    fn send(&self, piece: Piece) -> Result<()> {
        self.check_stop()?;
        // A replica that cannot be written for now must not keep this snapshot open.
        futures::executor::block_on(async {
            tokio::select! {
                sent = self.out.send(Ok(piece)) => sent.map_err(|_| Error::stopped()),
                () = self.stop.released() => Err(Error::stopped()),
            }
        })
    }

    fn in_snapshot(&mut self, read_at: Instant) -> Result<Outcome> {
        let mut piece = Piece::default();
        let schema_version = self.sql.integer("PRAGMA schema_version", &[])?.unwrap_or(0);
        if self.is_audit_due(schema_version) && !self.audit(schema_version, read_at, &mut piece)? {
            return Ok(Outcome::Repair);
        }
        let Some(look) = self.look()? else {
            let emptied = Error::new(Kind::Capture, "source: its changelog was emptied; run `redtail init`");
            return if self.may_repair() { Ok(Outcome::Repair) } else { Err(emptied) };
        };
        let head = look.head;
        let target = *self.target.get_or_insert(head);
        self.writers.at(head);
        if self.is_behind(look) {
            return Ok(Outcome::Behind);
        }
        let (mut cursor, mut recent) = self.begin_window(look, &mut piece)?;
        let (_, mut through) = recent.ends;
        if cursor.seq < through {
            if recent.ids.iter().any(|id| *id >= self.next_id) && !fault::ignore_schema_version() {
                // Somebody repaired capture, and the schema version does not show it.
                self.audited = None;
                return Ok(Outcome::Again);
            }
            let missing = (through - cursor.seq).saturating_sub(recent.count);
            if missing > 0 {
                cursor = self.begin_behind(missing, look, &mut piece)?;
                through = head;
            } else {
                self.read_window(cursor, &mut recent, (through, head), &mut piece)?;
                cursor.fingerprint = recent.fingerprint;
            }
        }
        (cursor.schema_version, cursor.schema_hash) = self.schema;
        cursor.seq = through;
        self.paging.catching_up = through < head;
        if through == head || cursor.horizon < head {
            cursor.horizon = head;
            cursor.horizon_fingerprint = if through == head {
                cursor.fingerprint
            } else {
                self.fingerprint_of_head()?.unwrap_or_default()
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
        let more = more && !done;
        // A transaction rewrites every page that its rows lie in, and a backlog's lie everywhere.
        let gather = match through < head {
            _ if !more || fault::split_window() => Duration::ZERO,
            true => self.config.max_transaction,
            false => self.config.max_transaction.min(GATHER_RANGES),
        };
        piece.end = Some(End { cursor, head, read_at, done, gather });
        Ok(Outcome::Read { piece, more })
    }

    /// Reads what the entries name of the window from `cursor` up to `through`, and asks a server for the next ones
    /// meanwhile.
    fn read_window(
        &mut self,
        cursor: Cursor,
        recent: &mut Recent,
        (through, head): (u64, u64),
        piece: &mut Piece,
    ) -> Result<()> {
        recent.remember(piece);
        self.reconcile_strangers(recent, piece);
        if !self.sql.is_server() {
            return self.read_entries(&recent.ids, (cursor.seq, through), piece);
        }
        self.paging.will_read(&recent.ids);
        let goes_on = through < head && (self.goal == Goal::Follow || self.target > Some(through));
        if goes_on {
            self.ask_ahead(through, cursor.horizon.max(head), 1);
        }
        // It was asked before the head was known.
        self.read_entries(&recent.ids, (cursor.seq, recent.ends.0), piece)?;
        if goes_on && cursor.horizon == head {
            self.ask_ahead(through, head, 2);
        }
        Ok(())
    }

    pub(super) fn may_repair(&self) -> bool {
        !matches!(self.goal, Goal::Verify { .. })
    }

    pub(super) fn limits(&self, read_at: Instant) -> Limits {
        let longest = self.longest();
        Limits {
            rows: (self.config.chunk_rows / IN_FLIGHT).max(1),
            bytes: (self.config.chunk_bytes / IN_FLIGHT).max(1),
            until: read_at + longest,
        }
    }

    /// Reads the rows that the entries of `(after, through]` name, in the tables with these ids.
    fn read_entries(
        &mut self,
        ids: &HashSet<i64>,
        (after, through): (u64, u64),
        piece: &mut Piece,
    ) -> Result<()> {
        let limits = self.limits(Instant::now());
        let (out, stop) = (&self.out, &self.stop);
        for (no, tracked) in &mut self.tables {
            let Some(reader) = tracked.reader.as_mut().filter(|r| ids.contains(&r.captured.id)) else {
                continue;
            };
            if reader.selection.keep.is_some() {
                cross(*no, tracked, &mut self.sql, limits, piece)?;
            }
            let Some(reader) = tracked.reader.as_mut() else { continue };
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
        Ok(())
    }

    /// Reads the next range of the first table that is not whole yet, or that is to be compared.
    fn read_range(&mut self, read_at: Instant, piece: &mut Piece) -> Result<()> {
        let mut limits = self.limits(read_at);
        if self.sql.is_server() {
            // What came is here already, and was bounded when it was asked for.
            limits = Limits { rows: self.range_rows(), bytes: usize::MAX, until: read_at + FOREVER };
        }
        let reconciling = self.tables.iter().find(|(_, t)| t.state.reconcile.is_some()).map(|(no, _)| *no);
        if reconciling.is_none() {
            self.begin_verify()?;
        }
        let comparing = || self.tables.iter().find(|(_, t)| t.compare.is_some()).map(|(no, _)| *no);
        let Some(no) = reconciling.or_else(comparing) else { return Ok(()) };
        let Some(tracked) = self.tables.get_mut(&no) else { return Ok(()) };
        let unknown = |r: &Reader| r.selection.keep.is_some() && r.kept == Kept::Unknown;
        if tracked.reader.as_ref().is_some_and(unknown) {
            cross(no, tracked, &mut self.sql, limits, piece)?;
        }
        let compare = reconciling.is_none();
        let slot = if compare { &mut tracked.compare } else { &mut tracked.state.reconcile };
        let (Some(from), Some(reader)) = (slot.clone(), tracked.reader.as_ref()) else { return Ok(()) };
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

/// Finds out which rows of a table are kept now, and hands on what came and went by that.
fn cross(no: TableNo, tracked: &mut Tracked, sql: &mut Sql, limits: Limits, piece: &mut Piece) -> Result<()> {
    let Some(reader) = tracked.reader.as_mut() else { return Ok(()) };
    let before = reader.kept.clone();
    let crossed = reader.move_boundary(sql, limits)?;
    if reader.kept == before {
        return Ok(());
    }
    tracked.state.kept.clone_from(&reader.kept);
    match crossed {
        Crossed::Everything if tracked.state.reconcile.as_ref().is_none_or(|p| !p.through.is_empty()) => {
            tracked.state.reconcile = Some(Progress::default());
            piece.changes.push(Change::Define(no, Box::new(tracked.state.clone())));
        }
        Crossed::Rows(rows) => piece.changes.push(Change::Deltas(no, rows)),
        Crossed::Everything | Crossed::Nothing => {}
    }
    piece.changes.push(Change::Keep(no, tracked.state.kept.clone()));
    Ok(())
}

enum Outcome {
    /// Look again at once; nothing of this snapshot is used.
    Again,
    /// The server shows less than the replica has: it may be one that lags.
    Behind,
    /// Capture is not whole: nothing of this snapshot may be used.
    Repair,
    /// Nothing has changed.
    Level,
    Read {
        piece: Piece,
        more: bool,
    },
}

/// Whether capture is there at all, its log id and its head, in one snapshot.
pub(crate) fn look(sql: &mut Sql) -> Result<Option<Head>> {
    sql.run("BEGIN")?;
    let result = (|| {
        if !migrate_is_installed(sql)? {
            return Ok(None);
        }
        let query = format!("SELECT {HEAD}, (SELECT schema_version FROM pragma_schema_version)");
        let head = sql.rows(&query, &[], |row| Ok(ControlFlow::Break((row.value(0)?, row.value(1)?))))?;
        let Some((Value::Integer(seq), Value::Integer(schema_version))) = head else { return Ok(None) };
        let position =
            log_id(sql)?.zip(u64::try_from(seq).ok()).map(|(log_id, seq)| Position { log_id, seq });
        Ok(position.map(|position| Head { position, schema_version }))
    })();
    sql.run("ROLLBACK")?;
    result
}

/// What a source has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub position: Position,
    /// A change of the schema alone has no entry.
    pub schema_version: i64,
}
