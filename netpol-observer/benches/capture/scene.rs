//! What drops happen in: a node with a pod that sends and one that is sent to, and the objects of a cluster whose pods they stand for.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use xtask::netns::{Bed, Netns};
use xtask::packages;
use xtask::traffic::Datagram;
use xtask::traffic::cluster::{CALLERS, SERVER_RANGE, SERVERS, caller, objects, server};

/// Datagrams to this port and those above are dropped.
pub(crate) const DENIED: u16 = 9_000;
/// How many ports that is: enough for each packet to be a flow of its own.
const DENIED_PORTS: u64 = 50_000;
/// Datagrams to this one pass.
pub(crate) const ALLOWED: u16 = 8_000;

/// The counter of what the rule dropped.
pub(crate) const COUNTER: &str = "denied";

pub(crate) struct Scene {
    pub(crate) node: Netns,
    /// In it packets are sent that the node's FORWARD hook drops.
    pub(crate) sender: Netns,
    /// Where they would get to.
    pub(crate) server: Netns,
    manifests: PathBuf,
    bed: Bed,
}

impl Scene {
    pub(crate) fn new() -> Result<Self> {
        let mut bed = Bed::new("npo-bench")?;
        let node = bed.node("node", &["192.0.2.1".parse()?])?;
        let sender = node.routed_pod(&mut bed, "sender", &["10.243.0.1".parse()?])?;
        let server = node.routed_pod(&mut bed, "server", &[server(0).into()])?;
        // All pods that are sent to are behind the one link.
        node.netns().exec(&["ip", "route", "add", SERVER_RANGE, "dev", "vethserver", "src", "192.0.2.1"])?;
        let manifests = bed.directory().join("cluster.yaml");
        std::fs::write(&manifests, objects()).with_context(|| format!("cannot write {}", manifests.display()))?;
        let scene = Scene { node: node.netns().clone(), sender, server, manifests, bed };
        scene.rules("")?;
        Ok(scene)
    }

    /// Loads the rules that drop: of the pods' packets (FORWARD) and of the node's own (OUTPUT), each counted. `before` stands in front of the
    /// counter: a `log` statement. Counters begin at zero.
    pub(crate) fn rules(&self, before: &str) -> Result<()> {
        let rule = format!("udp dport >= {DENIED} {before} counter name {COUNTER} drop");
        self.node.nft(&format!(
            "table inet bench {{ }}
             delete table inet bench
             table inet bench {{
               counter {COUNTER} {{ }}
               chain forwards {{ type filter hook forward priority 0; policy accept; {rule}; }}
               chain outputs {{ type filter hook output priority 0; policy accept; {rule}; }}
             }}"
        ))
    }

    /// What the firewall has dropped since the rules were loaded.
    pub(crate) fn dropped(&self) -> Result<u64> {
        Ok(self.node.counter(COUNTER)?.packets)
    }

    /// Of the node's end of the sender's link.
    pub(crate) fn hardware_address(&self) -> Result<[u8; 6]> {
        let shown = self.node.exec(&["ip", "-brief", "link", "show", "dev", "vethsender"])?.stdout;
        let address = shown.split_ascii_whitespace().find(|word| word.matches(':').count() == 5).context("vethsender has no address")?;
        let bytes: Vec<u8> = address.split(':').filter_map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
        <[u8; 6]>::try_from(bytes).ok().with_context(|| format!("{address} is no hardware address"))
    }

    /// Whether the sender's device leaves cutting datagrams out of larger buffers to the kernel, which then happens before they are dropped.
    pub(crate) fn cut_segments(&self, on: bool) -> Result<()> {
        packages::ensure("the benchmark's sender", &["ethtool"])?;
        let device_takes_them_whole = if on { "off" } else { "on" };
        self.sender.exec(&["ethtool", "-K", "eth0", "tx-udp-segmentation", device_takes_them_whole]).map(drop)
    }

    pub(crate) fn manifests(&self) -> &Path {
        &self.manifests
    }

    /// For files of this run.
    pub(crate) fn directory(&self) -> &Path {
        self.bed.directory()
    }
}

/// Datagram number `i` of `flows` flows that repeat.
pub(crate) fn of_flows(flows: u64) -> impl Fn(u64) -> Datagram + Copy + Send {
    move |i| {
        let flow = i % flows;
        Datagram { source: caller(flow), destination: server(flow / CALLERS), port: DENIED }
    }
}

/// Datagram number `i`, a flow of its own: all callers in turn, then the next server, then the next port.
pub(crate) fn all_different(i: u64) -> Datagram {
    let port = DENIED + u16::try_from(i / (CALLERS * SERVERS) % DENIED_PORTS).unwrap_or(0);
    Datagram { source: caller(i), destination: server(i / CALLERS), port }
}
