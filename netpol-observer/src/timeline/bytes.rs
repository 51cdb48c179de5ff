//! About how many bytes of memory an object takes.
//!
//! An upper estimate that needs no allocator to ask: every list and text is counted as an allocation of its own, a text that several
//! objects share once for each of them, and a tree of labels as nodes that are half full.

use std::sync::Arc;

use crate::cluster::{
    Cidr, ClusterPeer, ClusterPolicy, ClusterPort, ClusterRule, IpBlock, Labels, NetworkPolicy, Object, Operator, Origin, Peer, Pod,
    PolicyPort, PortNumber, Rule, Selector, Service, ServiceDns, Subject, TargetPort,
};

/// What an allocator adds to an allocation, and what it rounds up to.
const HEADER: usize = 8;
const GRAIN: usize = 16;

/// The two counters of an `Arc`.
const COUNTERS: usize = 2 * size_of::<usize>();

/// A node of a tree of labels: eleven pairs, the parent and two numbers.
const LABELS_NODE: usize = 11 * 2 * size_of::<Arc<str>>() + 16;
const LABELS_IN_NODE: usize = 6;

/// Bytes of one object with everything that hangs on it.
pub(super) fn of(object: &Object) -> usize {
    match object {
        Object::Namespace(o) => shared(&**o) + text(&o.name) + labels(&o.labels),
        Object::Node(o) => shared(&**o) + text(&o.name) + labels(&o.labels) + list(&o.addresses) + list(&o.pod_cidrs),
        Object::Pod(o) => shared(&**o) + pod(o),
        Object::Service(o) => shared(&**o) + service(o),
        Object::EndpointSlice(o) => {
            let names: usize = o.ports.iter().map(|port| text(&port.name)).sum();
            shared(&**o) + text(&o.namespace) + text(&o.name) + optional(&o.service) + list(&o.ports) + names + list(&o.backends)
        }
        Object::NetworkPolicy(o) => shared(&**o) + network_policy(o),
        Object::ClusterPolicy(o) => shared(&**o) + cluster_policy(o),
        Object::DomainName(o) => shared(&**o) + text(&o.name) + list(&o.addresses),
    }
}

fn allocation(bytes: usize) -> usize {
    (bytes + HEADER).next_multiple_of(GRAIN)
}

fn shared<T>(_: &T) -> usize {
    allocation(COUNTERS + size_of::<T>())
}

fn text(text: &str) -> usize {
    allocation(COUNTERS + text.len())
}

fn optional(name: &Option<Arc<str>>) -> usize {
    name.as_deref().map_or(0, text)
}

fn list<T>(items: &Vec<T>) -> usize {
    if items.capacity() == 0 { 0 } else { allocation(items.capacity() * size_of::<T>()) }
}

fn texts(items: &Vec<Arc<str>>) -> usize {
    list(items) + items.iter().map(|item| text(item)).sum::<usize>()
}

fn words(items: &Vec<String>) -> usize {
    list(items) + items.iter().map(|item| allocation(item.capacity())).sum::<usize>()
}

fn labels(labels: &Labels) -> usize {
    let nodes = labels.len().div_ceil(LABELS_IN_NODE) * allocation(LABELS_NODE);
    nodes + labels.iter().map(|(key, value)| text(key) + text(value)).sum::<usize>()
}

fn origin(origin: &Option<Origin>) -> usize {
    origin.as_ref().map_or(0, |origin| text(&origin.file))
}

fn pod(pod: &Pod) -> usize {
    let names: usize = pod.ports.iter().map(|port| optional(&port.name)).sum();
    let own = text(&pod.namespace) + text(&pod.name) + text(&pod.uid) + optional(&pod.node) + labels(&pod.labels);
    own + list(&pod.ips) + list(&pod.ports) + names + text(&pod.workload.kind) + text(&pod.workload.name) + origin(&pod.origin)
}

fn service(service: &Service) -> usize {
    let port_names = service.ports.iter().map(|port| {
        let target = match &port.target_port {
            TargetPort::Name(name) => text(name),
            TargetPort::Number(_) => 0,
        };
        optional(&port.name) + target
    });
    let dns = match &service.dns {
        ServiceDns::Name(name) => text(name),
        ServiceDns::ClusterIp | ServiceDns::Headless => 0,
    };
    let lists = list(&service.cluster_ips)
        + list(&service.external_ips)
        + list(&service.load_balancer_ips)
        + list(&service.ports)
        + port_names.sum::<usize>();
    text(&service.namespace) + text(&service.name) + lists + service.selector.as_ref().map_or(0, labels) + dns
}

fn network_policy(policy: &NetworkPolicy) -> usize {
    let rules: usize = [&policy.ingress, &policy.egress].into_iter().flatten().map(|rules| list(rules) + each(rules, rule)).sum();
    let own = text(&policy.namespace) + text(&policy.name) + optional(&policy.resource_version) + origin(&policy.origin);
    own + labels(&policy.labels)
        + labels(&policy.annotations)
        + selector(&policy.pod_selector)
        + rules
        + list(&policy.ignored_rules)
        + words(&policy.invalid)
}

fn cluster_policy(policy: &ClusterPolicy) -> usize {
    let subject = match &policy.subject {
        Subject::Namespaces(namespaces) => selector(namespaces),
        Subject::Pods { namespace, pod } => selector(namespace) + selector(pod),
        Subject::Invalid(why) => text(why),
    };
    let rules: usize = [&policy.ingress, &policy.egress].into_iter().map(|rules| list(rules) + each(rules, cluster_rule)).sum();
    let own = text(&policy.name) + optional(&policy.resource_version) + origin(&policy.origin);
    own + labels(&policy.labels) + labels(&policy.annotations) + subject + rules + words(&policy.invalid)
}

fn each<T>(items: &[T], bytes: impl Fn(&T) -> usize) -> usize {
    items.iter().map(bytes).sum()
}

fn rule(rule: &Rule) -> usize {
    list(&rule.peers) + each(&rule.peers, peer) + list(&rule.ports) + each(&rule.ports, policy_port) + origin(&rule.origin)
}

fn peer(peer: &Peer) -> usize {
    match peer {
        Peer::Pods { namespace, pod } => [namespace, pod].into_iter().flatten().map(selector).sum(),
        Peer::IpBlock(IpBlock { cidr: block, except }) => cidr(block) + list(except) + each(except, cidr),
        Peer::Invalid(why) => text(why),
    }
}

fn cluster_rule(rule: &ClusterRule) -> usize {
    let ports = list(&rule.ports) + each(&rule.ports, cluster_port);
    optional(&rule.name) + list(&rule.peers) + each(&rule.peers, cluster_peer) + ports + origin(&rule.origin)
}

fn cluster_peer(peer: &ClusterPeer) -> usize {
    match peer {
        ClusterPeer::Namespaces(of) | ClusterPeer::Nodes(of) => selector(of),
        ClusterPeer::Pods { namespace, pod } => selector(namespace) + selector(pod),
        ClusterPeer::Networks(ranges) => list(ranges) + each(ranges, cidr),
        ClusterPeer::DomainNames(names) => texts(names),
        ClusterPeer::Invalid(why) => text(why),
    }
}

fn cluster_port(port: &ClusterPort) -> usize {
    match port {
        ClusterPort::Port(port) => policy_port(port),
        ClusterPort::Named(name) | ClusterPort::Invalid(name) => text(name),
    }
}

fn policy_port(port: &PolicyPort) -> usize {
    match &port.port {
        PortNumber::Name(name) | PortNumber::Invalid(name) => text(name),
        PortNumber::Any | PortNumber::Number(_) | PortNumber::Range(..) => 0,
    }
}

fn cidr(range: &Cidr) -> usize {
    text(&range.text)
}

fn selector(selector: &Selector) -> usize {
    let operands = |operator: &Operator| match operator {
        Operator::Equals(value) | Operator::Invalid(value) => text(value),
        Operator::In(values) | Operator::NotIn(values) => texts(values),
        Operator::Exists | Operator::DoesNotExist => 0,
    };
    let terms: usize = selector.requirements.iter().map(|term| text(&term.key) + operands(&term.operator)).sum();
    list(&selector.requirements) + terms
}
