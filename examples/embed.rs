//! A service that keeps a local copy of its tables and reads from it.
//!
//! `cargo run --example embed -- app.db cache.redb`

use redtail::{Config, Replica, Replicator, Source};

#[tokio::main]
async fn main() -> redtail::Result<()> {
    let mut args = std::env::args().skip(1);
    let (db, cache) = (args.next().unwrap_or("app.db".into()), args.next().unwrap_or("cache.redb".into()));
    let config = Config::default();
    let replica = Replica::open(cache, &config)?;
    let replicator = Replicator::new(Source::open(&db, &config)?, replica.clone(), config);
    let reached = replicator.sync_once().await?;
    println!("level with {db} at {reached}");
    for info in replica.snapshot()?.tables()? {
        println!("{}: {} rows", info.table.name, info.rows);
    }
    replicator.run(async { tokio::time::sleep(std::time::Duration::from_secs(1)).await }).await
}
