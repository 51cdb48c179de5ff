//! The naive evaluator on what the text of the API says, sentence by sentence, as far as other projects' cases leave it out.

use netpol_observer::policy::{BaselineScope, OtherProtocols, Profile, TiedPriorities, Verdict};

use super::published::documents;
use super::{Call, World, opinion};

/// `a/web` 10.1.0.1 and fd00:1::1, `a/api` 10.1.0.2 (http is 8080/TCP and 80/UDP), `b/web` 10.2.0.1, `b/job` 10.2.0.9 (ended), two pods at
/// 10.1.0.7, a node for each range, and a Service for `a/api`.
const CLUSTER: &str = r#"
{kind: Namespace, metadata: {name: a, labels: {team: one}}}
---
{kind: Node, metadata: {name: node1, labels: {zone: z}}, spec: {podCIDR: 10.1.0.0/24}, status: {addresses: [{address: 192.168.0.1}]}}
---
{kind: Node, metadata: {name: node2}, spec: {podCIDRs: [10.2.0.0/24]}, status: {addresses: [{address: 192.168.0.2}]}}
---
{kind: Pod, metadata: {name: web, namespace: a, labels: {app: web}}, spec: {nodeName: node1}, status: {podIPs: [{ip: 10.1.0.1}, {ip: "fd00:1::1"}]}}
---
kind: Pod
metadata: {name: api, namespace: a, labels: {app: api}}
spec: {nodeName: node1, containers: [{ports: [{name: http, containerPort: 8080}, {name: http, containerPort: 80, protocol: UDP}]}]}
status: {podIPs: [{ip: 10.1.0.2}, {ip: "fd00:1::2"}]}
---
{kind: Pod, metadata: {name: web, namespace: b, labels: {app: web}}, spec: {nodeName: node2}, status: {podIP: 10.2.0.1}}
---
{kind: Pod, metadata: {name: job, namespace: b, labels: {app: job}}, status: {podIP: 10.2.0.9, phase: Succeeded}}
---
{kind: Pod, metadata: {name: agent, namespace: a, labels: {app: api}}, spec: {hostNetwork: true, nodeName: node1}, status: {podIP: 192.168.0.1}}
---
{kind: Pod, metadata: {name: twin1, namespace: a, labels: {app: twin}}, status: {podIP: 10.1.0.7}}
---
{kind: Pod, metadata: {name: twin2, namespace: a, labels: {app: other}}, status: {podIP: 10.1.0.7}}
---
{kind: Service, metadata: {name: api, namespace: a}, spec: {clusterIP: 10.96.0.1, selector: {app: api}, ports: [{port: 80, targetPort: http}]}}
---
{kind: Service, metadata: {name: all, namespace: a}, spec: {clusterIP: 10.96.0.2, selector: {}, ports: [{port: 80}]}}
"#;

const WEB: &str = "10.1.0.1";
const API: &str = "10.1.0.2";
const OTHER_WEB: &str = "10.2.0.1";
const ENDED: &str = "10.2.0.9";
const TWINS: &str = "10.1.0.7";
const OUTSIDE: &str = "203.0.113.5";
const NODE1: &str = "192.168.0.1";
const NODE2: &str = "192.168.0.2";

/// Source, destination, `port/protocol`, verdict.
type Row<'a> = (&'a str, &'a str, &'a str, &'a str);

fn check_with(profile: Profile, policies: &str, rows: &[Row<'_>]) {
    let mut world = World { objects: documents(CLUSTER), ..World::default() };
    world.objects.extend(documents(policies));
    world.names.insert("api.example.com".into(), vec![OUTSIDE.parse().expect("an address")]);
    for (source, destination, port, expected) in rows {
        let (number, protocol) = port.split_once('/').expect("port/protocol");
        let ip = |text: &str| text.parse().unwrap_or_else(|error| panic!("{error}: {text}"));
        let call = Call {
            source: ip(source),
            destination: ip(destination),
            protocol: protocol.parse().expect("a protocol"),
            port: number.parse().ok(),
        };
        let got = match opinion(&world, &call, &profile).verdict {
            Verdict::Allow => "allow",
            Verdict::Deny => "deny",
            Verdict::Undecided => "undecided",
        };
        assert_eq!(got, *expected, "{source} -> {destination} {port}\n{policies}");
    }
}

fn check(policies: &str, rows: &[Row<'_>]) {
    check_with(Profile::default(), policies, rows);
}

fn network_policy(spec: &str) -> String {
    format!("{{kind: NetworkPolicy, metadata: {{name: p, namespace: a}}, spec: {spec}}}")
}

fn admin(name: &str, priority: u16, spec: &str) -> String {
    format!(
        "{{kind: AdminNetworkPolicy, metadata: {{name: {name}}}, spec: {{priority: {priority}, subject: {{namespaces: {{}}}}, {spec}}}}}"
    )
}

fn cluster(name: &str, tier: &str, spec: &str) -> String {
    format!(
        "{{kind: ClusterNetworkPolicy, metadata: {{name: {name}}}, spec: {{tier: {tier}, priority: 5, subject: {{namespaces: {{}}}}, {spec}}}}}"
    )
}

fn documents_of(parts: &[String]) -> String {
    parts.join("\n---\n")
}

#[test]
fn without_policies_all_is_admitted() {
    check("", &[(WEB, API, "80/TCP", "allow"), (OUTSIDE, API, "/ICMP", "allow"), (ENDED, API, "80/TCP", "allow")]);
}

#[test]
fn policy_types_default_by_the_egress_rules() {
    check(&network_policy("{}"), &[(OTHER_WEB, API, "80/TCP", "deny"), (API, OTHER_WEB, "80/TCP", "allow")]);
    check(&network_policy("{egress: []}"), &[(API, OTHER_WEB, "80/TCP", "allow")]);
    check(&network_policy("{policyTypes: [], egress: [{}]}"), &[(OTHER_WEB, API, "80/TCP", "deny"), (API, OTHER_WEB, "80/TCP", "allow")]);
    check(&network_policy("{policyTypes: [Egress]}"), &[(API, OTHER_WEB, "80/TCP", "deny"), (OTHER_WEB, API, "80/TCP", "allow")]);
}

#[test]
fn absent_and_empty_peers_differ_from_peers_with_empty_selectors() {
    check(&network_policy("{ingress: [{}]}"), &[(OUTSIDE, API, "80/TCP", "allow"), (OTHER_WEB, API, "80/TCP", "allow")]);
    check(&network_policy("{ingress: [{from: []}]}"), &[(OUTSIDE, API, "80/TCP", "allow")]);
    let own = network_policy("{ingress: [{from: [{podSelector: {}}]}]}");
    check(&own, &[(WEB, API, "80/TCP", "allow"), (OTHER_WEB, API, "80/TCP", "deny"), (OUTSIDE, API, "80/TCP", "deny")]);
    let all = network_policy("{ingress: [{from: [{namespaceSelector: {}}]}]}");
    check(&all, &[(OTHER_WEB, API, "80/TCP", "allow"), (OUTSIDE, API, "80/TCP", "deny"), (NODE2, API, "80/TCP", "deny")]);
    check(&network_policy("{ingress: [{from: [{}]}]}"), &[(WEB, API, "80/TCP", "deny")]);
}

#[test]
fn selectors_of_one_peer_are_anded() {
    let one =
        network_policy("{ingress: [{from: [{podSelector: {matchLabels: {app: web}}, namespaceSelector: {matchLabels: {team: one}}}]}]}");
    check(&one, &[(WEB, API, "80/TCP", "allow"), (OTHER_WEB, API, "80/TCP", "deny")]);
    let undescribed = network_policy("{ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: b}}}]}]}");
    check(&undescribed, &[(OTHER_WEB, API, "80/TCP", "allow"), (WEB, API, "80/TCP", "deny")]);
}

#[test]
fn invalid_selectors_match_nothing() {
    for term in ["{key: app, operator: In}", "{key: app, operator: Exists, values: [web]}", "{key: app, operator: Like}"] {
        let peer = network_policy(&format!("{{ingress: [{{from: [{{podSelector: {{matchExpressions: [{term}]}}}}]}}]}}"));
        check(&peer, &[(WEB, API, "80/TCP", "deny")]);
        let subject = network_policy(&format!("{{podSelector: {{matchExpressions: [{term}]}}}}"));
        check(&subject, &[(OTHER_WEB, API, "80/TCP", "allow")]);
    }
}

#[test]
fn named_ports_are_those_of_the_destination_by_name_and_protocol() {
    let ingress = network_policy("{podSelector: {matchLabels: {app: api}}, ingress: [{ports: [{port: http}]}]}");
    let rows =
        [(WEB, API, "8080/TCP", "allow"), (WEB, API, "80/TCP", "deny"), (WEB, API, "80/UDP", "deny"), (WEB, API, "/TCP", "undecided")];
    check(&ingress, &rows);
    let egress = network_policy("{policyTypes: [Egress], egress: [{ports: [{port: http, protocol: UDP}]}]}");
    check(&egress, &[(WEB, API, "80/UDP", "allow"), (WEB, API, "8080/TCP", "deny"), (WEB, OTHER_WEB, "80/UDP", "deny")]);
    // The ended pod's address is nobody's that is known.
    check(&egress, &[(WEB, ENDED, "80/UDP", "undecided"), (WEB, OUTSIDE, "80/UDP", "deny")]);
}

#[test]
fn ports_ranges_and_protocols() {
    let range = network_policy("{ingress: [{ports: [{port: 80, endPort: 90}]}]}");
    check(
        &range,
        &[(WEB, API, "80/TCP", "allow"), (WEB, API, "90/TCP", "allow"), (WEB, API, "91/TCP", "deny"), (WEB, API, "85/SCTP", "deny")],
    );
    check(&network_policy("{ingress: [{ports: [{port: 90, endPort: 80}]}]}"), &[(WEB, API, "85/TCP", "deny")]);
    check(&network_policy("{ingress: [{ports: [{endPort: 80}]}]}"), &[(WEB, API, "80/TCP", "deny")]);
    let sctp = network_policy("{ingress: [{ports: [{protocol: SCTP}]}]}");
    check(&sctp, &[(WEB, API, "7/SCTP", "allow"), (WEB, API, "7/TCP", "deny"), (WEB, API, "/SCTP", "allow")]);
    check(&network_policy("{ingress: [{ports: []}]}"), &[(WEB, API, "7/TCP", "allow")]);
}

#[test]
fn blocks_match_addresses_of_pods_too_and_exceptions_are_their_own() {
    let two = network_policy("{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.2.0.0/16]}}, {ipBlock: {cidr: 10.2.0.1/31}}]}]}");
    check(&two, &[(WEB, API, "80/TCP", "allow"), (OTHER_WEB, API, "80/TCP", "allow"), ("10.2.0.77", API, "80/TCP", "deny")]);
    let ignoring = Profile { ip_block_matches_pods: false, ..Profile::default() };
    check_with(ignoring, &two, &[(WEB, API, "80/TCP", "deny"), ("10.3.0.1", API, "80/TCP", "allow")]);
    check(&network_policy("{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]}]}"), &[(WEB, API, "80/TCP", "deny")]);
    let six = network_policy("{ingress: [{from: [{ipBlock: {cidr: '::/0'}}]}]}");
    check(&six, &[("fd00:1::1", "fd00:1::2", "80/TCP", "allow"), (WEB, API, "80/TCP", "deny"), ("::ffff:10.1.0.1", API, "80/TCP", "deny")]);
}

#[test]
fn exempt_traffic() {
    let isolated = network_policy("{policyTypes: [Ingress, Egress]}");
    // Itself; its own node but not the other one; the host's network is no subject.
    check(&isolated, &[(API, API, "80/TCP", "allow"), (NODE1, API, "80/TCP", "allow"), (NODE2, API, "80/TCP", "deny")]);
    check(&isolated, &[(OUTSIDE, NODE1, "80/TCP", "allow"), (API, NODE1, "80/TCP", "deny"), (API, "224.0.0.1", "80/UDP", "allow")]);
    check(&isolated, &[(API, "169.254.169.254", "80/TCP", "deny"), ("127.0.0.1", API, "80/TCP", "allow")]);
}

#[test]
fn other_protocols_are_open_where_a_denial_would_hit_them() {
    let isolated = network_policy("{}");
    check(&isolated, &[(WEB, API, "/ICMP", "undecided")]);
    check_with(Profile { other_protocols: OtherProtocols::Denied, ..Profile::default() }, &isolated, &[(WEB, API, "/ICMP", "deny")]);
    check_with(Profile { other_protocols: OtherProtocols::Admitted, ..Profile::default() }, &isolated, &[(WEB, API, "/ICMP", "allow")]);
    check(&network_policy("{ingress: [{from: [{podSelector: {}}]}]}"), &[(WEB, API, "/ICMP", "allow")]);
}

#[test]
fn addresses_of_several_pods_and_of_none() {
    let twin = network_policy("{podSelector: {matchLabels: {app: twin}}}");
    check(&twin, &[(OTHER_WEB, TWINS, "80/TCP", "undecided"), (TWINS, OTHER_WEB, "80/TCP", "allow")]);
    check(&network_policy("{}"), &[(OTHER_WEB, TWINS, "80/TCP", "deny"), (OTHER_WEB, "10.1.0.99", "80/TCP", "undecided")]);
    check(&network_policy("{ingress: [{from: [{podSelector: {}}]}]}"), &[("10.1.0.99", API, "80/TCP", "undecided")]);
}

#[test]
fn services_are_judged_over_their_endpoints() {
    // The agent in the host's network has no port of that name, so it is no endpoint.
    let only_8080 = network_policy("{podSelector: {matchLabels: {app: api}}, ingress: [{ports: [{port: 8080}]}]}");
    check(&only_8080, &[(WEB, "10.96.0.1", "80/TCP", "allow"), (WEB, API, "80/TCP", "deny")]);
    check(&network_policy("{ingress: [{ports: [{port: 80}]}]}"), &[(WEB, "10.96.0.1", "80/TCP", "deny")]);
    // No such port, no endpoint.
    check(&only_8080, &[(WEB, "10.96.0.1", "81/TCP", "undecided"), (WEB, "10.96.0.2", "80/TCP", "undecided")]);
    let slice = "{kind: EndpointSlice, metadata: {namespace: a, labels: {kubernetes.io/service-name: all}}, ports: [{port: 8080}], \
                 endpoints: [{addresses: [10.1.0.2]}, {addresses: [10.2.0.1], conditions: {ready: false}}, {addresses: [10.1.0.1]}]}";
    let with_slice = documents_of(&[only_8080.clone(), slice.to_owned()]);
    check(&with_slice, &[(OTHER_WEB, "10.96.0.2", "80/TCP", "allow")]);
    check(&with_slice.replace("port: 8080}]}]", "port: 8081}]}]"), &[(OTHER_WEB, "10.96.0.2", "80/TCP", "undecided")]);
}

#[test]
fn admin_policies_go_first_by_priority_and_rule_order() {
    let deny = admin("deny", 20, "ingress: [{action: Deny, from: [{namespaces: {}}]}]");
    let allow =
        admin("allow", 10, "ingress: [{action: Allow, from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}}]}]");
    let isolated = network_policy("{}");
    let all = documents_of(&[deny.clone(), allow, isolated.clone()]);
    check(&all, &[(WEB, API, "80/TCP", "allow"), (API, OTHER_WEB, "80/TCP", "deny"), (OUTSIDE, OTHER_WEB, "80/TCP", "allow")]);
    let pass = admin("pass", 5, "ingress: [{action: Pass, from: [{namespaces: {}}]}, {action: Allow, from: [{namespaces: {}}]}]");
    check(&documents_of(&[deny, pass, isolated]), &[(OTHER_WEB, API, "80/TCP", "deny"), (WEB, OTHER_WEB, "80/TCP", "allow")]);
}

#[test]
fn ties_are_undecided_where_they_matter() {
    let deny = admin("a-deny", 10, "ingress: [{action: Deny, from: [{namespaces: {}}]}]");
    let allow = admin("b-allow", 10, "ingress: [{action: Allow, from: [{namespaces: {}}], ports: [{portNumber: {port: 80}}]}]");
    let pass = admin("c-pass", 10, "ingress: [{action: Pass, from: [{namespaces: {}}]}]");
    let both = documents_of(&[deny, allow.clone()]);
    check(&both, &[(WEB, API, "80/TCP", "undecided"), (WEB, API, "81/TCP", "deny")]);
    let by_name = Profile { tied_priorities: TiedPriorities::ByName, ..Profile::default() };
    check_with(by_name, &both, &[(WEB, API, "80/TCP", "deny")]);
    // Pass leads to no denial here: every order admits.
    check(&documents_of(&[allow, pass]), &[(WEB, API, "80/TCP", "allow")]);
}

#[test]
fn baseline_is_reached_per_direction() {
    let baseline = "{kind: BaselineAdminNetworkPolicy, metadata: {name: default}, spec: {subject: {namespaces: {}}, \
                    ingress: [{action: Deny, from: [{namespaces: {}}]}], egress: [{action: Deny, to: [{networks: [0.0.0.0/0]}]}]}}"
        .to_owned();
    check(&baseline, &[(WEB, API, "80/TCP", "deny"), (OUTSIDE, API, "80/TCP", "allow"), (API, OUTSIDE, "80/TCP", "deny")]);
    let open = network_policy("{ingress: [{}]}");
    let both = documents_of(&[baseline.clone(), open]);
    check(&both, &[(API, OUTSIDE, "80/TCP", "deny"), (NODE2, API, "80/TCP", "allow"), (OTHER_WEB, API, "80/TCP", "deny")]);
    let per_pod = Profile { baseline: BaselineScope::PerPod, ..Profile::default() };
    check_with(per_pod, &both, &[(API, OUTSIDE, "80/TCP", "allow")]);
    check(&baseline.replace("default", "other"), &[(WEB, API, "80/TCP", "allow")]);
}

#[test]
fn what_is_refused_fails_closed() {
    for peer in ["{}", "{newer: {}}", "{pods: {podSelector: {}}}", "{namespaces: {}, pods: {namespaceSelector: {}, podSelector: {}}}"] {
        let deny = admin("deny", 10, &format!("ingress: [{{action: Deny, from: [{peer}]}}]"));
        check(&deny, &[(OUTSIDE, API, "80/TCP", "deny")]);
        let allow = admin("allow", 10, &format!("ingress: [{{action: Allow, from: [{peer}]}}]"));
        check(&documents_of(&[allow, network_policy("{}")]), &[(OTHER_WEB, API, "80/TCP", "deny")]);
    }
    check(&admin("none", 1, "ingress: [{action: Deny, from: []}]"), &[(WEB, API, "80/TCP", "allow")]);
    check(&admin("odd", 1, "ingress: [{action: Shrug, from: [{namespaces: {}}]}]"), &[(WEB, API, "80/TCP", "allow")]);
    let named = admin("named", 1, "egress: [{action: Deny, to: [{networks: [0.0.0.0/0]}], ports: [{namedPort: http}]}]");
    check(&named, &[(WEB, OUTSIDE, "1/TCP", "deny")]);
}

#[test]
fn peers_of_cluster_policies() {
    let external = admin("e", 1, "ingress: [{action: Deny, from: [{namespaces: {}}]}]");
    check(&external, &[(OUTSIDE, API, "80/TCP", "allow"), (NODE2, API, "80/TCP", "allow"), (OTHER_WEB, API, "80/TCP", "deny")]);
    let networks = admin("n", 1, "egress: [{action: Deny, to: [{networks: [10.1.0.0/24]}]}]");
    let no_blocks = Profile { ip_block_matches_pods: false, ..Profile::default() };
    check_with(no_blocks, &networks, &[(OTHER_WEB, API, "80/TCP", "deny"), (OTHER_WEB, OUTSIDE, "80/TCP", "allow")]);
    let nodes = admin("n", 1, "egress: [{action: Deny, to: [{nodes: {matchLabels: {zone: z}}}]}]");
    check(&nodes, &[(WEB, NODE1, "80/TCP", "deny"), (WEB, NODE2, "80/TCP", "allow"), (WEB, API, "80/TCP", "allow")]);
    let mapped = admin("m", 1, "egress: [{action: Deny, to: [{networks: ['::ffff:10.0.0.0/104']}]}]");
    check(&mapped, &[(WEB, OUTSIDE, "80/TCP", "deny")]);
}

#[test]
fn domain_names_are_decided_where_they_are_known() {
    let rest = "{action: Deny, to: [{networks: [0.0.0.0/0]}]}";
    let of = |name: &str| admin("d", 1, &format!("egress: [{{action: Allow, to: [{{domainNames: ['{name}']}}]}}, {rest}]"));
    check(&of("api.example.com"), &[(WEB, OUTSIDE, "443/TCP", "allow"), (WEB, "203.0.113.6", "443/TCP", "deny")]);
    check(&of("API.example.com."), &[(WEB, OUTSIDE, "443/TCP", "allow")]);
    check(&of("*.example.com"), &[(WEB, OUTSIDE, "443/TCP", "allow"), (WEB, "203.0.113.6", "443/TCP", "deny")]);
    check(&of("*.api.example.com"), &[(WEB, OUTSIDE, "443/TCP", "undecided")]);
    check(&of("unknown.test"), &[(WEB, OUTSIDE, "443/TCP", "undecided"), (WEB, API, "443/TCP", "deny")]);
    // Where all that follows admits, it does not matter.
    check(&admin("d", 1, "egress: [{action: Allow, to: [{domainNames: [unknown.test]}]}]"), &[(WEB, OUTSIDE, "443/TCP", "allow")]);
}

#[test]
fn ports_of_cluster_policies() {
    let of = |ports: &str| admin("p", 1, &format!("ingress: [{{action: Deny, from: [{{namespaces: {{}}}}], ports: [{ports}]}}]"));
    check(&of("{portNumber: {protocol: UDP, port: 80}}"), &[(WEB, API, "80/UDP", "deny"), (WEB, API, "80/TCP", "allow")]);
    check(&of("{portRange: {protocol: TCP, start: 80, end: 90}}"), &[(WEB, API, "90/TCP", "deny"), (WEB, API, "91/TCP", "allow")]);
    // Whatever its protocol.
    check(&of("{namedPort: http}"), &[(WEB, API, "8080/TCP", "deny"), (WEB, API, "80/UDP", "deny"), (WEB, API, "80/TCP", "allow")]);
    check(&of(""), &[(WEB, API, "1/TCP", "deny")]);
    let newer =
        |ports: &str| cluster("c", "Admin", &format!("ingress: [{{action: Deny, from: [{{namespaces: {{}}}}], protocols: [{ports}]}}]"));
    check(&newer("{tcp: {destinationPort: {number: 80}}}"), &[(WEB, API, "80/TCP", "deny"), (WEB, API, "80/UDP", "allow")]);
    check(&newer("{sctp: {}}"), &[(WEB, API, "1/SCTP", "deny"), (WEB, API, "1/TCP", "allow")]);
    check(&newer("{destinationNamedPort: http}"), &[(WEB, API, "80/UDP", "deny"), (WEB, API, "81/UDP", "allow")]);
    check(&newer("{tcp: {destinationPort: {range: {start: 80, end: 80}}}}"), &[(WEB, API, "1/UDP", "deny")]);
}

#[test]
fn cluster_policies_of_both_tiers() {
    let accept = cluster("accept", "Admin", "ingress: [{action: Accept, from: [{namespaces: {matchLabels: {team: one}}}]}]");
    let deny = cluster("deny", "Baseline", "ingress: [{action: Deny, from: [{namespaces: {}}]}]");
    let both = documents_of(&[accept, deny.clone()]);
    check(&both, &[(WEB, API, "80/TCP", "allow"), (OTHER_WEB, API, "80/TCP", "deny")]);
    let pass = cluster("a", "Baseline", "ingress: [{action: Pass, from: [{namespaces: {}}]}]").replace("priority: 5", "priority: 4");
    check(&documents_of(&[pass, deny]), &[(WEB, API, "80/TCP", "allow")]);
    // The older word is not the newer one's.
    check(&cluster("w", "Admin", "ingress: [{action: Allow, from: [{namespaces: {}}]}]"), &[(WEB, API, "80/TCP", "allow")]);
    let optional = cluster("o", "Admin", "ingress: [{action: Deny, from: [{pods: {podSelector: {matchLabels: {app: web}}}}]}]");
    check(&optional, &[(WEB, API, "80/TCP", "deny"), (API, OTHER_WEB, "80/TCP", "allow")]);
}
