//! Values of keys: how they are taken, what is said when one is wrong, and how they are shown.

use redtail::{Durability, KeepChanges, Occasions, OnDivergence};
use std::time::Duration;
use toml::{Table, Value};

/// A value, or what would have been right.
pub(super) type Taken<T> = std::result::Result<T, &'static str>;

pub(super) fn text(v: &Value) -> Taken<&str> {
    v.as_str().ok_or("text is wanted, such as \"app.db\"")
}

pub(super) fn count(v: &Value) -> Taken<usize> {
    let n = v.as_integer().and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
    n.ok_or("a whole number above 0 is wanted")
}

pub(super) fn duration(v: &Value) -> Taken<Duration> {
    any_duration(v).ok().filter(|d| !d.is_zero()).ok_or("a time is wanted, such as \"250ms\" or \"2s\"")
}

/// A time that may be none at all.
pub(super) fn any_duration(v: &Value) -> Taken<Duration> {
    let parsed = v.as_str().and_then(|t| humantime::parse_duration(t).ok());
    parsed.ok_or("a time is wanted, such as \"0s\", \"90s\" or \"1h\"")
}

pub(super) fn texts(v: &Value) -> Option<Vec<String>> {
    v.as_array()?.iter().map(|v| v.as_str().map(str::to_owned)).collect()
}

pub(super) fn patterns(v: &Value) -> Taken<Vec<String>> {
    texts(v).ok_or("a list of patterns is wanted, such as [\"tmp_*\"]")
}

pub(super) fn durability(v: &Value) -> Taken<Durability> {
    let want = "\"every-window\" or { interval_ms = 50 } is wanted";
    if v.as_str() == Some("every-window") {
        return Ok(Durability::EveryWindow);
    }
    let interval =
        v.as_table().filter(|t| t.len() == 1).and_then(|t| t.get("interval_ms")).and_then(Value::as_integer);
    let interval = interval.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0).ok_or(want)?;
    Ok(Durability::Interval(Duration::from_millis(interval)))
}

pub(super) fn durability_shown(durability: Durability) -> Value {
    match durability {
        Durability::EveryWindow => Value::String("every-window".to_owned()),
        Durability::Interval(every) => {
            let ms = i64::try_from(every.as_millis()).unwrap_or(i64::MAX);
            Value::Table(Table::from_iter([("interval_ms".to_owned(), Value::Integer(ms))]))
        }
    }
}

pub(super) fn occasions(v: &Value) -> Taken<Option<Occasions>> {
    let want = "\"follow\" or { on_start = true, every = \"5m\", stale_after = \"1h\" } is wanted";
    if v.as_str() == Some("follow") {
        return Ok(None);
    }
    let mut occasions = Occasions::default();
    for (key, value) in v.as_table().ok_or(want)? {
        match key.as_str() {
            "on_start" => occasions.on_start = value.as_bool().ok_or(want)?,
            "every" => occasions.every = Some(duration(value).map_err(|_| want)?),
            "stale_after" => occasions.stale_after = Some(duration(value).map_err(|_| want)?),
            _ => return Err(want),
        }
    }
    Ok(Some(occasions))
}

pub(super) fn occasions_shown(occasions: Option<Occasions>) -> Value {
    let Some(occasions) = occasions else { return Value::String("follow".to_owned()) };
    let mut table = Table::from_iter([("on_start".to_owned(), Value::Boolean(occasions.on_start))]);
    table.extend(occasions.every.map(|t| ("every".to_owned(), time(t))));
    table.extend(occasions.stale_after.map(|t| ("stale_after".to_owned(), time(t))));
    Value::Table(table)
}

pub(super) fn keep_changes(v: &Value) -> Taken<KeepChanges> {
    let want = "{ rows = 1_000_000 } or { age = \"24h\" } is wanted, or both";
    let table = v.as_table().filter(|t| !t.is_empty()).ok_or(want)?;
    let mut keep = KeepChanges::default();
    for (key, value) in table {
        match key.as_str() {
            "rows" => keep.rows = count(value).map_err(|_| want)? as u64,
            "age" => keep.age = Some(duration(value).map_err(|_| want)?),
            _ => return Err(want),
        }
    }
    Ok(keep)
}

pub(super) fn keep_changes_shown(keep: KeepChanges) -> Value {
    let mut table = Table::new();
    table.extend(number(keep.rows).map(|n| ("rows".to_owned(), n)));
    table.extend(keep.age.map(|age| ("age".to_owned(), time(age))));
    Value::Table(table)
}

pub(super) fn on_divergence(v: &Value) -> Taken<OnDivergence> {
    match v.as_str() {
        Some("rebuild") => Ok(OnDivergence::Rebuild),
        Some("stop") => Ok(OnDivergence::Stop),
        _ => Err("\"rebuild\" or \"stop\" is wanted"),
    }
}

pub(super) fn on_divergence_shown(what: OnDivergence) -> Value {
    Value::String(if what == OnDivergence::Stop { "stop" } else { "rebuild" }.to_owned())
}

pub(super) fn time(d: Duration) -> Value {
    Value::String(humantime::format_duration(d).to_string())
}

pub(super) fn number(n: impl TryInto<i64>) -> Option<Value> {
    n.try_into().ok().map(Value::Integer)
}

pub(super) fn list(texts: &[String]) -> Value {
    Value::Array(texts.iter().cloned().map(Value::String).collect())
}
