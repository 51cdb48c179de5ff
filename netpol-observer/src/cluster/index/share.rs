//! Equal texts of different objects, kept once.
//!
//! Every pod of a cluster repeats the keys of its labels, and the pods of one workload most of the values.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::cluster::{Labels, NetworkPolicy, Object, Operator, Peer, Pod, PolicyPort, PortNumber, Rule, Selector};

/// Texts below this number are not looked through for unused ones.
const MIN_SWEEP: usize = 4096;

/// Texts that objects share: those of an index and its clones, or of a list while it is read.
#[derive(Clone, Default)]
pub struct Texts(Arc<Mutex<Known>>);

impl fmt::Debug for Texts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Texts").finish_non_exhaustive()
    }
}

impl Texts {
    /// Lets an object use the texts that others have already, where that pays. One that somebody else holds too stays as it is.
    pub fn share(&self, object: &mut Object) {
        match object {
            Object::Pod(pod) => self.share_pod(pod),
            Object::NetworkPolicy(policy) => self.share_policy(policy),
            _ => {}
        }
    }

    /// Lets the pod use the texts that other objects have already. One that somebody else holds too stays as it is.
    pub(super) fn share_pod(&self, pod: &mut Arc<Pod>) {
        let Some(pod) = Arc::get_mut(pod) else { return };
        self.with(|known| {
            known.share(&mut pod.namespace);
            pod.node.iter_mut().for_each(|node| known.share(node));
            known.share_labels(&mut pod.labels);
            known.share(&mut pod.workload.kind);
            known.share(&mut pod.workload.name);
            pod.ports.iter_mut().filter_map(|port| port.name.as_mut()).for_each(|name| known.share(name));
        });
        pod.ips.shrink_to_fit();
        pod.ports.shrink_to_fit();
    }

    /// The same for a policy.
    pub(super) fn share_policy(&self, policy: &mut Arc<NetworkPolicy>) {
        let Some(policy) = Arc::get_mut(policy) else { return };
        self.with(|known| {
            known.share(&mut policy.namespace);
            known.share_labels(&mut policy.labels);
            known.share_labels(&mut policy.annotations);
            known.share_selector(&mut policy.pod_selector);
            policy.ingress.iter_mut().chain(&mut policy.egress).flatten().for_each(|rule| known.share_rule(rule));
        });
    }

    fn with(&self, share: impl FnOnce(&mut Known)) {
        // Whoever panicked left a set of texts, as good as any.
        share(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

#[derive(Default)]
struct Known {
    texts: HashSet<Arc<str>>,
    /// Number of texts at which those that nobody uses any more are dropped.
    sweep_at: usize,
}

impl Known {
    fn share(&mut self, text: &mut Arc<str>) {
        if let Some(known) = self.texts.get(text) {
            *text = known.clone();
            return;
        }
        if self.texts.len() >= self.sweep_at.max(MIN_SWEEP) {
            self.texts.retain(|text| Arc::strong_count(text) > 1);
            self.sweep_at = self.texts.len() * 2;
        }
        self.texts.insert(text.clone());
    }

    fn share_labels(&mut self, labels: &mut Labels) {
        let shared = std::mem::take(labels).into_iter().map(|(mut key, mut value)| {
            self.share(&mut key);
            self.share(&mut value);
            (key, value)
        });
        *labels = shared.collect();
    }

    fn share_selector(&mut self, selector: &mut Selector) {
        for requirement in &mut selector.requirements {
            self.share(&mut requirement.key);
            match &mut requirement.operator {
                Operator::Equals(value) => self.share(value),
                Operator::In(values) | Operator::NotIn(values) => values.iter_mut().for_each(|value| self.share(value)),
                Operator::Exists | Operator::DoesNotExist | Operator::Invalid(_) => {}
            }
        }
    }

    fn share_rule(&mut self, rule: &mut Rule) {
        for peer in &mut rule.peers {
            match peer {
                Peer::Pods { namespace, pod } => {
                    namespace.iter_mut().chain(pod).for_each(|selector| self.share_selector(selector));
                }
                Peer::IpBlock(block) => {
                    self.share(&mut block.cidr.text);
                    block.except.iter_mut().for_each(|range| self.share(&mut range.text));
                }
                Peer::Invalid(_) => {}
            }
        }
        for PolicyPort { port, .. } in &mut rule.ports {
            if let PortNumber::Name(name) = port {
                self.share(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Index;

    fn pod(name: &str, app: &str) -> Pod {
        let text = |text: &str| -> Arc<str> { text.into() };
        let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": name, "namespace": "shop", "labels": {"app": app}},
            "spec": {"nodeName": "node", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 80}]}]},
        }))
        .expect("a pod");
        let pod = crate::cluster::convert::pod(pod, &mut Vec::new());
        assert_eq!(pod.name, text(name));
        pod
    }

    #[test]
    fn equal_texts_are_one() {
        let mut index = Index::default();
        index.apply(pod("a", "web"));
        index.clone().apply(pod("b", "web"));
        index.apply(pod("c", "web"));
        let [a, c] = ["a", "c"].map(|name| index.pod("shop", name).expect("a pod"));
        assert!(Arc::ptr_eq(&a.namespace, &c.namespace));
        let (of_a, of_c) = (a.labels.iter().next().expect("a label"), c.labels.iter().next().expect("a label"));
        assert!(Arc::ptr_eq(of_a.0, of_c.0) && Arc::ptr_eq(of_a.1, of_c.1));
        let name = |pod: &Pod| pod.ports[0].name.clone().expect("a name");
        assert!(Arc::ptr_eq(&name(a), &name(c)));
        assert_eq!(**a, pod("a", "web"));
    }

    #[test]
    fn a_pod_that_others_hold_is_not_touched() {
        let mut index = Index::default();
        index.apply(pod("a", "web"));
        let held = Arc::new(pod("b", "web"));
        index.apply(held.clone());
        assert!(Arc::ptr_eq(index.pod("shop", "b").expect("a pod"), &held));
    }

    #[test]
    fn texts_that_nobody_uses_are_forgotten() {
        let mut index = Index::default();
        for number in 0..4 * MIN_SWEEP {
            index.apply(pod("a", &format!("version-{number}")));
        }
        let known = index.texts.0.lock().expect("not poisoned").texts.len();
        assert!(known <= MIN_SWEEP, "{known}");
    }
}
