//! What holds for the engine whatever the cluster: on random pods, policies and connections.

mod clusters;
mod difference;
mod lints;
mod moments;
mod timeline;

use std::net::IpAddr;
use std::sync::Arc;

use netpol_observer::cluster::{Direction, Index, NetworkPolicy, Requirement, Rule, Selector, convert};
use netpol_observer::flow::Protocol;
use netpol_observer::identify::{Identity, party};
use netpol_observer::policy::{Admission, Connection, DirectionExplanation, Engine, Explanation, Fix, Profile, Remaining, Verdict};
use proptest::prelude::*;

use clusters::{cluster, connection, policy, rule};

fn explain(connection: &Connection, index: &Index, profile: &Profile) -> Explanation {
    Engine::over(index.clone(), *profile).explain(connection)
}

fn verdict(connection: &Connection, index: &Index, profile: &Profile) -> Verdict {
    Engine::over(index.clone(), *profile).verdict(connection)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// One engine: the cheap way and the one with reasons give the same verdict, and none panics.
    #[test]
    fn explanation_and_verdict_agree(index in cluster(), connection in connection(), ignores_pods in any::<bool>()) {
        let profile = Profile { ip_block_matches_pods: !ignores_pods, ..Profile::default() };
        let connection = connection.of(&index);
        let explanation = explain(&connection, &index, &profile);
        prop_assert_eq!(verdict(&connection, &index, &profile), explanation.verdict);
        if !matches!(connection.destination.identity, Identity::Service(_)) {
            let directions = [admitted(&explanation.egress), admitted(&explanation.ingress)];
            let combined = match directions {
                [Some(false), _] | [_, Some(false)] => Verdict::Deny,
                [Some(true), Some(true)] => Verdict::Allow,
                _ => Verdict::Undecided,
            };
            prop_assert_eq!(combined, explanation.verdict);
        }
    }

    /// Every rule of every isolating policy has its reasons, and the nearest are in order.
    #[test]
    fn a_denial_is_explained_in_full(index in cluster(), connection in connection()) {
        let connection = connection.of(&index);
        let explanation = explain(&connection, &index, &Profile::default());
        for side in [&explanation.egress, &explanation.ingress] {
            let Admission::Denied { isolating, nearest, .. } = &side.admission else { continue };
            prop_assert!(!isolating.is_empty());
            prop_assert!(isolating.windows(2).all(|pair| pair[0].policy.name < pair[1].policy.name));
            let mut rules = 0;
            for policy in isolating {
                let found = index.policy(&policy.policy.namespace, &policy.policy.name).expect("a policy that is there");
                let written = found.rules(side.direction).expect("a policy that isolates");
                prop_assert_eq!(written.len(), policy.rules.len());
                rules += written.len();
                for (rule, miss) in written.iter().zip(&policy.rules) {
                    prop_assert!(!miss.peers.is_empty() || !miss.ports.is_empty(), "{miss:?}");
                    prop_assert!(miss.peers.is_empty() || miss.peers.len() == rule.peers.len());
                    prop_assert!(miss.ports.is_empty() || miss.ports.len() == rule.ports.len());
                    prop_assert!(miss.peers.iter().all(|peer| !peer.failed.is_empty()));
                    prop_assert!(miss.ports.iter().all(|port| !port.failed.is_empty()));
                }
            }
            prop_assert_eq!(nearest.len(), rules);
            prop_assert!(nearest.windows(2).all(|pair| pair[0].distance <= pair[1].distance));
            prop_assert!(nearest.iter().all(|miss| miss.distance > 0));
        }
    }

    /// Applying the manifests of all fixes, as an API server reads them, admits the connection; and it takes nothing away.
    #[test]
    fn fixes_admit_and_take_nothing_away(index in cluster(), connection in connection()) {
        let connection = connection.of(&index);
        let before = explain(&connection, &index, &Profile::default());
        check_coverage(&before)?;
        let mut fixed = index.clone();
        for fix in &before.fixes {
            check_edit(&index, fix)?;
            fixed.apply(read(fix)?);
        }
        if matches!(connection.destination.identity, Identity::Service(_)) {
            return Ok(());
        }
        let after = explain(&connection, &fixed, &Profile::default());
        for fix in &before.fixes {
            prop_assert_eq!(admitted(side(&after, fix.direction)), Some(true), "{:#?}\n{:#?}", fix, after);
        }
        for probe in every_pair(&index, &connection) {
            if verdict(&probe, &index, &Profile::default()) == Verdict::Allow {
                prop_assert_eq!(verdict(&probe, &fixed, &Profile::default()), Verdict::Allow, "{:?}", before.fixes);
            }
        }
    }

    /// Whoever is admitted by a fix, and was not before, is named by it.
    #[test]
    fn a_fix_names_whom_it_admits(index in cluster(), connection in connection()) {
        let connection = connection.of(&index);
        for fix in &explain(&connection, &index, &Profile::default()).fixes {
            prop_assert!(!fix.newly_admits.is_empty());
            let mut fixed = index.clone();
            fixed.apply(read(fix)?);
            for probe in every_pair(&index, &connection) {
                let [before, after] = [&index, &fixed].map(|index| explain(&probe, index, &Profile::default()));
                let changed = admitted(side(&before, fix.direction)) == Some(false) && admitted(side(&after, fix.direction)) == Some(true);
                let peer = match fix.direction {
                    Direction::Ingress => &probe.source,
                    Direction::Egress => &probe.destination,
                };
                if let (true, Identity::Pod(pod)) = (changed, &peer.identity) {
                    let workload = format!("{}/{}", pod.namespace, pod.workload.name);
                    prop_assert!(fix.newly_admits.iter().any(|name| name.contains(&workload)), "{workload} is not in {fix:#?}");
                }
            }
        }
    }

    /// A policy without rules only takes away.
    #[test]
    fn a_policy_without_rules_admits_nothing_more(index in cluster(), mut policy in policy(), connection in connection()) {
        policy.name = "without-rules".into();
        policy.ingress = policy.ingress.map(|_| Vec::new());
        policy.egress = policy.egress.map(|_| Vec::new());
        let mut stricter = index.clone();
        stricter.apply(policy);
        let connection = connection.of(&index);
        if verdict(&connection, &stricter, &Profile::default()) == Verdict::Allow {
            prop_assert_eq!(verdict(&connection, &index, &Profile::default()), Verdict::Allow);
        }
    }

    /// Policies are a union: a rule more never takes anything away.
    #[test]
    fn a_rule_more_denies_nothing(index in cluster(), rule in rule(), which in any::<prop::sample::Index>(), connection in connection()) {
        let policies: Vec<Arc<NetworkPolicy>> = index.policies().cloned().collect();
        if policies.is_empty() {
            return Ok(());
        }
        let mut policy = (**which.get(&policies)).clone();
        for rules in [&mut policy.ingress, &mut policy.egress].into_iter().flatten() {
            rules.push(rule.clone());
        }
        let mut wider = index.clone();
        wider.apply(policy);
        let connection = connection.of(&index);
        if verdict(&connection, &index, &Profile::default()) == Verdict::Allow {
            prop_assert_eq!(verdict(&connection, &wider, &Profile::default()), Verdict::Allow);
        }
    }
}

/// What a direction came to; `None` where it cannot be decided.
fn admitted(side: &DirectionExplanation) -> Option<bool> {
    match side.admission {
        Admission::NotSubject { .. } | Admission::NotIsolated | Admission::Allowed { .. } => Some(true),
        Admission::Denied { .. } => Some(false),
        Admission::Undecided { .. } => None,
    }
}

fn side(explanation: &Explanation, direction: Direction) -> &DirectionExplanation {
    match direction {
        Direction::Egress => &explanation.egress,
        Direction::Ingress => &explanation.ingress,
    }
}

/// Each denying direction has a fix or the reason why there is none.
fn check_coverage(explanation: &Explanation) -> Result<(), TestCaseError> {
    for direction in [Direction::Egress, Direction::Ingress] {
        let fixes = explanation.fixes.iter().filter(|fix| fix.direction == direction).count();
        let none = |remaining: &&Remaining| matches!(remaining, Remaining::NoFix { direction: of, .. } if *of == direction);
        let reasons = explanation.remaining.iter().filter(none).count();
        let denied = admitted(side(explanation, direction)) == Some(false);
        prop_assert_eq!(fixes + reasons, usize::from(denied), "{:#?}", explanation);
    }
    Ok(())
}

/// The policy of the manifest, read as from a file.
fn read(fix: &Fix) -> Result<NetworkPolicy, TestCaseError> {
    let read = serde_json::from_value(fix.manifest.to_json()).map_err(|error| TestCaseError::fail(format!("{error}: {fix:#?}")))?;
    let mut errors = Vec::new();
    let policy = convert::network_policy(read, &mut errors);
    prop_assert!(errors.is_empty(), "{errors:?}: {fix:#?}");
    Ok(policy)
}

/// Everything that was there still is, the exceptions of blocks included; entries were only added at ends of lists.
fn check_edit(index: &Index, fix: &Fix) -> Result<(), TestCaseError> {
    let edited = read(fix)?;
    let original = index.policy(&edited.namespace, &edited.name);
    let named = fix.policy.as_ref().map(|policy| (&policy.namespace, &policy.name));
    prop_assert_eq!(original.map(|policy| (&policy.namespace, &policy.name)), named, "a new policy must not replace one");
    let Some(original) = original else { return Ok(()) };
    prop_assert_eq!(sorted(&original.pod_selector), sorted(&edited.pod_selector));
    let mut added = 0;
    for direction in [Direction::Egress, Direction::Ingress] {
        prop_assert_eq!(original.rules(direction).is_some(), edited.rules(direction).is_some());
        let [before, after] = [original, &edited].map(|policy| policy.rules(direction).unwrap_or_default());
        prop_assert!(after.len() >= before.len());
        added += after.len() - before.len();
        for (before, after) in before.iter().map(comparable).zip(after.iter().map(comparable)) {
            prop_assert!(after.0.starts_with(&before.0) && after.1.starts_with(&before.1), "{before:?} became {after:?}");
            added += after.0.len() - before.0.len() + after.1.len() - before.1.len();
        }
    }
    // The second fix to a policy has the edit of the first in it.
    prop_assert!((1..=2).contains(&added), "{added} entries were added: {fix:#?}");
    Ok(())
}

/// A rule without the order of the terms of its selectors: labels come first in a manifest.
fn comparable(rule: &Rule) -> (Vec<String>, Vec<String>) {
    use netpol_observer::cluster::Peer;
    let peer = |peer: &Peer| match peer {
        Peer::Pods { namespace, pod } => format!("{:?} {:?}", namespace.as_ref().map(sorted), pod.as_ref().map(sorted)),
        other => format!("{other:?}"),
    };
    (rule.peers.iter().map(peer).collect(), rule.ports.iter().map(ToString::to_string).collect())
}

fn sorted(selector: &Selector) -> Vec<String> {
    let mut terms: Vec<String> = selector.requirements.iter().map(Requirement::to_string).collect();
    terms.sort();
    terms
}

/// The same call between every two addresses of one family that pods have.
fn every_pair(index: &Index, connection: &Connection) -> Vec<Connection> {
    let addresses: Vec<IpAddr> = index.pods().flat_map(|pod| pod.ips.clone()).collect();
    let mut pairs = Vec::new();
    for &source in &addresses {
        for &destination in addresses.iter().filter(|ip| ip.is_ipv4() == source.is_ipv4()) {
            let (source, destination) = (party(source, index), party(destination, index));
            let (protocol, port): (Protocol, _) = (connection.protocol, connection.port);
            pairs.push(Connection { source, destination, protocol, port, service: None });
        }
    }
    pairs
}
