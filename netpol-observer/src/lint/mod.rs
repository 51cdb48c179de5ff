//! Policies → what in them is wrong, or worth knowing: `observer check`.
//!
//! Pure, like the engine, and it decides on no connection: where a verdict is needed it asks [`Engine::verdict`]. Pods with equal
//! namespace, labels and ports are one group (`facts`), no lint goes over pairs of pods, and whether one rule covers another is told
//! from what is written (`cover`), so that the answer does not change with every new pod.
//!
//! Manifests are often a part of a cluster: an application without its monitoring, policies without any pod. A lint that needs what is
//! not there keeps silent, and that it did is said once (`no-pods`).
#![forbid(unsafe_code)]

mod blocks;
mod cover;
mod dns;
mod facts;
mod finding;
mod near;
mod peers;
mod ports;
mod selects;
mod shadow;
mod shape;
#[cfg(test)]
mod tests;
mod tiers;
mod view;

use std::collections::BTreeSet;

pub use finding::{Code, Finding, ObjectRef, Severity};

use crate::cluster::manifests::Problem;
use crate::policy::Engine;

use facts::Facts;
use finding::{About, Draft};

/// Annotation of a policy with the codes, separated by commas, that are not reported about it.
pub const IGNORE_ANNOTATION: &str = "netpol-observer.io/ignore";

/// Which lints are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Only these; empty: all.
    pub only: BTreeSet<Code>,
    /// Not these.
    pub ignore: BTreeSet<Code>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// By file, line, object, field and code; those without a file last.
    pub findings: Vec<Finding>,
    /// How many findings the annotations of their policies suppress.
    pub suppressed: usize,
    /// How many policies of all kinds were looked at.
    pub policies: usize,
}

impl Report {
    /// How many findings are of this severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}

/// Looks at all policies of the engine. `problems` are the warnings of the manifests they come from.
pub fn lint(engine: &Engine, problems: &[Problem], options: &Options) -> Report {
    let facts = Facts::of(engine);
    let mut sink = Sink { options, findings: Vec::new(), suppressed: 0 };
    shape::lint(&facts, problems, &mut sink);
    selects::lint(&facts, &mut sink);
    peers::lint(&facts, &mut sink);
    ports::lint(&facts, &mut sink);
    blocks::lint(&facts, &mut sink);
    shadow::lint(&facts, &mut sink);
    tiers::lint(&facts, &mut sink);
    dns::lint(&facts, &mut sink);
    facts.silence(&mut sink);
    let Sink { mut findings, suppressed, .. } = sink;
    findings.sort_by(|a, b| key(a).cmp(&key(b)));
    let counts = engine.index().counts();
    Report { findings, suppressed, policies: counts.network_policies + counts.cluster_policies }
}

fn key(finding: &Finding) -> impl Ord + use<'_> {
    let Finding { code, severity, object, field, file, line, message, .. } = finding;
    (file.is_none(), file, line, object, std::cmp::Reverse(*severity), field, *code, message)
}

/// Takes findings, and leaves out what is not wanted.
struct Sink<'a> {
    options: &'a Options,
    findings: Vec<Finding>,
    suppressed: usize,
}

impl Sink<'_> {
    fn take(&mut self, draft: Draft<'_>) {
        let Draft { finding, about } = draft;
        let Options { only, ignore } = self.options;
        if !self.wants(finding.code) {
            debug_assert!(ignore.contains(&finding.code) || !only.is_empty());
        } else if about.is_some_and(|about: About<'_>| about.ignored().any(|code| code == finding.code.as_str())) {
            self.suppressed += 1;
        } else {
            self.findings.push(finding);
        }
    }

    /// Whether a lint is wanted at all; those that cost something ask first.
    fn wants(&self, code: Code) -> bool {
        let Options { only, ignore } = self.options;
        !ignore.contains(&code) && (only.is_empty() || only.contains(&code))
    }
}
