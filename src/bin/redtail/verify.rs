//! `verify`: compares source and replica, through the running `run` if there is one.

use crate::control::{Request, connect, relayed};
use crate::settings::Settings;
use crate::{Exit, failure, follow, json, progress};
use redtail::Verified;
use serde_json::json;
use std::io::{self, Write};

pub async fn verify(settings: &Settings, tables: Vec<String>, repair: bool, json: bool) -> Exit {
    let path = settings.replica()?;
    if let Some(stream) = connect(path) {
        return relayed(stream, Request::Verify { tables, repair, json }).await;
    }
    let replicator = follow::on_tables(settings, &tables).await?;
    let shown = progress::show(&replicator, "verify");
    let found = replicator.verify(&tables, repair).await;
    shown.end().await;
    write(&found?, repair, json, &mut io::stdout().lock())
}

pub fn write(found: &Verified, repair: bool, as_json: bool, out: &mut dyn Write) -> Exit {
    write_lines(found, repair, as_json, out).map_err(|e| failure(&e))?;
    Ok(u8::from(found.count > 0 && !repair))
}

fn write_lines(found: &Verified, repair: bool, as_json: bool, out: &mut dyn Write) -> io::Result<()> {
    for d in &found.differences {
        let key: Vec<_> = d.key.iter().map(|v| json::plain(v.as_ref())).collect();
        let line = json!({ "table": d.table, "key": key, "difference": d.what });
        if as_json {
            writeln!(out, "{line}")?;
        } else {
            writeln!(out, "table {}, key {}: {}", d.table, serde_json::Value::from(key), d.what)?;
        }
    }
    let more = found.count.saturating_sub(found.differences.len() as u64);
    let mended = if repair && found.count > 0 { ", mended" } else { "" };
    if as_json {
        writeln!(out, "{}", json!({ "rows": found.rows, "differences": found.count, "mended": repair }))
    } else if found.count == 0 {
        writeln!(out, "equal: {} rows compared", found.rows)
    } else if more > 0 {
        writeln!(out, "and {more} more; {} differences in {} rows{mended}", found.count, found.rows)
    } else {
        writeln!(out, "{} differences in {} rows{mended}", found.count, found.rows)
    }
}
