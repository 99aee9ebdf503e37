//! Deliberate faults, for the negative controls of the tests: each must be caught.
//!
//! Compiled into debug builds only; a release build has none of it. `REDTAIL_FAULT` names one.

#[cfg(all(debug_assertions, not(test)))]
fn is(name: &str) -> bool {
    static FAULT: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    FAULT.get_or_init(|| std::env::var("REDTAIL_FAULT").unwrap_or_default()) == name
}

#[cfg(not(any(debug_assertions, test)))]
fn is(_: &str) -> bool {
    false
}

#[cfg(test)]
thread_local! {
    static FAULT: std::cell::Cell<&'static str> = const { std::cell::Cell::new("") };
}

#[cfg(test)]
fn is(name: &str) -> bool {
    FAULT.get() == name
}

/// Runs a test's work with one fault, on this thread alone.
#[cfg(test)]
pub(crate) fn with<T>(name: &'static str, work: impl FnOnce() -> T) -> T {
    FAULT.set(name);
    let done = work();
    FAULT.set("");
    done
}

/// `cursor-apart`: the cursor is committed before, and apart from, its rows.
pub(crate) fn cursor_apart() -> bool {
    is("cursor-apart")
}

/// `lying-fsync`: the disk says that bytes are safe, and they are not (the simulated disk of tests only).
#[cfg(test)]
pub(crate) fn lying_fsync() -> bool {
    is("lying-fsync")
}

/// `early-ack`: a window is called durable before fsync.
pub(crate) fn early_ack() -> bool {
    is("early-ack")
}

/// `checksum-off`: neither records nor blocks of the file are compared with their checksums.
pub(crate) fn checksum_off() -> bool {
    is("checksum-off")
}

/// `on-nfs`: every file seems to lie on a network file system.
pub(crate) fn on_nfs() -> bool {
    is("on-nfs")
}

/// `hasty-clock`: what happens every 30 seconds happens every 0.3. No fault, but its test need not wait.
pub(crate) fn hasty_clock() -> bool {
    is("hasty-clock")
}

/// `short-lists`: the shortest windows are read as long ones are. No fault, but random scripts have only short ones.
pub(crate) fn short_lists() -> bool {
    is("short-lists")
}

/// `drop-listed`: the last key of every list is lost.
pub(crate) fn drops_listed() -> bool {
    is("drop-listed")
}

/// `drop-delta`: every seventh delta is lost.
pub(crate) fn drops_delta() -> bool {
    use std::sync::atomic::{AtomicU64, Ordering};
    static DELTAS: AtomicU64 = AtomicU64::new(0);
    is("drop-delta") && DELTAS.fetch_add(1, Ordering::Relaxed) % 7 == 6
}

/// `drop-change`: every seventh change is not recorded.
pub(crate) fn drops_change() -> bool {
    use std::sync::atomic::{AtomicU64, Ordering};
    static CHANGES: AtomicU64 = AtomicU64::new(0);
    is("drop-change") && CHANGES.fetch_add(1, Ordering::Relaxed) % 7 == 6
}

/// `drop-window`: every seventh window that was recorded is not kept.
pub(crate) fn drops_window() -> bool {
    use std::sync::atomic::{AtomicU64, Ordering};
    static WINDOWS: AtomicU64 = AtomicU64::new(0);
    is("drop-window") && WINDOWS.fetch_add(1, Ordering::Relaxed) % 7 == 6
}

/// `stale-index`: what a row was is left in its indexes.
pub(crate) fn stale_index() -> bool {
    is("stale-index")
}

/// `stale-projection`: the record that an application's type was given of a row stays when the row changes.
pub(crate) fn stale_projection() -> bool {
    is("stale-projection")
}

/// `after-only`: keys are entered by AFTER triggers, as one would write it at first; those that might be evicted
/// excepted, which have a fault of their own.
pub(crate) fn after_only() -> bool {
    is("after-only")
}

/// `no-eviction`: the keys that a REPLACE might evict are not entered.
pub(crate) fn no_eviction() -> bool {
    is("no-eviction")
}

/// `same-id`: a repair keeps the table's id.
pub(crate) fn same_id() -> bool {
    is("same-id")
}

/// `no-reset`: a repair writes no reset entry.
pub(crate) fn no_reset() -> bool {
    is("no-reset")
}

/// `trust-op`: a key that was entered as deleted is taken to be gone, without a read.
pub(crate) fn trust_op() -> bool {
    is("trust-op")
}

/// `raw-nocase`: NOCASE keys are compared by their bytes.
pub(crate) fn raw_nocase() -> bool {
    is("raw-nocase")
}

/// `ignore-schema-version`: capture is audited at the start only.
pub(crate) fn ignore_schema_version() -> bool {
    is("ignore-schema-version")
}

/// `split-window`: a window is one entry, and called consistent.
pub(crate) fn split_window() -> bool {
    is("split-window")
}

/// `reconcile-early`: tables are copied before their capture is whole.
pub(crate) fn reconcile_early() -> bool {
    is("reconcile-early")
}

/// `acknowledge-early`: what is visible is acknowledged, whether it is on disk or not.
pub(crate) fn acknowledge_early() -> bool {
    is("acknowledge-early")
}

/// `long-snapshots`: outside WAL mode too a window is as wide as it may be.
pub(crate) fn long_snapshots() -> bool {
    is("long-snapshots")
}

/// `stale-boundary`: where only the newest rows are kept, the boundary never moves.
pub(crate) fn stale_boundary() -> bool {
    is("stale-boundary")
}
