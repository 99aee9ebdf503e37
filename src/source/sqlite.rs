//! The back end of a source that is a file: one libSQL connection with its prepared statements.
//!
//! Every statement is reset when it is left, because an open one holds its snapshot.

use super::exact;
use super::sql::{Cells, Row, plain, plain_text};
use crate::error::{Error, Kind, Result};
use crate::utf16::Encoding;
use crate::value::Value;
use futures::FutureExt;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

/// Statements kept prepared; beyond it all are dropped and prepared again as they are used.
const PREPARED: usize = 256;

/// A row of a file.
pub(crate) use libsql::Row as Columns;

pub(crate) struct File {
    connection: libsql::Connection,
    prepared: HashMap<String, Prepared>,
}

struct Prepared {
    statement: libsql::Statement,
    /// By column: the mask that is the same for every row.
    masks: Vec<Option<u64>>,
}

/// `SQLITE_OPEN_NOMUTEX` (<https://sqlite.org/c3ref/open.html>): a connection is used by one thread at a time,
/// which `&mut self` makes sure of. Otherwise every row and every value of it locks and unlocks a mutex.
const NO_MUTEX: i32 = 0x8000;

fn flags() -> libsql::OpenFlags {
    libsql::OpenFlags::from_bits_retain(libsql::OpenFlags::SQLITE_OPEN_READ_WRITE.bits() | NO_MUTEX)
}

/// Local libsql is async in name only: a call that is not ready at once is our mistake.
fn now<T>(future: impl Future<Output = T>) -> T {
    let done = future.now_or_never();
    assert!(done.is_some(), "a local call of libsql waited");
    done.unwrap_or_else(|| unreachable!())
}

impl File {
    /// Opens an existing database file; never creates one, never switches its journal mode.
    pub fn open(path: &Path, busy_timeout: Duration) -> Result<Self> {
        let shown = path.display();
        match std::fs::metadata(path) {
            Err(e) => return Err(Error::usage(format!("source {shown}: {}", plain(&e)))),
            Ok(m) if !m.is_file() => {
                return Err(Error::usage(format!("source {shown}: not a file; give the database file")));
            }
            Ok(_) => {}
        }
        let database =
            now(libsql::Builder::new_local(path).flags(flags()).build()).map_err(|e| classify(&e))?;
        let connection = database.connect().map_err(|_| {
            Error::usage(format!(
                "source {shown}: cannot be opened; check the permissions of the file and its folder"
            ))
        })?;
        connection.busy_timeout(busy_timeout).map_err(|e| classify(&e))?;
        Ok(Self { connection, prepared: HashMap::new() })
    }

    pub fn scratch() -> Result<Self> {
        let database = now(libsql::Builder::new_local(":memory:").build()).map_err(|e| classify(&e))?;
        let connection = database.connect().map_err(|e| classify(&e))?;
        Ok(Self { connection, prepared: HashMap::new() })
    }

    pub fn busy_timeout(&mut self, time: Duration) -> Result<()> {
        self.connection.busy_timeout(time).map_err(|e| classify(&e))
    }

    pub fn rows<B>(
        &mut self,
        sql: &str,
        binds: &[Value],
        encoding: Encoding,
        mut each: impl FnMut(&Row<'_>) -> Result<ControlFlow<B>>,
    ) -> Result<Option<B>> {
        let Prepared { statement, masks } = self.prepare(sql)?;
        let result = (|| {
            let mut rows = now(statement.query(bound(binds, encoding))).map_err(|e| classify(&e))?;
            while let Some(row) = now(rows.next()).map_err(|e| classify(&e))? {
                if let ControlFlow::Break(b) = each(&Row::new(Cells::File(&row, masks), encoding))? {
                    return Ok(Some(b));
                }
            }
            Ok(None)
        })();
        statement.reset();
        result
    }

    pub fn script(&mut self, sql: &str) -> Result<()> {
        now(self.connection.execute_batch(sql)).map(|_| ()).map_err(|e| classify(&e))
    }

    /// The statement itself is prepared when it is used: a table is checked in every session, and seldom read.
    pub fn check(&mut self, sql: &str) -> Result<()> {
        now(self.connection.prepare(&exact::as_plain(sql))).map(|_| ()).map_err(|e| classify(&e))
    }

    pub fn in_transaction(&self) -> bool {
        !self.connection.is_autocommit()
    }

    fn prepare(&mut self, sql: &str) -> Result<&mut Prepared> {
        if !self.prepared.contains_key(sql) {
            if self.prepared.len() >= PREPARED {
                self.prepared.clear();
            }
            let text = exact::as_columns(sql);
            let statement = now(self.connection.prepare(&text)).map_err(|e| classify(&e))?;
            let masks = statement.columns().iter().map(|c| exact::mask_of(c.name())).collect();
            self.prepared.insert(sql.to_owned(), Prepared { statement, masks });
        }
        self.prepared.get_mut(sql).ok_or_else(|| Error::new(Kind::Source, "statement was not kept"))
    }
}

/// A column of a row, as it is.
pub(crate) fn cell(row: &Columns, column: usize) -> Result<Value> {
    let column = i32::try_from(column).map_err(|_| Error::new(Kind::Source, "too many columns"))?;
    Ok(match row.get_value(column).map_err(|e| classify(&e))? {
        libsql::Value::Null => Value::Null,
        libsql::Value::Integer(i) => Value::Integer(i),
        libsql::Value::Real(r) => Value::Real(r),
        libsql::Value::Text(t) => Value::Text(t.into_bytes()),
        libsql::Value::Blob(b) => Value::Blob(b),
    })
}

/// Text that libsql cannot carry is bound as a blob and cast back by the statement (`placeholder`).
fn bound(binds: &[Value], encoding: Encoding) -> Vec<libsql::Value> {
    let one = |v: &Value| match v {
        Value::Null => libsql::Value::Null,
        Value::Integer(i) => libsql::Value::Integer(*i),
        Value::Real(r) => libsql::Value::Real(*r),
        Value::Text(t) => match plain_text(t) {
            Some(text) => libsql::Value::Text(text.to_owned()),
            None => libsql::Value::Blob(encoding.bytes(t)),
        },
        Value::Blob(b) | Value::Utf16le(b) | Value::Utf16be(b) => libsql::Value::Blob(b.clone()),
    };
    binds.iter().map(one).collect()
}

/// SQLite's primary result codes, in the classes that matter here (<https://sqlite.org/rescode.html>).
fn classify(e: &libsql::Error) -> Error {
    let libsql::Error::SqliteFailure(code, message) = e else {
        return Error::new(Kind::Source, e.to_string());
    };
    let kind = match code & 0xff {
        5 | 6 | 9 | 15 | 17 => Kind::Unavailable,
        8 => return Error::usage("read only; its capture must be installed by someone who may write it"),
        14 | 23 => Kind::Usage,
        11 | 26 => return Error::new(Kind::Damaged, message.clone()).unreadable(),
        10 | 13 => Kind::Io,
        _ => Kind::Source,
    };
    Error::new(kind, message.clone())
}
