//! A window's transaction in one request: one batch, on a stream that stays open for the next.
//!
//! A batch is one task of the server's where statements of their own are one each; and a stream that is gone on with
//! spares the server a new connection to its database: together most of what an answer took.

use super::fail;
use super::stream::{State, Stream};
use super::wire::{Batch, Request, Rows, Step, Stmt};
use crate::error::{Error, Kind, Result};
use crate::value::Value;
use std::time::{Duration, Instant};

/// A server forgets a stream that was idle for ten seconds.
const IDLE: Duration = Duration::from_secs(7);

/// A stream without a transaction.
pub(super) struct Kept {
    baton: String,
    base: Option<String>,
    since: Instant,
}

impl Stream {
    /// A whole transaction in one request, of which every statement is known beforehand.
    pub fn foresee(&mut self, wanted: &[(String, Vec<Value>)]) -> Result<()> {
        self.end();
        let encoding = self.encoding;
        let mut stmts = vec![Stmt::new("BEGIN", &[], encoding)];
        for (sql, binds) in wanted {
            stmts.push(Stmt::new(self.form(sql).text.clone(), binds, encoding));
        }
        stmts.push(Stmt::new("COMMIT", &[], encoding));
        let steps = stmts.into_iter().map(|stmt| Step { condition: None, stmt }).collect();
        let answers = self.on_kept(&[Request::Batch { batch: Batch { steps } }]);
        let answers = match answers.and_then(|steps| within(steps, wanted.len())) {
            Ok(answers) => answers,
            Err(e) => {
                // Its transaction may be open still.
                self.end();
                return Err(e);
            }
        };
        let base = self.base.take();
        self.kept = self.baton.take().map(|baton| Kept { baton, base, since: Instant::now() });
        if answers.iter().any(|a| a.as_ref().is_err_and(|e| e.kind() == Kind::TooLarge)) {
            return Err(Error::new(
                Kind::TooLarge,
                format!("source {}: the answer is too large", self.server),
            ));
        }
        self.keep(wanted, answers.into_iter().map(|a| a.map(|rows| vec![rows])).collect(), false);
        self.state = State::Foreseen;
        Ok(())
    }

    /// Sends one request on the stream that was kept, or on a new one.
    fn on_kept(&mut self, request: &[Request]) -> Result<Vec<Result<Rows>>> {
        let kept = self.kept.take().filter(|kept| kept.since.elapsed() < IDLE);
        let was_kept = kept.is_some();
        (self.baton, self.base) = kept.map_or((None, None), |kept| (Some(kept.baton), kept.base));
        let mut sent = self.send(request);
        if was_kept && sent.as_ref().is_err_and(|e| e.kind() == Kind::Unavailable) {
            // The server has forgotten the stream, or is another one by now.
            self.forget();
            sent = self.send(request);
        }
        if sent.is_err() {
            self.forget();
        }
        sent?.pop().unwrap_or_else(|| Err(fail::garbled("no result")))
    }
}

/// What stands between BEGIN and COMMIT is of one transaction, if both worked.
fn within(mut steps: Vec<Result<Rows>>, wanted: usize) -> Result<Vec<Result<Rows>>> {
    if steps.len() != wanted + 2 {
        return Err(fail::garbled("too few steps"));
    }
    steps.pop().unwrap_or_else(|| Err(fail::garbled("no result")))?;
    steps.remove(0)?;
    Ok(steps)
}
