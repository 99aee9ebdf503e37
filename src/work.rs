//! What a replicator has done since it was made, in numbers that only grow.
//!
//! Counted where the work happens, with plain additions under locks that are held there anyway; published
//! with [`crate::Progress`].

use crate::error::Kind;

/// What a replicator has done since it was made. Every number only grows.
///
/// ```no_run
/// # async fn follow(replicator: &redtail::Replicator) -> redtail::Result<()> {
/// let work = replicator.progress().borrow().work;
/// println!("{} rows changed in {} windows", work.changed, work.windows);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Work {
    /// Windows whose rows are in the replica.
    pub windows: u64,
    /// Transactions of the replica that brought them: windows that arrive together share one.
    pub commits: u64,
    /// Keys that entries named, each once a window: put or deleted.
    pub changed: u64,
    /// Rows that were read to bring ranges of tables to equality, or to compare them.
    pub copied: u64,
    /// Keys and records of all these rows, in bytes; long values included.
    pub bytes: u64,
    /// Tries after a failure that may pass, by its class.
    pub retries: Retries,
    /// Times that every table was reconciled because the source was not the one that was followed.
    pub rebuilds_diverged: u64,
    /// Times that a damaged file was moved aside and made again.
    pub rebuilds_damaged: u64,
    /// Times that the source had gone back and only what was entered since was read again.
    pub rewinds: u64,
    /// Times that every table was compared and mended by the clock ([`crate::Config::audit_every`]).
    pub audits: u64,
    /// Rows that these found to differ.
    pub audit_differences: u64,
    /// Acknowledgements that were written to the source.
    pub acknowledgements: u64,
    /// Entries that were pruned from the source's changelog.
    pub pruned: u64,
}

/// What one transaction of the replica brought.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Brought {
    pub windows: u64,
    /// Keys that entries named.
    pub changed: u64,
    /// Rows that ranges brought.
    pub copied: u64,
    /// Keys and records of all of them.
    pub bytes: u64,
}

impl Work {
    pub(crate) fn add(&mut self, brought: Brought) {
        self.commits += u64::from(brought.windows > 0);
        self.windows += brought.windows;
        self.changed += brought.changed;
        self.copied += brought.copied;
        self.bytes += brought.bytes;
    }
}

/// Tries after a failure that may pass, by the failure's class.
///
/// ```no_run
/// # async fn follow(replicator: &redtail::Replicator) -> redtail::Result<()> {
/// let retries = replicator.progress().borrow().work.retries;
/// println!("out of reach {} times", retries.unavailable);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retries {
    /// [`Kind::Unavailable`]: the source was busy or out of reach.
    pub unavailable: u64,
    /// [`Kind::Refused`]: the server refused the token.
    pub refused: u64,
    /// [`Kind::Io`]: a file operation failed.
    pub io: u64,
    /// [`Kind::Taken`]: another process acknowledged as this consumer.
    pub taken: u64,
    /// The replica's disk had no room.
    pub room: u64,
}

impl Retries {
    pub(crate) fn count(&mut self, kind: Kind) {
        match kind {
            Kind::Refused => self.refused += 1,
            Kind::Io => self.io += 1,
            Kind::Taken => self.taken += 1,
            Kind::Stopped => self.room += 1,
            _ => self.unavailable += 1,
        }
    }
}
