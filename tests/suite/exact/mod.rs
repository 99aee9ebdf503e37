//! Whatever an application does, the replica is the source: random scripts, shrunk where they fail.
//!
//! Settings of the environment: `REDTAIL_SEED`, `REDTAIL_CASES` (how many scripts), `REDTAIL_WORKERS` (by how
//! many threads), `REDTAIL_SHRINK=0` (do not shrink). The case that failed is had again by its own seed and `REDTAIL_CASES=1`.

mod applications;
mod bank;
mod case;
mod changes;
mod controls;
mod foreign;
mod generate;
mod long;
mod model;
mod objects;
mod pool;
mod repair;
mod script;
mod scripts;
mod selections;
mod shrink;
mod statements;
mod tables;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use self::case::{Failure, Stage};
use self::generate::Generator;
use self::script::Step;
use crate::support::oracle::Oracle;
use crate::support::server::Server;
use crate::support::{note, seed};

/// Constructs that are known not to hold yet, by their names in the generator.
const KNOWN: &[&str] = &[];

/// Scripts in a usual run.
const CASES: u64 = 2_000;
/// Of so many scripts on files, one is played on a server.
const SERVER_SHARE: u64 = 20;
/// Of so many scripts each construct must have been accepted by the database at least once.
const ENOUGH: u64 = 20_000;

/// What all workers share.
struct Shared {
    seed: u64,
    cases: u64,
    on_server: bool,
    next: AtomicU64,
    failed: AtomicBool,
}

/// What one worker has done.
#[derive(Default)]
struct Work {
    comparisons: u64,
    rows: u64,
    made: BTreeMap<&'static str, (u64, u64)>,
    failure: Option<String>,
}

#[test]
fn after_every_step_of_any_script_the_replica_equals_the_source() {
    let test = "after_every_step_of_any_script_the_replica_equals_the_source";
    if Oracle::start(test).is_some() {
        play_all(test, cases().unwrap_or(CASES), false);
    }
}

#[test]
fn after_every_step_of_any_script_the_replica_equals_the_server() {
    let test = "after_every_step_of_any_script_the_replica_equals_the_server";
    if Oracle::start(test).is_some() && Server::start(test).is_some() {
        // A server takes its time over every statement: a part of what is played on files.
        play_all(test, (cases().unwrap_or(CASES) / SERVER_SHARE).max(1), true);
    }
}

fn cases() -> Option<u64> {
    std::env::var("REDTAIL_CASES").ok().map(|n| n.parse().expect("REDTAIL_CASES is a number"))
}

/// `REDTAIL_WORKERS`, or two for each core: a worker waits for its oracle half of the time.
fn workers(cases: u64) -> usize {
    let wanted = std::env::var("REDTAIL_WORKERS").ok();
    let wanted = wanted.map(|n| n.parse().expect("REDTAIL_WORKERS is a number"));
    let cores = || std::thread::available_parallelism().map_or(2, |n| usize::from(n) * 2);
    wanted.unwrap_or_else(cores).clamp(1, usize::try_from(cases.max(1)).unwrap_or(1))
}

fn play_all(test: &str, cases: u64, on_server: bool) {
    let next = AtomicU64::new(0);
    let shared = Shared { seed: seed(test), cases, on_server, next, failed: AtomicBool::new(false) };
    let begun = Instant::now();
    let workers = workers(cases);
    let done: Vec<Work> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers)
            .map(|n| {
                scope.spawn({
                    let shared = &shared;
                    move || work(test, shared, n)
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().expect("a worker")).collect()
    });
    let seconds = begun.elapsed().as_secs_f64();
    let (comparisons, rows): (u64, u64) =
        done.iter().fold((0, 0), |(c, r), w| (c + w.comparisons, r + w.rows));
    let played = shared.next.load(Ordering::Relaxed).min(cases);
    note(&format!(
        "{test}: {played} cases, {comparisons} comparisons, {rows} rows compared, {seconds:.0} s, {:.1} cases/s",
        f64::from(u32::try_from(played).unwrap_or(u32::MAX)) / seconds
    ));
    if let Some(failure) = done.iter().find_map(|w| w.failure.as_ref()) {
        panic!("{failure}");
    }
    assert_every_construct_was_accepted(&done, cases);
}

/// Plays cases until there are none left.
fn work(test: &str, shared: &Shared, number: usize) -> Work {
    let mut work = Work::default();
    let Some(oracle) = Oracle::start(test) else { return work };
    let mut stage = Stage::new(oracle, &format!("worker-{}-{number}", u8::from(shared.on_server)));
    if shared.on_server {
        let Some(server) = Server::start(test) else { return work };
        stage = stage.on(server);
    }
    while !shared.failed.load(Ordering::Relaxed) {
        let at = shared.next.fetch_add(1, Ordering::Relaxed);
        if at >= shared.cases {
            break;
        }
        if at > 0 && at.is_multiple_of(1_000) && shared.cases > CASES {
            note(&format!("{test}: {at} cases"));
        }
        let seed = shared.seed.wrapping_add(at);
        let mut generator = Generator::new(seed);
        let mut script = Vec::new();
        let failed = random_case(&mut stage, &mut generator, &mut script);
        for (kind, (made, good)) in generator.made {
            let sum = work.made.entry(kind).or_default();
            (sum.0, sum.1) = (sum.0 + made, sum.1 + good);
        }
        if let Err(failure) = failed {
            if !shared.failed.swap(true, Ordering::Relaxed) {
                work.failure = Some(report(&mut stage, script, failure, (seed, at)));
            }
            break;
        }
    }
    (work.comparisons, work.rows) = (stage.comparisons, stage.rows);
    work
}

/// Makes a script and plays it; what was played stands in `script` afterwards.
fn random_case(stage: &mut Stage, generator: &mut Generator, script: &mut Vec<Step>) -> Result<(), Failure> {
    let tables = 1 + generator.chance.below(3);
    let first = 1 + tables;
    let objects = first + generator.chance.below(4);
    let turns = objects + 8 + generator.chance.below(24);
    let mut count = 0;
    let mut last = None;
    stage.play_turns(|accepted| {
        if let Some(turn) = last.take() {
            generator.learn(&turn, accepted);
        }
        count += 1;
        let turn = match count {
            1 => generator.opening(),
            n if n <= first => generator.first_tables(),
            n if n <= objects => generator.first_object(),
            n if n <= turns => generator.next(),
            _ => return None,
        };
        let steps = turn.steps.clone();
        script.extend(steps.iter().cloned());
        last = Some(turn);
        Some(steps)
    })
}

/// The failure with the shortest script that still fails.
fn report(stage: &mut Stage, script: Vec<Step>, found: Failure, (seed, at): (u64, u64)) -> String {
    let mut last = found;
    let first = last.what.clone();
    let mut shrunk = "as it was played";
    if std::env::var("REDTAIL_SHRINK").as_deref() != Ok("0") {
        stage.patience = Duration::from_secs(5);
        shrink::shrink(script, |candidate| match stage.play(candidate) {
            Ok(()) => false,
            Err(failure) => {
                last = failure;
                shrunk = "nothing of which can be left out";
                true
            }
        });
    }
    format!(
        "case {at} failed (again by REDTAIL_SEED={seed} REDTAIL_CASES=1): {first}\n\nThe script, {shrunk}; comments are for you:\n\n{}\n{}",
        last.transcript, last.what
    )
}

/// A construct that the database always refuses tests nothing.
fn assert_every_construct_was_accepted(done: &[Work], cases: u64) {
    let mut all: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (kind, (made, good)) in done.iter().flat_map(|w| &w.made) {
        let sum = all.entry(kind).or_default();
        (sum.0, sum.1) = (sum.0 + made, sum.1 + good);
    }
    if std::env::var("REDTAIL_COUNTS").is_ok() {
        for (kind, (made, good)) in &all {
            note(&format!("{kind}: {made} made, {good} accepted"));
        }
    }
    if cases >= ENOUGH {
        let never: Vec<_> = all.iter().filter(|(_, (_, good))| *good == 0).collect();
        assert!(never.is_empty(), "never accepted: {never:?}");
    }
}
