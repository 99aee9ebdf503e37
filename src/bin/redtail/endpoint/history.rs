//! The last minutes, a sample a second: what the page shows when it is opened after something happened.

use redtail::Replicator;
use serde_json::{Value as Json, json};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::MissedTickBehavior;

/// How far apart samples are.
const EVERY: Duration = Duration::from_secs(1);
/// How many there are: ten minutes.
const KEPT: usize = 600;

/// One sample: unix time in milliseconds, lag in seconds and entries, keys changed and rows copied so far.
type Sample = (u64, Option<f64>, Option<u64>, u64, u64);

#[derive(Default)]
pub struct History(Mutex<VecDeque<Sample>>);

impl History {
    /// Takes samples until the replicator is gone.
    pub fn start(replicator: Weak<Replicator>) -> Arc<Self> {
        let history = Arc::new(Self::default());
        let kept = Arc::clone(&history);
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(EVERY);
            tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
            loop {
                tick.tick().await;
                let Some(replicator) = replicator.upgrade() else { return };
                kept.take(&replicator);
            }
        });
        history
    }

    fn take(&self, replicator: &Replicator) {
        let progress = replicator.progress();
        let p = progress.borrow();
        let lag = p.lag().map(|lag| lag.as_secs_f64());
        let sample = (now_ms(), lag, p.lag_entries(), p.work.changed, p.work.copied);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(sample);
    }

    pub fn json(&self) -> Json {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let samples = kept.iter().map(|(at, lag, entries, changed, copied)| {
            json!({ "at_ms": at, "lag_seconds": lag, "lag_entries": entries, "changed": changed, "copied": copied })
        });
        json!({ "every_ms": u64::try_from(EVERY.as_millis()).unwrap_or(0), "samples": samples.collect::<Vec<_>>() })
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
