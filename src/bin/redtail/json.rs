//! Rows as JSON lines.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use redtail::{Result, Row, Value, ValueRef};
use serde_json::{Map, Value as Json, json};

/// One line: `{"table":…,"key":[…],"row":{…}}`, columns in the source's order.
pub fn line(row: &Row, typed: bool) -> Result<String> {
    Ok(self::row(row, typed)?.to_string())
}

/// The same as an object.
pub fn row(row: &Row, typed: bool) -> Result<Json> {
    Ok(json!({ "table": row.table().name, "key": key(row, typed)?, "row": columns(row, typed)? }))
}

pub fn key(row: &Row, typed: bool) -> Result<Json> {
    let one = if typed { exact } else { plain };
    Ok(row.key()?.iter().map(|v| one(v.as_ref())).collect())
}

/// All columns by name, in the source's order.
pub fn columns(row: &Row, typed: bool) -> Result<Json> {
    let one = if typed { exact } else { plain };
    let mut columns = Map::new();
    for (column, value) in row.columns().iter().zip(row.values()?) {
        columns.insert(column.name.clone(), one(value));
    }
    Ok(columns.into())
}

/// A value with its storage class, bit for bit.
pub fn exact(value: ValueRef<'_>) -> Json {
    match value {
        ValueRef::Null => json!({ "type": "null" }),
        ValueRef::Integer(i) => json!({ "type": "integer", "value": i.to_string() }),
        ValueRef::Real(r) => json!({ "type": "real", "value": format!("{r:?}") }),
        ValueRef::Text(t) => match std::str::from_utf8(t) {
            Ok(text) => json!({ "type": "text", "value": text }),
            Err(_) => json!({ "type": "text", "base64": STANDARD.encode(t) }),
        },
        ValueRef::Utf16le(t) | ValueRef::Utf16be(t) => {
            json!({ "type": "text", "base64": STANDARD.encode(t) })
        }
        ValueRef::Blob(b) => json!({ "type": "blob", "base64": STANDARD.encode(b) }),
    }
}

/// A value as JSON has it; what JSON has not (blobs, infinities, text that is not UTF-8) as [`exact`].
pub fn plain(value: ValueRef<'_>) -> Json {
    match value {
        ValueRef::Null => Json::Null,
        ValueRef::Integer(i) => json!(i),
        ValueRef::Real(r) if r.is_finite() => json!(r),
        ValueRef::Text(t) => std::str::from_utf8(t).map_or_else(|_| exact(value), |text| json!(text)),
        _ => exact(value),
    }
}

/// Tables, for people: how many, and the first of them by name.
pub fn listed(names: &[String]) -> String {
    let shown = names.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = if names.len() > 5 { ", …" } else { "" };
    match names.len() {
        0 => "no table".to_owned(),
        1 => format!("table {shown}"),
        n => format!("{n} tables ({shown}{more})"),
    }
}

/// A key's component as a person types it: by the affinity of its column, `x'…'` as a blob.
pub fn parse_key(typed: &str, declared: &str) -> Value {
    let blob =
        typed.strip_prefix(['x', 'X']).and_then(|r| r.strip_prefix('\'')).and_then(|r| r.strip_suffix('\''));
    if let Some(bytes) = blob.and_then(unhex) {
        return Value::Blob(bytes);
    }
    let untyped = declared.is_empty()
        || declared.to_ascii_uppercase().contains("BLOB")
        || declared.eq_ignore_ascii_case("ANY");
    if redtail::is_numeric(declared) || untyped {
        if let Ok(i) = typed.parse() {
            return Value::Integer(i);
        }
        if let (Ok(r), true) = (typed.parse::<f64>(), typed.contains(|c: char| c.is_ascii_digit())) {
            return Value::Real(r);
        }
    }
    Value::Text(typed.as_bytes().to_vec())
}

/// The bytes of hexadecimal digits.
pub fn unhex(digits: &str) -> Option<Vec<u8>> {
    if !digits.len().is_multiple_of(2) || !digits.is_ascii() {
        return None;
    }
    (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(digits.get(i..i + 2)?, 16).ok()).collect()
}
