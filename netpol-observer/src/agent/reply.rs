//! Answers.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use serde::Serialize;
use serde_json::json;

use crate::serve::json::write_value;

/// An answer. Only a stream that is cut ends with an error.
pub(super) type Reply = Response<UnsyncBoxBody<Bytes, Cut>>;

/// A stream was given up in the middle: its connection is closed, so that the reader does not take it for whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream was cut")]
pub(super) struct Cut;

/// An object.
pub(super) fn object(status: StatusCode, value: &impl Serialize) -> Reply {
    let mut body = Vec::new();
    // Values are plain data, and a vector takes everything.
    if write_value(value, &mut body).is_err() {
        body = br#"{"error":"the answer could not be written"}"#.to_vec();
    }
    body.push(b'\n');
    reply(status, "application/json", body)
}

/// An error.
pub(super) fn error(status: StatusCode, message: &str) -> Reply {
    object(status, &json!({"error": message}))
}

/// Plain text, for probes.
pub(super) fn text(status: StatusCode, text: &str) -> Reply {
    reply(status, "text/plain; charset=utf-8", format!("{text}\n").into_bytes())
}

/// A page.
pub(super) fn page(kind: &'static str, text: String) -> Reply {
    reply(StatusCode::OK, kind, text.into_bytes())
}

/// A stream of frames.
pub(super) fn frames(body: UnsyncBoxBody<Bytes, Cut>) -> Reply {
    with(StatusCode::OK, "application/x-ndjson", body)
}

fn reply(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Reply {
    with(status, kind, Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed_unsync())
}

fn with(status: StatusCode, kind: &'static str, body: UnsyncBoxBody<Bytes, Cut>) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // A browser that got here all the same is not to guess that it is a page.
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply
}
