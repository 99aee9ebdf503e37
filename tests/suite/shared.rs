//! A replica inside an application's own redb database, and readers that an embedding application holds.

use std::sync::Arc;

use redb::{Database, ReadableDatabase as _, ReadableTableMetadata as _, TableDefinition, TableHandle as _};
use redtail::{Config, Kind, Replica, Replicator, Source, Value};
use tempfile::TempDir;

use crate::support::writer::application;

const THEIRS: TableDefinition<'_, u64, &str> = TableDefinition::new("theirs");

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(work)
}

#[test]
fn a_shared_database_keeps_the_applications_tables_and_its_damage_is_reported_not_moved() {
    let folder = TempDir::new().unwrap();
    let (source, path) = (folder.path().join("source.db"), folder.path().join("app.redb"));
    application(
        &source,
        &["CREATE TABLE t(id INTEGER PRIMARY KEY, x)", "INSERT INTO t VALUES (1, 'one'), (2, 'two')"],
    );
    let db = Arc::new(Database::create(&path).unwrap());
    let txn = db.begin_write().unwrap();
    txn.open_table(THEIRS).unwrap().insert(1, "kept").unwrap();
    txn.commit().unwrap();

    let config = Config::default();
    let replica = Replica::share(Arc::clone(&db)).unwrap();
    let follow = |replica: &Replica| {
        let source = Source::open(&source.display().to_string(), &config).unwrap();
        block_on(Replicator::new(source, replica.clone(), config.clone()).sync_once())
    };
    follow(&replica).unwrap();
    application(&source, &["UPDATE t SET x = 'uno' WHERE id = 1"]);
    follow(&replica).unwrap();
    let row = replica.snapshot().unwrap().get("t", &[Value::Integer(1)]).unwrap().unwrap();
    assert_eq!(row.get("x").unwrap().to_owned(), Value::Text(b"uno".to_vec()));

    let read = db.begin_read().unwrap();
    assert_eq!(read.open_table(THEIRS).unwrap().get(1).unwrap().unwrap().value(), "kept");
    assert_eq!(read.open_table(THEIRS).unwrap().len().unwrap(), 1);
    let names: Vec<String> = read.list_tables().unwrap().map(|t| t.name().to_owned()).collect();
    assert!(names.iter().all(|n| n == "theirs" || n.starts_with("redtail.")), "{names:?}");

    // A cursor that was damaged: an error, nothing moved, and the application's table as it was.
    let meta: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("redtail.meta");
    let txn = db.begin_write().unwrap();
    txn.open_table(meta).unwrap().insert("cursor", b"nonsense".as_slice()).unwrap();
    txn.commit().unwrap();
    assert_eq!(follow(&replica).unwrap_err().kind(), Kind::Damaged);
    assert_eq!(Replica::share(Arc::clone(&db)).err().unwrap().kind(), Kind::Damaged);
    drop(replica);
    drop(db);
    let files = std::fs::read_dir(folder.path()).unwrap();
    let names: Vec<_> = files.map(|f| f.unwrap().file_name().to_string_lossy().into_owned()).collect();
    assert!(names.iter().all(|n| !n.contains("damaged")), "{names:?}");

    // Nor is it moved when it is given by its path.
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(std::fs::metadata(&path).unwrap().len() - 4096).unwrap();
    assert_eq!(Replica::open(&path, &config).err().unwrap().kind(), Kind::Damaged);
    assert!(path.exists());
}

#[test]
fn a_reader_held_for_long_is_reported_and_lets_compact_wait() {
    let folder = TempDir::new().unwrap();
    let replica = Replica::open(folder.path().join("replica.redb"), &Config::default()).unwrap();
    assert_eq!(replica.space().snapshots, 0);
    let held = replica.snapshot().unwrap();
    let space = replica.space();
    assert_eq!(space.snapshots, 1);
    assert!(space.oldest_snapshot.is_some() && space.bytes > 0);
    assert_eq!(replica.compact().unwrap_err().kind(), Kind::Unavailable);
    drop(held);
    assert_eq!(replica.space().snapshots, 0);
    let done = replica.compact().unwrap();
    assert!(done.after <= done.before);
}
