//! What killed the packet: the policies, or something no policy has to answer for.
//!
//! Takes the kernel's evidence and the engine's explanation, and says whether they agree. It never names a policy that the
//! engine did not name.
#![forbid(unsafe_code)]

mod moment;
mod rules;
mod tunnel;
mod words;

use serde::Serialize;

pub use moment::{Attributed, CHANGE_WINDOW, How, Moment, PastKnown, RecentChange, Span, Unevaluated};

use crate::cluster::Direction;
use crate::flow::DropEvent;
use crate::identify::Who;
use crate::policy::Explanation;

/// The cause of a drop, from the kernel's evidence and from what the policies say of the connection.
///
/// `explanation` is of the connection as `who` names its ends: for a reply, of the opening it answers. `moment` is what is known of the
/// time of the drop, where that is known apart from the objects.
pub fn diagnose(event: &DropEvent, who: &Who, explanation: &Explanation, moment: Option<&Moment>) -> Diagnosis {
    rules::decide(&rules::Facts::new(event, who, explanation, moment))
}

/// Whether an enforcer dropped it, a firewall or a dataplane, of the policies or not.
pub fn is_enforced(event: &DropEvent) -> bool {
    rules::is_enforced(event)
}

/// A drop with its cause: the end of the pipeline, what every view shows.
#[derive(Clone, Debug)]
pub struct Denial {
    /// What the kernel saw.
    pub event: DropEvent,
    /// Whose packet it was.
    pub who: Who,
    /// What the policies say of the connection. For a call to a Service that was dropped before translation, this is the
    /// explanation for the backend named in `who.server`.
    pub explanation: Explanation,
    /// The cause.
    pub diagnosis: Diagnosis,
    /// What is known of the moment, where the drop was judged by the objects of its moment. Absent where there is one set of objects for all
    /// times: manifests.
    pub moment: Option<Moment>,
}

/// The cause of a drop.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnosis {
    /// What kind of cause.
    pub class: Class,
    /// Whether the kernel did what the policies say.
    pub agreement: Agreement,
    /// One or two plain sentences: what happened and, where no policy is to blame, what to look at next.
    pub summary: String,
}

/// Kinds of causes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Class {
    /// Policies deny the connection and the kernel's enforcement dropped it.
    PolicyDenied(Vec<Direction>),
    /// An answer to a connection was dropped.
    DroppedReply,
    /// The policies admit it since a change that was not enforced yet: what they said before is what was enforced.
    PolicyChanged,
    /// A firewall rule dropped it although the policies allow it or do not speak of it.
    HostFirewall,
    /// Nobody listens on the port.
    NoListener,
    /// The Service called has no ready endpoint.
    ServiceWithoutEndpoints,
    /// The kernel had no route.
    NoRoute,
    /// The reverse-path filter: the source address does not belong behind that interface.
    ReversePathFilter,
    /// A packet of a connection that conntrack does not know or holds to be invalid.
    ConnectionState,
    /// Not the loss of a new connection (a late segment of a closed one, a stray answer): not shown unless asked for.
    Noise,
    /// The objects or the evidence do not tell.
    Undecided,
}

/// How the kernel's act and the policies' verdict relate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "camelCase")]
pub enum Agreement {
    /// The policies deny it and an enforcer's drop was seen.
    Agrees,
    /// The policies admit it: no policy is to blame.
    PoliciesAllow,
    /// The kernel's act is not what the policies of the moment say; it is what they said before a change around that time, or after one that
    /// was told late.
    PolicyChanged {
        /// Which change.
        why: String,
    },
    /// The drop is none that an enforcer of policies makes, whatever the policies say.
    NotEnforcement,
    /// Cannot decide.
    CannotDecide {
        /// Why not.
        why: String,
    },
}

#[cfg(test)]
mod tests;
