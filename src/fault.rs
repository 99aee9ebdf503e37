//! Deliberate faults, for the negative controls of the tests: each must be caught.
//!
//! Compiled into debug builds only; a release build has none of it. `REDTAIL_FAULT` names one.

#[cfg(debug_assertions)]
fn is(name: &str) -> bool {
    static FAULT: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    FAULT.get_or_init(|| std::env::var("REDTAIL_FAULT").unwrap_or_default()) == name
}

#[cfg(not(debug_assertions))]
fn is(_: &str) -> bool {
    false
}

/// `cursor-apart`: the cursor is committed before, and apart from, its rows.
pub(crate) fn cursor_apart() -> bool {
    is("cursor-apart")
}

/// `drop-delta`: every seventh delta is lost.
pub(crate) fn drops_delta() -> bool {
    use std::sync::atomic::{AtomicU64, Ordering};
    static DELTAS: AtomicU64 = AtomicU64::new(0);
    is("drop-delta") && DELTAS.fetch_add(1, Ordering::Relaxed) % 7 == 6
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

/// `stale-boundary`: where only the newest rows are kept, the boundary never moves.
pub(crate) fn stale_boundary() -> bool {
    is("stale-boundary")
}
