//! What a person sees and sets at a terminal: bars, the watched status, completions, pages, formats, SIGHUP.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::poll;
use crate::support::redtail::{Redtail, Run, finish};
use crate::support::skip;
use crate::support::writer::application;

const TABLES: &[&str] = &[
    "PRAGMA journal_mode = WAL",
    "CREATE TABLE items(id INTEGER PRIMARY KEY, name TEXT)",
    "CREATE TABLE secrets(id INTEGER PRIMARY KEY, what TEXT)",
    "INSERT INTO items VALUES (1, 'lamp'), (2, 'table')",
    "INSERT INTO secrets VALUES (1, 'x')",
];

fn prepared() -> (TempDir, Redtail) {
    let folder = TempDir::new().unwrap();
    let redtail = Redtail::new(folder.path());
    application(&redtail.path("source.db"), TABLES);
    (folder, redtail)
}

/// What a command shows in a terminal until these were seen, and its exit code; `None` without Python.
fn in_terminal(redtail: &Redtail, test: &str, patterns: &[&str], args: &[&str]) -> Option<(String, i64)> {
    let helper = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/terminal.py");
    let mut command = redtail.command(Path::new("python3"));
    command.arg(helper).arg("60").args(patterns).arg("--").arg(env!("CARGO_BIN_EXE_redtail")).args(args);
    let Ok(child) = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() else {
        skip("REDTAIL_REQUIRE_ORACLE", &format!("{test}: no python3 here"));
        return None;
    };
    let output = finish(child, test);
    assert_eq!(output.code, Some(0), "{output:#?}");
    let said: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(said["missing"].as_array().map(Vec::len), Some(0), "{said:#}");
    Some((said["text"].as_str().unwrap().to_owned(), said["code"].as_i64().unwrap()))
}

#[test]
fn status_watch_fills_a_screen_and_gives_the_old_one_back() {
    let test = "status_watch_fills_a_screen_and_gives_the_old_one_back";
    let (_folder, redtail) = prepared();
    let mut run = redtail.spawn_run("source.db", "replica.redb");
    run.caught_up();
    let watch = ["status", "--watch", "-s", "source.db", "-r", "replica.redb"];
    let wanted = ["following", "lag", "0 s", "▁▁", "items", "secrets", "this replica", "Ctrl-C ends this"];
    let Some((shown, code)) = in_terminal(&redtail, test, &wanted, &watch) else { return };
    assert_eq!(code, 0, "{shown}");
    let ends = shown.trim_end().ends_with("\x1b[?25h\x1b[?1049l");
    assert!(shown.starts_with("\x1b[?1049h") && ends, "{shown:?}");
    run.assert_running();
    run.stop();
    let wanted = ["no run holds this replica; waiting for one"];
    assert_eq!(in_terminal(&redtail, test, &wanted, &watch).unwrap().1, 0);
}

#[test]
fn a_copy_and_a_comparison_show_a_bar_with_rate_and_time_left() {
    let test = "a_copy_and_a_comparison_show_a_bar_with_rate_and_time_left";
    let (_folder, redtail) = prepared();
    let many = "INSERT INTO items(name) SELECT hex(randomblob(100)) FROM
        (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000) SELECT i FROM n)";
    application(&redtail.path("source.db"), &[many]);
    let sync = ["sync", "-s", "source.db", "-r", "replica.redb"];
    let wanted = ["copying items", "rows/s"];
    // Small pieces, each on disk before the next, or it is through before anybody sees it.
    let slow = redtail.with_env("REDTAIL_CHUNK_ROWS", "600").with_env("REDTAIL_MAX_TRANSACTION", "0s");
    let Some((shown, _)) = in_terminal(&slow, test, &wanted, &sync) else { return };
    // It was interrupted; what it had copied stays.
    assert!(shown.contains("\x1b["), "it moves: {shown:?}");
    redtail.sync("source.db", "replica.redb");
    let verify = ["verify", "-s", "source.db", "-r", "replica.redb"];
    in_terminal(&slow, test, &["comparing: ", " of 200,003 rows", "rows/s"], &verify);
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    let (_folder, redtail) = prepared();
    let help = redtail.ok(&["--help"]);
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help" && name.chars().all(|c| c.is_ascii_lowercase()))
        .collect();
    assert!(commands.contains(&"status") && commands.contains(&"completions"), "{commands:?}");
    assert!(help.contains("Exit codes: 0 done; 1 failed at work"), "{help}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = redtail.ok(&["completions", shell]);
        let missing: Vec<_> = commands.iter().filter(|name| !script.contains(**name)).collect();
        assert!(missing.is_empty(), "{shell}: {missing:?}");
    }
    fs::write(redtail.path("completions.bash"), redtail.ok(&["completions", "bash"])).unwrap();
    let checked = Command::new("bash").arg("-n").arg(redtail.path("completions.bash")).status();
    assert!(checked.expect("bash runs").success());

    let page = redtail.ok(&["man"]);
    assert!(page.contains(".TH redtail 1") && page.contains("Exit codes"), "{page}");
    redtail.ok(&["man", "--dir", "pages"]);
    for name in commands {
        assert!(page.contains(&format!("redtail\\-{name}(1)")), "{name}: {page}");
        assert!(redtail.path(&format!("pages/redtail-{name}.1")).is_file(), "{name}");
    }
}

#[test]
fn messages_are_json_if_they_are_to_be_and_few_unless_asked_for() {
    let (_folder, redtail) = prepared();
    let lines = |args: &[&str]| -> Vec<String> {
        let output = redtail.run(args);
        output.stderr.lines().map(str::to_owned).collect()
    };
    let sync = ["sync", "-s", "source.db", "-r", "replica.redb"];
    for args in [
        [&sync[..], &["--log-format", "json", "-v"]].concat(),
        vec!["get", "items", "99", "-r", "replica.redb", "--log-format", "json"],
        vec!["sync", "-s", "missing.db", "-r", "replica.redb", "--log-format", "json"],
    ] {
        let lines = lines(&args);
        assert!(!lines.is_empty(), "{args:?}");
        for line in lines {
            let said: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
            assert!(said["timestamp"].is_string() && said["message"].is_string(), "{line}");
            assert!(matches!(said["level"].as_str(), Some("INFO" | "WARN" | "ERROR")), "{line}");
        }
    }
    let quiet = lines(&sync);
    assert!(quiet.iter().all(|line| line.starts_with("sync: ")), "{quiet:?}");
}

#[test]
fn sighup_reads_tables_again_and_a_mistake_changes_nothing() {
    let (_folder, redtail) = prepared();
    let config = redtail.path("redtail.toml");
    fs::write(&config, "poll = \"100ms\"\n").unwrap();
    let mut run = redtail.spawn_run("source.db", "replica.redb");
    let names = |status: &Value| -> Vec<String> {
        let tables = status["tables"].as_array().unwrap().iter();
        tables.map(|t| t["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&run.caught_up()), ["items", "secrets"]);

    fs::write(&config, "exclude = [\"secrets\"]\n[tables.items]\nwhere = \"id > 1\"\n").unwrap();
    hangup(&run);
    let status = run.until("without the excluded table", |status| names(status) == ["items"]);
    assert_eq!(status["work"]["retries"]["unavailable"], 0, "{status:#}");
    run.until("filtered", |status| status["tables"][0]["rows"] == 1 && status["consistent"] == true);
    application(&redtail.path("source.db"), &["INSERT INTO items VALUES (3, 'chair'), (0, 'filtered out')"]);
    assert_eq!(run.caught_up()["tables"][0]["rows"], 2);

    for (wrong, says) in [("exclud = []\n", "exclud"), ("[tables.items]\nwhere = \"nosuch > 1\"\n", "nosuch")]
    {
        fs::write(&config, wrong).unwrap();
        hangup(&run);
        let said = poll(|| Some(run.said()).filter(|said| said.contains(says)));
        assert!(said.expect(says).contains("what was in force before stays"), "{}", run.said());
        run.assert_running();
    }
    application(&redtail.path("source.db"), &["INSERT INTO items VALUES (4, 'desk'), (-1, 'filtered out')"]);
    assert_eq!(run.caught_up()["tables"][0]["rows"], 3);

    fs::write(&config, "").unwrap();
    hangup(&run);
    run.until("with every table again", |status| names(status).len() == 2);
    assert_eq!(run.caught_up()["tables"][0]["rows"], 6);
    run.stop();
}

fn hangup(run: &Run) {
    let sent = Command::new("kill").arg("-HUP").arg(run.pid().to_string()).status();
    assert!(sent.expect("kill runs").success());
}
