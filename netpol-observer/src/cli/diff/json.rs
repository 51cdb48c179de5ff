//! For programs: one object per line. docs/diff.md describes the fields.

use std::io::{self, Write};

use serde::Serialize;

use super::Compared;
use super::words::what;
use crate::cluster::Kind;
use crate::compare::{ObjectChange, SeenChange};
use crate::flow::Protocol;
use crate::policy::PairEnd;
use crate::serve::json::{EndObject, PairObject, write_value};

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Line<'a> {
    /// Connections that are decided otherwise.
    Change {
        becomes: &'static str,
        #[serde(flatten)]
        pair: PairObject<'a>,
    },
    /// Connections that were seen, and are decided otherwise.
    Seen {
        becomes: &'static str,
        from: EndObject<'a>,
        to: EndObject<'a>,
        port: u16,
        protocol: Protocol,
        count: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        last: Option<&'a str>,
    },
    Object {
        change: &'static str,
        kind: Kind,
        #[serde(skip_serializing_if = "str::is_empty")]
        namespace: &'a str,
        name: &'a str,
    },
    Workload {
        change: &'static str,
        workload: EndObject<'a>,
    },
    Diff(Summary<'a>),
}

/// The last line.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary<'a> {
    old: &'a str,
    new: &'a str,
    newly_denied: usize,
    newly_allowed: usize,
    undecided: usize,
    workloads: usize,
    added: usize,
    removed: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    seen: Option<SeenSummary>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SeenSummary {
    denied: u64,
    allowed: u64,
    same: u64,
    unknown: u64,
}

pub(super) fn write(compared: &Compared, out: &mut impl Write) -> io::Result<()> {
    let comparison = &compared.comparison;
    let kinds = [("denied", &comparison.denied), ("allowed", &comparison.allowed), ("undecided", &comparison.undecided)];
    for (becomes, changes) in kinds {
        for change in changes {
            line(&Line::Change { becomes, pair: PairObject::of(change) }, out)?;
        }
    }
    for change in compared.seen.iter().flat_map(|seen| &seen.changes) {
        let SeenChange { from, to, protocol, port, count, last, allowed } = change;
        let becomes = if *allowed { "allowed" } else { "denied" };
        let (from, to) = (EndObject::of(from), EndObject::of(to));
        line(&Line::Seen { becomes, from, to, port: *port, protocol: *protocol, count: *count, last: last.as_deref() }, out)?;
    }
    for ObjectChange { key, what: change } in &comparison.objects {
        line(&Line::Object { change: what(*change), kind: key.kind, namespace: &key.namespace, name: &key.name }, out)?;
    }
    let workloads = |workloads: &'_ [PairEnd], change: &'static str, out: &mut _| -> io::Result<()> {
        workloads.iter().try_for_each(|workload| line(&Line::Workload { change, workload: EndObject::of(workload) }, out))
    };
    workloads(&comparison.added, "added", out)?;
    workloads(&comparison.removed, "removed", out)?;
    let seen = compared.seen.as_ref().map(|seen| {
        let count = |allowed: bool| seen.changes.iter().filter(|change| change.allowed == allowed).map(|change| change.count).sum();
        SeenSummary { denied: count(false), allowed: count(true), same: seen.same, unknown: seen.unknown }
    });
    let summary = Summary {
        old: &compared.old,
        new: &compared.new,
        newly_denied: comparison.denied.len(),
        newly_allowed: comparison.allowed.len(),
        undecided: comparison.undecided.len(),
        workloads: comparison.workloads,
        added: comparison.added.len(),
        removed: comparison.removed.len(),
        seen,
    };
    line(&Line::Diff(summary), out)
}

fn line(line: &Line<'_>, out: &mut impl Write) -> io::Result<()> {
    write_value(line, &mut *out)?;
    writeln!(out)
}
