//! Tests of what the engine says; what it decides is tested by the cases and properties in `tests/`.

mod fixes;
mod words;

use std::sync::Arc;

use super::*;
use crate::cluster::{Index, Pod, manifests};
use crate::flow::Protocol;
use crate::identify::{Identity, Party, ServiceCall, party};

fn explain(connection: &Connection, index: &Index, profile: &Profile) -> Explanation {
    Engine::over(index.clone(), *profile).explain(connection)
}

fn verdict(connection: &Connection, index: &Index, profile: &Profile) -> Verdict {
    Engine::over(index.clone(), *profile).verdict(connection)
}

/// An index of manifests.
fn index(yaml: &str) -> Index {
    let loaded = manifests::load(&["-".into()], &mut yaml.as_bytes()).unwrap_or_else(|errors| panic!("{errors}"));
    let mut index = Index::default();
    index.reset(loaded.objects);
    index
}

/// A pod of namespace `shop` in YAML; its workload is a Deployment where `replicas` names one.
fn pod(name: &str, labels: &str, ip: &str, deployment: Option<&str>) -> String {
    let owner = deployment.map_or_else(String::new, |name| {
        format!(", ownerReferences: [{{apiVersion: apps/v1, kind: Deployment, name: {name}, uid: u, controller: true}}]")
    });
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{{labels}}}{owner}}}\n\
         spec: {{containers: [{{name: main, image: example.org/main}}]}}\nstatus: {{phase: Running, podIP: {ip}}}\n"
    )
}

/// A policy of namespace `shop` in YAML.
fn policy(name: &str, spec: &str) -> String {
    format!("---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n")
}

/// A TCP call between addresses.
fn call(index: &Index, source: &str, destination: &str, port: u16) -> Connection {
    let [source, destination] = [source, destination].map(|ip| party(ip.parse().unwrap(), index));
    let service = match &destination.identity {
        Identity::Service(service) => Some(ServiceCall {
            service: service.clone(),
            ip: destination.ip,
            port: Some(port),
            port_name: None,
            backends: service.ports.iter().filter(|known| known.port == port).flat_map(|port| index.backends(service, port)).collect(),
        }),
        _ => None,
    };
    Connection { source, destination, protocol: Protocol::Tcp, port: Some(port), service }
}

fn explained(index: &Index, source: &str, destination: &str, port: u16) -> Explanation {
    explain(&call(index, source, destination, port), index, &Profile::default())
}

/// The only fix.
fn fix(index: &Index, source: &str, destination: &str, port: u16) -> Fix {
    let explanation = explained(index, source, destination, port);
    let [fix] = explanation.fixes.as_slice() else { panic!("not one fix: {explanation:#?}") };
    fix.clone()
}

/// A node may be known by more than its addresses: the address of its bridge is no object's.
#[test]
fn a_pods_own_node_may_reach_it_from_any_address() {
    let node = |name: &str, ip: &str| {
        format!(
            "---\napiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\nstatus: {{addresses: [{{type: InternalIP, address: {ip}}}]}}\n"
        )
    };
    let api = pod("api", "app: api", "10.0.0.2", None).replace("spec: {", "spec: {nodeName: node-1, ");
    let all = policy("all", "{podSelector: {}, policyTypes: [Ingress]}");
    let index = index(&[node("node-1", "192.168.0.1"), node("node-2", "192.168.0.2"), api, all].concat());
    let from = |name: &str| {
        let node = index.node(name).expect("a node").clone();
        let source = Party { ip: "10.0.0.1".parse().unwrap(), identity: Identity::Node(node) };
        let connection = Connection { source, ..call(&index, "192.168.0.1", "10.0.0.2", 80) };
        let explanation = explain(&connection, &index, &Profile::default());
        assert_eq!(verdict(&connection, &index, &Profile::default()), explanation.verdict);
        explanation.verdict
    };
    assert_eq!((from("node-1"), from("node-2")), (Verdict::Allow, Verdict::Deny));
}
