//! Reads the agents of a cluster from outside: finds them, reaches them through the API server, and puts what they send in one order.
//!
//! ```text
//! roster (watches pods and nodes) ──▶ follow ◀── reader (one per agent: connects, reads frames, connects again)
//!                                       │           └─ call (HTTP) ─ dial (port-forward) ─ tenant (TLS, token)
//!                                       ▼
//!                                  merge ─▶ sink (the command's output)
//! ```
//!
//! Agents are not trusted: what they send is bounded, is made fit for a terminal, and cannot make the order of the others wrong. `frame`,
//! `clean`, `merge` and `resume` are pure.
#![forbid(unsafe_code)]

mod access;
mod call;
mod clean;
mod dial;
mod follow;
mod frame;
mod merge;
mod reader;
mod resume;
mod roster;
mod skew;
mod status;
mod tenant;

pub use access::{Cluster, ClusterError, ClusterOptions, Configuration, TenantOptions};
pub use call::{Access, Unreached};
pub use clean::{Cleaner, named_object};
pub use dial::{Dial, Dialled, Link};
pub use follow::{Follow, FollowOptions, Level, Notice, Sink, Stop, Summary};
pub use frame::{Account, Counts, Frame, Hello, Unreadable};
pub use merge::{Counts as MergeCounts, Given, Merge, Source, Turn};
pub use reader::Query;
pub use resume::Resume;
pub use roster::{Agent, Roster, Sighting};
pub use skew::Skew;
pub use status::{AgentStatus, Answer, ClusterStatus};
pub use tenant::{Pin, Tenant};
