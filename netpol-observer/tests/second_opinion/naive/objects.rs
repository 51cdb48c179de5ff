//! Looking into objects as they are written.

use std::net::IpAddr;

use serde_json::Value;

pub(super) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A field that is there; null is as good as absent.
pub(super) fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    value.get(name).filter(|field| !field.is_null())
}

pub(super) fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

pub(super) fn namespace_of(object: &Value) -> &str {
    object["metadata"]["namespace"].as_str().filter(|name| !name.is_empty()).unwrap_or("default")
}

/// IPv4-mapped addresses are IPv4 addresses; what is no address is left out.
pub(super) fn addresses<'a>(texts: impl IntoIterator<Item = &'a Value>) -> Vec<IpAddr> {
    let texts = texts.into_iter().filter_map(Value::as_str);
    texts.filter_map(|text| text.parse().ok()).map(|ip: IpAddr| ip.to_canonical()).collect()
}

pub(super) fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object["metadata"]["labels"].get(key)?.as_str()
}

/// Every namespace carries its name as a label, described or not.
pub(super) fn namespace_label<'a>(namespaces: &'a [&'a Value], name: &'a str, key: &str) -> Option<&'a str> {
    if key == "kubernetes.io/metadata.name" {
        return Some(name);
    }
    label(namespaces.iter().find(|namespace| name_of(namespace) == name)?, key)
}

/// Whether a label selector matches. An empty one matches everything; a term that the API refuses matches nothing.
pub(super) fn selected<'a>(selector: &Value, label: impl Fn(&str) -> Option<&'a str>) -> bool {
    if !is_valid_selector(selector) {
        return false;
    }
    let mut pairs = selector["matchLabels"].as_object().into_iter().flatten();
    pairs.all(|(key, value)| label(key) == value.as_str())
        && list(&selector["matchExpressions"]).all(|term| {
            let has = label(term["key"].as_str().unwrap_or_default());
            let is_among = has.is_some_and(|has| list(&term["values"]).any(|value| value == has));
            match term["operator"].as_str() {
                Some("In") => is_among,
                Some("NotIn") => !is_among,
                Some("Exists") => has.is_some(),
                Some("DoesNotExist") => has.is_none(),
                _ => false,
            }
        })
}

pub(super) fn is_valid_selector(selector: &Value) -> bool {
    let mut pairs = selector["matchLabels"].as_object().into_iter().flatten();
    pairs.all(|(key, value)| is_key(key) && value.as_str().is_some_and(is_value))
        && list(&selector["matchExpressions"]).all(|term| {
            let has_values = list(&term["values"]).next().is_some();
            let fits = match term["operator"].as_str() {
                Some("In" | "NotIn") => has_values,
                Some("Exists" | "DoesNotExist") => !has_values,
                _ => false,
            };
            fits && term["key"].as_str().is_some_and(is_key) && list(&term["values"]).all(|value| value.as_str().is_some_and(is_value))
        })
}

/// A name, or a DNS subdomain, a slash and a name.
fn is_key(key: &str) -> bool {
    let is_lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    match key.split_once('/') {
        None => !key.is_empty() && is_value(key),
        Some((prefix, name)) => {
            let labels_fit = prefix
                .split('.')
                .all(|label| label.starts_with(is_lower) && label.ends_with(is_lower) && label.chars().all(|c| is_lower(c) || c == '-'));
            labels_fit && prefix.len() <= 253 && !name.is_empty() && is_value(name)
        }
    }
}

fn is_value(value: &str) -> bool {
    let is_end = |c: char| c.is_ascii_alphanumeric();
    value.is_empty()
        || (value.len() <= 63
            && value.starts_with(is_end)
            && value.ends_with(is_end)
            && value.chars().all(|c| is_end(c) || matches!(c, '-' | '_' | '.')))
}

/// An address and how many of its first bits count.
pub(super) type Range = (IpAddr, u32);

/// A range of IPv4-mapped addresses is one of IPv4 addresses.
pub(super) fn cidr(text: &str) -> Option<Range> {
    let (ip, length) = text.split_once('/')?;
    let (ip, length): (IpAddr, u32) = (ip.parse().ok()?, length.parse().ok()?);
    if length > bits(ip).len() as u32 {
        return None;
    }
    match (ip, ip.to_canonical()) {
        (IpAddr::V6(_), short @ IpAddr::V4(_)) if length >= 96 => Some((short, length - 96)),
        _ => Some((ip, length)),
    }
}

/// The first bits are the same.
pub(super) fn inside(ip: IpAddr, (network, length): Range) -> bool {
    ip.is_ipv4() == network.is_ipv4() && bits(ip)[..length as usize] == bits(network)[..length as usize]
}

fn bits(ip: IpAddr) -> Vec<bool> {
    let octets = match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    octets.iter().flat_map(|octet| (0..8).rev().map(move |bit| octet >> bit & 1 == 1)).collect()
}

/// A port number as the API has it.
pub(super) fn port_number(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|number| u16::try_from(number).ok()).filter(|number| *number != 0)
}

/// TCP when absent or empty; none when it is no protocol that the API knows.
pub(super) fn protocol(value: &Value) -> Option<&str> {
    match value.as_str() {
        None | Some("" | "TCP") => Some("TCP"),
        Some(name @ ("UDP" | "SCTP")) => Some(name),
        Some(_) => None,
    }
}

/// Numbers of a pod's container ports with a name and a protocol, those of sidecars included.
pub(super) fn named_ports(pod: &Value, name: &str, wanted: &str) -> Vec<u16> {
    let sidecars = list(&pod["spec"]["initContainers"]).filter(|container| container["restartPolicy"] == "Always");
    let ports = list(&pod["spec"]["containers"]).chain(sidecars).flat_map(|container| list(&container["ports"]));
    let named = ports.filter(|port| port["name"] == name && protocol(&port["protocol"]) == Some(wanted));
    named.filter_map(|port| port_number(&port["containerPort"])).collect()
}
