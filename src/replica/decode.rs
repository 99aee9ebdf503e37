//! Rows through serde: a struct whose fields are named as the columns, a tuple in their order, or, of a row with one
//! column, its value.
//!
//! What it says of a value that does not fit is its class and never the value itself.

use super::row::Row;
use crate::error::{Error, Kind, Result};
use crate::schema::Column;
use crate::value::ValueRef;
use serde::de::value::{BorrowedStrDeserializer, SeqDeserializer};
use serde::de::{self, DeserializeSeed, Deserializer, Expected, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::forward_to_deserialize_any;
use std::fmt;

impl Row {
    /// The row as a value of the application's own: a struct with fields named as columns (those it lacks are left
    /// out), or a tuple. NULL goes into an `Option`, a blob into bytes (`Vec<u8>`, `[u8; N]`, `&[u8]` with
    /// `#[serde(with = "serde_bytes")]` or the like), 0 and 1 into a `bool`, text into a `String`, a `&str` of the
    /// row's own page, or an enum without data.
    ///
    /// ```no_run
    /// # fn read(row: &redtail::Row) -> redtail::Result<()> {
    /// #[derive(serde::Deserialize)]
    /// struct Episode<'a> {
    ///     episode_id: &'a str,
    ///     reward: Option<f64>,
    /// }
    /// let episode: Episode = row.decode()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `Mismatch` if a column does not fit; it names table and column, what was expected and what is there.
    pub fn decode<'a, T: de::Deserialize<'a>>(&'a self) -> Result<T> {
        T::deserialize(Decoder(self)).map_err(|e| {
            if let Some(damaged) = e.damaged {
                return *damaged;
            }
            let table = &self.table().name;
            let column = e.column.map_or_else(String::new, |c| format!(", column {c}"));
            Error::new(Kind::Mismatch, format!("table {table}{column}: {}", e.what))
        })
    }
}

/// What does not fit, and in which column.
#[derive(Debug)]
struct Misfit {
    column: Option<String>,
    what: String,
    /// It is not that something does not fit: a value cannot be read.
    damaged: Option<Box<Error>>,
}

impl Misfit {
    fn new(what: impl fmt::Display) -> Self {
        Self { column: None, what: what.to_string(), damaged: None }
    }

    fn at(mut self, column: &str) -> Self {
        self.column.get_or_insert_with(|| column.to_owned());
        self
    }
}

impl From<Error> for Misfit {
    fn from(e: Error) -> Self {
        Self { column: None, what: String::new(), damaged: Some(Box::new(e)) }
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Misfit {}

fn class_of(found: &Unexpected<'_>) -> &'static str {
    match found {
        Unexpected::Unit | Unexpected::Option => "NULL",
        Unexpected::Signed(_) | Unexpected::Unsigned(_) => "an integer",
        Unexpected::Float(_) => "a real",
        Unexpected::Str(_) | Unexpected::Char(_) => "text",
        Unexpected::Bytes(_) | Unexpected::Seq => "a blob",
        Unexpected::Bool(_) => "a truth value",
        _ => "something else",
    }
}

impl de::Error for Misfit {
    fn custom<T: fmt::Display>(what: T) -> Self {
        Self::new(what)
    }

    fn invalid_type(found: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        Self::new(format_args!("{wanted} was expected, {} is there", class_of(&found)))
    }

    fn invalid_value(found: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        Self::new(format_args!("{wanted} was expected, {} is there that is none", class_of(&found)))
    }

    fn unknown_variant(_: &str, known: &'static [&'static str]) -> Self {
        Self::new(format_args!("one of {} was expected, other text is there", known.join(", ")))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(format_args!("there is no column {field:?}"))
    }
}

struct Decoder<'a>(&'a Row);

impl<'a> Decoder<'a> {
    fn columns(self) -> Columns<'a> {
        Columns { row: self.0, names: self.0.columns().iter().enumerate(), column: None }
    }

    fn only(&self) -> std::result::Result<Cell<'a>, Misfit> {
        match self.0.columns() {
            [_] => Ok(Cell(self.0.value(0)?)),
            more => Err(Misfit::new(format_args!("a row of one column was expected, it has {}", more.len()))),
        }
    }
}

macro_rules! of_only_column {
    ($($name:ident)*) => {$(
        fn $name<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Misfit> {
            self.only()?.$name(visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Decoder<'de> {
    type Error = Misfit;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Misfit> {
        visitor.visit_map(self.columns())
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Misfit> {
        visitor.visit_seq(self.columns())
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _: usize,
        visitor: V,
    ) -> std::result::Result<V::Value, Misfit> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> std::result::Result<V::Value, Misfit> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> std::result::Result<V::Value, Misfit> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Misfit> {
        match self.only() {
            Ok(cell) => cell.deserialize_option(visitor),
            Err(_) => visitor.visit_some(self),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> std::result::Result<V::Value, Misfit> {
        self.only()?.deserialize_enum(name, variants, visitor)
    }

    of_only_column! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32
        deserialize_f64 deserialize_char deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf
    }

    forward_to_deserialize_any! { map struct unit unit_struct identifier ignored_any }
}

/// The columns of a row, one after another; a value is read when it is asked for.
struct Columns<'a> {
    row: &'a Row,
    names: std::iter::Enumerate<std::slice::Iter<'a, Column>>,
    /// The column whose name was given last.
    column: Option<(usize, &'a Column)>,
}

impl<'de> Columns<'de> {
    fn value<S: DeserializeSeed<'de>>(
        &self,
        (at, column): (usize, &Column),
        seed: S,
    ) -> std::result::Result<S::Value, Misfit> {
        seed.deserialize(Cell(self.row.value(at)?)).map_err(|e| e.at(&column.name))
    }
}

impl<'de> MapAccess<'de> for Columns<'de> {
    type Error = Misfit;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> std::result::Result<Option<K::Value>, Misfit> {
        self.column = self.names.next();
        let Some((_, column)) = self.column else { return Ok(None) };
        seed.deserialize(BorrowedStrDeserializer::new(&column.name)).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> std::result::Result<S::Value, Misfit> {
        let named = self.column.take().ok_or_else(|| Misfit::new("a value without a name"))?;
        self.value(named, seed)
    }
}

impl<'de> SeqAccess<'de> for Columns<'de> {
    type Error = Misfit;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> std::result::Result<Option<S::Value>, Misfit> {
        let Some(next) = self.names.next() else { return Ok(None) };
        self.value(next, seed).map(Some)
    }
}

/// One value.
#[derive(Clone, Copy)]
struct Cell<'a>(ValueRef<'a>);

impl<'a> Cell<'a> {
    fn mismatch<T>(self, wanted: &str) -> std::result::Result<T, Misfit> {
        Err(Misfit::new(format_args!("{wanted} was expected, {} is there", self.0.class())))
    }

    fn integer(self) -> std::result::Result<i64, Misfit> {
        if let ValueRef::Integer(i) = self.0 { Ok(i) } else { self.mismatch("an integer") }
    }

    fn utf8(self) -> std::result::Result<&'a str, Misfit> {
        match self.0 {
            ValueRef::Text(t) => std::str::from_utf8(t)
                .map_err(|_| Misfit::new("text in UTF-8 was expected, other text is there")),
            _ => self.mismatch("text"),
        }
    }
}

macro_rules! of_cell {
    ($($name:ident => $take:ident, $visit:ident;)*) => {$(
        fn $name<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Misfit> {
            visitor.$visit(self.$take()?)
        }
    )*};
}

impl<'de> Deserializer<'de> for Cell<'de> {
    type Error = Misfit;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Misfit> {
        match self.0 {
            ValueRef::Null => visitor.visit_unit(),
            ValueRef::Integer(i) => visitor.visit_i64(i),
            ValueRef::Real(r) => visitor.visit_f64(r),
            ValueRef::Text(t) => match std::str::from_utf8(t) {
                Ok(text) => visitor.visit_borrowed_str(text),
                Err(_) => visitor.visit_borrowed_bytes(t),
            },
            ValueRef::Blob(b) | ValueRef::Utf16le(b) | ValueRef::Utf16be(b) => {
                visitor.visit_borrowed_bytes(b)
            }
        }
    }

    of_cell! {
        deserialize_i8 => integer, visit_i64;
        deserialize_i16 => integer, visit_i64;
        deserialize_i32 => integer, visit_i64;
        deserialize_i64 => integer, visit_i64;
        deserialize_i128 => integer, visit_i64;
        deserialize_u8 => integer, visit_i64;
        deserialize_u16 => integer, visit_i64;
        deserialize_u32 => integer, visit_i64;
        deserialize_u64 => integer, visit_i64;
        deserialize_u128 => integer, visit_i64;
        deserialize_char => utf8, visit_borrowed_str;
        deserialize_str => utf8, visit_borrowed_str;
        deserialize_string => utf8, visit_borrowed_str;
        deserialize_identifier => utf8, visit_borrowed_str;
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Misfit> {
        match self.0 {
            ValueRef::Integer(0) => visitor.visit_bool(false),
            ValueRef::Integer(1) => visitor.visit_bool(true),
            ValueRef::Integer(_) => Err(Misfit::new("0 or 1 was expected, another integer is there")),
            _ => self.mismatch("0 or 1"),
        }
    }

    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Misfit> {
        match self.0 {
            ValueRef::Real(r) => visitor.visit_f64(r),
            // What loses nothing: i64::MAX does not come back from its nearest real.
            ValueRef::Integer(i) if i128::from(i) == (i as f64) as i128 => visitor.visit_f64(i as f64),
            _ => self.mismatch("a real"),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Misfit> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Misfit> {
        match self.0 {
            ValueRef::Blob(b) | ValueRef::Text(b) => visitor.visit_borrowed_bytes(b),
            _ => self.mismatch("a blob"),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Misfit> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Misfit> {
        if let ValueRef::Null = self.0 { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Misfit> {
        if let ValueRef::Null = self.0 { visitor.visit_unit() } else { self.mismatch("NULL") }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> std::result::Result<V::Value, Misfit> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> std::result::Result<V::Value, Misfit> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Misfit> {
        match self.0 {
            ValueRef::Blob(b) => visitor.visit_seq(SeqDeserializer::<_, Misfit>::new(b.iter().copied())),
            _ => self.mismatch("a blob"),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _: usize,
        visitor: V,
    ) -> std::result::Result<V::Value, Misfit> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> std::result::Result<V::Value, Misfit> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, _: V) -> std::result::Result<V::Value, Misfit> {
        self.mismatch("something with fields")
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> std::result::Result<V::Value, Misfit> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> std::result::Result<V::Value, Misfit> {
        visitor.visit_enum(BorrowedStrDeserializer::new(self.utf8()?))
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> std::result::Result<V::Value, Misfit> {
        visitor.visit_unit()
    }
}
