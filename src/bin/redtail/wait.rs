//! `wait`: returns when the replica has reached a position, through the running `run` where there is one.
//!
//! It may be started before `run`, and `run` may be started anew meanwhile: it asks whoever holds the replica.

use crate::control::{Beat, Request, connect, relay};
use crate::settings::Settings;
use crate::{Exit, failure};
use redtail::{Error, Kind, Position, Replica, Replicator, Result, Source};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a `run` that is not there yet is looked for.
const LOOK: Duration = Duration::from_millis(50);

pub async fn wait(settings: &Settings, position: Option<String>, timeout: Option<Duration>) -> Exit {
    let path = settings.replica()?;
    let given: Option<Position> = position.map(|p| p.parse()).transpose()?;
    let folder = path.parent().filter(|f| !f.as_os_str().is_empty());
    if folder.is_some_and(|f| !f.is_dir()) {
        return Err(Error::usage(format!("replica {}: its folder is not there", path.display())));
    }
    let source = match given {
        None if settings.has_source() => Some(Source::open(settings.source()?, &settings.config)?),
        _ => None,
    };
    let position = match &source {
        Some(source) => Some(head(source).await?),
        None => given,
    };
    let begun = Instant::now();
    let mut alone = true;
    loop {
        let left = timeout.map(|t| t.saturating_sub(begun.elapsed()));
        if let Some(stream) = connect(path) {
            let ms = left.map(|l| u64::try_from(l.as_millis()).unwrap_or(u64::MAX));
            let shown = position.map(|p| p.to_string());
            let request = Request::Wait { position: shown, head: given.is_none(), timeout_ms: ms };
            let done = tokio::task::spawn_blocking(move || relay(stream, &request)).await;
            match done.map_err(|e| failure(&e.into()))? {
                // It ended, or was killed, before the position was there: another one may come.
                Err(e) if e.kind() == Kind::Io => {}
                done => return done,
            }
        } else if std::mem::take(&mut alone) {
            if let Some(position) = position
                && let Some(at) = reached(path, position, source.as_ref(), settings).await?
            {
                return writeln!(io::stdout(), "{at}").map(|()| 0).map_err(|e| failure(&e));
            }
            let _ = writeln!(
                io::stderr(),
                "wait: nothing follows {} now; waiting for `redtail run`",
                path.display()
            );
        }
        if left == Some(Duration::ZERO) {
            let what = given.map_or_else(|| "the source's head".to_owned(), |p| format!("position {p}"));
            return Err(Error::new(
                Kind::TimedOut,
                format!("replica {}: {what} not reached in time; nothing follows it now", path.display()),
            ));
        }
        tokio::time::sleep(left.map_or(LOOK, |l| l.min(LOOK))).await;
    }
}

/// The position of a replica that nobody follows, if it is at or past this one, and level with the source if one is
/// given. Opened once: to open it again and again could be in the way of a `run` that starts.
async fn reached(
    path: &Path,
    position: Position,
    source: Option<&Source>,
    settings: &Settings,
) -> Result<Option<Position>> {
    if !path.exists() {
        return Ok(None);
    }
    let replica = match Replica::open_to_read(path, &settings.config) {
        Ok(replica) => replica,
        // Somebody who is starting holds it.
        Err(e) if e.kind() == Kind::Locked => return Ok(None),
        Err(e) => return Err(e),
    };
    if let Some(source) = source
        && !source.is_shown_by(&replica).await?
    {
        return Ok(None);
    }
    let snapshot = replica.snapshot()?;
    let at = snapshot.position().filter(|at| at.log_id == position.log_id && at.seq >= position.seq);
    Ok(at.filter(|_| snapshot.is_consistent()))
}

async fn head(source: &Source) -> Result<Position> {
    let none = || {
        Error::new(Kind::Capture, format!("source {source}: capture is not installed; run `redtail init`"))
    };
    source.head().await?.ok_or_else(none)
}

/// Answers on behalf of the running replicator, which is not held while it is waited for.
pub fn answer(
    live: Arc<Replicator>,
    (position, to_head): (Option<&str>, bool),
    timeout_ms: Option<u64>,
    out: &mut dyn Beat,
) -> Exit {
    let position: Option<Position> = position.map(str::parse).transpose()?;
    let timeout = timeout_ms.map(Duration::from_millis);
    let begun = Instant::now();
    let at = tokio::runtime::Handle::current().block_on(async {
        let to_position = position.map(|p| live.wait_for(p));
        let to_head = to_head.then(|| live.wait_for_head());
        drop(live);
        let mut at = None;
        for wait in [to_position, to_head].into_iter().flatten() {
            let wait = match timeout {
                Some(t) => wait.at_most(t.saturating_sub(begun.elapsed())),
                None => wait,
            };
            at = Some(out.until(wait.into_future()).await?);
        }
        at.ok_or_else(|| Error::usage("a wait for nothing"))
    })?;
    writeln!(out, "{at}").map(|()| 0).map_err(|e| failure(&e))
}
