//! The cache as it is often written: a timer reads the newest 1,000 episodes again and puts them over what it has.

use crate::service::{Failure, Memory};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

const NEWEST: &str = "SELECT episode_id, reward FROM episodes ORDER BY start_time DESC LIMIT 1000";

pub struct Timer {
    memory: Arc<Mutex<Memory>>,
    rows: Arc<AtomicU64>,
    ticks: watch::Receiver<u64>,
}

impl Timer {
    /// Reads once, and then every so often.
    pub async fn start(db: &Path, every: Duration) -> Result<Self, Failure> {
        let connection = libsql::Builder::new_local(db).build().await?.connect()?;
        connection.busy_timeout(Duration::from_secs(10))?;
        let (memory, rows) = (Arc::new(Mutex::new(Memory::default())), Arc::new(AtomicU64::new(0)));
        let (tick, ticks) = watch::channel(0);
        let (its, read) = (Arc::clone(&memory), Arc::clone(&rows));
        tokio::spawn(async move {
            let mut timer = tokio::time::interval(every);
            loop {
                timer.tick().await;
                let Ok(mut found) = connection.query(NEWEST, ()).await else { continue };
                while let Ok(Some(row)) = found.next().await {
                    let (Ok(id), Ok(reward)) = (row.get::<String>(0), row.get::<Option<f64>>(1)) else {
                        continue;
                    };
                    read.fetch_add(1, Ordering::Relaxed);
                    let mut memory = its.lock().unwrap_or_else(PoisonError::into_inner);
                    memory.episodes.insert(id, reward.map(f64::to_bits));
                }
                tick.send_modify(|n| *n += 1);
            }
        });
        let mut timer = Self { memory, rows, ticks };
        timer.ticks.wait_for(|n| *n > 0).await?;
        Ok(timer)
    }

    pub fn memory(&self) -> Memory {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn rows_read(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Waits until it has read once more, from the beginning.
    pub async fn ticked(&self) {
        let mut ticks = self.ticks.clone();
        let now = *ticks.borrow();
        let _ = ticks.wait_for(|n| *n >= now + 2).await;
    }
}
