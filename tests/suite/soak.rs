//! A soak: a writer, schema changes and kills for a while, and whether anything creeps upwards meanwhile.
//!
//! `REDTAIL_SOAK_SECONDS=900` is the long mode; by default it lasts 10 seconds, and slopes are only printed.

use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::oracle::Oracle;
use crate::support::redtail::{Redtail, Run};
use crate::support::writer::{EVENTS, Ledger, Writer};
use crate::support::{Chance, assert_equal, note};

/// Shorter soaks say nothing about slopes.
const TELLING: Duration = Duration::from_secs(240);
const WHAT: [(&str, f64); 4] = [
    // The most that each may grow in an hour over what it is, as a share of it.
    ("memory, KiB", 0.5),
    ("file descriptors", 0.5),
    ("replica, bytes", 1.0),
    ("changelog rows", 1.0),
];

struct Sample {
    at: f64,
    values: [f64; 4],
}

fn sample(run: &Run, redtail: &Redtail, oracle: &mut Oracle, at: f64) -> Sample {
    let status = std::fs::read_to_string(format!("/proc/{}/status", run.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let memory = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    let files = std::fs::read_dir(format!("/proc/{}/fd", run.pid())).unwrap().count();
    let replica = std::fs::metadata(redtail.path("replica.redb")).unwrap().len();
    let rows = oracle.integers(&redtail.path("source.db"), "SELECT count(*) FROM _redtail_changelog")[0];
    let number = |n: i64| f64::from(i32::try_from(n).unwrap_or(i32::MAX));
    let values =
        [memory, number(files.try_into().unwrap()), number(replica.try_into().unwrap()), number(rows)];
    Sample { at, values }
}

/// Growth in an hour over the second half, as a share of the mean.
fn slope(samples: &[Sample], which: usize) -> f64 {
    let half = &samples[samples.len() / 2..];
    let count = f64::from(u32::try_from(half.len()).unwrap());
    let (t, v) = half.iter().fold((0.0, 0.0), |(t, v), s| (t + s.at / count, v + s.values[which] / count));
    let (mut up, mut down) = (0.0, 0.0);
    for s in half {
        up += (s.at - t) * (s.values[which] - v);
        down += (s.at - t) * (s.at - t);
    }
    if down == 0.0 { 0.0 } else { up / down * 3600.0 / v.max(1.0) }
}

#[test]
fn a_soak_with_schema_changes_and_kills_ends_equal_and_nothing_creeps() {
    let test = "a_soak_with_schema_changes_and_kills_ends_equal_and_nothing_creeps";
    let Some(mut oracle) = Oracle::start(test) else { return };
    let mut chance = Chance::new(test);
    let seconds = std::env::var("REDTAIL_SOAK_SECONDS").map_or(10, |n| n.parse().expect("a number"));
    let last = Duration::from_secs(seconds);
    let folder = TempDir::new().unwrap();
    // A short memory of the past, so that pruning shows; and little of redb's cache, which keeps the whole file in
    // memory up to 64 MiB: what grows besides it is redtail's.
    let redtail = Redtail::new(folder.path())
        .with_env("REDTAIL_CACHE_BYTES", "1048576")
        .with_env("REDTAIL_CHANGELOG_RETAIN_MIN", "5s")
        .with_env("REDTAIL_ACK_INTERVAL", "1s");
    let source = redtail.path("source.db");
    let side = "CREATE TABLE side(id INTEGER PRIMARY KEY, body TEXT)";
    oracle.script(&source, &["PRAGMA journal_mode = WAL", EVENTS, side]);
    redtail.ok(&["init", "-s", "source.db"]);
    // The changelog is as long as a while of writing: at a pace of the machine's own it would tell of the machine.
    let writer = Writer::paced(&source, Ledger::default(), chance.fork(), Duration::from_millis(3));
    let mut run = redtail.spawn_run("source.db", "replica.redb");
    run.live();
    let begun = Instant::now();
    let (mut samples, mut kills, mut changes) = (Vec::new(), 0, 0);
    while begun.elapsed() < last {
        writer.wait_more(100);
        // The table is kept at one size, so that what grows is redtail's.
        oracle.script(&source, &["DELETE FROM event WHERE id < (SELECT max(id) - 20000 FROM event)"]);
        if chance.one_in(40) {
            changes += 1;
            let sql = if changes % 10 == 0 {
                vec!["DROP TABLE side".to_owned(), side.to_owned()]
            } else {
                vec![
                    format!("ALTER TABLE side ADD COLUMN c{changes}"),
                    "INSERT INTO side(body) VALUES ('x')".to_owned(),
                ]
            };
            oracle.script(&source, &sql);
        }
        if chance.one_in(100) {
            kills += 1;
            run.kill9();
            run = redtail.spawn_run("source.db", "replica.redb");
            run.live();
        }
        samples.push(sample(&run, &redtail, &mut oracle, begun.elapsed().as_secs_f64()));
        std::thread::park_timeout(Duration::from_millis(100));
    }
    drop(writer);
    run.caught_up();
    run.stop();
    assert_equal(&mut oracle, &redtail, "source.db", "replica.redb");
    note(&format!("{test}: {seconds} s, {kills} kills, {changes} schema changes, {} samples", samples.len()));
    let mut creeping = Vec::new();
    for (which, (what, most)) in WHAT.iter().enumerate() {
        let (first, end) =
            (samples[samples.len() / 2].values[which], samples[samples.len() - 1].values[which]);
        let slope = slope(&samples, which);
        note(&format!(
            "{what}: {first:.0} at half time, {end:.0} at the end, {:+.1} % an hour",
            slope * 100.0
        ));
        if last >= TELLING && slope >= *most {
            creeping.push(*what);
        }
    }
    assert!(creeping.is_empty(), "these creep: {creeping:?}");
}
