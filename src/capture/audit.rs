//! Compares what is installed with what should be, in the caller's snapshot.
//!
//! A table is captured when its triggers are, word for word, those that its definition asks for, stand
//! behind every trigger of the application (the newest fires first), and before the end view (else
//! somebody made them again, and writes may have gone by). Anything else is repaired under a new id.

use super::describe::{Described, Skipped, SourceTable, TABLES, UNIQUE, describe};
use super::known::Known;
use super::triggers::Trigger;
use super::{Demand, END, PREFIX, bound, evict, migrate};
use crate::error::Result;
use crate::fault;
use crate::source::sql::Sql;
use crate::value::Value;
use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_128;

/// The outcome of an audit.
pub(crate) struct Audit {
    /// Tables whose capture is whole.
    pub captured: Vec<Captured>,
    /// Tables whose capture is missing or not whole, and what is wrong.
    pub broken: Vec<(Arc<SourceTable>, String)>,
    pub skipped: Vec<Skipped>,
    /// Ids in the bookkeeping whose table is gone.
    pub stale: Vec<i64>,
    /// Triggers of ours that belong to no captured table.
    pub loose: Vec<String>,
    /// The bookkeeping itself is there, with at least one entry (the changelog is never emptied by us).
    pub installed: bool,
    /// The bookkeeping is that of this redtail, and the changelog's growth is bounded.
    pub current: bool,
}

/// A table whose capture is whole.
#[derive(Clone)]
pub(crate) struct Captured {
    pub source: Arc<SourceTable>,
    pub id: i64,
    /// Definition, id and triggers with their places, as one number: if it moves, the table is reconciled.
    pub fingerprint: u128,
}

impl Audit {
    /// Whether nothing is left to install or to take away.
    pub fn is_whole(&self) -> bool {
        self.installed
            && self.current
            && self.broken.is_empty()
            && self.stale.is_empty()
            && self.loose.is_empty()
    }
}

impl Captured {
    /// A table whose capture is missing, as if it were whole (a deliberate fault).
    pub fn too_early(source: &Arc<SourceTable>) -> Self {
        Self { source: Arc::clone(source), id: 0, fingerprint: fingerprint(source, "") }
    }
}

/// The triggers that stand in `sqlite_schema`, with their places.
#[derive(Default)]
struct Standing {
    /// By table in lower case: name, text and place of ours.
    ours: HashMap<String, Vec<(String, String, i64)>>,
    /// By table in lower case: the place of the application's newest trigger.
    theirs: HashMap<String, i64>,
    end: i64,
}

const IDS: &str = "SELECT id, CAST(name AS BLOB) FROM _redtail_tables";

/// What an audit of a capture that is whole asks whatever its tables are, but for what may be large: a server answers
/// it at once.
pub(crate) fn foreseen() -> Vec<(String, Vec<Value>)> {
    let fixed = [TABLES, UNIQUE, IDS].map(str::to_owned).into_iter();
    let all = fixed.chain(migrate::queries()).chain([bound::query()]);
    all.map(|query| (query, Vec::new())).collect()
}

/// Reads the whole schema and says what is captured and what is not.
pub(crate) fn audit(sql: &mut Sql, demand: &Demand, asked: &mut Known) -> Result<Audit> {
    let mut described = describe(sql, asked)?;
    skip_searchless(&mut described);
    let mut installed = migrate::is_installed(sql)?;
    if installed {
        migrate::refuse_newer(sql)?;
        installed = migrate::head(sql)?.is_some();
    }
    let current = installed && migrate::is_current(sql)? && bound::max_rows(sql)?.is_some();
    let ids = if installed { ids(sql)? } else { HashMap::new() };
    let mut standing = standing(sql)?;
    standing.ours.remove("_redtail_changelog");
    let unwanted = leave_unwanted(&mut described, demand, &mut standing);
    let known: HashSet<&str> = described.tables.iter().map(|t| t.table.name.as_str()).collect();
    let stale = ids
        .iter()
        .filter(|(name, _)| !known.contains(name.as_str()) && !unwanted.contains(name.as_str()))
        .flat_map(|(_, ids)| ids.clone())
        .collect();
    let (mut captured, mut broken) = (Vec::new(), Vec::new());
    let mut expected = HashSet::new();
    for t in described.tables {
        match ids.get(&t.table.name).map(Vec::as_slice) {
            Some(&[id]) => {
                let wanted = asked.triggers(&t, id);
                match health(&t, id, &wanted, &standing) {
                    Ok(fingerprint) => {
                        expected.extend(wanted.iter().map(|t| t.name.clone()));
                        captured.push(Captured { source: t, id, fingerprint });
                    }
                    Err(why) => broken.push((t, why)),
                }
            }
            Some(_) => broken.push((t, "it has several ids".into())),
            None => broken.push((t, "not captured yet".into())),
        }
    }
    let ours = standing.ours.into_values().flatten().map(|(name, ..)| name);
    let loose = ours.filter(|name| !expected.contains(name)).collect();
    Ok(Audit { captured, broken, skipped: described.skipped, stale, loose, installed, current })
}

/// Takes away the tables that are not asked for. Those that somebody else may have asked for are left as
/// they stand, whatever that is: their names come back, and their triggers are not looked at.
fn leave_unwanted(described: &mut Described, demand: &Demand, standing: &mut Standing) -> HashSet<String> {
    described.skipped.retain(|s| demand.table(&s.name));
    let unwanted: Vec<String> =
        described.tables.iter().map(|t| t.table.name.clone()).filter(|n| !demand.table(n)).collect();
    described.tables.retain(|t| demand.table(&t.table.name));
    if demand.release {
        return HashSet::new();
    }
    for name in &unwanted {
        standing.ours.remove(&name.to_ascii_lowercase());
    }
    unwanted.into_iter().collect()
}

/// A table with a unique index that no search can use would be scanned by every write of the application.
fn skip_searchless(described: &mut Described) {
    let (skip, keep) = std::mem::take(&mut described.tables).into_iter().partition(|t| evict::searchless(t));
    described.tables = keep;
    let skip: Vec<Arc<SourceTable>> = skip;
    described.skipped.extend(skip.into_iter().map(|t| {
        Skipped {
            name: t.table.name.clone(),
            reason:
                "a unique index whose first term is made of its automatic key cannot be searched before an insert"
                    .into(),
        }
    }));
}

fn ids(sql: &mut Sql) -> Result<HashMap<String, Vec<i64>>> {
    let mut out: HashMap<String, Vec<i64>> = HashMap::new();
    sql.rows(IDS, &[], |row| {
        out.entry(row.text(1)?.unwrap_or_default()).or_default().push(row.integer(0)?);
        Ok(ControlFlow::<()>::Continue(()))
    })?;
    Ok(out)
}

fn standing(sql: &mut Sql) -> Result<Standing> {
    let mut out = Standing::default();
    let query = "SELECT rowid, CAST(name AS BLOB), CAST(tbl_name AS BLOB), CAST(sql AS BLOB), type = 'view' \
                 FROM sqlite_schema WHERE type = 'trigger' OR name = '_redtail_end'";
    sql.rows(query, &[], |row| {
        let place = row.integer(0)?;
        // A trigger of the application may have a name that is not UTF-8: then it is not ours.
        let name = row.text(1).ok().flatten().unwrap_or_default();
        let table = row.text(2).ok().flatten().unwrap_or_default().to_ascii_lowercase();
        if row.integer(4)? != 0 {
            out.end = place;
        } else if name.to_ascii_lowercase().starts_with(PREFIX) {
            let text = row.text(3).ok().flatten().unwrap_or_default();
            out.ours.entry(table).or_default().push((name, text, place));
        } else {
            let newest = out.theirs.entry(table).or_default();
            *newest = place.max(*newest);
        }
        Ok(ControlFlow::<()>::Continue(()))
    })?;
    debug_assert!(END.starts_with(PREFIX), "the end view is one of ours");
    Ok(out)
}

fn fingerprint(t: &SourceTable, capture: &str) -> u128 {
    let capture = if fault::reconcile_early() { "" } else { capture };
    xxh3_128(format!("{capture}{}", t.definition).as_bytes())
}

/// The fingerprint of a table whose capture is whole, or what is wrong with it.
fn health(
    t: &SourceTable,
    id: i64,
    expected: &[Trigger],
    standing: &Standing,
) -> std::result::Result<u128, String> {
    let low = t.table.name.to_ascii_lowercase();
    let none = Vec::new();
    let ours = standing.ours.get(&low).unwrap_or(&none);
    if ours.is_empty() {
        return Err("its triggers are gone".into());
    }
    let stands = |want: &Trigger| ours.iter().any(|(name, text, _)| *name == want.name && *text == want.sql);
    if ours.len() != expected.len() || !expected.iter().all(stands) {
        return Err("its triggers are not those that its definition asks for".into());
    }
    let places = || ours.iter().map(|(.., place)| *place);
    if places().max() > Some(standing.end) {
        return Err("its triggers were made again by someone else".into());
    }
    if standing.theirs.get(&low).copied() > places().min() {
        return Err("a trigger of the application is newer than ours".into());
    }
    let mut sorted: Vec<_> = ours.iter().collect();
    sorted.sort();
    Ok(fingerprint(t, &format!("{id}{sorted:?}")))
}
