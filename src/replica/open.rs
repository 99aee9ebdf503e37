//! Makes and opens the replica's file.
//!
//! A new file is made under a temporary name, synced, linked to its own name and its folder synced: a
//! crash meanwhile leaves no half-made replica, and two that make one at once do not share it. A file that
//! is there is verified whole by redb while it is opened, as after a crash: it may have been damaged since.

use super::disk::{Disk, Peek};
use super::guard::{failed, guarded, is_damage};
use super::health::Health;
use super::history::{CHANGES, SHAPES, WINDOWS};
use super::index::INDEX;
use super::projecting::PROJECTED;
use super::{FORMAT, META, PAST, PIECES, ROWS, SEEN, TABLES};
use crate::error::{Error, Kind, Result};
use crate::record::{self, seal};
use crate::source::sql::plain;
use redb::backends::FileBackend;
use redb::{
    Builder, Database, DatabaseError, ReadTransaction, ReadableDatabase as _, ReadableTable as _,
    StorageBackend, StorageError, TableDefinition, TableError, TableHandle as _, WriteTransaction,
};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The first bytes of every redb file (redb's design.md).
const MAGIC: [u8; 9] = *b"redb\x1A\x0A\xA9\x0D\x0A";
/// The length of redb's header, in bytes.
const HEADER: u64 = 320;
/// Where the versions of redb's two commit slots lie, and the newest that redb 4 reads.
const SLOTS: [usize; 2] = [64, 192];
const REDB_FORMAT: u8 = 3;
/// Where redb's flags lie, and the one that a writer takes away when it closes the file.
const FLAGS: usize = MAGIC.len();
const RECOVERY_REQUIRED: u8 = 2;

pub(super) fn open(path: &Path, cache_bytes: usize, create: bool, health: &Arc<Health>) -> Result<Database> {
    let shown = path.display();
    super::place::refuse_network(path)?;
    match fs::metadata(path) {
        Ok(m) if m.is_dir() => Err(Error::usage(format!("replica {shown}: a folder; give a file"))),
        Ok(_) => {
            let mut options = fs::OpenOptions::new();
            let file = options.read(true).write(true).open(path).map_err(|e| cannot(path, &e))?;
            let head = Head::of(&file, path)?;
            let disk = Disk::new(backend(file, path)?, Arc::clone(health), shown.to_string());
            database(disk, path, cache_bytes, head, Depth::Whole)
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound && create => make(path, cache_bytes, health),
        Err(e) => Err(cannot(path, &e)),
    }
}

/// Opens a file without changing it, whether or not its last writer was killed; `None` for a glance at one that was.
pub(super) fn open_to_read(
    path: &Path,
    cache_bytes: usize,
    health: &Arc<Health>,
    depth: Depth,
) -> Result<Option<Database>> {
    let shown = path.display();
    super::place::refuse_network(path)?;
    match fs::metadata(path) {
        Ok(m) if m.is_dir() => return Err(Error::usage(format!("replica {shown}: a folder; give a file"))),
        Ok(_) => {}
        Err(e) => return Err(cannot(path, &e)),
    }
    let file = File::open(path).map_err(|e| cannot(path, &e))?;
    let head = Head::of(&file, path)?;
    if depth == Depth::Glance && !head.clean {
        return Ok(None);
    }
    let disk = Disk::new(backend(file, path)?, Arc::clone(health), shown.to_string());
    database(Peek::new(disk).map_err(|e| cannot(path, &e))?, path, cache_bytes, head, depth).map(Some)
}

fn backend(file: File, path: &Path) -> Result<FileBackend> {
    FileBackend::new(file).map_err(|e| failed(e).during(path.display()))
}

/// A wrong path is the caller's mistake; a disk that fails is not.
fn cannot(path: &Path, e: &io::Error) -> Error {
    use io::ErrorKind::{
        InvalidFilename, InvalidInput, IsADirectory, NotADirectory, NotFound, PermissionDenied,
        ReadOnlyFilesystem,
    };
    let kind = match e.kind() {
        NotFound | PermissionDenied | ReadOnlyFilesystem | IsADirectory | NotADirectory | InvalidInput
        | InvalidFilename => Kind::Usage,
        _ => Kind::Io,
    };
    Error::new(kind, format!("replica {}: {}", path.display(), plain(e)))
}

/// What the first bytes of a file say.
#[derive(Clone, Copy)]
pub(super) struct Head {
    newer: bool,
    /// Its last writer closed it; else redb recovers it first, which reads all of it.
    pub clean: bool,
}

impl Head {
    /// # Errors
    /// `Usage` if it is no redb file, `Damaged` if it was one.
    fn of(file: &File, path: &Path) -> Result<Self> {
        let mut bytes = Vec::new();
        file.take(HEADER).read_to_end(&mut bytes).map_err(|e| cannot(path, &e))?;
        Self::parse(&bytes, path)
    }

    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self> {
        let shown = path.display();
        let same = MAGIC.iter().zip(bytes).filter(|(a, b)| a == b).count();
        if bytes.is_empty() {
            return Err(damaged(path, "it is empty"));
        }
        if same + 1 < MAGIC.len().min(bytes.len()) || same < 3 {
            return Err(Error::usage(format!("replica {shown}: not a redtail replica; give another file")));
        }
        if same < MAGIC.len() || (bytes.len() as u64) < HEADER {
            return Err(damaged(path, "its first bytes are not what redb writes"));
        }
        let mut versions = SLOTS.iter().filter_map(|at| bytes.get(*at));
        let clean = bytes.get(FLAGS).is_some_and(|flags| flags & RECOVERY_REQUIRED == 0);
        Ok(Self { newer: versions.all(|v| *v > REDB_FORMAT), clean })
    }
}

fn damaged(path: &Path, what: impl std::fmt::Display) -> Error {
    let what = what.to_string();
    let what = what.trim_start_matches("replica: ").trim_start_matches("DB corrupted: ");
    Error::new(Kind::Damaged, format!("replica {}: damaged: {what}", path.display()))
}

/// How much of a file is looked at before it is used.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Depth {
    /// Every page is verified.
    Whole,
    /// A file that was closed cleanly only as far as it is read; records always.
    Glance,
}

/// Opens a database in this storage.
pub(super) fn database(
    storage: impl StorageBackend,
    path: &Path,
    cache_bytes: usize,
    head: Head,
    depth: Depth,
) -> Result<Database> {
    let mut builder = Builder::new();
    builder.set_cache_size(cache_bytes).set_check_integrity_on_open(depth == Depth::Whole);
    guarded(|| {
        let db = builder.create_with_backend(storage).map_err(|e| refused(e, path, head))?;
        recognise(&db.begin_read().map_err(failed)?, path)?;
        Ok(db)
    })
    .map_err(|e| {
        if e.kind() == Kind::Damaged && !e.to_string().contains("damaged: ") { damaged(path, e) } else { e }
    })
}

/// Why redb would not open a file.
fn refused(e: DatabaseError, path: &Path, head: Head) -> Error {
    let shown = path.display();
    match e {
        DatabaseError::DatabaseAlreadyOpen => held(path),
        DatabaseError::Storage(StorageError::Io(e)) if !is_damage(&e) => {
            Error::new(Kind::Io, format!("replica {shown}: {}", plain(&e)))
        }
        _ if head.newer => Error::new(
            Kind::Newer,
            format!("replica {shown}: a file of a newer redb; use a newer redtail, or give another file"),
        ),
        e => damaged(path, failed(e)),
    }
}

/// Whether this redb file is a replica of a format that is known here.
pub(super) fn recognise(read: &ReadTransaction, path: &Path) -> Result<()> {
    let shown = path.display();
    let meta = match read.open_table(META) {
        Ok(meta) => meta,
        Err(TableError::TableDoesNotExist(_)) => {
            if read.list_tables().map_err(failed)?.any(|t| t.name().starts_with("redtail.")) {
                return Err(damaged(path, "its first table is not there"));
            }
            let what = "a redb file, but not a redtail replica; give another file";
            return Err(Error::usage(format!("replica {shown}: {what}")));
        }
        Err(e) => return Err(failed(e)),
    };
    let Some(format) = meta.get_owned(FORMAT).map_err(failed)? else {
        return Err(damaged(path, "it has no format"));
    };
    match record::stored_format(format.value())? {
        record::FORMAT => Ok(()),
        newer => Err(Error::new(
            Kind::Newer,
            format!(
                "replica {shown}: has format {newer}, this redtail reads {}; use a newer redtail",
                record::FORMAT
            ),
        )),
    }
}

/// Makes redtail's tables.
pub(super) fn make_tables(txn: &WriteTransaction) -> Result<()> {
    txn.open_table(META)
        .map_err(failed)?
        .insert(FORMAT, seal(&[record::FORMAT]).as_slice())
        .map_err(failed)?;
    txn.open_table(TABLES).map_err(failed)?;
    txn.open_table(ROWS).map_err(failed)?;
    txn.open_table(PIECES).map_err(failed)?;
    txn.open_table(PAST).map_err(failed)?;
    txn.open_table(SEEN).map_err(failed)?;
    Ok(())
}

/// Makes a new replica in an empty storage.
pub(super) fn create(storage: impl StorageBackend, cache_bytes: usize) -> Result<Database> {
    let mut builder = Builder::new();
    let db = builder.set_cache_size(cache_bytes).create_with_backend(storage).map_err(failed)?;
    let txn = db.begin_write().map_err(failed)?;
    make_tables(&txn)?;
    txn.commit().map_err(failed)?;
    Ok(db)
}

/// Makes a new replica; if another process was quicker, opens that one.
fn make(path: &Path, cache_bytes: usize, health: &Arc<Health>) -> Result<Database> {
    let shown = path.display();
    let temporary = temporary(path);
    let made = beside(path, &temporary, cache_bytes, health);
    let linked = made.and_then(|db| match fs::hard_link(&temporary, path) {
        Ok(()) => Ok(Some(db)),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        Err(e) => Err(Error::new(Kind::Replica, format!("replica {shown}: {}", plain(&e)))),
    });
    let _ = fs::remove_file(&temporary);
    let Some(db) = linked? else { return open(path, cache_bytes, false, health) };
    sync_folder(path)?;
    Ok(db)
}

/// The name under which a file is made before it takes its place.
fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    folder_of(path).join(format!(".{name}.new-{}", std::process::id()))
}

fn beside(path: &Path, temporary: &Path, cache_bytes: usize, health: &Arc<Health>) -> Result<Database> {
    let file = private_file(temporary).map_err(|e| cannot(path, &e))?;
    let disk = Disk::new(backend(file, path)?, Arc::clone(health), path.display().to_string()).marked();
    create(disk, cache_bytes).map_err(|e| e.during(path.display()))
}

fn sync_folder(path: &Path) -> Result<()> {
    let synced = File::open(folder_of(path)).and_then(|f| f.sync_all());
    synced.map_err(|e| Error::new(Kind::Replica, format!("replica {}: {e}", path.display())))
}

/// Writes everything that is in a database into a new file, which takes its place. Nothing that was
/// deleted or overwritten is in it.
pub(super) fn anew(
    old: &Database,
    path: &Path,
    cache_bytes: usize,
    health: &Arc<Health>,
) -> Result<Database> {
    let temporary = temporary(path);
    let made = beside(path, &temporary, cache_bytes, health).and_then(|new| {
        let (read, txn) = (old.begin_read().map_err(failed)?, new.begin_write().map_err(failed)?);
        copy(&read, &txn, META)?;
        copy(&read, &txn, TABLES)?;
        copy(&read, &txn, ROWS)?;
        copy(&read, &txn, PIECES)?;
        copy(&read, &txn, PAST)?;
        copy(&read, &txn, SEEN)?;
        copy(&read, &txn, CHANGES)?;
        copy(&read, &txn, WINDOWS)?;
        copy(&read, &txn, SHAPES)?;
        copy(&read, &txn, INDEX)?;
        copy(&read, &txn, PROJECTED)?;
        txn.commit().map_err(failed)?;
        fs::rename(&temporary, path)
            .map_err(|e| Error::new(Kind::Replica, format!("replica {}: {}", path.display(), plain(&e))))?;
        Ok(new)
    });
    if made.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    let made = made?;
    sync_folder(path)?;
    Ok(made)
}

fn copy<K: redb::Key + 'static, V: redb::Value + 'static>(
    read: &ReadTransaction,
    txn: &WriteTransaction,
    table: TableDefinition<'_, K, V>,
) -> Result<()> {
    let from = match read.open_table(table) {
        Ok(from) => from,
        Err(TableError::TableDoesNotExist(_)) => return Ok(()),
        Err(e) => return Err(failed(e)),
    };
    let mut to = txn.open_table(table).map_err(failed)?;
    for entry in from.iter().map_err(failed)? {
        let (key, value) = entry.map_err(failed)?;
        to.insert(key.value(), value.value()).map_err(failed)?;
    }
    Ok(())
}

/// The folder of a file, by a name that can be opened.
pub(super) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    }
}

/// An empty file that only its owner may read: a replica holds what the source holds.
fn private_file(path: &Path) -> io::Result<File> {
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn held(path: &Path) -> Error {
    let holder = holder(path).map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
    let what = format!("replica {}: held by {holder}; stop that one, or give another file", path.display());
    Error::new(Kind::Locked, what)
}

/// The process that holds a lock on this file, as the kernel lists it (`proc_locks(5)`).
#[cfg(target_os = "linux")]
fn holder(path: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt as _;
    let inode = fs::metadata(path).ok()?.ino().to_string();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let of_file = fields.get(5)?.rsplit(':').next()? == inode;
        if of_file { fields.get(4)?.parse().ok() } else { None }
    })
}

#[cfg(not(target_os = "linux"))]
fn holder(_: &Path) -> Option<u32> {
    None
}
