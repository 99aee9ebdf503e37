//! What the settings say of the endpoint.

use std::path::PathBuf;
use std::time::Duration;

/// What the settings say of the endpoint.
#[derive(Clone, Debug)]
pub struct Options {
    pub listen: Option<String>,
    /// Listen for other machines too.
    pub anywhere: bool,
    pub token_file: Option<PathBuf>,
    /// The most lag with which it counts as ready.
    pub ready_lag: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { listen: None, anywhere: false, token_file: None, ready_lag: Duration::from_secs(30) }
    }
}
