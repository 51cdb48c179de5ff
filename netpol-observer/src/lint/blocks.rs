//! Ranges of addresses that hold pods or Services.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::cluster::{Cidr, Direction};

use super::Sink;
use super::cover::{contains, intersect};
use super::dns::SERVERS;
use super::facts::Facts;
use super::finding::{Code, Severity};
use super::view::{PolicyView, Reach, is_excepted};

/// What a range holds.
#[derive(Clone, Copy)]
enum Holds {
    Pod(IpAddr),
    PodRange(IpNet),
}

pub(super) fn lint(facts: &Facts<'_>, sink: &mut Sink<'_>) {
    let mut known: HashMap<(IpNet, Vec<IpNet>), Option<Holds>> = HashMap::new();
    let policies = facts.index.policies().map(|policy| PolicyView::from(&**policy));
    let cluster = facts.index.cluster_policies().map(|policy| PolicyView::from(&**policy));
    for view in policies.chain(cluster) {
        for rule in &view.rules {
            for (index, peer) in &rule.peers {
                let Reach::Addresses { cidr, except } = peer else { continue };
                let key = (cidr.net, except.iter().map(|hole| hole.net).collect());
                let holds = *known.entry(key).or_insert_with(|| holds(facts, cidr.net, except));
                let at = |code, severity| view.about.finding(code, severity, rule.peer_field(*index), rule.origin);
                if let Some(holds) = holds {
                    let (severity, message) = words(facts, cidr, holds);
                    let help = "select pods by labels; their addresses change. Keep address ranges for what is outside the cluster, and except the pods' ranges";
                    at(Code::IpBlockOverPods, severity).say(sink, message, help);
                } else if rule.direction == Direction::Egress
                    && let Some((service, ip)) = service(facts, cidr.net, except)
                {
                    let message = format!(
                        "{cidr} holds {ip}, the address of Service {service}, and no pod: policies are applied to the address of the pod behind a Service"
                    );
                    at(Code::IpBlockOverService, Severity::Warning).say(
                        sink,
                        message,
                        "select the pods behind the Service by labels, with their target port",
                    );
                }
            }
        }
    }
}

fn holds(facts: &Facts<'_>, range: IpNet, except: &[Cidr]) -> Option<Holds> {
    let excepted = |ip: IpAddr| except.iter().any(|hole| hole.contains(ip));
    if let Some(ip) = facts.pod_address_in(range, excepted) {
        return Some(Holds::Pod(ip));
    }
    let common = facts.pod_ranges.iter().copied().find(|pods| {
        let smaller = if contains(range, *pods) { *pods } else { range };
        intersect(range, *pods) && !is_excepted(smaller, except)
    });
    common.map(Holds::PodRange)
}

fn words(facts: &Facts<'_>, cidr: &Cidr, holds: Holds) -> (Severity, String) {
    let what = match holds {
        Holds::Pod(ip) => match facts.index.pods_at(ip).first() {
            Some(pod) => format!("{ip} of pod {}/{}", pod.namespace, pod.name),
            None => ip.to_string(),
        },
        Holds::PodRange(range) => format!("addresses of the range {range} that a node gives to pods"),
    };
    // A range for the internet, or for all that is private, is not meant for single pods.
    let shortest = if cidr.net.addr().is_ipv4() { 16 } else { 48 };
    let of_pods = facts.pod_ranges.iter().any(|range| contains(*range, cidr.net));
    if of_pods || cidr.net.prefix_len() > shortest {
        let message = format!("{cidr} holds {what}: pods change their addresses, and some CNIs match no pod by address");
        (Severity::Warning, message)
    } else {
        let message =
            format!("{cidr} holds {what}: where the CNI matches pods by address too, the peer is for pods as well as for what is outside");
        (Severity::Note, message)
    }
}

/// A Service whose virtual address lies in a range that is too small to be meant for anything else. The cluster's DNS is left out: node-local
/// caches answer at its Service's address themselves.
fn service(facts: &Facts<'_>, range: IpNet, except: &[Cidr]) -> Option<(String, IpAddr)> {
    let shortest = if range.addr().is_ipv4() { 16 } else { 64 };
    if range.prefix_len() < shortest {
        return None;
    }
    let is_node = facts.index.nodes().any(|node| node.addresses.iter().any(|ip| range.contains(ip)));
    let services = facts.index.services().filter(|service| !SERVERS.contains(&(&*service.namespace, &*service.name)));
    let of_service = |service: &std::sync::Arc<crate::cluster::Service>| {
        let inside = |ip: &&IpAddr| range.contains(*ip) && !except.iter().any(|hole| hole.contains(**ip));
        service.cluster_ips.iter().find(inside).map(|ip| (format!("{}/{}", service.namespace, service.name), *ip))
    };
    if is_node { None } else { services.into_iter().find_map(of_service) }
}
