//! How the replica's file is doing: what its storage and its readers have met, for those who must act.
//!
//! Holds one condition, which only gets worse until the file is opened again or room came back. Decides
//! nothing; `slot` and the replicator act on it.

use crate::error::{Error, Kind};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// What is wrong with the file, from nothing to the worst.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Condition {
    /// Nothing.
    #[default]
    Good,
    /// There is no room to write; the write waits for it.
    Full(String),
    /// A file operation failed: redb refuses everything until the file is opened again.
    Failed(String),
    /// What the file holds is not what was written.
    Damaged(String),
    /// fsync failed: nobody knows what is on disk, and asking again would not tell.
    Unsynced(String),
}

#[derive(Debug)]
pub(crate) struct Health {
    condition: watch::Sender<Condition>,
    waits: Mutex<Waits>,
    bell: Condvar,
}

/// A write that finds no room waits for it if both hold.
#[derive(Clone, Copy, Debug, Default)]
struct Waits {
    /// Somebody tells the world about it, and lets the source go.
    allowed: bool,
    /// It is the commit's: redb holds no lock then that a reader needs.
    committing: bool,
}

impl Health {
    pub fn new() -> Self {
        Self { condition: watch::Sender::default(), waits: Mutex::default(), bell: Condvar::new() }
    }

    pub fn now(&self) -> Condition {
        self.condition.borrow().clone()
    }

    pub fn watch(&self) -> watch::Receiver<Condition> {
        self.condition.subscribe()
    }

    /// Notes a condition, unless a worse one holds.
    pub fn raise(&self, condition: Condition) {
        self.condition.send_if_modified(|now| {
            let worse = std::mem::discriminant(now) != std::mem::discriminant(&condition) && *now < condition;
            if worse {
                *now = condition;
            }
            worse
        });
    }

    /// There is room again.
    pub fn room(&self) {
        self.condition.send_if_modified(|now| {
            let was_full = matches!(now, Condition::Full(_));
            if was_full {
                *now = Condition::Good;
            }
            was_full
        });
    }

    /// The file was opened again: what was wrong with the old one is past.
    pub fn reset(&self) {
        self.condition.send_if_modified(|now| std::mem::take(now) != Condition::Good);
    }

    /// Whether a commit without room waits for it (`true`), or fails at once and ends a waiting one.
    pub fn set_waits(&self, allowed: bool) {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner).allowed = allowed;
        self.bell.notify_all();
    }

    /// Runs a commit.
    pub fn committing<T>(&self, commit: impl FnOnce() -> T) -> T {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner).committing = true;
        let done = commit();
        self.waits.lock().unwrap_or_else(PoisonError::into_inner).committing = false;
        done
    }

    /// Waits this long for room; answers whether to try again.
    pub fn wait(&self, pause: Duration) -> bool {
        let waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        if !(waits.allowed && waits.committing) {
            return false;
        }
        let (waits, _) = self.bell.wait_timeout(waits, pause).unwrap_or_else(PoisonError::into_inner);
        waits.allowed
    }

    /// An error of the replica with what was the cause of it, and the kind that decides what happens next.
    pub fn explain(&self, error: Error) -> Error {
        if !matches!(error.kind(), Kind::Replica | Kind::Damaged | Kind::Io) {
            return error;
        }
        match self.now() {
            Condition::Unsynced(what) | Condition::Full(what) => Error::new(Kind::Replica, what),
            Condition::Damaged(what) => Error::new(Kind::Damaged, what),
            Condition::Failed(what) => Error::new(Kind::Io, what),
            Condition::Good => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_only_gets_worse_until_the_file_is_opened_again() {
        let health = Health::new();
        health.raise(Condition::Full("a".into()));
        health.raise(Condition::Full("z".into()));
        assert_eq!(health.now(), Condition::Full("a".into()));
        health.raise(Condition::Damaged("b".into()));
        health.raise(Condition::Failed("c".into()));
        health.room();
        assert_eq!(health.now(), Condition::Damaged("b".into()));
        health.reset();
        assert_eq!(health.now(), Condition::Good);
    }
}
