//! Stands between redtail and a real server, and does to their talk what a network does.
//!
//! One connection carries one request: the answer is fetched whole from the server, and then given as it is,
//! late, in part, or not at all.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What happens to one request.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// It passes.
    None,
    /// Its answer comes later.
    Delay(Duration),
    /// Only so many bytes of its answer come, then the connection ends.
    Cut(usize),
    /// The server never hears of it: the connection ends.
    Refuse,
    /// So many bytes of the answer come, and then nothing more, with the connection open.
    Stall(usize),
    /// This is answered instead, and the server hears nothing.
    Instead(&'static str),
    /// A byte of the answer's body is another one.
    Spoil(usize),
}

/// A proxy; it ends when dropped.
pub(crate) struct Proxy {
    shared: Arc<Shared>,
    port: u16,
}

struct Shared {
    server: u16,
    /// For the next requests, in turn; then `always`.
    next: Mutex<VecDeque<Fault>>,
    always: Mutex<Fault>,
    requests: AtomicU64,
    /// How many bytes the last whole answer had.
    last: AtomicU64,
    /// Answers version 2 of the protocol alone.
    second_only: AtomicBool,
    ended: AtomicBool,
}

/// What a server says of a path that it does not know.
const NOT_FOUND: &[u8] = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

impl Proxy {
    pub(crate) fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            server,
            next: Mutex::default(),
            always: Mutex::new(Fault::None),
            requests: AtomicU64::new(0),
            last: AtomicU64::new(0),
            second_only: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        });
        let its = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if its.ended.load(Ordering::SeqCst) {
                    break;
                }
                let its = Arc::clone(&its);
                std::thread::spawn(move || drop(its.carry(client)));
            }
        });
        Self { shared, port }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What happens to the next requests, in turn.
    pub(crate) fn next(&self, faults: impl IntoIterator<Item = Fault>) {
        self.shared.next.lock().unwrap().extend(faults);
    }

    /// What happens to all requests from here on.
    pub(crate) fn always(&self, fault: Fault) {
        *self.shared.always.lock().unwrap() = fault;
    }

    /// From here on the server is an older one, which has only version 2 of the protocol.
    pub(crate) fn second_only(&self) {
        self.shared.second_only.store(true, Ordering::SeqCst);
    }

    /// How many of the faults given by [`Proxy::next`] have not happened yet.
    pub(crate) fn left(&self) -> usize {
        self.shared.next.lock().unwrap().len()
    }

    pub(crate) fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    pub(crate) fn last_answer(&self) -> usize {
        usize::try_from(self.shared.last.load(Ordering::SeqCst)).unwrap()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    fn carry(&self, mut client: TcpStream) -> std::io::Result<()> {
        client.set_read_timeout(Some(Duration::from_secs(60)))?;
        let (head, body) = request(&mut client)?;
        if head.starts_with("GET ") {
            // No events: then every look is a pipeline.
            return client.write_all(NOT_FOUND);
        }
        if self.second_only.load(Ordering::SeqCst) && !head.starts_with("POST /v2/") {
            return client.write_all(NOT_FOUND);
        }
        self.requests.fetch_add(1, Ordering::SeqCst);
        let fault = self.next.lock().unwrap().pop_front();
        let fault = fault.unwrap_or_else(|| self.always.lock().unwrap().clone());
        if let Fault::Refuse = fault {
            return client.shutdown(Shutdown::Both);
        }
        if let Fault::Instead(answer) = fault {
            return client.write_all(answer.as_bytes());
        }
        let mut answer = self.answer(&head, &body)?;
        self.last.store(answer.len() as u64, Ordering::SeqCst);
        match fault {
            Fault::Delay(time) => std::thread::sleep(time),
            Fault::Cut(bytes) => answer.truncate(bytes),
            Fault::Stall(bytes) => {
                client.write_all(&answer[..bytes.min(answer.len())])?;
                // Until the other side has had enough.
                let _ = client.read(&mut [0; 1]);
                return Ok(());
            }
            Fault::Spoil(byte) => {
                let body = answer.windows(4).position(|w| w == b"\r\n\r\n").map_or(0, |at| at + 4);
                let len = answer.len();
                if let Some(at) = answer.get_mut((body + byte).min(len - 1)) {
                    *at ^= 0x11;
                }
            }
            _ => {}
        }
        client.write_all(&answer)?;
        client.shutdown(Shutdown::Both)
    }

    fn answer(&self, head: &str, body: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut server = TcpStream::connect(("127.0.0.1", self.server))?;
        let mut lines: Vec<&str> =
            head.lines().filter(|l| !l.to_ascii_lowercase().starts_with("connection:")).collect();
        lines.retain(|l| !l.is_empty());
        write!(server, "{}\r\nconnection: close\r\n\r\n", lines.join("\r\n"))?;
        server.write_all(body)?;
        let mut answer = Vec::new();
        server.read_to_end(&mut answer)?;
        // The server knows that this was the last request of its connection; the client shall know too.
        let line = answer.iter().position(|b| *b == b'\n').map_or(0, |at| at + 1);
        answer.splice(line..line, *b"connection: close\r\n");
        Ok(answer)
    }
}

/// The head of a request, and its body.
fn request(client: &mut TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 8192]);
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        match client.read(&mut buffer)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => bytes.extend(&buffer[..n]),
        }
    };
    let body = bytes.split_off(end);
    let head = String::from_utf8_lossy(&bytes).into_owned();
    let length =
        head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length:").map(str::to_owned));
    let length: usize = length.and_then(|l| l.trim().parse().ok()).unwrap_or(0);
    let mut rest = vec![0; length - body.len()];
    client.read_exact(&mut rest)?;
    Ok((head, [body, rest].concat()))
}
