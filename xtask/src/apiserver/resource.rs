//! The resources a server has: those built in, and those that a CustomResourceDefinition adds while it exists.

use serde_json::Value;

/// One resource in one group, with all versions it is served in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resource {
    /// API group, empty for core.
    pub(super) group: String,
    /// Versions that are served, the preferred one first. All share their objects.
    pub(super) versions: Vec<String>,
    /// `pods`.
    pub(super) plural: String,
    /// `pod`.
    pub(super) singular: String,
    /// `Pod`.
    pub(super) kind: String,
    /// Kind of its lists.
    pub(super) list_kind: String,
    /// False for a resource of the cluster.
    pub(super) namespaced: bool,
    /// `po`.
    pub(super) short_names: Vec<String>,
    /// `status` is a resource of its own: writes to one do not touch the other.
    pub(super) has_status: bool,
    /// Comes from a CustomResourceDefinition: list items name their kind, strategic merge patches are refused.
    pub(super) custom: bool,
}

impl Resource {
    /// `pods`, or `networkpolicies.networking.k8s.io`: also the name of the CustomResourceDefinition.
    pub(super) fn key(&self) -> String {
        resource_key(&self.group, &self.plural)
    }

    /// `v1`, or `networking.k8s.io/v1`.
    pub(super) fn api_version(&self, version: &str) -> String {
        if self.group.is_empty() { version.to_owned() } else { format!("{}/{version}", self.group) }
    }

    /// What a valid CustomResourceDefinition describes. `None` when it lacks names, or serves no version.
    pub(super) fn of_definition(definition: &Value) -> Option<Resource> {
        let spec = &definition["spec"];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let kind = text(&spec["names"]["kind"])?;
        let served: Vec<&Value> = spec["versions"].as_array()?.iter().filter(|version| version["served"] == true).collect();
        let mut versions: Vec<String> = served.iter().filter_map(|version| text(&version["name"])).collect();
        versions.sort_by_key(|version| version_rank(version));
        if versions.is_empty() {
            return None;
        }
        Some(Resource {
            group: text(&spec["group"])?,
            versions,
            plural: text(&spec["names"]["plural"])?,
            singular: text(&spec["names"]["singular"]).unwrap_or_else(|| kind.to_lowercase()),
            list_kind: text(&spec["names"]["listKind"]).unwrap_or_else(|| format!("{kind}List")),
            kind,
            namespaced: spec["scope"] == "Namespaced",
            short_names: spec["names"]["shortNames"].as_array().into_iter().flatten().filter_map(text).collect(),
            has_status: served.iter().any(|version| version["subresources"]["status"].is_object()),
            custom: true,
        })
    }
}

/// The name under which a store keeps a resource.
pub(super) fn resource_key(group: &str, plural: &str) -> String {
    if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") }
}

/// Kubernetes orders versions by stability, then number: v2, v1, v1beta1, v1alpha2, v1alpha1, then others by name.
pub(super) fn version_rank(version: &str) -> (u8, std::cmp::Reverse<u32>, std::cmp::Reverse<u32>, String) {
    let parsed = version.strip_prefix('v').and_then(|rest| {
        let digits = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
        let major: u32 = rest[..digits].parse().ok()?;
        let (stability, minor) = match &rest[digits..] {
            "" => (0, 0),
            tail if tail.starts_with("beta") => (1, tail[4..].parse().ok()?),
            tail if tail.starts_with("alpha") => (2, tail[5..].parse().ok()?),
            _ => return None,
        };
        Some((stability, major, minor))
    });
    let (stability, major, minor) = parsed.unwrap_or((3, 0, 0));
    (stability, std::cmp::Reverse(major), std::cmp::Reverse(minor), version.to_owned())
}

/// What every server has: group, version, plural, kind, namespaced, short names (comma-separated), has status.
type Builtin = (&'static str, &'static str, &'static str, &'static str, bool, &'static str, bool);

const BUILTIN: &[Builtin] = &[
    ("", "v1", "configmaps", "ConfigMap", true, "cm", false),
    ("", "v1", "namespaces", "Namespace", false, "ns", true),
    ("", "v1", "nodes", "Node", false, "no", true),
    ("", "v1", "pods", "Pod", true, "po", true),
    ("", "v1", "secrets", "Secret", true, "", false),
    ("", "v1", "serviceaccounts", "ServiceAccount", true, "sa", false),
    ("", "v1", "services", "Service", true, "svc", true),
    ("apps", "v1", "daemonsets", "DaemonSet", true, "ds", true),
    ("apps", "v1", "deployments", "Deployment", true, "deploy", true),
    ("apps", "v1", "replicasets", "ReplicaSet", true, "rs", true),
    ("coordination.k8s.io", "v1", "leases", "Lease", true, "", false),
    ("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", true, "", false),
    ("events.k8s.io", "v1", "events", "Event", true, "ev", false),
    ("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", true, "netpol", false),
    ("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", false, "", false),
    ("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", false, "", false),
    ("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding", true, "", false),
    ("rbac.authorization.k8s.io", "v1", "roles", "Role", true, "", false),
    ("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", false, "crd", true),
];

/// The resources of an empty server.
pub(super) fn builtin() -> Vec<Resource> {
    let resource = |&(group, version, plural, kind, namespaced, short, has_status): &Builtin| Resource {
        group: group.to_owned(),
        versions: vec![version.to_owned()],
        plural: plural.to_owned(),
        singular: kind.to_lowercase(),
        kind: kind.to_owned(),
        list_kind: format!("{kind}List"),
        namespaced,
        short_names: short.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
        has_status,
        custom: false,
    };
    BUILTIN.iter().map(resource).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn versions_of_a_definition_are_ordered_by_stability() {
        let version = |name: &str, served: bool| json!({"name": name, "served": served});
        let definition = json!({"spec": {
            "group": "example.com", "scope": "Cluster", "names": {"plural": "things", "kind": "Thing"},
            "versions": [version("v1alpha1", true), version("v1beta1", true), version("v1", true), version("v2", false), version("odd", true)],
        }});
        let resource = Resource::of_definition(&definition).unwrap();
        assert_eq!(resource.versions, ["v1", "v1beta1", "v1alpha1", "odd"]);
        assert_eq!((resource.singular.as_str(), resource.list_kind.as_str()), ("thing", "ThingList"));
        assert_eq!(Resource::of_definition(&json!({"spec": {"group": "example.com", "names": {"kind": "Thing"}, "versions": []}})), None);
    }
}
