//! A million drops of one flow, and a million of different flows: the ledger balances to the packet, what was seen is what the
//! firewall counted, and memory stays flat.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::Duration;

use netpol_observer::capture::live::LiveOptions;
use netpol_observer::capture::{Captured, KernelLedger};
use netpol_observer_common::DropRecord;
use xtask::netns::{Bed, Netns};
use zerocopy::FromBytes as _;

use crate::support::{is_slow, machine, runtime, start};

/// Packets of a flood: a million, or what an emulated machine gets through in a minute.
pub(crate) fn packets() -> u64 {
    if is_slow() { 50_000 } else { 1_000_000 }
}

const PORT: u16 = 9;

/// What a flood came to.
struct Flood {
    ledger: KernelLedger,
    /// Records and repeats of the flooded namespace.
    ours: u64,
    /// Of other namespaces: whatever else the machine dropped meanwhile.
    others: u64,
    /// Resident memory of this process, KiB: after the first tenth, and at the end.
    memory: (u64, u64),
    firewall: u64,
}

pub(crate) fn node(bed: &mut Bed) -> Netns {
    let node = bed.node("node", &["192.0.2.1".parse().unwrap()]).unwrap();
    // Somewhere to route to; nothing ever gets there.
    node.routed_pod(bed, "pod", &["10.244.1.20".parse().unwrap()]).unwrap();
    node.netns()
        .nft(&format!(
            "table inet test {{
               counter denied {{ }}
               chain policies {{ type filter hook output priority 0; policy accept; udp dport {PORT} counter name denied drop; }}
             }}"
        ))
        .unwrap();
    node.netns().clone()
}

/// Runs `send` in a thread of its own within the node's namespace, while the capture discards what it gets.
fn flood(options: LiveOptions, read: bool, send: fn()) -> Flood {
    let mut bed = Bed::new("npo-test").unwrap();
    let node = node(&mut bed);
    let inode = u32::try_from(node.inode().unwrap()).unwrap();
    let (ledger, ours, others, memory) = runtime().block_on(async {
        let mut live = start(options);
        let sender = {
            let node = node.clone();
            std::thread::spawn(move || node.in_ns(send).unwrap())
        };
        let (mut ours, mut others, mut early, mut ledger) = (0u64, 0u64, 0u64, KernelLedger::default());
        let mut stopped = false;
        loop {
            if sender.is_finished() && !stopped {
                live.stop();
                stopped = true;
            }
            if !read && !stopped {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
            let captured = match tokio::time::timeout(Duration::from_millis(20), live.next()).await {
                Err(_) => continue,
                Ok(None) => break,
                Ok(Some(captured)) => captured,
            };
            match captured {
                Captured::Record(bytes) => {
                    let record = DropRecord::read_from_bytes(&bytes).unwrap();
                    *if record.netns == inode { &mut ours } else { &mut others } += 1;
                }
                Captured::Repeat { key, value } => *if key.netns == inode { &mut ours } else { &mut others } += value.count,
                Captured::Ledger(now) => ledger = now,
            }
            if early == 0 && ours > packets() / 10 {
                early = resident();
            }
        }
        sender.join().unwrap();
        (ledger, ours, others, (early, resident()))
    });
    Flood { ledger, ours, others, memory, firewall: node.counter("denied").unwrap().packets }
}

impl Flood {
    fn assert_exact(&self) {
        let KernelLedger { counters, received, folded_delivered, .. } = self.ledger;
        println!(
            "seen {} = reported {} + folded {} + ring full {} (unfolded {}); others {}; missed runs {}; resident {} -> {} KiB",
            counters.seen,
            counters.reported,
            counters.folded,
            counters.ring_full,
            counters.unfolded,
            self.others,
            self.ledger.program_misses,
            self.memory.0,
            self.memory.1
        );
        assert_eq!(self.firewall, packets(), "the firewall dropped them all");
        assert_eq!(counters.seen, counters.reported + counters.folded + counters.ring_full);
        assert_eq!(counters.reported, received);
        assert_eq!(counters.folded, folded_delivered, "nothing unattributed");
        assert_eq!(self.ours + self.others, counters.reported + counters.folded);
        assert_eq!(self.ours + counters.ring_full, packets(), "what was seen is what the firewall counted");
    }
}

/// VmRSS of this process, KiB.
fn resident() -> u64 {
    resident_of("self")
}

/// VmRSS of a process, KiB.
pub(crate) fn resident_of(process: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok()).unwrap()
}

/// One flow: the same datagram over and over.
pub(crate) fn send_same() {
    let socket = UdpSocket::bind("192.0.2.1:0").unwrap();
    let to: SocketAddr = (Ipv4Addr::new(10, 244, 1, 20), PORT).into();
    for _ in 0..packets() {
        let _ = socket.send_to(b"x", to);
    }
}

/// Sends datagrams from forged source addresses.
pub(crate) struct Forger {
    socket: OwnedFd,
    packet: [u8; 29],
}

impl Forger {
    /// Of the namespace the calling thread is in.
    pub(crate) fn new(port: u16) -> Self {
        // SAFETY: creates a socket; the descriptor is checked, and owned from here on.
        let socket = unsafe {
            let socket = libc::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW);
            assert!(socket >= 0, "{}", std::io::Error::last_os_error());
            OwnedFd::from_raw_fd(socket)
        };
        let mut packet = [0u8; 29];
        packet[0] = 0x45;
        packet[8] = 64;
        packet[9] = 17;
        packet[16..20].copy_from_slice(&[10, 244, 1, 20]);
        packet[20..22].copy_from_slice(&4000u16.to_be_bytes());
        packet[22..24].copy_from_slice(&port.to_be_bytes());
        packet[24..26].copy_from_slice(&9u16.to_be_bytes());
        Forger { socket, packet }
    }

    /// One datagram from 11.0.0.0 plus `source`.
    pub(crate) fn send(&mut self, source: u32) {
        self.packet[12..16].copy_from_slice(&(0x0b00_0000 + source).to_be_bytes());
        // SAFETY: plain old data; all zeros is a valid address structure.
        let mut to: libc::sockaddr_in = unsafe { std::mem::zeroed() };
        to.sin_family = libc::AF_INET as u16;
        to.sin_addr.s_addr = u32::from_ne_bytes([10, 244, 1, 20]);
        let (packet, length) = (self.packet.as_ptr().cast(), self.packet.len());
        // SAFETY: buffer and address are valid for the lengths given. The OUTPUT hook's drop makes it fail with EPERM.
        unsafe { libc::sendto(self.socket.as_raw_fd(), packet, length, 0, (&raw const to).cast(), size_of::<libc::sockaddr_in>() as u32) };
    }
}

/// As many flows as packets: every datagram from another, forged, source address.
pub(crate) fn send_spoofed() {
    let mut forger = Forger::new(PORT);
    for source in 0..packets() as u32 {
        forger.send(source);
    }
}

#[test]
fn a_million_of_one_flow() {
    let Some(_machine) = machine("flood::a_million_of_one_flow") else { return };
    let flood = flood(LiveOptions::default(), true, send_same);
    flood.assert_exact();
    assert!(flood.ledger.counters.reported < 1000, "repeats are counted in the kernel");
}

#[test]
fn a_million_flows() {
    let Some(_machine) = machine("flood::a_million_flows") else { return };
    let flood = flood(LiveOptions::default(), true, send_spoofed);
    flood.assert_exact();
    let (early, late) = flood.memory;
    assert!(early > 0, "a tenth of the packets arrived");
    assert!(late < early + 16 * 1024, "memory grew from {early} to {late} KiB");
}

/// A reader that stands still loses records, and the ledger says how many.
#[test]
fn a_reader_that_stands_still() {
    let Some(_machine) = machine("flood::a_reader_that_stands_still") else { return };
    let flood = flood(LiveOptions { ring_bytes: 256 * 1024, ..LiveOptions::default() }, false, send_spoofed);
    flood.assert_exact();
    assert!(flood.ledger.counters.ring_full > 0, "the ring was full");
}
