//! Other settings for a replicator that runs: it goes on with them between two windows.

use super::{Ask, Replicator};
use crate::config::Config;
use crate::error::{Error, Result};
use std::sync::{Arc, PoisonError};
use tokio::sync::oneshot;

impl Replicator {
    /// Goes on with other settings, from the next window on if this is running: which tables are replicated and
    /// what of them, and every limit of following. Source and replica stay; [`crate::Source::check`] of a source with the
    /// new settings tells beforehand whether they fit.
    ///
    /// # Errors
    /// `Stopped` if it ends meanwhile.
    pub async fn reload(&self, config: Config) -> Result<()> {
        if self.asked.try_lock().is_ok() {
            self.set_config(config);
            return Ok(());
        }
        let (reply, replied) = oneshot::channel();
        self.asks.send(Ask::Reload(Box::new(config), reply)).await.map_err(|_| Error::stopped())?;
        replied.await.map_err(|_| Error::stopped())
    }

    pub(super) fn set_config(&self, config: Config) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        self.reloaded.notify_one();
    }

    pub(super) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }
}
