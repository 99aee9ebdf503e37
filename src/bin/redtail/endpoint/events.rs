//! `/changes`: what changes in the replica, as server-sent events.
//!
//! The same envelopes as `redtail changes` prints. An event's id is a position from which it can be resumed: a client
//! that comes back sends the last one as `Last-Event-ID`. Nobody is waited for: a client that takes nothing is
//! dropped, and one that is too slow for the history that is kept gets an event that says so.

use super::answer::{self, Answer, failed, wrong};
use super::rows::Query;
use crate::changes::each_line;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::StatusCode;
use hyper::body::{Bytes, Frame};
use redtail::{Changes, Error, Kind, Position, Replicator, Result};
use serde_json::json;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

/// Subscribers at once.
pub const SUBSCRIBERS: usize = 128;
/// How often a client is sent something though nothing has changed: so it is known whether it is still there.
const BEAT: Duration = Duration::from_secs(5);
/// Windows that wait for a client; more are waited with.
const WAITING: usize = 4;

/// Begins to tell: behind `Last-Event-ID` if there is one, else behind `from`, else from now on.
pub async fn subscribe(
    replicator: Arc<Replicator>,
    places: &Arc<Semaphore>,
    last_id: Option<&str>,
    query: &Query,
) -> Answer {
    let Ok(place) = Arc::clone(places).try_acquire_owned() else {
        return wrong(StatusCode::SERVICE_UNAVAILABLE, "too many subscribers; try again later");
    };
    match begin(&replicator, last_id, query).await {
        Ok((changes, typed)) => {
            let (out, body) = mpsc::channel(WAITING);
            let running = Arc::downgrade(&replicator);
            tokio::spawn(tell(changes, running, typed, out, place));
            let body = StreamBody::new(
                ReceiverStream::new(body).map(|text| Ok::<_, Infallible>(Frame::data(Bytes::from(text)))),
            );
            answer::of(StatusCode::OK, "text/event-stream", body.boxed_unsync())
        }
        Err(e) if matches!(e.kind(), Kind::Divergence | Kind::Lagged) => {
            wrong(StatusCode::GONE, &e.to_string())
        }
        Err(e) => failed(&e),
    }
}

async fn begin(replicator: &Replicator, last_id: Option<&str>, query: &Query) -> Result<(Changes, bool)> {
    query.only(&["from", "typed"])?;
    let from: Option<Position> = last_id.or_else(|| query.get("from")).map(str::parse).transpose()?;
    let changes = match from {
        Some(position) => replicator.changes_from(position).await?,
        None => replicator.changes().await?,
    };
    Ok((changes, query.is_set("typed")))
}

/// Tells windows until the client has gone, or this process ends.
async fn tell(
    mut changes: Changes,
    running: Weak<Replicator>,
    typed: bool,
    out: mpsc::Sender<String>,
    _place: OwnedSemaphorePermit,
) {
    let mut last = changes.resume();
    let mut text = String::new();
    // So that a client knows where it stands before anything has changed.
    event(&mut text, "position", last, &json!({ "position": last.map(|p| p.to_string()) }).to_string());
    while out.send(std::mem::take(&mut text)).await.is_ok() && running.strong_count() > 0 {
        let next = tokio::select! {
            next = changes.next() => next,
            () = tokio::time::sleep(BEAT) => {
                text.push_str(": nothing has changed\n\n");
                continue;
            }
            () = out.closed() => return,
        };
        let told =
            next.unwrap_or_else(|| Err(Error::new(Kind::Stopped, "redtail is ending"))).and_then(|window| {
                each_line(&window, &mut last, typed, |position, line| {
                    event(&mut text, "change", position, &line.to_string());
                    Ok(())
                })
            });
        if let Err(e) = told {
            event(&mut text, "error", None, &json!({ "error": e.to_string() }).to_string());
            let _ = out.send(text).await;
            return;
        }
    }
}

fn event(text: &mut String, name: &str, id: Option<Position>, data: &str) {
    let _ = writeln!(text, "event: {name}");
    if let Some(id) = id {
        let _ = writeln!(text, "id: {id}");
    }
    let _ = write!(text, "data: {data}\n\n");
}
