//! Enforcers in eBPF: tc programs at either end of a pod's link, and control group programs at its sockets.

use std::fs::File;
use std::os::fd::OwnedFd;

use aya::maps::PerCpuArray;
use aya::programs::cgroup_skb::{CgroupSkb, CgroupSkbAttachType};
use aya::programs::tc::{NlOptions, SchedClassifier, TcAttachOptions, TcAttachType, qdisc_add_clsact};
use aya::programs::{CgroupAttachMode, LinkOrder};
use aya::{Ebpf, EbpfLoader};
use netpol_observer::capture::kernel::release;
use netpol_observer::cluster::Direction;
use netpol_observer::diagnose::{Agreement, Class};
use xtask::netns::{Netns, in_cgroup2};

use super::{address, commands, web_to_api};
use crate::shape::{API, DENIED, EGRESS, INGRESS, Look, Scene, Shape, tcp, udp, version};
use crate::support::machine;

/// The tests' own enforcers: netpol-observer-ebpf/src/bin/enforcers.rs.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/enforcers.bpf.o"));

pub(super) fn load() -> Ebpf {
    EbpfLoader::new().load(OBJECT).unwrap()
}

/// Packets that the programs have denied.
pub(super) fn packets(ebpf: &Ebpf) -> u64 {
    let counts: PerCpuArray<_, u64> = ebpf.map("PACKETS_DENIED").unwrap().try_into().unwrap();
    counts.get(&0, 0).unwrap().iter().sum()
}

/// Where a tc filter hangs, and what its drops look like there.
#[derive(Clone, Copy)]
struct Place {
    name: &'static str,
    namespace: &'static str,
    device: &'static str,
    egress: bool,
    policies: &'static str,
    direction: Direction,
    /// The pod at the other end of the device.
    behind: Option<&'static str>,
}

/// On the node's side of a link the directions are the other way round: what leaves by it enters the pod.
const PLACES: [Place; 4] = [
    Place {
        name: "node's end of the veth, egress",
        namespace: "node",
        device: "vethapi",
        egress: true,
        policies: INGRESS,
        direction: Direction::Ingress,
        behind: Some("shop/api"),
    },
    Place {
        name: "node's end of the veth, ingress",
        namespace: "node",
        device: "vethweb",
        egress: false,
        policies: EGRESS,
        direction: Direction::Egress,
        behind: Some("shop/web"),
    },
    Place {
        name: "pod's end of the veth, egress",
        namespace: "web",
        device: "eth0",
        egress: true,
        policies: EGRESS,
        direction: Direction::Egress,
        behind: None,
    },
    Place {
        name: "pod's end of the veth, ingress",
        namespace: "api",
        device: "eth0",
        egress: false,
        policies: INGRESS,
        direction: Direction::Ingress,
        behind: None,
    },
];

fn tc_shape(name: &str, place: Place, ipv6: bool) -> Shape {
    let (reason, location, hook) =
        if place.egress { ("TC_EGRESS", "__dev_queue_xmit", "egress") } else { ("TC_INGRESS", "__netif_receive_skb_core", "ingress") };
    let mut shape = Shape::new(&format!("{name}, {}", place.name), ipv6, place.policies).on(place.device);
    shape.expectation.behind = place.behind.map(str::to_owned);
    // Before 5.18 it is one free among others of a function that frees packets for many reasons.
    let (unknown, cannot) = (Class::Undecided, Agreement::CannotDecide { why: String::new() });
    for (since, reason) in [("5.10", "reason-0"), ("5.17", "NOT_SPECIFIED")] {
        shape = shape.look(Look::of_class(since, reason, location, hook, &unknown, &cannot));
    }
    shape.denied_by_policy("5.18", reason, location, hook, place.direction)
}

fn attach_tc(namespace: &Netns, ebpf: &mut Ebpf, place: Place, tcx: bool) {
    let program: &mut SchedClassifier = ebpf.program_mut("deny_tc").unwrap().try_into().unwrap();
    program.load().unwrap();
    let at = if place.egress { TcAttachType::Egress } else { TcAttachType::Ingress };
    namespace
        .in_ns(|| {
            let options = if tcx {
                TcAttachOptions::TcxOrder(LinkOrder::default())
            } else {
                qdisc_add_clsact(place.device).unwrap();
                TcAttachOptions::Netlink(NlOptions::default())
            };
            let link = program.attach_with_options(place.device, at, options).unwrap();
            if !tcx {
                // It goes with its namespace; detaching it from outside would look for the device in the wrong one.
                std::mem::forget(program.take_link(link).unwrap());
            }
        })
        .unwrap();
}

#[test]
fn tc() {
    let Some(_machine) = machine("enforcers::ebpf::tc") else { return };
    for place in PLACES {
        let scene = Scene::routed();
        // What is attached with clsact stays.
        for (name, tcx) in [("tc eBPF (tcx)", true), ("tc eBPF (clsact)", false)] {
            let mut ebpf = load();
            let can_run = !tcx || version(&release()) >= (6, 6);
            if can_run {
                attach_tc(scene.ns(place.namespace), &mut ebpf, place, tcx);
            }
            for ipv6 in [false, true] {
                let shape = tc_shape(name, place, ipv6);
                if can_run {
                    let before = packets(&ebpf);
                    shape.prove(&scene, web_to_api(&scene, ipv6), Some(&|| packets(&ebpf) - before));
                } else {
                    shape.cannot_run("tcx came with 6.6");
                }
            }
        }
    }
}

/// A filter without a program: u32 and the action drop.
#[test]
fn tc_action() {
    let Some(_machine) = machine("enforcers::ebpf::tc_action") else { return };
    for place in PLACES.into_iter().take(2) {
        for ipv6 in [false, true] {
            let scene = Scene::routed();
            let shape = tc_shape("tc u32, action drop", place, ipv6);
            let (protocol, ip) = if ipv6 { ("ipv6", "ip6") } else { ("ip", "ip") };
            let at = if place.egress { "egress" } else { "ingress" };
            let device = place.device;
            let mut lines = format!("tc qdisc add dev {device} clsact\n");
            for port in DENIED {
                lines += &format!("tc filter add dev {device} {at} protocol {protocol} u32 match {ip} dport {port} 0xffff action drop\n");
            }
            match commands(scene.ns(place.namespace), &lines) {
                Ok(()) => shape.prove(&scene, web_to_api(&scene, ipv6), None),
                Err(why) => shape.cannot_run(&why),
            }
        }
    }
}

/// This process in the control group of a pod, until dropped.
struct Inside {
    before: String,
}

impl Inside {
    fn enter(group: &str) -> Self {
        let membership = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let before = membership.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default().to_owned();
        change_group(group).unwrap();
        Inside { before }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if let Err(error) = change_group(&self.before) {
            eprintln!("this process stays in the control group of a test: {error}");
        }
    }
}

fn change_group(group: &str) -> std::io::Result<()> {
    in_cgroup2(|root| std::fs::write(root.join(group).join("cgroup.procs"), std::process::id().to_string()))
}

fn attach_cgroup(group: &str, ebpf: &mut Ebpf, at: CgroupSkbAttachType) {
    let directory: OwnedFd = in_cgroup2(|root| File::open(root.join(group))).unwrap().into();
    let program: &mut CgroupSkb = ebpf.program_mut("deny_cgroup").unwrap().try_into().unwrap();
    program.load().unwrap();
    program.attach(directory, at, CgroupAttachMode::Single).unwrap();
}

#[test]
fn cgroup_egress() {
    let Some(_machine) = machine("enforcers::ebpf::cgroup_egress") else { return };
    for ipv6 in [false, true] {
        let scene = Scene::routed();
        let location = if ipv6 { "ip6_finish_output" } else { "ip_finish_output" };
        let mut shape = Shape::new("cgroup eBPF, egress", ipv6, EGRESS).on("eth0");
        let (unknown, cannot) = (Class::Undecided, Agreement::CannotDecide { why: String::new() });
        for (since, reason) in [("5.10", "reason-0"), ("5.17", "NOT_SPECIFIED")] {
            shape = shape.look(Look::of_class(since, reason, location, "", &unknown, &cannot));
        }
        let shape = shape.denied_by_policy("5.18", "BPF_CGROUP_EGRESS", location, "", Direction::Egress);
        let mut ebpf = load();
        attach_cgroup(scene.group("web"), &mut ebpf, CgroupSkbAttachType::Egress);
        let traffic = web_to_api(&scene, ipv6);
        let _inside = Inside::enter(scene.group("web"));
        shape.prove(&scene, traffic, Some(&|| packets(&ebpf)));
    }
}

#[test]
fn cgroup_ingress() {
    let Some(_machine) = machine("enforcers::ebpf::cgroup_ingress") else { return };
    for ipv6 in [false, true] {
        for protocol in ["TCP", "UDP"] {
            let scene = Scene::routed();
            let mut ebpf = load();
            attach_cgroup(scene.group("api"), &mut ebpf, CgroupSkbAttachType::Ingress);
            let inside = Inside::enter(scene.group("api"));
            let to = address(API, ipv6);
            let location = match (protocol, ipv6) {
                ("TCP", false) => "tcp_v4_rcv",
                ("TCP", true) => "tcp_v6_rcv",
                (_, false) => "udp_queue_rcv_one_skb",
                (_, true) => "udpv6_queue_rcv_one_skb",
            };
            let mut shape = Shape::new(&format!("cgroup eBPF, ingress, {protocol}"), ipv6, INGRESS).protocol(protocol).on("eth0");
            // A socket's own filter and its control group's program are one check, sk_filter_trim_cap().
            let (unknown, cannot) = (Class::Undecided, Agreement::CannotDecide { why: String::new() });
            shape = if protocol == "TCP" {
                shape.look(Look::of_class("5.10", "reason-0", location, "input", &unknown, &cannot))
            } else {
                shape.look(Look::gap("5.10", "without reasons it cannot be told from a full receive buffer, which is not reported"))
            };
            let shape = shape.denied_by_policy("5.17", "SOCKET_FILTER", location, "input", Direction::Ingress);
            let traffic: Box<dyn FnOnce() + Send> = if protocol == "TCP" {
                let listeners: Vec<_> = scene.ns("api").in_ns(|| listen(to)).unwrap();
                let traffic = tcp(scene.ns("web"), scene.ns("api"), to);
                Box::new(move || {
                    traffic();
                    drop(listeners);
                })
            } else {
                Box::new(udp(scene.ns("web"), scene.ns("api"), to))
            };
            drop(inside);
            shape.prove(&scene, traffic, Some(&|| packets(&ebpf)));
        }
    }
}

/// Somebody listens on the denied ports: without a socket there is no control group whose program could run.
fn listen(address: std::net::IpAddr) -> Vec<std::net::TcpListener> {
    DENIED.map(|port| std::net::TcpListener::bind((address, port)).unwrap()).collect()
}
