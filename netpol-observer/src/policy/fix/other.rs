//! The other side of the connection in the words of a policy.

use std::sync::Arc;

use ipnet::IpNet;

use crate::cluster::{
    Cidr, ClusterPeer, ClusterPort, IpBlock, Labels, NAMESPACE_NAME_LABEL, Operator, Peer, Pod, PolicyPort, Requirement, Rule, Selector,
};
use crate::policy::connection::End;
use crate::policy::evaluate::View;

use super::{Kept, labels};

/// The peer to admit, and the port it calls or is called on.
pub(super) struct Other {
    what: What,
    /// As an entry of a NetworkPolicy of another namespace, and of its own.
    far: Peer,
    near: Peer,
    pub(super) port: PolicyPort,
}

enum What {
    Pods { namespace: Arc<str>, pods: Selector },
    Address(Cidr),
}

impl Other {
    pub(super) fn new(view: &View<'_>, kept: &Kept, end: &End<'_>, port: PolicyPort) -> Self {
        let what = match end.pod() {
            Some(pod) => What::Pods { namespace: pod.namespace.clone(), pods: selector_of(pod, view, kept) },
            None => What::Address(IpNet::from(end.ip).into()),
        };
        let (far, near) = match &what {
            What::Pods { namespace, pods } => {
                let of = |namespace| Peer::Pods { namespace, pod: Some(pods.clone()) };
                (of(Some(named(namespace))), of(None))
            }
            What::Address(cidr) => {
                let block = Peer::IpBlock(IpBlock { cidr: cidr.clone(), except: Vec::new() });
                (block.clone(), block)
            }
        };
        Other { what, far, near, port }
    }

    fn is_of(&self, namespace: &str) -> bool {
        matches!(&self.what, What::Pods { namespace: own, .. } if **own == *namespace)
    }

    /// As an entry of a NetworkPolicy of `namespace`.
    pub(super) fn peer(&self, namespace: &str) -> &Peer {
        if self.is_of(namespace) { &self.near } else { &self.far }
    }

    /// The same as people would write it.
    pub(super) fn shown(&self, namespace: &str) -> String {
        match &self.what {
            What::Pods { pods, .. } if self.is_of(namespace) => format!("podSelector {}", braces(pods)),
            What::Pods { namespace, pods } => format!("podSelector {} namespaceSelector {}", braces(pods), braces(&named(namespace))),
            What::Address(cidr) => format!("ipBlock {cidr}"),
        }
    }

    /// A rule of a NetworkPolicy for this peer and port.
    pub(super) fn rule(&self, namespace: &str) -> Rule {
        Rule { peers: vec![self.peer(namespace).clone()], ports: vec![self.port.clone()], origin: None }
    }

    /// As an entry of a policy of the Admin or Baseline tier.
    pub(super) fn cluster_peer(&self) -> (ClusterPeer, String) {
        match &self.what {
            What::Pods { namespace, pods } => {
                let namespaces = named(namespace);
                let shown = format!("pods {} of namespaces {}", braces(pods), braces(&namespaces));
                (ClusterPeer::Pods { namespace: namespaces, pod: pods.clone() }, shown)
            }
            What::Address(cidr) => (ClusterPeer::Networks(vec![cidr.clone()]), format!("networks [{cidr}]")),
        }
    }

    pub(super) fn cluster_port(&self) -> ClusterPort {
        ClusterPort::Port(self.port.clone())
    }
}

/// The namespace of this name.
pub(super) fn named(namespace: &Arc<str>) -> Selector {
    Selector { requirements: vec![Requirement { key: NAMESPACE_NAME_LABEL.into(), operator: Operator::Equals(namespace.clone()) }] }
}

/// A selector of a pod's own labels.
pub(super) fn selector_of(pod: &Pod, view: &View<'_>, kept: &Kept) -> Selector {
    kept.selector(pod, || selector(&labels::identifying(pod, view.index)))
}

/// `{app: web}`, as in YAML.
pub(super) fn braces(selector: &Selector) -> String {
    let terms = selector.requirements.iter().map(|requirement| match &requirement.operator {
        Operator::Equals(value) => format!("{}: {value}", requirement.key),
        _ => requirement.to_string(),
    });
    format!("{{{}}}", terms.collect::<Vec<_>>().join(", "))
}

fn selector(labels: &Labels) -> Selector {
    let term = |(key, value): (&Arc<str>, &Arc<str>)| Requirement { key: key.clone(), operator: Operator::Equals(value.clone()) };
    Selector { requirements: labels.iter().map(term).collect() }
}
