//! Where a replica stands in its source.

use crate::value::Value;
use std::fmt;
use std::str::FromStr;

/// The identity of a changelog: random, and new with every `init` after a `remove`.
///
/// ```
/// let position: redtail::Position = "000102030405060708090a0b0c0d0e0f:17".parse()?;
/// assert_eq!(position.log_id.to_string(), "000102030405060708090a0b0c0d0e0f");
/// # Ok::<(), redtail::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct LogId(pub [u8; 16]);

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// A random number that nobody else has: a replica's id, or one of its sessions.
///
/// ```no_run
/// # fn read(replica: &redtail::Replica) -> redtail::Result<()> {
/// if let Some(id) = replica.consumer_id()? {
///     println!("the source knows this replica as {id}");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nonce(pub [u8; 16]);

impl Nonce {
    /// A new one, from the operating system.
    ///
    /// # Errors
    /// `Io` if it gives no random numbers.
    pub(crate) fn new() -> crate::Result<Self> {
        let mut bytes = [0; 16];
        let failed = |e| crate::Error::new(crate::Kind::Io, format!("no random numbers are to be had: {e}"));
        getrandom::fill(&mut bytes).map_err(failed)?;
        Ok(Self(bytes))
    }

    pub(crate) fn of(value: &Value) -> Option<Self> {
        if let Value::Blob(bytes) = value { bytes.as_slice().try_into().ok().map(Self) } else { None }
    }

    pub(crate) fn value(self) -> Value {
        Value::Blob(self.0.to_vec())
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A place in a source's history, as given to people and programs: log id and seq.
///
/// ```
/// let position: redtail::Position = "000102030405060708090a0b0c0d0e0f:17".parse()?;
/// assert_eq!((position.seq, position.to_string().len()), (17, 35));
/// # Ok::<(), redtail::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// Which changelog.
    pub log_id: LogId,
    /// How far in it.
    pub seq: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.log_id, self.seq)
    }
}

impl FromStr for Position {
    type Err = crate::Error;

    fn from_str(s: &str) -> crate::Result<Self> {
        let wrong = || crate::Error::usage(format!("position {s:?} is not of the form LOGID:SEQ"));
        let (log, seq) = s.split_once(':').ok_or_else(wrong)?;
        let mut log_id = LogId::default();
        if log.len() != 32 || !log.is_ascii() {
            return Err(wrong());
        }
        for (i, byte) in log_id.0.iter_mut().enumerate() {
            let digits = log.get(i * 2..i * 2 + 2).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
        }
        Ok(Self { log_id, seq: seq.parse().map_err(|_| wrong())? })
    }
}

/// The durable position of a replica, with what tells its source from another of the same log id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Cursor {
    pub log_id: LogId,
    /// Every entry up to here is applied.
    pub seq: u64,
    /// Fingerprint of the entry at `seq`.
    pub fingerprint: u64,
    /// The largest head that any row in the replica was read at; never below `seq`.
    pub horizon: u64,
    /// Fingerprint of the entry at `horizon`.
    pub horizon_fingerprint: u64,
    /// The source's schema version when it was last read.
    pub schema_version: i64,
    /// Hash of the whole schema at that version.
    pub schema_hash: u64,
}

impl Cursor {
    pub fn position(&self) -> Position {
        Position { log_id: self.log_id, seq: self.seq }
    }
}
