//! Items as JSON, one object per line. `docs/json.md` describes every field; a test holds the two together.
//!
//! The objects are written here by hand rather than derived from the internal types, so that those can change while this
//! stays.

mod answer;
mod change;
mod moment;
mod parts;

use std::io;

use jiff::Timestamp;
use serde::Serialize;

pub use self::answer::{AnswerObject, LinkObject, chain};
pub use self::change::{EndObject, PairObject, PolicyChangeObject};
use self::moment::{AmendmentObject, MomentObject};
use self::parts::{ConntrackObject, KernelObject, PartyObject, ServiceObject, TunnelObject, conntrack, kernel, service, tunnel};
use super::fold::Summary;
use super::render::is_unprintable;
use super::{Item, Ledger, Route, class_name};
use crate::cluster::Direction;
use crate::diagnose::{Agreement, Class, Denial};
use crate::flow::{FoldId, Fragment, IcmpKind, Protocol, TcpFlags};
use crate::policy::{Explanation, Verdict};

/// One line of `-o json`.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum Line<'a> {
    /// A drop, in full.
    Denial(Box<DenialObject<'a>>),
    /// Repeats of one.
    Repeat(Box<RepeatObject<'a>>),
    /// What is to be said otherwise of one.
    Amendment(Box<AmendmentObject<'a>>),
    /// The account of the run.
    Ledger(Box<LedgerObject>),
    /// Something to know about the run.
    Notice(Notice<'a>),
    /// A policy changed.
    PolicyChange(Box<PolicyChangeObject<'a>>),
}

/// `type: denial`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DenialObject<'a> {
    id: FoldId,
    time: Timestamp,
    first: Timestamp,
    last: Timestamp,
    count: u64,
    class: &'static str,
    directions: &'a [Direction],
    verdict: Verdict,
    agreement: &'a Agreement,
    summary: &'a str,
    client: PartyObject<'a>,
    server: PartyObject<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<ServiceObject<'a>>,
    protocol: Protocol,
    reply: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp_flags: Option<TcpFlags>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp: Option<IcmpKind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fragment: Option<Fragment>,
    explanation: &'a Explanation,
    kernel: KernelObject<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conntrack: Option<ConntrackObject<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tunnel: Option<TunnelObject<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    moment: Option<MomentObject<'a>>,
}

/// `type: repeat`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RepeatObject<'a> {
    id: FoldId,
    time: Timestamp,
    first: Timestamp,
    last: Timestamp,
    since: Timestamp,
    count: u64,
    total: u64,
    class: &'static str,
    directions: &'a [Direction],
    client: PartyObject<'a>,
    server: PartyObject<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<ServiceObject<'a>>,
    protocol: Protocol,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp: Option<IcmpKind>,
}

/// `type: notice`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Notice<'a> {
    /// When.
    pub time: Timestamp,
    /// `info` or `warning`
    pub level: &'static str,
    /// For people.
    pub message: &'a str,
}

/// `type: ledger`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerObject {
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel: Option<KernelLedgerObject>,
    records: u64,
    counted: u64,
    decoded: u64,
    undecodable: u64,
    shown: u64,
    repeats: u64,
    pending: u64,
    filtered_out: u64,
    earlier: u64,
    elsewhere: u64,
    noise: u64,
    unattributed: u64,
    balanced: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct KernelLedgerObject {
    seen: u64,
    reported: u64,
    folded: u64,
    ring_full: u64,
    unfolded: u64,
    received: u64,
    folded_delivered: u64,
    program_misses: u64,
}

impl<'a> Line<'a> {
    /// The line of an item; `node` is where the drop was seen.
    pub fn of(item: &'a Item, node: Option<&'a str>) -> Self {
        match item {
            Item::Denial { denial, .. } => Line::Denial(Box::new(DenialObject::of(denial, node))),
            Item::Repeats(summary) => Line::Repeat(Box::new(RepeatObject::of(summary))),
            Item::PolicyChange(effect) => Line::PolicyChange(Box::new(PolicyChangeObject::of(effect))),
            Item::Amendment { amendment, .. } => Line::Amendment(Box::new(AmendmentObject::of(amendment, node))),
        }
    }

    /// The line of a ledger.
    pub fn ledger(ledger: &Ledger) -> Self {
        Line::Ledger(Box::new(LedgerObject::of(ledger)))
    }

    /// Writes the object and a newline. Characters that act on terminals are escaped as `\uXXXX`.
    ///
    /// # Errors
    /// The writer's.
    pub fn write(&self, mut writer: impl io::Write) -> io::Result<()> {
        write_value(self, &mut writer)?;
        writer.write_all(b"\n")
    }
}

/// Writes a value as compact JSON. Characters that act on terminals are escaped as `\uXXXX`.
///
/// # Errors
/// The writer's.
pub fn write_value(value: &(impl Serialize + ?Sized), writer: impl io::Write) -> io::Result<()> {
    let mut serializer = serde_json::Serializer::with_formatter(writer, Escaping);
    Ok(value.serialize(&mut serializer)?)
}

impl<'a> DenialObject<'a> {
    fn of(denial: &'a Denial, node: Option<&'a str>) -> Self {
        let Denial { event, who, explanation, diagnosis, moment } = denial;
        let route = Route::of(denial);
        let client_port = if event.is_reply() { event.flow.destination_port } else { event.flow.source_port };
        DenialObject {
            id: event.id,
            time: event.time,
            first: event.time,
            last: event.time,
            count: 1,
            class: class_name(&diagnosis.class),
            directions: directions(&diagnosis.class),
            verdict: explanation.verdict,
            agreement: &diagnosis.agreement,
            summary: &diagnosis.summary,
            client: PartyObject::of(&who.client, client_port).running(&who.callers),
            server: PartyObject::of(&who.server, route.port).running(&who.host_network),
            service: service(who),
            protocol: event.flow.protocol,
            reply: event.is_reply(),
            tcp_flags: event.flow.tcp_flags,
            icmp: event.flow.icmp,
            fragment: event.flow.fragment,
            explanation,
            kernel: kernel(denial, node),
            conntrack: event.conntrack.as_ref().map(conntrack),
            tunnel: tunnel(denial),
            moment: moment.as_ref().map(MomentObject::of),
        }
    }
}

impl<'a> RepeatObject<'a> {
    fn of(summary: &'a Summary) -> Self {
        let route = &summary.route;
        RepeatObject {
            id: summary.key.id,
            time: summary.last,
            first: summary.first,
            last: summary.last,
            since: summary.since,
            count: summary.count,
            total: summary.total,
            class: class_name(&route.class),
            directions: directions(&route.class),
            client: PartyObject::of(&route.client, None),
            server: PartyObject::of(&route.server, route.port),
            service: route.service.as_ref().map(|dialled| ServiceObject {
                namespace: &dialled.service.namespace,
                name: &dialled.service.name,
                ip: None,
                port: dialled.port,
                by: None,
                port_name: None,
                backends: None,
            }),
            protocol: route.protocol,
            icmp: route.icmp,
        }
    }
}

impl LedgerObject {
    fn of(ledger: &Ledger) -> Self {
        LedgerObject {
            kernel: ledger.kernel.map(|kernel| KernelLedgerObject {
                seen: kernel.counters.seen,
                reported: kernel.counters.reported,
                folded: kernel.counters.folded,
                ring_full: kernel.counters.ring_full,
                unfolded: kernel.counters.unfolded,
                received: kernel.received,
                folded_delivered: kernel.folded_delivered,
                program_misses: kernel.program_misses,
            }),
            records: ledger.records,
            counted: ledger.counted,
            decoded: ledger.decoded,
            undecodable: ledger.undecodable,
            shown: ledger.shown,
            repeats: ledger.repeats,
            pending: ledger.pending,
            filtered_out: ledger.filtered_out,
            earlier: ledger.earlier,
            elsewhere: ledger.elsewhere,
            noise: ledger.noise,
            unattributed: ledger.unattributed,
            balanced: ledger.balance().is_ok(),
        }
    }
}

fn directions(class: &Class) -> &[Direction] {
    match class {
        Class::PolicyDenied(directions) => directions,
        _ => &[],
    }
}

/// Compact JSON in which nothing unprintable is left; JSON itself only demands that of the characters below U+0020.
struct Escaping;

impl serde_json::ser::Formatter for Escaping {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((start, c)) = rest.char_indices().find(|(_, c)| is_unprintable(*c)) {
            let (before, behind) = rest.split_at(start);
            writer.write_all(before.as_bytes())?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = behind.get(c.len_utf8()..).unwrap_or_default();
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests;
