//! Policies back into the form in which people apply them.

use serde_json::{Map, Value, json};

use crate::cluster::{
    Action, Cidr, ClusterPeer, ClusterPolicy, ClusterPolicyKind, ClusterPort, ClusterRule, Labels, NetworkPolicy, Operator, Peer,
    PolicyPort, PortNumber, Rule, Selector, Subject, Tier,
};
use crate::policy::explanation::Manifest;

use super::label;

impl Manifest {
    /// As JSON, ready for `kubectl apply`. Parts that are invalid are left out; no fix edits a policy that has any.
    pub fn to_json(&self) -> Value {
        match self {
            Manifest::NetworkPolicy(policy) => network_policy(policy),
            Manifest::ClusterPolicy(policy) => cluster_policy(policy),
            Manifest::Labels { workload, namespace, labels } => label::manifest(workload, namespace, labels),
        }
    }
}

/// networking.k8s.io/v1. `policyTypes` is always written out.
fn network_policy(policy: &NetworkPolicy) -> Value {
    let mut spec = Map::new();
    let mut types = Vec::new();
    spec.insert("podSelector".into(), selector(&policy.pod_selector));
    if let Some(rules) = &policy.ingress {
        types.push("Ingress");
        spec.insert("ingress".into(), rules.iter().map(|r| rule(r, "from")).collect());
    }
    if let Some(rules) = &policy.egress {
        types.push("Egress");
        spec.insert("egress".into(), rules.iter().map(|r| rule(r, "to")).collect());
    }
    spec.insert("policyTypes".into(), json!(types));
    let mut metadata = metadata(&policy.name, &policy.labels, &policy.annotations);
    metadata.insert("namespace".into(), json!(policy.namespace));
    json!({ "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec })
}

/// policy.networking.k8s.io, in the version of the kind.
fn cluster_policy(policy: &ClusterPolicy) -> Value {
    let mut spec = Map::new();
    match policy.kind {
        ClusterPolicyKind::AdminNetworkPolicy => drop(spec.insert("priority".into(), json!(policy.priority))),
        ClusterPolicyKind::BaselineAdminNetworkPolicy => {}
        ClusterPolicyKind::ClusterNetworkPolicy => {
            spec.insert("tier".into(), json!(if policy.tier == Tier::Baseline { "Baseline" } else { "Admin" }));
            spec.insert("priority".into(), json!(policy.priority));
        }
    }
    let subject = match &policy.subject {
        Subject::Namespaces(namespaces) => json!({ "namespaces": selector(namespaces) }),
        Subject::Pods { namespace, pod } => json!({ "pods": { "namespaceSelector": selector(namespace), "podSelector": selector(pod) } }),
        Subject::Invalid(_) => json!({}),
    };
    spec.insert("subject".into(), subject);
    for (field, peers, rules) in [("ingress", "from", &policy.ingress), ("egress", "to", &policy.egress)] {
        if !rules.is_empty() {
            spec.insert(field.into(), rules.iter().map(|rule| cluster_rule(policy.kind, rule, peers)).collect());
        }
    }
    let version = if policy.kind == ClusterPolicyKind::ClusterNetworkPolicy { "v1alpha2" } else { "v1alpha1" };
    json!({
        "apiVersion": format!("policy.networking.k8s.io/{version}"),
        "kind": policy.kind.as_str(),
        "metadata": metadata(&policy.name, &policy.labels, &policy.annotations),
        "spec": spec,
    })
}

fn metadata(name: &str, labels: &Labels, annotations: &Labels) -> Map<String, Value> {
    let mut metadata = Map::new();
    metadata.insert("name".into(), json!(name));
    for (field, map) in [("labels", labels), ("annotations", annotations)] {
        if !map.is_empty() {
            metadata.insert(field.into(), json!(map));
        }
    }
    metadata
}

/// How the version of the kind calls an action.
pub(super) fn action(kind: ClusterPolicyKind, action: Action) -> &'static str {
    match (action, kind) {
        (Action::Accept, ClusterPolicyKind::ClusterNetworkPolicy) => "Accept",
        (Action::Accept, _) => "Allow",
        (Action::Deny, _) => "Deny",
        (Action::Pass, _) => "Pass",
    }
}

/// A rule of the Admin or Baseline tier, in the version of the kind.
pub(super) fn cluster_rule(kind: ClusterPolicyKind, rule: &ClusterRule, peers: &str) -> Value {
    let mut value = Map::new();
    if let Some(name) = &rule.name {
        value.insert("name".into(), json!(name));
    }
    value.insert("action".into(), json!(action(kind, rule.action)));
    value.insert(peers.into(), rule.peers.iter().filter_map(cluster_peer).collect());
    if !rule.ports.is_empty() {
        let (field, write): (_, fn(&ClusterPort) -> Option<Value>) =
            if kind == ClusterPolicyKind::ClusterNetworkPolicy { ("protocols", protocol) } else { ("ports", alpha1_port) };
        value.insert(field.into(), rule.ports.iter().filter_map(write).collect());
    }
    Value::Object(value)
}

fn cluster_peer(peer: &ClusterPeer) -> Option<Value> {
    Some(match peer {
        ClusterPeer::Namespaces(namespaces) => json!({ "namespaces": selector(namespaces) }),
        ClusterPeer::Pods { namespace, pod } => {
            json!({ "pods": { "namespaceSelector": selector(namespace), "podSelector": selector(pod) } })
        }
        ClusterPeer::Nodes(nodes) => json!({ "nodes": selector(nodes) }),
        ClusterPeer::Networks(networks) => json!({ "networks": networks.iter().map(Cidr::to_string).collect::<Vec<_>>() }),
        ClusterPeer::DomainNames(names) => json!({ "domainNames": names }),
        ClusterPeer::Invalid(_) => return None,
    })
}

/// An entry of `ports` in v1alpha1.
fn alpha1_port(port: &ClusterPort) -> Option<Value> {
    match port {
        ClusterPort::Named(name) => Some(json!({ "namedPort": name })),
        ClusterPort::Invalid(_) => None,
        ClusterPort::Port(PolicyPort { protocol, port }) => match port {
            PortNumber::Number(number) => Some(json!({ "portNumber": { "protocol": protocol, "port": number } })),
            PortNumber::Range(from, to) => Some(json!({ "portRange": { "protocol": protocol, "start": from, "end": to } })),
            PortNumber::Any | PortNumber::Name(_) | PortNumber::Invalid(_) => None,
        },
    }
}

/// An entry of `protocols` in v1alpha2.
fn protocol(port: &ClusterPort) -> Option<Value> {
    match port {
        ClusterPort::Named(name) => Some(json!({ "destinationNamedPort": name })),
        ClusterPort::Invalid(_) => None,
        ClusterPort::Port(PolicyPort { protocol, port }) => {
            let ports = match port {
                PortNumber::Any => json!({}),
                PortNumber::Number(number) => json!({ "destinationPort": { "number": number } }),
                PortNumber::Range(from, to) => json!({ "destinationPort": { "range": { "start": from, "end": to } } }),
                PortNumber::Name(_) | PortNumber::Invalid(_) => return None,
            };
            let mut value = Map::new();
            value.insert(protocol.to_string().to_ascii_lowercase(), ports);
            Some(Value::Object(value))
        }
    }
}

/// A rule of a NetworkPolicy as the API server stores it, with its defaults.
pub(super) fn rule(rule: &Rule, peers: &str) -> Value {
    let mut value = Map::new();
    if !rule.peers.is_empty() {
        value.insert(peers.into(), rule.peers.iter().filter_map(peer).collect());
    }
    if !rule.ports.is_empty() {
        value.insert("ports".into(), rule.ports.iter().filter_map(port).collect());
    }
    Value::Object(value)
}

/// An entry of `from` or `to`.
pub(super) fn peer(peer: &Peer) -> Option<Value> {
    let mut value = Map::new();
    match peer {
        Peer::Pods { namespace, pod } => {
            if let Some(namespace) = namespace {
                value.insert("namespaceSelector".into(), selector(namespace));
            }
            if let Some(pod) = pod {
                value.insert("podSelector".into(), selector(pod));
            } else if namespace.is_none() {
                // Nothing at all would be an invalid peer.
                value.insert("podSelector".into(), json!({}));
            }
        }
        Peer::IpBlock(block) => {
            let mut ip_block = Map::new();
            ip_block.insert("cidr".into(), json!(block.cidr.to_string()));
            if !block.except.is_empty() {
                ip_block.insert("except".into(), block.except.iter().map(ToString::to_string).collect());
            }
            value.insert("ipBlock".into(), Value::Object(ip_block));
        }
        Peer::Invalid(_) => return None,
    }
    Some(Value::Object(value))
}

/// An entry of `ports`.
pub(super) fn port(port: &PolicyPort) -> Option<Value> {
    let mut value = Map::new();
    value.insert("protocol".into(), json!(port.protocol.to_string()));
    match &port.port {
        PortNumber::Any => {}
        PortNumber::Number(number) => {
            value.insert("port".into(), json!(number));
        }
        PortNumber::Range(from, to) => {
            value.insert("port".into(), json!(from));
            value.insert("endPort".into(), json!(to));
        }
        PortNumber::Name(name) => {
            value.insert("port".into(), json!(name));
        }
        PortNumber::Invalid(_) => return None,
    }
    Some(Value::Object(value))
}

/// A label selector.
pub(super) fn selector(selector: &Selector) -> Value {
    let mut labels = Map::new();
    let mut expressions = Vec::new();
    for requirement in &selector.requirements {
        let key = &requirement.key;
        match &requirement.operator {
            Operator::Equals(value) => {
                labels.insert(key.to_string(), json!(value));
            }
            Operator::In(values) => expressions.push(json!({ "key": key, "operator": "In", "values": values })),
            Operator::NotIn(values) => expressions.push(json!({ "key": key, "operator": "NotIn", "values": values })),
            Operator::Exists => expressions.push(json!({ "key": key, "operator": "Exists" })),
            Operator::DoesNotExist => expressions.push(json!({ "key": key, "operator": "DoesNotExist" })),
            Operator::Invalid(_) => {}
        }
    }
    let mut value = Map::new();
    if !labels.is_empty() {
        value.insert("matchLabels".into(), Value::Object(labels));
    }
    if !expressions.is_empty() {
        value.insert("matchExpressions".into(), Value::Array(expressions));
    }
    Value::Object(value)
}
