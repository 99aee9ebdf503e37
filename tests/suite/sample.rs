//! A real database and a hard one: every value of every row, after `sync` and while `run` follows.

use std::path::Path;

use tempfile::TempDir;

use crate::support::oracle::Oracle;
use crate::support::redtail::Redtail;
use crate::support::{assert_equal, skip};

/// Tables beside the sample's own: cascades, a key without affinity, a further unique index.
const COMPANIONS: &[&str] = &[
    "CREATE TABLE Review(ReviewId INTEGER PRIMARY KEY AUTOINCREMENT, Body TEXT, Stars,
       AlbumId INTEGER REFERENCES Album(AlbumId) ON DELETE CASCADE ON UPDATE CASCADE)",
    "CREATE TABLE Vote(ReviewId INTEGER REFERENCES Review(ReviewId) ON DELETE CASCADE, Voter TEXT,
       PRIMARY KEY(ReviewId, Voter)) WITHOUT ROWID",
    "CREATE TABLE Shelf(Slot PRIMARY KEY, AlbumId INTEGER REFERENCES Album(AlbumId)
       ON DELETE SET NULL ON UPDATE CASCADE, Label TEXT UNIQUE)",
    "CREATE INDEX ReviewAlbum ON Review(AlbumId)",
];

/// Ordinary statements of an application; each step is a connection of its own.
const STEPS: &[&[&str]] = &[
    // Inserts, one row and many.
    &[
        "PRAGMA foreign_keys = ON",
        "INSERT INTO Artist(ArtistId, Name) VALUES (1001, 'Ünïcode · 音楽'), (1002, NULL), (1003, '')",
        "INSERT INTO Artist(Name) VALUES ('a number of its own')",
        "INSERT INTO Album VALUES (2001, 'First', 1001), (2002, 'Second', 1001), (2003, 'Third', 1002)",
        "INSERT INTO Review(Body, Stars, AlbumId) VALUES ('good', 5, 2001), ('so so', 2.5, 2001), (NULL, 'n/a', 2002)",
        "INSERT INTO Vote VALUES (1, 'ann'), (1, 'bob'), (2, 'ann'), (3, 'cy')",
        "INSERT INTO Shelf VALUES (1, 2001, 'one'), ('1', 2002, 'two'), (2.5, 2003, 'three'), (x'00ff', NULL, NULL)",
        "INSERT INTO Playlist VALUES (5000, 'every second track')",
        "INSERT INTO PlaylistTrack SELECT 5000, TrackId FROM Track WHERE TrackId % 2 = 0",
    ],
    // Updates: many rows, and of keys: simple, composite, cascading.
    &[
        "PRAGMA foreign_keys = ON",
        "UPDATE InvoiceLine SET Quantity = Quantity + 1",
        "UPDATE Track SET UnitPrice = UnitPrice + 0.01, Composer = NULL WHERE GenreId = 3",
        "UPDATE Artist SET ArtistId = 1999 WHERE ArtistId = 1003",
        "UPDATE PlaylistTrack SET TrackId = TrackId + 1 WHERE PlaylistId = 5000 AND TrackId > 3400",
        "UPDATE Album SET AlbumId = AlbumId + 5000 WHERE AlbumId = 2001",
        "UPDATE Shelf SET Slot = Slot + 100 WHERE typeof(Slot) = 'integer'",
    ],
    // Deletes, with cascades; then REPLACE and upserts.
    &[
        "PRAGMA foreign_keys = ON",
        "DELETE FROM Album WHERE AlbumId IN (7001, 2003)",
        "DELETE FROM PlaylistTrack WHERE PlaylistId = 8",
        "DELETE FROM Playlist WHERE PlaylistId = 8",
        "DELETE FROM InvoiceLine WHERE InvoiceId % 7 = 0",
        "REPLACE INTO Genre VALUES (1, 'Rock, again')",
        "INSERT OR REPLACE INTO PlaylistTrack VALUES (1, 1), (1, 2), (5000, 1)",
        "REPLACE INTO Shelf VALUES ('new', NULL, 'two')",
        "INSERT INTO MediaType VALUES (1, 'x') ON CONFLICT(MediaTypeId) DO UPDATE SET Name = Name || excluded.Name",
        "INSERT INTO MediaType VALUES (2, 'x'), (77, 'y') ON CONFLICT DO NOTHING",
        "INSERT OR IGNORE INTO Genre VALUES (1, 'ignored'), (901, 'kept')",
    ],
    // Transactions: given up, given up in part, and one of many statements.
    &[
        "PRAGMA foreign_keys = ON",
        "BEGIN",
        "UPDATE Customer SET Email = 'nobody'",
        "DELETE FROM Vote",
        "ROLLBACK",
        "BEGIN",
        "INSERT INTO Genre VALUES (902, 'stays')",
        "SAVEPOINT part",
        "DELETE FROM Shelf",
        "INSERT INTO Genre VALUES (903, 'goes')",
        "ROLLBACK TO part",
        "RELEASE part",
        "UPDATE Genre SET Name = upper(Name) WHERE GenreId >= 900",
        "COMMIT",
        "BEGIN IMMEDIATE",
        "UPDATE Employee SET City = City || ' (moved)', ReportsTo = NULL",
        "INSERT INTO Genre VALUES (904, 'made and gone')",
        "DELETE FROM Genre WHERE GenreId = 904",
        "UPDATE Invoice SET Total = Total * 2 WHERE InvoiceId % 3 = 0",
        "COMMIT",
        "DELETE FROM Review",
    ],
];

#[test]
fn every_value_of_the_sample_is_the_same_after_sync() {
    let Some((folder, mut oracle)) = sample("every_value_of_the_sample_is_the_same_after_sync") else {
        return;
    };
    let redtail = Redtail::new(folder.path());
    redtail.sync("source.db", "replica.redb");

    let compared = assert_equal(&mut oracle, &redtail, "source.db", "replica.redb");
    assert!(compared.tables >= 11 && compared.rows > 10_000, "a real sample: {compared:?}");
    let status = redtail.status("source.db", "replica.redb");
    assert_eq!(status["skipped"].as_array().map(Vec::len), Some(0), "{status:#}");
    assert_eq!(status["consistent"], true, "{status:#}");
}

#[test]
fn the_sample_is_followed_through_ordinary_statements_in_rollback_journal_mode() {
    follows("the_sample_is_followed_through_ordinary_statements_in_rollback_journal_mode", "delete");
}

#[test]
fn the_sample_is_followed_through_ordinary_statements_in_wal_mode() {
    follows("the_sample_is_followed_through_ordinary_statements_in_wal_mode", "wal");
}

fn follows(test: &str, journal: &str) {
    let Some((folder, mut oracle)) = sample(test) else { return };
    let redtail = Redtail::new(folder.path());
    let source = redtail.path("source.db");
    oracle.script(&source, &[&format!("PRAGMA journal_mode = {journal}")]);
    oracle.script(&source, COMPANIONS);
    redtail.sync("source.db", "replica.redb");
    assert_equal(&mut oracle, &redtail, "source.db", "replica.redb");

    let mut run = redtail.spawn_run("source.db", "replica.redb");
    run.live();
    for &step in STEPS {
        oracle.script(&source, step);
        oracle.refused(&source, "INSERT INTO Genre VALUES (2, 'taken'), (905, 'not alone')");
        run.caught_up();
        assert_equal(&mut oracle, &redtail, "source.db", "replica.redb");
    }
    run.stop();
    assert_equal(&mut oracle, &redtail, "source.db", "replica.redb");
    let mode = oracle.query(&source, "SELECT lower(journal_mode) = 'wal' FROM pragma_journal_mode");
    assert_eq!(mode[0][0]["value"], if journal == "wal" { "1" } else { "0" }, "the journal mode is not ours");
}

/// A copy of the sample as `source.db` in a folder of its own, and the oracle; `None` after saying why.
fn sample(test: &str) -> Option<(TempDir, Oracle)> {
    let Some(path) = std::env::var_os("REDTAIL_SAMPLE_DB") else {
        skip("REDTAIL_REQUIRE_SAMPLE", &format!("{test}: REDTAIL_SAMPLE_DB is not set"));
        return None;
    };
    let oracle = Oracle::start(test)?;
    let folder = TempDir::new().unwrap();
    // The bytes, not the file: the sample may be read-only, its copy must not be.
    let bytes = std::fs::read(Path::new(&path)).expect("REDTAIL_SAMPLE_DB names a readable file");
    std::fs::write(folder.path().join("source.db"), bytes).unwrap();
    Some((folder, oracle))
}

/// Values and definitions that a careless reader, key or record gets wrong.
const HARD: &[&str] = &[
    r#"CREATE TABLE "values"(id INTEGER PRIMARY KEY, x, y, "REAL" REAL, n NUMERIC, t TEXT)"#,
    r#"INSERT INTO "values"(x, y, "REAL", n, t) VALUES
         (-9223372036854775808, 9223372036854775807, -9223372036854775808, 9223372036854775807, -1),
         (1, 1.0, 1, 1.0, 1.0), (0.0, -0.0, -0.0, 0, ''), (9e999, -9e999, 9e999, -9e999, '9e999'),
         (5e-324, -5e-324, 2.2250738585072014e-308, 2.225073858507201e-308, 'subnormal'),
         (1.7976931348623157e308, 0.1, 0.30000000000000004, 1e15, 1e16),
         (9007199254740992, 9007199254740993, 9007199254740993, 9007199254740992.0, 9007199254740993),
         ('', x'', NULL, '', x''), ('1', x'31', '1', '1', '1'), (x'00', CAST(x'00' AS TEXT), 2, x'0000', x'00'),
         (CAST(x'6100' AS TEXT), CAST(x'610062' AS TEXT), 3, CAST(x'6100' AS TEXT), CAST(x'00' AS TEXT)),
         (CAST(x'ff' AS TEXT), CAST(x'c328' AS TEXT), 4, CAST(x'eda080' AS TEXT), CAST(x'fffe00' AS TEXT)),
         (x'ff', x'c328', 5, x'eda080', CAST(x'f0288cbc' AS TEXT)),
         ('"quoted" \ and ' || char(10, 9, 13, 1, 127), '🦀é' || char(8232, 65279), 6, 'é', char(101, 769))"#,
    "CREATE TABLE large(id INTEGER PRIMARY KEY, body, note TEXT)",
    "INSERT INTO large VALUES (1, randomblob(5000000), 'five megabytes'), (2, zeroblob(5242880), NULL),
       (3, hex(randomblob(1500000)), 'text'), (4, randomblob(4095), ''), (5, randomblob(4096), ''), (6, x'', '')",
    // Names.
    r#"CREATE TABLE "two words"("a b" INTEGER PRIMARY KEY, "x""y", [from], 'it''s', "🦀" TEXT)"#,
    r#"INSERT INTO "two words" VALUES (1, 'a', 'b', 'c', 'd'), (2, NULL, 2, 2.5, '')"#,
    r#"CREATE TABLE "quo""te's"("key" TEXT PRIMARY KEY, "order" , "group")"#,
    r#"INSERT INTO "quo""te's" VALUES ('a', 1, 2), ('A', 3, 4), ('', 5, 6), (CAST(x'61ff' AS TEXT), 7, 8)"#,
    r#"CREATE TABLE "select"("table" PRIMARY KEY, "where")"#,
    r#"INSERT INTO "select" VALUES ('x', 1)"#,
    r#"CREATE TABLE "🦀 crab"(id INTEGER PRIMARY KEY, claw TEXT)"#,
    r#"INSERT INTO "🦀 crab" VALUES (-1, 'left'), (0, 'none'), (9223372036854775807, 'right')"#,
    "CREATE TABLE new(old TEXT PRIMARY KEY, new)",
    "INSERT INTO new VALUES ('a', 'b')",
    "CREATE TABLE hidden(rowid TEXT, oid TEXT, body)",
    "INSERT INTO hidden VALUES ('a', 'b', 1), ('a', 'b', 1), (NULL, NULL, NULL)",
    // Keys.
    "CREATE TABLE composite(a TEXT, b INTEGER, c REAL, d BLOB, v, PRIMARY KEY(c DESC, a, d, b))",
    "INSERT INTO composite VALUES ('a', 1, 1.5, x'01', 1), ('a', 1, 1.5, x'0100', 2), ('a', 1, -1.5, x'', 3),
       (CAST(x'6100' AS TEXT), 1, 1.5, x'01', 4), ('', 0, 0.0, x'00', 5), ('a' || char(255), 1, 1.5, x'01', 6)",
    "CREATE TABLE bare(a, b)",
    "INSERT INTO bare VALUES (1, 'x'), (1, 'x'), (NULL, NULL), (1.0, 'x'), (NULL, NULL)",
    "CREATE TABLE clustered(a, b TEXT, v, PRIMARY KEY(b DESC, a)) WITHOUT ROWID",
    "INSERT INTO clustered VALUES (1, 'x', 'one'), (1.5, 'x', 'more'), ('1', 'x', 'text'), (x'31', 'x', 'blob')",
    "CREATE TABLE nullable(k TEXT PRIMARY KEY, v)",
    "INSERT INTO nullable VALUES (NULL, 1), (NULL, 2), ('', 3), (NULL, 2), ('a', NULL)",
    "CREATE TABLE pairs(a TEXT, b, v, PRIMARY KEY(a, b))",
    "INSERT INTO pairs VALUES ('a', NULL, 1), ('a', NULL, 1), (NULL, 'a', 2), (NULL, NULL, 3), ('a', 'a', 4)",
    "CREATE TABLE folded(k TEXT COLLATE NOCASE PRIMARY KEY, v)",
    "INSERT INTO folded VALUES ('Straße', 1), ('STRASSE', 2), ('Ä', 3), ('ä', 4), ('MiXeD', 5)",
    "CREATE TABLE trimmed(k TEXT COLLATE RTRIM PRIMARY KEY, v) WITHOUT ROWID",
    "INSERT INTO trimmed VALUES ('a  ', 1), (' a', 2), ('', 3)",
    "CREATE TABLE loose(k PRIMARY KEY, v)",
    "INSERT INTO loose VALUES (1, 'integer'), (2.0, 'real'), ('1', 'text'), (x'31', 'blob'), (-9e999, 'low'),
       (9007199254740993, 'odd'), (9007199254740992.0, 'even'), (0.5, 'half'), (-1, 'minus'), (-0.5, 'minus half')",
    // Kinds of tables and columns.
    "CREATE TABLE made(a INTEGER PRIMARY KEY, b, v AS (b || '!') VIRTUAL, s AS (a * 2) STORED, c)",
    "INSERT INTO made(a, b, c) VALUES (1, 'x', 1), (2, NULL, 2), (3, 1.5, 3)",
    "CREATE TABLE strict(a INT PRIMARY KEY, b ANY, c REAL, d TEXT NOT NULL, e BLOB) STRICT",
    "INSERT INTO strict VALUES (1, '1', 1, 'x', x'00'), (2, 1, 1.5, '', NULL), (3, 1.0, -0.0, 'y', x'')",
    "CREATE TABLE empty(a PRIMARY KEY, b)",
    "CREATE TABLE unique_too(id INTEGER PRIMARY KEY, email TEXT UNIQUE, a, b, UNIQUE(a, b))",
    "INSERT INTO unique_too VALUES (1, 'a@x', 1, 1), (2, 'b@x', 1, 2), (3, NULL, NULL, 1), (4, NULL, NULL, 1)",
    "CREATE VIEW seen AS SELECT a FROM bare",
];

/// The same tables, changed where it hurts.
const CHANGES: &[&str] = &[
    r#"UPDATE "values" SET x = y, y = x"#,
    r#"UPDATE "values" SET id = -id WHERE id % 3 = 0"#,
    r#"DELETE FROM "values" WHERE id = 2"#,
    "UPDATE large SET body = randomblob(3000000) WHERE id = 2",
    "UPDATE large SET body = NULL WHERE id = 3",
    "DELETE FROM large WHERE id = 1",
    "UPDATE large SET id = 100, note = 'moved' WHERE id = 5",
    r#"UPDATE "two words" SET "x""y" = "🦀", [from] = 9e999 WHERE "a b" = 1"#,
    r#"DELETE FROM "quo""te's" WHERE "key" = CAST(x'61ff' AS TEXT)"#,
    r#"INSERT INTO "quo""te's" VALUES (CAST(x'61fe' AS TEXT), 0, 0)"#,
    r#"REPLACE INTO "select" VALUES ('x', 2), ('y', 3)"#,
    r#"DELETE FROM "🦀 crab" WHERE id = 9223372036854775807"#,
    "UPDATE new SET old = new, new = old",
    "DELETE FROM hidden WHERE body IS NULL",
    "INSERT INTO hidden VALUES ('c', 'd', 2)",
    "UPDATE composite SET d = d || x'00' WHERE v IN (1, 4)",
    "UPDATE composite SET c = -c",
    "DELETE FROM composite WHERE v = 5",
    "DELETE FROM bare WHERE a IS NULL",
    "UPDATE bare SET b = typeof(a)",
    "UPDATE clustered SET a = 2 WHERE v = 'one'",
    "REPLACE INTO clustered VALUES (1.0, 'x', 'again')",
    "UPDATE nullable SET v = v + 10 WHERE k IS NULL AND v = 2",
    "UPDATE nullable SET k = NULL WHERE k = 'a'",
    "UPDATE nullable SET k = 'named' WHERE v = 1",
    "DELETE FROM pairs WHERE b IS NULL AND a IS NOT NULL",
    "UPDATE pairs SET a = 'b', b = NULL WHERE v = 2",
    "UPDATE folded SET k = 'mIxEd' WHERE v = 5",
    "REPLACE INTO folded VALUES ('STRAßE', 6), ('strasse', 7)",
    "UPDATE trimmed SET k = 'a' WHERE v = 1",
    "REPLACE INTO trimmed VALUES (' a     ', 4)",
    "UPDATE loose SET k = 1.0 WHERE v = 'integer'",
    "UPDATE loose SET k = 2 WHERE v = 'real'",
    "DELETE FROM loose WHERE k = 9007199254740993",
    "UPDATE made SET b = 'new' WHERE a = 2",
    "UPDATE made SET a = 30 WHERE a = 3",
    "UPDATE strict SET b = x'01', c = 2 WHERE a = 1",
    "DELETE FROM strict WHERE a = 2",
    "INSERT INTO empty VALUES (NULL, 1), ('no more', 2)",
    "REPLACE INTO unique_too VALUES (9, 'a@x', 1, 2)",
    "UPDATE OR REPLACE unique_too SET a = 1, b = 2 WHERE id = 4",
];

#[test]
fn hard_values_keys_and_names_are_the_same_after_sync_and_after_changes() {
    let name = "hard_values_keys_and_names_are_the_same_after_sync_and_after_changes";
    let Some(mut oracle) = Oracle::start(name) else { return };
    let folder = TempDir::new().unwrap();
    let redtail = Redtail::new(folder.path());
    let source = redtail.path("source.db");
    oracle.script(&source, HARD);

    redtail.sync("source.db", "replica.redb");
    assert_equal(&mut oracle, &redtail, "source.db", "replica.redb");
    let status = redtail.status("source.db", "replica.redb");
    let skipped: Vec<_> = status["skipped"].as_array().unwrap().iter().map(|table| &table["name"]).collect();
    assert!(skipped.iter().all(|name| *name == "seen"), "only the view: {skipped:?}");

    for change in CHANGES {
        oracle.script(&source, &[change]);
    }
    redtail.sync("source.db", "replica.redb");
    assert_equal(&mut oracle, &redtail, "source.db", "replica.redb");
}
