//! kill -9 of a `run` under a steady writer: it continues from its cursor, and nothing is lost.

use tempfile::TempDir;

use crate::support::oracle::{Comparison, Oracle};
use crate::support::redtail::{Redtail, Run};
use crate::support::writer::{EVENTS, Ledger, Writer};
use crate::support::{Chance, compare, note};

/// A deliberate fault of debug builds: the cursor is committed by itself, before the rows.
const CURSOR_APART: (&str, &str) = ("REDTAIL_FAULT", "cursor-apart");

struct Scenario {
    test: &'static str,
    fault: Option<(&'static str, &'static str)>,
    /// After each round the writer stops and the replica is compared with the source.
    rounds: u32,
    kills_per_round: u32,
}

struct Outcome {
    compared: Comparison,
    kills: u32,
}

#[test]
fn killed_at_any_moment_under_a_steady_writer_it_continues_and_ends_equal() {
    let test = "killed_at_any_moment_under_a_steady_writer_it_continues_and_ends_equal";
    let Some(mut oracle) = Oracle::start(test) else { return };
    let outcome = Scenario { test, fault: None, rounds: 3, kills_per_round: 10 }.play(&mut oracle);
    assert!(outcome.kills >= 25, "{} kills", outcome.kills);
    assert!(outcome.compared.equal, "after {} kills: {:#?}", outcome.kills, outcome.compared);
}

/// The negative control: the same scenario must catch a cursor that is not committed with its rows.
#[test]
fn a_cursor_committed_apart_from_its_rows_is_caught_by_the_same_kills() {
    let test = "a_cursor_committed_apart_from_its_rows_is_caught_by_the_same_kills";
    if !cfg!(debug_assertions) {
        note(&format!("skipped: {test}: release builds have no deliberate faults"));
        return;
    }
    let Some(mut oracle) = Oracle::start(test) else { return };
    let scenario = Scenario { test, fault: Some(CURSOR_APART), rounds: 6, kills_per_round: 10 };
    let outcome = scenario.play(&mut oracle);
    assert!(
        !outcome.compared.equal,
        "{} kills did not show the fault: the test above proves nothing",
        outcome.kills
    );
    note(&format!("{test}: caught after {} kills, {} differences", outcome.kills, outcome.compared.count));
}

impl Scenario {
    /// Plays the rounds, up to the first that does not end equal.
    fn play(&self, oracle: &mut Oracle) -> Outcome {
        let mut chance = Chance::new(self.test);
        let folder = TempDir::new().unwrap();
        let plain = Redtail::new(folder.path());
        let source = plain.path("source.db");
        oracle.script(&source, &["PRAGMA journal_mode = WAL", EVENTS]);
        // Capture and an empty first copy: from here on every row must come through the changelog.
        plain.sync("source.db", "replica.redb");
        let redtail = self.fault.map_or_else(|| plain.clone(), |(name, value)| plain.with_env(name, value));

        let mut ledger = Ledger::default();
        let mut cursor = 0;
        let mut kills = 0;
        for round in 1..=self.rounds {
            let writer = Writer::start(&source, ledger, chance.fork());
            for _ in 0..self.kills_per_round {
                cursor = kill_once(&redtail, &writer, &mut chance, cursor);
                kills += 1;
            }
            let mut run = redtail.spawn_run("source.db", "replica.redb");
            continues_from(&mut run, cursor);
            ledger = writer.stop();
            cursor = seen_cursor(&run.caught_up());
            run.stop();

            // The judge first: the oracle's own count is what the writer was told is committed.
            assert_eq!(
                oracle.integers(&source, Ledger::SELECT),
                ledger.sums(),
                "the source keeps its commits"
            );
            let compared = compare(oracle, &plain, "source.db", "replica.redb");
            assert_eq!(compared.rows, u64::try_from(ledger.rows.len()).unwrap());
            if !compared.equal || round == self.rounds {
                return Outcome { compared, kills };
            }
        }
        unreachable!("the last round returns");
    }
}

/// One `run`, killed after a random number of further commits; answers the largest cursor seen.
///
/// The moment is counted in commits, so it falls while a window is on its way: each commit wakes the process.
fn kill_once(redtail: &Redtail, writer: &Writer, chance: &mut Chance, cursor: u64) -> u64 {
    let mut run = redtail.spawn_run("source.db", "replica.redb");
    if chance.below(4) == 0 {
        // Anywhere in the start, the opening of the replica included.
        writer.wait_more(chance.below(60));
        run.kill9();
        return cursor;
    }
    let cursor = continues_from(&mut run, cursor);
    writer.wait_more(1 + chance.below(100));
    let seen = seen_cursor(&run.status());
    assert!(seen >= cursor, "the cursor went back while running: {cursor}, then {seen}");
    writer.wait_more(1 + chance.below(40));
    run.kill9();
    seen
}

/// Fails unless a restarted `run` is at or past the cursor that was durable before the kill, and has
/// copied nothing again.
fn continues_from(run: &mut Run, durable: u64) -> u64 {
    run.live();
    let status = run.status();
    let cursor = seen_cursor(&status);
    assert!(cursor >= durable, "restarted behind its cursor {durable}: {status:#}");
    assert_eq!(status["rows_copied"], 0, "a restart copies nothing again: {status:#}");
    cursor
}

fn seen_cursor(status: &serde_json::Value) -> u64 {
    status["cursor"].as_u64().unwrap_or_else(|| panic!("no cursor: {status:#}"))
}

/// What `run` is at when it is killed.
const PHASES: [&str; 8] =
    ["backfill", "drain", "idle", "prune", "rebuild", "compact", "schema change", "compact, nobody running"];

/// With all that is kept beside the rows; whatever is acknowledged may be pruned at once.
const SETTINGS: &str = "keep_changes = { rows = 2000 }\nack_interval = \"20ms\"\n[changelog]\nretain_min = \"0s\"\n\
    [tables.event]\nindex = [[\"version\", \"body\"]]\n[tables.side]\nindex = [[\"body\"]]\n";

/// Kills over all phases: 32, or what `REDTAIL_KILLS` says.
fn kills() -> u64 {
    std::env::var("REDTAIL_KILLS").map_or(32, |n| n.parse().expect("REDTAIL_KILLS is a number"))
}

const SIDE: &str = "CREATE TABLE side(id INTEGER PRIMARY KEY, body TEXT)";
const FILL: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
    INSERT INTO side SELECT i, printf('side %d %060d', i, i) FROM n";

/// Brings about what is to be killed in this phase, and kills it.
fn killed_in(
    phase: &str,
    kill: u64,
    redtail: &Redtail,
    oracle: &mut Oracle,
    writer: &Writer,
    chance: &mut Chance,
) {
    let (source, replica) = (redtail.path("source.db"), redtail.path("replica.redb"));
    match phase {
        "backfill" => std::fs::remove_file(&replica).unwrap(),
        "rebuild" => std::fs::OpenOptions::new().write(true).open(&replica).unwrap().set_len(5000).unwrap(),
        "drain" => writer.wait_more(300),
        "compact, nobody running" => {
            let mut compact = redtail.spawn(&["compact", "-r", "replica.redb"]);
            writer.wait_more(chance.below(100));
            let _ = compact.kill();
            compact.wait().unwrap();
            return;
        }
        _ => {}
    }
    let mut run = redtail.spawn_run("source.db", "replica.redb");
    if !matches!(phase, "backfill" | "rebuild" | "drain") {
        run.live();
    }
    let mut other = None;
    match phase {
        // Its own pruning, and somebody else's beside it.
        "prune" => other = Some(redtail.spawn(&["prune", "-s", "source.db"])),
        "compact" => other = Some(redtail.spawn(&["compact", "-r", "replica.redb"])),
        "schema change" => {
            oracle.script(&source, &[format!("ALTER TABLE side ADD COLUMN c{kill} DEFAULT {kill}")]);
            if chance.one_in(2) {
                oracle.script(&source, &["DROP TABLE side", SIDE, FILL]);
            }
        }
        _ => {}
    }
    writer.wait_more(chance.below(150));
    run.kill9();
    if let Some(mut other) = other {
        let _ = other.kill();
        other.wait().unwrap();
    }
}

/// Each index has each row of its table, and each in its place.
fn indexes_name_every_row(replica: &std::path::Path) {
    let replica = redtail::Replica::open_to_read(replica, &redtail::Config::default()).unwrap();
    let snapshot = replica.snapshot().unwrap();
    for (table, columns) in [("event", &["version", "body"][..]), ("side", &["body"])] {
        let place = |row: redtail::Result<redtail::Row>| {
            let row = row.unwrap();
            let values = row.values().unwrap();
            let of =
                |name: &&str| values[row.columns().iter().position(|c| c.name == *name).unwrap()].to_owned();
            let key = row.key().unwrap();
            (columns.iter().map(of).collect::<Vec<_>>(), key)
        };
        let by_index: Vec<_> = snapshot.index(table, columns).unwrap().scan().unwrap().map(place).collect();
        let mut by_key: Vec<_> = snapshot.scan(table).unwrap().map(place).collect();
        by_key.sort_by(|a, b| format!("{a:?}").cmp(&format!("{b:?}")));
        let mut sorted = by_index.clone();
        sorted.sort_by(|a, b| format!("{a:?}").cmp(&format!("{b:?}")));
        assert!(sorted == by_key, "an index of {table} has {} rows, not {}", sorted.len(), by_key.len());
    }
}

#[test]
fn killed_in_every_phase_of_its_life_it_ends_equal() {
    let test = "killed_in_every_phase_of_its_life_it_ends_equal";
    let Some(mut oracle) = Oracle::start(test) else { return };
    let mut chance = Chance::new(test);
    let folder = TempDir::new().unwrap();
    let redtail = Redtail::new(folder.path()).with_env("REDTAIL_CHUNK_ROWS", "500");
    let (source, replica) = (redtail.path("source.db"), redtail.path("replica.redb"));
    std::fs::write(redtail.path("redtail.toml"), SETTINGS).unwrap();
    oracle.script(&source, &["PRAGMA journal_mode = WAL", EVENTS, SIDE, FILL]);
    redtail.sync("source.db", "replica.redb");

    let mut writer = Writer::start(&source, Ledger::default(), chance.fork());
    for kill in 0..kills() {
        let phase = PHASES[usize::try_from(kill).unwrap() % PHASES.len()];
        killed_in(phase, kill, &redtail, &mut oracle, &writer, &mut chance);
        // It may have moved the damaged file aside, or not yet; three in a day would be too many.
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.to_string_lossy().contains(".damaged-") {
                std::fs::remove_file(path).unwrap();
            }
        }
        if kill % 8 == 7 || kill + 1 == kills() {
            let ledger = writer.stop();
            redtail.sync("source.db", "replica.redb");
            let compared = compare(&mut oracle, &redtail, "source.db", "replica.redb");
            assert!(compared.equal, "after {} kills, the last in {phase}: {compared:#?}", kill + 1);
            indexes_name_every_row(&replica);
            assert_eq!(
                oracle.integers(&source, Ledger::SELECT),
                ledger.sums(),
                "the source keeps its commits"
            );
            writer = Writer::start(&source, ledger, chance.fork());
        }
    }
    writer.stop();
    note(&format!("{test}: {} kills survived", kills()));
}
