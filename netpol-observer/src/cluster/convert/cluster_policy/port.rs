//! One entry of `ports` or `protocols` → [`ClusterPort`].

use crate::cluster::convert::schema::{REQUIRED, exactly_one, part, too_few_properties, unsupported, within};
use crate::cluster::convert::{Effect, FieldErrors, known_protocol, report, report_as};
use crate::cluster::policy_api::{v1alpha1, v1alpha2};
use crate::cluster::{ClusterPort, PolicyPort, PortNumber};
use crate::flow::Protocol;

/// An entry of either version.
pub(super) enum WrittenPort {
    Alpha1(v1alpha1::Port),
    Alpha2(v1alpha2::Protocol),
}

impl WrittenPort {
    /// Whether it names a container port.
    pub(super) fn is_name(&self) -> bool {
        match self {
            WrittenPort::Alpha1(port) => port.named_port.is_some(),
            WrittenPort::Alpha2(protocol) => protocol.destination_named_port.is_some(),
        }
    }
}

pub(super) fn cluster_port(written: WrittenPort, field: &str, errors: &mut FieldErrors) -> ClusterPort {
    let compiled = part(field, Effect::FailsClosed, errors, |errors| match written {
        WrittenPort::Alpha1(port) => alpha1(port, field, errors),
        WrittenPort::Alpha2(protocol) => alpha2(protocol, field, errors),
    });
    match compiled {
        Ok(Some(port)) => port,
        Ok(None) => ClusterPort::Invalid(REQUIRED.into()),
        Err(why) => ClusterPort::Invalid(why),
    }
}

fn alpha1(port: v1alpha1::Port, field: &str, errors: &mut FieldErrors) -> Option<ClusterPort> {
    exactly_one(&[port.port_number.is_some(), port.named_port.is_some(), port.port_range.is_some()], field, errors);
    let mut compiled = port.named_port.and_then(|name| named(name, &format!("{field}.namedPort"), errors));
    if let Some(written) = port.port_number {
        let field = format!("{field}.portNumber");
        let protocol = protocol(written.protocol.as_deref(), &field, errors);
        let number = number(written.port, &format!("{field}.port"), errors);
        compiled = protocol.zip(number).map(|(protocol, number)| of(protocol, PortNumber::Number(number)));
    }
    if let Some(written) = port.port_range {
        let field = format!("{field}.portRange");
        let protocol = protocol(written.protocol.as_deref(), &field, errors);
        let range = range(written.start, written.end, &field, errors);
        if let Some((start, end)) = range.filter(|(start, end)| start > end) {
            // The schema does not say so, the field's description does.
            report(errors, format!("{field}.end"), format!("Invalid value: {end}: must be greater than `start`, which is {start}"));
        }
        compiled = protocol.zip(range).map(|(protocol, (start, end))| of(protocol, PortNumber::Range(start, end)));
    }
    compiled
}

fn alpha2(written: v1alpha2::Protocol, field: &str, errors: &mut FieldErrors) -> Option<ClusterPort> {
    let v1alpha2::Protocol { tcp, udp, sctp, destination_named_port } = written;
    exactly_one(&[tcp.is_some(), udp.is_some(), sctp.is_some(), destination_named_port.is_some()], field, errors);
    let mut compiled = destination_named_port.and_then(|name| named(name, &format!("{field}.destinationNamedPort"), errors));
    for (written, protocol, name) in [(tcp, Protocol::Tcp, "tcp"), (udp, Protocol::Udp, "udp"), (sctp, Protocol::Sctp, "sctp")] {
        if let Some(written) = written {
            compiled = destination_port(written, &format!("{field}.{name}"), errors).map(|port| of(protocol, port));
        }
    }
    compiled
}

fn destination_port(written: v1alpha2::ProtocolMatch, field: &str, errors: &mut FieldErrors) -> Option<PortNumber> {
    let Some(port) = written.destination_port else {
        // Refused, and yet plain: every port of the protocol.
        report_as(errors, field, too_few_properties(field), Effect::AsWritten);
        return Some(PortNumber::Any);
    };
    let field = format!("{field}.destinationPort");
    exactly_one(&[port.number.is_some(), port.range.is_some()], &field, errors);
    let single = port.number.and_then(|written| number(Some(written), &format!("{field}.number"), errors)).map(PortNumber::Number);
    let Some(written) = port.range else { return single };
    let field = format!("{field}.range");
    let (start, end) = range(written.start, written.end, &field, errors)?;
    if start >= end {
        report(errors, field, "Invalid value: \"object\": Start port must be less than End port");
    }
    Some(PortNumber::Range(start, end))
}

fn of(protocol: Protocol, port: PortNumber) -> ClusterPort {
    ClusterPort::Port(PolicyPort { protocol, port })
}

/// No container port has an empty name: an implementation takes the field for absent.
fn named(name: String, field: &str, errors: &mut FieldErrors) -> Option<ClusterPort> {
    if name.is_empty() {
        report(errors, field, REQUIRED);
        return None;
    }
    Some(ClusterPort::Named(name.into()))
}

/// The schema takes any text, the field's description three.
fn protocol(written: Option<&str>, field: &str, errors: &mut FieldErrors) -> Option<Protocol> {
    let known = known_protocol(written);
    if known.is_none() {
        let message = unsupported(written.unwrap_or_default(), &["TCP", "UDP", "SCTP"]);
        report(errors, format!("{field}.protocol"), message);
    }
    known
}

fn range(start: Option<i32>, end: Option<i32>, field: &str, errors: &mut FieldErrors) -> Option<(u16, u16)> {
    let start = number(start, &format!("{field}.start"), errors);
    let end = number(end, &format!("{field}.end"), errors);
    start.zip(end)
}

fn number(written: Option<i32>, field: &str, errors: &mut FieldErrors) -> Option<u16> {
    let Some(number) = written else {
        report(errors, field, REQUIRED);
        return None;
    };
    within(number, 1, 65535, field, Effect::MatchesNothing, errors);
    u16::try_from(number).ok().filter(|number| *number != 0)
}
