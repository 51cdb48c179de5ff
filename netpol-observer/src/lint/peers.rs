//! Peers: those that match nothing, and those that probably match others than was meant.

use crate::cluster::{Direction, NetworkPolicy, Peer, Selector};

use super::Sink;
use super::cover::NAMESPACE_NAME_LABEL;
use super::facts::{Area, Facts};
use super::finding::{About, Code, Severity};
use super::near::{self, Labelled};
use super::selects::nobody;
use super::view::{Pods, PolicyView, Reach, RuleView, Scope, is_excepted, peers_field, selector_is_invalid};

pub(super) fn lint(facts: &Facts<'_>, sink: &mut Sink<'_>) {
    for policy in facts.index.policies() {
        let view = PolicyView::from(&**policy);
        for rule in &view.rules {
            let or = or_instead_of_and(facts, policy, rule);
            if let Some((index, severity)) = or {
                say_or(policy, view.about, rule, index, severity, sink);
            }
            for (index, peer) in &rule.peers {
                let is_explained = or.is_some_and(|(at, severity)| severity == Severity::Warning && (*index == at || *index == at + 1));
                if !is_explained {
                    matches_nothing(facts, Some(policy), view.about, rule, *index, peer, sink);
                }
                widely(view.about, rule, *index, peer, sink);
            }
        }
    }
    for policy in facts.index.cluster_policies() {
        let view = PolicyView::from(&**policy);
        for rule in &view.rules {
            for (index, peer) in &rule.peers {
                matches_nothing(facts, None, view.about, rule, *index, peer, sink);
            }
        }
    }
}

const CORRECT: &str = "correct the labels, or remove the peer if what it was for is gone";

fn matches_nothing(
    facts: &Facts<'_>,
    policy: Option<&NetworkPolicy>,
    about: About<'_>,
    rule: &RuleView<'_>,
    index: usize,
    peer: &Reach<'_>,
    sink: &mut Sink<'_>,
) {
    let field = rule.peer_field(index);
    let at = |code, severity| about.finding(code, severity, &*field, rule.origin);
    match peer {
        Reach::Addresses { cidr, except } if is_excepted(cidr.net, except) => {
            let message = format!("the ipBlock matches no address: its exceptions leave nothing of {cidr}");
            at(Code::PeerMatchesNothing, Severity::Error).say(sink, message, "remove the peer, or correct `except`");
        }
        Reach::Nodes(selector) if !selector_is_invalid(selector) => {
            let nodes: Vec<Labelled<'_>> =
                facts.index.nodes().map(|node| Labelled { name: node.name.to_string(), labels: &node.labels, count: 1 }).collect();
            if !nodes.is_empty() && !nodes.iter().any(|node| selector.matches(node.labels)) {
                let message = format!("the peer matches no node: {}", near::miss(selector, &nodes, "no node"));
                at(Code::PeerMatchesNothing, Severity::Warning).say(sink, message, CORRECT);
            }
        }
        Reach::Pods(pods) if !pods.is_invalid() && facts.has_pods && !facts.any(pods) => {
            let areas: Vec<&Area<'_>> = facts.areas(pods.scope).collect();
            if areas.iter().any(|area| !area.has_pods()) || (areas.is_empty() && matches!(pods.scope, Scope::Own(_))) {
                return;
            }
            if areas.is_empty() && facts.index.namespaces().next().is_none() {
                // Nobody described a namespace: what labels they have is not known.
                return;
            }
            if let Some(help) = policy.and_then(|policy| and_instead_of_or(facts, policy, rule, pods)) {
                let message = format!("the peer matches no pod, since it wants both selectors to match: {}", nobody(facts, pods));
                at(Code::AndInsteadOfOr, Severity::Warning).say(sink, message, help);
                return;
            }
            // The rest of the cluster may not be among the manifests.
            let severity = if areas.is_empty() && !facts.is_whole { Severity::Note } else { Severity::Warning };
            let help = match pods.scope {
                Scope::Matching(selector) if areas.is_empty() && wants_name(selector) => {
                    format!("every namespace carries its name as {NAMESPACE_NAME_LABEL}; a label `name` is there only if somebody sets it")
                }
                Scope::Own(own) if elsewhere(facts, pods) => {
                    format!(
                        "pods of other namespaces match; a podSelector alone means namespace {own}: add a namespaceSelector to the same list item"
                    )
                }
                _ => CORRECT.to_owned(),
            };
            at(Code::PeerMatchesNothing, severity).say(sink, format!("the peer matches no pod: {}", nobody(facts, pods)), help);
        }
        _ => {}
    }
}

fn wants_name(selector: &Selector) -> bool {
    selector.requirements.iter().any(|term| &*term.key == "name")
}

/// Whether pods of any namespace match.
fn elsewhere(facts: &Facts<'_>, pods: &Pods<'_>) -> bool {
    facts.any(&Pods { scope: Scope::Matching(&Selector::default()), pod: pods.pod })
}

/// What to do when both selectors in one item match nothing, and each in an item of its own would: the namespaces have pods, and the
/// podSelector matches pods of the policy's own namespace, which the namespaceSelector does not select.
fn and_instead_of_or(facts: &Facts<'_>, policy: &NetworkPolicy, rule: &RuleView<'_>, pods: &Pods<'_>) -> Option<String> {
    let Scope::Matching(namespaces) = pods.scope else { return None };
    let selector = pods.pod?;
    if selector.requirements.is_empty() || namespaces.requirements.is_empty() {
        return None;
    }
    let own = Pods { scope: Scope::Own(&policy.namespace), pod: Some(selector) };
    let selects_own = facts.areas(pods.scope).any(|area| area.name == policy.namespace);
    let has_peers = facts.areas(pods.scope).any(|area| !area.groups.is_empty());
    (!selects_own && has_peers && facts.any(&own)).then(|| {
        format!(
            "pods of namespace {} match the podSelector: if these were meant besides the namespaces, make it an item of `{}` of its own",
            policy.namespace,
            peers_field(rule.direction)
        )
    })
}

/// The index of a namespaceSelector alone that is followed by a podSelector alone, where both in one item were likely meant. Certain
/// enough for a warning when the podSelector matches no pod of the policy's own namespace, as it is written, and does match pods of the
/// namespaces. Where pods are not known, and these two are the whole list, it is worth a note.
fn or_instead_of_and(facts: &Facts<'_>, policy: &NetworkPolicy, rule: &RuleView<'_>) -> Option<(usize, Severity)> {
    rule.peers.windows(2).find_map(|pair| {
        let [(index, Reach::Pods(first)), (_, Reach::Pods(second))] = pair else { return None };
        let (Scope::Matching(namespaces), None, Scope::Own(_), Some(selector)) = (first.scope, first.pod, second.scope, second.pod) else {
            return None;
        };
        if selector.requirements.is_empty() || namespaces.requirements.is_empty() || first.is_invalid() || second.is_invalid() {
            return None;
        }
        let knows_own = facts.areas.get(&*policy.namespace).is_some_and(Area::has_pods);
        let knows_others = facts.areas(first.scope).any(|area| area.has_pods());
        if knows_own && knows_others {
            let both = Pods { scope: first.scope, pod: Some(selector) };
            return (!facts.any(second) && facts.any(&both)).then_some((*index, Severity::Warning));
        }
        (rule.peers.len() == 2 && !knows_own && !knows_others).then_some((*index, Severity::Note))
    })
}

fn say_or(policy: &NetworkPolicy, about: About<'_>, rule: &RuleView<'_>, index: usize, severity: Severity, sink: &mut Sink<'_>) {
    let list = peers_field(rule.direction);
    let selectors = policy.rules(rule.direction).and_then(|rules| rules.get(rule.index)?.peers.get(index..index + 2));
    let Some([Peer::Pods { namespace: Some(namespaces), .. }, Peer::Pods { pod: Some(pods), .. }]) = selectors else { return };
    let own = &policy.namespace;
    let meaning =
        format!("{list}[{index}] and {list}[{}] are two items and mean either: all pods of namespaces with {namespaces}", index + 1);
    let message = match severity {
        Severity::Note => format!("{meaning}, or pods with {pods} of namespace {own}"),
        _ => format!(
            "{meaning}, or pods with {pods} of namespace {own}, of which there is none, while namespaces with {namespaces} have such pods"
        ),
    };
    let help =
        "if pods with these labels in these namespaces are meant, write both selectors into one item: remove the dash before podSelector";
    about.finding(Code::OrInsteadOfAnd, severity, rule.peer_field(index), rule.origin).say(sink, message, help);
}

/// Peers that hold more than many think.
fn widely(about: About<'_>, rule: &RuleView<'_>, index: usize, peer: &Reach<'_>, sink: &mut Sink<'_>) {
    let (is_from, whom) = match rule.direction {
        Direction::Ingress => (true, "may connect"),
        Direction::Egress => (false, "may be called"),
    };
    match peer {
        Reach::Any => {
            let list = peers_field(rule.direction);
            let ports = if rule.ports.is_empty() { "on every port of every protocol" } else { "on the ports of the rule" };
            let message = format!("the rule has no `{list}`: everybody {whom} {ports}, addresses outside the cluster included");
            let help = format!("name peers in `{list}`, or `{list}: [{{namespaceSelector: {{}}}}]` for the pods of the cluster only");
            about.finding(Code::AnyPeer, Severity::Note, rule.field(), rule.origin).say(sink, message, help);
        }
        Reach::Pods(Pods { scope: Scope::Matching(namespaces), pod }) if namespaces.requirements.is_empty() => {
            let selector = pod.filter(|selector| !selector.requirements.is_empty());
            let message = match selector {
                None => format!("the empty namespaceSelector means every namespace: all pods of the cluster {whom}"),
                // In egress this is how everybody names the cluster's DNS.
                Some(selector) if is_from => format!("pods with {selector} of every namespace {whom}, whoever runs them there"),
                Some(_) => return,
            };
            let help = format!("select namespaces by label, or one by {NAMESPACE_NAME_LABEL}");
            about.finding(Code::AnyNamespace, Severity::Note, rule.peer_field(index), rule.origin).say(sink, message, help);
        }
        _ => {}
    }
}
