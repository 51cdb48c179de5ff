//! Ports of tests.

use crate::connectivity::range_words;
use crate::flow::Protocol;
use crate::policy::PortRange;
use crate::question::QuestionError;

/// The protocols that policies speak of, and that have ports.
const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// What a test is about on the way between two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Called {
    /// Ports.
    Ports(PortRange),
    /// A protocol without ports.
    Protocol(Protocol),
}

impl Called {
    /// As in reports: `8080/TCP`, `ICMP`.
    pub(super) fn words(&self) -> String {
        match self {
            Called::Ports(range) => range_words(range),
            Called::Protocol(protocol) => protocol.to_string(),
        }
    }
}

/// Reads ports: `8080`, `53/UDP`, `8000-8100/TCP`, `UDP`, `ICMP`; none stands for every port of every protocol.
///
/// # Errors
/// What is wrong with one of them.
pub(super) fn parse(written: &[String]) -> Result<Vec<Called>, QuestionError> {
    if written.is_empty() {
        return Ok(PROTOCOLS.map(whole).to_vec());
    }
    written.iter().map(|text| one(text.trim())).collect()
}

fn whole(protocol: Protocol) -> Called {
    Called::Ports(PortRange { protocol, from: 1, to: u16::MAX })
}

fn one(text: &str) -> Result<Called, QuestionError> {
    let wrong = || QuestionError::new(format!("{text:?} is no port")).hint("write 8080, 53/UDP, 8000-8100/TCP, or a protocol alone");
    if let Ok(protocol) = text.parse::<Protocol>() {
        return Ok(if protocol.has_ports() { whole(protocol) } else { Called::Protocol(protocol) });
    }
    let (ports, protocol) = match text.split_once('/') {
        Some((ports, protocol)) => (ports, protocol.parse::<Protocol>().map_err(|_| wrong())?),
        None => (text, Protocol::Tcp),
    };
    if !protocol.has_ports() {
        return Err(QuestionError::new(format!("{text}: {protocol} has no ports")).hint(format!("write {protocol} alone")));
    }
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(wrong);
    let (from, to) = match ports.split_once('-') {
        Some((from, to)) => (number(from)?, number(to)?),
        None => (number(ports)?, number(ports)?),
    };
    if to < from {
        return Err(QuestionError::new(format!("{text}: the range ends before it begins")).hint(format!("write {to}-{from}/{protocol}")));
    }
    Ok(Called::Ports(PortRange { protocol, from, to }))
}

/// What is left of ports when others are taken away.
pub(super) fn without(ports: Vec<Called>, away: &[Called]) -> Vec<Called> {
    away.iter().fold(ports, |left, away| left.into_iter().flat_map(|called| minus(called, *away)).collect())
}

fn minus(called: Called, away: Called) -> Vec<Called> {
    let (Called::Ports(range), Called::Ports(away)) = (called, away) else {
        return if called == away { Vec::new() } else { vec![called] };
    };
    if range.protocol != away.protocol || away.to < range.from || range.to < away.from {
        return vec![called];
    }
    let below = (range.from < away.from).then(|| PortRange { to: away.from - 1, ..range });
    let above = (away.to < range.to).then(|| PortRange { from: away.to + 1, ..range });
    below.into_iter().chain(above).map(Called::Ports).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(written: &[&str]) -> Vec<String> {
        let written: Vec<String> = written.iter().map(ToString::to_string).collect();
        parse(&written).expect("ports").iter().map(Called::words).collect()
    }

    #[test]
    fn ports_as_people_write_them() {
        assert_eq!(
            words(&["8080", "53/udp", "8000-8100/TCP", "SCTP", "ICMP"]),
            ["8080/TCP", "53/UDP", "8000-8100/TCP", "every SCTP port", "ICMP"]
        );
        assert_eq!(words(&[]), ["every TCP port", "every UDP port", "every SCTP port"]);
        for wrong in ["0", "70000", "http", "80/HTTP", "80/ICMP", "9-8", ""] {
            assert!(one(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ports_without_others() {
        let left = |ports: &[&str], away: &[&str]| -> Vec<String> {
            let parsed = |written: &[&str]| parse(&written.iter().map(ToString::to_string).collect::<Vec<_>>()).expect("ports");
            without(parsed(ports), &parsed(away)).iter().map(Called::words).collect()
        };
        assert_eq!(left(&["1-100"], &["50", "1", "100/UDP"]), ["2-49/TCP", "51-100/TCP"]);
        assert_eq!(left(&["8080", "ICMP"], &["1-65535", "ICMP"]), Vec::<String>::new());
        assert_eq!(left(&["10-20"], &[]), Vec::<String>::new(), "no port stands for every port");
    }
}
