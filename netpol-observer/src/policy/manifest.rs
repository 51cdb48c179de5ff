//! A policy back into the form in which people apply it.

use serde_json::{Map, Value, json};

use super::explanation::Manifest;
use crate::cluster::{NetworkPolicy, Operator, Peer, PolicyPort, PortNumber, Rule, Selector};

/// The policy as a networking.k8s.io/v1 manifest. `policyTypes` is always written out. Parts that are invalid are left out;
/// callers do not edit policies that have any.
impl Manifest {
    /// As JSON, ready for `kubectl apply`.
    pub fn to_json(&self) -> Value {
        match self {
            Manifest::NetworkPolicy(policy) => manifest(policy),
            Manifest::ClusterPolicy(_) | Manifest::Labels { .. } => Value::Null,
        }
    }
}

pub(super) fn manifest(policy: &NetworkPolicy) -> Value {
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
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": { "name": policy.name, "namespace": policy.namespace },
        "spec": spec,
    })
}

fn rule(rule: &Rule, peers: &str) -> Value {
    let mut value = Map::new();
    if !rule.peers.is_empty() {
        value.insert(peers.into(), rule.peers.iter().filter_map(peer).collect());
    }
    if !rule.ports.is_empty() {
        value.insert("ports".into(), rule.ports.iter().filter_map(port).collect());
    }
    Value::Object(value)
}

fn peer(peer: &Peer) -> Option<Value> {
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

fn port(port: &PolicyPort) -> Option<Value> {
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

fn selector(selector: &Selector) -> Value {
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
