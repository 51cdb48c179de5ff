//! The last denials, with what has been folded into them since. Bounded.

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::Timestamp;

use super::{Item, Key, Summary};
use crate::diagnose::Denial;
use crate::effect::Effect;

/// The last `capacity` denials in the order they were shown, each with its repeats; and as many changes of policies among them.
pub struct Recent {
    capacity: usize,
    kept: VecDeque<Kept>,
    changes: VecDeque<Arc<Effect>>,
    left_out_denials: u64,
    left_out_repeats: u64,
}

struct Kept {
    key: Key,
    denial: Arc<Denial>,
    repeats: Option<Summary>,
}

impl Recent {
    /// An empty store.
    pub fn new(capacity: usize) -> Self {
        Recent { capacity, kept: VecDeque::new(), changes: VecDeque::new(), left_out_denials: 0, left_out_repeats: 0 }
    }

    /// Adds a denial, pushing out the oldest when there are too many, or adds repeats to the denial they belong to.
    pub fn push(&mut self, item: Item) {
        match item {
            Item::Denial { key, denial } => {
                self.kept.push_back(Kept { key, denial, repeats: None });
                while self.kept.len() > self.capacity {
                    let Some(oldest) = self.kept.pop_front() else { break };
                    self.left_out_denials += 1;
                    self.left_out_repeats += oldest.repeats.map_or(0, |summary| summary.count);
                }
            }
            Item::Amendment { key, amendment, is_first: true } => self.push(Item::Denial { key, denial: amendment.denial }),
            // It goes into the denial that it amends, or went out with it.
            Item::Amendment { key, amendment, is_first: false } => {
                // What tenants are shown is made anew each time: it is the same drop all the same.
                let is_it = |kept: &&mut Kept| (kept.denial.event.id, kept.denial.event.time) == (amendment.id(), amendment.time());
                if let Some(kept) = self.kept.iter_mut().rev().find(is_it) {
                    (kept.key, kept.denial) = (key, amendment.denial);
                }
            }
            Item::Repeats(summary) => match self.kept.iter_mut().rev().find(|kept| kept.key == summary.key) {
                Some(kept) => match &mut kept.repeats {
                    Some(before) => {
                        before.count += summary.count;
                        before.total = summary.total;
                        before.last = summary.last;
                    }
                    none => *none = Some(summary),
                },
                None => self.left_out_repeats += summary.count,
            },
            Item::PolicyChange(effect) => {
                self.changes.push_back(effect);
                while self.changes.len() > self.capacity {
                    self.changes.pop_front();
                }
            }
        }
    }

    /// Denials pushed out, and how many repeats went with them.
    pub fn left_out(&self) -> (u64, u64) {
        (self.left_out_denials, self.left_out_repeats)
    }

    /// What is kept, in the order of time: denials at their own time, repeats at the time of their last drop. Changes of policies before
    /// the first denial are left out, if there is any denial.
    pub fn into_items(self) -> Vec<Item> {
        let first = self.kept.iter().map(|kept| kept.denial.event.time).min().unwrap_or(Timestamp::MIN);
        let changes = self.changes.into_iter().filter(|effect| effect.when >= first);
        let mut items: Vec<(Timestamp, Item)> = changes.map(|effect| (effect.when, Item::PolicyChange(effect))).collect();
        for Kept { key, denial, repeats } in self.kept {
            items.push((denial.event.time, Item::Denial { key, denial }));
            items.extend(repeats.map(|summary| (summary.last, Item::Repeats(summary))));
        }
        items.sort_by_key(|(time, _)| *time);
        items.into_iter().map(|(_, item)| item).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::testing;

    #[test]
    fn keeps_the_last_ones_and_counts_the_rest() {
        let mut recent = Recent::new(2);
        for id in 1..=3 {
            recent.push(testing::item(id, 10 * id as i64));
        }
        recent.push(testing::repeats(1, 5, 40));
        recent.push(testing::repeats(2, 1, 50));
        recent.push(testing::repeats(2, 3, 60));
        assert_eq!(recent.left_out(), (1, 5));
        let shown: Vec<_> = recent
            .into_items()
            .iter()
            .map(|item| match item {
                Item::Denial { key, .. } => (key.id.0, 0),
                Item::Repeats(summary) => (summary.key.id.0, summary.count),
                Item::PolicyChange(_) => unreachable!("none was pushed"),
                Item::Amendment { .. } => unreachable!("none was pushed"),
            })
            .collect();
        assert_eq!(shown, [(2, 0), (3, 0), (2, 4)]);
    }

    #[test]
    fn repeats_of_a_denial_pushed_out_go_with_it() {
        let mut recent = Recent::new(1);
        recent.push(testing::item(1, 10));
        recent.push(testing::repeats(1, 7, 11));
        recent.push(testing::item(2, 20));
        assert_eq!(recent.left_out(), (1, 7));
    }

    #[test]
    fn changes_of_policies_stand_among_the_denials() {
        let change = |seconds: i64| Item::PolicyChange(Arc::new(Effect { when: testing::at(seconds), ..testing::policy_change() }));
        let mut recent = Recent::new(2);
        for seconds in [5, 15] {
            recent.push(change(seconds));
        }
        recent.push(testing::item(1, 10));
        recent.push(change(20));
        recent.push(testing::item(2, 30));
        let shown: Vec<_> = recent
            .into_items()
            .iter()
            .map(|item| match item {
                Item::Denial { denial, .. } => ("denial", denial.event.time),
                Item::Repeats(summary) => ("repeats", summary.last),
                Item::PolicyChange(effect) => ("change", effect.when),
                Item::Amendment { amendment, .. } => ("amendment", amendment.time()),
            })
            .collect();
        let expected = [("denial", 10), ("change", 15), ("change", 20), ("denial", 30)];
        assert_eq!(shown, expected.map(|(what, seconds)| (what, testing::at(seconds))));
        // Those before the first denial are older than what was asked for.
        let mut recent = Recent::new(2);
        recent.push(change(5));
        recent.push(testing::item(1, 10));
        assert_eq!(recent.into_items().len(), 1);
    }
}
