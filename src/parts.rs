//! The parts of the way from a row to the replica, each by itself, for `benches/parts.rs`.
//!
//! Exists with the feature `bench` only, which is no part of the interface.

use crate::config::{Config, Durability, KeepChanges};
use crate::cursor::{Cursor, LogId};
use crate::error::{Error, Kind, Result};
use crate::key::{self, Collation};
use crate::record::state::TableState;
use crate::record::{Archived, Deltas};
use crate::replica::{Replica, Writer};
use crate::schema::{Column, Key, KeyPart, Table};
use crate::value::{Value, ValueRef};
use crate::window::{Change, End, Kept, Piece};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Appends the canonical key of these values.
pub fn key(values: &[Value], out: &mut Vec<u8>) {
    for value in values {
        key::push(out, value.as_ref(), Collation::Binary);
    }
}

/// Rows as they travel from the source to the replica, under their keys.
pub struct Rows(Deltas);

impl Rows {
    /// # Errors
    /// `TooLarge` for a row that has no record.
    pub fn encode<'v>(rows: impl Iterator<Item = &'v (Value, Vec<Value>)>) -> Result<Self> {
        let mut deltas = Deltas::of(1);
        let mut name = Vec::new();
        for (id, row) in rows {
            name.clear();
            key::push(&mut name, id.as_ref(), Collation::Binary);
            deltas.put(&name, row.iter().map(Value::as_ref))?;
        }
        Ok(Self(deltas))
    }

    /// Reads every record as a reader does: checksum, archive, each value.
    ///
    /// # Errors
    /// `Damaged` never, unless this is broken.
    pub fn read(&self) -> Result<usize> {
        let mut bytes = 0;
        for delta in self.0.iter() {
            let row = Archived::new(delta.record.unwrap_or_default())?;
            for column in 0..row.len() {
                if let Some(crate::record::Place::Here(ValueRef::Text(text))) = row.place(column) {
                    bytes += text.len();
                }
            }
        }
        Ok(bytes)
    }
}

/// A replica with one table, and a writer's way into it.
pub struct Table1 {
    replica: Replica,
    config: Config,
    runtime: tokio::runtime::Runtime,
    seq: u64,
}

impl Table1 {
    /// A new replica, which records what changes or does not. Nothing is synced to the disk.
    ///
    /// # Errors
    /// The replica's.
    pub fn new(path: &Path, columns: usize, records: bool) -> Result<Self> {
        let durability = Durability::Interval(Duration::from_secs(3_600));
        let keep_changes = records.then_some(KeepChanges { rows: 100_000, age: None });
        let config = Config { keep_changes, durability, ..Config::default() };
        let replica = Replica::open(path, &config)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.map_err(|e| Error::new(Kind::Io, e.to_string()))?;
        let mut new = Self { replica, config, runtime, seq: 0 };
        let column = |n| Column { name: format!("c{n}"), declared: String::new() };
        let part = KeyPart { column: Some(0), collation: Collation::Binary };
        let table = Table {
            name: "t".to_owned(),
            columns: (0..columns).map(column).collect(),
            key: Key { parts: vec![part], nullable: false },
        };
        let state = TableState {
            table,
            shape: 1,
            former: Vec::new(),
            source_id: 1,
            fingerprint: 1,
            null_keys: false,
            kept: Kept::Unknown,
            reconcile: None,
        };
        new.window(Change::Define(1, Box::new(state)))?;
        Ok(new)
    }

    /// Puts rows into the table, in one transaction.
    ///
    /// # Errors
    /// The replica's.
    pub fn apply(&mut self, rows: Rows) -> Result<()> {
        self.window(Change::Deltas(1, rows.0))
    }

    fn window(&mut self, change: Change) -> Result<()> {
        self.seq += 1;
        let cursor = Cursor { log_id: LogId([1; 16]), seq: self.seq, horizon: self.seq, ..Cursor::default() };
        let end = End { cursor, head: self.seq, read_at: Instant::now(), done: true, gather: Duration::ZERO };
        let piece = Piece { changes: vec![change], end: Some(end) };
        let mut writer = Writer::new(&self.replica, self.config.durability)?.recording(&self.config);
        self.runtime.block_on(async {
            let (send, pieces) = mpsc::channel(1);
            send.send(Ok(piece)).await.map_err(|_| Error::stopped())?;
            drop(send);
            writer.run(pieces.into(), |_| {}).await
        })
    }
}
