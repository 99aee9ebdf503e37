//! `rebuild`: reconciles tables with the source again, through the running `run` if there is one.

use crate::control::{Request, connect, relayed};
use crate::settings::Settings;
use crate::{Exit, failure, follow, json, progress};
use redtail::Rebuilt;
use serde_json::json;
use std::io::{self, Write};

pub async fn rebuild(settings: &Settings, tables: Vec<String>, json: bool) -> Exit {
    let path = settings.replica()?;
    if let Some(stream) = connect(path) {
        return relayed(stream, Request::Rebuild { tables, json }).await;
    }
    let replicator = follow::on_tables(settings, &tables).await?;
    let shown = progress::show(&replicator, "rebuild");
    let rebuilt = replicator.rebuild(&tables).await;
    shown.end().await;
    write(&rebuilt?, json, &mut io::stdout().lock())
}

pub fn write(rebuilt: &Rebuilt, as_json: bool, out: &mut dyn Write) -> Exit {
    let (names, position) = (&rebuilt.tables, rebuilt.position);
    let written = if as_json {
        writeln!(out, "{}", json!({ "tables": names, "position": position.to_string() }))
    } else {
        writeln!(out, "rebuilt {} at {position}", json::listed(names))
    };
    written.map(|()| 0).map_err(|e| failure(&e))
}
