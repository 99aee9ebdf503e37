//! The changelog's growth is bounded, whoever is alive.

use tempfile::TempDir;

use crate::support::assert_equal;
use crate::support::oracle::Oracle;
use crate::support::redtail::Redtail;

const SETUP: &[&str] =
    &["PRAGMA journal_mode = WAL", "CREATE TABLE t(k INTEGER PRIMARY KEY, v)", "INSERT INTO t VALUES (1, 0)"];
const ENTRIES: &str = "SELECT count(*), min(seq), max(seq) FROM _redtail_changelog";
/// Between two droppings of the source itself.
const EVERY: i64 = 4_096;

fn write(rows: i64) -> String {
    format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) INSERT OR REPLACE INTO t SELECT i % 500, 'row ' || i FROM n"
    )
}

#[test]
fn with_every_redtail_dead_the_source_itself_drops_the_oldest_entries() {
    let test = "with_every_redtail_dead_the_source_itself_drops_the_oldest_entries";
    let Some(mut oracle) = Oracle::start(test) else { return };
    let folder = TempDir::new().unwrap();
    let redtail = Redtail::new(folder.path());
    let source = redtail.path("s.db");
    oracle.script(&source, SETUP);
    redtail.with_env("REDTAIL_CHANGELOG_MAX_ROWS", "10000").ok(&["init", "-s", "s.db"]);
    redtail.sync("s.db", "r.redb");
    let mut pages = Vec::new();
    for _ in 0..12 {
        oracle.script(&source, &[write(6_000)]);
        let entries = oracle.integers(&source, ENTRIES);
        assert!(entries[0] <= 10_000 + EVERY, "{entries:?}");
        assert_eq!(entries[2] - entries[1] + 1, entries[0], "only whole prefixes go");
        pages.push(oracle.integers(&source, "SELECT page_count FROM pragma_page_count")[0]);
    }
    assert_eq!(pages[5..].iter().min(), pages[5..].iter().max(), "the file no longer grows: {pages:?}");
    // The replica was behind by more than is kept: it notices, and is rebuilt.
    let back = redtail.run(&["sync", "-s", "s.db", "-r", "r.redb"]);
    assert_eq!(back.code, Some(0), "{back:#?}");
    assert!(back.stderr.contains("diverged"), "loudly: {}", back.stderr);
    assert_equal(&mut oracle, &redtail, "s.db", "r.redb");
    // What is said of the cap at `init` alone counts, and a lower one is reached little by little.
    redtail.with_env("REDTAIL_CHANGELOG_MAX_ROWS", "100").sync("s.db", "r.redb");
    assert_eq!(redtail.status("s.db", "r.redb")["changelog_max_rows"], 10_000);
    redtail.with_env("REDTAIL_CHANGELOG_MAX_ROWS", "100").ok(&["init", "-s", "s.db"]);
    let before = oracle.integers(&source, ENTRIES);
    oracle.script(&source, &[write(EVERY)]);
    let after = oracle.integers(&source, ENTRIES);
    assert!(after[1] - before[1] <= 2 * EVERY, "at most so many for one write: {before:?} {after:?}");
    for _ in 0..8 {
        oracle.script(&source, &[write(EVERY)]);
    }
    assert!(oracle.integers(&source, ENTRIES)[0] <= 100 + EVERY, "{:?}", oracle.integers(&source, ENTRIES));
    redtail.sync("s.db", "r.redb");
    assert_equal(&mut oracle, &redtail, "s.db", "r.redb");
}

#[test]
fn a_cap_that_somebody_dropped_is_put_back() {
    let Some(mut oracle) = Oracle::start("a_cap_that_somebody_dropped_is_put_back") else { return };
    let folder = TempDir::new().unwrap();
    let redtail = Redtail::new(folder.path());
    let source = redtail.path("s.db");
    oracle.script(&source, SETUP);
    redtail.sync("s.db", "r.redb");
    oracle
        .script(&source, &["DROP TRIGGER _redtail_cap", "DROP TABLE _redtail_consumers", write(10).as_str()]);
    redtail.sync("s.db", "r.redb");
    assert_eq!(redtail.status("s.db", "r.redb")["changelog_max_rows"], 10_000_000);
    assert_eq!(redtail.status("s.db", "r.redb")["consumers"].as_array().unwrap().len(), 1);
    assert_equal(&mut oracle, &redtail, "s.db", "r.redb");
}

#[test]
fn prune_deletes_what_nobody_needs_and_nothing_else() {
    let Some(mut oracle) = Oracle::start("prune_deletes_what_nobody_needs_and_nothing_else") else { return };
    let folder = TempDir::new().unwrap();
    let redtail = Redtail::new(folder.path());
    let source = redtail.path("s.db");
    oracle.script(&source, SETUP);
    let none = redtail.run(&["prune", "-s", "s.db"]);
    assert_eq!(none.code, Some(1));
    none.assert_one_line("prune", &["capture is not installed"]);
    redtail.sync("s.db", "r.redb");
    let hasty =
        redtail.with_env("REDTAIL_CHANGELOG_RETAIN_MIN", "0s").with_env("REDTAIL_ACK_INTERVAL", "1ms");
    assert_eq!(hasty.ok(&["prune", "-s", "s.db"]), "1 entries pruned\n", "the first entry of all");
    oracle.script(&source, &[write(20_000)]);
    // Nobody has them on disk yet.
    assert_eq!(hasty.ok(&["prune", "-s", "s.db"]), "0 entries pruned\n");
    redtail.with_env("REDTAIL_ACK_INTERVAL", "1ms").sync("s.db", "r.redb");
    // They are too young.
    assert_eq!(redtail.ok(&["prune", "-s", "s.db"]), "0 entries pruned\n");
    let before = oracle.integers(&source, ENTRIES);
    let said = hasty.ok(&["prune", "-s", "s.db"]);
    let after = oracle.integers(&source, ENTRIES);
    assert_eq!(said, format!("{} entries pruned\n", before[0] - 1));
    assert_eq!(after, [1, before[2], before[2]], "the newest entry stays");
    oracle.script(&source, &["UPDATE t SET v = 1 WHERE k = 1"]);
    redtail.sync("s.db", "r.redb");
    assert_equal(&mut oracle, &redtail, "s.db", "r.redb");
    // Older than may be: they go though the replica has not read them, and it is rebuilt.
    oracle.script(&source, &[write(2_000)]);
    let ruthless = redtail.with_env("REDTAIL_CHANGELOG_MAX_AGE", "1ms");
    assert_ne!(ruthless.ok(&["prune", "-s", "s.db"]), "0 entries pruned\n");
    let back = redtail.run(&["sync", "-s", "s.db", "-r", "r.redb"]);
    assert!(back.code == Some(0) && back.stderr.contains("diverged"), "{back:#?}");
    assert_equal(&mut oracle, &redtail, "s.db", "r.redb");
}
