//! Databases in UTF-16: keys sort and compare otherwise, and text need not be text.

use crate::support::trial::{Control, Script, Trial};

/// Lone and swapped surrogates, beside text of several planes. `%` stands for the bytes' order.
const WORDS: &[&str] = &["a", "A", "ä", "z", "Ω", "\u{ffff}", "𐀀", "🦀", "\u{e000}", "", "a ", "a  "];
/// UTF-16 units that no text has, big-endian.
const BROKEN: &[&str] = &["d800", "dc00", "dc00d800", "0061d800", "d8000061", "dfff0000", "d83d"];

fn setup(encoding: &str) -> Vec<String> {
    let mut sql = vec![
        format!("PRAGMA encoding = '{encoding}'"),
        "CREATE TABLE beat(n)".to_owned(),
        "INSERT INTO beat VALUES (0)".to_owned(),
        "CREATE TABLE b(k TEXT PRIMARY KEY, v)".to_owned(),
        "CREATE TABLE n(k TEXT COLLATE NOCASE PRIMARY KEY, v)".to_owned(),
        "CREATE TABLE r(k TEXT COLLATE RTRIM PRIMARY KEY, v) WITHOUT ROWID".to_owned(),
        "CREATE TABLE c(a, k TEXT COLLATE NOCASE, v, PRIMARY KEY(a DESC, k))".to_owned(),
        "CREATE TABLE i(id INTEGER PRIMARY KEY, u TEXT UNIQUE)".to_owned(),
    ];
    for (i, word) in WORDS.iter().enumerate() {
        for table in ["b", "n", "r"] {
            sql.push(format!("INSERT OR IGNORE INTO {table} VALUES ('{word}', {i})"));
        }
        sql.push(format!("INSERT INTO c VALUES ('{word}', '{word}', {i})"));
        sql.push(format!("INSERT INTO i(u) VALUES ('{word}')"));
    }
    sql
}

fn follow(test: &str, encoding: &str, live: bool) {
    let Some(mut trial) = Trial::begin(test, None) else { return };
    trial.application(&setup(encoding));
    trial.follow(live);
    let written = [
        "INSERT INTO b VALUES ('x' || char(0) || 'y', 1), (CAST('blob' AS BLOB), 2), (12, 3)",
        "UPDATE n SET k = upper(k), v = v + 1",
        "REPLACE INTO n VALUES ('A', 'replaced'), ('ÄÄ', 1)",
        "REPLACE INTO r VALUES ('a     ', 'replaced')",
        "UPDATE c SET a = k, k = upper(k)",
        "REPLACE INTO i(u) VALUES ('🦀')",
    ];
    trial.application(&written);
    trial.assert_equal("written");
    trial.application(&[
        "DELETE FROM b WHERE k > 'a'",
        "DELETE FROM n WHERE k = 'a'",
        "DELETE FROM r WHERE k = 'z '",
        "UPDATE b SET k = k || '🦀'",
    ]);
    trial.assert_equal("deleted");
    let broken: Vec<String> = BROKEN
        .iter()
        .enumerate()
        .flat_map(|(i, units)| {
            let literal = format!("CAST(x'{}' AS TEXT)", in_order(units, encoding));
            ["b", "n", "r"].map(|t| format!("REPLACE INTO {t} VALUES ({literal}, {i})"))
        })
        .collect();
    trial.application(&broken);
    trial.assert_equal("text that is none");
    trial.application(&["UPDATE b SET v = v + 1", "UPDATE n SET v = v + 1", "UPDATE r SET v = v + 1"]);
    trial.assert_equal("text that is none, updated");
    trial.application(&[
        "DELETE FROM b WHERE v % 2",
        "DELETE FROM n WHERE v % 2",
        "DELETE FROM r WHERE v % 2",
        "UPDATE b SET k = 'all' || k",
    ]);
    trial.assert_equal("text that is none, deleted");
    // A table that is read again whole, with rows that went meanwhile.
    trial.application(&["ALTER TABLE b ADD COLUMN more DEFAULT 'ü'", "DELETE FROM b WHERE v > 5"]);
    trial.assert_equal("reconciled");
}

fn in_order(units: &str, encoding: &str) -> String {
    let pairs: Vec<&str> = (0..units.len()).step_by(4).map(|i| &units[i..i + 4]).collect();
    let one = |unit: &&str| {
        if encoding == "UTF-16le" { format!("{}{}", &unit[2..], &unit[..2]) } else { (*unit).to_owned() }
    };
    pairs.iter().map(one).collect()
}

// Attacks: BINARY compares the database's own bytes, the others UTF-8 as SQLite makes it.
#[test]
fn a_little_endian_utf_16_database_is_followed() {
    for live in [false, true] {
        follow("a_little_endian_utf_16_database_is_followed", "UTF-16le", live);
    }
}

#[test]
fn a_big_endian_utf_16_database_is_followed() {
    for live in [false, true] {
        follow("a_big_endian_utf_16_database_is_followed", "UTF-16be", live);
    }
}

// Attacks: text is read through its bytes: not cut at a NUL, and not lost where it is not UTF-8.
#[test]
fn text_that_is_not_utf_8_is_followed_byte_for_byte() {
    let test = "text_that_is_not_utf_8_is_followed_byte_for_byte";
    let script = Script {
        setup: &[
            "CREATE TABLE t(k TEXT PRIMARY KEY, v)",
            "CREATE TABLE n(k TEXT COLLATE NOCASE PRIMARY KEY, v)",
            "INSERT INTO t VALUES (CAST(x'ff' AS TEXT), 1), (CAST(x'c0af' AS TEXT), 2), (CAST(x'610062' AS TEXT), 3)",
            "INSERT INTO n SELECT k, v FROM t",
        ],
        steps: &[
            &["UPDATE t SET v = CAST(x'80' AS TEXT)", "UPDATE n SET v = v || CAST(x'00eda080' AS TEXT)"],
            &[
                "UPDATE t SET k = k || CAST(x'4100ff' AS TEXT)",
                "UPDATE n SET k = CAST(x'41ff' AS TEXT) WHERE v = 1",
            ],
            &[
                "DELETE FROM t WHERE k = CAST(x'ff4100ff' AS TEXT)",
                "REPLACE INTO n VALUES (CAST(x'410062' AS TEXT), 9)",
                "DELETE FROM n WHERE k > CAST(x'b0' AS TEXT)",
            ],
        ],
    };
    script.holds(test);
    // As text would arrive that is cut at its first NUL.
    script.is_caught(test, Control::Edited(&[("NEW.\"k\"", "substr(NEW.\"k\", 1, 1)")]));
}
