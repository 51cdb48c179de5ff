//! The kernel side's half of the ledger: per-CPU counters that are never reset.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What one CPU has counted since the program was loaded.
///
/// For every drop exactly one of `reported`, `folded` and `ring_full` goes up beside `seen`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Counters {
    /// Drops whose reason and location are in the candidate table.
    pub seen: u64,
    /// Of these, written to the ring.
    pub reported: u64,
    /// Of these, counted under the key of a record written before.
    pub folded: u64,
    /// Of these, lost because the ring had no room.
    pub ring_full: u64,
    /// Of the reported ones, how many could not be put under a key (fold table full, unusual header): repeats are not folded.
    pub unfolded: u64,
}

/// A field of [`Counters`], as an index for the program.
#[derive(Clone, Copy, Debug)]
#[repr(usize)]
pub enum Counter {
    /// [`Counters::seen`]
    Seen,
    /// [`Counters::reported`]
    Reported,
    /// [`Counters::folded`]
    Folded,
    /// [`Counters::ring_full`]
    RingFull,
    /// [`Counters::unfolded`]
    Unfolded,
}

impl core::ops::AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.seen += other.seen;
        self.reported += other.reported;
        self.folded += other.folded;
        self.ring_full += other.ring_full;
        self.unfolded += other.unfolded;
    }
}
