//! Wrong input: one line that says what and where, the right exit code, and nothing changed.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::support::redtail::{Redtail, finish};
use crate::support::writer::application;
use crate::support::{assert_unchanged, contents, note};

/// A wrong command line, in the folder that [`prepared`] makes.
struct Wrong {
    what: &'static str,
    args: &'static [&'static str],
    code: i32,
    /// What the one line must name.
    says: &'static [&'static str],
}

/// Every kind of wrong input that needs no other process; exit 2 for the caller's mistakes.
#[rustfmt::skip]
const WRONG: &[Wrong] = &[
    // The source.
    Wrong { what: "sync of a missing source", args: &["sync", "-s", "missing.db", "-r", "new.redb"], code: 2, says: &["missing.db"] },
    Wrong { what: "run of a missing source", args: &["run", "-s", "missing.db", "-r", "new.redb"], code: 2, says: &["missing.db"] },
    Wrong { what: "init of a missing source", args: &["init", "-s", "missing.db"], code: 2, says: &["missing.db"] },
    Wrong { what: "remove from a missing source", args: &["remove", "-s", "missing.db"], code: 2, says: &["missing.db"] },
    Wrong { what: "a source in a missing folder", args: &["sync", "-s", "no/such/app.db", "-r", "new.redb"], code: 2, says: &["no/such/app.db"] },
    Wrong { what: "sync of a text file", args: &["sync", "-s", "text.db", "-r", "new.redb"], code: 2, says: &["text.db", "not a database"] },
    Wrong { what: "init of a text file", args: &["init", "-s", "text.db"], code: 2, says: &["text.db", "not a database"] },
    Wrong { what: "a folder as the source", args: &["sync", "-s", "folder", "-r", "new.redb"], code: 2, says: &["folder"] },
    // The replica.
    Wrong { what: "a replica of another source", args: &["sync", "-s", "other.db", "-r", "replica.redb"], code: 2, says: &["replica.redb", "other.db"] },
    Wrong { what: "a replica of another source, run", args: &["run", "-s", "other.db", "-r", "replica.redb"], code: 2, says: &["replica.redb", "other.db"] },
    Wrong { what: "a replica of another source, which has no capture", args: &["sync", "-s", "plain.db", "-r", "replica.redb"], code: 2, says: &["replica.redb", "plain.db"] },
    Wrong { what: "a replica that is a text file", args: &["sync", "-s", "plain.db", "-r", "text.redb"], code: 2, says: &["text.redb"] },
    Wrong { what: "a replica that is a database", args: &["sync", "-s", "plain.db", "-r", "other.db"], code: 2, says: &["other.db"] },
    Wrong { what: "a folder as the replica", args: &["sync", "-s", "plain.db", "-r", "folder"], code: 2, says: &["folder"] },
    Wrong { what: "a replica in a missing folder", args: &["sync", "-s", "plain.db", "-r", "no/such/new.redb"], code: 2, says: &["no/such"] },
    Wrong { what: "reading a missing replica", args: &["dump", "-r", "missing.redb"], code: 2, says: &["missing.redb"] },
    Wrong { what: "status of a missing replica", args: &["status", "-r", "missing.redb"], code: 2, says: &["missing.redb"] },
    // What to read.
    Wrong { what: "get from an unknown table", args: &["get", "nosuch", "1", "-r", "replica.redb"], code: 2, says: &["nosuch"] },
    Wrong { what: "scan of an unknown table", args: &["scan", "itms", "-r", "replica.redb"], code: 2, says: &["itms", "items"] },
    Wrong { what: "verify of an unknown table", args: &["verify", "nosuch", "-s", "source.db", "-r", "replica.redb"], code: 2, says: &["nosuch"] },
    Wrong { what: "get with too many parts of a key", args: &["get", "items", "1", "2", "-r", "replica.redb"], code: 2, says: &["items"] },
    Wrong { what: "wait for something that is no position", args: &["wait", "12", "-r", "replica.redb"], code: 2, says: &["\"12\"", "LOGID:SEQ"] },
    Wrong { what: "wait beside a missing folder", args: &["wait", "-r", "no/such/new.redb"], code: 2, says: &["no/such"] },
    Wrong { what: "wait for a time that is none", args: &["wait", "--timeout", "soon", "-r", "replica.redb"], code: 2, says: &["soon", "500ms or 30s"] },
    Wrong { what: "rebuild of an unknown table", args: &["rebuild", "itms", "-s", "source.db", "-r", "replica.redb"], code: 2, says: &["itms", "items"] },
    Wrong { what: "rebuild of a missing replica", args: &["rebuild", "-s", "source.db", "-r", "missing.redb"], code: 2, says: &["missing.redb"] },
    // The endpoint.
    Wrong { what: "listening nowhere", args: &["run", "-s", "source.db", "-r", "replica.redb", "--listen", "9187"], code: 2, says: &["listen \"9187\"", "127.0.0.1:9187"] },
    Wrong { what: "listening for everybody", args: &["run", "-s", "source.db", "-r", "replica.redb", "--listen", "0.0.0.0:0"], code: 2, says: &["listen 0.0.0.0:0: other machines could read every row there", "--listen-anywhere"] },
    Wrong { what: "listening for everybody without a token", args: &["run", "-s", "source.db", "-r", "replica.redb", "--listen", "[::]:0", "--listen-anywhere"], code: 2, says: &["listen [::]:0", "--listen-token-file"] },
    Wrong { what: "listening at a file", args: &["run", "-s", "source.db", "-r", "replica.redb", "--listen", "./text.db"], code: 2, says: &["./text.db", "no socket"] },
    Wrong { what: "a socket in a missing folder", args: &["run", "-s", "source.db", "-r", "replica.redb", "--listen", "no/such/sock"], code: 2, says: &["no/such/sock"] },
    Wrong { what: "a missing token file", args: &["run", "-s", "source.db", "-r", "replica.redb", "--listen", "localhost:0", "--listen-token-file", "missing"], code: 2, says: &["token file missing", "no such file"] },
    Wrong { what: "a token file that holds none", args: &["run", "-s", "source.db", "-r", "replica.redb", "--listen", "localhost:0", "--listen-token-file", "text.db"], code: 2, says: &["token file text.db", "one token"] },
    Wrong { what: "watching a missing replica", args: &["status", "--watch", "-r", "missing.redb"], code: 2, says: &["missing.redb", "no such file"] },
    Wrong { what: "completions for no shell", args: &["completions", "bsh"], code: 2, says: &["bsh", "bash"] },
    Wrong { what: "messages in no format", args: &["status", "-r", "replica.redb", "--log-format", "xml"], code: 2, says: &["xml", "text, json"] },
    // Flags and configuration.
    Wrong { what: "an unknown flag", args: &["sync", "--sorce", "source.db", "-r", "replica.redb"], code: 2, says: &["--sorce"] },
    Wrong { what: "an unknown command", args: &["snyc", "-s", "source.db", "-r", "replica.redb"], code: 2, says: &["snyc", "sync"] },
    Wrong { what: "sync without a source", args: &["sync", "-r", "replica.redb"], code: 2, says: &["--source"] },
    Wrong { what: "run without a replica", args: &["run", "-s", "source.db"], code: 2, says: &["--replica"] },
    Wrong { what: "init without a source", args: &["init"], code: 2, says: &["--source"] },
    Wrong { what: "dump without a replica", args: &["dump"], code: 2, says: &["--replica"] },
    Wrong { what: "an unknown key in the configuration", args: &["sync", "--config", "unknown.toml", "-s", "source.db", "-r", "replica.redb"], code: 2, says: &["unknown.toml", "durabilty", "durability"] },
    Wrong { what: "a wrong value in the configuration", args: &["sync", "--config", "wrong.toml", "-s", "source.db", "-r", "replica.redb"], code: 2, says: &["wrong.toml", "ready_lag", "a time is wanted"] },
    Wrong { what: "a configuration that is not TOML", args: &["sync", "--config", "text.db", "-s", "source.db", "-r", "replica.redb"], code: 2, says: &["text.db"] },
    Wrong { what: "a missing configuration", args: &["sync", "--config", "missing.toml", "-s", "source.db", "-r", "replica.redb"], code: 2, says: &["missing.toml"] },
];

#[test]
fn wrong_input_gets_one_line_the_right_exit_code_and_changes_nothing() {
    let folder = prepared();
    let redtail = Redtail::new(folder.path());
    let before = contents(folder.path());
    // All of them, so that one run shows every line that is not right.
    let mut failed = Vec::new();
    for wrong in WRONG {
        let checked = std::panic::catch_unwind(|| {
            let output = redtail.run(wrong.args);
            assert_eq!(output.code, Some(wrong.code), "{}: {output:#?}", wrong.what);
            assert_eq!(output.stdout, "", "{}: stdout is for results", wrong.what);
            output.assert_one_line(wrong.what, wrong.says);
            assert_unchanged(&before, folder.path(), wrong.what);
        });
        if checked.is_err() {
            failed.push(wrong.what);
        }
    }
    assert!(failed.is_empty(), "{} of {}: {failed:#?}", failed.len(), WRONG.len());
}

#[test]
fn an_unknown_key_in_redtail_toml_names_the_nearest_right_one() {
    let folder = prepared();
    let redtail = Redtail::new(folder.path());
    fs::write(redtail.path("redtail.toml"), "replica = \"replica.redb\"\nsorce = \"source.db\"\n").unwrap();
    let before = contents(folder.path());
    let output = redtail.run(&["sync"]);
    assert_eq!(output.code, Some(2), "{output:#?}");
    output.assert_one_line("an unknown key", &["redtail.toml", "sorce", "source"]);
    assert_unchanged(&before, folder.path(), "an unknown key");

    // The same file without the mistake is a whole command line.
    fs::write(redtail.path("redtail.toml"), "replica = \"replica.redb\"\nsource = \"source.db\"\n").unwrap();
    redtail.ok(&["sync"]);
}

#[test]
fn a_replica_that_a_run_holds_is_refused_to_a_second_and_the_holder_is_named() {
    let folder = prepared();
    let redtail = Redtail::new(folder.path());
    let mut run = redtail.spawn_run("source.db", "replica.redb");
    run.caught_up();
    let holder = run.pid().to_string();
    for command in ["run", "sync"] {
        let output = redtail.run(&[command, "-s", "source.db", "-r", "replica.redb"]);
        assert_eq!(output.code, Some(1), "{command}: {output:#?}");
        output.assert_one_line(command, &["replica.redb", &holder]);
        run.assert_running();
    }

    // The holder goes on, and the refused ones took nothing with them: not even its socket.
    application(&redtail.path("source.db"), &["INSERT INTO items VALUES (7, 'after')"]);
    run.caught_up();
    assert!(redtail.ok(&["get", "items", "7", "-r", "replica.redb"]).contains("after"));
    run.stop();
}

#[test]
fn a_source_that_may_not_be_written_is_refused_and_stays_as_it_is() {
    let test = "a_source_that_may_not_be_written_is_refused_and_stays_as_it_is";
    let folder = prepared();
    let (closed, open) = (folder.path().join("closed"), folder.path().join("open"));
    let app = closed.join("app.db");
    fs::create_dir(&closed).unwrap();
    fs::copy(folder.path().join("plain.db"), &app).unwrap();
    fs::create_dir(&open).unwrap();
    set_mode(folder.path(), 0o755);
    set_mode(&open, 0o777);
    set_mode(&app, 0o444);
    set_mode(&closed, 0o555);

    let before = contents(folder.path());
    for args in
        [&["init", "-s", "closed/app.db"][..], &["sync", "-s", "closed/app.db", "-r", "open/new.redb"]]
    {
        let redtail = Redtail::new(folder.path());
        let mut command = redtail.command(&program(folder.path()));
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        if rustix::process::geteuid().is_root() {
            // Root may write anywhere whatever the mode says: be nobody.
            command.uid(65_534).gid(65_534);
        }
        let Ok(child) = command.spawn() else {
            note(&format!("skipped: {test}: root here, and cannot become anybody else"));
            break;
        };
        let output = finish(child, test);
        assert_eq!(output.code, Some(2), "{args:?}: {output:#?}");
        output.assert_one_line(test, &["closed/app.db", "write"]);
    }
    fs::remove_file(program(folder.path())).unwrap();
    assert_unchanged(&before, folder.path(), test);
    // So that the folder can be cleared away.
    set_mode(&closed, 0o755);
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

const PROGRAM: &str = "program";

/// The binary where anybody may run it: the build folder may be closed to others.
fn program(folder: &Path) -> PathBuf {
    let copy = folder.join(PROGRAM);
    if !copy.exists() {
        // By another process: a file this one had open for writing may be busy when it is to be run,
        // because a child that another test starts at the same moment inherits it.
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_redtail")).arg(&copy).status();
        assert!(copied.expect("cp runs").success(), "cp to {}", copy.display());
        set_mode(&copy, 0o755);
    }
    copy
}

/// Good files and bad ones: a source with its replica, another captured source, and one never captured.
fn prepared() -> TempDir {
    let folder = TempDir::new().unwrap();
    let redtail = Redtail::new(folder.path());
    for (name, row) in [("source.db", "'one'"), ("other.db", "'two'"), ("plain.db", "'three'")] {
        let insert = format!("INSERT INTO items VALUES (1, {row})");
        application(
            &redtail.path(name),
            &["CREATE TABLE items(id INTEGER PRIMARY KEY, name TEXT)", insert.as_str()],
        );
    }
    redtail.sync("source.db", "replica.redb");
    redtail.ok(&["init", "-s", "other.db"]);
    let text =
        "This is a text, and long enough to hold a header if it were a file of another kind.\n".repeat(100);
    fs::write(redtail.path("text.db"), &text).unwrap();
    fs::write(redtail.path("text.redb"), &text).unwrap();
    fs::write(redtail.path("unknown.toml"), "durabilty = \"every-window\"\n").unwrap();
    fs::write(redtail.path("wrong.toml"), "ready_lag = 30\n").unwrap();
    fs::create_dir(redtail.path("folder")).unwrap();
    folder
}
