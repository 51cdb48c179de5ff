//! The resources that are watched: which of the API's there are, and what their paths are.

use std::collections::BTreeMap;
use std::fmt;

use crate::cluster::Kind;

/// The group of the cluster-scoped policies that the engine reads.
pub(super) const POLICY_GROUP: &str = "policy.networking.k8s.io";

/// A resource of the API in one of its versions.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Resource {
    /// API group; empty for core.
    pub(super) group: String,
    /// Version: `v1`.
    pub(super) version: String,
    /// Name in paths and in RBAC: `pods`.
    pub(super) plural: String,
    /// `Pod`.
    pub(super) kind: String,
    /// Whether its objects lie in namespaces.
    pub(super) namespaced: bool,
}

impl Resource {
    fn new(group: &str, version: &str, plural: &str, kind: &str, namespaced: bool) -> Self {
        Resource { group: group.into(), version: version.into(), plural: plural.into(), kind: kind.into(), namespaced }
    }

    /// The path of all objects of the cluster.
    pub(super) fn path(&self) -> String {
        let Resource { group, version, plural, .. } = self;
        if group.is_empty() { format!("/api/{version}/{plural}") } else { format!("/apis/{group}/{version}/{plural}") }
    }
}

/// As in RBAC and kubectl: `pods`, `networkpolicies.networking.k8s.io`.
impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Resource { group, plural, .. } = self;
        if group.is_empty() { f.write_str(plural) } else { write!(f, "{plural}.{group}") }
    }
}

/// What every cluster has, and without which nothing can be explained.
pub(super) fn required() -> [(Kind, Resource); 6] {
    [
        (Kind::Namespace, Resource::new("", "v1", "namespaces", "Namespace", false)),
        (Kind::Node, Resource::new("", "v1", "nodes", "Node", false)),
        (Kind::Pod, Resource::new("", "v1", "pods", "Pod", true)),
        (Kind::Service, Resource::new("", "v1", "services", "Service", true)),
        (Kind::EndpointSlice, Resource::new("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", true)),
        (Kind::NetworkPolicy, Resource::new("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", true)),
    ]
}

/// What a cluster has while somebody has installed its definition.
pub(super) fn optional() -> [(Kind, Resource); 3] {
    let policy = |version, plural, kind| Resource::new(POLICY_GROUP, version, plural, kind, false);
    [
        (Kind::AdminNetworkPolicy, policy("v1alpha1", "adminnetworkpolicies", "AdminNetworkPolicy")),
        (Kind::BaselineAdminNetworkPolicy, policy("v1alpha1", "baselineadminnetworkpolicies", "BaselineAdminNetworkPolicy")),
        (Kind::ClusterNetworkPolicy, policy("v1alpha2", "clusternetworkpolicies", "ClusterNetworkPolicy")),
    ]
}

/// Which of the kinds that are read it is.
pub(super) fn kind_of(resource: &Resource) -> Option<Kind> {
    required().into_iter().chain(optional()).find(|(_, known)| known == resource).map(|(kind, _)| kind)
}

/// Kinds of network plugins and clouds that filter packets on the node, by group. Left out: what is not enforced (Calico's Staged kinds),
/// what only steers traffic (CiliumLocalRedirectPolicy, AdminPolicyBasedExternalRoute, egress gateways), what others make from
/// NetworkPolicies (the PolicyEndpoints of AWS), what is enforced outside of the node (SecurityGroupPolicy of AWS) and by proxies.
const FOREIGN: &[(&str, &[&str])] = &[
    ("cilium.io", &["ciliumnetworkpolicies", "ciliumclusterwidenetworkpolicies"]),
    ("crd.antrea.io", &["networkpolicies", "clusternetworkpolicies"]),
    ("crd.nsx.vmware.com", &["securitypolicies"]),
    ("crd.projectcalico.org", &["networkpolicies", "globalnetworkpolicies"]),
    ("k8s.cni.cncf.io", &["multi-networkpolicies"]),
    ("k8s.ovn.org", &["egressfirewalls"]),
    ("network.openshift.io", &["egressnetworkpolicies"]),
    ("networking.gke.io", &["fqdnnetworkpolicies"]),
    ("networking.k8s.aws", &["applicationnetworkpolicies", "clusternetworkpolicies"]),
    (POLICY_GROUP, &["adminnetworkpolicies", "baselineadminnetworkpolicies", "clusternetworkpolicies"]),
    ("projectcalico.org", &["networkpolicies", "globalnetworkpolicies"]),
];

/// Calico's API server shows the objects of the first group once more in the second.
const SAME_OBJECTS: (&str, &str) = ("crd.projectcalico.org", "projectcalico.org");

/// What a ClusterRole must allow to list and to watch: resources by API group. Those that a cluster does not have do no harm in it.
pub fn permissions() -> BTreeMap<&'static str, Vec<&'static str>> {
    let mut permissions: BTreeMap<&str, Vec<&str>> = FOREIGN.iter().map(|(group, plurals)| (*group, plurals.to_vec())).collect();
    permissions.insert("", vec!["namespaces", "nodes", "pods", "services"]);
    permissions.insert("discovery.k8s.io", vec!["endpointslices"]);
    permissions.insert("networking.k8s.io", vec!["networkpolicies"]);
    permissions
}

/// The groups that discovery asks about.
pub(super) fn is_group_of_interest(group: &str) -> bool {
    FOREIGN.iter().any(|(foreign, _)| *foreign == group)
}

/// What discovery found of a cluster: all resources of the groups of interest, in all versions, the preferred version of each group first.
pub(super) struct Served {
    pub(super) resources: Vec<Resource>,
}

impl Served {
    /// The optional kinds that the engine reads and the cluster has.
    pub(super) fn read(&self) -> Vec<(Kind, Resource)> {
        optional().into_iter().filter(|(_, resource)| self.resources.contains(resource)).collect()
    }

    /// The kinds that are only counted, each once, in the version that its group prefers.
    pub(super) fn foreign(&self) -> Vec<Resource> {
        let read = self.read();
        let is_read = |resource: &Resource| read.iter().any(|(_, read)| (&read.group, &read.kind) == (&resource.group, &resource.kind));
        let has = |group: &str| self.resources.iter().any(|resource| resource.group == group && is_foreign(resource));
        let doubled = has(SAME_OBJECTS.0);
        let mut found: Vec<Resource> = Vec::new();
        for resource in self.resources.iter().filter(|resource| is_foreign(resource) && !is_read(resource)) {
            let known = found.iter().any(|known| (&known.group, &known.kind) == (&resource.group, &resource.kind));
            let is_there_already = known || (doubled && resource.group == SAME_OBJECTS.1);
            if !is_there_already {
                found.push(resource.clone());
            }
        }
        found
    }
}

fn is_foreign(resource: &Resource) -> bool {
    FOREIGN.iter().any(|(group, plurals)| *group == resource.group && plurals.contains(&resource.plural.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(resources: &[(&str, &str, &str)]) -> Served {
        let plural = |kind: &str| kind.to_lowercase().replace("policy", "policies");
        let resource = |(group, version, kind): &(&str, &str, &str)| Resource::new(group, version, &plural(kind), kind, false);
        Served { resources: resources.iter().map(resource).collect() }
    }

    fn shown(foreign: &[Resource]) -> Vec<String> {
        foreign.iter().map(|resource| format!("{}/{} {}", resource.group, resource.version, resource.kind)).collect()
    }

    #[test]
    fn kinds_in_versions_that_are_not_read_are_counted() {
        let served = served(&[
            (POLICY_GROUP, "v1beta1", "ClusterNetworkPolicy"),
            (POLICY_GROUP, "v1beta1", "AdminNetworkPolicy"),
            (POLICY_GROUP, "v1alpha1", "AdminNetworkPolicy"),
        ]);
        let read: Vec<Kind> = served.read().into_iter().map(|(kind, _)| kind).collect();
        assert_eq!(read, [Kind::AdminNetworkPolicy]);
        assert_eq!(shown(&served.foreign()), ["policy.networking.k8s.io/v1beta1 ClusterNetworkPolicy"]);
    }

    #[test]
    fn kinds_of_plugins_are_counted_once() {
        let served = served(&[
            ("crd.projectcalico.org", "v1", "GlobalNetworkPolicy"),
            ("crd.projectcalico.org", "v1", "StagedNetworkPolicy"),
            ("projectcalico.org", "v3", "GlobalNetworkPolicy"),
            ("cilium.io", "v2", "CiliumNetworkPolicy"),
            ("cilium.io", "v2alpha1", "CiliumNetworkPolicy"),
            ("cilium.io", "v2", "CiliumLocalRedirectPolicy"),
        ]);
        assert_eq!(shown(&served.foreign()), ["crd.projectcalico.org/v1 GlobalNetworkPolicy", "cilium.io/v2 CiliumNetworkPolicy"]);
        assert!(served.read().is_empty());
    }

    #[test]
    fn calicos_own_group_counts_where_it_is_the_only_one() {
        let served = served(&[("projectcalico.org", "v3", "GlobalNetworkPolicy")]);
        assert_eq!(shown(&served.foreign()), ["projectcalico.org/v3 GlobalNetworkPolicy"]);
    }

    #[test]
    fn all_that_is_watched_is_in_the_permissions() {
        let permissions = permissions();
        for (_, Resource { group, plural, .. }) in required().into_iter().chain(optional()) {
            assert!(permissions[&*group].contains(&&*plural), "{group}/{plural}");
        }
    }
}
