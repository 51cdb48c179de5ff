//! What is captured → observations: the seam between the capture and whatever knows the cluster.

use std::sync::Arc;

use jiff::Timestamp;

use super::Observation;
use crate::capture::Captured;
use crate::flow::KernelNames;
use crate::pipeline::Pipeline;
use crate::policy::Engine;

/// Judges what is captured. Called by one thread only.
pub trait Judge: Send {
    /// Takes captured pieces in their order. What comes of them may come later, from [`tick`](Judge::tick).
    fn take(&mut self, captured: &[Captured], names: &dyn KernelNames, now: Timestamp) -> Vec<Observation>;

    /// What is due at `now`: drops that were held until it is known whose they are, changes of policies. `names` as with [`take`](Judge::take).
    fn tick(&mut self, names: &dyn KernelNames, now: Timestamp) -> Vec<Observation>;

    /// When [`tick`](Judge::tick) has something to give.
    fn next_due(&self) -> Option<Timestamp>;

    /// The time of the first piece that was taken and not looked at yet: what comes of it may be as early as that.
    fn behind_since(&self, names: &dyn KernelNames) -> Option<Timestamp>;

    /// Gives what is held, at the end.
    fn finish(&mut self, names: &dyn KernelNames, now: Timestamp) -> Vec<Observation>;
}

/// Judges by objects that do not change: those of manifests.
pub struct Manifests {
    pipeline: Pipeline,
}

impl Manifests {
    /// By the objects of this engine.
    pub fn new(engine: Arc<Engine>) -> Self {
        Manifests { pipeline: Pipeline::new(engine) }
    }
}

impl Judge for Manifests {
    fn take(&mut self, captured: &[Captured], names: &dyn KernelNames, _now: Timestamp) -> Vec<Observation> {
        captured.iter().map(|captured| Observation::of(self.pipeline.step(captured, names))).collect()
    }

    fn tick(&mut self, _names: &dyn KernelNames, _now: Timestamp) -> Vec<Observation> {
        Vec::new()
    }

    fn next_due(&self) -> Option<Timestamp> {
        None
    }

    fn behind_since(&self, _names: &dyn KernelNames) -> Option<Timestamp> {
        None
    }

    fn finish(&mut self, _names: &dyn KernelNames, _now: Timestamp) -> Vec<Observation> {
        Vec::new()
    }
}
