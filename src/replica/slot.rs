//! Where the open database is: readers and the writer borrow it from here for as long as one call.
//!
//! An I/O error makes redb refuse everything until the file is closed and opened again, and a damaged file
//! has to make place for a new one. Both happen here, under the readers' feet: a view that was taken before
//! ends with an error, the next one is of the new database.

use super::damage::{self, MovedAside};
use super::guard::{failed, guarded};
use super::health::{Condition, Health};
use super::open::{self, Depth};
use crate::error::{Error, Kind, Result};
use redb::{Database, ReadTransaction, ReadableDatabase as _, WriteTransaction};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

pub(super) struct Slot {
    pub path: PathBuf,
    cache_bytes: usize,
    db: RwLock<Held>,
    pub watched: Arc<Watched>,
}

/// What a snapshot shares with the replica it came from: it keeps no file open.
pub(super) struct Watched {
    pub health: Arc<Health>,
    readers: Mutex<Readers>,
}

#[derive(Default)]
struct Readers {
    next: u64,
    since: BTreeMap<u64, Instant>,
}

pub(super) enum Held {
    /// The file is ours.
    Writing(Database),
    /// Only looked at; what recovery wrote is in memory.
    Reading(Database),
    /// An application's own.
    Shared(Arc<Database>),
    /// It could not be opened again, and why; readers have what there is, if that can be read.
    Closed { why: String, shown: Option<Database> },
}

/// A snapshot that is held, as the replica knows it.
pub(super) struct Ticket {
    watched: Arc<Watched>,
    id: u64,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut readers = self.watched.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.since.remove(&self.id);
    }
}

impl Ticket {
    /// Runs what reads the replica; damage that it meets is remembered, so that it is mended.
    pub fn guarded<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.watched.noted(guarded(work))
    }
}

impl Watched {
    fn new(health: Arc<Health>) -> Arc<Self> {
        Arc::new(Self { health, readers: Mutex::default() })
    }

    pub fn ticket(self: &Arc<Self>) -> Arc<Ticket> {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let id = readers.next;
        readers.next += 1;
        readers.since.insert(id, Instant::now());
        Arc::new(Ticket { watched: Arc::clone(self), id })
    }

    /// How many snapshots are held, and the age of the oldest.
    pub fn readers(&self) -> (usize, Option<Duration>) {
        let readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        (readers.since.len(), readers.since.values().min().map(Instant::elapsed))
    }

    pub fn noted<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|e| {
            if e.kind() == Kind::Damaged {
                self.health.raise(Condition::Damaged(e.to_string()));
            }
            self.health.explain(e)
        })
    }
}

impl Slot {
    pub fn new(path: PathBuf, cache_bytes: usize, held: Held, health: Arc<Health>) -> Arc<Self> {
        Arc::new(Self { path, cache_bytes, db: RwLock::new(held), watched: Watched::new(health) })
    }

    pub fn begin_read(&self) -> Result<ReadTransaction> {
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
        self.watched.noted(guarded(|| db.get()?.begin_read().map_err(failed)))
    }

    pub fn begin_write(&self) -> Result<WriteTransaction> {
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
        match &*db {
            Held::Reading(_) => return Err(Error::usage("replica: it was opened to read only")),
            Held::Closed { why, .. } => return Err(Error::new(Kind::Io, why.clone())),
            Held::Writing(_) | Held::Shared(_) => {}
        }
        self.watched.noted(guarded(|| db.get()?.begin_write().map_err(failed)))
    }

    fn is_closed(&self) -> bool {
        matches!(*self.db.read().unwrap_or_else(PoisonError::into_inner), Held::Closed { .. })
    }

    /// Opens the file again for its readers, at once after an I/O error. Who writes is told later if it cannot be.
    pub fn ready_to_read(&self) {
        if !self.is_closed() {
            let _ = self.ready();
        }
    }

    /// Opens the file again after an I/O error, if there was one. The cursor is read again by who goes on.
    pub fn ready(&self) -> Result<()> {
        if !self.is_closed() && !matches!(self.watched.health.now(), Condition::Failed(_)) {
            return Ok(());
        }
        let mut db = self.db.write().unwrap_or_else(PoisonError::into_inner);
        if matches!(*db, Held::Shared(_)) {
            return Err(self
                .watched
                .health
                .explain(Error::new(Kind::Replica, "replica: an operation failed")));
        }
        self.close(&mut db);
        let health = &self.watched.health;
        match open::open(&self.path, self.cache_bytes, false, health) {
            Ok(opened) => *db = Held::Writing(opened),
            Err(e) => {
                let e = health.explain(e);
                // Not even a reader can use what is damaged, or what fsync has left in doubt.
                let may_be_read = matches!(e.kind(), Kind::Io | Kind::Usage);
                let shown = may_be_read
                    .then(|| open::open_to_read(&self.path, self.cache_bytes, health, Depth::Whole));
                *db = Held::Closed { why: e.to_string(), shown: shown.and_then(Result::ok).flatten() };
                // It could be opened once: what may not be opened now may be again.
                let is_there = self.path.symlink_metadata().is_ok();
                return Err(if e.kind() == Kind::Usage && is_there { e.with_kind(Kind::Io) } else { e });
            }
        }
        Ok(())
    }

    /// Moves a damaged file aside and makes a new one in its place; `Err` with the damage if it may not be moved.
    pub fn rebuild(&self, why: &Error) -> Result<MovedAside> {
        let mut db = self.db.write().unwrap_or_else(PoisonError::into_inner);
        match *db {
            Held::Shared(_) => {
                let what = format!("{why}; the database is shared, so it is left as it is");
                return Err(Error::new(Kind::Damaged, what));
            }
            Held::Reading(_) => return Err(Error::new(Kind::Damaged, why.to_string())),
            Held::Writing(_) | Held::Closed { .. } => {}
        }
        self.close(&mut db);
        let moved = damage::move_aside(&self.path, why).inspect_err(|e| *db = Held::closed(e))?;
        match open::open(&self.path, self.cache_bytes, true, &self.watched.health) {
            Ok(opened) => *db = Held::Writing(opened),
            Err(e) => {
                *db = Held::closed(&e);
                return Err(e);
            }
        }
        Ok(moved)
    }

    /// Gives unused space back, and with it whatever was deleted or overwritten: redb's own compacting leaves
    /// old bytes in the pages that stay free, so everything is written anew.
    pub fn compact(&self) -> Result<()> {
        let mut held = self.db.write().unwrap_or_else(PoisonError::into_inner);
        let Held::Writing(db) = &*held else {
            return Err(Error::usage("replica: only who holds its file alone can compact it"));
        };
        if self.watched.readers().0 > 0 {
            return Err(Error::new(
                Kind::Unavailable,
                "replica: it is being read, and compacting waits for nobody; try again when no snapshot is held",
            ));
        }
        let made = guarded(|| open::anew(db, &self.path, self.cache_bytes, &self.watched.health));
        let old = std::mem::replace(&mut *held, Held::Writing(self.watched.noted(made)?));
        // The old file has no name any more; its end may panic on damaged pages.
        let _ = guarded(|| {
            drop(old);
            Ok(())
        });
        Ok(())
    }

    /// Closes what is open. Its end may panic on damaged pages; then the file is as it was after a kill.
    fn close(&self, db: &mut Held) {
        let held = std::mem::replace(db, Held::closed("being opened again"));
        let _ = guarded(|| {
            drop(held);
            Ok(())
        });
        self.watched.health.reset();
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let db = self.db.get_mut().unwrap_or_else(PoisonError::into_inner);
        let held = std::mem::replace(db, Held::closed("closed"));
        let _ = guarded(|| {
            drop(held);
            Ok(())
        });
    }
}

impl Held {
    fn closed(why: impl std::fmt::Display) -> Self {
        Self::Closed { why: why.to_string(), shown: None }
    }

    fn get(&self) -> Result<&Database> {
        match self {
            Self::Writing(db) | Self::Reading(db) | Self::Closed { shown: Some(db), .. } => Ok(db),
            Self::Shared(db) => Ok(db),
            Self::Closed { why, shown: None } => {
                Err(Error::new(Kind::Io, format!("replica: not open now: {why}")))
            }
        }
    }
}
