//! The frames of an agent's stream: one JSON object per line. Pure.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::clean::{Cleaner, json_line};

/// A frame, with what it carries ready to be printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The first one: who speaks.
    Hello(Hello),
    /// A drop, a repeat or a notice.
    Item {
        /// When, by the agent's clock.
        order: Timestamp,
        /// Of a change of a policy: what it is told apart by from others. All agents tell of it.
        change: Option<String>,
        /// What to print, with its newline.
        text: String,
    },
    /// No later frame of the stream has an order before this.
    Watermark(Timestamp),
    /// So many drops were not sent, because this reader was too slow; zero where the agent does not say how many.
    Lost(u64),
    /// The agent ends on purpose.
    End(String),
    /// The account of the stream, before an ordinary end.
    Ledger(Account),
    /// A kind that this version does not know.
    Unknown,
}

/// What an agent says of itself first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Version of the agent.
    pub version: String,
    /// Name of its node, as it has been told.
    pub node: String,
    /// The agent's clock.
    pub time: Timestamp,
    /// From when on its recent drops are complete.
    pub retained_since: Option<Timestamp>,
}

/// An account as the agent wrote it, and the counts that are summed over agents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// The object, with its newline and the node.
    pub text: String,
    /// Its counts.
    pub counts: Counts,
}

/// The counts of a stream's ledger (docs/json.md); what an agent does not give is zero.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Counts {
    /// Records received.
    pub records: u64,
    /// Drops received as counts.
    pub counted: u64,
    /// Records that were understood.
    pub decoded: u64,
    /// Records that were not.
    pub undecodable: u64,
    /// Drops printed in full.
    pub shown: u64,
    /// Drops printed as repeats.
    pub repeats: u64,
    /// Repeats that wait for a summary.
    pub pending: u64,
    /// Left out by the filters.
    pub filtered_out: u64,
    /// Before `--since` or the last `--last`.
    pub earlier: u64,
    /// Touching nothing in the cluster.
    pub elsewhere: u64,
    /// Not the loss of a new connection.
    pub noise: u64,
    /// Repeats of what is not known.
    pub unattributed: u64,
}

/// A line that is no frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is no JSON, or a field is of another type.
    #[error("it is no frame of the agents' API: {0}")]
    Json(String),
    /// A field that the kind of frame needs is not there.
    #[error("a frame of kind {kind} lacks {field}")]
    Lacks {
        /// The kind.
        kind: &'static str,
        /// What it lacks.
        field: &'static str,
    },
    /// It is longer than any frame may be.
    #[error("a frame is too long")]
    TooLong,
    /// The line says that it is from another node.
    #[error("it claims to be from node {0:?}")]
    OtherNode(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    #[serde(borrow)]
    frame: Cow<'a, str>,
    order: Option<Timestamp>,
    #[serde(borrow)]
    line: Option<&'a RawValue>,
    text: Option<String>,
    change: Option<String>,
    count: Option<u64>,
    reason: Option<String>,
    version: Option<String>,
    node: Option<String>,
    time: Option<Timestamp>,
    retained_since: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Kind {
    frame: String,
}

const KINDS: &[&str] = &["item", "watermark", "hello", "lost", "end", "ledger"];

impl Frame {
    /// Reads a line. `node` is where the agent's pod is, and is put into JSON lines; `cleaner` makes text fit for a terminal.
    ///
    /// # Errors
    /// The line is no frame.
    pub fn parse(line: &[u8], node: &str, cleaner: &Cleaner) -> Result<Frame, Unreadable> {
        let wire: Wire<'_> = match serde_json::from_slice(line) {
            Ok(wire) => wire,
            // A kind of a later version may use a field otherwise.
            Err(error) => match serde_json::from_slice::<Kind>(line) {
                Ok(kind) if !KINDS.contains(&kind.frame.as_str()) => return Ok(Frame::Unknown),
                _ => return Err(Unreadable::Json(error.to_string())),
            },
        };
        match &*wire.frame {
            "item" => {
                let order = needs("item", "order", wire.order)?;
                let text = match (wire.line, wire.text) {
                    (Some(line), _) => json_line(line.get(), node)?,
                    (None, Some(text)) => cleaner.terminal(&text),
                    (None, None) => return Err(Unreadable::Lacks { kind: "item", field: "line or text" }),
                };
                Ok(Frame::Item { order, change: wire.change.map(|change| short(Some(change))), text })
            }
            "watermark" => Ok(Frame::Watermark(needs("watermark", "order", wire.order)?)),
            "hello" => Ok(Frame::Hello(Hello {
                version: short(wire.version),
                node: short(wire.node),
                time: needs("hello", "time", wire.time)?,
                retained_since: wire.retained_since,
            })),
            "lost" => Ok(Frame::Lost(needs("lost", "count", wire.count)?)),
            "end" => Ok(Frame::End(short(wire.reason))),
            "ledger" => {
                let line = needs("ledger", "line", wire.line)?.get();
                let counts = serde_json::from_str(line).map_err(|error| Unreadable::Json(error.to_string()))?;
                Ok(Frame::Ledger(Account { text: json_line(line, node)?, counts }))
            }
            _ => Ok(Frame::Unknown),
        }
    }
}

/// As much of a text as belongs into a sentence.
pub(super) fn short(text: Option<String>) -> String {
    text.unwrap_or_default().chars().take(200).collect()
}

fn needs<T>(kind: &'static str, field: &'static str, value: Option<T>) -> Result<T, Unreadable> {
    value.ok_or(Unreadable::Lacks { kind, field })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(line: &str) -> Result<Frame, Unreadable> {
        Frame::parse(line.as_bytes(), "node-1", &Cleaner::plain())
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn every_kind() {
        let hello = r#"{"frame":"hello","version":"0.1.0","node":"node-1","kernel":"6.18.0","time":"2026-11-23T14:02:11.5Z","retainedSince":"2026-11-23T14:00:00Z","new":{"x":1}}"#;
        let expected = Hello {
            version: "0.1.0".to_owned(),
            node: "node-1".to_owned(),
            time: at("2026-11-23T14:02:11.5Z"),
            retained_since: Some(at("2026-11-23T14:00:00Z")),
        };
        assert_eq!(parse(hello), Ok(Frame::Hello(expected)));
        let item = r#"{"frame":"item","order":"2026-11-23T14:02:11.482Z","line":{"type":"denial","count":1}}"#;
        let text = "{\"node\":\"node-1\",\"type\":\"denial\",\"count\":1}\n".to_owned();
        assert_eq!(parse(item), Ok(Frame::Item { order: at("2026-11-23T14:02:11.482Z"), change: None, text }));
        let item = r#"{"frame":"item","order":"2026-11-23T14:02:11Z","text":"14:02 DENIED\n  by x\n"}"#;
        let text = "14:02 DENIED\n  by x\n".to_owned();
        assert_eq!(parse(item), Ok(Frame::Item { order: at("2026-11-23T14:02:11Z"), change: None, text }));
        let item = r#"{"frame":"item","order":"2026-11-23T14:02:11Z","change":"00ff","text":"14:02 CHANGED\n"}"#;
        let text = "14:02 CHANGED\n".to_owned();
        assert_eq!(parse(item), Ok(Frame::Item { order: at("2026-11-23T14:02:11Z"), change: Some("00ff".to_owned()), text }));
        assert_eq!(parse(r#"{"frame":"watermark","order":"2026-11-23T14:02:11Z"}"#), Ok(Frame::Watermark(at("2026-11-23T14:02:11Z"))));
        assert_eq!(parse(r#"{"frame":"lost","count":7,"since":"2026-11-23T14:02:11Z"}"#), Ok(Frame::Lost(7)));
        assert_eq!(parse(r#"{"frame":"end","reason":"shutting down"}"#), Ok(Frame::End("shutting down".to_owned())));
        let Ok(Frame::Ledger(account)) = parse(r#"{"frame":"ledger","line":{"type":"ledger","shown":3,"filteredOut":2}}"#) else {
            panic!()
        };
        assert_eq!(account.counts, Counts { shown: 3, filtered_out: 2, ..Counts::default() });
        assert_eq!(parse(r#"{"frame":"policyChange","order":"2026-11-23T14:02:11Z"}"#), Ok(Frame::Unknown));
        assert_eq!(parse(r#"{"frame":"policyChange","order":7}"#), Ok(Frame::Unknown));
    }

    #[test]
    fn what_is_no_frame() {
        for line in [
            "",
            "null",
            "HTTP/1.1 200 OK",
            r#"{"frame":"item"}"#,
            r#"{"frame":"item","order":"yesterday","text":"x"}"#,
            r#"{"frame":"item","order":"2026-11-23T14:02:11Z"}"#,
            r#"{"frame":"item","order":"2026-11-23T14:02:11Z","line":[1]}"#,
            r#"{"frame":"item","order":"2026-11-23T14:02:11Z","line":"text"}"#,
            r#"{"frame":"item","order":"2026-11-23T14:02:11Z","line":{"node":"node-2"}}"#,
            r#"{"frame":"watermark"}"#,
            r#"{"frame":"hello"}"#,
            r#"{"frame":"lost","count":-1}"#,
            r#"{"frame":"ledger","line":{"shown":"many"}}"#,
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Frame::parse(&line, "node-1", &Cleaner::plain());
        }

        #[test]
        fn what_is_printed_of_a_json_line_is_the_object_and_one_line(text in "\\PC*|[\\x00-\\xff]{0,20}", number in any::<i64>()) {
            let object = serde_json::json!({"type": "denial", "text": text, "number": number});
            let frame = serde_json::json!({"frame": "item", "order": "2026-11-23T14:02:11Z", "line": object}).to_string();
            let Ok(Frame::Item { text: printed, .. }) = parse(&frame) else { panic!("{frame}") };
            prop_assert_eq!(printed.matches('\n').count(), 1);
            prop_assert!(!printed.trim_end().chars().any(crate::serve::render::is_unprintable));
            let mut read: serde_json::Value = serde_json::from_str(&printed).unwrap();
            prop_assert_eq!(read.as_object_mut().unwrap().remove("node"), Some("node-1".into()));
            prop_assert_eq!(read, object);
        }
    }
}
