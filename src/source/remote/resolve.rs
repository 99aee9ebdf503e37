//! The server's addresses, kept for a while.
//!
//! ureq asks for them before every request, also where it goes on with a connection that it has; and, because there is
//! a limit to how long that may take, by a thread of its own.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// As long as a name server's answer usually holds; an error of any kind ends it at once.
const HOLDS: Duration = Duration::from_secs(30);

/// Shared by the agent that asks and the server that knows of errors.
#[derive(Debug, Default)]
pub(super) struct Addresses<R = DefaultResolver> {
    resolver: Arc<R>,
    known: Arc<Mutex<Vec<Known>>>,
}

#[derive(Debug)]
struct Known {
    /// Scheme, host and port; a server may name another one to go on with.
    of: String,
    addresses: ResolvedSocketAddrs,
    since: Instant,
}

impl<R> Clone for Addresses<R> {
    fn clone(&self) -> Self {
        Self { resolver: Arc::clone(&self.resolver), known: Arc::clone(&self.known) }
    }
}

impl<R> Addresses<R> {
    /// Whatever is asked next is asked anew.
    pub fn forget(&self) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl<R: Resolver> Resolver for Addresses<R> {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let of = format!("{:?} {:?}", uri.scheme_str(), uri.authority());
        let lock = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        lock().retain(|k| k.since.elapsed() < HOLDS);
        if let Some(known) = lock().iter().find(|k| k.of == of) {
            return Ok(known.addresses.clone());
        }
        let addresses = self.resolver.resolve(uri, config, timeout)?;
        lock().push(Known { of, addresses: addresses.clone(), since: Instant::now() });
        Ok(addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicU16, Ordering};

    /// Gives another port every time it is asked.
    #[derive(Clone, Debug, Default)]
    struct Counting(Arc<AtomicU16>);

    impl Resolver for Counting {
        fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
            let mut out = self.empty();
            out.push(([127, 0, 0, 1], self.0.fetch_add(1, Ordering::Relaxed)).into());
            Ok(out)
        }
    }

    #[test]
    fn a_server_is_asked_for_once_until_something_fails() {
        let addresses = Addresses::<Counting>::default();
        let ask = |uri: &'static str| {
            let found = addresses
                .resolve(&Uri::from_static(uri), &Config::default(), NextTimeout::default())
                .unwrap();
            found.iter().map(SocketAddr::port).collect::<Vec<_>>()
        };
        assert_eq!(ask("https://a.example/v3/pipeline"), [0]);
        assert_eq!(ask("https://a.example/beta/listen"), [0]);
        assert_eq!(ask("https://b.example/v3/pipeline"), [1]);
        assert_eq!(ask("http://a.example/v3/pipeline"), [2]);
        addresses.forget();
        assert_eq!(ask("https://a.example/v3/pipeline"), [3]);
    }
}
