//! What is masked, left out or filtered away is nowhere in the replica's file, once compacted: not in free
//! pages, not in what is remembered, not as an old version.

use std::fs;

use tempfile::TempDir;

use crate::support::oracle::Oracle;
use crate::support::redtail::Redtail;

const ROWS: usize = 3_000;

/// How often a text stands in a file, as bytes.
fn count(redtail: &Redtail, file: &str, text: &str) -> usize {
    let bytes = fs::read(redtail.path(file)).unwrap();
    bytes.windows(text.len()).filter(|window| *window == text.as_bytes()).count()
}

#[test]
fn masked_values_are_nowhere_in_the_file() {
    let Some(mut oracle) = Oracle::start("masked_values_are_nowhere_in_the_file") else { return };
    let folder = TempDir::new().unwrap();
    let redtail = Redtail::new(folder.path());
    let source = redtail.path("s.db");
    oracle.script(
        &source,
        &[
            "CREATE TABLE user(id INTEGER PRIMARY KEY, email TEXT, note TEXT, archived INTEGER)".to_owned(),
            format!(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS}) INSERT INTO user \
                 SELECT i, 'canary-email-' || i, replace(hex(zeroblob(300)), '00', 'canary-note '), i % 2 FROM n"
            ),
        ],
    );
    // First everything is copied, secrets and all.
    redtail.sync("s.db", "r.redb");
    assert!(count(&redtail, "r.redb", "canary-email-") >= ROWS, "they were there");
    // Then they are masked, left out and filtered away.
    let toml = "[tables.user]\ncolumns = ['id', 'email', 'archived']\nwhere = 'archived = 0'\nmask = { email = \"substr(email, 1, 2) || '***'\" }\n";
    fs::write(redtail.path("redtail.toml"), toml).unwrap();
    redtail.sync("s.db", "r.redb");
    oracle.script(
        &source,
        &["UPDATE user SET email = 'canary-email-new', note = 'canary-note ' WHERE id < 100"],
    );
    redtail.sync("s.db", "r.redb");
    redtail.ok(&["compact", "-r", "r.redb"]);
    for secret in ["canary-email-", "canary-note "] {
        assert_eq!(count(&redtail, "r.redb", secret), 0, "{secret} stands in the file");
    }
    assert!(count(&redtail, "r.redb", "ca***") >= ROWS / 2, "the masked values do");
    redtail.ok(&["verify", "-s", "s.db", "-r", "r.redb"]);
}
