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
