//! The process that is measured: watches, and an agent's objects that are fed by them. Nothing of the server is in it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::config::{KubeConfigOptions, Kubeconfig};
use netpol_observer::agent::{Budget, Judge as _, Objects as _, Observation, Watched, WatchedJudge};
use netpol_observer::capture::Captured;
use netpol_observer::cluster::{Kind, Object};
use netpol_observer::flow::testing::{Names, RecordBuilder};
use netpol_observer::pipeline::{Moments, MomentsOptions};
use netpol_observer::policy::{Bounds, Profile};
use netpol_observer::timeline::{Limits, Timeline};
use netpol_observer::watch::{self, News, WatchOptions};
use serde::{Deserialize, Serialize};

use crate::Failure;

/// Whom all pods call.
const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));

/// Kinds of which a list must have been taken in.
const KINDS: usize = 9;

/// What the process says of itself, one line at a time.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Said {
    /// Since the watches began.
    pub(crate) seconds: f64,
    /// Time on a CPU since the process began.
    pub(crate) cpu: f64,
    /// `VmRSS`, bytes.
    pub(crate) resident: u64,
    /// `VmHWM`, bytes.
    pub(crate) peak: u64,
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
    pub(crate) lists: u64,
    pub(crate) pods: usize,
    pub(crate) policies: usize,
    /// Pods that carry the time of their write, since the last line.
    pub(crate) arrived: usize,
    /// From the write to an explanation by it, microseconds: of those whose pod is certain at once.
    pub(crate) lags: Vec<u64>,
}

/// Of so many writes of pods one is used in an explanation.
pub(crate) const EXPLAINED: usize = 20;

struct Known {
    watched: Arc<Watched>,
    judge: WatchedJudge,
    names: Names,
    listed: std::collections::BTreeSet<Kind>,
    lists_of_pods: u64,
    arrived: usize,
    lags: Vec<u64>,
    /// Microseconds since the epoch. What was written before is none of the writes that are counted, whatever becomes of the pod.
    began: i64,
}

/// Watches with a kubeconfig. Says how it stands when everything is there for the first time, and then for each line on standard input.
pub(crate) fn run(kubeconfig: &str, streaming_lists: bool) -> Result<(), Failure> {
    netpol_observer::allocator::keep_small();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let begun = Instant::now();
    let timeline = Timeline::new(Profile::default(), Limits::default(), Timestamp::now());
    let watched = Watched::new(Moments::new(timeline, MomentsOptions::default()));
    let known = Arc::new(Mutex::new(Known {
        judge: WatchedJudge::new(Arc::clone(&watched)),
        watched,
        names: Names { clock_offset_ns: 0, ..Names::linux() },
        listed: Default::default(),
        lists_of_pods: 0,
        arrived: 0,
        lags: Vec::new(),
        began: Timestamp::now().as_microsecond(),
    }));
    let mut watching = runtime.block_on(async {
        let config = Kubeconfig::from_yaml(&std::fs::read_to_string(kubeconfig)?)?;
        let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
        let options = WatchOptions { start_jitter: Duration::ZERO, streaming_lists, ..WatchOptions::default() };
        Ok::<_, Failure>(watch::start(watch::connect(config)?, options))
    })?;
    let status = watching.status();
    let synced = Arc::new(AtomicBool::new(false));
    let reader = {
        let (known, handle, synced) = (known.clone(), runtime.handle().clone(), synced.clone());
        std::thread::spawn(move || {
            let mut budget = Budget::default();
            while let Some(update) = handle.block_on(watching.next()) {
                let begun = Instant::now();
                let bounds = budget.bounds(watching.waiting(), begun);
                let mut known = known.lock().expect("nobody panicked");
                learn(&mut known, update, &bounds, |bounds| budget.spent(bounds, begun, Instant::now()));
                synced.store(known.listed.len() == KINDS, Ordering::Relaxed);
            }
        })
    };
    runtime.block_on(status.synced());
    while !synced.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(1));
    }
    let say = || -> Result<(), Failure> {
        let usage = xtask::usage::of(std::process::id())?;
        let (status, mut known) = (status.read(), known.lock().expect("nobody panicked"));
        let objects = known.watched.status().objects;
        let said = Said {
            seconds: begun.elapsed().as_secs_f64(),
            cpu: (usage.user + usage.system).as_secs_f64(),
            resident: usage.resident,
            peak: peak(),
            requests: status.requests,
            bytes: status.bytes,
            lists: known.lists_of_pods,
            pods: objects["pods"],
            policies: objects["networkPolicies"],
            arrived: std::mem::take(&mut known.arrived),
            lags: std::mem::take(&mut known.lags),
        };
        println!("{}", serde_json::to_string(&said)?);
        Ok(())
    };
    say()?;
    for line in std::io::stdin().lines() {
        line?;
        say()?;
    }
    drop(reader);
    Ok(())
}

fn learn(known: &mut Known, update: watch::Update, bounds: &Bounds, taken_in: impl FnOnce(&Bounds)) {
    let mut written = None;
    match &update.news {
        News::Listed { kind, .. } | News::Relisted { kind, .. } => {
            known.lists_of_pods += u64::from(*kind == Kind::Pod);
            known.listed.insert(*kind);
        }
        News::Applied(Object::Pod(pod)) => {
            let at = pod.labels.get("written-at").and_then(|at| at.parse::<i64>().ok()).filter(|at| *at > known.began);
            written = at.map(|at| (at, pod.ips.first().copied()));
        }
        _ => {}
    }
    if known.watched.take_in(update, bounds) {
        taken_in(bounds);
    }
    let Some((written, address)) = written else { return };
    known.arrived += 1;
    // A drop of each would be more work than the watches are.
    if !known.arrived.is_multiple_of(EXPLAINED) {
        return;
    }
    let Some(address) = address else { return };
    // A drop of this pod's, judged by what was told just now.
    let now = Timestamp::now();
    let record = RecordBuilder::tcp_syn(SocketAddr::new(address, 40_000), SocketAddr::new(SERVER, 8080));
    let record = record.time_ns(u64::try_from(now.as_nanosecond()).unwrap_or(0));
    let said = known.judge.take(&[Captured::Record(record.bytes())], &known.names, now);
    let is_used = |observation: &Observation| {
        let Observation::Denial(denial) = observation else { return false };
        let Some(pod) = denial.who.client.identity.pod() else { return false };
        pod.labels.get("written-at").and_then(|at| at.parse::<i64>().ok()) == Some(written)
    };
    if said.iter().any(is_used) {
        known.lags.push(u64::try_from(Timestamp::now().as_microsecond() - written).unwrap_or(0));
    }
}

fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}
