//! The capture that shapes and single packets are tried under: each its own, or where that takes long, those of a process share one.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use netpol_observer::capture::live::{Live, LiveOptions, modules};
use netpol_observer::capture::{Captured, KernelLedger};
use netpol_observer::flow::KernelNames;
use netpol_observer_common::DropRecord;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use xtask::netns::Netns;
use zerocopy::FromBytes as _;

use crate::support::{is_balanced, is_slow, runtime, start};

/// What an emulated machine has open from one shape to the next: types, symbols and the verifier take it longer than the traffic.
static SHARED: Mutex<Option<Capture>> = Mutex::new(None);

/// How often a shared capture turns its fold tables: three are waited for behind each shape.
const TURN: Duration = Duration::from_millis(100);
/// How long a shared capture may take to account for everything.
const PATIENCE: Duration = Duration::from_secs(20);

/// Of so many scenes the namespaces are kept: what the capture remembers of one (`VALID` in capture/surroundings.rs) is older than the time that
/// these take.
const HELD: usize = 3;

pub(crate) type Names = Arc<dyn KernelNames + Send + Sync>;

struct Capture {
    // In this order: what is captured ends before what it runs on.
    live: Live,
    runtime: Runtime,
    /// The [`modules`] when it was opened.
    modules: String,
    /// Runs of the program that the kernel had skipped before this shape.
    misses: u64,
    /// The namespaces of the last scenes, the latest last. While they live their numbers are not given to others, whom the capture would take for them.
    held: VecDeque<Vec<File>>,
}

/// Runs `traffic`, hands on everything captured meanwhile, and gives what accounts for it.
pub(crate) fn during(namespaces: &[Netns], traffic: impl FnOnce() + Send, mut each: impl FnMut(Captured, &Names)) -> (KernelLedger, Names) {
    let shared = is_slow();
    let mut slot = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    let mut capture = match slot.take() {
        Some(capture) if capture.modules == modules() => capture,
        _ => Capture::open(if shared { LiveOptions { fold_interval: TURN, ..LiveOptions::default() } } else { LiveOptions::default() }),
    };
    let names = capture.live.names();
    // By the clock of records (`bpf_ktime_get_ns`).
    let begin = i64::try_from(Timestamp::now().as_nanosecond()).unwrap() - names.clock_offset_ns();
    // What a shared capture has taken between two shapes is nobody's.
    let mut each = |captured: Captured| match &captured {
        Captured::Record(bytes) if DropRecord::read_from_prefix(bytes).is_ok_and(|(record, _)| record.time_ns < begin.unsigned_abs()) => {}
        _ => each(captured, &names),
    };
    capture.beside(traffic, &mut each);
    let ledger = if shared {
        let ledger = capture.settle(&mut each);
        capture.hold(namespaces);
        *slot = Some(capture);
        ledger
    } else {
        capture.end(&mut each)
    };
    (ledger, names)
}

impl Capture {
    fn open(options: LiveOptions) -> Self {
        let runtime = runtime();
        let modules = modules();
        let live = runtime.block_on(async { start(options) });
        Capture { live, runtime, modules, misses: 0, held: VecDeque::new() }
    }

    fn hold(&mut self, namespaces: &[Netns]) {
        let inode = |file: &File| file.metadata().unwrap().ino();
        // Several shapes may be of one scene.
        let is_known =
            self.held.back().is_some_and(|held| held.iter().map(inode).eq(namespaces.iter().map(|namespace| namespace.inode().unwrap())));
        if !is_known {
            self.held.push_back(namespaces.iter().map(|namespace| File::open(namespace.path()).unwrap()).collect());
        }
        if self.held.len() > HELD {
            self.held.pop_front();
        }
    }

    fn beside(&mut self, traffic: impl FnOnce() + Send, mut each: impl FnMut(Captured)) {
        std::thread::scope(|scope| {
            let traffic = scope.spawn(traffic);
            self.runtime.block_on(async {
                while !traffic.is_finished() {
                    if let Ok(Some(captured)) = timeout(Duration::from_millis(20), self.live.next()).await {
                        each(captured);
                    }
                }
            });
            traffic.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
        // What is under way in queues.
        std::thread::sleep(Duration::from_millis(100));
    }

    /// Takes what there is until a ledger accounts for all of it, the third one from now on: the first may have been under way, and a run that began
    /// before a turn counts in the next one.
    fn settle(&mut self, mut each: impl FnMut(Captured)) -> KernelLedger {
        let begin = Instant::now();
        while let Some(captured) = self.live.ready() {
            each(captured);
        }
        let mut ledgers = 0;
        self.runtime.block_on(async {
            loop {
                let Ok(captured) = timeout(PATIENCE, self.live.next()).await else { panic!("no ledger in {PATIENCE:?}") };
                let captured = captured.expect("a capture that goes on");
                let ledger = if let Captured::Ledger(ledger) = &captured { Some(*ledger) } else { None };
                each(captured);
                let Some(ledger) = ledger else { continue };
                ledgers += 1;
                if ledgers >= 3 && is_balanced(&ledger) {
                    let since = ledger.program_misses - self.misses;
                    self.misses = ledger.program_misses;
                    return KernelLedger { program_misses: since, ..ledger };
                }
                assert!(begin.elapsed() < PATIENCE, "it does not come to a balance: {ledger:?}");
            }
        })
    }

    fn end(mut self, mut each: impl FnMut(Captured)) -> KernelLedger {
        let mut last = None;
        self.runtime.block_on(async {
            self.live.stop();
            while let Some(captured) = self.live.next().await {
                if let Captured::Ledger(ledger) = &captured {
                    last = Some(*ledger);
                }
                each(captured);
            }
        });
        last.expect("a final ledger")
    }
}
