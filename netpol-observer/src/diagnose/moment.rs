//! What is known of the moment of a drop, and how certain it is.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::cluster::{Kind, ObjectKey, Pod};
use crate::policy::Verdict;
use crate::timeline::{ChangeKind, Owner};

/// How far before a drop changes of policies and labels are looked at: whoever enforces them may be behind by so much.
pub const CHANGE_WINDOW: SignedDuration = SignedDuration::from_secs(10);

/// What is known of the moment of a drop: who had its addresses, what changed around it, and what is not known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moment {
    /// Whether the pods and policies of that time are known.
    pub past: PastKnown,
    /// The ends of which there is more to say than who they are; see [`How`].
    pub owners: Vec<Attributed>,
    /// Changes around the drop after which the policies said otherwise of this connection, the nearest to the drop first.
    pub changes: Vec<RecentChange>,
    /// Policies of kinds that the engine does not evaluate and that may concern the pods of this connection.
    pub unevaluated: Vec<Unevaluated>,
}

/// Whether the pods and policies of a time are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PastKnown {
    /// They are.
    #[default]
    Exact,
    /// The objects of some kinds were not known yet: there was no list of them.
    Syncing {
        /// Of which kinds there is no list yet; none when there is one of all by now, and what they say is taken for what was before.
        missing: Vec<Kind>,
    },
    /// What was so long ago is not kept any more. What was at the horizon is taken for what was before.
    BeforeHorizon {
        /// From when on the past is known.
        horizon: Timestamp,
    },
    /// The API server was not heard of then: what had changed by the time of the drop was told later, or is not told yet.
    Behind {
        /// On which kinds.
        kinds: Vec<Kind>,
        /// Since when, on the first of them.
        since: Timestamp,
    },
}

/// An address of the connection, and how it was decided who had it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributed {
    /// The address.
    pub ip: IpAddr,
    /// How.
    pub how: How,
}

/// How it was decided who had an address, where that is not just what the API server said at the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// The pod's own interface tells, against or before what is published of the address.
    Interface {
        /// The pod.
        pod: Arc<Pod>,
        /// Others that have the address by what is published.
        published: Vec<Arc<Pod>>,
    },
    /// The address was published after the drop.
    PublishedLater {
        /// The pod.
        pod: Arc<Pod>,
        /// How long after.
        after: SignedDuration,
    },
    /// The last pod that had the address was gone before the drop, and nobody has got it since.
    Gone {
        /// The pod.
        pod: Arc<Pod>,
        /// How long before.
        before: SignedDuration,
    },
    /// Several pods had it around that time, and nothing tells which of them it was. In the order in which they got it.
    Several(Vec<Owner>),
    /// It is an address of a pod, and it is not known of which.
    NotKnown,
}

/// A change after which the policies said otherwise of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecentChange {
    /// What changed: a policy, or a namespace or pod of which the labels did.
    pub key: ObjectKey,
    /// What happened to it.
    pub kind: ChangeKind,
    /// When it was told.
    pub when: Timestamp,
    /// From there to the drop; negative when it was told after the drop.
    pub before_drop: SignedDuration,
    /// What the policies said before.
    pub verdict_before: Verdict,
    /// What they said after.
    pub verdict_after: Verdict,
}

/// Policies of one kind that are not evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unevaluated {
    /// API group: `cilium.io`.
    pub group: Arc<str>,
    /// Kind: `CiliumNetworkPolicy`.
    pub kind: Arc<str>,
    /// How many may concern the pods; absent when they could not be counted.
    pub count: Option<usize>,
}

impl Moment {
    /// Whether everything is known exactly and there is nothing to say of it.
    pub fn is_plain(&self) -> bool {
        *self == Moment::default()
    }

    /// The change by which the kernel's drop is explained although the policies admit the connection: it was not enforced yet.
    pub fn not_yet_enforced(&self) -> Option<&RecentChange> {
        let nearest = self.changes.iter().find(|change| !change.is_later())?;
        (nearest.verdict_before == Verdict::Deny && nearest.verdict_after == Verdict::Allow).then_some(nearest)
    }

    /// The change that was told after the drop, and by which the policies deny the connection: it was enforced already.
    pub fn enforced_already(&self) -> Option<&RecentChange> {
        let nearest = self.changes.iter().find(|change| change.is_later())?;
        (nearest.verdict_before == Verdict::Allow && nearest.verdict_after == Verdict::Deny).then_some(nearest)
    }

    /// What the policies that are not evaluated are, in words: `3 CiliumNetworkPolicies are not evaluated`. Absent where there are none.
    pub fn not_evaluated(&self) -> Option<String> {
        let (last, others) = self.unevaluated.split_last()?;
        let mut words = others.iter().map(Unevaluated::to_string).collect::<Vec<_>>().join(", ");
        if !words.is_empty() {
            words += " and ";
        }
        let are = if others.is_empty() && last.count == Some(1) { "is" } else { "are" };
        let unknown = if self.unevaluated.iter().any(|kind| kind.count.is_none()) { "; they could not all be counted" } else { "" };
        Some(format!("{words}{last} {are} not evaluated{unknown}"))
    }

    /// Why the pods and policies of that time are not known, in words.
    pub fn why_inexact(&self) -> Option<String> {
        match &self.past {
            PastKnown::Exact => None,
            PastKnown::Syncing { missing } if missing.is_empty() => {
                Some("the agent was still syncing, and goes by what it found when it had".to_owned())
            }
            PastKnown::Syncing { missing } => {
                let kinds: Vec<String> = missing.iter().map(Kind::to_string).collect();
                Some(format!("the agent was still syncing: there is no list yet of {}", kinds.join(", ")))
            }
            PastKnown::Behind { kinds, since } => {
                let kinds: Vec<String> = kinds.iter().map(Kind::to_string).collect();
                Some(format!(
                    "the agent had not heard of the API server since {since}, and may have missed changes of {}",
                    kinds.join(", ")
                ))
            }
            PastKnown::BeforeHorizon { horizon } => Some(format!("the drop is older than what is remembered, which begins at {horizon}")),
        }
    }
}

impl RecentChange {
    /// Whether it was told after the drop.
    pub fn is_later(&self) -> bool {
        self.before_drop.is_negative()
    }
}

/// `NetworkPolicy shop/api changed 3 s before the drop`
impl fmt::Display for RecentChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, kind, before_drop, .. } = self;
        let what = match (key.kind, kind) {
            (Kind::Pod | Kind::Namespace, ChangeKind::Changed) => format!("the labels of {key} changed"),
            (_, ChangeKind::Added) => format!("{key} was added"),
            (_, ChangeKind::Removed) => format!("{key} was removed"),
            (_, ChangeKind::Changed) => format!("{key} changed"),
        };
        let side = if self.is_later() { "after" } else { "before" };
        write!(f, "{what} {} {side} the drop", Span(before_drop.abs()))
    }
}

/// `3 CiliumNetworkPolicies`, `1 EgressFirewall`
impl fmt::Display for Unevaluated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            Some(1) => write!(f, "1 {}", self.kind),
            Some(count) => write!(f, "{count} {}", plural(&self.kind)),
            None => f.write_str(&plural(&self.kind)),
        }
    }
}

fn plural(kind: &str) -> String {
    match kind.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{kind}s"),
    }
}

/// A time span for people: `0.4 s`, `3 s`, `2 m 5 s`.
#[derive(Clone, Copy, Debug)]
pub struct Span(pub SignedDuration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.0.as_millis().max(0);
        let (seconds, tenths) = (milliseconds / 1000, milliseconds % 1000 / 100);
        match seconds {
            0..10 if tenths > 0 => write!(f, "{seconds}.{tenths} s"),
            0 if milliseconds > 0 => write!(f, "{milliseconds} ms"),
            0..60 => write!(f, "{seconds} s"),
            _ => write!(f, "{} m {} s", seconds / 60, seconds % 60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        let texts =
            [0, 7, 99, 100, 1_000, 3_049, 9_960, 10_400, 59_999, 125_000].map(|ms| Span(SignedDuration::from_millis(ms)).to_string());
        assert_eq!(texts, ["0 s", "7 ms", "99 ms", "0.1 s", "1 s", "3 s", "9.9 s", "10 s", "59 s", "2 m 5 s"]);
    }

    #[test]
    fn what_is_not_evaluated_is_counted_by_kind() {
        let kind = |kind: &str, count| Unevaluated { group: "example.org".into(), kind: kind.into(), count };
        let words = |unevaluated: &[Unevaluated]| Moment { unevaluated: unevaluated.to_vec(), ..Moment::default() }.not_evaluated();
        assert_eq!(words(&[]), None);
        assert_eq!(words(&[kind("CiliumNetworkPolicy", Some(1))]).as_deref(), Some("1 CiliumNetworkPolicy is not evaluated"));
        assert_eq!(words(&[kind("CiliumNetworkPolicy", Some(3))]).as_deref(), Some("3 CiliumNetworkPolicies are not evaluated"));
        let both = [kind("EgressFirewall", Some(2)), kind("GlobalNetworkPolicy", None)];
        let expected = "2 EgressFirewalls and GlobalNetworkPolicies are not evaluated; they could not all be counted";
        assert_eq!(words(&both).as_deref(), Some(expected));
    }
}
