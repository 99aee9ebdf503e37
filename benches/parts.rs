//! The parts of the way from a row to the replica, each by itself: the canonical key, the record, reading it, and the
//! transaction, with and without recording what changes.
//!
//! `cargo bench --bench parts --features bench`. Rows of 4 columns, some 60 bytes; 10,000 in a transaction, on keys
//! that are there already, in order; nothing is synced to the disk.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use redtail::Value;
use redtail::parts::{Rows, Table1, key};
use std::hint::black_box;

const ROWS: i64 = 10_000;

/// Rows of which no two calls give the same values.
fn rows(version: i64) -> Vec<(Value, Vec<Value>)> {
    let row = |id: i64| {
        let name = format!("a name of ordinary length {id}");
        let score = Value::from(f64::from(i32::try_from(id).unwrap()) * 0.5);
        (Value::from(id), vec![Value::from(id), Value::from(name), score, Value::from(version)])
    };
    (1..=ROWS).map(row).collect()
}

fn parts(c: &mut Criterion) {
    let all = rows(0);
    let mut group = c.benchmark_group("parts");
    group.throughput(Throughput::Elements(ROWS.unsigned_abs()));
    let mut out = Vec::new();
    group.bench_function("key, integer", |b| {
        b.iter(|| {
            for (id, _) in &all {
                out.clear();
                key(std::slice::from_ref(id), &mut out);
                black_box(&out);
            }
        });
    });
    group.bench_function("key, text", |b| {
        b.iter(|| {
            for (_, row) in &all {
                out.clear();
                key(&row[1..2], &mut out);
                black_box(&out);
            }
        });
    });
    group.bench_function("encode", |b| b.iter(|| black_box(Rows::encode(all.iter()).unwrap())));
    let encoded = Rows::encode(all.iter()).unwrap();
    group.bench_function("read", |b| b.iter(|| black_box(encoded.read().unwrap())));
    for (what, records) in [("apply", false), ("apply, recorded", true)] {
        let folder = tempfile::tempdir().unwrap();
        let mut table = Table1::new(&folder.path().join("bench.redb"), 4, records).unwrap();
        let mut version = 0;
        group.bench_function(what, |b| {
            b.iter_batched(
                || {
                    version += 1;
                    Rows::encode(rows(version).iter()).unwrap()
                },
                |rows| table.apply(rows).unwrap(),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, parts);
criterion_main!(benches);
