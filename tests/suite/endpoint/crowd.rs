//! Many clients at once: what they cost those who follow, and what becomes of those who take nothing.
//!
//! `REDTAIL_CROWD_SECONDS=60` is the long mode; by default the crowd is there for four seconds. What is held against a
//! limit is memory and who is dropped; times are only printed.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::http::Endpoint;
use crate::support::redtail::Redtail;
use crate::support::writer::application;
use crate::support::{note, poll};

use super::metrics::parse;
use super::sockets;

/// Who asks for `/metrics` again and again, who takes every change, and who takes none.
const ASKING: usize = 50;
const TAKING: usize = 40;
const STALLED: usize = 10;
const ASK_EVERY: Duration = Duration::from_millis(100);
const WRITE_EVERY: Duration = Duration::from_millis(20);
/// The most that memory may grow by while the crowd is there: less than what the stalled ones do not take.
const MEMORY: f64 = 32.0 * 1024.0 * 1024.0;

async fn asking(endpoint: Endpoint, over: Arc<AtomicBool>) -> u64 {
    let mut answers = 0;
    while !over.load(Ordering::SeqCst) {
        let mut stream = TcpStream::connect(&endpoint.address).await.unwrap();
        let request =
            format!("GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", endpoint.address);
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        answers += 1;
        tokio::time::sleep(ASK_EVERY).await;
    }
    answers
}

async fn subscribed(endpoint: &Endpoint, room: Option<u32>) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    if let Some(room) = room {
        socket.set_recv_buffer_size(room).unwrap();
    }
    let mut stream = socket.connect(endpoint.address.parse().unwrap()).await.unwrap();
    let request = format!("GET /changes HTTP/1.1\r\nHost: {}\r\n\r\n", endpoint.address);
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Counts the changes that come until the row named `the end` does.
async fn taking(mut stream: TcpStream, ready: Arc<AtomicU64>) -> u64 {
    let (mut text, mut changes) = (Vec::new(), 0);
    let mut room = vec![0; 64 << 10];
    loop {
        let n = stream.read(&mut room).await.unwrap();
        assert!(n > 0, "a client that takes what there is was dropped after {changes} changes");
        text.extend_from_slice(&room[..n]);
        while let Some(end) = text.iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            if line.starts_with(b"event: position") {
                ready.fetch_add(1, Ordering::SeqCst);
            } else if line.starts_with(b"event: change") {
                changes += 1;
            } else if line.windows(7).any(|w| w == b"the end") {
                return changes;
            }
        }
    }
}

/// Asks the running one to say when its replica shows what was committed before.
fn wait_for_head(socket: &Path) {
    let mut stream = UnixStream::connect(socket).unwrap();
    writeln!(stream, r#"{{"wait":{{"position":null,"head":true,"timeout_ms":60000}}}}"#).unwrap();
    let last = BufReader::new(stream).lines().map_while(Result::ok).last();
    assert_eq!(last.as_deref(), Some("0"));
}

/// Writes a row of 8 KB at a time for so long; how long after each commit it could be read, sorted.
fn write(redtail: &Redtail, from: &mut u64, during: Duration) -> Vec<Duration> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let database = runtime.block_on(libsql::Builder::new_local(redtail.path("source.db")).build()).unwrap();
    let connection = database.connect().unwrap();
    connection.busy_timeout(Duration::from_secs(30)).unwrap();
    let (begun, mut took) = (Instant::now(), Vec::new());
    while begun.elapsed() < during {
        *from += 1;
        let sql = "INSERT INTO event VALUES (?1, hex(zeroblob(4096)))";
        runtime.block_on(connection.execute(sql, [*from])).unwrap();
        let committed = Instant::now();
        wait_for_head(&redtail.path("replica.redb.sock"));
        took.push(committed.elapsed());
        std::thread::sleep(WRITE_EVERY);
    }
    took.sort();
    took
}

fn at(took: &[Duration], per_mille: usize) -> Duration {
    took[(took.len() - 1) * per_mille / 1000]
}

#[test]
fn a_crowd_of_clients_takes_no_memory_and_those_who_take_nothing_are_dropped() {
    let seconds = std::env::var("REDTAIL_CROWD_SECONDS").map_or(4, |n| n.parse().expect("a number"));
    let during = Duration::from_secs(seconds);
    let folder = TempDir::new().unwrap();
    let redtail = Redtail::new(folder.path())
        .with_env("REDTAIL_LISTEN", "127.0.0.1:0")
        .with_env("REDTAIL_CACHE_BYTES", "1048576");
    let event = "CREATE TABLE event(id INTEGER PRIMARY KEY, body TEXT)";
    application(&redtail.path("source.db"), &["PRAGMA journal_mode = WAL", event]);
    let mut run = redtail.spawn_run("source.db", "replica.redb");
    let endpoint = Endpoint::of(&run.caught_up());
    let mut written = 0;
    let alone = write(&redtail, &mut written, during);
    let memory = || parse(&endpoint.ok("/metrics"))["process_resident_memory_bytes"];
    let (before, begun) = (memory(), written);

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (over, ready) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let asking: Vec<_> =
        (0..ASKING).map(|_| runtime.spawn(asking(endpoint.clone(), Arc::clone(&over)))).collect();
    let stalled: Vec<_> = (0..STALLED).map(|_| runtime.block_on(subscribed(&endpoint, Some(4096)))).collect();
    let subscribe = || runtime.block_on(subscribed(&endpoint, None));
    let taking: Vec<_> = (0..TAKING)
        .map(|_| subscribe())
        .collect::<Vec<_>>()
        .into_iter()
        .map(|stream| runtime.spawn(taking(stream, Arc::clone(&ready))))
        .collect();
    poll(|| (ready.load(Ordering::SeqCst) == TAKING as u64).then_some(()))
        .expect("all are told where they begin");
    let beside = write(&redtail, &mut written, during);
    let grown = memory() - before;
    over.store(true, Ordering::SeqCst);
    let answers: u64 = asking.into_iter().map(|task| runtime.block_on(task).unwrap()).sum();
    note(&format!(
        "commit to readable, alone p50 {:?}, p99 {:?}; beside {TAKING} subscribers, {STALLED} that take nothing and \
         {ASKING} askers ({answers} answers): p50 {:?}, p99 {:?}; memory grew by {} KiB",
        at(&alone, 500),
        at(&alone, 990),
        at(&beside, 500),
        at(&beside, 990),
        grown / 1024.0
    ));
    assert!(grown < MEMORY, "{grown} bytes more");

    // Written to until those who take nothing are gone; the others have all of it.
    let gone = poll(|| {
        write(&redtail, &mut written, Duration::from_millis(200));
        (sockets(run.pid(), &endpoint) <= TAKING).then_some(())
    });
    assert!(gone.is_some(), "who takes nothing is still there");
    drop(stalled);
    application(&redtail.path("source.db"), &["INSERT INTO event VALUES (-1, 'the end')"]);
    let want = written - begun + 1;
    for task in taking {
        assert_eq!(runtime.block_on(task).unwrap(), want, "changes that one client has heard of");
    }
    run.assert_running();
}
