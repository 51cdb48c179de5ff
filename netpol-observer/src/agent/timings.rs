//! How long things take, for metrics.

use prometheus_client::metrics::histogram::Histogram;

/// Distributions of times, in seconds. Clones are the same distributions.
#[derive(Clone, Debug)]
pub struct Timings {
    /// To explain a drop. Of drops that are explained together it is the mean.
    pub explanation: Histogram,
    /// From a drop in the kernel until readers have it explained, the time in which it was not known whose it is included.
    pub report: Histogram,
    /// From when a change was read from a watch until drops are judged by it.
    pub update: Histogram,
}

impl Default for Timings {
    fn default() -> Self {
        Timings {
            explanation: Histogram::new([10e-6, 40e-6, 160e-6, 640e-6, 2.5e-3, 10e-3, 40e-3, 160e-3, 640e-3]),
            report: Histogram::new([1e-3, 5e-3, 20e-3, 100e-3, 500e-3, 1.0, 3.0, 5.0, 15.0]),
            update: Histogram::new([1e-3, 5e-3, 20e-3, 100e-3, 500e-3, 1.0, 3.0, 10.0, 30.0]),
        }
    }
}
