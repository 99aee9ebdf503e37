//! Where a replicator stands, as it is published to whoever asks.

use crate::capture::audit::Audit;
use crate::cursor::{LogId, Position};
use crate::fault;
use crate::replica::Applied;
use crate::source::Skipped;
use crate::source::acknowledge::Written;
use crate::source::local::Observer;
use crate::window::Start;
use crate::work::Work;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// A source that was looked at this recently, and had nothing new, is level with the replica.
const LEVEL_FOR: Duration = Duration::from_secs(1);

/// What a replicator is doing.
///
/// ```no_run
/// # async fn follow(replicator: &redtail::Replicator) -> redtail::Result<()> {
/// let mut progress = replicator.progress();
/// let following = progress.wait_for(|p| p.state == redtail::State::Following).await;
/// assert!(following.is_ok());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum State {
    /// Not running, or not yet through its first window.
    #[default]
    Idle,
    /// Bringing tables to equality with the source.
    Reconciling,
    /// Behind the source's head, and catching up.
    CatchingUp,
    /// Level with the source, waiting for changes.
    Following,
    /// The source cannot be read for now; trying again.
    Retrying,
    /// The replica's disk has no room; waiting for it. What is in the replica stays readable.
    DiskFull,
    /// The source refuses the token; trying again, seldom.
    Refused,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Idle,
        Self::Reconciling,
        Self::CatchingUp,
        Self::Following,
        Self::Retrying,
        Self::DiskFull,
        Self::Refused,
    ];

    /// The state in one lower-case word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Reconciling => "reconciling",
            Self::CatchingUp => "catching-up",
            Self::Following => "following",
            Self::Retrying => "retrying",
            Self::DiskFull => "disk-full",
            Self::Refused => "refused",
        }
    }
}

/// Where a replicator stands; a new one is published with every commit.
///
/// ```no_run
/// # async fn follow(replicator: &redtail::Replicator) -> redtail::Result<()> {
/// let progress = replicator.progress().borrow().clone();
/// println!("{}: at {:?}, {} windows", progress.state.name(), progress.position, progress.work.windows);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Progress {
    /// What it is doing.
    pub state: State,
    /// Up to where the source's history is applied and visible.
    pub position: Option<Position>,
    /// Up to where it is on disk.
    pub durable_seq: u64,
    /// When the last commit returned.
    pub applied_at: Option<Instant>,
    /// The largest head any row was read at.
    pub horizon: u64,
    /// The source's head when it was last looked at.
    pub head: Option<u64>,
    /// The replica shows one state of the source.
    pub consistent: bool,
    /// Tables that are not whole yet.
    pub reconciling: Vec<String>,
    /// What was done since this replicator was made.
    pub work: Work,
    /// Tables that are not replicated, and why.
    pub skipped: Vec<Skipped>,
    /// The last failure, while it lasts.
    pub error: Option<String>,
    /// The source may not be written to: it does not know of this replica, and `retain_min` decides how
    /// long it may be away.
    pub read_only: bool,
    /// The source is in WAL mode, where readers and writers do not block each other; `None` before it was
    /// looked at.
    pub wal: Option<bool>,
    /// Up to where the source was last told that everything is on disk, by this replicator.
    pub acknowledged: Option<u64>,
    /// The version of the source's schema at which the last window was read.
    schema_version: Option<i64>,
    read_at: Option<Instant>,
    looked_at: Option<Instant>,
    level_at: Option<Instant>,
    durable_level_at: Option<Instant>,
    /// How far apart looks at an idle source are.
    looks: Duration,
}

impl Progress {
    /// Of a replicator that looks at an idle source so often.
    pub(crate) fn looking_every(looks: Duration) -> Self {
        Self { looks, ..Self::default() }
    }

    /// Entries that the source has and the replica has not; `None` before the source was looked at.
    #[must_use]
    pub fn lag_entries(&self) -> Option<u64> {
        Some(self.head?.saturating_sub(self.position?.seq))
    }

    /// How long since the replica was last known to equal the source's head, on a monotonic clock; zero
    /// while it does. It goes on growing while the source is out of reach.
    #[must_use]
    pub fn lag(&self) -> Option<Duration> {
        self.lag_since(self.level_at?, self.is_level(self.position?.seq))
    }

    /// As [`Progress::lag`], of what is on disk.
    #[must_use]
    pub fn durable_lag(&self) -> Option<Duration> {
        self.lag_since(self.durable_level_at?, self.is_level(self.durable_seq))
    }

    #[allow(clippy::unnecessary_wraps)]
    fn lag_since(&self, level_at: Instant, level: bool) -> Option<Duration> {
        let since = level_at.elapsed();
        Some(if level && since < LEVEL_FOR + self.looks { Duration::ZERO } else { since })
    }

    /// Whether what is there up to `seq` is all that the source was last seen to have.
    fn is_level(&self, seq: u64) -> bool {
        self.consistent && self.head.is_some_and(|head| seq >= head)
    }

    /// How long since the source was last read, or asked and had nothing new; `None` before the first time.
    #[must_use]
    pub fn since_look(&self) -> Option<Duration> {
        Some(self.looked_at?.elapsed())
    }

    /// When the snapshot of the last applied window was taken.
    #[must_use]
    pub fn read_at(&self) -> Option<Instant> {
        self.read_at
    }

    /// Whether what was applied last was read at this version of the schema, or later than at `since`.
    pub(crate) fn knows_schema(&self, version: i64, since: Instant) -> bool {
        self.schema_version == Some(version) || self.read_at.is_some_and(|at| at >= since)
    }

    pub(crate) fn looked(&mut self, head: u64, at: Instant) {
        (self.head, self.looked_at) = (Some(head), Some(at));
        if self.position.is_some_and(|p| self.is_level(p.seq)) {
            self.level_at = Some(at);
            // Nothing had to be applied to get there: after a start, or when a source is back.
            if self.state != State::DiskFull {
                (self.state, self.error) = (State::Following, None);
            }
        }
        if self.is_level(self.durable_seq) {
            self.durable_level_at = Some(at);
        }
    }

    /// What is in the replica before anything is applied is on disk.
    pub(crate) fn resumed(&mut self, start: &Start) {
        let reconciling = start.tables.iter().filter(|(_, t)| t.reconcile.is_some());
        self.reconciling = reconciling.map(|(_, t)| t.table.name.clone()).collect();
        if let Some(cursor) = start.cursor {
            self.position = Some(cursor.position());
            self.schema_version = Some(cursor.schema_version);
            self.durable_seq = cursor.seq;
            self.horizon = cursor.horizon;
            self.consistent = cursor.seq == cursor.horizon && self.reconciling.is_empty();
        }
    }

    pub(crate) fn applied(&mut self, applied: &Applied) {
        let cursor = applied.end.cursor;
        if self.position.is_some_and(|p| p.log_id != cursor.log_id) {
            self.durable_seq = 0;
        }
        self.position = Some(cursor.position());
        self.schema_version = Some(cursor.schema_version);
        self.horizon = cursor.horizon;
        self.applied_at = Some(applied.at);
        self.read_at = Some(applied.end.read_at);
        self.work.add(applied.brought);
        self.reconciling.clone_from(&applied.reconciling);
        self.consistent = cursor.seq == cursor.horizon && applied.reconciling.is_empty();
        if applied.durable {
            self.durable_seq = cursor.seq;
        }
        if applied.brought.windows == 0 {
            // Only put on disk what was visible: nobody looked at the source.
            if self.is_level(self.durable_seq) {
                self.durable_level_at = self.level_at;
            }
            return;
        }
        self.error = None;
        self.looked(applied.end.head, applied.end.read_at);
        self.state = match (applied.reconciling.is_empty(), cursor.seq < applied.end.head) {
            (false, _) => State::Reconciling,
            (true, true) => State::CatchingUp,
            (true, false) => State::Following,
        };
    }
}

/// The source's thread says here what it sees besides windows.
pub(crate) struct Watch(pub Arc<watch::Sender<Progress>>);

impl Observer for Watch {
    fn level(&self, head: u64, at: Instant) {
        self.0.send_modify(|p| p.looked(head, at));
    }

    fn audited(&self, audit: &Audit) {
        for (t, why) in &audit.broken {
            tracing::info!("table {}: capture installed ({why})", t.table.name);
        }
        self.0.send_modify(|p| p.skipped.clone_from(&audit.skipped));
    }

    fn diverged(&self, rebuild: bool) {
        self.0.send_modify(|p| {
            let count = if rebuild { &mut p.work.rebuilds_diverged } else { &mut p.work.rewinds };
            *count += 1;
        });
    }

    fn journal(&self, wal: bool) {
        let modified = self.0.send_if_modified(|p| p.wal.replace(wal) != Some(wal));
        if modified && !wal {
            tracing::warn!(
                "the source is not in WAL mode: reading it blocks its writers, so it is read in slices of 20 ms; PRAGMA journal_mode = WAL ends that"
            );
        }
    }

    fn durable(&self, log_id: LogId) -> u64 {
        let progress = self.0.borrow();
        let position = progress.position.filter(|p| p.log_id == log_id);
        position.map_or(0, |p| if fault::acknowledge_early() { p.seq } else { progress.durable_seq })
    }

    fn wrote(&self, written: Option<&Written>) {
        self.0.send_modify(|p| p.read_only = written.is_none());
        let Some(written) = written else {
            tracing::warn!("the source may not be written to: it cannot be told how far this replica is");
            return;
        };
        self.0.send_modify(|p| {
            p.acknowledged = Some(written.seq);
            p.work.acknowledgements += 1;
            p.work.pruned += written.pruned;
        });
        for c in &written.dropped {
            let days = c.unseen.as_secs() / 86_400;
            tracing::warn!(
                "consumer {} was not seen for {days} days: it is dropped, and rebuilds if it returns",
                c.id
            );
        }
        if written.pruned > 0 {
            tracing::debug!("{} entries pruned", written.pruned);
        }
    }
}
