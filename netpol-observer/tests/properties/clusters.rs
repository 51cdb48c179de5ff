//! Random clusters of few names, so that selectors meet pods.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use netpol_observer::cluster::{
    ContainerPort, Index, IpBlock, Labels, Namespace, NetworkPolicy, Node, Operator, Peer, Pod, PodPhase, PolicyPort, PortNumber,
    Requirement, Rule, Selector, Service, ServicePort, TargetPort, Workload,
};
use netpol_observer::flow::Protocol;
use netpol_observer::identify::{Identity, ServiceCall, party};
use netpol_observer::policy::Connection;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

pub(crate) const NAMESPACES: [&str; 3] = ["east", "north", "west"];
const KEYS: [&str; 4] = ["app", "pod-template-hash", "tier", "version"];
const VALUES: [&str; 3] = ["blue", "green", "red"];
const PORT_NAMES: [&str; 2] = ["http", "metrics"];
const PORTS: [u16; 4] = [53, 80, 8080, 65535];
pub(crate) const SERVICE: &str = "10.96.0.10";
pub(crate) const OTHERS: [&str; 8] =
    ["192.168.0.1", "192.168.0.2", "203.0.113.7", "10.0.0.99", "fd00::63", "2001:db8::7", "169.254.169.254", "224.0.0.1"];
pub(crate) const BLOCKS: [&str; 7] =
    ["10.0.0.0/24", "10.0.0.4/30", "0.0.0.0/0", "203.0.113.9/24", "192.168.0.0/16", "fd00::/64", "169.254.169.254/32"];

/// A connection by addresses, before it is known whose they are.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    source: IpAddr,
    destination: IpAddr,
    protocol: Protocol,
    port: Option<u16>,
}

impl Call {
    pub(crate) fn of(&self, index: &Index) -> Connection {
        let (source, destination) = (party(self.source, index), party(self.destination, index));
        let service = match &destination.identity {
            Identity::Service(service) => {
                let port = service.ports.iter().find(|port| Some(port.port) == self.port && port.protocol == self.protocol);
                Some(ServiceCall {
                    service: service.clone(),
                    ip: destination.ip,
                    port: self.port,
                    port_name: None,
                    backends: port.map(|port| index.backends(service, port)).unwrap_or_default(),
                })
            }
            _ => None,
        };
        Connection { source, destination, protocol: self.protocol, port: self.port, service }
    }
}

/// Both ends of one family, most of them pods.
pub(crate) fn connection() -> impl Strategy<Value = Call> {
    let end = prop_oneof![
        4 => (0..8_u8).prop_map(pod_address),
        1 => (0..8_u8).prop_map(pod_address_6),
        1 => select(&OTHERS[..]).prop_map(|text| text.parse().unwrap()),
        1 => Just(SERVICE.parse().unwrap()),
    ];
    let protocol = prop_oneof![6 => select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp]), 1 => Just(Protocol::Icmp)];
    let port = prop_oneof![8 => select(&PORTS[..]).prop_map(Some), 1 => Just(None)];
    (end.clone(), end, protocol, port)
        .prop_filter("one family", |(source, destination, ..): &(IpAddr, IpAddr, _, _)| source.is_ipv4() == destination.is_ipv4())
        .prop_map(|(source, destination, protocol, port)| Call {
            source,
            destination,
            protocol,
            port: port.filter(|_| protocol.has_ports()),
        })
}

pub(crate) fn cluster() -> impl Strategy<Value = Index> {
    let namespaces = vec(labels(), NAMESPACES.len());
    (namespaces, vec(pod(), 1..8), vec(policy(), 0..6)).prop_map(|(namespaces, pods, policies)| {
        let mut index = Index::default();
        for (name, mut labels) in NAMESPACES.into_iter().zip(namespaces) {
            labels.insert("kubernetes.io/metadata.name".into(), name.into());
            index.apply(Namespace { name: name.into(), labels });
        }
        for number in 1..=2_u8 {
            index.apply(Node {
                name: format!("node-{number}").into(),
                labels: Labels::new(),
                addresses: vec![IpAddr::from([192, 168, 0, number])],
                pod_cidrs: vec!["10.0.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()],
            });
        }
        for (number, pod) in (0..).zip(pods) {
            let ips =
                if pod.host_network { vec![IpAddr::from([192, 168, 0, 1])] } else { vec![pod_address(number), pod_address_6(number)] };
            index.apply(Pod { name: format!("pod-{number}").into(), ips, ..pod });
        }
        for (number, policy) in policies.into_iter().enumerate() {
            index.apply(NetworkPolicy { name: format!("policy-{number}").into(), ..policy });
        }
        let port = ServicePort { name: None, port: 80, protocol: Protocol::Tcp, target_port: TargetPort::Number(8080), node_port: None };
        index.apply(Service {
            namespace: "east".into(),
            name: "blue".into(),
            cluster_ips: vec![SERVICE.parse().unwrap()],
            external_ips: Vec::new(),
            load_balancer_ips: Vec::new(),
            ports: vec![port],
            selector: Some(Labels::from([("app".into(), "blue".into())])),
            publish_not_ready: false,
            dns: Default::default(),
        });
        index
    })
}

/// Two pods of a number have one address.
pub(crate) fn pod_address(number: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, 1 + number % 6])
}

pub(crate) fn pod_address_6(number: u8) -> IpAddr {
    IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1 + u16::from(number)])
}

pub(crate) fn pod() -> impl Strategy<Value = Pod> {
    let port = (select(&PORT_NAMES[..]), select(&PORTS[..]), protocol());
    let port = port.prop_map(|(name, port, protocol)| ContainerPort { name: Some(name.into()), port, protocol });
    let workload = select(&VALUES[..]).prop_map(|name| Workload { kind: "Deployment".into(), name: name.into() });
    let phase = prop_oneof![8 => Just(PodPhase::Active), 1 => Just(PodPhase::Terminated)];
    let parts = (namespace(), labels(), vec(port, 0..3), workload, phase, prop::bool::weighted(0.1), select(vec!["node-1", "node-2"]));
    parts.prop_map(|(namespace, labels, ports, workload, phase, host_network, node)| Pod {
        namespace,
        name: "".into(),
        uid: "".into(),
        labels,
        ips: Vec::new(),
        node: Some(node.into()),
        host_network,
        phase,
        ready: true,
        deleting: false,
        ports,
        workload,
        origin: None,
    })
}

pub(crate) fn policy() -> impl Strategy<Value = NetworkPolicy> {
    let rules = || option::weighted(0.7, vec(rule(), 0..4));
    (namespace(), selector(), rules(), rules()).prop_map(|(namespace, pod_selector, ingress, egress)| {
        let written = [&ingress, &egress].into_iter().flatten().flatten();
        let is_invalid = |rule: &Rule| rule.peers.iter().any(|peer| matches!(peer, Peer::Invalid(_)));
        let invalid = if written.into_iter().any(is_invalid) { vec!["a peer: made to be invalid".to_owned()] } else { Vec::new() };
        NetworkPolicy { namespace, pod_selector, ingress, egress, invalid, ..NetworkPolicy::default() }
    })
}

pub(crate) fn rule() -> impl Strategy<Value = Rule> {
    (vec(peer(), 0..3), vec(policy_port(), 0..3)).prop_map(|(peers, ports)| Rule { peers, ports, origin: None })
}

fn peer() -> impl Strategy<Value = Peer> {
    let pods = (option::of(selector()), option::of(selector()));
    let pods = pods.prop_map(|(namespace, pod)| {
        // Neither would be no valid peer.
        let pod = if namespace.is_none() { Some(pod.unwrap_or_default()) } else { pod };
        Peer::Pods { namespace, pod }
    });
    let block = (select(&BLOCKS[..]), any::<bool>()).prop_map(|(cidr, has_except)| {
        let cidr: IpNet = cidr.parse().unwrap();
        let upper_half = cidr.trunc().subnets(cidr.prefix_len() + 1).ok().and_then(|mut halves| halves.nth(1));
        Peer::IpBlock(IpBlock { cidr: cidr.into(), except: upper_half.into_iter().filter(|_| has_except).map(Into::into).collect() })
    });
    let invalid = Just(Peer::Invalid("made to be invalid".into()));
    prop_oneof![12 => pods, 6 => block, 1 => invalid]
}

pub(crate) fn policy_port() -> impl Strategy<Value = PolicyPort> {
    let number = prop_oneof![
        1 => Just(PortNumber::Any),
        4 => select(&PORTS[..]).prop_map(PortNumber::Number),
        1 => Just(PortNumber::Range(60, 9000)),
        2 => select(&PORT_NAMES[..]).prop_map(|name| PortNumber::Name(name.into())),
    ];
    (protocol(), number).prop_map(|(protocol, port)| PolicyPort { protocol, port })
}

pub(crate) fn selector() -> impl Strategy<Value = Selector> {
    vec(requirement(), 0..3).prop_map(|requirements| Selector { requirements })
}

fn requirement() -> impl Strategy<Value = Requirement> {
    let value = || select(&VALUES[..]).prop_map(Arc::<str>::from);
    let operator = prop_oneof![
        4 => value().prop_map(|value| Operator::In(vec![value])),
        1 => vec(value(), 1..3).prop_map(Operator::In),
        1 => vec(value(), 1..3).prop_map(Operator::NotIn),
        1 => Just(Operator::Exists),
        1 => Just(Operator::DoesNotExist),
    ];
    (select(&KEYS[..]), operator).prop_map(|(key, operator)| Requirement { key: key.into(), operator })
}

pub(crate) fn labels() -> impl Strategy<Value = Labels> {
    prop::collection::btree_map(select(&KEYS[..]).prop_map(Arc::from), select(&VALUES[..]).prop_map(Arc::from), 0..4)
}

fn namespace() -> impl Strategy<Value = Arc<str>> {
    select(&NAMESPACES[..]).prop_map(Arc::from)
}

fn protocol() -> impl Strategy<Value = Protocol> {
    select(vec![Protocol::Tcp, Protocol::Tcp, Protocol::Udp, Protocol::Sctp])
}
