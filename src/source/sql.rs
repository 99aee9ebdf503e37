//! One libSQL connection on one thread: prepared statements, exact values, classified errors.
//!
//! Owns quoting and binding: identifiers are quoted by [`quote`] and nowhere else, values are bound.
//! A row's values are copied out before the next row is asked for, because libsql's `Row` is a view on
//! the statement; and every statement is reset when it is left, because an open one holds its snapshot.

use crate::error::{Error, Kind, Result};
use crate::utf16::Encoding;
use crate::value::Value;
use futures::FutureExt;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

/// Statements kept prepared; beyond it all are dropped and prepared again as they are used.
const PREPARED: usize = 256;

pub(crate) struct Sql {
    connection: libsql::Connection,
    encoding: Encoding,
    prepared: HashMap<String, libsql::Statement>,
}

/// Local libsql is async in name only: a call that is not ready at once is our mistake.
fn now<T>(future: impl Future<Output = T>) -> T {
    let done = future.now_or_never();
    assert!(done.is_some(), "a local call of libsql waited");
    done.unwrap_or_else(|| unreachable!())
}

impl Sql {
    /// Opens an existing database file; never creates one, never switches its journal mode.
    ///
    /// # Errors
    /// `Usage` if it is not there or is no database.
    pub fn open(path: &Path, busy_timeout: Duration) -> Result<Self> {
        let shown = path.display();
        match std::fs::metadata(path) {
            Err(e) => return Err(Error::usage(format!("source {shown}: {}", plain(&e)))),
            Ok(m) if !m.is_file() => {
                return Err(Error::usage(format!("source {shown}: not a file; give the database file")));
            }
            Ok(_) => {}
        }
        let flags = libsql::OpenFlags::SQLITE_OPEN_READ_WRITE;
        let database =
            now(libsql::Builder::new_local(path).flags(flags).build()).map_err(|e| classify(&e))?;
        let connection = database.connect().map_err(|_| {
            Error::usage(format!(
                "source {shown}: cannot be opened; check the permissions of the file and its folder"
            ))
        })?;
        connection.busy_timeout(busy_timeout).map_err(|e| classify(&e))?;
        let mut sql = Self { connection, encoding: Encoding::Utf8, prepared: HashMap::new() };
        // The first read of the file: says whether it is a database at all.
        sql.integer("PRAGMA schema_version", &[]).map_err(|e| match e.kind() {
            Kind::Damaged => Error::usage(format!("source {shown}: not a database")),
            _ => e.during(format!("source {shown}")),
        })?;
        sql.run("PRAGMA foreign_keys = OFF")?;
        if let Some(Value::Text(name)) = sql.value("PRAGMA encoding", &[])? {
            sql.encoding = Encoding::named(&String::from_utf8_lossy(&name));
        }
        Ok(sql)
    }

    /// A database in memory, to ask SQLite what it thinks of an expression.
    pub fn scratch() -> Result<Self> {
        let database = now(libsql::Builder::new_local(":memory:").build()).map_err(|e| classify(&e))?;
        let connection = database.connect().map_err(|e| classify(&e))?;
        Ok(Self { connection, encoding: Encoding::Utf8, prepared: HashMap::new() })
    }

    /// Calls `each` with every row until it breaks.
    pub fn rows<B>(
        &mut self,
        sql: &str,
        binds: &[Value],
        mut each: impl FnMut(&Row<'_>) -> Result<ControlFlow<B>>,
    ) -> Result<Option<B>> {
        let encoding = self.encoding;
        let statement = self.prepare(sql)?;
        let result = (|| {
            let mut rows = now(statement.query(bound(binds, encoding))).map_err(|e| classify(&e))?;
            while let Some(row) = now(rows.next()).map_err(|e| classify(&e))? {
                if let ControlFlow::Break(b) = each(&Row(&row, encoding))? {
                    return Ok(Some(b));
                }
            }
            Ok(None)
        })();
        statement.reset();
        result
    }

    /// The first column of the first row.
    pub fn value(&mut self, sql: &str, binds: &[Value]) -> Result<Option<Value>> {
        self.rows(sql, binds, |row| Ok(ControlFlow::Break(row.value(0)?)))
    }

    /// The first column of the first row as an integer; `None` for NULL or no row.
    pub fn integer(&mut self, sql: &str, binds: &[Value]) -> Result<Option<i64>> {
        Ok(match self.value(sql, binds)? {
            Some(Value::Integer(i)) => Some(i),
            _ => None,
        })
    }

    /// Runs one statement, prepared and kept; its rows are ignored.
    pub fn run(&mut self, sql: &str) -> Result<()> {
        self.run_with(sql, &[])
    }

    pub fn run_with(&mut self, sql: &str, binds: &[Value]) -> Result<()> {
        self.rows(sql, binds, |_| Ok(ControlFlow::<()>::Continue(()))).map(|_| ())
    }

    /// Runs statements that change the schema; none of them is kept.
    pub fn script(&mut self, sql: &str) -> Result<()> {
        now(self.connection.execute_batch(sql)).map(|_| ()).map_err(|e| classify(&e))
    }

    /// Whether a statement can be prepared.
    pub fn check(&mut self, sql: &str) -> Result<()> {
        self.prepare(sql).map(|_| ())
    }

    /// How long to wait for a lock; zero is not at all.
    pub fn busy_timeout(&mut self, time: Duration) -> Result<()> {
        self.connection.busy_timeout(time).map_err(|e| classify(&e))
    }

    /// Whether the database is in WAL mode. There a commit of ours need not be on disk at once, and
    /// checkpoints are the application's.
    ///
    /// # Errors
    /// `Usage` for a mode in which the order of entries is not the order of commits.
    pub fn read_journal_mode(&mut self) -> Result<bool> {
        let query = "SELECT CAST(journal_mode AS BLOB) FROM pragma_journal_mode";
        let mode = self.rows(query, &[], |row| Ok(ControlFlow::Break(row.text(0)?)))?.flatten();
        let wal = mode.as_deref() == Some("wal");
        if mode.as_deref() == Some("mvcc") {
            return Err(Error::usage(
                "source: journal mode MVCC is not supported; the order of its entries is not the order of its commits",
            ));
        }
        if !self.in_transaction() {
            self.run(if wal { "PRAGMA synchronous = NORMAL" } else { "PRAGMA synchronous = FULL" })?;
            self.run("PRAGMA wal_autocheckpoint = 0")?;
        }
        Ok(wal)
    }

    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    pub fn in_transaction(&self) -> bool {
        !self.connection.is_autocommit()
    }

    fn prepare(&mut self, sql: &str) -> Result<&mut libsql::Statement> {
        if !self.prepared.contains_key(sql) {
            if self.prepared.len() >= PREPARED {
                self.prepared.clear();
            }
            let statement = now(self.connection.prepare(sql)).map_err(|e| classify(&e))?;
            self.prepared.insert(sql.to_owned(), statement);
        }
        self.prepared.get_mut(sql).ok_or_else(|| Error::new(Kind::Source, "statement was not kept"))
    }
}

/// Text that libsql cannot carry is bound as a blob and cast back by the statement ([`placeholder`]).
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

/// Text that libsql binds as it is: UTF-8 without NUL.
fn plain_text(text: &[u8]) -> Option<&str> {
    std::str::from_utf8(text).ok().filter(|t| !t.contains('\0'))
}

/// The place of the n-th bound value (from 1), so that text arrives as text.
///
/// The unary plus takes the affinity away from the cast, as a bound value has none.
pub(crate) fn placeholder(n: usize, value: &Value) -> String {
    match value {
        Value::Text(t) if plain_text(t).is_some() => format!("?{n}"),
        // A cast takes a bound blob for UTF-8; what a function returns it takes as the database's own bytes.
        Value::Text(_) | Value::Utf16le(_) | Value::Utf16be(_) => format!("+CAST(substr(?{n}, 1) AS TEXT)"),
        _ => format!("?{n}"),
    }
}

/// One row of a result.
pub(crate) struct Row<'a>(&'a libsql::Row, Encoding);

impl Row<'_> {
    /// A column that the statement made exact by [`exact`], or that cannot be text.
    pub fn value(&self, column: usize) -> Result<Value> {
        let column = i32::try_from(column).map_err(|_| Error::new(Kind::Source, "too many columns"))?;
        Ok(match self.0.get_value(column).map_err(|e| classify(&e))? {
            libsql::Value::Null => Value::Null,
            libsql::Value::Integer(i) => Value::Integer(i),
            libsql::Value::Real(r) => Value::Real(r),
            libsql::Value::Text(t) => Value::Text(t.into_bytes()),
            libsql::Value::Blob(b) => Value::Blob(b),
        })
    }

    pub fn integer(&self, column: usize) -> Result<i64> {
        match self.value(column)? {
            Value::Integer(i) => Ok(i),
            other => Err(Error::new(Kind::Source, format!("an integer was expected, not {other:?}"))),
        }
    }

    /// Text selected through `CAST(… AS BLOB)`; `None` for NULL.
    pub fn text(&self, column: usize) -> Result<Option<String>> {
        match self.value(column)? {
            Value::Blob(b) | Value::Text(b) => match self.1.text(b) {
                Value::Text(t) => Ok(String::from_utf8(t).ok()),
                _ => Ok(None),
            }
            .and_then(|t: Option<String>| {
                t.map(Some).ok_or_else(|| Error::new(Kind::Source, "a name in the schema is not UTF-8"))
            }),
            _ => Ok(None),
        }
    }

    /// Appends `n` values selected by [`exact`], starting at `column`.
    pub fn exact(&self, column: usize, n: usize, out: &mut Vec<Value>) -> Result<()> {
        let first = out.len();
        for i in 0..n {
            out.push(self.value(column + i)?);
        }
        let values = out.get_mut(first..).unwrap_or_default();
        for (word, values) in values.chunks_mut(MASK_BITS).enumerate() {
            let mut mask = self.integer(column + n + word)?;
            for value in values {
                if mask & 1 == 1 {
                    let Value::Blob(text) = std::mem::replace(value, Value::Null) else {
                        return Err(Error::new(Kind::Source, "text did not arrive as bytes"));
                    };
                    *value = self.1.text(text);
                }
                mask >>= 1;
            }
        }
        Ok(())
    }
}

/// Values told by one integer which of them are text.
const MASK_BITS: usize = 62;

/// The select list that brings values back bit for bit, for [`Row::exact`].
///
/// libsql cuts text at its first NUL and panics on text that is not UTF-8, so text travels as a blob;
/// integers with one bit per value say which blobs are text. One column a value and one for 62 keeps
/// tables of 1,000 columns under SQLite's limit of 2,000 columns a SELECT.
pub(crate) fn exact(expressions: &[String]) -> String {
    let mut list = String::new();
    for x in expressions {
        let _ = write!(list, "CASE typeof({x}) WHEN 'text' THEN CAST({x} AS BLOB) ELSE {x} END,");
    }
    for word in expressions.chunks(MASK_BITS) {
        for (bit, x) in word.iter().enumerate() {
            let _ = write!(list, "{}((typeof({x})='text')<<{bit})", if bit == 0 { "" } else { "|" });
        }
        list.push(',');
    }
    list.pop();
    list
}

/// How many columns [`exact`] makes of `n` values.
pub(crate) fn exact_width(n: usize) -> usize {
    n + n.div_ceil(MASK_BITS)
}

/// The only place where an identifier becomes SQL.
pub(crate) fn quote(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// An I/O error without the operating system's number.
pub(crate) fn plain(e: &std::io::Error) -> String {
    match e.kind() {
        std::io::ErrorKind::NotFound => "no such file".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        _ => e.to_string(),
    }
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
        11 | 26 => Kind::Damaged,
        10 | 13 => Kind::Io,
        _ => Kind::Source,
    };
    Error::new(kind, message.clone())
}
