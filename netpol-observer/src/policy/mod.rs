//! The policy engine: [`explain`] answers whether a connection is admitted, and why; [`verdict`] only whether.
//!
//! Pure: no I/O, no clock, no kube client, no aya, no tokio. It cannot fail and does not panic on any input. Every verdict
//! of the program comes from here; no command, test helper or view decides on its own.
//!
//! `matching` says whether a rule's peers and ports match, `evaluate` judges one direction between two definite sides,
//! `explain` goes over directions, candidates and backends and collects the reasons, `near` orders the misses, `fix` finds
//! the smallest change and proves it by `evaluate`, `gain` lists who else would be admitted, `words` says it in sentences.
#![forbid(unsafe_code)]

mod compiled;
mod connection;
mod engine;
mod evaluate;
mod explain;
mod explanation;
mod fix;
#[cfg(test)]
mod tests;

pub use compiled::{Group, GroupKind, PortRange, Reachability};
pub use connection::{BaselineScope, Connection, OtherProtocols, Profile, TiedPriorities};
pub use engine::Engine;
pub use explanation::{
    Admission, Condition, DirectionExplanation, Explanation, Fix, IsolatingPolicy, Manifest, NearMiss, PatchOperation, PeerMiss, PolicyRef,
    PortMiss, Remaining, RuleMiss, RuleRef, TierOutcome, TierStep, Verdict,
};
