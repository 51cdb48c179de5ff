//! nftables in the forward, input and output hooks, dropping and rejecting, routed and bridged, IPv4 and IPv6: exactly the
//! denied flows are reported, and nothing for the allowed ones beside them.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use netpol_observer::capture::live::LiveOptions;
use xtask::netns::{Bed, Netns, Node};

use crate::support::{call_tcp, machine, observe, serve_tcp};

const ALLOWED: usize = 1000;
const ALLOWED_PORT: u16 = 8080;
/// One denied flow per port.
const DENIED: std::ops::RangeInclusive<u16> = 9001..=9010;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Hook {
    Forward,
    Input,
    Output,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    hook: Hook,
    verdict: &'static str,
    bridged: bool,
    ipv6: bool,
}

/// A node with two pods.
struct Cluster {
    node: Node,
    web: Netns,
    api: Netns,
    /// By family: IPv4, IPv6.
    api_addresses: [IpAddr; 2],
    gateways: [IpAddr; 2],
    _bed: Bed,
}

fn cluster(bridged: bool) -> Cluster {
    let mut bed = Bed::new("npo-test").unwrap();
    let web: [IpAddr; 2] = ["10.244.1.10".parse().unwrap(), "fd00:10:244:1::10".parse().unwrap()];
    let api: [IpAddr; 2] = ["10.244.1.20".parse().unwrap(), "fd00:10:244:1::20".parse().unwrap()];
    let own: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    let node = bed.node("node", &own).unwrap();
    if bridged {
        let gateways = ["10.244.1.1/24".parse().unwrap(), "fd00:10:244:1::1/64".parse().unwrap()];
        let bridge = node.bridge("cni0", &gateways, true).unwrap();
        let web = node.bridged_pod(&mut bed, &bridge, "web", &web).unwrap();
        let api_ns = node.bridged_pod(&mut bed, &bridge, "api", &api).unwrap();
        let gateways = ["10.244.1.1".parse().unwrap(), "fd00:10:244:1::1".parse().unwrap()];
        return Cluster { node, web, api: api_ns, api_addresses: api, gateways, _bed: bed };
    }
    let web = node.routed_pod(&mut bed, "web", &web).unwrap();
    let api_ns = node.routed_pod(&mut bed, "api", &api).unwrap();
    Cluster { node, web, api: api_ns, api_addresses: api, gateways: own, _bed: bed }
}

/// Who calls whom so that the packets pass the hook in the node's namespace.
fn ends(cluster: &Cluster, hook: Hook, ipv6: bool) -> (&Netns, &Netns, IpAddr) {
    let family = usize::from(ipv6);
    match hook {
        Hook::Forward => (&cluster.web, &cluster.api, cluster.api_addresses[family]),
        Hook::Input => (&cluster.web, cluster.node.netns(), cluster.gateways[family]),
        Hook::Output => (cluster.node.netns(), &cluster.api, cluster.api_addresses[family]),
    }
}

fn run(case: Case) {
    let cluster = cluster(case.bridged);
    let node = cluster.node.netns();
    let (client, server, address) = ends(&cluster, case.hook, case.ipv6);
    let hook = format!("{:?}", case.hook).to_lowercase();
    let Case { verdict, .. } = case;
    node.nft(&format!(
        "table inet test {{
           counter denied {{ }}
           chain policies {{
             type filter hook {hook} priority 0; policy accept;
             tcp dport {}-{} counter name denied {verdict}
           }}
         }}",
        DENIED.start(),
        DENIED.end()
    ))
    .unwrap();
    serve_tcp(server, SocketAddr::new(address, ALLOWED_PORT));

    let observed = observe(LiveOptions::default(), || {
        client
            .in_ns(|| {
                std::thread::scope(|scope| {
                    for port in DENIED {
                        scope.spawn(move || {
                            call_tcp(SocketAddr::new(address, port), Duration::from_millis(300)).expect_err("denied");
                        });
                    }
                    for _ in 0..ALLOWED {
                        call_tcp(SocketAddr::new(address, ALLOWED_PORT), Duration::from_secs(5)).expect("allowed");
                    }
                });
            })
            .unwrap();
    });

    let drops = observed.in_netns(node);
    let mut ports: Vec<u16> = drops.iter().map(|seen| seen.destination_port()).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports, DENIED.collect::<Vec<_>>(), "{case:?}: exactly the denied flows");
    for seen in &drops {
        assert_eq!(observed.reason(seen), "NETFILTER_DROP", "{case:?}");
        assert_eq!(observed.location(seen), "nft_do_chain", "{case:?}");
        let stack = observed.stack(seen);
        let functions: &[&str] = match case.hook {
            Hook::Forward => &["ip_forward", "ip6_forward", "br_nf_forward_ip", "br_nf_forward"],
            Hook::Input => &["ip_local_deliver", "ip6_input"],
            Hook::Output => &["__ip_local_out", "ip6_xmit"],
        };
        assert!(stack.iter().any(|frame| functions.contains(&frame.as_str())), "{case:?}: hook not on the stack: {stack:?}");
    }
    // Nothing at all in the other namespaces but, for a reject, what the client makes of the answer.
    for other in [&cluster.web, &cluster.api] {
        let strays = observed.in_netns(other);
        assert!(strays.iter().all(|seen| seen.destination_port() != ALLOWED_PORT && seen.source_port() != ALLOWED_PORT), "{case:?}");
    }
    let packets: u64 = drops.iter().map(|seen| seen.packets).sum();
    assert_eq!(packets, node.counter("denied").unwrap().packets, "{case:?}: the firewall's own counter");
    observed.assert_balanced();
}

fn all_of(hook: Hook, test: &str) {
    let Some(_machine) = machine(test) else { return };
    for bridged in [false, true] {
        for ipv6 in [false, true] {
            for verdict in ["drop", "reject with tcp reset", "reject"] {
                run(Case { hook, verdict, bridged, ipv6 });
            }
        }
    }
}

#[test]
fn forward() {
    all_of(Hook::Forward, "nftables::forward");
}

#[test]
fn input() {
    all_of(Hook::Input, "nftables::input");
}

#[test]
fn output() {
    all_of(Hook::Output, "nftables::output");
}
