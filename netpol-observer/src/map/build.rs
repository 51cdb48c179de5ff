//! What the engine says of all pairs → [`Map`].

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;

use super::{Cell, Map, Party, Ruling, Says, Stretch};
use crate::cluster::{ContainerPort, Origin};
use crate::connectivity::{self, Connectivity, PartyKind};
use crate::flow::Protocol;
use crate::policy::{self, Engine, PolicyRef, PortRange, RuleRef};

/// Which protocols policies speak of.
const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// What is asked about where the called one declares no port.
const ANY_PORT: (Protocol, u16) = (Protocol::Tcp, 80);

/// Asks the engine about every pair.
pub fn build(engine: &Engine, connectivity: &Connectivity, title: &str) -> Map {
    let parties = connectivity.parties();
    let mut rulings = Interned::default();
    let mut cells = Interned::default();
    // The first is for pairs of which policies do not speak.
    cells.position(Cell::default());
    let mut pairs = Vec::with_capacity(parties.len() * parties.len());
    // Workloads of which nobody can tell the pods apart are asked about once.
    let mut asked = HashMap::new();
    let mut edges = connectivity.edges().iter().peekable();
    for from in 0..parties.len() {
        for (to, called) in parties.iter().enumerate() {
            let ports = edges.next_if(|edge| (edge.from, edge.to) == (from, to)).map(|edge| edge.ports.as_slice()).unwrap_or_default();
            let mut ask = |port, admitted| -> Option<[usize; 2]> {
                let mut said = || {
                    let said = connectivity.rulings(engine, from, to, port, admitted)?;
                    Some(said.map(|ruling| rulings.position(ruling)))
                };
                // A single pod is none that it could call, however many others there are like it.
                if from == to {
                    return said();
                }
                let key = (connectivity.groups_of(from), connectivity.groups_of(to), port, admitted);
                *asked.entry(key).or_insert_with(said)
            };
            let cell = Cell { granted: granted(ports, &mut ask), denied: denied(ports, called, &mut ask) };
            // Positions fit: there are no more cells than pairs, and pairs of more than u32 have no memory.
            pairs.push(u32::try_from(cells.position(cell)).unwrap_or_default());
        }
    }
    Map {
        title: title.to_owned(),
        parties: parties.iter().map(party).collect(),
        rulings: rulings.values.iter().map(ruling).collect(),
        cells: cells.values,
        pairs,
        ..Map::default()
    }
}

/// What is admitted. Ranges of which the same is said are put together.
fn granted(ports: &[PortRange], ask: &mut impl FnMut((Protocol, u16), bool) -> Option<[usize; 2]>) -> Vec<Stretch> {
    let mut granted: Vec<Stretch> = Vec::new();
    for range in ports {
        let Some([egress, ingress]) = ask((range.protocol, range.from), true) else { continue };
        match granted.iter_mut().find(|stretch| (stretch.egress, stretch.ingress) == (egress, ingress)) {
            Some(stretch) => stretch.ports.push(*range),
            None => granted.push(Stretch { ports: vec![*range], egress, ingress }),
        }
    }
    granted
}

/// What is said of a port that is not admitted: the first that the called one declares, or else the lowest.
fn denied(
    admitted: &[PortRange],
    called: &connectivity::Party,
    ask: &mut impl FnMut((Protocol, u16), bool) -> Option<[usize; 2]>,
) -> Option<Stretch> {
    let is_admitted =
        |protocol: Protocol, port: u16| admitted.iter().any(|range| range.protocol == protocol && (range.from..=range.to).contains(&port));
    let declared = called.ports.iter().map(|port| (port.protocol, port.port));
    let lowest = PROTOCOLS.into_iter().filter_map(|protocol| {
        let ends = admitted.iter().filter(|range| range.protocol == protocol).filter_map(|range| range.to.checked_add(1));
        let port = [1].into_iter().chain(ends).find(|port| !is_admitted(protocol, *port))?;
        Some((protocol, port))
    });
    let (protocol, port) = declared.chain([ANY_PORT]).chain(lowest).find(|(protocol, port)| !is_admitted(*protocol, *port))?;
    let [egress, ingress] = ask((protocol, port), false)?;
    Some(Stretch { ports: vec![PortRange { protocol, from: port, to: port }], egress, ingress })
}

fn party(party: &connectivity::Party) -> Party {
    let id = party.kind.to_string();
    let (kind, namespace, workload_kind, name) = match &party.kind {
        PartyKind::Workload { namespace, workload } => {
            ("workload", namespace.to_string(), workload.kind.to_string(), workload.name.to_string())
        }
        PartyKind::Nodes => ("nodes", String::new(), String::new(), id.clone()),
        PartyKind::Outside(_) => ("outside", String::new(), String::new(), id.clone()),
    };
    let [egress, ingress] = party.isolated.each_ref().map(|policies| policies.iter().map(policy_words).collect());
    Party {
        kind,
        id,
        namespace,
        workload_kind,
        name,
        labels: party.labels.iter().map(|(key, value)| format!("{key}={value}")).collect(),
        pods: party.pods.len(),
        ports: party.ports.iter().map(port_words).collect(),
        isolated_egress: egress,
        isolated_ingress: ingress,
        origin: party.origin.as_ref().map(ToString::to_string),
    }
}

/// `http 8080/TCP`
fn port_words(port: &ContainerPort) -> String {
    let name = port.name.as_ref().map(|name| format!("{name} ")).unwrap_or_default();
    format!("{name}{}/{}", port.port, port.protocol)
}

fn ruling(ruling: &policy::Ruling) -> Ruling {
    let said = |says| Ruling { says, by: Vec::new(), isolating: Vec::new(), why: None };
    match ruling {
        policy::Ruling::Open => said(Says::Open),
        policy::Ruling::Admitted { by } => Ruling { by: by.iter().map(rule_words).collect(), ..said(Says::Admitted) },
        policy::Ruling::Denied { by, isolating } => Ruling {
            by: by.iter().map(rule_words).collect(),
            isolating: isolating.iter().map(policy_words).collect(),
            ..said(Says::Denied)
        },
        policy::Ruling::Undecided { why } => Ruling { why: Some(why.clone()), ..said(Says::Undecided) },
    }
}

/// `NetworkPolicy shop/api ingress[0] (shop.yaml:7)`
fn rule_words(rule: &RuleRef) -> String {
    with_place(rule, rule.place())
}

/// `NetworkPolicy shop/api (shop.yaml:3)`
fn policy_words(policy: &PolicyRef) -> String {
    with_place(policy, policy.origin.as_ref())
}

fn with_place(what: impl fmt::Display, place: Option<&Origin>) -> String {
    match place {
        Some(place) => format!("{what} ({place})"),
        None => what.to_string(),
    }
}

/// Values, each once, and where they are.
struct Interned<T> {
    values: Vec<T>,
    positions: HashMap<T, usize>,
}

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Interned { values: Vec::new(), positions: HashMap::new() }
    }
}

impl<T: Clone + Eq + Hash> Interned<T> {
    fn position(&mut self, value: T) -> usize {
        if let Some(position) = self.positions.get(&value) {
            return *position;
        }
        let position = self.values.len();
        self.values.push(value.clone());
        self.positions.insert(value, position);
        position
    }
}
