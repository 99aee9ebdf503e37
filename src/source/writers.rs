//! Which triggers may write entries, and entries that others have written.
//!
//! Every install or repair gives a table a new id, and entries of old ids are left aside: what they name is read by the
//! reconcile that begins with the new one. But a statement that the application prepared before runs the triggers of
//! then if the schema version is set back by hand (`PRAGMA schema_version = N`) to what it was: SQLite compares nothing
//! else. An entry of an id that no trigger has, written after its triggers were gone, tells.

use super::local::{Follower, Observer};
use super::place::Recent;
use super::sql::Sql;
use crate::error::Result;
use crate::window::Piece;
use std::collections::HashSet;
use std::ops::ControlFlow;

pub(super) const IDS: &str = "SELECT id FROM _redtail_tables";

/// The ids under which tables are captured, for whichever replica.
#[derive(Clone, Default)]
pub(super) struct Writers {
    ids: HashSet<i64>,
    /// Behind this entry nothing but they may stand; `None` until the head is known.
    since: Option<u64>,
}

impl Writers {
    /// Whether an entry of this id may stand at this place, or behind it; a later id than the last audit knew is looked
    /// into anyhow.
    pub fn may_write(&self, seq: u64, id: i64, next_id: i64) -> bool {
        self.since.is_none_or(|since| seq <= since) || id == 0 || id >= next_id || self.ids.contains(&id)
    }

    /// What an audit found. `held` is how far the replica is, if the same were all that wrote when it came there.
    fn audited(&mut self, ids: HashSet<i64>, held: Option<u64>) {
        if ids != self.ids {
            self.since = held.filter(|_| self.ids.is_empty());
            self.ids = ids;
        }
    }

    /// The head of the snapshot of the last audit, or a later one.
    pub fn at(&mut self, head: u64) {
        self.since.get_or_insert(head);
    }
}

impl<O: Observer> Follower<O> {
    /// The ids of this replica's tables.
    pub(super) fn own_ids(&self) -> HashSet<i64> {
        self.tables.values().map(|t| t.state.source_id).collect()
    }

    /// Learns which triggers write now; `before` are the ids of this replica's tables before the audit.
    pub(super) fn audit_writers(&mut self, before: &HashSet<i64>) -> Result<()> {
        let ids = captured_ids(&mut self.sql)?;
        let same = ids == *before && ids == self.own_ids();
        self.writers.audited(ids, self.cursor.filter(|_| same).map(|c| c.seq));
        Ok(())
    }

    /// Reconciles every table if entries of a window were written by triggers that were gone by then: which table they
    /// were of is not known any more.
    pub(super) fn reconcile_strangers(&mut self, recent: &Recent, piece: &mut Piece) {
        if recent.strange && self.may_repair() {
            tracing::warn!(
                "source {}: entries were written by triggers that are gone, as a statement does that is older than they are \
                 after PRAGMA schema_version was set back; every table is reconciled",
                self.address
            );
            self.reconcile_all(piece);
        }
    }
}

fn captured_ids(sql: &mut Sql) -> Result<HashSet<i64>> {
    let mut ids = HashSet::new();
    sql.rows(IDS, &[], |row| {
        ids.insert(row.integer(0)?);
        Ok(ControlFlow::<()>::Continue(()))
    })?;
    Ok(ids)
}
