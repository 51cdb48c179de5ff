mod tunnel;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::*;
use crate::cluster::{Labels, Node, Pod, PodPhase, Service, ServicePort, TargetPort, Workload};
use crate::flow::testing::{self, ACK, Names, RST, RecordBuilder, SYN, SYN_ACK};
use crate::flow::{Hook, Location, Protocol, Reason, Symbol, TcpFlags, decode_record};
use crate::identify::{Identity, Party, ServiceCall};
use crate::policy::{Admission, DirectionExplanation, Verdict};

const WEB: &str = "10.244.1.5";
const API: &str = "10.244.2.7";
const VIP: &str = "10.96.0.20";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn end(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip(address), port)
}

fn pod(name: &str) -> Identity {
    Identity::Pod(Arc::new(Pod {
        namespace: "shop".into(),
        name: name.into(),
        uid: "".into(),
        labels: Labels::new(),
        ips: vec![],
        node: None,
        host_network: false,
        phase: PodPhase::Active,
        ready: true,
        deleting: false,
        ports: vec![],
        workload: Workload { kind: "Pod".into(), name: name.into() },
        origin: None,
    }))
}

fn node() -> Identity {
    Identity::Node(Arc::new(Node { name: "node-1".into(), labels: Labels::new(), addresses: vec![], pod_cidrs: vec![] }))
}

fn service(backends: &[(&str, u16)]) -> ServiceCall {
    let port = ServicePort { name: None, port: 80, protocol: Protocol::Tcp, target_port: TargetPort::Number(8080), node_port: None };
    ServiceCall {
        service: Arc::new(Service {
            namespace: "shop".into(),
            name: "api".into(),
            cluster_ips: vec![ip(VIP)],
            external_ips: vec![],
            load_balancer_ips: vec![],
            ports: vec![port],
            selector: Some(Labels::new()),
            publish_not_ready: false,
            dns: Default::default(),
        }),
        ip: ip(VIP),
        port: Some(80),
        port_name: None,
        backends: backends.iter().map(|(address, port)| (ip(address), *port)).collect(),
    }
}

fn who() -> Who {
    Who {
        client: Party { ip: ip(WEB), identity: pod("web") },
        server: Party { ip: ip(API), identity: pod("api") },
        service: None,
        behind: None,
        tunnel: None,
        host_network: Vec::new(),
        callers: Vec::new(),
    }
}

fn explanation(egress: Admission, ingress: Admission) -> Explanation {
    let is = |pattern: fn(&Admission) -> bool| pattern(&egress) || pattern(&ingress);
    let verdict = if is(|a| matches!(a, Admission::Denied { .. })) {
        Verdict::Deny
    } else if is(|a| matches!(a, Admission::Undecided { .. })) {
        Verdict::Undecided
    } else {
        Verdict::Allow
    };
    let direction = |direction, admission| DirectionExplanation { direction, subject: None, tiers: vec![], admission };
    Explanation {
        verdict,
        egress: direction(Direction::Egress, egress),
        ingress: direction(Direction::Ingress, ingress),
        fixes: vec![],
        remaining: vec![],
        notes: vec![],
    }
}

fn denied() -> Admission {
    Admission::Denied { by: None, isolating: vec![], nearest: vec![] }
}

fn unknown(why: &str) -> Admission {
    Admission::Undecided { why: why.to_owned() }
}

fn allow() -> Explanation {
    explanation(Admission::NotIsolated, Admission::NotIsolated)
}

fn deny() -> Explanation {
    explanation(Admission::NotIsolated, denied())
}

fn undecided() -> Explanation {
    explanation(Admission::NotIsolated, unknown("pod shop/api has no labels yet"))
}

/// A TCP packet from web to api, port 8080, dropped by netfilter in the forward hook, without conntrack entry.
fn event(flags: TcpFlags) -> DropEvent {
    let record = RecordBuilder::packet(&testing::tcp(end(WEB, 40_000), end(API, 8080), flags));
    decode_record(&record.bytes(), &Names::linux()).unwrap()
}

fn udp() -> DropEvent {
    let record = RecordBuilder::packet(&testing::udp(end(WEB, 40_000), end(API, 53)));
    decode_record(&record.bytes(), &Names::linux()).unwrap()
}

impl DropEvent {
    fn reason(mut self, name: &str) -> Self {
        self.reason = Reason { number: 99, name: name.into() };
        self
    }

    fn at(mut self, function: &str) -> Self {
        self.location = Location { address: 1, symbol: Some(Symbol { name: function.into(), offset: 0 }) };
        self
    }

    fn tracked(mut self, reply: bool, seen_reply: bool) -> Self {
        let (protocol, destination_port) = (self.flow.protocol, self.flow.destination_port);
        let original = crate::flow::Tuple { source: ip(WEB), source_port: Some(1), destination: ip(API), destination_port, protocol };
        self.conntrack = Some(crate::flow::Conntrack { original, reply, seen_reply });
        self
    }

    fn dialled(mut self, address: &str) -> Self {
        self = self.tracked(false, false);
        if let Some(conntrack) = &mut self.conntrack {
            conntrack.original.destination = ip(address);
        }
        self
    }

    fn hook(mut self, hook: Hook) -> Self {
        self.hook = Some(hook);
        self
    }
}

#[track_caller]
fn check(event: &DropEvent, who: &Who, explanation: &Explanation, class: Class, agreement: Agreement) -> String {
    let diagnosis = diagnose(event, who, explanation, None);
    assert_eq!((&diagnosis.class, &diagnosis.agreement), (&class, &agreement), "{}", diagnosis.summary);
    assert!(diagnosis.summary.ends_with('.') && !diagnosis.summary.contains("  "), "{}", diagnosis.summary);
    assert!(!diagnosis.summary.contains("NetworkPolicy ") || diagnosis.summary.contains("no NetworkPolicy "), "names no policy");
    diagnosis.summary
}

#[track_caller]
fn check_summary(summary: &str, expected: &str) {
    assert_eq!(summary, expected);
}

use Agreement::{Agrees, NotEnforcement, PoliciesAllow};

fn cannot_decide(why: &str) -> Agreement {
    Agreement::CannotDecide { why: why.to_owned() }
}

#[test]
fn policies_that_deny_are_blamed_by_direction() {
    let both = explanation(denied(), denied());
    let class = Class::PolicyDenied(vec![Direction::Egress, Direction::Ingress]);
    let summary = check(&event(SYN), &who(), &both, class, Agrees);
    check_summary(
        &summary,
        "The policies deny this connection: no egress rule that applies to shop/web allows calling shop/api on 8080/TCP, and no ingress \
         rule that applies to shop/api allows shop/web to call 8080/TCP.",
    );
    let egress = explanation(denied(), unknown("?"));
    check(&event(SYN), &who(), &egress, Class::PolicyDenied(vec![Direction::Egress]), Agrees);
    check(&event(SYN), &who(), &deny(), Class::PolicyDenied(vec![Direction::Ingress]), Agrees);
    check(&udp(), &who(), &deny(), Class::PolicyDenied(vec![Direction::Ingress]), Agrees);
}

#[test]
fn every_enforcer_is_known() {
    let ingress = || Class::PolicyDenied(vec![Direction::Ingress]);
    for reason in ["NETFILTER_DROP", "TC_INGRESS", "TC_EGRESS", "BPF_CGROUP_EGRESS", "SOCKET_FILTER", "XDP"] {
        check(&event(SYN).reason(reason).at("whatever"), &who(), &deny(), ingress(), Agrees);
    }
    check(&event(SYN).reason("NOT_SPECIFIED").at("nfqnl_reinject"), &who(), &deny(), ingress(), Agrees);
    for function in ["nft_do_chain", "nf_hook_slow", "nf_hook_slow.constprop.0"] {
        let mut old = event(SYN).reason("reason-0").at(function);
        old.reason.number = 0;
        check(&old, &who(), &deny(), ingress(), Agrees);
    }
    for (reason, function) in [("NOT_SPECIFIED", "tcp_v4_do_rcv"), ("TCP_OVERWINDOW", "nf_hook_slow"), ("QDISC_DROP", "__dev_queue_xmit")] {
        let summary = check(&event(SYN).reason(reason).at(function), &who(), &deny(), Class::Undecided, NotEnforcement);
        assert!(summary.contains(reason), "{summary}");
    }
    let mut nameless = event(SYN).reason("NOT_SPECIFIED");
    nameless.location.symbol = None;
    check(&nameless, &who(), &deny(), Class::Undecided, NotEnforcement);
}

/// Kernels that give no reasons, and functions that free for several.
#[test]
fn what_a_place_can_mean_is_not_guessed() {
    let old = |flags, function| {
        let mut old = event(flags).reason("reason-0").at(function);
        old.reason.number = 0;
        old
    };
    for function in ["__netif_receive_skb_core.constprop.0", "__dev_queue_xmit", "ip_finish_output", "tcp_v4_rcv"] {
        let event = old(SYN, function);
        let diagnosis = diagnose(&event, &who(), &deny(), None);
        assert_eq!(diagnosis.class, Class::Undecided, "{function}");
        assert!(matches!(&diagnosis.agreement, Agreement::CannotDecide { why } if why.contains("does not say why")), "{diagnosis:?}");
        assert!(diagnosis.summary.contains("denied it") && !diagnosis.summary.contains("reason-0"), "{}", diagnosis.summary);
        check(&event, &who(), &allow(), Class::Undecided, PoliciesAllow);
    }
    for function in ["ip_rcv_finish_core", "__udp4_lib_rcv"] {
        check(&old(SYN, function), &who(), &deny(), Class::Undecided, NotEnforcement);
    }
    let summary = check(&old(SYN, "ip_error"), &who(), &deny(), Class::NoRoute, NotEnforcement);
    assert!(summary.contains("(in ip_error)"), "{summary}");
    check(&old(ACK, "tcp_v4_rcv"), &who(), &deny(), Class::Noise, NotEnforcement);
    check(&old(SYN, "nf_reinject"), &who(), &deny(), Class::PolicyDenied(vec![Direction::Ingress]), Agrees);
    check(&old(SYN, "veth_xdp_rcv_skb"), &who(), &deny(), Class::PolicyDenied(vec![Direction::Ingress]), Agrees);
}

#[test]
fn resets_and_late_segments_are_noise() {
    for reason in ["NETFILTER_DROP", "NO_SOCKET", "IP_INNOROUTES"] {
        let agreement = if reason == "NETFILTER_DROP" { Agrees } else { NotEnforcement };
        check(&event(RST).reason(reason), &who(), &deny(), Class::Noise, agreement);
    }
    for flags in [ACK, SYN_ACK, TcpFlags { fin: true, ..ACK }] {
        check(&event(flags).reason("NO_SOCKET"), &who(), &allow(), Class::Noise, NotEnforcement);
    }
    check(&udp().reason("NO_SOCKET").tracked(true, true), &who(), &allow(), Class::Noise, NotEnforcement);
}

#[test]
fn nobody_listens() {
    let summary = check(&event(SYN).reason("NO_SOCKET"), &who(), &allow(), Class::NoListener, NotEnforcement);
    check_summary(&summary, "Nothing listens on 8080/TCP at shop/api: the packet arrived there and was refused.");
    check(&udp().reason("NO_SOCKET"), &who(), &allow(), Class::NoListener, NotEnforcement);
    check(&udp().reason("NO_SOCKET").tracked(false, true), &who(), &allow(), Class::NoListener, NotEnforcement);
    let summary = check(&event(SYN).reason("NO_SOCKET"), &who(), &deny(), Class::NoListener, NotEnforcement);
    assert!(summary.contains("the packet got through nevertheless"), "{summary}");
    let through = Who { service: Some(service(&[(API, 8080)])), ..who() };
    let summary = check(&event(SYN).reason("NO_SOCKET"), &through, &allow(), Class::NoListener, NotEnforcement);
    assert!(summary.contains("target port of Service shop/api"), "{summary}");
    let summary = check(&event(SYN).reason("IP_NOPROTO"), &who(), &allow(), Class::NoListener, NotEnforcement);
    assert!(summary.starts_with("shop/api does not speak TCP"), "{summary}");
    let mut cut = event(SYN).reason("NO_SOCKET");
    cut.flow.tcp_flags = None;
    check(&cut, &who(), &allow(), Class::Undecided, NotEnforcement);
}

#[test]
fn routing_is_no_policy() {
    for reason in ["IP_RPFILTER", "IP_INVALID_SOURCE", "IP_LOCAL_SOURCE"] {
        let summary = check(&event(SYN).reason(reason), &who(), &deny(), Class::ReversePathFilter, NotEnforcement);
        assert!(summary.contains("10.244.1.5 on interface veth1a2b"), "{summary}");
    }
    for reason in ["IP_INNOROUTES", "IP_OUTNOROUTES", "IP_INADDRERRORS"] {
        let summary = check(&event(SYN).reason(reason), &who(), &deny(), Class::NoRoute, NotEnforcement);
        assert!(summary.contains("no route to 10.244.2.7"), "{summary}");
    }
}

#[test]
fn a_device_that_is_only_coming_up_is_noise() {
    let to = |destination: &str| {
        let mut event = event(SYN).reason("IP_INNOROUTES");
        event.flow.destination = destination.parse().unwrap();
        event
    };
    for destination in ["ff02::16", "ff02::1:ff00:2", "224.0.0.22"] {
        let summary = check(&to(destination), &who(), &deny(), Class::Noise, NotEnforcement);
        assert!(summary.contains(destination), "{summary}");
    }
    for destination in ["ff05::2", "224.0.1.1", "ff0e::1"] {
        check(&to(destination), &who(), &deny(), Class::NoRoute, NotEnforcement);
    }
}

#[test]
fn a_service_without_endpoints_is_blamed_on_no_policy() {
    let mut called = Who { service: Some(service(&[])), ..who() };
    for explanation in [allow(), deny(), undecided()] {
        let summary = check(&event(SYN), &called, &explanation, Class::ServiceWithoutEndpoints, NotEnforcement);
        assert!(summary.starts_with("Service shop/api on port 80 has no ready endpoint"), "{summary}");
    }
    // It had an endpoint when the packet was translated, and when the connection was opened.
    check(&event(SYN).dialled(VIP), &called, &deny(), Class::PolicyDenied(vec![Direction::Ingress]), Agrees);
    check(&event(SYN_ACK).tracked(true, true), &called, &allow(), Class::DroppedReply, PoliciesAllow);
    check(&event(SYN).tracked(false, false), &called, &deny(), Class::ServiceWithoutEndpoints, NotEnforcement);
    // Nor is a Service with endpoints to blame.
    let served = Who { service: Some(service(&[(API, 8080)])), ..who() };
    check(&event(SYN), &served, &deny(), Class::PolicyDenied(vec![Direction::Ingress]), Agrees);
    if let Some(call) = &mut called.service {
        call.port = Some(81);
    }
    let summary = check(&event(SYN), &called, &allow(), Class::ServiceWithoutEndpoints, NotEnforcement);
    assert!(summary.starts_with("Service shop/api has no port 81"), "{summary}");
}

#[test]
fn a_call_dropped_before_translation_speaks_of_the_target_port() {
    let mut before = event(SYN).reason("TC_EGRESS");
    before.flow.destination = ip(VIP);
    before.flow.destination_port = Some(80);
    let called = Who { service: Some(service(&[(API, 8080)])), ..who() };
    let summary = check(&before, &called, &deny(), Class::PolicyDenied(vec![Direction::Ingress]), Agrees);
    assert!(summary.contains("8080/TCP") && !summary.contains("80/TCP to"), "{summary}");
}

#[test]
fn replies_are_never_blamed_on_policies() {
    for explanation in [allow(), deny(), undecided()] {
        for reply in [event(SYN_ACK), event(ACK).tracked(true, true), udp().tracked(true, false)] {
            let summary = check(&reply, &who(), &explanation, Class::DroppedReply, PoliciesAllow);
            assert!(summary.starts_with("An answer from shop/api to shop/web was dropped in the forward hook on veth1a2b"), "{summary}");
            assert_eq!(summary.contains("by now"), explanation.verdict == Verdict::Deny);
        }
    }
}

#[test]
fn packets_from_the_middle_of_nowhere() {
    check(&event(ACK), &who(), &allow(), Class::ConnectionState, PoliciesAllow);
    let why = "policies judge the opening of a connection, and this packet is from the middle of one that the kernel does not track";
    check(&event(ACK), &who(), &deny(), Class::ConnectionState, cannot_decide(why));
    let summary = check(&event(ACK).reason("TC_INGRESS"), &who(), &undecided(), Class::ConnectionState, cannot_decide(why));
    assert!(summary.contains("ct state invalid drop"), "{summary}");
}

#[test]
fn an_open_connection_may_be_denied_by_now() {
    let summary = check(&event(ACK).tracked(false, true), &who(), &deny(), Class::PolicyDenied(vec![Direction::Ingress]), Agrees);
    assert!(summary.contains("was opened before"), "{summary}");
    let ingress = Class::PolicyDenied(vec![Direction::Ingress]);
    let summary = check(&udp().tracked(false, true), &who(), &deny(), ingress, Agrees);
    assert!(summary.contains("was opened before"), "{summary}");
    let summary = check(&event(SYN).tracked(false, false), &who(), &deny(), Class::PolicyDenied(vec![Direction::Ingress]), Agrees);
    assert!(!summary.contains("was opened before"), "{summary}");
}

#[test]
fn icmp_follows_the_verdict_with_a_word_of_caution() {
    let record = RecordBuilder::packet(&testing::icmp(ip(WEB), ip(API), 8, 0));
    let echo = decode_record(&record.bytes(), &Names::linux()).unwrap();
    let summary = check(&echo, &who(), &deny(), Class::PolicyDenied(vec![Direction::Ingress]), Agrees);
    assert!(summary.contains("on ICMP") || summary.contains("call ICMP"), "{summary}");
    assert!(summary.ends_with("left to each implementation."), "{summary}");
    check(&echo, &who(), &undecided(), Class::Undecided, cannot_decide("pod shop/api has no labels yet"));
}

#[test]
fn what_the_policies_allow_is_a_firewall_outside_of_them() {
    let summary = check(&event(SYN), &who(), &allow(), Class::HostFirewall, PoliciesAllow);
    check_summary(
        &summary,
        "The packet was dropped in the forward hook on veth1a2b (NETFILTER_DROP in nf_hook_slow), and the policies allow it: a firewall rule \
         outside the policies, or enforcement rules that are stale.",
    );
    let to_node = Who { server: Party { ip: ip("192.168.0.4"), identity: node() }, ..who() };
    let summary = check(&event(SYN).hook(Hook::Input), &to_node, &allow(), Class::HostFirewall, PoliciesAllow);
    check_summary(
        &summary,
        "The packet was dropped in the input hook of node node-1 on veth1a2b (NETFILTER_DROP in nf_hook_slow): a host firewall rule; no \
         NetworkPolicy speaks of nodes.",
    );
    let summary = check(&event(SYN), &to_node, &allow(), Class::HostFirewall, PoliciesAllow);
    assert!(summary.starts_with("The packet to node node-1 was dropped in the forward hook"), "{summary}");
    let from_node = Who { client: Party { ip: ip("192.168.0.4"), identity: node() }, ..who() };
    let mut sent = event(SYN).hook(Hook::Output);
    sent.outgoing = true;
    let summary = check(&sent, &from_node, &allow(), Class::HostFirewall, PoliciesAllow);
    assert!(summary.contains("in the output hook of node node-1"), "{summary}");
    let summary = check(&sent, &who(), &allow(), Class::HostFirewall, PoliciesAllow);
    assert!(summary.contains("in the output hook on its way out by veth1a2b"), "{summary}");
    let summary = check(&event(SYN).reason("TC_EGRESS"), &who(), &allow(), Class::HostFirewall, PoliciesAllow);
    assert!(summary.contains("traffic-control (eBPF) program"), "{summary}");
}

#[test]
fn what_cannot_be_decided_says_why() {
    let why = "pod shop/api has no labels yet";
    let summary = check(&event(SYN), &who(), &undecided(), Class::Undecided, cannot_decide(why));
    assert!(summary.ends_with(&format!("cannot be decided: {why}.")), "{summary}");
    let both = explanation(unknown("a"), unknown("b"));
    check(&event(SYN), &who(), &both, Class::Undecided, cannot_decide("a; b"));
    let same = explanation(unknown("a"), unknown("a"));
    check(&event(SYN), &who(), &same, Class::Undecided, cannot_decide("a"));
    let defect = Explanation { verdict: Verdict::Deny, ..allow() };
    let why = "the policies could not be evaluated for this connection";
    check(&event(SYN), &who(), &defect, Class::Undecided, cannot_decide(why));
}

#[test]
fn parties_nobody_knows_are_named_by_their_address() {
    let mut strange = who();
    strange.client.identity = Identity::External;
    strange.server.identity = Identity::UnownedPodAddress;
    let summary = check(&event(SYN), &strange, &deny(), Class::PolicyDenied(vec![Direction::Ingress]), Agrees);
    assert!(summary.contains("10.244.2.7 (a pod address without a known pod) allows 10.244.1.5 to call"), "{summary}");
}

/// What capture takes from the kernel the diagnosis has a word for.
#[test]
fn every_reported_reason_has_a_cause() {
    for reason in crate::capture::candidates::REPORTED {
        let mut event = event(SYN);
        event.reason.name = (*reason).into();
        let diagnosis = diagnose(&event, &who(), &allow(), None);
        assert_ne!(diagnosis.class, Class::Undecided, "{reason}");
    }
}

/// Nor is there a place that capture reports and nothing is known of.
#[test]
fn every_place_has_a_cause() {
    for place in crate::flow::PLACES {
        for function in place.functions {
            let mut event = event(SYN).reason("NOT_SPECIFIED").at(function);
            event.hook = None;
            let diagnosis = diagnose(&event, &who(), &allow(), None);
            assert_eq!(diagnosis.class == Class::Undecided, place.shared, "{function}: {}", diagnosis.summary);
            assert!(!diagnosis.summary.contains("for a reason of its own"), "{function}: {}", diagnosis.summary);
        }
    }
}
