//! A window's transaction in one request: one batch, on a stream that stays open for the next.
//!
//! A batch is one task of the server's where statements of their own are one each; and a stream that is gone on with
//! spares the server a new connection to its database: together most of what an answer took.
//!
//! The next windows of a backlog are asked for while the last one is still taken apart, on streams of their own. Such
//! an answer is used only if nothing else is wanted by then, and counts as read when it was asked for.

use super::fail;
use super::stream::{State, Stream};
use super::talk::{Talk, Told};
use super::wire::{Batch, Request, Rows, Step, Stmt};
use crate::error::{Error, Kind, Result};
use crate::value::Value;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// A server forgets a stream that was idle for ten seconds.
const IDLE: Duration = Duration::from_secs(7);

/// A stream without a transaction.
pub(super) struct Kept {
    talk: Talk,
    since: Instant,
}

/// A transaction that is asked for on a thread of its own.
pub(super) struct Ahead {
    wanted: Vec<(String, Vec<Value>)>,
    asking: JoinHandle<Asked>,
}

struct Asked {
    at: Instant,
    talk: Talk,
    told: Result<Told>,
}

impl Stream {
    /// A whole transaction in one request, of which every statement is known beforehand.
    pub fn foresee(&mut self, wanted: &[(String, Vec<Value>)]) -> Result<()> {
        self.end();
        let ahead = self.ahead.pop_front().filter(|ahead| ahead.wanted == wanted);
        if ahead.is_none() {
            self.ahead.clear();
        }
        let asked = match ahead.and_then(|ahead| ahead.asking.join().ok()) {
            Some(asked) => asked,
            None => self.transaction(wanted)(),
        };
        self.note(&asked.told);
        self.talk = asked.talk;
        let steps = asked.told.and_then(|mut told| told.results.pop().unwrap_or_else(no_result));
        let answers = match steps.and_then(|steps| within(steps, wanted.len())) {
            Ok(answers) => answers,
            Err(e) => {
                // Its transaction may be open still.
                self.end();
                return Err(e);
            }
        };
        let talk = std::mem::replace(&mut self.talk, Talk::new(&self.server));
        self.kept.extend(talk.is_open().then(|| Kept { talk, since: Instant::now() }));
        if answers.iter().any(|a| a.as_ref().is_err_and(|e| e.kind() == Kind::TooLarge)) {
            return Err(Error::new(
                Kind::TooLarge,
                format!("source {}: the answer is too large", self.server),
            ));
        }
        self.keep(wanted, answers.into_iter().map(|a| a.map(|rows| vec![rows])).collect(), false);
        (self.state, self.asked_at) = (State::Foreseen, Some(asked.at));
        Ok(())
    }

    /// Asks for a transaction that will probably be wanted next, and does not wait for its answer.
    pub fn ask_ahead(&mut self, wanted: Vec<(String, Vec<Value>)>) {
        let ask = self.transaction(&wanted);
        // Without a thread it is asked for when it is wanted.
        let asking = Builder::new().name("redtail-ahead".into()).spawn(ask).ok();
        self.ahead.extend(asking.map(|asking| Ahead { wanted, asking }));
    }

    pub fn asked_ahead(&self) -> usize {
        self.ahead.len()
    }

    /// What asks for a transaction, on the stream that was kept or on a new one.
    fn transaction(&mut self, wanted: &[(String, Vec<Value>)]) -> impl FnOnce() -> Asked + Send + use<> {
        let encoding = self.encoding;
        let mut stmts = vec![Stmt::new("BEGIN", &[], encoding)];
        for (sql, binds) in wanted {
            stmts.push(Stmt::new(self.form(sql).text.clone(), binds, encoding));
        }
        stmts.push(Stmt::new("COMMIT", &[], encoding));
        let steps = stmts.into_iter().map(|stmt| Step { condition: None, stmt }).collect();
        let request = [Request::Batch { batch: Batch { steps } }];
        let (kept, server) = (self.kept.pop(), Arc::clone(&self.server));
        move || {
            let kept = kept.filter(|kept| kept.since.elapsed() < IDLE);
            let was_kept = kept.is_some();
            let mut talk = kept.map_or_else(|| Talk::new(&server), |kept| kept.talk);
            let mut at = Instant::now();
            let mut told = talk.send(&request);
            if was_kept && told.as_ref().is_err_and(|e| e.kind() == Kind::Unavailable) {
                // The server has forgotten the stream, or is another one by now.
                talk.forget();
                at = Instant::now();
                told = talk.send(&request);
            }
            if told.is_err() {
                talk.forget();
            } else if !told.as_ref().is_ok_and(is_over) {
                // Nobody else ends it where the answer is not wanted any more.
                let _ = talk.send(&[Request::Close]);
                talk.forget();
            }
            Asked { at, talk, told }
        }
    }
}

fn no_result<T>() -> Result<T> {
    Err(fail::garbled("no result"))
}

/// Whether COMMIT worked.
fn is_over(told: &Told) -> bool {
    let steps = told.results.last().and_then(|steps| steps.as_ref().ok());
    steps.and_then(|steps| steps.last()).is_some_and(Result::is_ok)
}

/// What stands between BEGIN and COMMIT is of one transaction, if both worked.
fn within(mut steps: Vec<Result<Rows>>, wanted: usize) -> Result<Vec<Result<Rows>>> {
    if steps.len() != wanted + 2 {
        return Err(fail::garbled("too few steps"));
    }
    steps.pop().unwrap_or_else(no_result)?;
    steps.remove(0)?;
    Ok(steps)
}
