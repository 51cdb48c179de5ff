//! The agent: what is captured and judged goes into a [`Hub`], and any number of readers take it from there over HTTP.
//!
//! ```text
//! capture ─ Judge ─▶ observations ─▶ Hub ─┬─▶ Reader ─ Scope ─ Feed ─▶ frames of one request
//!                                         └─▶ Reader …
//! ```
//!
//! The hub is one bounded log. A reader is a place in it, with a stream of its own: filters, folding and ledger. What falls out of the log before
//! a reader has come to it is lost to that reader, counted and told; the capture waits for nobody.
#![forbid(unsafe_code)]

mod access;
mod bytes;
mod drops;
mod explain;
mod feed;
mod frame;
mod health;
mod hub;
mod judge;
mod objects;
mod observation;
mod page;
mod query;
mod reader;
mod reply;
mod routes;
mod server;
mod status;
mod tenant;
#[cfg(test)]
mod testing;
mod timings;
mod tls;
mod watched;

pub use access::{Access, loopback_names};
pub use explain::{ExplainRequest, Explained, Words};
pub use health::Health;
pub use hub::{Hub, HubOptions, HubStatus};
pub use judge::{Judge, Manifests};
pub use objects::{FixedObjects, Objects, ObjectsStatus};
pub use observation::{Level, Observation};
pub use page::{Page, SharedPage, Snapshot};
pub use query::Form;
pub use reader::{CaughtUp, Lost, Reader, Taken, TooManyReaders};
pub use server::{Limits, Server};
pub use status::{About, KernelAbout};
pub use tenant::{AUDIENCE, KubeReviews, ReviewError, Reviews, Tenants, User, seen_from};
pub use timings::Timings;
pub use tls::{Certificate, TlsError, tls_unchecked};
pub use watched::{Budget, Watched, WatchedJudge};
