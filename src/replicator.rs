//! The loop: wake, read a window, apply it, publish. This file is the table of contents of the crate.
//!
//! Two threads do the work. The source's ([`crate::source`]) waits for a change, reads a window in one
//! snapshot and hands it on in pieces; the replica's ([`crate::replica`]) applies pieces and commits
//! rows and cursor together. Between them is a bounded stream, so that a slow disk makes the next
//! window wider instead of a queue longer. On any error both end, everything in flight is forgotten,
//! and a new pair starts from the replica's cursor.

use crate::capture::audit::Audit;
use crate::capture::consumers::{Claim, Consumer};
use crate::config::Config;
use crate::cursor::{Cursor, LogId, Nonce, Position};
use crate::error::{Error, Kind, Result};
use crate::fault;
use crate::replica::{Applied, Compacted, Condition, Difference, Replica, Writer};
use crate::source::acknowledge::{Acknowledging, Written};
use crate::source::local::{self, Observer, Windows};
use crate::source::retry::Retry;
use crate::source::{Skipped, Source};
use crate::window::Goal;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, mpsc, oneshot, watch};

/// A source that was looked at this recently, and had nothing new, is level with the replica.
const LEVEL_FOR: Duration = Duration::from_secs(1);
/// How long to wait before a window is read again for which the replica's disk had no room.
const ROOM_AGAIN: Duration = Duration::from_secs(1);
/// A server that refuses the token is not asked more often than this.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);

/// Follows one source into one replica.
pub struct Replicator {
    source: Source,
    replica: Replica,
    config: Config,
    progress: Arc<watch::Sender<Progress>>,
    asks: mpsc::Sender<Ask>,
    asked: Mutex<mpsc::Receiver<Ask>>,
    /// What this process acknowledges with.
    session: OnceLock<Nonce>,
}

/// What a running replicator is asked for: it has the source and the replica's only writer.
enum Ask {
    /// To compare them.
    Verify(Goal, oneshot::Sender<Result<Verified>>),
    /// To give the file's unused space back.
    Compact(oneshot::Sender<Result<Compacted>>),
}

/// What a replicator is doing.
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
    /// Rows that reconcile read since this replicator was made.
    pub copied: u64,
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
    read_at: Option<Instant>,
    level_at: Option<Instant>,
    /// How far apart looks at an idle source are.
    looks: Duration,
}

impl Progress {
    /// Entries that the source has and the replica has not; `None` before the source was looked at.
    #[must_use]
    pub fn lag_entries(&self) -> Option<u64> {
        Some(self.head?.saturating_sub(self.position?.seq))
    }

    /// How long since the replica was last known to equal the source's head, on a monotonic clock; zero
    /// while it does. It goes on growing while the source is out of reach.
    #[must_use]
    pub fn lag(&self) -> Option<Duration> {
        let since = self.level_at?.elapsed();
        let level = self.lag_entries() == Some(0) && since < LEVEL_FOR + self.looks;
        Some(if level { Duration::ZERO } else { since })
    }

    /// When the snapshot of the last applied window was taken.
    #[must_use]
    pub fn read_at(&self) -> Option<Instant> {
        self.read_at
    }

    fn looked(&mut self, head: u64, at: Instant) {
        self.head = Some(head);
        if self.position.is_some_and(|p| p.seq >= head) {
            self.level_at = Some(at);
        }
    }

    /// What is in the replica before anything is applied is on disk.
    fn resumed(&mut self, cursor: Option<&Cursor>) {
        if let Some(cursor) = cursor {
            self.position = Some(cursor.position());
            self.durable_seq = cursor.seq;
            self.horizon = cursor.horizon;
        }
    }

    fn applied(&mut self, applied: &Applied) {
        let cursor = applied.end.cursor;
        if self.position.is_some_and(|p| p.log_id != cursor.log_id) {
            self.durable_seq = 0;
        }
        self.position = Some(cursor.position());
        self.horizon = cursor.horizon;
        self.applied_at = Some(applied.at);
        self.read_at = Some(applied.end.read_at);
        self.copied += applied.copied;
        self.reconciling.clone_from(&applied.reconciling);
        self.consistent = cursor.seq == cursor.horizon && applied.reconciling.is_empty();
        if applied.durable {
            self.durable_seq = cursor.seq;
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

/// What a comparison of replica and source found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Verified {
    /// The first differences, by table and key.
    pub differences: Vec<Difference>,
    /// How many there are.
    pub count: u64,
    /// Rows that were compared.
    pub rows: u64,
}

/// The source's thread says here what it sees besides windows.
struct Watch(Arc<watch::Sender<Progress>>);

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

/// A pair of threads at work.
struct Session {
    stop: Arc<crate::source::local::Stop>,
    done: oneshot::Receiver<(Result<()>, Writer)>,
    /// The replica's disk had no room: the source was let go in the middle of a window.
    released: bool,
}

impl Session {
    /// Lets the window at hand be applied, and ends. Without room on the disk it is forgotten instead.
    async fn end(mut self, replica: &Replica) -> Result<()> {
        self.stop.set();
        let mut condition = replica.condition();
        let full = async { condition.wait_for(|c| matches!(c, Condition::Full(_))).await.map(drop) };
        let done = tokio::select! {
            done = &mut self.done => done,
            _ = full => {
                replica.set_waits(false);
                self.stop.release();
                return self.done.await.map(|_| ()).map_err(|_| Error::stopped());
            }
        };
        let (ended, _) = done.map_err(|_| Error::stopped())?;
        ended
    }
}

/// What a session is left for.
enum Left {
    Done(Result<()>, Box<Writer>),
    Shutdown,
    Asked(Ask),
}

fn verified(ended: Ended) -> Verified {
    let Ended::Done(writer) = ended else { return Verified::default() };
    Verified { differences: writer.differences.named, count: writer.differences.count, rows: writer.copied }
}

/// Who a replica is to its source.
#[derive(Clone)]
struct Enrolled {
    claim: Claim,
    known: Option<Consumer>,
}

/// Why sessions ended.
enum Ended {
    Done(Box<Writer>),
    Stopped,
    Asked(Ask),
}

impl Replicator {
    /// Puts a source and a replica together; nothing runs yet.
    #[must_use]
    pub fn new(source: Source, replica: Replica, config: Config) -> Self {
        let looks = source.address().longest_pause(&config);
        let progress = Arc::new(watch::Sender::new(Progress { looks, ..Progress::default() }));
        let (asks, asked) = mpsc::channel(1);
        Self { source, replica, config, progress, asks, asked: Mutex::new(asked), session: OnceLock::new() }
    }

    /// The replica, to read from while this runs.
    #[must_use]
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// What following a server has cost since this was made; `None` for a file.
    #[cfg(feature = "remote")]
    #[must_use]
    pub fn traffic(&self) -> Option<crate::Traffic> {
        self.source.traffic()
    }

    /// Where it stands, now and whenever that changes.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Follows the source until `shutdown` is ready; then finishes the window at hand and returns.
    ///
    /// A failure that may pass is waited for without end; any other is returned.
    ///
    /// # Errors
    /// `Usage` for a wrong source, `Divergence` if configured so, and whatever trying again cannot mend.
    pub async fn run(&self, shutdown: impl Future<Output = ()> + Send) -> Result<()> {
        let mut shutdown = std::pin::pin!(shutdown);
        let mut asked = self.asked.lock().await;
        loop {
            let (goal, reply) = match self.attempt(Goal::Follow, shutdown.as_mut(), &mut asked).await? {
                Ended::Asked(Ask::Verify(goal, reply)) => (goal, reply),
                Ended::Asked(Ask::Compact(reply)) => {
                    let _ = reply.send(self.compacted().await);
                    continue;
                }
                Ended::Stopped | Ended::Done(_) => return Ok(()),
            };
            let (_none, mut nobody) = mpsc::channel(1);
            let found = self.attempt(goal, shutdown.as_mut(), &mut nobody).await;
            let stopped = matches!(found, Ok(Ended::Stopped));
            let _ = reply.send(found.map(verified));
            if stopped {
                return Ok(());
            }
        }
    }

    /// Brings the replica up to the source's head as it is now, every table whole, and returns.
    ///
    /// # Errors
    /// As [`Replicator::run`].
    pub async fn sync_once(&self) -> Result<Position> {
        self.until_done(Goal::CatchUp).await?;
        let reached = self.progress.borrow().position;
        reached.ok_or_else(|| Error::new(Kind::Source, "source: ended before its first window"))
    }

    /// Catches up, then compares every row of these tables (all, if none is named) with the source, each
    /// range in the same snapshot as the window it is compared at. With `repair`, differences are mended.
    ///
    /// # Errors
    /// `Capture` if the source's capture is not whole; and as [`Replicator::run`].
    pub async fn verify(&self, tables: &[String], repair: bool) -> Result<Verified> {
        let goal = Goal::Verify { tables: tables.to_vec(), repair };
        if self.asked.try_lock().is_ok() {
            return self.until_done(goal).await.map(verified);
        }
        let (reply, replied) = oneshot::channel();
        self.asks.send(Ask::Verify(goal, reply)).await.map_err(|_| Error::stopped())?;
        replied.await.map_err(|_| Error::stopped())?
    }

    /// As [`Replica::compact`], between two windows if this is running.
    ///
    /// # Errors
    /// As [`Replica::compact`].
    pub async fn compact(&self) -> Result<Compacted> {
        if self.asked.try_lock().is_ok() {
            return self.compacted().await;
        }
        let (reply, replied) = oneshot::channel();
        self.asks.send(Ask::Compact(reply)).await.map_err(|_| Error::stopped())?;
        replied.await.map_err(|_| Error::stopped())?
    }

    async fn compacted(&self) -> Result<Compacted> {
        let replica = self.replica.clone();
        let work = tokio::task::spawn_blocking(move || replica.compact());
        work.await.map_err(|e| Error::new(Kind::Replica, format!("replica: {e}")))?
    }

    /// Works towards a goal that has an end; nothing but that or an error stops it.
    async fn until_done(&self, goal: Goal) -> Result<Ended> {
        let mut never = std::pin::pin!(std::future::pending());
        let (_none, mut nobody) = mpsc::channel(1);
        self.attempt(goal, never.as_mut(), &mut nobody).await
    }

    /// Waits until the replica is consistent at or past this position.
    ///
    /// # Errors
    /// `Divergence` if the replica comes to follow another log.
    pub async fn wait_for(&self, position: Position) -> Result<()> {
        let mut progress = self.progress();
        let reached = |p: &Progress| {
            p.position
                .is_some_and(|at| at.log_id != position.log_id || (p.consistent && at.seq >= position.seq))
        };
        let now = progress.wait_for(reached).await.map_err(|_| Error::stopped())?;
        match now.position {
            Some(at) if at.log_id == position.log_id => Ok(()),
            _ => Err(Error::new(
                Kind::Divergence,
                format!("position {position}: the source's log is another one now"),
            )),
        }
    }

    /// Runs sessions until one ends by itself, by `shutdown`, or by an error that stays.
    async fn attempt(
        &self,
        goal: Goal,
        mut shutdown: Pin<&mut (impl Future<Output = ()> + Send)>,
        asked: &mut mpsc::Receiver<Ask>,
    ) -> Result<Ended> {
        self.replica.set_waits(true);
        let mut retry = Retry::new();
        let mut recognised = false;
        loop {
            let before = self.progress.borrow().position;
            let left = match self.prepare(&mut recognised, &goal).await {
                Ok((mut session, enrolled)) => {
                    match self.left(&mut session, shutdown.as_mut(), asked).await? {
                        Left::Shutdown => {
                            let ended = session.end(&self.replica).await;
                            self.settle(enrolled).await;
                            return ended.map(|()| Ended::Stopped);
                        }
                        Left::Asked(ask) => {
                            return session.end(&self.replica).await.map(|()| Ended::Asked(ask));
                        }
                        Left::Done(Ok(()), _) if session.released => Err(Error::stopped()),
                        Left::Done(Ok(()), writer) => Ok((writer, enrolled)),
                        Left::Done(Err(e), _) => Err(e),
                    }
                }
                Err(e) => Err(e),
            };
            let error = match (left, self.damage()) {
                (Err(e), Some(_)) if !matches!(goal, Goal::Follow | Goal::CatchUp) => return Err(e),
                (_, Some(damage)) => {
                    self.mend(&damage)?;
                    recognised = false;
                    continue;
                }
                (Ok((writer, enrolled)), None) => {
                    self.settle(enrolled).await;
                    return Ok(Ended::Done(writer));
                }
                (Err(e), None) => e,
            };
            // The source was let go while the disk was full. Whether there is room again shows by trying.
            if error.kind() == Kind::Stopped {
                tokio::select! {
                    () = tokio::time::sleep(ROOM_AGAIN) => {}
                    () = shutdown.as_mut() => return Ok(Ended::Stopped),
                }
                self.replica.assume_room();
                continue;
            }
            if !error.is_transient() {
                return Err(error);
            }
            if self.progress.borrow().position != before {
                retry.reset();
            }
            let pause = self.pause(&error, &mut retry);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.as_mut() => return Ok(Ended::Stopped),
            }
        }
    }

    /// How long to rest after an error that may pass; says so.
    fn pause(&self, error: &Error, retry: &mut Retry) -> Duration {
        let refused = error.kind() == Kind::Refused;
        let least =
            error.retry_after().unwrap_or_default().max(if refused { REFUSED_PAUSE } else { Duration::ZERO });
        let pause = retry.pause().max(least);
        tracing::warn!("{error}; trying again in {} ms", pause.as_millis());
        let state = if refused { State::Refused } else { State::Retrying };
        self.progress.send_modify(|p| (p.state, p.error) = (state, Some(error.to_string())));
        pause
    }

    /// Sees to it that the replica is of use and follows this source, and starts a session.
    async fn prepare(&self, recognised: &mut bool, goal: &Goal) -> Result<(Session, Enrolled)> {
        self.replica.ready()?;
        if !*recognised {
            self.recognise().await?;
            *recognised = true;
        }
        let enrolled = self.enroll().await?;
        let session = self.begin(goal.clone(), &enrolled)?;
        Ok((session, enrolled))
    }

    /// Says who this replica is to its source. A replica whose file was copied, and whose copy has
    /// acknowledged since, becomes a consumer of its own.
    async fn enroll(&self) -> Result<Enrolled> {
        let session = match self.session.get() {
            Some(session) => *session,
            None => *self.session.get_or_init({
                let new = Nonce::new()?;
                move || new
            }),
        };
        let stored = self.replica.consumer()?;
        let (mut id, mut sessions) = stored.clone().unwrap_or((Nonce::new()?, Vec::new()));
        let known = self.source.consumers().await?.into_iter().find(|c| c.id == id);
        let known = match known.as_ref().map(|c| sessions.iter().position(|s| Some(*s) == c.session)) {
            Some(Some(i)) => {
                sessions.drain(..i);
                known
            }
            Some(None) => {
                tracing::warn!(
                    "another process acknowledges as consumer {id} (a copy of this replica): this one is a new consumer"
                );
                (id, sessions) = (Nonce::new()?, Vec::new());
                None
            }
            None => {
                self.warn_if_dropped(id, !sessions.is_empty()).await?;
                None
            }
        };
        if !sessions.contains(&session) {
            sessions.push(session);
        }
        if stored.as_ref() != Some(&(id, sessions.clone())) {
            self.replica.set_consumer(id, &sessions)?;
        }
        let wants = self.config.wants.clone();
        Ok(Enrolled { claim: Claim { id, sessions, seq: 0, wants }, known })
    }

    async fn warn_if_dropped(&self, id: Nonce, was_known: bool) -> Result<()> {
        let cursor = self.replica.start()?.cursor.filter(|_| was_known);
        let log_id = self.source.head().await?.map(|p| p.log_id);
        if cursor.is_some_and(|c| Some(c.log_id) == log_id) {
            tracing::warn!(
                "the source does not know consumer {id} (any more: it was dropped, or never could be told): it may be rebuilt"
            );
        }
        Ok(())
    }

    /// Says to the source where following ended. That it cannot be told now is no failure of following.
    async fn settle(&self, enrolled: Enrolled) {
        let Some(position) = self.progress.borrow().position else { return };
        let durable = Watch(Arc::clone(&self.progress)).durable(position.log_id);
        if let Err(e) = self.source.settle(enrolled.claim, durable).await {
            tracing::debug!("not acknowledged at the end: {e}");
        }
    }

    /// Waits for what a session is left for. Says so while the disk is full, and ends a session whose replica
    /// was found damaged by a reader.
    async fn left(
        &self,
        session: &mut Session,
        mut shutdown: Pin<&mut (impl Future<Output = ()> + Send)>,
        asked: &mut mpsc::Receiver<Ask>,
    ) -> Result<Left> {
        let mut condition = self.replica.condition();
        loop {
            let now = condition.borrow_and_update().clone();
            let full = matches!(now, Condition::Full(_));
            match now {
                Condition::Full(what) => {
                    session.released = true;
                    session.stop.release();
                    if self.progress.borrow().state != State::DiskFull {
                        tracing::warn!("{what}; waiting for room");
                    }
                    self.progress.send_modify(|p| (p.state, p.error) = (State::DiskFull, Some(what)));
                }
                Condition::Damaged(_) => session.stop.set(),
                Condition::Good | Condition::Failed(_) | Condition::Unsynced(_) => {}
            }
            tokio::select! {
                done = &mut session.done => {
                    session.stop.set();
                    let (ended, writer) = done.map_err(|_| Error::new(Kind::Replica, "the replica's thread panicked"))?;
                    return Ok(Left::Done(ended, Box::new(writer)));
                }
                () = shutdown.as_mut() => return Ok(Left::Shutdown),
                Some(ask) = asked.recv(), if !full => return Ok(Left::Asked(ask)),
                Ok(()) = condition.changed() => {}
            }
        }
    }

    /// What is damaged, if the replica is.
    fn damage(&self) -> Option<Error> {
        match &*self.replica.condition().borrow() {
            Condition::Damaged(what) => Some(Error::new(Kind::Damaged, what.clone())),
            _ => None,
        }
    }

    /// Puts a new replica in the place of a damaged one.
    fn mend(&self, damage: &Error) -> Result<()> {
        self.replica.rebuild(damage)?;
        self.progress.send_modify(|p| {
            (p.position, p.durable_seq, p.horizon, p.consistent) = (None, 0, 0, false);
            p.state = State::Reconciling;
        });
        Ok(())
    }

    /// Starts both threads, from what the replica has durably.
    fn begin(&self, goal: Goal, enrolled: &Enrolled) -> Result<Session> {
        let start = self.replica.start()?;
        self.progress.send_modify(|p| p.resumed(start.cursor.as_ref()));
        let acknowledging = Acknowledging::new(enrolled.claim.clone(), enrolled.known.as_ref());
        let mut writer = Writer::new(&self.replica, self.config.durability)?;
        let watch = Watch(Arc::clone(&self.progress));
        let Windows { pieces, stop } =
            local::follow(self.source.address(), &self.config, start, goal, Some(acknowledging), watch)?;
        let (send, done) = oneshot::channel();
        let progress = Arc::clone(&self.progress);
        let runtime = tokio::runtime::Handle::current();
        let work = move || {
            let applied = |applied: Applied| progress.send_modify(|p| p.applied(&applied));
            let ended = runtime.block_on(writer.run(pieces, applied));
            let _ = send.send((ended, writer));
        };
        let thread = std::thread::Builder::new().name("redtail-replica".into());
        thread.spawn(work).map_err(|e| Error::new(Kind::Replica, format!("cannot start a thread: {e}")))?;
        Ok(Session { stop, done, released: false })
    }

    /// Refuses a replica of another source, and remembers where this one is.
    async fn recognise(&self) -> Result<()> {
        self.source.recognise(&self.replica).await?;
        let here = self.source.to_string();
        if self.replica.source()?.as_ref() == Some(&here) { Ok(()) } else { self.replica.set_source(&here) }
    }
}

impl Source {
    /// Whether this replica follows this source, or none yet. A source that only moved is the same one.
    ///
    /// # Errors
    /// `Usage` if the replica follows another source.
    pub async fn recognise(&self, replica: &Replica) -> Result<()> {
        let here = self.to_string();
        match (replica.source()?, replica.start()?.cursor) {
            (Some(known), Some(cursor))
                if known != here && self.head().await?.map(|p| p.log_id) != Some(cursor.log_id) =>
            {
                Err(Error::usage(format!(
                    "replica {}: follows {known}, not {here}; give that source, or another replica file",
                    replica.path().display()
                )))
            }
            _ => Ok(()),
        }
    }
}
