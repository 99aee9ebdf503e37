//! Reads rows of one captured table: those that a window's entries name, and all rows of a range.
//!
//! Everything here runs inside the caller's read transaction. What a window means is settled here: an
//! entry names a key, the read decides. Deletes are the canonical keys of the entries minus the
//! canonical keys of the rows that were read, never "this entry found no row".

use super::foresee::Wanted;
use super::keep::Condition;
use super::listed;
use super::query::Query;
use super::select::Selection;
use super::sql::{Row, Sql, exact_width};
use crate::capture::audit::Captured;
use crate::error::{Error, Kind, Result};
use crate::fault;
use crate::key;
use crate::record::Deltas;
use crate::record::state::Progress;
use crate::utf16::Encoding;
use crate::value::{Value, ValueRef};
use crate::window::Kept;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Instant;

/// How the rows of one table are read; made once for each definition.
pub(crate) struct Reader {
    pub captured: Captured,
    pub selection: Selection,
    /// Which rows are kept, where only the newest are: what the replica has.
    pub kept: Kept,
    /// By which definition, as the replica numbers them, rows are read.
    pub shape: u16,
    /// The rowid is selected in front of the columns: it is the key, or may join it.
    with_rowid: bool,
    columns: usize,
    /// The positions, among what is selected, of columns of REAL affinity.
    reals: Vec<usize>,
    /// The positions, among what is selected, of the key's parts.
    parts: Vec<usize>,
    /// Rows whose keys the entries name, sorted by key.
    named: String,
    /// The same for entries with NULL in the key, by rowid.
    named_by_rowid: Option<String>,
    /// The source sorts text otherwise than the replica (in a UTF-16 database): windows are put in order in
    /// memory.
    pub in_memory: bool,
    /// For that reason, or because the key's index goes in both directions, ranges do not come in the replica's
    /// order: rows that are gone are found by a sweep.
    pub by_sweep: bool,
    max_row: usize,
}

/// When to hand over what was read so far.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub rows: usize,
    pub bytes: usize,
    pub until: Instant,
}

/// One row as it was read.
#[derive(Default)]
pub(super) struct Read {
    /// The canonical key.
    pub(super) key: Vec<u8>,
    /// The rowid if it was asked for, then the columns.
    values: Vec<Value>,
    /// NULL stands in the key, so that the rowid is part of it.
    null_key: bool,
}

impl Reader {
    pub fn new(captured: Captured, selection: Selection, encoding: Encoding, max_row: usize) -> Self {
        let key = &selection.table.key;
        let with_rowid = key.nullable || key.has_rowid();
        let in_memory = encoding != Encoding::Utf8
            && !captured.source.alias
            && key.parts.iter().any(|p| p.column.is_some());
        let shift = usize::from(with_rowid);
        let reals = selection.columns.iter().enumerate().filter(|(_, c)| c.real).map(|(i, _)| i + shift);
        let parts = key.parts.iter().map(|p| p.column.map_or(0, |i| i + shift)).collect();
        let mut reader = Self {
            parts,
            shape: 0,
            with_rowid,
            columns: selection.columns.len() + shift,
            reals: reals.collect(),
            kept: Kept::Unknown,
            named: String::new(),
            named_by_rowid: None,
            in_memory,
            by_sweep: in_memory || !captured.source.downwards.is_empty(),
            max_row,
            captured,
            selection,
        };
        reader.named = reader.query().named();
        reader.named_by_rowid =
            reader.captured.source.table.key.nullable.then(|| reader.query().named_by_rowid());
        reader
    }

    pub(super) fn query(&self) -> Query<'_> {
        Query { source: &self.captured.source, selection: &self.selection, boundary: self.kept.boundary() }
    }

    /// Whether this process can read the table at all: it may lack a function or a collation.
    pub fn check(&self, sql: &mut Sql) -> Result<()> {
        self.checks().iter().try_for_each(|query| sql.check(query))
    }

    /// What has to be possible for that.
    pub fn checks(&self) -> [String; 2] {
        [self.named.clone(), self.query().range(Condition::default(), 1).0]
    }

    /// Reads what the entries of the span `(after, through]` name; calls `flush` whenever a piece is full.
    pub fn window(
        &mut self,
        sql: &mut Sql,
        span: (u64, u64),
        limits: Limits,
        flush: &mut dyn FnMut(Deltas) -> Result<()>,
    ) -> Result<()> {
        let mut binds = self.window_binds(span);
        if self.selection.keep.is_some() {
            // The boundary moves from window to window, and stands in the text.
            binds.extend(self.query().named_binds());
            self.named = self.query().named();
            self.named_by_rowid = self.named_by_rowid.is_some().then(|| self.query().named_by_rowid());
        }
        let mut sink = Sink { out: Deltas::of(self.shape), shape: self.shape, limits, flush };
        let mut groups =
            Groups { ordered: !self.in_memory, late: Deltas::of(self.shape), ..Groups::default() };
        let mut nulls = false;
        if let Some(keys) = self.listed(sql, span)? {
            self.listed_rows(sql, &keys, &mut groups, &mut sink)?;
        } else {
            let query = std::mem::take(&mut self.named);
            let read =
                sql.rows(&query, &binds, |row| self.named_row(row, true, &mut nulls, &mut groups, &mut sink));
            self.named = query;
            read.map_err(|e| self.describe(e))?;
        }
        if nulls {
            let query = self.named_by_rowid.take().unwrap_or_default();
            groups.finish(&mut sink)?;
            groups.last.clear();
            let read = sql
                .rows(&query, &binds, |row| self.named_row(row, false, &mut nulls, &mut groups, &mut sink));
            self.named_by_rowid = Some(query);
            read.map_err(|e| self.describe(e))?;
        }
        groups.finish(&mut sink)?;
        if groups.disordered {
            // What was handed over belongs to a window that will never end: it is dropped whole.
            let what = format!("table {}: entries did not come in key order", self.name());
            return Err(Error::new(Kind::Source, what));
        }
        sink.finish(self, groups)
    }

    /// Reads what some entries name, and forgets it.
    pub fn sample(&self, sql: &mut Sql, span: (u64, u64)) -> Result<()> {
        let read = sql.rows(&self.named, &self.window_binds(span), |_| Ok(ControlFlow::<()>::Continue(())));
        read.map(|_| ()).map_err(|e| self.describe(e))
    }

    /// The keys of a window that is to be read by lists of them.
    fn listed(&self, sql: &mut Sql, span: (u64, u64)) -> Result<Option<Vec<i64>>> {
        let possible = !sql.is_server() && !fault::trust_op() && self.query().is_by_rowid();
        if !possible || !listed::is_worth(span) || !listed::works(sql) {
            return Ok(None);
        }
        listed::gather(sql, self.captured.id, span)
    }

    fn listed_rows(
        &self,
        sql: &mut Sql,
        keys: &[i64],
        groups: &mut Groups,
        sink: &mut Sink<'_>,
    ) -> Result<()> {
        let query = self.query().listed();
        let rest = self.query().listed_binds();
        for keys in keys.chunks(listed::JOINED) {
            let binds: Vec<Value> = std::iter::once(listed::as_list(keys)).chain(rest.clone()).collect();
            let read = sql.rows(&query, &binds, |row| self.named_row(row, true, &mut false, groups, sink));
            read.map_err(|e| self.describe(e))?;
        }
        Ok(())
    }

    fn named_row(
        &self,
        row: &Row<'_>,
        skip_nulls: bool,
        nulls: &mut bool,
        groups: &mut Groups,
        sink: &mut Sink<'_>,
    ) -> Result<ControlFlow<()>> {
        let key = &self.selection.table.key;
        groups.entered.clear();
        row.exact(0, key.width(), &mut groups.entered)?;
        if key.nullable && skip_nulls && !matches!(groups.entered.last(), Some(Value::Null)) {
            *nulls = true; // Read by its rowid, in a second pass.
            return Ok(ControlFlow::Continue(()));
        }
        groups.name.clear();
        key.encode(&mut groups.name, groups.entered.iter().map(Value::as_ref));
        groups.enter(sink)?;
        let mut read = std::mem::take(&mut groups.read);
        if self.row_into(row, exact_width(key.width()), &mut read)? {
            groups.found(read, self, sink)?;
        } else {
            groups.read = read;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Decodes the row that starts at `column`; `None` where the join found none.
    pub(super) fn row(&self, row: &Row<'_>, column: usize) -> Result<Option<Read>> {
        let mut read = Read::default();
        Ok(self.row_into(row, column, &mut read)?.then_some(read))
    }

    /// The same, into what another row has left; `false` where the join found none.
    fn row_into(&self, row: &Row<'_>, column: usize, read: &mut Read) -> Result<bool> {
        let Read { key: name, values, null_key } = read;
        values.clear();
        name.clear();
        row.exact(column, self.columns, values)?;
        // SQLite keeps a whole real as an integer, and a virtual column that passes a sorter stays one.
        for i in &self.reals {
            if let Some(value @ Value::Integer(_)) = values.get_mut(*i) {
                *value = whole_real(value);
            }
        }
        let sign = if self.with_rowid { Some(&0) } else { self.parts.first() };
        if matches!(sign.and_then(|i| values.get(*i)), Some(Value::Null)) {
            return Ok(false);
        }
        let key = &self.selection.table.key;
        *null_key = key.nullable
            && self.parts.iter().filter_map(|i| values.get(*i)).any(|v| matches!(v, Value::Null));
        key.encode(name, self.key_values(values, *null_key));
        let bytes: usize = values.iter().map(|v| v.as_ref().len()).sum();
        if bytes > self.max_row {
            let what = format!(
                "table {}: the row with key {} has {bytes} bytes, more than max_row = {}; raise it or exclude the table",
                self.name(),
                shown(&self.key_values(values, *null_key).map(ValueRef::to_owned).collect::<Vec<_>>()),
                self.max_row
            );
            return Err(Error::new(Kind::TooLarge, what));
        }
        Ok(true)
    }

    /// The components of a row's key: the parts, and where NULL may stand in them the rowid if it does.
    fn key_values<'a>(
        &'a self,
        values: &'a [Value],
        null_key: bool,
    ) -> impl Iterator<Item = ValueRef<'a>> + 'a {
        let parts = self.parts.iter().filter_map(|i| values.get(*i)).map(Value::as_ref);
        let rowid = values.first().filter(|_| null_key).map_or(ValueRef::Null, Value::as_ref);
        parts.chain(self.selection.table.key.nullable.then_some(rowid))
    }

    pub(super) fn put(&self, deltas: &mut Deltas, read: &Read) -> Result<()> {
        deltas.null_keys |= read.null_key;
        let row = read.values.get(usize::from(self.with_rowid)..).unwrap_or_default();
        deltas.put(&read.key, row.iter().map(Value::as_ref))
    }

    fn name(&self) -> &str {
        &self.captured.source.table.name
    }

    pub(super) fn describe(&self, e: Error) -> Error {
        if matches!(e.kind(), Kind::Source) { e.during(format!("table {}", self.name())) } else { e }
    }

    /// Reads the rows under these canonical keys: a put for each that is there, a delete for the others.
    /// `None` if they are not keys of this definition, or cannot be asked for.
    pub fn keys(&self, sql: &mut Sql, keys: &BTreeSet<Vec<u8>>) -> Result<Option<Deltas>> {
        let mut out = Deltas::of(self.shape);
        let mut found = Vec::new();
        for key in keys {
            let Some(values) = key::decode(key, &self.captured.source.table.key.collations()) else {
                return Ok(None);
            };
            // What SQLite makes of invalid UTF-16 to compare it cannot be bound: it comes back as another text.
            let bindable = |v: &Value| !matches!(v, Value::Text(t) if std::str::from_utf8(t).is_err());
            if sql.encoding() != Encoding::Utf8 && !values.iter().all(bindable) {
                return Ok(None);
            }
            let (query, binds) = self.query().at(&values);
            let read = sql.rows(&query, &binds, |row| Ok(ControlFlow::Break(self.row(row, 0)?)));
            let read = read.map_err(|e| self.describe(e))?.flatten();
            if read.as_ref().is_none_or(|r| r.key != *key) {
                out.delete(key);
            }
            found.extend(read);
        }
        for read in &found {
            self.put(&mut out, read)?;
        }
        Ok(Some(out))
    }

    /// What [`Reader::window`] asks of a snapshot, where no boundary decides about it.
    pub(super) fn window_queries(&self, span: (u64, u64)) -> impl Iterator<Item = Wanted> {
        let binds = self.window_binds(span);
        let texts = [Some(self.named.clone()), self.named_by_rowid.clone()];
        texts.into_iter().flatten().map(move |text| (text, binds.clone()))
    }

    fn window_binds(&self, (after, through): (u64, u64)) -> Vec<Value> {
        vec![Value::Integer(self.captured.id), integer(after), integer(through)]
    }

    /// What [`Reader::range`] asks of a snapshot, in turn.
    pub(super) fn range_queries(&self, from: &Progress, rows: usize) -> Vec<Wanted> {
        let behind = self.query().behind(&from.values).into_iter();
        behind.map(|condition| self.query().range(condition, rows)).collect()
    }

    /// Reads the rows behind `from` in key order, until a limit is reached.
    ///
    /// The second value is how far it came; `None` at the table's end.
    pub fn range(
        &self,
        sql: &mut Sql,
        from: &Progress,
        limits: Limits,
    ) -> Result<(Deltas, Option<Progress>)> {
        let mut rows = Deltas::of(self.shape);
        let mut progress = from.clone();
        progress.by_sweep = self.by_sweep;
        let mut read = Read::default();
        for (query, binds) in self.range_queries(from, limits.rows) {
            let full = sql.rows(&query, &binds, |row| {
                if !self.row_into(row, 0, &mut read)? {
                    return Ok(ControlFlow::Continue(()));
                }
                if read.key <= progress.through && !self.by_sweep {
                    return Err(Error::new(Kind::Source, "its rows do not come in key order"));
                }
                self.put(&mut rows, &read)?;
                progress.copied += 1;
                std::mem::swap(&mut progress.through, &mut read.key);
                let full = rows.len() >= limits.rows
                    || rows.bytes() >= limits.bytes
                    || Instant::now() >= limits.until;
                Ok(if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            });
            if full.map_err(|e| self.describe(e))?.is_some() {
                progress.values = self.place(&read);
                return Ok((rows, Some(progress)));
            }
        }
        Ok((rows, None))
    }

    /// What to go on from behind this row: the parts, and the rowid itself where it may join them.
    fn place(&self, read: &Read) -> Vec<Value> {
        let mut place: Vec<Value> = self.parts.iter().filter_map(|i| read.values.get(*i)).cloned().collect();
        if self.captured.source.table.key.nullable {
            place.push(read.values.first().cloned().unwrap_or(Value::Null));
        }
        place
    }
}

/// The deltas being gathered, handed over piece by piece.
struct Sink<'a> {
    out: Deltas,
    shape: u16,
    limits: Limits,
    flush: &'a mut dyn FnMut(Deltas) -> Result<()>,
}

impl Sink<'_> {
    fn check(&mut self) -> Result<()> {
        if self.out.len() >= self.limits.rows || self.out.bytes() >= self.limits.bytes {
            (self.flush)(std::mem::replace(&mut self.out, Deltas::of(self.shape)))?;
        }
        Ok(())
    }

    /// What has to come last, and the rest.
    fn finish(&mut self, reader: &Reader, groups: Groups) -> Result<()> {
        for (key, row) in &groups.sorted {
            match row {
                Some(read) => reader.put(&mut self.out, read)?,
                None => self.out.delete(key),
            }
            self.check()?;
        }
        if !self.out.is_empty() {
            (self.flush)(std::mem::replace(&mut self.out, Deltas::of(self.shape)))?;
        }
        if !groups.late.is_empty() {
            (self.flush)(groups.late)?;
        }
        Ok(())
    }
}

/// Entries of the same canonical key, which come one after another if they come in order.
#[derive(Default)]
struct Groups {
    ordered: bool,
    disordered: bool,
    /// The key of the group at hand; empty, as no key is, before the first.
    last: Vec<u8>,
    found: bool,
    /// The entry at hand: the components of its key, and the canonical one.
    entered: Vec<Value>,
    name: Vec<u8>,
    /// What the last row was read into.
    read: Read,
    /// Rows whose key is not the one that was entered (a falsified image): put after everything else.
    late: Deltas,
    /// Everything, when entries do not come in order.
    sorted: BTreeMap<Vec<u8>, Option<Read>>,
}

impl Groups {
    /// Begins the group of `name`, unless it is the one at hand.
    fn enter(&mut self, sink: &mut Sink<'_>) -> Result<()> {
        if !self.ordered {
            self.sorted.entry(self.name.clone()).or_insert(None);
            return Ok(());
        }
        if self.last == self.name {
            return Ok(());
        }
        self.disordered |= self.last > self.name;
        self.finish(sink)?;
        std::mem::swap(&mut self.last, &mut self.name);
        self.found = false;
        Ok(())
    }

    fn found(&mut self, read: Read, reader: &Reader, sink: &mut Sink<'_>) -> Result<()> {
        if !self.ordered {
            self.sorted.insert(read.key.clone(), Some(read));
            return Ok(());
        }
        if self.last != read.key {
            reader.put(&mut self.late, &read)?;
        } else if !self.found {
            self.found = true;
            reader.put(&mut sink.out, &read)?;
            sink.check()?;
        }
        self.read = read;
        Ok(())
    }

    /// Ends the group: a key that was entered and under which no row was read is gone.
    fn finish(&mut self, sink: &mut Sink<'_>) -> Result<()> {
        if !self.last.is_empty() && !self.found {
            sink.out.delete(&self.last);
            sink.check()?;
        }
        self.found = true;
        Ok(())
    }
}

#[allow(clippy::cast_precision_loss)]
fn whole_real(value: &Value) -> Value {
    match value {
        Value::Integer(i) => Value::Real(*i as f64),
        other => other.clone(),
    }
}

#[allow(clippy::cast_possible_wrap)]
fn integer(n: u64) -> Value {
    Value::Integer(n as i64)
}

/// A key for a message: short, and without the row's other values.
fn shown(key: &[Value]) -> String {
    let one = |v: &Value| match v {
        Value::Null => "NULL".to_owned(),
        Value::Integer(i) => i.to_string(),
        Value::Real(r) => r.to_string(),
        Value::Text(t) => format!("{:?}", String::from_utf8_lossy(t).chars().take(60).collect::<String>()),
        Value::Blob(b) | Value::Utf16le(b) | Value::Utf16be(b) => format!("{} bytes", b.len()),
    };
    key.iter().map(one).collect::<Vec<_>>().join(", ")
}
