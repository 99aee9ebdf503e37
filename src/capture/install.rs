//! Puts capture into the source and takes it out again.
//!
//! Every install or repair of a table happens in one transaction with a new id and a reset entry, so that
//! every consumer reconciles it. The write lock is given back after [`LOCK`]: many tables are installed
//! in several transactions. Nothing here touches an object without our prefix.

use super::audit::{Audit, audit};
use super::describe::SourceTable;
use super::known::Known;
use super::triggers::{NOW_MS, Op, triggers};
use super::{Demand, END, PREFIX, bound, migrate};
use crate::config::Changelog;
use crate::error::{Error, Kind, Result};
use crate::fault;
use crate::source::sql::{Sql, quote};
use crate::value::Value;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// After this long a transaction that installs is committed and the next one begun.
const LOCK: Duration = Duration::from_millis(3);

/// Installs what is missing and repairs what is broken; returns the last audit, which is whole.
///
/// # Errors
/// `Unavailable` if the write lock is not to be had; `Usage` if the source cannot be written.
pub(crate) fn install(
    sql: &mut Sql,
    demand: &Demand,
    max_rows: Option<u64>,
    known: &mut Known,
) -> Result<Audit> {
    loop {
        // To see that nothing is missing takes no lock, which a server would hold for many round trips.
        sql.run("BEGIN")?;
        let found = whole(sql, demand, max_rows, known);
        sql.run("ROLLBACK")?;
        if let Some(found) = found? {
            return Ok(found);
        }
        mend(sql, demand, max_rows, known)?;
    }
}

/// What is installed, if nothing of it is missing.
fn whole(sql: &mut Sql, demand: &Demand, max_rows: Option<u64>, known: &mut Known) -> Result<Option<Audit>> {
    let found = audit(sql, demand, known)?;
    let capped = max_rows.is_none() || bound::max_rows(sql)? == max_rows;
    Ok(Some(found).filter(|found| capped && found.is_whole()))
}

/// The same for a caller that audits again itself: returns what was found at first.
pub(crate) fn mend(
    sql: &mut Sql,
    demand: &Demand,
    max_rows: Option<u64>,
    known: &mut Known,
) -> Result<Audit> {
    let mut first = None;
    loop {
        let (found, done) = write(sql, |sql| {
            migrate::migrate(sql)?;
            bound::install(sql, max_rows, Changelog::MAX_ROWS)?;
            let found = audit(sql, demand, known)?;
            if found.is_whole() {
                return Ok((found, true));
            }
            clear(sql, &found)?;
            let done = repair(sql, &found)?;
            Ok((found, done))
        })?;
        let at_first = first.take().unwrap_or(found);
        if done {
            return Ok(at_first);
        }
        first = Some(at_first);
    }
}

/// The statements that [`install`] would run, without running them.
pub(crate) fn plan(sql: &mut Sql, demand: &Demand, max_rows: Option<u64>) -> Result<(Audit, Vec<String>)> {
    let planned = write_and_roll_back(sql, |sql| {
        let have = if migrate::is_installed(sql)? { migrate::version(sql)? } else { 0 };
        let missing = migrate::MIGRATIONS.iter().skip(usize::try_from(have).unwrap_or(0));
        let mut out: Vec<String> = missing.map(|m| m.trim().to_owned()).collect();
        let cap = bound::max_rows(sql)?;
        migrate::migrate(sql)?;
        bound::install(sql, max_rows, Changelog::MAX_ROWS)?;
        if bound::max_rows(sql)? != cap {
            out.extend(bound::text(sql)?.map(|text| format!("{text};")));
        }
        let found = audit(sql, demand, &mut Known::default())?;
        let next = sql.integer("SELECT value FROM _redtail_meta WHERE name = 'next'", &[])?.unwrap_or(1);
        for ((t, _), id) in found.broken.iter().zip(next..) {
            out.extend(triggers(t, id).into_iter().map(|t| format!("{};", t.sql)));
        }
        Ok((found, out))
    })?;
    Ok(planned)
}

/// Takes every object of ours out of the source. Returns whether there was any.
pub(crate) fn remove(sql: &mut Sql) -> Result<bool> {
    write(sql, |sql| {
        let mut ours = Vec::new();
        let query = "SELECT CAST(type AS BLOB), CAST(name AS BLOB) FROM sqlite_schema \
                     WHERE lower(name) GLOB '_redtail_*' AND type IN ('trigger', 'view', 'table', 'index') \
                     AND name NOT GLOB 'sqlite_*' \
                     ORDER BY CASE type WHEN 'trigger' THEN 0 WHEN 'view' THEN 1 WHEN 'index' THEN 2 ELSE 3 END";
        sql.rows(query, &[], |row| {
            ours.push((row.text(0)?.unwrap_or_default(), row.text(1)?.unwrap_or_default()));
            Ok(ControlFlow::<()>::Continue(()))
        })?;
        for (kind, name) in &ours {
            sql.script(&format!("DROP {} IF EXISTS {}", kind.to_ascii_uppercase(), quote(name)))?;
        }
        Ok(!ours.is_empty())
    })
}

/// Takes away what belongs to tables that are gone or are about to be installed again.
fn clear(sql: &mut Sql, found: &Audit) -> Result<()> {
    for name in &found.loose {
        sql.script(&format!("DROP TRIGGER IF EXISTS {}", quote(name)))?;
    }
    for id in &found.stale {
        sql.run_with("DELETE FROM _redtail_tables WHERE id = ?1", &[Value::Integer(*id)])?;
    }
    Ok(())
}

/// Installs broken tables until the lock has been held long enough. Returns whether that was all of them.
fn repair(sql: &mut Sql, found: &Audit) -> Result<bool> {
    let begun = Instant::now();
    let mut done = 0;
    for (t, _) in &found.broken {
        widen(sql, t.table.key.width())?;
        install_table(sql, t)?;
        done += 1;
        if begun.elapsed() > LOCK {
            break;
        }
    }
    if found.broken.is_empty() {
        return Ok(true);
    }
    // The end view must stand behind our newest trigger.
    sql.script(&format!("DROP VIEW IF EXISTS {END}; CREATE VIEW {END} AS SELECT 1"))?;
    Ok(done == found.broken.len())
}

fn install_table(sql: &mut Sql, t: &SourceTable) -> Result<()> {
    let name = Value::Text(t.table.name.as_bytes().to_vec());
    let id = sql.integer("SELECT value FROM _redtail_meta WHERE name = 'next'", &[])?;
    let id = id.ok_or_else(|| {
        Error::new(
            Kind::Capture,
            "source: the capture's counter of ids is gone; run `redtail remove`, then `redtail init`",
        )
    })?;
    let old = "SELECT id FROM _redtail_tables WHERE name = ?1";
    let id = match sql.integer(old, std::slice::from_ref(&name))? {
        Some(old) if fault::same_id() => old,
        _ => id,
    };
    sql.run("UPDATE _redtail_meta SET value = value + 1 WHERE name = 'next'")?;
    sql.run_with("DELETE FROM _redtail_tables WHERE name = ?1", std::slice::from_ref(&name))?;
    sql.run_with("INSERT INTO _redtail_tables(id, name) VALUES (?1, ?2)", &[Value::Integer(id), name])?;
    for trigger in triggers(t, id) {
        sql.script(&trigger.sql)?;
    }
    if fault::no_reset() {
        return Ok(());
    }
    let reset =
        format!("INSERT INTO _redtail_changelog(tbl, op, at) VALUES (?1, {}, {NOW_MS})", Op::Reset as u8);
    sql.run_with(&reset, &[Value::Integer(id)])
}

/// Gives the changelog as many key columns as this key has.
fn widen(sql: &mut Sql, width: usize) -> Result<()> {
    let query = "SELECT count(*) FROM pragma_table_xinfo('_redtail_changelog') WHERE name GLOB 'k[0-9]*'";
    let have = usize::try_from(sql.integer(query, &[])?.unwrap_or(0)).unwrap_or(0);
    for i in have..width {
        sql.script(&format!("ALTER TABLE _redtail_changelog ADD COLUMN k{i}"))?;
    }
    Ok(())
}

/// Runs `work` in one write transaction.
fn write<T>(sql: &mut Sql, work: impl FnOnce(&mut Sql) -> Result<T>) -> Result<T> {
    begin(sql)?;
    let done = work(sql).and_then(|done| sql.run("COMMIT").map(|()| done));
    if sql.in_transaction() {
        sql.run("ROLLBACK")?;
    }
    done
}

fn write_and_roll_back<T>(sql: &mut Sql, work: impl FnOnce(&mut Sql) -> Result<T>) -> Result<T> {
    begin(sql)?;
    let done = work(sql);
    sql.run("ROLLBACK")?;
    done
}

fn begin(sql: &mut Sql) -> Result<()> {
    debug_assert!(PREFIX.len() > 1, "objects of ours can be told apart");
    sql.run("BEGIN IMMEDIATE").map_err(|e| match e.kind() {
        Kind::Unavailable => e.during("cannot install capture now"),
        _ => e,
    })
}
