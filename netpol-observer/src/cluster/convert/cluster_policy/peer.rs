//! One entry of `from` or `to` → [`ClusterPeer`].

use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::cluster::convert::names::{DOMAIN_NAME_PATTERN, is_domain_name};
use crate::cluster::convert::schema::{REQUIRED, at_most, at_most_long, exactly_one, part, too_few_items, unique};
use crate::cluster::convert::selector::selector;
use crate::cluster::convert::{Effect, FieldErrors, report, report_as};
use crate::cluster::domain_names::canonical;
use crate::cluster::policy_api::{EgressPeer, NamespacedPod};
use crate::cluster::{Action, Cidr, ClusterPeer, ClusterPolicyKind};

/// Items in `networks` and in `domainNames`.
const MAX_ADDRESSES: usize = 25;

/// Characters of a range.
const MAX_CIDR: usize = 43;

/// A peer of a rule with this action, if it has one that exists.
pub(super) fn peer(
    written: EgressPeer,
    kind: ClusterPolicyKind,
    action: Option<&Action>,
    field: &str,
    errors: &mut FieldErrors,
) -> ClusterPeer {
    let compiled = part(field, Effect::FailsClosed, errors, |errors| {
        let EgressPeer { namespaces, pods: of_pods, nodes, networks, domain_names } = written;
        let set = [namespaces.is_some(), of_pods.is_some(), nodes.is_some(), networks.is_some(), domain_names.is_some()];
        exactly_one(&set, field, errors);
        // Each field is looked at, so that one mistake hides no other; `part` takes the last only when it is the only one.
        let mut peer = pods(namespaces, of_pods, field, kind, errors);
        if let Some(nodes) = nodes {
            peer = Some(ClusterPeer::Nodes(selector(nodes, &format!("{field}.nodes"), errors)));
        }
        if let Some(written) = networks {
            peer = Some(ClusterPeer::Networks(networks_of(written, &format!("{field}.networks"), errors)));
        }
        if let Some(written) = domain_names {
            let field = format!("{field}.domainNames");
            if action.is_some_and(|action| *action != Action::Accept) {
                let accept = if kind == ClusterPolicyKind::ClusterNetworkPolicy { "Accept" } else { "Allow" };
                report_as(errors, &*field, format!("Forbidden: supported in {accept} rules only"), Effect::AsWritten);
            }
            peer = Some(ClusterPeer::DomainNames(domain_names_of(written, &field, errors)));
        }
        peer.unwrap_or_else(|| ClusterPeer::Invalid(REQUIRED.into()))
    });
    compiled.unwrap_or_else(ClusterPeer::Invalid)
}

/// The two fields that subjects have too.
pub(super) fn pods(
    namespaces: Option<LabelSelector>,
    pods: Option<NamespacedPod>,
    field: &str,
    kind: ClusterPolicyKind,
    errors: &mut FieldErrors,
) -> Option<ClusterPeer> {
    let namespaces = namespaces.map(|namespaces| ClusterPeer::Namespaces(selector(namespaces, &format!("{field}.namespaces"), errors)));
    let pods = pods.map(|pods| {
        let field = format!("{field}.pods");
        let mut compile = |written: Option<LabelSelector>, name: &str, is_required: bool| {
            let field = format!("{field}.{name}");
            if written.is_none() && is_required {
                report(errors, &*field, REQUIRED);
            }
            selector(written.unwrap_or_default(), &field, errors)
        };
        let namespace = compile(pods.namespace_selector, "namespaceSelector", kind != ClusterPolicyKind::ClusterNetworkPolicy);
        ClusterPeer::Pods { namespace, pod: compile(pods.pod_selector, "podSelector", true) }
    });
    pods.or(namespaces)
}

fn networks_of(written: Vec<String>, field: &str, errors: &mut FieldErrors) -> Vec<Cidr> {
    number_of_addresses(written.len(), field, errors);
    unique(&written, field, errors);
    let mut networks = Vec::with_capacity(written.len());
    for (i, text) in written.into_iter().enumerate() {
        let field = format!("{field}[{i}]");
        at_most_long(&text, MAX_CIDR, &field, Effect::MatchesNothing, errors);
        match strict_cidr(&text) {
            Some(net) => networks.push(Cidr { net, text: text.into() }),
            None => report(errors, field, format!("Invalid value: {text:?}: Invalid CIDR format provided")),
        }
    }
    networks
}

fn domain_names_of(written: Vec<String>, field: &str, errors: &mut FieldErrors) -> Vec<Arc<str>> {
    number_of_addresses(written.len(), field, errors);
    unique(&written, field, errors);
    for (i, name) in written.iter().enumerate().filter(|(_, name)| !is_domain_name(name)) {
        let field = format!("{field}[{i}]");
        let message = format!("Invalid value: {name:?}: {field} in body should match '{DOMAIN_NAME_PATTERN}'");
        report(errors, field, message);
    }
    written.iter().map(|name| canonical(name)).collect()
}

fn number_of_addresses(number: usize, field: &str, errors: &mut FieldErrors) {
    if number == 0 {
        report(errors, field, too_few_items(field));
    }
    at_most(number, MAX_ADDRESSES, field, Effect::AsWritten, errors);
}

/// A range as the expression language's `isCIDR` takes it: no superfluous zeros, no IPv4-mapped addresses; host bits may be set.
fn strict_cidr(text: &str) -> Option<IpNet> {
    let (ip, length) = text.split_once('/')?;
    let has_zeros = length.len() > 1 && length.starts_with('0');
    let ip: std::net::IpAddr = ip.parse().ok()?;
    if has_zeros || !length.bytes().all(|byte| byte.is_ascii_digit()) || ip.to_canonical() != ip {
        return None;
    }
    IpNet::new(ip, length.parse().ok()?).ok()
}
