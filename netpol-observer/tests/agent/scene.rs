//! A small cluster in a file, and a recording of drops in it.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;

use netpol_observer::capture::{Captured, KernelLedger, RecordingHeader, RecordingWriter};
use netpol_observer::flow::testing::{Names, RecordBuilder};
use netpol_observer::flow::{Protocol, decode, fold_key};
use netpol_observer_common::{Counters, FoldValue};
use tempfile::TempDir;

use crate::process::Agent;

/// Namespace shop with web and api (behind a Service, ingress from app=frontend only), namespace bank with a pod that calls both, and isolates
/// itself for egress.
pub(crate) const MANIFESTS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
status: {phase: Running, podIP: 10.244.1.5}
---
apiVersion: v1
kind: Pod
metadata: {name: api, namespace: shop, labels: {app: api}}
status: {phase: Running, podIP: 10.244.2.7}
---
apiVersion: v1
kind: Pod
metadata: {name: vault, namespace: bank, labels: {app: vault, tier: gold}}
status: {phase: Running, podIP: 10.244.3.3}
---
apiVersion: v1
kind: Pod
metadata: {name: teller, namespace: bank, labels: {app: teller}}
status: {phase: Running, podIP: 10.244.3.4}
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
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: vault-keeps-to-itself, namespace: bank}
spec:
  podSelector: {matchLabels: {app: vault}}
  policyTypes: [Ingress, Egress]
"#;

const SECOND: u64 = 1_000_000_000;

/// Drops that [`Scene`] records, repeats included.
pub(crate) const DROPS: u64 = 9;

/// A directory with the cluster and a recording.
pub(crate) struct Scene {
    directory: TempDir,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let scene = Scene { directory: TempDir::new().unwrap() };
        std::fs::write(scene.path("cluster.yaml"), MANIFESTS).unwrap();
        let names = Names::linux();
        let mut header = RecordingHeader::new("6.18.0".into(), "x86_64".into(), jiff::Timestamp::UNIX_EPOCH, &names);
        header.node_name = Some("node-2".into());
        let mut writer = RecordingWriter::new(File::create(scene.path("drops.rec")).unwrap(), &header).unwrap();
        for captured in drops() {
            writer.write(&captured, &names).unwrap();
        }
        writer.finish().unwrap();
        scene
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// An agent that has taken the whole recording.
    pub(crate) fn agent(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Agent {
        let arguments = [&["-f", "cluster.yaml", "--replay", "drops.rec"], arguments].concat();
        Agent::start_with(self.directory.path(), &arguments, environment)
    }

    /// An agent of the default mode that has taken the whole recording.
    pub(crate) fn open_agent(&self, arguments: &[&str]) -> Agent {
        let mut agent = self.agent(arguments, &[]);
        agent.wait_for("that everything is taken", |agent| {
            let ledger = &agent.status()["ledger"];
            ledger["records"].as_u64().unwrap() + ledger["counted"].as_u64().unwrap() == DROPS
        });
        agent
    }

    /// What a command writes to standard output, and its exit code.
    pub(crate) fn observer(&self, arguments: &[&str]) -> (String, i32) {
        let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_observer"));
        command.current_dir(&self.directory).env("TZ", "UTC").env_remove("NODE_NAME").env_remove("RUST_LOG").args(arguments);
        let output = command.output().unwrap();
        (String::from_utf8(output.stdout).unwrap(), output.status.code().unwrap())
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn syn(source: &str, destination: &str, seconds: u64) -> RecordBuilder {
    RecordBuilder::tcp_syn(address(source), address(destination)).time_ns(seconds * SECOND)
}

/// A call to the Service api.
fn to_api(source: &str, seconds: u64) -> RecordBuilder {
    // IP_CT_NEW, no status bits.
    syn(source, "10.244.2.7:8080", seconds).conntrack(address(source), address("10.96.0.10:80"), Protocol::Tcp, 2, 0).folded()
}

fn record(builder: &RecordBuilder) -> Captured {
    Captured::Record(builder.bytes())
}

/// web and vault call api, web three times more; teller calls vault; somebody outside somebody else; and one that is no packet.
fn drops() -> Vec<Captured> {
    let web = to_api("10.244.1.5:40000", 0);
    let kept = web.build();
    let flow = decode(kept.ether_type, &kept.header[..usize::from(kept.header_len)]).unwrap();
    let counters = Counters { seen: 9, reported: 6, folded: 3, ring_full: 0, unfolded: 0 };
    vec![
        record(&web),
        Captured::Repeat { key: fold_key(&kept, &flow), value: FoldValue { count: 3, last_ns: SECOND } },
        record(&to_api("10.244.3.3:40000", 2)),
        record(&syn("10.244.3.4:41000", "10.244.3.3:5432", 3)),
        record(&syn("203.0.113.5:1", "198.51.100.7:443", 4)),
        record(&syn("10.0.0.1:1", "10.0.0.2:2", 5).with(|record| record.header_len = 3)),
        record(&syn("10.244.1.5:42000", "10.244.3.3:5432", 6)),
        Captured::Ledger(KernelLedger { counters, received: 6, folded_delivered: 3, program_misses: 0 }),
    ]
}
