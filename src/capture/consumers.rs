//! Who follows the changelog, how far each has come, and what may be pruned below them.
//!
//! Everything here runs in the caller's transaction. What must hold: an entry goes only if every consumer
//! that is alive has it on disk and it is older than `retain_min` (or older than `max_age`, if one is
//! set); only whole prefixes go, so that whoever was behind finds the entry at its cursor gone; and the
//! newest entry never goes, nor one that a consumer stands at.

use super::migrate;
use super::triggers::NOW_MS;
use crate::config::{Changelog, Wants};
use crate::cursor::Nonce;
use crate::error::Result;
use crate::source::sql::Sql;
use crate::value::Value;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// One replica, as the source knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// The replica's id.
    pub id: Nonce,
    /// Up to which entry it has everything on disk.
    pub seq: u64,
    /// How long since it acknowledged last, by the source's clock.
    pub unseen: Duration,
    /// What it wants to be captured.
    pub(crate) wants: Option<Wants>,
    pub(crate) session: Option<Nonce>,
}

/// The outcome of acknowledging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acknowledged {
    /// The source knew this consumer.
    Known,
    /// It did not: it is registered now.
    Registered,
    /// Another process acknowledged as this consumer: nothing was written.
    Taken,
}

/// What a consumer says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub id: Nonce,
    /// The nonces that this replica may have left in the source, the newest last: that one is put there.
    pub sessions: Vec<Nonce>,
    pub seq: u64,
    pub wants: Wants,
}

/// Entries that one statement deletes, between two looks at the clock.
const STEP: u64 = 500;

/// Everybody who is registered; nobody where capture is older than consumers or absent.
pub(crate) fn list(sql: &mut Sql) -> Result<Vec<Consumer>> {
    let mut out = Vec::new();
    if !migrate::has_consumers(sql)? {
        return Ok(out);
    }
    let query = format!(
        "SELECT id, session, seq, max(0, {NOW_MS} - seen), CAST(wants AS BLOB) FROM _redtail_consumers ORDER BY rowid"
    );
    sql.rows(&query, &[], |row| {
        // A row that is not ours to understand keeps nothing from being pruned.
        let (Some(id), Value::Integer(seq), Value::Integer(unseen)) =
            (Nonce::of(&row.value(0)?), row.value(2)?, row.value(3)?)
        else {
            return Ok(ControlFlow::<()>::Continue(()));
        };
        out.push(Consumer {
            id,
            seq: u64::try_from(seq).unwrap_or(0),
            unseen: Duration::from_millis(u64::try_from(unseen).unwrap_or(0)),
            wants: row.text(4)?.and_then(|text| Wants::read(&text)),
            session: Nonce::of(&row.value(1)?),
        });
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(out)
}

/// Says up to where this consumer has everything on disk; registers it if it is not known.
pub(crate) fn acknowledge(sql: &mut Sql, claim: &Claim) -> Result<Acknowledged> {
    let Some(session) = claim.sessions.last() else { return Ok(Acknowledged::Taken) };
    let known = list(sql)?.into_iter().find(|c| c.id == claim.id);
    let seq = Value::Integer(i64::try_from(claim.seq).unwrap_or(i64::MAX));
    let wants = Value::Text(claim.wants.write().into_bytes());
    let binds = [claim.id.value(), session.value(), seq, wants];
    let Some(known) = known else {
        let insert = format!(
            "INSERT INTO _redtail_consumers(id, session, seq, seen, wants) VALUES (?1, ?2, ?3, {NOW_MS}, ?4)"
        );
        sql.run_with(&insert, &binds)?;
        return Ok(Acknowledged::Registered);
    };
    if !known.session.is_some_and(|s| claim.sessions.contains(&s)) {
        return Ok(Acknowledged::Taken);
    }
    let update = format!(
        "UPDATE _redtail_consumers SET session = ?2, seq = ?3, seen = {NOW_MS}, wants = ?4 WHERE id = ?1"
    );
    sql.run_with(&update, &binds)?;
    Ok(Acknowledged::Known)
}

/// What [`acknowledge`], [`drop_dead`] and one step of [`prune`] would write, to be written at once.
pub(crate) struct Plan {
    pub statements: Vec<(String, Vec<Value>)>,
    pub dropped: Vec<Consumer>,
    pub pruned: u64,
    /// There may be more to prune.
    pub more: bool,
}

/// Plans a write; `None` if another process acknowledges as this consumer.
pub(crate) fn plan(sql: &mut Sql, claim: &Claim, keep: &Changelog) -> Result<Option<Plan>> {
    let Some(session) = claim.sessions.last() else { return Ok(None) };
    let all = list(sql)?;
    let seq = Value::Integer(i64::try_from(claim.seq).unwrap_or(i64::MAX));
    let wants = Value::Text(claim.wants.write().into_bytes());
    let mut binds = vec![claim.id.value(), session.value(), seq, wants];
    let mut statements = Vec::new();
    match all.iter().find(|c| c.id == claim.id) {
        None => statements.push((
            format!(
                "INSERT INTO _redtail_consumers(id, session, seq, seen, wants) SELECT ?1, ?2, ?3, {NOW_MS}, ?4 \
                 WHERE NOT EXISTS (SELECT 1 FROM _redtail_consumers WHERE id = ?1)"
            ),
            binds,
        )),
        Some(known) => {
            let Some(known) = known.session.filter(|s| claim.sessions.contains(s)) else { return Ok(None) };
            binds.push(known.value());
            statements.push((
                format!(
                    "UPDATE _redtail_consumers SET session = ?2, seq = ?3, seen = {NOW_MS}, wants = ?4 \
                     WHERE id = ?1 AND session = ?5"
                ),
                binds,
            ));
        }
    }
    let dead = |c: &Consumer| c.id != claim.id && c.unseen > keep.consumer_timeout;
    let (dropped, alive): (Vec<Consumer>, Vec<Consumer>) = all.into_iter().partition(dead);
    let unseen = Value::Integer(i64::try_from(keep.consumer_timeout.as_millis()).unwrap_or(i64::MAX));
    for consumer in &dropped {
        let delete = format!("DELETE FROM _redtail_consumers WHERE id = ?1 AND {NOW_MS} - seen > ?2");
        statements.push((delete, vec![consumer.id.value(), unseen.clone()]));
    }
    let needed =
        alive.iter().map(|c| if c.id == claim.id { claim.seq } else { c.seq }).min().unwrap_or(claim.seq);
    let (mut pruned, mut more) = (0, false);
    if let Some((first, below)) = prunable(sql, keep, needed)? {
        // A consumer that has come since, and needs them, keeps its entries.
        let delete = "DELETE FROM _redtail_changelog WHERE seq < ?1 AND ?1 <= (SELECT min(seq) FROM _redtail_consumers)";
        statements.push((delete.to_owned(), vec![Value::Integer(below)]));
        (pruned, more) = (u64::try_from(below - first).unwrap_or(0), true);
    }
    if let Some(age) = keep.max_age {
        let first = sql.integer("SELECT min(seq) FROM _redtail_changelog", &[])?.unwrap_or(0);
        let through = first.saturating_add(STEP as i64);
        let newest = sql.integer("SELECT max(seq) FROM _redtail_changelog", &[])?.unwrap_or(0);
        let below = older(sql, first, through.min(newest), age)?;
        if below > first {
            let delete = "DELETE FROM _redtail_changelog WHERE seq < ?1";
            statements.push((delete.to_owned(), vec![Value::Integer(below)]));
            (pruned, more) = (pruned.max(u64::try_from(below - first).unwrap_or(0)), true);
        }
    }
    Ok(Some(Plan { statements, dropped, pruned, more }))
}

/// The oldest entry, and the one below which everything may go now: at most [`STEP`] behind it.
fn prunable(sql: &mut Sql, keep: &Changelog, needed: u64) -> Result<Option<(i64, i64)>> {
    let bounds = "SELECT min(seq), max(seq) FROM _redtail_changelog";
    let bounds = sql.rows(bounds, &[], |row| Ok(ControlFlow::Break((row.value(0)?, row.value(1)?))))?;
    let Some((Value::Integer(first), Value::Integer(newest))) = bounds else { return Ok(None) };
    let needed = i64::try_from(needed).unwrap_or(i64::MAX).min(newest);
    let through = first.saturating_add(STEP as i64);
    let old = older(sql, first, through.min(needed), keep.retain_min)?;
    Ok(Some((first, old)).filter(|(first, below)| below > first))
}

/// Forgets the consumers that were not seen for so long; returns them.
pub(crate) fn drop_dead(sql: &mut Sql, timeout: Duration) -> Result<Vec<Consumer>> {
    let dead: Vec<Consumer> = list(sql)?.into_iter().filter(|c| c.unseen > timeout).collect();
    for consumer in &dead {
        sql.run_with("DELETE FROM _redtail_consumers WHERE id = ?1", &[consumer.id.value()])?;
    }
    Ok(dead)
}

/// Deletes the oldest entries that nobody needs, for at most `time`. Returns how many went, and whether
/// there may be more.
pub(crate) fn prune(sql: &mut Sql, keep: &Changelog, time: Duration) -> Result<(u64, bool)> {
    let begun = Instant::now();
    let Some(needed) = list(sql)?.iter().map(|c| c.seq).min() else { return Ok((0, false)) };
    let bounds = "SELECT min(seq), max(seq) FROM _redtail_changelog";
    let bounds = sql.rows(bounds, &[], |row| Ok(ControlFlow::Break((row.value(0)?, row.value(1)?))))?;
    let Some((Value::Integer(mut first), Value::Integer(newest))) = bounds else { return Ok((0, false)) };
    let needed = i64::try_from(needed).unwrap_or(i64::MAX).min(newest);
    let mut gone = 0;
    loop {
        let through = first.saturating_add(STEP as i64);
        let old = older(sql, first, through.min(needed), keep.retain_min)?;
        let aged = match keep.max_age {
            Some(age) => older(sql, first, through.min(newest), age)?,
            None => first,
        };
        let below = old.max(aged);
        if below <= first {
            return Ok((gone, false));
        }
        sql.run_with("DELETE FROM _redtail_changelog WHERE seq < ?1", &[Value::Integer(below)])?;
        gone += u64::try_from(below - first).unwrap_or(0);
        first = below;
        if begun.elapsed() > time {
            return Ok((gone, true));
        }
    }
}

/// The first entry of `[first, below)` that is not older than `age`; `below` if all of them are.
fn older(sql: &mut Sql, first: i64, below: i64, age: Duration) -> Result<i64> {
    let age = Value::Integer(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
    let binds = [Value::Integer(first), Value::Integer(below), age];
    let query = format!(
        "SELECT min(seq) FROM _redtail_changelog WHERE seq >= ?1 AND seq < ?2 AND at > {NOW_MS} - ?3"
    );
    Ok(sql.integer(&query, &binds)?.unwrap_or(below))
}
