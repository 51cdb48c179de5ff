//! CustomResourceDefinitions: those of policy APIs that clusters have or do not have.

use serde_json::{Value, json};

/// A definition whose objects may have any fields. The first version is the one that is stored; `kind` gives the other names.
pub fn definition(group: &str, versions: &[&str], plural: &str, kind: &str, namespaced: bool) -> Value {
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    let version = |(index, name): (usize, &&str)| json!({"name": name, "served": true, "storage": index == 0, "schema": schema, "subresources": {"status": {}}});
    let versions: Vec<Value> = versions.iter().enumerate().map(version).collect();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group, "scope": if namespaced { "Namespaced" } else { "Cluster" }, "versions": versions,
            "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List")},
        },
    })
}

const POLICY: &str = "policy.networking.k8s.io";

/// AdminNetworkPolicy, v1alpha1.
pub fn admin_network_policy() -> Value {
    definition(POLICY, &["v1alpha1"], "adminnetworkpolicies", "AdminNetworkPolicy", false)
}

/// BaselineAdminNetworkPolicy, v1alpha1.
pub fn baseline_admin_network_policy() -> Value {
    definition(POLICY, &["v1alpha1"], "baselineadminnetworkpolicies", "BaselineAdminNetworkPolicy", false)
}

/// ClusterNetworkPolicy, v1alpha2.
pub fn cluster_network_policy() -> Value {
    definition(POLICY, &["v1alpha2"], "clusternetworkpolicies", "ClusterNetworkPolicy", false)
}

/// CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy, v2.
pub fn cilium() -> [Value; 2] {
    [
        definition("cilium.io", &["v2"], "ciliumnetworkpolicies", "CiliumNetworkPolicy", true),
        definition("cilium.io", &["v2"], "ciliumclusterwidenetworkpolicies", "CiliumClusterwideNetworkPolicy", false),
    ]
}

/// NetworkPolicy and GlobalNetworkPolicy of Calico, v1.
pub fn calico() -> [Value; 2] {
    [
        definition("crd.projectcalico.org", &["v1"], "networkpolicies", "NetworkPolicy", true),
        definition("crd.projectcalico.org", &["v1"], "globalnetworkpolicies", "GlobalNetworkPolicy", false),
    ]
}
