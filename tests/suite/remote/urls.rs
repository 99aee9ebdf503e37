//! What is not a server's URL gets one line that says what would be right.

use tempfile::TempDir;

use crate::support::redtail::Redtail;

#[test]
fn a_wrong_url_is_refused_with_the_right_form_and_without_its_secret() {
    let folder = TempDir::new().unwrap();
    let redtail = Redtail::new(folder.path());
    for (source, said) in [
        ("http://db.example", "http is taken for this machine alone"),
        ("ftp://db.example", "give a path, file:, libsql://, https:// or http://"),
        ("libsql://db.example?authToken=CANARY", "give a token by --token-file or TURSO_AUTH_TOKEN"),
        ("https://me:CANARY@db.example", "give a token by --token-file or TURSO_AUTH_TOKEN"),
        ("libsql://", "no host in it"),
    ] {
        let output = redtail.run(&["sync", "-s", source, "-r", "r.redb"]);
        assert_eq!(output.code, Some(2), "{source}: {output:?}");
        output.assert_one_line(source, &["source", said]);
        assert!(!output.stderr.contains("CANARY"), "{}", output.stderr);
    }
    let output =
        redtail.run(&["sync", "-s", "https://db.example", "-r", "r.redb", "--token-file", "nowhere"]);
    output.assert_one_line("token file", &["token file nowhere: no such file"]);
    assert_eq!(output.code, Some(2));
    assert!(!redtail.path("r.redb").exists(), "no replica is made for a wrong source");
}

#[test]
fn a_server_that_is_not_there_ends_a_sync_with_one_line() {
    let folder = TempDir::new().unwrap();
    let redtail = Redtail::new(folder.path());
    let output = redtail.run(&["sync", "-s", "http://127.0.0.1:1", "-r", "r.redb"]);
    assert_eq!(output.code, Some(1), "{output:?}");
    output.assert_one_line("no server", &["source http://127.0.0.1:1", "the connection failed"]);
}
