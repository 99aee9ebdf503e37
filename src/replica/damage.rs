//! What happens to a damaged file: it is moved aside, never deleted, and says where.
//!
//! Owns the names of files that were moved. Moves only what is certainly a replica of redtail's own: a
//! database that an application shares with redtail holds more than can be made again.

use super::open::folder_of;
use crate::error::{Error, Kind, Result};
use crate::source::sql::plain;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// What stands between a replica's name and the time at which it was moved aside.
const MARK: &str = ".damaged-";
/// So many in a day are no accident: the disk, the memory or redtail itself is at fault.
const PER_DAY: usize = 3;
const DAY: u64 = 24 * 60 * 60;
/// In a database that an application shares with redtail.
pub(super) const SHARED_MARK: &str = "redtail.shared";
/// What redtail writes into the first page of a file that is its own alone, behind redb's header of 320 bytes:
/// no length that is left of a file hides whose it was.
pub(super) const OWN_MARK: &[u8] = b"redtail replica";
pub(super) const MARK_AT: usize = 1024;
const PAGE: u64 = 4096;
/// Names of tables that only a replica has, as they stand in its pages.
const OURS: [&[u8]; 6] = [
    b"redtail.meta",
    b"redtail.tables",
    b"redtail.rows",
    b"redtail.past",
    b"redtail.seen",
    b"redtail.pieces",
];

/// A replica's file that was found damaged and moved aside.
///
/// ```no_run
/// # fn read(replica: &redtail::Replica) -> redtail::Result<()> {
/// for moved in replica.moved_aside() {
///     println!("{} was damaged", moved.path.display());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MovedAside {
    /// Where it is now.
    pub path: PathBuf,
    /// When it was moved, in seconds since 1970.
    pub unix_time: u64,
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// The files of this replica that were moved aside and are still there, oldest first.
pub(super) fn moved_aside(replica: &Path) -> Vec<MovedAside> {
    let Some(name) = replica.file_name() else { return Vec::new() };
    let start = format!("{}{MARK}", name.to_string_lossy());
    let entries = fs::read_dir(folder_of(replica)).into_iter().flatten().flatten();
    let mut found: Vec<MovedAside> = entries
        .filter_map(|entry| {
            let unix_time = entry.file_name().to_string_lossy().strip_prefix(&start)?.parse().ok()?;
            Some(MovedAside { path: entry.path(), unix_time })
        })
        .collect();
    found.sort_by_key(|m| m.unix_time);
    found
}

/// Moves a damaged file aside, durably. Nobody may have it open.
pub(super) fn move_aside(replica: &Path, why: &Error) -> Result<MovedAside> {
    let shown = replica.display();
    let io = |e: io::Error| {
        Error::new(Kind::Replica, format!("{why}; and it cannot be moved aside: {}", plain(&e)))
    };
    if !is_ours(replica).map_err(io)? {
        let what = format!("{why}; left where it is, because it is not redtail's alone");
        return Err(Error::new(Kind::Damaged, what));
    }
    let before = moved_aside(replica);
    let now = now();
    if before.iter().filter(|m| m.unix_time + DAY > now).count() >= PER_DAY {
        let what = format!(
            "{why}; damaged {PER_DAY} times within a day, so it is not made again: check disk \
             and memory, then take away {shown}{MARK}*"
        );
        return Err(Error::new(Kind::Replica, what));
    }
    let newest = before.last().map_or(0, |m| m.unix_time);
    let unix_time = now.max(newest + 1);
    let mut to = replica.as_os_str().to_owned();
    to.push(format!("{MARK}{unix_time}"));
    let to = PathBuf::from(to);
    fs::rename(replica, &to).map_err(io)?;
    fs::File::open(folder_of(replica)).and_then(|f| f.sync_all()).map_err(io)?;
    tracing::warn!("{why}; moved to {}, and made again from the source", to.display());
    Ok(MovedAside { path: to, unix_time })
}

/// Whether a file that cannot be opened was a replica of its own: too short to be anything, with the mark that
/// each has, or with our names in it and without the mark of a shared database.
fn is_ours(path: &Path) -> io::Result<bool> {
    let mut file = fs::File::open(path)?;
    let mut first = Vec::new();
    (&file).take(PAGE).read_to_end(&mut first)?;
    if (first.len() as u64) < PAGE || first.get(MARK_AT..).is_some_and(|rest| rest.starts_with(OWN_MARK)) {
        return Ok(true);
    }
    io::Seek::rewind(&mut file)?;
    let overlap = 32;
    let mut buffer = vec![0; 1 << 20];
    let (mut kept, mut ours) = (0, false);
    loop {
        let read = file.read(buffer.get_mut(kept..).unwrap_or_default())?;
        if read == 0 {
            return Ok(ours);
        }
        let seen = buffer.get(..kept + read).unwrap_or_default();
        if holds(seen, SHARED_MARK.as_bytes()) {
            return Ok(false);
        }
        ours = ours || OURS.iter().any(|name| holds(seen, name));
        let end = seen.len();
        let from = end.saturating_sub(overlap);
        buffer.copy_within(from..end, 0);
        kept = end - from;
    }
}

fn holds(bytes: &[u8], name: &[u8]) -> bool {
    bytes.windows(8).enumerate().any(|(at, start)| {
        start == b"redtail." && bytes.get(at..at + name.len()).is_some_and(|found| found == name)
    })
}
