//! What drops happen in: a node with a pod that sends and one that is sent to, and the objects of a cluster whose pods they stand for.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use xtask::netns::{Bed, Netns};
use xtask::traffic::Datagram;

/// Pods whose addresses are forged as sources.
pub(crate) const CALLERS: u64 = 2_000;
/// Pods that are sent to.
pub(crate) const SERVERS: u64 = 50;
const NAMESPACES: u64 = 40;

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
        node.netns().exec(&["ip", "route", "add", "10.245.0.0/24", "dev", "vethserver", "src", "192.0.2.1"])?;
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

pub(crate) fn caller(i: u64) -> Ipv4Addr {
    let i = (i % CALLERS) as u32;
    Ipv4Addr::from(0x0AF4_0000 + (i / 250) * 256 + i % 250 + 1)
}

pub(crate) fn server(i: u64) -> Ipv4Addr {
    Ipv4Addr::from(0x0AF5_0000 + (i % SERVERS) as u32 + 1)
}

/// 2,000 callers in 40 namespaces with policies of their own, and 50 servers, each admitting a few callers, none of those that call.
fn objects() -> String {
    let mut yaml = String::new();
    // Writing to a String does not fail.
    let _ = write!(yaml, "apiVersion: v1\nkind: Namespace\nmetadata: {{ name: shop, labels: {{ team: shop }} }}\n");
    for namespace in 0..NAMESPACES {
        let _ = write!(
            yaml,
            "---
apiVersion: v1
kind: Namespace
metadata: {{ name: team-{namespace}, labels: {{ team: team-{namespace} }} }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{ name: default-deny, namespace: team-{namespace} }}
spec: {{ podSelector: {{}}, policyTypes: [Ingress] }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{ name: from-own-namespace, namespace: team-{namespace} }}
spec: {{ podSelector: {{}}, ingress: [{{ from: [{{ podSelector: {{}} }}] }}] }}
"
        );
    }
    for i in 0..CALLERS {
        let (namespace, app, ip) = (i % NAMESPACES, i / NAMESPACES / 5, caller(i));
        let _ = write!(
            yaml,
            "---
apiVersion: v1
kind: Pod
metadata: {{ name: app-{app}-{i}, namespace: team-{namespace}, labels: {{ app: app-{app}, pod-template-hash: h{app} }} }}
status: {{ phase: Running, podIP: {ip} }}
"
        );
    }
    for i in 0..SERVERS {
        let ip = server(i);
        let _ = write!(
            yaml,
            "---
apiVersion: v1
kind: Pod
metadata: {{ name: api-{i}, namespace: shop, labels: {{ app: api-{i}, tier: api }} }}
status: {{ phase: Running, podIP: {ip} }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{ name: api-{i}, namespace: shop }}
spec:
  podSelector: {{ matchLabels: {{ app: api-{i} }} }}
  policyTypes: [Ingress]
  ingress:
  - from: [{{ namespaceSelector: {{ matchLabels: {{ team: shop }} }}, podSelector: {{ matchLabels: {{ app: web }} }} }}]
    ports: [{{ port: 8080, protocol: TCP }}]
  - from: [{{ namespaceSelector: {{ matchLabels: {{ team: monitoring }} }} }}]
    ports: [{{ port: 9090, protocol: TCP }}]
"
        );
    }
    yaml
}
