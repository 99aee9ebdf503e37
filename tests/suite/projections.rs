//! An application's own types beside its rows: at every position they are what the source's own SELECT gives.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use redtail::{
    Config, KeepLatest, Kind, Project, Projected, Replica, Replicator, Row, Snapshot, Source, TableConfig,
};
use rkyv::{Archive, Serialize};
use tempfile::TempDir;

use crate::support::note;
use crate::support::oracle::Oracle;
use crate::support::writer::application;
use crate::support::{Chance, seed};

/// Of rows whose `a` is an integer: it twice, and `b`. A row whose `b` is "bad" fails.
#[derive(Archive, Serialize)]
struct Twice {
    id: i64,
    a: i64,
    b: Option<String>,
}

impl Twice {
    fn of(row: &Row, times: i64) -> redtail::Result<Option<Self>> {
        let redtail::ValueRef::Integer(a) = row.get("a")? else { return Ok(None) };
        let b = row.text("b")?.map(str::to_owned);
        if b.as_deref() == Some("bad") {
            return Err(redtail::Error::usage("this one is bad"));
        }
        assert!(b.as_deref() != Some("panic"), "as it was told to");
        Ok(Some(Self { id: row.integer("id")?.unwrap_or_default(), a: a * times, b }))
    }
}

impl Project for Twice {
    const TABLE: &'static str = "t";
    const VERSION: u32 = 1;

    fn project(row: &Row) -> redtail::Result<Option<Self>> {
        Self::of(row, 2)
    }
}

fn replicator(folder: &Path, config: &Config) -> (Replicator, Replica) {
    let source = Source::open(&folder.join("source.db").display().to_string(), config).unwrap();
    let replica = Replica::open(folder.join("replica.redb"), config).unwrap();
    (Replicator::new(source, replica.clone(), config.clone()), replica)
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(work)
}

/// Brings a replica up to date with this projection beside.
fn synced(folder: &Path, config: &Config) -> Replica {
    let (replicator, replica) = replicator(folder, config);
    block_on(replicator.projecting::<Twice>().sync_once()).unwrap();
    replica
}

type Found = (Vec<(i64, i64, Option<String>)>, usize);

/// What can be read, and how many rows have no record.
fn found(snapshot: &Snapshot) -> Found {
    let (mut rows, mut failed) = (Vec::new(), 0);
    for made in snapshot.projection::<Twice>().unwrap().scan().unwrap() {
        match made {
            Ok(made) => {
                let view = made.view().unwrap();
                let b = view.b.as_ref().map(|b| b.as_str().to_owned());
                rows.push((view.id.to_native(), view.a.to_native(), b));
            }
            Err(e) => {
                assert_eq!(e.to_string(), "table t, projection \"t\": this one is bad");
                failed += 1;
            }
        }
    }
    (rows, failed)
}

/// What the source selects: `selected` stands for the rows that are replicated.
fn wanted(oracle: &mut Oracle, db: &Path, selected: &str) -> Found {
    let of = "typeof(a) = 'integer' AND b IS";
    let rows =
        oracle.query(db, &format!("SELECT id, a * 2, b FROM {selected} WHERE {of} NOT 'bad' ORDER BY id"));
    let integer = |cell: &serde_json::Value| cell["value"].as_str().unwrap().parse().unwrap();
    let row = |row: &serde_json::Value| {
        (integer(&row[0]), integer(&row[1]), row[2]["value"].as_str().map(str::to_owned))
    };
    let rows = rows.as_array().unwrap().iter().map(row).collect();
    let failed = oracle.integers(db, &format!("SELECT count(*) FROM {selected} WHERE {of} 'bad'"));
    (rows, usize::try_from(failed[0]).unwrap())
}

/// Configurations, and what they select, as SQL.
fn configurations() -> Vec<(Config, &'static str)> {
    let of = |table: TableConfig| Config {
        tables: BTreeMap::from([("T".to_owned(), table)]),
        ..Config::default()
    };
    let filtered = TableConfig {
        filter: Some("id % 3 <> 1".to_owned()),
        mask: BTreeMap::from([("b".to_owned(), "substr(b, 1, 1)".to_owned())]),
        ..TableConfig::default()
    };
    let latest = KeepLatest { by: "n".to_owned(), rows: 12, allow_scan: false };
    let latest = TableConfig {
        keep_latest: Some(latest),
        columns: Some(["id", "a", "b", "n"].map(str::to_owned).to_vec()),
        ..TableConfig::default()
    };
    vec![
        (Config::default(), "t"),
        (of(filtered), "(SELECT id, a, substr(b, 1, 1) AS b FROM t WHERE id % 3 <> 1)"),
        (of(latest), "(SELECT id, a, b FROM t ORDER BY n DESC, id LIMIT 12)"),
    ]
}

const TABLE: [&str; 2] =
    ["CREATE TABLE t(id INTEGER PRIMARY KEY, a, b TEXT, n INTEGER NOT NULL)", "CREATE INDEX t_n ON t(n)"];

// Attacks: of a table without a row there is nothing to make, and yet it must be known that the projection is there.
#[test]
fn a_projection_of_an_empty_table_is_there_at_once_and_after_the_next_start() {
    let test = "a_projection_of_an_empty_table_is_there_at_once_and_after_the_next_start";
    let Some(mut oracle) = Oracle::start(test) else { return };
    let folder = TempDir::new().unwrap();
    let db = folder.path().join("source.db");
    application(&db, &TABLE);
    let (plain, replica) = replicator(folder.path(), &Config::default());
    block_on(plain.sync_once()).unwrap();
    drop((plain, replica));
    for sql in [
        &[][..],
        &["INSERT INTO t(id, a, b, n) VALUES (1, 5, 'x', 1), (2, 6, 'bad', 1)"],
        &["UPDATE t SET a = 7"],
    ] {
        application(&db, sql);
        let replica = synced(folder.path(), &Config::default());
        let found = found(&replica.snapshot().unwrap());
        assert_eq!(found, wanted(&mut oracle, &db, "t"), "after {sql:?}");
    }
}

fn statements(chance: &mut Chance) -> Vec<String> {
    let mut sql = Vec::new();
    for _ in 0..=chance.below(25) {
        let id = chance.below(40);
        let a = chance.pick(&["1", "-7", "2.5", "'x'", "NULL", "40"]);
        let b = chance.pick(&["'bad'", "NULL", "'good'", "'ä'", "hex(zeroblob(900))", "''"]);
        sql.push(match chance.below(12) {
            0 => format!("DELETE FROM t WHERE id = {id}"),
            1 => format!("UPDATE t SET a = {a} WHERE id % 5 = {}", id % 5),
            2 => format!("UPDATE t SET id = id + 100 WHERE id = {id} AND NOT EXISTS (SELECT 1 FROM t WHERE id = {id} + 100)"),
            3 => format!("UPDATE t SET b = {b}, n = {} WHERE id = {id}", chance.below(50)),
            4 => format!("BEGIN; DELETE FROM t WHERE id = {id}; INSERT INTO t(id, a, b, n) VALUES ({id}, {a}, {b}, 9); COMMIT"),
            _ => format!("INSERT OR REPLACE INTO t(id, a, b, n) VALUES ({id}, {a}, {b}, {})", chance.below(50)),
        });
    }
    sql
}

/// What moves a table's definition, or all its rows.
fn upheaval(round: u64) -> Vec<String> {
    let all: &[&str] = match round {
        3 => &["ALTER TABLE t ADD COLUMN c DEFAULT 'c'"],
        5 => &[
            "ALTER TABLE t RENAME TO u",
            "CREATE TABLE t(id INTEGER PRIMARY KEY, b TEXT, a, n INTEGER NOT NULL)",
            "INSERT INTO t SELECT id, b, a, n FROM u",
            "DROP TABLE u",
            "CREATE INDEX t_n ON t(n)",
        ],
        7 => &["VACUUM", "ALTER TABLE t RENAME COLUMN n TO m", "ALTER TABLE t RENAME COLUMN m TO n"],
        9 => &["DROP TABLE t", TABLE[0], TABLE[1], "INSERT INTO t VALUES (3, 4, 'new', 1)"],
        _ => &[],
    };
    all.iter().map(|s| (*s).to_owned()).collect()
}

#[test]
fn a_projection_is_what_the_source_selects_after_any_statement_schema_and_configuration() {
    let test = "a_projection_is_what_the_source_selects_after_any_statement_schema_and_configuration";
    let Some(mut oracle) = Oracle::start(test) else { return };
    let mut chance = Chance::new(test);
    let folder = TempDir::new().unwrap();
    let db = folder.path().join("source.db");
    application(&db, &TABLE);
    let configurations = configurations();
    for round in 0..14 {
        let mut sql = statements(&mut chance);
        sql.extend(upheaval(round));
        sql.extend(statements(&mut chance));
        application(&db, &sql);
        // Each of them for some rounds: what another one left out comes back.
        let (config, selected) = &configurations[usize::try_from(round / 2 % 3).unwrap()];
        let replica = synced(folder.path(), config);
        let want = wanted(&mut oracle, &db, selected);
        assert_eq!(found(&replica.snapshot().unwrap()), want, "round {round}");
        if round % 4 == 1 {
            replica.compact().unwrap();
            assert_eq!(found(&replica.snapshot().unwrap()), want, "round {round}, compacted");
        }
        // By key, by a range from its end, and by what there is not.
        let snapshot = replica.snapshot().unwrap();
        let twice = snapshot.projection::<Twice>().unwrap();
        for (id, a, _) in &want.0 {
            assert_eq!(twice.get(*id).unwrap().unwrap().view().unwrap().a, *a);
        }
        let mut back: Vec<i64> =
            twice.range(5..30).unwrap().rev().flatten().map(|r| r.view().unwrap().id.to_native()).collect();
        back.reverse();
        let ids = want.0.iter().map(|(id, ..)| *id);
        assert_eq!(back, ids.filter(|id| (5..30).contains(id)).collect::<Vec<_>>());
        assert!(twice.get(1_000).unwrap().is_none());
    }
}

/// The same in its next version, with another field.
#[derive(Archive, Serialize)]
struct Thrice {
    a: i64,
    other: u8,
}

impl Project for Thrice {
    const TABLE: &'static str = "T";
    const NAME: &'static str = "t";
    const VERSION: u32 = 2;

    fn project(row: &Row) -> redtail::Result<Option<Self>> {
        Ok(row.integer("a")?.map(|a| Self { a: a * 3, other: 1 }))
    }
}

/// Under a name of its own, in the form and version of [`Twice`], and with another result.
#[derive(Archive, Serialize)]
struct Wrong {
    id: i64,
    a: i64,
    b: Option<String>,
}

impl Project for Wrong {
    const TABLE: &'static str = "t";
    const VERSION: u32 = 1;

    fn project(row: &Row) -> redtail::Result<Option<Self>> {
        let id = row.integer("id")?.unwrap_or_default();
        let wrong = Twice::of(row, 5)?.map(|Twice { id, a, b }| Self { id, a, b });
        // Left out where it should be, there where it should not, and right.
        Ok(match id % 4 {
            0 => None,
            1 => Some(Self { id, a: 0, b: None }),
            2 => Twice::of(row, 2)?.map(|Twice { id, a, b }| Self { id, a, b }),
            _ => wrong,
        })
    }
}

#[test]
fn a_projection_has_the_version_that_is_kept_and_goes_with_who_does_not_know_it() {
    let folder = TempDir::new().unwrap();
    application(&folder.path().join("source.db"), &TABLE);
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 25000)";
    application(
        &folder.path().join("source.db"),
        &[format!("INSERT INTO t {rows} SELECT i, i, 'b', 0 FROM n")],
    );
    let config = Config::default();
    let (without, replica) = replicator(folder.path(), &config);
    let said = |replica: &Replica| {
        let error = replica.snapshot().unwrap().projection::<Twice>().err().unwrap();
        assert_eq!(error.kind(), Kind::Usage);
        error.to_string()
    };
    block_on(without.sync_once()).unwrap();
    let none =
        "table t: no projection \"t\" in version 1; it has none; a replicator that is `projecting` makes it";
    assert_eq!(said(&replica), none);
    drop((without, replica));

    // Made of the rows that are there.
    let replica = synced(folder.path(), &config);
    let (all, _) = found(&replica.snapshot().unwrap());
    assert!(all.len() == 25_000 && all.iter().all(|(id, a, _)| *a == 2 * id), "{}", all.len());
    drop(replica);

    // Another version of another type takes its place.
    let (newer, replica) = replicator(folder.path(), &config);
    let newer = newer.projecting::<Thrice>();
    block_on(newer.sync_once()).unwrap();
    assert!(said(&replica).contains("version 2 is there"), "{}", said(&replica));
    let snapshot = replica.snapshot().unwrap();
    let thrice = snapshot.projection::<Thrice>().unwrap();
    let view: Vec<i64> = thrice
        .scan()
        .unwrap()
        .map(|r| r.unwrap().view().map(|v| v.a.to_native() * i64::from(v.other)).unwrap())
        .collect();
    assert!(view.len() == 25_000 && view.iter().zip(1..).all(|(a, id)| *a == 3 * id));
    drop(snapshot);
    drop((newer, replica));

    // Who does not know it takes it out.
    let (without, replica) = replicator(folder.path(), &config);
    block_on(without.sync_once()).unwrap();
    assert_eq!(said(&replica), none);
    drop((without, replica));

    // Two under one name are refused before anything is read.
    let (both, _replica) = replicator(folder.path(), &config);
    let both = both.projecting::<Twice>().projecting::<Twice>().projecting::<Wrong>();
    let refused = block_on(both.sync_once()).unwrap_err();
    assert_eq!(
        (refused.kind(), refused.to_string().as_str()),
        (Kind::Usage, "table t: two projections are called \"t\"; name one otherwise (Project::NAME)")
    );
}

#[test]
fn a_row_whose_projection_fails_or_panics_is_told_and_stops_nothing() {
    let folder = TempDir::new().unwrap();
    let db = folder.path().join("source.db");
    application(&db, &TABLE);
    application(&db, &["INSERT INTO t VALUES (1, 1, 'good', 0), (2, 2, 'bad', 0), (3, 3, 'panic', 0)"]);
    let replica = synced(folder.path(), &Config::default());
    let read = |replica: &Replica, id: i64| {
        let snapshot = replica.snapshot().unwrap();
        let got = snapshot.projection::<Twice>().unwrap().get(id);
        got.map(|found| found.map(|f: Projected<Twice>| f.view().unwrap().a.to_native()))
    };
    assert_eq!(read(&replica, 1).unwrap(), Some(2));
    for (id, why) in [(2, "this one is bad"), (3, "it panicked")] {
        let error = read(&replica, id).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string()),
            (Kind::Mismatch, format!("table t, projection \"t\": {why}"))
        );
    }
    let snapshot = replica.snapshot().unwrap();
    assert_eq!(snapshot.count("t").unwrap(), 3, "the rows are there");
    let scanned: Vec<bool> =
        snapshot.projection::<Twice>().unwrap().scan().unwrap().map(|r| r.is_ok()).collect();
    assert_eq!(scanned, [true, false, false], "a scan goes on behind it");
    drop((snapshot, replica));
    // A row that can be projected again is there again.
    application(&db, &["UPDATE t SET b = 'good'"]);
    let replica = synced(folder.path(), &Config::default());
    assert_eq!([1, 2, 3].map(|id| read(&replica, id).unwrap()), [Some(2), Some(4), Some(6)]);
}

#[test]
fn verify_compares_projections_with_their_rows_and_repair_mends_them() {
    let folder = TempDir::new().unwrap();
    let db = folder.path().join("source.db");
    application(&db, &TABLE);
    application(
        &db,
        &[
            "INSERT INTO t VALUES (4, 4, 'x', 0), (5, 'no', 'x', 0), (6, 6, 'x', 0), (7, 7, 'x', 0), (9, 9, 'bad', 0)",
        ],
    );
    let config = Config::default();
    let (wrong, replica) = replicator(folder.path(), &config);
    block_on(wrong.projecting::<Wrong>().sync_once()).unwrap();
    drop(replica);
    let (right, replica) = replicator(folder.path(), &config);
    let right = right.projecting::<Twice>();
    let verified = block_on(right.verify(&[], false)).unwrap();
    let keys: Vec<i64> = verified
        .differences
        .iter()
        .map(|d| match (d.what, &d.key[..]) {
            ("has another record in a projection", [redtail::Value::Real(key)]) => {
                format!("{key}").parse().unwrap()
            }
            ("has another record in a projection", [redtail::Value::Integer(key)]) => *key,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!((keys, verified.count), (vec![4, 5, 7], 3));
    assert_eq!(found(&replica.snapshot().unwrap()).0.len(), 3, "nothing was written");
    assert_eq!(block_on(right.verify(&[], true)).unwrap().count, 3);
    assert_eq!(block_on(right.verify(&[], false)).unwrap().count, 0);
    let x = || Some("x".to_owned());
    assert_eq!(found(&replica.snapshot().unwrap()), (vec![(4, 8, x()), (6, 12, x()), (7, 14, x())], 1));
}

#[test]
fn a_damaged_record_of_a_projection_is_an_error() {
    let folder = TempDir::new().unwrap();
    let db = folder.path().join("source.db");
    application(&db, &TABLE);
    application(&db, &["INSERT INTO t VALUES (1, 1, 'one', 0), (2, 2, 'two', 0)"]);
    let database = Arc::new(redb::Database::create(folder.path().join("app.redb")).unwrap());
    let replica = Replica::share(Arc::clone(&database)).unwrap();
    let source = Source::open(&db.display().to_string(), &Config::default()).unwrap();
    let replicator = Replicator::new(source, replica.clone(), Config::default()).projecting::<Twice>();
    block_on(replicator.sync_once()).unwrap();
    let projected: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("redtail.projected");
    let records = |change: &dyn Fn(&mut Vec<u8>)| {
        let txn = database.begin_write().unwrap();
        {
            use redb::ReadableTable as _;
            let mut table = txn.open_table(projected).unwrap();
            let (key, record) = {
                let (key, record) = table.first().unwrap().unwrap();
                (key.value().to_vec(), record.value().to_vec())
            };
            let mut changed = record;
            change(&mut changed);
            table.insert(key.as_slice(), changed.as_slice()).unwrap();
        }
        txn.commit().unwrap();
        let snapshot = replica.snapshot().unwrap();
        let twice = snapshot.projection::<Twice>().unwrap();
        assert_eq!(twice.get(2).unwrap().unwrap().view().unwrap().a, 4);
        let mut all = twice.scan().unwrap();
        let first = all.next().unwrap().map(|_| ()).map_err(|e| e.kind());
        assert_eq!(first.is_err(), all.next().is_none(), "a scan ends where it finds damage");
        (twice.get(1).map(|_| ()).map_err(|e| e.kind()), first)
    };
    let damaged = (Err(Kind::Damaged), Err(Kind::Damaged));
    assert_eq!(records(&|_| {}), (Ok(()), Ok(())));
    assert_eq!(records(&|record| *record.last_mut().unwrap() ^= 1), damaged);
    assert_eq!(records(&|record| record.truncate(11)), damaged);
    assert_eq!(records(&|record| record[0] = 9), damaged);
}

/// Set in a process of its own that follows until it is killed.
const CHILD: &str = "REDTAIL_PROJECTING_CHILD";

#[test]
fn a_follower_that_is_killed_leaves_its_projection_at_the_rows() {
    let test = "a_follower_that_is_killed_leaves_its_projection_at_the_rows";
    if let Some(folder) = std::env::var_os(CHILD) {
        let (replicator, _replica) = replicator(Path::new(&folder), &Config::default());
        let replicator = replicator.projecting::<Twice>();
        block_on(async {
            replicator.sync_once().await.unwrap();
            println!("\nlevel");
            replicator.run(std::future::pending()).await.unwrap();
        });
        return;
    }
    let Some(mut oracle) = Oracle::start(test) else { return };
    let mut chance = Chance::seeded(seed(test));
    let folder = TempDir::new().unwrap();
    let db = folder.path().join("source.db");
    application(&db, &["PRAGMA journal_mode = WAL", TABLE[0], TABLE[1]]);
    let fault = std::env::var("REDTAIL_FAULT").unwrap_or_default();
    for life in 0..6 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("projections::{test}"), "--nocapture"])
            .env(CHILD, folder.path())
            .env("REDTAIL_FAULT", &fault)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.map_while(Result::ok).any(|line| line == "level"), "life {life}: it never was level");
        for _ in 0..chance.below(30) {
            let mut sql = statements(&mut chance);
            sql.truncate(3);
            application(&db, &sql);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // As it was left, before anybody writes to it: of the rows that are there.
        let replica = Replica::open_to_read(folder.path().join("replica.redb"), &Config::default()).unwrap();
        let snapshot = replica.snapshot().unwrap();
        let rows: Vec<(i64, i64)> = snapshot
            .scan("t")
            .unwrap()
            .map(Result::unwrap)
            .filter(|r| r.text("b").unwrap() != Some("bad"))
            .filter_map(|r| Some((r.integer("id").unwrap()?, r.integer("a").ok().flatten()? * 2)))
            .collect();
        let made: Vec<(i64, i64)> = found(&snapshot).0.into_iter().map(|(id, a, _)| (id, a)).collect();
        assert_eq!(made, rows, "life {life}");
    }
    let replica = synced(folder.path(), &Config::default());
    assert_eq!(found(&replica.snapshot().unwrap()), wanted(&mut oracle, &db, "t"));
}

/// The negative control: a record that stays when its row changes.
#[test]
fn a_projection_that_stays_behind_its_row_is_caught() {
    if !cfg!(debug_assertions) {
        note("skipped: projections: release builds have no deliberate faults");
        return;
    }
    let test =
        "projections::a_projection_is_what_the_source_selects_after_any_statement_schema_and_configuration";
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("REDTAIL_FAULT", "stale-projection")
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let is_caught = !output.status.success() && said.contains("assertion `left == right` failed: round");
    assert!(is_caught || said.contains("skipped:"), "{said}");
}
