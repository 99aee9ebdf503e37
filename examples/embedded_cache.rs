//! A service that reads its tables from a local replica, by key, by range and by index, and reads what it has just
//! written.
//!
//! `cargo run --example embedded_cache` makes a database in a temporary folder, and leaves nothing.

use redtail::{Config, Replica, Replicator, Source, TableConfig};
use serde::Deserialize;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A row as the service wants it; text is borrowed from the replica's page.
#[derive(Deserialize)]
struct Episode<'a> {
    #[serde(rename = "episode_id")]
    id: &'a str,
    start_time: i64,
    reward: Option<f64>,
}

impl std::fmt::Display for Episode<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {} with {:?}", self.id, self.start_time, self.reward)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let db = folder.path().join("app.db");
    let application = libsql::Builder::new_local(&db).build().await?.connect()?;
    application.busy_timeout(Duration::from_secs(5))?;
    application
        .execute_batch(
            "PRAGMA journal_mode = WAL;
             CREATE TABLE episodes(episode_id TEXT PRIMARY KEY, start_time INTEGER NOT NULL, reward REAL);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
               INSERT INTO episodes SELECT printf('e%05d', i), 1700000000 + i * 37 % 9973, i * 0.5 FROM n;",
        )
        .await?;

    // What a service sets up once: the configuration, a source, a replica, and somebody who follows.
    let config = Config::default().with_table("episodes", TableConfig::default().with_index(["start_time"]));
    let source = Source::open(&db.display().to_string(), &config)?;
    let replica = Replica::open(folder.path().join("cache.redb"), &config)?;
    let replicator = Arc::new(Replicator::new(source, replica.clone(), config));
    let position = replicator.sync_once().await?;
    println!("level at {position}: {} episodes", replica.snapshot()?.count("episodes")?);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn({
        let replicator = Arc::clone(&replicator);
        async move { replicator.run(async { drop(stopped.await) }).await }
    });

    // By key, by a range of keys from its end, by the beginning of a key, along an index.
    let snapshot = replica.snapshot()?;
    let row = snapshot.get("episodes", "e00017")?.ok_or("no e00017")?;
    println!("by key       {}", row.decode::<Episode>()?);
    for row in snapshot.range("episodes", "e00100".."e00200")?.rev().take(2) {
        println!("by range     {}", row?.decode::<Episode>()?);
    }
    println!("by beginning {} episodes begin with e000", snapshot.prefix("episodes", "e000")?.count());
    for row in snapshot.index("episodes", &["start_time"])?.range(..1_700_000_003)? {
        let row = row?;
        println!("by index     {:?} at {:?}", row.text("episode_id")?, row.integer("start_time")?);
    }

    // What one has written is in the snapshot that one takes next.
    let mut slowest = Duration::ZERO;
    for round in 0..100 {
        application
            .execute("UPDATE episodes SET reward = ?1 WHERE episode_id = 'e00017'", [f64::from(round)])
            .await?;
        let begun = Instant::now();
        let snapshot = replicator.snapshot_at_head(Duration::from_secs(10)).await?;
        slowest = slowest.max(begun.elapsed());
        let row = snapshot.get("episodes", "e00017")?.ok_or("no e00017")?;
        assert_eq!(row.real("reward")?, Some(f64::from(round)), "what was written is read");
    }
    println!("100 writes, each read back from the replica; the slowest took {slowest:?}");
    let _ = stop.send(());
    running.await??;
    Ok(())
}
