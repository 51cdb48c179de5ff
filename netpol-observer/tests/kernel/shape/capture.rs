//! The capture that shapes are tried under: each its own, or where that takes long, the shapes of a process share one.

use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use netpol_observer::capture::live::{Live, LiveOptions};
use netpol_observer::capture::{Captured, KernelLedger};
use netpol_observer::flow::KernelNames;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use xtask::netns::Netns;

use crate::support::{is_balanced, is_slow, runtime, start};

/// What an emulated machine has open from one shape to the next: types, symbols and the verifier take it longer than the traffic.
static SHARED: Mutex<Option<Capture>> = Mutex::new(None);

/// How often a shared capture turns its fold tables: two turns are waited for behind each shape.
const TURN: Duration = Duration::from_millis(200);
/// How long a shared capture may take to account for everything.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) type Names = Arc<dyn KernelNames + Send + Sync>;

struct Capture {
    // In this order: what is captured ends before what it runs on.
    live: Live,
    runtime: Runtime,
    /// /proc/modules when it was opened: functions of later ones would have no name for a while.
    modules: String,
    /// Runs of the program that the kernel had skipped before this shape.
    misses: u64,
    /// The namespaces of earlier shapes. While they live their numbers are not given to others, whom the capture would take for them.
    held: Vec<File>,
}

/// Runs `traffic`, hands on everything captured meanwhile, and gives what accounts for it.
pub(super) fn during(namespaces: &[Netns], traffic: impl FnOnce() + Send, mut each: impl FnMut(Captured, &Names)) -> (KernelLedger, Names) {
    let shared = is_slow();
    let mut slot = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    let mut capture = match slot.take() {
        Some(mut capture) if capture.modules == modules() => {
            capture.settle(|_| {});
            capture
        }
        _ => Capture::open(if shared { LiveOptions { fold_interval: TURN, ..LiveOptions::default() } } else { LiveOptions::default() }),
    };
    let names = capture.live.names();
    capture.beside(traffic, |captured| each(captured, &names));
    let ledger = if shared {
        let ledger = capture.settle(|captured| each(captured, &names));
        capture.held.extend(namespaces.iter().map(|namespace| File::open(namespace.path()).unwrap()));
        *slot = Some(capture);
        ledger
    } else {
        capture.end(|captured| each(captured, &names))
    };
    (ledger, names)
}

impl Capture {
    fn open(options: LiveOptions) -> Self {
        let runtime = runtime();
        let modules = modules();
        let live = runtime.block_on(async { start(options) });
        Capture { live, runtime, modules, misses: 0, held: Vec::new() }
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

    /// Takes what there is until a ledger accounts for all of it, the second one from now on: a turn of the tables is begun by the one before.
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

fn modules() -> String {
    let text = std::fs::read_to_string("/proc/modules").unwrap_or_default();
    text.lines().filter_map(|line| line.split(' ').next()).collect::<Vec<_>>().join(" ")
}
