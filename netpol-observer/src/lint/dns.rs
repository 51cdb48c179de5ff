//! Pods that may open connections, yet cannot look names up. The engine says what they may reach; here it is only asked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::cluster::{Action, ContainerPort, Direction, Labels, NetworkPolicy, Peer, Pod, PodPhase, PortNumber, Rule, Service, Workload};
use crate::flow::Protocol;
use crate::identify::{Identity, Party, party};
use crate::policy::{Admission, Connection, Engine, Verdict};

use super::Sink;
use super::facts::{Facts, Group};
use super::finding::{About, Code, Severity};

/// Services by which distributions run the cluster's DNS, as namespace and name.
pub(super) const SERVERS: &[(&str, &str)] = &[
    ("kube-system", "kube-dns"),
    ("kube-system", "coredns"),
    ("kube-system", "rke2-coredns-rke2-coredns"),
    ("openshift-dns", "dns-default"),
];

const DNS_PORT: u16 = 53;

/// Where node-local DNS caches listen by convention.
const NODE_LOCAL: Ipv4Addr = Ipv4Addr::new(169, 254, 20, 10);

/// An address for what has none in the manifests; of the range for benchmarks (RFC 2544), so that no policy means it.
const NO_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 53);

/// An address that nothing has (RFC 5737).
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);

/// Workloads that a message names.
const MOST_NAMED: usize = 3;

/// What answers DNS.
struct Server {
    /// The engine to ask; with a DNS pod added when none was there.
    engine: Engine,
    /// How it is called.
    name: String,
    to: To,
}

enum To {
    /// A Service that is there with its pods.
    Service(Arc<Service>, IpAddr),
    /// A pod as most clusters have it.
    Assumed(Arc<Pod>),
}

/// Kind, namespace and name.
type PolicyKey = (&'static str, Arc<str>, Arc<str>);

/// Whom a policy keeps from what.
#[derive(Default)]
struct Cut {
    workloads: BTreeSet<String>,
    udp: bool,
    tcp: bool,
    /// All of them reach a node-local cache.
    has_node_local: bool,
}

pub(super) fn lint(facts: &Facts<'_>, sink: &mut Sink<'_>) {
    let isolates = facts.index.policies().any(|policy| policy.egress.as_ref().is_some_and(|rules| !rules.is_empty()));
    let in_tiers = facts.index.cluster_policies().any(|policy| !policy.egress.is_empty());
    if !(isolates || in_tiers) || !sink.wants(Code::EgressWithoutDns) {
        return;
    }
    let admits_any =
        facts.index.cluster_policies().flat_map(|policy| &policy.egress).any(|rule| matches!(rule.action, Action::Accept | Action::Pass));
    let server = Server::find(facts);
    let mut cuts: BTreeMap<PolicyKey, Cut> = BTreeMap::new();
    for group in facts.areas.values().flat_map(|area| &area.groups) {
        if server.is_dns(group.pod) {
            continue;
        }
        let isolating: Vec<&Arc<NetworkPolicy>> = facts
            .index
            .policies_in(&group.pod.namespace)
            .filter(|policy| policy.egress.is_some() && policy.pod_selector.matches(&group.pod.labels))
            .collect();
        if isolating.is_empty() && !in_tiers {
            continue;
        }
        let [udp, tcp] = [Protocol::Udp, Protocol::Tcp].map(|protocol| server.denied_by(group.pod, protocol));
        let Some(by) = udp.as_ref().or(tcp.as_ref()) else { continue };
        let place = match by {
            // Without any other rule nothing is to be called at all, by name or not.
            Some(_) if !admits_any => continue,
            Some(rule) => rule.clone(),
            None => {
                // Without any rule nothing may be called at all, by name or not.
                let first = isolating.iter().find(|policy| policy.egress.as_ref().is_some_and(|rules| !rules.is_empty()));
                let Some(policy) = first else { continue };
                if matches!(server.to, To::Assumed(_)) && isolating.iter().any(|policy| allows_dns_by_address(policy)) {
                    continue;
                }
                ("NetworkPolicy", policy.namespace.clone(), policy.name.clone())
            }
        };
        let node_local = server.reaches_node_local(group.pod);
        let cut = cuts.entry(place).or_insert_with(|| Cut { has_node_local: true, ..Cut::default() });
        cut.workloads.insert(name(group));
        cut.udp |= udp.is_some();
        cut.tcp |= tcp.is_some();
        cut.has_node_local &= node_local;
    }
    for ((kind, namespace, name), cut) in &cuts {
        let policy = facts.index.policy(namespace, name).filter(|_| !namespace.is_empty()).map(|policy| About::from(&**policy));
        let of_tier = || facts.index.cluster_policies().find(|policy| policy.kind.as_str() == *kind && policy.name == *name);
        if let Some(about) = policy.or_else(|| of_tier().map(|policy| About::from(&**policy))) {
            say(about, cut, &server, sink);
        }
    }
}

fn say(about: About<'_>, cut: &Cut, server: &Server, sink: &mut Sink<'_>) {
    let (protocols, severity) = match (cut.udp, cut.tcp) {
        (true, true) => ("UDP and TCP", Severity::Warning),
        (true, false) => ("UDP", Severity::Warning),
        // Answers that do not fit into a datagram are asked for again over TCP.
        _ => ("TCP (to which long answers fall back)", Severity::Note),
    };
    let (severity, node_local) = match cut.has_node_local {
        true => (Severity::Note, format!("; they reach {NODE_LOCAL} only, which answers where nodes run a DNS cache")),
        false => (severity, String::new()),
    };
    let more = cut.workloads.len().saturating_sub(MOST_NAMED);
    let mut names: Vec<&str> = cut.workloads.iter().take(MOST_NAMED).map(String::as_str).collect();
    let others = format!("{more} more");
    if more > 0 {
        names.push(&others);
    }
    let message = format!(
        "egress of {} is restricted and does not reach the cluster's DNS, {} at port {DNS_PORT}, by {protocols}{node_local}",
        names.join(", "),
        server.name
    );
    let help = server.rule();
    about.finding(Code::EgressWithoutDns, severity, "spec.egress", None).say(sink, message, help);
}

/// Whether a rule is for addresses and port 53: where the DNS has one of these is not known without its Service.
fn allows_dns_by_address(policy: &NetworkPolicy) -> bool {
    let for_dns = |rule: &&Rule| {
        let port = |port: &PortNumber| match port {
            PortNumber::Any => true,
            PortNumber::Number(number) => *number == DNS_PORT,
            PortNumber::Range(from, to) => (*from..=*to).contains(&DNS_PORT),
            PortNumber::Name(_) | PortNumber::Invalid(_) => false,
        };
        rule.ports.is_empty() || rule.ports.iter().any(|entry| port(&entry.port))
    };
    let rules = policy.rules(Direction::Egress).unwrap_or_default();
    rules.iter().filter(for_dns).any(|rule| rule.peers.iter().any(|peer| matches!(peer, Peer::IpBlock(_))))
}

fn name(group: &Group<'_>) -> String {
    let Pod { namespace, workload: Workload { name, .. }, .. } = &**group.pod;
    format!("{namespace}/{name}")
}

impl Server {
    fn find(facts: &Facts<'_>) -> Self {
        let found = SERVERS.iter().find_map(|(namespace, name)| facts.index.service(namespace, name));
        let usable = found.and_then(|service| {
            let ip = service.cluster_ips.first()?;
            let port = service.ports.iter().find(|port| port.port == DNS_PORT)?;
            (!facts.index.backends(service, port).is_empty()).then_some((service.clone(), *ip))
        });
        if let Some((service, ip)) = usable {
            let name = format!("Service {}/{}", service.namespace, service.name);
            return Server { engine: facts.engine.clone(), name, to: To::Service(service, ip) };
        }
        let selector =
            found.and_then(|service| service.selector.clone()).unwrap_or_else(|| Labels::from([("k8s-app".into(), "kube-dns".into())]));
        let namespace = found.map_or_else(|| "kube-system".into(), |service| service.namespace.clone());
        let port = |name: &str, protocol| ContainerPort { name: Some(name.into()), port: DNS_PORT, protocol };
        let labels: Vec<String> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let name = format!("pods with {} in {namespace} (where most clusters have it; the manifests hold none)", labels.join(","));
        let pod = Arc::new(Pod {
            namespace,
            name: "dns".into(),
            uid: Arc::default(),
            labels: selector,
            ips: vec![NO_ADDRESS.into()],
            node: None,
            host_network: false,
            phase: PodPhase::Active,
            ready: true,
            deleting: false,
            ports: vec![port("dns", Protocol::Udp), port("dns-tcp", Protocol::Tcp)],
            workload: Workload { kind: "Deployment".into(), name: "dns".into() },
            origin: None,
        });
        let mut engine = facts.engine.clone();
        engine.apply(pod.clone());
        Server { engine, name, to: To::Assumed(pod) }
    }

    fn is_dns(&self, pod: &Pod) -> bool {
        match &self.to {
            To::Service(service, _) => {
                let selector = service.selector.iter().flatten();
                pod.namespace == service.namespace
                    && selector.clone().count() > 0
                    && selector.clone().all(|(key, value)| pod.labels.get(key) == Some(value))
            }
            To::Assumed(dns) => pod.namespace == dns.namespace && dns.labels.iter().all(|(key, value)| pod.labels.get(key) == Some(value)),
        }
    }

    fn connection(&self, pod: &Arc<Pod>, destination: Party, protocol: Protocol) -> Connection {
        let same_family = |ip: &&IpAddr| ip.is_ipv4() == destination.ip.is_ipv4();
        let ip = pod.ips.iter().find(same_family).copied().unwrap_or_else(|| NO_ADDRESS.into());
        let source = Party { ip, identity: Identity::Pod(pod.clone()) };
        Connection { source, destination, protocol, port: Some(DNS_PORT), service: None }
    }

    /// The rule or policies that keep the pod from DNS by its egress: none when it may, `Some(None)` where NetworkPolicies isolate it,
    /// otherwise the cluster-scoped policy that denies.
    fn denied_by(&self, pod: &Arc<Pod>, protocol: Protocol) -> Option<Option<PolicyKey>> {
        let connection = match &self.to {
            To::Service(_, ip) => {
                let called = Connection::between(*ip, *ip, protocol, Some(DNS_PORT), self.engine.index());
                Connection { service: called.service, ..self.connection(pod, called.destination, protocol) }
            }
            To::Assumed(dns) => self.connection(pod, Party { ip: NO_ADDRESS.into(), identity: Identity::Pod(dns.clone()) }, protocol),
        };
        if self.engine.verdict(&connection) != Verdict::Deny {
            return None;
        }
        // The other side may be what denies; that is not this policy's doing.
        match self.engine.explain(&connection).egress.admission {
            Admission::Denied { by: None, .. } => Some(None),
            Admission::Denied { by: Some(rule), .. } => Some(Some((rule.policy.kind, rule.policy.namespace, rule.policy.name))),
            _ => None,
        }
    }

    /// Whether the pod may call node-local caches because a rule is for them, rather than any address.
    fn reaches_node_local(&self, pod: &Arc<Pod>) -> bool {
        let may_call = |ip: Ipv4Addr| {
            let called = party(ip.into(), self.engine.index());
            self.engine.verdict(&self.connection(pod, called, Protocol::Udp)) == Verdict::Allow
        };
        may_call(NODE_LOCAL) && !may_call(OUTSIDE)
    }

    /// The rule that lets DNS through.
    fn rule(&self) -> String {
        let (namespace, labels, port) = match &self.to {
            To::Service(service, _) => {
                let target = service.ports.iter().find(|port| port.port == DNS_PORT).map(|port| &port.target_port);
                let port = match target {
                    Some(crate::cluster::TargetPort::Number(number)) => *number,
                    _ => DNS_PORT,
                };
                (&service.namespace, service.selector.clone().unwrap_or_default(), port)
            }
            To::Assumed(dns) => (&dns.namespace, dns.labels.clone(), DNS_PORT),
        };
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}: {value}")).collect();
        format!(
            "add to egress: {{to: [{{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {namespace}}}}}, podSelector: {{matchLabels: {{{}}}}}}}], \
             ports: [{{port: {port}, protocol: UDP}}, {{port: {port}, protocol: TCP}}]}}",
            labels.join(", ")
        )
    }
}
