//! Subscriptions: what changed in the replica, as a stream of windows.
//!
//! A subscriber reads the history that the replica keeps, at its own pace; it holds up nobody, and if it falls too far
//! behind it is told so instead of being given less.

use super::Replicator;
use crate::cursor::Position;
use crate::error::{Error, Result};
use crate::replica::{Part, Place, Replica, Snapshot, Subscription, Told, Window};
use futures::Stream;
use futures::future::BoxFuture;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::watch;

/// What changes in a replica, window by window: a stream that ends only with an error.
///
/// Only what is on disk is told, unless [`Changes::visible`] asks for more. A key stands at most once in a window,
/// with its row before and after; what a reconcile changed is among it, what it found equal is not.
///
/// # Errors
/// An item of the kind `Lagged` says that windows are missing, because this subscriber was too slow (see
/// `Config::subscriber_rows`) or the replica was made anew: take a snapshot and subscribe again. The stream ends with
/// it, as with any other error.
///
/// ```no_run
/// # async fn follow(replicator: &redtail::Replicator) -> redtail::Result<()> {
/// let mut changes = replicator.changes().await?;
/// let snapshot = replicator.replica().snapshot()?;
/// // … take over what is in the snapshot …
/// changes.skip_to(&snapshot);
/// while let Some(window) = changes.next().await {
///     for change in &window?.changes {
///         println!("{} {:?}", change.op().letter(), change.key()?);
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct Changes {
    /// Away while a part is being read.
    reader: Option<Box<Reader>>,
    reading: Option<BoxFuture<'static, (Box<Reader>, Result<Window>)>>,
}

struct Reader {
    subscription: Subscription,
    place: Place,
    told: watch::Receiver<Told>,
    part: Part,
}

impl Changes {
    fn new(subscription: Subscription, place: Place, part: Part) -> Self {
        let told = subscription.told(true);
        Self { reader: Some(Box::new(Reader { subscription, place, told, part })), reading: None }
    }

    /// Tells windows as soon as they can be read, though a power loss might still take them back. Where every window
    /// is synced before it counts as applied, which is the default, there is no difference.
    #[must_use]
    pub fn visible(mut self) -> Self {
        if let Some(reader) = &mut self.reader {
            reader.told = reader.subscription.told(false);
        }
        self
    }

    /// Leaves out what this snapshot shows already. To be called before the first window is asked for.
    pub fn skip_to(&mut self, snapshot: &Snapshot) {
        if let Some(reader) = &mut self.reader {
            let consistent = snapshot.position().filter(|_| snapshot.is_consistent());
            reader.place.skip_to(snapshot.told(), consistent);
        }
    }

    /// From where to resume before any window was told; `None` while the replica has never been consistent, or while
    /// a window is being read.
    #[must_use]
    pub fn resume(&self) -> Option<Position> {
        self.reader.as_ref().and_then(|r| r.place.resume())
    }

    /// The next window, or the next part of a large one; `None` after an error.
    pub async fn next(&mut self) -> Option<Result<Window>> {
        futures::StreamExt::next(self).await
    }
}

impl Reader {
    async fn read(mut self: Box<Self>) -> (Box<Self>, Result<Window>) {
        loop {
            let told = *self.told.borrow_and_update();
            if !self.place.is_before(told) {
                if self.told.changed().await.is_err() {
                    return (self, Err(Error::stopped()));
                }
                continue;
            }
            let work = tokio::task::spawn_blocking(move || {
                let read = self.subscription.replica().part(&mut self.place, self.part);
                (self, read)
            });
            match work.await {
                Ok((reader, Ok(Some(window)))) => return (reader, Ok(window)),
                Ok((reader, Ok(None))) => {
                    // What was visible has been taken back: something new is waited for.
                    self = reader;
                    if self.told.changed().await.is_err() {
                        return (self, Err(Error::stopped()));
                    }
                }
                Ok((reader, Err(e))) => return (reader, Err(e)),
                // What read it panicked, or its runtime ends: there is nobody to go on.
                Err(_) => return std::future::pending().await,
            }
        }
    }
}

impl Stream for Changes {
    type Item = Result<Window>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(reader) = self.reader.take() {
            self.reading = Some(Box::pin(reader.read()));
        }
        let Some(reading) = &mut self.reading else { return Poll::Ready(None) };
        let Poll::Ready((reader, window)) = reading.as_mut().poll(cx) else { return Poll::Pending };
        self.reading = None;
        if window.is_ok() {
            self.reader = Some(reader);
        }
        Poll::Ready(Some(window))
    }
}

impl Replicator {
    /// What changes from now on. Everything that it does not tell is in any snapshot taken afterwards.
    ///
    /// Waits for the window that is being applied, if there is one. Changes are recorded as long as the stream is
    /// held, at the price of writing each of them twice; without one, and without `Config::keep_changes`, that costs
    /// nothing.
    ///
    /// # Errors
    /// `Usage` for a replica that was opened to read only.
    pub async fn changes(&self) -> Result<Changes> {
        let (subscription, place) = subscribe(self.replica.clone()).await?;
        Ok(Changes::new(subscription, place, self.part()))
    }

    /// What changed behind a position, and goes on changing: [`Window::resume`] of a window that was dealt with, or
    /// the position of a consistent snapshot. At least once: it begins with the first window that somebody there may
    /// not have seen.
    ///
    /// # Errors
    /// `Lagged` if changes behind it are no longer kept (`Config::keep_changes`); `Divergence` if it is of a log that
    /// this replica did not follow, or ahead of it.
    pub async fn changes_from(&self, position: Position) -> Result<Changes> {
        let (subscription, _) = subscribe(self.replica.clone()).await?;
        let replica = self.replica.clone();
        let found = tokio::task::spawn_blocking(move || replica.place_of(position)).await;
        let place = found.map_err(|_| Error::stopped())??.ok_or_else(Error::stopped)?;
        Ok(Changes::new(subscription, place, self.part()))
    }

    fn part(&self) -> Part {
        let config = self.config();
        Part { rows: config.chunk_rows.max(1), bytes: config.chunk_bytes.max(1) }
    }
}

async fn subscribe(replica: Replica) -> Result<(Subscription, Place)> {
    tokio::task::spawn_blocking(move || replica.subscribe()).await.map_err(|_| Error::stopped())?
}

/// Whether a window is being read.
impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes").field("reading", &self.reading.is_some()).finish_non_exhaustive()
    }
}
