//! One way to test a *shape*: a way in which packets get denied, as it looks to the observer.
//!
//! A test makes a [`Scene`], puts an enforcer in place, says what it [expects](Expectation), and has [`Shape::prove`] run traffic under
//! the real capture and pipeline: exactly the denied flows, told right, none of the allowed ones, and a balanced ledger. What was found
//! is written as a row for docs/kernels.md. With `NETPOL_OBSERVER_KEEP_SHAPES=DIR` what the kernel said is kept as a fixture, which
//! tests/shapes.rs replays on any machine.

mod expectation;
mod fixture;
mod scene;
mod traffic;

use std::collections::BTreeSet;

use netpol_observer::capture::kernel::release;
use netpol_observer::capture::{Captured, KernelLedger};
use netpol_observer::cluster::Direction;
use netpol_observer::diagnose::{Agreement, Class, Denial};
use netpol_observer::flow::{FoldId, KernelNames};
use netpol_observer::pipeline::{Pipeline, Step};
use netpol_observer_common::DropRecord;
use xtask::testing::{Row, RowResult, row};
use zerocopy::FromBytes as _;

use crate::capture::{Names, during};
use crate::support::assert_balanced;

pub(crate) use expectation::{Ends, Expectation, Look, ends, version};
pub(crate) use scene::{API, EGRESS, GATEWAY, INGRESS, NODE, Scene, WEB, WEB_UID};
pub(crate) use traffic::*;

/// What is tried, and what it must come to.
pub(crate) struct Shape {
    /// Policies as manifests; the rest of the cluster is the scene's.
    pub(crate) policies: String,
    pub(crate) expectation: Expectation,
}

/// Everything captured of a scene.
struct Taken {
    /// In the order it came: records and repeats of the scene's namespaces.
    captured: Vec<Captured>,
    denials: Vec<Denial>,
    repeats: Vec<(FoldId, u64)>,
}

impl Shape {
    /// A shape of which nothing is expected yet but ten denied flows from pod `web` to pod `api`; see the other methods.
    pub(crate) fn new(name: &str, ipv6: bool, policies: &str) -> Self {
        let denied = DENIED.map(|port| Ends { client: "shop/web".into(), server: "shop/api".into(), port, protocol: "TCP".into() });
        let expectation = Expectation {
            shape: name.to_owned(),
            family: if ipv6 { "ipv6" } else { "ipv4" }.to_owned(),
            denied: denied.collect(),
            looks: Vec::new(),
            interface: None,
            outgoing: false,
            behind: None,
            service: None,
            tunnel: None,
            says: None,
        };
        Shape { policies: policies.to_owned(), expectation }
    }

    /// Other ends than the pods `web` and `api`.
    pub(crate) fn between(mut self, client: &str, server: &str) -> Self {
        for flow in &mut self.expectation.denied {
            (flow.client, flow.server) = (client.to_owned(), server.to_owned());
        }
        self
    }

    /// Another protocol than TCP.
    pub(crate) fn protocol(mut self, protocol: &str) -> Self {
        for flow in &mut self.expectation.denied {
            flow.protocol = protocol.to_owned();
        }
        self
    }

    /// The device the packets are on.
    pub(crate) fn on(mut self, interface: &str) -> Self {
        self.expectation.interface = Some(interface.to_owned());
        self
    }

    /// The device they were to leave by.
    pub(crate) fn leaving_by(mut self, interface: &str) -> Self {
        self.expectation.outgoing = true;
        self.on(interface)
    }

    /// The pod at the other end of it.
    pub(crate) fn behind(mut self, pod: &str) -> Self {
        self.expectation.behind = Some(pod.to_owned());
        self
    }

    /// The Service that is called.
    pub(crate) fn service(mut self, service: &str) -> Self {
        self.expectation.service = Some(service.to_owned());
        self
    }

    /// The tunnel the packets are in.
    pub(crate) fn tunnel(mut self, tunnel: &str) -> Self {
        self.expectation.tunnel = Some(tunnel.to_owned());
        self
    }

    /// Words that the summary has.
    pub(crate) fn says(mut self, words: &str) -> Self {
        self.expectation.says = Some(words.to_owned());
        self
    }

    /// From this kernel version on policies deny in `direction`, and it looks so.
    pub(crate) fn denied_by_policy(self, since: &str, reason: &str, location: &str, hook: &str, direction: Direction) -> Self {
        self.look(Look::of_class(since, reason, location, hook, &Class::PolicyDenied(vec![direction]), &Agreement::Agrees))
    }

    /// From a kernel version on it looks so.
    pub(crate) fn look(mut self, look: Look) -> Self {
        self.expectation.looks.push(look);
        self
    }

    /// What netfilter's verdicts look like, by kernel: reasons came with 5.17, that of netfilter with 5.18. `frees` is the function that frees the
    /// packet: `nf_hook_slow`, or `nft_do_chain` since nf_tables frees what it drops (6.7, and the stable releases of 6.1 and 6.6).
    pub(crate) fn netfilter(mut self, frees: &str, hook: &str, class: &Class, agreement: &Agreement) -> Self {
        for (since, reason, location) in [
            ("5.10", "reason-0", "nf_hook_slow"),
            ("5.17", "NOT_SPECIFIED", "nf_hook_slow"),
            ("5.18", "NETFILTER_DROP", "nf_hook_slow"),
            ("6.1", "NETFILTER_DROP", frees),
        ] {
            self = self.look(Look::of_class(since, reason, location, hook, class, agreement));
        }
        self
    }

    /// Runs `traffic` under the observer and compares. `counter` is the number of packets the enforcer itself says that it dropped.
    ///
    /// # Panics
    /// When anything is otherwise than expected.
    pub(crate) fn prove(&self, scene: &Scene, traffic: impl FnOnce() + Send, counter: Option<&dyn Fn() -> u64>) {
        let Expectation { shape, family, .. } = &self.expectation;
        let (taken, ledger, names) = self.take(scene, traffic);
        let release = release();
        let look = self.expectation.look(&release);
        let found = self.expectation.check(&release, &taken.denials).unwrap_or_else(|problems| {
            // What is wrong comes last: reports of guests are cut at their beginning.
            let first = taken.denials.first().map(|denial| &denial.event);
            panic!("of {} denials the first: {first:#?}\n{ledger:?}\n{shape} {family}:\n{problems}", taken.denials.len())
        });
        assert_balanced(&ledger);
        if look.gap.is_none() {
            if let Some(counter) = counter {
                let (reported, counted, missed) = (taken.packets(&self.expectation), counter(), ledger.program_misses);
                // The kernel may skip the program for a packet freed while it is running; it counts these runs.
                let accounted = reported..=reported + missed;
                assert!(
                    accounted.contains(&counted),
                    "{shape} {family}: {reported} reported, {counted} by the enforcer, {missed} runs skipped"
                );
            }
            let recording = fixture::record(&taken.captured, &*names, &self.expectation);
            fixture::replay(&recording, &scene.text(&self.policies), &self.expectation, &release)
                .unwrap_or_else(|problems| panic!("{shape} {family}: its own recording does not say the same:\n{problems}"));
            fixture::keep(&recording, &scene.text(&self.policies), &self.expectation, &release);
        }
        let result = if look.gap.is_some() { RowResult::Gap } else { RowResult::Pass };
        row(&Row { shape: shape.clone(), family: family.clone(), result, found });
    }

    /// This kernel or machine cannot make such drops.
    pub(crate) fn cannot_run(&self, why: &str) {
        let Expectation { shape, family, .. } = &self.expectation;
        row(&Row { shape: shape.clone(), family: family.clone(), result: RowResult::CannotRun, found: why.to_owned() });
    }

    fn take(&self, scene: &Scene, traffic: impl FnOnce() + Send) -> (Taken, KernelLedger, Names) {
        let namespaces: BTreeSet<u32> = scene.namespaces.iter().map(|ns| u32::try_from(ns.inode().unwrap()).unwrap()).collect();
        let pipeline = Pipeline::new(scene.engine(&self.policies));
        scene.wait_for_sandboxes();
        let mut taken = Taken { captured: Vec::new(), denials: Vec::new(), repeats: Vec::new() };
        let (ledger, names) = during(&scene.namespaces, traffic, |captured, names| taken.add(captured, &**names, &namespaces, &pipeline));
        (taken, ledger, names)
    }
}

impl Taken {
    fn add(&mut self, captured: Captured, names: &(dyn KernelNames + Send + Sync), namespaces: &BTreeSet<u32>, pipeline: &Pipeline) {
        let netns = match &captured {
            Captured::Record(bytes) => DropRecord::read_from_bytes(bytes).expect("a whole record").netns,
            Captured::Repeat { key, .. } => key.netns,
            Captured::Ledger(_) => return,
        };
        if !namespaces.contains(&netns) {
            return;
        }
        // Packets that are no flow (ARP, say) are nobody's denial.
        match pipeline.step(&captured, names) {
            Ok(Step::Denial(denial)) => self.denials.push((*denial).clone()),
            Ok(Step::Repeat { id, count, .. }) => self.repeats.push((id, count)),
            Ok(Step::Amendment(_) | Step::Ledger(_)) | Err(_) => {}
        }
        self.captured.push(captured);
    }

    /// Packets of the denied flows, repeats included.
    fn packets(&self, expectation: &Expectation) -> u64 {
        let denied = || self.denials.iter().filter(|denial| expectation.denied.contains(&ends(denial)));
        let ids: BTreeSet<FoldId> = denied().map(|denial| denial.event.id).collect();
        let repeats: u64 = self.repeats.iter().filter(|(id, _)| ids.contains(id)).map(|(_, count)| count).sum();
        denied().count() as u64 + repeats
    }
}
