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

/// Where a packet was freed: which of the two programs on the tracepoint it belongs to, and the index of that one's counters.
///
/// From 6.2 on the kernel skips a program that it has interrupted on the same CPU. With one program for all, the whole burst of packets that
/// an interrupt brings would be lost whenever it comes in the middle of a run. So each program leaves the other's packets alone at
/// once, and what is received is handled while what is sent waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Level {
    /// On a task's stack: by a system call, or in a thread of the kernel.
    Task,
    /// On an interrupt's stack: as a rule in the soft interrupts that receive packets.
    Interrupt,
}

impl Level {
    /// How many there are.
    pub const COUNT: u32 = 2;
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
