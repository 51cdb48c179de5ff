//! The evaluation core: one direction of one connection between two definite sides, through the tiers.
//!
//! What is not known (the owner of an address, the addresses of a name, a port that the packet does not show, the order of policies of
//! the same priority) leaves several readings. The walk keeps all of them: a direction is decided where every reading agrees.

use std::ops::{BitOr, BitOrAssign};

use crate::cluster::{Action, ClusterPolicy, Direction, NetworkPolicy, Pod, Tier};

use super::View;
use super::matching::{Match, Unknown};
use crate::policy::connection::{BaselineScope, Case, OtherProtocols, TiedPriorities, Who};

/// Outcome of one direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::policy) enum Outcome<'a> {
    /// Policies do not speak of it.
    NotSubject(Exempt),
    /// No rule of any tier decides, and no NetworkPolicy isolates the pod.
    NotIsolated,
    /// A rule admits it.
    Allowed(By<'a>),
    /// NetworkPolicies isolate the pod, and no rule admits it; or a Deny rule matches.
    Denied(By<'a>),
    /// Cannot decide.
    Undecided(Doubt),
}

/// What decided.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::policy) enum By<'a> {
    /// The NetworkPolicies that isolate the pod.
    NetworkPolicies,
    /// The rule at this index of a policy of the Admin or Baseline tier.
    Rule(&'a ClusterPolicy, usize),
    /// A setting of the profile.
    Profile,
}

/// Why policies do not speak of a side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::policy) enum Exempt {
    /// Outside the cluster.
    External,
    /// A node or a pod in its network.
    Node,
    /// Multicast, loopback and the like on either side.
    Special,
    /// The pod itself.
    Itself,
    /// From the node the pod runs on.
    OwnNode,
}

/// Why a direction cannot be decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::policy) enum Doubt {
    /// Something about the connection is not known.
    Missing(Unknown),
    /// The API does not say what policies mean for the protocol.
    Protocol,
    /// Policies of one tier and this priority decide differently.
    Tie(Tier, u16),
}

/// What may come of a tier: a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::policy) struct Possible(u8);

impl Possible {
    pub(in crate::policy) const ACCEPT: Possible = Possible(1);
    pub(in crate::policy) const DENY: Possible = Possible(2);
    pub(in crate::policy) const PASS: Possible = Possible(4);
    /// No rule matches.
    pub(in crate::policy) const NONE: Possible = Possible(8);

    pub(in crate::policy) fn of(action: Action) -> Self {
        match action {
            Action::Accept => Possible::ACCEPT,
            Action::Deny => Possible::DENY,
            Action::Pass => Possible::PASS,
        }
    }

    pub(in crate::policy) fn has(self, other: Possible) -> bool {
        self.0 & other.0 != 0
    }

    pub(in crate::policy) fn without(self, other: Possible) -> Self {
        Possible(self.0 & !other.0)
    }

    fn is_one(self) -> bool {
        self.0.is_power_of_two()
    }
}

impl BitOr for Possible {
    type Output = Possible;
    fn bitor(self, other: Possible) -> Possible {
        Possible(self.0 | other.0)
    }
}

impl BitOrAssign for Possible {
    fn bitor_assign(&mut self, other: Possible) {
        self.0 |= other.0;
    }
}

/// What one tier says.
#[derive(Clone, Copy, Debug)]
pub(in crate::policy) struct Said<'a> {
    pub(in crate::policy) tier: Tier,
    pub(in crate::policy) possible: Possible,
    /// The first rule that certainly matches.
    pub(in crate::policy) by: Option<RuleOf<'a>>,
    /// Why there is more than one possibility.
    pub(in crate::policy) doubt: Option<Doubt>,
    /// Policies of the tier that select the pod for this direction.
    pub(in crate::policy) policies: usize,
}

/// A rule with the policy it belongs to.
#[derive(Clone, Copy, Debug)]
pub(in crate::policy) enum RuleOf<'a> {
    NetworkPolicy(&'a NetworkPolicy, usize),
    Cluster(&'a ClusterPolicy, usize),
}

/// The tiers that were asked, in order, and what came of it.
#[derive(Clone, Debug)]
pub(in crate::policy) struct Walk<'a> {
    pub(in crate::policy) outcome: Outcome<'a>,
    tiers: [Option<Said<'a>>; 3],
}

impl<'a> Walk<'a> {
    pub(in crate::policy) fn tiers(&self) -> impl Iterator<Item = &Said<'a>> {
        self.tiers.iter().flatten()
    }
}

impl Outcome<'_> {
    /// Whether the connection passes in this direction; `None` when that cannot be decided.
    pub(in crate::policy) fn admits(self) -> Option<bool> {
        match self {
            Outcome::NotSubject(_) | Outcome::NotIsolated | Outcome::Allowed(_) => Some(true),
            Outcome::Denied(_) => Some(false),
            Outcome::Undecided(_) => None,
        }
    }
}

impl<'a> View<'a> {
    /// Judges one direction.
    pub(in crate::policy) fn judge(&self, case: &Case<'a>, direction: Direction) -> Outcome<'a> {
        self.walk(case, direction).outcome
    }

    /// Judges one direction, with what each tier says on the way.
    pub(in crate::policy) fn walk(&self, case: &Case<'a>, direction: Direction) -> Walk<'a> {
        let subject = match self.subject(case, direction) {
            Ok(subject) => subject,
            Err(outcome) => return Walk { outcome, tiers: [None; 3] },
        };
        let mut tiers = [None; 3];
        let (mut reached, mut doubt) = (Possible::default(), None);
        for (slot, tier) in tiers.iter_mut().zip([Tier::Admin, Tier::NetworkPolicy, Tier::Baseline]) {
            let said = match tier {
                Tier::NetworkPolicy => self.network_policies(case, direction, subject),
                Tier::Admin | Tier::Baseline => self.cluster_tier(case, direction, subject, tier),
            };
            *slot = Some(said);
            doubt = doubt.or(said.doubt);
            reached |= said.possible.without(Possible::PASS | Possible::NONE);
            if !said.possible.has(Possible::PASS | Possible::NONE) {
                return Walk { outcome: self.outcome(case, reached, said.by, doubt), tiers };
            }
        }
        // What no tier decides is admitted.
        let outcome =
            if reached.has(Possible::DENY) { self.outcome(case, reached | Possible::ACCEPT, None, doubt) } else { Outcome::NotIsolated };
        Walk { outcome, tiers }
    }

    fn outcome(&self, case: &Case<'_>, reached: Possible, by: Option<RuleOf<'a>>, doubt: Option<Doubt>) -> Outcome<'a> {
        let by = match by {
            Some(RuleOf::Cluster(policy, index)) => By::Rule(policy, index),
            Some(RuleOf::NetworkPolicy(..)) | None => By::NetworkPolicies,
        };
        if reached == Possible::ACCEPT {
            return Outcome::Allowed(by);
        }
        if !case.protocol.has_ports() {
            match self.profile.other_protocols {
                OtherProtocols::Undecided => return Outcome::Undecided(doubt.unwrap_or(Doubt::Protocol)),
                OtherProtocols::Admitted => return Outcome::Allowed(By::Profile),
                OtherProtocols::Denied => {}
            }
        }
        if reached == Possible::DENY { Outcome::Denied(by) } else { Outcome::Undecided(doubt.unwrap_or(Doubt::Missing(Unknown::Owner))) }
    }

    /// The NetworkPolicy tier: silent about a pod that none isolates, final for all others.
    fn network_policies(&self, case: &Case<'a>, direction: Direction, subject: &'a Pod) -> Said<'a> {
        let mut said = Said { tier: Tier::NetworkPolicy, possible: Possible::NONE, by: None, doubt: None, policies: 0 };
        // Whether NetworkPolicies apply to a pod's call to itself through a Service depends on the implementation: most admit it.
        if case.is_loop() {
            return said;
        }
        let mut missing = None;
        for policy in self.isolating(subject, direction) {
            said.policies += 1;
            for (index, rule) in policy.rules(direction).unwrap_or_default().iter().enumerate() {
                match self.rule(rule, &policy.namespace, direction, case) {
                    Match::Yes if said.by.is_none() => said.by = Some(RuleOf::NetworkPolicy(policy, index)),
                    Match::Unknown(what) => missing = Some(what),
                    Match::Yes | Match::No => {}
                }
            }
        }
        if said.policies == 0 {
            return said;
        }
        said.possible = match (said.by, missing) {
            (Some(_), _) => Possible::ACCEPT,
            (None, None) => Possible::DENY,
            (None, Some(what)) => {
                said.doubt = Some(Doubt::Missing(what));
                Possible::ACCEPT | Possible::DENY
            }
        };
        said
    }

    /// The Admin or the Baseline tier: policies by priority, of each the first rule that matches.
    fn cluster_tier(&self, case: &Case<'a>, direction: Direction, subject: &'a Pod, tier: Tier) -> Said<'a> {
        let mut said = Said { tier, possible: Possible::NONE, by: None, doubt: None, policies: 0 };
        if tier == Tier::Baseline && self.is_beyond_baseline(subject) {
            return said;
        }
        if !self.changes_cluster_policies() && self.compiled.is_silent(tier, case, direction, self.index, self.profile) {
            said.policies = self.compiled.tier_size(subject, tier, direction, self.index);
            return said;
        }
        let by_name = self.profile.tied_priorities == TiedPriorities::ByName;
        let mut rest = self.cluster_policies(subject, tier).into_iter().filter(|policy| !policy.rules(direction).is_empty()).peekable();
        while let Some(first) = rest.next() {
            said.policies += 1;
            let (mut possible, mut by, mut doubt) = self.cluster_rules(first, direction, case);
            while let Some(tied) = rest.next_if(|next| !by_name && next.priority == first.priority) {
                said.policies += 1;
                let (other, its_rule, its_doubt) = self.cluster_rules(tied, direction, case);
                let is_silent = possible.has(Possible::NONE) && other.has(Possible::NONE);
                possible = (possible | other).without(if is_silent { Possible::default() } else { Possible::NONE });
                (by, doubt) = (by.or(its_rule), doubt.or(its_doubt));
                if doubt.is_none() && !possible.is_one() {
                    doubt = Some(Doubt::Tie(tier, first.priority));
                }
            }
            let is_last = !possible.has(Possible::NONE);
            said.possible = said.possible.without(Possible::NONE) | possible;
            said.by = said.by.or(by);
            said.doubt = said.doubt.or(doubt);
            if is_last {
                break;
            }
        }
        said
    }

    /// What a policy of its own says: the first rule that certainly matches, and those before it that may.
    fn cluster_rules(
        &self,
        policy: &'a ClusterPolicy,
        direction: Direction,
        case: &Case<'a>,
    ) -> (Possible, Option<RuleOf<'a>>, Option<Doubt>) {
        let (mut possible, mut doubt) = (Possible::default(), None);
        for (index, rule) in policy.rules(direction).iter().enumerate() {
            match self.cluster_rule(rule, direction, case) {
                Match::Yes => {
                    possible |= Possible::of(rule.action);
                    return (possible, Some(RuleOf::Cluster(policy, index)), doubt);
                }
                Match::Unknown(what) => {
                    possible |= Possible::of(rule.action);
                    doubt = doubt.or(Some(Doubt::Missing(what)));
                }
                Match::No => {}
            }
        }
        (possible | Possible::NONE, None, doubt)
    }

    /// What a policy of its own certainly says, if anything.
    pub(in crate::policy) fn first_action(&self, policy: &'a ClusterPolicy, direction: Direction, case: &Case<'a>) -> Option<Action> {
        match self.cluster_rules(policy, direction, case) {
            (_, Some(RuleOf::Cluster(policy, index)), None) => policy.rules(direction).get(index).map(|rule| rule.action),
            _ => None,
        }
    }

    /// Whether the profile ends the Baseline tier for a pod that NetworkPolicies isolate in any direction.
    fn is_beyond_baseline(&self, subject: &'a Pod) -> bool {
        let is_isolated = |direction| !self.isolating(subject, direction).is_empty();
        self.profile.baseline == BaselineScope::PerPod && Direction::BOTH.into_iter().any(is_isolated)
    }

    /// The pod whose policies apply, or the outcome where none do.
    pub(in crate::policy) fn subject(&self, case: &Case<'a>, direction: Direction) -> Result<&'a Pod, Outcome<'a>> {
        let subject = case.sides(direction).0;
        if matches!(case.source.who, Who::Special) || case.destination.is_beyond_policies() {
            return Err(Outcome::NotSubject(Exempt::Special));
        }
        // Through its Service a pod reaches itself from outside: the Admin and Baseline tiers speak of that.
        if case.is_loop() && !case.by_service {
            return Err(Outcome::NotSubject(Exempt::Itself));
        }
        if direction == Direction::Ingress && case.comes_from_own_node(self.index) {
            return Err(Outcome::NotSubject(Exempt::OwnNode));
        }
        match subject.who {
            Who::Pod(pod) => Ok(pod),
            Who::Node(_) => Err(Outcome::NotSubject(Exempt::Node)),
            Who::External | Who::Special => Err(Outcome::NotSubject(Exempt::External)),
            // Whoever it is may be isolated, if there is any policy for this direction at all.
            Who::Unowned if self.speaks_of(direction) => Err(Outcome::Undecided(Doubt::Missing(Unknown::Owner))),
            Who::Unowned => Err(Outcome::NotIsolated),
        }
    }
}
