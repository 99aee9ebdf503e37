//! `verify --references`: rows whose foreign keys lead nowhere in the replica.

use crate::control::{Request, connect, relayed};
use crate::settings::Settings;
use crate::{Exit, failure, json};
use redtail::{Orphans, Replica, Replicator, Result, Source};
use serde_json::json;
use std::io::{self, Write};
use std::time::Duration;

/// How long a running one may take to be level with its source.
const LEVEL: Duration = Duration::from_secs(30);

pub async fn references(settings: &Settings, json: bool) -> Exit {
    let path = settings.replica()?;
    if let Some(stream) = connect(path) {
        return relayed(stream, Request::References { json }).await;
    }
    let source = Source::open(settings.source()?, &settings.config)?;
    let replica = Replica::open_to_read(path, &settings.config)?;
    source.recognise(&replica).await?;
    let found = replica.snapshot()?.orphans(&source.references().await?)?;
    write(&found, json, &mut io::stdout().lock())
}

/// What a running replicator finds, in one state of the source.
pub async fn at_head(live: &Replicator) -> Result<Orphans> {
    let references = live.source().references().await?;
    live.snapshot_at_head(LEVEL).await?.orphans(&references)
}

pub fn write(found: &Orphans, as_json: bool, out: &mut dyn Write) -> Exit {
    lines(found, as_json, out).map_err(|e| failure(&e))?;
    Ok(u8::from(found.count > 0))
}

fn lines(found: &Orphans, as_json: bool, out: &mut dyn Write) -> io::Result<()> {
    for orphan in &found.named {
        let key: Vec<_> = orphan.key.iter().map(|v| json::plain(v.as_ref())).collect();
        let (table, parent, columns) = (&orphan.table, &orphan.parent, &orphan.columns);
        if as_json {
            writeln!(out, "{}", json!({ "table": table, "key": key, "columns": columns, "parent": parent }))?;
        } else {
            let (key, columns) = (serde_json::Value::from(key), columns.join(", "));
            writeln!(out, "table {table}, key {key}: ({columns}) names no row of {parent}")?;
        }
    }
    for (reference, why) in &found.unchecked {
        let (table, columns) = (&reference.table, reference.columns.join(", "));
        if as_json {
            writeln!(out, "{}", json!({ "table": table, "columns": reference.columns, "unchecked": why }))?;
        } else {
            writeln!(out, "table {table}: ({columns}) was not checked: {why}")?;
        }
    }
    if as_json {
        writeln!(out, "{}", json!({ "rows": found.rows, "orphans": found.count }))
    } else {
        writeln!(out, "{} orphans in {} rows", found.count, found.rows)
    }
}
