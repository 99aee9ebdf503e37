//! One request to a server and its answer: timeouts on everything, the token, and what it cost.

use super::listen::Listener;
use super::resolve::Addresses;
use super::token::Tokens;
use super::{fail, url};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::utf16::Encoding;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use ureq::unversioned::transport::DefaultConnector;

/// The largest answer that is read; a server's own limit is 10 MB of values by default.
const MAX_ANSWER: u64 = 64 << 20;
/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(10);

/// A server that is followed, shared by all that speaks to it.
pub(crate) struct Server {
    url: String,
    insecure: bool,
    agent: ureq::Agent,
    addresses: Addresses,
    tokens: Tokens,
    encoding: OnceLock<Encoding>,
    /// It speaks version 2 of the protocol only.
    v2: AtomicBool,
    requests: AtomicU64,
    rows_read: AtomicU64,
    pub(super) listener: Listener,
}

/// What following a server has cost so far.
///
/// ```no_run
/// # async fn follow(replicator: &redtail::Replicator) -> redtail::Result<()> {
/// if let Some(traffic) = replicator.traffic() {
///     println!("{} requests, {} rows read", traffic.requests, traffic.rows_read);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traffic {
    /// Requests made.
    pub requests: u64,
    /// Rows that the server says it read for them; hosted plans bill by it.
    pub rows_read: u64,
}

impl Server {
    pub fn new(source: &str, config: &Config) -> Result<Arc<Self>> {
        let url = url::parse(source, config.insecure)?;
        let mut agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("redtail/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(CONNECT.min(config.request_timeout)))
            .timeout_connect(Some(CONNECT.min(config.request_timeout)))
            .timeout_send_request(Some(config.request_timeout))
            .timeout_send_body(Some(config.request_timeout))
            .timeout_recv_response(Some(config.request_timeout))
            .timeout_per_read(Some(config.request_timeout));
        if url::is_local(&url) {
            agent = agent.proxy(None);
        }
        let addresses = Addresses::default();
        Ok(Arc::new(Self {
            url,
            insecure: config.insecure,
            agent: ureq::Agent::with_parts(agent.build(), DefaultConnector::default(), addresses.clone()),
            addresses,
            tokens: Tokens::new(config.token.clone(), config.token_file.clone())?,
            encoding: OnceLock::new(),
            v2: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            rows_read: AtomicU64::new(0),
            listener: Listener::default(),
        }))
    }

    pub fn encoding(&self) -> Option<Encoding> {
        self.encoding.get().copied()
    }

    pub fn set_encoding(&self, encoding: Encoding) -> Encoding {
        *self.encoding.get_or_init(|| encoding)
    }

    pub fn is_v2(&self) -> bool {
        self.v2.load(Ordering::Relaxed)
    }

    /// Reads the token's file again.
    pub fn read_token(&self) -> Result<()> {
        self.tokens.read_again().map(drop)
    }

    pub fn traffic(&self) -> Traffic {
        Traffic {
            requests: self.requests.load(Ordering::Relaxed),
            rows_read: self.rows_read.load(Ordering::Relaxed),
        }
    }

    pub(super) fn count_rows(&self, rows: u64) {
        self.rows_read.fetch_add(rows, Ordering::Relaxed);
    }

    /// Sends a pipeline to `base` (the server's own address unless it named another).
    pub(super) fn pipeline(&self, base: Option<&str>, body: &[u8]) -> Result<Vec<u8>> {
        let base = base.map(|named| url::elsewhere(&self.url, named, self.insecure)).transpose();
        let base = base.map_err(|e| self.named(e))?;
        loop {
            let version = if self.is_v2() { "v2" } else { "v3" };
            let (status, answer) =
                self.post(&format!("{}/{version}/pipeline", base.as_deref().unwrap_or(&self.url)), body)?;
            match status {
                200 => return Ok(answer),
                404 if !self.is_v2() && base.is_none() => {
                    // Older servers have the second version alone. That it has neither shows the next time round.
                    self.v2.store(true, Ordering::Relaxed);
                    if self.encoding().is_some() {
                        return Err(self.named(fail::of_status(404, &answer, None)));
                    }
                }
                _ => return Err(self.named(fail::of_status(status, &answer, None))),
            }
        }
    }

    /// A refused token is read again, once, before it counts as refused.
    fn post(&self, url: &str, body: &[u8]) -> Result<(u16, Vec<u8>)> {
        let mut again = true;
        loop {
            self.requests.fetch_add(1, Ordering::Relaxed);
            let ask = || {
                let mut request = self.agent.post(url).content_type("application/json");
                if let Some(token) = self.tokens.now() {
                    request = request.header("authorization", token.header());
                }
                request.send(body)
            };
            // A kept connection may have been closed at the other end just now: once more, on a new one. Nothing
            // of ours does harm when it is done twice, and a stream's baton is good for one request only.
            let mut response = match ask() {
                Err(e) if fail::is_closed(&e) => {
                    self.requests.fetch_add(1, Ordering::Relaxed);
                    ask()
                }
                answered => answered,
            }
            .map_err(|e| self.failed(&e))?;
            let status = response.status().as_u16();
            let retry_after =
                response.headers().get("retry-after").and_then(|v| v.to_str().ok()).map(str::to_owned);
            let read = response.body_mut().with_config().limit(MAX_ANSWER).read_to_vec();
            let answer = read.map_err(|e| self.failed(&e))?;
            match status {
                401 | 403 if std::mem::take(&mut again) && self.tokens.read_again()? => {}
                401 | 403 => {
                    let error = fail::of_status(status, &answer, None);
                    return Err(if error.kind() == Kind::Refused {
                        self.refused()
                    } else {
                        self.named(error)
                    });
                }
                200 | 404 => return Ok((status, answer)),
                _ => return Err(self.named(fail::of_status(status, &answer, retry_after.as_deref()))),
            }
        }
    }

    /// Opens the server's stream of events on a table; `None` where it has none.
    pub(super) fn events(&self, table: &str, quiet: Duration) -> Result<Option<ureq::BodyReader<'static>>> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let url = format!("{}/beta/listen?table={table}", self.url);
        let mut request = self.agent.get(&url).config().timeout_per_read(Some(quiet)).build();
        if let Some(token) = self.tokens.now() {
            request = request.header("authorization", token.header());
        }
        let response = request.call().map_err(|e| self.failed(&e))?;
        let streams = response
            .headers()
            .get("content-type")
            .is_some_and(|v| v.as_bytes().starts_with(b"text/event-stream"));
        match response.status().as_u16() {
            200 if streams => Ok(Some(response.into_body().into_reader())),
            401 | 403 => Err(self.refused()),
            200 | 400..=499 => Ok(None),
            status => Err(self.named(fail::of_status(status, &[], None))),
        }
    }

    fn refused(&self) -> Error {
        let hint = match (self.tokens.now(), self.tokens.has_file()) {
            (None, _) => "; give one by --token-file or TURSO_AUTH_TOKEN",
            (_, true) => "; its file is read again before each try",
            (_, false) => "; give another one",
        };
        let what = if self.tokens.now().is_some() {
            "the server refuses the token"
        } else {
            "the server wants a token"
        };
        self.named(Error::new(Kind::Refused, format!("{what}{hint}")))
    }

    /// The server may be elsewhere by now.
    fn failed(&self, e: &ureq::Error) -> Error {
        self.addresses.forget();
        self.named(fail::of_transport(e))
    }

    fn named(&self, e: Error) -> Error {
        e.during(format!("source {self}"))
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({})", self.url)
    }
}
