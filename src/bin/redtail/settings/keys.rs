//! Every key outside of `[tables]`, how its value is taken and how it is shown.

use super::values::{self, Taken, count, duration, number, patterns, text, time};
use super::{Settings, TABLES};
use toml::Value;

pub(super) struct Key {
    /// With the name of its section and a dot in front, if it is in one.
    pub name: &'static str,
    pub set: fn(&mut Settings, &Value) -> Taken<()>,
    /// `None` where nothing is set.
    pub get: fn(&Settings) -> Option<Value>,
}

macro_rules! key {
    ($name:literal, $set:expr, $get:expr) => {
        Key { name: $name, set: $set, get: $get }
    };
}

pub(super) const KEYS: [Key; 33] = [
    key!("source", |s, v| text(v).map(|t| s.source = Some(t.to_owned())), |s| s
        .source
        .clone()
        .map(Value::String)),
    key!("replica", |s, v| text(v).map(|t| s.replica = Some(t.into())), |s| s
        .replica
        .as_ref()
        .map(|p| Value::String(p.display().to_string()))),
    key!("durability", |s, v| values::durability(v).map(|d| s.config.durability = d), |s| Some(
        values::durability_shown(s.config.durability)
    )),
    key!("sync", |s, v| values::occasions(v).map(|o| s.config.sync = o), |s| Some(values::occasions_shown(
        s.config.sync
    ))),
    key!("audit_every", |s, v| duration(v).map(|d| s.config.audit_every = Some(d)), |s| s
        .config
        .audit_every
        .map(time)),
    key!("keep_changes", |s, v| values::keep_changes(v).map(|k| s.config.keep_changes = Some(k)), |s| s
        .config
        .keep_changes
        .map(values::keep_changes_shown)),
    key!("subscriber_rows", |s, v| count(v).map(|n| s.config.subscriber_rows = n as u64), |s| number(
        s.config.subscriber_rows
    )),
    key!("on_divergence", |s, v| values::on_divergence(v).map(|d| s.config.on_divergence = d), |s| Some(
        values::on_divergence_shown(s.config.on_divergence)
    )),
    key!("include", |s, v| patterns(v).map(|p| s.config.wants.include = p), |s| Some(values::list(
        &s.config.wants.include
    ))),
    key!("exclude", |s, v| patterns(v).map(|p| s.config.wants.exclude = p), |s| Some(values::list(
        &s.config.wants.exclude
    ))),
    key!("cache_bytes", |s, v| count(v).map(|n| s.config.cache_bytes = n), |s| number(s.config.cache_bytes)),
    key!("chunk_rows", |s, v| count(v).map(|n| s.config.chunk_rows = n), |s| number(s.config.chunk_rows)),
    key!("chunk_bytes", |s, v| count(v).map(|n| s.config.chunk_bytes = n), |s| number(s.config.chunk_bytes)),
    key!("window_entries", |s, v| count(v).map(|n| s.config.window_entries = n as u64), |s| number(
        s.config.window_entries
    )),
    key!("max_row", |s, v| count(v).map(|n| s.config.max_row = n), |s| number(s.config.max_row)),
    key!("max_snapshot", |s, v| duration(v).map(|d| s.config.max_snapshot = d), |s| Some(time(
        s.config.max_snapshot
    ))),
    key!("max_transaction", |s, v| values::any_duration(v).map(|d| s.config.max_transaction = d), |s| Some(
        time(s.config.max_transaction)
    )),
    key!("busy_timeout", |s, v| duration(v).map(|d| s.config.busy_timeout = d), |s| Some(time(
        s.config.busy_timeout
    ))),
    key!("poll", |s, v| duration(v).map(|d| s.config.poll = d), |s| Some(time(s.config.poll))),
    key!("ack_interval", |s, v| duration(v).map(|d| s.config.ack_interval = d), |s| Some(time(
        s.config.ack_interval
    ))),
    key!("token_file", |s, v| text(v).map(|t| s.config.token_file = Some(t.into())), |s| s
        .config
        .token_file
        .as_ref()
        .map(|p| Value::String(p.display().to_string()))),
    key!(
        "insecure",
        |s, v| v.as_bool().map(|b| s.config.insecure = b).ok_or("true or false is wanted"),
        |s| Some(Value::Boolean(s.config.insecure))
    ),
    key!("events", |s, v| v.as_bool().map(|b| s.config.events = b).ok_or("true or false is wanted"), |s| {
        Some(Value::Boolean(s.config.events))
    }),
    key!("request_timeout", |s, v| duration(v).map(|d| s.config.request_timeout = d), |s| Some(time(
        s.config.request_timeout
    ))),
    key!("lagging", |s, v| duration(v).map(|d| s.config.lagging = d), |s| Some(time(s.config.lagging))),
    key!("listen", |s, v| text(v).map(|t| s.endpoint.listen = Some(t.to_owned())), |s| s
        .endpoint
        .listen
        .clone()
        .map(Value::String)),
    key!(
        "listen_anywhere",
        |s, v| v.as_bool().map(|b| s.endpoint.anywhere = b).ok_or("true or false is wanted"),
        |s| Some(Value::Boolean(s.endpoint.anywhere))
    ),
    key!("listen_token_file", |s, v| text(v).map(|t| s.endpoint.token_file = Some(t.into())), |s| s
        .endpoint
        .token_file
        .as_ref()
        .map(|p| Value::String(p.display().to_string()))),
    key!("ready_lag", |s, v| duration(v).map(|d| s.endpoint.ready_lag = d), |s| Some(time(
        s.endpoint.ready_lag
    ))),
    key!("changelog.max_rows", |s, v| count(v).map(|n| s.config.changelog.max_rows = Some(n as u64)), |s| s
        .config
        .changelog
        .max_rows
        .and_then(number)),
    key!(
        "changelog.retain_min",
        |s, v| values::any_duration(v).map(|d| s.config.changelog.retain_min = d),
        |s| Some(time(s.config.changelog.retain_min))
    ),
    key!("changelog.max_age", |s, v| duration(v).map(|d| s.config.changelog.max_age = Some(d)), |s| s
        .config
        .changelog
        .max_age
        .map(time)),
    key!(
        "changelog.consumer_timeout",
        |s, v| duration(v).map(|d| s.config.changelog.consumer_timeout = d),
        |s| Some(time(s.config.changelog.consumer_timeout))
    ),
];

/// Whether there are keys in this section (given with its dot).
pub(super) fn is_section(name: &str) -> bool {
    KEYS.iter().any(|k| k.name.starts_with(name))
}

pub(super) fn names() -> impl Iterator<Item = &'static str> + Clone {
    KEYS.iter().map(|k| k.name).chain([TABLES])
}
