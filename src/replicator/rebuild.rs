//! Reconciling tables again because somebody asks for it.

use super::{Ask, Replicator};
use crate::cursor::Position;
use crate::error::{Error, Result};
use crate::progress::State;
use tokio::sync::oneshot;

/// What reconciling again came to.
///
/// ```no_run
/// # async fn follow(replicator: &redtail::Replicator) -> redtail::Result<()> {
/// let rebuilt = replicator.rebuild(&["episodes".to_owned()]).await?;
/// println!("{:?} whole at {}", rebuilt.tables, rebuilt.position);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Rebuilt {
    /// The tables that were compared with the source, row by row, and brought to equality.
    pub tables: Vec<String>,
    /// Where the replica was when the last of them was whole.
    pub position: Position,
}

impl Replicator {
    /// Reconciles these tables (all, if none is named) with the source from their start, and returns when they are
    /// whole. Their rows stay readable meanwhile, and the replica follows on; it is not consistent until then.
    ///
    /// Where this is running, the running one does it, and goes on with it if this call is given up.
    ///
    /// # Errors
    /// `Usage` for a table that is not replicated; and as [`Replicator::run`].
    pub async fn rebuild(&self, tables: &[String]) -> Result<Rebuilt> {
        if self.asked.try_lock().is_ok() {
            let tables = self.marked(tables).await?;
            let position = self.sync_once().await?;
            return Ok(Rebuilt { tables, position });
        }
        let (reply, replied) = oneshot::channel();
        self.asks.send(Ask::Rebuild(tables.to_vec(), reply)).await.map_err(|_| Error::stopped())?;
        let tables = replied.await.map_err(|_| Error::stopped())??;
        let mut progress = self.progress();
        let whole = progress.wait_for(|p| p.consistent && p.reconciling.is_empty() && p.position.is_some());
        let position = tokio::select! {
            biased;
            now = whole => now.map_err(|_| Error::stopped())?.position,
            // Whoever ran it has stopped.
            _ = self.asked.lock() => None,
        };
        Ok(Rebuilt { tables, position: position.ok_or_else(Error::stopped)? })
    }

    /// Marks them in the replica; the next session begins with that.
    pub(super) async fn marked(&self, tables: &[String]) -> Result<Vec<String>> {
        let (replica, named) = (self.replica.clone(), tables.to_vec());
        let work = tokio::task::spawn_blocking(move || replica.reconcile_again(&named));
        let marked = work.await.map_err(|_| Error::stopped())??;
        self.progress.send_modify(|p| {
            p.reconciling.clone_from(&marked);
            if !marked.is_empty() {
                (p.consistent, p.state) = (false, State::Reconciling);
            }
        });
        Ok(marked)
    }
}
