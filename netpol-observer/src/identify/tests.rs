//! Tests: each kind of party, and who called whom for each place a packet can be dropped at.

use super::*;
use crate::cluster::{Labels, PodPhase, ServicePort, TargetPort, Workload};
use crate::flow::{Conntrack, Flow, FoldId, Location, Reason, TcpFlags, TunnelKind, Tuple};

const WEB: &str = "10.1.0.1";
const API: &str = "10.1.0.2";
const SERVICE: &str = "10.96.0.1";
const NODE: &str = "192.168.0.1";

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn pod(name: &str, ips: &[&str]) -> Pod {
    Pod {
        namespace: "shop".into(),
        name: name.into(),
        uid: "".into(),
        labels: Labels::from([("app".into(), name.split('-').next().unwrap_or_default().into())]),
        ips: ips.iter().map(|text| ip(text)).collect(),
        node: Some("node-1".into()),
        host_network: false,
        phase: PodPhase::Active,
        ready: true,
        deleting: false,
        ports: Vec::new(),
        workload: Workload { kind: "Pod".into(), name: name.into() },
        origin: None,
    }
}

fn service(name: &str, cluster_ips: &[&str], selects: &str) -> Service {
    Service {
        namespace: "shop".into(),
        name: name.into(),
        cluster_ips: cluster_ips.iter().map(|text| ip(text)).collect(),
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        ports: vec![ServicePort {
            name: Some("http".into()),
            port: 80,
            protocol: Protocol::Tcp,
            target_port: TargetPort::Number(8080),
            node_port: Some(30080),
        }],
        selector: Some(Labels::from([("app".into(), selects.into())])),
        publish_not_ready: false,
        dns: Default::default(),
    }
}

fn cluster() -> Index {
    let mut index = Index::default();
    index.apply(Node {
        name: "node-1".into(),
        labels: Labels::new(),
        addresses: vec![ip(NODE), ip("fd00:2::1")],
        pod_cidrs: vec!["10.1.0.0/24".parse().expect("a range")],
    });
    index.apply(pod("web", &[WEB, "fd00:1::1"]));
    index.apply(pod("api", &[API, "fd00:1::2"]));
    index.apply(service("api", &[SERVICE, "fd00:96::1"], "api"));
    index
}

fn packet(source: (&str, u16), destination: (&str, u16)) -> DropEvent {
    DropEvent {
        time: jiff::Timestamp::UNIX_EPOCH,
        id: FoldId(0),
        folded: false,
        reason: Reason { number: 2, name: "NETFILTER_DROP".into() },
        location: Location { address: 0, symbol: None },
        hook: None,
        interface: None,
        outgoing: false,
        netns: None,
        packet_len: 60,
        flow: Flow {
            source: ip(source.0),
            destination: ip(destination.0),
            protocol: Protocol::Tcp,
            source_port: Some(source.1),
            destination_port: Some(destination.1),
            tcp_flags: None,
            icmp: None,
            fragment: None,
        },
        tunnel: None,
        conntrack: None,
        socket: None,
        filters: Vec::new(),
        peer: None,
    }
}

fn tracked(event: DropEvent, source: (&str, u16), destination: (&str, u16), reply: bool) -> DropEvent {
    let original = Tuple {
        source: ip(source.0),
        source_port: Some(source.1),
        destination: ip(destination.0),
        destination_port: Some(destination.1),
        protocol: Protocol::Tcp,
    };
    DropEvent { conntrack: Some(Conntrack { original, reply, seen_reply: reply }), ..event }
}

/// `client → server`, and the Service with port, name and backends if one was called.
fn told(who: &Who) -> String {
    let mut told = format!("{} → {}", who.client, who.server);
    if let Some(call) = &who.service {
        let backends: Vec<_> = call.backends.iter().map(|(ip, port)| format!("{ip}:{port}")).collect();
        let port = call.port.map_or("-".into(), |port| port.to_string());
        told += &format!(" via {} {}:{port} {:?} [{}]", call.service.name, call.ip, call.port_name.as_deref(), backends.join(" "));
    }
    told
}

#[track_caller]
fn check(event: &DropEvent, index: &Index, expected: &str) {
    assert_eq!(told(&identify(event, index)), expected);
}

#[test]
fn parties() {
    let mut index = cluster();
    index.apply(Pod { host_network: true, ..pod("proxy", &[NODE]) });
    index.apply(Pod { phase: PodPhase::Terminated, ..pod("job", &["10.1.0.9"]) });
    index.apply(pod("twin-a", &["10.1.0.7"]));
    index.apply(pod("twin-b", &["10.1.0.7"]));
    let kind = |text: &str| match party(ip(text), &index).identity {
        Identity::Pod(pod) => format!("pod {}", pod.name),
        Identity::AmbiguousPods(pods) => format!("pods {}", pods.iter().map(|pod| &*pod.name).collect::<Vec<_>>().join(" ")),
        Identity::Node(node) => format!("node {}", node.name),
        Identity::Service(service) => format!("service {}", service.name),
        Identity::UnownedPodAddress => "unowned".into(),
        Identity::Special => "special".into(),
        Identity::External => "external".into(),
        Identity::NotShown => "not shown".into(),
    };
    for (address, expected) in [
        (WEB, "pod web"),
        ("::ffff:10.1.0.1", "pod web"),
        ("fd00:1::1", "pod web"),
        ("10.1.0.7", "pods twin-a twin-b"),
        (NODE, "node node-1"),
        ("fd00:2::1", "node node-1"),
        ("10.1.0.9", "unowned"),
        (SERVICE, "service api"),
        ("203.0.113.9", "external"),
        ("10.1.1.9", "external"),
        ("2001:db8::9", "external"),
        ("127.0.0.1", "special"),
        ("169.254.20.10", "special"),
        ("224.0.0.251", "special"),
        ("255.255.255.255", "special"),
        ("0.0.0.0", "special"),
        ("::1", "special"),
        ("fe80::1", "special"),
        ("ff02::fb", "special"),
        ("::ffff:127.0.0.1", "special"),
    ] {
        assert_eq!(kind(address), expected, "{address}");
    }
    assert_eq!(party(ip("::ffff:10.1.0.1"), &index).ip, ip(WEB));
}

#[test]
fn parties_read_as_in_messages() {
    let mut index = cluster();
    index.apply(pod("twin", &[WEB]));
    for (address, expected) in [
        (API, "shop/api"),
        (NODE, "node node-1"),
        (SERVICE, "Service shop/api"),
        ("10.1.0.200", "10.1.0.200"),
        (WEB, WEB),
        ("203.0.113.9", "203.0.113.9"),
    ] {
        let party = party(ip(address), &index);
        assert_eq!(party.to_string(), expected);
        assert_eq!(party.identity.pod().is_some(), address == API);
    }
}

#[test]
fn pod_to_pod() {
    check(&packet((WEB, 40000), (API, 8080)), &cluster(), "shop/web → shop/api");
    let event = tracked(packet((WEB, 40000), (API, 8080)), (WEB, 40000), (API, 8080), false);
    check(&event, &cluster(), "shop/web → shop/api");
}

#[test]
fn mapped_and_ipv6_addresses() {
    check(
        &packet(("::ffff:10.1.0.1", 40000), ("::ffff:10.96.0.1", 80)),
        &cluster(),
        "shop/web → shop/api via api 10.96.0.1:80 Some(\"http\") [10.1.0.2:8080]",
    );
    check(
        &packet(("fd00:1::1", 40000), ("fd00:96::1", 80)),
        &cluster(),
        "shop/web → shop/api via api fd00:96::1:80 Some(\"http\") [fd00:1::2:8080]",
    );
}

#[test]
fn service_after_translation() {
    let event = tracked(packet((WEB, 40000), (API, 8080)), (WEB, 40000), (SERVICE, 80), false);
    check(&event, &cluster(), "shop/web → shop/api via api 10.96.0.1:80 Some(\"http\") [10.1.0.2:8080]");
}

#[test]
fn service_after_translation_names_the_backend_chosen() {
    let mut index = cluster();
    index.apply(pod("api-2", &["10.1.0.3"]));
    let event = tracked(packet((WEB, 40000), ("10.1.0.3", 8080)), (WEB, 40000), (SERVICE, 80), false);
    check(&event, &index, "shop/web → shop/api-2 via api 10.96.0.1:80 Some(\"http\") [10.1.0.2:8080 10.1.0.3:8080]");
}

#[test]
fn service_before_translation() {
    let mut index = cluster();
    let event = packet((WEB, 40000), (SERVICE, 80));
    let expected = "shop/web → shop/api via api 10.96.0.1:80 Some(\"http\") [10.1.0.2:8080]";
    check(&event, &index, expected);
    check(&tracked(event.clone(), (WEB, 40000), (SERVICE, 80), false), &index, expected);

    index.apply(pod("api-2", &["10.1.0.3"]));
    check(&event, &index, "shop/web → Service shop/api via api 10.96.0.1:80 Some(\"http\") [10.1.0.2:8080 10.1.0.3:8080]");
}

#[test]
fn service_without_endpoints_or_port() {
    let mut index = cluster();
    index.apply(service("empty", &["10.96.0.2"], "nobody"));
    check(&packet((WEB, 40000), ("10.96.0.2", 80)), &index, "shop/web → Service shop/empty via empty 10.96.0.2:80 Some(\"http\") []");
    check(&packet((WEB, 40000), (SERVICE, 81)), &index, "shop/web → Service shop/api via api 10.96.0.1:81 None []");
    let mut udp = packet((WEB, 40000), (SERVICE, 80));
    udp.flow.protocol = Protocol::Udp;
    check(&udp, &index, "shop/web → Service shop/api via api 10.96.0.1:80 None []");
}

#[test]
fn a_later_fragment_can_only_mean_the_single_port() {
    let mut index = cluster();
    let mut fragment = packet((WEB, 0), (SERVICE, 0));
    (fragment.flow.source_port, fragment.flow.destination_port) = (None, None);
    check(&fragment, &index, "shop/web → shop/api via api 10.96.0.1:- Some(\"http\") [10.1.0.2:8080]");
    let mut two = service("api", &[SERVICE], "api");
    two.ports.push(ServicePort { port: 81, node_port: None, ..two.ports[0].clone() });
    index.apply(two);
    check(&fragment, &index, "shop/web → Service shop/api via api 10.96.0.1:- None []");
}

#[test]
fn shared_addresses_are_told_apart_by_port() {
    let mut index = cluster();
    let mut aaa = service("aaa", &[], "web");
    aaa.external_ips = vec![ip("203.0.113.1")];
    aaa.ports[0].port = 443;
    index.apply(aaa);
    index.apply(Service { external_ips: vec![ip("203.0.113.1")], ..service("api", &[SERVICE], "api") });
    check(
        &packet(("198.51.100.1", 40000), ("203.0.113.1", 80)),
        &index,
        "198.51.100.1 → shop/api via api 203.0.113.1:80 Some(\"http\") [10.1.0.2:8080]",
    );
}

#[test]
fn node_port() {
    let index = cluster();
    let via = "via api 192.168.0.1:30080 Some(\"http\") [10.1.0.2:8080]";
    check(&packet(("198.51.100.1", 40000), (NODE, 30080)), &index, &format!("198.51.100.1 → shop/api {via}"));
    let event = tracked(packet((NODE, 5000), (API, 8080)), ("198.51.100.1", 40000), (NODE, 30080), false);
    check(&event, &index, &format!("198.51.100.1 → shop/api {via}"));
    check(&packet(("198.51.100.1", 40000), (NODE, 22)), &index, "198.51.100.1 → node node-1");
    check(&packet(("198.51.100.1", 40000), ("203.0.113.5", 30080)), &index, "198.51.100.1 → 203.0.113.5");
}

#[test]
fn replies_are_turned_round() {
    let index = cluster();
    let event = tracked(packet((API, 8080), (WEB, 40000)), (WEB, 40000), (API, 8080), true);
    check(&event, &index, "shop/web → shop/api");
    let event = tracked(packet((API, 8080), (WEB, 40000)), (WEB, 40000), (SERVICE, 80), true);
    check(&event, &index, "shop/web → shop/api via api 10.96.0.1:80 Some(\"http\") [10.1.0.2:8080]");
    let event = tracked(packet((API, 8080), (NODE, 5000)), (WEB, 40000), (API, 8080), true);
    check(&event, &index, "shop/web → shop/api");

    let mut syn_ack = packet((API, 8080), (WEB, 40000));
    syn_ack.flow.tcp_flags = Some(TcpFlags { syn: true, ack: true, fin: false, rst: false, psh: false });
    check(&syn_ack, &index, "shop/web → shop/api");
}

#[test]
fn a_masqueraded_source_is_seen_through() {
    let event = tracked(packet((NODE, 5000), ("203.0.113.9", 443)), (WEB, 40000), ("203.0.113.9", 443), false);
    check(&event, &cluster(), "shop/web → 203.0.113.9");
}

#[test]
fn an_icmp_error_keeps_its_own_addresses() {
    let mut event = tracked(packet((NODE, 0), (WEB, 0)), (WEB, 40000), (SERVICE, 80), false);
    event.flow = Flow { protocol: Protocol::Icmp, source_port: None, destination_port: None, ..event.flow };
    check(&event, &cluster(), "node node-1 → shop/web");
}

#[test]
fn a_dialled_address_nobody_knows_is_no_service() {
    let event = tracked(packet((WEB, 40000), (API, 8080)), (WEB, 40000), ("10.96.0.99", 80), false);
    check(&event, &cluster(), "shop/web → shop/api");
}

/// A packet inside a VXLAN packet.
fn tunnelled(event: DropEvent, source: &str, destination: &str) -> DropEvent {
    let outer = packet((source, 49_152), (destination, 8472)).flow;
    let tunnel = Tunnel { kind: TunnelKind::Vxlan, vni: Some(1), outer: Flow { protocol: Protocol::Udp, ..outer }, conntrack: None };
    DropEvent { tunnel: Some(tunnel), ..event }
}

#[test]
fn a_tunnel_between_nodes_carries_the_connection_inside() {
    let index = cluster();
    let event = settle_tunnel(tunnelled(packet((WEB, 40000), (API, 8080)), NODE, "192.168.0.2"), &index);
    check(&event, &index, "shop/web → shop/api");
    let tunnel = identify(&event, &index).tunnel.expect("a tunnel");
    assert_eq!((tunnel.source.to_string().as_str(), tunnel.destination.to_string().as_str()), ("node node-1", "192.168.0.2"));
}

#[test]
fn a_tunnel_that_a_pod_built_is_a_connection_of_that_pod() {
    let index = cluster();
    for (source, destination, expected) in
        [(WEB, "203.0.113.5", "shop/web → 203.0.113.5"), ("203.0.113.5", API, "203.0.113.5 → shop/api"), (WEB, API, "shop/web → shop/api")]
    {
        let event = settle_tunnel(tunnelled(packet(("10.9.0.1", 40000), ("10.9.0.2", 22)), source, destination), &index);
        check(&event, &index, expected);
        assert_eq!((event.flow.destination_port, event.flow.protocol), (Some(8472), Protocol::Udp));
        assert!(identify(&event, &index).tunnel.is_none());
    }
}

#[test]
fn a_node_on_its_bridge_is_the_node_where_the_packet_is_its_own() {
    let index = cluster();
    const BRIDGE: &str = "10.1.0.1";
    let mut bridged = index.clone();
    bridged.apply(pod("web", &["10.1.0.7"]));
    let at = |event: DropEvent, hook| DropEvent { hook: Some(hook), ..event };
    let called = || packet(("10.1.0.7", 40000), (BRIDGE, 9001));
    let calls = || packet((BRIDGE, 40000), (API, 8080));
    check(&at(called(), Hook::Input), &bridged, "shop/web → node node-1");
    check(&at(calls(), Hook::Output), &bridged, "node node-1 → shop/api");
    // The answer to the node.
    let answer = tracked(packet((API, 8080), (BRIDGE, 40000)), (BRIDGE, 40000), (API, 8080), true);
    check(&at(answer, Hook::Input), &bridged, "node node-1 → shop/api");
    // Elsewhere nobody can tell, and other addresses may be a new pod's.
    check(&at(called(), Hook::Forward), &bridged, "shop/web → 10.1.0.1");
    check(&at(calls(), Hook::Input), &bridged, "10.1.0.1 → shop/api");
    check(&at(packet(("10.1.0.7", 40000), ("10.1.0.9", 9001)), Hook::Input), &bridged, "shop/web → 10.1.0.9");
    // A pod that has the address is that pod.
    check(&at(packet((API, 40000), (BRIDGE, 9001)), Hook::Input), &index, "shop/api → shop/web");
}

#[test]
fn pods_in_the_network_of_the_node_called_are_told_by_their_ports() {
    let mut index = cluster();
    let declares = |port| vec![crate::cluster::ContainerPort { name: None, port, protocol: Protocol::Tcp }];
    let exporter = Pod { host_network: true, ports: declares(9100), ..pod("exporter", &[NODE]) };
    index.apply(exporter.clone());
    index.apply(Pod { host_network: true, ports: declares(10256), ..pod("proxy", &[NODE]) });
    let named = |event: &DropEvent, index: &Index| -> Vec<String> {
        identify(event, index).host_network.iter().map(|pod| pod.name.to_string()).collect()
    };
    let to = |address, port| packet((WEB, 40000), (address, port));
    assert_eq!(named(&to(NODE, 9100), &index), ["exporter"]);
    assert_eq!(named(&to(NODE, 22), &index), [""; 0]);
    assert_eq!(named(&to(API, 9100), &index), [""; 0]);
    let mut udp = to(NODE, 9100);
    udp.flow.protocol = Protocol::Udp;
    assert_eq!(named(&udp, &index), [""; 0]);
    let answer = tracked(packet((NODE, 9100), (WEB, 40000)), (WEB, 40000), (NODE, 9100), true);
    assert_eq!(named(&answer, &index), ["exporter"]);
    // It ends, or gets a network of its own.
    index.apply(Pod { phase: PodPhase::Terminated, ..exporter });
    assert_eq!(named(&to(NODE, 9100), &index), [""; 0]);
    index.apply(Pod { ports: declares(10256), ..pod("proxy", &["10.1.0.9"]) });
    assert_eq!(named(&to(NODE, 10256), &index), [""; 0]);
}

#[test]
fn the_socket_tells_pods_in_the_network_of_a_node_apart() {
    let mut index = cluster();
    let of_node = |name: &str| Pod { host_network: true, uid: format!("{name}#").into(), ..pod(name, &[NODE]) };
    index.apply(of_node("exporter"));
    index.apply(of_node("proxy"));
    let names = |pods: &[Arc<Pod>]| pods.iter().map(|pod| pod.name.to_string()).collect::<Vec<_>>();
    let with = |event: DropEvent, uid: Option<&str>, hook| DropEvent {
        socket: Some(crate::flow::Socket { cookie: None, cgroup: Some(7), pod_uid: uid.map(Arc::from) }),
        hook: Some(hook),
        ..event
    };
    let calls = || packet((NODE, 40000), (API, 8080));
    let who = identify(&with(calls(), Some("proxy#"), Hook::Output), &index);
    assert_eq!((names(&who.callers), names(&who.host_network)), (vec!["proxy".to_owned()], vec![]));
    // Without the socket nobody is named by manifests; a pod with a network of its own is none of the node's.
    assert_eq!(names(&identify(&with(calls(), None, Hook::Output), &index).callers), [""; 0]);
    index.apply(Pod { uid: "web#".into(), ..pod("web", &[WEB]) });
    assert_eq!(names(&identify(&with(calls(), Some("web#"), Hook::Output), &index).callers), [""; 0]);
    // What it receives it is called on, whatever ports it declares.
    let who = identify(&with(packet((WEB, 40000), (NODE, 22)), Some("exporter#"), Hook::Input), &index);
    assert_eq!((names(&who.callers), names(&who.host_network)), (vec![], vec!["exporter".to_owned()]));
    // An answer that it sends is the server's.
    let answer = tracked(packet((NODE, 22), (WEB, 40000)), (WEB, 40000), (NODE, 22), true);
    let who = identify(&with(answer, Some("exporter#"), Hook::Output), &index);
    assert_eq!((names(&who.callers), names(&who.host_network)), (vec![], vec!["exporter".to_owned()]));
}

#[test]
fn it_is_known_by_which_address_a_service_was_called() {
    let mut index = cluster();
    let api =
        Service { external_ips: vec![ip("203.0.113.1")], load_balancer_ips: vec![ip("203.0.113.2")], ..service("api", &[SERVICE], "api") };
    index.apply(api.clone());
    let by = |address: &str, port, index: &Index| {
        identify(&packet(("198.51.100.1", 40000), (address, port)), index).service.map(|call| call.by())
    };
    assert_eq!(by(SERVICE, 80, &index), Some(ServiceAddress::Cluster));
    assert_eq!(by("203.0.113.1", 80, &index), Some(ServiceAddress::External));
    assert_eq!(by("203.0.113.2", 80, &index), Some(ServiceAddress::LoadBalancer));
    assert_eq!(by(NODE, 30080, &index), Some(ServiceAddress::NodePort));
    // It is known as long as the Service has it.
    index.apply(Service { load_balancer_ips: Vec::new(), ..api });
    assert_eq!(by("203.0.113.2", 80, &index), None);
}
