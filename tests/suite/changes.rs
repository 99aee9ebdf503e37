//! Subscriptions: whoever applies what `changes` tells has what the source has, whatever was killed in between.
//!
//! The lines are folded into rows, and these are held against the source's own SELECT by the oracle.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use redtail::{Config, KeepChanges, Kind, Op, Position, Replica, Replicator, Source, Window};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::oracle::Oracle;
use crate::support::redtail::{Redtail, Run};
use crate::support::writer::application;
use crate::support::{Chance, note, poll};

const SCHEMA: &[&str] = &[
    "PRAGMA journal_mode = WAL",
    "CREATE TABLE t0(id INTEGER PRIMARY KEY, a, b TEXT UNIQUE)",
    "CREATE TABLE t1(k TEXT COLLATE NOCASE, n INTEGER, x BLOB, PRIMARY KEY(k, n)) WITHOUT ROWID",
    "CREATE TABLE marker(id INTEGER PRIMARY KEY, n INTEGER)",
    "INSERT INTO t0 VALUES (1, 'one', 'x'), (2, 2.5, 'y'), (3, NULL, NULL)",
    "INSERT INTO t1 VALUES ('A', 1, x'00'), ('b', 2, zeroblob(5000))",
];

/// A `redtail changes` under way, whose lines go into a file.
struct Listener {
    child: Child,
    lines: PathBuf,
}

impl Listener {
    fn start(redtail: &Redtail, n: usize, args: &[&str]) -> Self {
        let lines = redtail.path(&format!("lines{n}.jsonl"));
        let mut command = redtail.command(Path::new(env!("CARGO_BIN_EXE_redtail")));
        command.args(["changes", "--typed", "-r", "replica.redb"]).args(args);
        command
            .stdout(File::create(&lines).unwrap())
            .stderr(File::create(redtail.path("changes.stderr")).unwrap());
        Self { child: command.stdin(Stdio::null()).spawn().unwrap(), lines }
    }

    /// The whole lines so far; the last one may have been cut by a kill.
    fn lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.lines).unwrap();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect()
    }

    fn kill(mut self) -> Vec<Value> {
        let _ = self.child.kill();
        self.child.wait().unwrap();
        self.lines()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a subscriber makes of the lines: rows by table and key, and where to go on.
#[derive(Default)]
struct Folded {
    rows: BTreeMap<(String, String), Value>,
    position: Option<String>,
    changes: usize,
    /// Lines whose `before` is not what was there: what is told again does not count.
    surprises: Vec<String>,
}

impl Folded {
    fn apply(&mut self, lines: &[Value]) {
        for line in lines {
            let (table, key) = (line["source"]["table"].as_str().unwrap(), &line["source"]["key"]);
            let name = (table.to_owned(), key.to_string());
            let was = self.rows.get(&name).cloned().unwrap_or(Value::Null);
            if was != line["before"] && line["source"]["snapshot"] == false {
                self.surprises.push(format!("{line} but there was {was}"));
            }
            match line["op"].as_str().unwrap() {
                "d" => drop(self.rows.remove(&name)),
                "c" | "u" | "r" => drop(self.rows.insert(name, line["after"].clone())),
                other => panic!("op {other}"),
            }
            if let Some(position) = line["source"]["position"].as_str() {
                self.position = Some(position.to_owned());
            }
            self.changes += 1;
        }
    }

    /// As `dump` would print them, for the oracle.
    fn dump(&self, path: &Path) {
        let line = |((table, key), row): (&(String, String), &Value)| {
            let key: Value = serde_json::from_str(key).unwrap();
            json!({ "table": table, "key": key, "row": row }).to_string()
        };
        let text: Vec<String> = self.rows.iter().map(line).collect();
        std::fs::write(path, text.join("\n") + "\n").unwrap();
    }

    fn has_marker(&self, n: u64) -> bool {
        let mut markers = self.rows.iter().filter(|((table, _), _)| table == "marker");
        markers.any(|(_, row)| row["n"]["value"] == n.to_string().as_str())
    }
}

/// Something that an application does.
fn statement(chance: &mut Chance, step: u64) -> String {
    let (id, n) = (chance.below(30), chance.below(1000));
    match chance.below(16) {
        0..=2 => format!("INSERT OR REPLACE INTO t0(id, a, b) VALUES ({id}, {n}, 'b{}')", chance.below(20)),
        3 => format!("UPDATE t0 SET a = {n} WHERE id % 7 = {}", chance.below(7)),
        4 => format!("UPDATE t0 SET a = a WHERE id < {id}"),
        5 => format!("DELETE FROM t0 WHERE id = {id}"),
        6 => format!("UPDATE OR REPLACE t0 SET id = {id} WHERE id = {}", chance.below(30)),
        7..=8 => format!("INSERT OR IGNORE INTO t1 VALUES ('k{}', {id}, zeroblob({}))", n % 9, n * 9),
        9 => format!("UPDATE t1 SET k = upper(k) WHERE n = {id}"),
        10 => format!("DELETE FROM t1 WHERE n > {id}"),
        11 => format!("INSERT INTO t0(a, b) VALUES ({n}, NULL); DELETE FROM t0 WHERE a = {n} AND b IS NULL"),
        12 => format!("BEGIN; UPDATE t0 SET a = -1; UPDATE t0 SET a = {n} WHERE id > 3; COMMIT"),
        13 if step.is_multiple_of(3) => format!("ALTER TABLE t0 ADD COLUMN c{step} DEFAULT {n}"),
        14 if step.is_multiple_of(5) => {
            "DROP TABLE t1; CREATE TABLE t1(k TEXT COLLATE NOCASE, n INTEGER, x BLOB, PRIMARY KEY(k, n)); \
             INSERT INTO t1 VALUES ('new', 1, NULL)"
                .to_owned()
        }
        _ => format!("INSERT INTO t1 VALUES ('s{step}', {n}, randomblob({}))", n % 300),
    }
}

fn keeping(redtail: &Redtail) {
    std::fs::write(redtail.path("redtail.toml"), "keep_changes = { rows = 1_000_000, age = \"1h\" }\n")
        .unwrap();
}

/// One subscriber from a snapshot on, through kills of itself and of `run`; what it has at the end.
fn play(test: &str, fault: Option<(&'static str, &str)>, kills: usize) -> Option<(bool, Vec<String>, usize)> {
    let mut oracle = Oracle::start(test)?;
    let mut chance = Chance::new(test);
    let folder = TempDir::new().unwrap();
    let plain = Redtail::new(folder.path());
    keeping(&plain);
    application(&plain.path("source.db"), SCHEMA);
    plain.sync("source.db", "replica.redb");
    let redtail = fault.map_or_else(|| plain.clone(), |(name, value)| plain.with_env(name, value));
    let mut run: Run = redtail.spawn_run("source.db", "replica.redb");
    run.caught_up();
    let mut made = Folded::default();
    let mut step = 0;
    for n in 0..=kills {
        let from = made.position.clone();
        let args = from.as_ref().map_or(vec!["--snapshot"], |p| vec!["--from", p]);
        let listener = Listener::start(&redtail, n, &args);
        for _ in 0..=chance.below(12) {
            step += 1;
            application(&plain.path("source.db"), &[statement(&mut chance, step)]);
        }
        // Ten of them: the control loses some.
        let ten = "WITH RECURSIVE i(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM i WHERE i < 10)";
        let marker = format!("{ten} INSERT OR REPLACE INTO marker SELECT i, {n} FROM i");
        application(&plain.path("source.db"), &[marker]);
        // Killed at once, in the middle, or when it has told everything.
        let patience = if n == 0 { 1 } else { chance.below(3) };
        // A snapshot is not resumed in its middle: the first one has to get through it.
        let enough = |lines: &[Value]| {
            let mut now = Folded { rows: made.rows.clone(), ..Folded::default() };
            now.apply(lines);
            let ended = lines.last().is_some_and(|l| l["source"]["position"] == l["source"]["window"]);
            if n == kills {
                now.has_marker(n as u64) && ended
            } else {
                match patience {
                    0 => n > 0 || now.position.is_some(),
                    // On a slow machine all that was written before it began is in its snapshot.
                    1 => (n == 0 || now.changes > 0) && now.position.is_some(),
                    _ => now.has_marker(n as u64),
                }
            }
        };
        let came = poll(|| enough(&listener.lines()).then_some(()));
        let said = std::fs::read_to_string(redtail.path("changes.stderr")).unwrap();
        assert!(came.is_some(), "round {n}, from {from:?}: {:?}; {said}", listener.lines().last());
        if chance.one_in(3) && n < kills {
            run.kill9();
            made.apply(&listener.kill());
            run = redtail.spawn_run("source.db", "replica.redb");
            run.live();
        } else {
            made.apply(&listener.kill());
        }
    }
    run.stop();
    let dump = plain.path("folded.jsonl");
    made.dump(&dump);
    let compared = oracle.compare(&plain.path("source.db"), &dump);
    Some((compared.equal, compared.differences, made.changes))
}

/// `REDTAIL_KILLS` sets how many: 12 by default, 50 and more for a long run.
#[test]
fn a_subscriber_that_is_killed_and_resumes_ends_with_what_the_source_has() {
    let test = "a_subscriber_that_is_killed_and_resumes_ends_with_what_the_source_has";
    let kills = std::env::var("REDTAIL_KILLS").map_or(12, |n| n.parse().unwrap());
    let Some((equal, differences, changes)) = play(test, None, kills) else { return };
    assert!(equal, "after {kills} kills and {changes} changes: {differences:#?}");
    note(&format!("{test}: {kills} kills, {changes} changes"));
}

/// The negative control.
#[test]
fn changes_that_are_not_recorded_are_caught_by_the_same_comparison() {
    if !cfg!(debug_assertions) {
        note("skipped: changes: release builds have no deliberate faults");
        return;
    }
    let test = "changes_that_are_not_recorded_are_caught_by_the_same_comparison";
    let Some((equal, ..)) = play(test, Some(("REDTAIL_FAULT", "drop-change")), 6) else { return };
    assert!(!equal, "lost changes did not show: the test above proves nothing");
}

#[test]
fn each_line_tells_the_row_before_and_after_once_a_window_and_nothing_of_what_stayed_equal() {
    let folder = TempDir::new().unwrap();
    let redtail = Redtail::new(folder.path());
    application(&redtail.path("source.db"), SCHEMA);
    redtail.sync("source.db", "replica.redb");
    let mut run = redtail.spawn_run("source.db", "replica.redb");
    run.caught_up();
    let listener = Listener::start(&redtail, 0, &["--snapshot"]);
    let mut step = 0;
    poll(|| (listener.lines().len() >= 5).then_some(())).expect("the snapshot");
    let mut chance = Chance::new("each_line_tells_the_row_before_and_after");
    for _ in 0..60 {
        step += 1;
        application(&redtail.path("source.db"), &[statement(&mut chance, step)]);
    }
    // Reconciled and found equal: nothing to tell.
    redtail.ok(&["rebuild", "-r", "replica.redb"]);
    application(&redtail.path("source.db"), &["INSERT INTO marker VALUES (1, 7)"]);
    let told = || {
        let mut made = Folded::default();
        made.apply(&listener.lines());
        made.has_marker(7).then_some(made)
    };
    let made = poll(told).expect("the marker");
    assert!(made.surprises.is_empty(), "{:#?}", made.surprises);
    let dump: BTreeMap<(String, String), Value> = (redtail.run(&["dump", "--typed", "-r", "replica.redb"]))
        .json_lines()
        .into_iter()
        .map(|l| ((l["table"].as_str().unwrap().to_owned(), l["key"].to_string()), l["row"].clone()))
        .collect();
    assert_eq!(made.rows, dump);
    for line in listener.lines() {
        let (before, after) = (&line["before"], &line["after"]);
        assert_ne!(before, after, "no change: {line}");
        if line["op"] == "u" {
            let columns = after.as_object().unwrap().iter();
            let differ: Vec<&String> =
                columns.filter(|(name, v)| before.get(*name) != Some(v)).map(|(n, _)| n).collect();
            assert_eq!(json!(differ), line["source"]["changed"], "{line}");
        }
    }
    run.stop();
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(work)
}

/// A replicator of a new source, level with it.
async fn level(folder: &TempDir, config: &Config) -> Replicator {
    let db = folder.path().join("source.db");
    if !db.exists() {
        apart(|| application(&db, SCHEMA));
    }
    let source = Source::open(&db.display().to_string(), config).unwrap();
    let replica = Replica::open(folder.path().join("replica.redb"), config).unwrap();
    let replicator = Replicator::new(source, replica, config.clone());
    replicator.sync_once().await.unwrap();
    replicator
}

fn write(folder: &TempDir, sql: &str) {
    apart(|| application(&folder.path().join("source.db"), &[sql]));
}

/// On a thread of its own: the application has its own runtime.
fn apart(work: impl FnOnce() + Send) {
    std::thread::scope(|scope| scope.spawn(work).join().unwrap());
}

fn keep(rows: u64) -> Config {
    Config { keep_changes: Some(KeepChanges { rows, age: None }), ..Config::default() }
}

#[test]
fn a_subscriber_that_is_too_slow_or_comes_too_late_is_told_so_and_given_nothing_less() {
    let folder = TempDir::new().unwrap();
    block_on(async {
        let config = Config { subscriber_rows: 10, ..Config::default() };
        let replicator = level(&folder, &config).await;
        let late = replicator.replica().snapshot().unwrap().position().unwrap();
        let mut slow = replicator.changes().await.unwrap();
        for i in 0..40 {
            write(&folder, &format!("INSERT INTO t0(a) VALUES ({i})"));
            replicator.sync_once().await.unwrap();
        }
        let told = slow.next().await.unwrap().err().unwrap();
        assert_eq!(told.kind(), Kind::Lagged, "{told}");
        assert!(
            told.to_string().contains("no longer kept") && told.to_string().contains("take a snapshot"),
            "{told}"
        );
        assert!(slow.next().await.is_none(), "it ends with that");
        let told = replicator.changes_from(late).await.err().unwrap();
        assert_eq!(told.kind(), Kind::Lagged, "{told}");
        let other: Position = format!("{}:5", "0".repeat(32)).parse().unwrap();
        assert_eq!(replicator.changes_from(other).await.err().unwrap().kind(), Kind::Divergence);
        let ahead = Position { seq: late.seq + 1000, ..late };
        assert_eq!(replicator.changes_from(ahead).await.err().unwrap().kind(), Kind::Divergence);

        // The last subscriber has gone: with the next window nothing is recorded any more, and nothing kept.
        drop(slow);
        write(&folder, "DELETE FROM t0 WHERE id = 1");
        replicator.sync_once().await.unwrap();
        assert_eq!(replicator.replica().kept_changes(None).err().unwrap().kind(), Kind::Lagged);
    });
}

#[test]
fn kept_changes_outlive_the_process_and_are_pruned_to_their_limit() {
    let folder = TempDir::new().unwrap();
    let mut positions = Vec::new();
    block_on(async {
        let replicator = level(&folder, &keep(1_000_000)).await;
        positions.push(replicator.replica().snapshot().unwrap().position().unwrap());
        for i in 0..5 {
            write(&folder, &format!("INSERT INTO t0(a) VALUES ({i}), ({i})"));
            positions.push(replicator.sync_once().await.unwrap());
        }
    });
    let ends = |replica: &Replica, from: Position| -> Vec<(Position, usize)> {
        let windows: Vec<Window> = replica.kept_changes(Some(from)).unwrap().map(Result::unwrap).collect();
        windows.iter().map(|w| (w.resume.unwrap(), w.changes.len())).collect()
    };
    let replica = Replica::open(folder.path().join("replica.redb"), &Config::default()).unwrap();
    for (n, from) in positions.iter().enumerate() {
        let want: Vec<(Position, usize)> = positions[n + 1..].iter().map(|p| (*p, 2)).collect();
        assert_eq!(ends(&replica, *from), want, "from the {n}th");
    }
    // The first copy is kept as what it was.
    let first = replica.kept_changes(None).unwrap().next().unwrap().unwrap();
    assert!(first.changes.iter().all(|c| c.op() == Op::Read && c.before().is_none()));
    replica.compact().unwrap();
    assert_eq!(ends(&replica, positions[0]).len(), 5, "compacting keeps them");
    drop(replica);

    block_on(async {
        let replicator = level(&folder, &keep(5)).await;
        write(&folder, "INSERT INTO t0(a) VALUES (9), (9)");
        let last = replicator.sync_once().await.unwrap();
        let replica = replicator.replica();
        // Two windows of two changes are four; a third would be six.
        assert_eq!(ends(replica, positions[4]), [(positions[5], 2), (last, 2)]);
        let pruned = replica.kept_changes(Some(positions[3])).err().unwrap();
        assert_eq!(pruned.kind(), Kind::Lagged, "{pruned}");

        // Nothing is to be kept any more: it goes.
        drop(replicator);
        let replicator = level(&folder, &Config::default()).await;
        write(&folder, "INSERT INTO t0(a) VALUES (10)");
        replicator.sync_once().await.unwrap();
        assert_eq!(replicator.replica().kept_changes(None).err().unwrap().kind(), Kind::Lagged);
    });
}

#[test]
fn a_large_window_comes_in_parts_and_is_resumed_from_its_beginning() {
    let folder = TempDir::new().unwrap();
    block_on(async {
        let config = Config { chunk_rows: 10, ..keep(1_000_000) };
        let replicator = level(&folder, &config).await;
        let begun = replicator.replica().snapshot().unwrap().position().unwrap();
        let mut changes = replicator.changes().await.unwrap();
        let rows = "WITH RECURSIVE n(i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n WHERE i < 124)";
        write(&folder, &format!("{rows} INSERT INTO t0(id, a) SELECT i, i FROM n"));
        let end = replicator.sync_once().await.unwrap();
        let mut parts = Vec::new();
        while parts.last().is_none_or(|w: &Window| !w.is_last) {
            parts.push(changes.next().await.unwrap().unwrap());
        }
        assert_eq!(parts.iter().map(|w| w.changes.len()).collect::<Vec<_>>(), [10, 10, 5]);
        assert_eq!(parts.iter().map(|w| w.resume.unwrap()).collect::<Vec<_>>(), [begun, begun, end]);
        assert!(parts.iter().all(|w| w.position == end && w.consistent));
        let mut again = replicator.changes_from(parts[1].resume.unwrap()).await.unwrap();
        assert_eq!(again.next().await.unwrap().unwrap().changes.len(), 10);
        // And from its end nothing comes until something changes.
        let mut rest = replicator.changes_from(end).await.unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(50), rest.next()).await.is_err());
        write(&folder, "DELETE FROM t0 WHERE id = 100");
        replicator.sync_once().await.unwrap();
        let next = rest.next().await.unwrap().unwrap();
        assert_eq!((next.changes.len(), next.changes[0].op()), (1, Op::Delete));
        assert_eq!(next.changes[0].row().integer("a").unwrap(), Some(100));
    });
}

#[test]
fn a_snapshot_and_the_changes_behind_it_fit_together_while_a_writer_goes_on() {
    let folder = TempDir::new().unwrap();
    block_on(async {
        let replicator = std::sync::Arc::new(level(&folder, &Config::default()).await);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let running = tokio::spawn({
            let replicator = std::sync::Arc::clone(&replicator);
            async move { replicator.run(async { drop(stopped.await) }).await }
        });
        let db = folder.path().join("source.db");
        let writing = std::thread::spawn(move || {
            let mut chance = Chance::new("a_snapshot_and_the_changes_behind_it_fit_together");
            for i in 0..300 {
                let id = chance.below(40);
                let sql = match chance.below(3) {
                    0 => format!("DELETE FROM t0 WHERE id = {id}"),
                    _ => format!("INSERT OR REPLACE INTO t0(id, a) VALUES ({id}, {i})"),
                };
                application(&db, &[sql]);
            }
            application(&db, &["INSERT OR REPLACE INTO t0(id, a) VALUES (1000, 1000)"]);
        });
        for round in 0..8 {
            let mut changes = replicator.changes().await.unwrap();
            let snapshot = replicator.replica().snapshot().unwrap();
            changes.skip_to(&snapshot);
            let mut rows: BTreeMap<i64, i64> = BTreeMap::new();
            for row in snapshot.scan("t0").unwrap() {
                let row = row.unwrap();
                let a = row.integer("a").unwrap_or(None).unwrap_or(-1);
                rows.insert(row.integer("id").unwrap().unwrap(), a);
            }
            let behind = if round < 7 { 5 } else { usize::MAX };
            for _ in 0..behind {
                if rows.contains_key(&1000) {
                    break;
                }
                for change in changes.next().await.unwrap().unwrap().changes {
                    let id = change.row().integer("id").unwrap().unwrap();
                    let value = |row: &redtail::Row| row.integer("a").unwrap_or(None).unwrap_or(-1);
                    // What was there is what it says: nothing is missing between the snapshot and here.
                    assert_eq!(rows.get(&id).copied(), change.before().map(value), "round {round}, row {id}");
                    match change.after() {
                        Some(row) => drop(rows.insert(id, value(row))),
                        None => drop(rows.remove(&id)),
                    }
                }
            }
        }
        writing.join().unwrap();
        stop.send(()).unwrap();
        running.await.unwrap().unwrap();
    });
}

#[test]
fn changes_without_anybody_who_follows_are_those_that_are_kept() {
    let folder = TempDir::new().unwrap();
    let redtail = Redtail::new(folder.path());
    application(&redtail.path("source.db"), SCHEMA);
    redtail.sync("source.db", "replica.redb");
    let now = redtail.run(&["changes", "-r", "replica.redb"]);
    assert_eq!(now.code, Some(2), "{now:?}");
    now.assert_one_line("nobody follows", &["replica.redb", "start `redtail run`", "--from POSITION"]);
    let at = redtail.status("source.db", "replica.redb");
    let position = format!("{}:{}", at["log_id"].as_str().unwrap(), at["cursor"]);
    let none = redtail.run(&["changes", "--from", &position, "-r", "replica.redb"]);
    assert_eq!(none.code, Some(1), "{none:?}");
    none.assert_one_line("nothing is kept", &["none are kept", "keep_changes"]);
    keeping(&redtail);
    // From the first window on that is applied while they are kept.
    application(&redtail.path("source.db"), &["DELETE FROM t0 WHERE id = 2"]);
    redtail.sync("source.db", "replica.redb");
    let lines = redtail.run(&["changes", "--from", &position, "-r", "replica.redb"]).json_lines();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert_eq!((lines[0]["op"].as_str(), &lines[0]["after"]), (Some("d"), &Value::Null));
    assert_eq!(lines[0]["before"], json!({"id": 2, "a": 2.5, "b": "y"}));
    assert_eq!(lines[0]["source"]["key"], json!([2]));
}
