//! A disk that fails under the real binary: reads, writes and fsync of the replica's file, a file system that
//! becomes read-only, permissions that are taken away. Each ends as promised, and going on ends equal.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tempfile::TempDir;

use crate::support::failing::{EIO, EROFS, Failing, Mounted};
use crate::support::oracle::Oracle;
use crate::support::redtail::{Output, Redtail};
use crate::support::writer::application;
use crate::support::{assert_equal, note, poll};

const REPLICA: &str = "replica.redb";
const MORE: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
    INSERT INTO items(body) SELECT randomblob(900) FROM n";

/// A source of 500 rows; its replica is made by who wants it.
fn prepared() -> (TempDir, Redtail) {
    let folder = TempDir::new().unwrap();
    let redtail = Redtail::new(folder.path());
    let table = "CREATE TABLE items(id INTEGER PRIMARY KEY, body BLOB)";
    application(&redtail.path("source.db"), &["PRAGMA journal_mode = WAL", table, MORE]);
    (folder, redtail)
}

fn refused(output: &Output, code: i32, says: &[&str]) {
    assert_eq!((output.code, output.stdout.as_str()), (Some(code), ""), "{output:#?}");
    output.assert_one_line("a disk that fails", says);
}

#[test]
fn a_read_that_fails_is_told_to_who_reads_and_passes_when_it_passes() {
    let test = "a_read_that_fails_is_told_to_who_reads_and_passes_when_it_passes";
    let Some(mut oracle) = Oracle::start(test) else { return };
    let (_folder, redtail) = prepared();
    let Some((failing, disk)) = Failing::prepare(test, &redtail, REPLICA) else { return };
    redtail.sync("source.db", REPLICA);

    // Nobody runs.
    disk.begin("r", EIO);
    for reading in [&["dump"][..], &["status"], &["get", "items", "1"]] {
        refused(&failing.run(&[reading, &["-r", REPLICA]].concat()), 1, &[REPLICA, "Input/output error"]);
    }
    refused(&failing.run(&["sync", "-s", "source.db", "-r", REPLICA]), 1, &[REPLICA, "Input/output error"]);
    disk.end();

    // A reader of a `run` that keeps nothing in memory meets it, and no change comes that would help.
    let mut run = failing.with_env("REDTAIL_CACHE_BYTES", "1").spawn_run("source.db", REPLICA);
    run.caught_up();
    disk.begin("r", EIO);
    refused(&redtail.run(&["dump", "-r", REPLICA]), 1, &[REPLICA, "Input/output error"]);
    disk.end();
    let read = poll(|| (redtail.run(&["dump", "-r", REPLICA]).code == Some(0)).then_some(()));
    assert!(read.is_some(), "readers are still refused: {}", run.said());
    application(&redtail.path("source.db"), &[MORE]);
    run.caught_up();
    assert_equal(&mut oracle, &redtail, "source.db", REPLICA);
    assert!(run.said().contains("reading failed"), "{}", run.said());
    run.stop();
}

#[test]
fn a_write_that_fails_is_tried_again_and_readers_have_what_there_is() {
    let test = "a_write_that_fails_is_tried_again_and_readers_have_what_there_is";
    let Some(mut oracle) = Oracle::start(test) else { return };
    let (_folder, redtail) = prepared();
    let Some((failing, disk)) = Failing::prepare(test, &redtail, REPLICA) else { return };
    redtail.sync("source.db", REPLICA);
    let mut run = failing.spawn_run("source.db", REPLICA);
    for (operations, error, says) in [
        ("w", EIO, "Input/output error"),
        ("l", EIO, "Input/output error"),
        ("wl", EROFS, "Read-only file system"),
    ] {
        run.caught_up();
        let rows = redtail.ok(&["scan", "items", "-r", REPLICA]).lines().count();
        disk.begin(operations, error);
        // Often enough that the file has to grow.
        application(&redtail.path("source.db"), &[MORE, MORE, MORE, MORE]);
        let status = run.until("retrying", |status| status["state"] == "retrying");
        assert!(status["error"].as_str().unwrap().contains(says), "{operations}: {status:#}");
        assert!(status["lag_entries"].as_u64().unwrap() > 0, "{operations}: {status:#}");
        // What was there when it began to fail can be read, or what a window that got through made of it.
        let read = poll(|| {
            let output = redtail.run(&["scan", "items", "-r", REPLICA]);
            (output.code == Some(0)).then_some(output.stdout.lines().count())
        });
        assert!(read.is_some_and(|now| now >= rows), "{operations}: {read:?} of {rows}; {}", run.said());
        disk.end();
        run.caught_up();
        assert_equal(&mut oracle, &redtail, "source.db", REPLICA);
    }
    run.stop();
    redtail.sync("source.db", REPLICA);
    assert_equal(&mut oracle, &redtail, "source.db", REPLICA);
}

#[test]
fn an_fsync_that_fails_ends_run_at_once_and_the_next_start_goes_on() {
    let test = "an_fsync_that_fails_ends_run_at_once_and_the_next_start_goes_on";
    let Some(mut oracle) = Oracle::start(test) else { return };
    let (_folder, redtail) = prepared();
    let Some((failing, disk)) = Failing::prepare(test, &redtail, REPLICA) else { return };
    redtail.sync("source.db", REPLICA);
    let mut run = failing.spawn_run("source.db", REPLICA);
    run.caught_up();
    disk.begin("s", EIO);
    application(&redtail.path("source.db"), &[MORE]);
    let (code, said) = run.ended();
    assert_eq!(code, Some(1), "{said}");
    let last: Vec<&str> = said.lines().filter(|line| line.starts_with("redtail: ")).collect();
    assert_eq!(last.len(), 1, "{said}");
    for what in [REPLICA, "fsync failed", "Input/output error", "check the disk, then start again"] {
        assert!(last[0].contains(what), "{said}");
    }
    // It fails at the start, and where the file is made.
    for replica in [REPLICA, "new.replica.redb"] {
        refused(&failing.run(&["sync", "-s", "source.db", "-r", replica]), 1, &[replica, "fsync failed"]);
    }
    disk.end();
    assert!(
        !redtail.path("new.replica.redb").exists(),
        "a file that is not on disk for certain is not there"
    );
    redtail.sync("source.db", REPLICA);
    assert_equal(&mut oracle, &redtail, "source.db", REPLICA);
}

#[test]
fn on_a_file_system_that_becomes_read_only_readers_go_on_and_mended_it_is_followed_again() {
    let test = "on_a_file_system_that_becomes_read_only_readers_go_on_and_mended_it_is_followed_again";
    let Some(mut oracle) = Oracle::start(test) else { return };
    let (_folder, redtail) = prepared();
    let Some(disk) = Mounted::new(test, &redtail.path("disk")) else { return };
    let replica = "disk/replica.redb";
    redtail.sync("source.db", replica);
    let mut run = redtail.spawn_run("source.db", replica);
    run.caught_up();
    disk.break_it();
    application(&redtail.path("source.db"), &[MORE]);
    // The kernel says that reading and writing fail, or that nothing may be written; fsync may be the first to hear.
    let ended = poll(|| {
        run.has_ended().then_some(true).or_else(|| {
            let state = redtail.run(&["status", "-s", "source.db", "-r", replica, "--json"]);
            serde_json::from_str::<serde_json::Value>(&state.stdout)
                .ok()
                .filter(|s| s["state"] == "retrying")
                .map(|_| false)
        })
    });
    match ended {
        Some(true) => assert!(run.said().contains("fsync failed"), "{}", run.said()),
        Some(false) => {
            let read =
                poll(|| (redtail.run(&["get", "items", "1", "-r", replica]).code == Some(0)).then_some(()));
            assert!(read.is_some(), "readers are refused: {}", run.said());
            run.stop();
        }
        None => panic!("neither ended nor retrying: {}", run.said()),
    }

    // At start: who reads may, who writes is told.
    assert_eq!(redtail.ok(&["scan", "items", "-r", replica]).lines().count(), 500);
    redtail.ok(&["status", "-r", replica]);
    for replica in [replica, "disk/new.redb"] {
        let output = redtail.run(&["sync", "-s", "source.db", "-r", replica]);
        refused(&output, 2, &[replica, "Read-only file system"]);
    }
    disk.mend();
    redtail.sync("source.db", replica);
    assert_equal(&mut oracle, &redtail, "source.db", replica);
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// As somebody whom modes hold up; everything in the folder is theirs.
fn as_somebody(test: &str, redtail: &Redtail) -> Option<Redtail> {
    let somebody = redtail.as_nobody();
    if somebody.is_none() {
        note(&format!("skipped: {test}: root here, and cannot become anybody else"));
    }
    somebody
}

#[test]
fn what_it_makes_is_for_its_owner_alone_whatever_the_umask_says() {
    let (folder, redtail) = prepared();
    let listening = redtail.with_env("REDTAIL_LISTEN", "./listen.sock");
    let mut run = listening.spawn_run_after("umask 000", "source.db", REPLICA);
    run.caught_up();
    redtail.ok(&["compact", "-r", REPLICA]);
    run.caught_up();
    let mode = |name: &str| fs::metadata(redtail.path(name)).unwrap().permissions().mode() & 0o777;
    for name in [REPLICA, "replica.redb.sock", "listen.sock"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    run.kill9();
    // A damaged one is moved aside as it was.
    fs::OpenOptions::new().write(true).open(redtail.path(REPLICA)).unwrap().set_len(5_000).unwrap();
    let mut run = redtail.spawn_run_after("umask 000", "source.db", REPLICA);
    run.caught_up();
    run.stop();
    let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let ours: Vec<String> =
        names.filter_map(|name| name.into_string().ok()).filter(|n| n.starts_with(REPLICA)).collect();
    assert!(ours.len() == 2 && ours.iter().all(|name| mode(name) == 0o600), "{ours:?}");
}

#[test]
fn permissions_of_the_replica_taken_away_while_it_runs_do_not_stop_it() {
    let test = "permissions_of_the_replica_taken_away_while_it_runs_do_not_stop_it";
    let Some(mut oracle) = Oracle::start(test) else { return };
    let (_folder, redtail) = prepared();
    fs::create_dir(redtail.path("inner")).unwrap();
    let Some(somebody) = as_somebody(test, &redtail) else { return };
    let (source, replica) = (redtail.path("source.db"), "inner/replica.redb");
    somebody.sync("source.db", replica);
    let mut run = somebody.spawn_run("source.db", replica);
    run.caught_up();
    // The file is open, and whoever may read its socket still may.
    set_mode(&redtail.path(replica), 0o000);
    set_mode(&redtail.path("inner"), 0o555);
    application(&source, &[MORE]);
    run.caught_up();
    assert_equal(&mut oracle, &redtail, "source.db", replica);
    run.stop();

    // At the next start they are missed, by name; a leftover socket cannot be taken away and is none.
    for command in [&["sync", "-s", "source.db"][..], &["dump"], &["status"]] {
        refused(&somebody.run(&[command, &["-r", replica]].concat()), 2, &[replica, "permission denied"]);
    }
    set_mode(&redtail.path(replica), 0o400);
    assert!(somebody.ok(&["dump", "-r", replica]).lines().count() > 500);
    refused(&somebody.run(&["sync", "-s", "source.db", "-r", replica]), 2, &[replica, "permission denied"]);
    set_mode(&redtail.path(replica), 0o600);
    // The folder may not be written to: what is there can be followed, nothing can be made beside it.
    somebody.sync("source.db", replica);
    refused(
        &somebody.run(&["sync", "-s", "source.db", "-r", "inner/new.redb"]),
        2,
        &["inner/new.redb", "permission denied"],
    );
    fs::OpenOptions::new().write(true).open(redtail.path(replica)).unwrap().set_len(5_000).unwrap();
    refused(
        &somebody.run(&["sync", "-s", "source.db", "-r", replica]),
        1,
        &[replica, "damaged", "cannot be moved aside", "permission denied"],
    );
    set_mode(&redtail.path("inner"), 0o755);
    somebody.sync("source.db", replica);
    assert_equal(&mut oracle, &redtail, "source.db", replica);
}

#[test]
fn permissions_of_the_source_taken_away_and_given_back_are_waited_for() {
    let test = "permissions_of_the_source_taken_away_and_given_back_are_waited_for";
    let Some(mut oracle) = Oracle::start(test) else { return };
    let (_folder, redtail) = prepared();
    let Some((failing, disk)) = Failing::prepare(test, &redtail, REPLICA) else { return };
    let Some(somebody) = as_somebody(test, &failing) else { return };
    let source = redtail.path("source.db");
    somebody.sync("source.db", REPLICA);
    let mut run = somebody.spawn_run("source.db", REPLICA);
    run.caught_up();
    // It has the file open; after a failure elsewhere it opens the source again, which it may not.
    disk.begin("w", EIO);
    application(&source, &[MORE]);
    run.until("retrying", |status| status["state"] == "retrying");
    set_mode(&source, 0o000);
    disk.end();
    let told =
        poll(|| run.said().contains("cannot be opened; check the permissions of the file").then_some(()));
    assert!(told.is_some(), "{}", run.said());
    run.assert_running();
    set_mode(&source, 0o644);
    run.caught_up();
    assert_equal(&mut oracle, &redtail, "source.db", REPLICA);
    run.stop();
    set_mode(&source, 0o000);
    refused(
        &somebody.run(&["sync", "-s", "source.db", "-r", REPLICA]),
        2,
        &["source.db", "cannot be opened; check the permissions"],
    );
    set_mode(&source, 0o644);
    somebody.sync("source.db", REPLICA);
}
