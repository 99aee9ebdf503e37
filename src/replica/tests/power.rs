//! Power losses at random moments, the opening after one included.

use super::machine::Machine;
use super::model::{INDEXED, INDEXES, Rows, World, name, replayed};
use super::projected::projectors;
use super::{Chance, note, seed};
use crate::config::{Config, Durability, KeepChanges, TableConfig};
use crate::cursor::Position;
use crate::error::{Error, Kind, Result};
use crate::fault;
use crate::replica::disk::Disk;
use crate::replica::guard::guarded;
use crate::replica::health::Health;
use crate::replica::open::{self, Head};
use crate::replica::slot::Held;
use crate::replica::{Replica, Writer};
use crate::window::Piece;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Crashes of one run: 20,000 in all by default.
fn crashes() -> u64 {
    let given = std::env::var("REDTAIL_CRASHES").ok();
    given.map_or(20_000, |n| n.parse().expect("REDTAIL_CRASHES is a number"))
}

/// Small, so that pages are read from the disk and dirty ones written before the commit.
const CACHE: usize = 1 << 16;

pub(super) fn config() -> Config {
    Config { cache_bytes: CACHE, ..Config::default() }
}

/// Opens the replica on this machine as the product does.
pub(super) fn open(machine: &Machine, health: &Arc<Health>) -> Result<Replica> {
    let path = Path::new("simulated");
    let disk = Disk::new(machine.clone(), Arc::clone(health), "simulated".to_owned());
    let head = Head::parse(&machine.head(), path)?;
    let opened = open::database(disk, path, CACHE, head, open::Depth::Whole);
    let db = opened.map_err(|e| health.explain(e))?;
    Replica::holding(path, &config(), Held::Writing(db), Arc::clone(health))
}

/// A machine with a new replica on its disk.
pub(super) fn made() -> Machine {
    let machine = Machine::default();
    let disk = Disk::new(machine.clone(), Arc::new(Health::new()), "simulated".to_owned()).marked();
    drop(open::create(disk, CACHE).unwrap());
    machine
}

pub(super) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

/// The same, with changes kept and rows indexed: more than one life brings, so that old ones are pruned too.
fn kept_and_indexed() -> Config {
    let keep_changes = Some(KeepChanges { rows: 600, ..KeepChanges::default() });
    let index = INDEXES.map(|columns| columns.iter().map(|c| (*c).to_owned()).collect()).to_vec();
    let table = |no| (name(no), TableConfig { index: index.clone(), ..TableConfig::default() });
    Config { keep_changes, tables: (1..=INDEXED).map(table).collect(), ..config() }
}

/// Applies windows with the product's writer; what it published as durable and as visible, and how it ended.
pub(super) fn apply(
    runtime: &tokio::runtime::Runtime,
    replica: &Replica,
    durability: Durability,
    windows: Vec<Piece>,
    room: usize,
) -> (u64, u64, Result<()>) {
    apply_as(runtime, replica, (&Config { durability, ..config() }, 0), windows, room)
}

/// The same with all that a configuration keeps beside the rows, and projections in a version.
fn apply_as(
    runtime: &tokio::runtime::Runtime,
    replica: &Replica,
    (config, version): (&Config, u32),
    windows: Vec<Piece>,
    room: usize,
) -> (u64, u64, Result<()>) {
    let (mut durable, mut visible) = (0, 0);
    let ended = runtime.block_on(async {
        let writer = Writer::new(replica, config.durability)?.recording(config).indexed(config)?;
        let mut writer = writer.projecting(&projectors(version))?;
        let (send, pieces) = mpsc::channel(room);
        let feed = async move {
            for piece in windows {
                if send.send(Ok(piece)).await.is_err() {
                    break;
                }
            }
        };
        let publish = |applied: crate::replica::Applied| {
            visible = visible.max(applied.end.cursor.seq);
            if applied.durable {
                durable = durable.max(applied.end.cursor.seq);
            }
        };
        tokio::join!(writer.run(pieces.into(), publish), feed).0
    });
    (durable, visible, ended)
}

/// What a run found wrong, and after how many crashes.
#[derive(Debug)]
struct Caught {
    crashes: u64,
    what: String,
}

struct Run {
    machine: Machine,
    chance: Chance,
    runtime: tokio::runtime::Runtime,
    config: Config,
    /// Every state that the disk may have, oldest first.
    worlds: Vec<World>,
    /// Where what changed was followed to from the start, if changes are kept.
    followed: Option<(Option<Position>, Rows)>,
    acknowledged: u64,
    crashes: u64,
    /// Of the projections that are kept.
    version: u32,
}

impl Run {
    /// `all`: this disk has all that can be kept beside the rows.
    fn new(seed: u64, all: bool) -> Self {
        let (machine, chance) = (made(), Chance(seed));
        let worlds = vec![World::new()];
        let config = if all { kept_and_indexed() } else { config() };
        let followed = all.then(|| (None, Rows::new()));
        Self {
            machine,
            chance,
            runtime: runtime(),
            config,
            worlds,
            followed,
            acknowledged: 0,
            crashes: 0,
            version: 1,
        }
    }

    fn caught(&self, what: impl Into<String>) -> Caught {
        Caught { crashes: self.crashes, what: what.into() }
    }

    /// The power goes and comes back, or the process is killed.
    fn crash(&mut self) {
        self.crashes += 1;
        if self.chance.one_in(5) { self.machine.kill() } else { self.machine.lose_power(&mut self.chance) }
    }

    /// Opens the replica, dying meanwhile now and then.
    fn recover(&mut self) -> std::result::Result<Replica, Caught> {
        loop {
            if self.chance.one_in(4) {
                self.machine.dies_in(self.chance.below(60));
            }
            let opened = open(&self.machine, &Arc::new(Health::new()));
            if self.machine.is_dead() {
                let _ = guarded(|| {
                    drop(opened);
                    Ok(())
                });
                self.crash();
                continue;
            }
            self.machine.never_dies();
            return opened.map_err(|e| self.caught(format!("does not open: {e:?}")));
        }
    }

    /// What became of the rows since the last life, as it was kept, leads from what they were then to what they are.
    fn follow(&mut self, replica: &Replica, world: &World) -> std::result::Result<(), String> {
        world.indexes_differ(replica, &self.config)?;
        let Some((from, rows)) = &mut self.followed else { return Ok(()) };
        replayed(replica, *from, rows, &self.worlds)?;
        *from = replica.start().map_err(|e| format!("{e:?}"))?.cursor.map(|c| c.position());
        if *rows == world.rows() {
            Ok(())
        } else {
            Err(format!("changes kept up to {} are not all", world.seq))
        }
    }

    /// One life: open, compare, apply windows until the power goes or all is applied.
    fn live(&mut self) -> std::result::Result<(), Caught> {
        let replica = self.recover()?;
        let start = replica.start().map_err(|e| self.caught(format!("{e:?}")))?;
        let seq = start.cursor.map_or(0, |c| c.seq);
        let attempted = self.worlds.last().map_or(0, |w| w.seq);
        if seq < self.acknowledged || seq > attempted {
            let (acknowledged, what) = (self.acknowledged, "is not between acknowledged");
            return Err(self.caught(format!("cursor {seq} {what} {acknowledged} and attempted {attempted}")));
        }
        let Some(world) = self.worlds.iter().find(|w| w.seq == seq).cloned() else {
            return Err(self.caught(format!("cursor {seq} is no window's end")));
        };
        world.differs(&replica).map_err(|what| self.caught(what))?;
        self.follow(&replica, &world).map_err(|what| self.caught(what))?;
        // What a reader sees after the opening was committed by it.
        self.acknowledged = seq;
        let mut now = world.clone();
        self.worlds = vec![world];
        let mut pieces = Vec::new();
        for _ in 0..=self.chance.below(6) {
            pieces.extend(now.window(&mut self.chance));
            self.worlds.push(now.clone());
        }
        if !self.chance.one_in(6) {
            self.machine.dies_in(self.chance.below(120));
        }
        let durability = match self.chance.below(3) {
            0 => Durability::Interval(Duration::from_secs(3600)),
            1 => Durability::Interval(Duration::ZERO),
            _ => Durability::EveryWindow,
        };
        let room = 1 + self.chance.index(4);
        self.config.durability = durability;
        // Mostly the one before, so that records live for longer than a window.
        if self.chance.one_in(8) {
            self.version = u32::try_from(self.chance.below(3)).unwrap();
        }
        let how = (&self.config, self.version);
        let (durable, _, ended) = apply_as(&self.runtime, &replica, how, pieces, room);
        self.acknowledged = self.acknowledged.max(durable);
        self.machine.never_dies();
        match ended {
            Err(e) if !self.machine.is_dead() || e.kind() == Kind::Damaged => {
                return Err(self.caught(format!("{e:?}, and the power is on: {}", !self.machine.is_dead())));
            }
            Ok(()) if !self.machine.is_dead() => {
                let lives = now.differs(&replica).and_then(|()| now.indexes_differ(&replica, &self.config));
                let lives = lives.and_then(|()| now.is_projected(&replica, self.version));
                lives.map_err(|what| self.caught(format!("while it lives: {what}")))?;
            }
            _ => {}
        }
        if self.chance.one_in(8) && !self.machine.is_dead() {
            // Dies while it is closed, or is closed in peace.
            self.machine.dies_in(self.chance.below(40));
        }
        drop(replica);
        self.crash();
        Ok(())
    }
}

/// How long one disk lives: what it remembers grows with every window, and with it the time for a crash.
const ONE_DISK: u64 = 400;

fn run(seed: u64, crashes: u64) -> std::result::Result<(), Caught> {
    let mut chance = Chance(seed);
    let mut before = 0;
    while before < crashes {
        let mut run = Run::new(chance.draw(), (before / ONE_DISK).is_multiple_of(2));
        while run.crashes < ONE_DISK.min(crashes - before) {
            run.live().map_err(|mut caught| {
                caught.crashes += before;
                caught.what = format!("{}; REDTAIL_SEED={seed}", caught.what);
                caught
            })?;
        }
        before += run.crashes;
        if (before / ONE_DISK).is_multiple_of(100) {
            note(&format!("{before} of {crashes} crashes so far"));
        }
    }
    Ok(())
}

#[test]
fn no_power_loss_takes_what_was_acknowledged_or_leaves_half_a_window() {
    let seed = seed("no_power_loss_takes_what_was_acknowledged_or_leaves_half_a_window");
    let half = crashes() / 2;
    let other = std::thread::spawn(move || run(seed ^ 0xFFFF_FFFF, half));
    let ended = run(seed, half);
    let other = other.join().unwrap();
    assert!(ended.is_ok() && other.is_ok(), "{ended:?} {other:?}");
    note(&format!("{} crashes survived", 2 * half));
}

/// Runs until the fault shows; a fault that does not show within these crashes proves the test above empty.
fn is_caught(fault: &'static str, within: u64) {
    let seed = seed(fault);
    let caught = fault::with(fault, || run(seed, within));
    let Err(Caught { crashes, what }) = caught else { panic!("{fault}: not caught after {within} crashes") };
    note(&format!("{fault}: caught after {crashes} crashes: {what}"));
}

#[test]
fn an_fsync_that_lies_is_caught() {
    is_caught("lying-fsync", 2_000);
}

#[test]
fn a_cursor_in_a_transaction_of_its_own_is_caught() {
    is_caught("cursor-apart", 2_000);
}

#[test]
fn an_acknowledgement_before_fsync_is_caught() {
    is_caught("early-ack", 2_000);
}

#[test]
fn a_dropped_delta_is_caught() {
    is_caught("drop-delta", 2_000);
}

#[test]
fn a_projection_that_stays_behind_its_row_is_caught() {
    is_caught("stale-projection", 2_000);
}

#[test]
fn a_recorded_window_that_is_not_kept_is_caught() {
    is_caught("drop-window", 2_000);
}

#[test]
fn a_recorded_change_that_is_not_kept_is_caught() {
    is_caught("drop-change", 2_000);
}

#[test]
fn an_index_that_keeps_what_a_row_was_is_caught() {
    is_caught("stale-index", 2_000);
}

#[test]
fn an_error_of_the_stream_is_not_taken_for_the_replicas() {
    let machine = made();
    let replica = open(&machine, &Arc::new(Health::new())).unwrap();
    let ended = runtime().block_on(async {
        let mut writer = Writer::new(&replica, Durability::EveryWindow).unwrap();
        let (send, pieces) = mpsc::channel(1);
        send.send(Err(Error::new(Kind::Damaged, "source: malformed"))).await.unwrap();
        drop(send);
        writer.run(pieces.into(), |_| {}).await
    });
    assert_eq!(ended.unwrap_err().kind(), Kind::Damaged);
    assert_eq!(*replica.condition().borrow(), crate::replica::Condition::Good);
}
