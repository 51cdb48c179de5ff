mod changes;
mod moment;
mod tiers;

use insta::assert_snapshot;

use super::*;
use crate::cluster::{Direction, Operator, Requirement};
use crate::flow::{Fragment, Hook, HookFunction, IcmpKind, Interface, Protocol};
use crate::identify::Identity;
use crate::policy::{Admission, Condition, IsolatingPolicy, PortMiss, Remaining, Verdict};
use crate::serve::testing::{
    api, api_service, denied_ingress, example, external, fix, in_tunnel, innocent, ip, metrics_miss, near, node, not_isolated, policy,
    repeats, wants, wants_frontend, web,
};

fn renderer() -> Renderer {
    Renderer { palette: Palette::PLAIN, time_zone: TimeZone::UTC, node: Some("node-2".into()), oneline: false }
}

fn block(denial: &Denial) -> String {
    renderer().block(denial)
}

fn oneline(denial: &Denial) -> String {
    Renderer { oneline: true, ..renderer() }.oneline(denial)
}

#[test]
fn the_example_of_the_documentation() {
    assert_snapshot!(block(&example()), @r#"
    14:02:11.482 DENIED ingress  shop/web-7d9f → shop/api-5c4b:8080/TCP  (Service shop/api:80)
      by       NetworkPolicy shop/api-allow-frontend      isolates shop/api-5c4b for ingress, none of its 2 rules match
      nearest  ingress[0]  peer differs: podSelector wants app=frontend, shop/web-7d9f has app=web
               ingress[1]  port differs: wants 9090/TCP (named "metrics")
      fix      ingress[0].from += podSelector {app: web}      admits 1 more workload: shop/web
      kernel   NETFILTER_DROP in nft_do_chain, forward hook, nft chain ip filter FORWARD, on node-2, veth1a2b to eth0      agrees with the policies
    "#);
    assert_snapshot!(oneline(&example()), @"14:02:11.482 DENIED ingress  shop/web-7d9f → shop/api-5c4b:8080/TCP  (Service shop/api:80)  by shop/api-allow-frontend; nearest ingress[0]: peer differs: podSelector wants app=frontend, shop/web-7d9f has app=web");
    assert_snapshot!(renderer().item(&repeats(1, 2, 7)), @"14:02:18.482 +2 the same in 7 s   shop/web-7d9f → shop/api-5c4b:8080/TCP");
}

#[test]
fn pods_in_the_network_of_the_node_called_are_named() {
    let mut denial = innocent(Class::HostFirewall, Agreement::PoliciesAllow, "The packet was dropped.");
    denial.who.service = None;
    denial.who.server = node("node-2", "192.0.2.2");
    denial.who.host_network = vec![api()];
    assert!(block(&denial).contains("\n  host     shop/api-5c4b declares that port in the network of node node-2\n"), "{}", block(&denial));
    denial.who.host_network.push(web());
    assert!(block(&denial).contains("shop/api-5c4b, shop/web-7d9f declare that port"), "{}", block(&denial));
    denial.who.client = node("node-1", "192.0.2.1");
    denial.who.callers = vec![api()];
    assert!(block(&denial).contains("\n  host     shop/api-5c4b in the network of node node-1 called\n"), "{}", block(&denial));
    denial.who.callers = vec![api(); 7];
    assert!(block(&denial).contains("node node-1 called, or one of the pods in its network: shop/api-5c4b, "), "{}", block(&denial));
    assert!(block(&denial).contains(" and 2 more\n"), "{}", block(&denial));
}

#[test]
fn a_tunnel_has_a_line() {
    let mut denial = innocent(Class::HostFirewall, Agreement::NotEnforcement, "The VXLAN packet was dropped.");
    in_tunnel(&mut denial);
    assert_snapshot!(block(&denial), @"
    14:02:11.482 DROPPED host firewall  shop/web-7d9f → shop/api-5c4b:8080/TCP  (Service shop/api:80)
      cause    The VXLAN packet was dropped.
      tunnel   VXLAN 1 (8472/UDP) from node node-1 to node node-2
      kernel   NETFILTER_DROP in nft_do_chain, forward hook, nft chain ip filter FORWARD, on node-2, veth1a2b to eth0      not a drop that enforces policies
    ");
}

#[test]
fn the_documentation_shows_what_is_printed() {
    let document = include_str!("../../../../docs/tail.md");
    assert!(document.contains(&block(&example())), "docs/tail.md");
    let all = [
        Class::PolicyDenied(vec![Direction::Egress]),
        Class::PolicyDenied(vec![Direction::Ingress, Direction::Egress]),
        Class::DroppedReply,
        Class::HostFirewall,
        Class::NoListener,
        Class::ServiceWithoutEndpoints,
        Class::NoRoute,
        Class::ReversePathFilter,
        Class::ConnectionState,
        Class::Noise,
        Class::Undecided,
    ];
    for (verb, what) in all.iter().map(heading) {
        assert!(document.contains(&format!("`{verb} {what}`")), "docs/tail.md does not explain {verb} {what}");
    }
}

#[test]
fn both_directions_and_several_policies() {
    let mut denial = example();
    denial.diagnosis.class = Class::PolicyDenied(vec![Direction::Ingress, Direction::Egress]);
    let egress_policy = policy("web-egress");
    denial.explanation.egress.admission = Admission::Denied {
        by: None,
        isolating: vec![
            IsolatingPolicy { policy: policy("default-deny-egress"), rules: vec![] },
            IsolatingPolicy {
                policy: egress_policy.clone(),
                rules: vec![crate::policy::RuleMiss { index: 0, origin: None, peers: vec![], ports: vec![metrics_miss()] }],
            },
        ],
        nearest: vec![near(
            &egress_policy,
            Direction::Egress,
            0,
            vec![],
            Some(PortMiss { index: 0, wants: "53/UDP".into(), failed: vec![Condition::Protocol { has: "TCP".into() }] }),
        )],
    };
    denial
        .explanation
        .fixes
        .insert(0, fix(Direction::Egress, Some(egress_policy), "egress[0].ports += 8080/TCP", &["shop/api", "shop/db"]));
    denial.explanation.remaining = vec![Remaining::ServiceWithoutEndpoints { service: "shop/api".into() }];
    denial.explanation.notes = vec!["The source was possibly rewritten.".into()];
    assert_snapshot!(block(&denial), @r#"
    14:02:11.482 DENIED egress+ingress  shop/web-7d9f → shop/api-5c4b:8080/TCP  (Service shop/api:80)
      by       NetworkPolicy shop/default-deny-egress      isolates shop/web-7d9f for egress, has no egress rule
               NetworkPolicy shop/web-egress               isolates shop/web-7d9f for egress, its only rule does not match
               NetworkPolicy shop/api-allow-frontend       isolates shop/api-5c4b for ingress, none of its 2 rules match
      nearest  shop/web-egress egress[0]           port differs: wants 53/UDP, this is TCP
               shop/api-allow-frontend ingress[0]  peer differs: podSelector wants app=frontend, shop/web-7d9f has app=web
               shop/api-allow-frontend ingress[1]  port differs: wants 9090/TCP (named "metrics")
      fix      shop/web-egress: egress[0].ports += 8080/TCP                            admits 2 more: shop/api, shop/db
               shop/api-allow-frontend: ingress[0].from += podSelector {app: web}      admits 1 more workload: shop/web
      also     Service shop/api has no ready endpoint
               The source was possibly rewritten.
      kernel   NETFILTER_DROP in nft_do_chain, forward hook, nft chain ip filter FORWARD, on node-2, veth1a2b to eth0      agrees with the policies
    "#);
    assert_snapshot!(oneline(&denial), @"14:02:11.482 DENIED egress+ingress  shop/web-7d9f → shop/api-5c4b:8080/TCP  (Service shop/api:80)  by shop/default-deny-egress, shop/web-egress; nearest shop/web-egress egress[0]: port differs: wants 53/UDP, this is TCP; by shop/api-allow-frontend; nearest shop/api-allow-frontend ingress[0]: peer differs: podSelector wants app=frontend, shop/web-7d9f has app=web");
}

#[test]
fn many_rules_are_cut_and_counted() {
    let mut denial = example();
    let deny_all = policy("default-deny");
    let nearest = (0..5).map(|index| near(&deny_all, Direction::Ingress, index, vec![wants_frontend()], None)).collect();
    let isolating = vec![IsolatingPolicy { policy: deny_all.clone(), rules: vec![] }];
    denial.explanation.ingress.admission = Admission::Denied { by: None, isolating, nearest };
    let admits = ["a/a", "b/b", "c/c", "d/d", "e/e"];
    denial.explanation.fixes = vec![fix(Direction::Ingress, None, "new NetworkPolicy shop/allow-web-to-api", &admits)];
    denial.explanation.remaining = vec![Remaining::NoFix { direction: Direction::Egress, why: "the peer is not known".into() }];
    assert_snapshot!(block(&denial), @"
    14:02:11.482 DENIED ingress  shop/web-7d9f → shop/api-5c4b:8080/TCP  (Service shop/api:80)
      by       NetworkPolicy shop/default-deny      isolates shop/api-5c4b for ingress, has no ingress rule
      nearest  ingress[0]  peer differs: podSelector wants app=frontend, shop/web-7d9f has app=web
               ingress[1]  peer differs: podSelector wants app=frontend, shop/web-7d9f has app=web
               ingress[2]  peer differs: podSelector wants app=frontend, shop/web-7d9f has app=web
               and 2 more ingress rules
      fix      new NetworkPolicy shop/allow-web-to-api      admits 5 more: a/a, b/b, c/c and 2 more
      also     no fix found for egress: the peer is not known
      kernel   NETFILTER_DROP in nft_do_chain, forward hook, nft chain ip filter FORWARD, on node-2, veth1a2b to eth0      agrees with the policies
    ");
}

#[test]
fn a_policy_without_rules() {
    let mut denial = example();
    denial.who.service = None;
    denial.explanation.ingress.admission =
        Admission::Denied { by: None, isolating: vec![IsolatingPolicy { policy: policy("default-deny"), rules: vec![] }], nearest: vec![] };
    denial.explanation.fixes = vec![fix(Direction::Ingress, None, "add ingress rule: from ipBlock 203.0.113.5/32", &["203.0.113.5/32"])];
    assert_snapshot!(block(&denial), @"
    14:02:11.482 DENIED ingress  shop/web-7d9f → shop/api-5c4b:8080/TCP
      by       NetworkPolicy shop/default-deny      isolates shop/api-5c4b for ingress, has no ingress rule
      fix      add ingress rule: from ipBlock 203.0.113.5/32      admits 203.0.113.5/32
      kernel   NETFILTER_DROP in nft_do_chain, forward hook, nft chain ip filter FORWARD, on node-2, veth1a2b to eth0      agrees with the policies
    ");
    assert_snapshot!(oneline(&denial), @"14:02:11.482 DENIED ingress  shop/web-7d9f → shop/api-5c4b:8080/TCP  by shop/default-deny");
}

#[test]
fn drops_no_policy_is_to_blame_for() {
    let show = |class, agreement, summary: &str| block(&innocent(class, agreement, summary));
    let not = Agreement::NotEnforcement;
    assert_snapshot!(show(Class::HostFirewall, Agreement::PoliciesAllow, "A firewall rule of the node dropped it: look at nft list ruleset."), @"
    14:02:11.482 DROPPED host firewall  shop/web-7d9f → shop/api-5c4b:8080/TCP  (Service shop/api:80)
      cause    A firewall rule of the node dropped it: look at nft list ruleset.
      kernel   NETFILTER_DROP in nft_do_chain, forward hook, nft chain ip filter FORWARD, on node-2, veth1a2b to eth0      the policies allow it
    ");
    assert_snapshot!(show(Class::NoListener, not.clone(), "Nobody listens on port 8080 of shop/api-5c4b."), @"
    14:02:11.482 REFUSED no listener  shop/web-7d9f → shop/api-5c4b:8080/TCP  (Service shop/api:80)
      cause    Nobody listens on port 8080 of shop/api-5c4b.
      kernel   NETFILTER_DROP in nft_do_chain, forward hook, nft chain ip filter FORWARD, on node-2, veth1a2b to eth0      not a drop that enforces policies
    ");
    assert_snapshot!(show(Class::ServiceWithoutEndpoints, not.clone(), "Service shop/api has no ready endpoint."), @"
    14:02:11.482 DROPPED no endpoints  shop/web-7d9f → shop/api-5c4b:8080/TCP  (Service shop/api:80)
      cause    Service shop/api has no ready endpoint.
      kernel   NETFILTER_DROP in nft_do_chain, forward hook, nft chain ip filter FORWARD, on node-2, veth1a2b to eth0      not a drop that enforces policies
    ");
    assert_snapshot!(show(Class::NoRoute, not.clone(), "The node has no route to 10.244.2.7."), @"
    14:02:11.482 DROPPED no route  shop/web-7d9f → shop/api-5c4b:8080/TCP  (Service shop/api:80)
      cause    The node has no route to 10.244.2.7.
      kernel   NETFILTER_DROP in nft_do_chain, forward hook, nft chain ip filter FORWARD, on node-2, veth1a2b to eth0      not a drop that enforces policies
    ");
    assert_snapshot!(show(Class::ReversePathFilter, not.clone(), "10.244.1.5 does not belong behind veth1a2b."), @"
    14:02:11.482 DROPPED reverse-path filter  shop/web-7d9f → shop/api-5c4b:8080/TCP  (Service shop/api:80)
      cause    10.244.1.5 does not belong behind veth1a2b.
      kernel   NETFILTER_DROP in nft_do_chain, forward hook, nft chain ip filter FORWARD, on node-2, veth1a2b to eth0      not a drop that enforces policies
    ");
    assert_snapshot!(show(Class::ConnectionState, not.clone(), "conntrack holds the packet to be invalid."), @"
    14:02:11.482 DROPPED connection state  shop/web-7d9f → shop/api-5c4b:8080/TCP  (Service shop/api:80)
      cause    conntrack holds the packet to be invalid.
      kernel   NETFILTER_DROP in nft_do_chain, forward hook, nft chain ip filter FORWARD, on node-2, veth1a2b to eth0      not a drop that enforces policies
    ");
    assert_snapshot!(show(Class::Noise, not, "A late segment of a closed connection."), @"
    14:02:11.482 DROPPED noise  shop/web-7d9f → shop/api-5c4b:8080/TCP  (Service shop/api:80)
      cause    A late segment of a closed connection.
      kernel   NETFILTER_DROP in nft_do_chain, forward hook, nft chain ip filter FORWARD, on node-2, veth1a2b to eth0      not a drop that enforces policies
    ");
    assert_snapshot!(show(Class::Undecided, Agreement::CannotDecide { why: "two pods claim 10.244.1.5".into() }, "The objects do not tell."), @"
    14:02:11.482 DROPPED undecided  shop/web-7d9f → shop/api-5c4b:8080/TCP  (Service shop/api:80)
      cause    The objects do not tell.
      kernel   NETFILTER_DROP in nft_do_chain, forward hook, nft chain ip filter FORWARD, on node-2, veth1a2b to eth0      cannot decide: two pods claim 10.244.1.5
    ");
    let mut reply = innocent(Class::DroppedReply, Agreement::PoliciesAllow, "The answer of shop/api-5c4b was dropped.");
    let flow = &mut reply.event.flow;
    std::mem::swap(&mut flow.source, &mut flow.destination);
    std::mem::swap(&mut flow.source_port, &mut flow.destination_port);
    reply.event.conntrack.as_mut().unwrap().reply = true;
    reply.explanation.notes = vec!["Replies are never judged.".into()];
    assert_snapshot!(block(&reply), @"
    14:02:11.482 DROPPED reply  shop/web-7d9f → shop/api-5c4b:8080/TCP  (Service shop/api:80)
      cause    The answer of shop/api-5c4b was dropped.
      also     Replies are never judged.
      kernel   NETFILTER_DROP in nft_do_chain, forward hook, nft chain ip filter FORWARD, on node-2, veth1a2b to eth0      the policies allow it
    ");
    assert_snapshot!(oneline(&reply), @"14:02:11.482 DROPPED reply  shop/web-7d9f → shop/api-5c4b:8080/TCP  (Service shop/api:80)  The answer of shop/api-5c4b was dropped.");
}

#[test]
fn ends_that_are_no_pods() {
    let mut denial = innocent(Class::HostFirewall, Agreement::PoliciesAllow, "?");
    let mut headline = |client, server| {
        denial.who.service = None;
        denial.who.client = client;
        denial.who.server = server;
        let text = block(&denial);
        text.lines().next().unwrap().split_once("firewall  ").unwrap().1.to_owned()
    };
    let party = |identity| crate::identify::Party { ip: ip("10.244.1.9"), identity };
    let mut lines = vec![
        headline(external("203.0.113.5"), node("node-2", "192.0.2.2")),
        headline(external("fd00::5"), external("2001:db8::1")),
        headline(party(Identity::UnownedPodAddress), party(Identity::UnownedPodAddress)),
        headline(party(Identity::AmbiguousPods(vec![web(), api()])), party(Identity::Service(api_service()))),
        headline(party(Identity::Special), party(Identity::Special)),
    ];
    let flow = &mut denial.event.flow;
    flow.destination_port = None;
    flow.fragment = Some(Fragment { offset: 1480, more: false });
    lines.push(block(&denial).lines().next().unwrap().to_owned());
    let flow = &mut denial.event.flow;
    flow.fragment = None;
    flow.protocol = Protocol::Icmp;
    flow.icmp = Some(IcmpKind { kind: 8, code: 0 });
    lines.push(block(&denial).lines().next().unwrap().to_owned());
    assert_snapshot!(lines.join("\n"), @"
    203.0.113.5 → node node-2:8080/TCP
    fd00::5 → [2001:db8::1]:8080/TCP
    10.244.1.9 (pod not known) → 10.244.1.9 (pod not known) port 8080/TCP
    10.244.1.9 (2 pods claim it) → Service shop/api:8080/TCP
    10.244.1.9 → 10.244.1.9:8080/TCP
    14:02:11.482 DROPPED host firewall  10.244.1.9 → 10.244.1.9 TCP fragment without ports
    14:02:11.482 DROPPED host firewall  10.244.1.9 → 10.244.1.9 ICMP type 8 code 0
    ");
}

#[test]
fn a_service_dropped_before_translation_shows_the_port_of_the_backend() {
    let mut denial = example();
    denial.event.flow.destination = ip("10.96.0.10");
    denial.event.flow.destination_port = Some(80);
    assert!(oneline(&denial).contains("shop/web-7d9f → shop/api-5c4b:8080/TCP  (Service shop/api:80)"), "{}", oneline(&denial));
}

#[test]
fn what_the_kernel_shows() {
    let mut denial = example();
    let mut lines = vec![renderer().kernel(&denial)];
    denial.who.behind = denial.who.server.identity.pod().cloned();
    lines.push(renderer().kernel(&denial));
    denial.event.filters.push(HookFunction { function: "ipt_do_table".into(), priority: 0, table: Some("filter".into()), chain: None });
    denial.event.peer = None;
    lines.push(renderer().kernel(&denial));
    denial.event.filters.clear();
    denial.event.hook = Some(Hook::Output);
    denial.event.location.symbol = None;
    lines.push(renderer().kernel(&denial));
    denial.event.hook = None;
    denial.event.location.address = 0;
    denial.event.interface = Some(Interface { index: 4, name: "".into() });
    lines.push(Renderer { node: None, ..renderer() }.kernel(&denial));
    denial.event.interface = None;
    lines.push(Renderer { node: None, ..renderer() }.kernel(&denial));
    assert_snapshot!(lines.join("\n"), @"
    NETFILTER_DROP in nft_do_chain, forward hook, nft chain ip filter FORWARD, on node-2, veth1a2b to eth0
    NETFILTER_DROP in nft_do_chain, forward hook, nft chain ip filter FORWARD, on node-2, veth1a2b to eth0 of shop/api-5c4b
    NETFILTER_DROP in nft_do_chain, forward hook, one of: nft chain ip filter FORWARD; iptables-legacy table filter, on node-2, veth1a2b
    NETFILTER_DROP at 0xffffffffc0a01234, output hook, on node-2, veth1a2b
    NETFILTER_DROP, interface 4
    NETFILTER_DROP
    ");
}

#[test]
fn conditions_are_sentences() {
    let ip4 = ip("192.0.2.1");
    let has = |value: &str| Some(value.into());
    let missing = |operator| Requirement { key: "team".into(), operator };
    let peers = [
        Condition::NamespaceLabel { wants: wants("team", "a"), namespace: "dev".into(), has: has("b") },
        Condition::NamespaceLabel { wants: missing(Operator::Exists), namespace: "dev".into(), has: None },
        Condition::NamespaceLabel { wants: missing(Operator::DoesNotExist), namespace: "dev".into(), has: has("x") },
        Condition::SameNamespace { wants: "shop".into(), has: "dev".into() },
        wants_frontend(),
        Condition::PodLabel { wants: missing(Operator::In(vec!["a".into(), "b".into()])), pod: "dev/x".into(), has: None },
        Condition::PodLabel { wants: missing(Operator::Invalid("unknown operator Gt".into())), pod: "dev/x".into(), has: None },
        Condition::NotAPod { ip: ip4 },
        Condition::OutsideBlock { cidr: "10.0.0.0/8".into(), ip: ip4 },
        Condition::Excepted { cidr: "192.0.0.0/8".into(), except: "192.0.2.0/24".into(), ip: ip4 },
        Condition::Family { cidr: "10.0.0.0/8".into(), ip: ip("2001:db8::1") },
        Condition::Family { cidr: "2001:db8::/32".into(), ip: ip4 },
        Condition::Invalid { why: "a peer with nothing set".into() },
    ];
    let peers: Vec<_> = peers.iter().map(|condition| peer_conditions(std::slice::from_ref(condition))).collect();
    assert_snapshot!(peers.join("\n"), @"
    namespaceSelector wants team=a, namespace dev has team=b
    namespaceSelector wants team, namespace dev has no label team
    namespaceSelector wants !team, namespace dev has team=x
    podSelector without namespaceSelector wants a pod of namespace shop, this one is in dev
    podSelector wants app=frontend, shop/web-7d9f has app=web
    podSelector wants team in (a,b), dev/x has no label team
    the term team of podSelector is invalid: unknown operator Gt
    192.0.2.1 is no pod, and selectors match pods only
    ipBlock 10.0.0.0/8 does not contain 192.0.2.1
    ipBlock 192.0.0.0/8 excepts 192.0.2.0/24, which contains 192.0.2.1
    ipBlock 10.0.0.0/8 is IPv4, 2001:db8::1 is IPv6
    ipBlock 2001:db8::/32 is IPv6, 192.0.2.1 is IPv4
    invalid: a peer with nothing set
    ");
    let name = || "metrics".into();
    let ports = [
        ("9090/TCP", vec![Condition::PortNumber { has: 80 }]),
        ("53/UDP", vec![Condition::PortNumber { has: 80 }, Condition::Protocol { has: "TCP".into() }]),
        ("metrics/TCP", vec![Condition::NamedPortNumber { name: name(), stands_for: vec![9090, 9091], has: 80 }]),
        ("metrics/TCP", vec![Condition::NamedPortMissing { name: name(), pod: "shop/api-5c4b".into() }]),
        ("metrics/TCP", vec![Condition::NamedPortNeedsPod { name: name() }]),
        ("8080/TCP", vec![Condition::NoPort]),
        ("invalid port (endPort without port)", vec![Condition::Invalid { why: "endPort without port".into() }]),
    ];
    let ports: Vec<_> =
        ports.into_iter().map(|(wants, failed)| port_conditions(&PortMiss { index: 0, wants: wants.into(), failed })).collect();
    assert_snapshot!(ports.join("\n"), @r#"
    wants 9090/TCP
    wants 53/UDP, this is TCP
    wants 9090 or 9091/TCP (named "metrics")
    wants metrics/TCP, shop/api-5c4b has no port of that name and protocol
    wants metrics/TCP, a named port ("metrics") means nothing where the destination is no pod
    wants 8080/TCP, the packet shows no port
    wants invalid port (endPort without port)
    "#);
    let both = near(&policy("p"), Direction::Ingress, 0, vec![wants_frontend()], Some(metrics_miss()));
    assert_snapshot!(miss(&both), @r#"peer differs: podSelector wants app=frontend, shop/web-7d9f has app=web; port differs: wants 9090/TCP (named "metrics")"#);
}

#[test]
fn durations() {
    let ms = SignedDuration::from_millis;
    let all = [ms(0), ms(400), ms(7_000), ms(65_000), ms(7_380_000)].map(duration);
    assert_eq!(all, ["0 ms", "400 ms", "7 s", "1 m 5 s", "2 h 3 m"]);
}

#[test]
fn colour_changes_nothing_but_colour() {
    let coloured = Renderer { palette: Palette::COLOURED, ..renderer() }.block(&example());
    assert!(coloured.contains("\u{1b}[1m\u{1b}[31mDENIED"), "{coloured:?}");
    assert_eq!(anstream::adapter::strip_str(&coloured).to_string(), block(&example()));
}

#[test]
fn names_cannot_reach_the_terminal() {
    let mut denial = example();
    denial.event.interface = Some(Interface { index: 4, name: "veth\u{1b}]0;x\u{7}".into() });
    denial.explanation = crate::policy::Explanation { verdict: Verdict::Deny, ingress: denied_ingress(), ..denial.explanation };
    denial.explanation.egress = not_isolated(Direction::Egress, "a\u{202e}b");
    denial.explanation.notes = vec!["two\nlines\r\u{9b}2J".into()];
    denial.explanation.fixes[0].change = "\u{1b}[2J".into();
    for text in [block(&denial), oneline(&denial)] {
        assert!(!text.replace('\n', "").chars().any(is_unprintable), "{text:?}");
    }
    assert_eq!(block(&denial).lines().count(), block(&example()).lines().count() + 1, "the note is one line");
}
