//! Where a source is: a file here, or a server.

#[cfg(feature = "remote")]
use super::remote::{Server, Wait};
use super::sql::{Sql, plain};
use super::wake::{Stop, Wake, Woken};
use crate::config::Config;
use crate::error::{Error, Result};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone, Debug)]
pub(crate) enum Address {
    File(PathBuf),
    #[cfg(feature = "remote")]
    Server(Arc<Server>),
}

impl Address {
    pub fn parse(source: &str, config: &Config) -> Result<Self> {
        match source.split_once("://").filter(|(s, _)| *s != "file") {
            #[cfg(feature = "remote")]
            Some(_) => return Server::new(source, config).map(Self::Server),
            #[cfg(not(feature = "remote"))]
            Some((scheme, _)) => {
                let _ = config;
                return Err(Error::usage(format!(
                    "source {scheme}://…: this redtail was built without servers; give a database file"
                )));
            }
            None if !cfg!(feature = "local") => {
                return Err(Error::usage(format!(
                    "source {source}: this redtail was built without database files (its feature `local`); give a server's URL"
                )));
            }
            None => {}
        }
        let path = source.strip_prefix("file:").map_or(source, |p| p.strip_prefix("//").unwrap_or(p));
        let path =
            std::fs::canonicalize(path).map_err(|e| Error::usage(format!("source {path}: {}", plain(&e))))?;
        if !path.is_file() {
            let shown = path.display();
            return Err(Error::usage(format!("source {shown}: not a file; give the database file")));
        }
        Ok(Self::File(path))
    }

    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            #[cfg(feature = "remote")]
            Self::Server(_) => None,
        }
    }

    pub fn connect(&self, config: &Config) -> Result<Sql> {
        match self {
            Self::File(path) => Sql::open(path, config.busy_timeout),
            #[cfg(feature = "remote")]
            Self::Server(server) => Sql::connect(server),
        }
    }

    pub(super) fn waker(&self, stop: Arc<Stop>, config: &Config) -> Waker {
        match self {
            Self::File(path) => Waker::File(Wake::new(path, stop, config.poll)),
            #[cfg(feature = "remote")]
            Self::Server(server) => Waker::Server(Wait::new(server, stop, config)),
        }
    }

    /// How far apart a follower's looks at an idle source may be.
    pub fn longest_pause(&self, config: &Config) -> Duration {
        match self {
            Self::File(_) => config.poll,
            #[cfg(feature = "remote")]
            Self::Server(_) => Wait::longest(config.poll),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            #[cfg(feature = "remote")]
            Self::Server(server) => server.fmt(f),
        }
    }
}

/// Waits for changes of a source.
pub(super) enum Waker {
    File(Wake),
    #[cfg(feature = "remote")]
    Server(Wait),
}

impl Waker {
    /// Waits until the source may have changed, or is to be looked at all the same; `seq` is how far the last
    /// look came.
    pub fn wait(&mut self, sql: &mut Sql, seq: u64) -> Result<Woken> {
        let _ = seq;
        match self {
            Self::File(wake) => wake.wait(sql),
            #[cfg(feature = "remote")]
            Self::Server(wait) => Ok(wait.wait(seq)),
        }
    }

    /// Outside WAL mode a reader blocks the application's commit.
    pub fn is_wal(&self) -> bool {
        match self {
            Self::File(wake) => wake.wal,
            #[cfg(feature = "remote")]
            Self::Server(_) => true,
        }
    }

    pub fn set_wal(&mut self, wal: bool) {
        match self {
            Self::File(wake) => wake.wal = wal,
            #[cfg(feature = "remote")]
            Self::Server(_) => {
                let _ = wal;
            }
        }
    }
}
