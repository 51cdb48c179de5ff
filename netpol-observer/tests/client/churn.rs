//! Pods come and go, and the next one has the address of the last: not one drop may be said to be another pod's.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};
use xtask::testing::report;

use crate::denials::{agent_status, name, start_tail};
use crate::node::{Node, PORT, cluster, machine, pod, published, start_agent};
use crate::scene::{Scene, Tail};

/// Addresses that are given again and again. Each pod has one for some seconds: with so many, more than 1,000 pods come and go in a minute.
const ADDRESSES: u8 = 100;

/// How long pods come and go. `NETPOL_OBSERVER_TEST_CHURN` has another number of seconds.
const SECONDS: u64 = 30;

/// From the end of one pod to the next one with its address. Packets of one flow within a turn of the fold tables are one drop.
const GAP: Duration = Duration::from_millis(1200);

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
    /// When its address is published: also when the pod has ended by then, for a kubelet reports how it ended before the object may go.
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

/// Who had an address, from when to when.
type Tenure = (Timestamp, Timestamp, String);

struct Churn<'a> {
    scene: &'a Scene,
    node: &'a Node,
    lot: Lot,
    slots: Vec<Slot>,
    /// Objects that are still there, of pods that have gone: until when, and what is to be published before.
    late: Vec<(Instant, Option<Instant>, Ipv4Addr, String)>,
    truth: HashMap<Ipv4Addr, Vec<Tenure>>,
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
        Churn { scene, node, lot, slots, late: Vec::new(), truth: HashMap::new(), pods: 0, packets: 0 }
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
        for slot in &mut self.slots {
            if slot.tenant.is_none() && now >= slot.next && !is_over {
                self.pods += 1;
                let name = format!("pod-{}", self.pods);
                server.create(pod(&name, "node-2", &json!({"app": "churn"}), None)).unwrap();
                let (from, life) = (Instant::now(), Duration::from_secs(2) + self.lot.below(3000));
                let delete = from + life - self.lot.below(1000);
                let publish = Some(from + self.lot.below(3000));
                slot.tenant = Some(Tenant { name, from, to: from + life, publish, delete: Some(delete), next_packet: from });
            }
            let Some(tenant) = &mut slot.tenant else { continue };
            if now >= tenant.to {
                // It has gone; its object goes later, as when its kubelet has much to do.
                let ago = |then: Instant| Timestamp::now() - (Instant::now() - then);
                self.truth.entry(slot.address).or_default().push((ago(tenant.from), Timestamp::now(), tenant.name.clone()));
                let until = tenant.publish.unwrap_or(now) + self.lot.below(2000);
                self.late.push((until, tenant.publish, slot.address, tenant.name.clone()));
                slot.next = now + GAP;
                slot.tenant = None;
                continue;
            }
            if tenant.publish.is_some_and(|publish| now >= publish) {
                tenant.publish = None;
                server.patch(&published(&tenant.name, slot.address)).unwrap();
            }
            if tenant.delete.is_some_and(|delete| now >= delete) {
                tenant.delete = None;
                server.delete("v1", "Pod", "shop", &tenant.name).unwrap();
            }
            if now >= tenant.next_packet {
                tenant.next_packet = now + Duration::from_millis(200) + self.lot.below(600);
                sources.push(slot.address);
            }
        }
        for (_, publish, address, name) in &mut self.late {
            if publish.take_if(|publish| now >= *publish).is_some() {
                server.patch(&published(name, *address)).unwrap();
            }
        }
        let (gone, late): (Vec<_>, Vec<_>) = self.late.drain(..).partition(|(until, ..)| now >= *until);
        self.late = late;
        gone.iter().for_each(|(.., name)| server.finish_pod("shop", name).unwrap());
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

/// What was said of drops in the end.
#[derive(Default)]
struct Said {
    /// By id and time: drops, as they were said last.
    drops: BTreeMap<(String, String), Value>,
    /// Repeats: when last, how many, of whom.
    repeats: Vec<Value>,
    amended: u64,
}

impl Said {
    fn take(&mut self, line: &Value) {
        match line["type"].as_str().unwrap() {
            "denial" => _ = self.drops.insert(key(line), line.clone()),
            "amendment" => {
                self.amended += 1;
                _ = self.drops.insert(key(&line["denial"]), line["denial"].clone());
            }
            "repeat" => self.repeats.push(line.clone()),
            _ => {}
        }
    }

    fn count(&self) -> u64 {
        self.drops.len() as u64 + self.repeats.iter().map(|line| line["count"].as_u64().unwrap()).sum::<u64>()
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
    wrong: Vec<String>,
}

impl Verdicts {
    fn judge(&mut self, party: &Value, owner: &str, count: u64, line: &Value) {
        let owner = format!("shop/{owner}");
        let candidates = party["candidates"].as_array();
        if let Some(candidates) = candidates {
            if candidates.iter().any(|candidate| *candidate == owner.as_str()) {
                self.among += count;
            } else {
                self.wrong.push(format!("it was {owner}, which is not among {candidates:?}: {}", short(line)));
            }
        } else if party["kind"] != "pod" {
            self.nobody += count;
        } else if name(party) == owner {
            self.right += count;
        } else {
            self.wrong.push(format!("it was {owner}: {}", short(line)));
        }
    }
}

/// What is said of who it was.
fn short(line: &Value) -> String {
    let part = |name: &str| line[name].to_string();
    format!("{} {}, last {}, {}, {}", part("type"), part("time"), part("last"), name(&line["client"]), line["moment"]["owners"])
}

#[test]
fn no_drop_is_said_to_be_of_another_pod() {
    let Some(_machine) = machine("churn::no_drop_is_said_to_be_of_another_pod") else { return };
    let (scene, node) = (Scene::new(), Node::new());
    cluster(&scene);
    let _agent = start_agent(&scene);
    let tail = start_tail(&scene);
    let seconds = std::env::var("NETPOL_OBSERVER_TEST_CHURN").map_or(SECONDS, |seconds| seconds.parse().unwrap());
    let begin = Instant::now();
    let (mut churn, mut said) = (Churn::new(&scene, &node), Said::default());
    std::thread::scope(|scope| {
        let run = scope.spawn(|| churn.run(begin + Duration::from_secs(seconds)));
        while !run.is_finished() {
            rest(&tail, &mut said, Duration::from_millis(100));
        }
        run.join().unwrap();
    });
    // An owner may be told of so late that a drop is amended after this long.
    rest(&tail, &mut said, Duration::from_secs(15));

    let mut verdicts = Verdicts::default();
    for line in said.drops.values() {
        let address: Ipv4Addr = line["client"]["ip"].as_str().unwrap().parse().unwrap();
        let owner = churn.owner(address, line["time"].as_str().unwrap().parse().unwrap());
        verdicts.judge(&line["client"], owner, 1, line);
    }
    for line in &said.repeats {
        let address: Ipv4Addr = line["client"]["ip"].as_str().unwrap().parse().unwrap();
        let owner = churn.owner(address, line["last"].as_str().unwrap().parse().unwrap());
        verdicts.judge(&line["client"], owner, line["count"].as_u64().unwrap(), line);
    }
    let status = agent_status(&scene);
    report(&format!(
        "churn: {} pods came in {seconds} s ({} per minute) and went, {} packets dropped: {} said to be of their pod, {} of one of several, {} of nobody \
         known, {} wrong; {} amended; {}",
        churn.pods,
        churn.pods * 60 / seconds,
        churn.packets,
        verdicts.right,
        verdicts.among,
        verdicts.nobody,
        verdicts.wrong.len(),
        said.amended,
        status["timeline"],
    ));
    assert!(verdicts.wrong.is_empty(), "{} wrong, the first: {}", verdicts.wrong.len(), verdicts.wrong[0]);
    assert_eq!((said.count(), churn.packets), (churn.packets, node.denied()), "every drop is said, and once");
    // What can be known is said: all but few.
    assert!(verdicts.right * 10 >= churn.packets * 4, "{} of {}", verdicts.right, churn.packets);
    assert!(verdicts.nobody * 10 <= churn.packets, "{} of {}", verdicts.nobody, churn.packets);
}
