//! Real drops of the running kernel, in network namespaces.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use netpol_observer::capture::is_built_in;
use netpol_observer::capture::permissions::Permissions;
use serde_json::Value;
use xtask::machine::Machine;
use xtask::netns::{Bed, Netns};
use xtask::testing::report;
use xtask::traffic::{Datagram, Forger};

use crate::http::{Frames, PATIENCE, accounted, connect, items, lost, send};
use crate::process::{Agent, received};

const POD: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 20);

/// The port that the firewall of the node drops.
const PORT: u16 = 9;

const MANIFESTS: &str = r#"
apiVersion: v1
kind: Pod
metadata: { name: target, namespace: shop, labels: { app: target } }
status: { phase: Running, podIP: 10.244.1.20 }
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: nobody, namespace: shop }
spec: { podSelector: {}, policyTypes: [Ingress] }
"#;

/// The machine for one test, or `None` after printing why it cannot run here.
pub(crate) fn machine(test: &str) -> Option<Machine> {
    Machine::for_test(test, &Permissions::read().missing_for_capture(), is_built_in())
}

/// A node that drops what is sent to its pod's port 9, and counts it.
struct Scene {
    bed: Bed,
    node: Netns,
}

impl Scene {
    fn new() -> Self {
        let mut bed = Bed::new("npo-test").unwrap();
        let node = bed.node("node", &["192.0.2.1".parse().unwrap()]).unwrap();
        // Somewhere to route to; nothing ever gets there.
        node.routed_pod(&mut bed, "pod", &[POD.into()]).unwrap();
        let node = node.netns().clone();
        node.nft(&format!(
            "table inet test {{
               counter denied {{ }}
               chain policies {{ type filter hook output priority 0; policy accept; udp dport {PORT} counter name denied drop; }}
             }}"
        ))
        .unwrap();
        std::fs::write(bed.directory().join("cluster.yaml"), MANIFESTS).unwrap();
        Scene { bed, node }
    }

    fn agent(&self, arguments: &[&str]) -> Agent {
        Agent::start(self.bed.directory(), &[&["-f", "cluster.yaml"], arguments].concat())
    }

    /// The same datagram `count` times.
    fn same(&self, count: u64) {
        let send = || {
            let socket = UdpSocket::bind("192.0.2.1:0").unwrap();
            // The firewall's drop makes it fail.
            (0..count).for_each(|_| _ = socket.send_to(b"x", (POD, PORT)));
        };
        self.node.in_ns(send).unwrap();
    }

    /// `count` datagrams, each from another address.
    fn different(&self, first: u64, count: usize) {
        let send = || {
            let source = |number: u64| Ipv4Addr::from(0x0b00_0000 + number as u32);
            Forger::new().unwrap().send(first, count, |number| Datagram { source: source(number), destination: POD, port: PORT }).unwrap();
        };
        self.node.in_ns(send).unwrap();
    }

    fn counted(&self) -> u64 {
        self.node.counter("denied").unwrap().packets
    }
}

/// Drops of the flooded pod in the lines of a stream.
fn shown(frames: &[Value]) -> u64 {
    let of = |kind: &str| items(frames, kind).iter().map(|line| line["count"].as_u64().unwrap()).sum::<u64>();
    of("denial") + of("repeat")
}

/// A stream that has begun.
fn follow(agent: &Agent, query: &str) -> Frames {
    // From the beginning: something of the machine's may have been dropped before the reader came.
    let mut frames = agent.drops(&format!("follow=true&since=2000-01-01T00:00:00Z&{query}"));
    frames.until("a watermark", |frame| frame["frame"] == "watermark");
    frames
}

/// Waits until the agent has been told of so many drops.
fn until_received(agent: &mut Agent, drops: u64) {
    agent.wait_for("the drops", |agent| {
        let ledger = &agent.status()["ledger"];
        let of = |name: &str| ledger[name].as_u64().unwrap();
        let ring_full = ledger["kernel"]["ringFull"].as_u64().unwrap_or(0);
        of("records") + of("counted") + ring_full >= drops
    });
}

#[test]
fn drops_are_explained_to_those_who_want_them() {
    let Some(_machine) = machine("live::drops_are_explained_to_those_who_want_them") else { return };
    let scene = Scene::new();
    let agent = scene.agent(&[]);
    let mut wanted = follow(&agent, "arg=--to-pod&arg=shop/target&arg=--port&arg=9");
    let unwanted = follow(&agent, "arg=-n&arg=elsewhere");
    scene.same(5);
    let mut frames = wanted.until("the denial", |frame| frame["line"]["type"] == "denial");
    let denial = items(&frames, "denial")[0].clone();
    assert_eq!((&denial["class"], &denial["server"]["name"]), (&"policyDenied".into(), &"target".into()));
    assert_eq!(denial["explanation"]["ingress"]["isolating"][0]["policy"]["name"], "nobody");
    assert_eq!(denial["kernel"]["node"], "node-2");
    // Who comes later finds it among the recent ones.
    let recent = agent.drops("last=1&arg=--port&arg=9").rest();
    assert_eq!(items(&recent, "denial"), [&denial]);
    let status = agent.status();
    assert_eq!(status["kernel"]["problems"], serde_json::json!([]));
    assert!(status["ledger"]["kernel"]["seen"].is_u64() || status["ledger"]["kernel"].is_null());
    let said = agent.stop();
    assert!(said.contains("watching drops on node-2 (kernel "), "{said}");
    frames.extend(wanted.rest());
    assert_eq!(shown(&frames), 5, "{frames:?}");
    assert_eq!(frames.last().unwrap()["reason"], "shutting down");
    let unwanted = unwanted.rest();
    assert_eq!((shown(&unwanted), scene.counted()), (0, 5));
    let ledger = &items(&unwanted, "ledger")[0];
    let kernel = |name: &str| ledger["kernel"][name].as_u64().unwrap();
    assert_eq!(kernel("seen"), kernel("reported") + kernel("folded") + kernel("ringFull"), "the final counters of the kernel: {ledger}");
    assert_eq!(accounted(&unwanted), kernel("received") + kernel("foldedDelivered"));
}

/// A client that stops reading in the middle of 100,000 different drops: it is told what it missed, and nobody else notices.
#[test]
fn a_client_that_stops_reading() {
    let Some(_machine) = machine("live::a_client_that_stops_reading") else { return };
    let scene = Scene::new();
    let mut agent = scene.agent(&[]);
    let stopped = follow(&agent, "all=true");
    let reading = follow(&agent, "all=true&arg=--port&arg=1");
    const DROPS: usize = 100_000;
    // The first parts fill what is kept; behind that nothing grows.
    let mut resident = Vec::new();
    for part in 1..=5 {
        scene.different((part - 1) * DROPS as u64 / 5, DROPS / 5);
        until_received(&mut agent, part * DROPS as u64 / 5);
        resident.push(agent.resident());
    }
    assert_eq!(scene.counted(), DROPS as u64);
    assert_eq!(agent.get("/healthz").code, 200);
    // What it missed is known before it reads on.
    let stopped = std::thread::spawn(move || stopped.rest());
    let said = agent.stop();
    let (stopped, reading) = (stopped.join().unwrap(), reading.rest());
    let (all, ledger) = (received(&said), items(&reading, "ledger")[0]["kernel"].clone());
    report(&format!(
        "a client that stops reading: {all} received, it got {} and lost {}; another lost {}; kernel {ledger}; resident KiB {resident:?}",
        shown(&stopped),
        lost(&stopped),
        lost(&reading)
    ));
    assert!(lost(&stopped) > 0, "100,000 drops fit nowhere on the way");
    assert_eq!((accounted(&stopped), accounted(&reading)), (all, all));
    let kernel = |name: &str| ledger[name].as_u64().unwrap();
    assert_eq!(all, kernel("received") + kernel("foldedDelivered"));
    assert!(all + kernel("ringFull") >= DROPS as u64, "everything is accounted for: {said}");
    let (full, last) = (resident[1], *resident.last().unwrap());
    assert!(last < full + 24 * 1024, "memory goes on growing: {resident:?} KiB");
}

#[test]
fn fifty_readers() {
    let Some(_machine) = machine("live::fifty_readers") else { return };
    let scene = Scene::new();
    let mut agent = scene.agent(&[]);
    let before = agent.resident();
    let readers: Vec<Frames> = (0..50)
        .map(|number| match number % 3 {
            0 => follow(&agent, "all=true"),
            1 => follow(&agent, "form=text&all=true"),
            _ => follow(&agent, "all=true&arg=--not&arg=--port&arg=9"),
        })
        .collect();
    assert_eq!(agent.status()["clients"]["readers"], 50);
    let reading: Vec<_> = readers.into_iter().map(|reader| std::thread::spawn(move || reader.rest())).collect();
    const DROPS: usize = 20_000;
    scene.different(0, DROPS / 2);
    scene.same(DROPS as u64 / 2);
    until_received(&mut agent, DROPS as u64);
    let after = agent.resident();
    let said = agent.stop();
    let all = received(&said);
    let mut losses = Vec::new();
    for reading in reading {
        let frames = reading.join().unwrap();
        assert_eq!(accounted(&frames), all);
        assert_eq!(frames.last().unwrap()["frame"], "end");
        losses.push(lost(&frames));
    }
    report(&format!("fifty readers: {all} received, lost {losses:?}; resident {before} -> {after} KiB"));
    assert_eq!(scene.counted(), DROPS as u64);
    assert!(after < before + 160 * 1024, "resident {before} -> {after} KiB");
}

/// Killed under load: readers notice, and another agent on the same port goes on.
#[test]
fn killed_and_started_again() {
    let Some(_machine) = machine("live::killed_and_started_again") else { return };
    let scene = Scene::new();
    let mut agent = scene.agent(&[]);
    let address = agent.address.to_string();
    let mut reader = follow(&agent, "all=true");
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| (0..30).for_each(|part| scene.different(part * 2000, 2000)));
        let frames = reader.until("a drop", |frame| frame["line"]["type"] == "denial");
        let last = frames.last().unwrap()["order"].as_str().unwrap().to_owned();
        agent.signal(libc::SIGKILL);
        agent.wait();
        // No ledger and no end: the connection breaks.
        loop {
            match reader.next() {
                Ok(Some(frame)) => assert!(frame["frame"] != "end" && frame["frame"] != "ledger", "{frame}"),
                Ok(None) => panic!("a stream that was cut ended as if it were whole"),
                Err(_) => break,
            }
        }
        let again = scene.agent(&["--listen", &address]);
        let mut reader = again.drops(&format!("follow=true&since={last}&all=true"));
        let hello = reader.until("hello", |frame| frame["frame"] == "hello");
        let retained: jiff::Timestamp = hello[0]["retainedSince"].as_str().unwrap().parse().unwrap();
        assert!(retained > last.parse().unwrap(), "what was before it started is known to be missing");
        flood.join().unwrap();
        scene.same(1);
        reader.until("a drop after it came back", |frame| frame["line"]["client"]["ip"] == "192.0.2.1");
        again.stop();
    });
}

/// A file system of this many KiB, until it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(at: &Path, kib: u32) -> Self {
        std::fs::create_dir(at).unwrap();
        let size = format!("size={kib}k");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).status().unwrap();
        assert!(mounted.success());
        SmallDisk(at.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_ends_the_recording_and_nothing_else() {
    let Some(_machine) = machine("live::a_full_disk_ends_the_recording_and_nothing_else") else { return };
    let scene = Scene::new();
    let disk = SmallDisk::new(&scene.bed.directory().join("disk"), 256);
    let recording = disk.0.join("drops.rec");
    let mut agent = scene.agent(&["--record", recording.to_str().unwrap()]);
    let mut reader = follow(&agent, "all=true&arg=--port&arg=1");
    scene.different(0, 5000);
    let frames = reader.until("the warning", |frame| frame["line"]["type"] == "notice");
    let message = items(&frames, "notice")[0]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("has stopped, and the capture goes on") && message.contains("drops.rec"), "{message}");
    scene.different(5000, 5000);
    until_received(&mut agent, 10_000);
    assert_eq!(agent.get("/healthz").code, 200);
    let said = agent.stop();
    assert!(said.contains("has stopped") && said.contains("are not in the recording"), "{said}");
    let rest = reader.rest();
    assert_eq!(items(&rest, "ledger")[0]["balanced"], true);
    // What was recorded before can be read.
    let replay =
        Command::new(env!("CARGO_BIN_EXE_observer")).args(["tail", "-o", "json", "--all", "--replay"]).arg(&recording).output().unwrap();
    let denials = String::from_utf8(replay.stdout).unwrap().lines().filter(|line| line.contains(r#""type":"denial""#)).count();
    assert!(denials > 100, "{denials}");
}

/// The end comes in time also with a reader that takes nothing.
#[test]
fn the_end_does_not_wait_for_a_reader_that_has_stopped() {
    let Some(_machine) = machine("live::the_end_does_not_wait_for_a_reader_that_has_stopped") else { return };
    let scene = Scene::new();
    let mut agent = scene.agent(&[]);
    let stream = connect(agent.address);
    let stopped = send(stream.try_clone().unwrap(), "GET", "/v1/drops?follow=true&all=true", &[], "");
    scene.different(0, 30_000);
    until_received(&mut agent, 30_000);
    let begin = Instant::now();
    agent.signal(libc::SIGTERM);
    assert_eq!(agent.wait().code(), Some(0), "{}", agent.said());
    // Fifteen seconds for connections; the rest is patience with a loaded machine.
    assert!(begin.elapsed() < PATIENCE / 2, "{:?}", begin.elapsed());
    report(&format!("the end with a reader that has stopped took {:?}", begin.elapsed()));
    assert!(agent.find("cut off at the end").is_some(), "{}", agent.said());
    drop(stopped);
    std::thread::sleep(Duration::from_millis(1));
}
