//! Values as SQLite stores them: five storage classes, bit for bit.
//!
//! Owns what a value is and when two are the same; knows nothing of tables, keys or bytes on disk.

use xxhash_rust::xxh3::Xxh3;

/// A value of one of SQLite's five storage classes, owned.
///
/// Text is bytes: SQLite stores text that is not UTF-8 and text with NUL inside, and so do we.
///
/// ```
/// use redtail::Value;
///
/// assert_eq!(Value::from("a"), Value::Text(b"a".to_vec()));
/// assert_ne!(Value::Integer(1), Value::Real(1.0));
/// assert_eq!(Value::from(None::<i64>), Value::Null);
/// ```
#[derive(Clone, Debug)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// A 64-bit signed integer.
    Integer(i64),
    /// A 64-bit float; never NaN, which SQLite stores as NULL.
    Real(f64),
    /// Text, usually UTF-8.
    Text(Vec<u8>),
    /// Bytes.
    Blob(Vec<u8>),
    /// Text of a UTF-16 database that is no valid UTF-16, as the database's own bytes, little-endian.
    Utf16le(Vec<u8>),
    /// The same, big-endian.
    Utf16be(Vec<u8>),
}

/// A value borrowed from where it is stored.
///
/// ```
/// use redtail::ValueRef;
///
/// assert_eq!(ValueRef::Text(b"a").class(), "text");
/// assert_eq!(ValueRef::Integer(1).to_owned(), 1.into());
/// ```
#[derive(Clone, Copy, Debug)]
pub enum ValueRef<'a> {
    /// SQL NULL.
    Null,
    /// A 64-bit signed integer.
    Integer(i64),
    /// A 64-bit float.
    Real(f64),
    /// Text, usually UTF-8.
    Text(&'a [u8]),
    /// Bytes.
    Blob(&'a [u8]),
    /// Text of a UTF-16 database that is no valid UTF-16, as the database's own bytes, little-endian.
    Utf16le(&'a [u8]),
    /// The same, big-endian.
    Utf16be(&'a [u8]),
}

impl Value {
    /// The same value, borrowed.
    #[must_use]
    pub fn as_ref(&self) -> ValueRef<'_> {
        match self {
            Self::Null => ValueRef::Null,
            Self::Integer(i) => ValueRef::Integer(*i),
            Self::Real(r) => ValueRef::Real(*r),
            Self::Text(t) => ValueRef::Text(t),
            Self::Blob(b) => ValueRef::Blob(b),
            Self::Utf16le(t) => ValueRef::Utf16le(t),
            Self::Utf16be(t) => ValueRef::Utf16be(t),
        }
    }
}

macro_rules! from {
    ($($from:ty => |$v:ident| $make:expr;)*) => {$(
        impl From<$from> for Value {
            fn from($v: $from) -> Self {
                $make
            }
        }
    )*};
}

from! {
    i64 => |v| Self::Integer(v);
    i32 => |v| Self::Integer(v.into());
    u32 => |v| Self::Integer(v.into());
    f64 => |v| if v.is_nan() { Self::Null } else { Self::Real(v) };
    &str => |v| Self::Text(v.as_bytes().to_vec());
    &String => |v| Self::Text(v.as_bytes().to_vec());
    String => |v| Self::Text(v.into_bytes());
    &[u8] => |v| Self::Blob(v.to_vec());
    Vec<u8> => |v| Self::Blob(v);
    ValueRef<'_> => |v| v.to_owned();
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// Values as one number: equal for the same values, bit for bit, and hardly ever for others.
pub(crate) fn digest<'a>(values: impl IntoIterator<Item = &'a Value>) -> u64 {
    let mut hasher = Xxh3::new();
    for value in values {
        let (kind, fixed) = match value {
            Value::Null => (0, 0),
            Value::Integer(i) => (1, i.cast_unsigned()),
            Value::Real(r) => (2, r.to_bits()),
            Value::Text(_) => (3, value.as_ref().len() as u64),
            Value::Blob(_) => (4, value.as_ref().len() as u64),
            Value::Utf16le(_) => (5, value.as_ref().len() as u64),
            Value::Utf16be(_) => (6, value.as_ref().len() as u64),
        };
        hasher.update(&[kind]);
        hasher.update(&fixed.to_le_bytes());
        if let Value::Text(b) | Value::Blob(b) | Value::Utf16le(b) | Value::Utf16be(b) = value {
            hasher.update(b);
        }
    }
    hasher.digest()
}

impl ValueRef<'_> {
    /// What it is, for people: `an integer`, `text`.
    #[must_use]
    pub fn class(self) -> &'static str {
        match self {
            Self::Null => "NULL",
            Self::Integer(_) => "an integer",
            Self::Real(_) => "a real",
            Self::Text(_) => "text",
            Self::Blob(_) => "a blob",
            Self::Utf16le(_) | Self::Utf16be(_) => "text that is not UTF-8",
        }
    }

    /// The same value, owned.
    #[must_use]
    pub fn to_owned(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Integer(i) => Value::Integer(i),
            Self::Real(r) => Value::Real(r),
            Self::Text(t) => Value::Text(t.to_vec()),
            Self::Blob(b) => Value::Blob(b.to_vec()),
            Self::Utf16le(t) => Value::Utf16le(t.to_vec()),
            Self::Utf16be(t) => Value::Utf16be(t.to_vec()),
        }
    }

    /// The bytes this value holds beyond its fixed part.
    pub(crate) fn len(self) -> usize {
        match self {
            Self::Text(b) | Self::Blob(b) | Self::Utf16le(b) | Self::Utf16be(b) => b.len(),
            Self::Null | Self::Integer(_) | Self::Real(_) => 0,
        }
    }
}

/// Equality is by storage class and bits: 1 is not 1.0, and 0.0 is not −0.0.
impl PartialEq for ValueRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Integer(a), Self::Integer(b)) => a == b,
            (Self::Real(a), Self::Real(b)) => a.to_bits() == b.to_bits(),
            (Self::Text(a), Self::Text(b))
            | (Self::Blob(a), Self::Blob(b))
            | (Self::Utf16le(a), Self::Utf16le(b))
            | (Self::Utf16be(a), Self::Utf16be(b)) => a == b,
            _ => false,
        }
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.as_ref() == other.as_ref()
    }
}
