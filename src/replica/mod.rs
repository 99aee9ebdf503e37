//! The replica: rows, cursor and state in one redb file.
//!
//! The only floor that names redb. `open` makes and opens the file, `apply` is the one write, `scan`
//! reads. redb's tables here: META (format, identity, cursor), TABLES (what is known of each table),
//! ROWS (`table number + canonical key` to record) and PIECES (the parts of long values).

mod apply;
mod open;
mod range;
mod scan;

pub use apply::Difference;
pub(crate) use apply::{Applied, Writer};
pub use scan::{Row, Scan, Snapshot, TableInfo};

use crate::config::Config;
use crate::cursor::{Cursor, Nonce};
use crate::error::{Error, Kind, Result};
use crate::record::state::{TableState, decode_cursor, decode_past, decode_table};
use crate::record::unseal;
use crate::window::{Remembered, Start, TableNo};
use redb::{
    Database, ReadOnlyDatabase, ReadTransaction, ReadableDatabase as _, ReadableTable, TableDefinition,
    WriteTransaction,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("redtail.meta");
const TABLES: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("redtail.tables");
const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("redtail.rows");
/// While a table is reconciled by sweep: the names of its rows that the source has.
const SEEN: TableDefinition<'_, &[u8], ()> = TableDefinition::new("redtail.seen");
/// The last entries that were applied, by the last one of each window.
const PAST: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("redtail.past");
const PIECES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("redtail.pieces");

const FORMAT: &str = "format";
const CURSOR: &str = "cursor";
const SOURCE: &str = "source";
const NEXT: &str = "next";
const CONSUMER: &str = "consumer";

/// A replica: open once, read from any number of threads.
#[derive(Clone)]
pub struct Replica {
    db: Db,
    path: PathBuf,
}

/// An open file: to write it, or only to read it.
#[derive(Clone)]
enum Db {
    Writing(Arc<Database>),
    Reading(Arc<ReadOnlyDatabase>),
}

impl Db {
    fn begin_read(&self) -> Result<ReadTransaction> {
        match self {
            Self::Writing(db) => db.begin_read(),
            Self::Reading(db) => db.begin_read(),
        }
        .map_err(failed)
    }

    fn begin_write(&self) -> Result<WriteTransaction> {
        match self {
            Self::Writing(db) => db.begin_write().map_err(failed),
            Self::Reading(_) => Err(Error::usage("replica: it was opened to read only")),
        }
    }
}

impl Replica {
    /// Opens a replica, or makes a new one where there is no file.
    ///
    /// # Errors
    /// `Locked` if another process holds it, `Usage` if the file is no replica, `Damaged` if it is one
    /// that cannot be read.
    pub fn open(path: impl AsRef<Path>, config: &Config) -> Result<Self> {
        let path = path.as_ref();
        let db = open::open(path, config.cache_bytes, true)?;
        Ok(Self { db: Db::Writing(Arc::new(db)), path: path.to_owned() })
    }

    /// Opens a replica that must exist.
    ///
    /// # Errors
    /// As [`Replica::open`], and `Usage` if there is no such file.
    pub fn open_existing(path: impl AsRef<Path>, config: &Config) -> Result<Self> {
        let path = path.as_ref();
        let db = open::open(path, config.cache_bytes, false)?;
        Ok(Self { db: Db::Writing(Arc::new(db)), path: path.to_owned() })
    }

    /// Opens a replica that must exist, only to read it: the file is not changed, unless its last writer
    /// was killed and it has to be recovered first.
    ///
    /// # Errors
    /// As [`Replica::open_existing`].
    pub fn open_to_read(path: impl AsRef<Path>, config: &Config) -> Result<Self> {
        let path = path.as_ref();
        match open::open_to_read(path, config.cache_bytes)? {
            Some(db) => Ok(Self { db: Db::Reading(Arc::new(db)), path: path.to_owned() }),
            None => Self::open_existing(path, config),
        }
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A consistent view of everything that is committed now. A view that is held for long keeps old
    /// pages in the file.
    ///
    /// # Errors
    /// `Damaged` if the state cannot be read.
    pub fn snapshot(&self) -> Result<Snapshot> {
        Snapshot::new(self.db.begin_read()?)
    }

    /// What a stream of windows starts from.
    pub(crate) fn start(&self) -> Result<Start> {
        let read = self.db.begin_read()?;
        Ok(Start {
            cursor: cursor(&read)?,
            tables: tables(&read)?,
            next_no: number(&read, NEXT)?.unwrap_or(1),
            past: past(&read)?,
        })
    }

    /// The source that this replica follows, as it was given; `None` before the first window.
    pub(crate) fn source(&self) -> Result<Option<String>> {
        let read = self.db.begin_read()?;
        Ok(meta(&read, SOURCE)?.map(|b| String::from_utf8_lossy(&b).into_owned()))
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
        let bytes = meta(&read, CONSUMER)?.unwrap_or_default();
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
        txn.open_table(META)
            .map_err(failed)?
            .insert(name, crate::record::seal(bytes).as_slice())
            .map_err(failed)?;
        txn.commit().map_err(failed)
    }

    /// Remembers which source this replica follows.
    pub(crate) fn set_source(&self, source: &str) -> Result<()> {
        self.set_meta(SOURCE, source.as_bytes())
    }
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
    let table = read.open_table(META).map_err(failed)?;
    let found = table.get_owned(CURSOR).map_err(failed)?;
    found.map(|v| decode_cursor(v.value())).transpose()
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

/// redb's many errors, in the classes that matter here.
fn failed(e: impl Into<redb::Error>) -> Error {
    let e = e.into();
    let kind = match &e {
        redb::Error::DatabaseAlreadyOpen => Kind::Locked,
        redb::Error::Corrupted(_)
        | redb::Error::UpgradeRequired(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableDoesNotExist(_) => Kind::Damaged,
        _ => Kind::Replica,
    };
    Error::new(kind, format!("replica: {e}"))
}
