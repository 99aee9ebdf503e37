//! The page, as a real browser shows it: what it says with a live, a busy, a dead and an empty source, and that nothing on
//! it was refused by its own policy.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::http::Endpoint;
use crate::support::redtail::{Redtail, finish};
use crate::support::writer::{EVENTS, Ledger, Writer, application};
use crate::support::{Chance, skip};

use super::SHOP;

/// A headless browser; `None`, after saying so, where there is none.
struct Browser {
    program: PathBuf,
    profile: TempDir,
}

impl Browser {
    fn start(test: &str) -> Option<Self> {
        let given = std::env::var_os("REDTAIL_BROWSER").map(PathBuf::from);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
        let mut found = std::env::split_paths(&path).flat_map(|folder| names.map(|name| folder.join(name)));
        let program = given.or_else(|| found.find(|program| program.is_file()));
        if program.is_none() {
            skip("REDTAIL_REQUIRE_BROWSER", &format!("{test}: no chromium here"));
        }
        Some(Self { program: program?, profile: TempDir::new().unwrap() })
    }

    /// The page as it stands after four seconds of its own time, as HTML without its script.
    fn open(&self, url: &str, name: &str, flags: &[&str]) -> String {
        let page = self.run(url, &[&["--dump-dom"], flags].concat());
        if let Some(folder) = std::env::var_os("REDTAIL_SCREENSHOTS") {
            let picture =
                format!("--screenshot={}", Path::new(&folder).join(format!("{name}.png")).display());
            self.run(url, &[&[picture.as_str()], flags].concat());
        }
        let (before, rest) = page.split_once("<script").unwrap_or((&page, ""));
        let shown = format!("{before}{}", rest.split_once("</script>").map_or("", |(_, after)| after));
        assert!(shown.contains("<h1>redtail</h1>"), "{page}");
        shown
    }

    fn run(&self, url: &str, flags: &[&str]) -> String {
        let profile = format!("--user-data-dir={}", self.profile.path().display());
        let mut command = Command::new(&self.program);
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", &profile]);
        // Errors of the page are written where they can be seen; its time goes as fast as it can.
        command.args(["--enable-logging=stderr", "--virtual-time-budget=4000"]).args(flags).arg(url);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let output = finish(child.expect("the browser starts"), "the browser");
        let said: Vec<&str> = output.stderr.lines().filter(|line| line.contains("CONSOLE")).collect();
        let unexpected = said.iter().filter(|line| !line.contains("401 (Unauthorized)")).count();
        assert_eq!(unexpected, 0, "{url}: {said:#?}");
        output.stdout
    }
}

const WIDE: &str = "--window-size=1200,1300";
const NARROW: &str = "--window-size=390,1900";
const DARK: &str = "--blink-settings=preferredColorScheme=0";

#[test]
fn the_page_shows_what_goes_on_and_breaks_nothing_of_its_own_policy() {
    let Some(browser) = Browser::start("the_page_shows_what_goes_on") else { return };
    let folder = TempDir::new().unwrap();
    let redtail = Redtail::new(folder.path()).with_env("REDTAIL_LISTEN", "127.0.0.1:0");
    let source = redtail.path("source.db");
    application(&source, SHOP);
    application(
        &source,
        &["CREATE TABLE \"<img src=x onerror=alert(1)>\"(a)", "CREATE VIRTUAL TABLE f USING fts5(a)"],
    );
    let mut run = redtail.spawn_run("source.db", "replica.redb");
    let endpoint = Endpoint::of(&run.caught_up());
    let url = format!("http://{}/", endpoint.address);
    // The source's consumers are asked for in the background, and first when somebody wants to see them.
    endpoint.until("one consumer", |status| status["consumers"].as_array().is_some_and(|c| c.len() == 1));
    for (name, flags) in [("wide", &[WIDE][..]), ("narrow", &[NARROW]), ("dark", &[WIDE, DARK])] {
        let page = browser.open(&url, name, flags);
        for shown in [
            r#"data-failing="false""#,
            "state good",
            ">following<",
            ">items</td>",
            ">odd / name?</td>",
            ">&lt;img src=x onerror=alert(1)&gt;</td>",
            ">whole</td>",
            "(this one)</td>",
            "virtual table",
            "class=\"line\"",
            ">None.<",
        ] {
            assert!(page.contains(shown), "{name}: {shown}: {page}");
        }
        assert!(page.contains(r#"<section id="banner" role="alert" hidden"#), "{page}");
    }

    // Written to as fast as it takes it.
    application(&source, &[EVENTS]);
    let writer = Writer::start(&source, Ledger::default(), Chance::new("the_page_under_load"));
    writer.wait_more(200);
    let is_event = |table: &Value| table["name"] == "event" && table["state"] == "whole";
    endpoint.until("with the new table", |status| status["tables"].as_array().unwrap().iter().any(is_event));
    let page = browser.open(&url, "load", &[WIDE]);
    for shown in [r#"data-failing="false""#, ">event</td>", ">whole</td>", "class=\"line\"", ">None.<"] {
        assert!(page.contains(shown), "under load: {shown}: {page}");
    }
    assert!(page.contains(r#"<section id="banner" role="alert" hidden"#), "{page}");
    writer.stop();
    run.caught_up();

    // Its source dies.
    fs::create_dir(redtail.path("away")).unwrap();
    for file in ["source.db", "source.db-wal", "source.db-shm"] {
        let _ = fs::rename(redtail.path(file), redtail.path("away").join(file));
    }
    let is_gone =
        |m: &Value| m["times"].as_u64() > Some(1) && m["message"].to_string().contains("no such file");
    endpoint.until("without its source", |status| {
        let said = status["recent"].as_array().is_some_and(|all| all.iter().any(is_gone));
        said && status["lag_seconds"].as_f64() > Some(2.0)
    });
    for (name, flags) in [("dead", &[WIDE][..]), ("dead-narrow-dark", &[NARROW, DARK])] {
        let page = browser.open(&url, name, flags);
        for shown in
            ["state bad", ">retrying<", "no such file", "What to do: nothing, unless it lasts", "times since"]
        {
            assert!(page.contains(shown), "{name}: {shown}: {page}");
        }
    }
}

#[test]
fn the_page_of_an_empty_source_says_that_there_is_nothing_and_one_with_a_token_asks_for_it() {
    let Some(browser) = Browser::start("the_page_of_an_empty_source") else { return };
    let folder = TempDir::new().unwrap();
    let redtail = Redtail::new(folder.path()).with_env("REDTAIL_LISTEN", "127.0.0.1:0");
    application(&redtail.path("source.db"), &["PRAGMA journal_mode = WAL", "PRAGMA user_version = 1"]);
    let mut run = redtail.spawn_run("source.db", "replica.redb");
    let url = run.caught_up()["listen"].as_str().unwrap().to_owned();
    let page = browser.open(&url, "empty", &[WIDE]);
    assert!(page.contains(r#"<p id="no-tables" class="soft">No table is replicated yet.</p>"#), "{page}");
    assert!(page.contains(">following<"), "{page}");
    run.stop();

    fs::write(redtail.path("token"), "CANARY").unwrap();
    let redtail = redtail.with_env("REDTAIL_LISTEN_TOKEN_FILE", "token");
    let mut run = redtail.spawn_run("source.db", "replica.redb");
    let endpoint = Endpoint::of(&run.caught_up());
    let page = browser.open(&format!("http://{}/", endpoint.address), "token", &[WIDE]);
    assert!(page.contains("This endpoint wants its token."), "{page}");
    assert!(page.contains(r#"<form id="login">"#), "{page}");
    run.assert_running();
}
