//! The canonical key: bytes that are equal where SQLite's comparison says so, and sort as SQLite sorts.
//!
//! Owns the byte form (docs/format.md). One component after another, each self-delimiting, so that the
//! keys of one table are prefix-free and a prefix of components is a prefix of bytes. It must never
//! change what it writes without a new format version: replicas are searched by these bytes.

use crate::fault;
use crate::utf16;
use crate::value::{Value, ValueRef};

/// The collations that this build can order. Any other keeps a column out of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Collation {
    Binary,
    Nocase,
    Rtrim,
}

impl Collation {
    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::Binary, Self::Nocase, Self::Rtrim].into_iter().find(|c| c.name().eq_ignore_ascii_case(name))
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Binary => "BINARY",
            Self::Nocase => "NOCASE",
            Self::Rtrim => "RTRIM",
        }
    }
}

const NULL: u8 = 0x05;
const NUMBER: u8 = 0x10;
const TEXT: u8 = 0x20;
/// Text that is no valid UTF-16, in the database's own bytes.
const UTF16: u8 = 0x21;
const BLOB: u8 = 0x30;

/// No text is longer: SQLite counts its bytes by an `int` (<https://sqlite.org/limits.html>).
const LONGEST_TEXT: usize = i32::MAX as usize;

/// Appends one component to `out`.
pub(crate) fn push(out: &mut Vec<u8>, value: ValueRef<'_>, collation: Collation) {
    match value {
        ValueRef::Null => out.push(NULL),
        ValueRef::Integer(i) => push_integer(out, i),
        ValueRef::Real(r) => push_number(out, r, 0),
        ValueRef::Text(t) => {
            out.push(TEXT);
            push_text(out, t, collation);
        }
        // BINARY compares the database's own bytes, NOCASE and RTRIM the UTF-8 that SQLite makes of them.
        ValueRef::Utf16le(t) | ValueRef::Utf16be(t) if collation == Collation::Binary => {
            out.push(UTF16);
            push_bytes(out, t.iter().copied());
        }
        ValueRef::Utf16le(t) => {
            out.push(TEXT);
            push_text(out, &utf16::as_sqlite_converts(t, u16::from_le_bytes), collation);
        }
        ValueRef::Utf16be(t) => {
            out.push(TEXT);
            push_text(out, &utf16::as_sqlite_converts(t, u16::from_be_bytes), collation);
        }
        ValueRef::Blob(b) => {
            out.push(BLOB);
            push_bytes(out, b.iter().copied());
        }
    }
}

fn push_text(out: &mut Vec<u8>, text: &[u8], collation: Collation) {
    match collation {
        Collation::Nocase if fault::raw_nocase() => push_bytes(out, text.iter().copied()),
        Collation::Binary => push_bytes(out, text.iter().copied()),
        Collation::Rtrim => {
            let end = text.iter().rposition(|b| *b != b' ').map_or(0, |i| i + 1);
            push_bytes(out, text.iter().take(end).copied());
        }
        // SQLite's NOCASE folds ASCII, stops at the first NUL, and then compares whole lengths.
        Collation::Nocase => {
            push_bytes(out, text.iter().take_while(|b| **b != 0).map(u8::to_ascii_lowercase));
            out.extend_from_slice(&(text.len() as u64).to_be_bytes());
        }
    }
}

/// Bytes that sort like the original and end themselves: 00 becomes 00 FF, and 00 00 ends.
fn push_bytes(out: &mut Vec<u8>, bytes: impl Iterator<Item = u8>) {
    push_escaped(out, bytes);
    out.extend_from_slice(&[0, 0]);
}

fn push_escaped(out: &mut Vec<u8>, bytes: impl Iterator<Item = u8>) {
    for b in bytes {
        out.push(b);
        if b == 0 {
            out.push(0xFF);
        }
    }
}

/// Appends what every component has in common that begins like this text or blob, by its canonical form: under RTRIM
/// without trailing spaces, under NOCASE up to the first NUL. `false` for a value that has no beginning.
pub(crate) fn push_beginning(out: &mut Vec<u8>, value: ValueRef<'_>, collation: Collation) -> bool {
    match (value, collation) {
        (ValueRef::Text(t), Collation::Nocase) if t.contains(&0) => return false,
        (ValueRef::Text(t), Collation::Nocase) => {
            out.push(TEXT);
            push_escaped(out, t.iter().map(u8::to_ascii_lowercase));
        }
        (ValueRef::Text(t), _) => {
            out.push(TEXT);
            push_escaped(out, t.iter().copied());
        }
        (ValueRef::Blob(b), _) => {
            out.push(BLOB);
            push_escaped(out, b.iter().copied());
        }
        _ => return false,
    }
    true
}

/// The largest double that is not above the integer, and what is left over.
///
/// So an integer and a real of the same value have the same bytes, and 2^53+1 is not 9007199254740992.0.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn push_integer(out: &mut Vec<u8>, i: i64) {
    let nearest = i as f64;
    let below = if nearest as i128 > i128::from(i) { nearest.next_down() } else { nearest };
    push_number(out, below, (i128::from(i) - below as i128) as u16);
}

fn push_number(out: &mut Vec<u8>, below: f64, rest: u16) {
    let bits = if below == 0.0 { 0 } else { below.to_bits() };
    // Flips a negative number whole and a positive one by its sign: then bytes sort as numbers do.
    let ordered = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
    out.push(NUMBER);
    out.extend_from_slice(&ordered.to_be_bytes());
    out.extend_from_slice(&rest.to_be_bytes());
}

/// Reads a canonical key of components with these collations back as values.
///
/// What the canonical form folds away (case, what follows a NUL under NOCASE, trailing spaces, integer against
/// real) does not come back, but what does has the same canonical form. `None` if the bytes are no such key.
pub(crate) fn decode(mut key: &[u8], collations: &[Collation]) -> Option<Vec<Value>> {
    let mut values = Vec::with_capacity(collations.len());
    for collation in collations {
        values.push(take(&mut key, *collation)?);
    }
    key.is_empty().then_some(values)
}

fn take(key: &mut &[u8], collation: Collation) -> Option<Value> {
    let (tag, rest) = key.split_first()?;
    *key = rest;
    Some(match *tag {
        NULL => Value::Null,
        NUMBER => take_number(key)?,
        TEXT => {
            let text = take_bytes(key)?;
            if collation == Collation::Nocase {
                let (len, rest) = key.split_first_chunk::<8>()?;
                *key = rest;
                return lengthened(&text, u64::from_be_bytes(*len));
            }
            Value::Text(text)
        }
        UTF16 => Value::Utf16le(take_bytes(key)?),
        BLOB => Value::Blob(take_bytes(key)?),
        _ => return None,
    })
}

/// A text that NOCASE takes for equal to every one that begins like this up to its first NUL and has so many bytes.
fn lengthened(text: &[u8], len: u64) -> Option<Value> {
    let len = usize::try_from(len).ok().filter(|len| (text.len()..=LONGEST_TEXT).contains(len))?;
    let mut whole = vec![0; len];
    whole.get_mut(..text.len())?.copy_from_slice(text);
    Some(Value::Text(whole))
}

#[allow(clippy::cast_possible_truncation)]
fn take_number(key: &mut &[u8]) -> Option<Value> {
    let (ordered, after) = key.split_first_chunk::<8>()?;
    let (rest, after) = after.split_first_chunk::<2>()?;
    *key = after;
    let ordered = u64::from_be_bytes(*ordered);
    let bits = if ordered >> 63 == 1 { ordered & !(1 << 63) } else { !ordered };
    let below = f64::from_bits(bits);
    let exact = below.is_finite() && below.fract().to_bits() << 1 == 0;
    let whole = (below as i128).saturating_add(i128::from(u16::from_be_bytes(*rest)));
    Some(match i64::try_from(whole) {
        Ok(i) if exact => Value::Integer(i),
        _ => Value::Real(below),
    })
}

fn take_bytes(key: &mut &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    loop {
        let (b, rest) = key.split_first()?;
        *key = rest;
        if *b == 0 {
            let (next, rest) = key.split_first()?;
            *key = rest;
            match next {
                0 => return Some(out),
                0xFF => {}
                _ => return None,
            }
        }
        out.push(*b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(value: &Value, collation: Collation) -> Vec<u8> {
        let mut out = Vec::new();
        push(&mut out, value.as_ref(), collation);
        out
    }

    fn text(s: &str) -> Value {
        Value::Text(s.as_bytes().to_vec())
    }

    /// Values in SQLite's order; neighbours differ.
    fn ascending() -> Vec<Value> {
        let mut v = vec![Value::Null, Value::Real(f64::NEG_INFINITY), Value::Real(-1e300)];
        v.extend([i64::MIN, i64::MIN + 1, -(1 << 53) - 1].map(Value::Integer));
        v.extend([Value::Real(-9_007_199_254_740_992.0), Value::Integer(-2), Value::Real(-1.5)]);
        v.extend([Value::Real(-f64::MIN_POSITIVE / 2.0), Value::Integer(0), Value::Real(5e-324)]);
        v.extend([Value::Integer(1), Value::Real(1.5), Value::Integer((1 << 53) - 1)]);
        v.extend([Value::Real(9_007_199_254_740_992.0), Value::Integer((1 << 53) + 1)]);
        v.extend([i64::MAX - 1024, i64::MAX - 1, i64::MAX].map(Value::Integer));
        v.extend([Value::Real(9_223_372_036_854_775_808.0), Value::Real(f64::INFINITY)]);
        v.extend(["", "\0", "\0a", "A", "B", "a", "a\0", "a\0\0", "a\0b", "aa", "b"].map(text));
        v.extend([
            Value::Text(vec![0xFF]),
            Value::Blob(vec![]),
            Value::Blob(vec![0]),
            Value::Blob(vec![0, 1]),
        ]);
        v.push(Value::Blob(vec![0xFF, 0xFF]));
        v
    }

    #[test]
    fn keys_sort_as_sqlite_sorts() {
        for (a, b) in ascending().iter().zip(ascending().iter().skip(1)) {
            assert!(key(a, Collation::Binary) < key(b, Collation::Binary), "{a:?} {b:?}");
        }
    }

    #[test]
    fn keys_that_sqlite_calls_equal_are_the_same_bytes() {
        for (a, b) in [(Value::Integer(1), Value::Real(1.0)), (Value::Integer(0), Value::Real(-0.0))] {
            assert_eq!(key(&a, Collation::Binary), key(&b, Collation::Binary));
        }
        assert_eq!(key(&text("aB\0x"), Collation::Nocase), key(&text("Ab\0Y"), Collation::Nocase));
        assert_ne!(key(&text("a\0x"), Collation::Nocase), key(&text("a\0xy"), Collation::Nocase));
        assert_ne!(key(&text("ä"), Collation::Nocase), key(&text("Ä"), Collation::Nocase));
        assert_eq!(key(&text("a  "), Collation::Rtrim), key(&text("a"), Collation::Rtrim));
        assert_ne!(key(&text("a "), Collation::Binary), key(&text("a"), Collation::Binary));
    }

    #[test]
    fn a_key_reads_back_as_its_canonical_values() {
        for v in ascending() {
            for collation in [Collation::Binary, Collation::Nocase, Collation::Rtrim] {
                let canonical = key(&v, collation);
                let back = decode(&canonical, &[collation]).unwrap();
                assert_eq!(key(&back[0], collation), canonical, "{v:?} {collation:?}");
            }
        }
        let mut other_length = key(&text("a\0b"), Collation::Nocase);
        for (len, back) in [(0, None), (1, Some(text("a"))), (3, Some(text("a\0\0"))), (1 << 31, None)] {
            other_length.truncate(4);
            other_length.extend_from_slice(&u64::to_be_bytes(len));
            let back: Option<Vec<Value>> = back.map(|v| vec![v]);
            assert_eq!(decode(&other_length, &[Collation::Nocase]), back, "{len}");
        }
        assert_eq!(decode(&[TEXT, b'a', 0], &[Collation::Binary]), None);
        assert_eq!(decode(&[NULL, NULL], &[Collation::Binary]), None);
        // Found by random bytes: nothing is added to infinity.
        let mut beyond = key(&Value::Real(f64::INFINITY), Collation::Binary);
        beyond[10] = 1;
        assert_eq!(decode(&beyond, &[Collation::Binary]), Some(vec![Value::Real(f64::INFINITY)]));
    }
}
