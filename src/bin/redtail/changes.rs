//! `changes`: what changes in the replica, as JSON lines in Debezium's envelope.
//!
//! Every line's `position` is one from which it can be resumed without loss: it moves on with a window's last line.

use crate::control::{Beat, Request, connect, relayed};
use crate::settings::Settings;
use crate::{Exit, failure, json};
use redtail::{Change, Changes, Error, Kind, Position, Replica, Replicator, Result, Row, Window};
use serde_json::{Value as Json, json};
use std::io::{self, BufWriter, Write};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often whoever listens is told that nothing has changed.
const BEAT: Duration = Duration::from_secs(1);

pub async fn changes(settings: &Settings, from: Option<String>, snapshot: bool, typed: bool) -> Exit {
    let path = settings.replica()?;
    let position: Option<Position> = from.as_deref().map(str::parse).transpose()?;
    if let Some(stream) = connect(path) {
        let request = Request::Changes { from, snapshot, typed };
        return relayed(stream, request).await;
    }
    let replica = Replica::open_to_read(path, &settings.config)?;
    let Some(position) = position else {
        return Err(Error::usage(format!(
            "replica {}: nothing follows it now; start `redtail run`, or give --from POSITION for what is kept",
            path.display()
        )));
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let mut last = Some(position);
    for window in replica.kept_changes(Some(position))? {
        write_window(&window?, &mut last, typed, &mut out)?;
    }
    out.flush().map(|()| 0).map_err(|e| failure(&e))
}

/// Answers on behalf of the running replicator, which is not held meanwhile, until whoever asked has gone.
pub fn answer(
    live: Arc<Replicator>,
    (from, snapshot, typed): (Option<&str>, bool, bool),
    out: &mut dyn Beat,
) -> Exit {
    let from: Option<Position> = from.map(str::parse).transpose()?;
    tokio::runtime::Handle::current().block_on(async {
        let mut changes = match from {
            Some(position) => live.changes_from(position).await?,
            None => live.changes().await?,
        };
        if snapshot {
            let shown = live.replica().snapshot()?;
            changes.skip_to(&shown);
            let last = changes.resume();
            for info in shown.tables()? {
                for row in shown.scan(&info.table.name)? {
                    write_read(&row?, last, typed, out)?;
                }
            }
            out.flush().map_err(|e| failure(&e))?;
        }
        let last = changes.resume();
        let running = Arc::downgrade(&live);
        drop(live);
        follow(changes, &running, last, typed, out).await
    })
}

async fn follow(
    mut changes: Changes,
    running: &Weak<Replicator>,
    mut last: Option<Position>,
    typed: bool,
    out: &mut dyn Beat,
) -> Exit {
    loop {
        tokio::select! {
            window = changes.next() => match window {
                Some(window) => {
                    write_window(&window?, &mut last, typed, out)?;
                    out.flush().map_err(|e| failure(&e))?;
                }
                None => return Ok(0),
            },
            () = tokio::time::sleep(BEAT) => {
                out.beat().map_err(|e| failure(&e))?;
                if running.strong_count() == 0 {
                    return Err(Error::new(Kind::Stopped, "the running redtail ends; go on with --from POSITION"));
                }
            }
        }
    }
}

/// The lines of a window, or of a part of one.
fn write_window(
    window: &Window,
    last: &mut Option<Position>,
    typed: bool,
    out: &mut (impl Write + ?Sized),
) -> Result<()> {
    each_line(window, last, typed, |_, line| writeln!(out, "{line}").map_err(|e| failure(&e)))
}

/// Gives the line of every change, with the position from which to resume behind it.
pub fn each_line(
    window: &Window,
    last: &mut Option<Position>,
    typed: bool,
    mut take: impl FnMut(Option<Position>, Json) -> Result<()>,
) -> Result<()> {
    let end = window.changes.len();
    for (n, change) in window.changes.iter().enumerate() {
        if window.is_last && n + 1 == end {
            *last = window.resume;
        }
        take(*last, envelope(window, change, *last, typed)?)?;
    }
    Ok(())
}

fn envelope(window: &Window, change: &Change, resume: Option<Position>, typed: bool) -> Result<Json> {
    let side = |row: Option<&Row>| row.map(|r| json::columns(r, typed)).transpose();
    Ok(json!({
        "op": change.op().letter(),
        "before": side(change.before())?,
        "after": side(change.after())?,
        "source": {
            "connector": "redtail",
            "table": change.table().name,
            "key": json::key(change.row(), typed)?,
            "changed": change.changed()?,
            "position": resume.map(|p| p.to_string()),
            "window": window.position.to_string(),
            "consistent": window.consistent,
            "snapshot": false,
        },
        "ts_ms": millis(window.applied_at),
    }))
}

/// A row of the snapshot that changes begin with.
fn write_read(
    row: &Row,
    position: Option<Position>,
    typed: bool,
    out: &mut (impl Write + ?Sized),
) -> Result<()> {
    let line = json!({
        "op": "r",
        "before": null,
        "after": json::columns(row, typed)?,
        "source": {
            "connector": "redtail",
            "table": row.table().name,
            "key": json::key(row, typed)?,
            // What was printed so far is not the whole snapshot: there is nothing to resume from.
            "position": null,
            "window": position.map(|p| p.to_string()),
            "snapshot": true,
        },
        "ts_ms": millis(SystemTime::now()),
    });
    writeln!(out, "{line}").map_err(|e| failure(&e))
}

fn millis(at: SystemTime) -> u64 {
    u64::try_from(at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}
