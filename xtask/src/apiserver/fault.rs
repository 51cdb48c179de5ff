//! Faults on demand: what a test lets go wrong between the server and its clients.

use std::time::Duration;

/// What faults apply to. The default is everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Plural of a resource: `pods`. `None` also covers discovery and paths that are no resource's.
    pub resource: Option<String>,
    /// `list`, `watch`, `get`, …
    pub verb: Option<String>,
}

impl Scope {
    /// Every request for a resource.
    pub fn resource(plural: &str) -> Scope {
        Scope { resource: Some(plural.to_owned()), verb: None }
    }

    /// Requests for a resource with one verb.
    pub fn verb(plural: &str, verb: &str) -> Scope {
        Scope { resource: Some(plural.to_owned()), verb: Some(verb.to_owned()) }
    }

    fn covers(&self, resource: &str, verb: &str) -> bool {
        self.resource.as_deref().is_none_or(|wanted| wanted == resource) && self.verb.as_deref().is_none_or(|wanted| wanted == verb)
    }
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 410, reason `Expired`.
    Gone,
    /// 429 with `Retry-After` in seconds, in plain text, as from priority and fairness.
    TooManyRequests(u32),
    /// 500.
    Internal,
    /// 503, as while a server starts.
    Unavailable,
    /// 401, as when a token has expired.
    Unauthorized,
    /// 404 for a path that should exist, as when an aggregated API or a definition is away.
    NotFound,
    /// Accepted and never answered.
    Hang,
    /// The connection is reset instead of an answer.
    Reset,
    /// Status and headers, half of the body, then the connection ends. Watches end in the middle of their first event.
    Truncate,
    /// Answered after this long. A watch waits so before each batch of events.
    Slow(Duration),
}

/// How a running watch ends, or fails to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Orderly, as after `timeoutSeconds`.
    End,
    /// The connection is reset.
    Reset,
    /// Nothing comes any more, and the connection stays: half-open.
    Silence,
    /// An event ERROR with 410 on the stream, then its end.
    Gone,
}

/// What is to go wrong.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pending: Vec<(Scope, usize, Fault)>,
    cuts: Vec<(Scope, Cut, u64)>,
    sequence: u64,
}

impl Faults {
    pub(super) fn add(&mut self, scope: Scope, count: usize, fault: Fault) {
        self.pending.push((scope, count, fault));
    }

    pub(super) fn clear(&mut self) {
        self.pending.clear();
    }

    /// The fault of a request: the oldest that covers it.
    pub(super) fn take(&mut self, resource: &str, verb: &str) -> Option<Fault> {
        let at = self.pending.iter().position(|(scope, count, _)| *count > 0 && scope.covers(resource, verb))?;
        let (_, count, fault) = &mut self.pending[at];
        let fault = fault.clone();
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.pending.remove(at);
        }
        Some(fault)
    }

    pub(super) fn cut(&mut self, scope: Scope, cut: Cut) {
        self.sequence += 1;
        self.cuts.push((scope, cut, self.sequence));
    }

    /// What a watch that opens now is younger than.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// How a watch ends that was opened at a sequence, if it was told to.
    pub(super) fn cut_of(&self, resource: &str, opened: u64) -> Option<Cut> {
        let found = self.cuts.iter().rev().find(|(scope, _, sequence)| *sequence > opened && scope.covers(resource, "watch"));
        found.map(|(_, cut, _)| *cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_apply_to_their_scope_and_as_often_as_asked() {
        let mut faults = Faults::default();
        faults.add(Scope::verb("pods", "list"), 2, Fault::Internal);
        faults.add(Scope::default(), 1, Fault::Gone);
        assert_eq!(faults.take("pods", "list"), Some(Fault::Internal));
        assert_eq!(faults.take("pods", "watch"), Some(Fault::Gone));
        assert_eq!(faults.take("nodes", "list"), None);
        assert_eq!(faults.take("pods", "list"), Some(Fault::Internal));
        assert_eq!(faults.take("pods", "list"), None);
    }

    #[test]
    fn a_cut_ends_the_watches_that_are_open_and_not_later_ones() {
        let mut faults = Faults::default();
        let earlier = faults.sequence();
        faults.cut(Scope::resource("pods"), Cut::End);
        assert_eq!(faults.cut_of("pods", earlier), Some(Cut::End));
        assert_eq!(faults.cut_of("nodes", earlier), None);
        assert_eq!(faults.cut_of("pods", faults.sequence()), None);
    }
}
