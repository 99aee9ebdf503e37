//! The storage under redb: the replica's file, with what redb leaves to whoever owns the disk.
//!
//! - Each block of 4 KiB that was read or written is remembered by a checksum and compared whenever it is
//!   read again: redb verifies no page on ordinary reads, and a flipped bit in a branch would hide rows.
//! - A commit that finds no room waits for it, so that readers go on; nothing else is tried again. Growing the
//!   file never waits, because redb holds a lock meanwhile that readers need: it is done before the header
//!   that needs it.
//! - A failing fsync is noted as what it is: the kernel may have dropped what it could not write.
//!
//! [`Peek`] shows a file to a reader without changing it: what redb writes while it recovers stays in memory.

use super::damage::{MARK_AT, OWN_MARK};
use super::guard::{is_damage, is_no_room};
use super::health::{Condition, Health};
use crate::fault;
use redb::{BackendError, StorageBackend};
use std::collections::HashMap;
use std::io;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64;

/// What one checksum covers, in bytes: redb's smallest page.
const BLOCK: usize = 4096;
const BLOCK_BYTES: u64 = BLOCK as u64;
/// How long to wait before a write that found no room is tried again.
const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 250 });

/// A storage whose blocks are checked.
#[derive(Debug)]
pub(super) struct Disk<B> {
    inner: B,
    /// By block; 0 where nothing is known.
    sums: RwLock<Vec<u32>>,
    health: Arc<Health>,
    shown: String,
    /// The length that redb has given the file, and that there was no room for yet; 0 for none.
    owed: AtomicU64,
    /// The file is being made: say whose it is, in the room behind redb's header.
    mark: AtomicBool,
}

#[allow(clippy::cast_possible_truncation)]
fn sum(block: &[u8]) -> u32 {
    (xxh3_64(block) as u32).max(1)
}

/// The number of the first whole block at or behind `offset`, and the whole blocks from there.
fn blocks(offset: u64, bytes: &[u8]) -> (usize, impl Iterator<Item = &[u8]>) {
    let skipped = usize::try_from(offset.next_multiple_of(BLOCK_BYTES) - offset).unwrap_or(usize::MAX);
    let first = usize::try_from(offset.div_ceil(BLOCK_BYTES)).unwrap_or(usize::MAX);
    (first, bytes.get(skipped..).unwrap_or_default().chunks_exact(BLOCK))
}

impl<B: StorageBackend> Disk<B> {
    pub fn new(inner: B, health: Arc<Health>, shown: String) -> Self {
        Self {
            inner,
            sums: RwLock::default(),
            health,
            shown,
            owed: AtomicU64::new(0),
            mark: AtomicBool::new(false),
        }
    }

    /// For a file that is being made.
    pub fn marked(self) -> Self {
        self.mark.store(true, Ordering::Relaxed);
        self
    }

    /// Forgets what is known of every block that these bytes touch.
    fn forget(&self, offset: u64, len: usize) {
        let first = usize::try_from(offset / BLOCK_BYTES).unwrap_or(usize::MAX);
        let end = usize::try_from((offset + len as u64).div_ceil(BLOCK_BYTES)).unwrap_or(usize::MAX);
        let mut sums = self.sums.write().unwrap_or_else(PoisonError::into_inner);
        let end = end.min(sums.len());
        if let Some(known) = sums.get_mut(first.min(end)..end) {
            known.fill(0);
        }
    }

    fn learn(&self, offset: u64, bytes: &[u8]) {
        let (first, blocks) = blocks(offset, bytes);
        let mut sums = self.sums.write().unwrap_or_else(PoisonError::into_inner);
        for (n, block) in (first..).zip(blocks) {
            if sums.len() <= n {
                sums.resize(n + 1, 0);
            }
            if let Some(known) = sums.get_mut(n) {
                *known = sum(block);
            }
        }
    }

    /// Compares what was read with what is known of it; answers whether all of it was known.
    fn compare(&self, offset: u64, bytes: &[u8]) -> io::Result<bool> {
        let (first, blocks) = blocks(offset, bytes);
        let sums = self.sums.read().unwrap_or_else(PoisonError::into_inner);
        let mut all_known = true;
        for (n, block) in (first..).zip(blocks) {
            match sums.get(n) {
                None | Some(0) => all_known = false,
                Some(known) if *known == sum(block) => {}
                Some(_) => {
                    let what = format!("block {n} is not what was written there");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, what));
                }
            }
        }
        Ok(all_known)
    }

    fn note(&self, what: &str, e: &io::Error) {
        let line = format!("replica {}: {what} failed: {e}", self.shown);
        self.health.raise(if is_damage(e) {
            Condition::Damaged(format!("replica {}: damaged: {e}", self.shown))
        } else {
            Condition::Failed(line)
        });
    }

    fn no_room(&self, e: &io::Error) {
        self.health.raise(Condition::Full(format!("replica {}: no room on its disk: {e}", self.shown)));
    }

    /// Does what needs room, and waits for it where there is none.
    fn with_room(&self, what: &str, work: impl Fn() -> io::Result<()>) -> io::Result<()> {
        let mut waited = false;
        loop {
            let Err(e) = work() else {
                if waited {
                    self.health.room();
                }
                return Ok(());
            };
            if !is_no_room(&e) {
                self.note(what, &e);
                return Err(e);
            }
            self.no_room(&e);
            waited = true;
            if !self.health.wait(PAUSE) {
                return Err(e);
            }
        }
    }
}

impl<B: StorageBackend> StorageBackend for Disk<B> {
    fn len(&self) -> io::Result<u64> {
        let len = self.inner.len().inspect_err(|e| self.note("reading", e))?;
        Ok(len.max(self.owed.load(Ordering::Acquire)))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let known = self
            .inner
            .read(offset, out)
            .and_then(|()| if fault::checksum_off() { Ok(true) } else { self.compare(offset, out) });
        if !known.inspect_err(|e| self.note("reading", e))? {
            self.learn(offset, out);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let kept = usize::try_from(len / BLOCK_BYTES).unwrap_or(usize::MAX);
        self.sums.write().unwrap_or_else(PoisonError::into_inner).truncate(kept);
        match self.inner.set_len(len) {
            Err(e) if is_no_room(&e) => {
                self.no_room(&e);
                self.owed.store(len, Ordering::Release);
                Ok(())
            }
            done => {
                self.owed.store(0, Ordering::Release);
                done.inspect_err(|e| self.note("growing the file", e))
            }
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data().inspect_err(|e| {
            self.health.raise(Condition::Unsynced(format!(
                "replica {}: fsync failed: {e}; what is on disk is not known, so nothing is tried again; \
                 check the disk, then start again",
                self.shown
            )));
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let owed = self.owed.load(Ordering::Acquire);
        if offset == 0 && owed != 0 {
            // A header may name a length only once the file has it, for certain.
            self.with_room("growing the file", || self.inner.set_len(owed))?;
            self.sync_data()?;
            self.owed.store(0, Ordering::Release);
        }
        self.forget(offset, data.len());
        self.with_room("writing", || self.inner.write(offset, data))?;
        self.learn(offset, data);
        if self.mark.swap(false, Ordering::Relaxed) {
            self.with_room("writing", || self.inner.write(MARK_AT as u64, OWN_MARK))?;
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}

/// A file that is only looked at: writes go to memory, and are gone with it.
#[derive(Debug)]
pub(super) struct Peek<B> {
    inner: B,
    /// Blocks that were written.
    over: Mutex<HashMap<u64, Box<[u8; BLOCK]>>>,
    len: AtomicU64,
    /// How much of the file still shows: less than its length once it was cut.
    under: AtomicU64,
}

impl<B: StorageBackend> Peek<B> {
    pub fn new(inner: B) -> io::Result<Self> {
        let len = inner.len()?;
        Ok(Self { inner, over: Mutex::default(), len: AtomicU64::new(len), under: AtomicU64::new(len) })
    }

    fn over(&self) -> MutexGuard<'_, HashMap<u64, Box<[u8; BLOCK]>>> {
        self.over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A block as the file has it; zero behind its end.
    fn below(&self, block: u64) -> io::Result<Box<[u8; BLOCK]>> {
        let mut out = Box::new([0; BLOCK]);
        let at = block * BLOCK_BYTES;
        let shown = self.under.load(Ordering::Acquire).saturating_sub(at).min(BLOCK_BYTES);
        if let Some(part) = out.get_mut(..usize::try_from(shown).unwrap_or(0)).filter(|p| !p.is_empty()) {
            self.inner.read(at, part)?;
        }
        Ok(out)
    }
}

/// The parts of a range by block: which block, where in it, and where in the range.
fn parts(
    offset: u64,
    len: usize,
) -> impl Iterator<Item = (u64, std::ops::Range<usize>, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let inside = usize::try_from(at % BLOCK_BYTES).unwrap_or(0);
        let take = (BLOCK - inside).min(len - done);
        let part = (at / BLOCK_BYTES, inside..inside + take, done..done + take);
        done += take;
        Some(part)
    })
}

impl<B: StorageBackend> StorageBackend for Peek<B> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.len.load(Ordering::Acquire))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset + out.len() as u64 > self.len.load(Ordering::Acquire) {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file ends before its last page"));
        }
        let over = self.over();
        if over.is_empty() && offset + out.len() as u64 <= self.under.load(Ordering::Acquire) {
            drop(over);
            return self.inner.read(offset, out);
        }
        for (block, inside, outside) in parts(offset, out.len()) {
            let below;
            let bytes = match over.get(&block) {
                Some(bytes) => bytes,
                None => {
                    below = self.below(block)?;
                    &below
                }
            };
            if let (Some(to), Some(from)) = (out.get_mut(outside), bytes.get(inside)) {
                to.copy_from_slice(from);
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut over = self.over();
        self.len.store(len, Ordering::Release);
        self.under.fetch_min(len, Ordering::AcqRel);
        over.retain(|block, _| block * BLOCK_BYTES < len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut over = self.over();
        for (block, inside, outside) in parts(offset, data.len()) {
            let bytes = match over.entry(block) {
                std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
                std::collections::hash_map::Entry::Vacant(new) => new.insert(self.below(block)?),
            };
            if let (Some(to), Some(from)) = (bytes.get_mut(inside), data.get(outside)) {
                to.copy_from_slice(from);
            }
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    /// Readers share the file, whatever redb asks for: nothing is written to it.
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}
