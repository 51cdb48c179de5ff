//! Verdicts of a program behind NFQUEUE, as kube-network-policies gives them: the opening of each connection is handed to user space.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use netpol_observer::cluster::Direction;
use netpol_observer::diagnose::{Agreement, Class};
use xtask::netns::Netns;

use super::{commands, web_to_api, xtables};
use crate::shape::{DENIED, EGRESS, INGRESS, Look, Scene, Shape};
use crate::support::machine;

const QUEUE: u16 = 100;

/// uapi/linux/netfilter/nfnetlink.h and nfnetlink_queue.h
const NFNL_SUBSYS_QUEUE: u16 = 3 << 8;
const NFQNL_MSG_PACKET: u16 = 0;
const NFQNL_MSG_VERDICT: u16 = 1;
const NFQNL_MSG_CONFIG: u16 = 2;
const NFQA_PACKET_HDR: u16 = 1;
const NFQA_VERDICT_HDR: u16 = 2;
const NFQA_PAYLOAD: u16 = 10;
const NFQA_CFG_CMD: u16 = 1;
const NFQA_CFG_PARAMS: u16 = 2;
const NFQNL_CFG_CMD_BIND: u8 = 1;
const NFQNL_COPY_PACKET: u8 = 2;
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
/// nlmsghdr and nfgenmsg
const HEADERS: usize = 16 + 4;

/// A reader of the queue in a namespace, on a thread of its own until dropped.
struct Reader {
    stop: Arc<AtomicBool>,
    dropped: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    /// `None` where the kernel has no such queues.
    fn start(netns: &Netns) -> io::Result<Self> {
        let socket = netns.in_ns(bind).unwrap()?;
        let (stop, dropped) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = {
            let (stop, dropped) = (Arc::clone(&stop), Arc::clone(&dropped));
            std::thread::spawn(move || answer(&socket, &stop, &dropped))
        };
        Ok(Reader { stop, dropped, thread: Some(thread) })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Its panic would be the second one.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn bind() -> io::Result<OwnedFd> {
    // SAFETY: opens a socket; the descriptor is checked, and owned from here on.
    let socket = unsafe {
        let socket = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_NETFILTER);
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(socket)
    };
    let timeout = libc::timeval { tv_sec: 0, tv_usec: 100_000 };
    // SAFETY: value and length are valid for the call.
    let set = unsafe {
        let value = (&raw const timeout).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVTIMEO, value, size_of_val(&timeout) as u32)
    };
    assert_eq!(set, 0, "{}", io::Error::last_os_error());
    // struct nfqnl_msg_config_cmd { command, pad, pf }; struct nfqnl_msg_config_params { copy_range, copy_mode }
    configure(&socket, NFQA_CFG_CMD, &[NFQNL_CFG_CMD_BIND, 0, 0, 0])?;
    let range = 128u32.to_be_bytes();
    configure(&socket, NFQA_CFG_PARAMS, &[range[0], range[1], range[2], range[3], NFQNL_COPY_PACKET])?;
    Ok(socket)
}

fn configure(socket: &OwnedFd, kind: u16, payload: &[u8]) -> io::Result<()> {
    send(socket, NFQNL_MSG_CONFIG, libc::NLM_F_ACK as u16, kind, payload)?;
    let mut answer = [0u8; 256];
    let len = receive(socket, &mut answer)?;
    // struct nlmsgerr: the error comes first, 0 acknowledges.
    match i32::from_ne_bytes(answer[16..20].try_into().unwrap()) {
        0 => Ok(()),
        _ if len < 20 => Err(io::ErrorKind::UnexpectedEof.into()),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}

fn send(socket: &OwnedFd, message: u16, flags: u16, kind: u16, payload: &[u8]) -> io::Result<()> {
    let attribute = 4 + payload.len();
    let total = HEADERS + attribute.next_multiple_of(4);
    let mut bytes = Vec::with_capacity(total);
    bytes.extend((total as u32).to_ne_bytes());
    bytes.extend((NFNL_SUBSYS_QUEUE | message).to_ne_bytes());
    bytes.extend((libc::NLM_F_REQUEST as u16 | flags).to_ne_bytes());
    bytes.extend([0; 8]);
    // nfgenmsg: family, version, queue.
    bytes.extend([0, 0]);
    bytes.extend(QUEUE.to_be_bytes());
    bytes.extend((attribute as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(payload);
    bytes.resize(total, 0);
    // SAFETY: the buffer is valid for its length.
    let sent = unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
    if sent == bytes.len() as isize { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the buffer is valid for its length.
    let len = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    usize::try_from(len).map_err(|_| io::Error::last_os_error())
}

fn answer(socket: &OwnedFd, stop: &AtomicBool, dropped: &AtomicU64) {
    let mut buffer = [0u8; 4096];
    while !stop.load(Ordering::Relaxed) {
        match receive(socket, &mut buffer) {
            Ok(len) => {
                for (id, port) in packets(&buffer[..len]) {
                    let deny = DENIED.contains(&port);
                    let verdict = if deny { NF_DROP } else { NF_ACCEPT };
                    let payload = [verdict.to_be_bytes(), id.to_be_bytes()].concat();
                    dropped.fetch_add(u64::from(deny), Ordering::Relaxed);
                    send(socket, NFQNL_MSG_VERDICT, 0, NFQA_VERDICT_HDR, &payload).unwrap();
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => panic!("reading the queue: {error}"),
        }
    }
}

/// Packet ids and destination ports of the packets in what was read.
fn packets(mut bytes: &[u8]) -> Vec<(u32, u16)> {
    let mut found = Vec::new();
    while bytes.len() >= HEADERS {
        let len = u32::from_ne_bytes(bytes[..4].try_into().unwrap()) as usize;
        let (message, rest) = bytes.split_at(len.next_multiple_of(4).min(bytes.len()));
        bytes = rest;
        if u16::from_ne_bytes([message[4], message[5]]) != NFNL_SUBSYS_QUEUE | NFQNL_MSG_PACKET {
            continue;
        }
        let (mut id, mut port) = (0, 0);
        let mut attributes = &message[HEADERS..];
        while attributes.len() >= 4 {
            let len = usize::from(u16::from_ne_bytes([attributes[0], attributes[1]]));
            let (attribute, rest) = attributes.split_at(len.next_multiple_of(4).min(attributes.len()));
            attributes = rest;
            let payload = &attribute[4..len];
            match u16::from_ne_bytes([attribute[2], attribute[3]]) {
                NFQA_PACKET_HDR => id = u32::from_be_bytes(payload[..4].try_into().unwrap()),
                NFQA_PAYLOAD => {
                    let transport = if payload[0] >> 4 == 4 { usize::from(payload[0] & 15) * 4 } else { 40 };
                    port = u16::from_be_bytes([payload[transport + 2], payload[transport + 3]]);
                }
                _ => {}
            }
        }
        found.push((id, port));
    }
    found
}

#[test]
fn verdicts() {
    let Some(_machine) = machine("enforcers::nfqueue::verdicts") else { return };
    let directions = [("", INGRESS, Direction::Ingress), (", egress denied", EGRESS, Direction::Egress)];
    let variants =
        [("iptables-legacy", directions[0]), ("iptables-nft", directions[0]), ("iptables-nft", directions[1]), ("nftables", directions[0])];
    for (variant, (word, policies, direction)) in variants {
        let scene = Scene::routed();
        let node = scene.node.netns();
        for ipv6 in [false, true] {
            let mut shape =
                Shape::new(&format!("NFQUEUE from {variant}, verdict drop{word}"), ipv6, policies).on("vethweb").behind("shop/web");
            // nf_reinject() came to lie in nfnetlink_queue.c with 6.12, where it is part of its caller.
            for (since, reason, location) in
                [("5.10", "reason-0", "nf_reinject"), ("5.17", "NOT_SPECIFIED", "nf_reinject"), ("6.12", "NOT_SPECIFIED", "nfqnl_reinject")]
            {
                // The verdict comes by netlink, long after the hook.
                let class = Class::PolicyDenied(vec![direction]);
                shape = shape.look(Look::of_class(since, reason, location, "", &class, &Agreement::Agrees));
            }
            let reader = match Reader::start(node) {
                Ok(reader) => reader,
                Err(error) => {
                    shape.cannot_run(&format!("no queues to user space: {error}"));
                    continue;
                }
            };
            let queued = match variant.strip_prefix("iptables-") {
                Some(variant) => {
                    let program = xtables(variant, ipv6);
                    commands(node, &format!("{program} -A FORWARD -p tcp -m conntrack --ctstate NEW -j NFQUEUE --queue-num {QUEUE}"))
                }
                None => {
                    let chain = "type filter hook forward priority 0; policy accept; meta l4proto tcp ct state new queue num";
                    let refused = node
                        .nft(&format!(
                            "table inet test {{ }}\ndelete table inet test\ntable inet test {{ chain policies {{ {chain} {QUEUE}; }}; }}"
                        ))
                        .map_err(|error| format!("{error:#}"));
                    // A kernel without the expression does not know what the rule speaks of.
                    refused.map_err(|error| {
                        assert!(error.contains("No such file or directory"), "{error}");
                        "no expression `queue` in this kernel's nf_tables".to_owned()
                    })
                }
            };
            match queued {
                Ok(()) => shape.prove(&scene, web_to_api(&scene, ipv6), Some(&|| reader.dropped.load(Ordering::Relaxed))),
                Err(why) => shape.cannot_run(&why),
            }
        }
    }
}
