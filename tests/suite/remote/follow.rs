//! Following a server while it is written to: kills, first copies, several replicas, restarts, removal.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{REPLICA, Remote};
use crate::support::oracle::Oracle;
use crate::support::proxy::{Fault, Proxy};
use crate::support::{Chance, poll};

/// An application that writes to a server until it is told to stop, whatever the server does meanwhile.
struct Writing {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

const EVENTS: &str =
    "CREATE TABLE events(id INTEGER PRIMARY KEY, kind TEXT, n REAL, body BLOB, UNIQUE(kind, n))";

impl Writing {
    fn start(test: &str, database: PathBuf, mut chance: Chance) -> Self {
        let mut oracle = Oracle::start(test).expect("it was there before");
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (its_stop, its_done) = (Arc::clone(&stop), Arc::clone(&done));
        let thread = std::thread::spawn(move || {
            oracle.ask(&serde_json::json!({"op": "open", "db": database}));
            while !its_stop.load(Ordering::SeqCst) {
                let id = chance.below(400);
                let sql = match chance.below(6) {
                    0 => format!("DELETE FROM events WHERE id = {id}"),
                    1 => format!(
                        "UPDATE events SET body = randomblob({}) WHERE id >= {id} AND id < {}",
                        id,
                        id + 20
                    ),
                    2 => format!("UPDATE OR IGNORE events SET n = n + 1 WHERE id = {id}"),
                    _ => format!(
                        "INSERT OR REPLACE INTO events VALUES ({id}, 'k{}', {}, randomblob(9))",
                        id % 7,
                        chance.below(90)
                    ),
                };
                // Refused while the server is away.
                let answer = oracle.ask(&serde_json::json!({"op": "play", "sql": [sql]}));
                its_done.fetch_add(u64::from(answer["refused"][0].is_null()), Ordering::SeqCst);
            }
        });
        Self { stop, done, thread }
    }

    fn wait_more(&self, writes: u64) {
        let until = self.done.load(Ordering::SeqCst) + writes;
        poll(|| (self.done.load(Ordering::SeqCst) >= until).then_some(())).expect("the writer writes");
    }

    fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap();
    }
}

fn kills(test: &str, fault: Option<&str>) -> Option<bool> {
    let mut remote = Remote::begin(test)?;
    let mut chance = Chance::new(test);
    remote.application(&[EVENTS]);
    remote.sync();
    if let Some(fault) = fault {
        remote.redtail = remote.redtail.with_env("REDTAIL_FAULT", fault);
    }
    for _ in 0..3 {
        let writing = Writing::start(test, remote.server.database(), chance.fork());
        for _ in 0..5 {
            let mut run = remote.run();
            if chance.one_in(3) {
                writing.wait_more(chance.below(20));
            } else {
                run.live();
                writing.wait_more(1 + chance.below(60));
            }
            run.kill9();
        }
        let mut run = remote.run();
        run.live();
        writing.stop();
        remote.follows(&mut run);
        run.stop();
        let compared = remote.compare();
        if !compared.equal {
            return Some(false);
        }
        assert!(compared.rows > 0);
    }
    Some(true)
}

#[test]
fn killed_again_and_again_the_replica_equals_the_server() {
    let equal = kills("killed_again_and_again_the_replica_equals_the_server", None);
    assert_ne!(equal, Some(false));
}

#[test]
fn a_delta_that_is_lost_on_the_way_from_a_server_is_caught() {
    if cfg!(debug_assertions) {
        let equal = kills("a_delta_that_is_lost_on_the_way_from_a_server_is_caught", Some("drop-delta"));
        assert_ne!(equal, Some(true), "every seventh delta is lost, and nobody sees it");
    }
}

#[test]
fn a_migration_of_a_server_is_waited_for() {
    let Some(mut remote) = Remote::begin("a_migration_of_a_server_is_waited_for") else { return };
    remote.application(&["CREATE TABLE t(id INTEGER PRIMARY KEY)"]);
    let mut run = remote.run();
    run.live();
    for n in 0..5 {
        remote.application(&[
            format!("CREATE TABLE new_{n}(id INTEGER PRIMARY KEY)"),
            format!("INSERT INTO new_{n} VALUES (7)"),
        ]);
        remote.redtail.ok(&["wait", "-s", &remote.source, "-r", REPLICA, "--timeout", "60s"]);
        assert!(remote.redtail.ok(&["get", &format!("new_{n}"), "7", "-r", REPLICA]).contains('7'));
    }
    run.stop();
}

#[test]
fn a_first_copy_beside_writers_ends_equal() {
    let test = "a_first_copy_beside_writers_ends_equal";
    let Some(mut remote) = Remote::begin(test) else { return };
    remote.application(&[
        EVENTS,
        "CREATE TABLE many(id INTEGER PRIMARY KEY, x, y)",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000) INSERT INTO many SELECT i, i * 0.5, hex(i) FROM n",
    ]);
    let writing = Writing::start(test, remote.server.database(), Chance::new(test));
    writing.wait_more(20);
    let mut run = remote.run();
    run.live();
    writing.wait_more(100);
    writing.stop();
    remote.follows(&mut run);
    assert!(remote.assert_equal("beside writers").rows >= 30_000);
    run.stop();
}

// Attacks: the answer that is asked for while the one before it is still taken apart.
#[test]
fn a_backlog_is_drained_though_answers_are_lost_and_the_application_goes_on() {
    const BROKEN: &str =
        "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\nconnection: close\r\n\r\nsoon";
    let test = "a_backlog_is_drained_though_answers_are_lost_and_the_application_goes_on";
    let Some(mut remote) = Remote::begin(test) else { return };
    let proxy = Proxy::before(remote.server.port());
    remote.source = proxy.url();
    remote.application(&[EVENTS, "CREATE TABLE many(id INTEGER PRIMARY KEY, x, y)"]);
    remote.sync();
    let mut chance = Chance::new(test);
    for round in 0..4 {
        remote.application(&[format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40000)
             INSERT OR REPLACE INTO many(id, x, y) SELECT i * 7919 % 60000, {round}, hex(i) FROM n"
        )]);
        proxy.next((0..16).map(|_| match chance.below(8) {
            0 => Fault::Delay(Duration::from_millis(chance.below(60))),
            1 => Fault::Cut(usize::try_from(chance.below(100_000)).unwrap()),
            2 => Fault::Refuse,
            3 => Fault::Instead(BROKEN),
            _ => Fault::None,
        }));
        let writing = Writing::start(test, remote.server.database(), chance.fork());
        let mut run = remote.run();
        let left = usize::try_from(4 + chance.below(8)).unwrap();
        poll(|| (proxy.left() <= left).then_some(())).expect("it is asked for");
        remote.application(&[
            format!("ALTER TABLE many ADD COLUMN new_{round} DEFAULT 'new'"),
            format!("UPDATE many SET new_{round} = id WHERE id % 100 = {round}"),
            format!("DELETE FROM many WHERE id % 90 = {round}"),
        ]);
        poll(|| (proxy.left() == 0).then_some(())).expect("it is asked for again");
        writing.stop();
        remote.follows(&mut run);
        run.stop();
        remote.assert_equal("drained");
    }
    assert!(remote.compare().rows > 30_000);
}

#[test]
fn two_replicas_and_a_restart_of_the_server_under_load() {
    let test = "two_replicas_and_a_restart_of_the_server_under_load";
    let Some(mut remote) = Remote::begin(test) else { return };
    remote.application(&[EVENTS]);
    remote.sync();
    remote.redtail.sync(&remote.source, "second.redb");
    let writing = Writing::start(test, remote.server.database(), Chance::new(test));
    let mut run = remote.run();
    run.live();
    let mut second = remote.redtail.spawn_run(&remote.source, "second.redb");
    writing.wait_more(100);
    remote.server.kill();
    run.assert_running();
    remote.server.begin();
    writing.wait_more(100);
    writing.stop();
    remote.follows(&mut run);
    remote.assert_equal("the first");
    run.stop();
    second.assert_running();
    second.stop();
    remote.redtail.sync(&remote.source, "second.redb");
    let dump = remote.redtail.path("second.jsonl");
    remote.redtail.dump("second.redb", &dump);
    let compared = remote.oracle.compare(&remote.server.database(), &dump);
    assert!(compared.equal, "the second: {:#?}", compared.differences);
}

#[test]
fn a_server_restored_from_an_older_copy_is_followed_from_there() {
    let test = "a_server_restored_from_an_older_copy_is_followed_from_there";
    let Some(mut remote) = Remote::begin(test) else { return };
    remote.application(&[EVENTS, "INSERT INTO events VALUES (1, 'a', 1, x'00'), (2, 'b', 2, NULL)"]);
    remote.sync();
    remote.server.backup();
    let mut run = remote.run();
    run.live();
    remote.application(&[
        "UPDATE events SET n = 5 WHERE id = 1",
        "INSERT INTO events VALUES (3, 'c', 3, NULL)",
        "DELETE FROM events WHERE id = 2",
    ]);
    remote.follows(&mut run);
    remote.assert_equal("before");
    remote.server.restore();
    // Its head is below the replica's: waited for, and then found to be another history.
    let reached = poll(|| {
        run.assert_running();
        remote.compare().equal.then_some(())
    });
    assert!(reached.is_some(), "{:#?}", remote.compare());
    remote.application(&["UPDATE events SET n = 9"]);
    remote.follows(&mut run);
    remote.assert_equal("afterwards");
    run.stop();
}

#[test]
fn remove_leaves_nothing_of_ours_at_a_server() {
    let Some(mut remote) = Remote::begin("remove_leaves_nothing_of_ours_at_a_server") else { return };
    remote.application(&[
        EVENTS,
        "CREATE TABLE t(x)",
        "CREATE TRIGGER own AFTER INSERT ON t BEGIN SELECT 1; END",
    ]);
    let before = remote.oracle.schema(&remote.server.database());
    remote.sync();
    let planned = remote.redtail.ok(&["init", "-s", &remote.source, "--dry-run"]);
    assert_eq!(planned, "", "nothing is left to install");
    let said = remote.redtail.ok(&["remove", "-s", &remote.source, "--force"]);
    assert!(said.starts_with("capture removed from http://"), "{said}");
    assert_eq!(remote.oracle.schema(&remote.server.database()), before);
}

#[test]
fn the_sample_database_follows_through_a_server() {
    let test = "the_sample_database_follows_through_a_server";
    let Some(sample) = std::env::var_os("REDTAIL_SAMPLE_DB") else {
        crate::support::skip("REDTAIL_REQUIRE_SAMPLE", &format!("{test}: REDTAIL_SAMPLE_DB is not set"));
        return;
    };
    let Some(mut remote) = Remote::begin(test) else { return };
    let database = remote.server.database();
    let loaded = remote
        .oracle
        .ask(&serde_json::json!({"op": "load", "from": std::path::Path::new(&sample), "db": database}));
    assert!(loaded["statements"].as_u64() > Some(1000), "{loaded}");
    remote.sync();
    let copied = remote.assert_equal("the first copy");
    remote.application(&[
        "UPDATE Track SET Milliseconds = Milliseconds + 1 WHERE TrackId % 3 = 0",
        "DELETE FROM PlaylistTrack WHERE PlaylistId = 5",
        "ALTER TABLE Genre ADD COLUMN note",
        "UPDATE Genre SET note = Name",
    ]);
    remote.sync();
    let changed = remote.assert_equal("changes");
    assert!(changed.rows < copied.rows);
    let said = remote.redtail.ok(&["verify", "-s", &remote.source, "-r", REPLICA]);
    assert!(said.starts_with("equal: "), "{said}");
}

// Attacks: rows of a table that was not asked for beforehand, because there are many and others changed last.
#[test]
fn of_many_tables_it_is_no_matter_which_of_them_change() {
    const TABLES: u64 = 40;
    let test = "of_many_tables_it_is_no_matter_which_of_them_change";
    let Some(mut remote) = Remote::begin(test) else { return };
    let mut chance = Chance::new(test);
    let table = |n| format!("CREATE TABLE t{n}(k INTEGER PRIMARY KEY, v)");
    remote.application(&(0..TABLES).map(table).collect::<Vec<_>>());
    remote.sync();
    let mut run = remote.run();
    run.live();
    for _ in 0..40 {
        // One table, a handful, or more than are ever asked for beforehand.
        let tables = [1, 1, 3, 30][usize::try_from(chance.below(4)).unwrap()];
        let write = |_| {
            let (n, k) = (chance.below(TABLES), chance.below(5));
            format!("REPLACE INTO t{n} VALUES ({k}, {})", chance.below(1_000))
        };
        let mut writes = vec!["BEGIN".to_owned()];
        writes.extend((0..tables).map(write));
        writes.push("COMMIT".to_owned());
        remote.application(&writes);
        remote.follows(&mut run);
        remote.assert_equal("after a transaction");
    }
    assert!(remote.compare().rows > 0);
    run.stop();
}
