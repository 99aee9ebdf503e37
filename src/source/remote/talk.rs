//! A stream of requests that a server ties together by batons, and what came of each of them.

use super::client::Server;
use super::fail;
use super::wire::{Answer, Outcome, Pipeline, Request, Rows};
use crate::error::{Error, Kind, Result};
use std::sync::Arc;

pub(super) struct Talk {
    server: Arc<Server>,
    baton: Option<String>,
    base: Option<String>,
}

/// What came of each statement of a request.
pub(super) type Answers = Result<Vec<Result<Rows>>>;

/// What came of each request, and how many bytes all of it had.
pub(super) struct Told {
    pub results: Vec<Answers>,
    pub bytes: usize,
}

impl Talk {
    pub fn new(server: &Arc<Server>) -> Self {
        Self { server: Arc::clone(server), baton: None, base: None }
    }

    /// Whether the server knows this stream.
    pub fn is_open(&self) -> bool {
        self.baton.is_some()
    }

    pub fn forget(&mut self) {
        (self.baton, self.base) = (None, None);
    }

    /// Sends requests as they are.
    pub fn send(&mut self, requests: &[Request]) -> Result<Told> {
        let body = serde_json::to_vec(&Pipeline { baton: self.baton.as_deref(), requests })
            .map_err(|e| Error::new(Kind::Source, format!("a request could not be written: {e}")))?;
        let answer = self.server.pipeline(self.base.as_deref(), &body)?;
        let bytes = answer.len();
        let shown = format!("source {}", self.server);
        let answer: Answer<'_> = serde_json::from_slice(&answer).map_err(|e| {
            fail::garbled(&format!("{:?} at byte {}", e.classify(), e.column())).during(&shown)
        })?;
        if answer.results.len() != requests.len() {
            return Err(fail::garbled("it has too few results").during(shown));
        }
        self.baton = answer.baton;
        if answer.base_url.is_some() {
            self.base = answer.base_url;
        }
        let mut read = 0;
        let mut take = |outcome: Outcome<'_>| {
            let steps = outcome.take(&mut read).map_err(|e| e.during(&shown))?;
            Ok(steps.into_iter().map(|step| step.map_err(|e| e.during(&shown))).collect())
        };
        let results = answer.results.into_iter().map(&mut take).collect();
        self.server.count_rows(read);
        Ok(Told { results, bytes })
    }
}
