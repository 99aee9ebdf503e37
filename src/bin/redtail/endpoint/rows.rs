//! Rows: the tables, a page of one, one row. A page comes from one view, and the next one from another: each says
//! at which position it was.

use crate::json;
use redtail::{Error, Kind, Replica, Result, Snapshot};
use serde_json::{Value as Json, json};

/// Rows of a page.
const LIMIT: usize = 100;
const MOST: usize = 1000;
/// A page ends with the row that goes past so many bytes.
const PAGE_BYTES: usize = 4 << 20;

/// What a request says behind the question mark.
#[derive(Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// `None` if it is not UTF-8 once decoded.
    pub fn parse(text: &str) -> Option<Self> {
        let decode = |part: &str| {
            let spaced = part.replace('+', " ");
            percent_encoding::percent_decode_str(&spaced).decode_utf8().ok().map(String::from)
        };
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(name)?, decode(value)?))
        };
        text.split('&').filter(|p| !p.is_empty()).map(pair).collect::<Option<_>>().map(Self)
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Whether it is set: `typed`, `typed=1`, `typed=true`.
    pub fn is_set(&self, name: &str) -> bool {
        self.get(name).is_some_and(|v| matches!(v, "" | "1" | "true"))
    }

    /// Refuses names that mean nothing here: a mistake must not look like an answer.
    pub fn only(&self, known: &[&str]) -> Result<()> {
        match self.0.iter().find(|(name, _)| !known.contains(&name.as_str())) {
            Some((name, _)) => Err(Error::unknown("parameter", name, known.iter().copied())),
            None => Ok(()),
        }
    }
}

/// `/tables`.
pub fn tables(replica: &Replica) -> Result<String> {
    let snapshot = replica.snapshot()?;
    let each = snapshot.tables()?.into_iter().map(|info| {
        let columns: Vec<Json> =
            info.table.columns.iter().map(|c| json!({ "name": c.name, "declared": c.declared })).collect();
        json!({
            "name": info.table.name,
            "key": info.table.key_names(),
            "columns": columns,
            "rows": info.rows,
            "state": if info.reconciling.is_some() { "reconciling" } else { "whole" },
            "href": format!("/tables/{}", encode(&info.table.name)),
        })
    });
    let tables: Vec<Json> = each.collect();
    Ok(line(&with_view(&snapshot, json!({ "tables": tables }))))
}

/// `/tables/NAME`: rows in key order, behind the one that `after` names.
pub fn page(replica: &Replica, table: &str, query: &Query) -> Result<String> {
    query.only(&["limit", "after", "typed"])?;
    let limit =
        match query.get("limit") {
            None => LIMIT,
            Some(n) => n.parse().ok().filter(|n| (1..=MOST).contains(n)).ok_or_else(|| {
                Error::usage(format!("limit {n:?}: a whole number from 1 to {MOST} is wanted"))
            })?,
        };
    let after = query.get("after").map_or(Some(Vec::new()), json::unhex);
    let after = after.ok_or_else(|| Error::usage("after: what `next` of the page before has is wanted"))?;
    let typed = query.is_set("typed");
    let snapshot = replica.snapshot()?;
    let name = found(&snapshot, table)?;
    let (mut rows, mut bytes, mut next) = (Vec::<String>::new(), 0, Json::Null);
    let mut scan = snapshot.scan_after(table, &after)?.peekable();
    while let Some(row) = scan.next() {
        let row = row?;
        let shown = json::line(&row, typed)?;
        bytes += shown.len();
        rows.push(shown);
        if scan.peek().is_some() && (rows.len() == limit || bytes >= PAGE_BYTES) {
            let kind = if typed { "&typed=1" } else { "" };
            let place = hex(row.place());
            next = json!(format!("/tables/{}?limit={limit}{kind}&after={place}", encode(&name)));
            break;
        }
        if rows.len() == limit {
            break;
        }
    }
    // The rows are text already, and may be many.
    let (table, rows) = (json!(name), rows.join(","));
    let (position, consistent) = (position(&snapshot), snapshot.is_consistent());
    Ok(format!(
        "{{\"table\":{table},\"position\":{position},\"consistent\":{consistent},\"rows\":[{rows}],\"next\":{next}}}\n"
    ))
}

/// `/tables/NAME/row?key=…`: one value for each column of the key, as `redtail get` takes them.
pub fn row(replica: &Replica, table: &str, query: &Query) -> Result<String> {
    query.only(&["key", "typed"])?;
    let snapshot = replica.snapshot()?;
    let name = found(&snapshot, table)?;
    let definition = snapshot.table(table)?;
    let key: Vec<_> =
        query.all("key").enumerate().map(|(n, k)| json::parse_key(k, definition.key_declared(n))).collect();
    let row = snapshot.get(table, &key)?;
    let row = row.ok_or_else(|| Error::new(Kind::NotFound, format!("table {name}: no row with this key")))?;
    let row = json::row(&row, query.is_set("typed"))?;
    Ok(line(&with_view(&snapshot, json!({ "table": name, "row": row }))))
}

/// The table's own name; `NotFound` if it is not replicated.
fn found(snapshot: &Snapshot, table: &str) -> Result<String> {
    let found = snapshot.table(table).map(|t| t.name.clone());
    found.map_err(|e| Error::new(Kind::NotFound, e.to_string()))
}

/// What is answered, with where the view stands.
fn with_view(snapshot: &Snapshot, mut said: Json) -> Json {
    if let Some(said) = said.as_object_mut() {
        said.insert("position".into(), position(snapshot));
        said.insert("consistent".into(), snapshot.is_consistent().into());
    }
    said
}

fn position(snapshot: &Snapshot) -> Json {
    snapshot.position().map(|p| p.to_string()).into()
}

fn line(said: &Json) -> String {
    format!("{said}\n")
}

/// As a part of a path.
fn encode(name: &str) -> String {
    percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, b| {
        use std::fmt::Write as _;
        let _ = write!(out, "{b:02x}");
        out
    })
}
