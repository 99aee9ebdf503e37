//! The only writes that a replicator makes to its source while it follows: up to where the replica has
//! everything on disk, with a piece of pruning in the same transaction.
//!
//! Must never wait for the application's lock, and never make it wait for long: what there is to write is planned
//! before the write lock is asked for, right after a commit of the application if one comes soon, without patience, and
//! the lock is not asked for again before `ack_interval`. Where nothing may be written, nothing is: such a replica is
//! not known to the source, and `retain_min` decides how long it may be away.

use super::sql::Sql;
use crate::capture::consumers::{self, Claim, Consumer, Plan};
use crate::capture::{has_consumers, migrate_is_installed};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use std::time::{Duration, Instant};

/// Entries that one write prunes at most: what a file deletes in about two milliseconds.
const PRUNED: u64 = 15_000;
/// At a server, where the statement of one request has to wait for its turn.
const PRUNED_AT_SERVER: u64 = 1_500;
/// So long a commit of the application is waited for, a hundredth of `ack_interval` at most.
const LONGEST_WAIT: Duration = Duration::from_millis(20);
/// How far apart the looks for one are.
const LOOK: Duration = Duration::from_micros(100);
/// What was noticed longer after the look before is no news: the application may be at its next commit by now.
const FRESH: Duration = Duration::from_micros(300);
/// Outside WAL mode a write syncs the disk several times with everybody locked out.
const ROLLBACK_FACTOR: u32 = 12;
/// So often within `consumer_timeout` a consumer says that it is alive, though it has nothing to say.
const HEARTBEATS: u32 = 50;

/// One replica's acknowledgements, from one thread.
pub(crate) struct Acknowledging {
    claim: Claim,
    /// The source knew this consumer when it was last looked at.
    known: bool,
    /// When the source was written to last, by this process or the one before.
    last: Option<Instant>,
    /// Pruning stopped before it was through.
    more: bool,
    pub read_only: bool,
}

/// What one write did.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// Up to where the source was told that everything is on disk.
    pub seq: u64,
    pub pruned: u64,
    pub dropped: Vec<Consumer>,
}

impl Acknowledging {
    /// `known` is what the source says of this consumer, if anything.
    pub fn new(claim: Claim, known: Option<&Consumer>) -> Self {
        let last = known.and_then(|c| Instant::now().checked_sub(c.unseen));
        let seq = known.map_or(0, |c| c.seq);
        Self { claim: Claim { seq, ..claim }, known: known.is_some(), last, more: false, read_only: false }
    }

    /// Whether there is something to write, and long enough nothing was written.
    pub fn is_due(&self, durable: u64, config: &Config, wal: bool) -> bool {
        let interval = config.ack_interval * if wal { 1 } else { ROLLBACK_FACTOR };
        let heartbeat = (config.changelog.consumer_timeout / HEARTBEATS).max(interval);
        let since = self.last.map_or(Duration::MAX, |last| last.elapsed());
        let news = durable != self.claim.seq || self.more || !self.known;
        !self.read_only && durable > 0 && since >= if news { interval } else { heartbeat }
    }

    /// Writes, unless somebody else is writing: then `None`, and it is tried again at the next occasion.
    ///
    /// # Errors
    /// `Unavailable` if another process acknowledges as this consumer: the replica must become another.
    pub fn write(&mut self, sql: &mut Sql, durable: u64, config: &Config) -> Result<Option<Written>> {
        let claim = Claim { seq: durable, ..self.claim.clone() };
        let wal = sql.read_journal_mode()?;
        sql.busy_timeout(Duration::ZERO)?;
        let written = self.planned(sql, &claim, config, wal);
        if sql.in_transaction() {
            sql.run("ROLLBACK")?;
        }
        sql.busy_timeout(config.busy_timeout)?;
        match written {
            Ok(written) => {
                (self.claim, self.known, self.last) = (claim, true, Some(Instant::now()));
                Ok(Some(written))
            }
            Err(e) if e.kind() == Kind::Usage => {
                self.read_only = true;
                Ok(None)
            }
            Err(e) if e.kind() == Kind::Unavailable => Ok(None),
            // Between two requests somebody may take capture out: the next window sees that.
            Err(e) if e.kind() == Kind::Source && sql.is_server() => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn planned(&mut self, sql: &mut Sql, claim: &Claim, config: &Config, wal: bool) -> Result<Written> {
        let (plan, schema) = plan(sql, Some(claim), config)?;
        let Some(plan) = plan else {
            return Err(Error::new(
                Kind::Taken,
                "replica: another process follows the source as this consumer (a copy of its file)",
            ));
        };
        if plan.unknown && self.known {
            tracing::warn!("the source had dropped this consumer; it is registered again");
        }
        if wal && !sql.is_server() {
            await_commit(sql, LONGEST_WAIT.min(config.ack_interval / 100))?;
        }
        write(sql, &plan, schema)?;
        self.more = plan.more;
        Ok(Written { seq: claim.seq, pruned: plan.pruned, dropped: plan.dropped })
    }
}

/// Waits, though not for long, until another connection has committed: an application that writes at a pace of its own
/// is least likely to want the lock right after that.
fn await_commit(sql: &mut Sql, longest: Duration) -> Result<()> {
    let mut looked = Instant::now();
    let end = looked + longest;
    let mut version = sql.integer("PRAGMA data_version", &[])?;
    while looked < end {
        std::thread::sleep(LOOK);
        let before = std::mem::replace(&mut looked, Instant::now());
        let now = sql.integer("PRAGMA data_version", &[])?;
        if std::mem::replace(&mut version, now) != now && before.elapsed() <= FRESH {
            break;
        }
    }
    Ok(())
}

/// What there is to write, and the schema version for which that holds.
fn plan(sql: &mut Sql, claim: Option<&Claim>, config: &Config) -> Result<(Option<Plan>, Option<i64>)> {
    let most = if sql.is_server() { PRUNED_AT_SERVER } else { PRUNED };
    sql.run("BEGIN")?;
    let planned = match is_whole(sql) {
        Ok(true) => consumers::plan(sql, claim, &config.changelog, most),
        // Somebody dropped it since the last window: the next one repairs it.
        Ok(false) => Err(gone()),
        Err(e) => Err(e),
    };
    let schema = if sql.is_server() { Ok(None) } else { sql.integer("PRAGMA schema_version", &[]) };
    sql.run("ROLLBACK")?;
    Ok((planned?, schema?))
}

/// Writes a plan; not if the tables may have gone in between.
fn write(sql: &mut Sql, plan: &Plan, schema_version: Option<i64>) -> Result<()> {
    if sql.atomically(schema_version, &plan.statements)? { Ok(()) } else { Err(gone()) }
}

fn gone() -> Error {
    Error::new(Kind::Unavailable, "source: its bookkeeping is gone, or not what it was a moment ago")
}

/// Whether there is a changelog and a list of consumers to write to.
fn is_whole(sql: &mut Sql) -> Result<bool> {
    Ok(migrate_is_installed(sql)? && has_consumers(sql)?)
}

/// One write at the end, if one is due.
pub(super) fn settle(sql: &mut Sql, claim: Claim, durable: u64, config: &Config) -> Result<()> {
    let wal = sql.read_journal_mode()?;
    if !is_whole(sql)? {
        return Ok(());
    }
    let known = consumers::list(sql)?.into_iter().find(|c| c.id == claim.id);
    let mut acknowledging = Acknowledging::new(claim, known.as_ref());
    if acknowledging.is_due(durable, config, wal) {
        acknowledging.write(sql, durable, config)?;
    }
    Ok(())
}

/// Prunes until nothing is left to prune; waits for the write lock as long as `busy_timeout` each time.
pub(super) fn prune_all(sql: &mut Sql, config: &Config) -> Result<u64> {
    if !migrate_is_installed(sql)? {
        return Err(Error::new(Kind::Capture, "source: capture is not installed; there is nothing to prune"));
    }
    sql.read_journal_mode()?;
    let mut pruned = 0;
    loop {
        let (Some(plan), schema) = plan(sql, None, config)? else { return Ok(pruned) };
        let written = write(sql, &plan, schema);
        if sql.in_transaction() {
            sql.run("ROLLBACK")?;
        }
        written?;
        pruned += plan.pruned;
        if !plan.more {
            return Ok(pruned);
        }
    }
}
