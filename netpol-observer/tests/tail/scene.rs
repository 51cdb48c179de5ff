//! A small cluster, and drops in it.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use netpol_observer::capture::{Captured, KernelLedger, RecordingHeader, RecordingWriter};
use netpol_observer::flow::testing::{Names, RecordBuilder, udp};
use netpol_observer::flow::{Protocol, decode, fold_key};
use netpol_observer_common::{Counters, FoldValue};
use tempfile::TempDir;

/// Namespace shop with web, api (behind a Service, ingress from app=frontend only) and db; kube-system with dns.
pub(crate) const MANIFESTS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: web-7d9f, namespace: shop, labels: {app: web}}
status: {phase: Running, podIP: 10.244.1.5}
---
apiVersion: v1
kind: Pod
metadata: {name: api-5c4b, namespace: shop, labels: {app: api}}
spec: {containers: [{name: api, image: api, ports: [{name: metrics, containerPort: 9090}]}]}
status: {phase: Running, podIP: 10.244.2.7}
---
apiVersion: v1
kind: Pod
metadata: {name: db-0, namespace: shop, labels: {app: db}}
status: {phase: Running, podIP: 10.244.2.8}
---
apiVersion: v1
kind: Pod
metadata: {name: dns-1, namespace: kube-system, labels: {k8s-app: dns}}
status: {phase: Running, podIP: 10.244.3.3}
---
apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop}
spec: {clusterIP: 10.96.0.10, selector: {app: api}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: api-1, namespace: shop, labels: {kubernetes.io/service-name: api}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints: [{addresses: [10.244.2.7], conditions: {ready: true}}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: api-allow-frontend, namespace: shop}
spec:
  podSelector: {matchLabels: {app: api}}
  policyTypes: [Ingress]
  ingress:
    - from: [{podSelector: {matchLabels: {app: frontend}}}]
      ports: [{port: 8080}]
    - ports: [{port: metrics}]
"#;

const SECOND: u64 = 1_000_000_000;

/// A directory with the cluster and a recording.
pub(crate) struct Scene {
    pub(crate) directory: TempDir,
}

impl Scene {
    /// With the drops of [`drops`].
    pub(crate) fn new() -> Self {
        Self::with(&drops())
    }

    pub(crate) fn with(captured: &[Captured]) -> Self {
        let scene = Scene { directory: TempDir::new().unwrap() };
        std::fs::write(scene.path("cluster.yaml"), MANIFESTS).unwrap();
        write(&scene.path("drops.rec"), captured);
        scene
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `observer tail` on the recording, with the cluster's objects.
    pub(crate) fn tail(&self, arguments: &[&str]) -> Command {
        let mut command = self.observer(&["tail", "--replay", "drops.rec", "-f", "cluster.yaml"]);
        command.args(arguments);
        command
    }

    pub(crate) fn observer(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_observer"));
        command.current_dir(&self.directory).env("TZ", "UTC").env_remove("NODE_NAME").env_remove("RUST_LOG").args(arguments);
        // No cluster, whatever this machine has.
        command.env("HOME", self.directory.path()).env_remove("KUBECONFIG").env_remove("KUBERNETES_SERVICE_HOST");
        command
    }
}

pub(crate) fn write(path: &Path, captured: &[Captured]) {
    let names = Names::linux();
    let mut header = RecordingHeader::new("6.18.0".into(), "x86_64".into(), jiff::Timestamp::UNIX_EPOCH, &names);
    header.node_name = Some("node-2".into());
    let mut writer = RecordingWriter::new(File::create(path).unwrap(), &header).unwrap();
    for captured in captured {
        writer.write(captured, &names).unwrap();
    }
    writer.finish().unwrap();
}

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A SYN, dropped `seconds` after the start.
pub(crate) fn syn(source: &str, destination: &str, seconds: u64) -> RecordBuilder {
    RecordBuilder::tcp_syn(address(source), address(destination)).time_ns(seconds * SECOND)
}

/// web calls the Service api.
fn web_to_api(source_port: u16, seconds: u64) -> RecordBuilder {
    let source = format!("10.244.1.5:{source_port}");
    // IP_CT_NEW, no status bits.
    syn(&source, "10.244.2.7:8080", seconds).conntrack(address(&source), address("10.96.0.10:80"), Protocol::Tcp, 2, 0).folded()
}

pub(crate) fn record(builder: &RecordBuilder) -> Captured {
    Captured::Record(builder.bytes())
}

fn repeat(builder: &RecordBuilder, count: u64, last: u64) -> Captured {
    let record = builder.build();
    let flow = decode(record.ether_type, &record.header[..usize::from(record.header_len)]).unwrap();
    Captured::Repeat { key: fold_key(&record, &flow), value: FoldValue { count, last_ns: last * SECOND } }
}

/// Six records and five drops counted by the kernel:
/// web → api twice and four times more; web → db, which no policy forbids; outside → outside; web → dns over UDP; a packet that
/// is none; and a count of a drop nobody has seen.
pub(crate) fn drops() -> Vec<Captured> {
    let dns = RecordBuilder::packet(&udp(address("10.244.1.5:5353"), address("10.244.3.3:53"))).time_ns(6 * SECOND);
    let unknown = syn("10.244.9.9:1", "10.244.9.8:2", 6);
    let counters = Counters { seen: 12, reported: 6, folded: 5, ring_full: 1, unfolded: 0 };
    vec![
        record(&web_to_api(40_000, 0)),
        record(&web_to_api(40_001, 1)),
        repeat(&web_to_api(40_000, 0), 4, 3),
        record(&syn("10.244.1.5:41000", "10.244.2.8:5432", 4)),
        record(&syn("203.0.113.5:1", "198.51.100.7:443", 5)),
        record(&dns),
        record(&syn("10.0.0.1:1", "10.0.0.2:2", 7).with(|record| record.header_len = 3)),
        repeat(&unknown, 1, 8),
        Captured::Ledger(KernelLedger { counters, received: 6, folded_delivered: 5, program_misses: 0 }),
    ]
}
