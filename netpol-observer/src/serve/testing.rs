//! Denials made by hand, for the tests of this module.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

use super::{Item, Key, Route, Summary};
use crate::cluster::{
    ContainerPort, Direction, Kind, Labels, NetworkPolicy, Node, ObjectKey, Operator, Pod, PodPhase, Requirement, Service, ServicePort,
    TargetPort, Workload,
};
use crate::diagnose::{Agreement, Class, Denial, Diagnosis};
use crate::effect::{ChangeKind, Effect, EffectId};
use crate::flow::{
    Conntrack, DropEvent, Flow, FoldId, Hook, HookFunction, Interface, Location, Peer, Protocol, Reason, Symbol, TcpFlags, Tunnel,
    TunnelKind, Tuple,
};
use crate::identify::{Identity, Party, ServiceCall, TunnelEnds, Who};
use crate::policy::{
    Admission, Cause, Condition, Difference, DirectionExplanation, Explanation, Fix, IsolatingPolicy, NearMiss, Pair, PairEnd, Pairs,
    PeerMiss, PolicyRef, PortMiss, PortRange, RuleMiss, RuleRef, Ruling, Turned, Verdict,
};

/// 14:02:11.482 UTC and `seconds` later.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millisecond(1_795_442_531_482 + 1000 * seconds).unwrap()
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| (Arc::from(*key), Arc::from(*value))).collect()
}

pub(crate) fn pod(namespace: &str, name: &str, address: &str, pairs: &[(&str, &str)]) -> Arc<Pod> {
    Arc::new(Pod {
        namespace: namespace.into(),
        name: name.into(),
        uid: "".into(),
        labels: labels(pairs),
        ips: vec![ip(address)],
        node: Some("node-2".into()),
        host_network: false,
        phase: PodPhase::Active,
        ready: true,
        deleting: false,
        ports: vec![ContainerPort { name: Some("metrics".into()), port: 9090, protocol: Protocol::Tcp }],
        workload: Workload { kind: "Deployment".into(), name: name.split('-').next().unwrap().into() },
        origin: None,
    })
}

pub(crate) fn party(pod: &Arc<Pod>) -> Party {
    Party { ip: pod.ips[0], identity: Identity::Pod(Arc::clone(pod)) }
}

pub(crate) fn external(address: &str) -> Party {
    Party { ip: ip(address), identity: Identity::External }
}

pub(crate) fn node(name: &str, address: &str) -> Party {
    let node = Node { name: name.into(), labels: Labels::new(), addresses: vec![ip(address)], pod_cidrs: vec![] };
    Party { ip: ip(address), identity: Identity::Node(Arc::new(node)) }
}

pub(crate) fn web() -> Arc<Pod> {
    pod("shop", "web-7d9f", "10.244.1.5", &[("app", "web")])
}

pub(crate) fn api() -> Arc<Pod> {
    pod("shop", "api-5c4b", "10.244.2.7", &[("app", "api")])
}

pub(crate) fn api_service() -> Arc<Service> {
    Arc::new(Service {
        namespace: "shop".into(),
        name: "api".into(),
        cluster_ips: vec![ip("10.96.0.10")],
        external_ips: vec![],
        load_balancer_ips: vec![],
        ports: vec![ServicePort {
            name: Some("http".into()),
            port: 80,
            protocol: Protocol::Tcp,
            target_port: TargetPort::Number(8080),
            node_port: None,
        }],
        selector: Some(labels(&[("app", "api")])),
        publish_not_ready: false,
        dns: Default::default(),
    })
}

pub(crate) fn policy(name: &str) -> PolicyRef {
    PolicyRef { kind: "NetworkPolicy", namespace: "shop".into(), name: name.into(), resource_version: None, origin: None }
}

pub(crate) fn wants(key: &str, value: &str) -> Requirement {
    Requirement { key: key.into(), operator: Operator::In(vec![value.into()]) }
}

pub(crate) fn wants_frontend() -> Condition {
    Condition::PodLabel { wants: wants("app", "frontend"), pod: "shop/web-7d9f".into(), has: Some("web".into()) }
}

pub(crate) fn near(policy: &PolicyRef, direction: Direction, index: usize, peer: Vec<Condition>, port: Option<PortMiss>) -> NearMiss {
    let distance = peer.len() + port.as_ref().map_or(0, |port| port.failed.len());
    NearMiss { rule: RuleRef { policy: policy.clone(), direction, index, name: None, action: None, origin: None }, distance, peer, port }
}

pub(crate) fn metrics_miss() -> PortMiss {
    let failed = vec![Condition::NamedPortNumber { name: "metrics".into(), stands_for: vec![9090], has: 8080 }];
    PortMiss { index: 0, wants: "metrics/TCP".into(), failed }
}

/// What the ingress policy of the example says.
pub(crate) fn denied_ingress() -> DirectionExplanation {
    let frontend = policy("api-allow-frontend");
    DirectionExplanation {
        tiers: Vec::new(),
        direction: Direction::Ingress,
        subject: Some("shop/api-5c4b".into()),
        admission: Admission::Denied {
            by: None,
            isolating: vec![IsolatingPolicy {
                policy: frontend.clone(),
                rules: vec![
                    RuleMiss { index: 0, origin: None, peers: vec![PeerMiss { index: 0, failed: vec![wants_frontend()] }], ports: vec![] },
                    RuleMiss { index: 1, origin: None, peers: vec![], ports: vec![metrics_miss()] },
                ],
            }],
            nearest: vec![
                near(&frontend, Direction::Ingress, 0, vec![wants_frontend()], None),
                near(&frontend, Direction::Ingress, 1, vec![], Some(metrics_miss())),
            ],
        },
    }
}

pub(crate) fn not_isolated(direction: Direction, subject: &str) -> DirectionExplanation {
    DirectionExplanation { direction, subject: Some(subject.into()), tiers: Vec::new(), admission: Admission::NotIsolated }
}

pub(crate) fn fix(direction: Direction, policy: Option<PolicyRef>, change: &str, admits: &[&str]) -> Fix {
    Fix {
        direction,
        policy,
        change: change.into(),
        manifest: crate::policy::Manifest::NetworkPolicy(Arc::new(NetworkPolicy::default())),
        patch: Vec::new(),
        newly_admits: admits.iter().map(|admitted| (*admitted).to_owned()).collect(),
    }
}

/// The example of the documentation: web calls the Service api, and the policy wants frontend.
pub(crate) fn example() -> Denial {
    let (web, api) = (web(), api());
    Denial {
        event: DropEvent {
            time: at(0),
            id: FoldId(1),
            folded: true,
            reason: Reason { number: 8, name: "NETFILTER_DROP".into() },
            location: Location {
                address: 0xffff_ffff_c0a0_1234,
                symbol: Some(Symbol { name: "nft_do_chain.isra.0".into(), offset: 0x1a }),
            },
            hook: Some(Hook::Forward),
            interface: Some(Interface { index: 12, name: "veth1a2b".into() }),
            outgoing: false,
            netns: Some(4_026_531_840),
            packet_len: 60,
            flow: Flow {
                source: web.ips[0],
                destination: api.ips[0],
                protocol: Protocol::Tcp,
                source_port: Some(41_312),
                destination_port: Some(8080),
                tcp_flags: Some(TcpFlags { syn: true, ack: false, fin: false, rst: false, psh: false }),
                icmp: None,
                fragment: None,
            },
            tunnel: None,
            conntrack: Some(Conntrack {
                original: Tuple {
                    source: web.ips[0],
                    source_port: Some(41_312),
                    destination: ip("10.96.0.10"),
                    destination_port: Some(80),
                    protocol: Protocol::Tcp,
                },
                reply: false,
                seen_reply: false,
            }),
            socket: None,
            filters: vec![HookFunction {
                function: "nft_do_chain_ipv4".into(),
                priority: 0,
                table: Some("filter".into()),
                chain: Some("FORWARD".into()),
            }],
            peer: Some(Peer { netns: 4_026_532_700, index: 2, name: "eth0".into(), pod_uid: None }),
        },
        who: Who {
            behind: None,
            tunnel: None,
            host_network: Vec::new(),
            callers: Vec::new(),
            client: party(&web),
            server: party(&api),
            service: Some(ServiceCall {
                service: api_service(),
                ip: ip("10.96.0.10"),
                port: Some(80),
                port_name: Some("http".into()),
                backends: vec![(ip("10.244.2.7"), 8080)],
            }),
        },
        explanation: Explanation {
            verdict: Verdict::Deny,
            egress: not_isolated(Direction::Egress, "shop/web-7d9f"),
            ingress: denied_ingress(),
            fixes: vec![fix(
                Direction::Ingress,
                Some(policy("api-allow-frontend")),
                "ingress[0].from += podSelector {app: web}",
                &["shop/web"],
            )],
            remaining: vec![],
            notes: vec![],
        },
        diagnosis: Diagnosis {
            class: Class::PolicyDenied(vec![Direction::Ingress]),
            agreement: Agreement::Agrees,
            summary: "Policies deny ingress to shop/api-5c4b.".into(),
        },
        moment: None,
    }
}

/// A drop that no policy is to blame for.
pub(crate) fn innocent(class: Class, agreement: Agreement, summary: &str) -> Denial {
    let mut denial = example();
    denial.explanation = Explanation {
        verdict: Verdict::Allow,
        egress: not_isolated(Direction::Egress, "shop/web-7d9f"),
        ingress: not_isolated(Direction::Ingress, "shop/api-5c4b"),
        fixes: vec![],
        remaining: vec![],
        notes: vec![],
    };
    denial.diagnosis = Diagnosis { class, agreement, summary: summary.into() };
    denial
}

/// Puts the packet into a tunnel from node-1 to node-2.
pub(crate) fn in_tunnel(denial: &mut Denial) {
    let [source, destination] = [node("node-1", "192.0.2.1"), node("node-2", "192.0.2.2")];
    let flow = &denial.event.flow;
    let outer = Flow {
        source: source.ip,
        destination: destination.ip,
        protocol: Protocol::Udp,
        source_port: Some(49_152),
        destination_port: Some(8472),
        tcp_flags: None,
        icmp: None,
        ..flow.clone()
    };
    denial.event.tunnel = Some(Tunnel { kind: TunnelKind::Vxlan, vni: Some(1), outer, conntrack: None });
    denial.who.tunnel = Some(TunnelEnds { source, destination });
}

/// The example under another id, `seconds` later.
pub(crate) fn example_at(id: u64, seconds: i64) -> Arc<Denial> {
    let mut denial = example();
    denial.event.id = FoldId(id);
    denial.event.time = at(seconds);
    Arc::new(denial)
}

pub(crate) fn key(id: u64) -> Key {
    Key { id: FoldId(id), same: 0 }
}

pub(crate) fn item(id: u64, seconds: i64) -> Item {
    Item::Denial { key: key(id), denial: example_at(id, seconds) }
}

pub(crate) fn repeats(id: u64, count: u64, last: i64) -> Item {
    Item::Repeats(Summary {
        key: key(id),
        route: Arc::new(Route::of(&example())),
        count,
        total: count + 1,
        first: at(0),
        since: at(0),
        last: at(last),
    })
}

/// `shop/web → shop/api` on a port, with what was said before and is said after.
pub(crate) fn pair(from: &str, to: PairEnd, ports: &[(Protocol, u16, u16)], before: Ruling, after: Ruling) -> Pair {
    let workload =
        |name: &str| PairEnd::Workload { namespace: "shop".into(), workload: Workload { kind: "Deployment".into(), name: name.into() } };
    Pair {
        source: workload(from),
        destination: to,
        ports: ports.iter().map(|&(protocol, from, to)| PortRange { protocol, from, to }).collect(),
        causes: vec![Cause { direction: Direction::Ingress, before, after }],
    }
}

pub(crate) fn workload_end(namespace: &str, name: &str) -> PairEnd {
    PairEnd::Workload { namespace: namespace.into(), workload: Workload { kind: "Deployment".into(), name: name.into() } }
}

/// A rule of the policy that changes in [`policy_change`].
pub(crate) fn own_rule(index: usize) -> RuleRef {
    RuleRef { policy: policy("api"), direction: Direction::Ingress, index, name: None, action: None, origin: None }
}

/// The change of the documentation: two pairs newly denied, one newly allowed.
pub(crate) fn policy_change() -> Effect {
    let tcp = |port| (Protocol::Tcp, port, port);
    let every = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(|protocol| (protocol, 1, u16::MAX));
    let isolated = || Ruling::Denied { by: None, isolating: vec![policy("api")] };
    let admitted = |index| Ruling::Admitted { by: vec![own_rule(index)] };
    let api = || workload_end("shop", "api");
    let denied = vec![pair("job", api(), &every, admitted(1), isolated()), pair("web", api(), &[tcp(8080)], admitted(0), isolated())];
    let allowed = vec![pair("ops", api(), &[tcp(8080), (Protocol::Udp, 9000, 9099)], isolated(), admitted(0))];
    Effect {
        when: at(0),
        key: ObjectKey { kind: Kind::NetworkPolicy, namespace: "shop".into(), name: "api".into() },
        change: ChangeKind::Changed,
        resource_version: Some("42".into()),
        id: EffectId(7),
        difference: Difference::Counted(Box::new(Turned {
            denied: Pairs { workloads: 2, outside: 0, named: denied },
            allowed: Pairs { workloads: 1, outside: 0, named: allowed },
            undecided: Pairs::default(),
        })),
    }
}
