//! A backlog, from end to end: new rows, and updates scattered over a table.

use crate::application::Application;
use crate::lag::{connector, embedded};
use crate::server::Server;
use crate::{Options, Result};
use redtail::{Config, Replica, Replicator, Source};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    Redtail,
    /// libsql's remote mode: the rows that are known to have changed, read and let go.
    Cursor,
    Replica,
}

pub const SUBJECTS: [Subject; 3] = [Subject::Redtail, Subject::Cursor, Subject::Replica];

impl Subject {
    pub fn name(self) -> &'static str {
        match self {
            Self::Redtail => "redtail",
            Self::Cursor => "libsql's row cursor",
            Self::Replica => "embedded replica",
        }
    }
}

/// Changes a second, and requests.
#[derive(Clone, Copy)]
pub struct Rate {
    pub per_second: f64,
    pub seconds: f64,
    /// `None` where they are not counted.
    pub requests: Option<u64>,
}

pub struct Drained {
    pub new_rows: Rate,
    pub scattered: Rate,
}

enum Follower {
    Redtail(Box<Replicator>),
    Cursor(libsql::Database),
    Replica(libsql::Database, Arc<AtomicU64>),
}

pub async fn measure(subject: Subject, server: &mut Server, options: &Options) -> Result<Drained> {
    server.renew();
    let dir = tempfile::tempdir()?;
    let app = Application::begin(server.url())?;
    let mut follower = Follower::begin(subject, server.url(), dir.path()).await?;
    let every = (options.table / options.rows).max(1);
    app.insert(0, options.rows)?;
    let new_rows = follower.timed(options.rows, "SELECT id, name, score, at FROM peers").await?;
    app.insert(options.rows, options.table)?;
    follower.bring().await?;
    app.scatter(options.table, every)?;
    let changed = format!("SELECT id, name, score, at FROM peers WHERE id % {every} = 0");
    let scattered = follower.timed(options.table.div_ceil(every), &changed).await?;
    follower.check(&app).await?;
    Ok(Drained { new_rows, scattered })
}

impl Follower {
    async fn begin(subject: Subject, url: String, dir: &Path) -> Result<Self> {
        let mut follower = match subject {
            Subject::Redtail => {
                let config = Config::default();
                let replica = Replica::open(dir.join("replica"), &config)?;
                Self::Redtail(Box::new(Replicator::new(Source::open(&url, &config)?, replica, config)))
            }
            Subject::Cursor => {
                let built = libsql::Builder::new_remote(url, String::new()).connector(connector()).build();
                Self::Cursor(built.await?)
            }
            Subject::Replica => {
                let asked = Arc::new(AtomicU64::new(0));
                Self::Replica(embedded(url, &dir.join("replica"), &asked).await?, asked)
            }
        };
        follower.bring().await?;
        Ok(follower)
    }

    async fn bring(&mut self) -> Result<()> {
        match self {
            Self::Redtail(replicator) => Ok(replicator.sync_once().await.map(drop)?),
            Self::Cursor(_) => Ok(()),
            Self::Replica(db, _) => Ok(db.sync().await.map(drop)?),
        }
    }

    fn requests(&self) -> Option<u64> {
        match self {
            Self::Redtail(replicator) => replicator.traffic().map(|t| t.requests),
            Self::Cursor(_) => None,
            Self::Replica(_, asked) => Some(asked.load(Ordering::Relaxed)),
        }
    }

    async fn timed(&mut self, changes: u64, sql: &str) -> Result<Rate> {
        let before = self.requests();
        let begun = Instant::now();
        if let Self::Cursor(db) = self {
            // A connection is good for ten seconds without a statement, and the application writes for longer.
            let mut rows = db.connect()?.query(sql, ()).await?;
            let mut count = 0;
            while let Some(row) = rows.next().await? {
                for column in 0..4 {
                    std::hint::black_box(row.get_value(column)?);
                }
                count += 1;
            }
            if count != changes {
                return Err(format!("{count} rows came of {changes}").into());
            }
        } else {
            self.bring().await?;
        }
        let seconds = begun.elapsed().as_secs_f64();
        let requests = before.zip(self.requests()).map(|(before, after)| after - before);
        Ok(Rate { per_second: changes as f64 / seconds, seconds, requests })
    }

    /// The sum of a column that every update changed is the server's.
    async fn check(&self, app: &Application) -> Result<()> {
        let sum = "SELECT CAST(total(score * 2) AS INTEGER) FROM peers";
        let answered = app.run(sum)?;
        let text = answered.rows.first().and_then(|row| row.pointer("/0/value")).and_then(|v| v.as_str());
        let right: f64 = text.and_then(|t| t.parse().ok()).ok_or("no sum")?;
        let here = match self {
            Self::Cursor(_) => return Ok(()),
            Self::Redtail(replicator) => {
                let mut here = 0.0;
                for row in replicator.replica().snapshot()?.scan("peers")? {
                    here += row?.real("score")?.unwrap_or(0.0) * 2.0;
                }
                here
            }
            Self::Replica(db, _) => {
                let mut rows = db.connect()?.query(sum, ()).await?;
                rows.next().await?.ok_or("no row")?.get::<i64>(0)? as f64
            }
        };
        if (here - right).abs() < 0.5 {
            Ok(())
        } else {
            Err(format!("{here} where the server has {right}").into())
        }
    }
}
