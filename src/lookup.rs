//! What rows are looked up by: keys and ranges of keys, as a caller writes them.
//!
//! Owns the conversions; how a key becomes bytes is `key`'s.

use crate::value::Value;
use std::fmt;
use std::ops::{Bound, Range, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive};

/// A row's key, or the beginning of one: a value for each component, in the order of the primary key (the rowid where
/// there is none).
///
/// Made from one value (`"e17"`, `5`), from a tuple of up to four (`("e17", 5)`), or from [`Value`]s.
///
/// ```
/// use redtail::{Key, Value};
/// let one: Key = "e17".into();
/// let two: Key = (17, "leg").into();
/// assert_eq!(two.values(), [Value::Integer(17), Value::from("leg")]);
/// assert_eq!(one.values().len(), 1);
/// ```
#[derive(Clone)]
pub struct Key(Values);

/// A key of one value, which most are, is looked up without an allocation.
#[derive(Clone)]
enum Values {
    One([Value; 1]),
    Many(Vec<Value>),
}

impl Key {
    /// Its values.
    #[must_use]
    pub fn values(&self) -> &[Value] {
        match &self.0 {
            Values::One(one) => one,
            Values::Many(many) => many,
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Key").field(&self.values()).finish()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.values() == other.values()
    }
}

impl From<Vec<Value>> for Key {
    fn from(values: Vec<Value>) -> Self {
        Self(Values::Many(values))
    }
}

impl From<&[Value]> for Key {
    fn from(values: &[Value]) -> Self {
        match values {
            [one] => one.clone().into(),
            many => many.to_vec().into(),
        }
    }
}

impl From<&Vec<Value>> for Key {
    fn from(values: &Vec<Value>) -> Self {
        values.as_slice().into()
    }
}

impl<const N: usize> From<[Value; N]> for Key {
    fn from(values: [Value; N]) -> Self {
        Vec::from(values).into()
    }
}

impl<const N: usize> From<&[Value; N]> for Key {
    fn from(values: &[Value; N]) -> Self {
        values.as_slice().into()
    }
}

macro_rules! of_one {
    ($($one:ty),*) => {$(
        impl From<$one> for Key {
            fn from(value: $one) -> Self {
                Self(Values::One([value.into()]))
            }
        }
    )*};
}

of_one!(Value, i64, i32, u32, f64, &str, &String, String, &[u8], Vec<u8>);

macro_rules! of_tuple {
    ($($name:ident $n:tt),*) => {
        impl<$($name: Into<Value>),*> From<($($name,)*)> for Key {
            fn from(values: ($($name,)*)) -> Self {
                Self(Values::Many(vec![$(values.$n.into()),*]))
            }
        }
    };
}

of_tuple!(A 0);
of_tuple!(A 0, B 1);
of_tuple!(A 0, B 1, C 2);
of_tuple!(A 0, B 1, C 2, D 3);

/// A range of keys, made from any of Rust's ranges of what makes a [`Key`].
///
/// A bound that gives only the first components stands for every key that begins with them: `("a",)..=("a",)` is all
/// keys whose first component is `a`, and `("a",).."b"` the same and all up to `b`.
///
/// ```
/// use redtail::KeyRange;
/// let all: KeyRange = (..).into();
/// let some: KeyRange = ("e1".."e2").into();
/// let from: KeyRange = (5..).into();
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct KeyRange {
    pub(crate) lower: Bound<Key>,
    pub(crate) upper: Bound<Key>,
}

macro_rules! of_range {
    ($range:ty, $r:ident, $lower:expr, $upper:expr) => {
        impl<K: Into<Key>> From<$range> for KeyRange {
            fn from($r: $range) -> Self {
                Self { lower: $lower, upper: $upper }
            }
        }
    };
}

of_range!(Range<K>, r, Bound::Included(r.start.into()), Bound::Excluded(r.end.into()));
of_range!(RangeFrom<K>, r, Bound::Included(r.start.into()), Bound::Unbounded);
of_range!(RangeTo<K>, r, Bound::Unbounded, Bound::Excluded(r.end.into()));
of_range!(RangeToInclusive<K>, r, Bound::Unbounded, Bound::Included(r.end.into()));
of_range!((Bound<K>, Bound<K>), r, r.0.map(Into::into), r.1.map(Into::into));

impl<K: Into<Key>> From<RangeInclusive<K>> for KeyRange {
    fn from(range: RangeInclusive<K>) -> Self {
        let (start, end) = range.into_inner();
        Self { lower: Bound::Included(start.into()), upper: Bound::Included(end.into()) }
    }
}

impl From<RangeFull> for KeyRange {
    fn from(_: RangeFull) -> Self {
        Self { lower: Bound::Unbounded, upper: Bound::Unbounded }
    }
}
