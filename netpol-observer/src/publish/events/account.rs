//! What became of the drops that Events are made of.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why a drop stands in no Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Untold {
    /// The agent has written as many new Events as it may.
    RateLimited,
    /// There are as many new Events of the pod as there may be.
    PodLimited,
    /// As many series go on as are remembered.
    TableFull,
    /// The task that writes was behind.
    QueueFull,
    /// RBAC does not let the agent write Events in the namespace.
    Forbidden,
    /// The namespace is being deleted, or is gone.
    NamespaceGone,
    /// The API server refuses the Event as it is: a bug.
    Refused,
    /// The API server did not answer in time.
    Unreachable,
    /// Repeats of a drop that has no Event: they are not described in full.
    NotOpened,
    /// The agent ended first.
    Ended,
}

impl Untold {
    /// All of them, in the order of [`Untold::name`]s in the documentation.
    pub const ALL: [Untold; 10] = [
        Untold::RateLimited,
        Untold::PodLimited,
        Untold::TableFull,
        Untold::QueueFull,
        Untold::Forbidden,
        Untold::NamespaceGone,
        Untold::Refused,
        Untold::Unreachable,
        Untold::NotOpened,
        Untold::Ended,
    ];

    /// As the value of a label: `rate_limited`.
    pub fn name(self) -> &'static str {
        match self {
            Untold::RateLimited => "rate_limited",
            Untold::PodLimited => "pod_limited",
            Untold::TableFull => "table_full",
            Untold::QueueFull => "queue_full",
            Untold::Forbidden => "forbidden",
            Untold::NamespaceGone => "namespace_gone",
            Untold::Refused => "refused",
            Untold::Unreachable => "unreachable",
            Untold::NotOpened => "not_opened",
            Untold::Ended => "ended",
        }
    }
}

/// The account of Events.
///
/// Its unit is a *mention*: a drop, told of one pod. A drop that concerns two pods is mentioned twice, one that concerns none is only
/// [`unconcerned`](Counters::unconcerned). At any time `mentions = told + waiting + untold`, the last over all causes.
#[derive(Debug, Default)]
pub struct Counters {
    unconcerned: AtomicU64,
    mentions: AtomicU64,
    told: AtomicU64,
    untold: [AtomicU64; Untold::ALL.len()],
    written: AtomicU64,
    patched: AtomicU64,
    failed: AtomicU64,
}

impl Counters {
    /// Drops that no Event is about: no pod that is known exactly was blocked, or nothing was that matters.
    pub fn unconcerned(&self) -> u64 {
        read(&self.unconcerned)
    }

    /// Mentions taken.
    pub fn mentions(&self) -> u64 {
        read(&self.mentions)
    }

    /// Mentions that stand in an Event that the API server has taken.
    pub fn told(&self) -> u64 {
        read(&self.told)
    }

    /// Mentions that stand in no Event, for this cause.
    pub fn untold(&self, why: Untold) -> u64 {
        self.untold.get(why as usize).map_or(0, read)
    }

    /// Mentions that are yet to be written.
    pub fn waiting(&self) -> u64 {
        let untold: u64 = self.untold.iter().map(read).sum();
        self.mentions().saturating_sub(self.told()).saturating_sub(untold)
    }

    /// Events created.
    pub fn written(&self) -> u64 {
        read(&self.written)
    }

    /// Changes of the series of Events that were there.
    pub fn patched(&self) -> u64 {
        read(&self.patched)
    }

    /// Mentions that were left out by a limit, the agent's or that of a pod.
    pub fn rate_limited(&self) -> u64 {
        self.untold(Untold::RateLimited) + self.untold(Untold::PodLimited)
    }

    /// Mentions that RBAC did not let the agent write.
    pub fn forbidden(&self) -> u64 {
        self.untold(Untold::Forbidden)
    }

    /// Requests that failed, refused ones included. Those that may succeed later are tried again.
    pub fn failed(&self) -> u64 {
        read(&self.failed)
    }

    /// Mentions that the task which writes could not take.
    pub fn queue_full(&self) -> u64 {
        self.untold(Untold::QueueFull)
    }

    pub(super) fn count_unconcerned(&self, drops: u64) {
        add(&self.unconcerned, drops);
    }

    pub(super) fn count_mentions(&self, mentions: u64) {
        add(&self.mentions, mentions);
    }

    pub(super) fn count_told(&self, mentions: u64) {
        add(&self.told, mentions);
    }

    pub(super) fn count_untold(&self, why: Untold, mentions: u64) {
        if let Some(counter) = self.untold.get(why as usize) {
            add(counter, mentions);
        }
    }

    pub(super) fn count_written(&self) {
        add(&self.written, 1);
    }

    pub(super) fn count_patched(&self) {
        add(&self.patched, 1);
    }

    pub(super) fn count_failed(&self) {
        add(&self.failed, 1);
    }
}

/// `2 Events written, 1 change of series; of 9 mentions 4 told, 0 waiting, 5 not told (5 rate_limited)`
impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let causes = Untold::ALL.map(|why| (self.untold(why), why.name()));
        let sum: u64 = causes.iter().map(|(count, _)| count).sum();
        let named: Vec<String> = causes.iter().filter(|(count, _)| *count > 0).map(|(count, name)| format!("{count} {name}")).collect();
        let why = if named.is_empty() { String::new() } else { format!(" ({})", named.join(", ")) };
        write!(
            f,
            "{} Events written, {} changes of series; of {} mentions {} told, {} waiting, {sum} not told{why}",
            self.written(),
            self.patched(),
            self.mentions(),
            self.told(),
            self.waiting()
        )
    }
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_a_counter_and_a_name_of_its_own() {
        let counters = Counters::default();
        for (count, why) in (1..).zip(Untold::ALL) {
            counters.count_untold(why, count);
        }
        for (count, why) in (1..).zip(Untold::ALL) {
            assert_eq!(counters.untold(why), count, "{}", why.name());
        }
        let names: std::collections::BTreeSet<_> = Untold::ALL.iter().map(|why| why.name()).collect();
        assert_eq!(names.len(), Untold::ALL.len());
    }

    #[test]
    fn it_is_put_into_words() {
        let counters = Counters::default();
        counters.count_mentions(9);
        counters.count_told(3);
        counters.count_untold(Untold::RateLimited, 5);
        counters.count_written();
        let words = "1 Events written, 0 changes of series; of 9 mentions 3 told, 1 waiting, 5 not told (5 rate_limited)";
        assert_eq!(counters.to_string(), words);
    }
}
