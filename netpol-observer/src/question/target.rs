//! The side that is called: an end, or a URL. And ports.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::{End, QuestionError};
use crate::flow::Protocol;

/// Schemes that may stand in front of a host, with the port they mean and, where it is not TCP, the protocol.
const SCHEMES: &[(&str, Option<u16>, Option<Protocol>)] = &[
    ("http", Some(80), None),
    ("https", Some(443), None),
    ("ws", Some(80), None),
    ("wss", Some(443), None),
    ("grpc", None, None),
    ("postgres", Some(5432), None),
    ("postgresql", Some(5432), None),
    ("mysql", Some(3306), None),
    ("mongodb", Some(27017), None),
    ("redis", Some(6379), None),
    ("rediss", Some(6379), None),
    ("amqp", Some(5672), None),
    ("amqps", Some(5671), None),
    ("nats", Some(4222), None),
    ("ldap", Some(389), None),
    ("ldaps", Some(636), None),
    ("tcp", None, Some(Protocol::Tcp)),
    ("udp", None, Some(Protocol::Udp)),
    ("sctp", None, Some(Protocol::Sctp)),
    ("dns", Some(53), Some(Protocol::Udp)),
];

/// Who is called.
#[derive(Clone, Debug, PartialEq)]
pub enum Callee {
    /// By what it is.
    End(End),
    /// By a name that the caller looks up, or by an address with a port.
    Url(Url),
}

/// `http://api.shop:80/orders`, `api.shop:80`, `api`
#[derive(Clone, Debug, PartialEq)]
pub struct Url {
    /// As typed, without what stands behind the host and port.
    pub shown: String,
    /// The host.
    pub host: Host,
    /// The port, typed or that of the scheme.
    pub port: Option<u16>,
    /// The protocol, where the scheme tells it.
    pub protocol: Option<Protocol>,
}

/// The host of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// An address; nothing is looked up.
    Ip(IpAddr),
    /// A name in lower case, without the final dot.
    Name(String),
}

impl Callee {
    /// Reads what `--to` takes: an end, or a URL with its scheme.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str, namespace: &str) -> Result<Self, QuestionError> {
        if text.contains("://") { Url::parse(text).map(Callee::Url) } else { End::parse(text, namespace).map(Callee::End) }
    }
}

impl Url {
    /// Reads a URL, `host:port` or `host`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, QuestionError> {
        let text = text.trim();
        let bad =
            |what: &str| QuestionError::new(format!("{text}: {what}")).hint("write it as http://api.shop:80/path, api.shop:80 or api");
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Some(scheme.to_ascii_lowercase()), rest),
            None => (None, text),
        };
        let known = scheme.as_deref().map(|scheme| SCHEMES.iter().find(|(name, ..)| *name == scheme));
        let (default_port, protocol) = match known {
            Some(Some((_, port, protocol))) => (*port, *protocol),
            _ => (None, None),
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        // What stands before the last @ is a user and perhaps a password: neither looked at nor shown.
        let authority = authority.rsplit('@').next().unwrap_or_default();
        let (host, port) = split_port(authority).map_err(bad)?;
        let port = match port {
            Some(port) => Some(port),
            None if known == Some(None) => {
                let scheme = scheme.as_deref().unwrap_or_default();
                return Err(bad(&format!("the port of {scheme:?} is not known here, and the URL names none")));
            }
            None => default_port,
        };
        let shown = match &scheme {
            Some(scheme) => format!("{scheme}://{authority}"),
            None => authority.to_owned(),
        };
        let host = match host.parse::<IpAddr>() {
            Ok(ip) => Host::Ip(ip.to_canonical()),
            Err(_) if is_host(host) => Host::Name(host.trim_end_matches('.').to_ascii_lowercase()),
            Err(_) => return Err(bad(&format!("{host:?} is no host name and no IP address"))),
        };
        Ok(Url { shown, host, port, protocol })
    }
}

/// `host:port`, `[::1]:port`, `::1` and `host` into host and port.
fn split_port(authority: &str) -> Result<(&str, Option<u16>), &'static str> {
    let number = |text: &str| match text.parse::<u16>() {
        Ok(port) if port > 0 && text.starts_with(|c: char| c.is_ascii_digit()) => Ok(Some(port)),
        _ => Err("the port must be a number from 1 to 65535"),
    };
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, behind) = rest.split_once(']').ok_or("a bracket is not closed")?;
        return match behind.strip_prefix(':') {
            Some(port) => Ok((host, number(port)?)),
            None if behind.is_empty() => Ok((host, None)),
            None => Err("something behind the bracket"),
        };
    }
    match authority.rsplit_once(':') {
        // More than one colon: an IPv6 address without brackets has no port behind it.
        Some((host, _)) if host.contains(':') => Ok((authority, None)),
        Some((host, port)) => Ok((host, number(port)?)),
        None => Ok((authority, None)),
    }
}

/// What may be looked up in the DNS, the root left out.
fn is_host(text: &str) -> bool {
    let fits =
        |label: &str| !label.is_empty() && label.len() <= 63 && label.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    let text = text.strip_suffix('.').unwrap_or(text);
    text.len() <= 253 && text.split('.').all(fits)
}

/// `8080`, `8080/UDP`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortProtocol {
    /// From 1 to 65535.
    pub port: u16,
    /// Where it is written.
    pub protocol: Option<Protocol>,
}

impl FromStr for PortProtocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, protocol) = match text.split_once('/') {
            Some((number, protocol)) => (number, Some(protocol.parse::<Protocol>().map_err(|error| error.to_string())?)),
            None => (text, None),
        };
        match number.parse() {
            Ok(port) if port > 0 => Ok(PortProtocol { port, protocol }),
            _ if number.parse::<i64>().is_ok() => Err("expected a port from 1 to 65535".to_owned()),
            _ => Err(
                "expected a port number, such as 8080 or 53/UDP; names of ports belong to Services: ask for svc/name and its port number"
                    .to_owned(),
            ),
        }
    }
}

/// As typed.
impl fmt::Display for Callee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Callee::End(end) => end.fmt(f),
            Callee::Url(url) => f.write_str(&url.shown),
        }
    }
}
