//! When to look at a server again: at once after a hint, soon after a change, seldom when nothing happens.

use super::client::Server;
use super::listen::Bell;
use crate::config::Config;
use crate::source::wake::{Stop, Woken};
use std::sync::Arc;
use std::time::Duration;

/// The first distance between two looks after something happened.
const FIRST: Duration = Duration::from_millis(4);
/// An idle server is looked at less often than a file, by so many times; and by how many if it sends events.
const IDLE: u32 = 4;
const LISTENING: u32 = 20;
/// A hint may come before what it announces can be read: looks at growing distances from here up to the other.
const FIRST_HINTED: Duration = Duration::from_micros(500);
const HINTED: Duration = Duration::from_millis(200);

pub(crate) struct Wait {
    bell: Arc<Bell>,
    stop: Arc<Stop>,
    poll: Duration,
    /// The next pause, while something has happened lately.
    soon: Option<Duration>,
    heard: u64,
    seq: u64,
}

impl Wait {
    pub fn new(server: &Arc<Server>, stop: Arc<Stop>, config: &Config) -> Self {
        if config.events {
            server.listener.begin(server);
        }
        let poll = config.poll;
        let bell = Arc::clone(&server.listener.bell);
        let rung = Arc::clone(&bell);
        stop.also(move || rung.ring());
        Self { bell, stop, poll, soon: Some(FIRST), heard: 0, seq: 0 }
    }

    /// The longest distance between two looks.
    pub fn longest(poll: Duration) -> Duration {
        poll * LISTENING
    }

    /// Waits until it is time to look again; `seq` is how far the last look came.
    pub fn wait(&mut self, seq: u64) -> Woken {
        let listening = self.bell.is_connected();
        let changed = std::mem::replace(&mut self.seq, seq) != seq;
        let idle = self.poll * if listening { LISTENING } else { IDLE };
        let longest = if listening { HINTED } else { idle };
        let soon = match self.soon {
            // What comes next is announced.
            _ if changed && listening => None,
            _ if changed => Some(FIRST),
            soon => soon.map(|p| p * 2).filter(|p| *p <= longest),
        };
        self.soon = soon;
        let heard = self.bell.wait(self.heard, soon.unwrap_or(idle));
        if std::mem::replace(&mut self.heard, heard) != heard {
            self.soon = Some(FIRST_HINTED / 2);
        }
        if self.stop.is_set() { Woken::Stopped } else { Woken::Changed }
    }
}
