//! Flipped bits, block for block: an error or the right data, never wrong data, and no panic that escapes.

use super::model::World;
use super::power::{apply, config, runtime};
use super::{Chance, note, seed};
use crate::config::Durability;
use crate::error::Kind;
use crate::fault;
use crate::replica::Replica;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use tempfile::TempDir;

/// A replica in a file, closed, with what it holds.
fn small(folder: &Path, seed: u64) -> (std::path::PathBuf, World) {
    let path = folder.join("small.redb");
    let (mut chance, mut world) = (Chance(seed), World::new());
    let replica = Replica::open(&path, &config()).unwrap();
    let pieces = (0..30).flat_map(|_| world.window(&mut chance)).collect();
    apply(&runtime(), &replica, Durability::EveryWindow, pieces, 4).2.unwrap();
    world.differs(&replica).unwrap();
    drop(replica);
    (path, world)
}

/// Where to flip: at the start of every block, where redb keeps a page's structure, and at random.
fn places(len: u64, chance: &mut Chance) -> Vec<(u64, u8)> {
    let mut places = Vec::new();
    for block in 0..len / 4096 {
        let fixed = [0, 2, 4, 9, 12, 24, 64, 100, 200];
        let random: Vec<u64> = (0..4).map(|_| chance.below(4096)).collect();
        for inside in fixed.into_iter().chain(random) {
            places.push((block * 4096 + inside, 1 << chance.below(8)));
        }
    }
    places
}

/// What a flip came to.
#[derive(Debug, PartialEq)]
enum Outcome {
    Right,
    Refused,
    Wrong(String),
}

fn outcome(opened: crate::Result<Replica>, world: &World) -> Outcome {
    let replica = match opened {
        Ok(replica) => replica,
        Err(e) if matches!(e.kind(), Kind::Damaged | Kind::Newer | Kind::Usage) => return Outcome::Refused,
        Err(e) => return Outcome::Wrong(format!("{e:?}")),
    };
    match world.differs(&replica) {
        Ok(()) => Outcome::Right,
        Err(what) if what.starts_with("Damaged: ") => Outcome::Refused,
        Err(what) => Outcome::Wrong(what),
    }
}

#[test]
fn a_bit_flipped_in_a_closed_file_is_refused_or_harmless() {
    let seed = seed("a_bit_flipped_in_a_closed_file_is_refused_or_harmless");
    let folder = TempDir::new().unwrap();
    let (path, world) = small(folder.path(), seed);
    let good = fs::read(&path).unwrap();
    let (mut refused, mut right, mut renewed) = (0, 0, 0);
    for (at, bit) in places(good.len() as u64, &mut Chance(seed)) {
        let mut bad = good.clone();
        bad[usize::try_from(at).unwrap()] ^= bit;
        fs::write(&path, &bad).unwrap();
        match outcome(Replica::open_to_read(&path, &config()), &world) {
            Outcome::Right => right += 1,
            Outcome::Refused => refused += 1,
            Outcome::Wrong(what) => panic!("byte {at}, bit {bit:#x}: {what}"),
        }
        assert_eq!(fs::read(&path).unwrap(), bad, "byte {at}: a reader leaves the file alone");
        // Who may write it goes on with the same rows, or with an empty new file and the old one beside it.
        let replica = match Replica::open(&path, &config()) {
            Ok(replica) => replica,
            Err(e) if e.kind() == Kind::Newer => continue,
            Err(e) => panic!("byte {at}, bit {bit:#x}: {e:?}"),
        };
        let moved = replica.moved_aside();
        if moved.is_empty() {
            world.differs(&replica).unwrap_or_else(|what| panic!("byte {at}, bit {bit:#x}: {what}"));
        } else {
            World::new().differs(&replica).unwrap_or_else(|what| panic!("byte {at}, bit {bit:#x}: {what}"));
            assert_eq!(fs::read(&moved[0].path).unwrap(), bad, "what is moved aside is left as it is");
            fs::remove_file(&moved[0].path).unwrap();
            renewed += 1;
        }
    }
    note(&format!("{refused} flips refused, {right} harmless; {renewed} files made again"));
    assert!(refused > 100 && renewed > 100);
}

/// Flips bits below a replica that is open, with no cache to hide them.
fn under_an_open_file(seed: u64) -> Vec<String> {
    let folder = TempDir::new().unwrap();
    let (path, world) = small(folder.path(), seed);
    let uncached = crate::Config { cache_bytes: 0, ..config() };
    let mut wrong = Vec::new();
    let places = places(fs::metadata(&path).unwrap().len(), &mut Chance(seed));
    let mut replica = Replica::open_existing(&path, &uncached).unwrap();
    for (at, bit) in places {
        let file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ bit], at).unwrap();
        let found = outcome(Ok(replica.clone()), &world);
        file.write_all_at(&byte, at).unwrap();
        match found {
            Outcome::Right => {}
            Outcome::Refused => {
                // As the product does it: what was found is remembered, and the file is opened again.
                drop(replica);
                replica = Replica::open_existing(&path, &uncached).unwrap();
            }
            Outcome::Wrong(what) => wrong.push(format!("byte {at}, bit {bit:#x}: {what}")),
        }
        if fault::checksum_off() && !wrong.is_empty() {
            break;
        }
    }
    wrong
}

#[test]
fn a_bit_flipped_below_an_open_file_is_never_read_as_data() {
    let seed = seed("a_bit_flipped_below_an_open_file_is_never_read_as_data");
    let wrong = under_an_open_file(seed);
    assert!(wrong.is_empty(), "{} of them: {:#?}", wrong.len(), wrong.first());
}

#[test]
fn without_checksums_a_flipped_bit_is_read_as_data() {
    let seed = seed("checksum-off");
    let wrong = fault::with("checksum-off", || under_an_open_file(seed));
    assert!(!wrong.is_empty(), "no flip was read as data: the tests above prove nothing");
    note(&format!("checksum-off: caught: {}", wrong[0]));
}
