//! `status`: where a replica stands, from the running `run` or from the file.

use crate::control::{Request, connect, ended, opened_to_read, relayed};
use crate::settings::Settings;
use crate::{Exit, endpoint, failure, messages};
use redtail::{Progress, Replica, Replicator, Source, Work};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use std::io::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

/// What a look at the source says.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Seen {
    pub head: Option<u64>,
    pub entries: Option<u64>,
    pub max_rows: Option<u64>,
    pub consumers: Vec<SeenConsumer>,
}

/// A replica that the source knows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SeenConsumer {
    pub id: String,
    pub acknowledged: u64,
    pub unseen_seconds: u64,
}

impl Seen {
    /// Asks a source; nothing is known of one without capture.
    pub async fn look(source: &Source) -> redtail::Result<Self> {
        let Some(look) = source.look().await? else { return Ok(Self::default()) };
        let consumers = look.consumers.into_iter().map(|c| SeenConsumer {
            id: c.id.to_string(),
            acknowledged: c.seq,
            unseen_seconds: c.unseen.as_secs(),
        });
        Ok(Self {
            head: Some(look.head.seq),
            entries: Some(look.entries),
            max_rows: look.max_rows,
            consumers: consumers.collect(),
        })
    }
}

pub async fn status(settings: &Settings, json: bool) -> Exit {
    let path = settings.replica()?;
    let seen = if settings.has_source() {
        let seen = match Source::open(settings.source()?, &settings.config) {
            Ok(source) => Seen::look(&source).await,
            Err(e) => Err(e),
        };
        match seen {
            // A running one says itself what is wrong with its source.
            Err(_) if connect(path).is_some() => None,
            seen => Some(seen?),
        }
    } else {
        None
    };
    let opened = if connect(path).is_some() { None } else { opened_to_read(path, &settings.config).await? };
    let Some(replica) = opened else {
        let request = Request::Status { seen, json };
        let stream = connect(path).ok_or_else(ended)?;
        return relayed(stream, request).await;
    };
    write(&replica, None, seen.as_ref(), json, &mut io::stdout().lock())
}

pub fn write(
    replica: &Replica,
    live: Option<&Replicator>,
    seen: Option<&Seen>,
    as_json: bool,
    out: &mut dyn Write,
) -> Exit {
    let said = gather(replica, live, seen)?;
    let written = if as_json { writeln!(out, "{said}") } else { for_people(&said, out) };
    written.map(|()| 0).map_err(|e| failure(&e))
}

/// The status as one line of JSON.
pub fn json(replica: &Replica, live: Option<&Replicator>, seen: Option<&Seen>) -> redtail::Result<String> {
    Ok(format!("{}\n", gather(replica, live, seen)?))
}

/// Everything that there is to say.
fn gather(replica: &Replica, live: Option<&Replicator>, seen: Option<&Seen>) -> redtail::Result<Json> {
    let progress = live.map(|l| l.progress().borrow().clone());
    let mut said = describe(replica, progress.as_ref(), seen)?;
    let Some(of) = said.as_object_mut() else { return Ok(said) };
    if let (Some(live), Some(progress)) = (live, &progress) {
        let (warnings, recent) = messages::recent();
        of.insert("source".into(), live.source().to_string().into());
        of.insert("durable_lag_seconds".into(), seconds(progress.durable_lag()));
        of.insert("last_poll_seconds".into(), seconds(progress.since_look()));
        of.insert("work".into(), work(&progress.work));
        of.insert("listen".into(), endpoint::listening().into());
        of.insert("warnings".into(), warnings.into());
        of.insert("recent".into(), recent);
    }
    #[cfg(feature = "remote")]
    if let Some(traffic) = live.and_then(Replicator::traffic) {
        of.insert("requests".into(), traffic.requests.into());
        of.insert("rows_read".into(), traffic.rows_read.into());
    }
    Ok(said)
}

fn seconds(time: Option<Duration>) -> Json {
    time.map(|time| time.as_secs_f64()).into()
}

fn work(w: &Work) -> Json {
    let r = &w.retries;
    json!({
        "windows": w.windows,
        "commits": w.commits,
        "changed": w.changed,
        "copied": w.copied,
        "bytes": w.bytes,
        "retries": {
            "unavailable": r.unavailable, "refused": r.refused, "io": r.io, "taken": r.taken, "room": r.room,
        },
        "rebuilds": { "diverged": w.rebuilds_diverged, "damaged": w.rebuilds_damaged },
        "rewinds": w.rewinds,
        "audits": { "done": w.audits, "differences": w.audit_differences },
        "acknowledgements": w.acknowledgements,
        "pruned": w.pruned,
    })
}

fn describe(replica: &Replica, progress: Option<&Progress>, seen: Option<&Seen>) -> redtail::Result<Json> {
    // Before this command's own snapshot.
    let space = space(replica);
    let snapshot = replica.snapshot()?;
    let position = snapshot.position();
    let tables = snapshot.tables()?;
    // One that runs and has not looked yet knows nothing of the source: neither head nor lag.
    let asked = seen.and_then(|s| s.head);
    let head = progress.map_or(asked, |p| p.head.map(|head| asked.map_or(head, |asked| asked.max(head))));
    let this = replica.consumer_id()?.map(|id| id.to_string());
    let names: Vec<&str> =
        tables.iter().filter(|t| t.reconciling.is_some()).map(|t| t.table.name.as_str()).collect();
    let each = tables.iter().map(|t| {
        let state = if t.reconciling.is_some() { "reconciling" } else { "whole" };
        json!({ "name": t.table.name, "rows": t.rows, "state": state, "copied": t.reconciling })
    });
    let skipped = progress
        .map(|p| p.skipped.iter().map(|s| json!({ "name": s.name, "reason": s.reason })).collect::<Vec<_>>());
    Ok(json!({
        "replica": replica.path(),
        "state": progress.map_or("stopped", |p| p.state.name()),
        "log_id": position.map(|p| p.log_id.to_string()),
        "cursor": position.map_or(0, |p| p.seq),
        "durable": progress.map_or_else(|| position.map_or(0, |p| p.seq), |p| p.durable_seq),
        "head": head,
        "horizon": snapshot.horizon(),
        "lag_entries": head.zip(position).map(|(head, p)| head.saturating_sub(p.seq)),
        "lag_seconds": progress.and_then(Progress::lag).map(|d| d.as_secs_f64()),
        "consistent": snapshot.is_consistent(),
        "reconciling": names,
        "rows_copied": progress.map(|p| p.work.copied),
        "consumer": this,
        "source_wal": progress.and_then(|p| p.wal),
        "source_read_only": progress.map(|p| p.read_only),
        "changelog_entries": seen.and_then(|s| s.entries),
        "changelog_max_rows": seen.and_then(|s| s.max_rows),
        "consumers": seen.map(|s| s.consumers.iter().map(|c| consumer(c, s.head)).collect::<Vec<_>>()),
        "tables": each.collect::<Vec<_>>(),
        "skipped": skipped.unwrap_or_default(),
        "space": space,
        "damaged": damaged(replica),
        "error": progress.and_then(|p| p.error.clone()),
        "live": progress.is_some(),
        "pid": progress.map(|_| std::process::id()),
    }))
}

fn consumer(c: &SeenConsumer, head: Option<u64>) -> Json {
    json!({
        "id": c.id,
        "acknowledged": c.acknowledged,
        "behind": head.map(|head| head.saturating_sub(c.acknowledged)),
        "unseen_seconds": c.unseen_seconds,
    })
}

fn space(replica: &Replica) -> Json {
    let space = replica.space();
    json!({
        "bytes": space.bytes,
        "grown": space.grown,
        "snapshots": space.snapshots,
        "oldest_snapshot_seconds": space.oldest_snapshot.map(|age| age.as_secs_f64()),
    })
}

/// The last time that this replica was found damaged, while the file that was moved aside is still there.
fn damaged(replica: &Replica) -> Json {
    let all = replica.moved_aside();
    let Some(last) = all.last() else { return Json::Null };
    let at = UNIX_EPOCH + Duration::from_secs(last.unix_time);
    json!({
        "moved_to": last.path,
        "at": humantime::format_rfc3339_seconds(at).to_string(),
        "files": all.len(),
    })
}

fn for_people(said: &Json, out: &mut dyn Write) -> io::Result<()> {
    let field =
        |name: &str| said.get(name).filter(|v| !v.is_null()).map_or_else(|| "unknown".to_owned(), plain);
    writeln!(out, "state       {}", field("state"))?;
    writeln!(out, "position    {}:{}", field("log_id"), field("cursor"))?;
    writeln!(out, "head        {}", field("head"))?;
    let since = said.get("lag_seconds").and_then(Json::as_f64).map(|s| match s {
        s if s <= 0.0 => ", level".to_owned(),
        s => format!(", level with the source {s:.1} s ago"),
    });
    writeln!(out, "lag         {} entries{}", field("lag_entries"), since.unwrap_or_default())?;
    writeln!(
        out,
        "consistent  {}",
        if said.get("consistent") == Some(&Json::Bool(true)) { "yes" } else { "no" }
    )?;
    if said.get("requests").is_some() {
        writeln!(out, "server      {} requests, {} rows read there", field("requests"), field("rows_read"))?;
    }
    if let Some(error) = said.get("error").and_then(Json::as_str) {
        writeln!(out, "error       {error}")?;
    }
    if let Some(space) = said.get("space") {
        let of = |name: &str| space.get(name).map_or_else(String::new, plain);
        writeln!(out, "space       {} bytes, {} more than when it was opened", of("bytes"), of("grown"))?;
        if let Some(age) = space.get("oldest_snapshot_seconds").filter(|age| !age.is_null()) {
            writeln!(out, "snapshots   {} held, the oldest for {age} s", of("snapshots"))?;
        }
    }
    if let Some(damaged) = said.get("damaged").filter(|d| !d.is_null()) {
        let of = |name: &str| damaged.get(name).map_or_else(String::new, plain);
        writeln!(out, "damaged     at {}; the file was moved to {}", of("at"), of("moved_to"))?;
    }
    let list = |name: &str| said.get(name).and_then(Json::as_array).cloned().unwrap_or_default();
    for t in list("tables") {
        let of = |name: &str| t.get(name).map_or_else(String::new, plain);
        let state = match t.get("copied").filter(|c| !c.is_null()) {
            Some(copied) => format!("  reconciling, {copied} rows read"),
            None => String::new(),
        };
        writeln!(out, "table       {}  {} rows{state}", of("name"), of("rows"))?;
    }
    for c in list("consumers") {
        let of = |name: &str| c.get(name).map_or_else(String::new, plain);
        let this = if c.get("id") == said.get("consumer") { ", this replica" } else { "" };
        let (behind, unseen) = (of("behind"), of("unseen_seconds"));
        writeln!(out, "consumer    {}  {behind} entries behind, seen {unseen} s ago{this}", of("id"))?;
    }
    if said.get("source_read_only") == Some(&Json::Bool(true)) {
        writeln!(
            out,
            "source      read only: it is not told how far this replica is; `retain_min` decides how long it may be away"
        )?;
    }
    for s in list("skipped") {
        let of = |name: &str| s.get(name).map_or_else(String::new, plain);
        writeln!(out, "skipped     {}: {}", of("name"), of("reason"))?;
    }
    Ok(())
}

fn plain(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
