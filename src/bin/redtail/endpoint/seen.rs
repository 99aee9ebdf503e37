//! What the source says of its changelog and its consumers, asked seldom and never by a request that waits.

use crate::status::Seen;
use redtail::Source;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How old an answer may be before the source is asked again: a file, and a server, where each costs requests.
const FILE: Duration = Duration::from_secs(5);
const SERVER: Duration = Duration::from_secs(60);

/// The last look at a source, renewed in the background when somebody wants to know.
pub struct Looks {
    source: Source,
    last: Mutex<Option<(Instant, Seen)>>,
    begun: Mutex<Option<Instant>>,
    looking: AtomicBool,
}

impl Looks {
    pub fn new(source: Source) -> Arc<Self> {
        Arc::new(Self {
            source,
            last: Mutex::default(),
            begun: Mutex::default(),
            looking: AtomicBool::new(false),
        })
    }

    /// The last look and its age; a new one is begun if it is old. While the source is away it gets older.
    pub fn last(self: &Arc<Self>) -> Option<(Duration, Seen)> {
        let every = if self.source.path().is_some() { FILE } else { SERVER };
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        if begun.is_none_or(|at| at.elapsed() > every) && !self.looking.swap(true, Ordering::AcqRel) {
            *begun = Some(Instant::now());
            let looks = Arc::clone(self);
            tokio::spawn(async move {
                let at = Instant::now();
                // That the source is away is said by who follows it.
                if let Ok(seen) = Seen::look(&looks.source).await {
                    *looks.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((at, seen));
                }
                looks.looking.store(false, Ordering::Release);
            });
        }
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().map(|(at, seen)| (at.elapsed(), seen.clone()))
    }
}
