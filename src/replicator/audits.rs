//! Reconcile by the clock: what was written past capture is found without anybody asking.
//!
//! It asks the running replicator as `verify` does, so that everything about a comparison is decided in one
//! place; this file only knows when.

use super::{Replicator, Verified};
use crate::error::Result;
use std::convert::Infallible;
use std::time::{Duration, SystemTime};

impl Replicator {
    /// Compares and mends every table on each [`crate::Config::audit_every`], while this is polled. The replica knows
    /// when it was done last: what is started anew more often than that must come to it all the same.
    pub(super) async fn audits(&self) -> Infallible {
        let mut last = None;
        loop {
            let every = self.config().audit_every;
            if last.is_none() && every.is_some() {
                last = Some(self.last_audit().await);
            }
            let due = every.zip(last).map(|(every, last)| remaining(every, last));
            let reloaded = self.reloaded.notified();
            match due {
                None => reloaded.await,
                Some(due) => tokio::select! {
                    () = reloaded => {}
                    () = tokio::time::sleep(due) => {
                        let found = self.verify(&[], true).await;
                        last = Some(if found.is_ok() { self.remember_audit().await } else { SystemTime::now() });
                        self.audited(found);
                    }
                },
            }
        }
    }

    /// When the last one ended; if there was none, the time until the first begins now.
    async fn last_audit(&self) -> SystemTime {
        let replica = self.replica.clone();
        match tokio::task::spawn_blocking(move || replica.audited()).await {
            Ok(Ok(Some(last))) => last,
            _ => self.remember_audit().await,
        }
    }

    async fn remember_audit(&self) -> SystemTime {
        let now = SystemTime::now();
        let replica = self.replica.clone();
        if let Ok(Err(e)) = tokio::task::spawn_blocking(move || replica.set_audited(now)).await {
            tracing::warn!("audit: when it was made is not remembered: {e}");
        }
        now
    }

    fn audited(&self, found: Result<Verified>) {
        let found = match found {
            Ok(found) => found,
            Err(e) => return tracing::warn!("audit: not finished: {e}"),
        };
        self.progress.send_modify(|p| {
            p.work.audits += 1;
            p.work.audit_differences += found.count;
        });
        if found.count == 0 {
            return tracing::info!("audit: equal: {} rows compared", found.rows);
        }
        let mut tables: Vec<&str> = found.differences.iter().map(|d| d.table.as_str()).collect();
        tables.dedup();
        let more = if found.count > found.differences.len() as u64 { " and maybe more" } else { "" };
        tracing::warn!(
            "audit: {} differences in {} rows, mended, in {}{more}; something writes past capture (triggers switched off?)",
            found.count,
            found.rows,
            tables.join(", "),
        );
    }
}

/// Never longer than the whole time, whatever the clock was set to.
fn remaining(every: Duration, last: SystemTime) -> Duration {
    every.saturating_sub(last.elapsed().unwrap_or_default())
}
