//! What an application says of a type of its own that it wants to have of each row of a table.

use super::row::Row;
use crate::error::{Error, Kind, Result};
use crate::record::projected::{Archivable, failure};
use std::any::TypeId;
use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// A type of the application's own that the replica keeps beside each row of a table, in the transaction of the row, so
/// that it is read back without decoding or copying: [`Snapshot::projection`](crate::Snapshot::projection).
///
/// ```
/// use redtail::{Project, Row};
///
/// #[derive(rkyv::Archive, rkyv::Serialize)]
/// struct Episode {
///     task: String,
///     reward: Option<f64>,
/// }
///
/// impl Project for Episode {
///     const TABLE: &'static str = "episodes";
///     const VERSION: u32 = 1;
///
///     fn project(row: &Row) -> redtail::Result<Option<Self>> {
///         let task = row.text("task_type")?.unwrap_or_default().to_owned();
///         Ok(Some(Self { task, reward: row.real("reward")? }))
///     }
/// }
/// ```
///
/// Which columns and rows there are is the configuration's matter: a column that is left out or masked is so here too.
pub trait Project: Archivable {
    /// The table, as the source names it.
    const TABLE: &'static str;
    /// What it is called among the projections of its table.
    const NAME: &'static str = Self::TABLE;
    /// To be raised with every change of the type or of [`Project::project`]: all records are then made anew.
    const VERSION: u32;

    /// Makes the type of a row; `None` leaves the row out.
    ///
    /// It must depend on the row alone, and be the same each time: no clock, no configuration, no map without an order.
    ///
    /// # Errors
    /// An error, and a panic, stand in place of this row's record and are told to whoever reads it. Following goes on.
    fn project(row: &Row) -> Result<Option<Self>>;
}

/// A [`Project`] without its type, as the writer has it.
pub(crate) trait Projector: Send + Sync {
    fn table(&self) -> &'static str;
    fn name(&self) -> &'static str;
    fn version(&self) -> u32;
    fn size(&self) -> u32;
    fn type_id(&self) -> TypeId;
    /// The sealed record of a row; the error is the application's, or its panic.
    fn record(&self, row: &Row) -> Result<Option<Vec<u8>>>;
}

struct Of<T>(PhantomData<fn() -> T>);

/// The size of a projection's archived type, in bytes.
pub(super) fn size_of_view<T: Project>() -> u32 {
    u32::try_from(size_of::<T::View>()).unwrap_or(u32::MAX)
}

impl<T: Project> Projector for Of<T> {
    fn table(&self) -> &'static str {
        T::TABLE
    }

    fn name(&self) -> &'static str {
        T::NAME
    }

    fn version(&self) -> u32 {
        T::VERSION
    }

    fn size(&self) -> u32 {
        size_of_view::<T>()
    }

    fn type_id(&self) -> TypeId {
        TypeId::of::<T>()
    }

    fn record(&self, row: &Row) -> Result<Option<Vec<u8>>> {
        // It sees a row and nothing of redtail's: what it leaves half done is its own.
        let made = catch_unwind(AssertUnwindSafe(|| T::project(row)));
        let made = made.unwrap_or_else(|_| Err(Error::new(Kind::Mismatch, "it panicked")))?;
        made.map(|made| made.write()).transpose()
    }
}

/// The projections that a replicator keeps.
#[derive(Clone, Default)]
pub(crate) struct Projectors(Vec<Arc<dyn Projector>>);

impl Projectors {
    /// Adds one; a type that is there already changes nothing.
    pub fn add<T: Project>(&mut self) {
        let of = Of::<T>(PhantomData);
        if !self.0.iter().any(|p| p.type_id() == TypeId::of::<T>()) {
            self.0.push(Arc::new(of));
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn of_table(&self, table: &str) -> impl Iterator<Item = &Arc<dyn Projector>> {
        self.0.iter().filter(move |p| p.table().eq_ignore_ascii_case(table))
    }

    /// # Errors
    /// `Usage` if two types have the same name in the same table.
    pub fn check(&self) -> Result<()> {
        for one in &self.0 {
            if self.of_table(one.table()).any(|p| p.name() == one.name() && p.type_id() != one.type_id()) {
                let (table, name) = (one.table(), one.name());
                let what = format!(
                    "table {table}: two projections are called {name:?}; name one otherwise (Project::NAME)"
                );
                return Err(Error::usage(what));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Projectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|p| (p.table(), p.name(), p.version()))).finish()
    }
}

/// What is stored of a row: its record, or why it has none. The second is the reason, to be told.
pub(super) fn stored(projector: &dyn Projector, row: &Row) -> (Option<Vec<u8>>, Option<String>) {
    match projector.record(row) {
        Ok(record) => (record, None),
        Err(e) => {
            let reason = e.to_string();
            (Some(failure(&reason)), Some(reason))
        }
    }
}
