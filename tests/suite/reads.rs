//! Reads of an embedding application: ranges, beginnings and indexes are held against the source's own SELECT; values
//! come as the type that is asked for, or not at all.

use std::collections::BTreeMap;
use std::path::Path;

use redtail::{
    Config, Key, KeyRange, Kind, Replica, Replicator, Row, Scan, Snapshot, Source, TableConfig, Value,
};
use serde::Deserialize;
use serde_json::Value as Json;
use tempfile::TempDir;

use crate::support::oracle::Oracle;
use crate::support::redtail::Redtail;
use crate::support::writer::application;
use crate::support::{Chance, note};

fn synced(folder: &Path, config: &Config) -> redtail::Result<Replica> {
    let source = Source::open(&folder.join("source.db").display().to_string(), config)?;
    let replica = Replica::open(folder.join("replica.redb"), config)?;
    let replicator = Replicator::new(source, replica.clone(), config.clone());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(replicator.sync_once())?;
    Ok(replica)
}

/// The rowids or ids that a scan gives, as text.
fn ids(rows: impl Iterator<Item = redtail::Result<Row>>) -> Vec<String> {
    rows.map(|row| row.unwrap().integer("id").unwrap().unwrap().to_string()).collect()
}

/// Those that the source selects.
fn selected(oracle: &mut Oracle, db: &Path, wanted: &str) -> Vec<String> {
    let rows = oracle.query(db, &format!("SELECT id {wanted}"));
    let id = |row: &Json| row[0]["value"].as_str().unwrap().to_owned();
    rows.as_array().unwrap().iter().map(id).collect()
}

/// A value as SQL, and as redtail has it.
fn some_value(chance: &mut Chance) -> (String, Value) {
    let n = i64::try_from(chance.below(12)).unwrap() - 4;
    match chance.below(6) {
        0 => (n.to_string(), Value::Integer(n)),
        1 => (format!("{n}.5"), Value::Real(format!("{n}.5").parse().unwrap())),
        2 => (format!("x'{:02x}'", n + 4), Value::Blob(vec![u8::try_from(n + 4).unwrap()])),
        3 => (format!("{n}.0"), Value::from(f64::from(i32::try_from(n).unwrap()))),
        _ => {
            let text: String =
                (0..chance.below(4)).map(|_| chance.pick(&['a', 'B', 'b', 'ä', ' '])).collect();
            (format!("'{text}'"), Value::from(text))
        }
    }
}

#[test]
fn ranges_and_beginnings_of_keys_are_what_the_source_selects_from_either_end() {
    let test = "ranges_and_beginnings_of_keys_are_what_the_source_selects_from_either_end";
    let Some(mut oracle) = Oracle::start(test) else { return };
    let mut chance = Chance::new(test);
    let folder = TempDir::new().unwrap();
    let db = folder.path().join("source.db");
    let mut sql = vec!["CREATE TABLE t(id INTEGER, k, n, PRIMARY KEY(k, n)) WITHOUT ROWID".to_owned()];
    sql.push("CREATE TABLE c(id INTEGER, k TEXT COLLATE NOCASE PRIMARY KEY) WITHOUT ROWID".to_owned());
    for id in 0..300 {
        let (k, n) = (some_value(&mut chance).0, some_value(&mut chance).0);
        sql.push(format!("INSERT OR IGNORE INTO t VALUES ({id}, {k}, {n})"));
        sql.push(format!("INSERT OR IGNORE INTO c VALUES ({id}, {k})"));
    }
    application(&db, &sql);
    let replica = synced(folder.path(), &Config::default()).unwrap();
    let snapshot = replica.snapshot().unwrap();
    let mut check = |range: KeyRange, condition: &str| {
        let want = selected(&mut oracle, &db, &format!("FROM t {condition} ORDER BY k, n"));
        assert_eq!(ids(snapshot.range("t", range.clone()).unwrap()), want, "{condition}");
        let mut back = ids(snapshot.range("t", range.clone()).unwrap().rev());
        back.reverse();
        assert_eq!(back, want, "{condition}, backwards");
        // From both ends at once, each row comes once.
        let mut both = snapshot.range("t", range).unwrap();
        let mut met = Vec::new();
        while let Some(row) = both.next() {
            met.push(row);
            met.extend(both.next_back());
        }
        assert_eq!(met.len(), want.len(), "{condition}, from both ends");
    };
    for _ in 0..60 {
        let ((a, av), (b, bv)) = (some_value(&mut chance), some_value(&mut chance));
        let ((c, cv), (d, dv)) = (some_value(&mut chance), some_value(&mut chance));
        check((av.clone()..bv.clone()).into(), &format!("WHERE k >= {a} AND k < {b}"));
        check((av.clone()..=bv.clone()).into(), &format!("WHERE k >= {a} AND k <= {b}"));
        let (from, to): (Key, Key) = ((av, cv).into(), (bv, dv).into());
        check(
            (from.values()..=to.values()).into(),
            &format!("WHERE (k, n) >= ({a}, {c}) AND (k, n) <= ({b}, {d})"),
        );
        check((from.values()..).into(), &format!("WHERE (k, n) >= ({a}, {c})"));
        let beyond = (std::ops::Bound::Excluded(from.values()), std::ops::Bound::Unbounded);
        check(beyond.into(), &format!("WHERE (k, n) > ({a}, {c})"));
        check((..to.values()).into(), &format!("WHERE (k, n) < ({b}, {d})"));
    }
    check((..).into(), "");
    for text in ["", "a", "b", "ab", "ä", "Ba"] {
        let of = |table: &str, collate: &str| {
            format!(
                "FROM {table} WHERE typeof(k) = 'text' AND substr(k, 1, {}) = '{text}' {collate} ORDER BY k",
                text.chars().count()
            )
        };
        let want = selected(&mut oracle, &db, &format!("{}, n", of("t", "COLLATE BINARY")));
        assert_eq!(ids(snapshot.prefix("t", text).unwrap()), want, "{text:?}");
        let want = selected(&mut oracle, &db, &of("c", "COLLATE NOCASE"));
        assert_eq!(ids(snapshot.prefix("c", text).unwrap()), want, "{text:?}, NOCASE");
    }
    let total = selected(&mut oracle, &db, "FROM t");
    assert_eq!(snapshot.count("t").unwrap(), total.len() as u64);
    for (what, error) in [
        ("a number has no beginning", snapshot.prefix("t", 5).map(drop)),
        ("too many values", snapshot.range("t", (1, 2, 3)..).map(drop)),
        ("no such table", snapshot.range("tt", ..).map(drop)),
    ] {
        assert_eq!(error.unwrap_err().kind(), Kind::Usage, "{what}");
    }
}

fn indexed(index: &[&[&str]]) -> Config {
    let index = index.iter().map(|i| i.iter().map(|c| (*c).to_owned()).collect()).collect();
    let tables = BTreeMap::from([("t".to_owned(), TableConfig { index, ..TableConfig::default() })]);
    Config { tables, ..Config::default() }
}

fn compare(oracle: &mut Oracle, db: &Path, snapshot: &Snapshot, chance: &mut Chance) {
    let by = |columns: &[&str]| snapshot.index("t", columns).unwrap();
    let back = |scan: Scan| {
        let mut all = ids(scan.rev());
        all.reverse();
        all
    };
    let want = selected(oracle, db, "FROM t ORDER BY a, id");
    assert_eq!(ids(by(&["a"]).scan().unwrap()), want);
    assert_eq!(back(by(&["A"]).scan().unwrap()), want);
    let want = selected(oracle, db, "FROM t ORDER BY b COLLATE BINARY, a, id");
    assert_eq!(ids(by(&["b", "a"]).scan().unwrap()), want);
    for _ in 0..10 {
        let ((a, av), (b, bv)) = (some_value(chance), some_value(chance));
        let want = selected(oracle, db, &format!("FROM t WHERE a >= {a} AND a < {b} ORDER BY a, id"));
        assert_eq!(ids(by(&["a"]).range(av.clone()..bv.clone()).unwrap()), want, "{a}..{b}");
        let want =
            selected(oracle, db, &format!("FROM t WHERE b COLLATE BINARY = {a} AND a > {b} ORDER BY a, id"));
        let range = (std::ops::Bound::Excluded((av.clone(), bv)), std::ops::Bound::Included((av,)));
        let range: (std::ops::Bound<Key>, std::ops::Bound<Key>) =
            (range.0.map(Into::into), range.1.map(Into::into));
        assert_eq!(ids(by(&["b", "a"]).range(range).unwrap()), want, "{a}, > {b}");
    }
    let want =
        selected(oracle, db, "FROM t WHERE typeof(a) = 'text' AND substr(a, 1, 1) = 'b' ORDER BY a, id");
    assert_eq!(ids(by(&["a"]).prefix("b").unwrap()), want);
}

#[test]
fn indexes_are_what_the_source_sorts_after_any_statement_and_follow_the_configuration() {
    let test = "indexes_are_what_the_source_sorts_after_any_statement_and_follow_the_configuration";
    let Some(mut oracle) = Oracle::start(test) else { return };
    let mut chance = Chance::new(test);
    let folder = TempDir::new().unwrap();
    let db = folder.path().join("source.db");
    application(&db, &["CREATE TABLE t(id INTEGER PRIMARY KEY, a, b COLLATE NOCASE)"]);
    let both = indexed(&[&["a"], &["b", "a"]]);
    for round in 0..12 {
        let mut sql = Vec::new();
        for _ in 0..chance.below(25) {
            let (id, (a, _), (b, _)) = (chance.below(60), some_value(&mut chance), some_value(&mut chance));
            sql.push(match chance.below(12) {
                0 => format!("DELETE FROM t WHERE id = {id}"),
                1 => format!("UPDATE t SET a = {a} WHERE id % 5 = {}", id % 5),
                2 => format!("UPDATE t SET a = {a} || hex(zeroblob(1500)) WHERE id = {id}"),
                3 => format!("UPDATE t SET b = {b}, a = NULL WHERE id = {id}"),
                _ => format!("INSERT OR REPLACE INTO t(id, a, b) VALUES ({id}, {a}, {b})"),
            });
        }
        match round {
            4 => sql.push("ALTER TABLE t ADD COLUMN c DEFAULT 'c'".to_owned()),
            7 => sql.extend([
                "ALTER TABLE t RENAME TO u".into(),
                "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b COLLATE NOCASE, c)".into(),
                "INSERT INTO t SELECT * FROM u".into(),
                "DROP TABLE u".into(),
            ]),
            _ => {}
        }
        application(&db, &sql);
        let replica = synced(folder.path(), &both).unwrap();
        compare(&mut oracle, &db, &replica.snapshot().unwrap(), &mut chance);
    }

    // Another list: what is new is built, what is gone says so, the rows are not read again.
    let replica = synced(folder.path(), &indexed(&[&["c"], &["a"]])).unwrap();
    let snapshot = replica.snapshot().unwrap();
    let want = selected(&mut oracle, &db, "FROM t ORDER BY c, id");
    let sorted = |scan: Scan| {
        let mut all = ids(scan);
        all.sort();
        all
    };
    let found = sorted(snapshot.index("t", &["c"]).unwrap().scan().unwrap());
    assert_eq!(found.len(), want.len());
    let gone = snapshot.index("t", &["b", "a"]).err().unwrap();
    assert_eq!(gone.kind(), Kind::Usage);
    assert_eq!(
        gone.to_string(),
        "table t: no index (b, a); it has (a), (c); `index` in the configuration declares them"
    );
    drop((snapshot, replica));
    let wrong = synced(folder.path(), &indexed(&[&["nosuch"]])).err().unwrap();
    assert_eq!(wrong.kind(), Kind::Usage);
    assert!(wrong.to_string().contains("tables.t.index") && wrong.to_string().contains("nosuch"), "{wrong}");
}

// Attacks: of a table without a row there is nothing to build, and yet it must be known that the index is there.
#[test]
fn an_index_of_an_empty_table_is_there_at_once_and_after_the_next_start() {
    let test = "an_index_of_an_empty_table_is_there_at_once_and_after_the_next_start";
    let Some(mut oracle) = Oracle::start(test) else { return };
    let folder = TempDir::new().unwrap();
    let db = folder.path().join("source.db");
    application(&db, &["CREATE TABLE t(id INTEGER PRIMARY KEY, a, b COLLATE NOCASE)"]);
    drop(synced(folder.path(), &Config::default()).unwrap());
    let by_a = indexed(&[&["a"]]);
    for sql in [
        &[][..],
        &["INSERT INTO t(id, a) VALUES (1, 'z'), (2, 'a'), (3, 'm')"],
        &["UPDATE t SET a = 'b' WHERE id = 1"],
    ] {
        application(&db, sql);
        let replica = synced(folder.path(), &by_a).unwrap();
        let found = ids(replica.snapshot().unwrap().index("t", &["a"]).unwrap().scan().unwrap());
        assert_eq!(found, selected(&mut oracle, &db, "FROM t ORDER BY a, id"), "after {sql:?}");
    }
}

/// The negative control, and what a damaged index comes to: an error, never wrong rows.
#[test]
fn an_index_that_does_not_fit_its_rows_is_an_error() {
    if !cfg!(debug_assertions) {
        note("skipped: indexes: release builds have no deliberate faults");
        return;
    }
    let folder = TempDir::new().unwrap();
    let redtail = Redtail::new(folder.path()).with_env("REDTAIL_FAULT", "stale-index");
    application(
        &redtail.path("source.db"),
        &["CREATE TABLE t(id INTEGER PRIMARY KEY, a)", "INSERT INTO t VALUES (1, 'x'), (2, 'y')"],
    );
    std::fs::write(redtail.path("redtail.toml"), "[tables.t]\nindex = [[\"a\"]]\n").unwrap();
    redtail.sync("source.db", "replica.redb");
    let read = || {
        let replica = Replica::open_to_read(redtail.path("replica.redb"), &Config::default()).unwrap();
        let snapshot = replica.snapshot().unwrap();
        let rows: redtail::Result<Vec<Row>> = snapshot.index("t", &["a"]).unwrap().scan().unwrap().collect();
        rows.map(|rows| rows.len())
    };
    assert_eq!(read().unwrap(), 2);
    application(&redtail.path("source.db"), &["UPDATE t SET a = 'z' WHERE id = 1"]);
    redtail.sync("source.db", "replica.redb");
    let stale = read().unwrap_err();
    assert_eq!(stale.kind(), Kind::Damaged);
    assert!(stale.to_string().contains("an index of table t (a) does not fit its rows"), "{stale}");
}

#[test]
fn an_index_whose_building_is_killed_is_built_on_from_there() {
    let test = "an_index_whose_building_is_killed_is_built_on_from_there";
    let mut chance = Chance::new(test);
    let folder = TempDir::new().unwrap();
    let redtail = Redtail::new(folder.path());
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000)";
    application(
        &redtail.path("source.db"),
        &[
            "CREATE TABLE t(id INTEGER PRIMARY KEY, a)".to_owned(),
            format!("INSERT INTO t {rows} SELECT i, (i * 7919) % 1000 FROM n"),
        ],
    );
    redtail.sync("source.db", "replica.redb");
    std::fs::write(redtail.path("redtail.toml"), "[tables.t]\nindex = [[\"a\"]]\n").unwrap();
    for _ in 0..4 {
        let mut run = redtail.spawn_run("source.db", "replica.redb");
        run.live();
        std::thread::park_timeout(std::time::Duration::from_millis(chance.below(120)));
        run.kill9();
    }
    redtail.sync("source.db", "replica.redb");
    let replica = Replica::open(redtail.path("replica.redb"), &Config::default()).unwrap();
    let snapshot = replica.snapshot().unwrap();
    let mut last = (-1, -1);
    let mut count = 0;
    for row in snapshot.index("t", &["a"]).unwrap().scan().unwrap() {
        let row = row.unwrap();
        let at = (row.integer("a").unwrap().unwrap(), row.integer("id").unwrap().unwrap());
        assert!(at > last && at.0 == (at.1 * 7919) % 1000, "{at:?} after {last:?}");
        last = at;
        count += 1;
    }
    assert_eq!(count, 60_000);
}

#[derive(Deserialize, Debug, PartialEq)]
struct Episode<'a> {
    id: u32,
    name: &'a str,
    reward: Option<f64>,
    done: bool,
    state: State,
    vector: Vec<u8>,
}

#[derive(Deserialize, Debug, PartialEq)]
#[serde(rename_all = "lowercase")]
enum State {
    Open,
    Closed,
}

const EPISODES: &[&str] = &[
    "CREATE TABLE episodes(id INTEGER PRIMARY KEY, name TEXT, reward REAL, done, state TEXT, vector BLOB, other)",
    "INSERT INTO episodes VALUES (1, 'first', 0.5, 1, 'open', x'010203', 7), (2, NULL, NULL, 0, 'closed', x'', 'x'),
       (3, CAST(x'ff' AS TEXT), 3, 2, 'secret', zeroblob(3000), NULL)",
];

#[test]
fn values_come_as_the_type_that_is_asked_for_and_the_error_names_table_column_and_both_types() {
    let folder = TempDir::new().unwrap();
    application(&folder.path().join("source.db"), EPISODES);
    let replica = synced(folder.path(), &Config::default()).unwrap();
    let snapshot = replica.snapshot().unwrap();
    let row = |id: i64| snapshot.get("episodes", id).unwrap().unwrap();
    let (one, two, three) = (row(1), row(2), row(3));
    assert_eq!((one.text("NAME").unwrap(), one.text(1).unwrap()), (Some("first"), Some("first")));
    assert_eq!((one.integer("id").unwrap(), one.real("reward").unwrap()), (Some(1), Some(0.5)));
    assert_eq!(one.blob("vector").unwrap(), Some(&[1, 2, 3][..]));
    assert_eq!((two.text("name").unwrap(), two.real("reward").unwrap()), (None, None));
    assert!(two.is_null("name").unwrap() && !one.is_null("name").unwrap());
    assert_eq!(three.blob("vector").unwrap().map(<[u8]>::len), Some(3000), "a long value");
    let said = |e: redtail::Error, kind: Kind, text: &str| {
        assert_eq!((e.kind(), e.to_string().as_str()), (kind, text));
    };
    let of = |column: &str, text: &str| format!("table episodes, column {column}: {text}");
    said(
        one.integer("name").unwrap_err(),
        Kind::Mismatch,
        &of("name", "an integer was expected, text is there"),
    );
    said(one.real("id").unwrap_err(), Kind::Mismatch, &of("id", "a real was expected, an integer is there"));
    said(one.text(5).unwrap_err(), Kind::Mismatch, &of("vector", "text was expected, a blob is there"));
    said(
        three.text("name").unwrap_err(),
        Kind::Mismatch,
        &of("name", "text in UTF-8 was expected, text that is not UTF-8 is there"),
    );
    said(
        one.text("nam").unwrap_err(),
        Kind::Usage,
        "table episodes: column \"nam\" is not known; did you mean \"name\"?",
    );
    said(
        one.text(9).unwrap_err(),
        Kind::Usage,
        "table episodes: has 7 columns, so there is no number 9 (they count from 0)",
    );
}

type Columns<'a> = (i64, Option<&'a str>, Option<f64>, u8, String, Vec<u8>, Option<String>);

#[derive(Deserialize, Debug)]
struct Stateful {
    #[serde(rename = "state")]
    _state: State,
}

#[derive(Deserialize, Debug)]
struct Small {
    #[serde(rename = "done")]
    _done: bool,
}

#[derive(Deserialize, Debug)]
struct Other {
    #[serde(rename = "nosuch")]
    _nosuch: i64,
}

#[test]
fn rows_become_the_applications_own_types_or_an_error_that_tells_no_value() {
    let folder = TempDir::new().unwrap();
    application(&folder.path().join("source.db"), EPISODES);
    let replica = synced(folder.path(), &Config::default()).unwrap();
    let snapshot = replica.snapshot().unwrap();
    let row = |id: i64| snapshot.get("episodes", id).unwrap().unwrap();
    let (one, two, three) = (row(1), row(2), row(3));
    let of = |column: &str, text: &str| format!("table episodes, column {column}: {text}");
    let misfit = |e: redtail::Error, text: &str| {
        assert_eq!((e.kind(), e.to_string().as_str()), (Kind::Mismatch, text));
    };
    let episode: Episode = one.decode().unwrap();
    let want = Episode {
        id: 1,
        name: "first",
        reward: Some(0.5),
        done: true,
        state: State::Open,
        vector: vec![1, 2, 3],
    };
    assert_eq!(episode, want);
    let columns: Columns = two.decode().unwrap();
    assert_eq!(columns, (2, None, None, 0, "closed".to_owned(), vec![], Some("x".to_owned())));
    misfit(two.decode::<Episode>().unwrap_err(), &of("name", "text was expected, NULL is there"));
    // What is there is not told: it may be a secret.
    misfit(
        three.decode::<Stateful>().unwrap_err(),
        &of("state", "one of open, closed was expected, other text is there"),
    );
    misfit(
        three.decode::<Small>().unwrap_err(),
        &of("done", "0 or 1 was expected, another integer is there"),
    );
    misfit(one.decode::<Other>().unwrap_err(), "table episodes: there is no column \"nosuch\"");
}
