//! The frames of `/v1/drops`: one JSON object per line.

use jiff::Timestamp;
use serde::Serialize;

use crate::serve::json::{Line, write_value};

/// A line of the answer.
#[derive(Serialize)]
#[serde(tag = "frame", rename_all = "lowercase", rename_all_fields = "camelCase")]
pub(super) enum Frame<'a> {
    /// Always the first.
    Hello { version: &'a str, node: &'a str, kernel: &'a str, time: Timestamp, retained_since: Timestamp },
    /// Something to show.
    Item {
        /// Where it belongs among the frames of all agents.
        order: Timestamp,
        /// Of a change of a policy: the same of all agents, so that who reads many shows it once.
        #[serde(skip_serializing_if = "Option::is_none")]
        change: Option<String>,
        #[serde(flatten)]
        item: ItemFrame<'a>,
    },
    /// No later frame has an `order` before this.
    Watermark { order: Timestamp },
    /// The reader was too slow.
    Lost {
        /// Drops that were not looked at for this reader.
        count: u64,
        since: Timestamp,
    },
    /// The account of the stream.
    Ledger { line: &'a Line<'a> },
    /// The agent ends the stream by itself.
    End { reason: &'a str },
}

/// An item in one of the two forms.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ItemFrame<'a> {
    Line(&'a Line<'a>),
    Text(&'a str),
}

impl Frame<'_> {
    /// Appends the frame and a newline.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let length = out.len();
        // A vector takes everything, and what is written has no maps with keys that are no strings.
        if let Err(error) = write_value(self, &mut *out) {
            tracing::error!("a frame could not be written: {error}");
            out.truncate(length);
            return;
        }
        out.push(b'\n');
    }
}
