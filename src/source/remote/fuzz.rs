//! What reads a server's answers, with bytes that may be anything; for [`crate::fuzz`].

use super::pack::Form;
use super::wire::{Answer, Rows};
use super::{fail, listen, stream, url};
use crate::error::Error;
use crate::source::exact::exact;
use crate::utf16::Encoding;
use crate::value::Value;

/// As many columns as the rows that are unpacked have.
const COLUMNS: usize = 4;

/// The first byte says what the others are: an answer, packed rows, a refusal, an address, or events.
pub(crate) fn answer(bytes: &[u8]) {
    let Some((what, rest)) = bytes.split_first() else { return };
    let encoding = match what >> 4 & 3 {
        0 | 1 => Encoding::Utf8,
        2 => Encoding::Utf16le,
        _ => Encoding::Utf16be,
    };
    match what & 7 {
        0..=2 => json(rest, encoding),
        3 => rows(rest, encoding),
        4 => lengths(rest, encoding),
        5 => {
            let told = fail::of_status(500 + u16::from(*what), rest, std::str::from_utf8(rest).ok());
            assert_eq!(told.to_string().lines().count(), 1, "{told}");
        }
        6 => drop(url::parse(&String::from_utf8_lossy(rest), what & 8 != 0)),
        _ => drop(listen::is_event(rest)),
    }
}

fn form(encoding: Encoding) -> Form {
    let names: Vec<String> = (0..COLUMNS).map(|n| format!("c{n}")).collect();
    Form::of(&format!("SELECT {} FROM t", exact(&names)), encoding)
}

fn json(bytes: &[u8], encoding: Encoding) {
    let Ok(answer) = serde_json::from_slice::<Answer<'_>>(bytes) else { return };
    let mut read = 0;
    let told = |e: Error| assert_eq!(e.to_string().lines().count(), 1, "{e}");
    for outcome in answer.results {
        match outcome.take(&mut read) {
            Ok(steps) => {
                for step in steps {
                    step.map_or_else(told, |rows| packed(rows, encoding));
                }
            }
            Err(e) => told(e),
        }
    }
}

fn packed(answer: Rows, encoding: Encoding) {
    if let Ok((count, bytes)) = stream::whole(answer) {
        let (form, mut rest) = (form(encoding), bytes.as_slice());
        let Some(packed) = form.packed else { return };
        for _ in 0..count {
            if packed.row(&mut rest, encoding).is_err() {
                return;
            }
        }
    }
}

fn rows(bytes: &[u8], encoding: Encoding) {
    let (form, mut rest) = (form(encoding), bytes);
    let Some(packed) = form.packed else { return };
    let mut contents = 0;
    while let Ok(row) = packed.row(&mut rest, encoding) {
        assert_eq!(row.values.len(), COLUMNS, "a row has as many values as were asked for");
        contents += row.values.iter().map(held).sum::<usize>();
        assert!(contents <= 2 * bytes.len(), "more than there was");
    }
}

/// The bytes that a value holds.
fn held(value: &Value) -> usize {
    match value {
        Value::Text(b) | Value::Blob(b) | Value::Utf16le(b) | Value::Utf16be(b) => b.len(),
        Value::Real(r) => {
            assert!(!r.is_nan(), "SQLite has no NaN");
            0
        }
        Value::Null | Value::Integer(_) => 0,
    }
}

fn lengths(bytes: &[u8], encoding: Encoding) {
    let (form, mut rest) = (form(encoding), bytes);
    let Some(packed) = form.packed else { return };
    while let Ok((row, lengths)) = packed.row_of_lengths(&mut rest) {
        assert_eq!((row.values.len(), lengths.len()), (COLUMNS, COLUMNS), "a length for each value");
    }
}
