//! A map for programs.

use serde::Serialize;

use super::{Denial, Map, Party, Ruling, Stretch};
use crate::connectivity::port_words;

/// One object with all of it; docs/map.md has its fields.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename = "map", rename_all = "camelCase")]
pub struct MapObject<'a> {
    title: &'a str,
    parties: &'a [Party],
    rulings: &'a [Ruling],
    edges: Vec<EdgeObject>,
    denied: Vec<DeniedObject>,
    denials: &'a [Denial],
    elsewhere: u64,
}

/// A pair that may talk.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct EdgeObject {
    from: usize,
    to: usize,
    ports: Vec<String>,
    by: Vec<SaidObject>,
}

/// A pair that may not.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DeniedObject {
    from: usize,
    to: usize,
    #[serde(flatten)]
    by: SaidObject,
}

/// What was said of some ports.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SaidObject {
    ports: Vec<String>,
    egress: usize,
    ingress: usize,
}

impl SaidObject {
    pub(super) fn of(stretch: &Stretch) -> Self {
        SaidObject { ports: port_words(&stretch.ports), egress: stretch.egress, ingress: stretch.ingress }
    }
}

impl<'a> MapObject<'a> {
    /// The object.
    pub fn of(map: &'a Map) -> Self {
        let mut edges = Vec::new();
        let mut denied = Vec::new();
        for (from, to, cell) in map.pairs() {
            if !cell.granted.is_empty() {
                let by = cell.granted.iter().map(SaidObject::of).collect();
                edges.push(EdgeObject { from, to, ports: port_words(&cell.ports()), by });
            } else if let Some(stretch) = &cell.denied {
                denied.push(DeniedObject { from, to, by: SaidObject::of(stretch) });
            }
        }
        MapObject {
            title: &map.title,
            parties: &map.parties,
            rulings: &map.rulings,
            edges,
            denied,
            denials: &map.denials,
            elsewhere: map.elsewhere,
        }
    }
}
