//! A damaged replica: reading it is refused, `run` and `sync` move it aside, make it again, and say so.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::support::oracle::Oracle;
use crate::support::redtail::Redtail;
use crate::support::writer::application;
use crate::support::{Chance, assert_equal, assert_unchanged, contents};

const REPLICA: &str = "replica.redb";

/// A source of 2,000 rows with its replica.
fn prepared() -> (TempDir, Redtail) {
    let folder = TempDir::new().unwrap();
    let redtail = Redtail::new(folder.path());
    application(
        &redtail.path("source.db"),
        &[
            "PRAGMA journal_mode = WAL",
            "CREATE TABLE items(id INTEGER PRIMARY KEY, name TEXT, body BLOB)",
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
               INSERT INTO items SELECT i, 'name ' || i, zeroblob(i % 3000) FROM n",
        ],
    );
    redtail.sync("source.db", REPLICA);
    (folder, redtail)
}

fn moved_aside(redtail: &Redtail) -> Vec<PathBuf> {
    let entries = fs::read_dir(redtail.path(".")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.to_string_lossy().contains("replica.redb.damaged-")).collect()
}

fn flip(redtail: &Redtail, at: u64, bit: u8) {
    let file = OpenOptions::new().read(true).write(true).open(redtail.path(REPLICA)).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ bit], at).unwrap();
}

#[test]
fn a_file_with_a_flipped_bit_is_refused_to_readers_and_made_again_by_sync() {
    let test = "a_file_with_a_flipped_bit_is_refused_to_readers_and_made_again_by_sync";
    let Some(mut oracle) = Oracle::start(test) else { return };
    let mut chance = Chance::new(test);
    let (_folder, redtail) = prepared();
    let mut seen = 0;
    while seen < 5 {
        let len = fs::metadata(redtail.path(REPLICA)).unwrap().len();
        flip(&redtail, chance.below(len), 1 << chance.below(8));
        let damaged = fs::read(redtail.path(REPLICA)).unwrap();
        let dump = redtail.run(&["dump", "-r", REPLICA]);
        if dump.code == Some(0) {
            // A page that nothing refers to.
            assert_equal(&mut oracle, &redtail, "source.db", REPLICA);
            continue;
        }
        seen += 1;
        for reading in [&["dump"][..], &["status"], &["get", "items", "7"]] {
            let output = redtail.run(&[reading, &["-r", REPLICA]].concat());
            assert_eq!((output.code, output.stdout.as_str()), (Some(1), ""), "{reading:?}: {output:#?}");
            output.assert_one_line("a damaged replica", &[REPLICA, "damaged"]);
        }
        let synced = redtail.run(&["sync", "-s", "source.db", "-r", REPLICA]);
        assert_eq!(synced.code, Some(0), "{synced:#?}");
        let warnings: Vec<_> = synced.stderr.lines().filter(|line| line.contains("WARN")).collect();
        assert_eq!(warnings.len(), 1, "{synced:#?}");
        assert!(warnings[0].contains("damaged") && warnings[0].contains("moved to"), "{warnings:?}");
        assert_equal(&mut oracle, &redtail, "source.db", REPLICA);

        let moved = moved_aside(&redtail);
        assert_eq!(moved.len(), 1, "{moved:?}");
        assert!(fs::read(&moved[0]).unwrap() == damaged, "what was moved is as it was");
        let status = redtail.status("source.db", REPLICA);
        let name = moved[0].file_name().unwrap().to_str().unwrap();
        assert!(status["damaged"]["moved_to"].as_str().unwrap().ends_with(name), "{status:#}");
        assert!(status["damaged"]["at"].as_str().unwrap().starts_with("20"), "{status:#}");
        assert!(redtail.ok(&["status", "-r", REPLICA]).contains(name));
        fs::remove_file(&moved[0]).unwrap();
    }
}

#[test]
fn a_truncated_or_emptied_file_is_made_again() {
    let test = "a_truncated_or_emptied_file_is_made_again";
    let Some(mut oracle) = Oracle::start(test) else { return };
    let (_folder, redtail) = prepared();
    let len = fs::metadata(redtail.path(REPLICA)).unwrap().len();
    for keep in [len - 1, len / 2, 8192, 4096, 300, 9, 0] {
        OpenOptions::new().write(true).open(redtail.path(REPLICA)).unwrap().set_len(keep).unwrap();
        let output = redtail.run(&["dump", "-r", REPLICA]);
        assert_eq!(output.code, Some(1), "{keep} bytes: {output:#?}");
        output.assert_one_line("a truncated replica", &[REPLICA, "damaged"]);
        let synced = redtail.run(&["sync", "-s", "source.db", "-r", REPLICA]);
        assert_eq!(synced.code, Some(0), "{keep} bytes: {synced:#?}");
        assert_equal(&mut oracle, &redtail, "source.db", REPLICA);
        let moved = moved_aside(&redtail);
        assert_eq!(moved.len(), 1, "{keep} bytes: {moved:?}");
        fs::remove_file(&moved[0]).unwrap();
    }
}

#[test]
fn a_file_damaged_again_and_again_is_left_for_a_person() {
    let (_folder, redtail) = prepared();
    for time in 1..=4 {
        OpenOptions::new().write(true).open(redtail.path(REPLICA)).unwrap().set_len(5000).unwrap();
        let output = redtail.run(&["sync", "-s", "source.db", "-r", REPLICA]);
        assert_eq!(output.code, Some(i32::from(time == 4)), "time {time}: {output:#?}");
        if time == 4 {
            output.assert_one_line("the fourth time", &["3 times within a day", "check disk and memory"]);
        }
    }
    assert_eq!(moved_aside(&redtail).len(), 3);
}

/// A reader of a `run` meets the damage; `run` mends it by itself, and goes on.
#[test]
fn damage_that_a_reader_meets_is_mended_by_the_running_run() {
    let test = "damage_that_a_reader_meets_is_mended_by_the_running_run";
    let Some(mut oracle) = Oracle::start(test) else { return };
    let (_folder, redtail) = prepared();
    let mut run = redtail.with_env("REDTAIL_CACHE_BYTES", "1").spawn_run("source.db", REPLICA);
    run.caught_up();
    let len = fs::metadata(redtail.path(REPLICA)).unwrap().len();
    // A byte in every block but the first: whatever the reader reads is damaged.
    for block in 1..len / 4096 {
        flip(&redtail, block * 4096 + 77, 4);
    }
    let output = redtail.run(&["dump", "-r", REPLICA]);
    assert_eq!(output.code, Some(1), "{output:#?}");
    application(&redtail.path("source.db"), &["INSERT INTO items VALUES (-1, 'after', NULL)"]);
    let status = run.until("made again", |status| {
        status["damaged"]["files"] == 1 && status["consistent"] == true && status["lag_entries"] == 0
    });
    assert_eq!(status["tables"][0]["rows"], 2001, "{status:#}");
    assert_equal(&mut oracle, &redtail, "source.db", REPLICA);
    run.stop();
}

#[test]
fn a_file_of_a_newer_format_is_refused_and_left_alone() {
    const META: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("redtail.meta");
    let (folder, redtail) = prepared();
    {
        let db = redb::Database::open(redtail.path(REPLICA)).unwrap();
        let txn = db.begin_write().unwrap();
        let sum = xxhash_rust::xxh3::xxh3_64_with_seed(&[9], 0).to_le_bytes();
        let record = [9, 0, 0, 0, sum[0], sum[1], sum[2], sum[3], 9];
        txn.open_table(META).unwrap().insert("format", record.as_slice()).unwrap();
        txn.commit().unwrap();
    }
    let before = contents(folder.path());
    for args in [
        &["sync", "-s", "source.db", "-r", REPLICA][..],
        &["run", "-s", "source.db", "-r", REPLICA],
        &["dump", "-r", REPLICA],
        &["verify", "-s", "source.db", "-r", REPLICA],
    ] {
        let output = redtail.run(args);
        assert_eq!(output.code, Some(1), "{args:?}: {output:#?}");
        output.assert_one_line("a newer format", &[REPLICA, "format 9", "newer redtail"]);
        assert_unchanged(&before, folder.path(), "a newer format");
    }
}

#[test]
fn a_damaged_database_that_is_not_redtails_is_left_alone() {
    let (folder, redtail) = prepared();
    {
        let db = redb::Database::create(redtail.path("other.redb")).unwrap();
        let txn = db.begin_write().unwrap();
        let mut table = txn.open_table(redb::TableDefinition::<u64, &[u8]>::new("theirs")).unwrap();
        for i in 0..1000 {
            table.insert(i, [7; 100].as_slice()).unwrap();
        }
        drop(table);
        txn.commit().unwrap();
    }
    let file = OpenOptions::new().write(true).open(redtail.path("other.redb")).unwrap();
    for block in 1..20 {
        file.write_all_at(&[0xAA; 64], block * 4096).unwrap();
    }
    drop(file);
    let before = contents(folder.path());
    let output = redtail.run(&["sync", "-s", "source.db", "-r", "other.redb"]);
    assert_eq!(output.code, Some(1), "{output:#?}");
    output.assert_one_line("another's database", &["other.redb", "not redtail's alone"]);
    assert_unchanged(&before, folder.path(), "another's database");
}

#[test]
fn a_network_file_system_is_refused_with_the_reason() {
    if !cfg!(debug_assertions) {
        return;
    }
    let (folder, redtail) = prepared();
    let redtail = redtail.with_env("REDTAIL_FAULT", "on-nfs");
    let before = contents(folder.path());
    for args in [&["sync", "-s", "source.db", "-r", "new.redb"][..], &["dump", "-r", REPLICA]] {
        let output = redtail.run(args);
        assert_eq!(output.code, Some(2), "{args:?}: {output:#?}");
        output.assert_one_line("NFS", &["network file system (NFS)", "local disk"]);
        assert_unchanged(&before, folder.path(), "NFS");
    }
}
