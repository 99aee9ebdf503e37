//! Every value that SQLite can hold, in every kind of key, bit for bit over the wire.

use super::Remote;

/// Tables whose keys and values are hard to carry.
const TABLES: &[&str] = &[
    "CREATE TABLE loose(id INTEGER PRIMARY KEY, a, b, c)",
    "CREATE TABLE named(\"a b\"\"c\" TEXT PRIMARY KEY, \"select\" REAL, \"é😀\" BLOB) WITHOUT ROWID",
    "CREATE TABLE folded(k TEXT COLLATE NOCASE PRIMARY KEY, v)",
    "CREATE TABLE bare(x, y)",
    "CREATE TABLE pair(a TEXT, b REAL, c, PRIMARY KEY(a, b))",
    "CREATE TABLE made(id INTEGER PRIMARY KEY, x REAL, minus AS (-x), twice AS (x * 2) STORED)",
    "CREATE TABLE strict(id INTEGER PRIMARY KEY, t TEXT, r REAL, i INT, b BLOB, a ANY) STRICT",
];

/// Values as SQL; each stands in every place.
const VALUES: &[&str] = &[
    "NULL",
    "0",
    "-1",
    "9223372036854775807",
    "-9223372036854775808",
    "1.0",
    "-0.0",
    "0.0",
    "0.1",
    "-620997.8375344051",
    "3.607364191295078e-309",
    "5e-324",
    "1.7976931348623157e308",
    "9e999",
    "-9e999",
    "9007199254740993",
    "''",
    "'a'",
    "'A'",
    "'it''s; i5:b3'",
    "'\u{e9}\u{1f600}'",
    "CAST(x'610062' AS TEXT)",
    "CAST(x'ff00fe' AS TEXT)",
    "CAST(x'c3' AS TEXT)",
    "x''",
    "x'00ff'",
    "zeroblob(70000)",
    "hex(zeroblob(30000))",
];

fn writes() -> Vec<String> {
    let mut out = Vec::new();
    for (n, v) in VALUES.iter().enumerate() {
        out.push(format!("INSERT INTO loose VALUES ({n}, {v}, typeof({v}), {v})"));
        out.push(format!("INSERT OR REPLACE INTO named VALUES (coalesce({v}, ''), {v}, {v})"));
        out.push(format!("INSERT OR REPLACE INTO folded VALUES ({v}, {v})"));
        out.push(format!("INSERT INTO bare VALUES ({v}, {n})"));
        out.push(format!("INSERT OR REPLACE INTO pair VALUES ({v}, {n} % 3, {v})"));
        out.push(format!(
            "INSERT INTO made(id, x) VALUES ({n}, CASE WHEN typeof({v}) IN ('integer', 'real') THEN {v} END)"
        ));
        out.push(format!("INSERT INTO strict(id, a) VALUES ({n}, {v})"));
    }
    out
}

/// Each row is touched once more, in another way.
fn changes() -> Vec<String> {
    [
        "UPDATE loose SET b = a, a = c WHERE id % 2",
        "DELETE FROM loose WHERE id % 7 = 3",
        "UPDATE folded SET k = upper(k) WHERE typeof(k) = 'text'",
        "UPDATE bare SET y = y + 1 WHERE x IS NOT NULL",
        "DELETE FROM bare WHERE x IS NULL",
        "UPDATE pair SET c = a, b = -b",
        "UPDATE made SET x = -x",
        "UPDATE strict SET t = CAST(a AS TEXT), r = 0.0, i = id, b = CAST(a AS BLOB)",
        "REPLACE INTO named SELECT upper(\"a b\"\"c\"), \"select\", \"é😀\" FROM named",
    ]
    .map(str::to_owned)
    .to_vec()
}

#[test]
fn every_value_in_every_kind_of_key_arrives_bit_for_bit() {
    let Some(mut remote) = Remote::begin("every_value_in_every_kind_of_key_arrives_bit_for_bit") else {
        return;
    };
    remote.application(TABLES);
    remote.application(&writes());
    remote.sync();
    let copied = remote.assert_equal("the first copy");
    assert!(copied.rows > 150, "{copied:?}");
    remote.application(&changes());
    remote.sync();
    remote.assert_equal("changes, by sync");

    let mut run = remote.run();
    run.live();
    remote.application(&["DELETE FROM loose", "DELETE FROM bare", "DELETE FROM made", "DELETE FROM strict"]);
    remote.application(&writes());
    remote.follows(&mut run);
    remote.assert_equal("changes, by run");
    run.stop();
}

#[test]
fn a_table_of_a_thousand_columns_arrives() {
    let Some(mut remote) = Remote::begin("a_table_of_a_thousand_columns_arrives") else { return };
    let columns: Vec<String> = (0..999).map(|n| format!("c{n}")).collect();
    let values: Vec<String> =
        (0..999).map(|n| if n % 3 == 0 { format!("'{n}'") } else { format!("{n}.5") }).collect();
    remote.application(&[format!("CREATE TABLE wide(id INTEGER PRIMARY KEY, {})", columns.join(","))]);
    remote.application(&[format!("INSERT INTO wide VALUES (1, {})", values.join(","))]);
    remote.sync();
    remote.assert_equal("the first copy");
    remote.application(&[format!("INSERT INTO wide VALUES (2, {})", values.join(","))]);
    remote.sync();
    remote.assert_equal("a change");
}
