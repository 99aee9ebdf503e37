//! What travels from a source to a replica: windows, in pieces.
//!
//! A window is all entries after the cursor up to head and the rows they name, read in one snapshot. It
//! may be larger than memory, so it travels in pieces; the last piece carries the [`End`], and only with
//! it may anything of the window be committed. Owns the shape; reads and writes nothing.

use crate::cursor::Cursor;
use crate::record::Deltas;
use crate::record::state::{Progress, TableState};
use crate::value::Value;
use std::time::{Duration, Instant};

/// The number by which source and replica speak of a table; given once, never used again.
pub(crate) type TableNo = u32;

/// A piece of a window.
#[derive(Default)]
pub(crate) struct Piece {
    pub changes: Vec<Change>,
    /// Set on a window's last piece.
    pub end: Option<End>,
}

/// What a piece asks of the replica.
pub(crate) enum Change {
    /// From here on the table looks like this. Its rows stay until reconcile has been through.
    Define(TableNo, Box<TableState>),
    /// The table is gone, with its rows.
    Forget(TableNo),
    /// Keys that entries named: present means put, absent means delete.
    Deltas(TableNo, Deltas),
    /// All rows of a range of a table, read in the window's snapshot.
    Range(Range),
    /// Which rows of the table are kept now.
    Keep(TableNo, Kept),
    /// The window's last entries, to be remembered behind those that are.
    Remember(Vec<Remembered>),
    /// What was remembered is no longer the source's past, or does not reach up to what comes next.
    ForgetPast,
}

/// How many of the last entries the replica remembers.
pub(crate) const REMEMBER: u64 = 10_000;

/// An entry of the past: with it a rewound source is found to have a common history with the replica.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Remembered {
    pub seq: u64,
    pub fingerprint: u64,
    /// The table that it named, and the canonical key; no table where it named none that is replicated.
    pub table: Option<TableNo>,
    pub key: Vec<u8>,
}

/// The last row that is kept: the value of `by`, then the components of its key in the source's form.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Boundary(pub Vec<Value>);

/// What is kept of a table, as the replica knows it.
#[derive(Clone, Debug, PartialEq, Default)]
pub(crate) enum Kept {
    /// Not known: the table is reconciled.
    #[default]
    Unknown,
    /// Every row: there are fewer than may be kept.
    All,
    To(Boundary),
}

impl Kept {
    pub fn boundary(&self) -> Option<&Boundary> {
        if let Self::To(boundary) = self { Some(boundary) } else { None }
    }
}

/// All rows of the source whose keys lie after `after`, up to the last of `rows`, or to the table's end.
pub(crate) struct Range {
    pub table: TableNo,
    /// The canonical key behind which the range begins; empty at the table's start.
    pub after: Vec<u8>,
    /// In key order.
    pub rows: Deltas,
    /// How far this brings the table; `None` once it is through.
    pub progress: Option<Progress>,
    pub purpose: Purpose,
    /// The rows come in the source's order, which is not the replica's.
    pub by_sweep: bool,
}

/// What a range is for: they are one routine, and differ in what is done about a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Mend it: a first copy, or a table whose definition moved.
    Reconcile,
    /// Report it.
    Verify,
    /// Report it and mend it.
    Repair,
}

/// The end of a window: what the replica's cursor becomes, in the same transaction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub cursor: Cursor,
    /// The source's head in the window's snapshot.
    pub head: u64,
    /// When the snapshot was taken.
    pub read_at: Instant,
    /// Nothing is left to read that this stream was asked for.
    pub done: bool,
    /// There is more to read at once: for so long, the next windows may share this one's transaction.
    pub gather: Duration,
}

/// Where a stream of windows begins: what the replica has durably.
#[derive(Clone, Debug, Default)]
pub(crate) struct Start {
    /// `None` in a replica that has never seen a source.
    pub cursor: Option<Cursor>,
    pub tables: Vec<(TableNo, TableState)>,
    /// The next number for a table.
    pub next_no: TableNo,
    /// The last entries, oldest first, without a gap.
    pub past: Vec<Remembered>,
}

/// What a stream of windows is asked for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Goal {
    /// Follow until stopped.
    Follow,
    /// Up to the head found at the start, every table whole; then end.
    CatchUp,
    /// As [`Goal::CatchUp`], then compare these tables (all, if empty) with the replica; the source's
    /// capture is left as it is.
    Verify { tables: Vec<String>, repair: bool },
}
