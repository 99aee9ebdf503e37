//! Changes over HTTP: followed by a program in another language, by many at once, and from positions that are gone.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::http::Endpoint;
use crate::support::oracle::Oracle;
use crate::support::redtail::{Redtail, Run, finish};
use crate::support::writer::{EVENTS, Ledger, Writer, application};
use crate::support::{Chance, poll};

use super::listening;

fn followed(folder: &TempDir) -> (Redtail, Run, Endpoint) {
    let redtail = Redtail::new(folder.path())
        .with_env("REDTAIL_LISTEN", "127.0.0.1:0")
        .with_env("REDTAIL_KEEP_CHANGES", "{ rows = 1_000_000 }");
    application(&redtail.path("source.db"), &["PRAGMA journal_mode = WAL", EVENTS]);
    let mut run = redtail.spawn_run("source.db", "replica.redb");
    let endpoint = Endpoint::of(&run.caught_up());
    (redtail, run, endpoint)
}

#[test]
fn a_program_in_another_language_keeps_a_table_through_the_endpoint() {
    let test = "a_program_in_another_language_keeps_a_table_through_the_endpoint";
    let Some(mut oracle) = Oracle::start(test) else { return };
    let folder = TempDir::new().unwrap();
    let (redtail, mut run, endpoint) = followed(&folder);
    let source = redtail.path("source.db");
    let writer = Writer::start(&source, Ledger::default(), Chance::new(test));
    let follower = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/follower.py");
    let mut command = redtail.command(Path::new("python3"));
    command.arg(follower).args([&endpoint.address, "event"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("python3 runs");
    // Written to until it has come back a few times.
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    for _ in 0..5 {
        assert_eq!(said.next().expect("it goes on").unwrap(), "back");
    }
    writer.stop();
    run.caught_up();
    application(&source, &["INSERT INTO event VALUES (-1, 'the end', 0)"]);
    let output = finish(child, test);
    assert_eq!(output.code, Some(0), "{output:#?}");
    let rows = oracle.query(&source, "SELECT id, body, version FROM event ORDER BY id");
    let columns = ["id", "body", "version"];
    let got: Vec<Value> =
        output.json_lines().iter().map(|row| columns.iter().map(|c| row[*c].clone()).collect()).collect();
    assert!(got.len() > 20, "{}", got.len());
    assert_eq!(Value::from(got), rows);
}

/// A subscriber; its first event, which says where it begins, is read.
fn subscribe(endpoint: &Endpoint) -> (BufReader<TcpStream>, String) {
    let mut stream = endpoint.connect();
    let request = format!("GET /changes HTTP/1.1\r\nHost: {}\r\n\r\n", endpoint.address);
    stream.write_all(request.as_bytes()).unwrap();
    let mut reader = BufReader::new(stream);
    let position = data(&mut reader, "position");
    (reader, position["position"].as_str().expect("a position").to_owned())
}

/// The next event of this name.
fn data(reader: &mut BufReader<TcpStream>, name: &str) -> Value {
    let (mut line, mut found) = (String::new(), false);
    loop {
        line.clear();
        assert!(reader.read_line(&mut line).expect("it goes on") > 0, "it ended before {name}");
        found |= line.trim_end() == format!("event: {name}");
        if let Some(data) = line.strip_prefix("data: ").filter(|_| found) {
            return serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data}"));
        }
    }
}

#[test]
fn a_hundred_subscribers_hear_every_change_and_one_too_many_is_told() {
    let folder = TempDir::new().unwrap();
    let (redtail, mut run, endpoint) = followed(&folder);
    let mut subscribers: Vec<_> = (0..100).map(|_| subscribe(&endpoint).0).collect();
    application(&redtail.path("source.db"), &["INSERT INTO event VALUES (7, 'seven', 1)"]);
    for subscriber in &mut subscribers {
        let change = data(subscriber, "change");
        assert_eq!((&change["op"], &change["before"]), (&"c".into(), &Value::Null), "{change}");
        assert_eq!(change["after"], serde_json::json!({"id": 7, "body": "seven", "version": 1}));
    }
    let memory = endpoint.ok("/metrics");
    let memory = super::metrics::parse(&memory)["process_resident_memory_bytes"];
    assert!(memory < f64::from(256 << 20), "{memory} bytes");
    let more: Vec<_> = (0..28).map(|_| subscribe(&endpoint).0).collect();
    let refused = endpoint.get("/changes");
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.body.contains("too many subscribers"), "{refused:?}");
    drop((subscribers, more));
    // Places come free when clients have gone.
    let again = poll(|| {
        let mut stream = endpoint.connect();
        let request = format!("GET /changes HTTP/1.1\r\nHost: {}\r\n\r\n", endpoint.address);
        stream.write_all(request.as_bytes()).ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).ok()?;
        line.contains("200").then_some(())
    });
    assert!(again.is_some());
    run.assert_running();
}

#[test]
fn a_position_that_is_not_kept_is_gone_and_one_that_is_none_is_wrong() {
    let (folder, mut run, endpoint) = listening();
    let status = run.status();
    application(&folder.path().join("source.db"), &["UPDATE items SET name = 'x'"]);
    let later = run.caught_up();
    assert!(later["cursor"].as_u64() > status["cursor"].as_u64());
    let old = format!("{}:{}", status["log_id"].as_str().unwrap(), status["cursor"]);
    let gone = endpoint.get(&format!("/changes?from={old}"));
    assert_eq!(gone.status, 410, "{gone:?}");
    let wrong = endpoint.ask("GET", "/changes", &[("Last-Event-ID", "yesterday")]);
    assert_eq!(wrong.status, 400, "{wrong:?}");
    assert_eq!(endpoint.get("/changes?form=1").status, 400);
    run.assert_running();
}
