//! What clients asked of the server: for tests that count requests.

use std::collections::BTreeMap;

/// Who asked for what.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked {
    /// `list`, `watch`, `get`, `create`, …; `get` for paths that are no resource's.
    pub verb: String,
    /// `pods`, `pods/portforward`; the path for what is no resource.
    pub resource: String,
    /// The header `User-Agent`.
    pub user_agent: String,
    /// Name of the user; empty before authentication succeeded.
    pub user: String,
}

/// How often, and how much was answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Requests, refused ones included.
    pub requests: u64,
    /// Bytes of bodies that were handed to the connection.
    pub bytes: u64,
    /// Answers by HTTP status. Requests that faults left unanswered have none.
    pub codes: BTreeMap<u16, u64>,
    /// Watches that are open now.
    pub open_watches: u64,
}

/// Counters since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// By who asked for what.
    pub by: BTreeMap<Asked, Count>,
}

impl Stats {
    fn of<'a>(&'a self, verb: &'a str, resource: &'a str) -> impl Iterator<Item = &'a Count> {
        self.by.iter().filter(move |(asked, _)| asked.verb == verb && asked.resource == resource).map(|(_, count)| count)
    }

    /// Requests of all clients with a verb for a resource.
    pub fn requests(&self, verb: &str, resource: &str) -> u64 {
        self.of(verb, resource).map(|count| count.requests).sum()
    }

    /// Bytes answered to all clients for a verb and resource.
    pub fn bytes(&self, verb: &str, resource: &str) -> u64 {
        self.of(verb, resource).map(|count| count.bytes).sum()
    }

    /// Watches of a resource that are open.
    pub fn open_watches(&self, resource: &str) -> u64 {
        self.of("watch", resource).map(|count| count.open_watches).sum()
    }

    pub(super) fn count(&mut self, asked: &Asked) -> &mut Count {
        self.by.entry(asked.clone()).or_default()
    }
}
