//! What cannot be captured is skipped by its name with the reason, and never stands in the way.

use crate::support::trial::Trial;
use crate::support::writer::application;

/// Starts following and fails unless exactly these are skipped, each with a reason that holds a word.
fn skips(trial: &mut Trial, expected: &[(&str, &str)]) {
    trial.follow(true);
    assert_skipped(trial, expected);
    // `init` says the same.
    let told = trial.redtail.ok(&["init", "-s", "source.db"]);
    for (name, _) in expected {
        assert!(
            told.lines().any(|line| line.starts_with("skipped") && line.contains(name)),
            "{name}: {told}"
        );
    }
}

fn assert_skipped(trial: &mut Trial, expected: &[(&str, &str)]) {
    let status = trial.run().status();
    let skipped = status["skipped"].as_array().unwrap();
    let mut named: Vec<&str> = skipped.iter().map(|s| s["name"].as_str().unwrap()).collect();
    named.sort_unstable();
    let mut wanted: Vec<&str> = expected.iter().map(|(name, _)| *name).collect();
    wanted.sort_unstable();
    assert_eq!(named, wanted);
    for (name, word) in expected {
        let reason = skipped.iter().find(|s| s["name"] == *name).unwrap()["reason"].as_str().unwrap();
        assert!(reason.contains(word), "{name}: {reason}");
    }
}

fn begin(test: &str, sql: &[&str]) -> Option<Trial> {
    let mut trial = Trial::begin(test, None)?;
    trial.application(&["PRAGMA journal_mode = WAL", "CREATE TABLE beat(n)", "INSERT INTO beat VALUES (0)"]);
    trial.application(sql);
    Some(trial)
}

// Attacks: a virtual table's shadow tables are typed so only where its module is loaded: their names count too.
#[test]
fn virtual_tables_and_their_shadow_tables_are_skipped() {
    let test = "virtual_tables_and_their_shadow_tables_are_skipped";
    let sql = [
        "CREATE VIRTUAL TABLE doc USING fts5(title, body)",
        "CREATE VIRTUAL TABLE old USING fts4(body)",
        "CREATE VIRTUAL TABLE box USING rtree(id, x0, x1)",
        "INSERT INTO doc VALUES ('a', 'b'), ('c', 'd')",
        "INSERT INTO box VALUES (1, 0, 1)",
        "CREATE TABLE source_of(id INTEGER PRIMARY KEY, body)",
        "CREATE TRIGGER feed AFTER INSERT ON source_of BEGIN INSERT INTO doc(rowid, body) VALUES (NEW.id, NEW.body); END",
        "CREATE VIEW shown AS SELECT * FROM doc",
        "CREATE TABLE content(x)",
        "CREATE TABLE nothing_data(x)",
    ];
    let Some(mut trial) = begin(test, &sql) else { return };
    let shadows = [
        "doc_data",
        "doc_idx",
        "doc_content",
        "doc_docsize",
        "doc_config",
        "old_content",
        "old_segments",
        "old_segdir",
        "old_docsize",
        "old_stat",
        "box_node",
        "box_parent",
        "box_rowid",
    ];
    let mut expected: Vec<(&str, &str)> = shadows.iter().map(|name| (*name, "shadow")).collect();
    expected.extend([("doc", "virtual"), ("old", "virtual"), ("box", "virtual")]);
    skips(&mut trial, &expected);
    trial.application(&[
        "INSERT INTO source_of VALUES (7, 'text'), (8, 'more')",
        "INSERT INTO nothing_data VALUES (1)",
        "INSERT INTO old VALUES ('x')",
    ]);
    trial.assert_equal("beside full text search");
    // The module's tables come and go.
    trial.application(&[
        "DROP TRIGGER feed",
        "DROP VIEW shown",
        "DROP TABLE doc",
        "INSERT INTO source_of VALUES (9, 'last')",
    ]);
    trial.assert_equal("after the full text search was dropped");
}

// Attacks: the tables of libSQL's vector indexes are known by the index they belong to, not by their looks.
#[test]
fn a_vector_index_is_skipped_and_its_table_followed() {
    let test = "a_vector_index_is_skipped_and_its_table_followed";
    let Some(mut trial) = begin(test, &[]) else { return };
    application(
        &trial.source(),
        &[
            "CREATE TABLE embedding(id INTEGER PRIMARY KEY, v FLOAT32(3))",
            "CREATE INDEX near ON embedding(libsql_vector_idx(v))",
            "INSERT INTO embedding VALUES (1, vector('[1,2,3]')), (2, vector('[4,5,6]'))",
        ],
    );
    trial.redtail.sync("source.db", "replica.redb");
    trial.live();
    assert_skipped(&mut trial, &[("near_shadow", ""), ("libsql_vector_meta_shadow", "")]);
    application(
        &trial.source(),
        &[
            "UPDATE embedding SET v = vector('[7,8,9]') WHERE id = 1",
            "REPLACE INTO embedding VALUES (2, vector('[0,0,1]')), (3, NULL)",
            "UPDATE embedding SET id = 30 WHERE id = 3",
        ],
    );
    let compared = trial.compare();
    let foreign = |d: &&String| !d.starts_with("near_shadow:");
    assert_eq!(compared.differences.iter().find(foreign), None);
}

// Attacks: an ordinary table is not skipped because its name looks like one of somebody else's.
#[test]
fn tables_that_only_look_like_somebody_elses_are_followed() {
    let test = "tables_that_only_look_like_somebody_elses_are_followed";
    let sql = [
        "CREATE TABLE a_shadow_idx(x PRIMARY KEY)",
        "CREATE TABLE my_idx_shadow(x)",
        "CREATE TABLE a_shadow(x)",
        "CREATE TABLE doc_content(x)",
        "CREATE TABLE redtail_x(x)",
        "CREATE TABLE \"_redtai\"(x)",
        "CREATE TABLE sqlitefan(x)",
        "CREATE TABLE x_config(x)",
    ];
    let Some(mut trial) = begin(test, &sql) else { return };
    skips(&mut trial, &[]);
    trial.application(&[
        "INSERT INTO a_shadow_idx VALUES (1)",
        "INSERT INTO my_idx_shadow VALUES (1)",
        "INSERT INTO a_shadow VALUES (1)",
        "INSERT INTO doc_content VALUES (1)",
    ]);
    trial.application(&[
        "INSERT INTO redtail_x VALUES (1)",
        "INSERT INTO \"_redtai\" VALUES (1)",
        "INSERT INTO sqlitefan VALUES (1)",
        "INSERT INTO x_config VALUES (1)",
    ]);
    trial.assert_equal("names that only look so");
}

// Attacks: no usable key, in each way; a key that only an unknown collation orders; a search that is none.
#[test]
fn tables_without_a_key_that_can_be_used_are_skipped_and_the_others_followed() {
    let test = "tables_without_a_key_that_can_be_used_are_skipped_and_the_others_followed";
    let many: Vec<String> = (0..65).map(|i| format!("c{i}")).collect();
    let many = format!("CREATE TABLE many({0}, PRIMARY KEY({0})) WITHOUT ROWID", many.join(","));
    let sql = [
        "CREATE TABLE hidden(rowid, oid, _rowid_)",
        "CREATE TABLE nulls(rowid TEXT PRIMARY KEY, oid, _rowid_)",
        "CREATE TABLE foreign_order(k TEXT COLLATE app PRIMARY KEY, v) WITHOUT ROWID",
        "CREATE TABLE searchless(id INTEGER PRIMARY KEY, v)",
        "CREATE UNIQUE INDEX searchless_e ON searchless(id % 10)",
        many.as_str(),
        "CREATE TABLE fine(id INTEGER PRIMARY KEY, v)",
    ];
    let Some(mut trial) = begin(test, &sql) else { return };
    let expected = [
        ("hidden", "rowid"),
        ("nulls", "NULL"),
        ("foreign_order", "collation"),
        ("searchless", "automatic key"),
        ("many", "64"),
    ];
    skips(&mut trial, &expected);
    trial.application(&["INSERT INTO fine VALUES (1, 2)"]);
    trial.assert_equal("beside skipped tables");
    // What made it unfit goes: it is captured from now on; and the other way.
    trial.application(&["DROP INDEX searchless_e", "INSERT INTO searchless VALUES (1, 'a'), (11, 'b')"]);
    trial.assert_equal("no longer skipped");
    trial.application(&[
        "INSERT INTO hidden VALUES (1, 2, 3)",
        "ALTER TABLE hidden RENAME COLUMN oid TO id",
        "UPDATE hidden SET id = 9",
    ]);
    trial.assert_equal("its rowid is no longer hidden");
    trial.application(&["DELETE FROM fine", "CREATE UNIQUE INDEX fine_e ON fine(id % 10)"]);
    trial.catch_up();
    assert_skipped(&mut trial, &[expected[1], expected[2], expected[4], ("fine", "automatic key")]);
}
