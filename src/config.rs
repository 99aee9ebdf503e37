//! Every limit and default, in one place.
//!
//! Owns the settings of a replicator. Reading them from a file or flags is the binary's work.

use std::time::Duration;

/// When a window counts as applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Durability {
    /// Every window is on disk (fsync) before it counts as applied. The default.
    #[default]
    EveryWindow,
    /// A window is visible at once and on disk after at most this long.
    Interval(Duration),
}

/// What to do when the source is not, or no longer, the one that the replica followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnDivergence {
    /// Reconcile every table with the source as it is now; the old rows stay readable meanwhile.
    #[default]
    Rebuild,
    /// Stop with an error and leave the replica as it is.
    Stop,
}

/// The settings of a replicator.
#[derive(Clone, Debug)]
pub struct Config {
    /// When a window counts as applied.
    pub durability: Durability,
    /// What to do about a source that diverged.
    pub on_divergence: OnDivergence,
    /// Memory that redb may use as a cache, in bytes. Default 64 MiB.
    pub cache_bytes: usize,
    /// Rows held in memory at once between source and replica. Default 10,000.
    pub chunk_rows: usize,
    /// Bytes held in memory at once between source and replica. Default 8 MiB.
    pub chunk_bytes: usize,
    /// Entries of one window; a longer backlog goes on in parts. Default 1,000,000.
    pub window_entries: u64,
    /// The longest a read snapshot of the source may last while tables are copied. Default 2 s,
    /// and 20 ms in a source that is not in WAL mode, where a reader blocks the application's commit.
    pub max_snapshot: Duration,
    /// How long to wait for the source's write lock when capture is installed. Default 5 s.
    pub busy_timeout: Duration,
    /// How often the source is looked at though nothing gave notice. Default 250 ms.
    pub poll: Duration,
    /// The largest row that is replicated, in bytes. Default 32 MiB.
    pub max_row: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            durability: Durability::default(),
            on_divergence: OnDivergence::default(),
            cache_bytes: 64 << 20,
            chunk_rows: 10_000,
            chunk_bytes: 8 << 20,
            window_entries: 1_000_000,
            max_snapshot: Duration::from_secs(2),
            busy_timeout: Duration::from_secs(5),
            poll: Duration::from_millis(250),
            max_row: 32 << 20,
        }
    }
}
