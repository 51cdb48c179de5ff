//! Random changes of all kinds of objects, over the few names of `clusters`.

use std::sync::Arc;

use netpol_observer::cluster::{
    Action, Backend, ClusterPeer, ClusterPolicy, ClusterPolicyKind, ClusterPort, ClusterRule, DomainName, EndpointSlice, Index, Kind,
    Labels, Namespace, NetworkPolicy, Node, Object, Pod, PortNumber, Service, ServicePort, SlicePort, Subject, TargetPort, Tier,
};
use netpol_observer::flow::Protocol;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::clusters::{BLOCKS, NAMESPACES, OTHERS, SERVICE, labels, pod, pod_address, pod_address_6, policy, policy_port, selector};

/// What is told to a timeline.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Apply(Box<Object>),
    Delete(prop::sample::Index),
    /// A list of a kind: all that are there or some of them, and of these those of the kind.
    List(Kind, bool, Vec<Object>),
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => object().prop_map(|object| Step::Apply(Box::new(object))),
        3 => any::<prop::sample::Index>().prop_map(Step::Delete),
        1 => (select(&super::KINDS[..]), any::<bool>(), vec(object(), 0..4)).prop_map(|(kind, kept, new)| Step::List(kind, kept, new)),
    ]
}

/// What an index of `clusters` holds.
pub(crate) fn objects(index: &Index) -> Vec<Object> {
    let namespaces = index.namespaces().cloned().map(Object::from);
    let nodes = index.nodes().cloned().map(Object::from);
    let pods = index.pods().cloned().map(Object::from);
    let services = index.services().cloned().map(Object::from);
    let policies = index.policies().cloned().map(Object::from);
    namespaces.chain(nodes).chain(pods).chain(services).chain(policies).collect()
}

pub(crate) fn object() -> impl Strategy<Value = Object> {
    let numbered = (0..5_u8, policy()).prop_map(|(number, policy)| NetworkPolicy { name: format!("policy-{number}").into(), ..policy });
    prop_oneof![
        8 => any_pod().prop_map(Object::from),
        4 => numbered.prop_map(Object::from),
        2 => cluster_policy().prop_map(Object::from),
        1 => namespace().prop_map(Object::from),
        2 => node().prop_map(Object::from),
        2 => service().prop_map(Object::from),
        1 => slice().prop_map(Object::from),
        1 => domain_name().prop_map(Object::from),
    ]
}

pub(crate) fn namespace() -> impl Strategy<Value = Namespace> {
    (select(&NAMESPACES[..]), labels()).prop_map(|(name, mut labels)| {
        labels.insert("kubernetes.io/metadata.name".into(), name.into());
        Namespace { name: name.into(), labels }
    })
}

/// One of few names, made anew now and then, with an address that another may have.
fn any_pod() -> impl Strategy<Value = Pod> {
    (0..6_u8, 0..8_u8, select(vec!["", "another"]), any::<bool>(), pod()).prop_map(|(number, address, uid, ready, pod)| {
        let ips = if pod.host_network {
            vec![OTHERS[usize::from(address) % 2].parse().unwrap()]
        } else {
            vec![pod_address(address), pod_address_6(address)]
        };
        Pod { name: format!("pod-{number}").into(), uid: uid.into(), ips, ready, ..pod }
    })
}

fn node() -> impl Strategy<Value = Node> {
    (1..4_u8, 0..2_usize, labels()).prop_map(|(number, address, labels)| Node {
        name: format!("node-{number}").into(),
        labels,
        addresses: vec![OTHERS[address].parse().unwrap()],
        pod_cidrs: vec!["10.0.0.0/24".parse().unwrap()],
    })
}

fn service() -> impl Strategy<Value = Service> {
    let port = (select(vec![80_u16, 8080]), option::of(select(vec![53_u16, 80]))).prop_map(|(target, node_port)| ServicePort {
        name: None,
        port: 80,
        protocol: Protocol::Tcp,
        target_port: TargetPort::Number(target),
        node_port,
    });
    let other = || option::weighted(0.2, 0..8_u8);
    let parts = (select(vec!["blue", "green"]), any::<bool>(), other(), other(), vec(port, 1..3), labels());
    parts.prop_map(|(name, has_address, external, balancer, ports, selector)| Service {
        namespace: "east".into(),
        name: name.into(),
        cluster_ips: has_address.then(|| SERVICE.parse().unwrap()).into_iter().collect(),
        external_ips: external.map(pod_address).into_iter().collect(),
        load_balancer_ips: balancer.map(pod_address).into_iter().collect(),
        ports,
        selector: (!selector.is_empty()).then_some(selector),
        publish_not_ready: false,
        dns: Default::default(),
    })
}

fn slice() -> impl Strategy<Value = EndpointSlice> {
    (0..2_u8, vec((0..8_u8, any::<bool>()), 0..3)).prop_map(|(number, backends)| EndpointSlice {
        namespace: "east".into(),
        name: format!("slice-{number}").into(),
        service: Some("blue".into()),
        ports: vec![SlicePort { name: "".into(), port: 8080, protocol: Protocol::Tcp }],
        backends: backends.into_iter().map(|(address, ready)| Backend { ip: pod_address(address), ready }).collect(),
    })
}

fn domain_name() -> impl Strategy<Value = DomainName> {
    let addresses = vec(prop_oneof![Just("203.0.113.7".parse().unwrap()), (0..8_u8).prop_map(pod_address)], 0..3);
    addresses.prop_map(|addresses| DomainName { name: "api.example.com".into(), addresses })
}

pub(crate) fn cluster_policy() -> impl Strategy<Value = ClusterPolicy> {
    let subject = prop_oneof![
        selector().prop_map(Subject::Namespaces),
        (selector(), selector()).prop_map(|(namespace, pod)| Subject::Pods { namespace, pod }),
    ];
    let kind = select(vec![
        ClusterPolicyKind::AdminNetworkPolicy,
        ClusterPolicyKind::BaselineAdminNetworkPolicy,
        ClusterPolicyKind::ClusterNetworkPolicy,
    ]);
    let parts = (kind, 0..3_u8, any::<bool>(), 0..3_u16, subject, vec(rule(false), 0..3), vec(rule(true), 0..3));
    parts.prop_map(|(kind, number, is_admin, priority, subject, ingress, egress)| {
        let is_baseline = kind == ClusterPolicyKind::BaselineAdminNetworkPolicy;
        let is_admin = kind == ClusterPolicyKind::AdminNetworkPolicy || (!is_baseline && is_admin);
        ClusterPolicy {
            kind,
            name: if is_baseline { "default".into() } else { format!("policy-{number}").into() },
            resource_version: None,
            labels: Labels::new(),
            annotations: Labels::new(),
            tier: if is_admin { Tier::Admin } else { Tier::Baseline },
            priority: if is_baseline { 0 } else { priority },
            subject,
            ingress,
            egress,
            invalid: Vec::new(),
            origin: None,
        }
    })
}

fn rule(is_egress: bool) -> impl Strategy<Value = ClusterRule> {
    let action = select(vec![Action::Accept, Action::Deny, Action::Pass]);
    // Here ports by name have no protocol.
    let port = policy_port().prop_map(|port| match port.port {
        PortNumber::Name(name) => ClusterPort::Named(name),
        _ => ClusterPort::Port(port),
    });
    let ports = vec(port, 0..2);
    (action, vec(peer(), 1..3), ports).prop_map(move |(action, mut peers, ports)| {
        if !is_egress {
            peers.retain(|peer| matches!(peer, ClusterPeer::Namespaces(_) | ClusterPeer::Pods { .. }));
        } else if action != Action::Accept {
            peers.retain(|peer| !matches!(peer, ClusterPeer::DomainNames(_)));
        }
        ClusterRule { name: None, action, peers, ports, origin: None }
    })
}

fn peer() -> impl Strategy<Value = ClusterPeer> {
    let networks = vec(select(&BLOCKS[..]), 1..3);
    prop_oneof![
        selector().prop_map(ClusterPeer::Namespaces),
        (selector(), selector()).prop_map(|(namespace, pod)| ClusterPeer::Pods { namespace, pod }),
        selector().prop_map(ClusterPeer::Nodes),
        networks.prop_map(|ranges| ClusterPeer::Networks(ranges.into_iter().map(|range| range.parse().unwrap()).collect())),
        Just(ClusterPeer::DomainNames(vec![Arc::from("api.example.com")])),
    ]
}
