//! Reads from the replica beside the same reads from libSQL, in one run.
//!
//! `cargo bench --bench read`: a point read by key and a whole scan, 10,000 rows of 4 columns, warm.
#![allow(clippy::unwrap_used, clippy::cast_possible_wrap, missing_docs)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use redtail::{Config, Replica, Replicator, Source, Value};
use std::hint::black_box;

const ROWS: u64 = 10_000;

async fn fill(path: &std::path::Path) -> libsql::Connection {
    let connection = libsql::Builder::new_local(path).build().await.unwrap().connect().unwrap();
    connection
        .execute_batch(&format!(
            "PRAGMA journal_mode = WAL; CREATE TABLE kv(id INTEGER PRIMARY KEY, name TEXT, score REAL, at INTEGER);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
             INSERT INTO kv SELECT i, 'a name of ordinary length ' || i, i * 0.5, i FROM n;"
        ))
        .await
        .unwrap();
    connection
}

fn reads(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("app.db");
    let connection = runtime.block_on(fill(&db));
    let config = Config::default();
    let source = Source::open(db.to_str().unwrap(), &config).unwrap();
    let replica = Replica::open(folder.path().join("cache.redb"), &config).unwrap();
    runtime.block_on(Replicator::new(source, replica.clone(), config).sync_once()).unwrap();
    let snapshot = replica.snapshot().unwrap();
    let mut next = (0..).map(|i: u64| (i * 7919 % ROWS + 1) as i64);

    let mut group = c.benchmark_group("get");
    group.throughput(Throughput::Elements(1));
    group.bench_function("replica", |b| {
        b.iter(|| {
            let row = snapshot.get("kv", &[Value::Integer(next.next().unwrap())]).unwrap().unwrap();
            black_box(row.value(2).unwrap());
        });
    });
    let select = runtime.block_on(connection.prepare("SELECT * FROM kv WHERE id = ?1")).unwrap();
    group.bench_function("libsql", |b| {
        b.iter(|| {
            let row = runtime.block_on(async {
                let row = select.query([next.next().unwrap()]).await.unwrap().next().await.unwrap().unwrap();
                row.get_value(2).unwrap()
            });
            select.reset();
            black_box(row);
        });
    });
    group.finish();

    let mut group = c.benchmark_group("scan");
    group.throughput(Throughput::Elements(ROWS));
    group.bench_function("replica", |b| {
        b.iter(|| {
            for row in snapshot.scan("kv").unwrap() {
                black_box(row.unwrap().value(2).unwrap());
            }
        });
    });
    group.finish();
}

criterion_group!(benches, reads);
criterion_main!(benches);
