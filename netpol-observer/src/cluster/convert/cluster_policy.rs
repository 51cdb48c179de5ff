//! policy.networking.k8s.io AdminNetworkPolicy, BaselineAdminNetworkPolicy (v1alpha1) and ClusterNetworkPolicy (v1alpha2) →
//! [`ClusterPolicy`], checked by the rules of their published CustomResourceDefinitions, the experimental ones included.

mod peer;
mod port;

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::schema::{REQUIRED, at_most, at_most_long, exactly_one, part, too_few_items, unsupported, within};
use super::{Effect, FieldErrors, annotations, exact, labels, metadata, report, report_as, text};
use crate::cluster::policy_api::v1alpha1::{AdminNetworkPolicy, BaselineAdminNetworkPolicy};
use crate::cluster::policy_api::v1alpha2::ClusterNetworkPolicy;
use crate::cluster::policy_api::{self as api, EgressPeer};
use crate::cluster::{Action, ClusterPeer, ClusterPolicy, ClusterPolicyKind, ClusterPort, ClusterRule, Direction, Subject, Tier};
use peer::peer;
use port::{WrittenPort, cluster_port};

/// The only name a BaselineAdminNetworkPolicy may have.
const BASELINE_NAME: &str = "default";

/// Characters of a rule's name.
const MAX_NAME: usize = 100;

/// policy.networking.k8s.io/v1alpha1 AdminNetworkPolicy. Its `invalid` says the same as what is added to `errors`.
pub fn admin_network_policy(policy: AdminNetworkPolicy, errors: &mut FieldErrors) -> ClusterPolicy {
    let rules = policy.spec.map(|spec| Spec {
        tier: Some("Admin".to_owned()),
        priority: spec.priority,
        subject: spec.subject,
        ingress: each(spec.ingress, alpha1_ingress),
        egress: each(spec.egress, alpha1_egress),
    });
    compile(ClusterPolicyKind::AdminNetworkPolicy, policy.metadata, rules, errors)
}

/// policy.networking.k8s.io/v1alpha1 BaselineAdminNetworkPolicy. Its `invalid` says the same as what is added to `errors`.
pub fn baseline_admin_network_policy(policy: BaselineAdminNetworkPolicy, errors: &mut FieldErrors) -> ClusterPolicy {
    let rules = policy.spec.map(|spec| Spec {
        tier: Some("Baseline".to_owned()),
        priority: Some(0),
        subject: spec.subject,
        ingress: each(spec.ingress, alpha1_ingress),
        egress: each(spec.egress, alpha1_egress),
    });
    compile(ClusterPolicyKind::BaselineAdminNetworkPolicy, policy.metadata, rules, errors)
}

/// policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy. Its `invalid` says the same as what is added to `errors`.
pub fn cluster_network_policy(policy: ClusterNetworkPolicy, errors: &mut FieldErrors) -> ClusterPolicy {
    let rules = policy.spec.map(|spec| Spec {
        tier: spec.tier,
        priority: spec.priority,
        subject: spec.subject,
        ingress: each(spec.ingress, |rule| WrittenRule {
            name: rule.name,
            action: rule.action,
            peers: each(rule.from, EgressPeer::from),
            ports: each(rule.protocols, WrittenPort::Alpha2),
        }),
        egress: each(spec.egress, |rule| WrittenRule {
            name: rule.name,
            action: rule.action,
            peers: rule.to,
            ports: each(rule.protocols, WrittenPort::Alpha2),
        }),
    });
    compile(ClusterPolicyKind::ClusterNetworkPolicy, policy.metadata, rules, errors)
}

/// The `spec` of any of the kinds.
struct Spec {
    tier: Option<String>,
    priority: Option<i32>,
    subject: Option<api::Subject>,
    ingress: Option<Vec<WrittenRule>>,
    egress: Option<Vec<WrittenRule>>,
}

/// A rule of any of the kinds and directions.
struct WrittenRule {
    name: Option<String>,
    action: Option<String>,
    peers: Option<Vec<EgressPeer>>,
    ports: Option<Vec<WrittenPort>>,
}

fn alpha1_ingress(rule: api::v1alpha1::IngressRule) -> WrittenRule {
    WrittenRule {
        name: rule.name,
        action: rule.action,
        peers: each(rule.from, EgressPeer::from),
        ports: each(rule.ports, WrittenPort::Alpha1),
    }
}

fn alpha1_egress<P: Into<EgressPeer>>(rule: api::v1alpha1::EgressRule<P>) -> WrittenRule {
    WrittenRule { name: rule.name, action: rule.action, peers: each(rule.to, P::into), ports: each(rule.ports, WrittenPort::Alpha1) }
}

fn each<T, U>(list: Option<Vec<T>>, convert: impl Fn(T) -> U) -> Option<Vec<U>> {
    list.map(|items| items.into_iter().map(convert).collect())
}

/// What differs between the kinds.
impl ClusterPolicyKind {
    fn actions(self) -> &'static [(&'static str, Action)] {
        match self {
            ClusterPolicyKind::AdminNetworkPolicy => &[("Allow", Action::Accept), ("Deny", Action::Deny), ("Pass", Action::Pass)],
            ClusterPolicyKind::BaselineAdminNetworkPolicy => &[("Allow", Action::Accept), ("Deny", Action::Deny)],
            ClusterPolicyKind::ClusterNetworkPolicy => &[("Accept", Action::Accept), ("Deny", Action::Deny), ("Pass", Action::Pass)],
        }
    }

    /// Items in a list of rules, peers or ports.
    fn max_items(self) -> usize {
        if self == ClusterPolicyKind::ClusterNetworkPolicy { 25 } else { 100 }
    }

    fn ports_field(self) -> &'static str {
        if self == ClusterPolicyKind::ClusterNetworkPolicy { "protocols" } else { "ports" }
    }

    /// What the rule on named ports beside addresses calls the peers that have none.
    fn peers_without_names(self) -> &'static str {
        if self == ClusterPolicyKind::BaselineAdminNetworkPolicy { "networks/nodes" } else { "networks/nodes/domainNames" }
    }
}

fn compile(kind: ClusterPolicyKind, meta: ObjectMeta, spec: Option<Spec>, errors: &mut FieldErrors) -> ClusterPolicy {
    let mut own = FieldErrors::new();
    metadata::check(&meta, false, &mut own);
    // A policy that has no place among the others selects nothing.
    let mut misplaced = None;
    let name = text(meta.name);
    if kind == ClusterPolicyKind::BaselineAdminNetworkPolicy && &*name != BASELINE_NAME {
        let why = format!(
            "Invalid value: {name:?}: Only one baseline admin network policy with metadata.name=\"default\" can be created in the cluster"
        );
        misplaced = Some(format!("metadata.name: {why}").into());
        report(&mut own, "metadata.name", why);
    }
    let is_missing = spec.is_none();
    if is_missing {
        report(&mut own, "spec", REQUIRED);
        misplaced = misplaced.or(Some("spec: Required value".into()));
    }
    let spec = spec.unwrap_or(Spec { tier: None, priority: None, subject: None, ingress: None, egress: None });

    let tier = match spec.tier.as_deref() {
        Some("Admin") => Tier::Admin,
        Some("Baseline") => Tier::Baseline,
        other => {
            let why = other.map_or_else(|| REQUIRED.to_owned(), |tier| unsupported(tier, &["Admin", "Baseline"]));
            misplaced = misplaced.or_else(|| Some(format!("spec.tier: {why}").into()));
            if !is_missing {
                report(&mut own, "spec.tier", why);
            }
            // The kind tells the tier where the specification is missing altogether.
            if kind == ClusterPolicyKind::BaselineAdminNetworkPolicy { Tier::Baseline } else { Tier::Admin }
        }
    };
    let priority = match spec.priority {
        Some(priority) => {
            within(priority, 0, 1000, "spec.priority", Effect::AsWritten, &mut own);
            u16::try_from(priority.max(0)).unwrap_or(u16::MAX)
        }
        None => {
            if !is_missing {
                report_as(&mut own, "spec.priority", REQUIRED, Effect::AsWritten);
            }
            0
        }
    };
    let subject = match (spec.subject, is_missing) {
        (Some(written), _) => subject(written, kind, &mut own),
        (None, true) => Subject::Invalid(REQUIRED.into()),
        (None, false) => {
            report(&mut own, "spec.subject", REQUIRED);
            Subject::Invalid(REQUIRED.into())
        }
    };
    let subject = misplaced.map_or(subject, Subject::Invalid);
    let ingress = rules(spec.ingress, kind, Direction::Ingress, &mut own);
    let egress = rules(spec.egress, kind, Direction::Egress, &mut own);

    let invalid = own.iter().map(ToString::to_string).collect();
    errors.append(&mut own);
    ClusterPolicy {
        kind,
        name,
        resource_version: meta.resource_version.map(Arc::from),
        labels: labels(meta.labels),
        annotations: annotations(meta.annotations),
        tier,
        priority,
        subject,
        ingress,
        egress,
        invalid,
        origin: None,
    }
}

fn subject(written: api::Subject, kind: ClusterPolicyKind, errors: &mut FieldErrors) -> Subject {
    let field = "spec.subject";
    let compiled = part(field, Effect::MatchesNothing, errors, |errors| {
        exactly_one(&[written.namespaces.is_some(), written.pods.is_some()], field, errors);
        match peer::pods(written.namespaces, written.pods, field, kind, errors) {
            Some(ClusterPeer::Namespaces(namespaces)) => Subject::Namespaces(namespaces),
            Some(ClusterPeer::Pods { namespace, pod }) => Subject::Pods { namespace, pod },
            _ => Subject::Invalid(REQUIRED.into()),
        }
    });
    compiled.unwrap_or_else(Subject::Invalid)
}

fn rules(written: Option<Vec<WrittenRule>>, kind: ClusterPolicyKind, direction: Direction, errors: &mut FieldErrors) -> Vec<ClusterRule> {
    let field = format!("spec.{direction}");
    let written = written.unwrap_or_default();
    at_most(written.len(), kind.max_items(), &field, Effect::AsWritten, errors);
    exact(written.into_iter().enumerate().map(|(i, written)| rule(written, kind, direction, &format!("{field}[{i}]"), errors)))
}

fn rule(written: WrittenRule, kind: ClusterPolicyKind, direction: Direction, field: &str, errors: &mut FieldErrors) -> ClusterRule {
    if let Some(name) = &written.name {
        at_most_long(name, MAX_NAME, &format!("{field}.name"), Effect::AsWritten, errors);
    }
    let action = action(written.action.as_deref(), kind, &format!("{field}.action"), errors);
    let names_ports_of_addresses = direction == Direction::Egress
        && written.peers.iter().flatten().any(|peer| peer.networks.is_some() || peer.nodes.is_some() || peer.domain_names.is_some())
        && written.ports.iter().flatten().any(WrittenPort::is_name);

    let peers_field = format!("{field}.{}", if direction == Direction::Ingress { "from" } else { "to" });
    match written.peers.as_deref() {
        None => report(errors, &*peers_field, REQUIRED),
        Some([]) => report(errors, &*peers_field, too_few_items(&peers_field)),
        Some(peers) => at_most(peers.len(), kind.max_items(), &peers_field, Effect::AsWritten, errors),
    }
    let peers = written.peers.unwrap_or_default().into_iter().enumerate();
    let peers = exact(peers.map(|(i, written)| peer(written, kind, action.as_ref().ok(), &format!("{peers_field}[{i}]"), errors)));

    let ports_field = format!("{field}.{}", kind.ports_field());
    let mut ports = match written.ports {
        None => Vec::new(),
        Some(written) if written.is_empty() => {
            let why = too_few_items(&ports_field);
            report_as(errors, ports_field, &*why, Effect::FailsClosed);
            vec![ClusterPort::Invalid(why.into())]
        }
        Some(written) => {
            at_most(written.len(), kind.max_items(), &ports_field, Effect::AsWritten, errors);
            let ports = written.into_iter().enumerate();
            exact(ports.map(|(i, written)| cluster_port(written, &format!("{ports_field}[{i}]"), errors)))
        }
    };
    if names_ports_of_addresses {
        let without = kind.peers_without_names();
        let why = format!("{without} peer cannot be set with namedPorts since there are no namedPorts for {without}");
        for port in ports.iter_mut().filter(|port| matches!(port, ClusterPort::Named(_))) {
            *port = ClusterPort::Invalid(why.as_str().into());
        }
        report_as(errors, field, format!("Invalid value: \"object\": {why}"), Effect::FailsClosed);
    }

    // What somebody meant by an action that does not exist nobody knows. The rule keeps its place and does nothing.
    let (action, peers) = match action {
        Ok(action) => (action, peers),
        Err(why) => (Action::Accept, vec![ClusterPeer::Invalid(why)]),
    };
    ClusterRule { name: written.name.filter(|name| !name.is_empty()).map(Arc::from), action, peers, ports, origin: None }
}

fn action(written: Option<&str>, kind: ClusterPolicyKind, field: &str, errors: &mut FieldErrors) -> Result<Action, Arc<str>> {
    let Some(written) = written else {
        report(errors, field, REQUIRED);
        return Err(format!("action: {REQUIRED}").into());
    };
    if let Some((_, action)) = kind.actions().iter().find(|(name, _)| *name == written) {
        return Ok(*action);
    }
    let names: Vec<_> = kind.actions().iter().map(|(name, _)| *name).collect();
    let why = unsupported(written, &names);
    report(errors, field, &*why);
    Err(format!("action: {why}").into())
}
