//! `get`, `scan` and `dump`: rows of the replica.

use crate::control::{Request, ask};
use crate::settings::Settings;
use crate::{Exit, failure, json};
use redtail::{Error, Kind, Replica, Snapshot};
use std::io::Write;

pub async fn get(settings: &Settings, table: String, key: Vec<String>, typed: bool) -> Exit {
    ask(settings.replica()?, Request::Get { table, key, typed }, &settings.config).await
}

pub async fn scan(settings: &Settings, table: String, typed: bool) -> Exit {
    ask(settings.replica()?, Request::Scan { table, typed }, &settings.config).await
}

pub async fn dump(settings: &Settings, typed: bool) -> Exit {
    ask(settings.replica()?, Request::Dump { typed }, &settings.config).await
}

pub fn write_row(replica: &Replica, table: &str, key: &[String], typed: bool, out: &mut dyn Write) -> Exit {
    let snapshot = replica.snapshot()?;
    let definition = snapshot.table(table)?;
    let key: Vec<_> =
        key.iter().enumerate().map(|(n, k)| json::parse_key(k, definition.key_declared(n))).collect();
    match snapshot.get(table, &key)? {
        Some(row) => writeln!(out, "{}", json::line(&row, typed)?).map(|()| 0).map_err(|e| failure(&e)),
        None => Err(Error::new(Kind::NotFound, format!("table {}: no row with this key", definition.name))),
    }
}

pub fn write_table(replica: &Replica, table: &str, typed: bool, out: &mut dyn Write) -> Exit {
    write_rows(&replica.snapshot()?, table, typed, out)
}

pub fn write_all(replica: &Replica, typed: bool, out: &mut dyn Write) -> Exit {
    let snapshot = replica.snapshot()?;
    for info in snapshot.tables()? {
        write_rows(&snapshot, &info.table.name, typed, out)?;
    }
    Ok(0)
}

fn write_rows(snapshot: &Snapshot, table: &str, typed: bool, out: &mut dyn Write) -> Exit {
    for row in snapshot.scan(table)? {
        writeln!(out, "{}", json::line(&row?, typed)?).map_err(|e| failure(&e))?;
    }
    Ok(0)
}
