//! What a direction comes to, without the reasons of what does not match.

use super::{admitting, words};
use crate::cluster::Direction;
use crate::identify::Party;
use crate::policy::connection::Case;
use crate::policy::difference::Ruling;
use crate::policy::evaluate::View;
use crate::policy::evaluate::walk::{By, Outcome};
use crate::policy::explanation::{PolicyRef, RuleRef};

/// What policies say of a connection in one direction. `parties` are its sides.
pub(in crate::policy) fn ruling(view: &View<'_>, case: &Case<'_>, direction: Direction, parties: [&Party; 2]) -> Ruling {
    match view.judge(case, direction) {
        Outcome::NotSubject(_) | Outcome::NotIsolated => Ruling::Open,
        Outcome::Allowed(By::Profile) => Ruling::Admitted { by: Vec::new() },
        Outcome::Allowed(By::Rule(policy, index)) => Ruling::Admitted { by: vec![RuleRef::of_cluster(policy, direction, index)] },
        Outcome::Allowed(By::NetworkPolicies) => Ruling::Admitted { by: admitting(view, case, direction) },
        Outcome::Denied(By::Rule(policy, index)) => {
            Ruling::Denied { by: Some(RuleRef::of_cluster(policy, direction, index)), isolating: Vec::new() }
        }
        Outcome::Denied(By::NetworkPolicies | By::Profile) => {
            let isolating = case.sides(direction).0.pod().map(|pod| view.isolating(pod, direction)).unwrap_or_default();
            Ruling::Denied { by: None, isolating: isolating.into_iter().map(PolicyRef::of).collect() }
        }
        Outcome::Undecided(doubt) => Ruling::Undecided { why: words::doubt(doubt, case.protocol, parties) },
    }
}
