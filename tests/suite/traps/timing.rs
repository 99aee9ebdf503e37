//! Which trigger enters what, and when: an application's own triggers and foreign keys are in the way.

use crate::support::trial::{Control, Script, Trial};

/// A parent whose children refuse, ignore or fail inside a foreign-key action.
const FAMILY: &[&str] = &[
    "CREATE TABLE parent(id TEXT PRIMARY KEY, v)",
    "CREATE TABLE child(id INTEGER PRIMARY KEY, p TEXT REFERENCES parent(id) ON DELETE CASCADE ON UPDATE CASCADE)",
    "INSERT INTO parent VALUES ('a', 1), ('b', 2), ('c', 3), ('d', 4)",
    "INSERT INTO child VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd')",
];

/// Triggers that keep the row and skip those behind them.
const IGNORING: &[&str] = &[
    "CREATE TRIGGER t_i AFTER INSERT ON t WHEN NEW.v = 'ignore' BEGIN SELECT RAISE(IGNORE); END",
    "CREATE TRIGGER t_u AFTER UPDATE ON t WHEN NEW.v = 'ignore' BEGIN SELECT RAISE(IGNORE); END",
    "CREATE TRIGGER t_d AFTER DELETE ON t WHEN OLD.v = 'ignore' BEGIN SELECT RAISE(IGNORE); END",
];

/// What they are tried on. The last statement deletes rows by an ignored trigger.
const IGNORED: &[&str] = &[
    "INSERT INTO t VALUES ('new', 'ignore'), ('newer', 'ignore')",
    "UPDATE t SET v = 'ignore' WHERE k = 'a'",
    "UPDATE t SET k = 'moved', v = 'ignore' WHERE k = 'b'",
    "DELETE FROM t WHERE k = 'gone'",
];

const TABLE: &[&str] = &[
    "CREATE TABLE t(k TEXT PRIMARY KEY, v)",
    "INSERT INTO t VALUES ('a', 1), ('b', 2), ('c', 3), ('gone', 'ignore')",
];

// Attacks: ours fire first, because the newest trigger of a table does.
#[test]
fn an_older_trigger_that_ignores_does_not_skip_ours() {
    let script = Script {
        setup: &[TABLE[0], TABLE[1], IGNORING[0], IGNORING[1], IGNORING[2]],
        steps: &[IGNORED, &["INSERT INTO t VALUES ('third', 'ignore')", "DELETE FROM t WHERE k = 'new'"]],
    };
    script.holds("an_older_trigger_that_ignores_does_not_skip_ours");
}

// Attacks: a trigger of the application that is newer than ours is seen, ours made anew, the table reconciled.
#[test]
fn a_newer_trigger_that_ignores_is_seen_and_the_table_reconciled() {
    let test = "a_newer_trigger_that_ignores_is_seen_and_the_table_reconciled";
    let script = Script {
        setup: TABLE,
        steps: &[
            &[IGNORING[0], "INSERT INTO t VALUES ('new', 'ignore'), ('newer', 'ignore')"],
            &["INSERT INTO t VALUES ('third', 'ignore')"],
            &[IGNORING[1], IGNORING[2], "DELETE FROM t WHERE k = 'newer'", "UPDATE t SET v = 'ignore'"],
        ],
    };
    script.holds(test);
    script.is_caught(test, Control::Blind);
}

// The same by RAISE(FAIL), which keeps the rows and tells the application of an error.
#[test]
fn a_newer_trigger_that_fails_is_seen_and_the_table_reconciled() {
    let test = "a_newer_trigger_that_fails_is_seen_and_the_table_reconciled";
    let script = Script {
        setup: TABLE,
        steps: &[
            &[
                "CREATE TRIGGER t_i AFTER INSERT ON t WHEN NEW.v = 'fail' BEGIN SELECT RAISE(FAIL, 'no'); END",
                "!INSERT INTO t VALUES ('x', 1), ('y', 'fail'), ('z', 1)",
            ],
            &["!INSERT INTO t VALUES ('x2', 1), ('y2', 'fail'), ('z2', 1)"],
        ],
    };
    script.holds(test);
    script.is_caught(test, Control::Blind);
}

/// The writes that a newer trigger hides from AFTER triggers, while nobody repairs.
const HIDDEN: Script<'_> = Script {
    setup: TABLE,
    steps: &[
        &[
            IGNORING[1],
            IGNORING[2],
            "UPDATE t SET v = 'ignore' WHERE k = 'a'",
            "UPDATE t SET k = 'moved', v = 'ignore' WHERE k = 'b'",
            "DELETE FROM t WHERE k = 'gone'",
        ],
        &["DELETE FROM t WHERE k = 'a'"],
    ],
};

// Attacks: OLD and NEW keys of updates and deletes are entered before the change.
#[test]
fn updates_and_deletes_are_entered_even_while_a_newer_trigger_hides_them() {
    let test = "updates_and_deletes_are_entered_even_while_a_newer_trigger_hides_them";
    // Blind to the newer triggers, and yet nothing is lost: the control that must not catch.
    let Some(mut trial) = Trial::begin(test, Some("ignore-schema-version")) else { return };
    trial.application(&["PRAGMA journal_mode = WAL", "CREATE TABLE beat(n)", "INSERT INTO beat VALUES (0)"]);
    trial.application(HIDDEN.setup);
    trial.follow(true);
    for step in HIDDEN.steps {
        trial.application(step);
        trial.assert_equal("hidden from AFTER triggers");
    }
    HIDDEN.is_caught(test, Control::Edited(&[("BEFORE UPDATE", "AFTER UPDATE")]));
    HIDDEN.is_caught(test, Control::Edited(&[("BEFORE DELETE", "AFTER DELETE")]));
}

// Attacks: OLD keys before the change, against RAISE(IGNORE) on the child rows of a cascade.
#[test]
fn a_cascade_whose_triggers_ignore_does_not_hide_the_children() {
    let test = "a_cascade_whose_triggers_ignore_does_not_hide_the_children";
    let script = Script {
        setup: FAMILY,
        steps: &[
            &[
                "PRAGMA foreign_keys = ON",
                "CREATE TRIGGER c_d AFTER DELETE ON child BEGIN SELECT RAISE(IGNORE); END",
                "CREATE TRIGGER c_u AFTER UPDATE ON child BEGIN SELECT RAISE(IGNORE); END",
                "DELETE FROM parent WHERE id = 'a'",
            ],
            &["PRAGMA foreign_keys = ON", "UPDATE parent SET id = 'z' WHERE id = 'b'"],
            &["PRAGMA foreign_keys = ON", "UPDATE parent SET id = id || id, v = 0", "DELETE FROM parent"],
        ],
    };
    script.holds(test);
    script.is_caught(
        test,
        Control::Edited(&[("BEFORE DELETE", "AFTER DELETE"), ("BEFORE UPDATE", "AFTER UPDATE")]),
    );
}

// Attacks: the same on the parent, against RAISE(FAIL) and a constraint that fails under OR FAIL in a child.
#[test]
fn a_cascade_whose_trigger_fails_does_not_hide_the_parent() {
    let test = "a_cascade_whose_trigger_fails_does_not_hide_the_parent";
    let script = Script {
        setup: &[
            FAMILY[0],
            FAMILY[1],
            FAMILY[2],
            FAMILY[3],
            "CREATE TABLE once(n UNIQUE NOT NULL)",
            "INSERT INTO once VALUES (1)",
            "CREATE TRIGGER c_d AFTER DELETE ON child BEGIN SELECT RAISE(FAIL, 'kept'); END",
            "CREATE TRIGGER c_u AFTER UPDATE ON child BEGIN INSERT INTO once VALUES (1); END",
        ],
        steps: &[
            &["PRAGMA foreign_keys = ON", "!DELETE FROM parent WHERE id = 'a'"],
            &["PRAGMA foreign_keys = ON", "!UPDATE OR FAIL parent SET id = 'z' WHERE id = 'b'"],
            &["PRAGMA foreign_keys = ON", "!UPDATE OR FAIL parent SET id = id || id, v = 0"],
        ],
    };
    script.holds(test);
    script.is_caught(test, Control::Fault("after-only"));
}

// Attacks: nothing but the read decides. A BEFORE trigger keeps a row whose key was entered as deleted.
#[test]
fn a_delete_that_a_trigger_refuses_leaves_the_row() {
    let test = "a_delete_that_a_trigger_refuses_leaves_the_row";
    let script = Script {
        setup: &[
            TABLE[0],
            TABLE[1],
            "CREATE TRIGGER t_d BEFORE DELETE ON t WHEN OLD.k <> 'c' BEGIN SELECT RAISE(IGNORE); END",
        ],
        steps: &[&["DELETE FROM t"], &["UPDATE t SET v = 7", "DELETE FROM t"]],
    };
    script.holds(test);
    script.is_caught(test, Control::Fault("trust-op"));
}

// Attacks: rows are read when the window is; an updated_at trigger made before or after ours runs later.
#[test]
fn the_applications_own_updated_at_triggers_end_in_the_last_value() {
    let stamp = "CREATE TRIGGER t_s AFTER UPDATE OF v ON t BEGIN UPDATE t SET at = at + 1, k = NEW.k || '!' WHERE k = NEW.k; END";
    let again = "CREATE TRIGGER t_i AFTER INSERT ON t BEGIN UPDATE t SET v = 'stamped' WHERE k = NEW.k; DELETE FROM t WHERE k = 'never'; END";
    let setup = [
        "CREATE TABLE t(k TEXT PRIMARY KEY, v, at DEFAULT 0)",
        "INSERT INTO t(k, v) VALUES ('a', 1), ('b', 2)",
    ];
    let test = "the_applications_own_updated_at_triggers_end_in_the_last_value";
    for before in [true, false] {
        for live in [false, true] {
            let Some(mut trial) = Trial::begin(test, None) else { return };
            trial.application(&["CREATE TABLE beat(n)", "INSERT INTO beat VALUES (0)"]);
            trial.application(&setup);
            let triggers = ["PRAGMA recursive_triggers = ON", stamp, again];
            if before {
                trial.application(&triggers);
            }
            trial.follow(live);
            if !before {
                trial.application(&triggers);
            }
            trial.application(&[
                "UPDATE t SET v = v + 1",
                "INSERT INTO t(k, v) VALUES ('c', 3), ('never', 4)",
            ]);
            trial.assert_equal("stamped");
            trial.application(&[
                "PRAGMA recursive_triggers = ON",
                "REPLACE INTO t(k, v) VALUES ('c!', 9), ('a!', 9)",
            ]);
            trial.assert_equal("stamped again");
        }
    }
}

/// Keys that look like numbers, below an indexed numeric foreign key: AFTER triggers see them as numbers.
/// An insert is falsified only while a violation is open that it might mend.
const FALSIFIED: Script<'_> = Script {
    setup: &[
        "CREATE TABLE parent(k PRIMARY KEY, v) WITHOUT ROWID",
        "CREATE TABLE blobs(k BLOB PRIMARY KEY, v)",
        "CREATE TABLE texts(k TEXT PRIMARY KEY, v)",
        "CREATE TABLE child(id INTEGER PRIMARY KEY, p INTEGER REFERENCES parent(k) DEFERRABLE INITIALLY DEFERRED,
           b NUMERIC REFERENCES blobs(k) ON UPDATE CASCADE, t REAL REFERENCES texts(k) ON UPDATE SET NULL)",
        "CREATE INDEX child_p ON child(p)",
        "CREATE INDEX child_b ON child(b)",
        "CREATE INDEX child_t ON child(t)",
    ],
    steps: &[
        &[
            "PRAGMA foreign_keys = ON",
            "BEGIN",
            "INSERT INTO child(id, p) VALUES (1, 8)",
            "INSERT INTO parent VALUES ('123', 1), ('0123', 2), (' 7', 3), ('9', 5)",
            "INSERT INTO blobs VALUES ('123', 1), ('1e2', 2), (x'31', 3)",
            "INSERT INTO texts VALUES ('123', 1), ('0123', 2), ('12.50', 3)",
            "INSERT INTO parent VALUES (8, 4)",
            "COMMIT",
        ],
        &["PRAGMA foreign_keys = ON", "UPDATE parent SET v = v + 1", "UPDATE texts SET v = v + 1"],
        &[
            "PRAGMA foreign_keys = ON",
            "UPDATE parent SET k = '00' || k WHERE typeof(k) = 'text'",
            "UPDATE blobs SET k = '00' || k",
            "UPDATE texts SET k = '00' || k",
        ],
        &["PRAGMA foreign_keys = ON", "DELETE FROM parent WHERE k <> 8", "DELETE FROM blobs", "DELETE FROM texts"],
    ],
};

// Attacks: NEW's key before an insert, and all keys of updates before the change, below numeric foreign keys.
#[test]
fn keys_that_look_like_numbers_below_a_numeric_foreign_key_are_entered_as_they_are() {
    let test = "keys_that_look_like_numbers_below_a_numeric_foreign_key_are_entered_as_they_are";
    FALSIFIED.holds(test);
    FALSIFIED.is_caught(test, Control::Fault("after-only"));
    // Without the entry of BEFORE INSERT alone.
    FALSIFIED.is_caught(test, Control::Edited(&[("BEFORE INSERT", "AFTER INSERT")]));
    FALSIFIED.is_caught(test, Control::Edited(&[("BEFORE UPDATE", "AFTER UPDATE")]));
    FALSIFIED.is_caught(test, Control::Edited(&[("BEFORE DELETE", "AFTER DELETE")]));
}

/// A key index with another collation than its column.
const CASE_ONLY: Script<'_> = Script {
    setup: &[
        "CREATE TABLE t(k TEXT COLLATE NOCASE, v, PRIMARY KEY(k COLLATE BINARY))",
        "CREATE TABLE w(k TEXT COLLATE NOCASE, v, PRIMARY KEY(k COLLATE BINARY)) WITHOUT ROWID",
        "CREATE TABLE n(k TEXT COLLATE NOCASE PRIMARY KEY, v)",
        "INSERT INTO t VALUES ('a', 1), ('B', 2)",
        "INSERT INTO w VALUES ('a', 1), ('B', 2)",
        "INSERT INTO n VALUES ('a', 1), ('B', 2)",
    ],
    steps: &[
        &["UPDATE t SET k = upper(k)", "UPDATE w SET k = upper(k)", "UPDATE n SET k = upper(k)"],
        &[
            "UPDATE t SET k = lower(k), v = 3 WHERE k = 'B'",
            "UPDATE n SET k = 'A'  WHERE k = 'a'",
            "UPDATE n SET k = 'b' WHERE v = 2",
        ],
        &["UPDATE w SET k = lower(k)", "INSERT INTO w VALUES ('A', 9)"],
    ],
};

// Attacks: keys are compared by bytes and type, not by the column's collation.
#[test]
fn a_key_that_changes_only_its_case_is_entered_twice() {
    let test = "a_key_that_changes_only_its_case_is_entered_twice";
    CASE_ONLY.holds(test);
    CASE_ONLY.is_caught(test, Control::Edited(&[(" COLLATE BINARY", "")]));
}

// Attacks: both keys of an update are entered; swaps and chains inside one statement and one transaction.
#[test]
fn keys_that_move_and_change_places_are_followed() {
    let test = "keys_that_move_and_change_places_are_followed";
    let script = Script {
        setup: &[
            "CREATE TABLE t(a, b, v, PRIMARY KEY(a, b))",
            "CREATE TABLE i(id INTEGER PRIMARY KEY, v)",
            "INSERT INTO t VALUES (1, 'x', 1), (1, 'y', 2), (2, 'x', 3), (x'00', 1.5, 4)",
            "INSERT INTO i VALUES (1, 'one'), (2, 'two'), (3, 'three')",
        ],
        steps: &[
            &[
                "UPDATE i SET id = -id",
                "UPDATE i SET id = 3 - id WHERE id < 0",
                "UPDATE i SET rowid = rowid + 100",
            ],
            &[
                "BEGIN",
                "UPDATE t SET a = 'tmp' WHERE b = 'x' AND a = 1",
                "UPDATE t SET a = 1 WHERE a = 2 AND b = 'x'",
                "UPDATE t SET a = 2 WHERE a = 'tmp'",
                "COMMIT",
            ],
            &["UPDATE t SET a = b, b = a", "UPDATE i SET id = id - 1"],
            &[
                "BEGIN",
                "UPDATE i SET id = 9 WHERE v = 'one'",
                "ROLLBACK",
                "SAVEPOINT s",
                "UPDATE i SET id = 8 WHERE v = 'one'",
                "ROLLBACK TO s",
                "UPDATE i SET id = 7 WHERE v = 'two'",
                "RELEASE s",
            ],
        ],
    };
    script.holds(test);
    script.is_caught(
        test,
        Control::Edited(&[
            ("AFTER UPDATE", "AFTER UPDATE OF nothing_here"),
            ("BEFORE UPDATE", "BEFORE UPDATE OF v"),
        ]),
    );
}

// Attacks: the entries of AFTER UPDATE, where a BEFORE trigger of the application changes another key column.
#[test]
fn a_key_column_that_a_before_trigger_changes_is_entered_afterwards() {
    let test = "a_key_column_that_a_before_trigger_changes_is_entered_afterwards";
    let script = Script {
        setup: &[
            "CREATE TABLE t(a INTEGER, b INTEGER, v, PRIMARY KEY(a, b))",
            "INSERT INTO t VALUES (1, 1, 'x'), (2, 2, 'y')",
            "CREATE TRIGGER t_u BEFORE UPDATE OF a ON t BEGIN UPDATE t SET b = b + 10 WHERE a = OLD.a AND b = OLD.b; END",
        ],
        steps: &[&["UPDATE t SET a = 5 WHERE v = 'x'"], &["UPDATE t SET a = a + 1"]],
    };
    script.holds(test);
}
