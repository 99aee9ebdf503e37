//! How many entries a window has: as many as can be read within the time that a snapshot may last.

use super::local::{Follower, Observer};
use crate::error::Result;
use crate::fault;
use crate::window::REMEMBER;
use std::time::{Duration, Instant};

/// Outside WAL mode a reader blocks the application's commit: a snapshot is this short.
const ROLLBACK_SNAPSHOT: Duration = Duration::from_millis(20);
/// A window's first width, in entries; later ones are as wide as a snapshot's time allows.
const FIRST_WIDTH: u64 = 20_000;
const ROLLBACK_WIDTH: u64 = 1_000;
/// However slow it is, a window has at least so many.
const LEAST_WIDTH: u64 = 100;
/// A backlog is sampled in so many places, of so many entries each, for how long it takes to read.
const SAMPLES: u64 = 6;
const SAMPLED: u64 = 64;
/// In more tables than this a sample would take longer than it saves.
const SAMPLED_TABLES: usize = 8;

impl<O: Observer> Follower<O> {
    pub(super) fn window_entries(&self) -> u64 {
        let first = if self.wake.is_wal() { FIRST_WIDTH } else { ROLLBACK_WIDTH };
        // At a server it is decided by how large its answers are, not by how long they take.
        let width = if self.sql.is_server() { self.paging.entries } else { self.width.unwrap_or(first) };
        let width = if fault::long_snapshots() { u64::MAX } else { width };
        // Only where much is to be read is it asked for what cannot be remembered.
        let remembered = self.sql.is_server() && !self.paging.catching_up;
        let width = if remembered { width.min(REMEMBER) } else { width };
        let most = self.config.window_entries.min(width);
        let in_memory = self.tables.values().any(|t| t.reader.as_ref().is_some_and(|r| r.in_memory));
        if in_memory { most.min(self.config.chunk_rows as u64) } else { most }
    }

    /// How long a snapshot may last.
    pub(super) fn longest(&self) -> Duration {
        if self.wake.is_wal() {
            self.config.max_snapshot
        } else {
            ROLLBACK_SNAPSHOT.min(self.config.max_snapshot)
        }
    }

    /// Makes the next windows as wide as the last one says that they may be: one that was cut off, or was too much.
    pub(super) fn pace(&mut self, entries: u64, took: Duration) {
        let too_much = entries > FIRST_WIDTH && took > self.longest();
        if entries < self.window_entries() && !too_much {
            return;
        }
        // Narrower only if it lasted too long: a machine that is busy for a moment must not make every
        // window a small one, which costs more for each entry.
        let left = self.longest().as_secs_f64() / took.as_secs_f64().max(1e-6);
        let factor = if left < 1.0 { 0.75 * left } else { (0.75 * left).clamp(1.0, 16.0) };
        self.width = Some(scaled(entries, factor).max(LEAST_WIDTH));
        tracing::debug!("a window of {entries} entries took {} ms", took.as_millis());
    }

    /// Reads a few entries' rows all over a backlog, to begin with windows that are as wide as they may be: every
    /// window of a backlog goes through most of the replica's pages.
    pub(super) fn sample(&mut self, head: u64) -> Result<()> {
        let (None, Some(cursor)) = (self.width, self.cursor) else { return Ok(()) };
        let backlog = head.saturating_sub(cursor.seq).min(self.config.window_entries);
        let least = if fault::short_lists() { 1 } else { FIRST_WIDTH };
        if backlog <= least || !self.wake.is_wal() || self.sql.is_server() {
            return Ok(());
        }
        let readers: Vec<_> = self.tables.values().filter_map(|t| t.reader.as_ref()).collect();
        if readers.len() > SAMPLED_TABLES || readers.iter().any(|r| r.selection.keep.is_some()) {
            return Ok(());
        }
        let (mut cold, mut warm) = (Duration::ZERO, Duration::ZERO);
        for sample in 0..=SAMPLES {
            let after = cursor.seq + backlog / (SAMPLES + 1) * sample;
            for time in [&mut cold, &mut warm] {
                let began = Instant::now();
                for reader in &readers {
                    if reader.sample(&mut self.sql, (after, after + SAMPLED)).is_err() {
                        // Who reads the window says what is wrong with it.
                        return Ok(());
                    }
                }
                // The first one prepares the statements.
                *time += if sample > 0 { began.elapsed() } else { Duration::ZERO };
            }
        }
        let pages = self.sql.integer("PRAGMA page_count", &[])?.unwrap_or(0);
        let each = |time: Duration| (time.as_secs_f64() / number(SAMPLES * SAMPLED)).max(1e-9);
        // What is made of the rows takes about as long as SQLite does.
        let (cold, warm, time) = (each(cold), each(warm), 0.75 * self.longest().as_secs_f64() / 2.0);
        // What is not in memory is read once, however many rows of a page are wanted.
        let all_read = (time - number(pages.unsigned_abs()) * (cold - warm).max(0.0)) / warm;
        tracing::debug!("sampled: {:.1} us an entry, {:.1} us once read", cold * 1e6, warm * 1e6);
        self.width = Some(scaled(1, (time / cold).max(all_read)).max(LEAST_WIDTH));
        Ok(())
    }
}

#[allow(clippy::cast_precision_loss)]
fn number(n: u64) -> f64 {
    n as f64
}

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn scaled(n: u64, factor: f64) -> u64 {
    (n as f64 * factor) as u64
}
