//! The endpoint of `run`: what it answers, whom, and what it refuses.

mod browser;
mod changes;
mod crowd;
mod metrics;
mod rows;

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::process::Command;

use tempfile::TempDir;

use crate::support::http::{self, Endpoint, get_unix};
use crate::support::poll;
use crate::support::redtail::{Redtail, Run};
use crate::support::writer::application;

const SHOP: &[&str] = &[
    "PRAGMA journal_mode = WAL",
    "CREATE TABLE items(id INTEGER PRIMARY KEY, name TEXT, price REAL, photo BLOB)",
    "INSERT INTO items VALUES (1, 'lamp', 19.5, x'00ff'), (2, 'table', 9e999, NULL), (-3, 'böx', -0.5, x'')",
    "CREATE TABLE \"odd / name?\"(k TEXT PRIMARY KEY, v)",
    "INSERT INTO \"odd / name?\" VALUES ('a b&c=d', 1), ('ü', NULL), ('+%', 'x')",
];

/// A source with a `run` that listens at a port of its own.
pub(crate) fn listening() -> (TempDir, Run, Endpoint) {
    let folder = TempDir::new().unwrap();
    let redtail = Redtail::new(folder.path()).with_env("REDTAIL_LISTEN", "127.0.0.1:0");
    application(&redtail.path("source.db"), SHOP);
    let mut run = redtail.spawn_run("source.db", "replica.redb");
    let endpoint = Endpoint::of(&run.caught_up());
    (folder, run, endpoint)
}

#[test]
fn every_path_answers_and_whatever_is_no_reading_is_refused() {
    let (folder, mut run, endpoint) = listening();
    assert_eq!(endpoint.ok("/healthz"), "ok\n");
    assert_eq!(endpoint.ok("/readyz"), "ready\n");
    let page = endpoint.get("/");
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"), "{page:?}");
    assert!(page.header("content-security-policy").starts_with("default-src 'none'; script-src 'nonce-"));

    // The same words as the command's.
    let (over_http, by_command) = (endpoint.json("/status"), run.status());
    let names = |of: &serde_json::Value| of.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&over_http), names(&by_command));
    for field in ["cursor", "log_id", "tables", "consumer", "pid", "listen", "source"] {
        assert_eq!(over_http[field], by_command[field], "{field}");
    }

    let sampled = poll(|| endpoint.json("/history")["samples"].as_array().filter(|s| s.len() > 1).cloned());
    assert!(sampled.expect("a sample a second")[1]["at_ms"].as_u64() > Some(0));

    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "NONSENSE"] {
        for path in ["/status", "/tables/items", "/nosuch"] {
            let refused = endpoint.ask(method, path, &[("Content-Length", "0")]);
            assert_eq!((refused.status, refused.header("allow")), (405, "GET, HEAD"), "{method} {path}");
        }
    }
    let head = endpoint.ask("HEAD", "/status", &[]);
    assert_eq!((head.status, head.body.as_str()), (200, ""), "{head:?}");
    for (path, status, says) in [
        ("/nosuch", 404, "not found; there are /, /healthz"),
        ("/tables/itms", 404, r#"table \"itms\" is not known; did you mean \"items\"?"#),
        ("/tables/items?limt=1", 400, r#"parameter \"limt\" is not known; did you mean \"limit\"?"#),
        ("/tables/items?limit=0", 400, r#"limit \"0\": a whole number from 1 to 1000 is wanted"#),
        ("/tables/items?after=xyz", 400, "after: what `next` of the page before has is wanted"),
        ("/tables/items?typed=%ff", 400, "the query is not UTF-8"),
        ("/tables/items/row?key=99", 404, "table items: no row with this key"),
        ("/tables/items/row", 400, r#"table \"items\": its key has 1 values (id), not 0"#),
    ] {
        let refused = endpoint.get(path);
        assert_eq!(refused.status, status, "{path}: {refused:?}");
        let said: serde_json::Value = serde_json::from_str(&refused.body).unwrap();
        assert!(refused.body.contains(says) && said["error"].is_string(), "{path}: {refused:?}");
    }
    run.assert_running();
    drop(folder);
}

#[test]
fn a_name_of_another_machine_is_refused_and_so_is_a_header_without_end() {
    let (_folder, mut run, endpoint) = listening();
    for host in ["example.org", "127.0.0.1.example.org", "", "localhost.example.org:80", "10.0.0.1"] {
        for path in ["/", "/status", "/tables/items", "/metrics", "/healthz"] {
            let refused = endpoint.ask("GET", path, &[("Host", host)]);
            assert_eq!(refused.status, 421, "{host} {path}: {refused:?}");
            assert!(!refused.body.contains("lamp"));
        }
    }
    for host in ["localhost", "127.0.0.1", "[::1]:80", "LocalHost:1"] {
        assert_eq!(endpoint.ask("GET", "/status", &[("Host", host)]).status, 200, "{host}");
    }
    let long = "x".repeat(20_000);
    assert_eq!(endpoint.ask("GET", "/status", &[("X-Long", &long)]).status, 431);
    let many: Vec<(String, String)> = (0..100).map(|n| (format!("X-{n}"), n.to_string())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    assert_eq!(endpoint.ask("GET", "/status", &many).status, 431);
    run.assert_running();
}

#[test]
fn connections_have_a_limit_and_come_free_again() {
    let (_folder, mut run, endpoint) = listening();
    let idle: Vec<_> = (0..256).map(|_| endpoint.connect()).collect();
    // Connections are taken in turn: the last of these is among those that are one too many, or was.
    let refused = poll(|| Some(http::answer(endpoint.connect())).filter(|a| a.status == 503));
    assert_eq!(refused.expect("one too many is told so").header("retry-after"), "1");
    drop(idle);
    let again = poll(|| {
        let mut stream = endpoint.connect();
        let request =
            format!("GET /healthz HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", endpoint.address);
        stream.write_all(request.as_bytes()).ok()?;
        Some(http::answer(stream)).filter(|a| a.status == 200)
    });
    assert!(again.is_some(), "once they have gone, others are answered");
    run.assert_running();
}

#[test]
fn a_client_that_takes_nothing_of_its_answer_is_dropped() {
    let (folder, mut run, endpoint) = listening();
    // More than the sockets' buffers hold.
    application(&folder.path().join("source.db"), &["INSERT INTO items(photo) VALUES (zeroblob(20000000))"]);
    run.caught_up();
    let mut slow = endpoint.connect();
    let request = format!("GET /tables/items?limit=1000 HTTP/1.1\r\nHost: {}\r\n\r\n", endpoint.address);
    slow.write_all(request.as_bytes()).unwrap();
    // It reads nothing until the other side has closed: that shows in what is left to read, which is cut short.
    let mut first = [0; 1];
    slow.read_exact(&mut first).unwrap();
    let pid = run.pid();
    let closed = poll(|| (sockets(pid, &endpoint) == 0).then_some(()));
    assert!(closed.is_some(), "the connection is still there");
    let mut rest = Vec::new();
    let _ = slow.read_to_end(&mut rest);
    assert!(rest.len() < 20 << 20, "{} bytes came", rest.len());
    run.assert_running();
}

/// Connections of a process that are established at this endpoint's port.
fn sockets(pid: u32, endpoint: &Endpoint) -> usize {
    let port: u16 = endpoint.address.rsplit(':').next().unwrap().parse().unwrap();
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap();
    let local = format!(":{port:04X}");
    let ours = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().is_some_and(|at| at.ends_with(&local)) && fields.nth(1) == Some("01")
    };
    table.lines().filter(ours).count()
}

#[test]
fn other_machines_are_served_only_with_a_token_which_is_read_again_on_sighup() {
    let folder = TempDir::new().unwrap();
    let redtail = Redtail::new(folder.path());
    application(&redtail.path("source.db"), SHOP);
    let run = ["run", "-s", "source.db", "-r", "replica.redb", "--listen", "0.0.0.0:0"];
    let refused = redtail.run(&run);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    refused.assert_one_line("0.0.0.0", &["listen 0.0.0.0:0", "--listen-anywhere", "--listen-token-file"]);
    assert!(!redtail.path("replica.redb").exists(), "nothing is made before that");

    fs::write(redtail.path("token"), "CANARY-one\n").unwrap();
    let redtail = redtail
        .with_env("REDTAIL_LISTEN", "0.0.0.0:0")
        .with_env("REDTAIL_LISTEN_ANYWHERE", "true")
        .with_env("REDTAIL_LISTEN_TOKEN_FILE", "token");
    let mut run = redtail.spawn_run("source.db", "replica.redb");
    let status = run.caught_up();
    let port = Endpoint::of(&status).address.rsplit(':').next().unwrap().to_owned();
    let endpoint = Endpoint { address: format!("127.0.0.1:{port}") };
    let with = |path: &str, token: &str| {
        endpoint.ask("GET", path, &[("Host", "redtail.example:1"), ("Authorization", token)]).status
    };
    for path in ["/status", "/metrics", "/tables", "/tables/items", "/history", "/nosuch"] {
        let refused = endpoint.get(path);
        assert_eq!((refused.status, refused.header("www-authenticate")), (401, "Bearer"), "{path}");
        assert_eq!(with(path, "Bearer CANARY-onf"), 401, "{path}");
        assert_eq!(with(path, "CANARY-one"), 401, "{path}");
        assert_ne!(with(path, "Bearer CANARY-one"), 401, "{path}");
    }
    for open in ["/", "/healthz", "/readyz"] {
        assert_eq!(endpoint.get(open).status, 200, "{open}");
    }

    fs::write(redtail.path("token"), "CANARY-two").unwrap();
    hangup(&run);
    assert!(poll(|| (with("/status", "Bearer CANARY-two") == 200).then_some(())).is_some());
    assert_eq!(with("/status", "Bearer CANARY-one"), 401);
    // A file that is no token is said to be, and changes nothing.
    fs::write(redtail.path("token"), "two words").unwrap();
    hangup(&run);
    assert!(
        poll(|| run.said().contains("token file token: one token of visible ASCII").then_some(())).is_some()
    );
    assert_eq!(with("/status", "Bearer CANARY-two"), 200);
    assert!(!run.said().contains("CANARY"), "{}", run.said());
    run.stop();
}

fn hangup(run: &Run) {
    let sent = Command::new("kill").arg("-HUP").arg(run.pid().to_string()).status();
    assert!(sent.expect("kill runs").success());
}

#[test]
fn a_unix_socket_is_for_its_owner_alone_and_goes_with_its_process() {
    let folder = TempDir::new().unwrap();
    let redtail = Redtail::new(folder.path());
    application(&redtail.path("source.db"), SHOP);
    // Not beside the replica, where the control socket is looked for.
    fs::create_dir(redtail.path("run")).unwrap();
    let socket = redtail.path("run/here.sock");
    let at = socket.display().to_string();
    let redtail = redtail.with_env("REDTAIL_LISTEN", &at);
    let mut run = redtail.spawn_run("source.db", "replica.redb");
    assert_eq!(run.caught_up()["listen"], at.as_str());
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(get_unix(&socket, "/healthz").body, "ok\n");
    assert!(get_unix(&socket, "/tables/items").body.contains("lamp"));

    // Another one does not take it away.
    let second = redtail.run(&["run", "-s", "source.db", "-r", "other.redb"]);
    assert_eq!(second.code, Some(1), "{second:?}");
    second.assert_one_line("a taken socket", &["here.sock", "another program listens there"]);
    assert_eq!(get_unix(&socket, "/healthz").body, "ok\n");
    run.kill9();
    assert!(fs::symlink_metadata(&socket).unwrap().file_type().is_socket(), "left by the kill");
    let mut run = redtail.spawn_run("source.db", "replica.redb");
    run.caught_up();
    assert_eq!(get_unix(&socket, "/readyz").body, "ready\n");
    run.stop();
    assert!(!socket.exists());

    fs::write(&socket, "a file of somebody").unwrap();
    let refused = redtail.run(&["run", "-s", "source.db", "-r", "replica.redb"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    refused.assert_one_line("a file", &["here.sock", "a file is there, and no socket"]);
    assert_eq!(fs::read_to_string(&socket).unwrap(), "a file of somebody");
}
