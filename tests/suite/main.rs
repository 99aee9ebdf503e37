//! The binary, seen from outside: one module per behaviour.
//!
//! The judge is always the source's own SELECT, read by an independent process (`oracle.py`), never
//! redtail itself. Nothing here sleeps for luck: a test waits for a position or for a process.
//!
//! Settings, all of the environment and all optional:
//! - `REDTAIL_SAMPLE_DB`: a sample database to follow; without it the tests on it are skipped.
//! - `REDTAIL_REQUIRE_SAMPLE=1`, `REDTAIL_REQUIRE_ORACLE=1`: a test that would be skipped fails instead.
//! - `REDTAIL_REQUIRE_SQLD=1`: the same for a test that needs a server.
//! - `REDTAIL_ROUNDS`: how often one writes, waits and reads (300).
//! - `REDTAIL_SEED`: the seed of every random choice; each test that makes one prints it.
#![cfg(all(unix, feature = "cli"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod api;
mod backfill;
mod changes;
mod commands;
mod damaged;
mod documents;
mod endpoint;
mod errors;
mod exact;
mod failing;
mod identity;
mod invisible;
mod kill;
mod large;
mod migrations;
mod neighbour;
mod projections;
mod reads;
mod remote;
mod remove;
mod room;
mod sample;
mod shared;
mod soak;
mod support;
mod terminal;
mod traps;
mod wait;
