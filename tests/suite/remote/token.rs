//! The token: asked for, refused, read again, and shown nowhere.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{REPLICA, Remote};
use crate::support::{poll, skip};

/// A key pair made for one test, and tokens signed with it, by `openssl`.
struct Keys {
    folder: tempfile::TempDir,
}

impl Keys {
    fn make(test: &str) -> Option<Self> {
        let keys = Self { folder: tempfile::TempDir::new().unwrap() };
        let (private, public) = (keys.path("private.pem"), keys.path("public.pem"));
        let made = openssl(&["genpkey", "-algorithm", "ed25519", "-out", &private], b"")
            .and_then(|_| openssl(&["pkey", "-in", &private, "-pubout", "-out", &public], b""));
        if made.is_none() {
            skip("REDTAIL_REQUIRE_SQLD", &format!("{test}: no openssl that makes Ed25519 keys"));
        }
        made.map(|_| keys)
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn token(&self, claims: &str) -> String {
        let text =
            format!("{}.{}", base64url(br#"{"alg":"EdDSA","typ":"JWT"}"#), base64url(claims.as_bytes()));
        let file = self.path("signed");
        std::fs::write(&file, &text).unwrap();
        let signature =
            openssl(&["pkeyutl", "-sign", "-rawin", "-inkey", &self.path("private.pem"), "-in", &file], b"");
        format!("{text}.{}", base64url(&signature.expect("openssl signs")))
    }
}

fn openssl(args: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let mut child = Command::new("openssl")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    child.stdin.take()?.write_all(input).ok()?;
    let output = child.wait_with_output().ok()?;
    output.status.success().then_some(output.stdout)
}

fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0u32, |bits, b| bits << 8 | u32::from(*b)) << (8 * (3 - three.len()));
        for digit in 0..=three.len() {
            out.push(char::from(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize]));
        }
    }
    out
}

fn assert_absent(secret: &str, folder: &Path) {
    for (path, bytes) in crate::support::contents(folder) {
        let shown = bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
        assert!(!shown, "the token stands in {}", path.display());
    }
}

#[test]
fn a_server_with_keys_is_followed_and_the_token_is_shown_nowhere() {
    let test = "a_server_with_keys_is_followed_and_the_token_is_shown_nowhere";
    let Some(keys) = Keys::make(test) else { return };
    // Its first part is the same in every token; what follows is the secret.
    let token = keys.token(r#"{"a":"rw"}"#);
    let secret = token.split('.').next_back().unwrap().to_owned();
    let Some(mut remote) = Remote::with(test, &["--auth-jwt-key-file", &keys.path("public.pem")]) else {
        return;
    };

    let none = remote.redtail.run(&["init", "-s", &remote.source]);
    assert_eq!(none.code, Some(1), "{none:?}");
    none.assert_one_line("no token", &["source http://", "wants a token", "--token-file"]);
    let wrong = remote.redtail.with_env("TURSO_AUTH_TOKEN", "wrong.CANARY.token").run(&[
        "init",
        "-s",
        &remote.source,
        "-vv",
    ]);
    assert_eq!(wrong.code, Some(1), "{wrong:?}");
    assert!(wrong.stderr.contains("the server refuses the token"), "{wrong:?}");
    assert!(!wrong.stderr.contains("CANARY") && !wrong.stdout.contains("CANARY"), "{wrong:?}");

    let file = keys.path("token");
    std::fs::write(&file, format!("{token}\n")).unwrap();
    let redtail = remote.redtail.with_env("RUST_LOG", "trace").with_env("REDTAIL_TOKEN_FILE", &file);
    remote.oracle.ask(&serde_json::json!({"op": "token", "token": token}));
    remote.application(&["CREATE TABLE t(id INTEGER PRIMARY KEY, v)", "INSERT INTO t VALUES (1, 'x')"]);
    let synced = redtail.run(&["sync", "-s", &remote.source, "-r", REPLICA, "-vv"]);
    assert_eq!(synced.code, Some(0), "{synced:?}");
    assert!(!format!("{synced:?}").contains(&secret), "{synced:?}");
    remote.assert_equal("by a token file");

    // It is exchanged while following: the server takes no other than the new one from here on.
    let mut run = redtail.spawn_run(&remote.source, REPLICA);
    run.live();
    let others = Keys::make(test).unwrap();
    let next = others.token(r#"{"a":"rw"}"#);
    std::fs::copy(others.path("public.pem"), keys.path("public.pem")).unwrap();
    remote.server.kill();
    remote.server.begin();
    let refused = poll(|| (run.status()["state"] == "refused").then(|| run.status()));
    let refused = refused.expect("the status says that the token is refused");
    assert!(refused["error"].as_str().is_some_and(|e| e.contains("refuses the token")), "{refused:#}");
    let title = std::fs::read(format!("/proc/{}/cmdline", run.pid())).unwrap_or_default();
    assert!(!String::from_utf8_lossy(&title).contains(&secret), "the process title shows the token");
    std::fs::write(&file, &next).unwrap();
    remote.oracle.ask(&serde_json::json!({"op": "token", "token": next}));
    remote.application(&["UPDATE t SET v = 'y'"]);
    remote.follows(&mut run);
    remote.assert_equal("by the new token");
    run.stop();
    assert_absent(&secret, redtail.path(".").as_path());
    assert_absent(next.split('.').next_back().unwrap(), redtail.path(".").as_path());
}

#[test]
fn a_token_that_may_only_read_follows_what_another_installed() {
    let test = "a_token_that_may_only_read_follows_what_another_installed";
    let Some(keys) = Keys::make(test) else { return };
    let Some(mut remote) = Remote::with(test, &["--auth-jwt-key-file", &keys.path("public.pem")]) else {
        return;
    };
    let (all, read) = (keys.token(r#"{"a":"rw"}"#), keys.token(r#"{"a":"ro"}"#));
    let reader = remote.redtail.with_env("TURSO_AUTH_TOKEN", &read);
    remote.oracle.ask(&serde_json::json!({"op": "token", "token": all}));
    remote.application(&["CREATE TABLE t(id INTEGER PRIMARY KEY, v)", "INSERT INTO t VALUES (1, 'x')"]);
    let early = reader.run(&["sync", "-s", &remote.source, "-r", REPLICA]);
    assert_eq!(early.code, Some(2), "{early:?}");
    assert!(early.stderr.contains("must be installed by someone who may write"), "{early:?}");
    remote.redtail.with_env("TURSO_AUTH_TOKEN", &all).ok(&["init", "-s", &remote.source]);
    let mut run = reader.spawn_run(&remote.source, REPLICA);
    run.live();
    remote.application(&["UPDATE t SET v = 'y'", "INSERT INTO t VALUES (2, NULL)"]);
    remote.follows(&mut run);
    remote.assert_equal("by a token that may only read");
    run.stop();
}
