//! The bookkeeping tables of capture: migrations, forward only, each in one transaction with its number.

use super::PREFIX;
use super::triggers::NOW_MS;
use crate::cursor::LogId;
use crate::error::{Error, Kind, Result};
use crate::source::sql::{Sql, quote};
use crate::value::Value;
use std::ops::ControlFlow;

/// What shipped, in order; a migration is never edited (`shipped_migrations_never_change`).
pub(super) const MIGRATIONS: [&str; 2] =
    [include_str!("../../migrations/0001_capture.sql"), include_str!("../../migrations/0002_consumers.sql")];

/// The tables without which there is no capture.
const TABLES: [&str; 3] = ["changelog", "tables", "meta"];

/// The newest entry's seq, as one expression; NULL if somebody emptied the changelog, also if the application has
/// entered keys since: numbers start over then, and within the same millisecond the very entry that a replica
/// stands at may come again. The first entry is the seed as long as it has not been pruned.
pub(crate) const HEAD: &str = "(SELECT max(seq) FROM _redtail_changelog WHERE NOT EXISTS \
     (SELECT 1 FROM _redtail_changelog WHERE seq = 1 AND tbl IS NOT 0))";

const CONSUMERS: &str = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = '_redtail_consumers'";
const VERSION: &str = "SELECT value FROM _redtail_meta WHERE name = 'migration'";

/// All that is asked here of a capture that is whole, as often as an audit asks it.
pub(super) fn queries() -> Vec<String> {
    let fixed = [VERSION, VERSION, CONSUMERS].map(str::to_owned);
    fixed.into_iter().chain([installed_query(), head_query()]).collect()
}

fn installed_query() -> String {
    let names = TABLES.map(|t| format!("'{PREFIX}{t}'")).join(",");
    format!("SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name IN ({names})")
}

fn head_query() -> String {
    format!("SELECT {HEAD}")
}

/// Whether the bookkeeping is there, by the schema alone.
pub(crate) fn is_installed(sql: &mut Sql) -> Result<bool> {
    Ok(sql.integer(&installed_query(), &[])? == Some(TABLES.len() as i64))
}

/// The newest entry's seq; `None` if somebody emptied the changelog.
pub(crate) fn head(sql: &mut Sql) -> Result<Option<i64>> {
    sql.integer(&head_query(), &[])
}

/// Whether the bookkeeping is that of this redtail, with nothing missing.
pub(crate) fn is_current(sql: &mut Sql) -> Result<bool> {
    Ok(version(sql)? == MIGRATIONS.len() as i64 && has_consumers(sql)?)
}

pub(crate) fn has_consumers(sql: &mut Sql) -> Result<bool> {
    Ok(sql.integer(CONSUMERS, &[])?.is_some())
}

/// The number of the last migration that the source has.
pub(crate) fn version(sql: &mut Sql) -> Result<i64> {
    Ok(sql.integer(VERSION, &[])?.unwrap_or(0))
}

/// Refuses a capture that a newer redtail made: it is never repaired by an older one.
pub(crate) fn refuse_newer(sql: &mut Sql) -> Result<()> {
    let found = version(sql)?;
    let known = MIGRATIONS.len() as i64;
    if found > known {
        return Err(Error::new(
            Kind::Usage,
            format!(
                "source: its capture has version {found}, this redtail knows {known}; use a newer redtail"
            ),
        ));
    }
    Ok(())
}

/// Brings the bookkeeping up to date, inside the caller's write transaction.
///
/// A changelog that is gone or was emptied starts a new log: its numbers would otherwise start over.
pub(crate) fn migrate(sql: &mut Sql) -> Result<()> {
    if !is_installed(sql)? {
        drop_triggers(sql)?;
        for table in TABLES.into_iter().chain(["consumers"]) {
            sql.script(&format!("DROP TABLE IF EXISTS {PREFIX}{table}"))?;
        }
        sql.script(MIGRATIONS.first().copied().unwrap_or_default())?;
        sql.run("INSERT INTO _redtail_meta(name, value) VALUES ('migration', 1), ('next', 1), ('log', randomblob(16))")?;
    }
    refuse_newer(sql)?;
    for (number, migration) in (1..).zip(MIGRATIONS).skip(usize::try_from(version(sql)?).unwrap_or(0)) {
        sql.script(migration)?;
        sql.run_with(
            "UPDATE _redtail_meta SET value = ?1 WHERE name = 'migration'",
            &[Value::Integer(number)],
        )?;
    }
    if !has_consumers(sql)? {
        // Somebody dropped it: whoever follows registers again.
        sql.script(MIGRATIONS.get(1).copied().unwrap_or_default())?;
    }
    if head(sql)?.is_none() {
        sql.run("UPDATE _redtail_meta SET value = randomblob(16) WHERE name = 'log'")?;
        sql.run(&format!("REPLACE INTO _redtail_changelog(seq, tbl, op, at) VALUES (1, 0, 0, {NOW_MS})"))?;
    }
    Ok(())
}

/// Drops what triggers of ours are left, those of tables that nobody here asks for among them: they would
/// enter keys under ids that are given again from here on.
fn drop_triggers(sql: &mut Sql) -> Result<()> {
    let mut left = Vec::new();
    let query = "SELECT CAST(name AS BLOB) FROM sqlite_schema WHERE type = 'trigger' AND lower(name) GLOB '_redtail_*'";
    sql.rows(query, &[], |row| {
        left.extend(row.text(0)?);
        Ok(ControlFlow::<()>::Continue(()))
    })?;
    left.iter().try_for_each(|name| sql.script(&format!("DROP TRIGGER {}", quote(name))))
}

/// The identity of the changelog; `None` if it has none.
pub(crate) fn log_id(sql: &mut Sql) -> Result<Option<LogId>> {
    let value = sql.rows("SELECT value FROM _redtail_meta WHERE name = 'log'", &[], |row| {
        Ok(ControlFlow::Break(row.value(0)?))
    })?;
    Ok(match value {
        Some(Value::Blob(b)) => b.try_into().ok().map(LogId),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn shipped_migrations_never_change() {
        let sums = super::MIGRATIONS.map(|m| format!("{:032x}", xxhash_rust::xxh3::xxh3_128(m.as_bytes())));
        assert_eq!(sums, ["8dcfa36667b298693cf03adc989dbab2", "9dcc03827ea12754c3a009259a29a3a6"]);
    }
}
