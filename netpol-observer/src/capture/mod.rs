//! Where drops come from: the running kernel, or a recording of one.

pub mod btf;
pub mod candidates;
pub mod doctor;
mod error;
mod forms;
pub mod kernel;
pub mod live;
pub mod permissions;
mod program;
mod recording;
mod sandbox;
mod surroundings;
pub mod symbols;
pub mod verifier;

pub use error::CaptureError;
pub use forms::{Attach, Form, TRACEPOINT};
pub use program::is_built_in;
pub use recording::{ByteOrder, ReadError, RecordingEnd, RecordingHeader, RecordingReader, RecordingWriter, WriteError};

use bytes::Bytes;
use netpol_observer_common::{Counters, FoldKey, FoldValue};

/// What a source of drops yields, in the order it happened.
#[derive(Clone, Debug)]
pub enum Captured {
    /// The bytes of a `DropRecord`.
    Record(Bytes),
    /// The same drop again, counted in the kernel: always behind its record.
    Repeat {
        /// What it is the same as.
        key: FoldKey,
        /// How often and when last.
        value: FoldValue,
    },
    /// The kernel's counters, summed over the CPUs. The last one before the end is final and exact.
    Ledger(KernelLedger),
}

/// The kernel side of the ledger at one moment.
///
/// `counters.seen = counters.reported + counters.folded + counters.ring_full`, and of `folded` the part that reached user
/// space as [`Captured::Repeat`] is `folded_delivered`; the rest is still in the fold tables or, in the final ledger, unattributed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelLedger {
    /// Sum over all CPUs.
    pub counters: Counters,
    /// Records read from the ring so far.
    pub received: u64,
    /// Sum of all repeats delivered so far.
    pub folded_delivered: u64,
    /// Runs that the kernel skipped because the program was already running on that CPU (`bpf_prog_info.recursion_misses`), and that no second
    /// program can be shown to have made up for: frees of any kind, so an upper bound of the drops missed. 0 before 7.0.
    pub program_misses: u64,
}
