//! The edge of redb: a panic on a damaged page becomes an error, and errors get their class.
//!
//! redb checks what it reads with assertions where a file it wrote cannot break them; on a damaged file
//! they are the first to notice. Every call into redb that can meet a page goes through here.

use crate::error::{Error, Kind, Result};
use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs what calls redb; a panic in it is a damaged file.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // What `work` borrowed is given up after a panic: the file is closed and opened again, or moved aside.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(panicked(panic.as_ref())))
}

/// The error for a panic that came out of redb.
pub(super) fn panicked(panic: &(dyn Any + Send)) -> Error {
    let said = panic.downcast_ref::<String>().map(String::as_str);
    let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
    let line = said.lines().next().unwrap_or_default();
    Error::new(Kind::Damaged, format!("replica: its pages cannot be read ({line})"))
}

/// redb's many errors, in the classes that matter here.
pub(super) fn failed(e: impl Into<redb::Error>) -> Error {
    let e = e.into();
    let kind = match &e {
        redb::Error::DatabaseAlreadyOpen => Kind::Locked,
        redb::Error::Corrupted(_)
        | redb::Error::UpgradeRequired(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TypeDefinitionChanged { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TableDoesNotExist(_) => Kind::Damaged,
        redb::Error::Io(e) if is_damage(e) => Kind::Damaged,
        _ => Kind::Replica,
    };
    Error::new(kind, format!("replica: {e}").replace('\n', " "))
}

/// Whether reading failed because of what the file holds, or no longer holds.
pub(super) fn is_damage(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

/// Whether writing failed for want of room, which may come back.
pub(super) fn is_no_room(e: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(e.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}
