//! The policy engine: an [`Engine`] answers whether a connection is admitted, and why, and who can reach whom.
//!
//! Pure: no I/O, no clock, no kube client, no aya, no tokio. It cannot fail and does not panic on any input. Every verdict
//! of the program comes from here; no command, test helper or view decides on its own.
//!
//! `evaluate` judges one connection between two definite sides and names what failed; `compiled` is the same walk over everybody
//! at once, worked out from the objects and kept in step with them; `explain` goes over directions, readings and endpoints and
//! collects the reasons; `fix` finds the smallest change and proves it; `difference` says what changes to policies do.
#![forbid(unsafe_code)]

mod compiled;
mod connection;
mod difference;
mod engine;
mod evaluate;
mod explain;
mod explanation;
mod fix;
#[cfg(test)]
mod tests;

pub use compiled::{Group, GroupKind, PortRange, Reachability};
pub use connection::{BaselineScope, Connection, OtherProtocols, Profile, TiedPriorities};
pub use difference::{Bounds, Cause, Difference, NotCounted, Pair, PairEnd, Pairs, Ruling, Turned, is_compared};
pub use engine::Engine;
pub use explanation::{
    Admission, Condition, DirectionExplanation, Explanation, Fix, IsolatingPolicy, Manifest, NearMiss, PatchOperation, PeerMiss, PolicyRef,
    PortMiss, Remaining, RuleMiss, RuleRef, TierOutcome, TierStep, Verdict,
};
