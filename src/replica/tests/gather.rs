//! A backlog's windows share a transaction: only whole ones, never for longer than was said, and what fails
//! behind them does not take them along.

use super::Chance;
use super::model::World;
use super::power::{made, open, runtime};
use crate::config::Durability;
use crate::error::{Error, Kind, Result};
use crate::replica::apply::Writer;
use crate::replica::health::Health;
use crate::window::Piece;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

const LONG: Duration = Duration::from_secs(3_600);

/// A window in one piece, or with another piece behind its rows; what it promises of those behind it.
fn window(world: &mut World, chance: &mut Chance, gather: Duration) -> Vec<Piece> {
    let mut pieces = world.window(chance);
    for end in pieces.iter_mut().filter_map(|p| p.end.as_mut()) {
        end.gather = gather;
    }
    pieces
}

/// What a writer made of these pieces: the seqs of its commits, how it ended, and whether it lost whole windows.
fn written(pieces: Vec<Result<Piece>>, stays_open: bool, world: &World) -> (Vec<u64>, Result<()>, bool) {
    let replica = open(&made(), &Arc::new(Health::new())).unwrap();
    let mut commits = Vec::new();
    let (ended, lost) = runtime().block_on(async {
        let mut writer = Writer::new(&replica, Durability::EveryWindow).unwrap();
        let (send, received) = mpsc::channel(64);
        for piece in pieces {
            send.send(piece).await.unwrap();
        }
        // The stream of a source that is away neither ends nor goes on: until there is a commit.
        let mut held = stays_open.then(|| send.clone());
        drop(send);
        let publish = |applied: crate::replica::Applied| {
            commits.push(applied.end.cursor.seq);
            held = None;
        };
        let run = writer.run(received.into(), publish);
        let ended = tokio::time::timeout(Duration::from_secs(60), run).await.expect("never committed");
        (ended, writer.lost)
    });
    world.differs(&replica).unwrap();
    (commits, ended, lost)
}

#[test]
fn windows_of_a_backlog_share_a_transaction_and_the_last_one_ends_it() {
    let (mut world, mut chance) = (World::new(), Chance(1));
    let mut pieces = Vec::new();
    for n in 0..8 {
        let gather = if n < 7 { LONG } else { Duration::ZERO };
        pieces.extend(window(&mut world, &mut chance, gather).into_iter().map(Ok));
    }
    let (commits, ended, lost) = written(pieces, false, &world);
    assert_eq!((commits, lost), (vec![world.seq], false));
    ended.unwrap();
}

#[test]
fn a_window_that_does_not_come_is_not_waited_for_beyond_its_time() {
    let (mut world, mut chance) = (World::new(), Chance(2));
    let pieces = window(&mut world, &mut chance, Duration::from_millis(50)).into_iter().map(Ok).collect();
    let (commits, _, lost) = written(pieces, true, &world);
    assert_eq!((commits, lost), (vec![world.seq], false));
}

#[test]
fn what_fails_between_windows_takes_none_of_them_along() {
    let (mut world, mut chance) = (World::new(), Chance(3));
    let mut pieces: Vec<Result<Piece>> = Vec::new();
    for _ in 0..3 {
        pieces.extend(window(&mut world, &mut chance, LONG).into_iter().map(Ok));
    }
    pieces.push(Err(Error::new(Kind::Unavailable, "source: away")));
    let (commits, ended, lost) = written(pieces, false, &world);
    assert_eq!((commits, lost), (vec![world.seq], false));
    assert_eq!(ended.unwrap_err().kind(), Kind::Unavailable);
}

#[test]
fn what_fails_in_a_window_leaves_nothing_half_applied_and_says_what_was_lost() {
    let (mut world, mut chance) = (World::new(), Chance(4));
    let empty = world.clone();
    let mut pieces: Vec<Result<Piece>> = Vec::new();
    for _ in 0..3 {
        pieces.extend(window(&mut world, &mut chance, LONG).into_iter().map(Ok));
    }
    let mut cut = window(&mut world, &mut chance, LONG);
    for piece in &mut cut {
        piece.end = None;
    }
    pieces.extend(cut.into_iter().map(Ok));
    pieces.push(Err(Error::new(Kind::TooLarge, "source: a row is too large")));
    let (commits, ended, lost) = written(pieces, false, &empty);
    assert_eq!((commits, lost), (Vec::<u64>::new(), true));
    assert_eq!(ended.unwrap_err().kind(), Kind::TooLarge);
}
