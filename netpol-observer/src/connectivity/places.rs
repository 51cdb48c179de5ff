//! Ends of recorded connections → parties.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;

use super::{Connectivity, PartyKind};

/// An end of a recorded connection, as `observer tail -o json` writes it (docs/json.md, `PARTY`).
#[derive(Clone, Debug, Deserialize)]
pub struct RecordedEnd {
    /// Its address.
    pub ip: IpAddr,
    /// Its port.
    pub port: Option<u16>,
    /// What it was: `pod`, `node`, `external`, …
    pub kind: String,
    /// Of a pod.
    pub namespace: Option<String>,
    /// Of a pod or node.
    pub name: Option<String>,
    /// What made the pod.
    pub workload: Option<RecordedWorkload>,
}

/// What made a pod.
#[derive(Clone, Debug, Deserialize)]
pub struct RecordedWorkload {
    /// `Deployment`, …
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// Where ends of connections are among the parties.
pub struct Places<'a> {
    /// By namespace, kind and name.
    workloads: HashMap<(&'a str, &'a str, &'a str), usize>,
    /// Addresses of pods.
    addresses: HashMap<IpAddr, usize>,
    nodes: Option<usize>,
    node_addresses: Vec<IpAddr>,
    ranges: Vec<(IpNet, usize)>,
}

impl<'a> Places<'a> {
    /// Those of all parties.
    pub fn of(connectivity: &'a Connectivity) -> Self {
        let mut places =
            Places { workloads: HashMap::new(), addresses: HashMap::new(), nodes: None, node_addresses: Vec::new(), ranges: Vec::new() };
        for (at, party) in connectivity.parties().iter().enumerate() {
            match &party.kind {
                PartyKind::Workload { namespace, workload } => {
                    places.workloads.insert((namespace, &workload.kind, &workload.name), at);
                    places.addresses.extend(party.pods.iter().flat_map(|pod| &pod.ips).map(|ip| (*ip, at)));
                }
                PartyKind::Nodes => {
                    places.nodes = Some(at);
                    places.node_addresses.extend(party.nodes.iter().flat_map(|node| node.addresses.iter().copied()));
                }
                PartyKind::Outside(range) => places.ranges.push((*range, at)),
            }
        }
        places
    }

    /// Who it is: a position in [`Connectivity::parties`]; none where it is nobody that is known.
    pub fn find(&self, end: &RecordedEnd) -> Option<usize> {
        match end.kind.as_str() {
            "pod" => {
                let (namespace, name) = (end.namespace.as_deref()?, end.name.as_deref()?);
                let (kind, name) = end.workload.as_ref().map_or(("Pod", name), |workload| (&workload.kind, &workload.name));
                self.workload(namespace, kind, name)
            }
            "node" => self.nodes,
            "external" | "special" | "unownedPodAddress" => self.address(end.ip),
            _ => None,
        }
    }

    /// A workload.
    pub fn workload(&self, namespace: &str, kind: &str, name: &str) -> Option<usize> {
        let cron_job = || {
            // The Jobs of a CronJob have its name and the time they were due.
            let (cron_job, due) = name.rsplit_once('-').filter(|_| kind == "Job")?;
            due.bytes().all(|byte| byte.is_ascii_digit()).then(|| self.workloads.get(&(namespace, "CronJob", cron_job)).copied())?
        };
        self.workloads.get(&(namespace, kind, name)).copied().or_else(cron_job)
    }

    /// The nodes.
    pub fn node(&self) -> Option<usize> {
        self.nodes
    }

    /// Whoever has an address: a pod, a node, or the outside.
    pub fn address(&self, ip: IpAddr) -> Option<usize> {
        let outside = || {
            let containing = self.ranges.iter().filter(|(range, _)| range.contains(&ip));
            containing.max_by_key(|(range, _)| range.prefix_len()).map(|(_, at)| *at)
        };
        let node = || self.nodes.filter(|_| self.node_addresses.contains(&ip));
        self.addresses.get(&ip).copied().or_else(node).or_else(outside)
    }
}
