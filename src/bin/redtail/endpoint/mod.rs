//! The endpoint of `run`: health, metrics, status, rows, and a page for people, over HTTP on this machine.
//!
//! Reads only, and never writes to source or replica. Everything that a client can make grow has a limit:
//! connections, headers, idle time, answers under way, and how long it may take nothing of an answer. Without
//! `listen` nothing of this runs.

mod address;
mod answer;
mod events;
mod history;
mod metrics;
mod options;
mod page;
mod route;
mod rows;
mod seen;
mod stall;

pub use address::Address;
pub use options::Options;

use crate::control::privately;
use crate::messages;
use crate::settings::reason;
use history::History;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use redtail::{Error, Kind, Replicator, Result};
use seen::Looks;
use stall::Stall;
use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, Weak};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

/// Connections at once; a further one is told so and closed.
const CONNECTIONS: usize = 256;
/// Reads of the replica for pages of rows, until the client has taken the answer.
const ANSWERS: usize = 16;
/// A request's line and headers, in bytes, and headers.
const HEADER_BYTES: usize = 16 << 10;
const HEADERS: usize = 64;
/// How long a client may take to send a request's headers, the time between two requests included.
const IDLE: Duration = Duration::from_secs(30);
/// How long to wait before connections are accepted again after that failed: there may be no file left to open.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

const BUSY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\nretry-after: 1\r\n\r\n";

/// What every request may need.
struct Shared {
    /// Not held between requests: the last one to let go closes the replica's file cleanly.
    replicator: Weak<Replicator>,
    address: Address,
    token_file: Option<PathBuf>,
    token: RwLock<Option<String>>,
    ready_lag: Duration,
    looks: Arc<Looks>,
    history: Arc<History>,
    answers: Arc<Semaphore>,
    subscribers: Arc<Semaphore>,
}

/// Where this process listens, for `status`.
static LISTENING: OnceLock<String> = OnceLock::new();

/// The endpoint's URL, or its socket's path; `None` if there is none.
pub fn listening() -> Option<&'static str> {
    LISTENING.get().map(String::as_str)
}

/// Bound, and not served yet: what is wrong with the address shows before anything is followed.
pub struct Bound {
    listener: Listener,
    address: Address,
    options: Options,
    token: Option<String>,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// An endpoint that is being served; it ends when this is dropped.
pub struct Served {
    task: JoinHandle<()>,
    shared: Arc<Shared>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
        if let Address::Unix(path) = &self.shared.address {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Takes the address that the settings name; `None` if they name none.
pub async fn bind(options: &Options) -> Result<Option<Bound>> {
    let Some(listen) = &options.listen else { return Ok(None) };
    let mut address = Address::parse(listen)?;
    if !(address.is_here() || options.anywhere && options.token_file.is_some()) {
        return Err(Error::usage(format!(
            "listen {listen}: other machines could read every row there; give --listen-anywhere and --listen-token-file FILE, or a loopback address"
        )));
    }
    let token = options.token_file.as_deref().map(read_token).transpose()?;
    let wrong = |e: io::Error| match e.kind() {
        ErrorKind::AddrInUse => {
            Error::new(Kind::Io, format!("listen {listen}: another program listens there"))
        }
        _ => Error::usage(format!("listen {listen}: {e}")),
    };
    let listener = match &mut address {
        Address::Tcp(tcp) => {
            let listener = TcpListener::bind(*tcp).await.map_err(wrong)?;
            *tcp = listener.local_addr().map_err(wrong)?;
            Listener::Tcp(listener)
        }
        Address::Unix(path) => Listener::Unix(bind_unix(path, listen, &wrong)?),
    };
    Ok(Some(Bound { listener, address, options: options.clone(), token }))
}

fn bind_unix(path: &Path, listen: &str, wrong: &dyn Fn(io::Error) -> Error) -> Result<UnixListener> {
    if let Ok(there) = std::fs::symlink_metadata(path) {
        if !there.file_type().is_socket() {
            return Err(Error::usage(format!(
                "listen {listen}: a file is there, and no socket; give another path"
            )));
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(wrong(ErrorKind::AddrInUse.into()));
        }
        // Left by a process that was killed.
        std::fs::remove_file(path).map_err(wrong)?;
    }
    let listener = privately(|| UnixListener::bind(path)).map_err(wrong)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(wrong)?;
    Ok(listener)
}

fn read_token(file: &Path) -> Result<String> {
    let shown = file.display();
    let text = std::fs::read_to_string(file)
        .map_err(|e| Error::usage(format!("token file {shown}: {}", reason(&e))))?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Error::usage(format!(
            "token file {shown}: one token of visible ASCII characters is wanted"
        )));
    }
    Ok(token.to_owned())
}

impl Bound {
    /// Serves what this replicator does, until the answer is dropped.
    pub fn serve(self, replicator: &Arc<Replicator>) -> Served {
        let Self { listener, address, options, token } = self;
        let shown = match &address {
            Address::Tcp(tcp) => format!("http://{tcp}/"),
            Address::Unix(path) => path.display().to_string(),
        };
        metrics::started();
        messages::say("run", &format!("listening at {shown}"));
        let _ = LISTENING.set(shown);
        let shared = Arc::new(Shared {
            replicator: Arc::downgrade(replicator),
            address,
            token_file: options.token_file,
            token: RwLock::new(token),
            ready_lag: options.ready_lag,
            looks: Looks::new(replicator.source().clone()),
            history: History::start(Arc::downgrade(replicator)),
            answers: Arc::new(Semaphore::new(ANSWERS)),
            subscribers: Arc::new(Semaphore::new(events::SUBSCRIBERS)),
        });
        let serving = Arc::clone(&shared);
        let task = tokio::spawn(async move { listener.serve(&serving).await });
        Served { task, shared }
    }
}

impl Served {
    /// Reads the token again; the old one stays if that fails.
    pub fn reload(&self) -> Result<()> {
        if let Some(file) = &self.shared.token_file {
            let token = read_token(file)?;
            *self.shared.token.write().unwrap_or_else(PoisonError::into_inner) = Some(token);
        }
        Ok(())
    }
}

/// A connection, of whichever kind.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Listener {
    /// Serves connections for ever.
    async fn serve(self, shared: &Arc<Shared>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            match (self.accept().await, Arc::clone(&places).try_acquire_owned()) {
                (Ok(stream), Ok(place)) => drop(tokio::spawn(connection(stream, Arc::clone(shared), place))),
                (Ok(mut stream), Err(_)) => {
                    // It fits into the socket's buffer, or is not worth waiting for.
                    drop(tokio::time::timeout(ACCEPT_AGAIN, stream.write_all(BUSY)).await);
                }
                (Err(_), _) => tokio::time::sleep(ACCEPT_AGAIN).await,
            }
        }
    }

    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Tcp(tcp) => Box::new(tcp.accept().await?.0),
            Self::Unix(unix) => Box::new(unix.accept().await?.0),
        })
    }
}

async fn connection(stream: Box<dyn Stream>, shared: Arc<Shared>, _place: OwnedSemaphorePermit) {
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(route::answer(&shared, request).await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(IDLE).max_buf_size(HEADER_BYTES).max_headers(HEADERS);
    // What goes wrong on a connection is its client's affair.
    let _ = http.serve_connection(TokioIo::new(Stall::new(stream)), service).await;
}
