//! What the kernel tests share.
use netpol_observer::capture::Captured;
use netpol_observer::capture::live::{Live, LiveOptions, open};
use netpol_observer::capture::{KernelLedger, is_built_in, permissions::Permissions};

/// Runs `f` unless root or the program is missing.
pub fn ready(test: &str) -> bool {
    let missing = Permissions::read().missing_for_capture();
    if !missing.is_empty() {
        println!("{test} skipped: missing capabilities {missing:?}");
        return false;
    }
    if !is_built_in() {
        println!("{test} skipped: built without the eBPF program");
        return false;
    }
    true
}
pub fn start() -> Live {
    open(LiveOptions::default()).unwrap_or_else(|e| panic!("{e}\nhint: {}", e.hint()))
}
pub async fn rest(live: &mut Live) -> (Vec<Captured>, KernelLedger) {
    live.stop();
    let mut all = Vec::new();
    let mut ledger = None;
    while let Some(c) = live.next().await {
        if let Captured::Ledger(l) = &c {
            ledger = Some(*l);
        }
        all.push(c);
    }
    (all, ledger.unwrap())
}
