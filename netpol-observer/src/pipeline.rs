//! One captured record → one [`Denial`]: decode, identify, explain, diagnose.
//!
//! Live capture, replay and tests go through here; it is synchronous, does no I/O and reads no clock.
#![forbid(unsafe_code)]

use std::sync::Arc;

use jiff::Timestamp;
use netpol_observer_common::DropRecord;
use zerocopy::FromBytes as _;

use crate::capture::{Captured, KernelLedger};
use crate::cluster::Index;
use crate::diagnose::{Denial, diagnose};
use crate::flow::{DropEvent, FoldId, KernelNames, RecordError, decode_record};
use crate::identify::{Who, identify, settle_tunnel};
use crate::policy::{Connection, Engine};

/// The stages with what they need.
pub struct Pipeline {
    engine: Arc<Engine>,
}

/// What a captured piece turned out to be.
#[derive(Clone, Debug)]
pub enum Step {
    /// A drop with its cause.
    Denial(Box<Denial>),
    /// The same drop again, `count` times, the last time at `last`.
    Repeat {
        /// What it is the same as.
        id: FoldId,
        /// How often.
        count: u64,
        /// When last.
        last: Timestamp,
    },
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
            Captured::Record(bytes) => Ok(Step::Denial(Box::new(self.judge(decode_record(bytes, names)?)))),
            Captured::Repeat { key, value } => {
                Ok(Step::Repeat { id: FoldId::of(key), count: value.count, last: wall_clock(value.last_ns, names) })
            }
            Captured::Ledger(ledger) => Ok(Step::Ledger(*ledger)),
        }
    }

    fn judge(&self, event: DropEvent) -> Denial {
        let event = settle_tunnel(event, self.index());
        let who = identify(&event, self.index());
        let connection = Connection {
            source: who.client.clone(),
            destination: who.server.clone(),
            protocol: event.flow.protocol,
            port: server_port(&event, &who),
            service: who.service.clone(),
        };
        let explanation = self.engine.explain(&connection);
        let diagnosis = diagnose(&event, &who, &explanation);
        Denial { event, who, explanation, diagnosis }
    }
}

/// The port of the server's own address: that of the packet, or, when the packet still carries a Service's address, the port
/// of the backend that `who.server` names.
pub fn server_port(event: &DropEvent, who: &Who) -> Option<u16> {
    let flow = &event.flow;
    if event.is_reply() {
        return flow.source_port;
    }
    if let Some(call) = &who.service
        && call.ip == flow.destination.to_canonical()
        && who.server.ip != call.ip
        && let Some((_, port)) = call.backends.iter().find(|(ip, _)| *ip == who.server.ip)
    {
        return Some(*port);
    }
    flow.destination_port
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
