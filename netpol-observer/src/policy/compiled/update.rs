//! Keeping step with the objects: what a changed object touches is forgotten or worked out anew, the rest stays.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock, PoisonError};

use ipnet::IpNet;

use super::rules::{self, Questions, addresses};
use super::space::{EndId, IdentityId, Space};
use super::{Compiled, PeerKey, Subject, World};
use crate::cluster::{ClusterPolicy, Direction, DomainName, Index, Labels, Namespace, NetworkPolicy, Node, Object, Pod, Service};
use crate::policy::connection::Profile;
use crate::policy::evaluate::selects;

/// Policies that may go or change before everything is built anew: as many as there are, and these.
const SPARE_OUTDATED: usize = 1024;

impl Compiled {
    /// Works everything out from the objects.
    pub(in crate::policy) fn build(index: &Index, profile: &Profile) -> Self {
        let mut compiled = Compiled::default();
        compiled.space.begin();
        // Policies first: then it is known what to look at in pods.
        for policy in index.policies() {
            let questions = Questions::of_network_policy(policy);
            compiled.take_questions(questions);
            compiled.add_network_policy(policy);
        }
        for policy in index.cluster_policies() {
            let questions = Questions::of_cluster_policy(policy, index);
            compiled.take_questions(questions);
            compiled.add_cluster_policy(policy);
        }
        for pod in index.pods() {
            compiled.space.add_pod(pod);
            compiled.refresh(&pod.ips, index);
        }
        for node in index.nodes() {
            compiled.refresh(&node.addresses, index);
        }
        for service in index.services() {
            compiled.refresh(&service.cluster_ips, index);
            compiled.refresh(&service.external_ips, index);
            compiled.refresh(&service.load_balancer_ips, index);
        }
        compiled.finish(0, index, profile);
        compiled.prepare(index, profile);
        compiled
    }

    /// An object came or changed. `before` is the one it replaces; the index holds the new one already.
    pub(in crate::policy) fn replaced(&mut self, before: Option<&Object>, now: Option<&Object>, index: &Index, profile: &Profile) {
        let first = self.first_new();
        for object in [before, now].into_iter().flatten() {
            match object {
                Object::Pod(pod) => self.refresh(&pod.ips, index),
                Object::Node(node) => self.node_changed(node, index),
                Object::Service(service) => self.service_changed(service, index),
                Object::Namespace(_) => {}
                Object::DomainName(name) => self.name_changed(name, index),
                Object::EndpointSlice(_) | Object::NetworkPolicy(_) | Object::ClusterPolicy(_) => {}
            }
        }
        if let Some(Object::Namespace(namespace)) = now.or(before) {
            let labels = |object: Option<&Object>| match object {
                Some(Object::Namespace(namespace)) => namespace.labels.clone(),
                _ => Namespace::undescribed(&namespace.name),
            };
            self.namespace_changed(&namespace.name, &labels(before), &labels(now));
        }
        match before {
            Some(Object::Pod(pod)) => self.space.remove_pod(pod),
            Some(Object::NetworkPolicy(policy)) => self.remove_network_policy(policy),
            Some(Object::ClusterPolicy(policy)) => self.remove_cluster_policy(policy, index),
            _ => {}
        }
        match now {
            Some(Object::Pod(pod)) => drop(self.space.add_pod(pod)),
            Some(Object::NetworkPolicy(policy)) => {
                self.ask(Questions::of_network_policy(policy), index);
                self.add_network_policy(policy);
                self.forget_subjects(self.selected(policy));
            }
            Some(Object::ClusterPolicy(policy)) => {
                self.ask(Questions::of_cluster_policy(policy, index), index);
                self.add_cluster_policy(policy);
                self.forget_subjects(self.subjects_of(policy, index));
            }
            _ => {}
        }
        self.finish(first, index, profile);
    }

    /// Builds everything anew where too much is kept that nobody asks for any more. Changes nothing in what is answered.
    pub(in crate::policy) fn tidy(&mut self, index: &Index, profile: &Profile) {
        if self.outdated > self.network.values().map(|policies| policies.len()).sum::<usize>() + self.cluster.len() + SPARE_OUTDATED {
            *self = Compiled::build(index, profile);
        }
    }

    /// Sorts pods and addresses as these objects, which are still to come, will ask for. Changes nothing in what is answered, and makes that
    /// their coming adds no end: what is said of ends before can be compared with what is said of them afterwards.
    pub(in crate::policy) fn expect<'o>(&mut self, objects: impl Iterator<Item = &'o Object>, index: &Index, profile: &Profile) {
        let first = self.first_new();
        for object in objects {
            match object {
                Object::NetworkPolicy(policy) => self.ask(Questions::of_network_policy(policy), index),
                Object::ClusterPolicy(policy) => self.ask(Questions::of_cluster_policy(policy, index), index),
                _ => {}
            }
        }
        self.finish(first, index, profile);
    }

    /// Finds the policies of every identity, so that the first questions need not.
    fn prepare(&self, index: &Index, profile: &Profile) {
        for identity in 0..u32::try_from(self.space.identities.len()).unwrap_or(u32::MAX) {
            for direction in Direction::BOTH {
                self.row(identity, direction, index, profile);
            }
        }
    }

    fn first_new(&self) -> EndId {
        u32::try_from(self.space.len()).unwrap_or(u32::MAX)
    }

    /// Room for new identities; where ends are new, no row knows them.
    fn finish(&mut self, first: EndId, index: &Index, profile: &Profile) {
        self.subjects.resize_with(self.space.identities.len(), Subject::default);
        if self.first_new() > first {
            let world = World { space: &self.space, index, profile };
            self.matchers.extend(first, world);
            self.forget_rows();
        }
    }

    fn refresh(&mut self, ips: &[IpAddr], index: &Index) {
        for ip in ips {
            self.space.refresh(*ip, index);
        }
    }

    fn node_changed(&mut self, node: &Arc<Node>, index: &Index) {
        self.refresh(&node.addresses, index);
    }

    fn service_changed(&mut self, service: &Service, index: &Index) {
        self.refresh(&service.cluster_ips, index);
        self.refresh(&service.external_ips, index);
        self.refresh(&service.load_balancer_ips, index);
    }

    /// Labels of a namespace decide which of its pods peers and subjects mean.
    fn namespace_changed(&mut self, name: &str, before: &Labels, now: &Labels) {
        if before == now {
            return;
        }
        self.matchers.forget(|key| matches!(key, PeerKey::Pods(namespaces, _) if namespaces.matches(before) != namespaces.matches(now)));
        self.forget_subjects(self.space.identities_in(name).to_vec());
        self.forget_rows();
    }

    /// Addresses of a name decide which of them `domainNames` mean.
    fn name_changed(&mut self, name: &DomainName, index: &Index) {
        let is_meant = |key: &PeerKey| matches!(key, PeerKey::Names(names) if names.iter().any(|wanted| means(wanted, &name.name)));
        if !self.matchers.keys().any(is_meant) {
            return;
        }
        let ranges = addresses(&name.name, index).collect();
        self.ask(Questions { ranges, ..Questions::default() }, index);
        self.matchers.forget(is_meant);
        self.forget_rows();
    }

    /// Something is asked for the first time: the pods and nodes that it may tell apart are sorted anew.
    fn ask(&mut self, questions: Questions, index: &Index) {
        let questions = questions.new_to(&self.space);
        let mut ranges = questions.ranges.clone();
        ranges.retain(|range| self.space.add_range(*range));
        let asked = &questions.asked;
        let in_range = |ip: &IpAddr| ranges.iter().any(|range: &IpNet| range.contains(&ip.to_canonical()));
        let concerns = |pod: &Pod| {
            let by_label = !asked.pod_keys.is_empty() && pod.labels.keys().any(|key| asked.pod_keys.contains(key));
            let by_port = || pod.ports.iter().any(|port| port.name.as_ref().is_some_and(|name| asked.port_names.contains(name)));
            let unplaced = || pod.ips.is_empty() && ranges.iter().any(|range| range.contains(&Space::NO_ADDRESS));
            by_label || by_port() || pod.ips.iter().any(in_range) || unplaced()
        };
        if asked.pod_keys.is_empty() && asked.port_names.is_empty() && asked.node_keys.is_empty() && ranges.is_empty() {
            return;
        }
        let pods: Vec<Arc<Pod>> = index.pods().filter(|pod| concerns(pod)).cloned().collect();
        for pod in &pods {
            self.space.remove_pod(pod);
        }
        self.take_questions(questions);
        for pod in &pods {
            self.space.add_pod(pod);
            self.refresh(&pod.ips, index);
        }
        for node in index.nodes() {
            self.refresh(&node.addresses, index);
        }
    }

    fn take_questions(&mut self, questions: Questions) {
        for range in questions.ranges {
            self.space.add_range(range);
        }
        self.space.asked.pod_keys.extend(questions.asked.pod_keys);
        self.space.asked.node_keys.extend(questions.asked.node_keys);
        self.space.asked.port_names.extend(questions.asked.port_names);
    }

    fn serial(&mut self) -> u32 {
        self.next_serial = self.next_serial.wrapping_add(1);
        self.next_serial
    }

    fn add_network_policy(&mut self, policy: &Arc<NetworkPolicy>) {
        let serial = self.serial();
        let compiled = rules::network_policy(policy, serial, &mut self.matchers);
        self.network.entry(policy.namespace.clone()).or_default().insert(policy.name.clone(), Arc::new(compiled));
    }

    fn remove_network_policy(&mut self, policy: &NetworkPolicy) {
        self.outdated += 1;
        let Some(here) = self.network.get_mut(&policy.namespace) else { return };
        if let Some(old) = here.remove(&policy.name) {
            old.release(&mut self.matchers);
        }
        if here.is_empty() {
            self.network.remove(&policy.namespace);
        }
        self.forget_subjects(self.selected(policy));
    }

    fn add_cluster_policy(&mut self, policy: &Arc<ClusterPolicy>) {
        let serial = self.serial();
        let compiled = rules::cluster_policy(policy, serial, &mut self.matchers);
        self.cluster.insert((policy.tier, policy.priority, policy.name.clone(), policy.kind), Arc::new(compiled));
    }

    fn remove_cluster_policy(&mut self, policy: &ClusterPolicy, index: &Index) {
        self.outdated += 1;
        if let Some(old) = self.cluster.remove(&(policy.tier, policy.priority, policy.name.clone(), policy.kind)) {
            old.release(&mut self.matchers);
        }
        self.forget_subjects(self.subjects_of(policy, index));
    }

    /// The identities that a NetworkPolicy selects.
    pub(super) fn selected(&self, policy: &NetworkPolicy) -> Vec<IdentityId> {
        let here = self.space.identities_in(&policy.namespace).iter().copied();
        here.filter(|id| self.space.identity(*id).is_some_and(|of| policy.pod_selector.matches(&of.labels))).collect()
    }

    /// The identities that a policy of the Admin or Baseline tier has as subjects.
    pub(super) fn subjects_of(&self, policy: &ClusterPolicy, index: &Index) -> Vec<IdentityId> {
        let is_subject = |id: &IdentityId| {
            let of = self.space.identity(*id);
            of.is_some_and(|of| selects(&policy.subject, &index.namespace_labels(&of.namespace), &of.labels))
        };
        (0..u32::try_from(self.space.identities.len()).unwrap_or(u32::MAX)).filter(is_subject).collect()
    }

    fn forget_subjects(&mut self, which: Vec<IdentityId>) {
        for id in which {
            if let Some(subject) = self.subjects.get_mut(id as usize) {
                *subject = Subject::default();
            }
        }
    }

    fn forget_rows(&mut self) {
        for subject in &mut self.subjects {
            subject.rows = [OnceLock::new(), OnceLock::new()];
        }
        self.tier_rows.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Whether a `domainNames` entry stands for the name.
fn means(wanted: &str, name: &str) -> bool {
    match wanted.strip_prefix('*') {
        Some(suffix) => name.len() > suffix.len() && name.ends_with(suffix),
        None => wanted == name,
    }
}
