//! Drops in soft interrupts and in process context at once, on every CPU: the receive path interrupts the send path in the
//! middle of the program, and every packet the firewall counted is in the ledger.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use netpol_observer::capture::kernel::Kernel;
use netpol_observer::capture::live::LiveOptions;
use netpol_observer::capture::{Captured, KernelLedger};
use netpol_observer::flow::{decode, decode_key};
use netpol_observer_common::DropRecord;
use xtask::netns::Netns;
use zerocopy::FromBytes as _;

use crate::flood::Forger;
use crate::perf::{InTasks, tasks_of};
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

/// How the observer's reader and the flows are.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Scene {
    /// Two flows, and the reader keeps up.
    FewFlows,
    /// Every packet is a flow of its own, and nobody reads a small ring.
    ManyFlowsUnread,
}

/// Sends as fast as it can until told to stop.
fn send(netns: &Netns, cpu: usize, scene: Scene, port: u16, stop: &AtomicBool) {
    netns
        .in_ns(|| {
            pin(cpu);
            let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
            let mut forger = Forger::new(port);
            let to = SocketAddr::new("10.244.1.20".parse().unwrap(), port);
            let mut number = (cpu as u32) << 22;
            while !stop.load(Ordering::Relaxed) {
                for _ in 0..64 {
                    match scene {
                        // EPERM where the OUTPUT hook drops it.
                        Scene::FewFlows => drop(socket.send_to(b"x", to)),
                        Scene::ManyFlowsUnread => forger.send(number),
                    }
                    number = number.wrapping_add(1);
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

fn round(time: Duration, scene: Scene) -> Round {
    let pods = Pods::new();
    pods.node.nft(RULES).unwrap();
    steer(&pods.node);
    let inode = u32::try_from(pods.node.inode().unwrap()).unwrap();
    let mut options = LiveOptions { fold_interval: Duration::from_millis(100), ..LiveOptions::default() };
    if scene == Scene::ManyFlowsUnread {
        options.ring_bytes = 64 * 1024;
    }
    let (observed, ledger) = runtime().block_on(async {
        let mut live = start(options);
        let stop = AtomicBool::new(false);
        let mut observed = BTreeMap::new();
        let mut ledger = KernelLedger::default();
        std::thread::scope(|scope| {
            let mut senders = Vec::new();
            for cpu in 0..cpus() {
                let (pods, stop) = (&pods, &stop);
                senders.push(scope.spawn(move || send(&pods.web, cpu, scene, FORWARDED, stop)));
                senders.push(scope.spawn(move || send(&pods.node, cpu, scene, OWN, stop)));
            }
            let mut take = |captured: Captured| match captured {
                Captured::Record(bytes) => {
                    let record = DropRecord::read_from_bytes(&bytes).unwrap();
                    // Elsewhere on the machine there may be drops of other kinds.
                    let flow = decode(record.ether_type, &record.header[..usize::from(record.header_len)]);
                    // On 5.10 what a raw socket sends has no protocol yet in OUTPUT.
                    if record.netns == inode
                        && let Ok(flow) = flow
                    {
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
                        if scene == Scene::ManyFlowsUnread {
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        } else if let Ok(Some(captured)) = tokio::time::timeout(Duration::from_millis(20), live.next()).await {
                            take(captured);
                        }
                    }
                    stop.store(true, Ordering::Relaxed);
                    for sender in senders {
                        sender.join().unwrap();
                    }
                    // What is under way in the queues of the receive path.
                    let received = || pods.node.counter("forwarded").unwrap().packets;
                    let mut before = 0;
                    while received() != before {
                        before = received();
                        tokio::time::sleep(Duration::from_millis(300)).await;
                    }
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

/// Runs rounds; gives each with the packets that it did not see because of the task that was running.
fn rounds(count: u32, scene: Scene, mut check: impl FnMut(&Round, u64)) {
    let by_init = InTasks::count(&tasks_of(1));
    for _ in 0..count {
        let before = by_init.as_ref().map_or(0, InTasks::read);
        let round = round(Duration::from_secs(3), scene);
        let KernelLedger { counters, received, folded_delivered, program_misses } = round.ledger;
        assert_eq!(counters.seen, counters.reported + counters.folded + counters.ring_full, "{round:?}");
        assert_eq!((counters.reported, counters.folded), (received, folded_delivered), "{round:?}");
        // Where tasks are preempted in the middle of a program, both programs may have been in use.
        let preempts = Kernel::read(None).unwrap().preempts_programs();
        assert!(program_misses == 0 || preempts, "{round:?}");
        check(&round, by_init.as_ref().map_or(0, InTasks::read) - before);
    }
}

#[test]
fn every_packet_is_accounted_for() {
    let Some(_machine) = machine("together::every_packet_is_accounted_for") else { return };
    rounds(3, Scene::FewFlows, |round, unseen| {
        let missing = round.firewall[&OWN] - round.observed[&OWN];
        assert!(missing <= round.ledger.program_misses, "dropped in process context: {round:?}");
        // Dropped in interrupts, whatever those interrupted.
        let missing = round.firewall[&FORWARDED] - round.observed[&FORWARDED];
        // A kernel may be built to keep tracing programs out of some tasks. One that was met leaves out process 1, and with it the
        // packets that are received while it runs. Those and no others may be missing.
        assert!(
            missing == 0 || missing == unseen || missing <= round.ledger.program_misses,
            "missing {missing}, dropped while process 1 ran {unseen}: {round:?}"
        );
        if missing > 0 {
            xtask::testing::report(&format!(
                "{missing} packets were dropped while process 1 ran, for which this kernel runs no tracing programs"
            ));
        }
    });
}

#[test]
fn a_full_ring_is_accounted_for() {
    let Some(_machine) = machine("together::a_full_ring_is_accounted_for") else { return };
    rounds(1, Scene::ManyFlowsUnread, |round, unseen| {
        let counters = round.ledger.counters;
        assert!(counters.ring_full > counters.reported, "nobody read: {round:?}");
        let dropped: u64 = round.firewall.values().sum();
        // And what the rest of the machine drops meanwhile.
        let others = 1000;
        assert!(counters.seen + unseen >= dropped && counters.seen <= dropped + others, "unseen {unseen}: {round:?}");
    });
}
