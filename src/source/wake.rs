//! Notice that a local database changed: prompt for a busy one, next to nothing for an idle one.
//!
//! On Linux inotify gives the hint and `PRAGMA data_version` decides. The hint comes early: a writer
//! writes its WAL frames before it publishes them, so after a hint the check is repeated at growing
//! distances; what is noticed is then late by at most about as long as the commit itself took. A slow
//! poll is the floor where hints are lost (another file system, another operating system).
//!
//! Must never open the database file itself: closing any descriptor of it would drop the locks that
//! SQLite holds on it for the whole process (<https://sqlite.org/howtocorrupt.html>, 2.2).

use super::sql::Sql;
use crate::error::{Error, Kind, Result};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// The first distance between two checks after a hint.
const FIRST_PAUSE: Duration = Duration::from_micros(10);
/// When the distance has grown to this, the hint was a false one.
const LAST_PAUSE: Duration = Duration::from_millis(20);
/// Two commits closer than a file system's clock tick show the same time on the file.
const CLOCK_TICK: Duration = Duration::from_millis(50);

/// Waits for changes of one database file, on behalf of one connection.
pub(crate) struct Wake {
    path: PathBuf,
    /// Made at the first wait: giving an inotify instance back takes the kernel some 15 ms.
    hints: Option<Hints>,
    stop: Arc<Stop>,
    poll: Duration,
    data_version: Option<i64>,
    seen: Option<Stamp>,
    identity: Option<(u64, u64)>,
    pub wal: bool,
}

/// The outcome of waiting.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    Changed,
    Unchanged,
    Stopped,
}

#[derive(Clone, Copy, PartialEq)]
struct Stamp {
    modified: Option<SystemTime>,
    len: u64,
    checked: SystemTime,
}

impl Wake {
    pub fn new(path: &Path, stop: Arc<Stop>, poll: Duration) -> Self {
        let identity = identity(path);
        Self {
            path: path.to_owned(),
            hints: None,
            stop,
            poll,
            data_version: None,
            seen: None,
            identity,
            wal: true,
        }
    }

    /// Waits until the database may have changed since the last call, or for one poll interval.
    ///
    /// # Errors
    /// `Unavailable` if another file stands in the source's place.
    pub fn wait(&mut self, sql: &mut Sql) -> Result<Woken> {
        let mut pause = None;
        let mut spins = 0;
        loop {
            if self.stop.is_set() {
                return Ok(Woken::Stopped);
            }
            if self.changed(sql, pause.is_some())? {
                return Ok(Woken::Changed);
            }
            let timeout = pause.unwrap_or(self.poll);
            let Some(hints) = &self.hints else {
                // What is committed from here on gives a hint; what was before is looked at once more.
                self.hints = Some(Hints::new(&self.path));
                continue;
            };
            if hints.wait(&self.stop, timeout) {
                (pause, spins) = (Some(Duration::ZERO), 0);
                continue;
            }
            pause = match pause {
                None => return self.idle(),
                Some(p) if p.is_zero() && spins < 8 => {
                    spins += 1;
                    std::thread::yield_now();
                    Some(p)
                }
                Some(p) if p >= LAST_PAUSE => None,
                Some(p) => Some((p * 2).max(FIRST_PAUSE)),
            };
        }
    }

    /// One poll interval has passed without a change.
    fn idle(&mut self) -> Result<Woken> {
        if identity(&self.path) != self.identity {
            let shown = self.path.display();
            return Err(Error::new(
                Kind::Unavailable,
                format!("source {shown}: another file stands in its place"),
            ));
        }
        if let Some(hints) = &self.hints {
            hints.refresh(&self.path);
        }
        Ok(Woken::Unchanged)
    }

    /// Whether another connection has committed since the last call that said so.
    fn changed(&mut self, sql: &mut Sql, hinted: bool) -> Result<bool> {
        if !self.wal && !hinted && self.is_quiet() {
            return Ok(false);
        }
        let version = match sql.integer("PRAGMA data_version", &[]) {
            Ok(version) => version,
            // The writer of a rollback-journal database is in the middle of its commit.
            Err(e) if e.kind() == Kind::Unavailable => {
                self.seen = None;
                return Ok(false);
            }
            Err(e) => return Err(e),
        };
        Ok(std::mem::replace(&mut self.data_version, version) != version)
    }

    /// Outside WAL mode even this check takes a lock that can fail the application's commit: while the
    /// file's own time and length stand still it is left out.
    fn is_quiet(&mut self) -> bool {
        let now = SystemTime::now();
        let Ok(meta) = std::fs::metadata(&self.path) else { return false };
        let stamp = Stamp { modified: meta.modified().ok(), len: meta.len(), checked: now };
        let quiet = self.seen.is_some_and(|seen| {
            let settled = seen
                .modified
                .and_then(|m| seen.checked.duration_since(m).ok())
                .is_some_and(|d| d > CLOCK_TICK);
            settled && seen.modified == stamp.modified && seen.len == stamp.len
        });
        self.seen = Some(stamp);
        quiet
    }
}

#[cfg(unix)]
fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino()))
}

#[cfg(not(unix))]
fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|_| (0, 0))
}

/// Tells a source's thread to end, and wakes it for that.
pub(crate) struct Stop {
    set: AtomicBool,
    released: tokio::sync::watch::Sender<bool>,
    ended: tokio::sync::Notify,
    also: Mutex<Option<Box<dyn Fn() + Send>>>,
    #[cfg(target_os = "linux")]
    bell: Option<rustix::fd::OwnedFd>,
}

impl Stop {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            set: AtomicBool::new(false),
            released: tokio::sync::watch::Sender::new(false),
            ended: tokio::sync::Notify::new(),
            also: Mutex::new(None),
            #[cfg(target_os = "linux")]
            bell: rustix::event::eventfd(
                0,
                rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK,
            )
            .ok(),
        })
    }

    pub fn set(&self) {
        self.set.store(true, Ordering::SeqCst);
        self.ended.notify_one();
        self.ring();
    }

    /// Ends the thread even while it hands on a window: nobody takes what it has read.
    pub fn release(&self) {
        self.set();
        self.released.send_replace(true);
    }

    /// Ready once [`Stop::release`] was called.
    pub async fn released(&self) {
        let _ = self.released.subscribe().wait_for(|released| *released).await;
    }

    /// Ready when it was set: whoever waits for the source's thread need not wait for its last request.
    pub async fn ended(self: Arc<Self>) {
        if !self.is_set() {
            self.ended.notified().await;
        }
    }

    /// What else is to be called to wake the thread.
    #[cfg(feature = "remote")]
    pub fn also(&self, wake: impl Fn() + Send + 'static) {
        *self.also.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(wake));
    }

    /// Wakes the thread without ending it.
    pub fn ring(&self) {
        if let Some(also) = &*self.also.lock().unwrap_or_else(PoisonError::into_inner) {
            also();
        }
        #[cfg(target_os = "linux")]
        if let Some(bell) = &self.bell {
            let _ = rustix::io::write(bell, &1u64.to_ne_bytes());
        }
    }

    pub fn is_set(&self) -> bool {
        self.set.load(Ordering::SeqCst)
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use super::Stop;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::fd::OwnedFd;
    use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init};
    use std::mem::MaybeUninit;
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    /// inotify on the database file and its WAL.
    pub(crate) struct Hints {
        inotify: Option<OwnedFd>,
        wal: PathBuf,
    }

    impl Hints {
        pub fn new(path: &Path) -> Self {
            let mut wal = path.as_os_str().to_owned();
            wal.push("-wal");
            // Without this the kernel adds up to 50 µs to every short pause of this thread.
            let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1_000));
            let hints =
                Self { inotify: init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok(), wal: wal.into() };
            hints.refresh(path);
            hints
        }

        /// Watches the files as they are now; the WAL comes and goes with the application's connections.
        pub fn refresh(&self, path: &Path) {
            let Some(inotify) = &self.inotify else { return };
            for file in [path, &self.wal] {
                let _ = add_watch(inotify, file, WatchFlags::MODIFY);
            }
        }

        /// Waits for a hint; `false` after `timeout`.
        pub fn wait(&self, stop: &Stop, timeout: Duration) -> bool {
            let mut fds = Vec::with_capacity(2);
            if let Some(fd) = &self.inotify {
                fds.push(PollFd::new(fd, PollFlags::IN));
            }
            if let Some(fd) = &stop.bell {
                fds.push(PollFd::new(fd, PollFlags::IN));
            }
            let timeout = Timespec::try_from(timeout).ok();
            let _ = poll(&mut fds, timeout.as_ref());
            if let Some(bell) = &stop.bell {
                let _ = rustix::io::read(bell, &mut [0; 8]);
            }
            self.drain()
        }

        fn drain(&self) -> bool {
            let Some(inotify) = &self.inotify else { return false };
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut reader = Reader::new(inotify, &mut buffer);
            let mut any = false;
            while reader.next().is_ok() {
                any = true;
            }
            any
        }
    }
}

#[cfg(target_os = "linux")]
use linux::Hints;

/// Without inotify: a check every millisecond.
#[cfg(not(target_os = "linux"))]
struct Hints;

#[cfg(not(target_os = "linux"))]
impl Hints {
    fn new(_: &Path) -> Self {
        Self
    }

    fn refresh(&self, _: &Path) {}

    fn wait(&self, _: &Stop, timeout: Duration) -> bool {
        std::thread::sleep(timeout.min(Duration::from_millis(1)));
        false
    }
}
