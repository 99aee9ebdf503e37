//! In place of `sqlite` where redtail is built without the feature `local`: a back end that nobody can have, so that no
//! SQLite is linked. Opening one says what is missing.

use super::sql::Row;
use crate::error::{Error, Result};
use crate::utf16::Encoding;
use crate::value::Value;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

pub(crate) enum File {}

/// A row of a file.
pub(crate) enum Columns {}

impl File {
    pub fn open(path: &Path, _: Duration) -> Result<Self> {
        Err(missing(&format!("source {}", path.display())))
    }

    /// What SQLite thinks of an expression is not known without it.
    pub fn scratch() -> Result<Self> {
        Err(missing("what a filter or a mask comes to"))
    }

    pub fn busy_timeout(&mut self, _: Duration) -> Result<()> {
        match *self {}
    }

    pub fn rows<B>(
        &mut self,
        _: &str,
        _: &[Value],
        _: Encoding,
        _: impl FnMut(&Row<'_>) -> Result<ControlFlow<B>>,
    ) -> Result<Option<B>> {
        match *self {}
    }

    pub fn script(&mut self, _: &str) -> Result<()> {
        match *self {}
    }

    pub fn check(&mut self, _: &str) -> Result<()> {
        match *self {}
    }

    pub fn in_transaction(&self) -> bool {
        match *self {}
    }
}

pub(crate) fn cell(row: &Columns, _: usize) -> Result<Value> {
    match *row {}
}

/// What to say where a file, or SQLite itself, is wanted.
fn missing(what: &str) -> Error {
    Error::usage(format!(
        "{what}: SQLite is wanted for it, and this redtail was built without (its feature `local`)"
    ))
}
