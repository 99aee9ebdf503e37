//! One connection to a source on one thread, whichever kind it is: exact values, classified errors.
//!
//! Owns quoting and binding: identifiers are quoted by [`quote`] and nowhere else, values are bound. Two back
//! ends do the work: `sqlite` for a file, `remote` for a server; nobody else tells them apart. A row's values
//! are copied out before the next row is asked for, because libsql's `Row` is a view on the statement.

use super::exact::{self, MASK_BITS};
pub(crate) use super::exact::{exact, exact_width};
#[cfg(feature = "remote")]
use super::remote::{Server, Stream, Values};
use super::sqlite::{self, File};
use crate::error::{Error, Kind, Result};
use crate::utf16::Encoding;
use crate::value::Value;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

pub(crate) struct Sql {
    end: End,
    encoding: Encoding,
}

/// As bytes: the database may be in UTF-16.
pub(super) const JOURNAL_MODE: &str = "SELECT CAST(journal_mode AS BLOB) FROM pragma_journal_mode";

/// What is at the other end.
enum End {
    File(File),
    #[cfg(feature = "remote")]
    Server(Box<Stream>),
}

impl Sql {
    /// Opens an existing database file; never creates one, never switches its journal mode.
    ///
    /// # Errors
    /// `Usage` if it is not there or is no database.
    pub fn open(path: &Path, busy_timeout: Duration) -> Result<Self> {
        let shown = path.display();
        let end = End::File(File::open(path, busy_timeout)?);
        let mut sql = Self { end, encoding: Encoding::Utf8 };
        // The first read of the file: says whether it is a database at all.
        sql.integer("PRAGMA schema_version", &[]).map_err(|e| match e.kind() {
            Kind::Damaged => Error::usage(format!("source {shown}: not a database")).unreadable(),
            _ => e.during(format!("source {shown}")),
        })?;
        sql.run("PRAGMA foreign_keys = OFF")?;
        sql.encoding = sql.read_encoding()?;
        Ok(sql)
    }

    /// Speaks to a server; its encoding is asked for once.
    #[cfg(feature = "remote")]
    pub fn connect(server: &std::sync::Arc<Server>) -> Result<Self> {
        let mut sql = Self { end: End::Server(Box::new(Stream::new(server))), encoding: Encoding::Utf8 };
        sql.encoding = match server.encoding() {
            Some(known) => known,
            None => server.set_encoding(sql.read_encoding()?),
        };
        if let End::Server(stream) = &mut sql.end {
            stream.encoding = sql.encoding;
        }
        Ok(sql)
    }

    /// A database in memory, to ask SQLite what it thinks of an expression.
    pub fn scratch() -> Result<Self> {
        Ok(Self { end: End::File(File::scratch()?), encoding: Encoding::Utf8 })
    }

    fn read_encoding(&mut self) -> Result<Encoding> {
        Ok(match self.value("PRAGMA encoding", &[])? {
            Some(Value::Text(name)) => Encoding::named(&String::from_utf8_lossy(&name)),
            _ => Encoding::Utf8,
        })
    }

    /// Calls `each` with every row until it breaks.
    pub fn rows<B>(
        &mut self,
        sql: &str,
        binds: &[Value],
        each: impl FnMut(&Row<'_>) -> Result<ControlFlow<B>>,
    ) -> Result<Option<B>> {
        match &mut self.end {
            End::File(file) => file.rows(sql, binds, self.encoding, each),
            #[cfg(feature = "remote")]
            End::Server(stream) => stream.rows(sql, binds, each),
        }
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

    /// Runs one statement; its rows are ignored. What a server makes of it may be heard with a later call,
    /// at the latest with COMMIT.
    pub fn run(&mut self, sql: &str) -> Result<()> {
        self.run_with(sql, &[])
    }

    pub fn run_with(&mut self, sql: &str, binds: &[Value]) -> Result<()> {
        match &mut self.end {
            End::File(file) => {
                file.rows(sql, binds, self.encoding, |_| Ok(ControlFlow::<()>::Continue(()))).map(|_| ())
            }
            #[cfg(feature = "remote")]
            End::Server(stream) => stream.run(sql, binds),
        }
    }

    /// Runs statements that change the schema; none of them is kept.
    pub fn script(&mut self, sql: &str) -> Result<()> {
        match &mut self.end {
            End::File(file) => file.script(sql),
            #[cfg(feature = "remote")]
            End::Server(stream) => stream.script(sql),
        }
    }

    /// Whether a statement can be prepared.
    pub fn check(&mut self, sql: &str) -> Result<()> {
        match &mut self.end {
            End::File(file) => file.check(sql),
            #[cfg(feature = "remote")]
            End::Server(stream) => stream.check(sql),
        }
    }

    /// Says what will be asked for next in this transaction, so that a server answers it all at once. A
    /// statement that is not known beforehand only costs another round trip.
    pub fn ahead(&mut self, wanted: &[(String, Vec<Value>)]) -> Result<()> {
        match &mut self.end {
            End::File(_) => {
                let _ = wanted;
                Ok(())
            }
            #[cfg(feature = "remote")]
            End::Server(stream) => stream.ahead(wanted),
        }
    }

    /// How long to wait for a lock; zero is not at all.
    pub fn busy_timeout(&mut self, time: Duration) -> Result<()> {
        match &mut self.end {
            End::File(file) => file.busy_timeout(time),
            // A server has a patience of its own.
            #[cfg(feature = "remote")]
            End::Server(_) => Ok(()),
        }
    }

    /// Whether the database is in WAL mode. There a commit of ours need not be on disk at once, and
    /// checkpoints are the application's.
    ///
    /// # Errors
    /// `Usage` for a mode in which the order of entries is not the order of commits.
    pub fn read_journal_mode(&mut self) -> Result<bool> {
        let mode = self.rows(JOURNAL_MODE, &[], |row| Ok(ControlFlow::Break(row.text(0)?)))?.flatten();
        let wal = mode.as_deref() == Some("wal");
        if mode.as_deref() == Some("mvcc") {
            return Err(Error::usage(
                "source: journal mode MVCC is not supported; the order of its entries is not the order of its commits",
            ));
        }
        if !self.in_transaction() && !self.is_server() {
            self.run(if wal { "PRAGMA synchronous = NORMAL" } else { "PRAGMA synchronous = FULL" })?;
            self.run("PRAGMA wal_autocheckpoint = 0")?;
        }
        Ok(wal)
    }

    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    pub fn check_ahead(&mut self, wanted: &[String]) -> Result<()> {
        match &mut self.end {
            End::File(_) => {
                let _ = wanted;
                Ok(())
            }
            #[cfg(feature = "remote")]
            End::Server(stream) => stream.check_ahead(wanted),
        }
    }

    /// Begins a snapshot. Where all that will be read in it is known beforehand, a server answers it in one
    /// request; a file has no use for that.
    pub fn begin(&mut self, foreseen: &[(String, Vec<Value>)]) -> Result<()> {
        match &mut self.end {
            #[cfg(feature = "remote")]
            End::Server(stream) if !foreseen.is_empty() => stream.foresee(foreseen),
            _ => self.run("BEGIN"),
        }
    }

    /// Whether the last snapshot could not answer something because it was not foreseen.
    pub fn take_missed(&mut self) -> bool {
        match &mut self.end {
            End::File(_) => false,
            #[cfg(feature = "remote")]
            End::Server(stream) => stream.take_missed(),
        }
    }

    /// Whether a server had to be asked for less since the last call.
    pub fn take_too_large(&mut self) -> bool {
        match &mut self.end {
            End::File(_) => false,
            #[cfg(feature = "remote")]
            End::Server(stream) => stream.take_too_large(),
        }
    }

    /// How many bytes a server's last answer had, if there was one since the last call.
    pub fn take_last_answer(&mut self) -> Option<usize> {
        match &mut self.end {
            End::File(_) => None,
            #[cfg(feature = "remote")]
            End::Server(stream) => stream.last_answer.take(),
        }
    }

    /// When what was foreseen for this snapshot was asked for.
    pub fn asked_at(&self) -> Option<Instant> {
        match &self.end {
            End::File(_) => None,
            #[cfg(feature = "remote")]
            End::Server(stream) => stream.asked_at,
        }
    }

    /// How many of the next snapshots a server is asked for already.
    pub fn asked_ahead(&self) -> usize {
        match &self.end {
            End::File(_) => 0,
            #[cfg(feature = "remote")]
            End::Server(stream) => stream.asked_ahead(),
        }
    }

    /// Asks a server for what will be foreseen for the next snapshot, and goes on.
    pub fn ask_ahead(&mut self, foreseen: Vec<(String, Vec<Value>)>) {
        match &mut self.end {
            End::File(_) => drop(foreseen),
            #[cfg(feature = "remote")]
            End::Server(stream) => stream.ask_ahead(foreseen),
        }
    }

    /// A row too large for one answer of a server is read in pieces.
    pub fn set_in_pieces(&mut self, in_pieces: bool) {
        match &mut self.end {
            End::File(_) => {
                let _ = in_pieces;
            }
            #[cfg(feature = "remote")]
            End::Server(stream) => stream.in_pieces = in_pieces,
        }
    }

    /// Writes all of this in one transaction; at a server in one request, so that no lock is held while anything
    /// travels. `false`, and nothing is written, if the schema of a file is not (any more) of this version.
    pub fn atomically(
        &mut self,
        schema_version: Option<i64>,
        writes: &[(String, Vec<Value>)],
    ) -> Result<bool> {
        match &mut self.end {
            #[cfg(feature = "remote")]
            End::Server(stream) => stream.atomically(writes).map(|()| true),
            End::File(_) => {
                self.run("BEGIN IMMEDIATE")?;
                if self.integer("PRAGMA schema_version", &[])? != schema_version {
                    return self.run("ROLLBACK").map(|()| false);
                }
                writes.iter().try_for_each(|(sql, binds)| self.run_with(sql, binds))?;
                self.run("COMMIT").map(|()| true)
            }
        }
    }

    pub fn is_server(&self) -> bool {
        !matches!(self.end, End::File(_))
    }

    pub fn in_transaction(&self) -> bool {
        match &self.end {
            End::File(file) => file.in_transaction(),
            #[cfg(feature = "remote")]
            End::Server(stream) => stream.in_transaction(),
        }
    }
}

/// Text that every back end binds as it is: UTF-8 without NUL.
pub(crate) fn plain_text(text: &[u8]) -> Option<&str> {
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
        // JSON has no infinity.
        Value::Real(r) if r.is_infinite() => {
            let x = if *r < 0.0 { "-9e999" } else { "9e999" };
            format!("CASE WHEN ?{n} IS NULL THEN {x} ELSE {x} END")
        }
        _ => format!("?{n}"),
    }
}

/// One row of a result.
pub(crate) struct Row<'a> {
    cells: Cells<'a>,
    encoding: Encoding,
}

pub(crate) enum Cells<'a> {
    /// A row, and the masks that its columns' names say.
    #[cfg_attr(not(feature = "local"), allow(dead_code))]
    File(&'a sqlite::Columns, &'a [Option<u64>]),
    #[cfg(feature = "remote")]
    Server(&'a Values),
}

impl<'a> Row<'a> {
    pub(super) fn new(cells: Cells<'a>, encoding: Encoding) -> Self {
        Self { cells, encoding }
    }

    /// A column that cannot be text, or a name.
    pub fn value(&self, column: usize) -> Result<Value> {
        match self.cells {
            Cells::File(row, _) => sqlite::cell(row, column),
            #[cfg(feature = "remote")]
            Cells::Server(values) => values.value(column),
        }
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
            Value::Blob(b) | Value::Text(b) => match self.encoding.text(b) {
                Value::Text(t) => Ok(String::from_utf8(t).ok()),
                _ => Ok(None),
            }
            .and_then(|t: Option<String>| {
                t.map(Some).ok_or_else(|| Error::new(Kind::Source, "a name in the schema is not UTF-8"))
            }),
            _ => Ok(None),
        }
    }

    /// Appends the `n` values of a list made by [`exact()`], which starts at `column`. To be called once.
    pub fn exact(&self, column: usize, n: usize, out: &mut Vec<Value>) -> Result<()> {
        #[cfg(feature = "remote")]
        if let Cells::Server(values) = self.cells {
            return values.take(column, n, out);
        }
        let first = out.len();
        for i in 0..n {
            out.push(self.value(column + i)?);
        }
        let values = out.get_mut(first..).unwrap_or_default();
        for (word, values) in values.chunks_mut(MASK_BITS).enumerate() {
            let mut mask = self.mask(column + n + word)?;
            for value in values {
                self.restore(value, mask & 1 == 1)?;
                mask >>= 1;
            }
        }
        Ok(())
    }

    fn mask(&self, column: usize) -> Result<u64> {
        match self.cells {
            Cells::File(_, masks) => match masks.get(column) {
                Some(Some(mask)) => Ok(*mask),
                _ => self.integer(column).map(i64::cast_unsigned),
            },
            #[cfg(feature = "remote")]
            Cells::Server(_) => self.integer(column).map(i64::cast_unsigned),
        }
    }

    /// What a value of a list was before it travelled: see `exact::as_columns`.
    fn restore(&self, value: &mut Value, is_text: bool) -> Result<()> {
        match value {
            Value::Blob(bytes) if is_text => *value = self.encoding.text(std::mem::take(bytes)),
            Value::Text(hex) => {
                let bytes = exact::from_hex(hex)
                    .ok_or_else(|| Error::new(Kind::Source, "a blob did not arrive as hexadecimal text"))?;
                *value = Value::Blob(bytes);
            }
            _ => {}
        }
        Ok(())
    }
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
