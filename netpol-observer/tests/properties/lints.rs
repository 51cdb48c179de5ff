//! What holds for the lints whatever the cluster.

use netpol_observer::cluster::{Direction, Index, NetworkPolicy};
use netpol_observer::lint::{Code, Options, Severity, lint};
use netpol_observer::policy::{Engine, Profile};
use proptest::prelude::*;

use crate::clusters::{cluster, connection};
use crate::verdict;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// It does not panic, and what it finds can be read: sentences without their end, in order, each about a policy that is there.
    #[test]
    fn findings_are_whole(index in cluster()) {
        let report = lint(&Engine::over(index.clone(), Profile::default()), &[], &Options::default());
        for finding in &report.findings {
            prop_assert!(!finding.message.is_empty() && !finding.message.ends_with('.') && !finding.help.is_empty(), "{finding:?}");
            let policy = finding.object.as_ref().map(|object| index.policy(&object.namespace, &object.name).is_some());
            prop_assert!(policy.unwrap_or(finding.code == Code::NoPods), "{finding:?}");
            if matches!(finding.code, Code::SelectsNoPod) {
                prop_assert_eq!(finding.severity, Severity::Warning);
            }
        }
        prop_assert_eq!(report.policies, index.policies().count());
        let again = lint(&Engine::over(index, Profile::default()), &[], &Options::default());
        prop_assert_eq!(again, report);
    }

    /// A rule that is reported as superfluous may go without any verdict changing.
    #[test]
    fn superfluous_rules_may_go(index in cluster(), call in connection()) {
        let report = lint(&Engine::over(index.clone(), Profile::default()), &[], &Options::default());
        for finding in report.findings.iter().filter(|finding| finding.code == Code::ShadowedRule) {
            let (Some(object), Some(field)) = (&finding.object, &finding.field) else { panic!("{finding:?}") };
            let policy = index.policy(&object.namespace, &object.name).unwrap();
            let mut fewer = index.clone();
            fewer.apply(without_rule(policy, field));
            let connection = call.of(&index);
            prop_assert_eq!(
                verdict(&connection, &index, &Profile::default()),
                verdict(&call.of(&fewer), &fewer, &Profile::default()),
                "{:?}",
                finding
            );
        }
    }

    /// A policy that selects no pod may go without any verdict between pods changing.
    #[test]
    fn policies_of_nobody_may_go(index in cluster(), call in connection()) {
        let report = lint(&Engine::over(index.clone(), Profile::default()), &[], &Options::default());
        let mut fewer = Index::clone(&index);
        for object in report.findings.iter().filter(|finding| finding.code == Code::SelectsNoPod).filter_map(|finding| finding.object.as_ref()) {
            let policy = index.policy(&object.namespace, &object.name).unwrap();
            // It stays as one that isolates nobody: whether there is any policy decides about addresses without a known owner.
            fewer.apply(NetworkPolicy { ingress: policy.ingress.as_ref().map(|_| Vec::new()), egress: policy.egress.as_ref().map(|_| Vec::new()), ..(**policy).clone() });
        }
        prop_assert_eq!(verdict(&call.of(&index), &index, &Profile::default()), verdict(&call.of(&fewer), &fewer, &Profile::default()));
    }
}

/// The policy without the rule at `spec.ingress[1]`.
fn without_rule(policy: &NetworkPolicy, field: &str) -> NetworkPolicy {
    let (list, index) = field.strip_prefix("spec.").and_then(|field| field.strip_suffix(']')?.split_once('[')).unwrap();
    let mut policy = policy.clone();
    let direction = if list == "ingress" { Direction::Ingress } else { Direction::Egress };
    let rules = match direction {
        Direction::Ingress => &mut policy.ingress,
        Direction::Egress => &mut policy.egress,
    };
    rules.as_mut().unwrap().remove(index.parse().unwrap());
    policy
}
