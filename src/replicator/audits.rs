//! Reconcile by the clock: what was written past capture is found without anybody asking.
//!
//! It asks the running replicator as `verify` does, so that everything about a comparison is decided in one
//! place; this file only knows when.

use super::{Replicator, Verified};
use crate::error::Result;
use std::convert::Infallible;
use std::time::Instant;

impl Replicator {
    /// Compares and mends every table on each [`crate::Config::audit_every`], while this is polled.
    pub(super) async fn audits(&self) -> Infallible {
        let mut last = Instant::now();
        loop {
            let due = self.config().audit_every.map(|every| last + every);
            let reloaded = self.reloaded.notified();
            match due {
                None => reloaded.await,
                Some(due) => tokio::select! {
                    () = reloaded => {}
                    () = tokio::time::sleep_until(due.into()) => {
                        self.audited(self.verify(&[], true).await);
                        last = Instant::now();
                    }
                },
            }
        }
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
