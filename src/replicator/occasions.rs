//! When to bring the replica up to date, for those who do not want to follow without end: a server that bills by the
//! row, say.

use super::{Ask, Ended, Replicator};
use crate::config::Occasions;
use crate::error::Result;
use crate::window::Goal;
use std::pin::Pin;
use std::time::Instant;
use tokio::sync::mpsc;

/// How far a run has come.
pub(super) struct Turns {
    first: bool,
    /// When the replica was brought up to date last, or following began.
    last: Instant,
}

impl Turns {
    pub fn new() -> Self {
        Self { first: true, last: Instant::now() }
    }
}

impl Replicator {
    /// Follows, or waits for the next occasion and catches up, until somebody asks for something else.
    pub(super) async fn turn(
        &self,
        turns: &mut Turns,
        mut shutdown: Pin<&mut (impl Future<Output = ()> + Send)>,
        asked: &mut mpsc::Receiver<Ask>,
    ) -> Result<Ended> {
        let Some(occasions) = self.config().sync else {
            return self.attempt(Goal::Follow, shutdown, asked).await;
        };
        loop {
            if !(std::mem::take(&mut turns.first) && occasions.on_start) {
                tokio::select! {
                    () = shutdown.as_mut() => return Ok(Ended::Stopped),
                    Some(ask) = asked.recv() => return Ok(Ended::Asked(ask)),
                    () = self.by_hand.notified() => {}
                    () = self.due(&occasions, turns.last) => {}
                }
            }
            let (_none, mut nobody) = mpsc::channel(1);
            // The source is tried until it answers: when it is back, that is an occasion too.
            let ended = self.attempt(Goal::CatchUp, shutdown.as_mut(), &mut nobody).await?;
            turns.last = Instant::now();
            if matches!(ended, Ended::Stopped) {
                return Ok(ended);
            }
        }
    }

    async fn due(&self, occasions: &Occasions, last: Instant) {
        let every = occasions.every.map(|every| last + every);
        // The age is that of the last look at which nothing was missing.
        let stale = occasions.stale_after.map(|limit| {
            let age = self.progress.borrow().lag().unwrap_or_else(|| last.elapsed()).max(last.elapsed());
            Instant::now() + limit.saturating_sub(age)
        });
        match every.into_iter().chain(stale).min() {
            Some(due) => tokio::time::sleep_until(due.into()).await,
            None => std::future::pending().await,
        }
    }
}
