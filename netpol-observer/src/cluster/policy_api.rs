//! The types of policy.networking.k8s.io as its CustomResourceDefinitions publish them, experimental fields included.
//!
//! Every field that a file may leave out is optional here, required ones too: `convert` reports what is missing in the API server's
//! words. Both versions describe subjects and peers alike; what differs is in the modules.

pub mod v1alpha1;
pub mod v1alpha2;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize;

/// `spec.subject`: the pods a policy applies to. Exactly one field.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Subject {
    /// All pods of the namespaces.
    pub namespaces: Option<LabelSelector>,
    /// Pods by the labels of their namespaces and their own.
    pub pods: Option<NamespacedPod>,
}

/// Pods by the labels of their namespaces and their own.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamespacedPod {
    /// Empty selects all namespaces; so does a missing one in v1alpha2, where v1alpha1 requires it.
    pub namespace_selector: Option<LabelSelector>,
    /// Empty selects all pods; required.
    pub pod_selector: Option<LabelSelector>,
}

/// One entry of `from`. Exactly one field.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct IngressPeer {
    /// All pods of the namespaces.
    pub namespaces: Option<LabelSelector>,
    /// Pods by the labels of their namespaces and their own.
    pub pods: Option<NamespacedPod>,
}

/// One entry of `to`. Exactly one field.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EgressPeer {
    /// All pods of the namespaces.
    pub namespaces: Option<LabelSelector>,
    /// Pods by the labels of their namespaces and their own.
    pub pods: Option<NamespacedPod>,
    /// The addresses of the nodes (experimental).
    pub nodes: Option<LabelSelector>,
    /// Address ranges, 1 to 25.
    pub networks: Option<Vec<String>>,
    /// Names in the DNS, 1 to 25 (experimental).
    pub domain_names: Option<Vec<String>>,
}

impl From<IngressPeer> for EgressPeer {
    fn from(IngressPeer { namespaces, pods }: IngressPeer) -> Self {
        EgressPeer { namespaces, pods, ..EgressPeer::default() }
    }
}

/// What makes a type a resource of the API, for readers of files and for watches.
macro_rules! cluster_resource {
    ($type:ident, $version:literal, $plural:literal) => {
        impl k8s_openapi::Resource for $type {
            const API_VERSION: &'static str = concat!("policy.networking.k8s.io/", $version);
            const GROUP: &'static str = "policy.networking.k8s.io";
            const KIND: &'static str = stringify!($type);
            const VERSION: &'static str = $version;
            const URL_PATH_SEGMENT: &'static str = $plural;
            type Scope = k8s_openapi::ClusterResourceScope;
        }

        impl k8s_openapi::Metadata for $type {
            type Ty = ObjectMeta;

            fn metadata(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn metadata_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

use cluster_resource;
