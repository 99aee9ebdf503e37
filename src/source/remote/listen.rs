//! Hears from the server that the changelog was written: a hint to look, never data.
//!
//! The server's event stream loses events and is not there on every plan; so every connection begins with a
//! look, and polling goes on beside it, more slowly.

use super::client::Server;
use crate::source::retry::Retry;
use std::io::Read as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// Servers send a sign of life every 15 s.
const QUIET: Duration = Duration::from_secs(40);

/// What of this server is heard; one thread for all that follow it, begun when first waited for.
#[derive(Default)]
pub(super) struct Listener {
    begun: AtomicBool,
    pub bell: Arc<Bell>,
}

/// Counts what was heard.
#[derive(Default)]
pub(crate) struct Bell {
    rung: Mutex<u64>,
    changed: Condvar,
    connected: AtomicBool,
}

impl Bell {
    pub fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_all();
    }

    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Waits until it has been rung since `seen`; returns how often it was rung by then.
    pub fn wait(&self, seen: u64, longest: Duration) -> u64 {
        let until = Instant::now() + longest;
        let mut rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if *rung != seen || left.is_zero() {
                return *rung;
            }
            rung = self.changed.wait_timeout(rung, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Listener {
    /// Begins to listen, unless that has been done already.
    pub fn begin(&self, server: &Arc<Server>) {
        if self.begun.swap(true, Ordering::SeqCst) {
            return;
        }
        let (server, bell) = (Arc::downgrade(server), Arc::clone(&self.bell));
        let thread = std::thread::Builder::new().name("redtail-listen".into());
        if let Err(e) = thread.spawn(move || listen(&server, &bell)) {
            tracing::warn!("cannot start a thread to listen to the server: {e}; it is polled");
        }
    }
}

/// Whether there is more in it than a sign of life.
pub(super) fn is_event(bytes: &[u8]) -> bool {
    bytes.windows(5).any(|w| w == b"data:")
}

/// Until nobody follows the server any more, or it has nothing to listen to.
fn listen(server: &Weak<Server>, bell: &Bell) {
    let mut retry = Retry::new();
    while let Some(at) = server.upgrade() {
        let heard = at.events("_redtail_changelog", QUIET);
        let shown = at.to_string();
        drop(at);
        match heard {
            Ok(Some(mut events)) => {
                tracing::debug!("source {shown}: listening");
                bell.connected.store(true, Ordering::Relaxed);
                bell.ring();
                let mut buffer = [0; 4096];
                while let Ok(1..) = events.read(&mut buffer).inspect(|n| {
                    if is_event(buffer.get(..*n).unwrap_or_default()) {
                        bell.ring();
                        retry.reset();
                    }
                }) {
                    if server.strong_count() == 0 {
                        return;
                    }
                }
                bell.connected.store(false, Ordering::Relaxed);
                bell.ring();
            }
            Ok(None) => {
                tracing::info!("source {shown}: it sends no events; it is polled");
                return;
            }
            Err(e) => tracing::debug!("{e}; not listening"),
        }
        std::thread::sleep(retry.pause());
    }
}
