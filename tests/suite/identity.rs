//! Whether a source is still the one that was followed: found before anything is applied.

use serde_json::json;

use crate::support::redtail::Redtail;
use crate::support::trial::Trial;

const PAIR: [&str; 4] = ["-s", "source.db", "-r", "replica.redb"];
const SETUP: &[&str] = &[
    "CREATE TABLE beat(id INTEGER PRIMARY KEY, n)",
    "INSERT INTO beat VALUES (1, 0)",
    "CREATE TABLE t(k TEXT COLLATE NOCASE NOT NULL PRIMARY KEY, u UNIQUE, v)",
    "CREATE TABLE o(a, b NOT NULL, v, PRIMARY KEY(b, a)) WITHOUT ROWID",
    "INSERT INTO t VALUES ('a', 1, 1), ('b', 2, 2), ('c', 3, 3), ('d', 4, 4), ('e', 5, 5)",
    "INSERT INTO o VALUES (1, 1, 1), (2, 2, 2), (x'00', 1.5, 3)",
];
/// What happens before the copy that is put back, after it in the history that is lost, and in the new one.
const COMMON: &[&str] = &["UPDATE t SET v = 10 WHERE k = 'a'"];
const LOST: &[&str] = &[
    "UPDATE t SET v = 11 WHERE k = 'A'",
    "DELETE FROM t WHERE k = 'b'",
    "REPLACE INTO t VALUES ('lost', 6, 6)",
    "REPLACE INTO t VALUES ('evicts', 3, 7)",
    "UPDATE t SET k = 'D' WHERE k = 'd'",
    "UPDATE OR REPLACE o SET a = 'moved' WHERE b = 1",
    "DELETE FROM o WHERE b = 1.5",
    "CREATE VIEW IF NOT EXISTS seen AS SELECT 1",
];
const NEW: &[&str] = &[
    "UPDATE t SET v = 12 WHERE k = 'e'",
    "REPLACE INTO t VALUES ('lost', 60, 60)",
    "DELETE FROM o WHERE a = 2",
];

fn begin(test: &str, live: bool) -> Option<Trial> {
    let mut trial = Trial::begin(test, None)?;
    trial.application(&[if live { "PRAGMA journal_mode = WAL" } else { "PRAGMA journal_mode = DELETE" }]);
    trial.application(SETUP);
    trial.follow(live);
    Some(trial)
}

fn dumped(redtail: &Redtail) -> String {
    redtail.ok(&["dump", "--typed", "-r", "replica.redb"])
}

fn log_id(trial: &mut Trial) -> String {
    trial.redtail.status("source.db", "replica.redb")["log_id"].as_str().unwrap().to_owned()
}

// Attacks: the log id is another one after `remove` and `init`, whatever the numbers are.
#[test]
fn a_capture_installed_anew_is_another_log() {
    for live in [false, true] {
        let Some(mut trial) = begin("a_capture_installed_anew_is_another_log", live) else { return };
        let before = log_id(&mut trial);
        trial.application(COMMON);
        if live {
            // One transaction of the application lies between the two.
            trial.redtail.ok(&["remove", "-s", "source.db", "--force"]);
            trial.application(LOST);
            trial.redtail.ok(&["init", "-s", "source.db"]);
            trial.becomes_equal("removed, and put in again beside a run");
        } else {
            trial.redtail.ok(&["remove", "-s", "source.db", "--force"]);
            trial.application(LOST);
            trial.redtail.ok(&["init", "-s", "source.db"]);
            // The same number, and another log.
            trial.application(&["UPDATE t SET v = 10 WHERE k = 'a'"]);
            trial.assert_equal("removed, and put in again");
        }
        assert_ne!(log_id(&mut trial), before);
        trial.application(NEW);
        trial.assert_equal("followed again");
    }
}

/// Puts a copy back and lets the application write on; `more` are entries that the new history has on top.
fn put_back(trial: &mut Trial, live: bool, new: &[&str], more: usize) {
    trial.application(COMMON);
    trial.assert_equal("common");
    trial.back_up("copy.db");
    trial.application(LOST);
    trial.assert_equal("the history that is lost");
    if live {
        trial.stop();
    }
    trial.put_in_place("copy.db");
    trial.application(new);
    trial.application(&vec!["UPDATE t SET v = v + 1 WHERE k = 'e'"; more]);
}

// Attacks: a head before the cursor, or an entry of the same number that is another one. The keys entered
// since the last common entry are read again, and no table is read anew.
#[test]
fn a_copy_put_back_is_found_and_only_what_changed_since_is_read_again() {
    let test = "a_copy_put_back_is_found_and_only_what_changed_since_is_read_again";
    for (new, more) in [(&[] as &[&str], 0), (NEW, 0), (NEW, 40)] {
        let Some(mut trial) = begin(test, true) else { return };
        put_back(&mut trial, true, new, more);
        trial.spawn();
        trial.becomes_equal(&format!("{} new statements", new.len() + more));
        let status = trial.run().status();
        assert_eq!(status["rows_copied"], 0, "read anew: {status:#}");
        assert_eq!(status["consistent"], true, "{status:#}");
        trial.application(LOST);
        trial.becomes_equal("written on");
        assert_eq!(trial.run().status()["rows_copied"], 0);
    }
}

// Attacks: the same where every look is a process of its own, and twice in a row.
#[test]
fn a_copy_put_back_twice_is_found_twice() {
    let Some(mut trial) = begin("a_copy_put_back_twice_is_found_twice", false) else { return };
    put_back(&mut trial, false, NEW, 3);
    trial.assert_equal("put back");
    trial.put_in_place("copy.db");
    trial.assert_equal("put back again, and nothing written");
    trial.application(LOST);
    trial.assert_equal("written on");
    trial.put_in_place("copy.db");
    trial.application(LOST);
    trial.assert_equal("the same statements at another time");
}

// Attacks: keys of which a canonical key keeps less than what finds their row: behind a NUL under NOCASE only the
// length, of invalid UTF-16 only what SQLite compares.
#[test]
fn a_copy_put_back_brings_back_rows_whose_keys_are_not_kept_whole() {
    let test = "a_copy_put_back_brings_back_rows_whose_keys_are_not_kept_whole";
    let utf8 = ["char(97, 0, 66)", "char(0)", "CAST(x'c300ff' AS TEXT)", "'B  '"];
    let utf16 =
        ["char(97, 0, 228)", "CAST(substr(x'00d8', 1) AS TEXT)", "CAST(substr(x'6100fdff00dc', 1) AS TEXT)"];
    for (encoding, keys) in [("UTF-8", &utf8[..]), ("UTF-16le", &utf16), ("UTF-16be", &utf16)] {
        let Some(mut trial) = Trial::begin(test, None) else { return };
        let mut setup = vec![format!("PRAGMA encoding = '{encoding}'")];
        for collation in ["BINARY", "NOCASE", "RTRIM"] {
            setup.push(format!(
                "CREATE TABLE {collation}(k COLLATE {collation} PRIMARY KEY, v) WITHOUT ROWID"
            ));
            setup.extend(keys.iter().map(|key| format!("INSERT INTO {collation} VALUES ({key}, 1)")));
        }
        trial.application(&setup);
        trial.follow(false);
        trial.assert_equal("common");
        trial.back_up("copy.db");
        // The schema changes, so that no table is read as a whole for its unchanged version.
        trial.application(&[
            "DELETE FROM binary",
            "DELETE FROM nocase",
            "DELETE FROM rtrim",
            "CREATE VIEW seen AS SELECT 1",
        ]);
        trial.assert_equal("the history that is lost");
        trial.put_in_place("copy.db");
        trial.assert_equal(&format!("put back, {encoding}"));
    }
}

// Attacks: another file in the source's place, and the same file overwritten in place, under a `run`.
#[test]
fn a_copy_put_back_beside_a_run_is_found_without_a_restart() {
    let test = "a_copy_put_back_beside_a_run_is_found_without_a_restart";
    for in_place in [false, true] {
        let Some(mut trial) = begin(test, true) else { return };
        trial.application(COMMON);
        trial.assert_equal("common");
        trial.back_up("copy.db");
        trial.application(LOST);
        trial.assert_equal("the history that is lost");
        let copied = trial.run().status()["rows_copied"].clone();
        if in_place {
            let (db, from) = (trial.source(), trial.source().with_file_name("copy.db"));
            trial.oracle.ask(&json!({"op": "overwrite", "db": db, "from": from}));
        } else {
            trial.put_in_place("copy.db");
        }
        trial.application(NEW);
        trial.becomes_equal(&format!("in place: {in_place}"));
        assert_eq!(
            trial.run().status()["rows_copied"],
            copied,
            "in place: {in_place}: nothing was read anew"
        );
        trial.application(LOST);
        trial.becomes_equal("written on");
    }
}

// Attacks: a file that is being copied to the source's place is no database at first, and then half of one.
#[test]
fn a_copy_that_is_put_back_slowly_beside_a_run_is_waited_for() {
    let test = "a_copy_that_is_put_back_slowly_beside_a_run_is_waited_for";
    let Some(mut trial) = begin(test, true) else { return };
    trial.application(&[
        "CREATE TABLE many(k INTEGER PRIMARY KEY, v)",
        "INSERT INTO many WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) SELECT i, randomblob(100) FROM n",
    ]);
    trial.assert_equal("common");
    trial.back_up("copy.db");
    trial.application(LOST);
    trial.assert_equal("the history that is lost");
    let source = trial.source();
    let whole = std::fs::read(source.with_file_name("copy.db")).unwrap();
    let retries = |status: &serde_json::Value| status["work"]["retries"]["unavailable"].as_u64().unwrap();
    for end in ["", "-wal", "-shm"] {
        let mut file = source.clone().into_os_string();
        file.push(end);
        std::fs::remove_file(file).unwrap();
    }
    // Every length that a copy passes through: nothing, a part of the header, a few pages, half of all pages.
    for length in [0, 50, 4096, 3 * 4096 + 100, whole.len() / 2] {
        let before = retries(&trial.run().status());
        std::fs::write(&source, &whole[..length]).unwrap();
        trial.run().until("it has looked again", |status| retries(status) > before);
    }
    std::fs::write(&source, &whole).unwrap();
    trial.application(NEW);
    trial.becomes_equal("whole again");
    trial.application(&["UPDATE many SET v = k WHERE k > 2990", "DELETE FROM many WHERE k < 10"]);
    trial.becomes_equal("written on");
}

// Attacks: what lies further back than the replica remembers is reconciled.
#[test]
fn a_copy_older_than_what_is_remembered_is_reconciled() {
    let Some(mut trial) = begin("a_copy_older_than_what_is_remembered_is_reconciled", false) else { return };
    trial.application(COMMON);
    trial.assert_equal("common");
    trial.back_up("copy.db");
    trial.application(LOST);
    trial.application(&["WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 12000) INSERT INTO o SELECT i, 'many', i FROM n"]);
    trial.assert_equal("long lost");
    trial.put_in_place("copy.db");
    trial.application(NEW);
    trial.assert_equal("put back");
}

// Attacks: the schema version alone tells nothing of two histories: here it is the same in both, and only
// one of them has renumbered the rows.
#[test]
fn a_copy_put_back_to_an_equal_schema_version_is_no_proof_of_equal_rowids() {
    let Some(mut trial) =
        begin("a_copy_put_back_to_an_equal_schema_version_is_no_proof_of_equal_rowids", false)
    else {
        return;
    };
    trial.application(&[
        "CREATE TABLE bare(x)",
        "INSERT INTO bare VALUES (1), (2), (3), (4), (5), (6)",
        "DELETE FROM bare WHERE x IN (1, 3)",
    ]);
    trial.assert_equal("common");
    // So that the next VACUUM moves nothing but those rows.
    trial.application(&["VACUUM", "DELETE FROM bare WHERE x = 2", "UPDATE bare SET rowid = rowid * 10"]);
    trial.assert_equal("common");
    trial.back_up("copy.db");
    let version = "SELECT schema_version FROM pragma_schema_version";
    trial.application(&["VACUUM"]);
    let lost = trial.integers(version);
    trial.assert_equal("renumbered");
    trial.put_in_place("copy.db");
    while trial.integers(version) < lost {
        trial.application(&["CREATE VIEW IF NOT EXISTS more AS SELECT 1"]);
    }
    assert_eq!(trial.integers(version), lost, "the versions meet");
    trial.application(&["DELETE FROM bare WHERE x = 5", "UPDATE bare SET x = 40 WHERE x = 4"]);
    trial.assert_equal("put back");
}

// Attacks: the entry at the cursor is gone: what was entered meanwhile may have gone with it.
#[test]
fn entries_pruned_past_the_cursor_are_noticed() {
    let Some(mut trial) = begin("entries_pruned_past_the_cursor_are_noticed", false) else { return };
    trial.application(COMMON);
    trial.application(LOST);
    trial.application(&[
        "DELETE FROM _redtail_changelog WHERE seq < (SELECT max(seq) FROM _redtail_changelog)",
    ]);
    trial.assert_equal("pruned by hand");
    // The newest entry stays, so numbers never start over: up to the cursor it may be pruned freely.
    trial.application(&[
        "DELETE FROM _redtail_changelog WHERE seq < (SELECT max(seq) FROM _redtail_changelog)",
    ]);
    trial.application(NEW);
    trial.assert_equal("pruned up to the cursor");
}

// Attacks: a changelog that was emptied starts a new log: its numbers would start over.
#[test]
fn a_changelog_emptied_by_hand_is_noticed() {
    for live in [false, true] {
        let Some(mut trial) = begin("a_changelog_emptied_by_hand_is_noticed", live) else { return };
        let before = log_id(&mut trial);
        trial.application(&[&["BEGIN"], LOST, &["DELETE FROM _redtail_changelog", "COMMIT"]].concat());
        trial.becomes_equal_by(live, "emptied");
        // Also where the application writes first, and the numbers start over: the first entry tells.
        assert_ne!(log_id(&mut trial), before);
        // Emptied, and filled up by the application to where it was.
        trial.application(&[
            "BEGIN",
            "INSERT INTO t VALUES ('unseen', 99, 99)",
            "DELETE FROM _redtail_changelog",
        ]);
        trial.application(
            &[&["DELETE FROM _redtail_changelog"], &["UPDATE t SET v = v + 1"; 30] as &[&str]].concat(),
        );
        trial.becomes_equal_by(live, "emptied and filled");
    }
}

// Attacks: numbers that have come to the cursor again, where the very same entry stands: the clock counts in
// milliseconds, and an application can empty the changelog and fill it in one.
#[test]
fn an_emptied_changelog_is_noticed_by_its_first_entry() {
    for live in [false, true] {
        let Some(mut trial) = begin("an_emptied_changelog_is_noticed_by_its_first_entry", live) else {
            return;
        };
        trial.application(COMMON);
        trial.assert_equal("before");
        let before = log_id(&mut trial);
        trial.application(&["UPDATE beat SET n = n + 1"]);
        trial.becomes_equal_by(live, "at an entry of beat");
        let newest =
            "SELECT seq, tbl, op, at, k0, k1 IS NULL FROM _redtail_changelog ORDER BY seq DESC LIMIT 1";
        let newest = trial.integers(newest);
        let [seq, tbl, op, at, k0, 1] = newest[..] else { panic!("another entry: {newest:?}") };
        let again = format!(
            "UPDATE _redtail_changelog SET tbl = {tbl}, op = {op}, at = {at}, k0 = {k0} WHERE seq = {seq}"
        );
        let trimmed = format!("DELETE FROM _redtail_changelog WHERE seq > {seq}");
        let fill = vec!["UPDATE t SET v = v + 1"; usize::try_from(seq).unwrap()];
        let writes = [LOST, &["DELETE FROM _redtail_changelog"], &fill, &[&again, &trimmed]].concat();
        trial.application(&[&["BEGIN"], &writes[..], &["COMMIT"]].concat());
        assert_eq!(
            trial.integers(
                "SELECT seq, tbl, op, at, k0, k1 IS NULL FROM _redtail_changelog ORDER BY seq DESC LIMIT 1"
            ),
            newest
        );
        if live {
            trial.becomes_equal("emptied and filled to the same entry");
        } else {
            let verify = ["verify", "-s", "source.db", "-r", "replica.redb"];
            let verified = trial.redtail.run(&verify);
            verified.assert_one_line("verify", &["capture is not installed; run `redtail init`"]);
            trial.assert_equal("emptied and filled to the same entry");
        }
        assert_ne!(log_id(&mut trial), before);
        trial.application(NEW);
        trial.becomes_equal_by(live, "written on");
    }
}

// Attacks: entries taken out between the cursor and the newest; numbers have no gaps by themselves.
#[test]
fn entries_missing_behind_the_cursor_are_noticed() {
    const MANY: &str = "INSERT INTO t(k, v) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 25000) SELECT i, i FROM n";
    for (live, writes) in [(false, LOST), (true, LOST), (false, &[MANY]), (true, &[MANY])] {
        let Some(mut trial) = begin("entries_missing_behind_the_cursor_are_noticed", live) else { return };
        trial.application(COMMON);
        trial.assert_equal("before");
        let head = trial.integers("SELECT max(seq) FROM _redtail_changelog")[0];
        let taken = format!("DELETE FROM _redtail_changelog WHERE seq BETWEEN {} AND {}", head + 2, head + 4);
        trial.application(&[&["BEGIN"], writes, &[&taken, "COMMIT"]].concat());
        trial.becomes_equal_by(live, "with entries taken out");
        trial.application(NEW);
        trial.becomes_equal_by(live, "written on");
    }
}

// Attacks: a vanished changelog is a divergence, and captured writes fail only until the repair.
#[test]
fn a_changelog_dropped_by_hand_is_made_again() {
    for live in [false, true] {
        let Some(mut trial) = begin("a_changelog_dropped_by_hand_is_made_again", live) else { return };
        let before = log_id(&mut trial);
        trial.application(&[&["BEGIN"], LOST, &["DROP TABLE _redtail_changelog", "COMMIT"]].concat());
        if live {
            // Captured writes fail until it is repaired: wait without one.
            trial.becomes_equal("dropped");
        }
        trial.redtail.ok(&["init", "-s", "source.db"]);
        trial.becomes_equal_by(live, "dropped, and made again");
        assert_ne!(log_id(&mut trial), before);
        trial.application(NEW);
        trial.becomes_equal_by(live, "followed again");
        trial.application(&["DROP TABLE _redtail_meta", "DROP TABLE _redtail_tables"]);
        trial.becomes_equal_by(live, "the bookkeeping dropped");
    }
}

// Attacks: a row may have been read at the horizon, beyond the cursor: a head between the two is another
// history. Here a row that is too large ends a backlog in its middle.
#[test]
fn a_head_before_the_horizon_is_another_history() {
    let Some(mut trial) = begin("a_head_before_the_horizon_is_another_history", false) else { return };
    trial.application(&[
        "UPDATE t SET v = 'old' WHERE k = 'a'",
        "UPDATE t SET v = 1 WHERE k = 'b'",
        "UPDATE t SET v = 1 WHERE k = 'c'",
        "UPDATE t SET v = 1 WHERE k = 'd'",
    ]);
    trial.back_up("copy.db");
    trial.application(&[
        "UPDATE t SET v = 'from the horizon' WHERE k = 'a'",
        "UPDATE t SET v = 1 WHERE k = 'e'",
        "UPDATE beat SET n = zeroblob(5000)",
    ]);
    let narrow = trial.redtail.with_env("REDTAIL_WINDOW_ENTRIES", "2").with_env("REDTAIL_MAX_ROW", "1000");
    let stuck = narrow.run(&[&["sync"], &PAIR as &[&str]].concat());
    assert_eq!(stuck.code, Some(1), "{stuck:#?}");
    let status = trial.redtail.status("source.db", "replica.redb");
    assert!(status["horizon"].as_u64() > status["cursor"].as_u64(), "{status:#}");
    assert_eq!(status["consistent"], false, "{status:#}");
    assert!(dumped(&trial.redtail).contains("from the horizon"));
    trial.put_in_place("copy.db");
    trial.assert_equal("a head before the horizon");
}

// Attacks: a copy has the same log id, and is told apart by the entries once it has gone its own way.
#[test]
fn a_copy_followed_in_the_sources_stead_is_told_apart() {
    let Some(mut trial) = begin("a_copy_followed_in_the_sources_stead_is_told_apart", false) else { return };
    trial.application(COMMON);
    trial.assert_equal("common");
    trial.back_up("beside.db");
    let beside = trial.source().with_file_name("beside.db");
    trial.application(LOST);
    trial.oracle.script(&beside, NEW);
    trial.redtail.sync("beside.db", "beside.redb");
    trial.assert_equal("each with its own replica");
    // The replica of one is given the other, and back.
    trial.redtail.sync("beside.db", "replica.redb");
    let dump = trial.source().with_file_name("dump.jsonl");
    trial.redtail.dump("replica.redb", &dump);
    assert!(trial.oracle.compare(&beside, &dump).equal);
    trial.assert_equal("and back");
}

// Attacks: a replica of another source is refused, not rebuilt.
#[test]
fn a_replica_of_another_source_is_refused() {
    let Some(mut trial) = begin("a_replica_of_another_source_is_refused", false) else { return };
    let other = trial.source().with_file_name("other.db");
    trial.oracle.script(&other, SETUP);
    trial.redtail.ok(&["init", "-s", "other.db"]);
    let before = dumped(&trial.redtail);
    for command in ["sync", "run"] {
        let output = trial.redtail.run(&[command, "-s", "other.db", "-r", "replica.redb"]);
        assert_eq!(output.code, Some(2), "{output:#?}");
        output.assert_one_line("another source", &["source.db", "other.db"]);
    }
    assert_eq!(dumped(&trial.redtail), before);
    trial.assert_equal("its own source is still followed");
}

// Attacks: with on_divergence = "stop" nothing is touched, and the old rows can be read.
#[test]
fn a_divergence_stops_where_that_is_configured() {
    let Some(mut trial) = begin("a_divergence_stops_where_that_is_configured", false) else { return };
    // Outside WAL mode there is a warning beside the error.
    trial.application(&["PRAGMA journal_mode = WAL"]);
    trial.redtail.ok(&["remove", "-s", "source.db", "--force"]);
    trial.application(LOST);
    let before = dumped(&trial.redtail);
    let careful = trial.redtail.with_env("REDTAIL_ON_DIVERGENCE", "stop");
    for command in ["sync", "run"] {
        let output = careful.run(&[&[command], &PAIR as &[&str]].concat());
        assert_eq!(output.code, Some(1), "{output:#?}");
        output.assert_one_line("stop", &["diverged", "rebuild"]);
        assert_eq!(dumped(&trial.redtail), before, "after {command}");
        assert!(trial.redtail.ok(&["get", "t", "b", "-r", "replica.redb"]).contains("\"v\":2"));
    }
    // A file from before capture is one of the ways to get there; the default rebuilds.
    trial.assert_equal("rebuilt by default");
    careful.sync("source.db", "replica.redb");
}
