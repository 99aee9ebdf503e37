//! The loop: wake, read a window, apply it, publish. This file is the table of contents of the crate.
//!
//! Two threads do the work. The source's ([`crate::source`]) waits for a change, reads a window in one
//! snapshot and hands it on in pieces; the replica's ([`crate::replica`]) applies pieces and commits
//! rows and cursor together. Between them is a bounded stream, so that a slow disk makes the next
//! window wider instead of a queue longer. On any error both end, everything in flight is forgotten,
//! and a new pair starts from the replica's cursor.

mod audits;
mod changes;
mod occasions;
mod rebuild;
mod reload;
mod wait;

pub use changes::Changes;
pub use rebuild::Rebuilt;
pub use wait::Wait;

use crate::capture::consumers::{Claim, Consumer};
use crate::config::Config;
use crate::cursor::{Nonce, Position};
use crate::error::{Error, Kind, Result};
use crate::progress::{Progress, State, Watch};
use crate::replica::{Applied, Compacted, Condition, Difference, Project, Projectors, Replica, Writer};
use crate::source::Source;
use crate::source::acknowledge::Acknowledging;
use crate::source::local::{self, Closed, Observer, Windows};
use crate::source::retry::Retry;
use crate::window::Goal;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, RwLock};
use std::time::Duration;
use tokio::sync::{Mutex, Notify, mpsc, oneshot, watch};

/// Sessions that a replica remembers which never acknowledged.
const SESSIONS: usize = 64;
/// How long to wait before a window is read again for which the replica's disk had no room.
const ROOM_AGAIN: Duration = Duration::from_secs(1);
/// A server that refuses the token is not asked more often than this.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);

/// Follows one source into one replica.
///
/// ```no_run
/// # async fn follow(source: redtail::Source, replica: redtail::Replica) -> redtail::Result<()> {
/// use redtail::{Config, Replicator};
/// use std::{sync::Arc, time::Duration};
///
/// let replicator = Arc::new(Replicator::new(source, replica, Config::default()));
/// let running = tokio::spawn({
///     let replicator = Arc::clone(&replicator);
///     async move { replicator.run(async { drop(tokio::signal::ctrl_c().await) }).await }
/// });
/// // What was written to the source before this call is in the snapshot.
/// let snapshot = replicator.snapshot_at_head(Duration::from_secs(2)).await?;
/// # drop((running, snapshot));
/// # Ok(())
/// # }
/// ```
pub struct Replicator {
    source: Source,
    replica: Replica,
    config: RwLock<Arc<Config>>,
    projectors: Projectors,
    progress: Arc<watch::Sender<Progress>>,
    asks: mpsc::Sender<Ask>,
    asked: Mutex<mpsc::Receiver<Ask>>,
    /// What this process acknowledges with.
    session: OnceLock<Nonce>,
    /// Somebody wants the replica to be brought up to date now.
    by_hand: Notify,
    /// The settings have changed.
    reloaded: Notify,
}

/// What a running replicator is asked for: it has the source and the replica's only writer.
enum Ask {
    /// To compare them.
    Verify(Goal, oneshot::Sender<Result<Verified>>),
    /// To give the file's unused space back.
    Compact(oneshot::Sender<Result<Compacted>>),
    /// To reconcile these tables from their start; answered when that has begun.
    Rebuild(Vec<String>, oneshot::Sender<Result<Vec<String>>>),
    /// To go on with other settings.
    Reload(Box<Config>, oneshot::Sender<()>),
}

/// What a comparison of replica and source found.
///
/// ```no_run
/// # async fn follow(replicator: &redtail::Replicator) -> redtail::Result<()> {
/// let verified = replicator.verify(&[], false).await?;
/// assert_eq!((verified.count, verified.differences.len()), (0, 0));
/// # Ok(())
/// # }
/// ```
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

/// A pair of threads at work.
struct Session {
    stop: Arc<crate::source::local::Stop>,
    done: oneshot::Receiver<(Result<()>, Writer)>,
    closed: Closed,
    follows: bool,
    /// The replica's disk had no room: the source was let go in the middle of a window.
    released: bool,
}

impl Session {
    /// Lets the window at hand be applied, and ends. Without room on the disk it is forgotten instead.
    async fn end(mut self, replica: &Replica) -> Result<()> {
        let ended = self.apply_the_last(replica).await;
        if replica.sound().is_ok() {
            self.closed.wait().await;
        }
        ended
    }

    async fn apply_the_last(&mut self, replica: &Replica) -> Result<()> {
        self.stop.set();
        let mut condition = replica.condition();
        let full = async { condition.wait_for(|c| matches!(c, Condition::Full(_))).await.map(drop) };
        let done = tokio::select! {
            done = &mut self.done => done,
            _ = full => {
                replica.set_waits(false);
                self.stop.release();
                return (&mut self.done).await.map(|_| ()).map_err(|_| Error::stopped());
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
        let progress = Arc::new(watch::Sender::new(Progress::looking_every(looks)));
        let (asks, asked) = mpsc::channel(1);
        let config = RwLock::new(Arc::new(config));
        Self {
            source,
            replica,
            config,
            projectors: Projectors::default(),
            progress,
            asks,
            asked: Mutex::new(asked),
            session: OnceLock::new(),
            by_hand: Notify::new(),
            reloaded: Notify::new(),
        }
    }

    /// Keeps a type of the application's own beside each row of a table, to be read with
    /// [`Snapshot::projection`](crate::Snapshot::projection): from the first `sync_once` or `run` on. What is new, or
    /// has another version, is made of the rows that are there before anything is read from the source. A replicator
    /// that is not told of a projection takes it out of the replica: nobody would keep it up to date.
    ///
    /// Two types of one table have two names ([`Project::NAME`]); else whatever runs ends with an error of the kind
    /// `Usage`.
    #[must_use]
    pub fn projecting<T: Project>(mut self) -> Self {
        self.projectors.add::<T>();
        self
    }

    /// The replica, to read from while this runs.
    #[must_use]
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// The source that it follows.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
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

    /// Follows the source until `shutdown` is ready; then finishes the window at hand and returns. With
    /// [`Config::sync`] it catches up on these occasions instead.
    ///
    /// A failure that may pass is waited for without end; any other is returned.
    ///
    /// # Errors
    /// `Usage` for a wrong source, `Divergence` if configured so, and whatever trying again cannot mend.
    pub async fn run(&self, shutdown: impl Future<Output = ()> + Send) -> Result<()> {
        let shutdown = std::pin::pin!(shutdown);
        let mut asked = self.asked.lock().await;
        tokio::select! {
            ended = self.work(shutdown, &mut asked) => ended,
            never = self.audits() => match never {},
        }
    }

    /// Follows, and does what it is asked for in between.
    async fn work(
        &self,
        mut shutdown: Pin<&mut (impl Future<Output = ()> + Send)>,
        asked: &mut mpsc::Receiver<Ask>,
    ) -> Result<()> {
        let mut turns = occasions::Turns::new();
        loop {
            let (goal, reply) = match self.turn(&mut turns, shutdown.as_mut(), asked).await? {
                Ended::Asked(Ask::Verify(goal, reply)) => (goal, reply),
                Ended::Asked(Ask::Compact(reply)) => {
                    let _ = reply.send(self.compacted().await);
                    continue;
                }
                Ended::Asked(Ask::Rebuild(tables, reply)) => {
                    let _ = reply.send(self.marked(&tables).await);
                    continue;
                }
                Ended::Asked(Ask::Reload(config, reply)) => {
                    self.set_config(*config);
                    let _ = reply.send(());
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

    /// Brings the replica up to the source's head as it is now, every table whole, and returns. Where this is
    /// running, the running one does it.
    ///
    /// # Errors
    /// As [`Replicator::run`].
    pub async fn sync_once(&self) -> Result<Position> {
        if self.asked.try_lock().is_err() && self.source.head().await?.is_some() {
            self.by_hand.notify_one();
            return self.wait_for_head().await;
        }
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
        // Windows were lost with one that failed behind them: each gets a transaction of its own.
        let mut apart = false;
        loop {
            let before = self.progress.borrow().position;
            let left = match self.prepare(&mut recognised, &goal, apart).await {
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
                        Left::Done(Ok(()), writer) => self.replica.sound().map(|()| (writer, enrolled)),
                        Left::Done(Err(_), writer) if writer.lost && !apart => {
                            apart = true;
                            continue;
                        }
                        Left::Done(Err(e), writer) => {
                            apart = writer.lost;
                            Err(e)
                        }
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
                self.progress.send_modify(|p| p.work.retries.count(Kind::Stopped));
                continue;
            }
            let lasting = matches!(goal, Goal::Follow | Goal::CatchUp);
            let error = if lasting { self.unless_away(error) } else { error };
            if !error.is_transient() {
                return Err(error);
            }
            if self.progress.borrow().position != before {
                retry.reset();
            }
            self.replica.ready_to_read();
            let pause = self.pause(&error, &mut retry);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.as_mut() => return Ok(Ended::Stopped),
            }
        }
    }

    /// A file that was followed and is gone, may not be read or is no whole database may come back: somebody copies a
    /// backup to its place, or its disk is away.
    fn unless_away(&self, error: Error) -> Error {
        let gone = error.is_unreadable() || self.source.is_away();
        if gone && self.was_there() { error.with_kind(Kind::Unavailable) } else { error }
    }

    /// Whether the source was looked at before.
    fn was_there(&self) -> bool {
        self.progress.borrow().since_look().is_some()
    }

    /// A file that was followed and has no length is about to be written by somebody: to SQLite it is a new database,
    /// in which capture must not be installed.
    fn emptied(&self) -> Option<Error> {
        let path = self.source.path().filter(|_| self.was_there())?;
        path.metadata().ok().filter(|file| file.len() == 0)?;
        Some(Error::new(Kind::Unavailable, format!("source {}: its file is empty", path.display())))
    }

    /// How long to rest after an error that may pass; says so.
    fn pause(&self, error: &Error, retry: &mut Retry) -> Duration {
        let refused = error.kind() == Kind::Refused;
        let least =
            error.retry_after().unwrap_or_default().max(if refused { REFUSED_PAUSE } else { Duration::ZERO });
        let pause = retry.pause().max(least);
        tracing::warn!("{error}; trying again in {} ms", pause.as_millis());
        let state = if refused { State::Refused } else { State::Retrying };
        self.progress.send_modify(|p| {
            (p.state, p.error) = (state, Some(error.to_string()));
            p.work.retries.count(error.kind());
        });
        pause
    }

    /// Sees to it that the replica is of use and follows this source, and starts a session.
    async fn prepare(&self, recognised: &mut bool, goal: &Goal, apart: bool) -> Result<(Session, Enrolled)> {
        self.emptied().map_or(Ok(()), Err)?;
        self.replica.ready()?;
        if !*recognised {
            self.recognise().await?;
            *recognised = true;
        }
        let enrolled = self.enroll().await?;
        let session = self.begin(goal.clone(), &enrolled, apart).await?;
        Ok((session, enrolled))
    }

    /// Says who this replica is to its source. A replica whose file was copied, and whose copy has
    /// acknowledged since, becomes a consumer of its own.
    async fn enroll(&self) -> Result<Enrolled> {
        let new = Nonce::new()?;
        let session = *self.session.get_or_init(|| new);
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
        if sessions.len() > SESSIONS {
            // The first is the one that the source has, if it has any.
            sessions.remove(1);
        }
        if stored.as_ref() != Some(&(id, sessions.clone())) {
            self.replica.set_consumer(id, &sessions)?;
        }
        let wants = self.config().wants.clone();
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
                // A reader has met it; until the file is opened again, none can read.
                Condition::Damaged(_) | Condition::Failed(_) | Condition::Unsynced(_) => session.stop.set(),
                Condition::Good => {}
            }
            tokio::select! {
                done = &mut session.done => {
                    session.stop.set();
                    let (ended, writer) = done.map_err(|_| Error::new(Kind::Replica, "the replica's thread panicked"))?;
                    // One that follows ends by itself only where the replica is to be mended, which readers wait for.
                    if ended.is_ok() && !session.follows {
                        session.closed.wait().await;
                    }
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
            p.work.rebuilds_damaged += 1;
        });
        Ok(())
    }

    /// Starts both threads, from what the replica has durably.
    async fn begin(&self, goal: Goal, enrolled: &Enrolled, apart: bool) -> Result<Session> {
        let (start, mut config) = (self.replica.start()?, Config::clone(&self.config()));
        self.progress.send_modify(|p| p.resumed(&start));
        let acknowledging = Acknowledging::new(enrolled.claim.clone(), enrolled.known.as_ref());
        let mut writer = self.writer(config.clone()).await?;
        let watch = Watch(Arc::clone(&self.progress));
        if apart {
            config.max_transaction = Duration::ZERO;
        }
        let (known, follows) = (self.source.known().clone(), goal == Goal::Follow);
        let Windows { pieces, stop, closed } =
            local::follow(self.source.address(), &config, start, goal, Some(acknowledging), known, watch)?;
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
        Ok(Session { stop, done, closed, follows, released: false })
    }

    /// What applies windows. Indexes and projections that are new are made first, which may take as long as reading
    /// their tables does.
    async fn writer(&self, config: Config) -> Result<Writer> {
        let (replica, projectors) = (self.replica.clone(), self.projectors.clone());
        let work = move || {
            Writer::new(&replica, config.durability)?
                .recording(&config)
                .indexed(&config)?
                .projecting(&projectors)
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| Error::stopped())?
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

/// From where to where, and where it stands.
impl fmt::Debug for Replicator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replicator")
            .field("source", &self.source)
            .field("replica", &self.replica)
            .field("projectors", &self.projectors)
            .field("state", &self.progress.borrow().state)
            .finish_non_exhaustive()
    }
}
