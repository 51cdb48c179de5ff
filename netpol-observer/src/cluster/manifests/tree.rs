//! A YAML or JSON document as a tree that knows its lines.

use std::cell::Cell;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::DuplicateKeyPolicy;
use serde_saphyr::{MessageFormatter as _, Spanned, UserMessageFormatter};

/// Bytes one document's tree may take, whatever its length.
const MAX_TREE_BYTES: usize = 1 << 30;

/// Bytes of a tree for each byte of text. Manifests take about six, a list of single digits sixteen; more than this only aliases take.
const TREE_BYTES_PER_BYTE: usize = 32;

/// What aliases may add to that.
const ALIAS_BYTES: usize = 64 << 20;

/// Parser events that may be repeated by aliases, and kept for being repeated.
const MAX_ALIAS_EVENTS: usize = 250_000;

/// Levels of lists and maps within each other. The deepest field of the API is about 20 levels down.
const MAX_DEPTH: usize = 64;

thread_local! {
    /// Bytes that the tree of the document being read may still take. `Spanned` reads its value through `Deserialize`, which carries
    /// no state, and the parser's own limits count what it reads, not how often an alias repeats a long string.
    static ALLOWANCE: Cell<usize> = const { Cell::new(0) };
}

/// A value and the line it begins on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    /// From 1, within the file.
    pub(super) line: u32,
    pub(super) value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    /// Below zero.
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    String(Box<str>),
    List(Vec<Node>),
    /// In the order of the document, no key twice.
    Map(Vec<(Key, Node)>),
}

/// A key of a map and its line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Key {
    pub(super) line: u32,
    pub(super) name: Box<str>,
}

/// Why a text is no document.
#[derive(Debug)]
pub(super) struct SyntaxError {
    /// From 1, within the file.
    pub(super) line: u32,
    pub(super) message: String,
    /// It may well be one, but takes more memory than it is given.
    pub(super) is_too_large: bool,
}

impl Node {
    /// Reads one document that begins on line `first_line` of its file.
    pub(super) fn parse(text: &str, first_line: u32) -> Result<Self, SyntaxError> {
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! {
                // Without aliases every event takes at least one byte of text.
                max_events: usize::MAX,
                max_nodes: usize::MAX,
                max_total_scalar_bytes: usize::MAX,
                max_depth: MAX_DEPTH,
                flow_nesting_limit: MAX_DEPTH,
                max_recorded_anchor_events: MAX_ALIAS_EVENTS,
                enforce_alias_anchor_ratio: false,
            },
            alias_limits: serde_saphyr::alias_limits! {
                max_total_replayed_events: MAX_ALIAS_EVENTS,
            },
            // The parser keeps no more than some dozen comment lines in a row.
            emit_comments: false,
            duplicate_keys: DuplicateKeyPolicy::Error,
            strict_booleans: true,
            underscored_numbers_as_strings: true,
            with_snippet: false,
        };
        let allowance = text.len().saturating_mul(TREE_BYTES_PER_BYTE).saturating_add(ALIAS_BYTES).min(MAX_TREE_BYTES);
        ALLOWANCE.set(allowance);
        let mut node: Node = serde_saphyr::from_str_with_options(text, options).map_err(|error| SyntaxError {
            line: first_line + error.location().map_or(0, |at| line_number(at.line()).saturating_sub(1)),
            message: UserMessageFormatter.format_message(error.without_snippet()).into_owned(),
            is_too_large: ALLOWANCE.get() == 0,
        })?;
        node.shift(first_line - 1);
        Ok(node)
    }

    /// The value of a key, when this is a map that has it.
    pub(super) fn get(&self, name: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(key, _)| &*key.name == name).map(|(_, node)| node),
            _ => None,
        }
    }

    /// The text of a key, when this is a map that has it as a string.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match &self.get(name)?.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The items, when this is a list.
    pub(super) fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// The line of a field such as `spec.ingress[0].ports`, or of the nearest field around it that exists. Names with dots in them
    /// (keys of labels) are not looked for.
    pub(super) fn line_of(&self, field: &str) -> u32 {
        let mut node = self;
        let mut line = self.line;
        for segment in field.split(['.', '[']) {
            let next = match segment.strip_suffix(']') {
                Some(index) => index.parse().ok().and_then(|index: usize| node.items().get(index)).map(|item| (item.line, item)),
                None => match &node.value {
                    Value::Map(entries) => entries.iter().find(|(key, _)| &*key.name == segment).map(|(key, value)| (key.line, value)),
                    _ => None,
                },
            };
            let Some((next_line, next_node)) = next else { break };
            (line, node) = (next_line, next_node);
        }
        line
    }

    fn shift(&mut self, lines: u32) {
        self.line += lines;
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.shift(lines)),
            Value::Map(entries) => {
                for (key, node) in entries {
                    key.line += lines;
                    node.shift(lines);
                }
            }
            _ => {}
        }
    }
}

fn line_number(line: u64) -> u32 {
    u32::try_from(line).unwrap_or(u32::MAX / 2).max(1)
}

/// Takes what a value of this size costs from the allowance.
fn charge<E: serde::de::Error>(bytes: usize) -> Result<(), E> {
    match ALLOWANCE.get().checked_sub(bytes + size_of::<Node>()) {
        Some(left) => {
            ALLOWANCE.set(left);
            Ok(())
        }
        None => {
            ALLOWANCE.set(0);
            Err(E::custom("the document takes too much memory"))
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Node { line: line_number(spanned.referenced.line()), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value that JSON has too")
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Value, E> {
        charge(0)?;
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        charge(0)?;
        Ok(u64::try_from(value).map_or(Value::Signed(value), Value::Unsigned))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        charge(0)?;
        Ok(Value::Unsigned(value))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        charge(0)?;
        Ok(Value::Float(value))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        charge(value.len())?;
        Ok(Value::String(value.into()))
    }

    fn visit_string<E: serde::de::Error>(self, value: String) -> Result<Value, E> {
        charge(value.len())?;
        Ok(Value::String(value.into()))
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Value, E> {
        charge(0)?;
        Ok(Value::Null)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Value, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        charge(0)?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        items.shrink_to_fit();
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        charge(0)?;
        let mut entries: Vec<(Key, Node)> = Vec::new();
        while let Some(key) = map.next_key::<Spanned<KeyText>>()? {
            // Half the size of what an API server prints, and nothing here asks who wrote which field.
            if &*key.value.0 == "managedFields" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            charge::<A::Error>(key.value.0.len())?;
            let key = Key { line: line_number(key.referenced.line()), name: key.value.0 };
            entries.push((key, map.next_value()?));
        }
        entries.shrink_to_fit();
        Ok(Value::Map(entries))
    }
}

/// Keys are what is written, as in JSON: `80: x` has the key "80".
struct KeyText(Box<str>);

impl<'de> Deserialize<'de> for KeyText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| KeyText(text.into()))
    }
}
