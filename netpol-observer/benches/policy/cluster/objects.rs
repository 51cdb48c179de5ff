//! Namespaces, nodes, pods and Services as `kubectl get -o yaml` shows them, without what no tool of this kind reads.

use std::net::Ipv4Addr;

use serde_json::{Map, Value, json};

use super::plan::{Kind, Namespace, Plan, Workload};
use super::random::Random;

/// Where the nodes' ranges of pod addresses begin, 256 each.
const POD_RANGES: u32 = u32::from_be_bytes([10, 64, 0, 0]);
const NODE_ADDRESSES: u32 = u32::from_be_bytes([192, 168, 0, 1]);
const SERVICE_ADDRESSES: u32 = u32::from_be_bytes([172, 20, 0, 10]);
/// Pods that a node takes at most.
const PODS_PER_NODE: u32 = 200;

fn address(base: u32, n: usize) -> String {
    Ipv4Addr::from(base + n as u32).to_string()
}

fn node_name(n: usize) -> String {
    format!("node-{n:04}")
}

fn labels<'a>(labels: impl IntoIterator<Item = &'a (&'static str, String)>) -> Map<String, Value> {
    labels.into_iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect()
}

pub(super) fn namespaces(plan: &Plan) -> Vec<Value> {
    let object = |namespace: &Namespace| {
        let mut labels = labels(&namespace.labels);
        labels.insert("kubernetes.io/metadata.name".into(), json!(namespace.name));
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace.name, "labels": labels}})
    };
    plan.namespaces.iter().map(object).collect()
}

pub(super) fn nodes(plan: &Plan) -> Vec<Value> {
    let object = |n: usize| {
        let role = if n < 3 { "control-plane" } else { "worker" };
        let range = format!("{}/24", address(POD_RANGES, n * 256));
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": node_name(n), "labels": {
                "kubernetes.io/hostname": node_name(n), "node-role": role, "topology.kubernetes.io/zone": format!("zone-{}", n % 3),
            }},
            "spec": {"podCIDR": range, "podCIDRs": [range]},
            "status": {"addresses": [
                {"type": "InternalIP", "address": address(NODE_ADDRESSES, n)}, {"type": "Hostname", "address": node_name(n)},
            ]},
        })
    };
    (0..plan.nodes).map(object).collect()
}

pub(super) fn pods(plan: &Plan, random: &mut Random) -> Vec<Value> {
    let mut taken = vec![0; plan.nodes];
    let mut objects = Vec::new();
    for namespace in &plan.namespaces {
        for workload in &namespace.workloads {
            let hash = format!("{:010x}", random.next() & 0xff_ffff_ffff);
            for i in 0..workload.replicas {
                let mut node = if workload.kind == Kind::DaemonSet { i } else { random.below(plan.nodes) };
                while taken[node] >= PODS_PER_NODE {
                    node = (node + 1) % plan.nodes;
                }
                let ip = if workload.host_network {
                    address(NODE_ADDRESSES, node)
                } else {
                    taken[node] += 1;
                    address(POD_RANGES, node * 256 + 1 + taken[node] as usize)
                };
                objects.push(pod(namespace, workload, &hash, i, (&node_name(node), &ip), random));
            }
        }
    }
    objects
}

fn pod(namespace: &Namespace, workload: &Workload, hash: &str, i: usize, (node, ip): (&str, &str), random: &mut Random) -> Value {
    let suffix = format!("{:05x}", random.next() & 0xf_ffff);
    let mut labels = labels(&workload.labels);
    let mut label = |key: &str, value: &str| labels.insert(key.into(), json!(value));
    let base = &workload.name;
    let (name, kind, owner) = match workload.kind {
        Kind::Deployment => {
            label("pod-template-hash", hash);
            (format!("{base}-{hash}-{suffix}"), "ReplicaSet", format!("{base}-{hash}"))
        }
        Kind::StatefulSet => {
            let name = format!("{base}-{i}");
            label("controller-revision-hash", &format!("{base}-{hash}"));
            label("statefulset.kubernetes.io/pod-name", &name);
            label("apps.kubernetes.io/pod-index", &i.to_string());
            (name, "StatefulSet", base.clone())
        }
        Kind::DaemonSet => {
            label("controller-revision-hash", hash);
            label("pod-template-generation", "1");
            // The index makes the name unique where five digits do not.
            (format!("{base}-{suffix}{i}"), "DaemonSet", base.clone())
        }
        Kind::Job => {
            label("batch.kubernetes.io/job-name", base);
            (format!("{base}-{suffix}{i}"), "Job", base.clone())
        }
    };
    let has_ended = workload.kind == Kind::Job;
    let port = |(name, number, protocol): &_| json!({"name": name, "containerPort": number, "protocol": protocol});
    let ports: Vec<Value> = workload.ports.iter().map(port).collect();
    let mut container = json!({"name": "main", "image": format!("registry.example.com/{base}:1.{i}")});
    if !ports.is_empty() {
        container["ports"] = json!(ports);
    }
    let mut spec = json!({"nodeName": node, "containers": [container]});
    if workload.host_network {
        spec["hostNetwork"] = json!(true);
    }
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": namespace.name, "name": name, "labels": labels,
            "uid": format!("{:08x}-0000-4000-8000-{:012x}", random.next() as u32, random.next() & 0xffff_ffff_ffff),
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": kind, "name": owner, "uid": hash, "controller": true}],
        },
        "spec": spec,
        "status": {
            "phase": if has_ended { "Succeeded" } else { "Running" },
            "podIP": ip, "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": if has_ended { "False" } else { "True" }}],
        },
    })
}

pub(super) fn services(plan: &Plan) -> Vec<Value> {
    let mut objects = Vec::new();
    for namespace in &plan.namespaces {
        let served = |workload: &&Workload| matches!(workload.kind, Kind::Deployment | Kind::StatefulSet) && !workload.ports.is_empty();
        for workload in namespace.workloads.iter().filter(served) {
            let port = |(name, number, protocol): &_| json!({"name": name, "port": number, "protocol": protocol, "targetPort": name});
            let ports: Vec<Value> = workload.ports.iter().map(port).collect();
            let ip = address(SERVICE_ADDRESSES, objects.len());
            objects.push(json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"namespace": namespace.name, "name": workload.name},
                "spec": {
                    "type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ports": ports,
                    "selector": labels(workload.labels.iter().take(1)),
                },
            }));
        }
    }
    objects
}
