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
use std::time::Duration;

/// Once so many entries may go, the size of the source counts for more than a write of the application that finds it
/// locked: some 40 MB.
const TOO_MANY: i64 = 1_000_000;

/// How many entries one write prunes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    /// As many as the application does not notice.
    pub fit: u64,
    /// As many as are pruned at once where too many are left.
    pub most: u64,
}

/// One replica, as the source knows it.
///
/// ```no_run
/// # async fn look(source: &redtail::Source) -> redtail::Result<()> {
/// for consumer in source.consumers().await? {
///     println!("{} has up to {}, seen {:?} ago", consumer.id, consumer.seq, consumer.unseen);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
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

/// What a consumer says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub id: Nonce,
    /// The nonces that this replica may have left in the source, the newest last: that one is put there.
    pub sessions: Vec<Nonce>,
    pub seq: u64,
    pub wants: Wants,
}

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

/// What is to be written to the source, all of it at once.
pub(crate) struct Plan {
    pub statements: Vec<(String, Vec<Value>)>,
    /// The source does not know this consumer (any more).
    pub unknown: bool,
    pub dropped: Vec<Consumer>,
    pub pruned: u64,
    /// There may be more to prune.
    pub more: bool,
}

/// Plans, in a read transaction and without any lock, what is then written in one: up to where this consumer has
/// everything on disk (it is registered if it is not known), the consumers that were not seen for too long forgotten,
/// and a piece of the entries that nobody needs pruned. What may change in between is guarded against by the
/// statements themselves.
///
/// `None` if another process acknowledges as this consumer. Without a claim it only tidies up.
pub(crate) fn plan(
    sql: &mut Sql,
    claim: Option<&Claim>,
    keep: &Changelog,
    piece: Piece,
) -> Result<Option<Plan>> {
    let all = list(sql)?;
    let own = |c: &Consumer| claim.is_some_and(|claim| claim.id == c.id);
    let known = all.iter().find(|c| own(c));
    let mut statements = Vec::new();
    if let Some(claim) = claim {
        let Some(statement) = acknowledging(claim, known) else { return Ok(None) };
        statements.push(statement);
    }
    let unknown = known.is_none();
    let dead = |c: &Consumer| !own(c) && c.unseen > keep.consumer_timeout;
    let (dropped, alive): (Vec<Consumer>, Vec<Consumer>) = all.into_iter().partition(dead);
    let unseen = Value::Integer(i64::try_from(keep.consumer_timeout.as_millis()).unwrap_or(i64::MAX));
    for consumer in &dropped {
        let delete = format!("DELETE FROM _redtail_consumers WHERE id = ?1 AND {NOW_MS} - seen > ?2");
        statements.push((delete, vec![consumer.id.value(), unseen.clone()]));
    }
    let seqs = alive.iter().filter(|c| !own(c)).map(|c| c.seq).chain(claim.map(|c| c.seq));
    let mut plan = Plan { statements, unknown, dropped, pruned: 0, more: false };
    if let Some(needed) = seqs.min() {
        prune(sql, keep, needed, piece, &mut plan)?;
    }
    Ok(Some(plan))
}

/// What says up to where this consumer is; `None` if the source knows another session of it.
fn acknowledging(claim: &Claim, known: Option<&Consumer>) -> Option<(String, Vec<Value>)> {
    let seq = Value::Integer(i64::try_from(claim.seq).unwrap_or(i64::MAX));
    let wants = Value::Text(claim.wants.write().into_bytes());
    let mut binds = vec![claim.id.value(), claim.sessions.last()?.value(), seq, wants];
    let Some(known) = known else {
        let insert = format!(
            "INSERT INTO _redtail_consumers(id, session, seq, seen, wants) SELECT ?1, ?2, ?3, {NOW_MS}, ?4 \
             WHERE NOT EXISTS (SELECT 1 FROM _redtail_consumers WHERE id = ?1)"
        );
        return Some((insert, binds));
    };
    binds.push(known.session.filter(|s| claim.sessions.contains(s))?.value());
    let update = format!(
        "UPDATE _redtail_consumers SET session = ?2, seq = ?3, seen = {NOW_MS}, wants = ?4 \
         WHERE id = ?1 AND session = ?5"
    );
    Some((update, binds))
}

/// Plans to delete the oldest entries: those that every consumer has on disk and that are older than `retain_min`,
/// and those older than `max_age` whoever needs them; never the newest, nor one that a consumer stands at.
fn prune(sql: &mut Sql, keep: &Changelog, needed: u64, piece: Piece, plan: &mut Plan) -> Result<()> {
    // Together in one SELECT they would be looked for in every entry.
    let bounds =
        "SELECT (SELECT min(seq) FROM _redtail_changelog), (SELECT max(seq) FROM _redtail_changelog)";
    let bounds = sql.rows(bounds, &[], |row| Ok(ControlFlow::Break((row.value(0)?, row.value(1)?))))?;
    let Some((Value::Integer(first), Value::Integer(newest))) = bounds else { return Ok(()) };
    let needed = i64::try_from(needed).unwrap_or(i64::MAX).min(newest);
    let probe = first.saturating_add(TOO_MANY);
    let too_many = probe < needed && older(sql, probe, probe + 1, keep.retain_min)? > probe;
    let piece = if too_many { piece.most } else { piece.fit };
    let through = first.saturating_add(i64::try_from(piece).unwrap_or(i64::MAX));
    let below = older(sql, first, through.min(needed), keep.retain_min)?;
    if below > first {
        // A consumer that has come since, and needs them, keeps its entries.
        let delete = "DELETE FROM _redtail_changelog WHERE seq < ?1 AND ?1 <= (SELECT min(seq) FROM _redtail_consumers)";
        plan.statements.push((delete.to_owned(), vec![Value::Integer(below)]));
    }
    let aged = match keep.max_age {
        Some(age) => older(sql, first, through.min(newest), age)?,
        None => first,
    };
    if aged > first {
        let delete = "DELETE FROM _redtail_changelog WHERE seq < ?1";
        plan.statements.push((delete.to_owned(), vec![Value::Integer(aged)]));
    }
    plan.pruned = u64::try_from(below.max(aged) - first).unwrap_or(0);
    plan.more = plan.pruned > 0;
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: Piece = Piece { fit: 200, most: 3_000 };

    /// A changelog of so many entries, each so many seconds old, and a consumer that has all of them.
    fn changelog(entries: i64, seconds: i64) -> Sql {
        let mut sql = Sql::scratch().unwrap();
        sql.script(include_str!("../../migrations/0001_capture.sql")).unwrap();
        sql.script(include_str!("../../migrations/0002_consumers.sql")).unwrap();
        sql.script(&format!(
            "INSERT INTO _redtail_consumers VALUES (x'01', x'02', {entries}, {NOW_MS}, NULL);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {entries})
             INSERT INTO _redtail_changelog SELECT i, 7, 1, {NOW_MS} - {seconds} * 1000, i, NULL FROM n"
        ))
        .unwrap();
        sql
    }

    /// What is pruned at once of a changelog like that, where entries stay for a minute.
    fn pruned(entries: i64, seconds: i64) -> u64 {
        let keep = Changelog { retain_min: Duration::from_secs(60), ..Changelog::default() };
        let mut plan =
            Plan { statements: Vec::new(), unknown: false, dropped: Vec::new(), pruned: 0, more: false };
        prune(&mut changelog(entries, seconds), &keep, u64::MAX, PIECE, &mut plan).unwrap();
        assert_eq!((plan.statements.len(), plan.more), (usize::from(plan.pruned > 0), plan.pruned > 0));
        plan.pruned
    }

    #[test]
    fn more_than_what_fits_is_pruned_only_where_too_many_may_go() {
        assert_eq!(pruned(TOO_MANY, 3_600), PIECE.fit);
        assert_eq!(pruned(TOO_MANY + 2, 3_600), PIECE.most);
        assert_eq!(pruned(TOO_MANY + 2, 30), 0, "too young");
        assert_eq!(pruned(150, 3_600), 149, "all but the newest");
    }
}
