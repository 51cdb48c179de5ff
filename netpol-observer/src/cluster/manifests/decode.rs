//! A [`Node`] → a type of the Kubernetes API, with the field path and the line of what does not fit.
//!
//! Reads as the API server reads JSON: names are compared case by case, types are not converted, and `null` stands for a value's zero
//! (an empty list item is a rule that allows everything, there as here).

use std::cell::RefCell;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};

use super::tree::{Key, Node, Value};

/// A value that does not fit its field.
#[derive(Debug, PartialEq)]
pub(super) struct DecodeError {
    pub(super) line: u32,
    /// `spec.ingress[0].ports[0].endPort`; empty for the object itself.
    pub(super) field: String,
    pub(super) message: String,
    /// The field wants text, and the file has a number, a boolean or a date without quotes.
    pub(super) wants_quotes: bool,
}

/// A field that the API does not have at its place.
#[derive(Debug, PartialEq)]
pub(super) struct UnknownField {
    pub(super) line: u32,
    pub(super) field: String,
    /// The field that was probably meant.
    pub(super) meant: Option<&'static str>,
}

/// Reads the node as a `T`, and lists the fields that `T` does not have.
pub(super) fn decode<'de, T: Deserialize<'de>>(node: &'de Node) -> Result<(T, Vec<UnknownField>), DecodeError> {
    let unknown = RefCell::new(Vec::new());
    let decoded = T::deserialize(NodeDeserializer { node, path: &Path::Root, unknown: &unknown });
    match decoded {
        Ok(value) => Ok((value, unknown.into_inner())),
        Err(Error(error)) => {
            let Fault { place, message } = *error;
            let (line, field, wants_quotes) = place.unwrap_or((node.line, String::new(), false));
            Err(DecodeError { line, field, message, wants_quotes })
        }
    }
}

/// Where in the object; a chain through the stack, turned to text only when there is something to report.
enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
}

impl Path<'_> {
    /// What the cluster writes there itself is not checked for unknown fields: it may be newer or older than the API known here.
    fn is_status(&self) -> bool {
        match self {
            Path::Root => false,
            Path::Field(Path::Root, name) => *name == "status",
            Path::Field(parent, _) | Path::Item(parent, _) => parent.is_status(),
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Field(Path::Root, name) => f.write_str(name),
            Path::Field(parent, name) => write!(f, "{parent}.{name}"),
            Path::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

#[derive(Debug)]
struct Error(Box<Fault>);

#[derive(Debug)]
struct Fault {
    /// Line, field and whether quotes would help; filled in by the innermost value on the way out.
    place: Option<(u32, String, bool)>,
    message: String,
}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Error(Box::new(Fault { place: None, message: message.to_string() }))
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

#[derive(Clone, Copy)]
struct NodeDeserializer<'a, 'de> {
    node: &'de Node,
    path: &'a Path<'a>,
    unknown: &'a RefCell<Vec<UnknownField>>,
}

impl<'de> NodeDeserializer<'_, 'de> {
    fn place<T>(self, wants_text: bool, result: Result<T, Error>) -> Result<T, Error> {
        result.map_err(|mut error| {
            let is_bare = matches!(self.node.value, Value::Bool(_) | Value::Signed(_) | Value::Unsigned(_) | Value::Float(_));
            error.0.place.get_or_insert_with(|| (self.node.line, self.path.to_string(), wants_text && is_bare));
            error
        })
    }

    fn visit<V: Visitor<'de>>(self, visitor: V, fields: Option<&'static [&'static str]>) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Signed(value) => visitor.visit_i64(*value),
            Value::Unsigned(value) => visitor.visit_u64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::String(value) => visitor.visit_borrowed_str(value),
            Value::List(items) => visitor.visit_seq(Items { of: self, items: items.iter(), next: 0 }),
            Value::Map(entries) => visitor.visit_map(Entries { of: self, entries: entries.iter(), value: None, fields }),
        }
    }

    fn is_null(self) -> bool {
        self.node.value == Value::Null
    }
}

macro_rules! numbers {
    ($($method:ident),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            let result = if self.is_null() { visitor.visit_u64(0) } else { self.visit(visitor, None) };
            self.place(false, result)
        }
    )*};
}

impl<'de> Deserializer<'de> for NodeDeserializer<'_, 'de> {
    type Error = Error;

    numbers!(
        deserialize_i8,
        deserialize_i16,
        deserialize_i32,
        deserialize_i64,
        deserialize_u8,
        deserialize_u16,
        deserialize_u32,
        deserialize_u64,
        deserialize_f32,
        deserialize_f64
    );

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.place(false, self.visit(visitor, None))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let result = if self.is_null() { visitor.visit_bool(false) } else { self.visit(visitor, None) };
        self.place(false, result)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let result = if self.is_null() { visitor.visit_borrowed_str("") } else { self.visit(visitor, None) };
        self.place(true, result)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, Error> {
        self.place(false, visitor.visit_newtype_struct(self))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let result =
            if self.is_null() { visitor.visit_seq(Items { of: self, items: [].iter(), next: 0 }) } else { self.visit(visitor, None) };
        self.place(false, result)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let result = if self.is_null() {
            visitor.visit_map(Entries { of: self, entries: [].iter(), value: None, fields: None })
        } else {
            self.visit(visitor, None)
        };
        self.place(false, result)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if self.is_null() {
            return self.deserialize_map(visitor);
        }
        self.place(false, self.visit(visitor, Some(fields)))
    }

    /// Enums are words.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::String(text) => {
                let word: StrDeserializer<'_, Error> = (&**text).into_deserializer();
                self.place(true, visitor.visit_enum(word))
            }
            _ => self.place(true, self.visit(visitor, None)),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
    }
}

struct Items<'a, 'de> {
    of: NodeDeserializer<'a, 'de>,
    items: std::slice::Iter<'de, Node>,
    next: usize,
}

impl<'de> SeqAccess<'de> for Items<'_, 'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some(node) = self.items.next() else { return Ok(None) };
        let path = Path::Item(self.of.path, self.next);
        self.next += 1;
        seed.deserialize(NodeDeserializer { node, path: &path, unknown: self.of.unknown }).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Entries<'a, 'de> {
    of: NodeDeserializer<'a, 'de>,
    entries: std::slice::Iter<'de, (Key, Node)>,
    value: Option<(&'de Key, &'de Node)>,
    /// The fields there are, for a map that stands for a struct.
    fields: Option<&'static [&'static str]>,
}

impl<'de> MapAccess<'de> for Entries<'_, 'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((key, node)) = self.entries.next() else { return Ok(None) };
        self.value = Some((key, node));
        if let Some(fields) = self.fields.filter(|fields| !fields.contains(&&*key.name)) {
            let path = Path::Field(self.of.path, &key.name);
            if !path.is_status() {
                let meant = fields.iter().copied().find(|field| is_misspelt(&key.name, field));
                self.of.unknown.borrow_mut().push(UnknownField { line: key.line, field: path.to_string(), meant });
            }
        }
        let name: StrDeserializer<'_, Error> = (*key.name).into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        let (key, node) = self.value.take().ok_or_else(|| <Error as de::Error>::custom("a value was asked for before its key"))?;
        let path = Path::Field(self.of.path, &key.name);
        seed.deserialize(NodeDeserializer { node, path: &path, unknown: self.of.unknown })
    }
}

/// Whether two letters at most tell the names apart, upper and lower case aside.
fn is_misspelt(written: &str, field: &str) -> bool {
    const MOST: usize = 2;
    if written.len().abs_diff(field.len()) > MOST || field.len() <= MOST {
        return false;
    }
    let field: Vec<u8> = field.bytes().map(|byte| byte.to_ascii_lowercase()).collect();
    // Edit distance, one row of the table at a time.
    let mut row: Vec<usize> = (0..=field.len()).collect();
    for (i, byte) in written.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, wanted) in row.iter_mut().skip(1).zip(&field) {
            let replaced = diagonal + usize::from(byte.to_ascii_lowercase() != *wanted);
            diagonal = *cell;
            left = replaced.min(left + 1).min(*cell + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().is_some_and(|distance| *distance <= MOST)
}
