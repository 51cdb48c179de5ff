//! Whether everything that one rule speaks of another one speaks of too, whatever pods there are.
//!
//! Told from what is written: a term of a selector follows from a term for the same key. That never holds a rule for covered that is not;
//! that one rule is covered by two others together is not seen.

use std::sync::Arc;

use ipnet::IpNet;

use crate::cluster::{Cidr, Operator, PolicyPort, PortNumber, Requirement, Selector};

use super::view::{Pods, Ports, Reach, RuleView, Scope};

/// Label with the name of the namespace that every namespace carries.
pub(super) const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Whether all connections that `inner` matches are matched by `outer`, for pods that both policies select.
pub(super) fn rule(inner: &RuleView<'_>, outer: &RuleView<'_>) -> bool {
    inner.direction == outer.direction && !inner.is_invalid() && !outer.is_invalid() && ports(inner, outer) && peers(inner, outer)
}

/// Whether the ports of `inner` are among those of `outer`.
pub(super) fn ports(inner: &RuleView<'_>, outer: &RuleView<'_>) -> bool {
    outer.ports.is_empty()
        || (!inner.ports.is_empty() && inner.ports.iter().all(|port| outer.ports.iter().any(|other| ports_within(port, other))))
}

fn peers(inner: &RuleView<'_>, outer: &RuleView<'_>) -> bool {
    !inner.peers.is_empty() && inner.peers.iter().all(|(_, peer)| outer.peers.iter().any(|(_, other)| reach(peer, other)))
}

/// Whether everybody `inner` speaks of, `outer` speaks of.
pub(super) fn reach(inner: &Reach<'_>, outer: &Reach<'_>) -> bool {
    match (inner, outer) {
        (Reach::Invalid, _) | (_, Reach::Invalid) => false,
        (_, Reach::Any) => true,
        (Reach::Pods(inner), Reach::Pods(outer)) => pods(inner, outer),
        (Reach::Addresses { cidr, except }, Reach::Addresses { cidr: outer, except: holes }) => addresses(cidr, except, outer, holes),
        (Reach::Nodes(inner), Reach::Nodes(outer)) => selector(inner, outer),
        (Reach::Domain(inner), Reach::Domain(outer)) => domain(inner, outer),
        _ => false,
    }
}

/// Whether all pods of `inner` are pods of `outer`.
pub(super) fn pods(inner: &Pods<'_>, outer: &Pods<'_>) -> bool {
    let pod = outer.pod.is_none_or(|outer| match inner.pod {
        Some(inner) => selector(inner, outer),
        None => outer.requirements.is_empty(),
    });
    pod && scope(inner.scope, outer.scope)
}

fn scope(inner: Scope<'_>, outer: Scope<'_>) -> bool {
    match (inner, outer) {
        (Scope::Own(inner), Scope::Own(outer)) => inner == outer,
        (Scope::Own(inner), Scope::Matching(outer)) => outer.requirements.iter().all(|term| follows(&[named(inner)], term)),
        (Scope::Matching(inner), Scope::Own(outer)) => follows(&inner.requirements, &named(outer)),
        (Scope::Matching(inner), Scope::Matching(outer)) => selector(inner, outer),
    }
}

fn named(namespace: &Arc<str>) -> Requirement {
    Requirement { key: NAMESPACE_NAME_LABEL.into(), operator: Operator::Equals(namespace.clone()) }
}

/// Whether whatever `inner` matches, `outer` matches.
pub(super) fn selector(inner: &Selector, outer: &Selector) -> bool {
    outer.requirements.iter().all(|term| follows(&inner.requirements, term))
}

fn follows(from: &[Requirement], term: &Requirement) -> bool {
    from.iter().filter(|given| given.key == term.key).any(|given| operator_follows(&given.operator, &term.operator))
}

fn operator_follows(given: &Operator, wanted: &Operator) -> bool {
    use Operator::{DoesNotExist, Equals, Exists, In, Invalid, NotIn};
    let one = |operator: &Operator| match operator {
        Equals(value) => Some(vec![value.clone()]),
        In(values) => Some(values.clone()),
        _ => None,
    };
    match (given, wanted) {
        (Invalid(_), _) | (_, Invalid(_)) => false,
        (_, Equals(_) | In(_)) => match (one(given), one(wanted)) {
            (Some(given), Some(wanted)) => given.iter().all(|value| wanted.contains(value)),
            _ => false,
        },
        (NotIn(given), NotIn(wanted)) => wanted.iter().all(|value| given.contains(value)),
        (DoesNotExist, NotIn(_)) => true,
        (_, NotIn(wanted)) => one(given).is_some_and(|given| !given.iter().any(|value| wanted.contains(value))),
        (given, Exists) => matches!(given, Equals(_) | In(_) | Exists),
        (given, DoesNotExist) => matches!(given, DoesNotExist),
    }
}

fn addresses(cidr: &Cidr, except: &[Cidr], outer: &Cidr, holes: &[Cidr]) -> bool {
    contains(outer.net, cidr.net)
        && holes.iter().all(|hole| !intersect(hole.net, cidr.net) || except.iter().any(|own| contains(own.net, hole.net)))
}

/// Whether `inner` lies in `outer`, host bits aside.
pub(super) fn contains(outer: IpNet, inner: IpNet) -> bool {
    outer.trunc().contains(&inner.trunc())
}

/// Whether two ranges have an address in common; then one lies in the other.
pub(super) fn intersect(one: IpNet, other: IpNet) -> bool {
    contains(one, other) || contains(other, one)
}

/// `*.` is one or more labels, and not the name itself.
fn domain(inner: &str, outer: &str) -> bool {
    match outer.strip_prefix('*') {
        Some(suffix) => inner == outer || inner.strip_prefix('*').unwrap_or(inner).len() > suffix.len() && inner.ends_with(suffix),
        None => inner == outer,
    }
}

fn ports_within(inner: &Ports<'_>, outer: &Ports<'_>) -> bool {
    match (inner, outer) {
        (Ports::Port(inner), Ports::Port(outer)) => port_within(inner, outer),
        (Ports::Named(inner), Ports::Named(outer)) => inner == outer,
        (Ports::Port(PolicyPort { port: PortNumber::Name(inner), .. }), Ports::Named(outer)) => inner == *outer,
        _ => false,
    }
}

fn port_within(inner: &PolicyPort, outer: &PolicyPort) -> bool {
    inner.protocol == outer.protocol
        && match (&inner.port, &outer.port) {
            (PortNumber::Invalid(_), _) | (_, PortNumber::Invalid(_)) => false,
            (_, PortNumber::Any) => true,
            (PortNumber::Name(inner), PortNumber::Name(outer)) => inner == outer,
            (inner, outer) => match (numbers(inner), numbers(outer)) {
                (Some((from, to)), Some((outer_from, outer_to))) => outer_from <= from && to <= outer_to,
                _ => false,
            },
        }
}

/// The numbers of an entry, first and last.
pub(super) fn numbers(port: &PortNumber) -> Option<(u16, u16)> {
    match port {
        PortNumber::Number(number) => Some((*number, *number)),
        PortNumber::Range(from, to) => Some((*from, *to)),
        PortNumber::Any => Some((1, u16::MAX)),
        PortNumber::Name(_) | PortNumber::Invalid(_) => None,
    }
}

/// Whether two rules certainly have a port in common.
pub(super) fn ports_meet(one: &RuleView<'_>, other: &RuleView<'_>) -> bool {
    let meet = |a: &Ports<'_>, b: &Ports<'_>| match (a, b) {
        (Ports::Port(a), Ports::Port(b)) if a.protocol == b.protocol => match (numbers(&a.port), numbers(&b.port)) {
            (Some((from, to)), Some((other_from, other_to))) => from.max(other_from) <= to.min(other_to),
            _ => a.port == b.port,
        },
        (Ports::Named(a), Ports::Named(b)) => a == b,
        _ => false,
    };
    one.ports.is_empty() || other.ports.is_empty() || one.ports.iter().any(|a| other.ports.iter().any(|b| meet(a, b)))
}
