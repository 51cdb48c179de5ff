//! Readers that come and go, and their account.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::netns::{Bed, Netns};
use crate::tail::Tail;
use crate::traffic::cluster::{SERVER_RANGE, objects, server};

/// Destination ports that are dropped, the first and the last.
pub(super) const PORTS: (u16, u16) = (9_000, 59_000);

/// A node whose firewall drops what the floods send.
pub(super) struct Scene {
    pub(super) node: Netns,
    pub(super) sender: Netns,
    observer: PathBuf,
    manifests: PathBuf,
    outputs: AtomicU64,
    bed: Bed,
}

impl Scene {
    pub(super) fn new(observer: &Path) -> Result<Self> {
        let mut bed = Bed::new("npo-soak")?;
        let node = bed.node("node", &["192.0.2.1".parse()?])?;
        let sender = node.routed_pod(&mut bed, "sender", &["10.243.0.1".parse()?])?;
        node.routed_pod(&mut bed, "server", &[server(0).into()])?;
        let node = node.netns().clone();
        node.exec(&["ip", "route", "add", SERVER_RANGE, "dev", "vethserver", "src", "192.0.2.1"])?;
        let (first, last) = PORTS;
        node.nft(&format!(
            "table inet soak {{
               counter denied {{ }}
               chain forwards {{ type filter hook forward priority 0; policy accept; udp dport {first}-{last} counter name denied drop; }}
               chain outputs {{ type filter hook output priority 0; policy accept; udp dport {first}-{last} counter name denied drop; }}
             }}"
        ))?;
        let manifests = bed.directory().join("cluster.yaml");
        fs::write(&manifests, objects()).with_context(|| format!("cannot write {}", manifests.display()))?;
        Ok(Scene { node, sender, observer: observer.to_owned(), manifests, outputs: AtomicU64::new(0), bed })
    }

    /// What the firewall has dropped.
    pub(super) fn dropped(&self) -> Result<u64> {
        Ok(self.node.counter("denied")?.packets)
    }
}

/// An `observer tail` that explains everything and prints what is not the floods'.
pub(super) struct Reader {
    tail: Tail,
    output: PathBuf,
    /// The firewall's counter before it was started and once it watched. Equal when the floods stood still.
    came: (u64, u64),
}

/// What one came to.
pub(super) struct Left {
    /// Drops of the floods it accounted for.
    pub(super) seen: u64,
    /// Of these, lost because the ring was full.
    pub(super) ring_full: u64,
    /// Drops that its program was skipped for.
    pub(super) missing: u64,
    pub(super) problems: Vec<String>,
}

impl Reader {
    pub(super) fn start(scene: &Scene) -> Result<Self> {
        let number = scene.outputs.fetch_add(1, Ordering::Relaxed);
        let output = scene.bed.directory().join(format!("reader-{number}"));
        let file = File::create(&output).with_context(|| format!("cannot make {}", output.display()))?;
        let manifests = scene.manifests.to_string_lossy().into_owned();
        let arguments = ["-o", "json", "--manifests", &manifests, "--not", "--ip", SERVER_RANGE];
        let before = scene.dropped()?;
        let tail = Tail::start(&scene.observer, arguments, Stdio::from(file))?;
        Ok(Reader { tail, output, came: (before, scene.dropped()?) })
    }

    pub(super) fn id(&self) -> u32 {
        self.tail.id()
    }

    /// Ends it and holds its account against the firewall's.
    pub(super) fn leave(self, scene: &Scene) -> Result<Left> {
        let before = scene.dropped()?;
        self.tail.stop()?;
        let after = scene.dropped()?;
        let text = fs::read_to_string(&self.output).with_context(|| format!("cannot read {}", self.output.display()))?;
        let _ = fs::remove_file(&self.output);
        let last = text.lines().last().unwrap_or_default();
        let ledger: Value = serde_json::from_str(last).with_context(|| format!("a reader's last line is no ledger: {last}"))?;
        Ok(account(&ledger, before - self.came.1, after - self.came.0))
    }
}

/// Holds a ledger against the packets that the firewall dropped while the reader certainly watched, and while it may have watched.
fn account(ledger: &Value, at_least: u64, at_most: u64) -> Left {
    let own = |name: &str| ledger[name].as_u64().unwrap_or(0);
    let kernel = |name: &str| ledger["kernel"][name].as_u64().unwrap_or(0);
    let mut problems = Vec::new();
    let mut problem = |text: String| problems.push(format!("{text}: {ledger}"));
    if ledger["balanced"] != true {
        problem("a ledger is not balanced".to_owned());
    }
    for (left, right, what) in [
        (kernel("seen"), kernel("reported") + kernel("folded") + kernel("ringFull"), "seen and its parts"),
        (kernel("reported"), kernel("received"), "records written and read"),
        (kernel("folded"), kernel("foldedDelivered"), "repeats counted and delivered"),
    ] {
        if left != right {
            problem(format!("{what} differ, {left} and {right}"));
        }
    }
    // What is printed or left out for other causes is of others.
    let others = own("shown") + own("repeats") + own("elsewhere") + own("noise");
    let seen = kernel("seen").saturating_sub(others);
    // In full rings drops of others may be lost too, which nobody can tell from the floods'.
    let strangers = if kernel("ringFull") > 0 { others } else { 0 };
    let missing = at_least.saturating_sub(seen);
    if missing > kernel("programMisses") {
        problem(format!("the firewall dropped {at_least} packets and {seen} were seen: {missing} are missing"));
    }
    if seen > at_most + strangers {
        problem(format!("the firewall dropped {at_most} packets and {seen} were seen"));
    }
    Left { seen, ring_full: kernel("ringFull"), missing, problems }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ledger(seen: u64, folded: u64, misses: u64) -> Value {
        json!({ "balanced": true, "filteredOut": seen, "shown": 0, "repeats": 0, "elsewhere": 0, "noise": 0, "kernel": {
            "seen": seen, "reported": 10, "received": 10, "folded": folded, "foldedDelivered": folded, "ringFull": seen - 10 - folded,
            "programMisses": misses } })
    }

    #[test]
    fn exact_is_well() {
        assert!(account(&ledger(110, 90, 0), 110, 110).problems.is_empty());
        assert!(account(&ledger(110, 90, 0), 100, 120).problems.is_empty());
    }

    #[test]
    fn one_packet_more_or_less_is_a_problem() {
        for (at_least, at_most) in [(111, 111), (109, 109)] {
            assert_eq!(account(&ledger(110, 90, 0), at_least, at_most).problems.len(), 1, "{at_least}");
        }
        let missed = account(&ledger(110, 90, 1), 111, 111);
        assert!(missed.problems.is_empty(), "a run that was skipped explains one");
        assert_eq!(missed.missing, 1);
    }

    #[test]
    fn repeats_that_are_not_delivered_are_a_problem() {
        let mut ledger = ledger(110, 90, 0);
        ledger["kernel"]["foldedDelivered"] = json!(89);
        assert_eq!(account(&ledger, 110, 110).problems.len(), 1);
    }
}
