//! `redtail.toml`: what is right is taken and shown again, what is wrong is refused in one line.

use std::fs;

use tempfile::TempDir;

use crate::support::oracle::Oracle;
use crate::support::redtail::Redtail;
use crate::support::{assert_unchanged, contents};

const SOURCE: &[&str] = &[
    "CREATE TABLE user(id INTEGER PRIMARY KEY, email TEXT, at TEXT, note)",
    "CREATE INDEX user_at ON user(at)",
    "CREATE INDEX user_part ON user(note) WHERE note > 1",
    "INSERT INTO user VALUES (1, 'ann@example.org', '2026', NULL)",
    "CREATE TABLE named(name TEXT PRIMARY KEY, v)",
];

/// What is written, and what the one line must name.
#[rustfmt::skip]
const WRONG: &[(&str, &[&str])] = &[
    ("durabilty = 'every-window'", &["durabilty", "did you mean \"durability\"?"]),
    ("[changelog]\nmax_row = 5", &["changelog.max_row", "did you mean \"changelog.max_rows\"?"]),
    ("[changlog]\nmax_rows = 5", &["changlog", "did you mean"]),
    ("changelog = 5", &["changelog: a table is wanted, such as [changelog]"]),
    ("[changelog]\nmax_rows = 0", &["changelog.max_rows: a whole number above 0"]),
    ("[changelog]\nretain_min = 5", &["changelog.retain_min: a time is wanted"]),
    ("ack_interval = '0s'", &["ack_interval: a time is wanted"]),
    ("include = '*'", &["include: a list of patterns is wanted"]),
    ("tables = 1", &["tables: a table is wanted, such as [tables]"]),
    ("[tables]\nuser = 1", &["tables.user: a table is wanted, such as [tables.user]"]),
    ("[tables.user]\ncolums = ['id']", &["tables.user.colums", "did you mean \"tables.user.columns\"?"]),
    ("[tables.user]\ncolumns = []", &["tables.user.columns: a list of columns is wanted"]),
    ("[tables.user]\ncolumns = ['id', 'emial']", &["tables.user.columns", "emial", "did you mean \"email\"?"]),
    ("[tables.user]\ncolumns = ['email']", &["tables.user.columns", "\"id\" is of the table's key; add it"]),
    ("[tables.user]\nwhere = 1", &["tables.user.where: an SQL expression is wanted"]),
    ("[tables.user]\nwhere = 'nosuch = 1'", &["tables.user.where", "no such column: nosuch", "columns of the same row"]),
    ("[tables.user]\nwhere = '(SELECT 1)'", &["tables.user.where", "subqueries prohibited", "columns of the same row"]),
    ("[tables.user]\nwhere = 'random() > 0'", &["tables.user.where", "non-deterministic", "columns of the same row"]),
    ("[tables.user]\nwhere = \"at > date('now')\"", &["tables.user.where", "non-deterministic", "columns of the same row"]),
    ("[tables.user]\nwhere = 'at > CURRENT_TIMESTAMP'", &["tables.user.where", "columns of the same row"]),
    ("[tables.user]\nwhere = 'count(*) > 1'", &["tables.user.where", "columns of the same row"]),
    ("[tables.user]\nwhere = 'at = ?'", &["tables.user.where", "columns of the same row"]),
    ("[tables.user]\nwhere = '1) OR (1'", &["tables.user.where", "syntax error"]),
    ("[tables.user]\nwhere = '1; DROP TABLE user'", &["tables.user.where", "syntax error"]),
    ("[tables.named]\nwhere = 'v > 1 OR \"rowid\" > 5'", &["tables.named.where", "the rowid is no value of the row here"]),
    ("[tables.user]\nwhere = '\"emial\" IS NULL'", &["tables.user.where", "column \"emial\" is not known", "did you mean \"email\"?"]),
    ("[tables.user]\nmask = { emial = '1' }", &["tables.user.mask.emial", "did you mean \"email\"?"]),
    ("[tables.user]\nmask = { id = '1' }", &["tables.user.mask.id", "key cannot be masked"]),
    ("[tables.user]\nmask = { email = 'hex(randomblob(2))' }", &["tables.user.mask.email", "non-deterministic"]),
    ("[tables.user]\nmask = 'x'", &["tables.user.mask: an SQL expression for each column is wanted"]),
    ("[tables.user]\nkeep_latest = { by = 'at' }", &["tables.user.keep_latest: { by = \"start_time\", rows = 1000 } is wanted"]),
    ("[tables.user]\nkeep_latest = { by = 'at', rows = 3, row = 3 }", &["tables.user.keep_latest.row", "did you mean \"tables.user.keep_latest.rows\"?"]),
    ("[tables.user]\nkeep_latest = { by = 'email', rows = 3 }", &["tables.user.keep_latest", "no index begins with \"email\"", "allow_scan = true"]),
    ("[tables.user]\nkeep_latest = { by = 'note', rows = 3 }", &["tables.user.keep_latest", "no index begins with \"note\""]),
    ("[tables.user]\nkeep_latest = { by = 'ta', rows = 3 }", &["tables.user.keep_latest", "\"ta\""]),
];

#[test]
fn a_wrong_configuration_is_refused_in_one_line_and_changes_nothing() {
    let Some(mut oracle) = Oracle::start("a_wrong_configuration_is_refused_in_one_line_and_changes_nothing")
    else {
        return;
    };
    let folder = TempDir::new().unwrap();
    let redtail = Redtail::new(folder.path());
    oracle.script(&redtail.path("s.db"), SOURCE);
    let mut failed = Vec::new();
    for (toml, says) in WRONG {
        fs::write(redtail.path("redtail.toml"), toml).unwrap();
        let before = contents(folder.path());
        let checked = std::panic::catch_unwind(|| {
            let output = redtail.run(&["sync", "-s", "s.db", "-r", "r.redb"]);
            assert_eq!(output.code, Some(2), "{toml}: {output:#?}");
            output.assert_one_line(toml, says);
            assert_unchanged(&before, folder.path(), toml);
        });
        if checked.is_err() {
            failed.push(toml);
        }
    }
    assert!(failed.is_empty(), "{} of {}: {failed:#?}", failed.len(), WRONG.len());
}

#[test]
fn what_config_prints_is_a_file_that_says_the_same() {
    let folder = TempDir::new().unwrap();
    let redtail = Redtail::new(folder.path());
    let defaults = redtail.ok(&["config"]);
    assert!(defaults.contains("durability = \"every-window\""), "{defaults}");
    let given = "source = 'a.db'\ndurability = { interval_ms = 50 }\nexclude = ['tmp_*']\n[changelog]\nmax_rows = 5000\nretain_min = '90s'\nmax_age = '2days'\n\
                 [tables.\"odd name\"]\ncolumns = ['id']\nwhere = \"a = 'x'\"\nmask = { b = \"'***'\" }\nkeep_latest = { by = 'at', rows = 10, allow_scan = true }\n";
    fs::write(redtail.path("redtail.toml"), given).unwrap();
    let once = redtail.ok(&["config"]);
    for said in
        ["interval_ms = 50", "max_rows = 5000", "1m 30s", "2days", "odd name", "allow_scan = true", "tmp_*"]
    {
        assert!(once.contains(said), "{said}: {once}");
    }
    fs::write(redtail.path("redtail.toml"), &once).unwrap();
    assert_eq!(redtail.ok(&["config"]), once);
    // The environment wins over the file, and a flag over both.
    let env = redtail.with_env("REDTAIL_CHANGELOG_MAX_ROWS", "7").with_env("REDTAIL_SOURCE", "b.db");
    assert!(env.ok(&["config"]).contains("max_rows = 7"));
    assert!(env.ok(&["config", "-s", "c.db"]).contains("source = \"c.db\""));
    let wrong = redtail.with_env("REDTAIL_ACK_INTERVAL", "soon").run(&["config"]);
    assert_eq!(wrong.code, Some(2));
    wrong.assert_one_line("environment", &["REDTAIL_ACK_INTERVAL: a time is wanted"]);
}

#[test]
fn files_that_another_replication_owns_are_refused() {
    let Some(mut oracle) = Oracle::start("files_that_another_replication_owns_are_refused") else { return };
    let folder = TempDir::new().unwrap();
    let redtail = Redtail::new(folder.path());
    fs::create_dir_all(redtail.path("srv/dbs/default/wallog")).unwrap();
    for (name, beside, says) in [
        ("a.db", Some("a.db-info"), "an embedded replica"),
        ("b.db", Some("b.db-client_wal_index"), "an embedded replica"),
        ("srv/dbs/default/data", None, "data file of a server"),
    ] {
        oracle.script(&redtail.path(name), SOURCE);
        if let Some(beside) = beside {
            fs::write(redtail.path(beside), "{}").unwrap();
        }
        let before = contents(folder.path());
        for command in [
            &["init", "-s", name] as &[&str],
            &["sync", "-s", name, "-r", "r.redb"],
            &["run", "-s", name, "-r", "r.redb"],
        ] {
            let output = redtail.run(command);
            assert_eq!(output.code, Some(2), "{command:?}: {output:#?}");
            output.assert_one_line(name, &[name, says]);
            assert_unchanged(&before, folder.path(), name);
        }
    }
}
