//! Follows a libSQL database into an embedded [redb] file: exactly, and resumed after any crash.
//!
//! Triggers in the source note which key changed; a stream consumer tails these entries by sequence
//! number, reads the changed rows in one snapshot, and applies them to redb as rkyv records, with the
//! cursor in the same transaction.
//!
//! ```no_run
//! use redtail::{Config, Replica, Replicator, Source};
//!
//! # async fn embed() -> redtail::Result<()> {
//! let config = Config::default();
//! let source = Source::open("app.db", &config)?;
//! let replica = Replica::open("cache.redb", &config)?;
//! let replicator = Replicator::new(source, replica.clone(), config);
//! replicator.sync_once().await?;
//! let row = replica.snapshot()?.get("episodes", "e1")?;
//! # Ok(())
//! # }
//! ```
//!
//! To read the code, follow one change: [`replicator`](Replicator) → `capture/triggers` →
//! `source/local` → `record` → `replica/apply`.
//!
//! [redb]: https://github.com/cberner/redb

#![forbid(unsafe_code)]

mod capture;
mod config;
mod cursor;
mod error;
mod fault;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzz;
mod key;
mod lookup;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod parts;
mod progress;
mod record;
mod replica;
mod replicator;
mod schema;
mod source;
mod utf16;
mod value;
mod window;
mod work;

pub use capture::consumers::Consumer;
pub use config::{
    Changelog, Config, Durability, KeepChanges, KeepLatest, Occasions, OnDivergence, TableConfig, Wants,
};
pub use cursor::{LogId, Nonce, Position};
pub use error::{Error, Kind, Result};
pub use lookup::{Key, KeyRange};
pub use progress::{Progress, State};
pub use record::projected::Archivable;
pub use replica::{
    Change, ColumnRef, Compacted, Difference, Index, KeptChanges, MovedAside, Op, Orphan, Orphans, Project,
    Projected, ProjectedScan, Projection, Replica, Row, Scan, Snapshot, Space, TableInfo, Window,
};
pub use replicator::{Changes, Rebuilt, Replicator, Verified, Wait};
pub use schema::{Column, Table, is_numeric};
pub use source::{Installed, Look, Reference, Skipped, Source};
#[cfg(feature = "remote")]
pub use source::{Token, Traffic};
pub use value::{Value, ValueRef};

/// The programs in the documents are compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
pub use work::{Retries, Work};
