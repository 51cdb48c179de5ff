//! What a hub is given: steps of the pipeline, small enough to be given to many readers.

use std::sync::Arc;

use jiff::Timestamp;

use crate::capture::KernelLedger;
use crate::diagnose::Denial;
use crate::effect::Effect;
use crate::flow::{FoldId, RecordError};
use crate::pipeline::{Amendment, Step};

/// One thing that was observed.
#[derive(Clone, Debug)]
pub enum Observation {
    /// A drop, judged.
    Denial(Arc<Denial>),
    /// The same drop again, counted in the kernel.
    Repeat {
        /// What it is the same as.
        id: FoldId,
        /// How often.
        count: u64,
        /// When last.
        last: Timestamp,
    },
    /// What is to be said otherwise of a drop that was given. It is no drop of its own.
    Amendment(Arc<Amendment>),
    /// A policy changed.
    PolicyChange(Arc<Effect>),
    /// A record that holds no packet this program understands.
    Undecodable,
    /// The kernel's counters.
    Ledger(KernelLedger),
    /// Something to know about the agent.
    Notice {
        /// When.
        time: Timestamp,
        /// How bad.
        level: Level,
        /// For people.
        message: Arc<str>,
    },
}

/// How bad a notice is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Good to know.
    Info,
    /// Something is wrong, and goes on.
    Warning,
}

impl Level {
    /// As in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Level::Info => "info",
            Level::Warning => "warning",
        }
    }
}

impl Observation {
    /// What came of a captured piece.
    pub fn of(step: Result<Step, RecordError>) -> Self {
        match step {
            Ok(Step::Denial(denial)) => Observation::Denial(denial),
            Ok(Step::Amendment(amendment)) => Observation::Amendment(Arc::new(amendment)),
            Ok(Step::Repeat { id, count, last }) => Observation::Repeat { id, count, last },
            Ok(Step::Ledger(ledger)) => Observation::Ledger(ledger),
            Err(error) => {
                tracing::debug!(%error, "record not decoded");
                Observation::Undecodable
            }
        }
    }

    /// How many drops it stands for, as ledgers count them.
    pub fn drops(&self) -> u64 {
        match self {
            Observation::Denial(_) | Observation::Undecodable => 1,
            Observation::Repeat { count, .. } => *count,
            Observation::Amendment(_) | Observation::PolicyChange(_) | Observation::Ledger(_) | Observation::Notice { .. } => 0,
        }
    }

    /// When it happened, where it says so.
    pub fn time(&self) -> Option<Timestamp> {
        match self {
            Observation::Denial(denial) => Some(denial.event.time),
            Observation::Repeat { last, .. } => Some(*last),
            Observation::Notice { time, .. } => Some(*time),
            Observation::PolicyChange(effect) => Some(effect.when),
            // An amendment belongs where it is said.
            Observation::Amendment(_) | Observation::Undecodable | Observation::Ledger(_) => None,
        }
    }
}
