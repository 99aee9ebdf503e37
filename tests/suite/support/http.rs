//! A client for the endpoint, one connection a request: no more than the protocol's first lines.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

use super::{DEADLINE, poll};

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

/// Where an endpoint is.
#[derive(Clone)]
pub(crate) struct Endpoint {
    /// `127.0.0.1:PORT`.
    pub(crate) address: String,
}

impl Endpoint {
    /// From what `status` says.
    pub(crate) fn of(status: &Value) -> Self {
        let url = status["listen"].as_str().expect("it listens");
        let address = url.strip_prefix("http://").and_then(|rest| rest.strip_suffix('/')).expect("a URL");
        Self { address: address.to_owned() }
    }

    /// GET of a path that must succeed.
    pub(crate) fn ok(&self, path: &str) -> String {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "{path}: {answer:#?}");
        answer.body
    }

    /// GET of a path that must succeed with JSON.
    pub(crate) fn json(&self, path: &str) -> Value {
        let body = self.ok(path);
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
    }

    /// Waits until the status it serves is as wanted. What a page shows is this status: a headless browser runs
    /// through seconds of a page's time within few of its own, and does not wait for what comes later.
    pub(crate) fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let found = poll(|| {
            last = self.json("/status");
            wanted(&last).then(|| last.clone())
        });
        found.unwrap_or_else(|| panic!("not {what}, last: {last:#}"))
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[])
    }

    /// A request with further headers; `Host` is the address unless it is among them.
    pub(crate) fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let stream = self.connect();
        send(stream, method, path, &self.address, headers)
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).expect("the endpoint is there");
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream
    }
}

/// GET over a Unix socket.
pub(crate) fn get_unix(socket: &Path, path: &str) -> Answer {
    let stream = UnixStream::connect(socket).expect("the socket is there");
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    send(stream, "GET", path, "redtail", &[])
}

fn send(
    mut stream: impl Read + Write,
    method: &str,
    path: &str,
    host: &str,
    headers: &[(&str, &str)],
) -> Answer {
    let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "Host") {
        let _ = write!(request, "Host: {host}\r\n");
    }
    for (name, value) in headers {
        let _ = write!(request, "{name}: {value}\r\n");
    }
    stream.write_all(format!("{request}\r\n").as_bytes()).expect("it takes a request");
    answer(stream)
}

/// Reads an answer up to the connection's end.
pub(crate) fn answer(mut stream: impl Read) -> Answer {
    let mut bytes = Vec::new();
    // A connection that is closed with something unread is reset; what came before it counts.
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status line");
    let header = |line: &str| line.split_once(": ").map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned()));
    Answer {
        status: status.parse().expect("a status"),
        headers: lines.filter_map(header).collect(),
        body: body.to_owned(),
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v)
    }
}
