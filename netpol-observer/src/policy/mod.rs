//! The policy engine: [`explain`] answers whether a connection is admitted, and why.
//!
//! Pure: no I/O, no clock, no kube client, no aya, no tokio. It cannot fail and does not panic on any input. Every verdict
//! of the program comes from here; no command, test helper or view decides on its own.
#![forbid(unsafe_code)]

mod explanation;

pub use explanation::{
    Admission, Condition, DirectionExplanation, Explanation, Fix, IsolatingPolicy, NearMiss, PeerMiss, PolicyRef, PortMiss, Remaining,
    RuleMiss, RuleRef, Verdict,
};
