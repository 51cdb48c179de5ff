//! Drops as log records.

use std::net::IpAddr;

use jiff::Timestamp;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};

use super::attribute::{self, bounded, log, number, text};
use crate::cluster::{Pod, Workload};
use crate::diagnose::{Agreement, Class, Denial};
use crate::identify::{Identity, Party};
use crate::policy::{Admission, Verdict};
use crate::serve::render::{directions, heading, miss, route};
use crate::serve::{Brief, Settled, class_name};

/// The event of a drop that came in full.
pub const DROP: &str = "netpol_observer.drop";
/// The event of repeats that were counted over an interval.
pub const REPEATS: &str = "netpol_observer.repeats";

/// A drop that came in full, with the repeats that were settled with it.
pub(super) fn of_drop(settled: &Settled, denial: &Denial, now: Timestamp) -> LogRecord {
    let brief = &settled.brief;
    let mut attributes = packet(denial);
    attributes.extend(of_brief(brief));
    attributes.extend(judgement(denial));
    attributes.push(number(log::COUNT, settled.count));
    attributes.push(text(log::FOLD_ID, &settled.id.to_string()));
    let more = if settled.count > 1 { format!(" ({} times)", settled.count) } else { String::new() };
    let body = format!("{}{more}: {}", headline(brief), denial.diagnosis.summary);
    record(DROP, brief, denial.event.time, now, &body, attributes)
}

/// Repeats of a drop that was told of before.
pub(super) fn of_repeats(id: &str, brief: &Brief, count: u64, last: Timestamp, now: Timestamp) -> LogRecord {
    let mut attributes = of_brief(brief);
    attributes.push(number(log::COUNT, count));
    attributes.push(text(log::FOLD_ID, id));
    record(REPEATS, brief, last, now, &format!("{}: {count} more like it", headline(brief)), attributes)
}

fn record(name: &str, brief: &Brief, time: Timestamp, now: Timestamp, body: &str, attributes: Vec<KeyValue>) -> LogRecord {
    let (number, words) = severity(&brief.route.class);
    LogRecord {
        time_unix_nano: nanoseconds(time),
        observed_time_unix_nano: nanoseconds(now),
        severity_number: number.into(),
        severity_text: words.to_owned(),
        body: Some(AnyValue { value: Some(Value::StringValue(bounded(body))) }),
        event_name: name.to_owned(),
        attributes,
        ..LogRecord::default()
    }
}

/// A time as OTLP has it; what was before 1970 is not known.
pub(super) fn nanoseconds(time: Timestamp) -> u64 {
    u64::try_from(time.as_nanosecond()).unwrap_or(0)
}

/// A connection that somebody wanted is lost, or the caller was answered that nobody is there.
fn severity(class: &Class) -> (SeverityNumber, &'static str) {
    match class {
        Class::PolicyDenied(_)
        | Class::DroppedReply
        | Class::PolicyChanged
        | Class::HostFirewall
        | Class::ServiceWithoutEndpoints
        | Class::NoRoute
        | Class::ReversePathFilter
        | Class::ConnectionState
        | Class::Undecided => (SeverityNumber::Warn, "WARN"),
        Class::NoListener | Class::Noise => (SeverityNumber::Info, "INFO"),
    }
}

/// `DENIED ingress shop/web-7d9f → shop/api-5c4b:8080/TCP`
fn headline(brief: &Brief) -> String {
    let (verb, what) = heading(&brief.route.class);
    format!("{verb} {what} {}", route(&brief.route))
}

/// What the packet shows, and where it was.
fn packet(denial: &Denial) -> Vec<KeyValue> {
    let (event, flow) = (&denial.event, &denial.event.flow);
    let mut attributes =
        vec![text(log::SOURCE_ADDRESS, &flow.source.to_string()), text(log::DESTINATION_ADDRESS, &flow.destination.to_string())];
    attributes.extend(flow.source_port.map(|port| number(log::SOURCE_PORT, port)));
    attributes.extend(flow.destination_port.map(|port| number(log::DESTINATION_PORT, port)));
    let client_port = if event.is_reply() { flow.destination_port } else { flow.source_port };
    attributes.extend(client_port.map(|port| number(log::CLIENT_PORT, port)));
    let interface = event.interface.as_ref().filter(|interface| !interface.name.is_empty());
    attributes.extend(interface.map(|interface| text(log::NETWORK_INTERFACE, &interface.name)));
    attributes.push(attribute::flag(log::REPLY, event.is_reply()));
    attributes
}

/// What is the same for a drop and its repeats.
fn of_brief(brief: &Brief) -> Vec<KeyValue> {
    let (ends, blame) = (&brief.route, &brief.blame);
    let family = if matches!(ends.server.ip, IpAddr::V4(_)) { "ipv4" } else { "ipv6" };
    let mut attributes = vec![
        text(log::CLIENT_ADDRESS, &ends.client.ip.to_string()),
        text(log::SERVER_ADDRESS, &ends.server.ip.to_string()),
        text(log::NETWORK_TRANSPORT, &ends.protocol.to_string().to_ascii_lowercase()),
        text(log::NETWORK_TYPE, family),
        text(log::CLASS, class_name(&ends.class)),
        text(log::REASON, &brief.reason),
    ];
    attributes.extend(ends.port.map(|port| number(log::SERVER_PORT, port)));
    let (subject, peer) = if blame.subject_is_client { (&ends.client, &ends.server) } else { (&ends.server, &ends.client) };
    attributes.extend(blame.subject.namespace.as_ref().map(|namespace| text(log::K8S_NAMESPACE, namespace)));
    if let Some(pod) = pod(subject) {
        attributes.push(text(log::K8S_POD, &pod.name));
        attributes.extend((!pod.uid.is_empty()).then(|| text(log::K8S_POD_UID, &pod.uid)));
    }
    if let Some(workload) = &blame.subject.workload {
        attributes.push(text(log::WORKLOAD, &named(workload)));
        attributes.extend(of_kind(&workload.kind).map(|key| text(key, &workload.name)));
    }
    attributes.extend(blame.peer.namespace.as_ref().map(|namespace| text(log::PEER_NAMESPACE, namespace)));
    attributes.extend(pod(peer).map(|pod| text(log::PEER_POD, &pod.name)));
    attributes.extend(blame.peer.workload.as_ref().map(|workload| text(log::PEER_WORKLOAD, &named(workload))));
    if !blame.directions.is_empty() {
        attributes.push(text(log::DIRECTION, &directions(&blame.directions)));
    }
    if let Some(policy) = &blame.policy {
        attributes.push(text(log::POLICY, &policy.full_name()));
        attributes.push(text(log::POLICY_KIND, policy.kind));
    }
    attributes.extend(blame.rule.map(|(direction, index)| text(log::RULE, &format!("{direction}[{index}]"))));
    if let Some(dialled) = &ends.service {
        attributes.push(text(log::SERVICE, &format!("{}/{}", dialled.service.namespace, dialled.service.name)));
        attributes.extend(dialled.port.map(|port| number(log::SERVICE_PORT, port)));
    }
    attributes
}

/// What policies and kernel say, and what would mend it.
fn judgement(denial: &Denial) -> Vec<KeyValue> {
    let explanation = &denial.explanation;
    let verdict = match explanation.verdict {
        Verdict::Allow => "allow",
        Verdict::Deny => "deny",
        Verdict::Undecided => "undecided",
    };
    let agreement = match denial.diagnosis.agreement {
        Agreement::Agrees => "agrees",
        Agreement::PoliciesAllow => "policiesAllow",
        Agreement::PolicyChanged { .. } => "policyChanged",
        Agreement::NotEnforcement => "notEnforcement",
        Agreement::CannotDecide { .. } => "cannotDecide",
    };
    let mut attributes = vec![text(log::VERDICT, verdict), text(log::AGREEMENT, agreement)];
    if let Class::PolicyDenied(denying) = &denial.diagnosis.class {
        // What is to blame is of the first direction that denies, and so is this.
        let directions = [&explanation.egress, &explanation.ingress];
        let first = directions.into_iter().find(|of| denying.first() == Some(&of.direction));
        if let Some(Admission::Denied { nearest, .. }) = first.map(|of| &of.admission)
            && let Some(near) = nearest.first()
        {
            attributes.push(text(log::NEAREST_MISS, &miss(near)));
        }
        let changes: Vec<&str> = explanation.fixes.iter().map(|fix| &*fix.change).collect();
        if !changes.is_empty() {
            attributes.push(text(log::FIX, &changes.join("; ")));
        }
    }
    attributes
}

fn pod(party: &Party) -> Option<&Pod> {
    match &party.identity {
        Identity::Pod(pod) => Some(pod),
        _ => None,
    }
}

/// `Deployment/web`
fn named(workload: &Workload) -> String {
    format!("{}/{}", workload.kind, workload.name)
}

/// The conventions have a name for each kind of workload that Kubernetes brings along.
fn of_kind(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "Deployment" => log::K8S_DEPLOYMENT,
        "StatefulSet" => log::K8S_STATEFUL_SET,
        "DaemonSet" => log::K8S_DAEMON_SET,
        "ReplicaSet" => log::K8S_REPLICA_SET,
        "Job" => log::K8S_JOB,
        "CronJob" => log::K8S_CRON_JOB,
        _ => return None,
    })
}
