//! Drops in soft interrupts and in process context at once, on every CPU: the receive path interrupts the send path in the
//! middle of the program, and every packet the firewall counted is in the ledger.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use netpol_observer::capture::live::LiveOptions;
use netpol_observer::capture::{Captured, KernelLedger};
use netpol_observer::flow::{decode, decode_key};
use netpol_observer_common::DropRecord;
use xtask::netns::Netns;
use zerocopy::FromBytes as _;

use crate::support::{Pods, machine, runtime, start};

/// Ports of the forwarded and of the node's own packets.
const FORWARDED: u16 = 9;
const OWN: u16 = 10;

const RULES: &str = "
table inet test {
  counter forwarded { }
  counter own { }
  chain forwards {
    type filter hook forward priority 0; policy accept;
    udp dport 9 counter name forwarded drop
  }
  chain outputs {
    type filter hook output priority 0; policy accept;
    udp dport 10 counter name own drop
  }
}
";

/// What one round came to, by destination port.
#[derive(Debug)]
struct Round {
    firewall: BTreeMap<u16, u64>,
    observed: BTreeMap<u16, u64>,
    ledger: KernelLedger,
}

/// Sends as fast as it can until told to stop.
fn send(netns: &Netns, cpu: usize, to: SocketAddr, stop: &AtomicBool) {
    netns
        .in_ns(|| {
            pin(cpu);
            let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
            while !stop.load(Ordering::Relaxed) {
                for _ in 0..64 {
                    // EPERM where the OUTPUT hook drops it.
                    let _ = socket.send_to(b"x", to);
                }
            }
        })
        .unwrap();
}

fn pin(cpu: usize) {
    // SAFETY: plain old data, initialised by CPU_ZERO's meaning: all zeros; the pointer outlives the call.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &raw const set);
    }
}

/// Has packets that arrive in this namespace received on every CPU, so that the interrupt comes while that CPU sends.
fn steer(netns: &Netns) {
    let all = format!("{:x}", (1u64 << cpus()) - 1);
    let set = move || {
        // /sys shows the devices of the namespace it was mounted in.
        // SAFETY: the strings are terminated, and the mounts are this thread's own.
        unsafe {
            assert_eq!(libc::unshare(libc::CLONE_NEWNS), 0, "{}", std::io::Error::last_os_error());
            let flags = libc::MS_REC | libc::MS_PRIVATE;
            assert_eq!(libc::mount(c"none".as_ptr(), c"/".as_ptr(), std::ptr::null(), flags, std::ptr::null()), 0);
            assert_eq!(libc::mount(c"sysfs".as_ptr(), c"/sys".as_ptr(), c"sysfs".as_ptr(), 0, std::ptr::null()), 0);
        }
        let devices = std::fs::read_dir("/sys/class/net").unwrap().flatten();
        for device in devices.filter(|device| device.file_name() != "lo") {
            std::fs::write(device.path().join("queues/rx-0/rps_cpus"), &all).unwrap();
        }
    };
    // A thread of its own, which takes its mounts with it.
    netns.in_ns(|| std::thread::spawn(set).join().unwrap()).unwrap();
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn round(time: Duration) -> Round {
    let pods = Pods::new();
    pods.node.nft(RULES).unwrap();
    steer(&pods.node);
    let inode = u32::try_from(pods.node.inode().unwrap()).unwrap();
    let target = |port| SocketAddr::new("10.244.1.20".parse().unwrap(), port);
    let (observed, ledger) = runtime().block_on(async {
        let mut live = start(LiveOptions { fold_interval: Duration::from_millis(100), ..LiveOptions::default() });
        let stop = AtomicBool::new(false);
        let mut observed = BTreeMap::new();
        let mut ledger = KernelLedger::default();
        std::thread::scope(|scope| {
            for cpu in 0..cpus() {
                let (pods, stop) = (&pods, &stop);
                scope.spawn(move || send(&pods.web, cpu, target(FORWARDED), stop));
                scope.spawn(move || send(&pods.node, cpu, target(OWN), stop));
            }
            let mut take = |captured: Captured| match captured {
                Captured::Record(bytes) => {
                    let record = DropRecord::read_from_bytes(&bytes).unwrap();
                    let flow = decode(record.ether_type, &record.header[..usize::from(record.header_len)]).unwrap();
                    if record.netns == inode {
                        *observed.entry(flow.destination_port.unwrap_or(0)).or_insert(0) += 1;
                    }
                }
                Captured::Repeat { key, value } if key.netns == inode => {
                    *observed.entry(decode_key(&key).unwrap().flow.destination_port.unwrap_or(0)).or_insert(0) += value.count;
                }
                Captured::Repeat { .. } => {}
                Captured::Ledger(now) => ledger = now,
            };
            tokio::task::block_in_place(|| {
                tokio::runtime::Handle::current().block_on(async {
                    let end = tokio::time::Instant::now() + time;
                    while tokio::time::Instant::now() < end {
                        if let Ok(Some(captured)) = tokio::time::timeout(Duration::from_millis(20), live.next()).await {
                            take(captured);
                        }
                    }
                    stop.store(true, Ordering::Relaxed);
                    // What is under way in the queues of the receive path.
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    live.stop();
                    while let Some(captured) = live.next().await {
                        take(captured);
                    }
                });
            });
        });
        (observed, ledger)
    });
    let counter = |name| pods.node.counter(name).unwrap().packets;
    Round { firewall: BTreeMap::from([(FORWARDED, counter("forwarded")), (OWN, counter("own"))]), observed, ledger }
}

#[test]
fn every_packet_is_accounted_for() {
    let Some(_machine) = machine("together::every_packet_is_accounted_for") else { return };
    for _ in 0..std::env::var("ROUNDS").map_or(1, |rounds| rounds.parse().unwrap()) {
        let round = round(Duration::from_secs(5));
        let KernelLedger { counters, received, folded_delivered, program_misses } = round.ledger;
        xtask::testing::report(&format!(
            "firewall {:?} observed {:?} missing {:?}; seen {} reported {} folded {} ring_full {} unfolded {} misses {program_misses}",
            round.firewall,
            round.observed,
            round.firewall.iter().map(|(port, count)| *count as i64 - *round.observed.get(port).unwrap_or(&0) as i64).collect::<Vec<_>>(),
            counters.seen,
            counters.reported,
            counters.folded,
            counters.ring_full,
            counters.unfolded
        ));
        assert_eq!(counters.seen, counters.reported + counters.folded + counters.ring_full);
        assert_eq!((counters.reported, counters.folded), (received, folded_delivered));
    }
}
