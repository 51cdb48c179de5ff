//! The stages of netpol-observer, in the order data flows through them.
//!
//! ```text
//! kernel event ─ capture ─▶ record ─ flow ─▶ drop ─ identify ─▶ who ─ policy, diagnose ─▶ denial ─ serve ─▶ cli
//!                                                     ▲                   ▲
//!                                                  cluster (Index) ───────┘
//! ```
//!
//! A stage takes the previous stage's type and knows nothing of the later ones. `tests/tidy.rs` holds the modules to it.

pub mod agent;
pub mod allocator;
pub mod capture;
pub mod cli;
pub mod client;
pub mod cluster;
pub mod compare;
pub mod connectivity;
pub mod diagnose;
pub mod effect;
pub mod flow;
pub mod identify;
pub mod install;
pub mod lint;
pub mod map;
pub mod pipeline;
pub mod policy;
pub mod publish;
pub mod question;
pub mod serve;
pub mod suite;
pub mod timeline;
pub mod watch;
