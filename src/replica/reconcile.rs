//! Marks tables to be reconciled from their start. The next session of windows does it.

use super::guard::failed;
use super::{Replica, TABLES, tables};
use crate::error::{Error, Result};
use crate::record::state::{Progress, encode_table};
use crate::window::Kept;

impl Replica {
    /// Marks these tables (all, if none is named). Their rows stay. Returns the names as the replica has them.
    pub(crate) fn reconcile_again(&self, named: &[String]) -> Result<Vec<String>> {
        let read = self.db.begin_read()?;
        let known = self.guarded(|| tables(&read))?;
        drop(read);
        for name in named {
            if !known.iter().any(|(_, t)| t.table.name.eq_ignore_ascii_case(name)) {
                return Err(Error::unknown("table", name, known.iter().map(|(_, t)| t.table.name.as_str())));
            }
        }
        let txn = self.db.begin_write()?;
        self.guarded(|| {
            let mut marked = Vec::new();
            {
                let mut states = txn.open_table(TABLES).map_err(failed)?;
                for (no, mut state) in known {
                    if !named.is_empty() && !named.iter().any(|n| n.eq_ignore_ascii_case(&state.table.name)) {
                        continue;
                    }
                    // Which rows are kept is found out again too.
                    (state.reconcile, state.kept) = (Some(Progress::default()), Kept::Unknown);
                    states.insert(no, encode_table(&state)?.as_slice()).map_err(failed)?;
                    marked.push(state.table.name);
                }
            }
            txn.commit().map_err(failed)?;
            Ok(marked)
        })
    }
}
