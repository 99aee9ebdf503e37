//! The bound of the changelog's growth: a trigger of the changelog itself, so that the application's own
//! writes drop the oldest entries past the cap while no redtail is alive.
//!
//! It fires once in [`EVERY`] entries and drops at most [`MOST`], so that a cap that was lowered is
//! reached little by little and never in one long write of the application. The cap stands in its text
//! as a number: a trigger that read it from a table would fail the application's writes without it.

use super::PREFIX;
use crate::error::Result;
use crate::source::sql::Sql;
use std::ops::ControlFlow;

/// Entries from one dropping to the next; the cap may be exceeded by so many.
const EVERY: u64 = 4_096;
/// The most that one entry of the application drops.
const MOST: u64 = 2 * EVERY;

/// The trigger's name.
pub(super) fn name() -> String {
    format!("{PREFIX}cap")
}

fn trigger(max_rows: u64) -> String {
    format!(
        "CREATE TRIGGER \"{}\" AFTER INSERT ON \"{PREFIX}changelog\" WHEN NEW.seq % {EVERY} = 0 BEGIN \
         DELETE FROM {PREFIX}changelog WHERE seq < NEW.seq - {max_rows} \
         AND seq < (SELECT min(seq) FROM {PREFIX}changelog) + {MOST}; END",
        name()
    )
}

pub(super) fn query() -> String {
    format!("SELECT CAST(sql AS BLOB) FROM sqlite_schema WHERE type = 'trigger' AND name = '{}'", name())
}

/// The trigger as it stands.
pub(super) fn text(sql: &mut Sql) -> Result<Option<String>> {
    Ok(sql.rows(&query(), &[], |row| Ok(ControlFlow::Break(row.text(0)?)))?.flatten())
}

/// The cap that is in force; `None` if the trigger is missing or is not ours word for word.
pub(crate) fn max_rows(sql: &mut Sql) -> Result<Option<u64>> {
    let text = text(sql)?.unwrap_or_default();
    let number =
        text.split("NEW.seq - ").nth(1).and_then(|t| t.split(' ').next()).and_then(|n| n.parse().ok());
    Ok(number.filter(|n| trigger(*n) == text))
}

/// Puts the trigger there: with this cap, or with any if there is none given and one stands already.
pub(super) fn install(sql: &mut Sql, wanted: Option<u64>, default: u64) -> Result<()> {
    let standing = max_rows(sql)?;
    if standing.is_some() && (wanted.is_none() || wanted == standing) {
        return Ok(());
    }
    sql.script(&format!("DROP TRIGGER IF EXISTS \"{}\"", name()))?;
    sql.script(&trigger(wanted.unwrap_or(default)))
}
