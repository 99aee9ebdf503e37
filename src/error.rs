//! The one error of the crate: what failed, where, and what to do about it.
//!
//! Owns the classification on which retries and exit codes rest. Must never carry a token or a row's value.

use std::fmt;
use std::time::Duration;

/// What went wrong, in one line, with a kind that decides what happens next.
///
/// [`Error::is_transient`] is the only place that decides whether something is tried again.
///
/// ```
/// use redtail::{Config, Kind, Source};
///
/// let error = Source::open("no/such/app.db", &Config::default()).unwrap_err();
/// assert_eq!(error.kind(), Kind::Usage);
/// assert!(!error.is_transient() && error.to_string().contains("no/such/app.db"));
/// ```
pub struct Error {
    kind: Kind,
    message: String,
    not_before: Option<Duration>,
    /// The source's file is no whole database.
    unreadable: bool,
}

/// The classes of failure that callers tell apart.
///
/// ```
/// use redtail::Kind;
///
/// let error = "here".parse::<redtail::Position>().unwrap_err();
/// assert_eq!(error.kind(), Kind::Usage);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A wrong argument, file or configuration: nothing was changed, and trying again will not help.
    Usage,
    /// The source is busy, locked or out of reach for now.
    Unavailable,
    /// The source refuses the token, or wants one.
    Refused,
    /// The source's capture is missing or not whole, and this call may not repair it.
    Capture,
    /// The source is not the one that the replica followed, or went back in time.
    Divergence,
    /// The replica is held by another process.
    Locked,
    /// The replica's file is damaged: what it holds is not what was written.
    Damaged,
    /// The replica's file has a newer format than this redtail reads.
    Newer,
    /// A file operation on the source, or one on the replica that may pass, failed.
    Io,
    /// The replica could not be written: its disk is full, or an fsync failed.
    Replica,
    /// Another process follows the source as this consumer: the replica must become another one.
    Taken,
    /// A row is larger than the configured limit.
    TooLarge,
    /// The source refused a statement, or answered what it never should.
    Source,
    /// There is no row with this key.
    NotFound,
    /// A column holds a value of another type than the one that was asked for.
    Mismatch,
    /// The changes that were asked for are no longer kept.
    Lagged,
    /// What was waited for did not come in time.
    TimedOut,
    /// Told to stop before the end.
    Stopped,
}

/// `Result` with [`Error`].
///
/// ```
/// fn first(snapshot: &redtail::Snapshot) -> redtail::Result<u64> {
///     snapshot.count("episodes")
/// }
/// ```
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of this kind, with one line that says what failed, where, and what to do.
    #[must_use]
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), not_before: None, unreadable: false }
    }

    /// Wrong input.
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// Wrong input: a name that is not known, with the nearest one that is.
    #[must_use]
    pub fn unknown<'a>(what: &str, given: &str, known: impl Iterator<Item = &'a str> + Clone) -> Self {
        let score = |name: &str| strsim::jaro_winkler(&name.to_lowercase(), &given.to_lowercase());
        let close = known.clone().map(|n| (score(n), n)).max_by(|a, b| a.0.total_cmp(&b.0));
        Self::usage(match close {
            Some((score, name)) if score > 0.7 => {
                format!("{what} {given:?} is not known; did you mean {name:?}?")
            }
            Some(_) => {
                format!("{what} {given:?} is not known; known are {}", known.collect::<Vec<_>>().join(", "))
            }
            None => format!("{what} {given:?} is not known; there is none"),
        })
    }

    /// Says that trying again before this much time has passed is not welcome.
    #[must_use]
    pub(crate) fn not_before(mut self, wait: Duration) -> Self {
        self.not_before = Some(wait);
        self
    }

    /// Says that the source's file is no database, or not a whole one.
    #[must_use]
    pub(crate) fn unreadable(mut self) -> Self {
        self.unreadable = true;
        self
    }

    /// Whether it says so: of a source that was read before, that may pass.
    pub(crate) fn is_unreadable(&self) -> bool {
        self.unreadable
    }

    /// How long to wait before the same is tried again, at least.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.not_before
    }

    pub(crate) fn stopped() -> Self {
        Self::new(Kind::Stopped, "stopped")
    }

    /// Puts `what` in front of the message: the outer step, then the inner one.
    #[must_use]
    pub fn during(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// The same failure as one of another class.
    #[must_use]
    pub(crate) fn with_kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// The class of this failure.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether trying the same again may succeed without anybody's help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, Kind::Unavailable | Kind::Refused | Kind::Io | Kind::Taken)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.message)
    }
}

impl std::error::Error for Error {}
