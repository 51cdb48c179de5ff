//! Objects out of the bytes of an answer, one by one as they come.
//!
//! The API server's cache answers a list as a whole, whatever `limit` says: of a hundred thousand pods that is half a gigabyte. So a list is
//! never held as a text: each object is cut out of the stream, and what is not kept of it is gone before the next one comes.

use serde::Deserialize;

/// Most bytes of one object. The API server takes requests of up to 3 MiB.
pub(super) const MAX_OBJECT: usize = 8 << 20;

/// Why bytes are no list, or no watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("it is no JSON list")]
    NoList,
    #[error("an object has more than {MAX_OBJECT} bytes")]
    TooLarge,
}

/// What stands beside the items of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListMeta {
    /// What to watch from.
    #[serde(default)]
    pub(super) resource_version: String,
    /// Where the next page begins; empty on the last one.
    #[serde(default, rename = "continue")]
    pub(super) continue_token: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Start,
    /// Before the name of a field, or the end of the list object.
    Field,
    Name,
    Colon,
    BeforeValue,
    Value,
    BetweenItems,
    Item,
    End,
}

/// Cuts the items out of a list. The order of its fields is any.
#[derive(Debug)]
pub(super) struct Items {
    place: Place,
    /// What has come of a name, value or item that is not complete.
    partial: Vec<u8>,
    name: Vec<u8>,
    depth: usize,
    in_text: bool,
    escaped: bool,
    meta: Option<ListMeta>,
}

impl Items {
    pub(super) fn new() -> Self {
        Items { place: Place::Start, partial: Vec::new(), name: Vec::new(), depth: 0, in_text: false, escaped: false, meta: None }
    }

    /// Takes the next bytes, and gives the items that are complete by them.
    pub(super) fn take(&mut self, bytes: &[u8], mut item: impl FnMut(&[u8])) -> Result<(), Malformed> {
        let mut rest = bytes;
        while let Some(&byte) = rest.first() {
            if matches!(self.place, Place::Name | Place::Value | Place::Item) {
                rest = self.inside(rest, &mut item)?;
                continue;
            }
            self.between(byte)?;
            // The first byte of a name, value or item belongs to it.
            if !matches!(self.place, Place::Name | Place::Value | Place::Item) {
                rest = &rest[1..];
            }
        }
        Ok(())
    }

    /// What stands beside the items, if the list came to its end.
    pub(super) fn finish(self) -> Option<ListMeta> {
        if self.place == Place::End { self.meta } else { None }
    }

    fn between(&mut self, byte: u8) -> Result<(), Malformed> {
        if byte.is_ascii_whitespace() {
            return Ok(());
        }
        self.place = match (self.place, byte) {
            (Place::Start, b'{') | (Place::Field, b',') => Place::Field,
            (Place::Field, b'"') => Place::Name,
            (Place::Field, b'}') => Place::End,
            (Place::Colon, b':') => Place::BeforeValue,
            (Place::BeforeValue, b'[') if self.name == b"\"items\"" => Place::BetweenItems,
            (Place::BeforeValue, b',' | b'}' | b']' | b':') => return Err(Malformed::NoList),
            (Place::BeforeValue, _) => Place::Value,
            (Place::BetweenItems, b',') => Place::BetweenItems,
            (Place::BetweenItems, b']') => Place::Field,
            (Place::BetweenItems, b'{') => Place::Item,
            _ => return Err(Malformed::NoList),
        };
        Ok(())
    }

    /// Goes through what is one JSON value up to its end, and returns what is after it.
    fn inside<'a>(&mut self, bytes: &'a [u8], item: &mut impl FnMut(&[u8])) -> Result<&'a [u8], Malformed> {
        let Some(length) = self.length(bytes) else {
            if self.partial.len() + bytes.len() > MAX_OBJECT {
                return Err(Malformed::TooLarge);
            }
            self.partial.extend_from_slice(bytes);
            return Ok(&[]);
        };
        let (end, rest) = bytes.split_at(length);
        if self.partial.len() + end.len() > MAX_OBJECT {
            return Err(Malformed::TooLarge);
        }
        let whole = if self.partial.is_empty() {
            end
        } else {
            self.partial.extend_from_slice(end);
            &self.partial
        };
        match self.place {
            Place::Name => {
                self.name = whole.to_vec();
                self.place = Place::Colon;
            }
            Place::Item => {
                item(whole);
                self.place = Place::BetweenItems;
            }
            _ => {
                if self.name == b"\"metadata\"" {
                    self.meta = Some(serde_json::from_slice(whole).map_err(|_| Malformed::NoList)?);
                }
                self.place = Place::Field;
            }
        }
        self.partial.clear();
        // One large object must not be paid for all the time.
        self.partial.shrink_to(1 << 20);
        Ok(rest)
    }

    /// How many bytes belong to the value that is being read; `None` if all do and there is more to come.
    fn length(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < bytes.len() {
            if self.in_text {
                if self.escaped {
                    self.escaped = false;
                    at += 1;
                    continue;
                }
                at += bytes[at..].iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
                if bytes[at] == b'\\' {
                    self.escaped = true;
                } else {
                    self.in_text = false;
                    if self.depth == 0 {
                        return Some(at + 1);
                    }
                }
                at += 1;
                continue;
            }
            match bytes[at] {
                b'"' => self.in_text = true,
                b'{' | b'[' => self.depth += 1,
                // The end of a number, `true` or `null`: what comes is its container's.
                b',' | b'}' | b']' if self.depth == 0 => return Some(at),
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return Some(at + 1);
                    }
                }
                _ => {}
            }
            at += 1;
        }
        None
    }
}

/// Cuts the events out of a watch: one on each line.
#[derive(Debug, Default)]
pub(super) struct Lines {
    buffer: Vec<u8>,
    /// Where the next line begins.
    start: usize,
    /// How far it was looked through for its end.
    looked: usize,
}

impl Lines {
    /// Takes the next bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        self.buffer.drain(..self.start);
        self.looked -= self.start;
        self.start = 0;
        if self.buffer.len() > MAX_OBJECT {
            return Err(Malformed::TooLarge);
        }
        self.buffer.shrink_to(1 << 20);
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// The next line that is complete.
    pub(super) fn next(&mut self) -> Option<&[u8]> {
        let Some(length) = self.buffer[self.looked..].iter().position(|byte| *byte == b'\n') else {
            self.looked = self.buffer.len();
            return None;
        };
        let (start, end) = (self.start, self.looked + length);
        self.start = end + 1;
        self.looked = self.start;
        Some(&self.buffer[start..end])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// What comes of a list that arrives in pieces of the given lengths, over and over.
    fn read(text: &str, pieces: &[usize]) -> Result<(Vec<Value>, Option<ListMeta>), Malformed> {
        let mut items = Items::new();
        let mut found = Vec::new();
        let mut rest = text.as_bytes();
        for length in pieces.iter().cycle() {
            let (piece, after) = rest.split_at((*length).min(rest.len()));
            items.take(piece, |item| found.push(serde_json::from_slice(item).expect("an item is JSON")))?;
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        Ok((found, items.finish()))
    }

    fn meta(version: &str, token: &str) -> Option<ListMeta> {
        Some(ListMeta { resource_version: version.to_owned(), continue_token: token.to_owned() })
    }

    #[test]
    fn lists_of_built_in_and_of_custom_kinds() {
        let built_in =
            r#"{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"7","continue":"x"},"items":[{"a":"]}\\\""},{}]}"#;
        let found = vec![json!({"a": "]}\\\""}), json!({})];
        let custom = "{\"apiVersion\":\"v1\",\n \"items\": [ {\"a\":\"]}\\\\\\\"\"} , {} ],\"kind\":\"L\",\"n\":12,\"metadata\":{\"resourceVersion\":\"7\"}}\n";
        for pieces in [&[1][..], &[1000], &[2, 3, 5]] {
            assert_eq!(read(built_in, pieces), Ok((found.clone(), meta("7", "x"))));
            assert_eq!(read(custom, pieces), Ok((found.clone(), meta("7", ""))));
        }
    }

    #[test]
    fn a_list_that_breaks_off_is_none() {
        let text = json!({"metadata": {"resourceVersion": "7"}, "items": [{"a": 1}, {"b": 2}]}).to_string();
        for length in 0..text.len() {
            let (found, meta) = read(&text[..length], &[7]).expect("so far it is well");
            assert!(meta.is_none() && found.len() <= 2, "{length}");
        }
        assert!(read(&text, &[7]).expect("a list").1.is_some());
    }

    #[test]
    fn empty_lists() {
        for items in ["[]", "null", " [ ] "] {
            let text = format!(r#"{{"metadata":{{"resourceVersion":"7"}},"items":{items}}}"#);
            assert_eq!(read(&text, &[3]), Ok((Vec::new(), meta("7", ""))));
        }
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for text in ["[]", "<html>", r#"{"items":[1]}"#, r#"{"items":{}}x"#, r#"{"a"}"#, r#"{"a":,"b":1}"#, r#"{"metadata":7}"#, "{}{}"] {
            assert_eq!(read(text, &[4]), Err(Malformed::NoList), "{text}");
        }
        assert_eq!(read(&format!(r#"{{"items":[{{"a":"{}"}}]}}"#, "x".repeat(MAX_OBJECT)), &[1 << 20]), Err(Malformed::TooLarge));
    }

    #[test]
    fn events_come_line_by_line() {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for piece in ["{\"a\"", ":1}\n{\"b\":2}\n", "", "{", "}\n{\"not\":\"whole\""] {
            lines.push(piece.as_bytes()).expect("short");
            while let Some(line) = lines.next() {
                found.push(String::from_utf8(line.to_vec()).expect("text"));
            }
        }
        assert_eq!(found, ["{\"a\":1}", "{\"b\":2}", "{}"]);
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut lines = Lines::default();
        let piece = vec![b'x'; 1 << 20];
        let refused = (0..100).find_map(|_| lines.push(&piece).err());
        assert_eq!(refused, Some(Malformed::TooLarge));
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[\\PC\"\\\\]{0,6}".prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z\"\\\\{}]{0,3}", inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn object() -> impl Strategy<Value = Value> {
        prop::collection::btree_map("[a-z]{1,4}", value(), 0..4).prop_map(|map| Value::Object(map.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn any_list_in_any_pieces(
            items in prop::collection::vec(object(), 0..6),
            before in value(),
            after in value(),
            pretty in any::<bool>(),
            pieces in prop::collection::vec(1_usize..40, 1..5),
        ) {
            let list = json!({"a": before, "items": items, "metadata": {"resourceVersion": "7"}, "z": after});
            let text = if pretty { serde_json::to_string_pretty(&list) } else { serde_json::to_string(&list) }.expect("JSON");
            prop_assert_eq!(read(&text, &pieces), Ok((items, meta("7", ""))));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(prop_oneof![Just(b'{'), Just(b'}'), Just(b'['), Just(b']'), Just(b'"'), Just(b','), Just(b':'), Just(b'\\'), any::<u8>()], 0..200)) {
            let mut items = Items::new();
            for piece in bytes.chunks(7) {
                if items.take(piece, |_| {}).is_err() {
                    break;
                }
            }
            let mut lines = Lines::default();
            lines.push(&bytes).expect("short");
            while lines.next().is_some() {}
        }
    }
}
