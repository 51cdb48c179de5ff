//! Connections by a name: the cluster's DNS, the Service and its endpoints, all of which have to work.

use super::Expect;
use super::judge::{Found, at, blame, is_expected, problem};
use super::port::Called;
use super::result::{Failure, Problem};
use super::side::Unit;
use super::words::decision;
use crate::identify::Identity;
use crate::policy::{Admission, Engine, Explanation, PolicyRef, Verdict};
use crate::question::{Answer, Callee, End, Question, Step, explain};

/// Judges calls by a name from all units, on each of the ports.
///
/// # Errors
/// The name leads nowhere, or the port is a range.
pub(super) fn judge<'u>(
    engine: &Engine,
    units: impl Iterator<Item = &'u Unit>,
    callee: &Callee,
    ports: &[Called],
    (expect, by): (Expect, &[(String, String)]),
    found: &mut Found,
) -> Result<(), Problem> {
    let ports = if ports.is_empty() { vec![None] } else { ports.iter().copied().map(Some).collect() };
    for unit in units {
        for from in ends(unit) {
            for called in &ports {
                let (port, protocol) = match called {
                    None => (None, None),
                    Some(Called::Ports(range)) if range.from == range.to => (Some(range.from), Some(range.protocol)),
                    Some(_) => {
                        return Err(problem("port: a Service or a URL is called on one port", "write a port such as 8080 or 53/UDP"));
                    }
                };
                let question = Question { from: from.clone(), to: callee.clone(), port, protocol };
                let answer = explain(&question, engine).map_err(|error| at("to", error))?;
                found.connections += 1;
                if !is_expected(answer.verdict, expect) {
                    found.push(|| failure(unit, callee, &answer));
                } else if !by.is_empty()
                    && let Some(message) = answer.decisive().and_then(|path| blame(&deciding(&path.explanation), answer.verdict, by))
                {
                    found.push(|| Failure { message, ..failure(unit, callee, &answer) });
                }
            }
        }
    }
    Ok(())
}

/// One end for all pods that are alike.
fn ends(unit: &Unit) -> Vec<End> {
    let mut seen = Vec::new();
    let mut ends = Vec::new();
    for member in &unit.members {
        match &member.identity {
            Identity::Pod(pod) => {
                let alike = (&pod.labels, &pod.ports);
                if !seen.contains(&alike) {
                    seen.push(alike);
                    ends.push(End::Pod { namespace: pod.namespace.to_string(), name: pod.name.to_string() });
                }
            }
            Identity::Node(node) => ends.push(End::Node(node.name.to_string())),
            _ => ends.extend(member.ips.first().map(|ip| End::Ip(*ip))),
        }
    }
    ends
}

fn failure(unit: &Unit, callee: &Callee, answer: &Answer) -> Failure {
    let port = match answer.port {
        Some(port) => format!("{port}/{}", answer.protocol),
        None => answer.protocol.to_string(),
    };
    let broken = answer.chain.iter().find_map(|link| match &link.step {
        Step::Service(service) => service.problem.clone(),
        Step::Name { name, addresses: Some(addresses) } if addresses.is_empty() => Some(format!("{name} has no address")),
        _ => None,
    });
    let step = answer.chain.iter().find(|link| link.verdict == answer.verdict && !link.step.paths().is_empty());
    let path = answer.decisive().filter(|_| broken.is_none() || answer.verdict == Verdict::Deny);
    let decided = path.map(|path| decision(&path.explanation));
    let (message, policy, origin) = match (decided, broken) {
        (Some(decided), _) => (decided.message, decided.policy, decided.origin),
        (None, Some(why)) => (format!("does not work: {why}"), None, None),
        (None, None) => ("cannot be decided".to_owned(), None, None),
    };
    let is_lookup = matches!(step.map(|link| &link.step), Some(Step::Dns { .. }));
    let message = if is_lookup && answer.verdict != Verdict::Allow { format!("the DNS lookup {message}") } else { message };
    let explanation = path.map(|path| path.explanation.clone());
    Failure { from: unit.name(), to: callee.to_string(), port, verdict: answer.verdict, message, policy, origin, explanation }
}

/// The policies that decided.
fn deciding(explanation: &Explanation) -> Vec<&PolicyRef> {
    let mut found = Vec::new();
    for direction in [&explanation.egress, &explanation.ingress] {
        match (&direction.admission, explanation.verdict) {
            (Admission::Allowed { by }, Verdict::Allow) => found.extend(by.iter().map(|rule| &rule.policy)),
            (Admission::Denied { by, isolating, .. }, Verdict::Deny) => {
                found.extend(by.iter().map(|rule| &rule.policy));
                found.extend(isolating.iter().map(|isolating| &isolating.policy));
            }
            _ => {}
        }
    }
    found
}
