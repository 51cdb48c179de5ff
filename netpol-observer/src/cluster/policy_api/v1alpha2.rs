//! ClusterNetworkPolicy.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{EgressPeer, IngressPeer, Subject, cluster_resource};

cluster_resource!(ClusterNetworkPolicy, "v1alpha2", "clusternetworkpolicies");

/// A policy of the Admin or the Baseline tier.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterNetworkPolicy {
    /// policy.networking.k8s.io/v1alpha2
    pub api_version: Option<String>,
    /// ClusterNetworkPolicy
    pub kind: Option<String>,
    /// Name, labels, annotations.
    #[serde(default)]
    pub metadata: ObjectMeta,
    /// What it does; required.
    pub spec: Option<ClusterNetworkPolicySpec>,
    /// What an implementation wrote; not read.
    pub status: Option<IgnoredAny>,
}

/// `spec` of a [`ClusterNetworkPolicy`].
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct ClusterNetworkPolicySpec {
    /// `Admin` or `Baseline`; required.
    pub tier: Option<String>,
    /// 0 to 1000, the lower one goes first within the tier; required.
    pub priority: Option<i32>,
    /// Required.
    pub subject: Option<Subject>,
    /// At most 25.
    pub ingress: Option<Vec<IngressRule>>,
    /// At most 25.
    pub egress: Option<Vec<EgressRule>>,
}

/// One entry of `spec.ingress`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct IngressRule {
    /// At most 100 characters.
    pub name: Option<String>,
    /// `Accept`, `Deny` or `Pass`; required.
    pub action: Option<String>,
    /// 1 to 25; required.
    pub from: Option<Vec<IngressPeer>>,
    /// 1 to 25; every port when missing.
    pub protocols: Option<Vec<Protocol>>,
}

/// One entry of `spec.egress`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct EgressRule {
    /// At most 100 characters.
    pub name: Option<String>,
    /// `Accept`, `Deny` or `Pass`; required.
    pub action: Option<String>,
    /// 1 to 25; required.
    pub to: Option<Vec<EgressPeer>>,
    /// 1 to 25; every port when missing.
    pub protocols: Option<Vec<Protocol>>,
}

/// One entry of `protocols`. Exactly one field.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Protocol {
    /// TCP.
    pub tcp: Option<ProtocolMatch>,
    /// UDP.
    pub udp: Option<ProtocolMatch>,
    /// SCTP.
    pub sctp: Option<ProtocolMatch>,
    /// The destination pod's container port of this name.
    pub destination_named_port: Option<String>,
}

/// `tcp`, `udp` or `sctp`. At least one field.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProtocolMatch {
    /// The ports of the protocol.
    pub destination_port: Option<Port>,
}

/// `destinationPort`. Exactly one field.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Port {
    /// 1 to 65535.
    pub number: Option<i32>,
    /// Ports in a row.
    pub range: Option<PortRange>,
}

/// `range`
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct PortRange {
    /// 1 to 65535, lower than `end`; required.
    pub start: Option<i32>,
    /// 1 to 65535, the range's last port; required.
    pub end: Option<i32>,
}
