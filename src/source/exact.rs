//! The select list that brings values back bit for bit, in a form that each back end writes in its own way.
//!
//! [`exact`] marks the list in the query's text; a file's back end writes it as columns ([`as_columns`]), a
//! server's as one packed value (`remote/pack`). Callers count columns as the former has them.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Stands before and behind a marked list; lengths inside say where an expression ends.
const MARK: char = '\u{1}';

/// Values told by one integer which of them are text.
pub(crate) const MASK_BITS: usize = 62;

/// One expression of a marked list.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Term<'a> {
    pub sql: &'a str,
    /// A zero of it may be −0.0, and that matters.
    pub signed: bool,
}

/// A piece of a query's text.
#[derive(Debug, PartialEq)]
pub(crate) enum Part<'a> {
    Text(&'a str),
    List(Vec<Term<'a>>),
}

/// A select list that [`Row::exact`](super::sql::Row::exact) reads. The sign of a zero is not kept: for keys and entries.
pub(crate) fn exact(expressions: &[String]) -> String {
    marked(expressions.iter().map(|sql| Term { sql, signed: false }))
}

/// The same for whatever may hold −0.0.
pub(crate) fn marked<'a>(terms: impl Iterator<Item = Term<'a>>) -> String {
    let mut list = String::from(MARK);
    for Term { sql, signed } in terms {
        let _ = write!(list, "{}{}:{sql}", if signed { '-' } else { '+' }, sql.len());
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
    let signed = text.starts_with('-');
    let (len, rest) = text.strip_prefix(['+', '-'])?.split_once(':')?;
    let (sql, rest) = rest.split_at_checked(len.parse().ok()?)?;
    Some((Term { sql, signed }, rest))
}

/// The query with its lists as columns: libsql cuts text at its first NUL and panics on text that is not
/// UTF-8, so text travels as a blob; integers with one bit per value say which blobs are text. One column a
/// value and one for 62 keeps tables of 1,000 columns under SQLite's limit of 2,000 columns a SELECT.
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
    for Term { sql: x, .. } in terms {
        let _ = write!(out, "CASE typeof({x}) WHEN 'text' THEN CAST({x} AS BLOB) ELSE {x} END,");
    }
    for word in terms.chunks(MASK_BITS) {
        for (bit, Term { sql: x, .. }) in word.iter().enumerate() {
            let _ = write!(out, "{}((typeof({x})='text')<<{bit})", if bit == 0 { "" } else { "|" });
        }
        out.push(',');
    }
    out.pop();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marked_list_comes_apart_whatever_its_names_hold() {
        let odd = "_t.\"a\u{1}+3:b\"";
        let terms = [Term { sql: odd, signed: true }, Term { sql: "k0", signed: false }];
        let query = format!("SELECT seq,{} FROM t", marked(terms.into_iter()));
        let expected = [Part::Text("SELECT seq,"), Part::List(terms.to_vec()), Part::Text(" FROM t")];
        assert_eq!(parts(&query), expected);
        assert_eq!(as_columns("SELECT 1"), "SELECT 1");
        assert_eq!(as_plain(&query), format!("SELECT seq,{odd},k0 FROM t"));
        let columns = as_columns(&query).into_owned();
        assert_eq!(columns.matches("THEN CAST(").count(), 2, "{columns}");
        assert!(!columns.contains("\u{1}+3:k0"), "{columns}");
    }
}
