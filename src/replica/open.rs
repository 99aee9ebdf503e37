//! Makes and opens the replica's file.
//!
//! A new file is made under a temporary name, synced, linked to its own name and its folder synced: a
//! crash meanwhile leaves no half-made replica, and two that make one at once do not share it.

use super::{FORMAT, META, PAST, PIECES, ROWS, SEEN, TABLES, failed};
use crate::error::{Error, Kind, Result};
use crate::record::{self, seal};
use crate::source::sql::plain;
use redb::{
    Builder, Database, DatabaseError, ReadOnlyDatabase, ReadTransaction, ReadableDatabase as _, StorageError,
};
use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

/// The first bytes of every redb file (redb's design.md).
const MAGIC: [u8; 9] = *b"redb\x1A\x0A\xA9\x0D\x0A";

pub(super) fn open(path: &Path, cache_bytes: usize, create: bool) -> Result<Database> {
    let shown = path.display();
    let mut builder = Builder::new();
    builder.set_cache_size(cache_bytes);
    match fs::metadata(path) {
        Ok(m) if m.is_dir() => Err(Error::usage(format!("replica {shown}: a folder; give a file"))),
        Ok(_) => open_existing(&builder, path),
        Err(e) if e.kind() == io::ErrorKind::NotFound && create => make(&builder, path),
        Err(e) => Err(Error::usage(format!("replica {shown}: {}", plain(&e)))),
    }
}

fn open_existing(builder: &Builder, path: &Path) -> Result<Database> {
    let db = builder.open(path).map_err(|e| refused(e, path))?;
    recognise(&db.begin_read().map_err(failed)?, path)?;
    Ok(db)
}

/// Opens a file without changing it; `None` if its last writer was killed, so that it must be recovered.
pub(super) fn open_to_read(path: &Path, cache_bytes: usize) -> Result<Option<ReadOnlyDatabase>> {
    let shown = path.display();
    match fs::metadata(path) {
        Ok(m) if m.is_dir() => return Err(Error::usage(format!("replica {shown}: a folder; give a file"))),
        Ok(_) => {}
        Err(e) => return Err(Error::usage(format!("replica {shown}: {}", plain(&e)))),
    }
    let db = match Builder::new().set_cache_size(cache_bytes).open_read_only(path) {
        Ok(db) => db,
        Err(DatabaseError::RepairAborted) => return Ok(None),
        Err(e) => return Err(refused(e, path)),
    };
    recognise(&db.begin_read().map_err(failed)?, path)?;
    Ok(Some(db))
}

/// Why redb would not open a file.
fn refused(e: DatabaseError, path: &Path) -> Error {
    let shown = path.display();
    match e {
        DatabaseError::DatabaseAlreadyOpen => held(path),
        DatabaseError::Storage(StorageError::Io(e)) if e.kind() == io::ErrorKind::PermissionDenied => {
            Error::usage(format!("replica {shown}: permission denied"))
        }
        _ if !is_redb(path) => {
            Error::usage(format!("replica {shown}: not a redtail replica; give another file"))
        }
        e => failed(e).during(shown),
    }
}

/// Whether this redb file is a replica of a format that is known here.
fn recognise(read: &ReadTransaction, path: &Path) -> Result<()> {
    let shown = path.display();
    let Ok(meta) = read.open_table(META) else {
        return Err(Error::usage(format!(
            "replica {shown}: a redb file, but not a redtail replica; give another file"
        )));
    };
    let format = meta.get_owned(FORMAT).map_err(failed)?;
    let format = format.map(|v| record::unseal(v.value()).map(|b| b.first().copied())).transpose()?.flatten();
    match format {
        Some(record::FORMAT) => Ok(()),
        Some(newer) => Err(Error::new(
            Kind::Damaged,
            format!(
                "replica {shown}: has format {newer}, this redtail reads {}; use a newer redtail",
                record::FORMAT
            ),
        )),
        None => Err(Error::new(Kind::Damaged, format!("replica {shown}: has no format"))),
    }
}

/// Makes a new replica; if another process was quicker, opens that one.
fn make(builder: &Builder, path: &Path) -> Result<Database> {
    let shown = path.display();
    let folder = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder.join(format!(".{name}.new-{}", std::process::id()));
    let made = (|| -> Result<Database> {
        let file =
            private_file(&temporary).map_err(|e| Error::usage(format!("replica {shown}: {}", plain(&e))))?;
        drop(file);
        let db = builder.create(&temporary).map_err(failed)?;
        let txn = db.begin_write().map_err(failed)?;
        txn.open_table(META)
            .map_err(failed)?
            .insert(FORMAT, seal(&[record::FORMAT]).as_slice())
            .map_err(failed)?;
        txn.open_table(TABLES).map_err(failed)?;
        txn.open_table(ROWS).map_err(failed)?;
        txn.open_table(PIECES).map_err(failed)?;
        txn.open_table(PAST).map_err(failed)?;
        txn.open_table(SEEN).map_err(failed)?;
        txn.commit().map_err(failed)?;
        Ok(db)
    })();
    let linked = made.and_then(|db| match fs::hard_link(&temporary, path) {
        Ok(()) => Ok(Some(db)),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(None),
        Err(e) => Err(Error::new(Kind::Replica, format!("replica {shown}: {}", plain(&e)))),
    });
    let _ = fs::remove_file(&temporary);
    let Some(db) = linked? else { return open_existing(builder, path) };
    fs::File::open(folder)
        .and_then(|f| f.sync_all())
        .map_err(|e| Error::new(Kind::Replica, format!("replica {shown}: {e}")))?;
    Ok(db)
}

/// An empty file that only its owner may read: a replica holds what the source holds.
fn private_file(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn is_redb(path: &Path) -> bool {
    let mut magic = [0; MAGIC.len()];
    fs::File::open(path).and_then(|mut f| f.read_exact(&mut magic)).is_ok() && magic == MAGIC
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
