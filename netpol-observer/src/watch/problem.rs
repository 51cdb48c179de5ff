//! What can go wrong between here and the API server.

use std::error::Error;
use std::time::Duration;

use thiserror::Error;

/// Why a request or a stream did not do what it should. None of these ends anything: each is tried again.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum Problem {
    /// The connection could not be made, or broke.
    #[error("the API server cannot be reached: {0}")]
    Unreachable(String),
    /// The connection is there, and nothing comes.
    #[error("nothing came from the API server for {} s", .0.as_secs())]
    Silent(Duration),
    /// The answer ended before it was complete.
    #[error("the answer of the API server broke off")]
    Truncated,
    /// 401.
    #[error("the API server does not accept the credentials (401): {0}")]
    Unauthorized(String),
    /// 403.
    #[error("forbidden (403): {0}")]
    Forbidden(String),
    /// 404.
    #[error("the API server has no such resource (404)")]
    NotFound,
    /// 410, or an ERROR event that says so: the revision is forgotten.
    #[error("the revision is too old (410): {0}")]
    Expired(String),
    /// The revision is not reached yet, as after a restored backup, or on a replica that lags.
    #[error("the API server has not reached the revision yet: {0}")]
    Future(String),
    /// The server knows no streaming lists.
    #[error("the API server has no streaming lists: {0}")]
    NoStreamingLists(String),
    /// Any other refusal: 429, 5xx.
    #[error("the API server answers {code}: {message}")]
    Refused {
        /// HTTP status.
        code: u16,
        /// Its words.
        message: String,
        /// `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// It answers what this cannot be read.
    #[error("the API server's answer cannot be read: {0}")]
    Unreadable(String),
    /// A watch that ends as soon as it begins.
    #[error("the watch ended at once")]
    Hasty,
}

impl Problem {
    /// An error of the connection, with what is behind it.
    pub(super) fn unreachable(error: &(dyn Error + 'static)) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        // What lies deepest says why: "connection refused".
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                text = format!("{text}: {cause_text}");
            }
            source = cause.source();
        }
        Problem::Unreachable(text)
    }

    /// How long the server asks to wait.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Problem::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
