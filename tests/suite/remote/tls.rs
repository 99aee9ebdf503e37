//! A certificate that no public authority has signed is not accepted, and said to be why.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{REPLICA, Remote};
use crate::support::skip;

/// TLS before a server, with a certificate that is signed by itself.
struct Front {
    child: Child,
    port: String,
    folder: tempfile::TempDir,
}

fn python() -> Command {
    let mut command = Command::new("python3");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls_front.py"));
    command
}

impl Front {
    fn before(test: &str, server: u16) -> Option<Self> {
        let folder = tempfile::TempDir::new().unwrap();
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
            .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .args(["-keyout", "key.pem", "-out", "certificate.pem"])
            .current_dir(folder.path())
            .output();
        if !made.is_ok_and(|made| made.status.success()) {
            skip("REDTAIL_REQUIRE_SQLD", &format!("{test}: no openssl that makes certificates"));
            return None;
        }
        let mut command = python();
        command.args(["certificate.pem", "key.pem", &server.to_string()]).current_dir(folder.path());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3");
        let mut port = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
        Some(Self { child, port: port.trim().to_owned(), folder })
    }

    /// What somebody hears from the server who trusts this certificate.
    fn health(&self) -> String {
        let mut command = python();
        command.args(["certificate.pem", "check", &self.port]).current_dir(self.folder.path());
        String::from_utf8(command.output().expect("python3").stdout).unwrap()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_not_accepted() {
    let test = "a_certificate_that_nobody_vouches_for_is_not_accepted";
    let Some(mut remote) = Remote::begin(test) else { return };
    let Some(front) = Front::before(test, remote.server.port()) else { return };
    remote.application(&["CREATE TABLE t(id INTEGER PRIMARY KEY, v)", "INSERT INTO t VALUES (1, 'x')"]);
    // It is the certificate alone that is in the way.
    assert_eq!(front.health().trim(), "200");
    let plain = std::mem::replace(&mut remote.source, format!("https://127.0.0.1:{}", front.port));
    let redtail = remote.redtail.with_env("TURSO_AUTH_TOKEN", "a.CANARY.token");
    let init = redtail.run(&["init", "-s", &remote.source]);
    assert_eq!(init.code, Some(1), "{init:?}");
    init.assert_one_line(
        "init",
        &["source https://127.0.0.1:", "its certificate or TLS is not accepted (invalid peer certificate"],
    );
    assert_eq!(remote.oracle.schema(&remote.server.database())["user_version"], 0);

    for command in ["sync", "run"] {
        let ended = redtail.run(&[command, "-s", &remote.source, "-r", REPLICA]);
        assert_eq!(ended.code, Some(1), "{command}: {ended:?}");
        assert!(ended.stderr.contains("its certificate or TLS is not accepted"), "{command}: {ended:?}");
        assert!(!format!("{ended:?}").contains("CANARY"), "{command}: {ended:?}");
        assert!(
            !redtail.path(REPLICA).exists(),
            "{command} made a replica of a server that it does not know"
        );
    }

    remote.source = plain;
    remote.sync();
    remote.assert_equal("without TLS");
}
