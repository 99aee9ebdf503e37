//! What the replica must hold, as a map; and random windows that change both.

use super::{Chance, projected};
use crate::cursor::{Cursor, LogId, Position};
use crate::key::Collation;
use crate::record::Deltas;
use crate::record::state::{Progress, TableState};
use crate::replica::Replica;
use crate::schema::{Column, Key, KeyPart, Table};
use crate::value::{Value, ValueRef};
use crate::window::{Change, End, Piece, Purpose, Range, Remembered, TableNo};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Keys are 0 to 39: every row is met often.
pub(super) const KEYS: u64 = 40;
const COLUMNS: [&str; 3] = ["id", "n", "body"];

/// Tables up to this one have indexes, where there are any, and by which columns.
pub(super) const INDEXED: TableNo = 30;
pub(super) const INDEXES: [&[&str]; 2] = [&["n"], &["body", "n"]];

/// A row beside its key: a number, and a text that may be long.
pub(super) type Row = (i64, Vec<u8>);
/// Rows by the name of their table and their key.
pub(super) type Rows = BTreeMap<(String, i64), Row>;

/// One state of the source.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct World {
    pub seq: u64,
    tables: BTreeMap<TableNo, BTreeMap<i64, Row>>,
    next_no: TableNo,
}

pub(super) fn name(no: TableNo) -> String {
    format!("table {no}")
}

fn definition(no: TableNo, by_sweep: bool) -> TableState {
    let column = |name: &&str| Column { name: (*name).to_owned(), declared: String::new() };
    let part = KeyPart { column: Some(0), collation: Collation::Binary };
    let table = Table {
        name: name(no),
        columns: COLUMNS.iter().map(column).collect(),
        key: Key { parts: vec![part], nullable: false },
    };
    let reconcile = Some(Progress { by_sweep, ..Progress::default() });
    TableState {
        table,
        shape: 1,
        former: Vec::new(),
        source_id: i64::from(no),
        fingerprint: 7,
        null_keys: false,
        reconcile,
        kept: crate::window::Kept::default(),
    }
}

fn key_of(id: i64) -> Vec<u8> {
    let mut out = Vec::new();
    crate::key::push(&mut out, ValueRef::Integer(id), Collation::Binary);
    out
}

fn fingerprint(seq: u64) -> u64 {
    seq.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn row(chance: &mut Chance) -> Row {
    let len = match chance.below(20) {
        0 => 1_000 + chance.below(1_000),
        1 => 5_000 + chance.below(20_000),
        _ => chance.below(60),
    };
    let first = chance.draw().to_le_bytes()[0];
    let body = (0..len).map(|i| first.wrapping_add((i % 251).to_le_bytes()[0])).collect();
    (chance.draw().cast_signed(), body)
}

fn deltas<'a>(rows: impl Iterator<Item = (i64, Option<&'a Row>)>) -> Deltas {
    let mut deltas = Deltas::of(1);
    for (id, row) in rows {
        match row {
            Some((n, body)) => {
                let values = [ValueRef::Integer(id), ValueRef::Integer(*n), ValueRef::Text(body)];
                deltas.put(&key_of(id), values.iter().copied()).unwrap();
            }
            None => deltas.delete(&key_of(id)),
        }
    }
    deltas
}

impl World {
    pub fn new() -> Self {
        Self { seq: 0, tables: BTreeMap::new(), next_no: 1 }
    }

    /// Changes this world as a source might, and tells it as a window in one or two pieces.
    pub fn window(&mut self, chance: &mut Chance) -> Vec<Piece> {
        let mut changes = Vec::new();
        let first = self.seq + 1;
        while self.tables.len() < 2 || chance.one_in(40) {
            let no = self.next_no;
            self.next_no += 1;
            self.tables.insert(no, BTreeMap::new());
            changes.push(Change::Define(no, Box::new(definition(no, no.is_multiple_of(3)))));
        }
        if self.tables.len() > 2 && chance.one_in(20) {
            let no = self.any(chance);
            self.tables.remove(&no);
            changes.push(Change::Forget(no));
        }
        for _ in 0..=chance.below(2) {
            let no = self.any(chance);
            changes.push(if chance.one_in(4) { self.range(no, chance) } else { self.entries(no, chance) });
        }
        self.seq += 1 + chance.below(5);
        let remembered = (first..=self.seq).map(|seq| Remembered {
            seq,
            fingerprint: fingerprint(seq),
            table: Some(1),
            key: key_of(seq.cast_signed()),
        });
        changes.push(Change::Remember(remembered.collect()));
        let last = changes.split_off(chance.index(changes.len() + 1));
        let end = Some(self.end(false));
        let mut pieces = vec![Piece { changes: last, end }];
        if !changes.is_empty() {
            pieces.insert(0, Piece { changes, end: None });
        }
        pieces
    }

    pub fn end(&self, done: bool) -> End {
        let cursor = Cursor {
            log_id: LogId([3; 16]),
            seq: self.seq,
            fingerprint: fingerprint(self.seq),
            horizon: self.seq,
            horizon_fingerprint: fingerprint(self.seq),
            ..Cursor::default()
        };
        End { cursor, head: self.seq, read_at: Instant::now(), done, gather: Duration::ZERO }
    }

    fn any(&self, chance: &mut Chance) -> TableNo {
        *self.tables.keys().nth(chance.index(self.tables.len())).unwrap()
    }

    fn entries(&mut self, no: TableNo, chance: &mut Chance) -> Change {
        let rows = self.tables.get_mut(&no).unwrap();
        let mut changed = BTreeMap::new();
        for _ in 0..=chance.below(8) {
            let id = chance.below(KEYS).cast_signed();
            changed.insert(id, (!chance.one_in(3)).then(|| row(chance)));
        }
        for (id, new) in &changed {
            match new {
                Some(new) => drop(rows.insert(*id, new.clone())),
                None => drop(rows.remove(id)),
            }
        }
        Change::Deltas(no, deltas(changed.iter().map(|(id, row)| (*id, row.as_ref()))))
    }

    /// A range as reconcile reads it: what lies in it is what the source has, and nothing else.
    fn range(&mut self, no: TableNo, chance: &mut Chance) -> Change {
        let by_sweep = no.is_multiple_of(3);
        let rows = self.tables.get_mut(&no).unwrap();
        let after = if by_sweep { -1 } else { chance.below(KEYS).cast_signed() - 1 };
        let last =
            if by_sweep || chance.one_in(2) { i64::MAX } else { after + 1 + chance.below(20).cast_signed() };
        // Mostly what is there already, as reconcile finds it.
        let mut read: BTreeMap<i64, Row> = rows
            .range(after + 1..=last)
            .filter(|_| !chance.one_in(6))
            .map(|(id, row)| (*id, row.clone()))
            .collect();
        for id in after + 1..=last.min(KEYS.cast_signed()) {
            if chance.one_in(6) {
                read.insert(id, row(chance));
            }
        }
        if last != i64::MAX {
            read.entry(last).or_insert_with(|| row(chance));
        }
        rows.retain(|id, _| *id <= after || *id > last);
        rows.extend(read.iter().map(|(id, row)| (*id, row.clone())));
        let progress = (last != i64::MAX).then(|| Progress {
            through: key_of(last),
            values: vec![Value::Integer(last)],
            copied: 1,
            by_sweep: false,
        });
        Change::Range(Range {
            table: no,
            after: if after < 0 { Vec::new() } else { key_of(after) },
            rows: deltas(read.iter().map(|(id, row)| (*id, Some(row)))),
            progress,
            purpose: Purpose::Reconcile,
            by_sweep,
        })
    }

    /// Whether every table that has a projection has it in this version, and in no other; none is asked for with 0.
    pub fn is_projected(&self, replica: &Replica, version: u32) -> Result<(), String> {
        let snapshot = replica.snapshot().map_err(|e| format!("{e:?}"))?;
        for (no, rows) in self.tables.iter().filter(|(no, _)| **no <= 8) {
            let there = projected::differs(&snapshot, &name(*no), rows)?;
            if there != version {
                return Err(format!("{}: projections {there} are there, not {version}", name(*no)));
            }
        }
        Ok(())
    }

    pub fn rows(&self) -> Rows {
        let of = |(no, rows): (&TableNo, &BTreeMap<i64, Row>)| {
            rows.iter().map(|(id, row)| ((name(*no), *id), row.clone())).collect::<Vec<_>>()
        };
        self.tables.iter().flat_map(of).collect()
    }

    /// Holds each table's indexes against its rows; there may be none before the first window of a life.
    pub fn indexes_differ(&self, replica: &Replica, config: &crate::Config) -> Result<(), String> {
        let told = |e: crate::Error| format!("{e:?}");
        let snapshot = replica.snapshot().map_err(told)?;
        for (no, rows) in self.tables.iter().filter(|(no, _)| config.tables.contains_key(&name(**no))) {
            for columns in INDEXES {
                let index = snapshot.index(&name(*no), columns).map_err(told)?;
                let found = index.scan().map_err(told)?.map(|row| Ok(told_row(&row?)?.0));
                let found: crate::Result<Vec<i64>> = found.collect();
                let mut want: Vec<(Option<&[u8]>, i64, i64)> = (rows.iter())
                    .map(|(id, (n, body))| ((columns.len() > 1).then_some(body.as_slice()), *n, *id))
                    .collect();
                want.sort_unstable();
                let want: Vec<i64> = want.into_iter().map(|(.., id)| id).collect();
                if found.as_ref().map_err(|e| format!("{e:?}"))? != &want {
                    return Err(format!("{}: index {columns:?}: {found:?}, not {want:?}", name(*no)));
                }
            }
        }
        Ok(())
    }

    /// What a replica holds, read by redtail's own reader; `Err` with what is not as it should be.
    pub fn differs(&self, replica: &Replica) -> Result<(), String> {
        let told = |e: crate::Error| format!("{e:?}");
        let snapshot = replica.snapshot().map_err(told)?;
        if snapshot.position().map_or(0, |p| p.seq) != self.seq {
            return Err(format!("cursor {:?}, not {}", snapshot.position(), self.seq));
        }
        let infos = snapshot.tables().map_err(told)?;
        let names: Vec<String> = infos.iter().map(|t| t.table.name.clone()).collect();
        let want: Vec<String> = self.tables.keys().map(|no| name(*no)).collect();
        if names != want {
            return Err(format!("tables {names:?}, not {want:?}"));
        }
        for ((no, rows), info) in self.tables.iter().zip(infos) {
            if info.rows != rows.len() as u64 {
                return Err(format!("{}: counts {} rows, not {}", name(*no), info.rows, rows.len()));
            }
            let mut found = BTreeMap::new();
            for row in snapshot.scan(&name(*no)).map_err(told)? {
                let (id, row) = row.and_then(|row| told_row(&row)).map_err(told)?;
                found.insert(id, row);
            }
            if found != *rows {
                let differ = |id: &&i64| found.get(id) != rows.get(id);
                let ids: Vec<_> = found.keys().chain(rows.keys()).filter(differ).take(3).collect();
                return Err(format!("{}: other rows than the model's, at {ids:?}", name(*no)));
            }
            projected::differs(&snapshot, &name(*no), rows)?;
            for id in 0..KEYS.cast_signed() {
                let got = snapshot.get(&name(*no), &[Value::Integer(id)]).map_err(told)?;
                if got.is_some() != rows.contains_key(&id) {
                    return Err(format!("{}: key {id}: found: {}", name(*no), got.is_some()));
                }
            }
        }
        let start = replica.start().map_err(told)?;
        let past = start.past.last().map_or(0, |r| r.seq);
        if past != self.seq {
            return Err(format!("remembers up to {past}, not {}", self.seq));
        }
        Ok(())
    }
}

/// A row as it is stored: its key, and what stands beside it.
fn told_row(row: &crate::Row) -> crate::Result<(i64, Row)> {
    match row.values()?[..] {
        [ValueRef::Integer(id), ValueRef::Integer(n), ValueRef::Text(body)] => Ok((id, (n, body.to_vec()))),
        ref values => Err(crate::Error::new(crate::Kind::Mismatch, format!("{values:?}"))),
    }
}

/// Applies what is kept of what changed behind a position to the rows that were there: each change must find what it
/// says was there before it, and each window end in the state of the source at its end.
pub(super) fn replayed(
    replica: &Replica,
    from: Option<Position>,
    rows: &mut Rows,
    worlds: &[World],
) -> Result<(), String> {
    let told = |e: crate::Error| format!("{e:?}");
    let windows = match replica.kept_changes(from) {
        // Nothing was ever kept: nothing was ever changed.
        Err(e) if e.kind() == crate::Kind::Lagged && rows.is_empty() => return Ok(()),
        windows => windows.map_err(told)?,
    };
    for window in windows {
        let window = window.map_err(told)?;
        let seq = window.position.seq;
        for change in &window.changes {
            let side = |row: Option<&crate::Row>| row.map(told_row).transpose().map_err(told);
            let (before, after) = (side(change.before())?, side(change.after())?);
            let id = before.as_ref().or(after.as_ref()).map_or(0, |(id, _)| *id);
            let place = (change.table().name.clone(), id);
            let (before, after) = (before.map(|(_, row)| row), after.map(|(_, row)| row));
            let found = match after {
                Some(after) => rows.insert(place.clone(), after),
                None => rows.remove(&place),
            };
            if found != before {
                return Err(format!("window {seq}: a change of {place:?} begins with another row"));
            }
        }
        let Some(world) = worlds.iter().find(|w| w.seq == seq) else {
            return Err(format!("window {seq} is no window's end"));
        };
        if window.is_last && *rows != world.rows() {
            return Err(format!("window {seq}: its changes do not lead to the source's rows"));
        }
    }
    Ok(())
}
