//! One captured record → one [`Denial`]: decode, identify, explain, diagnose.
//!
//! Live capture, replay and tests go through here; it is synchronous, does no I/O and reads no clock. A [`Pipeline`] judges by one set of
//! objects, [`Moments`] by the objects of the moment of each drop.
#![forbid(unsafe_code)]

mod amend;
mod attribution;
mod changes;
mod cuts;
mod held;
mod judge;
mod known;
mod moments;
#[cfg(test)]
mod tests;
mod touched;
mod uids;

use std::sync::Arc;

use jiff::Timestamp;
use netpol_observer_common::{DropRecord, FoldKey, FoldValue};
use zerocopy::FromBytes as _;

use crate::capture::{Captured, KernelLedger};
use crate::cluster::Index;
use crate::diagnose::Denial;
use crate::flow::{FoldId, KernelNames, RecordError, decode_record};
use crate::policy::Engine;

pub use amend::Amendment;
pub use attribution::PUBLISH_LAG;
pub use judge::{judge, server_port};
pub use moments::{Moments, MomentsOptions, MomentsStatus};

/// The stages with what they need.
pub struct Pipeline {
    engine: Arc<Engine>,
}

/// What a captured piece turned out to be.
#[derive(Clone, Debug)]
pub enum Step {
    /// A drop with its cause.
    Denial(Arc<Denial>),
    /// The same drop again, `count` times, the last time at `last`.
    Repeat {
        /// What it is the same as.
        id: FoldId,
        /// How often.
        count: u64,
        /// When last.
        last: Timestamp,
    },
    /// What is to be said otherwise of a drop that was given. It is no drop of its own.
    Amendment(Amendment),
    /// The kernel's counters.
    Ledger(KernelLedger),
}

impl Pipeline {
    /// Puts the stages together.
    pub fn new(engine: Arc<Engine>) -> Self {
        Pipeline { engine }
    }

    /// The objects it reads.
    pub fn index(&self) -> &Index {
        self.engine.index()
    }

    /// Takes one captured piece through the stages. `names` are those of the kernel it comes from.
    ///
    /// # Errors
    /// The bytes of a record could not be decoded. The next piece may well be.
    pub fn step(&self, captured: &Captured, names: &dyn KernelNames) -> Result<Step, RecordError> {
        match captured {
            Captured::Record(bytes) => Ok(Step::Denial(Arc::new(judge(decode_record(bytes, names)?, &self.engine)))),
            Captured::Repeat { key, value } => Ok(repeat_of(key, value, names)),
            Captured::Ledger(ledger) => Ok(Step::Ledger(*ledger)),
        }
    }
}

fn repeat_of(key: &FoldKey, value: &FoldValue, names: &dyn KernelNames) -> Step {
    Step::Repeat { id: FoldId::of(key), count: value.count, last: wall_clock(value.last_ns, names) }
}

/// When it was captured, without decoding the rest: what a replay takes for its clock. Absent for the kernel's counters and
/// for what is too short to be a record.
pub fn time_of(captured: &Captured, names: &dyn KernelNames) -> Option<Timestamp> {
    let monotonic_ns = match captured {
        Captured::Record(bytes) => DropRecord::read_from_prefix(bytes).map(|(record, _)| record.time_ns).ok()?,
        Captured::Repeat { value, .. } => value.last_ns,
        Captured::Ledger(_) => return None,
    };
    Some(wall_clock(monotonic_ns, names))
}

fn wall_clock(monotonic_ns: u64, names: &dyn KernelNames) -> Timestamp {
    let nanoseconds = i128::from(monotonic_ns) + i128::from(names.clock_offset_ns());
    Timestamp::from_nanosecond(nanoseconds).unwrap_or(Timestamp::UNIX_EPOCH)
}
