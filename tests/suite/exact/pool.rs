//! The small pools that scripts draw from: small, so that collisions are frequent.

use crate::support::Chance;

/// Names of tables: ordinary, quoted, and those that capture uses itself.
pub(super) const TABLES: &[&str] = &[
    "t",
    "u",
    "v",
    "w",
    "new",
    "old",
    "two words",
    "quo\"te",
    "line\nbreak",
    "😀",
    "select",
    "T%_",
    "_r",
    "_n",
    "_t",
    "_l",
    "É",
    "a.b",
    "x'y",
    "[v]",
    "-- c",
    "main",
    "temp",
    "0",
    "a;b",
    "Order",
];

/// Names of columns: the same, and the three names of the rowid.
pub(super) const COLUMNS: &[&str] = &[
    "a",
    "b",
    "c",
    "d",
    "e",
    "a",
    "b",
    "c",
    "d",
    "e",
    "id",
    "name",
    "k0",
    "k1",
    "seq",
    "tbl",
    "op",
    "at",
    "rowid",
    "oid",
    "_rowid_",
    "new",
    "old",
    "order",
    "select",
    "we\"ird",
    "line\nbreak",
    "two words",
    "x'y",
    "[br]",
    "`t`",
    "😀",
    "É",
    "é",
    "_n",
    "_r",
    "_t",
    "_l",
    "0",
    "-- c",
    "a;b",
    "NULL",
    "true",
    "sql",
    "row",
];

/// Declared types with all affinities; twice those that matter most.
const TYPES: &[&str] = &[
    "",
    "",
    "INTEGER",
    "INTEGER",
    "INT",
    "TEXT",
    "TEXT",
    "BLOB",
    "REAL",
    "NUMERIC",
    "ANY",
    "VARCHAR(10)",
    "BIGINT UNSIGNED",
    "FLOATING POINT",
    "DATETIME",
    "F32_BLOB(3)",
    "BOOLEAN",
];

const STRICT_TYPES: &[&str] = &["INT", "INTEGER", "REAL", "TEXT", "BLOB", "ANY", "ANY"];

/// Values that are equal, nearly equal or equal under a collation; every storage class and its limits.
const VALUES: &[&str] = &[
    "NULL",
    "NULL",
    "0",
    "1",
    "1",
    "2",
    "3",
    "1.0",
    "-0.0",
    "(0.0 * -1)",
    "0.5",
    "-1",
    "9007199254740992",
    "9007199254740993",
    "9007199254740992.0",
    "9e999",
    "-9e999",
    "5e-324",
    "0.1",
    "9223372036854775807",
    "-9223372036854775808",
    "(-9223372036854775807 - 1)",
    "9.2233720368547758e18",
    "''",
    "'a'",
    "'a'",
    "'A'",
    "'a '",
    "'A  '",
    "'b'",
    "char(97, 0, 98)",
    "char(65, 0, 66)",
    "char(97, 0, 99)",
    "x''",
    "x'61'",
    "x'00'",
    "'1'",
    "'1.0'",
    "'123'",
    "'-0'",
    "'1e3'",
    "'ä'",
    "'Ä'",
    "'😀'",
    "'NULL'",
    "'it''s'",
    "' a'",
];

/// The same for UTF-16: half a pair, half a unit.
const FOREIGN_16: &[&str] =
    &["CAST(x'00D8' AS TEXT)", "CAST(x'D800' AS TEXT)", "CAST(x'610062' AS TEXT)", "CAST(x'0061' AS TEXT)"];

/// Text that is none in the database's encoding, UTF-8.
const FOREIGN: &[&str] =
    &["CAST(x'610062' AS TEXT)", "CAST(x'ff' AS TEXT)", "CAST(x'61ff' AS TEXT)", "CAST(x'c3' AS TEXT)"];

const LONG: &[&str] = &["zeroblob(5000)", "printf('%05000d', 1)", "printf('%09000d', 2)"];

/// The same for UTF-16: there libSQL's SQLite 3.45 makes twice the text that other versions make, where an expression
/// reads a blob of more than 4,000 bytes as text.
const LONG_16: &[&str] = &["zeroblob(4000)", "printf('%05000d', 1)", "printf('%09000d', 2)"];

const INTEGERS: &[&str] = &["1", "2", "3", "4", "5", "6", "0", "-1", "NULL", "9223372036854775807"];
const REALS: &[&str] = &["1.0", "0.5", "-0.0", "(0.0 * -1)", "9e999", "5e-324", "2", "NULL"];
const TEXTS: &[&str] = &["'a'", "'A'", "'a '", "'b'", "''", "char(97, 0, 98)", "'1'", "NULL", "'ä'"];
const BLOBS: &[&str] = &["x''", "x'61'", "x'6100'", "x'00'", "NULL"];

pub(super) const CONFLICTS: &[&str] = &["REPLACE", "REPLACE", "IGNORE", "FAIL", "ABORT", "ROLLBACK"];
pub(super) const COLLATIONS: &[&str] = &["NOCASE", "RTRIM", "BINARY"];

pub(super) fn declared(chance: &mut Chance, strict: bool) -> &'static str {
    chance.pick(if strict { STRICT_TYPES } else { TYPES })
}

/// A value of any class, whatever the column is.
pub(super) fn any(chance: &mut Chance, utf16: bool) -> String {
    let pool = match chance.below(40) {
        0 => {
            if utf16 {
                LONG_16
            } else {
                LONG
            }
        }
        1 | 2 => {
            if utf16 {
                FOREIGN_16
            } else {
                FOREIGN
            }
        }
        _ => VALUES,
    };
    chance.pick(pool).to_owned()
}

/// A value that a column of this type is likely to take.
pub(super) fn fitting(chance: &mut Chance, declared: &str, utf16: bool) -> String {
    let pool = match declared {
        "INTEGER" | "INT" | "BIGINT UNSIGNED" | "FLOATING POINT" | "BOOLEAN" => INTEGERS,
        "REAL" | "NUMERIC" => REALS,
        "TEXT" | "VARCHAR(10)" => TEXTS,
        "BLOB" | "F32_BLOB(3)" => BLOBS,
        _ => VALUES,
    };
    if chance.one_in(4) { any(chance, utf16) } else { chance.pick(pool).to_owned() }
}

/// A constant for DEFAULT: a literal, or an expression in parentheses.
///
/// Versions of SQLite differ in whether 1.0 as the default of an added column is 1 in old rows.
pub(super) fn default(chance: &mut Chance, declared: &str) -> String {
    let value = fitting(chance, declared, true);
    match value.as_str() {
        "1.0" | "-0.0" | "9007199254740992.0" | "9.2233720368547758e18" => "0.5".to_owned(),
        call if call.contains('(') => format!("({call})"),
        _ => value,
    }
}

/// The name in double quotes, as it is always written in a definition.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The name in one of the four ways in which SQLite takes it.
pub(super) fn spelled(chance: &mut Chance, name: &str) -> String {
    const PLAIN: &[&str] =
        &["a", "b", "c", "d", "e", "id", "name", "t", "u", "v", "w", "k0", "k1", "seq", "at"];
    match chance.below(6) {
        0 => format!("`{}`", name.replace('`', "``")),
        1 if !name.contains(']') => format!("[{name}]"),
        2 | 3 if PLAIN.contains(&name) => name.to_owned(),
        4 if PLAIN.contains(&name) => name.to_ascii_uppercase(),
        _ => quoted(name),
    }
}
