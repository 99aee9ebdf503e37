//! The replica: rows, cursor and state in one redb file.
//!
//! The only floor that names redb. `disk` is the storage under redb, `open` makes and opens the file, `slot`
//! keeps it open for readers and the writer, `apply` is the one write, `scan` reads; `damage` moves a
//! file aside that cannot be trusted. redb's tables here: META (format, identity, cursor), TABLES (what is
//! known of each table), ROWS (`table number + canonical key` to record) and PIECES (the parts of long values).

mod apply;
mod changes;
mod damage;
#[cfg(feature = "serde")]
mod decode;
mod disk;
mod guard;
mod health;
mod history;
mod index;
mod open;
mod orphans;
mod place;
mod project;
mod projecting;
mod projection;
mod range;
mod reconcile;
mod row;
mod scan;
mod slot;
/// Where it is.
impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

pub use apply::Difference;
pub(crate) use apply::{Applied, Writer};
pub use changes::{Change, KeptChanges, Op, Window};
pub(crate) use changes::{Part, Place, Subscription};
pub use damage::MovedAside;
pub(crate) use health::Condition;
pub(crate) use history::Told;
pub use orphans::{Orphan, Orphans};
pub use project::Project;
pub(crate) use project::Projectors;
pub use projection::{Projected, ProjectedScan, Projection};
pub use row::{ColumnRef, Row};
pub use scan::{Index, Scan, Snapshot, TableInfo};

use crate::config::Config;
use crate::cursor::{Cursor, Nonce};
use crate::error::{Error, Kind, Result};
use crate::record::state::{
    IndexState, ProjectionState, TableState, decode_cursor, decode_indexes, decode_past, decode_projections,
    decode_table,
};
use crate::record::unseal;
use crate::window::{Remembered, Start, TableNo};
use guard::{failed, guarded};
use health::Health;
use history::Recorder;
use open::Depth;
use redb::{Database, ReadTransaction, ReadableDatabase as _, ReadableTable, TableDefinition};
use slot::{Held, Slot};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("redtail.meta");
const TABLES: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("redtail.tables");
const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("redtail.rows");
/// While a table is reconciled by sweep: the names of its rows that the source has.
const SEEN: TableDefinition<'_, &[u8], ()> = TableDefinition::new("redtail.seen");
/// The last entries that were applied, by the last one of each window.
const PAST: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("redtail.past");
/// Empty; it says that the database is an application's own.
const SHARED_MARK: TableDefinition<'_, u8, ()> = TableDefinition::new(damage::SHARED_MARK);
const PIECES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("redtail.pieces");

const FORMAT: &str = "format";
const CURSOR: &str = "cursor";
const SOURCE: &str = "source";
const NEXT: &str = "next";
const CONSUMER: &str = "consumer";
const AUDITED: &str = "audited";
const HISTORY: &str = "history";

/// A replica: open once, read from any number of threads.
///
/// ```no_run
/// # fn open() -> redtail::Result<()> {
/// use redtail::{Config, Replica};
///
/// let replica = Replica::open("cache.redb", &Config::default())?;
/// for info in replica.snapshot()?.tables()? {
///     println!("{}: {} rows", info.table.name, info.rows);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Replica {
    db: Arc<Slot>,
    path: PathBuf,
    /// The file's length when it was opened, in bytes.
    opened_len: u64,
    recorder: Arc<Recorder>,
}

/// What a replica's file costs, and who holds old pages in it.
///
/// ```no_run
/// # fn read(replica: &redtail::Replica) -> redtail::Result<()> {
/// let space = replica.space();
/// println!("{} bytes, {} snapshots held", space.bytes, space.snapshots);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Space {
    /// The file's length, in bytes; 0 for a shared database.
    pub bytes: u64,
    /// How much it has grown since it was opened here, in bytes.
    pub grown: u64,
    /// Snapshots that are held now.
    pub snapshots: usize,
    /// How long the oldest of them has been held: what was deleted or replaced since then keeps its place.
    pub oldest_snapshot: Option<Duration>,
}

/// What compacting came to.
///
/// ```no_run
/// # async fn follow(replicator: &redtail::Replicator) -> redtail::Result<()> {
/// let compacted = replicator.compact().await?;
/// println!("{} bytes became {}", compacted.before, compacted.after);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Compacted {
    /// The file's length before, in bytes.
    pub before: u64,
    /// The file's length after, in bytes.
    pub after: u64,
}

/// What a shared database is called in messages.
const SHARED: &str = "(shared database)";

impl Replica {
    /// Opens a replica to bring it up to date, or makes a new one where there is no file.
    ///
    /// A damaged file is moved aside (`FILE.damaged-UNIXTIME`), and a new one made: a replica can always be
    /// made again from its source.
    ///
    /// # Errors
    /// `Locked` if another process holds it, `Newer` if its format is, `Usage` if the file is no replica.
    pub fn open(path: impl AsRef<Path>, config: &Config) -> Result<Self> {
        let path = path.as_ref();
        match Self::open_as_it_is(path, config, true) {
            Err(e) if e.kind() == Kind::Damaged => {
                damage::move_aside(path, &e)?;
                Self::open_as_it_is(path, config, true)
            }
            opened => opened,
        }
    }

    /// Opens a replica that must exist; a damaged one is left as it is.
    ///
    /// # Errors
    /// As [`Replica::open`], `Usage` if there is no such file, and `Damaged`.
    pub fn open_existing(path: impl AsRef<Path>, config: &Config) -> Result<Self> {
        Self::open_as_it_is(path.as_ref(), config, false)
    }

    fn open_as_it_is(path: &Path, config: &Config, create: bool) -> Result<Self> {
        let health = Arc::new(Health::new());
        let db = open::open(path, config.cache_bytes, create, &health).map_err(|e| health.explain(e))?;
        Self::holding(path, config, Held::Writing(db), health)
    }

    /// Opens a replica that must exist, only to read it: the file is not changed, even if its last writer was
    /// killed.
    ///
    /// # Errors
    /// As [`Replica::open_existing`].
    pub fn open_to_read(path: impl AsRef<Path>, config: &Config) -> Result<Self> {
        let opened = Self::reading(path.as_ref(), config, Depth::Whole)?;
        opened.ok_or_else(|| Error::new(Kind::Replica, "replica: not opened"))
    }

    /// As [`Replica::open_to_read`], only to see which source it follows: the pages of a file that was closed
    /// cleanly are not verified, which takes as long as it is large. `None` for one whose writer was killed: nothing
    /// can be read of it before it was recovered, which reads all of it.
    ///
    /// # Errors
    /// As [`Replica::open_to_read`].
    pub fn glance(path: impl AsRef<Path>, config: &Config) -> Result<Option<Self>> {
        Self::reading(path.as_ref(), config, Depth::Glance)
    }

    fn reading(path: &Path, config: &Config, depth: Depth) -> Result<Option<Self>> {
        let health = Arc::new(Health::new());
        let opened = open::open_to_read(path, config.cache_bytes, &health, depth);
        let Some(db) = opened.map_err(|e| health.explain(e))? else { return Ok(None) };
        Self::holding(path, config, Held::Reading(db), health).map(Some)
    }

    /// Keeps the replica in a database that the application has open, beside its own tables: only tables whose
    /// names begin with `redtail.` are touched. Damage is reported, and never moved aside; pages are
    /// verified only as far as redb does, records always.
    ///
    /// # Errors
    /// `Newer` or `Damaged` if redtail's tables in it are.
    pub fn share(db: Arc<Database>) -> Result<Self> {
        let path = Path::new(SHARED);
        guarded(|| {
            let read = db.begin_read().map_err(failed)?;
            if read.open_table(META).is_ok() {
                return open::recognise(&read, path);
            }
            let txn = db.begin_write().map_err(failed)?;
            open::make_tables(&txn)?;
            txn.open_table(SHARED_MARK).map_err(failed)?;
            txn.commit().map_err(failed)
        })?;
        Self::holding(path, &Config::default(), Held::Shared(db), Arc::new(Health::new()))
    }

    fn holding(path: &Path, config: &Config, held: Held, health: Arc<Health>) -> Result<Self> {
        let db = Slot::new(path.to_owned(), config.cache_bytes, held, health);
        let recorder = Arc::new(Recorder::new());
        let replica = Self { db, path: path.to_owned(), opened_len: length(path), recorder };
        // What every start needs is read once, so that damage in it is found now.
        replica
            .start()
            .and_then(|_| replica.source())
            .and_then(|_| replica.begin_history())
            .map_err(|e| if e.to_string().contains(SHARED) { e } else { e.during(path.display()) })?;
        Ok(replica)
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A consistent view of everything that is committed now. A view that is held for long keeps old
    /// pages in the file ([`Replica::space`] tells). It ends with an error if the file has to be opened again.
    ///
    /// # Errors
    /// `Damaged` if the state cannot be read.
    pub fn snapshot(&self) -> Result<Snapshot> {
        Snapshot::new(self.db.begin_read()?, self.db.watched.ticket())
    }

    /// The files of this replica that were found damaged, moved aside, and are still there; oldest first.
    #[must_use]
    pub fn moved_aside(&self) -> Vec<MovedAside> {
        damage::moved_aside(&self.path)
    }

    /// What the file costs, and who holds old pages in it.
    #[must_use]
    pub fn space(&self) -> Space {
        let bytes = length(&self.path);
        let (snapshots, oldest_snapshot) = self.db.watched.readers();
        Space { bytes, grown: bytes.saturating_sub(self.opened_len), snapshots, oldest_snapshot }
    }

    /// Gives space back that deleted and replaced rows have left. Nobody reads or writes the replica meanwhile:
    /// new snapshots wait.
    ///
    /// # Errors
    /// `Unavailable` while a snapshot is held; `Usage` for a replica opened to read, or a shared one.
    pub fn compact(&self) -> Result<Compacted> {
        let before = length(&self.path);
        self.db.compact()?;
        Ok(Compacted { before, after: length(&self.path) })
    }

    /// Sees to it that the file is open and of use, after an I/O error too.
    pub(crate) fn ready(&self) -> Result<()> {
        self.db.ready()
    }

    /// The same, as far as readers need it and as soon as it has failed.
    pub(crate) fn ready_to_read(&self) {
        self.db.ready_to_read();
    }

    /// # Errors
    /// What has failed, if the file has to be opened again.
    pub(crate) fn sound(&self) -> Result<()> {
        let health = &self.db.watched.health;
        match health.now() {
            Condition::Failed(what) => Err(Error::new(Kind::Io, what)),
            Condition::Unsynced(what) => Err(Error::new(Kind::Replica, what)),
            Condition::Good | Condition::Full(_) | Condition::Damaged(_) => Ok(()),
        }
    }

    /// How the file is doing, now and whenever that changes.
    pub(crate) fn condition(&self) -> watch::Receiver<Condition> {
        self.db.watched.health.watch()
    }

    /// Whether writing waits for room on the disk, or fails for want of it.
    pub(crate) fn set_waits(&self, waits: bool) {
        self.db.watched.health.set_waits(waits);
    }

    /// There may be room again: what comes next finds out.
    pub(crate) fn assume_room(&self) {
        self.db.watched.health.room();
    }

    /// Moves the damaged file aside and goes on with a new one.
    pub(crate) fn rebuild(&self, why: &Error) -> Result<MovedAside> {
        self.db.rebuild(why)
    }

    /// What a stream of windows starts from.
    pub(crate) fn start(&self) -> Result<Start> {
        let read = self.db.begin_read()?;
        self.guarded(|| {
            Ok(Start {
                cursor: cursor(&read)?,
                tables: tables(&read)?,
                next_no: number(&read, NEXT)?.unwrap_or(1),
                past: past(&read)?,
            })
        })
    }

    /// The source that this replica follows, as it was given; `None` before the first window.
    pub(crate) fn source(&self) -> Result<Option<String>> {
        let read = self.db.begin_read()?;
        self.guarded(|| Ok(meta(&read, SOURCE)?.map(|b| String::from_utf8_lossy(&b).into_owned())))
    }

    /// The id under which the source knows this replica; `None` before it has followed any.
    ///
    /// # Errors
    /// `Damaged` if it cannot be read.
    pub fn consumer_id(&self) -> Result<Option<Nonce>> {
        Ok(self.consumer()?.map(|(id, _)| id))
    }

    /// The id under which this replica acknowledges, and the nonces that it may have left in its source,
    /// the newest last; `None` before the first one.
    pub(crate) fn consumer(&self) -> Result<Option<(Nonce, Vec<Nonce>)>> {
        let read = self.db.begin_read()?;
        let bytes = self.guarded(|| meta(&read, CONSUMER))?.unwrap_or_default();
        let mut nonces = bytes.chunks_exact(16).filter_map(|b| b.try_into().ok().map(Nonce));
        Ok(nonces.next().map(|id| (id, nonces.collect())))
    }

    /// Remembers them, on disk.
    pub(crate) fn set_consumer(&self, id: Nonce, sessions: &[Nonce]) -> Result<()> {
        let bytes: Vec<u8> = [id].iter().chain(sessions).flat_map(|n| n.0).collect();
        self.set_meta(CONSUMER, &bytes)
    }

    fn set_meta(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let txn = self.db.begin_write()?;
        self.guarded(|| {
            let bytes = crate::record::seal(bytes);
            txn.open_table(META).map_err(failed)?.insert(name, bytes.as_slice()).map_err(failed)?;
            txn.commit().map_err(failed)
        })
    }

    /// Remembers which source this replica follows.
    pub(crate) fn set_source(&self, source: &str) -> Result<()> {
        self.set_meta(SOURCE, source.as_bytes())
    }

    /// When all tables were last compared by the clock.
    pub(crate) fn audited(&self) -> Result<Option<SystemTime>> {
        let read = self.db.begin_read()?;
        let found = self.guarded(|| meta(&read, AUDITED))?;
        let millis = found.and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
        Ok(millis.and_then(|ms| SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(ms))))
    }

    /// Remembers when that was.
    pub(crate) fn set_audited(&self, at: SystemTime) -> Result<()> {
        let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.set_meta(AUDITED, &u64::try_from(since.as_millis()).unwrap_or(u64::MAX).to_le_bytes())
    }

    fn guarded<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.db.watched.noted(guarded(work))
    }
}

/// The length of a file, in bytes; 0 where there is none.
fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |m| m.len())
}

fn meta(read: &ReadTransaction, name: &str) -> Result<Option<Vec<u8>>> {
    let table = read.open_table(META).map_err(failed)?;
    let found = table.get_owned(name).map_err(failed)?;
    found.map(|v| unseal(v.value()).map(<[u8]>::to_vec)).transpose()
}

fn number(read: &ReadTransaction, name: &str) -> Result<Option<u32>> {
    Ok(meta(read, name)?.and_then(|b| b.try_into().ok()).map(u32::from_le_bytes))
}

fn cursor(read: &ReadTransaction) -> Result<Option<Cursor>> {
    cursor_in(&read.open_table(META).map_err(failed)?)
}

fn cursor_in(meta: &impl ReadableTable<&'static str, &'static [u8]>) -> Result<Option<Cursor>> {
    meta.get(CURSOR).map_err(failed)?.map(|v| decode_cursor(v.value())).transpose()
}

fn tables(read: &ReadTransaction) -> Result<Vec<(TableNo, TableState)>> {
    let table = read.open_table(TABLES).map_err(failed)?;
    let mut out = Vec::new();
    for entry in table.iter().map_err(failed)? {
        let (no, state) = entry.map_err(failed)?;
        out.push((no.value(), decode_table(state.value())?));
    }
    Ok(out)
}

fn indexes(read: &ReadTransaction) -> Result<Vec<IndexState>> {
    let table = read.open_table(META).map_err(failed)?;
    let found = table.get_owned(index::INDEXES).map_err(failed)?;
    Ok(found.map(|v| decode_indexes(v.value())).transpose()?.unwrap_or_default())
}

fn projections(read: &ReadTransaction) -> Result<Vec<ProjectionState>> {
    let table = read.open_table(META).map_err(failed)?;
    let found = table.get_owned(projecting::PROJECTIONS).map_err(failed)?;
    Ok(found.map(|v| decode_projections(v.value())).transpose()?.unwrap_or_default())
}

fn past(read: &ReadTransaction) -> Result<Vec<Remembered>> {
    let table = match read.open_table(PAST) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(e) => return Err(failed(e)),
    };
    let mut out = Vec::new();
    for entry in table.iter().map_err(failed)? {
        out.extend(decode_past(entry.map_err(failed)?.1.value())?);
    }
    Ok(out)
}

fn count_name(no: TableNo) -> String {
    format!("rows/{no}")
}

/// Where a table's rows begin in ROWS.
fn prefix(no: TableNo) -> [u8; 4] {
    no.to_be_bytes()
}
