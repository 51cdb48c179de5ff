//! Connections that were really seen: which of them a change allows or denies.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;
use serde_json::Value;

use crate::connectivity::{Connectivity, Drops, PartyKind, Places, RecordedEnd};
use crate::flow::Protocol;
use crate::policy::PortRange;
use crate::question::{End, WorkloadKind};

/// A connection that was recorded, or several alike.
#[derive(Clone, Debug)]
pub struct Flow {
    from: FlowEnd,
    to: FlowEnd,
    protocol: Protocol,
    port: Option<u16>,
    /// How many.
    pub count: u64,
    /// When the last one was, as it was recorded (RFC 3339).
    pub last: Option<String>,
}

#[derive(Clone, Debug)]
enum FlowEnd {
    Recorded(RecordedEnd),
    Named(End),
}

/// Why recorded connections cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct Unreadable {
    /// From 1.
    pub line: usize,
    /// What is wrong.
    pub problem: String,
}

/// What comes of connections that were seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Those that are decided otherwise than before; the most frequent first.
    pub changes: Vec<SeenChange>,
    /// Connections that are decided as before.
    pub same: u64,
    /// Connections of which an end is nobody that is known, or that have no port.
    pub unknown: u64,
}

/// Connections alike that were seen, and are decided otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenChange {
    /// Who called.
    pub from: PartyKind,
    /// Who was called.
    pub to: PartyKind,
    /// The protocol.
    pub protocol: Protocol,
    /// The port, after the translation of a Service.
    pub port: u16,
    /// How many were seen.
    pub count: u64,
    /// When the last was.
    pub last: Option<String>,
    /// Whether they are allowed afterwards; before it was the other way.
    pub allowed: bool,
}

/// Reads connections, one JSON object per line: what `observer tail -o json` writes, what `hubble observe -o jsonpb` writes, or objects with `from`, `to` (as
/// `observer explain` takes them), `port`, and perhaps `protocol` and `count`.
///
/// # Errors
/// A line is none of these.
pub fn read_flows(text: &str) -> Result<Vec<Flow>, Unreadable> {
    let (mut flows, mut drops) = (Vec::new(), Drops::default());
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        flows.extend(flow(line, &mut drops).map_err(|problem| Unreadable { line: at + 1, problem })?);
    }
    for (drop, count, last) in drops.each() {
        // A protocol without a name has no ports either, and policies do not speak of it.
        let Ok(protocol) = drop.protocol.parse() else { continue };
        let [from, to] = [&drop.client, &drop.server].map(|end| FlowEnd::Recorded(end.clone()));
        let last = Some(last.to_owned()).filter(|last| !last.is_empty());
        flows.push(Flow { from, to, protocol, port: drop.server.port, count, last });
    }
    Ok(flows)
}

/// A line that somebody wrote.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plain {
    from: String,
    to: String,
    port: Option<u16>,
    protocol: Option<String>,
    count: Option<u64>,
    last: Option<String>,
}

/// A connection; drops are put to the others.
fn flow(line: &str, drops: &mut Drops) -> Result<Option<Flow>, String> {
    let object: Value = serde_json::from_str(line).map_err(|error| format!("no JSON: {error}"))?;
    if object.get("type").is_some() {
        return drops.take(object).map(|()| None);
    }
    if let Some(flow) = object.get("flow") {
        return hubble(flow);
    }
    if object.get("from").is_none() {
        return Err(
            "neither written by `observer tail -o json` or `hubble observe -o jsonpb`, nor an object with from, to and port".to_owned()
        );
    }
    let Plain { from, to, port, protocol, count, last } = Plain::deserialize(object).map_err(|error| error.to_string())?;
    let end = |text: &str| End::parse(text, "default").map(FlowEnd::Named).map_err(|error| error.to_string());
    let protocol = known(protocol.as_deref().unwrap_or("TCP"))?;
    Ok(Some(Flow { from: end(&from)?, to: end(&to)?, protocol, port, count: count.unwrap_or(1), last }))
}

fn known(protocol: &str) -> Result<Protocol, String> {
    protocol.parse::<Protocol>().map_err(|error| error.to_string())
}

/// A flow as Cilium's flow.proto has it; answers and what has no ports are passed over.
fn hubble(flow: &Value) -> Result<Option<Flow>, String> {
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    if flow.get("is_reply").and_then(Value::as_bool) == Some(true) {
        return Ok(None);
    }
    let Some((protocol, l4)) = [("TCP", Protocol::Tcp), ("UDP", Protocol::Udp), ("SCTP", Protocol::Sctp)]
        .into_iter()
        .find_map(|(name, protocol)| Some((protocol, flow.get("l4")?.get(name)?)))
    else {
        return Ok(None);
    };
    let port = l4.get("destination_port").and_then(Value::as_u64).and_then(|port| u16::try_from(port).ok());
    let end = |side: &str| -> Result<FlowEnd, String> {
        let ip: IpAddr =
            flow.get("IP").and_then(|ip| text(ip, side)).and_then(|ip| ip.parse().ok()).ok_or(format!("the flow has no IP.{side}"))?;
        let about = flow.get(side).unwrap_or(&Value::Null);
        let name = text(about, "pod_name").filter(|name| !name.is_empty());
        let workload = about.get("workloads").and_then(|workloads| workloads.get(0)).cloned();
        let kind = if name.is_some() { "pod" } else { "external" }.to_owned();
        let workload = workload.and_then(|workload| serde_json::from_value(workload).ok());
        Ok(FlowEnd::Recorded(RecordedEnd { ip, port: None, kind, namespace: text(about, "namespace"), name, workload }))
    };
    Ok(Some(Flow { from: end("source")?, to: end("destination")?, protocol, port, count: 1, last: text(flow, "time") }))
}

/// From, to, protocol, port, and whether it is allowed afterwards.
type Key = (usize, usize, Protocol, u16, bool);

/// Which of the connections are decided otherwise.
pub fn seen(flows: &[Flow], sides: [&Connectivity; 2]) -> Seen {
    let places = sides.map(Places::of);
    let mut known: BTreeMap<Key, (u64, Option<String>)> = BTreeMap::new();
    let mut seen = Seen::default();
    for flow in flows {
        let found = [0, 1].map(|side| Some((find(&places[side], &flow.from)?, find(&places[side], &flow.to)?)));
        let (Some(port), [Some(before), Some(after)]) = (flow.port.filter(|_| flow.protocol.has_ports()), found) else {
            seen.unknown += flow.count;
            continue;
        };
        let [was, is] = [(sides[0], before), (sides[1], after)].map(|(side, (from, to))| is_in(side.ports(from, to), flow.protocol, port));
        if was == is {
            seen.same += flow.count;
            continue;
        }
        let entry = known.entry((after.0, after.1, flow.protocol, port, is)).or_default();
        entry.0 += flow.count;
        if flow.last > entry.1 {
            entry.1.clone_from(&flow.last);
        }
    }
    let kind = |at: usize| sides[1].parties().get(at).map(|party| party.kind.clone());
    let change = |((from, to, protocol, port, allowed), (count, last))| {
        Some(SeenChange { from: kind(from)?, to: kind(to)?, protocol, port, count, last, allowed })
    };
    seen.changes = known.into_iter().filter_map(change).collect();
    seen.changes.sort_by(|a, b| (b.count, &a.from, &a.to, a.port).cmp(&(a.count, &b.from, &b.to, b.port)));
    seen
}

fn is_in(ports: &[PortRange], protocol: Protocol, port: u16) -> bool {
    ports.iter().any(|range| range.protocol == protocol && range.from <= port && port <= range.to)
}

fn find(places: &Places<'_>, end: &FlowEnd) -> Option<usize> {
    match end {
        FlowEnd::Recorded(end) => places.find(end),
        FlowEnd::Named(End::Ip(ip)) => places.address(*ip),
        FlowEnd::Named(End::Workload { kind, namespace, name }) => places.workload(namespace, kind.as_str(), name),
        FlowEnd::Named(End::Pod { namespace, name }) => {
            let kinds = [WorkloadKind::Deployment, WorkloadKind::StatefulSet, WorkloadKind::DaemonSet].map(WorkloadKind::as_str);
            places.workload(namespace, "Pod", name).or_else(|| kinds.into_iter().find_map(|kind| places.workload(namespace, kind, name)))
        }
        FlowEnd::Named(End::Node(_)) => places.node(),
        FlowEnd::Named(_) => None,
    }
}
