//! Rows as one value: the SELECT itself writes every value of every row into one blob, bit for bit.
//!
//! A server sends thousands of rows this way as fast as one; and JSON could carry neither text that is not
//! UTF-8 nor infinities. A value is a letter and what it needs: `n` NULL, `i5;` integer, `r1.5;` real (the
//! sign of a zero is asked for), `t2:hi` text and `b2:hi` blob with their lengths in bytes. In a UTF-16
//! database, where SQLite would convert, contents are hexadecimal: `tABCD;`.

use super::fail;
use crate::error::Result;
use crate::source::exact::{self, Holds, Part};
use crate::utf16::Encoding;
use crate::value::Value;
use std::fmt::Write as _;

/// A query as a server gets it.
#[derive(Debug)]
pub(super) struct Form {
    /// The statement to send.
    pub text: String,
    pub packed: Option<Packed>,
}

/// How its rows are packed.
#[derive(Debug)]
pub(super) struct Packed {
    /// The rows with their values as `_c0`, `_c1`, …
    inner: String,
    /// What the values of a row hold, each.
    holds: Vec<Holds>,
    /// By column as callers count them: which value stands there.
    pub columns: Vec<(usize, usize)>,
    hex: bool,
}

/// The changelog's key, as it stands outside of marked lists.
const SEQ: &str = "seq";

/// What stands for contents when only their lengths are asked for.
#[derive(Clone, Copy, PartialEq)]
enum Contents {
    Whole,
    Length,
}

impl Form {
    pub fn of(sql: &str, encoding: Encoding) -> Self {
        let parts = exact::parts(sql);
        let [Part::Text(first), .., Part::Text(rest)] = parts.as_slice() else {
            return Self { text: sql.to_owned(), packed: None };
        };
        let mut items: Vec<(&str, Holds)> = Vec::new();
        let (mut columns, mut column) = (Vec::new(), 0);
        for (n, part) in parts.iter().enumerate().take(parts.len() - 1) {
            match part {
                Part::Text(text) => {
                    let text = if n == 0 { first.strip_prefix("SELECT ").unwrap_or(first) } else { text };
                    for item in top_level(text) {
                        columns.push((column, items.len()));
                        items.push((item, if item == SEQ { Holds::Integer } else { Holds::Number }));
                        column += 1;
                    }
                }
                Part::List(terms) => {
                    columns.push((column, items.len()));
                    items.extend(terms.iter().map(|t| (t.sql, t.holds)));
                    column += exact::exact_width(terms.len());
                }
            }
        }
        let mut inner = String::from("SELECT ");
        for (n, (item, _)) in items.iter().enumerate() {
            let _ = write!(inner, "{}{item} AS _c{n}", if n == 0 { "" } else { "," });
        }
        inner.push_str(rest);
        let holds = items.iter().map(|(_, holds)| *holds).collect();
        let packed = Packed { inner, holds, columns, hex: encoding != Encoding::Utf8 };
        Self { text: packed.select(Contents::Whole), packed: Some(packed) }
    }
}

/// The items of a select list, which no comma inside of them divides.
fn top_level(list: &str) -> Vec<&str> {
    let (mut depth, mut quoted, mut from, mut out) = (0, None, 0, Vec::new());
    for (at, c) in list.char_indices() {
        match (c, quoted) {
            (c, Some(q)) => quoted = (c != q).then_some(q),
            ('\'' | '"', None) => quoted = Some(c),
            ('(', None) => depth += 1,
            (')', None) => depth -= 1,
            (',', None) if depth == 0 => {
                out.push(list.get(from..at).unwrap_or_default().trim());
                from = at + 1;
            }
            _ => {}
        }
    }
    out.push(list.get(from..).unwrap_or_default().trim());
    out.retain(|item| !item.is_empty());
    out
}

impl Packed {
    fn select(&self, contents: Contents) -> String {
        let values: Vec<String> =
            self.holds.iter().enumerate().map(|(n, holds)| self.value(n, *holds, contents)).collect();
        let all = format!("group_concat({},'')", concatenated(&values));
        let all = if self.hex { all } else { format!("CAST({all} AS BLOB)") };
        format!("SELECT count(*) AS n,{all} AS p FROM ({})", self.inner)
    }

    /// The lengths of the contents, in the place of the contents.
    pub fn lengths(&self) -> String {
        self.select(Contents::Length)
    }

    /// The zeros of each row as they are, and NULL in the place of all else.
    pub fn zeros(&self) -> String {
        let one = |(n, holds): (usize, &Holds)| {
            if *holds == Holds::Any {
                format!("CASE WHEN typeof(_c{n})='real' AND _c{n}=0.0 THEN _c{n} END")
            } else {
                "NULL".into()
            }
        };
        let list: Vec<String> = self.holds.iter().enumerate().map(one).collect();
        format!("SELECT {} FROM ({})", list.join(","), self.inner)
    }

    /// A piece of one value's contents, as a blob: `len` bytes from `from` (from 0), of the row-th row.
    pub fn piece(&self, row: usize, value: usize, from: usize, len: usize) -> String {
        let from = from + 1;
        format!(
            "SELECT substr(CAST(_c{value} AS BLOB),{from},{len}) FROM ({}) LIMIT 1 OFFSET {row}",
            self.inner
        )
    }

    fn value(&self, n: usize, holds: Holds, contents: Contents) -> String {
        let x = format!("_c{n}");
        if matches!(holds, Holds::Integer | Holds::Ours) {
            // Most of what a small window takes is the reading of its statements.
            return format!("ifnull('i'||CAST({x} AS INTEGER)||';','n')");
        }
        let contents = match (contents, self.hex) {
            (Contents::Length, _) => format!("length(CAST({x} AS BLOB))||';'"),
            (Contents::Whole, true) => format!("hex(CAST({x} AS BLOB))||';'"),
            (Contents::Whole, false) => format!("length(CAST({x} AS BLOB))||':'||{x}"),
        };
        // %!.17g reads back to the same bits; quote() does not always.
        format!(
            "CASE typeof({x}) WHEN 'integer' THEN 'i'||{x}||';' WHEN 'real' THEN printf('r%!.17g;',{x}) \
             WHEN 'null' THEN 'n' ELSE substr(typeof({x}),1,1)||{contents} END"
        )
    }

    /// Reads one row from the front of `bytes`, and leaves the rest.
    pub fn row(&self, bytes: &mut &[u8], encoding: Encoding) -> Result<Unpacked> {
        let mut row = Unpacked { values: Vec::with_capacity(self.holds.len()), zeros: false };
        for holds in &self.holds {
            let (tag, rest) = bytes.split_first().ok_or_else(short)?;
            *bytes = rest;
            let value = match tag {
                b'n' => Value::Null,
                b'i' => Value::Integer(number(until(bytes, b';')?)?),
                b'r' => row.real(until(bytes, b';')?, *holds)?,
                b't' => encoding.text(self.contents(bytes)?),
                b'b' => Value::Blob(self.contents(bytes)?),
                _ => return Err(fail::garbled("a packed row of it")),
            };
            row.values.push(value);
        }
        Ok(row)
    }

    fn contents(&self, bytes: &mut &[u8]) -> Result<Vec<u8>> {
        if self.hex {
            return unhex(until(bytes, b';')?).ok_or_else(short);
        }
        let len: usize = number(until(bytes, b':')?)?;
        let (contents, rest) = bytes.split_at_checked(len).ok_or_else(short)?;
        *bytes = rest;
        Ok(contents.to_vec())
    }

    /// Reads one row of [`Packed::lengths`]: the values, and how long the contents of each are.
    pub fn row_of_lengths(&self, bytes: &mut &[u8]) -> Result<(Unpacked, Vec<usize>)> {
        let mut row = Unpacked { values: Vec::new(), zeros: false };
        let mut lengths = Vec::new();
        for holds in &self.holds {
            let (tag, rest) = bytes.split_first().ok_or_else(short)?;
            *bytes = rest;
            let field = if *tag == b'n' { &[] } else { until(bytes, b';')? };
            let (value, len) = match tag {
                b'n' => (Value::Null, 0),
                b'i' => (Value::Integer(number(field)?), 0),
                b'r' => (row.real(field, *holds)?, 0),
                b't' => (Value::Text(Vec::new()), number(field)?),
                b'b' => (Value::Blob(Vec::new()), number(field)?),
                _ => return Err(fail::garbled("a packed row of it")),
            };
            row.values.push(value);
            lengths.push(len);
        }
        Ok((row, lengths))
    }
}

/// A row that was unpacked.
#[derive(Debug)]
pub(super) struct Unpacked {
    pub values: Vec<Value>,
    /// It has zeros whose sign is not known.
    pub zeros: bool,
}

impl Unpacked {
    /// SQLite has no NaN, and nothing here expects one. A zero's sign is lost where SQL writes it as text.
    fn real(&mut self, field: &[u8], holds: Holds) -> Result<Value> {
        let real: f64 = number(field)?;
        if real.is_nan() {
            return Err(fail::garbled("a number in it"));
        }
        self.zeros |= real == 0.0 && holds == Holds::Any;
        Ok(Value::Real(real))
    }
}

/// One `||` over all, as a tree: SQLite refuses expressions deeper than 1,000.
fn concatenated(values: &[String]) -> String {
    match values {
        [] => "''".to_owned(),
        [one] => one.clone(),
        _ => {
            let (a, b) = values.split_at(values.len() / 2);
            format!("({}||{})", concatenated(a), concatenated(b))
        }
    }
}

fn until<'a>(bytes: &mut &'a [u8], end: u8) -> Result<&'a [u8]> {
    let at = bytes.iter().position(|b| *b == end).ok_or_else(short)?;
    let (field, rest) = bytes.split_at(at);
    *bytes = rest.get(1..).unwrap_or_default();
    Ok(field)
}

fn number<T: std::str::FromStr>(field: &[u8]) -> Result<T> {
    std::str::from_utf8(field)
        .ok()
        .and_then(|t| t.parse().ok())
        .ok_or_else(|| fail::garbled("a number in it"))
}

fn unhex(digits: &[u8]) -> Option<Vec<u8>> {
    let digit = |d: &u8| char::from(*d).to_digit(16);
    let pair = |p: &[u8; 2]| u8::try_from(digit(p.first()?)? << 4 | digit(p.last()?)?).ok();
    let (pairs, odd) = digits.as_chunks::<2>();
    if odd.is_empty() { pairs.iter().map(pair).collect() } else { None }
}

fn short() -> crate::Error {
    fail::garbled("a packed row ends early")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::exact::{Term, exact, marked};

    #[test]
    fn a_query_with_a_list_is_packed_and_its_columns_are_found() {
        let list = exact(&["tbl".into(), "\"a,b\"".into()]);
        let form = Form::of(
            &format!("SELECT max((SELECT 1), 2), 'x,(', {list} FROM t ORDER BY seq"),
            Encoding::Utf8,
        );
        let packed = form.packed.unwrap();
        assert_eq!(
            packed.inner,
            "SELECT max((SELECT 1), 2) AS _c0,'x,(' AS _c1,tbl AS _c2,\"a,b\" AS _c3 FROM t ORDER BY seq"
        );
        assert_eq!(packed.columns, [(0, 0), (1, 1), (2, 2)]);
        assert_eq!(Form::of("SELECT 1", Encoding::Utf8).text, "SELECT 1");
    }

    #[test]
    fn rows_come_back_bit_for_bit_and_a_cut_at_any_byte_is_noticed() {
        let names: Vec<String> = (0..7).map(|n| format!("c{n}")).collect();
        let packed = |list| Form::of(&format!("SELECT {list} FROM t"), Encoding::Utf8).packed.unwrap();
        let keys = packed(exact(&names));
        let packed = packed(marked(names.iter().map(|sql| Term { sql, holds: Holds::Any })));
        let bytes = b"i-5;r-Inf;nt3:\xff:\0b0:r2.50000000000000005e-05;r0.0;";
        let row = packed.row(&mut &bytes[..], Encoding::Utf8).unwrap();
        let expected = [
            Value::Integer(-5),
            Value::Real(f64::NEG_INFINITY),
            Value::Null,
            Value::Text(b"\xff:\0".to_vec()),
            Value::Blob(Vec::new()),
            Value::Real(2.5e-5),
            Value::Real(0.0),
        ];
        assert_eq!(row.values, expected);
        assert!(row.zeros);
        assert!(!keys.row(&mut &bytes[..], Encoding::Utf8).unwrap().zeros, "whose sign says nothing");
        for cut in 0..bytes.len() {
            assert!(packed.row(&mut &bytes[..cut], Encoding::Utf8).is_err(), "cut at {cut}");
        }
    }
}
