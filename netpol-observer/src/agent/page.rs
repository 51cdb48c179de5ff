//! `/metrics`: what the agent knows of itself, for whoever makes a page of it.

use std::sync::Arc;

use jiff::Timestamp;

use super::hub::HubStatus;
use super::{About, KernelAbout, ObjectsStatus};
use crate::watch;

/// The agent at a moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Who it is.
    pub about: About,
    /// When.
    pub now: Timestamp,
    /// What has to be there before answers can be relied on, and is not.
    pub missing: Vec<String>,
    /// The kernel it captures from, once it does.
    pub kernel: Option<KernelAbout>,
    /// What was captured, and who reads it.
    pub hub: HubStatus,
    /// The cluster's objects.
    pub objects: ObjectsStatus,
    /// How the watches stand; absent for manifests.
    pub watches: Option<watch::Status>,
    /// Since when there are updates that are not taken in yet.
    pub waiting_since: Option<Timestamp>,
}

/// Makes a page.
pub trait Page: Send + Sync {
    /// Its `Content-Type`.
    fn content_type(&self) -> &'static str;

    /// Its text. It may take some milliseconds, and wait for the lock of the objects.
    fn text(&self, snapshot: &Snapshot) -> String;
}

/// A page that many threads ask for.
pub type SharedPage = Arc<dyn Page>;
