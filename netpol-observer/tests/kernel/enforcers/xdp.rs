//! XDP: what it drops in a driver never becomes a packet of the kernel; where it runs behind the driver it does.

use aya::TestRun as _;
use aya::programs::xdp::{Xdp, XdpMode};
use aya::programs::{TestRunAttrs, TestRunOptions};
use netpol_observer::cluster::Direction;
use netpol_observer::diagnose::{Agreement, Class};

use super::ebpf::{load, packets};
use super::{address, web_to_api};
use crate::shape::{API, DENIED, EGRESS, Look, Scene, Shape, WEB};
use crate::support::machine;

/// Behind the driver, and in that of a veth, which makes packets before it runs the program.
#[test]
fn on_a_veth() {
    let Some(_machine) = machine("enforcers::xdp::on_a_veth") else { return };
    for ipv6 in [false, true] {
        for (name, mode) in [("XDP generic, node's end of the veth", XdpMode::Skb), ("XDP in the veth, node's end", XdpMode::Driver)] {
            let scene = Scene::routed();
            let mut ebpf = load();
            let program: &mut Xdp = ebpf.program_mut("deny_xdp").unwrap().try_into().unwrap();
            program.load().unwrap();
            scene.node.netns().in_ns(|| program.attach("vethweb", mode).map(drop)).unwrap().unwrap();
            let mut shape = Shape::new(name, ipv6, EGRESS).on("vethweb").behind("shop/web");
            let location = if mode == XdpMode::Skb { "do_xdp_generic|netif_receive_generic_xdp" } else { "veth_xdp_rcv_skb|veth_poll" };
            let class = Class::PolicyDenied(vec![Direction::Egress]);
            for (since, reason) in [("5.10", "reason-0"), ("5.17", "NOT_SPECIFIED")] {
                shape = shape.look(Look::of_class(since, reason, location, "ingress", &class, &Agreement::Agrees));
            }
            shape.prove(&scene, web_to_api(&scene, ipv6), Some(&|| packets(&ebpf)));
        }
    }
}

/// Frames as a driver has them: the program drops them, nothing is freed that the tracepoint would see.
#[test]
fn in_a_driver() {
    let Some(_machine) = machine("enforcers::xdp::in_a_driver") else { return };
    let scene = Scene::routed();
    let mut ebpf = load();
    let program: &mut Xdp = ebpf.program_mut("deny_xdp").unwrap().try_into().unwrap();
    program.load().unwrap();
    let frame = frame();
    let run = |program: &Xdp| {
        let attrs = TestRunAttrs::new().xdp_live_frames(64);
        program.test_run(TestRunOptions { data_in: Some(&frame), repeat: 64, attrs, ..TestRunOptions::new() })
    };
    let shape = Shape::new("XDP in a driver", false, EGRESS).look(Look::gap(
        "5.10",
        "dropped before there is an sk_buff, so kfree_skb never sees it; the program's own counters and the driver's (ethtool -S) have it",
    ));
    let program: &Xdp = ebpf.program("deny_xdp").unwrap().try_into().unwrap();
    if let Err(error) = run(program) {
        shape.cannot_run(&format!("no live frames in test runs of XDP programs before 5.18: {error}"));
        return;
    }
    let before = packets(&ebpf);
    let traffic = || {
        run(program).unwrap();
    };
    shape.prove(&scene, traffic, None);
    assert_eq!(packets(&ebpf) - before, 64, "the program dropped them");
}

/// An opening of TCP to a denied port.
fn frame() -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend([0x08, 0x00, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0]);
    for of in [WEB, API] {
        let std::net::IpAddr::V4(ip) = address(of, false) else { panic!("IPv4") };
        frame.extend(ip.octets());
    }
    frame.extend(40000u16.to_be_bytes());
    frame.extend(DENIED.start().to_be_bytes());
    frame.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    frame
}
