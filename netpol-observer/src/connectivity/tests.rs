//! Who can talk to whom, on small clusters.

use std::io;

use super::*;
use crate::cluster::{Index, manifests};
use crate::policy::Profile;

/// An engine over manifests, workloads standing for their pods.
fn engine(yaml: &str) -> Engine {
    let loaded = manifests::load(&["-".into()], &mut io::Cursor::new(yaml.to_owned())).expect("manifests").with_stand_ins();
    let mut index = Index::default();
    index.reset(loaded.objects);
    Engine::over(index, Profile::default())
}

const SHOP: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec: {selector: {}, replicas: 2, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web}]}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: shop}
spec: {selector: {}, replicas: 1, serviceName: db, template: {metadata: {labels: {app: db}}, spec: {containers: [{name: db, ports: [{name: pg, containerPort: 5432}]}]}}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  policyTypes: [Ingress, Egress]
  ingress:
    - from: [{podSelector: {matchLabels: {app: web}}}]
      ports: [{port: pg}]
"#;

fn shown(connectivity: &Connectivity) -> Vec<String> {
    let name = |party: usize| connectivity.parties()[party].kind.to_string();
    let edge = |edge: &Edge| format!("{} -> {}: {}", name(edge.from), name(edge.to), port_words(&edge.ports).join(", "));
    connectivity.edges().iter().map(edge).collect()
}

#[test]
fn workloads_the_outside_and_the_ports_between_them() {
    let engine = engine(SHOP);
    let connectivity = Connectivity::of(&engine);
    assert_eq!(
        shown(&connectivity),
        [
            "shop/deploy/web -> shop/deploy/web: every port",
            "shop/deploy/web -> shop/sts/db: 5432/TCP",
            "shop/deploy/web -> 0.0.0.0/0: every port",
            "0.0.0.0/0 -> shop/deploy/web: every port",
        ]
    );
    let [web, db] = ["shop/deploy/web", "shop/sts/db"]
        .map(|name| connectivity.parties().iter().position(|party| party.kind.to_string() == name).expect("a party"));
    assert!(connectivity.side_admits(Direction::Egress, web, db) && connectivity.side_admits(Direction::Ingress, web, db));
    assert!(!connectivity.side_admits(Direction::Egress, db, web) && connectivity.side_admits(Direction::Ingress, db, web));
    let isolated = connectivity.parties()[db].isolated.clone().map(|policies| policies.len());
    assert_eq!(isolated, [1, 1]);
    let rulings = connectivity.rulings(&engine, web, db, (Protocol::Tcp, 5432), true).expect("a connection");
    assert!(matches!(&rulings[1], Ruling::Admitted { by } if by.len() == 1), "{rulings:?}");
    let rulings = connectivity.rulings(&engine, db, web, (Protocol::Tcp, 80), false).expect("a connection");
    assert!(matches!(&rulings[0], Ruling::Denied { isolating, .. } if isolating.len() == 1), "{rulings:?}");
}

#[test]
fn a_range_that_policies_name_is_a_party_of_its_own() {
    let policy = r#"
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Egress]
  egress:
    - to: [{ipBlock: {cidr: 203.0.113.0/24, except: [203.0.113.128/25]}}]
      ports: [{port: 443}, {port: 8000, endPort: 8100}]
"#;
    let connectivity = Connectivity::of(&engine(&format!("{SHOP}{policy}")));
    let of_web: Vec<String> = shown(&connectivity).into_iter().filter(|line| line.starts_with("shop/deploy/web ->")).collect();
    assert_eq!(of_web, ["shop/deploy/web -> 203.0.113.0/24: 443/TCP, 8000-8100/TCP"]);
    let outside: Vec<String> =
        connectivity.parties().iter().map(|party| party.kind.to_string()).filter(|name| name.contains("203")).collect();
    assert_eq!(outside, ["203.0.113.0/24", "203.0.113.128/25"]);
}
