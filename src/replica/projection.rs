//! Reads what an application made of its rows: by key, by ranges and beginnings of keys.

use super::apply::after_all;
use super::guard::failed;
use super::prefix;
use super::project::{Project, size_of_view};
use super::projecting::{PROJECTED, missing};
use super::row::Bytes;
use super::scan::{Bounds, Held, Snapshot, begin, bounds, encode, is_empty, place};
use super::slot::Ticket;
use crate::error::{Error, Kind, Result};
use crate::lookup::{Key, KeyRange};
use crate::record::projected::{archive, check};
use redb::{OwnedAccessGuard, OwnedRange};
use std::fmt;
use std::marker::PhantomData;
use std::ops::Bound;
use std::sync::Arc;

/// What an application made of the rows of a table, as it is in one snapshot.
///
/// ```no_run
/// # #[derive(rkyv::Archive, rkyv::Serialize)]
/// # struct Episode { task: String, reward: Option<f64> }
/// # impl redtail::Project for Episode {
/// #     const TABLE: &'static str = "episodes";
/// #     const VERSION: u32 = 1;
/// #     fn project(row: &redtail::Row) -> redtail::Result<Option<Self>> {
/// #         Ok(Some(Self { task: String::new(), reward: row.real("reward")? }))
/// #     }
/// # }
/// # fn read(snapshot: &redtail::Snapshot) -> redtail::Result<()> {
/// let episodes = snapshot.projection::<Episode>()?;
/// if let Some(episode) = episodes.get("e17")? {
///     println!("{}", episode.view()?.task);
/// }
/// for episode in episodes.range("e1".."e2")?.rev().take(10) {
///     println!("{:?}", episode?.view()?.reward);
/// }
/// # Ok(())
/// # }
/// ```
pub struct Projection<'s, T> {
    snapshot: &'s Snapshot,
    held: &'s Held,
    number: u32,
    records: Bytes,
    of: PhantomData<fn() -> T>,
}

/// What an application made of one row, where it lies in the replica's page.
///
/// ```no_run
/// # #[derive(rkyv::Archive, rkyv::Serialize)]
/// # struct Episode { reward: Option<f64> }
/// # impl redtail::Project for Episode {
/// #     const TABLE: &'static str = "episodes";
/// #     const VERSION: u32 = 1;
/// #     fn project(row: &redtail::Row) -> redtail::Result<Option<Self>> {
/// #         Ok(Some(Self { reward: row.real("reward")? }))
/// #     }
/// # }
/// # fn read(snapshot: &redtail::Snapshot) -> redtail::Result<()> {
/// let found: Option<redtail::Projected<Episode>> = snapshot.projection()?.get("e17")?;
/// if let Some(episode) = &found {
///     println!("{:?}", episode.view()?.reward);
/// }
/// # Ok(())
/// # }
/// ```
pub struct Projected<T> {
    record: OwnedAccessGuard<&'static [u8]>,
    /// The page belongs to its snapshot.
    _ticket: Arc<Ticket>,
    of: PhantomData<fn() -> T>,
}

/// What an application made of the rows of a table, one after another, from either end.
///
/// A row of which it could not be made is an error of the kind `Mismatch`, and the scan goes on behind it; with any
/// other error the scan ends.
///
/// ```no_run
/// # #[derive(rkyv::Archive, rkyv::Serialize)]
/// # struct Episode { reward: Option<f64> }
/// # impl redtail::Project for Episode {
/// #     const TABLE: &'static str = "episodes";
/// #     const VERSION: u32 = 1;
/// #     fn project(row: &redtail::Row) -> redtail::Result<Option<Self>> {
/// #         Ok(Some(Self { reward: row.real("reward")? }))
/// #     }
/// # }
/// # fn read(snapshot: &redtail::Snapshot) -> redtail::Result<()> {
/// for episode in snapshot.projection::<Episode>()?.scan()?.rev().take(10) {
///     println!("{:?}", episode?.view()?.reward);
/// }
/// # Ok(())
/// # }
/// ```
pub struct ProjectedScan<T> {
    range: OwnedRange<&'static [u8], &'static [u8]>,
    ticket: Arc<Ticket>,
    ended: bool,
    of: PhantomData<fn() -> T>,
}

impl Snapshot {
    /// What the application has of its own type beside the rows of a table; see [`Project`].
    ///
    /// # Errors
    /// `Usage` for a table that is not replicated, and where this type is not there in this version, whole; the error
    /// says what is.
    pub fn projection<T: Project>(&self) -> Result<Projection<'_, T>> {
        let held = self.held(T::TABLE)?;
        let (ticket, read) = self.parts();
        ticket.guarded(|| {
            let mut states = super::projections(read)?;
            states.retain(|s| s.table == held.no);
            let fits = |s: &&_| is_of::<T>(s);
            let Some(number) = states.iter().find(fits).map(|s| s.number) else {
                return missing(&held.state.table.name, T::NAME, T::VERSION, &states);
            };
            let records = read.open_table(PROJECTED).map_err(failed)?;
            Ok(Projection { snapshot: self, held, number, records, of: PhantomData })
        })
    }
}

fn is_of<T: Project>(state: &crate::record::state::ProjectionState) -> bool {
    let same = (state.name.as_str(), state.version, state.size) == (T::NAME, T::VERSION, size_of_view::<T>());
    same && state.through.is_none()
}

impl<T: Project> Projection<'_, T> {
    /// What was made of the row with this key; `None` if there is no such row, or if it was left out.
    ///
    /// # Errors
    /// `Usage` for a key of another width; `Mismatch` if it could not be made of this row, with the reason; `Damaged`
    /// if the record is.
    pub fn get(&self, key: impl Into<Key>) -> Result<Option<Projected<T>>> {
        let name = place(self.held, self.number, &key.into())?;
        let ticket = self.snapshot.parts().0;
        ticket.guarded(|| {
            let record = self.records.get_owned(name.as_slice()).map_err(failed)?;
            record.map(|record| Projected::new(record, ticket)).transpose()
        })
    }

    /// All of them, in the order of their rows' keys; from the end with [`Iterator::rev`].
    ///
    /// # Errors
    /// `Damaged` if they cannot be read.
    pub fn scan(&self) -> Result<ProjectedScan<T>> {
        self.range(..)
    }

    /// Those whose rows' keys lie in a range, as [`Snapshot::range`] has it.
    ///
    /// # Errors
    /// `Usage` for a bound with more values than the key has.
    pub fn range(&self, range: impl Into<KeyRange>) -> Result<ProjectedScan<T>> {
        let bounds = bounds(&prefix(self.number), &range.into(), |out, key| encode(self.held, out, key))?;
        self.walk(bounds)
    }

    /// Those whose rows' keys begin with these values, as [`Snapshot::prefix`] has it.
    ///
    /// # Errors
    /// `Usage` as there.
    pub fn prefix(&self, key: impl Into<Key>) -> Result<ProjectedScan<T>> {
        let mut lower = prefix(self.number).to_vec();
        begin(self.held, &mut lower, &key.into())?;
        let upper = after_all(&lower);
        self.walk((Bound::Included(lower), upper))
    }

    fn walk(&self, (lower, upper): Bounds) -> Result<ProjectedScan<T>> {
        let ticket = self.snapshot.parts().0;
        ticket.guarded(|| {
            let ended = is_empty(&lower, &upper);
            // redb takes no range whose end lies before its start.
            let lower = if ended { Bound::Unbounded } else { lower };
            let bounds = (lower.as_ref().map(Vec::as_slice), upper.as_ref().map(Vec::as_slice));
            let range = self.records.range_owned::<&[u8]>(bounds).map_err(failed)?;
            Ok(ProjectedScan { range, ticket: Arc::clone(ticket), ended, of: PhantomData })
        })
    }
}

impl<T: Project> Projected<T> {
    fn new(record: OwnedAccessGuard<&'static [u8]>, ticket: &Arc<Ticket>) -> Result<Self> {
        match check(record.value())? {
            None => Ok(Self { record, _ticket: Arc::clone(ticket), of: PhantomData }),
            Some(why) => Err(Error::new(
                Kind::Mismatch,
                format!("table {}, projection {:?}: {why}", T::TABLE, T::NAME),
            )),
        }
    }

    /// The archived type, straight from the page: rkyv's form of it, whose numbers are read with `to_native`. Its
    /// structure is checked by each call (some 10 ns), its checksum was when it was found.
    ///
    /// # Errors
    /// `Mismatch` if the record is no archive of this type: it was changed, and [`Project::VERSION`] was not.
    pub fn view(&self) -> Result<&T::View> {
        T::read(archive(self.record.value())).ok_or_else(|| {
            let (table, name) = (T::TABLE, T::NAME);
            let what = format!(
                "table {table}, projection {name:?}: its records are of another type; raise its version"
            );
            Error::new(Kind::Mismatch, what)
        })
    }
}

impl<T: Project> ProjectedScan<T> {
    fn step(&mut self, from_end: bool) -> Option<Result<Projected<T>>> {
        if self.ended {
            return None;
        }
        let Self { range, ticket, .. } = self;
        let next = ticket.guarded(|| {
            let Some(entry) = (if from_end { range.next_back() } else { range.next() }) else {
                return Ok(None);
            };
            let (_, record) = entry.map_err(failed)?;
            Projected::new(record, ticket).map(Some)
        });
        self.ended = next.as_ref().is_err_and(|e| e.kind() != Kind::Mismatch);
        next.transpose()
    }
}

impl<T: Project> Iterator for ProjectedScan<T> {
    type Item = Result<Projected<T>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step(false)
    }
}

impl<T: Project> DoubleEndedIterator for ProjectedScan<T> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.step(true)
    }
}

/// Its table and name.
impl<T: Project> fmt::Debug for Projection<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Projection").field("table", &T::TABLE).field("name", &T::NAME).finish_non_exhaustive()
    }
}

/// Its table and name; nothing of the row.
impl<T: Project> fmt::Debug for Projected<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Projected").field("table", &T::TABLE).field("name", &T::NAME).finish_non_exhaustive()
    }
}

/// Its table and name.
impl<T: Project> fmt::Debug for ProjectedScan<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProjectedScan")
            .field("table", &T::TABLE)
            .field("name", &T::NAME)
            .finish_non_exhaustive()
    }
}
