//! What the API asks of the cluster's objects as they are now: the seam between the server and whatever keeps them.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::cluster::Index;
use crate::policy::Engine;
use crate::watch;

/// The cluster's objects of now. Asked by threads that may block; the capture's is none of them.
pub trait Objects: Send + Sync {
    /// Runs something on the engine of now.
    fn with_engine(&self, run: &mut dyn FnMut(&Engine));

    /// What has to be known before answers can be relied on, and is not known yet: `Pods were not listed yet`.
    fn missing(&self) -> Vec<String>;

    /// What is to be said with every answer, because it could be otherwise for it.
    fn caveats(&self) -> Vec<String>;

    /// For `/v1/status`.
    fn status(&self) -> ObjectsStatus;

    /// How the watches stand, where there are any.
    fn watches(&self) -> Option<watch::Status> {
        None
    }

    /// Since when there are changes that are not taken in yet.
    fn waiting_since(&self) -> Option<Timestamp> {
        None
    }

    /// Whether there are no objects at all, nor will be: nothing has a name then.
    fn is_without(&self) -> bool;
}

/// What there is to say about the objects.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectsStatus {
    /// How many of each kind.
    pub objects: BTreeMap<&'static str, usize>,
    /// How the watches stand ([`Status`](crate::watch::Status)). Absent for manifests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sync: Option<Value>,
    /// Kinds of policies that are not evaluated, with their numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub foreign: Option<Value>,
    /// How much of the past is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeline: Option<Value>,
}

impl ObjectsStatus {
    /// The numbers of an index.
    pub fn of(index: &Index) -> Self {
        let counts = index.counts();
        let objects = BTreeMap::from([
            ("clusterPolicies", counts.cluster_policies),
            ("endpointSlices", counts.endpoint_slices),
            ("namespaces", counts.namespaces),
            ("networkPolicies", counts.network_policies),
            ("nodes", counts.nodes),
            ("pods", counts.pods),
            ("services", counts.services),
        ]);
        ObjectsStatus { objects, ..ObjectsStatus::default() }
    }
}

/// Objects that do not change.
pub struct FixedObjects {
    engine: Arc<Engine>,
    without: bool,
}

impl FixedObjects {
    /// Those of this engine; `without`: no manifests were given at all.
    pub fn new(engine: Arc<Engine>, without: bool) -> Self {
        FixedObjects { engine, without }
    }
}

impl Objects for FixedObjects {
    fn with_engine(&self, run: &mut dyn FnMut(&Engine)) {
        run(&self.engine);
    }

    fn missing(&self) -> Vec<String> {
        Vec::new()
    }

    fn caveats(&self) -> Vec<String> {
        Vec::new()
    }

    fn status(&self) -> ObjectsStatus {
        ObjectsStatus::of(self.engine.index())
    }

    fn is_without(&self) -> bool {
        self.without
    }
}
