//! What came of policy tests.

use std::sync::Arc;

use serde::Serialize;

use crate::cluster::Origin;
use crate::cluster::policy_test::Expect;
use crate::policy::{Explanation, PolicyRef, Verdict};

/// What came of all tests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// In the order of files and lines.
    pub results: Vec<TestResult>,
}

/// What came of one test.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TestResult {
    /// The `metadata.name` of its suite, or else the file's name.
    pub suite: Arc<str>,
    /// As the test is named; `FROM to TO` where it has no name.
    pub name: String,
    /// Where the test stands.
    pub origin: Origin,
    /// What became of it.
    pub outcome: Outcome,
    /// What it expects.
    pub expect: Expect,
    /// How many connections were judged: pairs of pods (or of a pod and an address) on a port or a range of ports.
    pub connections: u64,
    /// Connections that are not as expected, one for each pair of workloads and ports; at most [`MAX_FAILURES`].
    pub failures: Vec<Failure>,
    /// Further pairs of workloads and ports that are not as expected.
    pub more_failures: u64,
    /// Why it could not be judged, with what to do; only of [`Outcome::Broken`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// Failures of one test that are kept; more are counted.
pub const MAX_FAILURES: usize = 20;

/// What became of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// All connections are as expected.
    Passed,
    /// At least one is not.
    Failed,
    /// It could not be judged: it asks for what is not there. A test about nobody passes never.
    Broken,
}

/// Why a test could not be judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hints: Vec<String>,
}

/// A connection that is not as expected.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// Who calls: `shop/deploy/web`, an address.
    pub from: String,
    /// Who is called.
    pub to: String,
    /// `8080/TCP`, `1-65535/UDP`, or `ICMP`.
    pub port: String,
    /// What the engine says.
    pub verdict: Verdict,
    /// What is wrong in one sentence without its end: `is denied: no rule of NetworkPolicy shop/api admits it`, or
    /// `is admitted by NetworkPolicy shop/other, not by shop/api`.
    pub message: String,
    /// The rule or the policy that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyRef>,
    /// Where the rule or policy that decided stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// Why, in full; absent where it is no policy's doing, as with a Service without endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explanation: Option<Explanation>,
}

impl Report {
    /// How many tests ended so.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.results.iter().filter(|result| result.outcome == outcome).count()
    }

    /// Whether all passed.
    pub fn all_passed(&self) -> bool {
        self.count(Outcome::Passed) == self.results.len()
    }
}
