//! Projections of the model's tables, in two versions: whatever can be read is what the rows give.

use super::model::Row as Known;
use crate::error::{Error, Kind, Result};
use crate::replica::{Project, Projectors, Row, Snapshot};
use crate::value::ValueRef;
use rkyv::{Archive, Serialize};
use std::collections::BTreeMap;

const NAMES: [&str; 9] =
    ["table 0", "table 1", "table 2", "table 3", "table 4", "table 5", "table 6", "table 7", "table 8"];

/// A row's key, number and body, of the table of this number.
#[derive(Archive, Serialize)]
struct Made<const TABLE: usize, const VERSION: u32> {
    id: i64,
    n: i64,
    body: Vec<u8>,
}

/// What becomes of a row: one in four is left out, one in four fails.
fn fate(n: i64, version: u32) -> u64 {
    n.cast_unsigned().wrapping_add(u64::from(version)) % 4
}

impl<const TABLE: usize, const VERSION: u32> Project for Made<TABLE, VERSION> {
    const TABLE: &'static str = NAMES[TABLE];
    const VERSION: u32 = VERSION;

    fn project(row: &Row) -> Result<Option<Self>> {
        let (id, n) = (row.integer("id")?.unwrap_or(-1), row.integer("n")?.unwrap_or(-1));
        let ValueRef::Text(body) = row.get("body")? else { return Ok(None) };
        match fate(n, VERSION) {
            0 => Ok(None),
            1 => Err(Error::new(Kind::Mismatch, format!("row {id} fails"))),
            _ => Ok(Some(Self { id, n: n.wrapping_add(i64::from(VERSION)), body: body.to_vec() })),
        }
    }
}

/// All projections in this version; none for 0.
pub(super) fn projectors(version: u32) -> Projectors {
    let mut all = Projectors::default();
    match version {
        1 => add::<1>(&mut all),
        2 => add::<2>(&mut all),
        _ => {}
    }
    all
}

macro_rules! of_tables {
    ($($table:literal)*) => {
        fn add<const VERSION: u32>(all: &mut Projectors) {
            $(all.add::<Made<$table, VERSION>>();)*
        }

        /// Which version of a table's projection can be read; `Err` with what is not as it should be.
        pub(super) fn differs(
            snapshot: &Snapshot,
            table: &str,
            rows: &BTreeMap<i64, Known>,
        ) -> std::result::Result<u32, String> {
            let mut there = 0;
            $(if table == NAMES[$table] {
                there += u32::from(same::<$table, 1>(snapshot, rows)?);
                there += 2 * u32::from(same::<$table, 2>(snapshot, rows)?);
            })*
            Ok(there)
        }
    };
}

of_tables!(1 2 3 4 5 6 7 8);

fn same<const TABLE: usize, const VERSION: u32>(
    snapshot: &Snapshot,
    rows: &BTreeMap<i64, Known>,
) -> std::result::Result<bool, String> {
    let name = NAMES[TABLE];
    let told = |e: Error| format!("{name}, version {VERSION}: {e:?}");
    let projection = match snapshot.projection::<Made<TABLE, VERSION>>() {
        Ok(projection) => projection,
        Err(e) if e.kind() == Kind::Usage => return Ok(false),
        Err(e) => return Err(told(e)),
    };
    let want = rows.iter().filter(|(_, (n, _))| fate(*n, VERSION) != 0).map(|(id, (n, body))| {
        match fate(*n, VERSION) {
            1 => Err(format!("table {name}, projection {name:?}: row {id} fails")),
            _ => Ok((*id, n.wrapping_add(i64::from(VERSION)), body.clone())),
        }
    });
    let read = |found: Result<super::super::Projected<Made<TABLE, VERSION>>>| match found {
        Ok(found) => {
            found.view().map_err(told).map(|v| Ok((v.id.to_native(), v.n.to_native(), v.body.to_vec())))
        }
        Err(e) if e.kind() == Kind::Mismatch => Ok(Err(e.to_string())),
        Err(e) => Err(told(e)),
    };
    let found = projection.scan().map_err(told)?.map(read).collect::<std::result::Result<Vec<_>, _>>()?;
    if found != want.collect::<Vec<_>>() {
        return Err(format!("{name}: its projection in version {VERSION} is not that of its rows"));
    }
    for id in 0..super::model::KEYS.cast_signed() {
        let fate = rows.get(&id).map(|(n, _)| fate(*n, VERSION));
        let got = match projection.get(id) {
            Ok(None) => None,
            Ok(Some(_)) => Some(2),
            Err(e) if e.kind() == Kind::Mismatch => Some(1),
            Err(e) => return Err(told(e)),
        };
        if got != fate.filter(|f| *f != 0).map(|f| f.min(2)) {
            return Err(format!("{name}: version {VERSION} of key {id}: {got:?}"));
        }
    }
    Ok(true)
}
