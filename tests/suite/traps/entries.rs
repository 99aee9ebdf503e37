//! What an entry holds, what it must not hold, and what no entry can tell.

use crate::support::trial::{Control, Script, Trial};

const START: &[&str] = &["CREATE TABLE beat(n)", "INSERT INTO beat VALUES (0)"];

// Attacks: the time is made by functions that every SQLite has; a newer one is NULL in an older SQLite.
#[test]
fn an_entrys_time_is_the_sources_in_milliseconds() {
    let Some(mut trial) = Trial::begin("an_entrys_time_is_the_sources_in_milliseconds", None) else { return };
    trial.application(START);
    trial.follow(false);
    let now = "CAST(strftime('%s', 'now') AS INTEGER)";
    let before = trial.integers(&format!("SELECT {now}"))[0];
    trial.application(&["UPDATE beat SET n = 1", "DELETE FROM beat", "INSERT INTO beat VALUES (2)"]);
    let after = trial.integers(&format!("SELECT {now} + 1"))[0];
    let entries = trial.integers(&format!(
        "SELECT count(*), sum(typeof(at) = 'integer'), sum(at BETWEEN {before} * 1000 AND {after} * 1000) FROM _redtail_changelog WHERE op > 0"
    ));
    assert!(entries[0] >= 3, "{entries:?}");
    assert!(entries[1] == entries[0] && entries[2] == entries[0], "{entries:?}");
}

// Attacks: keys are kept natively; JSON would fail on a blob and lose a real's digits.
#[test]
fn an_entry_holds_keys_as_they_are() {
    let Some(mut trial) = Trial::begin("an_entry_holds_keys_as_they_are", None) else { return };
    trial.application(START);
    trial.application(&["CREATE TABLE t(k PRIMARY KEY)"]);
    trial.follow(false);
    trial.application(&["INSERT INTO t VALUES (x'00ff'), (0.30000000000000004), (9007199254740993), ('1'), (1), ('a' || char(0) || 'b')"]);
    let kept = "SELECT count(*), sum(typeof(k0) IS typeof(k) AND quote(k0) IS quote(k) AND CAST(k0 AS BLOB) IS CAST(k AS BLOB))
                FROM _redtail_changelog JOIN t ON k0 IS k WHERE op = 1";
    assert_eq!(trial.integers(kept), [6, 6]);
    trial.assert_equal("written");
}

// Attacks: an entry holds the key alone; images of rows would cost their size again.
#[test]
fn an_entry_holds_nothing_but_the_key() {
    let Some(mut trial) = Trial::begin("an_entry_holds_nothing_but_the_key", None) else { return };
    trial.application(START);
    trial.application(&["CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE, big)"]);
    trial.follow(false);
    let size = "SELECT count(*), sum(length(CAST(coalesce(tbl, '') || coalesce(op, '') || coalesce(at, '') || coalesce(k0, '') || coalesce(k1, '') AS BLOB))) FROM _redtail_changelog";
    trial.application(&[
        "INSERT INTO t VALUES (1, 'u', zeroblob(1000000))",
        "UPDATE t SET big = zeroblob(2000000)",
        "REPLACE INTO t VALUES (2, 'u', zeroblob(1000000))",
    ]);
    let sizes = trial.integers(size);
    assert!(sizes[1] < 50 * sizes[0], "{sizes:?}");
    trial.assert_equal("written");
}

// Attacks: the outer statement's conflict clause overrides that of a trigger: under OR IGNORE an entry that
// breaks a constraint of the changelog is lost in silence. So it has none.
#[test]
fn the_changelog_has_nothing_that_an_entry_could_break() {
    let test = "the_changelog_has_nothing_that_an_entry_could_break";
    let script = Script {
        setup: &[
            "CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE, v)",
            "INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2)",
        ],
        steps: &[
            &[
                "UPDATE OR IGNORE t SET v = v + 1",
                "INSERT OR IGNORE INTO t VALUES (3, 'c', 3)",
                "UPDATE OR REPLACE t SET v = v + 1",
                "DELETE FROM t WHERE id = 3",
            ],
            &[
                "INSERT OR IGNORE INTO t VALUES (3, 'c', 4)",
                "UPDATE OR FAIL t SET v = v + 1",
                "INSERT OR ROLLBACK INTO t VALUES (4, 'd', 4)",
                "UPDATE OR IGNORE t SET v = v + 1",
            ],
        ],
    };
    script.holds(test);
    // The same with a constraint: what it refuses, OR IGNORE hides.
    if let Some(mut trial) =
        Trial::begin(test, Some("ignore-schema-version")).filter(|_| cfg!(debug_assertions))
    {
        trial.application(&["PRAGMA journal_mode = WAL"]);
        trial.application(START);
        trial.application(script.setup);
        trial.follow(true);
        trial.application(&[
            "CREATE UNIQUE INDEX _redtail_once ON _redtail_changelog(tbl, op, k0) WHERE tbl = (2) AND op = 2",
            "UPDATE OR IGNORE t SET v = v + 1",
        ]);
        trial.catch_up();
        trial.application(&["UPDATE OR IGNORE t SET v = v + 1"]);
        assert!(!trial.compare().equal, "{test}: a constraint of the changelog lost nothing");
    }
    let Some(mut trial) = Trial::begin(test, None) else { return };
    trial.application(START);
    trial.follow(false);
    let indexes = trial.integers("SELECT count(*) FROM pragma_index_list('_redtail_changelog')");
    let strict = trial.integers("SELECT count(*) FROM pragma_table_info('_redtail_changelog') WHERE \"notnull\" OR type NOT IN ('', 'INTEGER')");
    assert_eq!((indexes[0], strict[0]), (0, 0));
}

// Attacks: numbers are given in commit order, without gaps that a reader could mistake for a loss.
#[test]
fn numbers_stay_dense_through_everything_that_is_taken_back() {
    let Some(mut trial) = Trial::begin("numbers_stay_dense_through_everything_that_is_taken_back", None)
    else {
        return;
    };
    trial.application(START);
    trial.application(&[
        "CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE NOT NULL)",
        "INSERT INTO t VALUES (1, 'a'), (2, 'b')",
    ]);
    trial.follow(false);
    trial.application(&[
        "BEGIN",
        "INSERT INTO t VALUES (3, 'c')",
        "ROLLBACK",
        "SAVEPOINT s",
        "DELETE FROM t",
        "SAVEPOINT r",
        "INSERT INTO t VALUES (4, 'd')",
        "ROLLBACK TO r",
        "INSERT INTO t VALUES (5, 'e')",
        "ROLLBACK TO s",
        "INSERT INTO t VALUES (6, 'f')",
        "RELEASE s",
        "!INSERT OR FAIL INTO t VALUES (7, 'g'), (8, 'a')",
        "INSERT OR IGNORE INTO t VALUES (9, 'a'), (10, 'h')",
        "!INSERT INTO t VALUES (11, 'i'), (12, 'a')",
        "BEGIN",
        "INSERT INTO t VALUES (13, 'j')",
        "!INSERT OR ROLLBACK INTO t VALUES (14, 'a')",
        "!UPDATE t SET u = NULL",
        "REPLACE INTO t VALUES (15, 'a')",
    ]);
    assert_eq!(trial.integers("SELECT max(seq) - min(seq) + 1 - count(*) FROM _redtail_changelog"), [0]);
    trial.assert_equal("written");
}

// Attacks: an update that changes nothing a unique index looks at searches nothing, nor does an index
// that holds the rowid: two rows never meet in it.
#[test]
fn an_update_beside_the_unique_indexes_enters_one_key() {
    let Some(mut trial) = Trial::begin("an_update_beside_the_unique_indexes_enters_one_key", None) else {
        return;
    };
    trial.application(START);
    trial.application(&[
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a UNIQUE, b, c, v)",
        "CREATE UNIQUE INDEX t_b ON t(lower(b)) WHERE c",
        "CREATE UNIQUE INDEX t_id ON t(v, id)",
        "INSERT INTO t VALUES (1, 'a', 'b', 1, 1), (2, 'x', 'y', 1, 2)",
    ]);
    trial.follow(false);
    let count = |trial: &mut Trial| {
        trial.integers("SELECT count(*), coalesce(sum(op = 4), 0) FROM _redtail_changelog")
    };
    let before = count(&mut trial);
    trial.application(&["UPDATE t SET v = v + 1"]);
    assert_eq!(count(&mut trial), [before[0] + 2, before[1]]);
    // The control: to one that does change it, the searches belong.
    trial.application(&["UPDATE OR REPLACE t SET a = 'x', b = 'Y' WHERE id = 1"]);
    let after = count(&mut trial);
    assert!(after[1] >= before[1] + 2, "{before:?} {after:?}");
    trial.assert_equal("written");
}

// Attacks: an entry proves nothing, whatever statement it comes from. (UPSERT, OR IGNORE and a refused
// statement enter keys of rows that stay.)
#[test]
fn statements_of_every_kind_are_followed() {
    let test = "statements_of_every_kind_are_followed";
    let script = Script {
        setup: &[
            "CREATE TABLE t(id INTEGER PRIMARY KEY, u UNIQUE, v)",
            "CREATE TABLE o(a, b, PRIMARY KEY(a, b)) WITHOUT ROWID",
            "INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 3)",
        ],
        steps: &[
            &[
                "INSERT INTO t(u, v) VALUES ('a', 7), ('d', 8) ON CONFLICT(u) DO UPDATE SET v = excluded.v, id = id + 100 WHERE v < 5 RETURNING id",
                "INSERT INTO o SELECT id, coalesce(u, '') FROM t WHERE true ON CONFLICT DO NOTHING",
            ],
            &[
                "WITH x(i) AS (SELECT id FROM t) UPDATE t SET v = i FROM x WHERE x.i = t.id AND x.i > 1",
                "DELETE FROM o WHERE a IN (SELECT id FROM t) RETURNING *",
                "INSERT INTO t DEFAULT VALUES",
            ],
            &["DELETE FROM t"],
            &[
                "INSERT INTO t(v) SELECT value FROM json_each('[1,2,3]')",
                "BEGIN",
                "DELETE FROM t",
                "ROLLBACK",
                "UPDATE t SET id = -id",
                "REPLACE INTO t SELECT id + 1, u, v FROM t ORDER BY id",
            ],
            &[
                "PRAGMA foreign_keys = ON",
                "CREATE TABLE c(t INTEGER REFERENCES t(id) ON DELETE SET NULL ON UPDATE CASCADE DEFERRABLE INITIALLY DEFERRED, n INTEGER DEFAULT 0 REFERENCES t(id) ON DELETE SET DEFAULT)",
                "BEGIN",
                "INSERT INTO c VALUES (77, NULL)",
                "INSERT OR IGNORE INTO t(id) VALUES (77), (0)",
                "COMMIT",
                "UPDATE t SET id = 78 WHERE id = 77",
                "UPDATE c SET n = 78",
                "DELETE FROM t WHERE id = 78",
            ],
        ],
    };
    script.holds(test);
    script.is_caught(test, Control::Fault("drop-delta"));
}
