//! The control socket: while `run` holds the replica, the reading commands reach it here by themselves.
//!
//! A Unix socket beside the replica, mode 0600, always on. A request is one JSON line; the answer is
//! lines that begin with `o` (standard output) and a last one that begins with the exit code and what
//! to say on stderr, if anything. A line `h` says only that the answer is still being waited for.

use crate::status::Seen;
use crate::{Exit, changes, code_of, compact, failure, read, rebuild, references, status, verify, wait};
use redtail::{Error, Kind, Position, Replica, Replicator, Result};
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// How often somebody who waits is told that he is still being answered, which shows whether he is still there.
const BEAT: Duration = Duration::from_secs(1);
/// The longest request, in bytes.
const MAX_REQUEST: u64 = 1 << 20;

/// What a reading command asks.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    Get {
        table: String,
        key: Vec<String>,
        typed: bool,
    },
    Scan {
        table: String,
        typed: bool,
    },
    Dump {
        typed: bool,
    },
    /// `seen` is what the asker has seen of the source, if it has looked.
    Status {
        seen: Option<Seen>,
        json: bool,
    },
    Verify {
        tables: Vec<String>,
        repair: bool,
        json: bool,
    },
    Compact {
        json: bool,
    },
    Rebuild {
        tables: Vec<String>,
        json: bool,
    },
    References {
        json: bool,
    },
    /// From now on, where no position is given.
    Changes {
        from: Option<String>,
        snapshot: bool,
        typed: bool,
    },
    /// Until the position, if one is given; with `head` until the source's head as it is now.
    Wait {
        position: Option<String>,
        head: bool,
        timeout_ms: Option<u64>,
    },
}

/// Answers a request from the replica at hand, on behalf of a running replicator if there is one.
pub fn answer(request: Request, replica: &Replica, live: Option<&Replicator>, out: &mut dyn Write) -> Exit {
    match (request, live) {
        (Request::Get { table, key, typed }, _) => read::write_row(replica, &table, &key, typed, out),
        (Request::Scan { table, typed }, _) => read::write_table(replica, &table, typed, out),
        (Request::Dump { typed }, _) => read::write_all(replica, typed, out),
        (Request::Status { seen, json }, live) => status::write(replica, live, seen.as_ref(), json, out),
        (Request::Verify { tables, repair, json }, Some(live)) => {
            let found = tokio::runtime::Handle::current().block_on(live.verify(&tables, repair))?;
            verify::write(&found, repair, json, out)
        }
        (Request::Compact { json }, live) => {
            let done = match live {
                Some(live) => tokio::runtime::Handle::current().block_on(live.compact()),
                None => replica.compact(),
            };
            compact::write(done?, json, out)
        }
        (Request::References { json }, Some(live)) => {
            let found = tokio::runtime::Handle::current().block_on(references::at_head(live))?;
            references::write(&found, json, out)
        }
        (Request::Rebuild { tables, json }, Some(live)) => {
            let rebuilt = tokio::runtime::Handle::current().block_on(live.rebuild(&tables))?;
            rebuild::write(&rebuilt, json, out)
        }
        (
            Request::Verify { .. }
            | Request::Rebuild { .. }
            | Request::References { .. }
            | Request::Wait { .. }
            | Request::Changes { .. },
            _,
        ) => Err(Error::usage("this needs a running redtail, or the source; give -s SOURCE")),
    }
}

/// Lets a running `run` answer if there is one, else opens the replica.
pub async fn ask(replica: &Path, request: Request, config: &redtail::Config) -> Exit {
    let opened = if connect(replica).is_some() { None } else { opened_to_read(replica, config).await? };
    let Some(replica) = opened else {
        let stream = connect(replica).ok_or_else(ended)?;
        return relayed(stream, request).await;
    };
    let work = move || {
        let mut out = BufWriter::new(io::stdout().lock());
        let code = answer(request, &replica, None, &mut out)?;
        out.flush().map(|()| code).map_err(|e| failure(&e))
    };
    tokio::task::spawn_blocking(work).await.map_err(|e| failure(&e.into()))?
}

/// How long a file is waited for that somebody holds who does not answer: he is reading it, or just starting.
const HELD: Duration = Duration::from_secs(2);
const HELD_AGAIN: Duration = Duration::from_millis(10);

/// Opens a replica. A command that reads it holds it for a moment, and that must not keep another from starting.
pub async fn patiently<T>(replica: &Path, open: impl Fn() -> Result<T>) -> Result<T> {
    let begun = std::time::Instant::now();
    loop {
        match open() {
            Err(e) if e.kind() == Kind::Locked && begun.elapsed() < HELD && connect(replica).is_none() => {
                tokio::time::sleep(HELD_AGAIN).await;
            }
            opened => return opened,
        }
    }
}

/// A replica that nobody holds; `None` if somebody does who answers.
pub async fn opened_to_read(path: &Path, config: &redtail::Config) -> Result<Option<Replica>> {
    match patiently(path, || Replica::open_to_read(path, config)).await {
        Err(e) if e.kind() == Kind::Locked && connect(path).is_some() => Ok(None),
        opened => opened.map(Some),
    }
}

/// What to say when whoever held it has gone meanwhile.
pub fn ended() -> Error {
    Error::new(Kind::Io, "the running redtail has just ended; try again")
}

/// The socket of whoever holds this replica; `None` if nobody answers.
pub fn connect(replica: &Path) -> Option<UnixStream> {
    UnixStream::connect(path_of(replica)).ok()
}

/// As [`relay`], without keeping the runtime waiting.
pub async fn relayed(stream: UnixStream, request: Request) -> Exit {
    tokio::task::spawn_blocking(move || relay(stream, &request)).await.map_err(|e| failure(&e.into()))?
}

/// Sends the request and prints what comes back.
pub fn relay(stream: UnixStream, request: &Request) -> Exit {
    relay_to(stream, request, &mut BufWriter::new(io::stdout().lock()))
}

/// Sends the request; what comes back as standard output goes to `out`.
pub fn relay_to(mut stream: UnixStream, request: &Request, out: &mut dyn Write) -> Exit {
    let lost = |e: io::Error| failure(&e);
    let line = serde_json::to_string(request).map_err(|e| failure(&e.into()))?;
    writeln!(stream, "{line}").map_err(lost)?;
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.buffer().is_empty() {
            out.flush().map_err(|e| failure(&e))?;
        }
        if reader.read_until(b'\n', &mut line).map_err(lost)? == 0 {
            return Err(failure(&io::Error::other("the running redtail ended before it had answered")));
        }
        match line.split_first() {
            Some((b'h', _)) | None => {}
            Some((b'o', text)) => out.write_all(text).map_err(|e| failure(&e))?,
            Some((code, said)) => {
                out.flush().map_err(|e| failure(&e))?;
                if !said.trim_ascii().is_empty() {
                    let _ = io::stderr().write_all(&[b"redtail: ", said].concat());
                }
                return Ok(code.wrapping_sub(b'0'));
            }
        }
    }
}

/// Waits until whoever holds this replica has reached a position; `false` if nobody answers, or not so.
pub fn waited(replica: &Path, position: Position) -> bool {
    let Some(mut stream) = connect(replica) else { return false };
    let request = Request::Wait { position: Some(position.to_string()), head: false, timeout_ms: None };
    let sent = serde_json::to_string(&request).is_ok_and(|line| writeln!(stream, "{line}").is_ok());
    let mut lines = BufReader::new(stream).split(b'\n').map_while(std::result::Result::ok);
    sent && lines.find(|l| !matches!(l.first(), Some(b'h' | b'o'))).is_some_and(|l| l.first() == Some(&b'0'))
}

fn path_of(replica: &Path) -> PathBuf {
    let mut path = replica.as_os_str().to_owned();
    path.push(".sock");
    path.into()
}

/// A socket that is being served; it is taken away when this is dropped.
pub struct Served(PathBuf);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Serves the socket of a replica that this process holds, until the process ends.
pub fn serve(replicator: &Arc<Replicator>) -> Result<Served> {
    let path = path_of(replicator.replica().path());
    let wrong = |e: io::Error| failure(&io::Error::other(format!("control socket {}: {e}", path.display())));
    // The replica's lock is ours: a socket that is still there belongs to a process that was killed.
    let _ = std::fs::remove_file(&path);
    let listener = privately(|| UnixListener::bind(&path)).map_err(wrong)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(wrong)?;
    let (replicator, runtime) = (Arc::downgrade(replicator), tokio::runtime::Handle::current());
    let accept = move || {
        for stream in listener.incoming().map_while(std::result::Result::ok) {
            // Not held between requests: the last one to let go closes the replica's file cleanly.
            let Some(replicator) = replicator.upgrade() else { break };
            runtime.spawn_blocking(move || drop(handle(&stream, replicator)));
        }
    };
    std::thread::Builder::new().name("redtail-control".into()).spawn(accept).map_err(wrong)?;
    Ok(Served(path))
}

/// Makes a socket that nobody else may connect to from its first moment on, whatever the umask says.
pub fn privately<T>(bind: impl FnOnce() -> T) -> T {
    let before = rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    let bound = bind();
    rustix::process::umask(before);
    bound
}

fn handle(stream: &UnixStream, replicator: Arc<Replicator>) -> io::Result<()> {
    let mut line = String::new();
    BufReader::new(stream.take(MAX_REQUEST)).read_line(&mut line)?;
    let mut out = BufWriter::new(stream);
    let mut lines = Lines { out: &mut out, fresh: true };
    let ended = match serde_json::from_str(&line) {
        Ok(Request::Wait { position, head, timeout_ms }) => {
            wait::answer(replicator, (position.as_deref(), head), timeout_ms, &mut lines)
        }
        Ok(Request::Changes { from, snapshot, typed }) => {
            changes::answer(replicator, (from.as_deref(), snapshot, typed), &mut lines)
        }
        Ok(request) => answer(request, replicator.replica(), Some(&replicator), &mut lines),
        Err(e) => Err(Error::usage(format!("the running redtail does not know this request: {e}"))),
    };
    match ended {
        Ok(code) => writeln!(out, "{code}")?,
        Err(e) => writeln!(out, "{}{e}", code_of(&e))?,
    }
    out.flush()
}

/// An answer that may take its time: whoever asked is kept in touch with meanwhile.
pub trait Beat: Write {
    /// Says that it goes on.
    fn beat(&mut self) -> io::Result<()>;
}

impl dyn Beat + '_ {
    /// Waits for this; ends early if whoever asked has gone.
    pub async fn until<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(BEAT) => self.beat().map_err(|e| failure(&e))?,
            }
        }
    }
}

impl<W: Write> Beat for Lines<'_, W> {
    fn beat(&mut self) -> io::Result<()> {
        self.out.write_all(b"h\n")?;
        self.out.flush()
    }
}

/// Marks each line as standard output.
struct Lines<'a, W: Write> {
    out: &'a mut W,
    fresh: bool,
}

impl<W: Write> Write for Lines<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for line in bytes.split_inclusive(|b| *b == b'\n') {
            if std::mem::replace(&mut self.fresh, line.ends_with(b"\n")) {
                self.out.write_all(b"o")?;
            }
            self.out.write_all(line)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
