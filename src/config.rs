//! Every limit and default, in one place.
//!
//! Owns the settings of a replicator. Reading them from a file or flags is the binary's work.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use wildmatch::WildMatch;

/// When a window counts as applied.
///
/// ```
/// use redtail::{Config, Durability};
/// use std::time::Duration;
///
/// let durability = Durability::Interval(Duration::from_millis(50));
/// let config = Config { durability, ..Config::default() };
/// assert_ne!(config.durability, Durability::default());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Durability {
    /// Every window is on disk (fsync) before it counts as applied. The default.
    #[default]
    EveryWindow,
    /// A window is visible at once and on disk after at most this long.
    Interval(Duration),
}

/// What to do when the source is not, or no longer, the one that the replica followed.
///
/// ```
/// use redtail::{Config, OnDivergence};
///
/// let config = Config { on_divergence: OnDivergence::Stop, ..Config::default() };
/// assert_ne!(config.on_divergence, Config::default().on_divergence);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnDivergence {
    /// Reconcile every table with the source as it is now; the old rows stay readable meanwhile.
    #[default]
    Rebuild,
    /// Stop with an error and leave the replica as it is.
    Stop,
}

/// How much of the source's changelog is kept, and for whom.
///
/// ```
/// use redtail::{Changelog, Config};
/// use std::time::Duration;
///
/// let changelog = Changelog { retain_min: Duration::from_secs(60), ..Changelog::default() };
/// let config = Config { changelog, ..Config::default() };
/// assert_eq!(config.changelog.max_rows, None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changelog {
    /// The cap that the application's own writes enforce, in entries; set by `init`. `None` leaves it as
    /// it is, which is 10,000,000 in a new capture. It may be exceeded by 4,096.
    pub max_rows: Option<u64>,
    /// Entries younger than this are not pruned, for replicas that cannot acknowledge. Default 1 h.
    pub retain_min: Duration,
    /// Entries older than this are pruned though a consumer still needs them; it rebuilds. Default: none.
    pub max_age: Option<Duration>,
    /// A consumer that was not seen for so long is dropped. Default 7 days.
    pub consumer_timeout: Duration,
}

impl Changelog {
    /// The cap of a new capture, in entries.
    pub const MAX_ROWS: u64 = 10_000_000;
}

impl Default for Changelog {
    fn default() -> Self {
        Self {
            max_rows: None,
            retain_min: Duration::from_secs(3600),
            max_age: None,
            consumer_timeout: Duration::from_secs(7 * 24 * 3600),
        }
    }
}

/// Which tables are replicated: those that match one of `include` and none of `exclude`.
///
/// In a pattern `*` stands for any text and `?` for one character; case does not matter, as in SQLite's
/// names.
///
/// ```
/// use redtail::Wants;
///
/// let wants = Wants { exclude: vec!["tmp_*".to_owned()], ..Wants::default() };
/// assert!(wants.table("episodes") && !wants.table("TMP_1"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wants {
    /// Default: all.
    pub include: Vec<String>,
    /// Default: none.
    pub exclude: Vec<String>,
}

impl Default for Wants {
    fn default() -> Self {
        Self { include: vec!["*".to_owned()], exclude: Vec::new() }
    }
}

impl Wants {
    /// Whether a table of this name is replicated.
    #[must_use]
    pub fn table(&self, name: &str) -> bool {
        let any =
            |patterns: &[String]| patterns.iter().any(|p| WildMatch::new_case_insensitive(p).matches(name));
        any(&self.include) && !any(&self.exclude)
    }

    /// As a line for each pattern, for the source to keep.
    pub(crate) fn write(&self) -> String {
        let line = |sign: char| move |pattern: &String| format!("{sign}{}", pattern.replace('\n', "?"));
        let lines: Vec<String> =
            self.include.iter().map(line('+')).chain(self.exclude.iter().map(line('-'))).collect();
        lines.join("\n")
    }

    /// What [`Wants::write`] wrote; `None` if it is something else.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let mut wants = Self { include: Vec::new(), exclude: Vec::new() };
        for line in text.lines() {
            match line.split_at_checked(1)? {
                ("+", pattern) => wants.include.push(pattern.to_owned()),
                ("-", pattern) => wants.exclude.push(pattern.to_owned()),
                _ => return None,
            }
        }
        Some(wants)
    }
}

/// What is replicated of one table.
///
/// ```
/// use redtail::TableConfig;
///
/// let episodes = TableConfig::default()
///     .with_columns(["episode_id", "start_time", "reward"])
///     .with_filter("archived_at IS NULL")
///     .with_index(["start_time"]);
/// assert_eq!(episodes.index, [["start_time"]]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableConfig {
    /// The columns, those of the key among them; all if it is `None`.
    pub columns: Option<Vec<String>>,
    /// Only rows for which this SQL expression is true. It depends on its own row alone.
    pub filter: Option<String>,
    /// By column, the SQL expression that stands in its place. It depends on its own row alone.
    pub mask: BTreeMap<String, String>,
    /// Only the newest rows.
    pub keep_latest: Option<KeepLatest>,
    /// Secondary indexes, each by its columns: [`crate::Snapshot::index`] reads along them.
    pub index: Vec<Vec<String>>,
}

impl TableConfig {
    /// Only these columns; those of the key must be among them.
    #[must_use]
    pub fn with_columns<S: Into<String>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.columns = Some(columns.into_iter().map(Into::into).collect());
        self
    }

    /// Only rows for which this SQL expression is true.
    #[must_use]
    pub fn with_filter(mut self, expression: impl Into<String>) -> Self {
        self.filter = Some(expression.into());
        self
    }

    /// This SQL expression in place of a column.
    #[must_use]
    pub fn with_mask(mut self, column: impl Into<String>, expression: impl Into<String>) -> Self {
        self.mask.insert(column.into(), expression.into());
        self
    }

    /// Only the newest `rows` rows by this column, the first one of an index.
    #[must_use]
    pub fn with_latest(mut self, by: impl Into<String>, rows: u64) -> Self {
        self.keep_latest = Some(KeepLatest { by: by.into(), rows, allow_scan: false });
        self
    }

    /// A secondary index of these columns, beside those that are there.
    #[must_use]
    pub fn with_index<S: Into<String>>(mut self, columns: impl IntoIterator<Item = S>) -> Self {
        self.index.push(columns.into_iter().map(Into::into).collect());
        self
    }

    /// What decides which rows the replica has, and what is in them.
    pub(crate) fn selection(&self) -> Self {
        Self { index: Vec::new(), ..self.clone() }
    }
}

/// The first `rows` rows in the order of `by`, descending, and of the key.
///
/// ```
/// use redtail::{KeepLatest, TableConfig};
///
/// let newest = KeepLatest { by: "start_time".to_owned(), rows: 1_000, allow_scan: false };
/// let episodes = TableConfig { keep_latest: Some(newest), ..TableConfig::default() };
/// assert_eq!(episodes, TableConfig::default().with_latest("start_time", 1_000));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeepLatest {
    /// A column, the first one of an index.
    pub by: String,
    /// How many rows, at least 1.
    pub rows: u64,
    /// Do without the index: every window that touches the table then reads all of it.
    pub allow_scan: bool,
}

/// How much of what changed is kept for subscribers that come back.
///
/// ```
/// use redtail::{Config, KeepChanges};
/// use std::time::Duration;
///
/// let day = KeepChanges { age: Some(Duration::from_secs(86_400)), ..KeepChanges::default() };
/// let config = Config { keep_changes: Some(day), ..Config::default() };
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepChanges {
    /// So many changed rows; the last window is kept however many it has. Default 10,000,000.
    pub rows: u64,
    /// And none that was applied longer ago than this. Default: however old.
    pub age: Option<Duration>,
}

impl Default for KeepChanges {
    fn default() -> Self {
        Self { rows: 10_000_000, age: None }
    }
}

/// When a replica is brought up to date that is not followed without end.
///
/// ```
/// use redtail::{Config, Occasions};
/// use std::time::Duration;
///
/// let hourly = Occasions { every: Some(Duration::from_secs(3_600)), ..Occasions::default() };
/// let config = Config { sync: Some(hourly), ..Config::default() };
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occasions {
    /// When `run` begins. Default yes.
    pub on_start: bool,
    /// So long after the last time. Default: not by the clock.
    pub every: Option<Duration>,
    /// When it has not been level with the source for so long. Default: however old it is.
    pub stale_after: Option<Duration>,
}

impl Default for Occasions {
    fn default() -> Self {
        Self { on_start: true, every: None, stale_after: None }
    }
}

/// The settings of a replicator. Every one has a default that suits a sidecar.
///
/// A setting is a field, and a later version may have more of them: write `..Config::default()` behind those that you
/// set. What would be nested has a method that adds it.
///
/// ```
/// use redtail::{Config, KeepChanges, TableConfig};
///
/// let config = Config { keep_changes: Some(KeepChanges::default()), ..Config::default() }
///     .with_table("episodes", TableConfig::default().with_index(["start_time"]));
/// assert!(config.wants.table("episodes"));
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    /// Which tables are replicated.
    pub wants: Wants,
    /// What is replicated of a table, by its name.
    pub tables: BTreeMap<String, TableConfig>,
    /// What is kept of the source's changelog.
    pub changelog: Changelog,
    /// At most one write to the source in this time: an acknowledgement, with a piece of pruning. Default
    /// 5 s; outside WAL mode, where every write syncs the disk, twelve times as long.
    pub ack_interval: Duration,
    /// When `run` brings the replica up to date. Default: it follows without end.
    pub sync: Option<Occasions>,
    /// While `run` follows: how often every table is compared with the source and mended, for writes that no
    /// trigger sees, by programs that switch triggers off. The replica knows when that was done last. Default: never.
    pub audit_every: Option<Duration>,
    /// Keep what changed in the replica, so that a subscriber can go on from a position. Default: nothing is kept,
    /// and changes are recorded only while somebody subscribes.
    pub keep_changes: Option<KeepChanges>,
    /// How many changed rows a subscriber may be behind, if no more are kept anyway. Default 1,000,000.
    pub subscriber_rows: u64,
    /// When a window counts as applied.
    pub durability: Durability,
    /// What to do about a source that diverged.
    pub on_divergence: OnDivergence,
    /// Memory that redb may use as a cache, in bytes. Default 64 MiB.
    pub cache_bytes: usize,
    /// Rows held in memory at once between source and replica. Default 10,000.
    pub chunk_rows: usize,
    /// Bytes held in memory at once between source and replica. Default 8 MiB.
    pub chunk_bytes: usize,
    /// Entries of one window; a longer backlog goes on in parts. Default 1,000,000.
    pub window_entries: u64,
    /// The longest a read snapshot of the source may last while tables are copied. Default 2 s,
    /// and 20 ms in a source that is not in WAL mode, where a reader blocks the application's commit.
    pub max_snapshot: Duration,
    /// How long the windows of a backlog may share one transaction of the replica, and so its fsync: what is
    /// lost by a crash. Zero gives each its own. Default 5 s; ranges of tables that are copied at most 200 ms.
    pub max_transaction: Duration,
    /// How long to wait for the source's write lock when capture is installed. Default 5 s.
    pub busy_timeout: Duration,
    /// How often the source is looked at though nothing gave notice. Default 250 ms.
    pub poll: Duration,
    /// The largest row that is replicated, in bytes. Default 32 MiB.
    pub max_row: usize,
    /// The token for a source that is a server.
    #[cfg(feature = "remote")]
    pub token: Option<crate::Token>,
    /// A file with the token, read again when the server refuses it; it wins over `token`.
    pub token_file: Option<PathBuf>,
    /// Speak http, without TLS, to other machines too. Default no.
    pub insecure: bool,
    /// Hear from a server that something changed, where it sends events; else it is polled. Default yes.
    pub events: bool,
    /// How long a server may let us wait for its answer, or for more of it. Default 30 s.
    pub request_timeout: Duration,
    /// How long a server may show a head below the replica's before it counts as rewound: it may be a replica
    /// that lags. Default 10 s.
    pub lagging: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            wants: Wants::default(),
            tables: BTreeMap::new(),
            changelog: Changelog::default(),
            ack_interval: Duration::from_secs(5),
            sync: None,
            audit_every: None,
            keep_changes: None,
            subscriber_rows: 1_000_000,
            durability: Durability::default(),
            on_divergence: OnDivergence::default(),
            cache_bytes: 64 << 20,
            chunk_rows: 10_000,
            chunk_bytes: 8 << 20,
            window_entries: 1_000_000,
            max_snapshot: Duration::from_secs(2),
            max_transaction: Duration::from_secs(5),
            busy_timeout: Duration::from_secs(5),
            poll: Duration::from_millis(250),
            max_row: 32 << 20,
            #[cfg(feature = "remote")]
            token: None,
            token_file: None,
            insecure: false,
            events: true,
            request_timeout: Duration::from_secs(30),
            lagging: Duration::from_secs(10),
        }
    }
}

impl Config {
    /// Says what is replicated of a table.
    ///
    /// ```
    /// use redtail::{Config, TableConfig};
    ///
    /// let config = Config::default()
    ///     .including(["episodes", "pattern*"])
    ///     .with_table("episodes", TableConfig::default().with_index(["start_time"]));
    /// assert!(config.wants.table("patterns") && config.table("Episodes").is_some());
    /// ```
    #[must_use]
    pub fn with_table(mut self, name: impl Into<String>, table: TableConfig) -> Self {
        self.tables.insert(name.into(), table);
        self
    }

    /// Only tables that match one of these patterns (see [`Wants`]).
    #[must_use]
    pub fn including<S: Into<String>>(mut self, patterns: impl IntoIterator<Item = S>) -> Self {
        self.wants.include = patterns.into_iter().map(Into::into).collect();
        self
    }

    /// No table that matches one of these patterns.
    #[must_use]
    pub fn excluding<S: Into<String>>(mut self, patterns: impl IntoIterator<Item = S>) -> Self {
        self.wants.exclude = patterns.into_iter().map(Into::into).collect();
        self
    }

    /// What is replicated of this table, if something is said of it.
    #[must_use]
    pub fn table(&self, name: &str) -> Option<&TableConfig> {
        self.tables.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, t)| t)
    }
}
