//! Pods come and go, and the next one has the address of the last: not one drop may be said to be another pod's.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use xtask::testing::report;

use crate::denials::{agent_status, name, start_tail};
use crate::node::{Node, PORT, cluster, machine, pod, published, start_agent};
use crate::scene::{Scene, Tail};

/// Addresses that are given again and again. Each pod has one for some seconds: with so many, more than 1,000 pods come and go in a minute.
const ADDRESSES: u8 = 100;

/// How long pods come and go. `NETPOL_OBSERVER_TEST_CHURN` has another number of seconds.
const SECONDS: u64 = 30;

/// Threads that do nothing but keep the node's CPUs busy meanwhile. `NETPOL_OBSERVER_TEST_BUSY` has another number.
const BUSY: u64 = 0;

/// From the end of one pod to the next one with its address. Packets of one flow within a turn of the fold tables are one drop.
const GAP: Duration = Duration::from_millis(1200);

/// A pod's address is published within 3 s of its first packet, and told within half a second. Where this machine was too slow for that, nothing is
/// promised.
const PROMISED: Duration = Duration::from_millis(3500);

/// Repeatable numbers: a multiplicative generator, as many bits as are needed here.
struct Lot(u64);

impl Lot {
    fn below(&mut self, milliseconds: u64) -> Duration {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Duration::from_millis((self.0 >> 33) % milliseconds)
    }
}

/// A pod that has an address.
struct Tenant {
    name: String,
    /// When it got the address, and by when it has sent its last packet.
    from: Instant,
    to: Instant,
    /// When its address is published, after its first packet: also when the pod has ended by then, for a kubelet reports how it ended before the object may go.
    publish: Option<Instant>,
    /// When its deletion begins.
    delete: Option<Instant>,
    next_packet: Instant,
}

/// An address, and what becomes of it.
struct Slot {
    address: Ipv4Addr,
    tenant: Option<Tenant>,
    /// When the next pod gets it.
    next: Instant,
}

/// What is left of a pod that has gone.
struct Left {
    name: String,
    address: Ipv4Addr,
    from: Instant,
    publish: Option<Instant>,
    until: Instant,
}

/// Who had an address, from when to when.
type Tenure = (Timestamp, Timestamp, String);

struct Churn<'a> {
    scene: &'a Scene,
    node: &'a Node,
    lot: Lot,
    slots: Vec<Slot>,
    /// Objects that are still there, of pods that have gone.
    late: Vec<Left>,
    truth: HashMap<Ipv4Addr, Vec<Tenure>>,
    /// What happened at an address, and when: told when something is wrong there.
    history: HashMap<Ipv4Addr, Vec<(Timestamp, String)>>,
    /// Pods whose addresses were published later than is promised.
    too_late: HashSet<String>,
    pods: u64,
    packets: u64,
}

impl<'a> Churn<'a> {
    fn new(scene: &'a Scene, node: &'a Node) -> Self {
        let mut lot = Lot(20_261_130);
        let now = Instant::now();
        let slots =
            (0..ADDRESSES).map(|last| Slot { address: Ipv4Addr::new(10, 244, 2, 100 + last), tenant: None, next: now + lot.below(4000) });
        let slots = slots.collect();
        Churn {
            scene,
            node,
            lot,
            slots,
            late: Vec::new(),
            truth: HashMap::new(),
            history: HashMap::new(),
            too_late: HashSet::new(),
            pods: 0,
            packets: 0,
        }
    }

    fn run(&mut self, end: Instant) {
        while Instant::now() < end || self.slots.iter().any(|slot| slot.tenant.is_some()) || !self.late.is_empty() {
            let is_over = Instant::now() >= end;
            let sources = self.turn(is_over);
            if !sources.is_empty() {
                self.node.send(&sources, PORT);
                self.packets += sources.len() as u64;
            }
            sleep(Duration::from_millis(10));
        }
    }

    /// What is due; the addresses that send now.
    fn turn(&mut self, is_over: bool) -> Vec<Ipv4Addr> {
        let (server, now) = (&self.scene.server, Instant::now());
        let mut sources = Vec::new();
        let mut note = |address: Ipv4Addr, what: &str, name: &str| {
            self.history.entry(address).or_default().push((Timestamp::now(), format!("{what} {name}")));
        };
        for slot in &mut self.slots {
            if slot.tenant.is_none() && now >= slot.next && !is_over {
                self.pods += 1;
                let name = format!("pod-{}", self.pods);
                server.create(pod(&name, "node-2", &json!({"app": "churn"}), None)).unwrap();
                note(slot.address, "created", &name);
                let (from, life) = (Instant::now(), Duration::from_secs(2) + self.lot.below(3000));
                let delete = from + life - self.lot.below(1000);
                let publish = Some(from + self.lot.below(3000));
                slot.tenant = Some(Tenant { name, from, to: from + life, publish, delete: Some(delete), next_packet: from });
            }
            let Some(tenant) = &mut slot.tenant else { continue };
            // Before it ends, however late it is noticed here that it is to.
            if tenant.delete.is_some_and(|delete| now >= delete) {
                tenant.delete = None;
                server.delete("v1", "Pod", "shop", &tenant.name).unwrap();
                note(slot.address, "deleting", &tenant.name);
            }
            if now >= tenant.to {
                // It has gone; its object goes later, as when its kubelet has much to do.
                let ago = |then: Instant| Timestamp::now() - (Instant::now() - then);
                self.truth.entry(slot.address).or_default().push((ago(tenant.from), Timestamp::now(), tenant.name.clone()));
                let until = tenant.publish.unwrap_or(now) + self.lot.below(2000);
                note(slot.address, "ended", &tenant.name);
                slot.next = now + GAP;
                let Some(Tenant { name, from, publish, .. }) = slot.tenant.take() else { continue };
                self.late.push(Left { name, address: slot.address, from, publish, until });
                continue;
            }
            if tenant.publish.is_some_and(|publish| now >= publish) {
                tenant.publish = None;
                server.patch(&published(&tenant.name, slot.address)).unwrap();
                note(slot.address, "published", &tenant.name);
                self.too_late.extend((tenant.from.elapsed() > PROMISED).then(|| tenant.name.clone()));
            }
            if now >= tenant.next_packet {
                tenant.next_packet = now + Duration::from_millis(200) + self.lot.below(600);
                sources.push(slot.address);
            }
        }
        for Left { name, address, from, publish, .. } in &mut self.late {
            if publish.take_if(|publish| now >= *publish).is_some() {
                server.patch(&published(name, *address)).unwrap();
                note(*address, "published", name);
                self.too_late.extend((from.elapsed() > PROMISED).then(|| name.clone()));
            }
        }
        let (gone, late): (Vec<_>, Vec<_>) = self.late.drain(..).partition(|left| now >= left.until);
        self.late = late;
        for Left { name, address, .. } in &gone {
            server.finish_pod("shop", name).unwrap();
            note(*address, "gone", name);
        }
        sources
    }

    fn owner(&self, address: Ipv4Addr, when: Timestamp) -> &str {
        let tenures = &self.truth[&address];
        tenures
            .iter()
            .find(|(from, to, _)| *from <= when && when <= *to)
            .map(|(_, _, name)| name.as_str())
            .expect("packets are sent by somebody")
    }
}

impl Churn<'_> {
    /// What happened at an address around a time.
    fn around(&self, address: Ipv4Addr, when: Timestamp) -> String {
        let near = self.history[&address].iter().filter(|(then, _)| then.duration_since(when).abs() < SignedDuration::from_secs(10));
        let lines = near.map(|(then, what)| format!("\n  {:+.3} s {what}", then.duration_since(when).as_secs_f64()));
        lines.collect()
    }
}

/// What was said of drops in the end.
#[derive(Default)]
struct Said {
    /// By id and time: drops, as they were said last.
    drops: BTreeMap<(String, String), Value>,
    /// Repeats: when last, how many, of whom.
    repeats: Vec<Value>,
    amended: u64,
    /// Amended ones that had been counted among repeats.
    moved: u64,
}

impl Said {
    fn take(&mut self, line: &Value) {
        match line["type"].as_str().unwrap() {
            "denial" => _ = self.drops.insert(key(line), line.clone()),
            "amendment" => {
                self.amended += 1;
                let had_line = self.drops.insert(key(&line["denial"]), line["denial"].clone()).is_some();
                self.moved += u64::from(!had_line);
            }
            "repeat" => self.repeats.push(line.clone()),
            _ => {}
        }
    }

    fn count(&self) -> u64 {
        self.drops.len() as u64 + self.repeats.iter().map(|line| line["count"].as_u64().unwrap()).sum::<u64>() - self.moved
    }
}

fn key(line: &Value) -> (String, String) {
    (line["id"].to_string(), line["time"].as_str().unwrap().to_owned())
}

fn is_of_churn(line: &Value) -> bool {
    let line = if line["type"] == "amendment" { &line["denial"] } else { line };
    line["server"]["port"] == json!(PORT)
}

/// Reads until nothing comes for a while.
fn rest(tail: &Tail, said: &mut Said, quiet: Duration) {
    while let Some(line) = tail.next_line(quiet) {
        let line: Value = serde_json::from_str(&line).unwrap();
        if is_of_churn(&line) {
            said.take(&line);
        }
    }
}

/// How many were attributed to whom.
#[derive(Default)]
struct Verdicts {
    right: u64,
    among: u64,
    nobody: u64,
    /// Of pods of which nothing is promised.
    unpromised: u64,
    wrong: Vec<String>,
}

impl Verdicts {
    /// Of a line that says who sent `count` packets, the last of them at `when`.
    fn judge(&mut self, churn: &Churn<'_>, line: &Value, when: &Value, count: u64) {
        let address: Ipv4Addr = line["client"]["ip"].as_str().unwrap().parse().unwrap();
        let when: Timestamp = when.as_str().unwrap().parse().unwrap();
        let owner = churn.owner(address, when);
        let (party, named) = (&line["client"], format!("shop/{owner}"));
        let candidates = party["candidates"].as_array();
        if candidates.is_some_and(|candidates| candidates.iter().any(|candidate| *candidate == named.as_str())) {
            self.among += count;
        } else if candidates.is_none() && party["kind"] != "pod" {
            self.nobody += count;
        } else if candidates.is_none() && name(party) == named {
            self.right += count;
        } else if churn.too_late.contains(owner) {
            self.unpromised += count;
        } else {
            self.wrong.push(format!("it was {named}: {}{}", short(line), churn.around(address, when)));
        }
    }
}

/// A number from the environment.
fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |number| number.parse().unwrap())
}

/// What is said of who it was.
fn short(line: &Value) -> String {
    // What was amended has no type of its own.
    let kind = line["type"].as_str().unwrap_or("amended");
    let time = line["last"].as_str().or(line["time"].as_str()).unwrap();
    format!("{kind} at {time}, {}, {}", line["client"], line["moment"]["owners"])
}

#[test]
fn no_drop_is_said_to_be_of_another_pod() {
    let Some(_machine) = machine("churn::no_drop_is_said_to_be_of_another_pod") else { return };
    let (scene, node) = (Scene::new(), Node::new());
    cluster(&scene);
    let _agent = start_agent(&scene);
    let tail = start_tail(&scene);
    let (seconds, busy) = (number("NETPOL_OBSERVER_TEST_CHURN", SECONDS), number("NETPOL_OBSERVER_TEST_BUSY", BUSY));
    let begin = Instant::now();
    let (mut churn, mut said, is_over) = (Churn::new(&scene, &node), Said::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..busy {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let run = scope.spawn(|| churn.run(begin + Duration::from_secs(seconds)));
        while !run.is_finished() {
            rest(&tail, &mut said, Duration::from_millis(100));
        }
        let ended = run.join();
        is_over.store(true, Ordering::Relaxed);
        ended.unwrap();
    });
    // An owner may be told of so late that a drop is amended after this long.
    rest(&tail, &mut said, Duration::from_secs(15));

    let mut verdicts = Verdicts::default();
    for line in said.drops.values() {
        verdicts.judge(&churn, line, &line["time"], 1);
    }
    for line in &said.repeats {
        verdicts.judge(&churn, line, &line["last"], line["count"].as_u64().unwrap());
    }
    let status = agent_status(&scene);
    report(&format!(
        "churn: {} pods came in {seconds} s ({} per minute) and went, {} packets dropped: {} said to be of their pod, {} of one of several, {} of nobody \
         known, {} wrong, {} of pods published too late; {} amended; {}",
        churn.pods,
        churn.pods * 60 / seconds,
        churn.packets,
        verdicts.right,
        verdicts.among,
        verdicts.nobody,
        verdicts.wrong.len(),
        verdicts.unpromised,
        said.amended,
        status["timeline"],
    ));
    assert!(verdicts.wrong.is_empty(), "{} wrong:\n{}", verdicts.wrong.len(), verdicts.wrong.join("\n"));
    assert_eq!((said.count(), churn.packets), (churn.packets, node.denied()), "every drop is said, and once");
    assert!(verdicts.unpromised * 50 <= churn.packets, "this machine is too slow for this test");
    // What can be known is said: all but few.
    assert!(verdicts.right * 10 >= churn.packets * 4, "{} of {}", verdicts.right, churn.packets);
    assert!(verdicts.nobody * 10 <= churn.packets, "{} of {}", verdicts.nobody, churn.packets);
}
