//! A range of a table against what should stand there: reconcile, verify and repair.
//!
//! Where the source sorts keys as the replica does, a range is compared in one pass, and what lies in it
//! but was not read is gone. Elsewhere ("by sweep") every row that was read is marked as seen, and what
//! was not seen by the end is gone.

use super::apply::{Open, Touched, Writer, after_all, put_longs, row_name, take_all};
use super::{Difference, failed, prefix};
use crate::error::{Error, Kind, Result};
use crate::key;
use crate::record::{Delta, Deltas};
use crate::window::{Purpose, Range, TableNo};
use redb::ReadableTable;
use std::collections::HashSet;
use std::ops::Bound;

/// Rows that are gone, taken out at once.
const GONE: usize = 20_000;
/// Differences that are named; beyond it they are only counted.
const NAMED: usize = 100;

impl Writer {
    /// Brings a range of a table to equality with the source, or says where it is not equal.
    pub(super) fn range(&mut self, range: Range, open: &mut Open<'_>, touched: &mut Touched) -> Result<()> {
        let no = range.table;
        touched.brought.copied += range.rows.len() as u64;
        touched.brought.bytes += range.rows.bytes() as u64;
        if range.by_sweep {
            self.sweep(&range, open, touched)?;
            if range.progress.is_none() {
                let whole = (Bound::Excluded(prefix(no).to_vec()), after_all(&prefix(no)));
                self.verify_projected(&range, whole, open)?;
            }
            self.went_through(range, touched);
            return Ok(());
        }
        let upper = match &range.progress {
            Some(progress) => Bound::Included(row_name(no, &progress.through)),
            None => after_all(&prefix(no)),
        };
        let lower = Bound::Excluded(row_name(no, &range.after));
        if range.purpose != Purpose::Reconcile {
            self.compare(&range, (lower.clone(), upper.clone()), open)?;
        }
        if range.purpose == Purpose::Verify {
            return self.verify_projected(&range, (lower, upper), open);
        }
        self.seen_null_keys(no, &range.rows, touched);
        touched.counts.insert(no);
        let bounds = (lower.clone(), upper.clone());
        if is_empty(&open.rows, &lower, &upper)? {
            self.append(no, &range.rows, open)?;
        } else {
            self.merge(no, &range.rows, (lower, upper), open)?;
        }
        self.verify_projected(&range, bounds, open)?;
        self.went_through(range, touched);
        Ok(())
    }

    /// Remembers how far reconcile has come.
    fn went_through(&mut self, range: Range, touched: &mut Touched) {
        if let Some(state) = self.tables.get_mut(&range.table).filter(|s| s.reconcile.is_some()) {
            if range.progress.is_none() {
                state.former.clear();
            }
            state.reconcile = range.progress;
            touched.states.insert(range.table);
        }
    }

    /// Nothing stands in the range: rows go in one behind the other.
    fn append(&mut self, no: TableNo, rows: &Deltas, open: &mut Open<'_>) -> Result<()> {
        let Some(last) = rows.last_key() else { return Ok(()) };
        let gap = row_name(no, last);
        let mut cursor = open.rows.upper_bound_mut(Bound::Included(gap.as_slice())).map_err(failed)?;
        let mut name = prefix(no).to_vec();
        for delta in rows.iter() {
            name.truncate(4);
            name.extend_from_slice(delta.key);
            let record = delta.record.unwrap_or_default();
            cursor
                .insert_before(name.as_slice(), record)
                .map_err(|e| Error::new(Kind::Replica, format!("replica: {e}")))?;
        }
        cursor.close().map_err(failed)?;
        for delta in rows.iter().filter(Delta::has_longs) {
            put_longs(&row_name(no, delta.key), &delta, open)?;
        }
        *self.counts.entry(no).or_default() += rows.len() as u64;
        self.note_new(no, rows, open)?;
        self.index_new(no, rows, open)?;
        self.project_new(no, rows, open)
    }

    /// Takes out what the source no longer has, puts what is new or other, leaves what is the same.
    fn merge(&mut self, no: TableNo, rows: &Deltas, range: Bounds, open: &mut Open<'_>) -> Result<()> {
        let (mut lower, upper) = range;
        let mut same = HashSet::new();
        loop {
            let found = look(&open.rows, rows, (&lower, &upper))?;
            same.extend(found.same);
            for name in &found.gone {
                let gone = Delta::delete(name.get(4..).unwrap_or_default());
                self.delta(no, &gone, open)?;
            }
            match found.next {
                Some(next) => lower = Bound::Excluded(next),
                None => break,
            }
        }
        for (i, delta) in rows.iter().enumerate().filter(|(i, _)| !same.contains(i)) {
            debug_assert!(i < rows.len(), "a delta of this range");
            self.delta(no, &delta, open)?;
        }
        Ok(())
    }

    fn compare(&mut self, range: &Range, (mut lower, upper): Bounds, open: &Open<'_>) -> Result<()> {
        let mut met = HashSet::new();
        loop {
            let found = look(&open.rows, &range.rows, (&lower, &upper))?;
            for name in &found.gone {
                self.differ(range, name.get(4..).unwrap_or_default(), "only in the replica");
            }
            for i in &found.other {
                if let Some(delta) = range.rows.iter().nth(*i) {
                    self.differ(range, delta.key, "has other values in the replica");
                }
            }
            met.extend(found.same);
            met.extend(found.other);
            match found.next {
                Some(next) => lower = Bound::Excluded(next),
                None => break,
            }
        }
        for (_, delta) in range.rows.iter().enumerate().filter(|(i, _)| !met.contains(i)) {
            self.differ(range, delta.key, "missing in the replica");
        }
        Ok(())
    }

    /// Puts or compares the rows that were read, and marks them; at the end takes out what was not seen.
    fn sweep(&mut self, range: &Range, open: &mut Open<'_>, touched: &mut Touched) -> Result<()> {
        let no = range.table;
        if range.after.is_empty() {
            take_all(&mut open.seen, &prefix(no))?;
        }
        self.sweeping.insert(no);
        self.seen_null_keys(no, &range.rows, touched);
        touched.counts.insert(no);
        for delta in range.rows.iter() {
            let name = row_name(no, delta.key);
            let stands =
                open.rows.get(name.as_slice()).map_err(failed)?.map(|r| Some(r.value()) == delta.record);
            match stands {
                None => self.differ(range, delta.key, "missing in the replica"),
                Some(false) => self.differ(range, delta.key, "has other values in the replica"),
                Some(true) => {}
            }
            if stands == Some(true) || range.purpose == Purpose::Verify {
                open.seen.insert(name.as_slice(), ()).map_err(failed)?;
            } else {
                self.delta(no, &delta, open)?;
            }
        }
        if range.progress.is_none() {
            self.sweep_out(range, open)?;
            self.sweeping.remove(&no);
            take_all(&mut open.seen, &prefix(no))?;
        }
        Ok(())
    }

    fn sweep_out(&mut self, range: &Range, open: &mut Open<'_>) -> Result<()> {
        let upper = after_all(&prefix(range.table));
        let mut lower = Bound::Excluded(prefix(range.table).to_vec());
        loop {
            let gone = unseen(open, (&lower, &upper))?;
            for name in &gone {
                let key = name.get(4..).unwrap_or_default();
                self.differ(range, key, "only in the replica");
                if range.purpose != Purpose::Verify {
                    self.delta(range.table, &Delta::delete(key), open)?;
                }
            }
            match gone.into_iter().nth(GONE - 1) {
                Some(last) => lower = Bound::Excluded(last),
                None => return Ok(()),
            }
        }
    }

    /// Notes a difference, if that is what the range is for.
    pub(super) fn differ(&mut self, range: &Range, key: &[u8], what: &'static str) {
        let Some(state) = self.tables.get(&range.table).filter(|_| range.purpose != Purpose::Reconcile)
        else {
            return;
        };
        self.differences.count += 1;
        if self.differences.named.len() < NAMED {
            let key = key::decode(key, &state.table.key.collations()).unwrap_or_default();
            self.differences.named.push(Difference { table: state.table.name.clone(), key, what });
        }
    }
}

fn unseen(open: &Open<'_>, (lower, upper): (&Bound<Vec<u8>>, &Bound<Vec<u8>>)) -> Result<Vec<Vec<u8>>> {
    let mut gone = Vec::new();
    for entry in open
        .rows
        .range::<&[u8]>((lower.as_ref().map(Vec::as_slice), upper.as_ref().map(Vec::as_slice)))
        .map_err(failed)?
    {
        let (name, _) = entry.map_err(failed)?;
        if open.seen.get(name.value()).map_err(failed)?.is_none() {
            gone.push(name.value().to_vec());
        }
        if gone.len() == GONE {
            break;
        }
    }
    Ok(gone)
}

type Bounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// What stands in a range, against the rows that should.
#[derive(Default)]
struct Found {
    /// Names in ROWS that the source does not have.
    gone: Vec<Vec<u8>>,
    /// Rows (by index) that are there as they should be.
    same: Vec<usize>,
    /// Rows (by index) that are there with other values.
    other: Vec<usize>,
    /// Go on behind this name; `None` at the range's end.
    next: Option<Vec<u8>>,
}

fn look(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    rows: &Deltas,
    (lower, upper): (&Bound<Vec<u8>>, &Bound<Vec<u8>>),
) -> Result<Found> {
    let bounds = (lower.as_ref().map(Vec::as_slice), upper.as_ref().map(Vec::as_slice));
    let mut found = Found::default();
    let mut wanted = rows.iter().enumerate().peekable();
    for entry in table.range::<&[u8]>(bounds).map_err(failed)? {
        let (name, record) = entry.map_err(failed)?;
        let key = name.value().get(4..).unwrap_or_default();
        while wanted.next_if(|(_, delta)| delta.key < key).is_some() {}
        match wanted.next_if(|(_, delta)| delta.key == key) {
            Some((i, delta)) if delta.record == Some(record.value()) => found.same.push(i),
            Some((i, _)) => found.other.push(i),
            None => found.gone.push(name.value().to_vec()),
        }
        if found.gone.len() == GONE {
            found.next = Some(name.value().to_vec());
            break;
        }
    }
    Ok(found)
}

fn is_empty(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    lower: &Bound<Vec<u8>>,
    upper: &Bound<Vec<u8>>,
) -> Result<bool> {
    Ok(table
        .range::<&[u8]>((lower.as_ref().map(Vec::as_slice), upper.as_ref().map(Vec::as_slice)))
        .map_err(failed)?
        .next()
        .is_none())
}
