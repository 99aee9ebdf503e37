//! How a source is read. `local` is the file here; `query` says what a window and a range are in SQL, and
//! `read` reads them; `wake` notices that there is something to read, and `retry` how long to wait after a failure.

pub(crate) mod acknowledge;
mod address;
mod adopt;
// A server's back end needs a part of it.
#[cfg_attr(not(feature = "local"), allow(dead_code))]
mod exact;
mod foresee;
mod keep;
mod listed;
pub(crate) mod local;
mod owned;
mod place;
mod query;
mod read;
mod references;
#[cfg(feature = "remote")]
pub(crate) mod remote;
pub(crate) mod retry;
mod select;
pub(crate) mod sql;
#[cfg(feature = "local")]
mod sqlite;
#[cfg(not(feature = "local"))]
#[path = "no_sqlite.rs"]
mod sqlite;
mod wake;
mod width;
mod writers;

pub use crate::capture::describe::Skipped;
use crate::capture::describe::describe;
pub(crate) use address::Address;
pub use references::Reference;
#[cfg(feature = "remote")]
pub use remote::{Token, Traffic};

use crate::capture::consumers::{self, Claim, Consumer};
use crate::capture::known::{Known, SharedKnown};
use crate::capture::{Demand, bound, install};
use crate::config::Config;
use crate::cursor::Position;
use crate::error::{Error, Kind, Result};
use select::Selection;
use sql::Sql;
use std::fmt;
use std::path::Path;

/// A libSQL database that is followed.
///
/// ```no_run
/// # async fn look() -> redtail::Result<()> {
/// use redtail::{Config, Source};
///
/// let source = Source::open("app.db", &Config::default())?;
/// for skipped in source.init().await?.skipped {
///     println!("{}: {}", skipped.name, skipped.reason);
/// }
/// println!("{:?}", source.head().await?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Source {
    address: Address,
    config: Config,
    known: SharedKnown,
}

/// What `init` found and did.
///
/// ```no_run
/// # async fn look(source: &redtail::Source) -> redtail::Result<()> {
/// let installed = source.init().await?;
/// println!("{:?} captured, {} skipped", installed.captured, installed.skipped.len());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Installed {
    /// Tables whose changes are captured.
    pub captured: Vec<String>,
    /// Tables that are not replicated, and why.
    pub skipped: Vec<Skipped>,
}

/// What a look at a source's changelog shows.
///
/// ```no_run
/// # async fn look(source: &redtail::Source) -> redtail::Result<()> {
/// if let Some(look) = source.look().await? {
///     println!("{} entries up to {}", look.entries, look.head);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Look {
    /// Where it ends.
    pub head: Position,
    /// How many entries it holds.
    pub entries: u64,
    /// The most that it keeps, up to 4,096 more.
    pub max_rows: Option<u64>,
    /// The replicas that follow it.
    pub consumers: Vec<Consumer>,
}

/// Between two statements somebody may take capture out: what is there then is asked for again.
fn gone(e: Error) -> Error {
    if e.kind() == Kind::Source { e.with_kind(Kind::Unavailable) } else { e }
}

impl Source {
    /// Names a source: a path, a `file:` URL, or a server's (`libsql://`, `https://`, `http://`). It is first
    /// opened when it is used.
    ///
    /// # Errors
    /// `Usage` if it is neither, if there is no such file, or if a token file cannot be read.
    pub fn open(source: &str, config: &Config) -> Result<Self> {
        Ok(Self {
            address: Address::parse(source, config)?,
            config: config.clone(),
            known: SharedKnown::default(),
        })
    }

    /// Where the file is; `None` for a server.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.address.file()
    }

    /// Whether its file is gone or may not be read. Asked without opening it, which would drop SQLite's locks.
    pub(crate) fn is_away(&self) -> bool {
        #[cfg(unix)]
        let is_there = |path: &Path| rustix::fs::access(path, rustix::fs::Access::READ_OK).is_ok();
        #[cfg(not(unix))]
        let is_there = Path::exists;
        self.path().is_some_and(|path| !is_there(path))
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    pub(crate) fn known(&self) -> &SharedKnown {
        &self.known
    }

    /// Reads a server's token from its file again, as is done anyway when the server refuses the one in use. Nothing
    /// where there is no such file.
    ///
    /// # Errors
    /// `Usage` if the file cannot be read or holds no token: the one before stays.
    #[cfg(feature = "remote")]
    pub fn read_token(&self) -> Result<()> {
        match &self.address {
            Address::File(_) => Ok(()),
            Address::Server(server) => server.read_token(),
        }
    }

    /// About how many rows these tables have together, by their largest rowids: cheap, too large where many rows
    /// were deleted, and `None` where a table has no rowid.
    ///
    /// # Errors
    /// As [`Source::head`].
    pub async fn about_rows(&self, tables: &[String]) -> Result<Option<u64>> {
        let names = tables.to_vec();
        self.with(move |sql| {
            let mut sum = Some(0_u64);
            for name in names {
                let query = format!("SELECT max(rowid) FROM {}", sql::quote(&name));
                // A table without rowids is no failure of anybody.
                let rows =
                    sql.integer(&query, &[]).ok().and_then(|most| u64::try_from(most.unwrap_or(0)).ok());
                sum = sum.zip(rows).and_then(|(sum, rows)| sum.checked_add(rows));
            }
            Ok(sum)
        })
        .await
    }

    /// What following a server has cost so far; `None` for a file.
    #[cfg(feature = "remote")]
    #[must_use]
    pub fn traffic(&self) -> Option<Traffic> {
        match &self.address {
            Address::File(_) => None,
            Address::Server(server) => Some(server.traffic()),
        }
    }

    /// Installs capture, or repairs what is missing of it.
    ///
    /// # Errors
    /// `Unavailable` if the write lock is not to be had within `busy_timeout`; `Usage` if the file is no
    /// database, may not be written, or has a newer capture.
    pub async fn init(&self) -> Result<Installed> {
        if let Some(path) = self.path() {
            owned::refuse(path)?;
        }
        let (config, known) = (self.config.clone(), self.known.clone());
        self.with(move |sql| {
            let demand = Demand::of_all(sql, &config)?;
            let found = known.with(|k| install::install(sql, &demand, config.changelog.max_rows, k))?;
            let captured = found.captured.into_iter().map(|c| c.source.table.name.clone()).collect();
            Ok(Installed { captured, skipped: found.skipped })
        })
        .await
    }

    /// The statements that [`Source::init`] would run now, and what it would say.
    ///
    /// # Errors
    /// As [`Source::init`].
    pub async fn plan(&self) -> Result<(Installed, Vec<String>)> {
        let config = self.config.clone();
        self.with(move |sql| {
            let demand = Demand::of_all(sql, &config)?;
            let (found, statements) = install::plan(sql, &demand, config.changelog.max_rows)?;
            let tables =
                found.captured.into_iter().map(|c| c.source).chain(found.broken.into_iter().map(|(t, _)| t));
            let captured = tables.map(|t| t.table.name.clone()).collect();
            Ok((Installed { captured, skipped: found.skipped }, statements))
        })
        .await
    }

    /// Takes capture out again. Returns whether there was any.
    ///
    /// # Errors
    /// As [`Source::init`].
    pub async fn remove(&self) -> Result<bool> {
        self.with(install::remove).await
    }

    /// The source's head now; `None` if capture is not installed.
    ///
    /// # Errors
    /// `Usage` if the file is no database.
    pub async fn head(&self) -> Result<Option<Position>> {
        Ok(self.whole_head().await?.map(|head| head.position))
    }

    /// The head, and the version of the schema beside it.
    pub(crate) async fn whole_head(&self) -> Result<Option<local::Head>> {
        self.with(local::look).await
    }

    /// Checks what the configuration says of single tables against the source's definitions.
    ///
    /// # Errors
    /// `Usage` if it does not fit; the error says where.
    pub async fn check(&self) -> Result<()> {
        if self.config.tables.is_empty() {
            return Ok(());
        }
        let config = self.config.clone();
        self.with(move |sql| {
            let found = describe(sql, &mut Known::default())?;
            for (name, table) in &config.tables {
                match found.tables.iter().find(|t| t.table.name.eq_ignore_ascii_case(name)) {
                    Some(t) => Selection::of(t, Some(table), sql).map(drop)?,
                    None => tracing::warn!("tables.{name}: there is no such table in the source"),
                }
            }
            Ok(())
        })
        .await
    }

    /// The replicas that the source knows; none where capture is not installed.
    ///
    /// # Errors
    /// As [`Source::head`].
    pub async fn consumers(&self) -> Result<Vec<Consumer>> {
        self.with(consumers::list).await.map_err(gone)
    }

    /// What the changelog holds, and for whom; `None` where capture is not installed.
    ///
    /// # Errors
    /// As [`Source::head`].
    pub async fn look(&self) -> Result<Option<Look>> {
        self.with(|sql| {
            let Some(local::Head { position, .. }) = local::look(sql)? else { return Ok(None) };
            // Only whole prefixes are ever deleted, so nothing has to be counted.
            let first = sql.integer("SELECT min(seq) FROM _redtail_changelog", &[])?;
            let first = first.and_then(|first| u64::try_from(first).ok());
            Ok(Some(Look {
                head: position,
                entries: first.map_or(0, |first| (position.seq + 1).saturating_sub(first)),
                max_rows: bound::max_rows(sql)?,
                consumers: consumers::list(sql)?,
            }))
        })
        .await
        .map_err(gone)
    }

    /// Deletes every entry that may go, in many small writes. Returns how many went.
    ///
    /// # Errors
    /// As [`Source::init`]; `Capture` if there is no capture.
    pub async fn prune(&self) -> Result<u64> {
        let config = self.config.clone();
        self.with(move |sql| acknowledge::prune_all(sql, &config)).await
    }

    /// Says once more up to where a replica has everything on disk, when following has ended.
    pub(crate) async fn settle(&self, claim: Claim, durable: u64) -> Result<()> {
        let config = self.config.clone();
        self.with(move |sql| acknowledge::settle(sql, claim, durable, &config)).await
    }

    /// Runs `work` on a connection of its own, on a thread that may block.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Sql) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (address, config) = (self.address.clone(), self.config.clone());
        let done = tokio::task::spawn_blocking(move || {
            let mut sql = address.connect(&config)?;
            let name = format!("source {address}");
            work(&mut sql).map_err(|e| if e.to_string().starts_with(&name) { e } else { e.during(name) })
        });
        done.await.map_err(|e| Error::new(Kind::Source, format!("source: {e}")))?
    }
}

/// The file's path, or the server's URL.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}
