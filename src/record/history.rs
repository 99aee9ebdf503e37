//! What is kept of changes, as bytes: the window they belong to, and each row before and after it.

use super::state::{StoredShape, shape_in, shape_out};
use super::{seal, unseal};
use crate::cursor::{LogId, Position};
use crate::error::{Error, Kind, Result};
use crate::schema::Table;
use rkyv::rancor;
use rkyv::{Archive, Deserialize, Serialize};

/// Where the kept history begins and ends.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct History {
    /// New whenever recording begins anew.
    pub id: u64,
    /// The number of the next window.
    pub next: u64,
    /// Changes that are kept.
    pub rows: u64,
    /// Behind this position nothing is missing.
    pub floor: Option<Floor>,
    /// The last position at which the replica showed one state of the source.
    pub settled: Option<Position>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Floor {
    pub position: Position,
    /// At this position neither.
    pub exact: bool,
}

/// A window whose changes are kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Kept {
    /// Its end.
    pub position: Position,
    /// The replica had not shown one state of the source at this position before: whoever has been consistent there
    /// has this window in it.
    pub fresh: bool,
    /// The replica showed one state of the source after it.
    pub consistent: bool,
    /// When it was applied, in milliseconds since 1970.
    pub time_ms: u64,
    pub rows: u64,
}

/// One row, before or after: its record and the values that lie outside of it.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default)]
pub(crate) struct Side {
    pub record: Vec<u8>,
    pub longs: Vec<(u16, Vec<u8>)>,
}

/// What became of one key in a window.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default)]
pub(crate) struct Net {
    /// The last thing that touched it was a range, not an entry.
    pub read: bool,
    pub before: Option<Side>,
    pub after: Option<Side>,
}

#[derive(Archive, Serialize, Deserialize)]
struct StoredHistory {
    id: u64,
    next: u64,
    rows: u64,
    floor: Option<([u8; 16], u64, bool)>,
    settled: Option<([u8; 16], u64)>,
}

#[derive(Archive, Serialize, Deserialize)]
struct StoredKept {
    log_id: [u8; 16],
    seq: u64,
    fresh: bool,
    consistent: bool,
    time_ms: u64,
    rows: u64,
}

fn wrong(e: &rancor::Error) -> Error {
    Error::new(Kind::Damaged, format!("the history of changes cannot be read: {e}"))
}

pub(crate) fn encode_history(h: &History) -> Result<Vec<u8>> {
    let floor = h.floor.map(|f| (f.position.log_id.0, f.position.seq, f.exact));
    let settled = h.settled.map(|p| (p.log_id.0, p.seq));
    let stored = StoredHistory { id: h.id, next: h.next, rows: h.rows, floor, settled };
    Ok(seal(&rkyv::to_bytes::<rancor::Error>(&stored).map_err(|e| wrong(&e))?))
}

pub(crate) fn decode_history(bytes: &[u8]) -> Result<History> {
    let h = rkyv::from_bytes::<StoredHistory, rancor::Error>(unseal(bytes)?).map_err(|e| wrong(&e))?;
    let floor =
        h.floor.map(|(log, seq, exact)| Floor { position: Position { log_id: LogId(log), seq }, exact });
    let settled = h.settled.map(|(log, seq)| Position { log_id: LogId(log), seq });
    Ok(History { id: h.id, next: h.next, rows: h.rows, floor, settled })
}

pub(crate) fn encode_kept(k: &Kept) -> Result<Vec<u8>> {
    let stored = StoredKept {
        log_id: k.position.log_id.0,
        seq: k.position.seq,
        fresh: k.fresh,
        consistent: k.consistent,
        time_ms: k.time_ms,
        rows: k.rows,
    };
    Ok(seal(&rkyv::to_bytes::<rancor::Error>(&stored).map_err(|e| wrong(&e))?))
}

pub(crate) fn decode_kept(bytes: &[u8]) -> Result<Kept> {
    let k = rkyv::from_bytes::<StoredKept, rancor::Error>(unseal(bytes)?).map_err(|e| wrong(&e))?;
    Ok(Kept {
        position: Position { log_id: LogId(k.log_id), seq: k.seq },
        fresh: k.fresh,
        consistent: k.consistent,
        time_ms: k.time_ms,
        rows: k.rows,
    })
}

pub(crate) fn encode_net(net: &Net) -> Result<Vec<u8>> {
    Ok(seal(&rkyv::to_bytes::<rancor::Error>(net).map_err(|e| wrong(&e))?))
}

pub(crate) fn decode_net(bytes: &[u8]) -> Result<Net> {
    rkyv::from_bytes::<Net, rancor::Error>(unseal(bytes)?).map_err(|e| wrong(&e))
}

/// A definition by which kept rows were read.
pub(crate) fn encode_shape(shape: u16, table: &Table) -> Result<Vec<u8>> {
    Ok(seal(&rkyv::to_bytes::<rancor::Error>(&shape_in(shape, table)).map_err(|e| wrong(&e))?))
}

pub(crate) fn decode_shape(bytes: &[u8]) -> Result<Table> {
    let stored = rkyv::from_bytes::<StoredShape, rancor::Error>(unseal(bytes)?).map_err(|e| wrong(&e))?;
    Ok(shape_out(stored).1)
}
