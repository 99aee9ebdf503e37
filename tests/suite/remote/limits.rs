//! More than one answer of the server holds: pages, rows in pieces, many tables.

use super::Remote;

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
