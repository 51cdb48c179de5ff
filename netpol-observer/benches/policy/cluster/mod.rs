//! A made-up cluster as people run them, written as manifests. The same shape and seed give the same bytes.
//!
//! Teams own namespaces; a namespace holds workloads of about five pods each (Deployments with a `pod-template-hash`, StatefulSets whose
//! pods each have a label of their own, finished Jobs), which serve named ports and have a Service; every node has a range of
//! addresses, a host-network pod and a log collector; DNS, ingress controllers and Prometheus are in namespaces that policies name.

mod cluster_policies;
mod objects;
mod plan;
mod policies;
pub(crate) mod random;

use std::path::Path;

use random::Random;
use serde_json::Value;

/// How large a cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Pods, those that have ended and those in their node's network included.
    pub(crate) pods: usize,
    /// Namespaces, four of them the cluster's own.
    pub(crate) namespaces: usize,
    /// Policies of all kinds together.
    pub(crate) policies: usize,
}

/// The sizes that are measured.
pub(crate) const SHAPES: [Shape; 4] = [
    Shape { pods: 500, namespaces: 10, policies: 200 },
    Shape { pods: 2_000, namespaces: 40, policies: 1_000 },
    Shape { pods: 10_000, namespaces: 200, policies: 2_000 },
    Shape { pods: 100_000, namespaces: 2_000, policies: 20_000 },
];

impl Shape {
    /// Nodes, of about fifty pods each.
    pub(crate) fn nodes(&self) -> usize {
        (self.pods / 50).max(4)
    }

    /// Of the policies, those of the Admin and the Baseline tier.
    pub(crate) fn cluster_policies(&self) -> usize {
        (self.policies / 20).clamp(4, 41)
    }
}

/// The manifests of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifests {
    /// File names with their texts.
    pub(crate) files: Vec<(&'static str, String)>,
}

impl Manifests {
    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> usize {
        self.files.iter().map(|(_, text)| text.len()).sum()
    }

    /// Writes the files into a directory, which must be there.
    pub(crate) fn write(&self, directory: &Path) -> std::io::Result<()> {
        self.files.iter().try_for_each(|(name, text)| std::fs::write(directory.join(name), text))
    }
}

/// The cluster of this shape and seed.
pub(crate) fn generate(shape: &Shape, seed: u64) -> Manifests {
    let mut random = Random::new(seed);
    let plan = plan::Plan::new(shape, &mut random);
    let files = vec![
        ("namespaces.yaml", documents(objects::namespaces(&plan))),
        ("nodes.yaml", documents(objects::nodes(&plan))),
        ("pods.yaml", documents(objects::pods(&plan, &mut random))),
        ("services.yaml", documents(objects::services(&plan))),
        ("networkpolicies.yaml", documents(policies::network_policies(&plan, shape.policies - shape.cluster_policies(), &mut random))),
        ("clusterpolicies.yaml", documents(cluster_policies::cluster_policies(&plan, shape.cluster_policies(), &mut random))),
    ];
    Manifests { files }
}

fn documents(objects: Vec<Value>) -> String {
    let mut text = String::new();
    for object in objects {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(&object).expect("JSON is YAML"));
    }
    text
}
