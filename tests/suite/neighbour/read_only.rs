//! A source that this process may only read: followed all the same, once somebody else ran `init`.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::oracle::Oracle;
use crate::support::redtail::{Redtail, finish};
use crate::support::{compare, note, poll};

const SETUP: &[&str] =
    &["CREATE TABLE t(k INTEGER PRIMARY KEY, v)", "INSERT INTO t VALUES (1, 'a'), (2, 'b')"];

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// A command of somebody who may write only the replica's folder.
fn as_reader(redtail: &Redtail, args: &[&str]) -> Command {
    let mut command = redtail.command(&redtail.path("program"));
    command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    if rustix::process::geteuid().is_root() {
        // Root may write anywhere whatever the mode says: be nobody.
        command.uid(65_534).gid(65_534);
    }
    command
}

#[test]
fn a_source_that_may_only_be_read_is_followed() {
    let test = "a_source_that_may_only_be_read_is_followed";
    for journal in ["WAL", "DELETE"] {
        let Some(mut oracle) = Oracle::start(test) else { return };
        let folder = TempDir::new().unwrap();
        let redtail = Redtail::new(folder.path()).with_env("REDTAIL_ACK_INTERVAL", "10ms");
        let (closed, open) = (redtail.path("closed"), redtail.path("open"));
        fs::create_dir(&closed).unwrap();
        fs::create_dir(&open).unwrap();
        let db = redtail.path("closed/s.db");
        // The application's connection stays: in WAL mode its files beside the database are there.
        oracle.ask(&json!({"op": "begin", "db": db}));
        oracle.ask(&json!({"op": "play", "sql": [format!("PRAGMA journal_mode = {journal}")]}));
        oracle.ask(&json!({"op": "play", "sql": SETUP}));
        redtail.ok(&["init", "-s", "closed/s.db"]);
        let copied =
            Command::new("cp").arg(env!("CARGO_BIN_EXE_redtail")).arg(redtail.path("program")).status();
        assert!(copied.expect("cp runs").success());
        set_mode(&redtail.path("program"), 0o755);
        set_mode(folder.path(), 0o755);
        set_mode(&open, 0o777);
        let entries = fs::read_dir(&closed).unwrap();
        entries.for_each(|entry| set_mode(&entry.unwrap().path(), 0o644));
        set_mode(&closed, 0o755);

        let sync = || as_reader(&redtail, &["sync", "-s", "closed/s.db", "-r", "open/r.redb"]).spawn();
        let Ok(child) = sync() else {
            note(&format!("skipped: {test}: root here, and cannot become anybody else"));
            return;
        };
        let output = finish(child, test);
        assert_eq!(output.code, Some(0), "{journal}: {output:#?}");
        oracle.ask(&json!({"op": "play", "sql": ["UPDATE t SET v = 'c' WHERE k = 2", "INSERT INTO t VALUES (3, 'd')"]}));
        assert_eq!(finish(sync().unwrap(), test).code, Some(0));
        let compared = compare(&mut oracle, &redtail, "closed/s.db", "open/r.redb");
        assert!(compared.equal, "{journal}: {compared:#?}");

        // A `run` says that the source is not told.
        let mut command = as_reader(&redtail, &["run", "-s", "closed/s.db", "-r", "open/r.redb"]);
        command.stderr(File::create(redtail.path("said")).unwrap());
        let mut child = command.spawn().unwrap();
        let told = poll(|| {
            let status = redtail.run(&["status", "-s", "closed/s.db", "-r", "open/r.redb", "--json"]);
            let status: Value = serde_json::from_str(&status.stdout).ok()?;
            (status["source_read_only"] == true).then_some(status)
        });
        child.kill().unwrap();
        child.wait().unwrap();
        let said = fs::read_to_string(redtail.path("said")).unwrap();
        let status = told.unwrap_or_else(|| panic!("{journal}: {said}"));
        assert_eq!(status["consumers"], json!([]), "{status:#}");
        assert!(said.contains("may not be written to"), "{said}");
    }
}
