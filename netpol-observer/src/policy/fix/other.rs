//! The other side of the connection in the words of a policy.

use std::sync::Arc;

use ipnet::IpNet;

use crate::cluster::{
    Cidr, ClusterPeer, ClusterPort, IpBlock, Labels, NAMESPACE_NAME_LABEL, Operator, Peer, Pod, PolicyPort, Requirement, Rule, Selector,
};
use crate::policy::connection::End;
use crate::policy::evaluate::View;

use super::labels;

/// The peer to admit, and the port it calls or is called on.
pub(super) struct Other {
    what: What,
    pub(super) port: PolicyPort,
}

enum What {
    Pods { namespace: Arc<str>, pods: Selector },
    Address(Cidr),
}

impl Other {
    pub(super) fn new(view: &View<'_>, end: &End<'_>, port: PolicyPort) -> Self {
        let what = match end.pod() {
            Some(pod) => What::Pods { namespace: pod.namespace.clone(), pods: selector(&labels::identifying(pod, view.index)) },
            None => What::Address(IpNet::from(end.ip).into()),
        };
        Other { what, port }
    }

    /// As an entry of a NetworkPolicy of `namespace`, and how people would write it.
    pub(super) fn peer(&self, namespace: &str) -> (Peer, String) {
        match &self.what {
            What::Pods { namespace: own, pods } if **own == *namespace => {
                (Peer::Pods { namespace: None, pod: Some(pods.clone()) }, format!("podSelector {}", braces(pods)))
            }
            What::Pods { namespace: own, pods } => {
                let namespaces = named(own);
                let shown = format!("podSelector {} namespaceSelector {}", braces(pods), braces(&namespaces));
                (Peer::Pods { namespace: Some(namespaces), pod: Some(pods.clone()) }, shown)
            }
            What::Address(cidr) => {
                let block = IpBlock { cidr: cidr.clone(), except: Vec::new() };
                (Peer::IpBlock(block), format!("ipBlock {cidr}"))
            }
        }
    }

    /// A rule of a NetworkPolicy for this peer and port.
    pub(super) fn rule(&self, namespace: &str) -> (Rule, String) {
        let (peer, shown) = self.peer(namespace);
        (Rule { peers: vec![peer], ports: vec![self.port.clone()], origin: None }, shown)
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
pub(super) fn selector_of(pod: &Pod, view: &View<'_>) -> Selector {
    selector(&labels::identifying(pod, view.index))
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
