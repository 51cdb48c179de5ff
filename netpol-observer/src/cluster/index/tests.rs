//! Tests of the index.

use super::*;
use crate::cluster::{Backend, ContainerPort, Selector, SlicePort, Subject, Tier, Workload};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| ip(text)).collect()
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
}

fn pod(namespace: &str, name: &str, addresses: &[&str]) -> Pod {
    Pod {
        namespace: namespace.into(),
        name: name.into(),
        uid: "".into(),
        labels: labels(&[("app", name)]),
        ips: ips(addresses),
        node: None,
        host_network: false,
        phase: PodPhase::Active,
        ready: true,
        deleting: false,
        ports: Vec::new(),
        workload: Workload { kind: "Pod".into(), name: name.into() },
        origin: None,
    }
}

fn node(name: &str, addresses: &[&str], ranges: &[&str]) -> Node {
    let pod_cidrs = ranges.iter().map(|range| range.parse().expect("a range")).collect();
    Node { name: name.into(), labels: Labels::new(), addresses: ips(addresses), pod_cidrs }
}

fn service(name: &str, cluster_ips: &[&str], port: ServicePort) -> Service {
    Service {
        namespace: "shop".into(),
        name: name.into(),
        cluster_ips: ips(cluster_ips),
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        ports: vec![port],
        selector: Some(labels(&[("app", "api")])),
        publish_not_ready: false,
        dns: Default::default(),
    }
}

fn port(target_port: TargetPort) -> ServicePort {
    ServicePort { name: Some("web".into()), port: 80, protocol: Protocol::Tcp, target_port, node_port: None }
}

fn names(pods: &[Arc<Pod>]) -> Vec<String> {
    pods.iter().map(|pod| format!("{}/{}", pod.namespace, pod.name)).collect()
}

fn key(kind: Kind, namespace: &str, name: &str) -> ObjectKey {
    ObjectKey { kind, namespace: namespace.into(), name: name.into() }
}

#[test]
fn an_address_follows_its_pod() {
    let mut index = Index::default();
    index.apply(pod("shop", "b", &["10.0.0.1"]));
    index.apply(pod("shop", "a", &["10.0.0.1", "fd00::1"]));
    assert_eq!(names(index.pods_at(ip("10.0.0.1"))), ["shop/a", "shop/b"]);
    assert_eq!(names(index.pods_at(ip("::ffff:10.0.0.1"))), ["shop/a", "shop/b"]);

    index.apply(pod("shop", "a", &["10.0.0.9"]));
    assert_eq!(names(index.pods_at(ip("10.0.0.1"))), ["shop/b"]);
    assert_eq!(names(index.pods_at(ip("fd00::1"))), [""; 0]);

    index.delete(&key(Kind::Pod, "shop", "b"));
    index.delete(&key(Kind::Pod, "shop", "never was"));
    assert!(index.pods_at(ip("10.0.0.1")).is_empty());
    assert_eq!(index.counts(), Counts { pods: 1, ..Counts::default() });
}

#[test]
fn mapped_addresses_are_stored_as_ipv4() {
    let mut index = Index::default();
    index.apply(pod("shop", "a", &["::ffff:10.0.0.1", "10.0.0.1"]));
    assert_eq!(names(index.pods_at(ip("10.0.0.1"))), ["shop/a"]);
    index.delete(&key(Kind::Pod, "shop", "a"));
    assert!(index.pods_at(ip("10.0.0.1")).is_empty());
}

#[test]
fn terminated_and_host_network_pods_hold_no_address() {
    let mut index = Index::default();
    index.apply(Pod { phase: PodPhase::Terminated, ..pod("shop", "done", &["10.0.0.1"]) });
    index.apply(Pod { host_network: true, ..pod("kube-system", "proxy", &["192.168.0.1"]) });
    assert!(index.pods_at(ip("10.0.0.1")).is_empty());
    assert!(index.pods_at(ip("192.168.0.1")).is_empty());
    assert!(index.pod("shop", "done").is_some());
}

#[test]
fn a_pod_that_ends_gives_its_address_up() {
    let mut index = Index::default();
    index.apply(pod("shop", "job", &["10.0.0.1"]));
    index.apply(Pod { phase: PodPhase::Terminated, ..pod("shop", "job", &["10.0.0.1"]) });
    index.apply(pod("shop", "next", &["10.0.0.1"]));
    assert_eq!(names(index.pods_at(ip("10.0.0.1"))), ["shop/next"]);
}

#[test]
fn pods_come_in_order_of_namespace_and_name() {
    let mut index = Index::default();
    for (namespace, name) in [("b", "x"), ("a", "z"), ("a", "y"), ("a-b", "w")] {
        index.apply(pod(namespace, name, &[]));
    }
    let all: Vec<_> = index.pods().cloned().collect();
    assert_eq!(names(&all), ["a/y", "a/z", "a-b/w", "b/x"]);
    let inside: Vec<_> = index.pods_in("a").cloned().collect();
    assert_eq!(names(&inside), ["a/y", "a/z"]);
}

#[test]
fn writing_to_a_clone_leaves_the_original_alone() {
    let mut index = Index::default();
    index.apply(pod("shop", "a", &["10.0.0.1"]));
    let mut changed = index.clone();
    changed.apply(pod("shop", "b", &["10.0.0.1"]));
    changed.delete(&key(Kind::Pod, "shop", "a"));
    assert_eq!(names(index.pods_at(ip("10.0.0.1"))), ["shop/a"]);
    assert_eq!(names(changed.pods_at(ip("10.0.0.1"))), ["shop/b"]);
    assert!(index.pod("shop", "b").is_none());
}

#[test]
fn nodes_and_their_pod_ranges() {
    let mut index = Index::default();
    index.apply(node("n1", &["192.168.0.1"], &["10.1.0.0/24", "fd00:1::/64"]));
    index.apply(node("n2", &["192.168.0.2"], &["10.1.0.0/24", "10.1.1.7/24"]));
    assert_eq!(index.node_at(ip("::ffff:192.168.0.2")).map(|node| &*node.name), Some("n2"));
    assert!(index.node_at(ip("10.1.0.1")).is_none());
    for (address, inside) in [("10.1.0.200", true), ("10.1.1.1", true), ("10.1.2.1", false), ("fd00:1::9", true), ("fd00:2::9", false)] {
        assert_eq!(index.in_pod_range(ip(address)), inside, "{address}");
    }
    index.delete(&key(Kind::Node, "", "n1"));
    assert!(index.in_pod_range(ip("10.1.0.200")), "n2 has that range too");
    assert!(!index.in_pod_range(ip("fd00:1::9")));
    index.apply(node("n2", &[], &[]));
    assert!(!index.in_pod_range(ip("10.1.0.200")));
    assert!(index.node_at(ip("192.168.0.2")).is_none());
}

#[test]
fn a_namespace_nobody_described_has_its_name_label_alone() {
    let mut index = Index::default();
    assert_eq!(*index.namespace_labels("shop"), labels(&[("kubernetes.io/metadata.name", "shop")]));
    index.apply(Namespace { name: "shop".into(), labels: labels(&[("team", "a")]) });
    assert_eq!(*index.namespace_labels("shop"), labels(&[("team", "a")]));
    index.delete(&key(Kind::Namespace, "", "shop"));
    assert!(index.namespace("shop").is_none());
}

#[test]
fn services_by_address_and_node_port() {
    let mut index = Index::default();
    let node_port = ServicePort { node_port: Some(30080), ..port(TargetPort::Number(8080)) };
    index.apply(Service { external_ips: ips(&["203.0.113.1"]), ..service("api", &["10.96.0.1"], node_port) });
    index.apply(Service { external_ips: ips(&["203.0.113.1"]), ..service("aaa", &[], port(TargetPort::Number(1))) });
    assert_eq!(index.service_at(ip("10.96.0.1")).map(|s| &*s.name), Some("api"));
    assert_eq!(index.services_at(ip("203.0.113.1")).iter().map(|s| &*s.name).collect::<Vec<_>>(), ["aaa", "api"]);
    assert_eq!(index.node_port(30080, Protocol::Tcp).map(|(s, i)| (&*s.name, i)), Some(("api", 0)));
    assert!(index.node_port(30080, Protocol::Udp).is_none());

    index.apply(service("api", &["10.96.0.2"], port(TargetPort::Number(8080))));
    assert!(index.service_at(ip("10.96.0.1")).is_none());
    assert!(index.node_port(30080, Protocol::Tcp).is_none());
    assert_eq!(index.services_at(ip("203.0.113.1")).len(), 1);
}

#[test]
fn backends_derived_from_the_selector() {
    let mut index = Index::default();
    let named = |name: &str, address: &str, number: u16, protocol: Protocol| Pod {
        labels: labels(&[("app", "api"), ("more", "x")]),
        ports: vec![ContainerPort { name: Some("http".into()), port: number, protocol }],
        ..pod("shop", name, &[address])
    };
    index.apply(named("a", "10.0.0.1", 8080, Protocol::Tcp));
    index.apply(named("b", "10.0.0.2", 9090, Protocol::Tcp));
    index.apply(named("udp", "10.0.0.3", 7070, Protocol::Udp));
    index.apply(Pod { ready: false, ..named("starting", "10.0.0.4", 8080, Protocol::Tcp) });
    index.apply(Pod { phase: PodPhase::Terminated, ..named("done", "10.0.0.5", 8080, Protocol::Tcp) });
    index.apply(Pod { labels: labels(&[("app", "web")]), ..named("web", "10.0.0.6", 8080, Protocol::Tcp) });
    index.apply(Pod { namespace: "other".into(), ..named("api", "10.0.0.7", 8080, Protocol::Tcp) });

    let by_name = service("api", &["10.96.0.1"], port(TargetPort::Name("http".into())));
    let expected = [(ip("10.0.0.1"), 8080), (ip("10.0.0.2"), 9090)];
    assert_eq!(index.backends(&by_name, &by_name.ports[0]), expected);

    let early = Service { publish_not_ready: true, ..by_name.clone() };
    assert_eq!(index.backends(&early, &early.ports[0]).len(), 3);

    let by_number = service("api", &["10.96.0.1"], port(TargetPort::Number(5)));
    assert_eq!(index.backends(&by_number, &by_number.ports[0]), [(ip("10.0.0.1"), 5), (ip("10.0.0.2"), 5), (ip("10.0.0.3"), 5)]);

    for selector in [None, Some(Labels::new())] {
        let without = Service { selector, ..by_name.clone() };
        assert!(index.backends(&without, &without.ports[0]).is_empty(), "an empty selector selects nothing in a Service");
    }
}

#[test]
fn derived_backends_keep_to_the_families_of_the_service() {
    let mut index = Index::default();
    index.apply(pod("shop", "api", &["10.0.0.1", "fd00::1"]));
    let of = |cluster_ips: &[&str]| {
        let service = service("api", cluster_ips, port(TargetPort::Number(1)));
        index.backends(&service, &service.ports[0]).into_iter().map(|(ip, _)| ip.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(of(&["10.96.0.1"]), ["10.0.0.1"]);
    assert_eq!(of(&["fd00:96::1"]), ["fd00::1"]);
    assert_eq!(of(&["10.96.0.1", "fd00:96::1"]), ["10.0.0.1", "fd00::1"]);
}

#[test]
fn endpoint_slices_win_over_the_selector() {
    let mut index = Index::default();
    index.apply(pod("shop", "api", &["10.0.0.1"]));
    let slice = |name: &str, protocol: Protocol, backends: &[(&str, bool)]| EndpointSlice {
        namespace: "shop".into(),
        name: name.into(),
        service: Some("api".into()),
        ports: vec![SlicePort { name: "web".into(), port: 8443, protocol }],
        backends: backends.iter().map(|(address, ready)| Backend { ip: ip(address), ready: *ready }).collect(),
    };
    index.apply(slice("api-1", Protocol::Tcp, &[("10.0.0.9", true), ("10.0.0.8", false)]));
    index.apply(slice("api-2", Protocol::Tcp, &[("10.0.0.7", true), ("10.0.0.9", true)]));
    index.apply(slice("api-3", Protocol::Udp, &[("10.0.0.6", true)]));
    let service = service("api", &["10.96.0.1"], port(TargetPort::Number(1)));
    assert_eq!(index.backends(&service, &service.ports[0]), [(ip("10.0.0.7"), 8443), (ip("10.0.0.9"), 8443)]);

    index.apply(slice("api-1", Protocol::Tcp, &[]));
    index.delete(&key(Kind::EndpointSlice, "shop", "api-2"));
    assert!(index.backends(&service, &service.ports[0]).is_empty(), "empty slices say: no endpoints");

    for name in ["api-1", "api-3"] {
        index.delete(&key(Kind::EndpointSlice, "shop", name));
    }
    assert_eq!(index.backends(&service, &service.ports[0]), [(ip("10.0.0.1"), 1)]);
}

#[test]
fn reset_forgets_and_the_last_of_a_name_stays() {
    let mut index = Index::default();
    index.apply(pod("shop", "old", &["10.0.0.1"]));
    index.reset([pod("shop", "new", &["10.0.0.2"]).into(), pod("shop", "new", &["10.0.0.3"]).into()]);
    assert!(index.pod("shop", "old").is_none());
    assert!(index.pods_at(ip("10.0.0.2")).is_empty());
    assert_eq!(names(index.pods_at(ip("10.0.0.3"))), ["shop/new"]);
}

#[test]
fn keys_read_as_in_messages() {
    assert_eq!(Object::from(pod("shop", "a", &[])).key().to_string(), "Pod shop/a");
    assert_eq!(Object::from(node("n1", &[], &[])).key().to_string(), "Node n1");
}

fn cluster_policy(kind: ClusterPolicyKind, name: &str, priority: u16) -> ClusterPolicy {
    ClusterPolicy {
        kind,
        name: name.into(),
        resource_version: None,
        labels: Labels::new(),
        annotations: Labels::new(),
        tier: Tier::Admin,
        priority,
        subject: Subject::Namespaces(Selector::default()),
        ingress: Vec::new(),
        egress: Vec::new(),
        invalid: Vec::new(),
        origin: None,
    }
}

#[test]
fn cluster_scoped_policies_by_kind_and_name() {
    use ClusterPolicyKind::{AdminNetworkPolicy, BaselineAdminNetworkPolicy, ClusterNetworkPolicy};
    let mut index = Index::default();
    for (kind, name, priority) in [
        (ClusterNetworkPolicy, "b", 1),
        (ClusterNetworkPolicy, "a", 2),
        (BaselineAdminNetworkPolicy, "default", 0),
        (AdminNetworkPolicy, "a", 3),
        (AdminNetworkPolicy, "a", 4),
    ] {
        index.apply(cluster_policy(kind, name, priority));
    }
    let told = |index: &Index| index.cluster_policies().map(|p| format!("{} {} {}", p.kind, p.name, p.priority)).collect::<Vec<_>>();
    let all = ["AdminNetworkPolicy a 4", "BaselineAdminNetworkPolicy default 0", "ClusterNetworkPolicy a 2", "ClusterNetworkPolicy b 1"];
    assert_eq!(told(&index), all);
    assert_eq!(index.counts().cluster_policies, 4);
    assert_eq!(index.cluster_policy(ClusterNetworkPolicy, "a").map(|policy| policy.priority), Some(2));
    assert!(index.cluster_policy(BaselineAdminNetworkPolicy, "a").is_none());
    assert_eq!(index.policies().count(), 0);

    let before = index.clone();
    index.delete(&key(Kind::ClusterNetworkPolicy, "", "a"));
    index.delete(&key(Kind::AdminNetworkPolicy, "", "b"));
    index.delete(&key(Kind::NetworkPolicy, "", "default"));
    assert_eq!(told(&index), [all[0], all[1], all[3]]);
    assert_eq!(told(&before), all);
    index.reset([cluster_policy(AdminNetworkPolicy, "c", 5).into()]);
    assert_eq!(told(&index), ["AdminNetworkPolicy c 5"]);
}

#[test]
fn names_and_what_they_stand_for() {
    let name = |name: &str, addresses: &[&str]| DomainName { name: name.into(), addresses: ips(addresses) };
    let mut index = Index::default();
    index.reset([name("b.example.com", &["10.0.0.1"]).into(), name("a.example.com", &["10.0.0.2", "fd00::2"]).into()]);
    index.apply(name("b.example.com", &[]));
    let told: Vec<_> = index.domain_names().map(|name| (&*name.name, name.addresses.len())).collect();
    assert_eq!(told, [("a.example.com", 2), ("b.example.com", 0)]);
    assert_eq!(index.domain_name("a.example.com").map(|name| &name.addresses), Some(&ips(&["10.0.0.2", "fd00::2"])));
    // No object of the cluster.
    assert_eq!(index.counts(), Counts::default());
    index.delete(&key(Kind::DomainName, "", "a.example.com"));
    assert!(index.domain_name("a.example.com").is_none());
}

#[test]
fn an_address_with_several_holders_loses_them_one_by_one() {
    let mut index = Index::default();
    for name in ["c", "a", "d", "b"] {
        index.apply(pod("shop", name, &["10.0.0.1", "::ffff:10.0.0.1"]));
    }
    assert_eq!(names(index.pods_at(ip("10.0.0.1"))), ["shop/a", "shop/b", "shop/c", "shop/d"]);
    for (name, left) in [("b", vec!["shop/a", "shop/c", "shop/d"]), ("d", vec!["shop/a", "shop/c"]), ("a", vec!["shop/c"]), ("c", vec![])] {
        index.delete(&key(Kind::Pod, "shop", name));
        assert_eq!(names(index.pods_at(ip("10.0.0.1"))), left);
    }
}
