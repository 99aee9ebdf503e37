//! The JSON of Hrana over HTTP, as far as it is spoken here: pipelines of executes, batches and describes.
//!
//! Source: the protocol's specification, "Hrana over HTTP" versions 2 and 3, in the libSQL repository.

use super::fail;
use crate::error::{Error, Kind, Result};
use crate::source::sql::plain_text;
use crate::utf16::Encoding;
use crate::value::Value;
use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Servers send blobs without padding; some libraries between pad them.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[derive(Serialize)]
pub(super) struct Pipeline<'a> {
    pub baton: Option<&'a str>,
    pub requests: &'a [Request],
}

#[derive(Clone, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Request {
    Execute { stmt: Stmt },
    Batch { batch: Batch },
    Describe { sql: String },
    Close,
}

#[derive(Clone, Serialize)]
pub(super) struct Stmt {
    pub sql: String,
    pub args: Vec<Arg>,
    pub want_rows: bool,
}

#[derive(Clone, Serialize)]
pub(super) struct Batch {
    pub steps: Vec<Step>,
}

#[derive(Clone, Serialize)]
pub(super) struct Step {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<Condition>,
    pub stmt: Stmt,
}

#[derive(Clone, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Condition {
    Ok { step: usize },
    Not { cond: Box<Condition> },
    IsAutocommit,
}

#[derive(Clone, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Arg {
    Null,
    Integer { value: String },
    Float { value: f64 },
    Text { value: String },
    Blob { base64: String },
}

impl Stmt {
    pub fn new(sql: impl Into<String>, binds: &[Value], encoding: Encoding) -> Self {
        let args = binds.iter().map(|v| arg(v, encoding)).collect();
        Self { sql: sql.into(), args, want_rows: true }
    }
}

/// Text that JSON cannot carry is bound as a blob and cast back by the statement (`placeholder`).
fn arg(value: &Value, encoding: Encoding) -> Arg {
    let blob = |b: &[u8]| Arg::Blob { base64: BASE64.encode(b) };
    match value {
        Value::Integer(i) => Arg::Integer { value: i.to_string() },
        Value::Real(r) if r.is_finite() => Arg::Float { value: *r },
        // JSON has no infinity: `placeholder` says it in SQL.
        Value::Null | Value::Real(_) => Arg::Null,
        Value::Text(t) => match plain_text(t) {
            Some(text) => Arg::Text { value: text.to_owned() },
            None => blob(&encoding.bytes(t)),
        },
        Value::Blob(b) | Value::Utf16le(b) | Value::Utf16be(b) => blob(b),
    }
}

#[derive(Deserialize)]
pub(super) struct Answer<'a> {
    pub baton: Option<String>,
    pub base_url: Option<String>,
    #[serde(borrow)]
    pub results: Vec<Outcome<'a>>,
}

/// `ok` with a response, or `error` with an error.
#[derive(Deserialize)]
pub(super) struct Outcome<'a> {
    #[serde(borrow)]
    response: Option<Response<'a>>,
    error: Option<Failure>,
}

#[derive(Deserialize)]
struct Response<'a> {
    #[serde(borrow)]
    result: Option<Answered<'a>>,
}

/// A statement's result, or a batch's, of which the latter holds the former.
#[derive(Deserialize)]
struct Answered<'a> {
    #[serde(borrow, default)]
    rows: Vec<Vec<Cell<'a>>>,
    #[serde(default)]
    rows_read: u64,
    #[serde(borrow)]
    step_results: Option<Vec<Option<Answered<'a>>>>,
    step_errors: Option<Vec<Option<Failure>>>,
}

#[derive(Deserialize)]
struct Failure {
    message: String,
    code: Option<String>,
}

#[derive(Deserialize)]
struct Cell<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    value: Option<Scalar<'a>>,
    #[serde(borrow)]
    base64: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar<'a> {
    Number(f64),
    #[serde(borrow)]
    Text(Cow<'a, str>),
}

/// The rows of one statement.
#[derive(Clone, Debug, Default)]
pub(super) struct Rows(pub Vec<Vec<Value>>);

impl Outcome<'_> {
    /// What came of each statement, and how many rows the server read for them. A step that its condition
    /// kept from running is an error: the transaction is no longer open.
    pub fn take(self, read: &mut u64) -> Result<Vec<Result<Rows>>> {
        if let Some(e) = self.error {
            return Err(e.into_error());
        }
        let Some(result) = self.response.and_then(|r| r.result) else { return Ok(Vec::new()) };
        let Some(steps) = result.step_results else { return Ok(vec![result.rows(read)]) };
        let mut errors = result.step_errors.into_iter().flatten();
        let cut = || Error::new(Kind::Unavailable, "the server has ended the transaction");
        let step = |step: Option<Answered<'_>>| match errors.next().flatten() {
            Some(e) => Err(e.into_error()),
            None => step.ok_or_else(cut)?.rows(read),
        };
        Ok(steps.into_iter().map(step).collect())
    }
}

impl Answered<'_> {
    fn rows(self, read: &mut u64) -> Result<Rows> {
        *read = read.saturating_add(self.rows_read);
        let row = |cells: Vec<Cell<'_>>| cells.into_iter().map(Cell::value).collect();
        Ok(Rows(self.rows.into_iter().map(row).collect::<Result<_>>()?))
    }
}

impl Failure {
    fn into_error(self) -> Error {
        fail::of_statement(self.code.as_deref(), &self.message)
    }
}

impl Cell<'_> {
    fn value(self) -> Result<Value> {
        let text = |v: Option<Scalar<'_>>| match v {
            Some(Scalar::Text(t)) => Some(t.into_owned()),
            _ => None,
        };
        let value = match &*self.kind {
            "null" => Some(Value::Null),
            "integer" => text(self.value).and_then(|t| t.parse().ok()).map(Value::Integer),
            "float" => match self.value {
                Some(Scalar::Number(r)) => Some(Value::Real(r)),
                _ => None,
            },
            "text" => text(self.value).map(|t| Value::Text(t.into_bytes())),
            "blob" => self.base64.and_then(|b| BASE64.decode(b.as_bytes()).ok()).map(Value::Blob),
            _ => None,
        };
        value.ok_or_else(|| fail::garbled("a value in it"))
    }
}
