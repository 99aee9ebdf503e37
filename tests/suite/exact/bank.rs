//! Money moves between accounts; every consistent state that a reader of the replica can see has all of it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use redtail::{Config, Replica, Replicator, Snapshot, Source, ValueRef};
use tempfile::TempDir;

use crate::support::{Chance, note};

const ACCOUNTS: i64 = 100;
const EACH: i64 = 1_000;
/// Transfers of each of the two writers.
const TRANSFERS: u64 = 6_000;
/// Consistent states that the reader must have looked at, and how many different ones.
const LOOKS: u64 = 1_000;
const STATES: u64 = 300;
/// A writer that is this far ahead of the reader waits for it: else it would see few different states.
const AHEAD: u64 = 20;

/// What the writers and the reader tell each other.
#[derive(Default)]
struct Shared {
    transfers: AtomicU64,
    /// Different consistent states seen so far.
    states: AtomicU64,
    /// The reader has failed, or everything was read.
    done: AtomicBool,
}

#[test]
fn every_consistent_state_of_the_replica_has_the_total() {
    let test = "every_consistent_state_of_the_replica_has_the_total";
    let mut chance = Chance::new(test);
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("bank.db");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
    runtime.block_on(open_bank(&path));
    // Windows of a few entries: a transfer falls into two of them now and then.
    let config = Config { window_entries: 5, chunk_rows: 30, ..Config::default() };
    let source = Source::open(path.to_str().unwrap(), &config).unwrap();
    let replica = Replica::open(folder.path().join("bank.redb"), &config).unwrap();
    let replicator = Replicator::new(source.clone(), replica.clone(), config);
    let shared = Shared::default();

    let (looks, states) = std::thread::scope(|scope| {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let runner = scope.spawn(|| runtime.block_on(replicator.run(async { drop(stopped.await) })));
        let writers = [chance.fork(), chance.fork()];
        let writers = writers.map(|its| scope.spawn(|| write(&path, its, &shared)));
        let reader = scope.spawn(|| read(&replica, &shared));
        for writer in writers {
            writer.join().expect("no transfer failed");
        }
        let head = runtime.block_on(source.head()).unwrap().expect("capture");
        runtime.block_on(replicator.wait_for(head).into_future()).unwrap();
        shared.done.store(true, Ordering::Relaxed);
        let seen = reader.join().unwrap();
        let _ = stop.send(());
        runner.join().unwrap().expect("run ends well");
        seen.unwrap_or_else(|what| panic!("\nfailed: {what}"))
    });
    assert_eq!(total(&replica.snapshot().unwrap()), ACCOUNTS * EACH, "in the end");
    note(&format!("{test}: {} transfers, {looks} looks at {states} states", TRANSFERS * 2));
    assert!(
        looks >= LOOKS && states >= STATES,
        "{looks} looks at {states} consistent states prove too little"
    );
}

async fn open_bank(path: &std::path::Path) {
    let (_database, connection) = open(path).await;
    let rows: Vec<String> = (1..=ACCOUNTS).map(|n| format!("({n}, 'account {n}', {EACH})")).collect();
    let make = format!(
        "PRAGMA journal_mode = WAL;
         CREATE TABLE account(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, balance INTEGER NOT NULL);
         INSERT INTO account VALUES {}",
        rows.join(", ")
    );
    connection.execute_batch(&make).await.unwrap();
}

async fn open(path: &std::path::Path) -> (libsql::Database, libsql::Connection) {
    let database = libsql::Builder::new_local(path).build().await.unwrap();
    let connection = database.connect().unwrap();
    connection.busy_timeout(Duration::from_secs(30)).unwrap();
    (database, connection)
}

/// Transfers between accounts; now and then an account gets another key in the same transaction.
fn write(path: &std::path::Path, mut chance: Chance, shared: &Shared) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (_database, connection) = open(path).await;
        for _ in 0..TRANSFERS {
            let mut account = || 1 + chance.below(ACCOUNTS.unsigned_abs());
            let (from, to) = (account(), account());
            let (amount, moves) = (chance.below(50), chance.one_in(10));
            let rekeyed = format!("UPDATE account SET id = -id WHERE name = 'account {from}';");
            let transfer = format!(
                "BEGIN IMMEDIATE;
                 UPDATE account SET balance = balance - {amount} WHERE name = 'account {from}';
                 {}
                 UPDATE account SET balance = balance + {amount} WHERE name = 'account {to}';
                 COMMIT;",
                if moves { rekeyed.as_str() } else { "" }
            );
            connection.execute_batch(&transfer).await.expect("redtail does not disturb the application");
            let done = shared.transfers.fetch_add(1, Ordering::Relaxed);
            while done > (shared.states.load(Ordering::Relaxed) + 1) * AHEAD
                && !shared.done.load(Ordering::Relaxed)
            {
                std::thread::yield_now();
            }
        }
    });
}

/// Looks at the replica all the time. How many consistent states it saw, and how many different ones.
fn read(replica: &Replica, shared: &Shared) -> Result<(u64, u64), String> {
    let (mut looks, mut last) = (0, None);
    while !shared.done.load(Ordering::Relaxed) || looks < LOOKS {
        let snapshot = replica.snapshot().unwrap();
        // Before the first copy there is no table yet.
        if !snapshot.is_consistent() || snapshot.table("account").is_err() {
            std::thread::yield_now();
            continue;
        }
        looks += 1;
        let found = total(&snapshot);
        if found != ACCOUNTS * EACH {
            shared.done.store(true, Ordering::Relaxed);
            let position = snapshot.position().map_or_else(String::new, |p| p.to_string());
            return Err(format!("the total is {found} at {position}, look {looks}"));
        }
        if snapshot.position() != last {
            last = snapshot.position();
            shared.states.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok((looks, shared.states.load(Ordering::Relaxed)))
}

fn total(snapshot: &Snapshot) -> i64 {
    let rows = snapshot.scan("account").unwrap().map(Result::unwrap);
    let balances = rows.map(|row| match row.get("balance").unwrap() {
        ValueRef::Integer(balance) => balance,
        other => panic!("a balance of {other:?}"),
    });
    balances.sum()
}
