//! The node and the pods that a shape is tried on, and the cluster that they are.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netpol_observer::cluster::manifests;
use netpol_observer::policy::{Engine, Profile};
use xtask::netns::{Bed, Netns, Node, Sandbox};

/// By family: IPv4, IPv6.
pub(crate) const NODE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
pub(crate) const GATEWAY: [&str; 2] = ["10.244.1.1", "fd00:10:244:1::1"];
pub(crate) const WEB: [&str; 2] = ["10.244.1.10", "fd00:10:244:1::10"];
pub(crate) const API: [&str; 2] = ["10.244.1.20", "fd00:10:244:1::20"];

pub(crate) const WEB_UID: &str = "11111111-1111-4111-8111-111111111111";
pub(crate) const API_UID: &str = "22222222-2222-4222-8222-222222222222";

/// The cluster of [`Scene::routed`] and [`Scene::bridged`], without policies.
pub(crate) const CLUSTER: &str = r#"
apiVersion: v1
kind: Node
metadata: { name: node-1 }
spec: { podCIDR: 10.244.1.0/24, podCIDRs: [10.244.1.0/24, "fd00:10:244:1::/64"] }
status:
  addresses: [{ type: InternalIP, address: 192.0.2.1 }, { type: InternalIP, address: "2001:db8::1" }]
---
apiVersion: v1
kind: Namespace
metadata: { name: shop, labels: { kubernetes.io/metadata.name: shop } }
---
apiVersion: v1
kind: Pod
metadata: { name: web, namespace: shop, uid: 11111111-1111-4111-8111-111111111111, labels: { app: web } }
spec: { nodeName: node-1, containers: [{ name: web, image: web }] }
status: { phase: Running, podIP: 10.244.1.10, podIPs: [{ ip: 10.244.1.10 }, { ip: "fd00:10:244:1::10" }] }
---
apiVersion: v1
kind: Pod
metadata: { name: api, namespace: shop, uid: 22222222-2222-4222-8222-222222222222, labels: { app: api } }
spec: { nodeName: node-1, containers: [{ name: api, image: api }] }
status: { phase: Running, podIP: 10.244.1.20, podIPs: [{ ip: 10.244.1.20 }, { ip: "fd00:10:244:1::20" }] }
"#;

/// The server admits calls of the client to port 8080 alone.
pub(crate) const INGRESS: &str = r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: api-ingress, namespace: shop }
spec:
  podSelector: { matchLabels: { app: api } }
  policyTypes: [Ingress]
  ingress: [{ from: [{ podSelector: { matchLabels: { app: web } } }], ports: [{ port: 8080 }, { port: 8080, protocol: UDP }] }]
"#;

/// The client may call the server on port 8080 alone.
pub(crate) const EGRESS: &str = r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: web-egress, namespace: shop }
spec:
  podSelector: { matchLabels: { app: web } }
  policyTypes: [Egress]
  egress: [{ to: [{ podSelector: { matchLabels: { app: api } } }], ports: [{ port: 8080 }, { port: 8080, protocol: UDP }] }]
"#;

/// Namespaces, who they are in the cluster, and the processes that stand for the pods.
pub(crate) struct Scene {
    pub(crate) node: Node,
    /// All namespaces whose drops count.
    pub(crate) namespaces: Vec<Netns>,
    /// The cluster's objects, without policies.
    pub(crate) manifests: String,
    // In this order: processes end before their namespaces and control groups go.
    sandboxes: Vec<Sandbox>,
    /// When the last of them came.
    inhabited: Instant,
    /// Where the rules of table `inet policies` are.
    enforcing: RefCell<Option<Netns>>,
    pub(crate) bed: Bed,
}

impl Scene {
    /// Any bed: `namespaces` are those whose drops count, the node's is added.
    pub(crate) fn new(bed: Bed, node: Node, mut namespaces: Vec<Netns>, manifests: &str) -> Self {
        namespaces.insert(0, node.netns().clone());
        Scene {
            node,
            namespaces,
            manifests: manifests.to_owned(),
            sandboxes: Vec::new(),
            inhabited: Instant::now(),
            enforcing: RefCell::default(),
            bed,
        }
    }

    /// The pods `web` and `api` on links of their own.
    pub(crate) fn routed() -> Self {
        Self::links().of_two_pods()
    }

    /// Likewise, before any process of theirs runs.
    pub(crate) fn links() -> Self {
        let mut bed = Bed::new("npo-test").unwrap();
        let node = bed.node("node", &addresses(NODE)).unwrap();
        let web = node.routed_pod(&mut bed, "web", &addresses(WEB)).unwrap();
        let api = node.routed_pod(&mut bed, "api", &addresses(API)).unwrap();
        Self::new(bed, node, vec![web, api], CLUSTER)
    }

    /// The pods `web` and `api` on a bridge whose packets pass netfilter's hooks.
    pub(crate) fn bridged() -> Self {
        let mut bed = Bed::new("npo-test").unwrap();
        let node = bed.node("node", &addresses(NODE)).unwrap();
        let gateways = [format!("{}/24", GATEWAY[0]), format!("{}/64", GATEWAY[1])].map(|gateway| gateway.parse().unwrap());
        let bridge = node.bridge("cni0", &gateways, true).unwrap();
        let web = node.bridged_pod(&mut bed, &bridge, "web", &addresses(WEB)).unwrap();
        let api = node.bridged_pod(&mut bed, &bridge, "api", &addresses(API)).unwrap();
        Self::new(bed, node, vec![web, api], CLUSTER).of_two_pods()
    }

    fn of_two_pods(mut self) -> Self {
        self.inhabit("web", WEB_UID);
        self.inhabit("api", API_UID);
        self
    }

    /// A namespace by its short name.
    pub(crate) fn ns(&self, name: &str) -> &Netns {
        self.namespaces.iter().find(|namespace| namespace.name() == name).unwrap_or_else(|| panic!("no namespace {name}"))
    }

    /// A process in a pod's namespace and in a control group named as the kubelet names them: by it the pod behind a device is found.
    pub(crate) fn inhabit(&mut self, namespace: &str, pod_uid: &str) {
        let sandbox = Sandbox::start(self.ns(namespace), pod_uid).unwrap();
        self.sandboxes.push(sandbox);
        self.inhabited = Instant::now();
    }

    /// Waits as long as a namespace may be taken for nobody's after its process came (`NEWCOMERS` in capture/sandbox.rs): containers
    /// start later than that.
    pub(crate) fn wait_for_sandboxes(&self) {
        std::thread::sleep(Duration::from_millis(150).saturating_sub(self.inhabited.elapsed()));
    }

    /// The control group of a pod, below the root of the version 2 hierarchy.
    pub(crate) fn group(&self, namespace: &str) -> &str {
        let own = self.ns(namespace).full_name();
        self.sandboxes.iter().map(Sandbox::group).find(|group| group.starts_with(own)).expect("an inhabited namespace")
    }

    /// Loads the rules of table `inet policies` into a namespace, in place of those that one shape before this one was enforced by.
    pub(crate) fn enforce(&self, namespace: &Netns, rules: &str) {
        let before = self.enforcing.replace(Some(namespace.clone()));
        if let Some(before) = before.filter(|before| before.full_name() != namespace.full_name()) {
            before.nft("delete table inet policies").unwrap();
        }
        namespace.nft(&format!("table inet policies {{ }}\ndelete table inet policies\n{rules}")).unwrap();
    }

    /// What stands for a pod's containers.
    pub(crate) fn sandbox(&self, pod_uid: &str) -> &Sandbox {
        self.sandboxes.iter().find(|sandbox| sandbox.pod_uid() == pod_uid).expect("an inhabited namespace")
    }

    /// The engine over the cluster with `policies`.
    pub(crate) fn engine(&self, policies: &str) -> Arc<Engine> {
        engine(&self.text(policies))
    }

    /// The manifests with `policies`.
    pub(crate) fn text(&self, policies: &str) -> String {
        format!("{}---\n{}", self.manifests.trim_start(), policies.trim_start())
    }
}

/// The engine over manifests.
fn engine(manifests: &str) -> Arc<Engine> {
    let loaded = manifests::load(&["-".into()], &mut manifests.as_bytes()).unwrap_or_else(|errors| panic!("{errors}\n{manifests}"));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let mut engine = Engine::new(Profile::default());
    engine.reset(loaded.objects);
    Arc::new(engine)
}

fn addresses(of: [&str; 2]) -> [IpAddr; 2] {
    of.map(|address| address.parse().unwrap())
}
