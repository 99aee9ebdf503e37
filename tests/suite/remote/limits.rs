//! More than one answer of the server holds: pages, rows in pieces, many tables.

use super::Remote;
use crate::support::note;
use crate::support::proxy::Proxy;

#[test]
fn rows_larger_than_an_answer_come_in_pieces() {
    // The smallest answer that sqld can be told of: a megabyte.
    let options = ["--max-response-size", "1MB"];
    let Some(mut remote) = Remote::with("rows_larger_than_an_answer_come_in_pieces", &options) else {
        return;
    };
    remote.application(&[
        "CREATE TABLE large(id INTEGER PRIMARY KEY, t TEXT, b BLOB, r)",
        "INSERT INTO large VALUES (1, 'small', x'00', -0.0), (5, 'small', x'01', 1.5)",
        "INSERT INTO large VALUES (2, CAST(randomblob(1500000) AS TEXT), randomblob(1400000), -0.0)",
        "INSERT INTO large VALUES (3, hex(randomblob(900000)), NULL, 0.0)",
    ]);
    remote.sync();
    remote.assert_equal("the first copy");
    remote.application(&[
        "UPDATE large SET b = randomblob(2600000), t = NULL WHERE id = 2",
        "UPDATE large SET r = 2 WHERE id = 1",
    ]);
    remote.sync();
    remote.assert_equal("changes");
    remote.application(&["UPDATE large SET b = randomblob(1200000)"]);
    remote.sync();
    remote.assert_equal("several at once");
}

#[test]
fn a_row_as_large_as_the_server_takes_arrives() {
    let Some(mut remote) = Remote::begin("a_row_as_large_as_the_server_takes_arrives") else { return };
    remote.application(&[
        "CREATE TABLE large(id INTEGER PRIMARY KEY, b)",
        "INSERT INTO large VALUES (1, randomblob(4999000)), (2, hex(randomblob(2499000)))",
    ]);
    remote.sync();
    remote.assert_equal("the first copy");
    remote.application(&["UPDATE large SET b = randomblob(4999000)"]);
    remote.sync();
    remote.assert_equal("changes");
}

#[test]
fn a_backlog_of_many_answers_is_drained_and_ends_equal() {
    let Some(mut remote) = Remote::begin("a_backlog_of_many_answers_is_drained_and_ends_equal") else {
        return;
    };
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000)";
    remote.application(&[
        "CREATE TABLE kv(a INTEGER, b TEXT, c, d, PRIMARY KEY(a, b)) WITHOUT ROWID".to_owned(),
        "CREATE TABLE other(id INTEGER PRIMARY KEY, x)".to_owned(),
        format!("{rows} INSERT INTO kv SELECT i % 50, 'key ' || i, randomblob(40), i * 0.5 FROM n"),
    ]);
    remote.sync();
    remote.assert_equal("the first copy");
    remote.application(&[
        "UPDATE kv SET d = -d WHERE rowid IS NULL OR a % 2 = 0".replace("rowid IS NULL OR ", ""),
        format!("{rows} INSERT INTO other SELECT i, 'x' || i FROM n"),
        "DELETE FROM kv WHERE a = 7".to_owned(),
    ]);
    remote.sync();
    remote.assert_equal("the backlog");
    assert_eq!(remote.redtail.status(&remote.source, super::REPLICA)["lag_entries"], 0);
}

// Attacks: windows that are asked for ahead and then not wanted, and asked for once more.
#[test]
fn a_backlog_costs_a_request_a_window() {
    let Some(mut remote) = Remote::begin("a_backlog_costs_a_request_a_window") else { return };
    let proxy = Proxy::before(remote.server.port());
    remote.source = proxy.url();
    remote.application(&["CREATE TABLE t(id INTEGER PRIMARY KEY, x)", "INSERT INTO t VALUES (0, 0)"]);
    remote.sync();
    let asked = |remote: &Remote| {
        let before = proxy.requests();
        remote.sync();
        proxy.requests() - before
    };
    remote.application(&["INSERT INTO t VALUES (-1, 0)"]);
    let one = asked(&remote);
    remote.application(&[
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) INSERT INTO t SELECT i, i FROM n",
    ]);
    let backlog = asked(&remote);
    remote.assert_equal("the backlog");
    note(&format!("a sync of one change: {one} requests; of 100,000: {backlog}"));
    // 4,000, 8,000, 16,000 and so on, or less where the second of two asked for ahead is as wide as the first.
    assert!((one + 3..one + 9).contains(&backlog), "{one} for one change, {backlog} for 100,000");
}

// Attacks: an acknowledgement between two windows throws away what was asked for ahead; windows are asked for twice then.
#[test]
fn a_backlog_is_asked_for_once_though_acknowledgements_come_between() {
    const ROWS: u64 = 100_000;
    let test = "a_backlog_is_asked_for_once_though_acknowledgements_come_between";
    let Some(mut remote) = Remote::begin(test) else { return };
    remote.redtail = remote
        .redtail
        .with_env("REDTAIL_ACK_INTERVAL", "\"500ms\"")
        .with_env("REDTAIL_MAX_TRANSACTION", "\"0s\"")
        .with_env("REDTAIL_WINDOW_ENTRIES", "1000");
    remote.application(&["CREATE TABLE t(id INTEGER PRIMARY KEY, x)", "INSERT INTO t VALUES (0, 0)"]);
    remote.sync();
    remote.application(&[format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS}) INSERT INTO t SELECT i, i FROM n"
    )]);
    let mut run = remote.run();
    remote.follows(&mut run);
    let status = run.status();
    let (requests, read) = (status["requests"].as_u64().unwrap(), status["rows_read"].as_u64().unwrap());
    let acks = status["work"]["acknowledgements"].as_u64().unwrap();
    note(&format!("100 windows of 1,000: {requests} requests, {read} rows read, {acks} acknowledgements"));
    run.stop();
    remote.assert_equal("the backlog");
    // A window reads its rows, and its entries a few times; so do the two that an acknowledgement makes futile.
    assert!(read < 5 * ROWS + acks * 20_000, "{read} rows read for {ROWS} and {acks} acknowledgements");
}

// Attacks: the ends of the changelog are found by their key, and not among all entries.
#[test]
fn an_acknowledgement_reads_little_of_a_long_changelog() {
    const ACKNOWLEDGED: u64 = 10;
    let Some(mut remote) = Remote::begin("an_acknowledgement_reads_little_of_a_long_changelog") else {
        return;
    };
    remote.redtail = remote.redtail.with_env("REDTAIL_ACK_INTERVAL", "\"20ms\"");
    remote.application(&["CREATE TABLE t(id INTEGER PRIMARY KEY, x)", "INSERT INTO t VALUES (0, 0)"]);
    remote.sync();
    remote.application(&[
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) INSERT INTO t SELECT i, i FROM n",
    ]);
    remote.sync();
    let mut run = remote.run();
    remote.follows(&mut run);
    let before = run.status()["rows_read"].as_u64().unwrap();
    for n in 1..=ACKNOWLEDGED {
        remote.application(&[format!("UPDATE t SET x = -{n} WHERE id = {n}")]);
        run.until("acknowledged", |status| status["work"]["acknowledgements"].as_u64() >= Some(n));
    }
    let read = run.status()["rows_read"].as_u64().unwrap() - before;
    run.stop();
    note(&format!("{ACKNOWLEDGED} changes and acknowledgements, 100,000 entries: {read} rows read"));
    assert!(read < ACKNOWLEDGED * 10_000, "{read} rows read");
}

#[test]
fn many_tables_are_followed() {
    let Some(mut remote) = Remote::begin("many_tables_are_followed") else { return };
    let make: Vec<String> =
        (0..60).map(|n| format!("CREATE TABLE t{n}(id INTEGER PRIMARY KEY, v UNIQUE)")).collect();
    remote.application(&make);
    remote.sync();
    let write: Vec<String> = (0..60).map(|n| format!("INSERT INTO t{n} VALUES ({n}, 'v{n}')")).collect();
    remote.application(&write);
    remote.sync();
    let compared = remote.assert_equal("a row in each");
    assert_eq!((compared.tables, compared.rows), (60, 60));
}
