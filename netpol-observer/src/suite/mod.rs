//! Policy tests: what people expect of connections → what came of it. `observer check`.
//!
//! Pure. `side` and `port` read what is written, `judge` compares all connections of a test with what is expected, `way` those that go by a name.
//! Who is meant is found by `question`, what a connection comes to is the [`Engine`]'s to say.
#![forbid(unsafe_code)]

mod judge;
mod port;
mod result;
mod side;
#[cfg(test)]
mod tests;
mod way;
mod words;

pub use crate::cluster::policy_test::{Expect, PolicyTest, TestDocument, schema};
pub use result::{Failure, MAX_FAILURES, Outcome, Problem, Report, TestResult};

use std::sync::Arc;

use crate::cluster::Origin;
use crate::cluster::policy_test::Test;
use crate::policy::Engine;

/// Judges all tests of all documents.
pub fn run(engine: &Engine, documents: &[TestDocument]) -> Report {
    let judge = judge::Judge::of(engine);
    let mut results = Vec::new();
    for TestDocument { document, origin, lines } in documents {
        let suite: Arc<str> = match &document.metadata.name {
            Some(name) if !name.is_empty() => name.as_str().into(),
            _ => origin.file.clone(),
        };
        let namespace = document.namespace.as_deref().unwrap_or("default");
        for (at, test) in document.tests.iter().enumerate() {
            let line = lines.get(at).copied().unwrap_or(origin.line);
            let mut result = TestResult {
                suite: suite.clone(),
                name: name(test),
                origin: Origin { file: origin.file.clone(), line },
                outcome: Outcome::Passed,
                expect: test.expect,
                connections: 0,
                failures: Vec::new(),
                more_failures: 0,
                problem: None,
            };
            match judge.test(test, namespace) {
                Ok(found) => {
                    result.connections = found.connections;
                    result.outcome = if found.failures.is_empty() { Outcome::Passed } else { Outcome::Failed };
                    result.more_failures = found.more;
                    result.failures = found.failures;
                }
                Err(problem) => {
                    result.outcome = Outcome::Broken;
                    result.problem = Some(problem);
                }
            }
            results.push(result);
        }
    }
    Report { results }
}

/// What a test is called.
fn name(test: &Test) -> String {
    if let Some(name) = test.name.as_deref().filter(|name| !name.trim().is_empty()) {
        return name.to_owned();
    }
    let ports = if test.port.0.is_empty() { String::new() } else { format!(" on {}", test.port.0.join(", ")) };
    format!("{} to {}{ports}", test.from.0.join(", "), test.to.0.join(", "))
}
