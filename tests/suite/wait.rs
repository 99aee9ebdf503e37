//! `wait` and `rebuild`, with the real binary and with the library: a position reached is one that can be read.

use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::Duration;

use redtail::{Config, Kind, Occasions, Position, Replica, Replicator, Source, Value};
use tempfile::TempDir;

use crate::support::oracle::Oracle;
use crate::support::redtail::{Redtail, finish};
use crate::support::writer::application;
use crate::support::{assert_equal, note, poll};

const SHOP: &[&str] = &[
    "PRAGMA journal_mode = WAL",
    "CREATE TABLE items(id INTEGER PRIMARY KEY, name TEXT)",
    "CREATE TABLE parts(id INTEGER PRIMARY KEY, name TEXT)",
    "INSERT INTO items VALUES (1, 'lamp'), (2, 'table')",
    "INSERT INTO parts VALUES (1, 'bulb')",
];

fn shop() -> (TempDir, Redtail) {
    let folder = TempDir::new().unwrap();
    let redtail = Redtail::new(folder.path());
    application(&redtail.path("source.db"), SHOP);
    redtail.sync("source.db", "replica.redb");
    (folder, redtail)
}

/// The head of the source, as redtail tells it.
fn head(redtail: &Redtail) -> Position {
    let config = Config::default();
    let source = Source::open(&redtail.path("source.db").display().to_string(), &config).unwrap();
    block_on(source.head()).unwrap().unwrap()
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(work)
}

/// A command that is under way.
fn spawned(redtail: &Redtail, args: &[&str]) -> Child {
    let mut command = redtail.command(std::path::Path::new(env!("CARGO_BIN_EXE_redtail")));
    command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn wait_returns_when_the_position_can_be_read_and_not_before() {
    let (_folder, redtail) = shop();
    let reached = head(&redtail);
    let wait = |position: &str| redtail.run(&["wait", position, "-r", "replica.redb", "--timeout", "300ms"]);
    // Nobody follows: what is there counts, what is not there is not reached.
    let there = wait(&reached.to_string());
    assert_eq!((there.code, there.stdout.trim()), (Some(0), reached.to_string().as_str()), "{there:?}");
    let next = Position { seq: reached.seq + 1, ..reached };
    let missing = wait(&next.to_string());
    assert_eq!(missing.code, Some(1), "{missing:?}");
    assert!(missing.stderr.contains("not reached in time; nothing follows it now"), "{missing:?}");

    // Started before `run`, and before the write: it ends after both.
    let waiting = spawned(&redtail, &["wait", &next.to_string(), "-r", "replica.redb", "--timeout", "60s"]);
    let mut run = redtail.spawn_run("source.db", "replica.redb");
    run.caught_up();
    let late = redtail.run(&["wait", &next.to_string(), "-r", "replica.redb", "--timeout", "200ms"]);
    assert_eq!(late.code, Some(1), "{late:?}");
    late.assert_one_line(
        "a position to come",
        &[&next.to_string(), "not reached within", &format!("at {}", reached.seq)],
    );
    application(&redtail.path("source.db"), &["INSERT INTO items VALUES (3, 'chair')"]);
    let done = finish(waiting, "wait");
    assert_eq!((done.code, done.stdout.trim()), (Some(0), next.to_string().as_str()), "{done:?}");
    assert!(redtail.ok(&["get", "items", "3", "-r", "replica.redb"]).contains("chair"));

    // The head now, as the source says, or as the running one asks.
    for args in [&["wait", "-s", "source.db", "-r", "replica.redb"][..], &["wait", "-r", "replica.redb"]] {
        application(&redtail.path("source.db"), &["INSERT INTO parts(name) VALUES ('cord')"]);
        assert_eq!(redtail.ok(args).trim(), head(&redtail).to_string(), "{args:?}");
    }
    // A position of a log that is not this source's is never reached, and that is said at once.
    let other = format!("{}:1", "0".repeat(32));
    let never = redtail.run(&["wait", &other, "-r", "replica.redb", "--timeout", "60s"]);
    assert_eq!(never.code, Some(1), "{never:?}");
    never.assert_one_line("another log", &[&other, "the source's log is another one now"]);
    run.stop();
}

#[test]
fn rebuild_brings_back_what_a_lost_delta_left_wrong_alone_and_beside_a_running_run() {
    if !cfg!(debug_assertions) {
        note("skipped: rebuild: release builds have no deliberate faults");
        return;
    }
    let test = "rebuild_brings_back_what_a_lost_delta_left_wrong_alone_and_beside_a_running_run";
    let Some(mut oracle) = Oracle::start(test) else { return };
    let (_folder, redtail) = shop();
    let lossy = redtail.with_env("REDTAIL_FAULT", "drop-delta");
    let wrong = |n: i64| {
        let rows: Vec<String> = (0..20).map(|i| format!("({}, 'x')", 100 * n + i)).collect();
        application(&redtail.path("source.db"), &[format!("INSERT INTO items VALUES {}", rows.join(","))]);
        lossy.sync("source.db", "replica.redb");
    };
    let differs = || redtail.run(&["verify", "-s", "source.db", "-r", "replica.redb"]).code == Some(1);
    wrong(1);
    assert!(differs(), "the fault was not there");
    let said = redtail.ok(&["rebuild", "parts", "-s", "source.db", "-r", "replica.redb"]);
    assert!(said.starts_with("rebuilt table parts at "), "{said}");
    assert!(differs(), "another table was rebuilt");
    let said = redtail.ok(&["rebuild", "ITEMS", "-s", "source.db", "-r", "replica.redb"]);
    assert!(said.starts_with("rebuilt table items at "), "{said}");
    assert_equal(&mut oracle, &redtail, "source.db", "replica.redb");

    wrong(2);
    let mut run = redtail.spawn_run("source.db", "replica.redb");
    run.caught_up();
    let unknown = redtail.run(&["rebuild", "itms", "-r", "replica.redb"]);
    assert_eq!(unknown.code, Some(2), "{unknown:?}");
    unknown.assert_one_line("an unknown table", &["itms", "items"]);
    let said = redtail.ok(&["rebuild", "-r", "replica.redb", "--json"]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["tables"], serde_json::json!(["items", "parts"]));
    assert_eq!(said["position"], head(&redtail).to_string());
    assert_equal(&mut oracle, &redtail, "source.db", "replica.redb");
    run.stop();
}

#[test]
fn a_replica_that_is_level_counts_as_reached_and_a_timeout_says_why_it_was_not() {
    let (_folder, redtail) = shop();
    let reached = head(&redtail);
    block_on(async {
        let config = Config::default();
        let replica = Replica::open(redtail.path("replica.redb"), &config).unwrap();
        let path = redtail.path("source.db").display().to_string();
        let source = Source::open(&path, &config).unwrap();
        let replicator = Arc::new(Replicator::new(source, replica, config));
        let idle = replicator.wait_for(reached).at_most(Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(idle.kind(), Kind::TimedOut);
        assert!(idle.to_string().contains("nothing follows the source"), "{idle}");
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let running = tokio::spawn({
            let replicator = Arc::clone(&replicator);
            async move { replicator.run(async { drop(stopped.await) }).await }
        });
        // A replica that is level when `run` starts counts as reached though nothing is applied.
        assert_eq!(replicator.wait_for(reached).at_most(Duration::from_secs(30)).await.unwrap(), reached);
        let rebuilt = replicator.rebuild(&[]).await.unwrap();
        assert_eq!((rebuilt.tables.len(), rebuilt.position), (2, reached));
        stop.send(()).unwrap();
        running.await.unwrap().unwrap();
    });
}

/// A replicator that runs, and the application's connection beside it.
struct Following {
    replicator: Arc<Replicator>,
    connection: libsql::Connection,
    stop: tokio::sync::oneshot::Sender<()>,
    running: tokio::task::JoinHandle<redtail::Result<()>>,
}

async fn following(folder: &TempDir) -> Following {
    let (db, config) = (folder.path().join("source.db"), Config::default());
    let source = Source::open(&db.display().to_string(), &config).unwrap();
    let replica = Replica::open(folder.path().join("replica.redb"), &config).unwrap();
    let replicator = Arc::new(Replicator::new(source, replica, config));
    replicator.sync_once().await.unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn({
        let replicator = Arc::clone(&replicator);
        async move { replicator.run(async { drop(stopped.await) }).await }
    });
    let connection = libsql::Builder::new_local(db).build().await.unwrap().connect().unwrap();
    connection.busy_timeout(Duration::from_secs(30)).unwrap();
    Following { replicator, connection, stop, running }
}

/// `REDTAIL_ROUNDS` sets how many: 300 by default, 10,000 for a long run.
#[test]
fn what_one_has_written_is_in_the_snapshot_that_one_takes_next() {
    let rounds: i64 = std::env::var("REDTAIL_ROUNDS").map_or(300, |n| n.parse().unwrap());
    let folder = TempDir::new().unwrap();
    application(&folder.path().join("source.db"), SHOP);
    block_on(async {
        let Following { replicator, connection, stop, running } = following(&folder).await;
        let mut took = Vec::new();
        for n in 1..=rounds {
            let sql = "INSERT INTO items VALUES (1, ?1) ON CONFLICT(id) DO UPDATE SET name = excluded.name";
            connection.execute(sql, [format!("round {n}")]).await.unwrap();
            let begun = std::time::Instant::now();
            let snapshot = replicator.snapshot_at_head(Duration::from_secs(30)).await.unwrap();
            took.push(begun.elapsed());
            let row = snapshot.get("items", &[Value::Integer(1)]).unwrap().unwrap();
            let want = Value::Text(format!("round {n}").into_bytes());
            assert_eq!(row.get("name").unwrap().to_owned(), want, "stale in round {n}");
        }
        took.sort();
        let at = |per_mille: usize| took[(took.len() - 1) * per_mille / 1000];
        note(&format!("write, wait, read: {rounds} rounds, p50 {:?}, p99 {:?}", at(500), at(990)));
        stop.send(()).unwrap();
        running.await.unwrap().unwrap();
    });
}

/// What changes nothing but the schema has no entry, so its head is what it was.
#[test]
fn a_migration_is_in_the_snapshot_that_one_takes_next() {
    let folder = TempDir::new().unwrap();
    application(&folder.path().join("source.db"), SHOP);
    block_on(async {
        let Following { replicator, connection, stop, running } = following(&folder).await;
        for n in 0..12 {
            let sql = format!(
                "CREATE TABLE new_{n}(id INTEGER PRIMARY KEY, v); INSERT INTO new_{n} VALUES (1, {n});
                 ALTER TABLE parts ADD COLUMN added_{n} DEFAULT {n}; ALTER TABLE new_{n} RENAME TO renamed_{n};"
            );
            connection.execute_batch(&sql).await.unwrap();
            let snapshot = replicator.snapshot_at_head(Duration::from_secs(30)).await.unwrap();
            let of = |table: &str, column: &str| {
                let row = snapshot.get(table, &[Value::Integer(1)]).unwrap().expect("the row");
                row.get(column).unwrap().to_owned()
            };
            assert_eq!(of(&format!("renamed_{n}"), "v"), Value::Integer(n));
            assert_eq!(of("parts", &format!("added_{n}")), Value::Integer(n));
        }
        stop.send(()).unwrap();
        running.await.unwrap().unwrap();
    });
}

#[test]
fn the_command_waits_for_a_migration_too() {
    let (_folder, redtail) = shop();
    let wait = &["wait", "-s", "source.db", "-r", "replica.redb", "--timeout", "300ms"];
    assert_eq!(redtail.ok(wait).trim(), head(&redtail).to_string());
    application(&redtail.path("source.db"), &["CREATE TABLE new(id INTEGER PRIMARY KEY)"]);
    let unseen = redtail.run(wait);
    assert_eq!(unseen.code, Some(1), "{unseen:?}");
    assert!(
        unseen.stderr.contains("the source's head not reached in time; nothing follows it"),
        "{unseen:?}"
    );
    let run = redtail.spawn_run("source.db", "replica.redb");
    for n in 0..5 {
        let make = format!("CREATE TABLE new_{n}(id INTEGER PRIMARY KEY)");
        application(&redtail.path("source.db"), &[make, format!("INSERT INTO new_{n} VALUES (7)")]);
        redtail.ok(&["wait", "-s", "source.db", "-r", "replica.redb", "--timeout", "60s"]);
        assert!(redtail.ok(&["get", &format!("new_{n}"), "7", "-r", "replica.redb"]).contains('7'));
    }
    run.stop();
}

#[test]
fn a_wait_that_was_given_up_is_let_go_by_the_running_one() {
    let (_folder, redtail) = shop();
    let next = Position { seq: head(&redtail).seq + 1, ..head(&redtail) };
    let mut run = redtail.spawn_run("source.db", "replica.redb");
    run.caught_up();
    let files = |run: &crate::support::redtail::Run| {
        std::fs::read_dir(format!("/proc/{}/fd", run.pid())).unwrap().count()
    };
    let before = files(&run);
    let mut waiting = spawned(&redtail, &["wait", &next.to_string(), "-r", "replica.redb"]);
    poll(|| (files(&run) > before).then_some(())).expect("it is being answered");
    waiting.kill().unwrap();
    waiting.wait().unwrap();
    poll(|| (files(&run) <= before).then_some(())).expect("its connection is closed");
    run.stop();
}

#[test]
fn on_occasions_the_replica_is_brought_up_to_date_at_the_start_by_the_clock_and_by_hand() {
    let folder = TempDir::new().unwrap();
    let db = folder.path().join("source.db");
    application(&db, SHOP);
    let following = |occasions: Occasions| {
        let config = Config { sync: Some(occasions), ..Config::default() };
        let source = Source::open(&db.display().to_string(), &config).unwrap();
        let replica = Replica::open(folder.path().join("replica.redb"), &config).unwrap();
        Arc::new(Replicator::new(source, replica, config))
    };
    let write = || {
        std::thread::scope(|s| {
            s.spawn(|| application(&db, &["INSERT INTO parts(name) VALUES ('n')"])).join().unwrap();
        });
    };
    let soon = Duration::from_secs(30);
    let by_hand = Occasions::default();
    let clock = Occasions { every: Some(Duration::from_millis(40)), ..by_hand };
    let stale = Occasions { on_start: false, stale_after: Some(Duration::from_millis(40)), ..by_hand };
    block_on(async {
        for occasions in [by_hand, clock, stale] {
            let replicator = following(occasions);
            let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
            let running = tokio::spawn({
                let replicator = Arc::clone(&replicator);
                async move { replicator.run(async { drop(stopped.await) }).await }
            });
            // At the start, or when the first limit has passed.
            let mut progress = replicator.progress();
            tokio::time::timeout(soon, progress.wait_for(|p| p.consistent)).await.unwrap().unwrap();
            write();
            let head = replicator.source().head().await.unwrap().unwrap();
            if occasions == by_hand {
                assert!(
                    replicator.wait_for(head).at_most(Duration::from_millis(300)).await.is_err(),
                    "nobody asked"
                );
                assert!(replicator.sync_once().await.unwrap().seq >= head.seq);
            }
            replicator.wait_for(head).at_most(soon).await.unwrap();
            // What is asked for meanwhile is done between two occasions.
            assert_eq!(replicator.verify(&[], false).await.unwrap().count, 0);
            stop.send(()).unwrap();
            running.await.unwrap().unwrap();
        }
    });
}

#[test]
fn rows_whose_foreign_keys_lead_nowhere_are_named() {
    let folder = TempDir::new().unwrap();
    let redtail = Redtail::new(folder.path());
    application(
        &redtail.path("source.db"),
        &[
            "PRAGMA foreign_keys = OFF",
            "CREATE TABLE episodes(id TEXT PRIMARY KEY, code UNIQUE)",
            "CREATE TABLE embeddings(episode TEXT REFERENCES episodes, model TEXT, PRIMARY KEY(episode, model))",
            "CREATE TABLE notes(id INTEGER PRIMARY KEY, code REFERENCES episodes(code), other REFERENCES nowhere)",
            "INSERT INTO episodes VALUES ('e1', 1), ('e2', 2)",
            "PRAGMA foreign_keys = OFF; INSERT INTO embeddings VALUES ('e1', 'm'), ('e3', 'm'), (NULL, 'm')",
            "PRAGMA foreign_keys = OFF; INSERT INTO notes VALUES (1, 2, NULL), (2, 3, NULL)",
        ],
    );
    std::fs::write(redtail.path("redtail.toml"), "[tables.episodes]\nindex = [[\"code\"]]\n").unwrap();
    redtail.sync("source.db", "replica.redb");
    let check = || redtail.run(&["verify", "--references", "-s", "source.db", "-r", "replica.redb"]);
    let alone = check();
    assert_eq!(
        alone.stdout,
        "table embeddings, key [\"e3\",\"m\"]: (episode) names no row of episodes\n\
         table notes, key [2]: (code) names no row of episodes\n\
         table notes: (other) was not checked: nowhere is not replicated\n\
         2 orphans in 5 rows\n"
    );
    assert_eq!(alone.code, Some(1));
    let mut run = redtail.spawn_run("source.db", "replica.redb");
    run.caught_up();
    assert_eq!(check().stdout, alone.stdout, "beside a running one");
    application(
        &redtail.path("source.db"),
        &["PRAGMA foreign_keys = OFF; DELETE FROM embeddings WHERE episode = 'e3'; DELETE FROM notes"],
    );
    let none = check();
    assert_eq!((none.code, none.stdout.lines().last()), (Some(0), Some("0 orphans in 2 rows")), "{none:?}");
    run.stop();
}

/// Which of this process's open files are this one, or stand beside it under its name.
#[cfg(target_os = "linux")]
fn open_files(path: &std::path::Path) -> Vec<std::path::PathBuf> {
    let name = path.to_str().unwrap();
    let open =
        std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
    open.filter(|file| file.to_str().is_some_and(|f| f.starts_with(name))).collect()
}

// Attacks: a connection that is closed after following has ended. An application that puts another database in the
// place of its source then would lose the new one's WAL: SQLite deletes it by its name.
#[cfg(target_os = "linux")]
#[test]
fn when_following_has_ended_the_source_is_closed() {
    let (_folder, redtail) = shop();
    let path = redtail.path("source.db");
    let config = Config { poll: Duration::from_millis(5), ..Config::default() };
    let source = Source::open(path.to_str().unwrap(), &config).unwrap();
    let replica = Replica::open(redtail.path("replica.redb"), &config).unwrap();
    let replicator = Replicator::new(source, replica, config);
    block_on(async {
        let mut seen_open = 0;
        for round in 0..300_u64 {
            if round % 3 == 0 {
                replicator.sync_once().await.unwrap();
            } else {
                let ended = async {
                    tokio::time::sleep(Duration::from_micros(round * 37 % 9_000)).await;
                    seen_open += u64::from(!open_files(&path).is_empty());
                };
                replicator.run(ended).await.unwrap();
            }
            assert_eq!(open_files(&path), [] as [std::path::PathBuf; 0], "round {round}");
        }
        assert!(seen_open > 100, "it was open while it was followed: {seen_open}");
    });
}
