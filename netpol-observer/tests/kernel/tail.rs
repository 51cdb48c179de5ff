//! The real `observer tail` on the running kernel: floods, recording and replay, signals.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use netpol_observer::capture::kernel::{is_before, release};
use serde_json::Value;
use xtask::netns::Bed;
use xtask::testing::report;

use crate::flood::{node, packets, resident_of, send_same, send_spoofed};
use crate::support::{arguments_for_this_machine, machine};

/// The pod that the floods are sent to, isolated by a policy that admits nobody.
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

struct Tail {
    child: Child,
}

/// Starts it and waits until it watches.
fn start(directory: &Path, arguments: &[&str]) -> Tail {
    let manifests = directory.join("manifests.yaml");
    std::fs::write(&manifests, MANIFESTS).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_observer"))
        .args(["tail", "-o", "json", "--manifests"])
        .arg(&manifests)
        .args(arguments)
        .args(arguments_for_this_machine())
        .stdout(File::create(directory.join("out.jsonl")).unwrap())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let watching = lines.by_ref().map_while(Result::ok).find(|line| line.contains("watching"));
    assert!(watching.is_some(), "it ended before it watched: {:?}", child.wait());
    // The rest of what it says must not fill the pipe.
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    Tail { child }
}

impl Tail {
    fn resident(&self) -> u64 {
        resident_of(&self.child.id().to_string())
    }

    /// Interrupts it, and returns what it has written.
    fn finish(mut self, directory: &Path) -> Vec<Value> {
        // SAFETY: sends a signal to a child that has not been waited for.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGINT) };
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
        let text = BufReader::new(File::open(directory.join("out.jsonl")).unwrap());
        text.lines().map(|line| serde_json::from_str(&line.unwrap()).expect("one object per line")).collect()
    }
}

fn of_type<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["type"] == kind).collect()
}

/// Drops and their repeats that were printed: all of the flooded flow.
fn printed(objects: &[Value]) -> u64 {
    let sum = |kind: &str| of_type(objects, kind).iter().map(|object| object["count"].as_u64().unwrap()).sum::<u64>();
    sum("denial") + sum("repeat")
}

#[test]
fn a_million_of_one_flow() {
    let Some(_machine) = machine("tail::a_million_of_one_flow") else { return };
    let mut bed = Bed::new("npo-test").unwrap();
    let node = node(&mut bed);
    let tail = start(bed.directory(), &[]);
    node.in_ns(send_same).unwrap();
    let objects = tail.finish(bed.directory());
    let denials = of_type(&objects, "denial");
    assert_eq!(denials.len(), 1, "the first drop once, the rest as repeats");
    assert_eq!(denials[0]["class"], "policyDenied");
    assert_eq!(printed(&objects), packets(), "every packet is in a line");
    assert_eq!(node.counter("denied").unwrap().packets, packets());
}

#[test]
fn a_million_flows_in_bounded_memory() {
    let Some(_machine) = machine("tail::a_million_flows_in_bounded_memory") else { return };
    let mut bed = Bed::new("npo-test").unwrap();
    let node = node(&mut bed);
    // Filtered for display, and still explained and counted.
    let tail = start(bed.directory(), &["--port", "1"]);
    let sender = std::thread::spawn(move || node.in_ns(send_spoofed).map(|()| node).unwrap());
    let begin = Instant::now();
    let mut samples = Vec::new();
    while !sender.is_finished() || begin.elapsed() < Duration::from_secs(8) {
        std::thread::sleep(Duration::from_millis(250));
        samples.push(tail.resident());
    }
    let node = sender.join().unwrap();
    let objects = tail.finish(bed.directory());
    let ledger = of_type(&objects, "ledger").pop().expect("a ledger at the end").clone();
    report(&format!("a million flows: resident KiB {samples:?}, ledger {ledger}"));
    let kernel = |name: &str| ledger["kernel"][name].as_u64().unwrap_or_else(|| panic!("{name} in {ledger}"));
    assert_eq!(kernel("seen"), kernel("reported") + kernel("folded") + kernel("ringFull"));
    assert!(kernel("seen") >= packets(), "{ledger}");
    assert_eq!(node.counter("denied").unwrap().packets, packets());
    // The fold remembers 65,536 drops, which come to about 45 MiB; behind that nothing grows.
    let (first, last) = (samples[0], *samples.last().unwrap());
    assert!(last < first + 64 * 1024, "memory goes on growing: {samples:?} KiB");
}

/// What is recorded on the running kernel is explained the same way from the file.
#[test]
fn a_recording_replays_to_the_same() {
    let Some(_machine) = machine("tail::a_recording_replays_to_the_same") else { return };
    let mut bed = Bed::new("npo-test").unwrap();
    let node = node(&mut bed);
    let recording = bed.directory().join("drops.npo");
    let tail = start(bed.directory(), &["--record", recording.to_str().unwrap()]);
    let netns = node.clone();
    netns
        .in_ns(|| {
            for port in 1..=9u16 {
                crate::support::send_udp((std::net::Ipv4Addr::new(10, 244, 1, 20), port).into(), b"x");
            }
        })
        .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let live = tail.finish(bed.directory());
    let replay = Command::new(env!("CARGO_BIN_EXE_observer"))
        .args(["tail", "-o", "json", "--manifests"])
        .arg(bed.directory().join("manifests.yaml"))
        .arg("--replay")
        .arg(&recording)
        .output()
        .unwrap();
    assert!(replay.status.success(), "{}", String::from_utf8_lossy(&replay.stderr));
    let replayed: Vec<Value> = replay.stdout.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    let (live, replayed) = (of_type(&live, "denial"), of_type(&replayed, "denial"));
    let of_class = |class: &str| live.iter().filter(|denial| denial["class"] == class).count();
    // Before 5.17 the kernel does not say why, and at that place there are several causes.
    let refused = if is_before(&release(), (5, 17)) { "undecided" } else { "noListener" };
    assert_eq!((of_class("policyDenied"), of_class(refused)), (1, 8), "port 9 is dropped, on the others nobody listens");
    assert_eq!(live, replayed);
}
