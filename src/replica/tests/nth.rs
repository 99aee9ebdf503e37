//! The Nth storage operation fails, for every N of a fixed workload: refused, without room, or the last before a kill.

use super::machine::{Fails, Machine};
use super::model::World;
use super::power::{apply, made, open, runtime};
use super::{Chance, note};
use crate::config::Durability;
use crate::error::{Error, Kind};
use crate::replica::Replica;
use crate::replica::guard::guarded;
use crate::replica::health::{Condition, Health};
use std::io::ErrorKind;
use std::sync::Arc;

/// Windows of the workload, and where it comes from.
const WINDOWS: usize = 6;
const SEED: u64 = 0x5EED;

#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    /// The operation is refused with EIO.
    Error,
    /// It finds no room three times, and then there is room again.
    NoRoomForAWhile,
    /// It finds no room, and nobody waits for it.
    NoRoom,
    /// The process is killed there; what it wrote is seen.
    Kill,
    /// The power goes there; what was not synced is lost.
    Power,
}

/// The worlds after each window, the first one empty.
fn worlds() -> Vec<World> {
    let mut chance = Chance(SEED);
    let mut worlds = vec![World::new()];
    for _ in 0..WINDOWS {
        let mut next = worlds.last().unwrap().clone();
        next.window(&mut chance);
        worlds.push(next);
    }
    worlds
}

/// Compares; what the failing operation kept from being read is passed on, anything else fails the test.
fn check(world: &World, replica: &Replica) -> crate::Result<()> {
    world.differs(replica).map_err(|what| {
        assert!(what.starts_with("Io: ") || what.starts_with("Replica: "), "at {}: {what}", world.seq);
        Error::new(Kind::Io, what)
    })
}

/// Applies what is missing, as the product does after a restart.
fn go_on(machine: &Machine, health: &Arc<Health>) -> crate::Result<()> {
    let replica = open(machine, health)?;
    let seq = replica.start()?.cursor.map_or(0, |c| c.seq);
    let worlds = worlds();
    let at = worlds.iter().position(|w| w.seq == seq).expect("the cursor is at a window's end");
    check(&worlds[at], &replica)?;
    let (mut chance, mut now) = (Chance(SEED), World::new());
    let mut pieces = Vec::new();
    for number in 0..WINDOWS {
        let window = now.window(&mut chance);
        if number >= at {
            pieces.extend(window);
        }
    }
    let ended = apply(&runtime(), &replica, Durability::EveryWindow, pieces, 1).2;
    if ended.is_ok() {
        check(&worlds[WINDOWS], &replica)?;
    }
    // Its end may meet the failure too.
    let closed = guarded(|| {
        drop(replica);
        Ok(())
    });
    assert!(closed.is_ok(), "{closed:?}");
    ended
}

fn operations() -> u64 {
    let machine = made();
    let before = machine.count();
    go_on(&machine, &Arc::new(Health::new())).unwrap();
    machine.count() - before
}

fn fail_at(n: u64, how: How) {
    let machine = made();
    let health = Arc::new(Health::new());
    let at = machine.count() + n;
    let fails = |times, kind| Some(Fails { at, times, kind });
    match how {
        How::Error => machine.fails(fails(1, ErrorKind::Other)),
        How::NoRoom => machine.fails(fails(1, ErrorKind::StorageFull)),
        How::NoRoomForAWhile => {
            health.set_waits(true);
            machine.fails(fails(3, ErrorKind::StorageFull));
        }
        How::Kill | How::Power => machine.dies_in(n - 1),
    }
    let ended = guarded(|| go_on(&machine, &health));
    if let Err(e) = &ended {
        assert_ne!(e.kind(), Kind::Damaged, "{how:?} at {n}: {e}");
        if how == How::Error {
            let condition = health.now();
            assert!(
                matches!(condition, Condition::Failed(_) | Condition::Unsynced(_)),
                "{how:?} at {n}: {e}: {condition:?}"
            );
        }
    }
    machine.fails(None);
    if how == How::Power {
        machine.lose_power(&mut Chance(n));
    } else {
        machine.kill();
    }
    go_on(&machine, &Arc::new(Health::new())).unwrap_or_else(|e| panic!("{how:?} at {n}, then: {e}"));
}

#[test]
fn whichever_operation_fails_the_next_start_goes_on_from_a_windows_end() {
    let all = operations();
    for how in [How::Error, How::NoRoomForAWhile, How::NoRoom, How::Kill, How::Power] {
        for n in 1..=all {
            fail_at(n, how);
        }
    }
    note(&format!("each of {all} operations failed in 5 ways"));
    assert!(all > 100, "{all} operations are not much of a workload");
}

/// Only writing and growing wait: the workload ends well although there was no room thrice at one of them.
#[test]
fn a_write_that_finds_no_room_waits_and_goes_on() {
    let all = operations();
    let (mut waited, mut survived) = (0, 0);
    for n in (1..=all).step_by(2) {
        let (machine, health) = (made(), Arc::new(Health::new()));
        health.set_waits(true);
        let seen = health.watch();
        machine.fails(Some(Fails { at: machine.count() + n, times: 3, kind: ErrorKind::StorageFull }));
        let ended = go_on(&machine, &health);
        // What only grows the file, or writes early, does not wait: there is room again when it must be.
        waited += u64::from(seen.has_changed().unwrap() && ended.is_ok() && health.now() == Condition::Good);
        survived += u64::from(ended.is_ok());
    }
    assert!(waited > 5, "{waited} writes waited, {survived} runs ended well");
}

#[test]
fn a_failing_fsync_is_fatal_and_never_asked_again() {
    let all = operations();
    let mut unsynced = 0;
    for n in 1..=all {
        let (machine, health) = (made(), Arc::new(Health::new()));
        machine.fails(Some(Fails { at: machine.count() + n, times: 1, kind: ErrorKind::Other }));
        let ended = guarded(|| go_on(&machine, &health));
        let Condition::Unsynced(what) = health.now() else { continue };
        unsynced += 1;
        assert!(what.contains("fsync failed"), "{what}");
        if let Err(e) = ended {
            assert!(!e.is_transient(), "{e:?}");
        }
        assert_eq!(machine.syncs_after_failure(), 0, "fsync was asked again");
    }
    assert!(unsynced > 3, "{unsynced} of {all} operations are an fsync");
}
