//! Answers that are good for a while, bounded in number.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Answers by question.
pub(super) struct Cache<K, V> {
    kept: HashMap<K, (V, Instant)>,
    capacity: usize,
}

impl<K: Hash + Eq, V: Clone> Cache<K, V> {
    pub(super) fn new(capacity: usize) -> Self {
        Cache { kept: HashMap::new(), capacity }
    }

    /// An answer that is still good.
    pub(super) fn get(&self, key: &K, now: Instant) -> Option<V> {
        self.kept.get(key).filter(|(_, until)| now < *until).map(|(value, _)| value.clone())
    }

    pub(super) fn insert(&mut self, key: K, value: V, now: Instant, kept_for: Duration) {
        if self.kept.len() >= self.capacity {
            self.kept.retain(|_, (_, until)| now < *until);
        }
        if self.kept.len() >= self.capacity {
            // All of them are fresh: to forget them costs questions, nothing else.
            self.kept.clear();
        }
        self.kept.insert(key, (value, now + kept_for));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_expire_and_are_bounded() {
        let mut cache = Cache::new(3);
        let start = Instant::now();
        let kept_for = Duration::from_secs(10);
        cache.insert("a", true, start, kept_for);
        assert_eq!(cache.get(&"a", start + Duration::from_secs(9)), Some(true));
        assert_eq!(cache.get(&"a", start + Duration::from_secs(10)), None);
        for key in ["b", "c", "d", "e", "f", "g"] {
            cache.insert(key, false, start + Duration::from_secs(20), kept_for);
            assert!(cache.kept.len() <= 3);
        }
        assert_eq!(cache.get(&"g", start + Duration::from_secs(21)), Some(false));
    }
}
