//! `rebuild`: reconciles tables with the source again, through the running `run` if there is one.

use crate::control::{Request, connect, relay};
use crate::settings::Settings;
use crate::{Exit, failure, json, progress};
use redtail::{Rebuilt, Replica, Replicator, Source};
use serde_json::json;
use std::io::{self, Write};

pub async fn rebuild(settings: &Settings, tables: Vec<String>, json: bool) -> Exit {
    let path = settings.replica()?;
    if let Some(stream) = connect(path) {
        let request = Request::Rebuild { tables, json };
        return tokio::task::spawn_blocking(move || relay(stream, &request))
            .await
            .map_err(|e| failure(&e.into()))?;
    }
    let source = Source::open(settings.source()?, &settings.config)?;
    {
        // Wrong names are refused before the replica is opened to be written.
        let replica = Replica::open_to_read(path, &settings.config)?;
        source.recognise(&replica).await?;
        let snapshot = replica.snapshot()?;
        tables.iter().try_for_each(|t| snapshot.table(t).map(|_| ()))?;
    }
    let replica = Replica::open_existing(path, &settings.config)?;
    let replicator = Replicator::new(source, replica, settings.config.clone());
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
