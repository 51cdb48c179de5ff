//! Requests, and answers that come piece by piece.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::problem::Problem;

/// Who asks, as the API server's log and its flow control see it.
const USER_AGENT: &str = concat!("netpol-observer/", env!("CARGO_PKG_VERSION"));

/// Objects as they are.
pub(super) const JSON: &str = "application/json";
/// Lists of objects without anything but their metadata.
pub(super) const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
/// Objects without anything but their metadata, as a watch gives them.
pub(super) const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";

/// Most bytes of an answer that is read as a whole: discovery and refusals.
const MAX_WHOLE: usize = 4 << 20;

/// Most characters that are kept of what a server says.
const MAX_MESSAGE: usize = 400;

/// How much was asked and answered.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) requests: AtomicU64,
    pub(super) bytes: AtomicU64,
}

/// An API server as one of the watches sees it. Each counts for itself.
#[derive(Clone)]
pub(super) struct Api {
    client: Client,
    counters: Arc<Counters>,
    patience: Duration,
}

impl Api {
    /// `patience` is how long an answer may take to begin, and from one piece to the next.
    pub(super) fn new(client: Client, counters: Arc<Counters>, patience: Duration) -> Self {
        Api { client, counters, patience }
    }

    /// The answer to a GET as far as its head, if that says that it is one.
    pub(super) async fn get(&self, path: &str, accept: &'static str) -> Result<Answer, Problem> {
        let request = Request::get(path).header(header::ACCEPT, accept).header(header::USER_AGENT, USER_AGENT).body(Body::empty());
        let request = request.map_err(|error| Problem::Unreadable(error.to_string()))?;
        self.counters.requests.fetch_add(1, Ordering::Relaxed);
        let answer = timeout(self.patience, self.client.send(request)).await.map_err(|_| Problem::Silent(self.patience))?;
        let (head, body) = answer.map_err(|error| refused_before(&error))?.into_parts();
        let mut answer = Answer { body, counters: self.counters.clone() };
        if head.status.is_success() {
            return Ok(answer);
        }
        let retry_after = head.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        // A refusal whose text does not come is still that refusal.
        let text = answer.whole(self.patience).await.unwrap_or_default();
        Err(refusal(head.status, retry_after.map(Duration::from_secs), &text))
    }

    /// A small answer as a whole.
    pub(super) async fn whole<T: DeserializeOwned>(&self, path: &str) -> Result<T, Problem> {
        let body = self.get(path, JSON).await?.whole(self.patience).await?;
        serde_json::from_slice(&body).map_err(|error| Problem::Unreadable(error.to_string()))
    }

    /// How long an answer may take from one piece to the next.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }
}

/// An answer, as it comes.
pub(super) struct Answer {
    body: Body,
    counters: Arc<Counters>,
}

impl Answer {
    /// The next piece; `None` at the end.
    pub(super) async fn piece(&mut self, patience: Duration) -> Result<Option<Bytes>, Problem> {
        loop {
            let frame = timeout(patience, self.body.frame()).await.map_err(|_| Problem::Silent(patience))?;
            let Some(frame) = frame else { return Ok(None) };
            // Anything else than data is trailers, which say nothing.
            if let Ok(piece) = frame.map_err(|error| Problem::unreachable(&error))?.into_data() {
                self.counters.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
                return Ok(Some(piece));
            }
        }
    }

    async fn whole(&mut self, patience: Duration) -> Result<Vec<u8>, Problem> {
        let mut whole = Vec::new();
        while let Some(piece) = self.piece(patience).await? {
            if whole.len() + piece.len() > MAX_WHOLE {
                return Err(Problem::Unreadable(format!("more than {MAX_WHOLE} bytes")));
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole)
    }
}

/// A Status of the API.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Status {
    #[serde(default)]
    message: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    code: u16,
    #[serde(default)]
    details: Option<Details>,
}

#[derive(Debug, Default, Deserialize)]
struct Details {
    #[serde(default, rename = "retryAfterSeconds")]
    retry_after_seconds: u64,
    #[serde(default)]
    causes: Option<Vec<Cause>>,
}

#[derive(Debug, Default, Deserialize)]
struct Cause {
    #[serde(default)]
    reason: String,
}

impl Status {
    /// What it means. Both an answer's status and an ERROR event of a watch come this way.
    pub(super) fn problem(self, retry_after: Option<Duration>) -> Problem {
        let message = shortened(&self.message);
        let details = self.details.unwrap_or_default();
        let too_large = details.causes.iter().flatten().any(|cause| cause.reason == "ResourceVersionTooLarge");
        match self.code {
            401 => Problem::Unauthorized(message),
            403 => Problem::Forbidden(message),
            404 => Problem::NotFound,
            410 => Problem::Expired(message),
            _ if matches!(self.reason.as_str(), "Expired" | "Gone") => Problem::Expired(message),
            _ if too_large || message.contains("Too large resource version") => Problem::Future(message),
            400 | 422 if message.contains("sendInitialEvents") || message.contains("resourceVersionMatch") => {
                Problem::NoStreamingLists(message)
            }
            code => {
                let asked = (details.retry_after_seconds > 0).then(|| Duration::from_secs(details.retry_after_seconds));
                Problem::Refused { code, message, retry_after: retry_after.or(asked) }
            }
        }
    }
}

/// Refusals mostly carry a Status; those of priority and fairness and of proxies are plain text.
fn refusal(code: StatusCode, retry_after: Option<Duration>, body: &[u8]) -> Problem {
    let mut status: Status = serde_json::from_slice(body)
        .unwrap_or_else(|_| Status { message: String::from_utf8_lossy(body).into_owned(), ..Status::default() });
    status.code = code.as_u16();
    status.problem(retry_after)
}

/// What the client itself says, before there is an answer: no connection, or no token to send.
fn refused_before(error: &kube::Error) -> Problem {
    match error {
        kube::Error::Auth(error) => Problem::Unauthorized(shortened(&error.to_string())),
        error => Problem::unreachable(error),
    }
}

/// Text of others, short enough to be kept, on one line.
fn shortened(text: &str) -> String {
    let mut short: String = text.trim().chars().take(MAX_MESSAGE).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if short.len() < text.trim().len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16, body: &str) -> Problem {
        refusal(StatusCode::from_u16(code).expect("a status"), None, body.as_bytes())
    }

    #[test]
    fn refusals_are_told_apart() {
        assert!(matches!(status(410, r#"{"reason":"Expired","message":"too old"}"#), Problem::Expired(text) if text == "too old"));
        assert!(matches!(status(500, r#"{"reason":"Expired"}"#), Problem::Expired(_)));
        assert!(matches!(status(404, "404 page not found\n"), Problem::NotFound));
        let future = r#"{"reason":"Timeout","message":"Timeout: Too large resource version: 9, current: 3"}"#;
        assert!(matches!(status(504, future), Problem::Future(_)));
        let by_cause = r#"{"message":"x","details":{"causes":[{"reason":"ResourceVersionTooLarge"}],"retryAfterSeconds":1}}"#;
        assert!(matches!(status(504, by_cause), Problem::Future(_)));
        let streaming = r#"{"message":"ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: …"}"#;
        assert!(matches!(status(422, streaming), Problem::NoStreamingLists(_)));
        assert!(matches!(status(422, "{}"), Problem::Refused { code: 422, .. }));
    }

    #[test]
    fn waits_that_are_asked_for_are_kept() {
        let asked = |body| status(500, body).retry_after();
        assert_eq!(asked(r#"{"details":{"retryAfterSeconds":7}}"#), Some(Duration::from_secs(7)));
        assert_eq!(asked("{}"), None);
        let by_header =
            refusal(StatusCode::TOO_MANY_REQUESTS, Some(Duration::from_secs(3)), b"Too many requests, please try again later.\n");
        assert_eq!(by_header.retry_after(), Some(Duration::from_secs(3)));
        assert_eq!(by_header.to_string(), "the API server answers 429: Too many requests, please try again later.");
    }

    #[test]
    fn what_others_write_is_bounded() {
        let Problem::Refused { message, .. } = status(500, &"x\n".repeat(10_000)) else { panic!("another problem") };
        assert!(message.chars().count() <= MAX_MESSAGE + 1 && !message.contains('\n'));
    }
}
