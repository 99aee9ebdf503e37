//! What is installed in the source, and whether it is still there.
//!
//! `migrate` makes the bookkeeping tables, `describe` reads the application's tables, `triggers` and
//! `evict` generate what captures them, `audit` compares that with what stands in `sqlite_schema`, and
//! `install` puts it there or takes it out. This is the only floor that writes to the source, and it
//! must never change an object that is not its own.

pub(crate) mod audit;
pub(crate) mod describe;
mod evict;
pub(crate) mod install;
mod migrate;
mod sqltext;
mod triggers;

pub(crate) use migrate::{is_installed as migrate_is_installed, log_id};

/// The prefix of every object of ours.
pub(crate) const PREFIX: &str = "_redtail_";
/// The view that stands behind our newest trigger: a trigger of ours behind it was made by someone else.
const END: &str = "_redtail_end";
