//! What a network and a server can do to a request, one after another: never a wrong row, a hang, or a busy
//! loop; and afterwards equal.

use std::time::{Duration, Instant};

use super::{AWAY, Remote};
use crate::support::proxy::{Fault, Proxy};
use crate::support::redtail::Run;
use crate::support::{note, poll};

const TABLE: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b TEXT)";
const REFUSED: &str = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno";
const BUSY: &str =
    "HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
const BROKEN: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\nconnection: close\r\n\r\nsoon";
const WRONG: &str = "HTTP/1.1 200 OK\r\ncontent-length: 14\r\nconnection: close\r\n\r\n<html>hi</html";
const HALF: &str = "HTTP/1.1 200 OK\r\ncontent-length: 40\r\nconnection: close\r\n\r\n{\"baton\":null,\"base_url\":null,\"results\":[";
const EMPTY: &str = "HTTP/1.1 200 OK\r\ncontent-length: 43\r\nconnection: close\r\n\r\n{\"baton\":null,\"base_url\":null,\"results\":[]}";

/// A server behind a proxy, followed by a `run`.
struct Behind {
    remote: Remote,
    proxy: Proxy,
    run: Run,
    writes: u32,
}

impl Behind {
    fn begin(test: &str) -> Option<Self> {
        let mut remote = Remote::begin(test)?;
        let proxy = Proxy::before(remote.server.port());
        remote.source = proxy.url();
        remote.redtail = remote.redtail.with_env("REDTAIL_REQUEST_TIMEOUT", "\"700ms\"");
        remote.application(&[TABLE, "INSERT INTO t VALUES (0, 0, '')"]);
        remote.sync();
        let mut run = remote.run();
        run.live();
        Some(Self { remote, proxy, run, writes: 0 })
    }

    fn write(&mut self) {
        write(&mut self.remote, &mut self.writes);
    }

    /// Writes while these happen; when they have, the replica is equal.
    fn through(&mut self, what: &str, faults: impl IntoIterator<Item = Fault>) {
        self.proxy.next(faults);
        self.write();
        poll(|| (self.proxy.left() == 0).then_some(())).unwrap_or_else(|| panic!("{what}: not all happened"));
        self.write();
        self.remote.follows(&mut self.run);
        self.remote.assert_equal(what);
    }
}

/// A few changes, others each time.
fn write(remote: &mut Remote, writes: &mut u32) {
    *writes += 1;
    let n = *writes;
    remote.application(&[
        format!("INSERT OR REPLACE INTO t VALUES ({}, {n}, 'row {n}')", n % 40),
        format!("UPDATE t SET a = a + 1 WHERE id % 5 = {}", n % 5),
        format!("DELETE FROM t WHERE id = {}", (n * 7) % 40),
    ]);
}

#[test]
fn whatever_happens_to_requests_the_replica_ends_equal() {
    let Some(mut behind) = Behind::begin("whatever_happens_to_requests_the_replica_ends_equal") else {
        return;
    };
    let twice = |fault: Fault| [fault.clone(), fault];
    behind.through("a late answer", twice(Fault::Delay(Duration::from_millis(200))));
    behind.through("no answer in time", [Fault::Delay(Duration::from_millis(1500))]);
    behind.through("the connection is refused", twice(Fault::Refuse));
    behind.through("the body ends in the middle", [Fault::Cut(150), Fault::Cut(300), Fault::Cut(0)]);
    behind.through("the body stalls", [Fault::Stall(250), Fault::Stall(0)]);
    behind.through("wrong answers", [WRONG, HALF, EMPTY].map(Fault::Instead));
    behind.through("refused once: the token is read again", [Fault::Instead(REFUSED)]);
    behind.through("too many requests", [Fault::Instead(BUSY)]);
    behind.through("the server is broken", twice(Fault::Instead(BROKEN)));
    let wrong_bytes = (0..60).map(|n| Fault::Spoil(n * 13));
    // A byte changed inside a value's own digits cannot be told from a right one: TLS is for that. Only what
    // the form shows is tried here, so the comparison comes after another write of every row.
    behind.proxy.next(wrong_bytes.take(1));
    behind.remote.application(&["DELETE FROM t"]);
    behind.through("afterwards", []);
    behind.run.stop();
}

#[test]
fn an_answer_cut_at_any_byte_is_never_taken_for_whole() {
    let Some(mut behind) = Behind::begin("an_answer_cut_at_any_byte_is_never_taken_for_whole") else {
        return;
    };
    behind.through("before", []);
    let whole = behind.proxy.last_answer();
    assert!(whole > 300, "{whole}");
    let step = if std::env::var("REDTAIL_LONG").as_deref() == Ok("1") { 1 } else { 37 };
    let mut cut = 0;
    for at in (0..whole).step_by(step) {
        behind.proxy.next([Fault::Cut(at)]);
        cut += 1;
        if cut % 8 == 0 {
            behind.write();
        }
        poll(|| (behind.proxy.left() == 0).then_some(())).expect("it is asked again");
    }
    behind.through("after every cut", []);
    note(&format!("an answer of {whole} bytes was cut at {cut} places"));
    behind.run.stop();
}

#[test]
fn a_server_that_is_away_for_long_is_waited_for_without_haste() {
    let Some(mut behind) = Behind::begin("a_server_that_is_away_for_long_is_waited_for_without_haste") else {
        return;
    };
    behind.remote.follows(&mut behind.run);
    behind.proxy.always(Fault::Refuse);
    let (before, begun) = (behind.proxy.requests(), Instant::now());
    poll(|| (begun.elapsed() > AWAY * 10).then_some(())).unwrap();
    let asked = behind.proxy.requests() - before;
    // Three seconds of pauses that double from 20 ms on are some ten tries.
    assert!(asked < 100, "{asked} requests in {:?}: a busy loop", begun.elapsed());
    let status = behind.run.status();
    assert_eq!(status["state"], "retrying", "{status:#}");
    assert!(status["error"].as_str().is_some_and(|e| e.contains("source http://")), "{status:#}");
    behind.proxy.always(Fault::None);
    behind.through("back again", []);
    behind.run.stop();
}

#[test]
fn a_server_100_ms_away_is_followed() {
    let Some(mut behind) = Behind::begin("a_server_100_ms_away_is_followed") else { return };
    behind.proxy.always(Fault::Delay(Duration::from_millis(100)));
    behind.through("100 ms away", []);
    let before = behind.proxy.requests();
    behind.write();
    behind.remote.follows(&mut behind.run);
    let asked = behind.proxy.requests() - before;
    note(&format!("three changes at 100 ms: {asked} requests until they were seen to be there"));
    behind.remote.assert_equal("100 ms away");
    behind.run.stop();
}

#[test]
fn a_run_begun_while_the_server_is_away_serves_and_catches_up() {
    let Some(mut behind) = Behind::begin("a_run_begun_while_the_server_is_away_serves_and_catches_up") else {
        return;
    };
    behind.remote.follows(&mut behind.run);
    let Behind { mut remote, proxy, run, mut writes } = behind;
    run.stop();
    proxy.always(Fault::Refuse);
    let mut run = remote.run();
    run.live();
    let dumped = remote.redtail.ok(&["dump", "-r", super::REPLICA]);
    assert!(dumped.lines().count() >= 1, "readers are served meanwhile");
    write(&mut remote, &mut writes);
    proxy.always(Fault::None);
    remote.follows(&mut run);
    remote.assert_equal("caught up");
    run.stop();
}

#[test]
fn a_run_ends_at_once_though_the_server_stalls() {
    let Some(behind) = Behind::begin("a_run_ends_at_once_though_the_server_stalls") else { return };
    behind.proxy.always(Fault::Stall(0));
    let before = behind.proxy.requests();
    poll(|| (behind.proxy.requests() > before).then_some(())).expect("it is asked");
    behind.run.stop();
}
