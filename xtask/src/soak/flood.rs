//! The senders.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::netns::Netns;
use crate::soak::reader::{PORTS, Scene};
use crate::traffic::cluster::{CALLERS, SERVERS, caller, server};
use crate::traffic::{Datagram, Forger, paced};

/// Flows of each flood.
const FLOWS: u64 = 4_000;
/// Packets per second of each, where it does not send as fast as it can.
const RATE: f64 = 20_000.0;
/// As fast as it can.
const UNLIMITED: f64 = 1e9;
/// So often a sender looks whether it should stand still.
const SLICE: Duration = Duration::from_millis(50);
/// How long one may take to.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Thousands of flows, at a rate that readers keep up with.
    Flows,
    /// From the pods: every packet another flow, as fast as can be.
    AllDifferent,
}

/// Both floods.
pub(super) struct Floods {
    state: Arc<State>,
    senders: Vec<JoinHandle<Result<u64>>>,
}

#[derive(Default)]
struct State {
    running: AtomicBool,
    all_different: AtomicBool,
    stop: AtomicBool,
    /// Senders that stand still.
    still: AtomicUsize,
    /// Numbers of the datagrams that are all different go on from phase to phase.
    next: AtomicU64,
}

impl Floods {
    /// Their threads; they stand still at first.
    pub(super) fn start(scene: &Scene) -> Result<Self> {
        let state = Arc::new(State::default());
        let start = |netns: &Netns, may_differ: bool| {
            let (netns, state) = (netns.clone(), Arc::clone(&state));
            thread::spawn(move || netns.in_ns(|| flood(&state, may_differ))?)
        };
        let senders = vec![start(&scene.sender, true), start(&scene.node, false)];
        Ok(Floods { state, senders })
    }

    pub(super) fn run(&self, shape: Shape) {
        self.state.all_different.store(shape == Shape::AllDifferent, Ordering::Relaxed);
        self.state.running.store(true, Ordering::Release);
    }

    /// Returns when none sends any more.
    pub(super) fn pause(&mut self) -> Result<()> {
        self.state.running.store(false, Ordering::Release);
        let end = Instant::now() + PATIENCE;
        while self.state.still.load(Ordering::Acquire) < self.senders.len() {
            if let Some(ended) = self.senders.iter().position(JoinHandle::is_finished) {
                let outcome = self.senders.remove(ended).join();
                return Err(outcome.map_err(|_| anyhow!("a flood panicked"))?.err().unwrap_or_else(|| anyhow!("a flood ended")));
            }
            if Instant::now() > end {
                bail!("the floods do not stand still");
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// How many packets were sent.
    pub(super) fn stop(mut self) -> Result<u64> {
        self.pause()?;
        self.state.stop.store(true, Ordering::Release);
        let mut sent = 0;
        for sender in self.senders.drain(..) {
            sent += sender.join().ok().context("a flood panicked")??;
        }
        Ok(sent)
    }
}

/// The threads of a soak that fails end too.
impl Drop for Floods {
    fn drop(&mut self) {
        self.state.running.store(false, Ordering::Release);
        self.state.stop.store(true, Ordering::Release);
    }
}

/// One sender, in its namespace; returns how many packets it sent.
fn flood(state: &State, may_differ: bool) -> Result<u64> {
    let mut forger = Forger::new()?;
    let mut sent = 0;
    loop {
        state.still.fetch_add(1, Ordering::AcqRel);
        while !state.running.load(Ordering::Acquire) {
            if state.stop.load(Ordering::Acquire) {
                return Ok(sent);
            }
            thread::sleep(Duration::from_millis(1));
        }
        state.still.fetch_sub(1, Ordering::AcqRel);
        while state.running.load(Ordering::Acquire) {
            let differ = may_differ && state.all_different.load(Ordering::Relaxed);
            let first_of_slice = state.next.load(Ordering::Relaxed);
            let slice = paced(if differ { UNLIMITED } else { RATE }, SLICE, |first, count| {
                if differ { forger.send(first_of_slice + first, count, all_different) } else { forger.send(sent + first, count, of_flows) }
            })?;
            sent += slice.packets;
            if differ {
                state.next.fetch_add(slice.packets, Ordering::Relaxed);
            }
        }
    }
}

fn of_flows(i: u64) -> Datagram {
    Datagram { source: caller(i), destination: server(i % FLOWS / CALLERS), port: PORTS.0 }
}

fn all_different(i: u64) -> Datagram {
    let ports = u64::from(PORTS.1 - PORTS.0);
    let port = PORTS.0 + 1 + u16::try_from(i / (CALLERS * SERVERS) % ports).unwrap_or(0);
    Datagram { source: caller(i), destination: server(i / CALLERS), port }
}
