//! Beds beyond a node with two pods.

use std::net::IpAddr;

use xtask::netns::{Bed, Netns};

use crate::shape::{API, NODE, Scene, WEB};

/// By family, like those of the scene.
pub(super) const OTHER_NODE: [&str; 2] = ["192.0.2.2", "2001:db8::2"];
pub(super) const FAR_API: [&str; 2] = ["10.244.2.20", "fd00:10:244:2::20"];
pub(super) const OUTSIDE: [&str; 2] = ["198.51.100.7", "2001:db8:f::7"];
pub(super) const VIP: [&str; 2] = ["10.96.0.80", "fd00:10:96::80"];

const FAR_API_UID: &str = "33333333-3333-4333-8333-333333333333";

/// The cluster of [`two_nodes`]: `web` on node-1, `api` on node-2.
const TWO_NODES: &str = r#"
apiVersion: v1
kind: Node
metadata: { name: node-1 }
spec: { podCIDR: 10.244.1.0/24, podCIDRs: [10.244.1.0/24, "fd00:10:244:1::/64"] }
status:
  addresses: [{ type: InternalIP, address: 192.0.2.1 }, { type: InternalIP, address: "2001:db8::1" }]
---
apiVersion: v1
kind: Node
metadata: { name: node-2 }
spec: { podCIDR: 10.244.2.0/24, podCIDRs: [10.244.2.0/24, "fd00:10:244:2::/64"] }
status:
  addresses: [{ type: InternalIP, address: 192.0.2.2 }, { type: InternalIP, address: "2001:db8::2" }]
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
metadata: { name: api, namespace: shop, uid: 33333333-3333-4333-8333-333333333333, labels: { app: api } }
spec: { nodeName: node-2, containers: [{ name: api, image: api }] }
status: { phase: Running, podIP: 10.244.2.20, podIPs: [{ ip: 10.244.2.20 }, { ip: "fd00:10:244:2::20" }] }
"#;

/// An address of a family.
pub(super) fn of(addresses: [&str; 2], ipv6: bool) -> IpAddr {
    addresses[usize::from(ipv6)].parse().unwrap()
}

pub(super) fn both(addresses: [&str; 2]) -> [IpAddr; 2] {
    addresses.map(|address| address.parse().unwrap())
}

/// ip(8) in a namespace, a command per line.
///
/// # Panics
/// When one fails; see [`try_ip`].
pub(super) fn ip(namespace: &Netns, commands: &str) {
    try_ip(namespace, commands).unwrap_or_else(|error| panic!("{error}"));
}

/// As [`ip`], for what a kernel may lack.
pub(super) fn try_ip(namespace: &Netns, commands: &str) -> Result<(), String> {
    namespace.ip(commands).map_err(|error| format!("{error:#}"))
}

/// Two nodes on one wire, `eth0` of both, with a pod each on a link of its own. Neither knows the way to the other's pod.
pub(super) fn two_nodes() -> Scene {
    let mut bed = Bed::new("npo-test").unwrap();
    let node = bed.node("node", &both(NODE)).unwrap();
    let other = bed.node("other", &both(OTHER_NODE)).unwrap();
    let web = node.routed_pod(&mut bed, "web", &both(WEB)).unwrap();
    let api = other.routed_pod(&mut bed, "api", &both(FAR_API)).unwrap();
    // With numbers of their own: see INDEX_IN_POD of the test beds.
    ip(node.netns(), &format!("link add eth0 index 50 type veth peer name eth0 index 51 netns {}", other.netns().full_name()));
    for (namespace, own) in [(node.netns(), NODE), (other.netns(), OTHER_NODE)] {
        ip(namespace, &format!("addr add {}/24 dev eth0\naddr add {}/64 dev eth0 nodad\nlink set eth0 up", own[0], own[1]));
    }
    for namespace in [node.netns(), other.netns()] {
        namespace.wait_for_link("eth0").unwrap();
    }
    let mut scene = Scene::new(bed, node, vec![other.netns().clone(), web, api], TWO_NODES);
    scene.inhabit("web", crate::shape::WEB_UID);
    scene.inhabit("api", FAR_API_UID);
    scene
}

/// A host outside of the cluster on a link of its own, `extoutside` of the node.
pub(super) fn with_outside(mut scene: Scene) -> Scene {
    let node = scene.node.clone();
    let outside = node.external_host(&mut scene.bed, "outside", &both(OUTSIDE)).unwrap();
    scene.namespaces.push(outside);
    scene
}

/// Service `shop/api`: port 80 leads to 8080 and, on a node, 30080 does; the denied ports lead to their like, and from 31001 on.
pub(super) fn with_service(mut scene: Scene) -> Scene {
    let denied: String = crate::shape::DENIED
        .map(|port| format!("  - {{ name: d{port}, port: {port}, targetPort: {port}, nodePort: {} }}\n", port + 22_000))
        .collect();
    scene.manifests += &format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{ name: api, namespace: shop }}\nspec:\n  type: NodePort\n  selector: {{ app: api }}\n  \
         clusterIP: {vip}\n  clusterIPs: [{vip}, \"{vip6}\"]\n  ipFamilies: [IPv4, IPv6]\n  ports:\n  - {{ name: http, port: 80, targetPort: 8080, nodePort: 30080 }}\n{denied}",
        vip = VIP[0],
        vip6 = VIP[1],
    );
    for (family, address, api) in [("IPv4", "a", API[0]), ("IPv6", "b", API[1])] {
        let ports: String = crate::shape::DENIED.map(|port| format!("- {{ name: d{port}, port: {port} }}\n")).collect();
        scene.manifests += &format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{ name: api-{address}, namespace: shop, labels: {{ kubernetes.io/service-name: api }} }}\n\
             addressType: {family}\nendpoints:\n- addresses: [\"{api}\"]\n  conditions: {{ ready: true }}\n  targetRef: {{ kind: Pod, namespace: shop, name: api }}\n\
             ports:\n- {{ name: http, port: 8080 }}\n{ports}"
        );
    }
    scene
}
