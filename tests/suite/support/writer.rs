//! An application that writes: single statements for a set-up, or a steady writer on its own thread.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Chance, DEADLINE};

/// The table of the steady writer.
pub(crate) const EVENTS: &str =
    "CREATE TABLE event(id INTEGER PRIMARY KEY, body TEXT NOT NULL, version INTEGER NOT NULL)";

/// Runs statements as an application would, each as given, and closes the database.
pub(crate) fn application<S: AsRef<str>>(db: &Path, sql: &[S]) {
    block_on(async {
        let (_database, connection) = open(db).await;
        for statement in sql {
            let statement = statement.as_ref();
            let done = connection.execute_batch(statement).await;
            done.unwrap_or_else(|error| panic!("{statement}: {error}"));
        }
    });
}

/// Whether nobody holds the write lock at this moment.
pub(crate) fn is_free(db: &Path) -> bool {
    block_on(async {
        let (_database, connection) = open(db).await;
        connection.busy_timeout(Duration::ZERO).unwrap();
        match connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK").await {
            Ok(_) => true,
            Err(error) => {
                assert!(error.to_string().contains("database is locked"), "{error}");
                false
            }
        }
    })
}

/// What the writer was told is committed: the rows that must be there.
#[derive(Default)]
pub(crate) struct Ledger {
    /// Version by id.
    pub(crate) rows: BTreeMap<i64, i64>,
    /// Rows inserted by the writer, deleted ones included.
    pub(crate) inserted: u64,
    next: i64,
}

/// A thread that commits one small transaction after the other until it is stopped.
///
/// Any failed write fails the test: redtail may neither break nor block the application.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    /// Taken when it is stopped.
    thread: Option<JoinHandle<Ledger>>,
}

#[derive(Default)]
struct Shared {
    /// Commits acknowledged to the writer so far.
    commits: Mutex<u64>,
    more: Condvar,
    stop: AtomicBool,
}

impl Ledger {
    /// Count, versions, and versions by id of the table, to be held against [`Ledger::sums`].
    pub(crate) const SELECT: &str =
        "SELECT count(*), coalesce(sum(version), 0), coalesce(sum(id * (version + 1)), 0) FROM event";

    /// Rows 1 to `rows`, each at version 0.
    pub(crate) fn preloaded(rows: i64) -> Self {
        Self { rows: (1..=rows).map(|id| (id, 0)).collect(), inserted: 0, next: rows }
    }

    /// What [`Ledger::SELECT`] must answer.
    pub(crate) fn sums(&self) -> Vec<i64> {
        let products = self.rows.iter().map(|(id, version)| id * (version + 1));
        vec![i64::try_from(self.rows.len()).unwrap(), self.rows.values().sum(), products.sum()]
    }

    /// Mostly inserts of new keys: a lost one is not repaired by what comes later.
    async fn step(&mut self, connection: &libsql::Connection, chance: &mut Chance) {
        let dice = chance.below(10);
        let at = i64::try_from(chance.below(u64::try_from(self.next).unwrap() + 1)).unwrap();
        let target = self.rows.range(at..).next().map(|(id, version)| (*id, *version));
        match target {
            Some((id, version)) if dice < 2 => {
                let sql = "UPDATE event SET version = ?2 WHERE id = ?1";
                connection.execute(sql, (id, version + 1)).await.expect("an update is not disturbed");
                self.rows.insert(id, version + 1);
            }
            Some((id, _)) if dice == 2 => {
                connection.execute("DELETE FROM event WHERE id = ?1", [id]).await.expect("nor is a delete");
                self.rows.remove(&id);
            }
            _ => {
                let id = self.next + 1;
                let body = format!("event {id}");
                let sql = "INSERT INTO event VALUES (?1, ?2, 0)";
                connection.execute(sql, (id, body)).await.expect("nor is an insert");
                self.rows.insert(id, 0);
                self.inserted += 1;
                self.next = id;
            }
        }
    }
}

impl Writer {
    /// Starts writing to the table [`EVENTS`], which holds what `ledger` says.
    pub(crate) fn start(db: &Path, ledger: Ledger, chance: Chance) -> Self {
        Self::paced(db, ledger, chance, Duration::ZERO)
    }

    /// The same, with a rest after each commit: as much is written on a busy machine as on an idle one, nearly.
    pub(crate) fn paced(db: &Path, mut ledger: Ledger, mut chance: Chance, rest: Duration) -> Self {
        let shared = Arc::new(Shared::default());
        let (db, its): (PathBuf, _) = (db.to_owned(), Arc::clone(&shared));
        let thread = std::thread::spawn(move || {
            block_on(async {
                let (_database, connection) = open(&db).await;
                while !its.stop.load(Ordering::Acquire) {
                    ledger.step(&connection, &mut chance).await;
                    *its.commits.lock().unwrap() += 1;
                    its.more.notify_all();
                    std::thread::park_timeout(rest);
                }
            });
            ledger
        });
        Self { shared, thread: Some(thread) }
    }

    /// Waits for so many further commits.
    pub(crate) fn wait_more(&self, commits: u64) {
        let so_far = self.shared.commits.lock().unwrap();
        let goal = *so_far + commits;
        let (_guard, waited) =
            self.shared.more.wait_timeout_while(so_far, DEADLINE, |so_far| *so_far < goal).unwrap();
        assert!(!waited.timed_out(), "the writer stands still");
    }

    /// Stops and hands over the ledger.
    pub(crate) fn stop(mut self) -> Ledger {
        self.shared.stop.store(true, Ordering::Release);
        self.thread.take().unwrap().join().expect("no write of the application failed")
    }
}

impl Drop for Writer {
    /// A test that fails stops its writer too, before its folder goes.
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn open(db: &Path) -> (libsql::Database, libsql::Connection) {
    let database = libsql::Builder::new_local(db).build().await.unwrap();
    let connection = database.connect().unwrap();
    connection.busy_timeout(Duration::from_secs(30)).unwrap();
    (database, connection)
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

/// A transaction of an application that stays open.
pub(crate) struct Held {
    runtime: tokio::runtime::Runtime,
    connection: libsql::Connection,
    _database: libsql::Database,
}

impl Held {
    /// Takes the write lock and runs these statements.
    pub(crate) fn begin<S: AsRef<str>>(db: &Path, sql: &[S]) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (database, connection) = runtime.block_on(open(db));
        let held = Self { runtime, connection, _database: database };
        held.execute("BEGIN IMMEDIATE");
        for statement in sql {
            held.execute(statement.as_ref());
        }
        held
    }

    pub(crate) fn execute(&self, sql: &str) {
        let done = self.runtime.block_on(self.connection.execute_batch(sql));
        done.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    pub(crate) fn commit(self) {
        self.execute("COMMIT");
    }
}
