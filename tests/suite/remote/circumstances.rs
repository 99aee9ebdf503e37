//! Servers and times that are out of the ordinary: a process that slept, silence, another encoding, an older protocol.

use std::time::{Duration, Instant};

use super::Remote;
use crate::support::proxy::{Fault, Proxy};
use crate::support::{note, poll};

const TABLE: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, v)";
/// A server forgets a stream that was idle for 10 s, and sends a sign of life to a listener every 15 s.
const IDLE: Duration = Duration::from_secs(16);

/// A machine that was suspended, at the worst moment: in the middle of a transaction of several requests.
#[test]
fn a_process_that_slept_in_a_transaction_goes_on() {
    let Some(mut remote) = Remote::begin("a_process_that_slept_in_a_transaction_goes_on") else { return };
    let proxy = Proxy::before(remote.server.port());
    remote.source = proxy.url();
    remote.application(&[TABLE, "INSERT INTO t VALUES (1, 'x')"]);
    remote.sync();
    let mut run = remote.run();
    run.live();
    remote.follows(&mut run);
    // The schema moved: that is looked into statement by statement.
    proxy.always(Fault::Delay(Duration::from_millis(100)));
    remote.application(&["CREATE TABLE u(id INTEGER PRIMARY KEY, v)"]);
    let asked = proxy.requests();
    poll(|| (proxy.requests() > asked + 2).then_some(())).expect("it looks");
    run.send("STOP");
    let begun = Instant::now();
    proxy.always(Fault::None);
    remote.application(&["INSERT INTO u VALUES (1, 'made while it slept')", "UPDATE t SET v = 'y'"]);
    poll(|| (begun.elapsed() > IDLE).then_some(())).unwrap();
    run.send("CONT");
    remote.follows_with(&mut run, "u");
    remote.assert_equal("awake again");
    run.stop();
}

/// Nothing happens for longer than any connection or stream of the server's lasts.
#[test]
fn after_a_long_silence_a_change_is_seen_at_once() {
    let Some(mut remote) = Remote::begin("after_a_long_silence_a_change_is_seen_at_once") else { return };
    // Nobody looks meanwhile, and nobody writes what redtail itself would acknowledge.
    remote.redtail =
        remote.redtail.with_env("REDTAIL_POLL", "\"1h\"").with_env("REDTAIL_ACK_INTERVAL", "\"1h\"");
    remote.application(&[TABLE, "INSERT INTO t VALUES (1, 'x')"]);
    remote.sync();
    let mut run = remote.run();
    run.live();
    remote.application(&["UPDATE t SET v = 'before'"]);
    remote.follows(&mut run);
    let begun = Instant::now();
    poll(|| (begun.elapsed() > IDLE).then_some(())).unwrap();
    let asked = run.status()["traffic"]["requests"].clone();
    let written = Instant::now();
    remote.application(&["UPDATE t SET v = 'after'", "INSERT INTO t VALUES (2, 'z')"]);
    remote.follows(&mut run);
    note(&format!("seen {:?} after a silence of {IDLE:?}; requests before: {asked}", written.elapsed()));
    remote.assert_equal("after the silence");
    run.stop();
}

#[test]
fn a_server_whose_database_is_utf_16_is_followed() {
    for encoding in ["UTF-16le", "UTF-16be"] {
        let Some(mut remote) = Remote::begin("a_server_whose_database_is_utf_16_is_followed") else { return };
        // An encoding is chosen by who makes the first table, on the same connection.
        remote.application(&[
            "BEGIN".to_owned(),
            format!("PRAGMA encoding = '{encoding}'"),
            "CREATE TABLE t(k TEXT PRIMARY KEY, v TEXT, b BLOB)".to_owned(),
            "COMMIT".to_owned(),
        ]);
        let said = remote.oracle.query(&remote.server.database(), "PRAGMA encoding");
        assert_eq!(said[0][0]["value"], encoding, "the server has another: {said}");
        remote.application(&[
            "INSERT INTO t VALUES ('a', 'plain', x'00ff'), ('ß', 'Grüße, 世界, 🦀', NULL), ('', '', x'')",
            "INSERT INTO t VALUES (char(0x10ffff), 'high', 1), (char(0xe000), 'lower in UTF-8', 2)",
            // Half of a surrogate pair: text that no UTF-8 carries.
            "INSERT INTO t VALUES ('half', CAST(x'00d8' AS TEXT), 3), ('nul', 'a' || char(0) || 'b', 4)",
        ]);
        remote.sync();
        assert_eq!(remote.assert_equal("the first copy").rows, 7);
        let mut run = remote.run();
        run.live();
        remote.application(&[
            "UPDATE t SET v = v || '…' WHERE k <> 'half'",
            "UPDATE t SET k = 'Ä' WHERE k = 'a'",
            "DELETE FROM t WHERE k = 'ß'",
            "REPLACE INTO t VALUES (char(0x10ffff), CAST(x'dcdc' AS TEXT), 5)",
            "CREATE TABLE u(id INTEGER PRIMARY KEY, v TEXT COLLATE NOCASE UNIQUE)",
            "INSERT INTO u VALUES (1, 'É'), (2, 'é'), (3, 'e')",
        ]);
        remote.follows_with(&mut run, "u");
        remote.assert_equal("changes");
        run.stop();
        let verified = remote.redtail.run(&["verify", "-s", &remote.source, "-r", super::REPLICA]);
        assert_eq!(verified.code, Some(0), "{verified:?}");
    }
}

#[test]
fn a_server_that_has_only_the_second_version_of_the_protocol_is_followed() {
    let test = "a_server_that_has_only_the_second_version_of_the_protocol_is_followed";
    let Some(mut remote) = Remote::begin(test) else { return };
    let proxy = Proxy::before(remote.server.port());
    proxy.second_only();
    remote.source = proxy.url();
    remote.application(&[TABLE, "INSERT INTO t VALUES (1, 'x'), (2, NULL), (3, -0.0)"]);
    remote.redtail.ok(&["init", "-s", &remote.source]);
    remote.sync();
    remote.assert_equal("the first copy");
    let mut run = remote.run();
    run.live();
    remote.application(&[
        "UPDATE t SET v = 'y' WHERE id = 2",
        "CREATE TABLE u(k TEXT PRIMARY KEY, v UNIQUE)",
        "INSERT INTO u VALUES ('a', 1), ('b', 2)",
        "REPLACE INTO u VALUES ('c', 2)",
        "DELETE FROM t WHERE id = 1",
    ]);
    remote.follows_with(&mut run, "u");
    remote.assert_equal("changes");
    run.stop();
    remote.redtail.ok(&["remove", "-s", &remote.source, "--force"]);
}
