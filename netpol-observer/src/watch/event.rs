//! One line of a watch.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::api::Status;
use super::collect::Collect;
use super::decode::{Marked, Named, NamedMeta};
use super::problem::Problem;

/// Marks the bookmark at the end of a streaming list.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    object: &'a RawValue,
}

/// What a watch tells.
#[derive(Debug)]
pub(super) enum Event<I> {
    /// An object came or changed; no item if it cannot be read.
    Applied { item: Option<I>, named: NamedMeta, is_new: bool },
    /// An object went.
    Deleted(NamedMeta),
    /// How far the watch is.
    Bookmark { revision: String, ends_initial_events: bool },
    /// The watch cannot go on.
    Error(Problem),
}

/// Reads a line.
pub(super) fn read<C: Collect>(line: &[u8], collect: &mut C) -> Result<Event<C::Item>, Problem> {
    let unreadable = |error: serde_json::Error| Problem::Unreadable(format!("an event: {error}"));
    let line: Line<'_> = serde_json::from_slice(line).map_err(unreadable)?;
    let object = line.object.get();
    if line.kind == "ERROR" {
        return Ok(Event::Error(serde_json::from_str::<Status>(object).map_err(unreadable)?.problem(None)));
    }
    if line.kind == "BOOKMARK" {
        let Marked { metadata } = serde_json::from_str(object).map_err(unreadable)?;
        let ends_initial_events = metadata.annotations.is_some_and(|annotations| annotations.contains_key(INITIAL_EVENTS_END));
        return Ok(Event::Bookmark { revision: metadata.resource_version, ends_initial_events });
    }
    let Named { metadata: named } = serde_json::from_str(object).map_err(unreadable)?;
    Ok(match &*line.kind {
        "ADDED" | "MODIFIED" => Event::Applied { item: collect.read(&named, object.as_bytes()), named, is_new: line.kind == "ADDED" },
        "DELETED" => Event::Deleted(named),
        other => return Err(Problem::Unreadable(format!("an event of type {other:?}"))),
    })
}
