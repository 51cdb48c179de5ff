//! What a count of drops still has to say: between whom, and who is to blame.

use std::sync::Arc;

use super::Route;
use crate::cluster::{Direction, Pod, Workload};
use crate::diagnose::{Class, Denial, How, PastKnown};
use crate::identify::{Identity, Party};
use crate::policy::{Admission, DirectionExplanation, PolicyRef};

/// A drop without what is said of it only once: small enough to be remembered for its repeats.
#[derive(Clone, Debug)]
pub struct Brief {
    /// Between whom, and the kind of cause.
    pub route: Route,
    /// Who is to blame.
    pub blame: Blame,
    /// `SKB_DROP_REASON_*` without the prefix.
    pub reason: Arc<str>,
    /// Nothing of the cluster is concerned.
    pub is_elsewhere: bool,
    /// Whether it is certain who the client is, and who the server: the objects of its time are known, and nobody else can have had the address.
    pub is_certain: (bool, bool),
}

/// Whose policies denied a connection, and which of them. Where no policy is to blame, only whom it concerns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Blame {
    /// The directions in which policies deny it; none where no policy is to blame.
    pub directions: Vec<Direction>,
    /// The pod whose policies these are: the client for egress, which is asked first, and the server for ingress. Where no policy is to blame, the
    /// server, or the client where the server is no pod.
    pub subject: Owner,
    /// Whether that is the client.
    pub subject_is_client: bool,
    /// The other end.
    pub peer: Owner,
    /// The policy whose rule denied it, or of those that isolate the pod the one whose rule came nearest to admitting it.
    pub policy: Option<PolicyRef>,
    /// The direction and index of that rule: `ingress[0]`. Absent where no policy has a rule for the direction.
    pub rule: Option<(Direction, usize)>,
}

/// Whose an end is, as far as one answer holds for all that may be meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The namespace; absent for nodes, and outside the cluster.
    pub namespace: Option<Arc<str>>,
    /// The workload.
    pub workload: Option<Workload>,
}

impl Brief {
    /// What is kept of a drop.
    pub fn of(denial: &Denial) -> Self {
        Brief {
            route: Route::of(denial),
            blame: Blame::of(denial),
            reason: Arc::clone(&denial.event.reason.name),
            is_elsewhere: !super::stream::touches_index(denial),
            is_certain: (is_certain(&denial.who.client, denial), is_certain(&denial.who.server, denial)),
        }
    }
}

fn is_certain(party: &Party, denial: &Denial) -> bool {
    let Some(moment) = &denial.moment else { return true };
    let is_doubtful = |how: &How| matches!(how, How::Gone { .. } | How::Several(_) | How::NotKnown);
    moment.past == PastKnown::Exact && !moment.owners.iter().any(|owner| owner.ip == party.ip && is_doubtful(&owner.how))
}

impl Blame {
    /// Who is to blame for a drop.
    pub fn of(denial: &Denial) -> Self {
        let directions = match &denial.diagnosis.class {
            Class::PolicyDenied(directions) => directions.clone(),
            _ => Vec::new(),
        };
        let client = || Owner::of(&denial.who.client, &denial.who.callers);
        let server = || Owner::of(&denial.who.server, &denial.who.host_network);
        let is_clients = match directions.first() {
            Some(Direction::Egress) => true,
            Some(Direction::Ingress) => false,
            None => server().namespace.is_none(),
        };
        let (subject, peer) = if is_clients { (client(), server()) } else { (server(), client()) };
        let explanation = match directions.first() {
            Some(Direction::Egress) => Some(&denial.explanation.egress),
            Some(Direction::Ingress) => Some(&denial.explanation.ingress),
            None => None,
        };
        let (policy, rule) = explanation.map(culprit).unwrap_or_default();
        Blame { directions, subject, subject_is_client: is_clients, peer, policy, rule }
    }
}

/// The policy that denies in a direction, and the rule to look at.
fn culprit(explanation: &DirectionExplanation) -> (Option<PolicyRef>, Option<(Direction, usize)>) {
    let Admission::Denied { by, isolating, nearest } = &explanation.admission else { return (None, None) };
    let rule = by.as_ref().or_else(|| nearest.first().map(|near| &near.rule));
    match rule {
        Some(rule) => (Some(rule.policy.clone()), Some((rule.direction, rule.index))),
        None => (isolating.first().map(|isolating| isolating.policy.clone()), None),
    }
}

impl Owner {
    /// `others` are pods in the network of a node that may be meant.
    fn of(party: &Party, others: &[Arc<Pod>]) -> Self {
        match &party.identity {
            Identity::Pod(pod) => Owner::common(std::slice::from_ref(pod)),
            Identity::AmbiguousPods(pods) => Owner::common(pods),
            Identity::Service(service) => Owner { namespace: Some(Arc::clone(&service.namespace)), workload: None },
            // One of several says nothing about a node's own packets.
            Identity::Node(_) if others.len() == 1 => Owner::common(others),
            Identity::Node(_) | Identity::UnownedPodAddress | Identity::Special | Identity::External | Identity::NotShown => {
                Owner::default()
            }
        }
    }

    /// What is the same for all of these.
    fn common(pods: &[Arc<Pod>]) -> Self {
        let Some((first, rest)) = pods.split_first() else { return Owner::default() };
        if rest.iter().any(|pod| pod.namespace != first.namespace) {
            return Owner::default();
        }
        let workload = rest.iter().all(|pod| pod.workload == first.workload).then(|| first.workload.clone());
        Owner { namespace: Some(Arc::clone(&first.namespace)), workload }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::Agreement;
    use crate::serve::testing::{api, example, external, innocent, node, party, pod, web};

    fn owner(namespace: &str, workload: &str) -> Owner {
        Owner { namespace: Some(namespace.into()), workload: Some(Workload { kind: "Deployment".into(), name: workload.into() }) }
    }

    #[test]
    fn the_policy_whose_rule_came_nearest_is_named() {
        let blame = Blame::of(&example());
        assert_eq!((blame.subject, blame.peer), (owner("shop", "api"), owner("shop", "web")));
        assert_eq!(blame.policy.unwrap().full_name(), "shop/api-allow-frontend");
        assert_eq!((blame.directions, blame.rule), (vec![Direction::Ingress], Some((Direction::Ingress, 0))));
    }

    #[test]
    fn a_policy_without_rules_is_named_without_one() {
        let mut denial = example();
        let Admission::Denied { nearest, .. } = &mut denial.explanation.ingress.admission else { unreachable!() };
        nearest.clear();
        let blame = Blame::of(&denial);
        assert_eq!((blame.policy.unwrap().full_name().as_str(), blame.rule), ("shop/api-allow-frontend", None));
    }

    #[test]
    fn where_no_policy_is_to_blame_none_is_named() {
        let mut denial = innocent(Class::HostFirewall, Agreement::PoliciesAllow, "");
        let blame = Blame::of(&denial);
        assert_eq!((blame.subject, blame.policy, blame.rule), (owner("shop", "api"), None, None));
        denial.who.server = external("203.0.113.5");
        let blame = Blame::of(&denial);
        assert_eq!((blame.subject, blame.peer), (owner("shop", "web"), Owner::default()));
    }

    #[test]
    fn of_several_that_may_be_meant_what_they_have_in_common_is_said() {
        let other = pod("shop", "web-9c1d", "10.244.1.5", &[]);
        let job = pod("batch", "job-1", "10.244.1.5", &[]);
        let of = |pods: Vec<Arc<Pod>>| {
            let mut denial = example();
            denial.who.client.identity = Identity::AmbiguousPods(pods);
            Blame::of(&denial).peer
        };
        assert_eq!(of(vec![web(), other]), owner("shop", "web"));
        assert_eq!(of(vec![web(), api()]), Owner { workload: None, ..owner("shop", "web") });
        assert_eq!(of(vec![web(), job]), Owner::default());
        let mut denial = example();
        denial.who.client = node("node-1", "192.0.2.1");
        assert_eq!(Blame::of(&denial).peer, Owner::default());
        denial.who.callers = vec![api()];
        assert_eq!(Blame::of(&denial).peer, owner("shop", "api"));
        assert_eq!(party(&api()).ip, api().ips[0]);
    }
}
