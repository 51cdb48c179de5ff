//! Changes of policies, each told by every agent and shown once. Pure.

use std::collections::{HashSet, VecDeque};

/// Changes that are remembered. An agent that tells of one after so many others has it shown again.
const REMEMBERED: usize = 4096;

/// Changes that were shown.
#[derive(Debug, Default)]
pub(super) struct Changes {
    shown: HashSet<String>,
    order: VecDeque<String>,
}

impl Changes {
    /// Whether it was not shown yet; it is from now on.
    pub(super) fn is_new(&mut self, change: &str) -> bool {
        if !self.shown.insert(change.to_owned()) {
            return false;
        }
        self.order.push_back(change.to_owned());
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.shown.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_shown_once_and_memory_is_bounded() {
        let mut changes = Changes::default();
        assert!(changes.is_new("first"));
        assert!(!changes.is_new("first"));
        (0..REMEMBERED).for_each(|number| assert!(changes.is_new(&number.to_string())));
        assert_eq!((changes.shown.len(), changes.order.len()), (REMEMBERED, REMEMBERED));
        assert!(changes.is_new("first"), "long ago");
    }
}
