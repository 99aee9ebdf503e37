//! The bare loop: wait for the WAL to change, read the window with its join, commit to redb.
//!
//! Deliberately none of the library: no definitions, no checksums, no audit, no resumption.

use super::lag::{Covered, broken, connect};
use redb::{Database, TableDefinition};
use redtail::{Error, Kind, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init};
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const ROWS: TableDefinition<'_, i64, &[u8]> = TableDefinition::new("rows");
const META: TableDefinition<'_, &str, i64> = TableDefinition::new("meta");
const WINDOW: &str = "SELECT _l.seq, t.id, t.name, t.score, t.at FROM \
    (SELECT max(seq) AS seq, k0 FROM _redtail_changelog WHERE seq > ?1 GROUP BY k0) AS _l CROSS JOIN kv AS t ON t.id = _l.k0";

pub struct Follower {
    /// Follow up to this seq, then end.
    last: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<Result<Vec<Covered>>>,
}

impl Follower {
    pub fn start(db: &Path, replica: &Path, head: u64) -> Result<Self> {
        let last = Arc::new(AtomicU64::new(u64::MAX));
        let redb = Database::create(replica).map_err(|e| Error::new(Kind::Replica, format!("bench: {e}")))?;
        let (db, until) = (db.to_owned(), Arc::clone(&last));
        let thread =
            std::thread::spawn(move || futures::executor::block_on(follow(&db, &redb, head, &until)));
        Ok(Self { last, thread })
    }

    pub fn end(self, last: u64) -> Result<Vec<Covered>> {
        self.last.store(last, Ordering::Relaxed);
        self.thread.join().map_err(|_| Error::new(Kind::Replica, "bench: the bare loop panicked"))?
    }
}

async fn follow(db: &Path, redb: &Database, head: u64, last: &AtomicU64) -> Result<Vec<Covered>> {
    let connection = connect(db).await.map_err(|e| broken(&e))?;
    let window = connection.prepare(WINDOW).await.map_err(|e| broken(&e))?;
    let wal = PathBuf::from(format!("{}-wal", db.display()));
    let inotify = init(CreateFlags::NONBLOCK).map_err(|e| Error::new(Kind::Io, e.to_string()))?;
    let _ = add_watch(&inotify, &wal, WatchFlags::MODIFY);
    let mut covered = Vec::new();
    let mut seq = head;
    while seq < last.load(Ordering::Relaxed) {
        let mut fds = [PollFd::new(&inotify, PollFlags::IN)];
        let _ = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 1_000_000 }));
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = Reader::new(&inotify, &mut buffer);
        while events.next().is_ok() {}
        let read = read(&window, seq).await.map_err(|e| broken(&e))?;
        let Some(through) = read.iter().map(|(seq, ..)| *seq).max() else { continue };
        commit(redb, &read, through).map_err(|e| Error::new(Kind::Replica, format!("bench: {e}")))?;
        seq = through;
        covered.push((seq, Instant::now()));
    }
    Ok(covered)
}

type Read = (u64, i64, Vec<u8>);

async fn read(window: &libsql::Statement, seq: u64) -> std::result::Result<Vec<Read>, libsql::Error> {
    let mut rows = window.query([seq as i64]).await?;
    let mut out = Vec::new();
    while let Some(row) = rows.next().await? {
        let bytes =
            format!("{:?}{:?}{:?}", row.get_value(2)?, row.get_value(3)?, row.get_value(4)?).into_bytes();
        out.push((row.get::<u64>(0)?, row.get::<i64>(1)?, bytes));
    }
    drop(rows);
    window.reset();
    Ok(out)
}

fn commit(redb: &Database, read: &[Read], through: u64) -> std::result::Result<(), redb::Error> {
    let txn = redb.begin_write()?;
    {
        let mut rows = txn.open_table(ROWS)?;
        for (_, id, bytes) in read {
            rows.insert(id, bytes.as_slice())?;
        }
        txn.open_table(META)?.insert("cursor", through as i64)?;
    }
    Ok(txn.commit()?)
}
