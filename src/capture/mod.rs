//! What is installed in the source, and whether it is still there.
//!
//! `migrate` makes the bookkeeping tables, `describe` reads the application's tables, `triggers` and
//! `evict` generate what captures them, `audit` compares that with what stands in `sqlite_schema`, and
//! `install` puts it there or takes it out. This is the only floor that writes to the source, and it
//! must never change an object that is not its own.

pub(crate) mod audit;
pub(crate) mod bound;
pub(crate) mod consumers;
pub(crate) mod describe;
mod evict;
pub(crate) mod install;
pub(crate) mod known;
mod migrate;
mod sqltext;
mod triggers;

pub(crate) use migrate::{HEAD, has_consumers, is_installed as migrate_is_installed, log_id};
pub(crate) use sqltext::statements;

use crate::config::{Config, Wants};
use crate::error::Result;
use crate::source::sql::Sql;

/// Which tables must be captured, and what becomes of the capture of others.
pub(crate) struct Demand {
    wants: Vec<Wants>,
    /// Tables that nobody wants are released; else they are left as they are.
    release: bool,
}

impl Demand {
    /// What one replica wants. The capture of other tables may be somebody else's.
    pub fn of_one(config: &Config) -> Self {
        Self { wants: vec![config.wants.clone()], release: false }
    }

    /// What this configuration and all consumers want together; nothing else stays captured.
    pub fn of_all(sql: &mut Sql, config: &Config) -> Result<Self> {
        let theirs = consumers::list(sql)?.into_iter().map(|c| c.wants.unwrap_or_default());
        Ok(Self { wants: theirs.chain([config.wants.clone()]).collect(), release: true })
    }

    fn table(&self, name: &str) -> bool {
        self.wants.iter().any(|w| w.table(name))
    }
}

/// The prefix of every object of ours.
pub(crate) const PREFIX: &str = "_redtail_";
/// The view that stands behind our newest trigger: a trigger of ours behind it was made by someone else.
const END: &str = "_redtail_end";
