//! The select list that brings values back bit for bit, in a form that each back end writes in its own way.
//!
//! [`exact`] marks the list in the query's text; a file's back end writes it as columns ([`as_columns`]), a
//! server's as one packed value (`remote/pack`). Callers count columns as the former has them.

use crate::schema::affinity;
use std::borrow::Cow;
use std::fmt::Write as _;

/// Stands before and behind a marked list; lengths inside say where an expression ends.
const MARK: char = '\u{1}';

/// Values told by one integer which of them are text.
pub(crate) const MASK_BITS: usize = 62;

/// The name of a mask's column that is the same for every row: this, and the mask.
const SAME: &str = "_redtail_mask_";

/// The mask that a column's name says.
pub(crate) fn mask_of(name: &str) -> Option<u64> {
    name.strip_prefix(SAME)?.parse().ok()
}

/// The bytes that SQLite's `hex()` wrote.
pub(crate) fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    // Without a branch for each digit: a blob where none is to be expected may be long.
    let is_digit = |c: u8| c.is_ascii_digit() | matches!(c, b'A'..=b'F');
    let digit = |c: u8| (c & 15) + 9 * (c >> 6);
    let (pairs, rest) = text.as_chunks::<2>();
    let whole = rest.is_empty() && text.iter().fold(true, |all, c| all & is_digit(*c));
    whole.then(|| pairs.iter().map(|[high, low]| digit(*high) << 4 | digit(*low)).collect())
}

/// One expression of a marked list.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Term<'a> {
    pub sql: &'a str,
    pub holds: Holds,
}

/// What an expression of a list holds as a rule. Any value comes back as it is from each of them but
/// [`Holds::Integer`] and [`Holds::Ours`]; what is not as expected costs more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Holds {
    /// Anything, long blobs too; a zero of it may be −0.0.
    Any,
    Number,
    Text,
    /// Nothing but integers and NULL, whatever anybody writes: the rowid, by its name or by its column's.
    Integer,
    /// What capture writes as an integer. From a server anything else comes back as some integer.
    Ours,
}

impl Holds {
    const ALL: [(char, Self); 5] =
        [('*', Self::Any), ('+', Self::Number), ('\'', Self::Text), ('#', Self::Integer), ('%', Self::Ours)];

    /// By the declared type of a column that is stored.
    pub fn of(declared: &str) -> Self {
        match affinity(declared) {
            None => Self::Any,
            Some(("TEXT", _)) => Self::Text,
            Some(_) => Self::Number,
        }
    }

    fn sign(self) -> char {
        Self::ALL.iter().find(|(_, holds)| *holds == self).map_or('*', |(sign, _)| *sign)
    }
}

/// A piece of a query's text.
#[derive(Debug, PartialEq)]
pub(crate) enum Part<'a> {
    Text(&'a str),
    List(Vec<Term<'a>>),
}

/// A select list that [`Row::exact`](super::sql::Row::exact) reads. A server does not keep the sign of a
/// zero: for keys.
pub(crate) fn exact(expressions: &[String]) -> String {
    marked(expressions.iter().map(|sql| Term { sql, holds: Holds::Number }))
}

/// The same of an entry's columns, of which the first are table, kind and time.
pub(crate) fn entry(expressions: &[String]) -> String {
    let holds = |n| if n < 3 { Holds::Ours } else { Holds::Number };
    marked(expressions.iter().enumerate().map(|(n, sql)| Term { sql, holds: holds(n) }))
}

/// The same for whatever may hold −0.0.
pub(crate) fn marked<'a>(terms: impl Iterator<Item = Term<'a>>) -> String {
    let mut list = String::from(MARK);
    for Term { sql, holds } in terms {
        let _ = write!(list, "{}{}:{sql}", holds.sign(), sql.len());
    }
    list.push(MARK);
    list
}

/// How many columns a list of `n` values has.
pub(crate) fn exact_width(n: usize) -> usize {
    n + n.div_ceil(MASK_BITS)
}

/// Takes a query's text apart.
pub(crate) fn parts(sql: &str) -> Vec<Part<'_>> {
    let mut out = Vec::new();
    let mut rest = sql;
    while let Some((before, list)) = rest.split_once(MARK) {
        out.push(Part::Text(before));
        let mut terms = Vec::new();
        rest = list;
        while let Some((term, behind)) = term(rest) {
            terms.push(term);
            rest = behind;
        }
        rest = rest.strip_prefix(MARK).unwrap_or(rest);
        out.push(Part::List(terms));
    }
    out.push(Part::Text(rest));
    out
}

fn term(text: &str) -> Option<(Term<'_>, &str)> {
    let (_, holds) = *Holds::ALL.iter().find(|(sign, _)| text.starts_with(*sign))?;
    let (len, rest) = text.get(1..)?.split_once(':')?;
    let (sql, rest) = rest.split_at_checked(len.parse().ok()?)?;
    Some((Term { sql, holds }, rest))
}

/// The query with its lists as columns: libsql cuts text at its first NUL and panics on text that is not
/// UTF-8, so text travels as a blob; masks with one bit per value say which blobs are text. One column a
/// value and one for 62 keeps tables of 1,000 columns under SQLite's limit of 2,000 columns a SELECT.
///
/// Where blobs are not to be expected, every blob that comes is text and a blob comes as hexadecimal text:
/// comparisons tell the classes apart (numbers before text before blobs), at a quarter of what `typeof` costs.
/// The unary plus keeps a comparison from converting: text like a number in a column whose type was altered.
/// A mask that is the same for every row has it in its column's name.
pub(crate) fn as_columns(sql: &str) -> Cow<'_, str> {
    if !sql.contains(MARK) {
        return Cow::Borrowed(sql);
    }
    let mut out = String::with_capacity(sql.len() * 4);
    for part in parts(sql) {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::List(terms) => columns(&mut out, &terms),
        }
    }
    Cow::Owned(out)
}

/// The query with its lists as they are: the same plan, without what makes the values exact.
pub(crate) fn as_plain(sql: &str) -> String {
    let list = |terms: Vec<Term<'_>>| terms.iter().map(|t| t.sql).collect::<Vec<_>>().join(",");
    let part = |part| match part {
        Part::Text(text) => text.to_owned(),
        Part::List(terms) => list(terms),
    };
    parts(sql).into_iter().map(part).collect()
}

fn columns(out: &mut String, terms: &[Term<'_>]) {
    for Term { sql: x, holds } in terms {
        let _ = match holds {
            Holds::Integer => write!(out, "{x},"),
            Holds::Any => write!(out, "CASE typeof({x}) WHEN 'text' THEN CAST({x} AS BLOB) ELSE {x} END,"),
            Holds::Number | Holds::Ours => write!(
                out,
                "CASE WHEN +{x} COLLATE BINARY<'' THEN {x} WHEN +{x} COLLATE BINARY<x'' THEN CAST({x} AS BLOB) \
                 WHEN {x} IS NULL THEN NULL ELSE hex({x}) END,"
            ),
            Holds::Text => write!(
                out,
                "CASE WHEN +{x} COLLATE BINARY>='' AND +{x} COLLATE BINARY<x'' THEN CAST({x} AS BLOB) \
                 WHEN {x} IS NULL THEN NULL WHEN +{x} COLLATE BINARY<'' THEN {x} ELSE hex({x}) END,"
            ),
        };
    }
    for word in terms.chunks(MASK_BITS) {
        let word = || word.iter().enumerate();
        let always: u64 = word()
            .filter(|(_, term)| matches!(term.holds, Holds::Number | Holds::Text | Holds::Ours))
            .map(|(bit, _)| 1 << bit)
            .sum();
        let _ = write!(out, "{always}");
        let mut same = true;
        for (bit, Term { sql: x, .. }) in word().filter(|(_, term)| term.holds == Holds::Any) {
            let _ = write!(out, "|((typeof({x})='text')<<{bit})");
            same = false;
        }
        if same {
            let _ = write!(out, " AS {SAME}{always}");
        }
        out.push(',');
    }
    out.pop();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_text_comes_back_and_nothing_else_is_taken_for_it() {
        let all: Vec<u8> = (0..=255).collect();
        let mut text = String::new();
        for byte in &all {
            let _ = write!(text, "{byte:02X}");
        }
        assert_eq!(from_hex(text.as_bytes()), Some(all));
        assert_eq!(from_hex(b""), Some(Vec::new()));
        for wrong in (0..=255).filter(|c: &u8| !b"0123456789ABCDEF".contains(c)) {
            assert_eq!(from_hex(&[b'0', wrong]), None, "{wrong}");
            assert_eq!(from_hex(&[wrong, b'0']), None, "{wrong}");
        }
        assert_eq!(from_hex(b"000"), None);
    }

    #[test]
    fn a_marked_list_comes_apart_whatever_its_names_hold() {
        let odd = "_t.\"a\u{1}+3:b\"";
        let terms = [
            Term { sql: odd, holds: Holds::Any },
            Term { sql: "k0", holds: Holds::Number },
            Term { sql: "_t.rowid", holds: Holds::Integer },
        ];
        let query = format!("SELECT seq,{} FROM t", marked(terms.into_iter()));
        let expected = [Part::Text("SELECT seq,"), Part::List(terms.to_vec()), Part::Text(" FROM t")];
        assert_eq!(parts(&query), expected);
        assert_eq!(as_columns("SELECT 1"), "SELECT 1");
        assert_eq!(as_plain(&query), format!("SELECT seq,{odd},k0,_t.rowid FROM t"));
        let columns = as_columns(&query).into_owned();
        assert_eq!(columns.matches("THEN CAST(").count(), 2, "{columns}");
        assert!(columns.contains(",_t.rowid,2|((typeof("), "{columns}");
        assert!(!columns.contains("\u{1}+3:k0"), "{columns}");
    }
}
