//! The only writes that a replicator makes to its source while it follows: up to where the replica has
//! everything on disk, with a piece of pruning in the same transaction.
//!
//! Must never wait for the application's lock, and never make it wait for long: what there is to write is planned
//! before the write lock is asked for, right after a commit of the application if one comes soon, without patience,
//! and the lock is not asked for again before `ack_interval`. How much is pruned at once follows from how long the
//! former writes held the lock, and from the time that the application leaves between two commits. Where nothing may
//! be written, nothing is: such a replica is not known to the source, and `retain_min` decides how long it may be away.

use super::sql::Sql;
use crate::capture::consumers::{self, Claim, Consumer, Piece, Plan};
use crate::capture::{has_consumers, migrate_is_installed};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use std::time::{Duration, Instant};

/// Entries that one write prunes at most, in WAL mode.
const PRUNED: u64 = 15_000;
/// Outside WAL mode, where it is the disk that everybody waits for.
const PRUNED_SYNCING: u64 = 5_000;
/// At a server, where the statement of one request has to wait for its turn.
const PRUNED_AT_SERVER: u64 = 1_500;
/// And at least, so that there is something to measure.
const LEAST_PRUNED: u64 = 100;
/// The write lock is held so long where nobody is seen to write, and at most; the contract says less than 5 ms.
const LONGEST_HOLD: Duration = Duration::from_millis(3);
/// Of the time between two commits of the application, the lock is held for such a part.
const PART_OF_GAP: u32 = 2;
/// How many entries a millisecond of the lock prunes, before anything was measured: a slow machine's.
const FIRST_SPEED: f64 = 700.0;
/// A commit of the application is waited for so long, and such a part of `ack_interval` at most.
const LONGEST_WAIT: Duration = Duration::from_millis(20);
const WAITING: u32 = 20;
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
    speed: Speed,
    pub read_only: bool,
}

/// How much was pruned for each millisecond that the write lock was held.
#[derive(Clone, Copy, Debug)]
struct Speed(f64);

impl Speed {
    /// How many entries to prune, in WAL mode, where the application leaves `gap` between two commits.
    ///
    /// What a write takes whatever it prunes is part of what was measured, so this ends where the lock is held as long
    /// as intended.
    fn piece(self, gap: Option<Duration>) -> Piece {
        let in_time = |hold: Duration| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let entries = (hold.as_secs_f64() * 1e3 * self.0) as u64;
            entries.clamp(LEAST_PRUNED, PRUNED)
        };
        let most = in_time(LONGEST_HOLD);
        Piece { fit: gap.map_or(most, |gap| in_time(gap / PART_OF_GAP).min(most)), most }
    }

    fn measured(&mut self, pruned: u64, held: Duration) {
        if pruned >= LEAST_PRUNED {
            #[expect(clippy::cast_precision_loss)]
            let speed = pruned as f64 / (held.as_secs_f64() * 1e3);
            self.0 = speed;
        }
    }
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
        Self {
            claim: Claim { seq, ..claim },
            known: known.is_some(),
            last,
            more: false,
            speed: Speed(FIRST_SPEED),
            read_only: false,
        }
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
        let end = Instant::now() + LONGEST_WAIT.min(config.ack_interval / WAITING);
        let beside = wal && !sql.is_server();
        let gap = if beside { gap(sql, end)? } else { None };
        let piece = piece(sql, wal, self.speed, gap);
        let (plan, schema) = plan(sql, Some(claim), config, piece)?;
        let Some(plan) = plan else {
            return Err(Error::new(
                Kind::Taken,
                "replica: another process follows the source as this consumer (a copy of its file)",
            ));
        };
        if plan.unknown && self.known {
            tracing::warn!("the source had dropped this consumer; it is registered again");
        }
        if beside {
            await_commit(sql, end)?;
        }
        let held = write(sql, &plan, schema)?;
        self.speed.measured(plan.pruned, held);
        self.more = plan.more;
        Ok(Written { seq: claim.seq, pruned: plan.pruned, dropped: plan.dropped })
    }
}

/// Waits until another connection has committed, and until `end` at the longest; when that was. An application that
/// writes at a pace of its own is least likely to want the lock right after that.
fn await_commit(sql: &mut Sql, end: Instant) -> Result<Option<Instant>> {
    let mut looked = Instant::now();
    let mut version = sql.integer("PRAGMA data_version", &[])?;
    while looked < end {
        std::thread::sleep(LOOK);
        let before = std::mem::replace(&mut looked, Instant::now());
        let now = sql.integer("PRAGMA data_version", &[])?;
        if std::mem::replace(&mut version, now) != now && before.elapsed() <= FRESH {
            return Ok(Some(looked));
        }
    }
    Ok(None)
}

/// The time between two commits of others, or how long none came after one; `None` if none came at all.
///
/// Looks no longer than the answer matters: what commits meanwhile is read only afterwards.
fn gap(sql: &mut Sql, end: Instant) -> Result<Option<Duration>> {
    let Some(first) = await_commit(sql, end)? else { return Ok(None) };
    let next = await_commit(sql, end.min(first + LONGEST_HOLD * PART_OF_GAP))?;
    Ok(Some(next.unwrap_or_else(Instant::now) - first))
}

/// How much to prune at once.
fn piece(sql: &Sql, wal: bool, speed: Speed, gap: Option<Duration>) -> Piece {
    match (sql.is_server(), wal) {
        (true, _) => Piece { fit: PRUNED_AT_SERVER, most: PRUNED_AT_SERVER },
        (false, true) => speed.piece(gap),
        (false, false) => Piece { fit: PRUNED_SYNCING, most: PRUNED_SYNCING },
    }
}

/// What there is to write, and the schema version for which that holds.
fn plan(
    sql: &mut Sql,
    claim: Option<&Claim>,
    config: &Config,
    piece: Piece,
) -> Result<(Option<Plan>, Option<i64>)> {
    sql.run("BEGIN")?;
    let planned = match is_whole(sql) {
        Ok(true) => consumers::plan(sql, claim, &config.changelog, piece),
        // Somebody dropped it since the last window: the next one repairs it.
        Ok(false) => Err(gone()),
        Err(e) => Err(e),
    };
    let schema = if sql.is_server() { Ok(None) } else { sql.integer("PRAGMA schema_version", &[]) };
    sql.run("ROLLBACK")?;
    Ok((planned?, schema?))
}

/// Writes a plan, and says how long that took; not if the tables may have gone in between.
fn write(sql: &mut Sql, plan: &Plan, schema_version: Option<i64>) -> Result<Duration> {
    let begun = Instant::now();
    if sql.atomically(schema_version, &plan.statements)? { Ok(begun.elapsed()) } else { Err(gone()) }
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
    let wal = sql.read_journal_mode()?;
    let (mut pruned, mut speed) = (0, Speed(FIRST_SPEED));
    loop {
        let piece = piece(sql, wal, speed, None);
        let (Some(plan), schema) = plan(sql, None, config, piece)? else { return Ok(pruned) };
        let written = write(sql, &plan, schema);
        if sql.in_transaction() {
            sql.run("ROLLBACK")?;
        }
        // With the time that the lock was waited for, which only makes the next piece smaller.
        speed.measured(plan.pruned, written?);
        pruned += plan.pruned;
        if !plan.more {
            return Ok(pruned);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAPS: [u64; 7] = [10, 200, 950, 2_000, 5_000, 20_000, 1_000_000];

    #[test]
    fn a_piece_is_never_longer_than_half_the_gap_nor_than_the_longest_hold() {
        for speed in [0.0, 30.0, 700.0, 2_500.0, 1e6, f64::INFINITY] {
            let alone = Speed(speed).piece(None);
            assert_eq!(alone.fit, alone.most);
            for gap in GAPS.map(Duration::from_micros) {
                let piece = Speed(speed).piece(Some(gap));
                assert_eq!(piece.most, alone.most);
                assert!((LEAST_PRUNED..=PRUNED).contains(&piece.fit), "{speed} {gap:?} {piece:?}");
                let hold = (gap / 2).min(Duration::from_millis(3)).as_secs_f64() * 1e3;
                #[expect(clippy::cast_precision_loss)]
                let fits = piece.fit as f64 <= (hold * speed).max(LEAST_PRUNED as f64);
                assert!(fits, "{speed} {gap:?} {piece:?}");
            }
        }
        let fit = GAPS.map(|gap| Speed(2_000.0).piece(Some(Duration::from_micros(gap))).fit);
        assert_eq!(fit, [100, 200, 950, 2_000, 5_000, 6_000, 6_000]);
    }

    /// A machine that takes 150 µs whatever it writes, and then a microsecond for each entry.
    #[test]
    fn the_lock_ends_up_held_for_half_the_gap() {
        let held = |entries: u64| Duration::from_micros(150 + entries);
        for gap in [2_000, 4_000, 6_000].map(Duration::from_micros) {
            let mut speed = Speed(FIRST_SPEED);
            for _ in 0..30 {
                let piece = speed.piece(Some(gap));
                speed.measured(piece.fit, held(piece.fit));
                assert!(held(piece.fit) <= gap, "{gap:?} {piece:?}");
            }
            let half = gap / 2;
            let at_last = held(speed.piece(Some(gap)).fit);
            assert!(at_last <= half && at_last >= half.mul_f64(0.95), "{gap:?}: {at_last:?}");
        }
    }

    /// What a write takes that prunes next to nothing says nothing of how fast it prunes.
    #[test]
    fn a_write_without_pruning_is_no_measurement() {
        let mut speed = Speed(1_234.0);
        speed.measured(LEAST_PRUNED - 1, Duration::from_secs(1));
        assert_eq!(speed.piece(None).fit, 3_702);
        speed.measured(LEAST_PRUNED, Duration::from_secs(1));
        assert_eq!(speed.piece(None).fit, LEAST_PRUNED);
    }
}
