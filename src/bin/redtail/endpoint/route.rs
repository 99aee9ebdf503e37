//! Which request gets which answer, and who may ask.

use super::answer::{self, Answer, JSON, TEXT, failed, whole, wrong};
use super::rows::{self, Query};
use super::{Shared, events, metrics, page};
use crate::status;
use hyper::body::Incoming;
use hyper::header::{ALLOW, AUTHORIZATION, HOST, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, Request, StatusCode};
use redtail::{Error, Progress, Replicator, Result};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// How long a page of rows may wait until others have been taken.
const TURN: Duration = Duration::from_secs(5);

const GONE: &str = "redtail is ending";

pub async fn answer(shared: &Arc<Shared>, request: Request<Incoming>) -> Answer {
    if let Some(refused) = refused(shared, &request) {
        return refused;
    }
    let Some(replicator) = shared.replicator.upgrade() else {
        return wrong(StatusCode::SERVICE_UNAVAILABLE, GONE);
    };
    let Some(query) = Query::parse(request.uri().query().unwrap_or_default()) else {
        return wrong(StatusCode::BAD_REQUEST, "the query is not UTF-8");
    };
    let path: Vec<&str> = request.uri().path().split('/').skip(1).collect();
    match path.as_slice() {
        [""] => page::page(),
        ["healthz"] => whole(StatusCode::OK, TEXT, "ok\n"),
        ["readyz"] => ready(shared, &replicator.progress().borrow()),
        ["metrics"] => {
            let shared = Arc::clone(shared);
            read(replicator, metrics::KIND, move |r| metrics::text(r, shared.looks.last().as_ref())).await
        }
        ["status"] => {
            let seen = shared.looks.last().map(|(_, seen)| seen);
            read(replicator, JSON, move |r| status::json(r.replica(), Some(r), seen.as_ref())).await
        }
        ["history"] => whole(StatusCode::OK, JSON, format!("{}\n", shared.history.json())),
        ["changes"] => {
            let last_id = request.headers().get("last-event-id").and_then(|v| v.to_str().ok());
            events::subscribe(replicator, &shared.subscribers, last_id, &query).await
        }
        ["tables"] => read(replicator, JSON, move |r| rows::tables(r.replica())).await,
        ["tables", table] => {
            let Some(table) = decoded(table) else { return not_found() };
            page_of(shared, replicator, move |r| rows::page(r.replica(), &table, &query)).await
        }
        ["tables", table, "row"] => {
            let Some(table) = decoded(table) else { return not_found() };
            page_of(shared, replicator, move |r| rows::row(r.replica(), &table, &query)).await
        }
        _ => not_found(),
    }
}

/// Why this request gets no other answer.
fn refused(shared: &Shared, request: &Request<Incoming>) -> Option<Answer> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut no =
            wrong(StatusCode::METHOD_NOT_ALLOWED, "this endpoint is read only: GET or HEAD is wanted");
        no.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Some(no);
    }
    let token = shared.token.read().unwrap_or_else(PoisonError::into_inner);
    let header = |name| request.headers().get(name).and_then(|v| v.to_str().ok());
    if shared.address.is_here() && !shared.address.admits(header(HOST).unwrap_or_default()) {
        let what = "the Host header names another machine; ask for 127.0.0.1 or localhost";
        return Some(wrong(StatusCode::MISDIRECTED_REQUEST, what));
    }
    // Neither the page itself nor that somebody is there says anything of rows.
    let open = matches!(request.uri().path(), "/" | "/healthz" | "/readyz");
    let wanted = token.as_deref().filter(|_| !open)?;
    let given = header(AUTHORIZATION).and_then(|v| v.strip_prefix("Bearer ")).unwrap_or_default();
    (!same(given.as_bytes(), wanted.as_bytes())).then(|| {
        let mut no = wrong(StatusCode::UNAUTHORIZED, "a token is wanted: Authorization: Bearer TOKEN");
        no.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        no
    })
}

/// Compares in a time that does not tell where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

fn not_found() -> Answer {
    wrong(
        StatusCode::NOT_FOUND,
        "not found; there are /, /healthz, /readyz, /metrics, /status, /history, /changes, /tables, /tables/NAME and /tables/NAME/row",
    )
}

fn decoded(part: &str) -> Option<String> {
    percent_encoding::percent_decode_str(part).decode_utf8().ok().map(String::from)
}

/// Ready: level with the source once since the start, and not further behind than the limit.
fn ready(shared: &Shared, progress: &Progress) -> Answer {
    let not = |what: String| whole(StatusCode::SERVICE_UNAVAILABLE, TEXT, what);
    match progress.lag() {
        None => {
            not(format!("not ready: not level with the source since the start; {}\n", progress.state.name()))
        }
        Some(lag) if lag > shared.ready_lag => not(format!(
            "not ready: level with the source {} s ago, more than the {} s of `ready_lag`; {}\n",
            lag.as_secs(),
            shared.ready_lag.as_secs(),
            progress.state.name()
        )),
        Some(_) => whole(StatusCode::OK, TEXT, "ready\n"),
    }
}

/// Reads the replica where it may block.
async fn blocking(
    replicator: Arc<Replicator>,
    work: impl FnOnce(&Replicator) -> Result<String> + Send + 'static,
) -> Result<String> {
    let done = tokio::task::spawn_blocking(move || work(&replicator)).await;
    done.unwrap_or_else(|e| Err(Error::new(redtail::Kind::Replica, format!("replica: {e}"))))
}

/// A short answer.
async fn read(
    replicator: Arc<Replicator>,
    kind: &'static str,
    work: impl FnOnce(&Replicator) -> Result<String> + Send + 'static,
) -> Answer {
    match blocking(replicator, work).await {
        Ok(body) => whole(StatusCode::OK, kind, body),
        Err(e) => failed(&e),
    }
}

/// An answer that may be large: few of them at once.
async fn page_of(
    shared: &Shared,
    replicator: Arc<Replicator>,
    work: impl FnOnce(&Replicator) -> Result<String> + Send + 'static,
) -> Answer {
    let turn = tokio::time::timeout(TURN, Arc::clone(&shared.answers).acquire_owned()).await;
    let Ok(Ok(permit)) = turn else {
        return wrong(StatusCode::SERVICE_UNAVAILABLE, "too many pages of rows are being read; try again");
    };
    match blocking(replicator, work).await {
        Ok(body) => answer::held(JSON, body, permit),
        Err(e) => failed(&e),
    }
}
