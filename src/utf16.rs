//! Text of UTF-16 databases: converted where that can be undone, kept as it is elsewhere.

use crate::value::Value;

/// The encoding of a database's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Utf8,
    Utf16le,
    Utf16be,
}

impl Encoding {
    /// By the name that `PRAGMA encoding` gives.
    pub fn named(name: &str) -> Self {
        match name {
            "UTF-16le" => Self::Utf16le,
            "UTF-16be" => Self::Utf16be,
            _ => Self::Utf8,
        }
    }

    /// Text from the database's own bytes: UTF-8 where that converts back to the same bytes.
    pub fn text(self, bytes: Vec<u8>) -> Value {
        match self {
            Self::Utf8 => Value::Text(bytes),
            Self::Utf16le => decode(&bytes, u16::from_le_bytes).map_or(Value::Utf16le(bytes), Value::Text),
            Self::Utf16be => decode(&bytes, u16::from_be_bytes).map_or(Value::Utf16be(bytes), Value::Text),
        }
    }

    /// The database's own bytes of a text.
    pub fn bytes(self, text: &[u8]) -> Vec<u8> {
        let units = || String::from_utf8_lossy(text).encode_utf16().collect::<Vec<u16>>();
        match self {
            Self::Utf8 => text.to_vec(),
            Self::Utf16le => units().into_iter().flat_map(u16::to_le_bytes).collect(),
            Self::Utf16be => units().into_iter().flat_map(u16::to_be_bytes).collect(),
        }
    }
}

fn units(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> impl Iterator<Item = u16> {
    bytes.as_chunks::<2>().0.iter().map(move |pair| unit(*pair))
}

fn decode(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Option<Vec<u8>> {
    let whole = bytes.len().is_multiple_of(2);
    let text: Result<String, _> = char::decode_utf16(units(bytes, unit)).collect();
    text.ok().filter(|_| whole).map(String::into_bytes)
}

/// The UTF-8 that SQLite itself makes of invalid UTF-16, by which NOCASE and RTRIM compare.
///
/// Source: `sqlite3VdbeMemTranslate` and `WRITE_UTF8` of SQLite's utf.c: any unit of the surrogates'
/// range takes the next unit as its second half, whatever it is; an odd last byte is dropped.
pub(crate) fn as_sqlite_converts(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut units = units(bytes, unit).map(u32::from);
    while let Some(mut c) = units.next() {
        let surrogate = (0xD800..0xE000).contains(&c);
        if let Some(second) = surrogate.then(|| units.next()).flatten() {
            c = (second & 0x03FF) + ((c & 0x003F) << 10) + (((c & 0x03C0) + 0x0040) << 10);
        }
        write_utf8(&mut out, c);
    }
    out
}

#[allow(clippy::cast_possible_truncation)]
fn write_utf8(out: &mut Vec<u8>, c: u32) {
    let low = |shift: u32| 0x80 + (c >> shift & 0x3F) as u8;
    match c {
        0..0x80 => out.push(c as u8),
        0x80..0x800 => out.extend([0xC0 + (c >> 6 & 0x1F) as u8, low(0)]),
        0x800..0x1_0000 => out.extend([0xE0 + (c >> 12 & 0x0F) as u8, low(6), low(0)]),
        _ => out.extend([0xF0 + (c >> 18 & 0x07) as u8, low(12), low(6), low(0)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_converts_only_where_it_comes_back() {
        for (e, text) in [(Encoding::Utf16le, "a\u{0}ü😀"), (Encoding::Utf16be, ""), (Encoding::Utf8, "x")]
        {
            assert_eq!(e.text(e.bytes(text.as_bytes())), Value::Text(text.as_bytes().to_vec()));
        }
        assert_eq!(Encoding::Utf16le.text(vec![0, 0xD8]), Value::Utf16le(vec![0, 0xD8]));
        assert_eq!(Encoding::Utf16be.text(vec![0, b'a', 0]), Value::Utf16be(vec![0, b'a', 0]));
    }

    #[test]
    fn valid_text_converts_as_sqlite_does() {
        let text = "aé€😀".as_bytes();
        assert_eq!(as_sqlite_converts(&Encoding::Utf16le.bytes(text), u16::from_le_bytes), text);
        assert_eq!(as_sqlite_converts(&[0, 0xD8], u16::from_le_bytes), [0xED, 0xA0, 0x80]);
    }
}
