//! Waiting for a position, and reading what one has just written.
//!
//! Reads progress and asks the source; changes nothing.

use super::Replicator;
use crate::cursor::{Cursor, LogId, Position};
use crate::error::{Error, Kind, Result};
use crate::progress::{Progress, State};
use crate::replica::{Replica, Snapshot};
use crate::source::Source;
use std::fmt;
use std::pin::Pin;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long to rest before a source that could not be asked is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// A wait that has not begun: `.await` it, after [`Wait::at_most`] if it may not last for ever.
///
/// It holds neither the replicator nor the replica's file.
///
/// ```no_run
/// # async fn wait(replicator: &redtail::Replicator) -> redtail::Result<()> {
/// use std::time::Duration;
///
/// if let Some(head) = replicator.source().head().await? {
///     let reached = replicator.wait_for(head).at_most(Duration::from_secs(2)).await?;
///     println!("readable at {reached}");
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is waited for before it is awaited"]
pub struct Wait {
    progress: watch::Receiver<Progress>,
    source: Source,
    /// `None`: the source's head, when it is awaited.
    position: Option<Position>,
    at_most: Option<Duration>,
}

/// What is waited for, once it is known.
#[derive(Clone, Copy)]
struct Target {
    position: Position,
    /// The schema's version, and when it was that.
    schema: Option<(i64, Instant)>,
}

impl Wait {
    /// Gives up after this long, with an error of the kind `TimedOut` that says where the replica is.
    pub fn at_most(self, at_most: Duration) -> Self {
        Self { at_most: Some(at_most), ..self }
    }

    async fn reached(mut self) -> Result<Position> {
        let Some(at_most) = self.at_most else { return self.reach().await };
        match tokio::time::timeout(at_most, self.reach()).await {
            Ok(reached) => reached,
            Err(_) => Err(self.timed_out(at_most)),
        }
    }

    async fn reach(&mut self) -> Result<Position> {
        let target = self.target().await?;
        let mut asked = None;
        loop {
            let (at, consistent) = {
                let progress = self.progress.borrow_and_update();
                let knows = target.schema.is_none_or(|(v, since)| progress.knows_schema(v, since));
                (progress.position, progress.consistent && knows)
            };
            let same = at.filter(|at| at.log_id == target.position.log_id);
            if let Some(at) = same.filter(|at| consistent && at.seq >= target.position.seq) {
                return Ok(at);
            }
            if let Some(other) = at.filter(|at| same.is_none() && asked != Some(at.log_id)) {
                if !self.is_to_come(target.position, other.log_id).await? {
                    tokio::time::sleep(ASK_AGAIN).await;
                    continue;
                }
                asked = Some(other.log_id);
            }
            self.progress.changed().await.map_err(|_| Error::stopped())?;
        }
    }

    async fn target(&self) -> Result<Target> {
        if let Some(position) = self.position {
            return Ok(Target { position, schema: None });
        }
        let since = Instant::now();
        let none = || Error::new(Kind::Capture, "source: capture is not installed; run `redtail init`");
        let head = self.source.whole_head().await?.ok_or_else(none)?;
        Ok(Target { position: head.position, schema: Some((head.schema_version, since)) })
    }

    /// The replica follows another log than the position's. Either it has yet to come to that one, or never will.
    /// `false` if the source cannot be asked for now.
    async fn is_to_come(&self, position: Position, following: LogId) -> Result<bool> {
        let gone = |now: LogId| {
            Error::new(
                Kind::Divergence,
                format!("position {position}: the source's log is another one now ({now})"),
            )
        };
        match self.source.head().await {
            Ok(Some(head)) if head.log_id == position.log_id => Ok(true),
            // The replica is the one behind.
            Ok(Some(head)) if head.log_id != following => Err(gone(head.log_id)),
            Ok(_) => Err(gone(following)),
            Err(e) if e.is_transient() => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn timed_out(&self, at_most: Duration) -> Error {
        let progress = self.progress.borrow();
        let at = progress.position.map_or_else(|| "nowhere yet".to_owned(), |p| format!("at {}", p.seq));
        let why = match progress.state {
            _ if !progress.reconciling.is_empty() => {
                format!("being brought to equality: {}", progress.reconciling.join(", "))
            }
            State::Idle => "nothing follows the source".to_owned(),
            state => match &progress.error {
                Some(error) => format!("{}: {error}", state.name()),
                None => state.name().to_owned(),
            },
        };
        let what = self.position.map_or_else(|| "the source's head".to_owned(), |p| format!("position {p}"));
        let ms = at_most.as_millis();
        Error::new(Kind::TimedOut, format!("{what}: not reached within {ms} ms; the replica is {at} ({why})"))
    }
}

impl IntoFuture for Wait {
    type Output = Result<Position>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.reached())
    }
}

impl Replicator {
    /// Waits until the replica is consistent at or past this position; returns the one that it has reached.
    ///
    /// While tables are brought to equality (a first copy, a rebuild) it goes on waiting. Nothing is waited for
    /// but progress: somebody has to call [`Replicator::run`] or [`Replicator::sync_once`].
    ///
    /// # Errors
    /// `Divergence` if the source's log is no longer the position's, which will then never be reached; `TimedOut`
    /// after [`Wait::at_most`]; `Stopped` if the replicator is dropped.
    pub fn wait_for(&self, position: Position) -> Wait {
        Wait {
            progress: self.progress(),
            source: self.source.clone(),
            position: Some(position),
            at_most: None,
        }
    }

    /// Waits until the replica shows everything that was committed in the source before this is awaited, changes of
    /// its schema included.
    ///
    /// # Errors
    /// As [`Replicator::wait_for`], and whatever keeps the source from being read; `Capture` if it has no capture.
    pub fn wait_for_head(&self) -> Wait {
        Wait { progress: self.progress(), source: self.source.clone(), position: None, at_most: None }
    }

    /// A consistent view with everything that was committed in the source before this call: what the caller has
    /// just written there is in it.
    ///
    /// Looks at the source's head, waits for it, takes the view.
    ///
    /// # Errors
    /// As [`Replicator::wait_for_head`].
    pub async fn snapshot_at_head(&self, at_most: Duration) -> Result<Snapshot> {
        let begun = Instant::now();
        let mut reached = self.wait_for_head().at_most(at_most).await?;
        loop {
            let snapshot = self.replica.snapshot()?;
            let has_it = |p: Position| p.log_id == reached.log_id && p.seq >= reached.seq;
            // Between the two a part of the next window may have been applied.
            if snapshot.is_consistent() && snapshot.position().is_some_and(has_it) {
                return Ok(snapshot);
            }
            tokio::task::yield_now().await;
            reached = self.wait_for(reached).at_most(at_most.saturating_sub(begun.elapsed())).await?;
        }
    }
}

impl Source {
    /// Whether a replica that nobody brings forward just now shows everything that this source has, its schema
    /// included.
    ///
    /// # Errors
    /// As [`Source::head`]; `Damaged` if the replica cannot be read.
    pub async fn is_shown_by(&self, replica: &Replica) -> Result<bool> {
        let Some(head) = self.whole_head().await? else { return Ok(false) };
        let shows = |at: Cursor| {
            let level = at.log_id == head.position.log_id && at.seq >= head.position.seq;
            level && at.schema_version == head.schema_version
        };
        Ok(replica.snapshot()?.is_consistent() && replica.start()?.cursor.is_some_and(shows))
    }
}

/// What is waited for, and for how long.
impl fmt::Debug for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { position, at_most, .. } = self;
        f.debug_struct("Wait").field("position", position).field("at_most", at_most).finish_non_exhaustive()
    }
}
