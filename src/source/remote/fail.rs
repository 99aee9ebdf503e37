//! What a failure at a server means: to be tried again, refused, too much at once, or wrong. Decided here alone.

use crate::error::{Error, Kind};
use std::time::Duration;

/// The longest that a server may ask us to stay away.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// By the code and message of Hrana's errors.
pub(super) fn of_statement(code: Option<&str>, message: &str) -> Error {
    let code = code.unwrap_or_default();
    let kind = match code {
        "RESPONSE_TOO_LARGE" | "SQLITE_TOOBIG" => Kind::TooLarge,
        "TRANSACTION_TIMEOUT" | "TRANSACTION_BUSY" | "STREAM_EXPIRED" | "STREAM_CLOSED" => Kind::Unavailable,
        c if c.starts_with("SQLITE_BUSY") || c.starts_with("SQLITE_LOCKED") => Kind::Unavailable,
        "SQLITE_INTERRUPT" | "SQLITE_SCHEMA" | "SQLITE_NOMEM" | "SQLITE_PROTOCOL" => Kind::Unavailable,
        c if c.starts_with("SQLITE_IOERR") || c == "SQLITE_FULL" => Kind::Io,
        c if c.starts_with("SQLITE_READONLY")
            || c.starts_with("SQLITE_AUTH")
            || c == "BLOCKED"
            || c == "SQL_WRITE_BLOCKED" =>
        {
            return Error::usage(format!(
                "read only ({}); its capture must be installed by someone who may write it",
                one_line(message)
            ));
        }
        c if c.starts_with("AUTH_") => Kind::Refused,
        _ if is_read_only(message) => {
            return Error::usage(format!(
                "read only ({}); its capture must be installed by someone who may write it",
                one_line(message)
            ));
        }
        _ => Kind::Source,
    };
    Error::new(kind, one_line(message))
}

fn is_read_only(message: &str) -> bool {
    message.contains("not authorized")
        || message.contains("readonly database")
        || message.contains("is blocked")
}

/// By the status of an answer that is not 200.
pub(super) fn of_status(status: u16, body: &[u8], retry_after: Option<&str>) -> Error {
    let said = one_line(&String::from_utf8_lossy(body.get(..300).unwrap_or(body)));
    let said = if said.is_empty() { String::new() } else { format!(": {said}") };
    let answered = format!("the server answered {status}{said}");
    match status {
        403 if said.contains("permission") => Error::usage(format!(
            "read only{said}; its capture must be installed by someone who may write it"
        )),
        401 | 403 => Error::new(Kind::Refused, "the server refuses the token"),
        413 => Error::new(Kind::TooLarge, answered),
        // A stream that expired, or that the server no longer knows.
        400 if said.contains("baton") || said.contains("STREAM") || said.contains("stream") => {
            Error::new(Kind::Unavailable, answered)
        }
        408 | 425 | 429 | 500.. => {
            let error = Error::new(Kind::Unavailable, answered);
            let wait = retry_after.and_then(|v| v.trim().parse().ok()).map(Duration::from_secs);
            match wait {
                Some(wait) => error.not_before(wait.min(LONGEST_WAIT)),
                None => error,
            }
        }
        404 => Error::new(
            Kind::Unavailable,
            format!("{answered}; is this the address of a libSQL server, and does the database exist?"),
        ),
        _ => Error::new(Kind::Source, answered),
    }
}

/// By what kept a request from being answered.
pub(super) fn of_transport(e: &ureq::Error) -> Error {
    let what = match e {
        ureq::Error::Timeout(t) => format!("no answer in time ({t})"),
        ureq::Error::Io(e) if e.kind() == std::io::ErrorKind::TimedOut => "no answer in time".to_owned(),
        // So rustls says that it will not go on, and why; nothing else says so.
        ureq::Error::Io(e) if e.kind() == std::io::ErrorKind::InvalidData => {
            format!("its certificate or TLS is not accepted ({e})")
        }
        ureq::Error::Io(e) => format!("the connection failed ({})", e.kind()),
        ureq::Error::HostNotFound => "its host is not found".to_owned(),
        ureq::Error::Rustls(e) => format!("its certificate or TLS is not accepted ({e})"),
        ureq::Error::Tls(e) => format!("its certificate or TLS is not accepted ({e})"),
        ureq::Error::BodyExceedsLimit(_) => return Error::new(Kind::TooLarge, "the answer is too large"),
        other => format!("the request failed ({other})"),
    };
    Error::new(Kind::Unavailable, one_line(&what))
}

/// Whether the connection ended before there was any answer.
pub(super) fn is_closed(e: &ureq::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(e, ureq::Error::Io(e) if matches!(e.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof))
}

/// An answer that is not what the protocol says: cut off, or from something in between.
pub(super) fn garbled(what: &str) -> Error {
    Error::new(Kind::Unavailable, format!("the answer cannot be read ({what})"))
}

fn one_line(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
    line.trim().to_owned()
}
