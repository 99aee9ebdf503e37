//! `compact`: gives the replica's unused space back, through the running `run` if there is one.

use crate::control::{Request, connect, relayed};
use crate::settings::Settings;
use crate::{Exit, failure};
use redtail::{Compacted, Replica};
use serde_json::json;
use std::io::{self, Write};

pub async fn compact(settings: &Settings, json: bool) -> Exit {
    let path = settings.replica()?;
    if let Some(stream) = connect(path) {
        let request = Request::Compact { json };
        return relayed(stream, request).await;
    }
    let done = Replica::open_existing(path, &settings.config)?.compact()?;
    write(done, json, &mut io::stdout().lock())
}

pub fn write(done: Compacted, as_json: bool, out: &mut dyn Write) -> Exit {
    let Compacted { before, after, .. } = done;
    let given_back = before.saturating_sub(after);
    let written = if as_json {
        writeln!(out, "{}", json!({ "before": before, "after": after, "given_back": given_back }))
    } else {
        writeln!(out, "{before} bytes before, {after} after; {given_back} given back")
    };
    written.map(|()| 0).map_err(|e| failure(&e))
}
