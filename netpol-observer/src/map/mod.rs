//! A map: who can talk to whom, drawn for people and written for programs.
//!
//! Pure. [`build`] asks the engine about every pair of parties; what it said is a [`Map`], and a [`Map`] is all that text, Mermaid, Graphviz, JSON and the
//! page are made of. None of them decides anything.
#![forbid(unsafe_code)]

mod build;
mod dot;
mod drops;
mod graph;
mod html;
mod json;
mod mermaid;
mod text;

pub use build::build;
pub use dot::dot;
pub use drops::lay_over;
pub use graph::By;
pub use html::html;
pub use json::MapObject;
pub use mermaid::{MERMAID_EDGES, mermaid};
pub use text::text;

use serde::Serialize;

use crate::policy::PortRange;

/// Who can talk to whom, and why.
#[derive(Clone, Debug, Default)]
pub struct Map {
    /// What it is of, for headings.
    pub title: String,
    /// Everybody, in the order of [`Connectivity::parties`](crate::connectivity::Connectivity::parties).
    pub parties: Vec<Party>,
    /// What was said of connections in one direction, each once.
    pub rulings: Vec<Ruling>,
    /// What was said of pairs, each once. The first is a pair of which policies do not speak.
    pub cells: Vec<Cell>,
    /// For each caller, for each called one, the position of what was said in `cells`.
    pub pairs: Vec<u32>,
    /// Connections that were seen to be denied.
    pub denials: Vec<Denial>,
    /// Drops whose ends are not both on the map.
    pub elsewhere: u64,
}

/// One side of connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Party {
    /// `workload`, `nodes`, `outside`
    pub kind: &'static str,
    /// As people type it: `shop/deploy/web`, `nodes`, `203.0.113.0/24`.
    pub id: String,
    /// Of a workload.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Of a workload: `Deployment`, `Pod`, …
    #[serde(skip_serializing_if = "String::is_empty")]
    pub workload_kind: String,
    /// Name of a workload, `nodes`, or the range of addresses.
    pub name: String,
    /// Labels of its pods.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// How many pods it has.
    #[serde(skip_serializing_if = "is_zero")]
    pub pods: usize,
    /// Ports its containers declare: `http 8080/TCP`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
    /// Policies that isolate any of its pods for egress.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub isolated_egress: Vec<String>,
    /// And for ingress.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub isolated_ingress: Vec<String>,
    /// Where it was read: `shop.yaml:12`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// What the policies on one side say of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ruling {
    /// How it comes out.
    pub says: Says,
    /// Rules that admit it, or the rule that denies it: `NetworkPolicy shop/web, egress[0] (shop.yaml:12)`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub by: Vec<String>,
    /// Policies that isolate the pod, where none of their rules admits it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub isolating: Vec<String>,
    /// What is missing to decide.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// How a [`Ruling`] comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Says {
    /// No policy speaks of it.
    Open,
    /// Rules admit it.
    Admitted,
    /// It is denied.
    Denied,
    /// It cannot be decided.
    Undecided,
}

/// What was said of a pair.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cell {
    /// What is admitted, by ports; nothing where all is denied.
    pub granted: Vec<Stretch>,
    /// Of a port on which not all pods of the pair are connected; none where all of them are on every port.
    pub denied: Option<Stretch>,
}

/// What was said of connections on ports of which the first was asked about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stretch {
    /// The ports; one for a denial.
    pub ports: Vec<PortRange>,
    /// By the policies on the caller: a position in [`Map::rulings`].
    pub egress: usize,
    /// By those on the called one.
    pub ingress: usize,
}

/// How a pair comes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Policies do not speak of it: the nodes among themselves, a single pod and itself.
    None,
    /// No port is admitted.
    Denied,
    /// Some ports are.
    Some,
    /// All ports are.
    Every,
}

/// Drops of one kind of connection, put together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Denial {
    /// Who called: a position in [`Map::parties`].
    pub from: usize,
    /// Who was called.
    pub to: usize,
    /// `5432/TCP`, or a protocol without ports.
    pub port: String,
    /// How many packets were dropped.
    pub count: u64,
    /// When the last was, as it was written.
    pub last: String,
    /// Why, in a sentence.
    pub summary: String,
    /// The policy or rule that denied it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The change that would admit it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fixes: Vec<String>,
}

impl Map {
    /// What was said of a pair.
    pub fn cell(&self, from: usize, to: usize) -> Option<&Cell> {
        let at = from.checked_mul(self.parties.len())?.checked_add(to)?;
        self.cells.get(usize::try_from(*self.pairs.get(at)?).ok()?)
    }

    /// Every pair of which policies speak, in the order of callers and then of called ones.
    pub fn pairs(&self) -> impl Iterator<Item = (usize, usize, &Cell)> {
        let count = self.parties.len();
        let all = self.pairs.iter().enumerate();
        let cells = all.filter_map(move |(at, cell)| Some((at / count, at % count, self.cells.get(usize::try_from(*cell).ok()?)?)));
        cells.filter(|(.., cell)| cell.outcome() != Outcome::None)
    }

    /// How many pairs come out as each of [`Outcome::Denied`], [`Outcome::Some`] and [`Outcome::Every`].
    pub fn counts(&self) -> [usize; 3] {
        let mut counts = [0; 3];
        for (.., cell) in self.pairs() {
            counts[match cell.outcome() {
                Outcome::None | Outcome::Denied => 0,
                Outcome::Some => 1,
                Outcome::Every => 2,
            }] += 1;
        }
        counts
    }
}

impl Map {
    /// The map of the workloads of some namespaces, and of those who may talk to one of them or were seen to try.
    #[must_use]
    pub fn around(self, namespaces: &[String]) -> Map {
        let is_within =
            |at: usize| self.parties.get(at).is_some_and(|party| party.kind == "workload" && namespaces.contains(&party.namespace));
        let mut is_kept: Vec<bool> = (0..self.parties.len()).map(is_within).collect();
        let admitted = self.pairs().filter(|(.., cell)| !cell.granted.is_empty()).map(|(from, to, _)| (from, to));
        let seen = self.denials.iter().map(|denial| (denial.from, denial.to));
        for (from, to) in admitted.chain(seen).filter(|(from, to)| is_within(*from) || is_within(*to)) {
            for at in [from, to] {
                if let Some(is_kept) = is_kept.get_mut(at) {
                    *is_kept = true;
                }
            }
        }
        let kept: Vec<usize> = is_kept.iter().enumerate().filter(|(_, is_kept)| **is_kept).map(|(at, _)| at).collect();
        let cell = |from: usize, to: usize| {
            // Those around are there for their talk with the namespaces, not for that among themselves.
            let is_shown = is_within(from) || is_within(to);
            is_shown.then(|| self.pairs.get(from * self.parties.len() + to).copied()).flatten().unwrap_or_default()
        };
        let pairs = kept.iter().flat_map(|from| kept.iter().map(|to| cell(*from, *to))).collect();
        let place = |at: usize| kept.binary_search(&at).ok();
        let denials = self
            .denials
            .iter()
            .filter(|denial| is_within(denial.from) || is_within(denial.to))
            .filter_map(|denial| Some(Denial { from: place(denial.from)?, to: place(denial.to)?, ..denial.clone() }));
        Map {
            denials: denials.collect(),
            parties: kept.iter().filter_map(|at| self.parties.get(*at).cloned()).collect(),
            pairs,
            title: self.title,
            rulings: self.rulings,
            cells: self.cells,
            elsewhere: self.elsewhere,
        }
    }
}

impl Cell {
    /// How the pair comes out.
    pub fn outcome(&self) -> Outcome {
        match (self.granted.is_empty(), &self.denied) {
            (true, None) => Outcome::None,
            (true, Some(_)) => Outcome::Denied,
            (false, Some(_)) => Outcome::Some,
            (false, None) => Outcome::Every,
        }
    }

    /// All ports that are admitted, in order.
    pub fn ports(&self) -> Vec<PortRange> {
        let mut ports: Vec<PortRange> = self.granted.iter().flat_map(|stretch| stretch.ports.iter().copied()).collect();
        ports.sort_unstable_by_key(|range| (range.protocol, range.from));
        ports
    }
}
