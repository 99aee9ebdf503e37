//! The records that are no rows: the cursor, and what is known of each table.

use super::{seal, unseal};
use crate::cursor::{Cursor, LogId};
use crate::error::{Error, Kind, Result};
use crate::key::Collation;
use crate::schema::{Column, Key, KeyPart, Table};
use crate::value::Value;
use crate::window::{Boundary, Kept, Remembered};
use rkyv::rancor;
use rkyv::{Archive, Deserialize, Serialize};

/// Everything the replica knows of one table; written in the same transaction as its rows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TableState {
    pub table: Table,
    /// The number of this definition; each stored row says by which one it was read.
    pub shape: u16,
    /// The definitions of rows that reconcile has not come to yet.
    pub former: Vec<(u16, Table)>,
    /// The id under which the source's capture enters this table.
    pub source_id: i64,
    /// What the source's definition and capture looked like when the rows were last known to be whole.
    pub fingerprint: u128,
    /// A row with NULL in its key has been seen: its rowid is in the replica's key, and VACUUM renumbers it.
    pub null_keys: bool,
    /// Which rows are kept, where only the newest are.
    pub kept: Kept,
    /// Set while the table is being brought to equality with the source.
    pub reconcile: Option<Progress>,
}

/// How far reconcile has come in a table. Rows up to here are exact at the cursor.
#[derive(Clone, Debug, PartialEq, Default)]
pub(crate) struct Progress {
    /// The canonical key of the last row that was read; empty before the first.
    pub through: Vec<u8>,
    /// The same key as the source holds it, to go on from.
    pub values: Vec<Value>,
    /// Rows read so far.
    pub copied: u64,
    /// The source's order is not the replica's: rows that are gone are found at the end, by what was seen.
    pub by_sweep: bool,
}

#[derive(Archive, Serialize, Deserialize)]
struct StoredCursor {
    log_id: [u8; 16],
    seq: u64,
    fingerprint: u64,
    horizon: u64,
    horizon_fingerprint: u64,
    schema_version: i64,
    schema_hash: u64,
}

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct StoredShape {
    number: u16,
    name: String,
    columns: Vec<(String, String)>,
    /// Column (`u32::MAX` is the rowid) and collation.
    key: Vec<(u32, u8)>,
    nullable: bool,
}

#[derive(Archive, Serialize, Deserialize)]
struct StoredTable {
    shape: StoredShape,
    former: Vec<StoredShape>,
    source_id: i64,
    fingerprint: u128,
    null_keys: bool,
    kept: StoredKept,
    reconcile: Option<StoredProgress>,
}

#[derive(Archive, Serialize, Deserialize)]
struct StoredProgress {
    through: Vec<u8>,
    values: Vec<StoredValue>,
    copied: u64,
    by_sweep: bool,
}

#[derive(Archive, Serialize, Deserialize)]
enum StoredKept {
    Unknown,
    All,
    To(Vec<StoredValue>),
}

#[derive(Archive, Serialize, Deserialize)]
enum StoredValue {
    Null,
    Integer(i64),
    Real(u64),
    Text(Vec<u8>),
    Blob(Vec<u8>),
    Utf16le(Vec<u8>),
    Utf16be(Vec<u8>),
}

/// What the replica knows of a secondary index.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) struct IndexState {
    /// Its entries begin with it.
    pub number: u32,
    pub table: u32,
    pub columns: Vec<String>,
    /// Set while it is being built: the key of the last row that is in it.
    pub through: Option<Vec<u8>>,
}

pub(crate) fn encode_indexes(states: &Vec<IndexState>) -> Result<Vec<u8>> {
    Ok(seal(&rkyv::to_bytes::<rancor::Error>(states).map_err(|e| wrong("indexes", &e))?))
}

pub(crate) fn decode_indexes(bytes: &[u8]) -> Result<Vec<IndexState>> {
    rkyv::from_bytes::<Vec<IndexState>, rancor::Error>(unseal(bytes)?).map_err(|e| wrong("indexes", &e))
}

/// What the replica knows of a projection.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) struct ProjectionState {
    /// Its records' names begin with it.
    pub number: u32,
    pub table: u32,
    pub name: String,
    pub version: u32,
    /// The size of the archived type, in bytes: a type that was changed without its version mostly has another one.
    pub size: u32,
    /// Set while it is being made: the key of the last row that was looked at.
    pub through: Option<Vec<u8>>,
}

pub(crate) fn encode_projections(states: &Vec<ProjectionState>) -> Result<Vec<u8>> {
    Ok(seal(&rkyv::to_bytes::<rancor::Error>(states).map_err(|e| wrong("projections", &e))?))
}

pub(crate) fn decode_projections(bytes: &[u8]) -> Result<Vec<ProjectionState>> {
    rkyv::from_bytes::<Vec<ProjectionState>, rancor::Error>(unseal(bytes)?)
        .map_err(|e| wrong("projections", &e))
}

#[derive(Archive, Serialize, Deserialize)]
struct StoredPast(Vec<(u64, u64, u32, Vec<u8>)>);

/// No table in a remembered entry.
const NO_TABLE: u32 = u32::MAX;

pub(crate) fn encode_past(entries: &[Remembered]) -> Result<Vec<u8>> {
    let one = |r: &Remembered| (r.seq, r.fingerprint, r.table.unwrap_or(NO_TABLE), r.key.clone());
    let stored = StoredPast(entries.iter().map(one).collect());
    let body = rkyv::to_bytes::<rancor::Error>(&stored).map_err(|e| wrong("past", &e))?;
    Ok(seal(&body))
}

pub(crate) fn decode_past(bytes: &[u8]) -> Result<Vec<Remembered>> {
    let stored =
        rkyv::from_bytes::<StoredPast, rancor::Error>(unseal(bytes)?).map_err(|e| wrong("past", &e))?;
    let one = |(seq, fingerprint, table, key)| Remembered {
        seq,
        fingerprint,
        table: Some(table).filter(|t| *t != NO_TABLE),
        key,
    };
    Ok(stored.0.into_iter().map(one).collect())
}

const ROWID: u32 = u32::MAX;
const COLLATIONS: [Collation; 3] = [Collation::Binary, Collation::Nocase, Collation::Rtrim];

fn wrong(what: &str, e: &rancor::Error) -> Error {
    Error::new(Kind::Damaged, format!("{what} cannot be read: {e}"))
}

pub(crate) fn encode_cursor(c: &Cursor) -> Result<Vec<u8>> {
    let stored = StoredCursor {
        log_id: c.log_id.0,
        seq: c.seq,
        fingerprint: c.fingerprint,
        horizon: c.horizon,
        horizon_fingerprint: c.horizon_fingerprint,
        schema_version: c.schema_version,
        schema_hash: c.schema_hash,
    };
    let body = rkyv::to_bytes::<rancor::Error>(&stored).map_err(|e| wrong("cursor", &e))?;
    Ok(seal(&body))
}

pub(crate) fn decode_cursor(bytes: &[u8]) -> Result<Cursor> {
    let c =
        rkyv::from_bytes::<StoredCursor, rancor::Error>(unseal(bytes)?).map_err(|e| wrong("cursor", &e))?;
    Ok(Cursor {
        log_id: LogId(c.log_id),
        seq: c.seq,
        fingerprint: c.fingerprint,
        horizon: c.horizon,
        horizon_fingerprint: c.horizon_fingerprint,
        schema_version: c.schema_version,
        schema_hash: c.schema_hash,
    })
}

pub(crate) fn encode_table(state: &TableState) -> Result<Vec<u8>> {
    let stored = StoredTable {
        shape: shape_in(state.shape, &state.table),
        former: state.former.iter().map(|(number, table)| shape_in(*number, table)).collect(),
        source_id: state.source_id,
        fingerprint: state.fingerprint,
        null_keys: state.null_keys,
        kept: match &state.kept {
            Kept::Unknown => StoredKept::Unknown,
            Kept::All => StoredKept::All,
            Kept::To(boundary) => StoredKept::To(boundary.0.iter().map(value_in).collect()),
        },
        reconcile: state.reconcile.as_ref().map(|p| StoredProgress {
            through: p.through.clone(),
            values: p.values.iter().map(value_in).collect(),
            copied: p.copied,
            by_sweep: p.by_sweep,
        }),
    };
    let body = rkyv::to_bytes::<rancor::Error>(&stored).map_err(|e| wrong("table state", &e))?;
    Ok(seal(&body))
}

pub(crate) fn decode_table(bytes: &[u8]) -> Result<TableState> {
    let t = rkyv::from_bytes::<StoredTable, rancor::Error>(unseal(bytes)?)
        .map_err(|e| wrong("table state", &e))?;
    let (shape, table) = shape_out(t.shape);
    Ok(TableState {
        table,
        shape,
        former: t.former.into_iter().map(shape_out).collect(),
        source_id: t.source_id,
        fingerprint: t.fingerprint,
        null_keys: t.null_keys,
        kept: match t.kept {
            StoredKept::Unknown => Kept::Unknown,
            StoredKept::All => Kept::All,
            StoredKept::To(values) => Kept::To(Boundary(values.into_iter().map(value_out).collect())),
        },
        reconcile: t.reconcile.map(|p| Progress {
            through: p.through,
            values: p.values.into_iter().map(value_out).collect(),
            copied: p.copied,
            by_sweep: p.by_sweep,
        }),
    })
}

pub(super) fn shape_in(number: u16, table: &Table) -> StoredShape {
    let part = |p: &KeyPart| {
        let column = p.column.and_then(|i| u32::try_from(i).ok()).unwrap_or(ROWID);
        let collation = COLLATIONS.iter().position(|c| *c == p.collation).unwrap_or(0);
        (column, u8::try_from(collation).unwrap_or(0))
    };
    StoredShape {
        number,
        name: table.name.clone(),
        columns: table.columns.iter().map(|c| (c.name.clone(), c.declared.clone())).collect(),
        key: table.key.parts.iter().map(part).collect(),
        nullable: table.key.nullable,
    }
}

pub(super) fn shape_out(shape: StoredShape) -> (u16, Table) {
    let part = |(column, collation): (u32, u8)| KeyPart {
        column: (column != ROWID).then_some(column as usize),
        collation: COLLATIONS.get(usize::from(collation)).copied().unwrap_or(Collation::Binary),
    };
    let table = Table {
        name: shape.name,
        columns: shape.columns.into_iter().map(|(name, declared)| Column { name, declared }).collect(),
        key: Key { parts: shape.key.into_iter().map(part).collect(), nullable: shape.nullable },
    };
    (shape.number, table)
}

fn value_in(v: &Value) -> StoredValue {
    match v {
        Value::Null => StoredValue::Null,
        Value::Integer(i) => StoredValue::Integer(*i),
        Value::Real(r) => StoredValue::Real(r.to_bits()),
        Value::Text(t) => StoredValue::Text(t.clone()),
        Value::Blob(b) => StoredValue::Blob(b.clone()),
        Value::Utf16le(t) => StoredValue::Utf16le(t.clone()),
        Value::Utf16be(t) => StoredValue::Utf16be(t.clone()),
    }
}

fn value_out(v: StoredValue) -> Value {
    match v {
        StoredValue::Null => Value::Null,
        StoredValue::Integer(i) => Value::Integer(i),
        StoredValue::Real(r) => Value::Real(f64::from_bits(r)),
        StoredValue::Text(t) => Value::Text(t),
        StoredValue::Blob(b) => Value::Blob(b),
        StoredValue::Utf16le(t) => Value::Utf16le(t),
        StoredValue::Utf16be(t) => Value::Utf16be(t),
    }
}
