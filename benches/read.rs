//! Reads from the replica beside the same reads from libSQL, in one run.
//!
//! `cargo bench --bench read`: a row by its key, a whole scan, a range of an index, and rows decoded into a struct;
//! 10,000 rows of 4 columns, warm. redb alone is the floor of the first two. libSQL reads through prepared statements, and the same values. The replica's own
//! types (`projection`) have no counterpart there.
#![allow(clippy::unwrap_used, clippy::cast_possible_wrap, missing_docs)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use redb::ReadableDatabase as _;
use redtail::{Config, Project, Replica, Replicator, Row, Snapshot, Source, TableConfig};
use serde::Deserialize;
use std::hint::black_box;
use tokio::runtime::Runtime;

const ROWS: u64 = 10_000;
/// Rows of one range of the index.
const RANGE: i64 = 100;

async fn fill(path: &std::path::Path) -> libsql::Connection {
    let connection = libsql::Builder::new_local(path).build().await.unwrap().connect().unwrap();
    connection
        .execute_batch(&format!(
            "PRAGMA journal_mode = WAL; CREATE TABLE kv(id INTEGER PRIMARY KEY, name TEXT, score REAL, at INTEGER);
             CREATE INDEX kv_at ON kv(at);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
             INSERT INTO kv SELECT i, 'a name of ordinary length ' || i, i * 0.5, (i * 7919) % {ROWS} FROM n;"
        ))
        .await
        .unwrap();
    connection
}

#[derive(Deserialize)]
struct Borrowed<'a> {
    id: i64,
    name: &'a str,
    score: f64,
    at: i64,
}

struct Owned {
    id: i64,
    name: String,
    score: f64,
    at: i64,
}

#[derive(rkyv::Archive, rkyv::Serialize)]
struct Projected {
    name: String,
    score: f64,
}

impl Project for Projected {
    const TABLE: &'static str = "kv";
    const VERSION: u32 = 1;

    fn project(row: &Row) -> redtail::Result<Option<Self>> {
        let name = row.text("name")?.unwrap_or_default().to_owned();
        Ok(Some(Self { name, score: row.real("score")?.unwrap_or_default() }))
    }
}

/// redb with as many rows of the same size and nothing else: what its search and its pages cost.
struct Bare {
    rows: redb::ReadOnlyTable<&'static [u8], &'static [u8]>,
    /// Without it nothing can be read.
    _db: redb::Database,
}

impl Bare {
    fn of(snapshot: &Snapshot) -> Self {
        const ROWS_ALONE: redb::TableDefinition<&[u8], &[u8]> = redb::TableDefinition::new("rows");
        let backend = redb::backends::InMemoryBackend::new();
        let db = redb::Database::builder().create_with_backend(backend).unwrap();
        let write = db.begin_write().unwrap();
        let mut rows = write.open_table(ROWS_ALONE).unwrap();
        for id in 1..=snapshot.count("kv").unwrap() as i64 {
            rows.insert(id.to_be_bytes().as_slice(), [0; 96].as_slice()).unwrap();
        }
        drop(rows);
        write.commit().unwrap();
        Self { rows: db.begin_read().unwrap().open_table(ROWS_ALONE).unwrap(), _db: db }
    }
}

/// Ids in an order that jumps.
fn ids() -> impl Iterator<Item = i64> {
    (0..).map(|i: u64| (i * 7919 % ROWS + 1) as i64)
}

fn get(c: &mut Criterion, snapshot: &Snapshot, runtime: &Runtime, connection: &libsql::Connection) {
    let mut next = ids();
    let mut group = c.benchmark_group("get");
    group.throughput(Throughput::Elements(1));
    group.bench_function("replica", |b| {
        b.iter(|| {
            let row = snapshot.get("kv", next.next().unwrap()).unwrap().unwrap();
            black_box((row.text(1).unwrap().map(str::len), row.real(2).unwrap()));
        });
    });
    let projection = snapshot.projection::<Projected>().unwrap();
    group.bench_function("projection", |b| {
        b.iter(|| {
            let found = projection.get(next.next().unwrap()).unwrap().unwrap();
            let view = found.view().unwrap();
            black_box((view.name.len(), view.score.to_native()));
        });
    });
    let bare = Bare::of(snapshot);
    group.bench_function("redb alone", |b| {
        b.iter(|| {
            let id = next.next().unwrap();
            black_box(bare.rows.get(id.to_be_bytes().as_slice()).unwrap().unwrap().value().len());
        });
    });
    let select = runtime.block_on(connection.prepare("SELECT * FROM kv WHERE id = ?1")).unwrap();
    group.bench_function("libsql", |b| {
        b.iter(|| {
            let row = runtime.block_on(async {
                let row = select.query([next.next().unwrap()]).await.unwrap().next().await.unwrap().unwrap();
                (row.get_value(1).unwrap(), row.get_value(2).unwrap())
            });
            select.reset();
            black_box(row);
        });
    });
    group.finish();
}

/// Steps through what a statement finds.
fn each(
    runtime: &Runtime,
    select: &libsql::Statement,
    params: impl libsql::params::IntoParams,
    look: impl Fn(&libsql::Row),
) {
    runtime.block_on(async {
        let mut rows = select.query(params).await.unwrap();
        while let Some(row) = rows.next().await.unwrap() {
            look(&row);
        }
    });
    select.reset();
}

/// The third value of a row, as the replica's side reads it.
fn score(row: &libsql::Row) {
    black_box(row.get_value(2).unwrap());
}

fn scan(c: &mut Criterion, snapshot: &Snapshot, runtime: &Runtime, connection: &libsql::Connection) {
    let mut group = c.benchmark_group("scan");
    group.throughput(Throughput::Elements(ROWS));
    group.bench_function("replica", |b| {
        b.iter(|| {
            for row in snapshot.scan("kv").unwrap() {
                black_box(row.unwrap().real(2).unwrap());
            }
        });
    });
    let bare = Bare::of(snapshot);
    group.bench_function("redb alone", |b| {
        b.iter(|| {
            for row in bare.rows.range_owned::<&[u8]>(..).unwrap() {
                black_box(row.unwrap().1.value().len());
            }
        });
    });
    let select = runtime.block_on(connection.prepare("SELECT * FROM kv ORDER BY id")).unwrap();
    group.bench_function("libsql", |b| {
        b.iter(|| each(runtime, &select, (), score));
    });
    group.finish();
}

fn index(c: &mut Criterion, snapshot: &Snapshot, runtime: &Runtime, connection: &libsql::Connection) {
    let mut from = (0..).map(|i: i64| i * 37 % 9_000);
    let mut group = c.benchmark_group("index");
    group.throughput(Throughput::Elements(RANGE.unsigned_abs()));
    let by_time = snapshot.index("kv", &["at"]).unwrap();
    group.bench_function("replica", |b| {
        b.iter(|| {
            let from = from.next().unwrap();
            let rows = by_time.range(from..from + RANGE).unwrap();
            for row in rows {
                black_box(row.unwrap().real(2).unwrap());
            }
        });
    });
    let select = "SELECT * FROM kv WHERE at >= ?1 AND at < ?2 ORDER BY at";
    let select = runtime.block_on(connection.prepare(select)).unwrap();
    group.bench_function("libsql", |b| {
        b.iter(|| {
            let from = from.next().unwrap();
            each(runtime, &select, [from, from + RANGE], score);
        });
    });
    group.finish();
}

fn decode(c: &mut Criterion, snapshot: &Snapshot, runtime: &Runtime, connection: &libsql::Connection) {
    let mut group = c.benchmark_group("decode");
    group.throughput(Throughput::Elements(ROWS));
    group.bench_function("replica", |b| {
        b.iter(|| {
            for row in snapshot.scan("kv").unwrap() {
                let row = row.unwrap();
                let Borrowed { id, name, score, at } = row.decode().unwrap();
                black_box((id, name.len(), score, at));
            }
        });
    });
    let select = runtime.block_on(connection.prepare("SELECT * FROM kv ORDER BY id")).unwrap();
    group.bench_function("libsql", |b| {
        b.iter(|| {
            each(runtime, &select, (), |row| {
                let [id, name, score, at] = [0, 1, 2, 3];
                let (id, name) = (row.get(id).unwrap(), row.get(name).unwrap());
                let owned = Owned { id, name, score: row.get(score).unwrap(), at: row.get(at).unwrap() };
                black_box((owned.id, owned.name, owned.score, owned.at));
            });
        });
    });
    group.finish();
}

fn reads(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("app.db");
    let connection = runtime.block_on(fill(&db));
    let config = Config::default().with_table("kv", TableConfig::default().with_index(["at"]));
    let source = Source::open(db.to_str().unwrap(), &config).unwrap();
    let replica = Replica::open(folder.path().join("cache.redb"), &config).unwrap();
    let replicator = Replicator::new(source, replica.clone(), config).projecting::<Projected>();
    runtime.block_on(replicator.sync_once()).unwrap();
    let snapshot = replica.snapshot().unwrap();
    get(c, &snapshot, &runtime, &connection);
    scan(c, &snapshot, &runtime, &connection);
    index(c, &snapshot, &runtime, &connection);
    decode(c, &snapshot, &runtime, &connection);
}

criterion_group!(benches, reads);
criterion_main!(benches);
