//! A machine with a disk: it journals what is written, and loses, tears and reorders what was not synced when the
//! power goes. It can also refuse a single operation.

use super::Chance;
use redb::{BackendError, StorageBackend};
use std::io;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a disk writes in one piece, in bytes.
const SECTOR: usize = 512;

/// A machine; clones are the same one.
#[derive(Clone, Debug, Default)]
pub(super) struct Machine(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// What survives a power loss for certain.
    safe: Vec<u8>,
    /// What reads see.
    seen: Vec<u8>,
    /// What was done since the last sync.
    journal: Vec<Op>,
    /// Operations so far.
    count: u64,
    /// The power goes at this operation.
    dies_at: Option<u64>,
    dead: bool,
    fails: Option<Fails>,
    /// An fsync was refused; how many were asked for since.
    unsynced: Option<u64>,
    /// Written in the middle of an operation: it happened, and its answer never came.
    last_words: bool,
}

#[derive(Debug)]
enum Op {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

/// An operation that is refused.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fails {
    pub at: u64,
    /// How many times in a row.
    pub times: u64,
    pub kind: io::ErrorKind,
}

impl Machine {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The power goes after so many further operations.
    pub fn dies_in(&self, operations: u64) {
        let mut state = self.state();
        state.dies_at = Some(state.count + operations);
    }

    pub fn never_dies(&self) {
        self.state().dies_at = None;
    }

    pub fn fails(&self, fails: Option<Fails>) {
        self.state().fails = fails;
    }

    pub fn count(&self) -> u64 {
        self.state().count
    }

    pub fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// How often fsync was asked for after one had failed.
    pub fn syncs_after_failure(&self) -> u64 {
        self.state().unsynced.unwrap_or(0)
    }

    /// The first bytes of the disk.
    pub fn head(&self) -> Vec<u8> {
        self.state().seen.iter().take(320).copied().collect()
    }

    /// The process was killed: the machine goes on, and what was written is seen.
    pub fn kill(&self) {
        let mut state = self.state();
        (state.dead, state.dies_at) = (false, None);
    }

    /// The power went, and is back: what was not synced is on the disk in part, or not at all.
    pub fn lose_power(&self, chance: &mut Chance) {
        let mut state = self.state();
        let state = &mut *state;
        let mut disk = std::mem::take(&mut state.safe);
        // From all lost to all kept, so that the extremes come too.
        let kept_in_8 = chance.below(9);
        for op in state.journal.drain(..) {
            if chance.below(8) >= kept_in_8 {
                continue;
            }
            match op {
                Op::SetLen(len) => disk.resize(len, 0),
                Op::Write(at, bytes) => {
                    let torn = bytes.len() > SECTOR && chance.one_in(4);
                    for (n, sector) in bytes.chunks(SECTOR).enumerate() {
                        if torn && chance.one_in(2) {
                            continue;
                        }
                        let at = at + n * SECTOR;
                        if disk.len() < at + sector.len() {
                            disk.resize(at + sector.len(), 0);
                        }
                        disk[at..at + sector.len()].copy_from_slice(sector);
                    }
                }
            }
        }
        state.seen.clone_from(&disk);
        state.safe = disk;
        (state.dead, state.dies_at) = (false, None);
    }
}

impl State {
    /// Counts an operation; refuses it if its time has come.
    fn enter(&mut self) -> io::Result<()> {
        if self.dead {
            return Err(io::Error::other("the power is off"));
        }
        self.count += 1;
        if self.dies_at.is_some_and(|at| self.count > at) {
            self.dead = true;
            // One time in two the operation itself still reaches the journal.
            self.last_words = self.count.is_multiple_of(2);
            return if self.last_words { Ok(()) } else { Err(io::Error::other("the power went")) };
        }
        match &mut self.fails {
            Some(fails) if self.count >= fails.at && fails.times > 0 => {
                fails.times -= 1;
                Err(io::Error::from(fails.kind))
            }
            _ => Ok(()),
        }
    }

    fn leave(&mut self) -> io::Result<()> {
        if self.dead { Err(io::Error::other("the power went")) } else { Ok(()) }
    }
}

impl StorageBackend for Machine {
    fn len(&self) -> io::Result<u64> {
        let mut state = self.state();
        state.enter()?;
        state.leave()?;
        Ok(state.seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.state();
        state.enter()?;
        state.leave()?;
        let at = usize::try_from(offset).unwrap();
        let bytes = state.seen.get(at..at + out.len());
        out.copy_from_slice(bytes.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        state.enter()?;
        let len = usize::try_from(len).unwrap();
        state.seen.resize(len, 0);
        state.journal.push(Op::SetLen(len));
        state.leave()
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        if let Some(asked) = &mut state.unsynced {
            *asked += 1;
        }
        if let Err(e) = state.enter() {
            state.unsynced = state.unsynced.or(Some(0));
            return Err(e);
        }
        if state.dead {
            return state.leave();
        }
        if !crate::fault::lying_fsync() {
            let State { safe, seen, journal, .. } = &mut *state;
            // Only what changed: a whole copy for each sync would be most of the work.
            for op in journal.drain(..) {
                match op {
                    Op::SetLen(len) => safe.resize(len, 0),
                    Op::Write(at, bytes) => {
                        if safe.len() < at + bytes.len() {
                            safe.resize(at + bytes.len(), 0);
                        }
                        safe[at..at + bytes.len()].copy_from_slice(&bytes);
                    }
                }
            }
            debug_assert_eq!(safe.len(), seen.len());
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        state.enter()?;
        let at = usize::try_from(offset).unwrap();
        if state.seen.len() < at + data.len() {
            state.seen.resize(at + data.len(), 0);
        }
        state.seen[at..at + data.len()].copy_from_slice(data);
        state.journal.push(Op::Write(at, data.to_vec()));
        state.leave()
    }

    fn try_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn unlock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }
}
