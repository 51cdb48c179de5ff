//! About how many bytes of memory an observation takes: an upper estimate that needs no allocator to ask.
//!
//! Objects of the index (pods, Services, nodes) are shared with it and counted as the pointers they are.

use crate::diagnose::{Agreement, Denial, How, Moment};
use crate::effect::Effect;
use crate::policy::{
    Admission, Condition, DirectionExplanation, Explanation, Fix, Manifest, NearMiss, PeerMiss, PortMiss, Remaining, RuleMiss, RuleRef,
    Turned,
};

use super::Observation;

/// What an allocator adds to an allocation on average.
const ALLOCATION: usize = 24;
/// A part of a policy that a fix has changed: rules with their peers and ports.
const RULE: usize = 512;
/// A piece of a JSON patch.
const PATCH: usize = 512;

/// Bytes of one observation with everything that hangs on it.
pub(super) fn of(observation: &Observation) -> usize {
    match observation {
        Observation::Denial(denial) => of_denial(denial),
        Observation::Amendment(amendment) => {
            // The versions before are kept by nobody else when it comes.
            let versions = amendment.earlier.iter().chain([&amendment.before, &amendment.denial]);
            text(&amendment.why) + versions.map(|denial| of_denial(denial)).sum::<usize>()
        }
        Observation::PolicyChange(effect) => of_effect(effect),
        Observation::Notice { message, .. } => text(message),
        Observation::Repeat { .. } | Observation::Undecodable | Observation::Ledger(_) => 0,
    }
}

fn of_denial(denial: &Denial) -> usize {
    let event = &denial.event;
    let who = &denial.who;
    let packet = event.filters.len() * (size_of_val(event.filters.as_slice()) + 2 * ALLOCATION)
        + event.interface.as_ref().map_or(0, |interface| text(&interface.name))
        + event.peer.as_ref().map_or(0, |peer| text(&peer.name) + peer.pod_uid.as_deref().map_or(0, text))
        + event.location.symbol.as_ref().map_or(0, |symbol| text(&symbol.name));
    let ends = who.service.as_ref().map_or(0, |call| list(&call.backends)) + list(&who.host_network) + list(&who.callers);
    let moment = denial.moment.as_ref().map_or(0, of_moment);
    let why = match &denial.diagnosis.agreement {
        Agreement::CannotDecide { why } => text(why),
        _ => 0,
    };
    size_of::<Denial>() + ALLOCATION + packet + ends + moment + explanation(&denial.explanation) + text(&denial.diagnosis.summary) + why
}

fn of_moment(moment: &Moment) -> usize {
    let Moment { past: _, owners, changes, unevaluated } = moment;
    let owners = sum(owners, |owner| match &owner.how {
        How::Several(owners) => list(owners),
        How::Interface { pod: _, published } => list(published),
        How::PublishedLater { .. } | How::Gone { .. } | How::NotKnown => 0,
    });
    owners + list(changes) + list(unevaluated)
}

fn of_effect(effect: &Effect) -> usize {
    let pairs = effect.pairs().map(|pair| size_of_val(pair) + list(&pair.ports) + sum(&pair.causes, |_| 2 * RULE));
    size_of::<Effect>() + size_of::<Turned>() + ALLOCATION + pairs.sum::<usize>()
}

fn explanation(explanation: &Explanation) -> usize {
    let Explanation { verdict: _, egress, ingress, fixes, remaining, notes } = explanation;
    direction(egress)
        + direction(ingress)
        + sum(fixes, fix)
        + sum(remaining, |remaining| match remaining {
            Remaining::ServiceWithoutEndpoints { service } | Remaining::DnsDenied { service } => text(service),
            Remaining::OtherEndpointsDenied { service, endpoints } => text(service) + sum(endpoints, |endpoint| text(endpoint)),
            Remaining::NoFix { direction: _, why } => text(why),
        })
        + sum(notes, |note| text(note))
}

fn direction(direction: &DirectionExplanation) -> usize {
    let subject = direction.subject.as_deref().map_or(0, text);
    let admission = match &direction.admission {
        Admission::NotSubject { why } | Admission::Undecided { why } => text(why),
        Admission::NotIsolated => 0,
        Admission::Allowed { by } => list(by),
        Admission::Denied { by: _, isolating, nearest } => sum(isolating, |policy| sum(&policy.rules, rule_miss)) + sum(nearest, near_miss),
    };
    subject + sum(&direction.tiers, |_| 0) + admission
}

fn rule_miss(rule: &RuleMiss) -> usize {
    sum(&rule.peers, |peer: &PeerMiss| sum(&peer.failed, condition)) + sum(&rule.ports, port_miss)
}

fn port_miss(port: &PortMiss) -> usize {
    text(&port.wants) + sum(&port.failed, condition)
}

fn near_miss(near: &NearMiss) -> usize {
    size_of::<RuleRef>() + sum(&near.peer, condition) + near.port.as_ref().map_or(0, port_miss)
}

/// Names are shared with the policies; texts made for the condition are not.
fn condition(condition: &Condition) -> usize {
    match condition {
        Condition::PodLabel { pod, .. } | Condition::NamedPortMissing { pod, .. } => text(pod),
        Condition::OutsideBlock { cidr, .. } | Condition::Family { cidr, .. } | Condition::BlockIgnoresPods { cidr, .. } => text(cidr),
        Condition::Excepted { cidr, except, .. } => text(cidr) + text(except),
        Condition::OutsideNetworks { networks, .. } => sum(networks, |network| text(network)),
        Condition::NotTheName { names, .. } => list(names),
        Condition::NamedPortNumber { stands_for, .. } => list(stands_for),
        Condition::Protocol { has } => text(has),
        Condition::NamespaceLabel { .. }
        | Condition::SameNamespace { .. }
        | Condition::NodeLabel { .. }
        | Condition::NotANode { .. }
        | Condition::NotAPod { .. }
        | Condition::PortNumber { .. }
        | Condition::NamedPortNeedsPod { .. }
        | Condition::NoPort
        | Condition::Invalid { .. } => 64,
    }
}

fn fix(fix: &Fix) -> usize {
    let manifest = match &fix.manifest {
        Manifest::NetworkPolicy(policy) => {
            let rules = |direction| policy.rules(direction).map_or(0, |rules| rules.len());
            size_of_val(&**policy) + RULE * (rules(crate::cluster::Direction::Ingress) + rules(crate::cluster::Direction::Egress))
        }
        Manifest::ClusterPolicy(policy) => {
            let rules = |direction| policy.rules(direction).len();
            size_of_val(&**policy) + RULE * (rules(crate::cluster::Direction::Ingress) + rules(crate::cluster::Direction::Egress))
        }
        Manifest::Labels { labels, .. } => 128 * labels.len(),
    };
    text(&fix.change) + manifest + PATCH * fix.patch.len() + sum(&fix.newly_admits, |admitted| text(admitted))
}

fn text(text: &str) -> usize {
    text.len() + ALLOCATION
}

fn list<T>(items: &[T]) -> usize {
    size_of_val(items) + ALLOCATION
}

/// A list with what hangs on each of its items.
fn sum<T>(items: &[T], each: impl Fn(&T) -> usize) -> usize {
    list(items) + items.iter().map(each).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::serve::testing::example;

    #[test]
    fn what_is_large_is_counted_as_large() {
        let small = of(&Observation::Denial(Arc::new(example())));
        // The example's explanation as JSON is some kilobytes long.
        assert!((2_000..20_000).contains(&small), "{small}");
        let mut large = example();
        large.explanation.notes.push("x".repeat(100_000));
        assert!(of(&Observation::Denial(Arc::new(large))) >= small + 100_000);
        let mut many = example();
        if let Admission::Denied { isolating, .. } = &mut many.explanation.ingress.admission {
            *isolating = vec![isolating[0].clone(); 1000];
        }
        assert!(of(&Observation::Denial(Arc::new(many))) > small + 1000 * 200);
    }
}
