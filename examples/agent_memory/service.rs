//! The service: its tables, its writes, and what it has in the end.

use libsql::Connection;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

const TABLES: &str = "
    PRAGMA journal_mode = WAL;
    CREATE TABLE episodes(
      episode_id TEXT PRIMARY KEY, task_type TEXT NOT NULL, start_time INTEGER NOT NULL, reward REAL, steps TEXT);
    CREATE INDEX episodes_by_time ON episodes(start_time);
    CREATE TABLE patterns(pattern_id TEXT PRIMARY KEY, kind TEXT NOT NULL UNIQUE, uses INTEGER NOT NULL DEFAULT 0);
    CREATE TABLE embeddings(
      episode_id TEXT PRIMARY KEY REFERENCES episodes ON DELETE CASCADE, vector BLOB NOT NULL);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
      INSERT INTO episodes SELECT printf('e%06d', i), 'plan', i, i * 0.25, '[\"look\",\"act\"]' FROM n;
    INSERT INTO embeddings SELECT episode_id, randomblob(256) FROM episodes;
    INSERT INTO patterns SELECT 'p' || episode_id, 'kind ' || start_time, 0 FROM episodes WHERE start_time <= 100;";

/// What there is, or what somebody believes there is.
#[derive(Default, Clone)]
pub struct Memory {
    /// The reward's bits by id.
    pub episodes: BTreeMap<String, Option<u64>>,
    /// Uses by id.
    pub patterns: BTreeMap<String, Option<i64>>,
    pub embeddings: BTreeMap<String, Vec<u8>>,
}

impl Memory {
    pub fn counts(&self) -> String {
        let Self { episodes, patterns, embeddings } = self;
        format!("{} episodes, {} patterns, {} embeddings", episodes.len(), patterns.len(), embeddings.len())
    }

    /// What somebody else has wrong.
    pub fn judge(&self, other: &Self) -> Vec<(&'static str, usize)> {
        let (missing, stale, ghosts) = differences(&self.episodes, &other.episodes);
        let patterns = differences(&self.patterns, &other.patterns);
        let embeddings = differences(&self.embeddings, &other.embeddings);
        vec![
            ("episodes missing", missing),
            ("episodes stale", stale),
            ("episodes deleted", ghosts),
            ("patterns wrong", patterns.0 + patterns.1 + patterns.2),
            ("embeddings wrong", embeddings.0 + embeddings.1 + embeddings.2),
        ]
    }
}

/// Missing, other, and there though they are gone.
fn differences<V: PartialEq>(
    truth: &BTreeMap<String, V>,
    other: &BTreeMap<String, V>,
) -> (usize, usize, usize) {
    let missing = truth.keys().filter(|k| !other.contains_key(*k)).count();
    let stale = truth.iter().filter(|(k, v)| other.get(*k).is_some_and(|o| o != *v)).count();
    let ghosts = other.keys().filter(|k| !truth.contains_key(*k)).count();
    (missing, stale, ghosts)
}

pub struct Service {
    connection: Connection,
}

impl Service {
    pub async fn create(db: &Path) -> Result<Self, Failure> {
        let connection = libsql::Builder::new_local(db).build().await?.connect()?;
        connection.busy_timeout(Duration::from_secs(10))?;
        connection.execute_batch(TABLES).await?;
        connection.execute_batch("PRAGMA foreign_keys = ON; PRAGMA synchronous = NORMAL").await?;
        Ok(Self { connection })
    }

    /// Writes for so long, as such services do: new episodes, rewards that come later, old ones deleted with their
    /// embeddings, patterns counted. Returns how many transactions that were.
    pub async fn work(&self, time: Duration) -> Result<u64, Failure> {
        let begun = Instant::now();
        let mut n = 0;
        while begun.elapsed() < time {
            n += 1;
            let (new, old) = (3000 + n, 1 + n * 7919 % 3000);
            let statement = match n % 6 {
                0 => format!("DELETE FROM episodes WHERE episode_id = 'e{old:06}'"),
                1 => format!("UPDATE episodes SET reward = {n} WHERE episode_id = 'e{old:06}'"),
                2 => format!(
                    "INSERT INTO patterns VALUES ('p{n}', 'kind {}', 1) ON CONFLICT(kind) DO UPDATE SET uses = uses + 1",
                    1 + n % 100
                ),
                3 => format!(
                    "INSERT OR REPLACE INTO embeddings SELECT episode_id, randomblob(256) FROM episodes WHERE episode_id = 'e{old:06}'"
                ),
                _ => {
                    format!("INSERT OR REPLACE INTO episodes VALUES ('e{new:06}', 'plan', {new}, NULL, '[]')")
                }
            };
            self.connection.execute(&statement, ()).await?;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(n)
    }

    pub async fn execute(&self, statement: &str, key: &str) -> Result<(), Failure> {
        self.connection.execute(statement, [key]).await?;
        Ok(())
    }

    pub async fn newest(&self) -> Result<String, Failure> {
        self.one("SELECT episode_id FROM episodes ORDER BY start_time DESC LIMIT 1").await
    }

    pub async fn oldest(&self) -> Result<String, Failure> {
        self.one("SELECT episode_id FROM episodes ORDER BY start_time LIMIT 1").await
    }

    async fn one(&self, query: &str) -> Result<String, Failure> {
        let row = self.connection.query(query, ()).await?.next().await?.ok_or("no episode")?;
        Ok(row.get(0)?)
    }

    /// Everything, as it is now.
    pub async fn memory(&self) -> Result<Memory, Failure> {
        let mut memory = Memory::default();
        let mut rows = self.connection.query("SELECT episode_id, reward FROM episodes", ()).await?;
        while let Some(row) = rows.next().await? {
            memory.episodes.insert(row.get(0)?, row.get::<Option<f64>>(1)?.map(f64::to_bits));
        }
        let mut rows = self.connection.query("SELECT pattern_id, uses FROM patterns", ()).await?;
        while let Some(row) = rows.next().await? {
            memory.patterns.insert(row.get(0)?, row.get(1)?);
        }
        let mut rows = self.connection.query("SELECT episode_id, vector FROM embeddings", ()).await?;
        while let Some(row) = rows.next().await? {
            memory.embeddings.insert(row.get(0)?, row.get(1)?);
        }
        Ok(memory)
    }
}
