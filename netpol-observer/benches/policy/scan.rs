//! What an engine without an index does, written down from the API's text: for every connection it goes through all policies and
//! matches their selectors. It is the alternative that the engine is measured against, and the judge of every verdict that is measured.

use std::net::IpAddr;
use std::sync::Arc;

use netpol_observer::cluster::{
    Action, ClusterPeer, ClusterPolicy, ClusterPort, Direction, Index, NetworkPolicy, Node, Peer, Pod, PolicyPort, PortNumber, Rule,
    Subject, Tier,
};
use netpol_observer::flow::Protocol;
use netpol_observer::identify::{Identity, Party, party};
use netpol_observer::policy::{Connection, Verdict};

/// The policies in lists, and the pods' namespaces and nodes by name.
pub(crate) struct Scan<'a> {
    index: &'a Index,
    /// By priority.
    cluster_policies: Vec<&'a Arc<ClusterPolicy>>,
}

/// Which NetworkPolicies are gone through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Through {
    /// All of them: what is measured.
    All,
    /// Those of the pod's namespace, which are the only ones that can select it: the same answer, soon enough to check every verdict.
    Namespace,
}

/// Who a side is to the policies.
#[derive(Clone, Copy)]
enum Who<'a> {
    Pod(&'a Pod),
    Node(&'a Node),
    Outside,
}

#[derive(Clone, Copy)]
struct Side<'a> {
    ip: IpAddr,
    who: Who<'a>,
}

#[derive(Clone, Copy)]
struct Call<'a> {
    source: Side<'a>,
    destination: Side<'a>,
    protocol: Protocol,
    port: u16,
}

impl<'a> Scan<'a> {
    pub(crate) fn new(index: &'a Index) -> Self {
        let mut cluster_policies: Vec<_> = index.cluster_policies().collect();
        cluster_policies.sort_by_key(|policy| policy.priority);
        Scan { index, cluster_policies }
    }

    /// Whether the connection would be admitted; for a Service what its endpoints have in common.
    pub(crate) fn verdict(&self, connection: &Connection, through: Through) -> Verdict {
        let Identity::Service(_) = &connection.destination.identity else {
            return self.to_party(connection, &connection.destination, connection.port, through);
        };
        let backends = connection.service.iter().flat_map(|call| &call.backends);
        let mut verdicts =
            backends.map(|(ip, port)| self.to_party(connection, &party(*ip, self.index), Some(*port), through)).collect::<Vec<_>>();
        verdicts.dedup();
        match verdicts.as_slice() {
            [verdict] => *verdict,
            _ => Verdict::Undecided,
        }
    }

    fn to_party(&self, connection: &Connection, destination: &Party, port: Option<u16>, through: Through) -> Verdict {
        let (Some(source), Some(destination), Some(port)) = (side(&connection.source), side(destination), port) else {
            // None of these is among the connections that are drawn.
            return Verdict::Undecided;
        };
        let call = Call { source, destination, protocol: connection.protocol, port };
        let admitted = self.passes(&call, Direction::Egress, through) && self.passes(&call, Direction::Ingress, through);
        if admitted { Verdict::Allow } else { Verdict::Deny }
    }

    fn passes(&self, call: &Call<'_>, direction: Direction, through: Through) -> bool {
        let (subject, peer) = match direction {
            Direction::Egress => (call.source, call.destination),
            Direction::Ingress => (call.destination, call.source),
        };
        let Who::Pod(pod) = subject.who else { return true };
        if let Who::Pod(other) = peer.who
            && pod.namespace == other.namespace
            && pod.name == other.name
        {
            return true;
        }
        if direction == Direction::Ingress && self.own_node(pod).is_some_and(|node| node.addresses.contains(&peer.ip)) {
            return true;
        }
        let matching = |tier| self.cluster_rule(tier, call, direction, pod, &peer);
        match matching(Tier::Admin) {
            Some(Action::Accept) => return true,
            Some(Action::Deny) => return false,
            Some(Action::Pass) | None => {}
        }
        let admitted = match through {
            Through::All => self.network_policies(self.index.policies(), call, direction, pod, &peer),
            Through::Namespace => self.network_policies(self.index.policies_in(&pod.namespace), call, direction, pod, &peer),
        };
        admitted.unwrap_or_else(|| matching(Tier::Baseline) != Some(Action::Deny))
    }

    fn own_node(&self, pod: &Pod) -> Option<&Node> {
        self.index.node(pod.node.as_deref()?).map(|node| &**node)
    }

    /// Whether a NetworkPolicy admits the connection; `None` when none isolates the pod.
    fn network_policies<'b>(
        &self,
        policies: impl Iterator<Item = &'b Arc<NetworkPolicy>>,
        call: &Call<'_>,
        direction: Direction,
        pod: &Pod,
        peer: &Side<'_>,
    ) -> Option<bool> {
        let mut isolated = false;
        for policy in policies {
            if policy.namespace != pod.namespace || !policy.pod_selector.matches(&pod.labels) {
                continue;
            }
            let Some(rules) = policy.rules(direction) else { continue };
            isolated = true;
            if rules.iter().any(|rule| self.admits(rule, &policy.namespace, call, peer)) {
                return Some(true);
            }
        }
        isolated.then_some(false)
    }

    fn admits(&self, rule: &Rule, namespace: &str, call: &Call<'_>, peer: &Side<'_>) -> bool {
        let from = rule.peers.is_empty() || rule.peers.iter().any(|wanted| self.is_peer(wanted, namespace, peer));
        from && (rule.ports.is_empty() || rule.ports.iter().any(|wanted| is_port(wanted, call)))
    }

    fn is_peer(&self, wanted: &Peer, namespace: &str, side: &Side<'_>) -> bool {
        match wanted {
            Peer::Pods { namespace: namespaces, pod: pods } => {
                let Who::Pod(pod) = side.who else { return false };
                let in_namespace = match namespaces {
                    Some(selector) => selector.matches(&self.index.namespace_labels(&pod.namespace)),
                    None => *pod.namespace == *namespace,
                };
                in_namespace && pods.as_ref().is_none_or(|selector| selector.matches(&pod.labels))
            }
            Peer::IpBlock(block) => block.cidr.contains(side.ip) && !block.except.iter().any(|except| except.contains(side.ip)),
            Peer::Invalid(_) => false,
        }
    }

    /// What the first rule of the tier that matches says.
    fn cluster_rule(&self, tier: Tier, call: &Call<'_>, direction: Direction, pod: &Pod, peer: &Side<'_>) -> Option<Action> {
        let labels = self.index.namespace_labels(&pod.namespace);
        for policy in &self.cluster_policies {
            let selects = policy.tier == tier
                && match &policy.subject {
                    Subject::Namespaces(namespaces) => namespaces.matches(&labels),
                    Subject::Pods { namespace, pod: pods } => namespace.matches(&labels) && pods.matches(&pod.labels),
                    Subject::Invalid(_) => false,
                };
            if !selects {
                continue;
            }
            for rule in policy.rules(direction) {
                let closed = rule.action != Action::Accept;
                let at_port = rule.ports.is_empty() || rule.ports.iter().any(|wanted| is_cluster_port(wanted, call, closed));
                if at_port && rule.peers.iter().any(|wanted| self.is_cluster_peer(wanted, peer, closed)) {
                    return Some(rule.action);
                }
            }
        }
        None
    }

    /// `closed`: what is not understood matches, since the rule does not admit.
    fn is_cluster_peer(&self, wanted: &ClusterPeer, side: &Side<'_>, closed: bool) -> bool {
        match (wanted, side.who) {
            (ClusterPeer::Namespaces(namespaces), Who::Pod(pod)) => namespaces.matches(&self.index.namespace_labels(&pod.namespace)),
            (ClusterPeer::Pods { namespace, pod: pods }, Who::Pod(pod)) => {
                namespace.matches(&self.index.namespace_labels(&pod.namespace)) && pods.matches(&pod.labels)
            }
            (ClusterPeer::Nodes(nodes), Who::Node(node)) => nodes.matches(&node.labels),
            (ClusterPeer::Networks(networks), _) => networks.iter().any(|network| network.contains(side.ip)),
            (ClusterPeer::Invalid(_), _) => closed,
            // The generator names no domains.
            _ => false,
        }
    }
}

/// None for what is never drawn: addresses of several pods, of none known, and special ones.
fn side(party: &Party) -> Option<Side<'_>> {
    let who = match &party.identity {
        Identity::Pod(pod) => Who::Pod(pod),
        Identity::Node(node) => Who::Node(node),
        Identity::External => Who::Outside,
        _ => return None,
    };
    Some(Side { ip: party.ip, who })
}

fn is_port(wanted: &PolicyPort, call: &Call<'_>) -> bool {
    wanted.protocol == call.protocol
        && match &wanted.port {
            PortNumber::Any => true,
            PortNumber::Number(number) => *number == call.port,
            PortNumber::Range(from, to) => (*from..=*to).contains(&call.port),
            PortNumber::Name(name) => is_named(name, call),
            PortNumber::Invalid(_) => false,
        }
}

fn is_cluster_port(wanted: &ClusterPort, call: &Call<'_>, closed: bool) -> bool {
    match wanted {
        ClusterPort::Port(port) => is_port(port, call),
        ClusterPort::Named(name) => is_named(name, call),
        ClusterPort::Invalid(_) => closed,
    }
}

/// The destination's port of that name and the connection's protocol has the connection's number.
fn is_named(name: &Arc<str>, call: &Call<'_>) -> bool {
    let Who::Pod(pod) = call.destination.who else { return false };
    pod.ports.iter().any(|port| port.name.as_ref() == Some(name) && port.protocol == call.protocol && port.port == call.port)
}
