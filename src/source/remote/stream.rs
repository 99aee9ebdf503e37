//! One connection to a server in the sense of SQL: a transaction is a stream of requests that the server ties
//! together by batons, or, where everything to be asked is known beforehand, one single request.
//!
//! A baton dies after ten idle seconds and a writing transaction after five: whatever is answered from outside
//! of the transaction that was begun is an error that may pass, never a result. Writes are held back until
//! something is read or committed, so that they cost no round trip of their own.

use super::client::Server;
use super::fail;
use super::once::{Ahead, Kept};
use super::pack::{Form, Packed, Unpacked};
use super::talk::{Answers, Talk, Told};
use super::wire::{Batch, Condition, Request, Rows, Step, Stmt};
use crate::capture::statements;
use crate::error::{Error, Kind, Result};
use crate::source::sql::{Cells, Row};
use crate::utf16::Encoding;
use crate::value::Value;
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

/// Forms kept; beyond it all are dropped and made again as they are used.
const FORMS: usize = 512;
/// How many bytes of a row's contents are asked for at once when the row is too large for one answer.
const PIECE: usize = 1 << 20;

pub(crate) struct Stream {
    pub(super) server: Arc<Server>,
    pub encoding: Encoding,
    pub(super) talk: Talk,
    pub(super) state: State,
    /// Streams that the next transactions in one request go on with.
    pub(super) kept: Vec<Kept>,
    /// The next such transactions, as far as they are asked for already.
    pub(super) ahead: VecDeque<Ahead>,
    /// When the last one was asked for: what it says was so then, or later.
    pub asked_at: Option<Instant>,
    /// Writes that are not sent yet.
    behind: Vec<Stmt>,
    /// Answers to what was asked ahead.
    known: Vec<Known>,
    forms: HashMap<String, Arc<Form>>,
    /// A statement was not among those foreseen.
    missed: bool,
    too_large: bool,
    /// How many bytes the last answer had.
    pub last_answer: Option<usize>,
    /// Rows too large for one answer are read in pieces.
    pub in_pieces: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum State {
    /// No transaction: each statement is a request of its own.
    Auto,
    /// BEGIN goes out with the next request.
    Begun,
    /// The server has a transaction of ours open.
    Open,
    /// A transaction that is over already; its answers are known.
    Foreseen,
}

struct Known {
    sql: String,
    binds: Vec<Value>,
    /// Only whether it can be prepared was asked.
    check: bool,
    answer: Result<Rows>,
}

/// The values of one row, as callers count its columns.
pub(crate) struct Values {
    values: RefCell<Vec<Value>>,
    form: Arc<Form>,
}

impl Values {
    fn place(&self, column: usize) -> Option<usize> {
        match &self.form.packed {
            None => Some(column),
            Some(p) => p.columns.iter().find(|(c, _)| *c == column).map(|(_, place)| *place),
        }
    }

    pub fn value(&self, column: usize) -> Result<Value> {
        let values = self.values.borrow();
        self.place(column).and_then(|at| values.get(at)).cloned().ok_or_else(no_column)
    }

    /// Moves `n` values out.
    pub fn take(&self, column: usize, n: usize, out: &mut Vec<Value>) -> Result<()> {
        let mut values = self.values.borrow_mut();
        let from = self.place(column).ok_or_else(no_column)?;
        let taken = values.get_mut(from..from + n).ok_or_else(no_column)?;
        out.extend(taken.iter_mut().map(|v| std::mem::replace(v, Value::Null)));
        Ok(())
    }
}

fn no_column() -> Error {
    Error::new(Kind::Source, "a column that was not asked for")
}

impl Stream {
    pub fn new(server: &Arc<Server>) -> Self {
        Self {
            server: Arc::clone(server),
            encoding: Encoding::Utf8,
            talk: Talk::new(server),
            state: State::Auto,
            kept: Vec::new(),
            ahead: VecDeque::new(),
            asked_at: None,
            behind: Vec::new(),
            known: Vec::new(),
            forms: HashMap::new(),
            missed: false,
            too_large: false,
            last_answer: None,
            in_pieces: false,
        }
    }

    pub fn in_transaction(&self) -> bool {
        self.state != State::Auto
    }

    /// Whether the last transaction needed a statement that was not foreseen; asking forgets it.
    pub fn take_missed(&mut self) -> bool {
        std::mem::take(&mut self.missed)
    }

    pub fn take_too_large(&mut self) -> bool {
        std::mem::take(&mut self.too_large)
    }

    pub fn rows<B>(
        &mut self,
        sql: &str,
        binds: &[Value],
        mut each: impl FnMut(&Row<'_>) -> Result<ControlFlow<B>>,
    ) -> Result<Option<B>> {
        let form = self.form(sql);
        let answer = self.answer(sql, &form, binds, false);
        let Some(packed) = &form.packed else {
            for values in answer?.0 {
                let values = Values { values: RefCell::new(values), form: Arc::clone(&form) };
                if let ControlFlow::Break(b) = each(&Row::new(Cells::Server(&values), self.encoding))? {
                    return Ok(Some(b));
                }
            }
            return Ok(None);
        };
        let answer = match answer {
            Err(e) if e.kind() == Kind::TooLarge && self.in_pieces => {
                return self.rows_in_pieces(&form, packed, binds, each);
            }
            answer => answer?,
        };
        let (count, bytes) = whole(answer)?;
        let (mut rest, mut zeros) = (bytes.as_slice(), None);
        for n in 0..count {
            let mut row = packed.row(&mut rest, self.encoding)?;
            if row.zeros {
                if zeros.is_none() {
                    zeros = Some(self.zeros(packed, binds)?);
                }
                put_zeros(&mut row, zeros.as_ref().and_then(|z: &Rows| z.0.get(n)));
            }
            let values = Values { values: RefCell::new(row.values), form: Arc::clone(&form) };
            if let ControlFlow::Break(b) = each(&Row::new(Cells::Server(&values), self.encoding))? {
                return Ok(Some(b));
            }
        }
        if rest.is_empty() { Ok(None) } else { Err(fail::garbled("more than its rows")) }
    }

    /// Zeros as the server has them: their sign is lost in every text that SQL could make of them.
    fn zeros(&mut self, packed: &Packed, binds: &[Value]) -> Result<Rows> {
        let text = packed.zeros();
        let form = Arc::new(Form { text: text.clone(), packed: None });
        self.answer(&text, &form, binds, false)
    }

    /// The same rows, whose contents are asked for bit by bit, all in this transaction.
    fn rows_in_pieces<B>(
        &mut self,
        form: &Arc<Form>,
        packed: &Packed,
        binds: &[Value],
        mut each: impl FnMut(&Row<'_>) -> Result<ControlFlow<B>>,
    ) -> Result<Option<B>> {
        let (count, bytes) = whole(self.ask(packed.lengths(), binds)?)?;
        let mut rest = bytes.as_slice();
        for n in 0..count {
            let (mut row, lengths) = packed.row_of_lengths(&mut rest)?;
            if row.zeros {
                let zeros = self.zeros(packed, binds)?;
                put_zeros(&mut row, zeros.0.get(n));
            }
            for (value, (slot, len)) in row.values.iter_mut().zip(lengths).enumerate() {
                let contents = self.contents((packed, binds), (n, value), len)?;
                match slot {
                    Value::Text(_) => *slot = self.encoding.text(contents),
                    Value::Blob(b) => *b = contents,
                    _ => {}
                }
            }
            let values = Values { values: RefCell::new(row.values), form: Arc::clone(form) };
            if let ControlFlow::Break(b) = each(&Row::new(Cells::Server(&values), self.encoding))? {
                return Ok(Some(b));
            }
        }
        Ok(None)
    }

    /// The contents of one value; the pieces become smaller if even they are too large.
    fn contents(
        &mut self,
        (packed, binds): (&Packed, &[Value]),
        (row, value): (usize, usize),
        len: usize,
    ) -> Result<Vec<u8>> {
        let (mut out, mut size) = (Vec::with_capacity(len), PIECE);
        while out.len() < len {
            let want = size.min(len - out.len());
            let got = match self.ask(packed.piece(row, value, out.len(), want), binds) {
                Err(e) if e.kind() == Kind::TooLarge && size > 1024 => {
                    size /= 2;
                    continue;
                }
                got => got?.0.pop().and_then(|mut r| r.pop()),
            };
            match got {
                Some(Value::Blob(b)) if b.len() == want => out.extend(b),
                _ => return Err(fail::garbled("a piece of a row")),
            }
        }
        Ok(out)
    }

    pub fn run(&mut self, sql: &str, binds: &[Value]) -> Result<()> {
        match sql {
            "BEGIN" => {
                self.end();
                self.ahead.clear();
                self.asked_at = None;
                self.state = State::Begun;
                Ok(())
            }
            "BEGIN IMMEDIATE" => {
                self.end();
                let begin = Request::Execute { stmt: Stmt::new(sql, &[], self.encoding) };
                let results = self.exchange(vec![begin], false)?;
                results.into_iter().next().unwrap_or_else(|| Err(fail::garbled("no result")))?;
                self.state = State::Open;
                Ok(())
            }
            "COMMIT" => self.commit(),
            "ROLLBACK" => {
                self.end();
                Ok(())
            }
            _ => {
                let mut stmt = Stmt::new(self.form(sql).text.clone(), binds, self.encoding);
                stmt.want_rows = false;
                self.known.clear();
                self.behind.push(stmt);
                if self.in_transaction() { Ok(()) } else { self.exchange(Vec::new(), true).map(|_| ()) }
            }
        }
    }

    pub fn script(&mut self, sql: &str) -> Result<()> {
        statements(sql).iter().try_for_each(|s| self.run(s, &[]))
    }

    pub fn check(&mut self, sql: &str) -> Result<()> {
        let form = self.form(sql);
        self.answer(sql, &form, &[], true).map(|_| ())
    }

    /// Asks for all of this in one request; the answers wait until they are asked for one by one.
    pub fn ahead(&mut self, wanted: &[(String, Vec<Value>)]) -> Result<()> {
        if !matches!(self.state, State::Begun | State::Open) || wanted.is_empty() {
            return Ok(());
        }
        let requests = wanted.iter().map(|(sql, binds)| {
            let form = self.form(sql);
            self.guarded(Stmt::new(form.text.clone(), binds, self.encoding))
        });
        let requests = requests.collect();
        let answers = self.exchange(requests, false)?;
        self.keep(wanted, answers, false);
        Ok(())
    }

    /// The same for whether statements can be prepared.
    pub fn check_ahead(&mut self, wanted: &[String]) -> Result<()> {
        if !matches!(self.state, State::Begun | State::Open) || wanted.is_empty() {
            return Ok(());
        }
        let requests =
            wanted.iter().map(|sql| Request::Describe { sql: self.form(sql).text.clone() }).collect();
        let answers = self.exchange(requests, false)?;
        let wanted: Vec<_> = wanted.iter().map(|sql| (sql.clone(), Vec::new())).collect();
        self.keep(&wanted, answers, true);
        Ok(())
    }

    pub(super) fn keep(
        &mut self,
        wanted: &[(String, Vec<Value>)],
        answers: Vec<Result<Vec<Rows>>>,
        check: bool,
    ) {
        for ((sql, binds), answer) in wanted.iter().zip(answers) {
            let answer = answer.map(|mut rows| rows.pop().unwrap_or_default());
            self.known.push(Known { sql: sql.clone(), binds: binds.clone(), check, answer });
        }
    }

    /// The answer to one statement: known, or asked for.
    fn answer(&mut self, sql: &str, form: &Form, binds: &[Value], check: bool) -> Result<Rows> {
        let known = self.known.iter().position(|k| k.check == check && k.sql == sql && k.binds == binds);
        if let Some(at) = known {
            return self.known.swap_remove(at).answer;
        }
        if self.state == State::Foreseen {
            self.missed = true;
            return Err(Error::new(Kind::Unavailable, format!("source {}: asked again", self.server)));
        }
        if check {
            let asked =
                self.exchange(vec![Request::Describe { sql: form.text.clone() }], self.state == State::Auto)?;
            return only(asked);
        }
        self.ask(form.text.clone(), binds)
    }

    fn ask(&mut self, text: String, binds: &[Value]) -> Result<Rows> {
        let request = self.guarded(Stmt::new(text, binds, self.encoding));
        let asked = self.exchange(vec![request], self.state == State::Auto)?;
        only(asked)
    }

    pub(super) fn form(&mut self, sql: &str) -> Arc<Form> {
        if let Some(form) = self.forms.get(sql) {
            return Arc::clone(form);
        }
        if self.forms.len() >= FORMS {
            self.forms.clear();
        }
        let form = Arc::new(Form::of(sql, self.encoding));
        self.forms.insert(sql.to_owned(), Arc::clone(&form));
        form
    }

    /// A statement that runs only inside the transaction that was begun.
    fn guarded(&self, stmt: Stmt) -> Request {
        if !self.in_transaction() || self.server.is_v2() {
            return Request::Execute { stmt };
        }
        Request::Batch { batch: Batch { steps: vec![Step { condition: Some(in_transaction()), stmt }] } }
    }

    /// Statements of which each runs only if the one before did.
    fn chain(&self, stmts: Vec<Stmt>) -> Request {
        let guard = (self.in_transaction() && !self.server.is_v2()).then(in_transaction);
        let step = |(n, stmt): (usize, Stmt)| {
            let condition = if n == 0 { guard.clone() } else { Some(Condition::Ok { step: n - 1 }) };
            Step { condition, stmt }
        };
        Request::Batch { batch: Batch { steps: stmts.into_iter().enumerate().map(step).collect() } }
    }

    /// A writing transaction in one request.
    pub fn atomically(&mut self, writes: &[(String, Vec<Value>)]) -> Result<()> {
        self.end();
        let mut all = vec![Stmt::new("BEGIN IMMEDIATE", &[], self.encoding)];
        all.extend(writes.iter().map(|(sql, binds)| Stmt::new(sql.clone(), binds, self.encoding)));
        all.push(Stmt::new("COMMIT", &[], self.encoding));
        let chain = self.chain(all);
        let answers = self.exchange(vec![chain], true)?;
        answers.into_iter().next().unwrap_or_else(|| Err(fail::garbled("no result"))).map(|_| ())
    }

    fn commit(&mut self) -> Result<()> {
        if matches!(self.state, State::Auto | State::Foreseen)
            || (self.state == State::Begun && self.behind.is_empty())
        {
            self.end();
            return Ok(());
        }
        let mut all = std::mem::take(&mut self.behind);
        all.push(Stmt::new("COMMIT", &[], self.encoding));
        let chain = self.chain(all);
        let answers = self.exchange(vec![chain], true)?;
        answers.into_iter().next().unwrap_or_else(|| Err(fail::garbled("no result")))?;
        Ok(())
    }

    /// Leaves the transaction, if there is one, without committing it.
    pub(super) fn end(&mut self) {
        self.behind.clear();
        self.known.clear();
        if self.talk.is_open() && self.exchange(Vec::new(), true).is_err() {
            tracing::debug!("source {}: a stream could not be closed; it expires by itself", self.server);
        }
        self.forget();
    }

    pub(super) fn forget(&mut self) {
        self.talk.forget();
        self.state = State::Auto;
        self.behind.clear();
        self.known.clear();
    }

    /// Sends requests, behind whatever is held back. `last`: the stream is closed with them.
    fn exchange(&mut self, requests: Vec<Request>, last: bool) -> Result<Vec<Result<Vec<Rows>>>> {
        let mut all = Vec::with_capacity(requests.len() + 3);
        if self.state == State::Begun {
            all.push(Request::Execute { stmt: Stmt::new("BEGIN", &[], self.encoding) });
        }
        if !self.behind.is_empty() {
            let behind = std::mem::take(&mut self.behind);
            all.push(self.chain(behind));
        }
        let lead = all.len();
        all.extend(requests);
        if last {
            all.push(Request::Close);
        }
        let whole = |answers: Answers| answers.and_then(|steps| steps.into_iter().collect());
        let mut results: Vec<Result<Vec<Rows>>> = match self.send(&all) {
            Ok(results) => results.into_iter().map(whole).collect(),
            Err(e) => {
                self.forget();
                return Err(e);
            }
        };
        if last {
            results.pop();
            self.forget();
        } else if !self.talk.is_open() {
            self.forget();
            return Err(Error::new(
                Kind::Unavailable,
                format!("source {}: the server has closed the stream", self.server),
            ));
        } else if self.state == State::Begun {
            self.state = State::Open;
        }
        let rest = results.split_off(lead);
        for first in results {
            first?;
        }
        Ok(rest)
    }

    fn send(&mut self, requests: &[Request]) -> Result<Vec<Answers>> {
        let told = self.talk.send(requests);
        self.note(&told);
        told.map(|told| told.results)
    }

    /// How much an answer was, or that it would have been too much.
    pub(super) fn note(&mut self, told: &Result<Told>) {
        self.last_answer = told.as_ref().ok().map(|told| told.bytes);
        self.too_large |= match told {
            Ok(told) => told.results.iter().any(|answers| match answers {
                Ok(steps) => steps.iter().any(is_too_large),
                Err(e) => e.kind() == Kind::TooLarge,
            }),
            Err(e) => e.kind() == Kind::TooLarge,
        };
    }
}

fn is_too_large(step: &Result<Rows>) -> bool {
    step.as_ref().is_err_and(|e| e.kind() == Kind::TooLarge)
}

fn in_transaction() -> Condition {
    Condition::Not { cond: Box::new(Condition::IsAutocommit) }
}

fn only(answers: Vec<Result<Vec<Rows>>>) -> Result<Rows> {
    let first = answers.into_iter().next().unwrap_or_else(|| Err(fail::garbled("no result")))?;
    Ok(first.into_iter().next().unwrap_or_default())
}

/// A packed answer: how many rows, and their bytes.
pub(super) fn whole(answer: Rows) -> Result<(usize, Vec<u8>)> {
    let row = answer.0.into_iter().next().unwrap_or_default();
    let mut row = row.into_iter();
    match (row.next(), row.next()) {
        (Some(Value::Integer(0)), Some(Value::Null)) => Ok((0, Vec::new())),
        (Some(Value::Integer(n)), Some(Value::Blob(b) | Value::Text(b))) => {
            Ok((usize::try_from(n).unwrap_or(0), b))
        }
        _ => Err(fail::garbled("a packed answer")),
    }
}

fn put_zeros(row: &mut Unpacked, zeros: Option<&Vec<Value>>) {
    for (value, zero) in row.values.iter_mut().zip(zeros.into_iter().flatten()) {
        if let Value::Real(_) = zero {
            *value = zero.clone();
        }
    }
}
