//! Rows over HTTP: the same as the commands print, page by page.

use serde_json::Value;

use crate::support::redtail::Redtail;
use crate::support::writer::application;

use super::listening;

#[test]
fn pages_bring_every_row_once_in_key_order_as_scan_prints_it() {
    let (folder, mut run, endpoint) = listening();
    let redtail = Redtail::new(folder.path());
    let rows = "INSERT INTO items(id, name) SELECT i * 7 % 1009 + 10, 'n' || i FROM
        (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) SELECT i FROM n)";
    application(&folder.path().join("source.db"), &[rows]);
    run.caught_up();
    for (table, path) in [("items", "items"), ("odd / name?", "odd%20%2F%20name%3F")] {
        for (typed, flag) in [("", None), ("&typed=1", Some("--typed"))] {
            for limit in [1, 3, 100, 1000] {
                if limit == 1 && table == "items" {
                    continue;
                }
                let mut got: Vec<Value> = Vec::new();
                let mut next = Some(format!("/tables/{path}?limit={limit}{typed}"));
                while let Some(page) = next {
                    let page = endpoint.json(&page);
                    let rows = page["rows"].as_array().unwrap();
                    assert!(!rows.is_empty() && rows.len() <= limit, "{page}");
                    assert_eq!(page["consistent"], true);
                    got.extend(rows.iter().cloned());
                    next = page["next"].as_str().map(str::to_owned);
                }
                let mut args = vec!["scan", table, "-r", "replica.redb"];
                args.extend(flag);
                assert_eq!(got, redtail.run(&args).json_lines(), "{table}, {limit} a page, {flag:?}");
            }
        }
    }
    run.assert_running();
}

#[test]
fn a_row_is_found_by_its_key_whatever_characters_are_in_it() {
    let (_folder, mut run, endpoint) = listening();
    for (key, want) in [("a+b%26c%3Dd", "1"), ("%C3%BC", "null"), ("%2B%25", "\"x\"")] {
        let row = endpoint.json(&format!("/tables/odd%20%2F%20name%3F/row?key={key}"));
        assert_eq!(row["row"]["row"]["v"].to_string(), want, "{row}");
    }
    let typed = endpoint.json("/tables/items/row?key=-3&typed");
    assert_eq!(typed["row"]["row"]["price"], serde_json::json!({"type": "real", "value": "-0.5"}));
    assert_eq!(typed["position"], endpoint.json("/tables")["position"]);
    run.assert_running();
}

#[test]
fn a_page_that_is_read_while_rows_come_and_go_neither_repeats_nor_loses_those_that_stay() {
    let (folder, mut run, endpoint) = listening();
    let source = folder.path().join("source.db");
    let first = endpoint.json("/tables/items?limit=2");
    assert_eq!(first["rows"][1]["key"], serde_json::json!([1]));
    // The row at which the page ended goes, and others come before and behind it.
    application(&source, &["DELETE FROM items WHERE id = 1", "INSERT INTO items(id) VALUES (-9), (0), (3)"]);
    run.caught_up();
    let second = endpoint.json(first["next"].as_str().unwrap());
    let keys: Vec<&Value> = second["rows"].as_array().unwrap().iter().map(|row| &row["key"][0]).collect();
    assert_eq!(keys, [2, 3], "{second}");
    assert_eq!(second["next"], Value::Null);
    assert_ne!(second["position"], first["position"]);
}
