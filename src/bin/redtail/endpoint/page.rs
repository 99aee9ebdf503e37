//! The page for people, at `/`: one file, nothing from elsewhere.

use super::answer::{Answer, whole, wrong};
use hyper::StatusCode;
use hyper::header::{CONTENT_SECURITY_POLICY, HeaderValue};
use std::fmt::Write as _;

const PAGE: &str = include_str!("page.html");
/// Stands in the page where each answer has a number of its own.
const NONCE: &str = "{{nonce}}";

/// Only the page's own script and style run, known by a number that no one else can know.
pub fn page() -> Answer {
    let mut bytes = [0; 16];
    if getrandom::fill(&mut bytes).is_err() {
        return wrong(StatusCode::INTERNAL_SERVER_ERROR, "no random numbers are to be had");
    }
    let nonce = bytes.iter().fold(String::new(), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    });
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let mut page = whole(StatusCode::OK, "text/html; charset=utf-8", PAGE.replace(NONCE, &nonce));
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        page.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    }
    page
}
