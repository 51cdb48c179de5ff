//! The objects of a cluster whose pods' addresses the datagrams carry, so that each drop of one has a policy to blame.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

/// Pods whose addresses are forged as sources.
pub const CALLERS: u64 = 2_000;
/// Pods that are sent to.
pub const SERVERS: u64 = 50;
/// All servers' addresses, to be routed to one link.
pub const SERVER_RANGE: &str = "10.245.0.0/24";
const NAMESPACES: u64 = 40;

/// Address of caller number `i`.
pub fn caller(i: u64) -> Ipv4Addr {
    let i = (i % CALLERS) as u32;
    Ipv4Addr::from(0x0AF4_0000 + (i / 250) * 256 + i % 250 + 1)
}

/// Address of server number `i`.
pub fn server(i: u64) -> Ipv4Addr {
    Ipv4Addr::from(0x0AF5_0000 + (i % SERVERS) as u32 + 1)
}

/// 2,000 callers in 40 namespaces with policies of their own, and 50 servers, each admitting a few callers, none of those that call.
pub fn objects() -> String {
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
