//! In which namespaces the API server does not let the agent write, so that it is not asked each time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::account::Untold;

/// For so long it is not asked again: what is forbidden may be permitted meanwhile.
const REMEMBERED: Duration = Duration::from_secs(300);

/// Namespaces remembered; beyond that, it is asked more often.
const NAMESPACES: usize = 4096;

/// What was refused, and until when that is remembered.
#[derive(Default)]
pub(super) struct Refusals {
    creations: HashMap<Arc<str>, (Instant, Untold)>,
    changes: HashMap<Arc<str>, Instant>,
}

impl Refusals {
    /// Why no Event is to be created in a namespace.
    pub(super) fn creation(&self, namespace: &str, now: Instant) -> Option<Untold> {
        self.creations.get(namespace).filter(|(until, _)| now < *until).map(|(_, why)| *why)
    }

    /// Whether no Event is to be changed there.
    pub(super) fn change(&self, namespace: &str, now: Instant) -> bool {
        self.changes.get(namespace).is_some_and(|until| now < *until)
    }

    pub(super) fn remember_creation(&mut self, namespace: &Arc<str>, why: Untold, now: Instant) {
        if self.creations.len() < NAMESPACES {
            self.creations.insert(Arc::clone(namespace), (now + REMEMBERED, why));
        }
    }

    pub(super) fn remember_change(&mut self, namespace: &Arc<str>, now: Instant) {
        if self.changes.len() < NAMESPACES {
            self.changes.insert(Arc::clone(namespace), now + REMEMBERED);
        }
    }

    /// Forgets what is over.
    pub(super) fn sweep(&mut self, now: Instant) {
        self.creations.retain(|_, (until, _)| now < *until);
        self.changes.retain(|_, until| now < *until);
    }
}
