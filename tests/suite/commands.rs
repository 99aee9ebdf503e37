//! The commands by what they print: the same with and beside a running `run`, and clean ends.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::redtail::Redtail;
use crate::support::writer::application;
use crate::support::{assert_unchanged, contents, note};

const SHOP: &[&str] = &[
    "CREATE TABLE items(id INTEGER PRIMARY KEY, name TEXT, price REAL, photo BLOB, extra)",
    "CREATE TABLE parts(item INTEGER, part TEXT, note, PRIMARY KEY(item, part)) WITHOUT ROWID",
    "INSERT INTO items VALUES (1, 'lamp', 19.5, x'00ff', NULL), (2, 'table', 100, NULL, 9007199254740993),
       (-3, 'böx', -0.5, x'', -9e999)",
    "INSERT INTO parts VALUES (1, 'bulb', 'a'), (1, 'cord', 2), (2, 'leg', NULL), (2, 'top', 1.0)",
];

/// Reading commands with the same answer wherever it comes from.
const READS: &[&[&str]] = &[
    &["get", "items", "1", "-r", "replica.redb"],
    &["get", "items", "2", "--typed", "-r", "replica.redb"],
    &["get", "parts", "2", "leg", "-r", "replica.redb"],
    &["get", "items", "99", "-r", "replica.redb"],
    &["scan", "items", "-r", "replica.redb"],
    &["scan", "parts", "--typed", "-r", "replica.redb"],
    &["dump", "-r", "replica.redb"],
    &["dump", "--typed", "-r", "replica.redb"],
    &["get", "nosuch", "1", "-r", "replica.redb"],
];

#[test]
fn reading_commands_answer_the_same_directly_and_beside_a_running_run() {
    let (_folder, redtail) = shop();
    let answers = || -> Vec<_> {
        let answer = |args: &&[&str]| {
            let output = redtail.run(args);
            (output.code, output.stdout, output.stderr)
        };
        READS.iter().map(answer).collect()
    };
    let directly = answers();
    let mut run = redtail.spawn_run("source.db", "replica.redb");
    run.caught_up();
    let beside = answers();
    run.assert_running();
    run.stop();
    for ((args, directly), beside) in READS.iter().zip(&directly).zip(&beside) {
        assert_eq!(directly, beside, "{args:?}");
    }
    assert_eq!(answers(), directly, "and again after it has ended");
}

#[test]
fn scan_prints_rows_in_key_order_and_typed_values_exactly() {
    let (_folder, redtail) = shop();
    let lines = redtail.run(&["scan", "items", "--typed", "-r", "replica.redb"]).json_lines();
    let text = |value: &str| json!({"type": "text", "value": value});
    let integer = |value: &str| json!({"type": "integer", "value": value});
    let real = |value: &str| json!({"type": "real", "value": value});
    let blob = |value: &str| json!({"type": "blob", "base64": value});
    let null = || json!({"type": "null"});
    let rows = [
        json!({"id": integer("-3"), "name": text("böx"), "price": real("-0.5"), "photo": blob(""), "extra": real("-inf")}),
        json!({"id": integer("1"), "name": text("lamp"), "price": real("19.5"), "photo": blob("AP8="), "extra": (null())}),
        json!({"id": integer("2"), "name": text("table"), "price": real("100.0"), "photo": (null()),
            "extra": integer("9007199254740993")}),
    ];
    assert_eq!(lines.len(), rows.len(), "{lines:#?}");
    for (line, row) in lines.iter().zip(&rows) {
        assert_eq!(line["table"], "items");
        assert_eq!(line["key"].as_array().map(Vec::len), Some(1), "{line}");
        assert_eq!(&line["row"], row);
    }

    let plain = redtail.run(&["get", "parts", "1", "cord", "-r", "replica.redb"]).json_lines();
    assert_eq!(plain.len(), 1, "{plain:?}");
    assert_eq!(plain[0]["row"], json!({"item": 1, "part": "cord", "note": 2}));
    assert_eq!(plain[0]["key"], json!([1, "cord"]));
}

#[test]
fn a_key_that_is_not_there_prints_nothing_and_exits_1() {
    let (_folder, redtail) = shop();
    for args in [
        &["get", "items", "99", "-r", "replica.redb"][..],
        &["get", "parts", "1", "leg", "-r", "replica.redb"],
    ] {
        let output = redtail.run(args);
        assert_eq!(output.code, Some(1), "{output:#?}");
        assert_eq!(output.stdout, "", "{output:#?}");
        output.assert_one_line("a missing key", &[args[1]]);
    }
}

#[test]
fn status_tells_the_same_directly_and_live() {
    let (_folder, redtail) = shop();
    let directly = redtail.status("source.db", "replica.redb");
    assert_eq!(directly["live"], false, "{directly:#}");
    let mut run = redtail.spawn_run("source.db", "replica.redb");
    let live = run.caught_up();
    for status in [&directly, &live] {
        assert_eq!(status["consistent"], true, "{status:#}");
        assert_eq!(status["lag_entries"], 0, "{status:#}");
        assert_eq!(status["cursor"], status["head"], "{status:#}");
        assert_eq!(status["cursor"], status["horizon"], "{status:#}");
        assert_eq!(rows_of(status, "items"), 3, "{status:#}");
        assert_eq!(rows_of(status, "parts"), 4, "{status:#}");
    }
    assert_eq!(live["log_id"], directly["log_id"]);
    assert!(live["cursor"].as_u64() >= directly["cursor"].as_u64(), "{live:#}");

    application(&redtail.path("source.db"), &["INSERT INTO items(name) VALUES ('new')"]);
    let later = run.caught_up();
    assert!(later["cursor"].as_u64() > live["cursor"].as_u64(), "{later:#}");
    assert_eq!(rows_of(&later, "items"), 4, "{later:#}");
    let text = redtail.ok(&["status", "-s", "source.db", "-r", "replica.redb"]);
    assert!(text.contains("items") && text.contains("parts"), "for people: {text}");
    run.stop();

    // Behind, and nobody there to tell it: the source is asked.
    application(&redtail.path("source.db"), &["DELETE FROM parts"]);
    let behind = redtail.status("source.db", "replica.redb");
    assert!(behind["lag_entries"].as_u64() > Some(0), "{behind:#}");
    assert_eq!(rows_of(&behind, "parts"), 4, "{behind:#}");
}

#[test]
fn verify_finds_and_repairs_what_a_lost_delta_left_wrong() {
    let folder = TempDir::new().unwrap();
    let redtail = Redtail::new(folder.path());
    let source = redtail.path("source.db");
    application(
        &source,
        &["CREATE TABLE notes(id TEXT PRIMARY KEY, body)", "INSERT INTO notes VALUES ('note-00', 'x')"],
    );
    redtail.sync("source.db", "replica.redb");
    let verify = &["verify", "-s", "source.db", "-r", "replica.redb"];
    redtail.ok(verify);
    if !cfg!(debug_assertions) {
        note("skipped: the rest of verify_finds_and_repairs…: release builds have no deliberate faults");
        return;
    }

    let keys: Vec<_> = (1..=30).map(|number| format!("note-{number:02}")).collect();
    let inserts: Vec<_> = keys.iter().map(|key| format!("INSERT INTO notes VALUES ('{key}', 'y')")).collect();
    application(&source, &inserts);
    redtail.with_env("REDTAIL_FAULT", "drop-delta").sync("source.db", "replica.redb");
    let scan = redtail.ok(&["scan", "notes", "-r", "replica.redb"]);
    let lost: Vec<_> = keys.iter().filter(|key| !scan.contains(key.as_str())).collect();
    assert!(!lost.is_empty(), "the fault loses deltas: {scan}");

    let output = redtail.run(verify);
    assert_eq!(output.code, Some(1), "{output:#?}");
    for key in &keys {
        assert_eq!(
            output.stdout.contains(key.as_str()),
            lost.contains(&key),
            "the wrong keys alone: {output:#?}"
        );
    }
    let still = redtail.ok(&["scan", "notes", "-r", "replica.redb"]);
    assert_eq!(still, scan, "verify alone repairs nothing");

    redtail.run(&["verify", "--repair", "-s", "source.db", "-r", "replica.redb"]);
    redtail.ok(verify);
    let repaired = redtail.ok(&["scan", "notes", "-r", "replica.redb"]);
    assert!(keys.iter().all(|key| repaired.contains(key.as_str())), "{repaired}");
}

#[test]
fn sigterm_and_sigint_end_a_run_cleanly() {
    let (folder, redtail) = shop();
    for (number, signal) in [(10, "TERM"), (11, "INT")] {
        let mut run = redtail.spawn_run("source.db", "replica.redb");
        run.live();
        let insert = format!("INSERT INTO items(id, name) VALUES ({number}, '{signal}')");
        application(&redtail.path("source.db"), &[&insert]);
        run.caught_up();
        let status = run.signal(signal);
        assert_eq!(status.code(), Some(0), "{signal}: {status}");

        let status = redtail.status("source.db", "replica.redb");
        assert_eq!(status["live"], false, "{signal}: {status:#}");
        assert_eq!(status["consistent"], true, "{signal}: {status:#}");
        let row = redtail.ok(&["get", "items", &number.to_string(), "-r", "replica.redb"]);
        assert!(row.contains(signal), "{row}");
        assert!(!has_socket(folder.path()), "{signal}: the control socket is taken away");
    }
}

#[test]
fn a_dry_run_of_init_prints_the_sql_and_changes_nothing() {
    let folder = TempDir::new().unwrap();
    let redtail = Redtail::new(folder.path());
    application(&redtail.path("source.db"), SHOP);
    let before = contents(folder.path());
    let sql = redtail.ok(&["init", "-s", "source.db", "--dry-run"]);
    for part in ["CREATE TABLE", "_redtail_changelog", "CREATE TRIGGER", "\"items\"", "\"parts\""] {
        assert!(sql.contains(part), "{part}: {sql}");
    }
    assert_unchanged(&before, folder.path(), "init --dry-run");
}

#[test]
fn the_demo_runs_and_leaves_its_files() {
    let folder = TempDir::new().unwrap();
    let redtail = Redtail::new(folder.path());
    redtail.ok(&["demo", "--seconds", "1", "--dir", "demo"]);
    let left = contents(&redtail.path("demo"));
    let full = left.values().filter(|bytes| !bytes.is_empty()).count();
    assert!(full >= 2, "a source and a replica to play with: {:?}", left.keys());
}

/// A small shop, synced.
fn shop() -> (TempDir, Redtail) {
    let folder = TempDir::new().unwrap();
    let redtail = Redtail::new(folder.path());
    application(&redtail.path("source.db"), SHOP);
    redtail.sync("source.db", "replica.redb");
    (folder, redtail)
}

fn rows_of(status: &Value, table: &str) -> u64 {
    let tables = status["tables"].as_array().expect("tables");
    let found = tables.iter().find(|entry| entry["name"] == table);
    found.and_then(|entry| entry["rows"].as_u64()).unwrap_or_else(|| panic!("rows of {table}: {status:#}"))
}

fn has_socket(folder: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    let mut entries = std::fs::read_dir(folder).unwrap().filter_map(Result::ok);
    entries.any(|entry| entry.file_type().is_ok_and(|kind| kind.is_socket()))
}
