//! The filters at a drop's hook, and the other end of its device, as the kernel has them.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

use netpol_observer::capture::Captured;
use netpol_observer::capture::live::{Live, LiveOptions};
use netpol_observer::flow::{DropEvent, FoldId, HookFunction, decode_record};
use tokio::time::timeout;
use xtask::netns::Netns;

use crate::capture::during;
use crate::shape::{Scene, WEB_UID, patience};
use crate::support::{Pods, machine, runtime, send_udp, start};

/// Drops in the node's namespace, decoded while the rules stand.
fn dropped(pods: &Pods, from: &Netns, to: &str) -> Vec<DropEvent> {
    let netns = u32::try_from(pods.node.inode().unwrap()).unwrap();
    let to = SocketAddr::new(to.parse::<IpAddr>().unwrap(), 9001);
    let mut events = Vec::new();
    during(
        &pods.namespaces(),
        || from.in_ns(|| send_udp(to, b"x")).unwrap(),
        |captured, names| {
            if let Captured::Record(bytes) = captured
                && let Ok(event) = decode_record(&bytes, &**names)
                && event.netns == Some(netns)
                && event.flow.destination_port == Some(9001)
            {
                events.push(event);
            }
        },
    );
    events
}

/// Two chains of one family at the forward hook and one of another; the drop is by the last.
const CHAINS: &str = "
table inet shop {
  chain policies {
    type filter hook forward priority 10; policy accept;
    udp dport 9001-9099 drop
  }
}
table ip other {
  chain watch {
    type filter hook forward priority -5; policy accept;
    counter
  }
}
";

#[test]
fn the_chain_that_dropped() {
    let Some(_machine) = machine("surroundings::the_chain_that_dropped") else { return };
    let pods = Pods::new();
    pods.node.nft(CHAINS).unwrap();
    for (to, hook_functions) in [("10.244.1.20", "nft_do_chain_inet"), ("fd00:10:244:1::20", "nft_do_chain_inet")] {
        let events = dropped(&pods, &pods.web, to);
        assert_eq!(events.len(), 1, "{events:#?}");
        let filters = &events[0].filters;
        let shop: Vec<&HookFunction> = filters.iter().filter(|filter| *filter.function == *hook_functions).collect();
        assert_eq!(shop.len(), 1, "{filters:?}");
        assert_eq!(shop[0].priority, 10);
        // Without types of nf_tables (5.10) the function is all there is.
        if shop[0].table.is_some() {
            assert_eq!((shop[0].table.as_deref(), shop[0].chain.as_deref()), (Some("shop"), Some("policies")));
        }
        // Where nf_tables frees what it drops, the family is told by the stack, and the other table is out.
        let freed_by_chain = events[0].location.symbol.as_ref().is_some_and(|symbol| symbol.base_name() == "nft_do_chain");
        let expected = if freed_by_chain || to.contains(':') { 1 } else { 2 };
        assert_eq!(filters.len(), expected, "{filters:?}");
    }
}

#[test]
fn the_other_end_of_a_veth() {
    let Some(_machine) = machine("surroundings::the_other_end_of_a_veth") else { return };
    let pods = Pods::new();
    pods.node.nft(CHAINS).unwrap();
    let events = dropped(&pods, &pods.web, "10.244.1.20");
    let peer = events[0].peer.as_ref().expect("a veth has a peer");
    // In the forward hook the packet is on the device it came in by: that of the sender.
    assert_eq!(u64::from(peer.netns), pods.web.inode().unwrap());
    assert_eq!(&*peer.name, "eth0");
    assert!(peer.pod_uid.is_none(), "no pod's cgroup: {peer:?}");
}

#[test]
fn a_namespace_that_is_gone_has_no_surroundings() {
    let Some(_machine) = machine("surroundings::a_namespace_that_is_gone_has_no_surroundings") else { return };
    let pods = Pods::new();
    pods.node.nft(CHAINS).unwrap();
    runtime().block_on(async {
        let mut live = start(LiveOptions::default());
        let names = live.names();
        let to = SocketAddr::new("10.244.1.20".parse::<IpAddr>().unwrap(), 9001);
        let netns = u32::try_from(pods.node.inode().unwrap()).unwrap();
        tokio::task::block_in_place(|| {
            pods.web.in_ns(|| send_udp(to, b"x")).unwrap();
            // The record waits in the ring while everything it speaks of goes away.
            drop(pods);
            std::thread::sleep(std::time::Duration::from_millis(500));
        });
        live.stop();
        let mut found = 0;
        while let Some(captured) = live.next().await {
            if let Captured::Record(bytes) = captured
                && let Ok(event) = decode_record(&bytes, &*names)
                && event.netns == Some(netns)
            {
                found += 1;
                assert!(event.filters.iter().all(|filter| filter.table.as_deref().is_none_or(|table| table == "shop")), "{event:?}");
            }
        }
        assert_eq!(found, 1);
    });
}

/// Pods start all the time: the second one is called a moment after the first was looked for.
#[test]
fn pods_that_come_later_are_known_at_once() {
    let Some(_machine) = machine("surroundings::pods_that_come_later_are_known_at_once") else { return };
    let runtime = runtime();
    let mut live = runtime.block_on(async { start(LiveOptions::default()) });
    let mut known = Vec::new();
    for _ in 0..3 {
        let scene = Scene::routed();
        scene.ns("node").nft(CHAINS).unwrap();
        scene.ns("web").in_ns(|| send_udp("10.244.1.20:9001".parse().unwrap(), b"x")).unwrap();
        let netns = u32::try_from(scene.ns("node").inode().unwrap()).unwrap();
        let event = runtime.block_on(dropped_at(9001, &mut live, netns));
        known.push(event.peer.and_then(|peer| peer.pod_uid).as_deref() == Some(WEB_UID));
        // Until its answer counts no more: the next namespaces may have the numbers of these.
        drop(scene);
        std::thread::sleep(std::time::Duration::from_millis(1100));
    }
    assert_eq!(known, [true; 3]);
}

/// A pod's network is there before its first process, and a packet may be dropped in between.
#[test]
fn a_pod_is_known_soon_after_it_has_a_process() {
    let Some(_machine) = machine("surroundings::a_pod_is_known_soon_after_it_has_a_process") else { return };
    let runtime = runtime();
    let mut live = runtime.block_on(async { start(LiveOptions::default()) });
    let mut scene = Scene::links();
    scene.ns("node").nft(CHAINS).unwrap();
    let netns = u32::try_from(scene.ns("node").inode().unwrap()).unwrap();
    let mut known = |scene: &Scene, port| {
        scene.ns("web").in_ns(|| send_udp(SocketAddr::new("10.244.1.20".parse().unwrap(), port), b"x")).unwrap();
        let event = runtime.block_on(dropped_at(port, &mut live, netns));
        event.peer.expect("a veth has a peer").pod_uid
    };
    // For so long that it is hardly looked for any more: by then only new processes are.
    for port in 9001..9021 {
        assert_eq!(known(&scene, port), None);
        std::thread::sleep(std::time::Duration::from_millis(150));
    }
    scene.inhabit("web", WEB_UID);
    // Not for every packet: processes are many. A slow machine only gives it more time.
    let known_at_last = (9021..9024).any(|port| {
        std::thread::sleep(std::time::Duration::from_millis(120));
        known(&scene, port).as_deref() == Some(WEB_UID)
    });
    assert!(known_at_last);
}

/// What the node itself sends.
const OUTPUT: &str = "table inet own { chain sends { type filter hook output priority 0; policy accept; udp dport 9001-9099 drop; }; }";

/// Pods in the node's network have its address, and their packets are alike. The socket's cgroup tells whose each is, and repeats are counted
/// for the pod that sends them.
#[test]
fn the_pods_in_the_network_of_a_node() {
    let Some(_machine) = machine("surroundings::the_pods_in_the_network_of_a_node") else { return };
    let pods = ["33333333-3333-4333-8333-333333333333", "44444444-4444-4444-8444-444444444444"];
    let mut scene = Scene::links();
    scene.ns("node").nft(OUTPUT).unwrap();
    pods.iter().for_each(|uid| scene.inhabit("node", uid));
    let netns = u32::try_from(scene.ns("node").inode().unwrap()).unwrap();
    // By pod, as far as it is known: packets.
    let mut packets: BTreeMap<Option<String>, u64> = BTreeMap::new();
    runtime().block_on(async {
        let live = start(LiveOptions::default());
        let names = live.names();
        tokio::task::block_in_place(|| {
            for uid in [pods[0], pods[1], pods[0], pods[1], pods[1]] {
                scene.sandbox(uid).send_udp("10.244.1.20:9001".parse().unwrap()).unwrap();
            }
        });
        let mut pod_of = HashMap::new();
        for captured in live.finish().await {
            let (id, count) = match captured {
                Captured::Record(bytes) => match decode_record(&bytes, &*names) {
                    Ok(event) if event.netns == Some(netns) => {
                        let uid = event.socket.and_then(|socket| socket.pod_uid).map(|uid| uid.to_string());
                        pod_of.insert(event.id, uid);
                        (event.id, 1)
                    }
                    _ => continue,
                },
                Captured::Repeat { key, value } if key.netns == netns => (FoldId::of(&key), value.count),
                _ => continue,
            };
            *packets.entry(pod_of[&id].clone()).or_default() += count;
        }
    });
    let expected: Vec<(Option<String>, u64)> = pods.map(|uid| Some(uid.to_owned())).into_iter().zip([2, 3]).collect();
    assert_eq!(packets.into_iter().collect::<Vec<_>>(), expected);
}

/// The first drop in the namespace on its way to this port.
async fn dropped_at(port: u16, live: &mut Live, netns: u32) -> DropEvent {
    let names = live.names();
    let found = async {
        loop {
            if let Some(Captured::Record(bytes)) = live.next().await
                && let Ok(event) = decode_record(&bytes, &*names)
                && event.netns == Some(netns)
                && event.flow.destination_port == Some(port)
            {
                return event;
            }
        }
    };
    timeout(patience(), found).await.unwrap_or_else(|_| panic!("no drop on the way to {port}"))
}
