//! How a source is read. `local` is the file here; `query` says what a window and a range are in SQL, and
//! `read` reads them; `wake` notices that there is something to read, and `retry` how long to wait after a failure.

pub(crate) mod acknowledge;
mod adopt;
mod keep;
pub(crate) mod local;
mod owned;
mod place;
mod query;
mod read;
pub(crate) mod retry;
mod select;
pub(crate) mod sql;
mod wake;

pub use crate::capture::describe::Skipped;
use crate::capture::describe::describe;

use crate::capture::consumers::{self, Claim, Consumer};
use crate::capture::{Demand, bound, install};
use crate::config::Config;
use crate::cursor::Position;
use crate::error::{Error, Kind, Result};
use select::Selection;
use sql::Sql;
use std::path::{Path, PathBuf};

/// A libSQL database that is followed.
#[derive(Clone, Debug)]
pub struct Source {
    path: PathBuf,
    config: Config,
}

/// What `init` found and did.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Installed {
    /// Tables whose changes are captured.
    pub captured: Vec<String>,
    /// Tables that are not replicated, and why.
    pub skipped: Vec<Skipped>,
}

impl Source {
    /// Names a source: a path, or a `file:` URL. The file is first opened when it is used.
    ///
    /// # Errors
    /// `Usage` if it is neither, or if there is no such file.
    pub fn open(source: &str, config: &Config) -> Result<Self> {
        if let Some((scheme, _)) = source.split_once("://").filter(|(s, _)| *s != "file") {
            return Err(Error::usage(format!(
                "source {scheme}://…: servers are not supported yet; give a database file"
            )));
        }
        let path = source.strip_prefix("file:").map_or(source, |p| p.strip_prefix("//").unwrap_or(p));
        let path = std::fs::canonicalize(path)
            .map_err(|e| Error::usage(format!("source {path}: {}", sql::plain(&e))))?;
        if !path.is_file() {
            return Err(Error::usage(format!(
                "source {}: not a file; give the database file",
                path.display()
            )));
        }
        Ok(Self { path, config: config.clone() })
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Installs capture, or repairs what is missing of it.
    ///
    /// # Errors
    /// `Unavailable` if the write lock is not to be had within `busy_timeout`; `Usage` if the file is no
    /// database, may not be written, or has a newer capture.
    pub async fn init(&self) -> Result<Installed> {
        owned::refuse(&self.path)?;
        let config = self.config.clone();
        self.with(move |sql| {
            let demand = Demand::of_all(sql, &config)?;
            let found = install::install(sql, &demand, config.changelog.max_rows)?;
            let captured = found.captured.into_iter().map(|c| c.source.table.name).collect();
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
            let captured = tables.map(|t| t.table.name).collect();
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
        self.with(|sql| Ok(local::look(sql)?.map(|(log_id, seq)| Position { log_id, seq }))).await
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
            let found = describe(sql)?;
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
        self.with(consumers::list).await
    }

    /// The most entries that the changelog keeps, up to 4,096 more; `None` where capture is not installed.
    ///
    /// # Errors
    /// As [`Source::head`].
    pub async fn max_rows(&self) -> Result<Option<u64>> {
        self.with(bound::max_rows).await
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
        let (path, busy) = (self.path.clone(), self.config.busy_timeout);
        let done = tokio::task::spawn_blocking(move || {
            let mut sql = Sql::open(&path, busy)?;
            work(&mut sql).map_err(|e| e.during(format!("source {}", path.display())))
        });
        done.await.map_err(|e| Error::new(Kind::Source, format!("source: {e}")))?
    }
}
