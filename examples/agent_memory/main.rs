//! An agent's memory (episodes, patterns, embeddings) and a service that reads it locally: first with a timer that reads
//! the newest 1,000 episodes again, then with redtail, side by side on the same writes.
//!
//! `cargo run --example agent_memory` writes for `AGENT_SECONDS` (4) and says what each of the two has missed, and what it
//! cost. It makes its database in a temporary folder, and leaves nothing.

mod service;
mod timer;

use redtail::{Config, Project, Replica, Replicator, Row, Source};
use service::{Failure, Memory, Service};
use std::sync::Arc;
use std::time::{Duration, Instant};
use timer::Timer;

/// How often the timer reads.
const EVERY: Duration = Duration::from_millis(500);
/// How long a change is waited for before it counts as never seen.
const NEVER: Duration = Duration::from_millis(1_500);

/// An episode as the service uses it: the replica keeps it beside the row, and it is read where it lies.
#[derive(rkyv::Archive, rkyv::Serialize)]
struct Episode {
    id: String,
    reward: Option<f64>,
}

impl Project for Episode {
    const TABLE: &'static str = "episodes";
    const VERSION: u32 = 1;

    fn project(row: &Row) -> redtail::Result<Option<Self>> {
        let id = row.text("episode_id")?.unwrap_or_default().to_owned();
        Ok(Some(Self { id, reward: row.real("reward")? }))
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let seconds = std::env::var("AGENT_SECONDS").ok().and_then(|n| n.parse().ok()).unwrap_or(4);
    let folder = tempfile::tempdir()?;
    let db = folder.path().join("memory.db");
    let service = Service::create(&db).await?;
    let timer = Timer::start(&db, EVERY).await?;
    let config = Config::default();
    let source = Source::open(&db.display().to_string(), &config)?;
    let replica = Replica::open(folder.path().join("cache.redb"), &config)?;
    let replicator = Arc::new(Replicator::new(source, replica.clone(), config).projecting::<Episode>());
    replicator.sync_once().await?;
    let before = replicator.progress().borrow().work;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn({
        let replicator = Arc::clone(&replicator);
        async move { replicator.run(async { drop(stopped.await) }).await }
    });

    let written = service.work(Duration::from_secs(seconds)).await?;
    let head = replicator.source().head().await?.ok_or("no capture")?;
    replicator.wait_for(head).at_most(Duration::from_secs(30)).await?;
    timer.ticked().await;
    let truth = service.memory().await?;
    let cached = timer.memory();
    let followed = of_replica(&replica)?;
    println!("{written} transactions; the source has {}", truth.counts());
    println!("                         timer    redtail");
    for (what, of_timer, of_redtail) in
        truth.judge(&cached).into_iter().zip(truth.judge(&followed)).map(|(t, r)| (t.0, t.1, r.1))
    {
        println!("{what:<22} {of_timer:>7} {of_redtail:>10}");
    }

    let late = probes(&service, &timer, &replicator).await?;
    for (what, of_timer, of_redtail) in late {
        println!("{what:<22} {:>7} {:>10}", shown(of_timer), shown(of_redtail));
    }
    let work = replicator.progress().borrow().work;
    let read = work.changed + work.copied - before.changed - before.copied;
    println!("{:<22} {:>7} {:>10}", "rows read", timer.rows_read(), read);
    let _ = stop.send(());
    running.await??;
    if truth.judge(&followed).iter().any(|(_, wrong)| *wrong > 0) {
        return Err("the replica is not what the source is".into());
    }
    Ok(())
}

/// How long until a change is seen: of the newest episode, of an old one, and a delete. `None`: never.
type Probe = (&'static str, Option<Duration>, Option<Duration>);

async fn probes(service: &Service, timer: &Timer, replicator: &Replicator) -> Result<Vec<Probe>, Failure> {
    let mut found = Vec::new();
    for (what, statement, key, there) in [
        (
            "newest seen after ms",
            "UPDATE episodes SET reward = -1 WHERE episode_id = ?1",
            service.newest().await?,
            true,
        ),
        (
            "older seen after ms",
            "UPDATE episodes SET reward = -1 WHERE episode_id = ?1",
            service.oldest().await?,
            true,
        ),
        (
            "delete seen after ms",
            "DELETE FROM episodes WHERE episode_id = ?1",
            service.oldest().await?,
            false,
        ),
    ] {
        service.execute(statement, &key).await?;
        let begun = Instant::now();
        let snapshot = replicator.snapshot_at_head(Duration::from_secs(10)).await?;
        let by_redtail = begun.elapsed();
        let episode = snapshot.projection::<Episode>()?.get(key.as_str())?;
        let reward = match &episode {
            Some(episode) => episode.view()?.reward.as_ref().map(|r| r.to_native()),
            None => None,
        };
        let seen = if there { reward == Some(-1.0) } else { episode.is_none() };
        let is_seen = |memory: &Memory| match memory.episodes.get(&key) {
            Some(reward) => there && *reward == Some((-1.0_f64).to_bits()),
            None => false,
        };
        let mut by_timer = None;
        while begun.elapsed() < NEVER && by_timer.is_none() {
            timer.ticked().await;
            by_timer = is_seen(&timer.memory()).then(|| begun.elapsed());
        }
        found.push((what, by_timer, seen.then_some(by_redtail)));
    }
    Ok(found)
}

fn shown(time: Option<Duration>) -> String {
    time.map_or_else(|| "never".to_owned(), |t| format!("{:.1}", t.as_secs_f64() * 1e3))
}

fn of_replica(replica: &Replica) -> Result<Memory, Failure> {
    let snapshot = replica.snapshot()?;
    let mut memory = Memory::default();
    for episode in snapshot.projection::<Episode>()?.scan()? {
        let episode = episode?;
        let episode = episode.view()?;
        let reward = episode.reward.as_ref().map(|reward| reward.to_native().to_bits());
        memory.episodes.insert(episode.id.as_str().to_owned(), reward);
    }
    for row in snapshot.scan("patterns")? {
        let row = row?;
        memory.patterns.insert(row.text("pattern_id")?.unwrap_or_default().to_owned(), row.integer("uses")?);
    }
    for row in snapshot.scan("embeddings")? {
        let row = row?;
        let vector = row.blob("vector")?.unwrap_or_default().to_vec();
        memory.embeddings.insert(row.text("episode_id")?.unwrap_or_default().to_owned(), vector);
    }
    Ok(memory)
}
