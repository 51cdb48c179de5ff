//! A map as nodes and arrows, by workload or by namespace: what is drawn as Mermaid and by Graphviz, and listed as text.

use std::collections::BTreeMap;

use super::{Map, Party};
use crate::connectivity::{merged, port_words};
use crate::policy::PortRange;

/// What a node stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum By {
    /// A workload.
    #[default]
    Workload,
    /// All workloads of a namespace.
    Namespace,
}

/// Nodes and arrows.
pub(super) struct Graph {
    pub(super) nodes: Vec<Node>,
    pub(super) arrows: Vec<Arrow>,
}

/// A workload or a namespace, nodes, or addresses outside.
pub(super) struct Node {
    /// What it is called alone: `shop/deploy/web`, `shop`.
    pub(super) name: String,
    /// What it is called within its group: `web`.
    pub(super) label: String,
    /// The namespace that it is drawn in; none for namespaces themselves and for what is outside of them.
    pub(super) group: Option<String>,
    /// `workload`, `namespace`, `nodes`, `outside`
    pub(super) kind: &'static str,
}

/// What one node may open connections to another on.
pub(super) struct Arrow {
    pub(super) from: usize,
    pub(super) to: usize,
    /// `8080/TCP`
    pub(super) ports: Vec<String>,
    /// Packets that were seen to be denied between them.
    pub(super) denied: u64,
}

impl Graph {
    pub(super) fn of(map: &Map, by: By) -> Self {
        let mut nodes: Vec<Node> = Vec::new();
        let mut of_party = Vec::with_capacity(map.parties.len());
        for party in &map.parties {
            let node = node(party, by);
            // Parties are in the order of their namespaces.
            match nodes.last() {
                Some(last) if by == By::Namespace && last.name == node.name && last.kind == node.kind => {}
                _ => nodes.push(node),
            }
            of_party.push(nodes.len() - 1);
        }
        let mut arrows: BTreeMap<(usize, usize), (Vec<PortRange>, u64)> = BTreeMap::new();
        let place = |party: usize| of_party.get(party).copied().unwrap_or_default();
        for (from, to, cell) in map.pairs() {
            let ports = cell.ports();
            if !ports.is_empty() {
                arrows.entry((place(from), place(to))).or_default().0.extend(ports);
            }
        }
        for denial in &map.denials {
            arrows.entry((place(denial.from), place(denial.to))).or_default().1 += denial.count;
        }
        let arrows = arrows.into_iter().map(|((from, to), (ports, denied))| Arrow { from, to, ports: port_words(&merged(ports)), denied });
        Graph { nodes, arrows: arrows.collect() }
    }
}

fn node(party: &Party, by: By) -> Node {
    let node = |name: &str, label: &str, group, kind| Node { name: name.to_owned(), label: label.to_owned(), group, kind };
    match (party.kind, by) {
        ("workload", By::Namespace) => node(&party.namespace, &party.namespace, None, "namespace"),
        ("workload", By::Workload) => node(&party.id, short(party), Some(party.namespace.clone()), "workload"),
        (kind, _) => node(&party.id, &party.id, None, kind),
    }
}

/// `deploy/web` of `shop/deploy/web`
pub(super) fn short(party: &Party) -> &str {
    party.id.strip_prefix(&party.namespace).map_or(&party.id, |rest| rest.trim_start_matches('/'))
}
