//! Ports as people write them.

use crate::policy::PortRange;

/// `8080/TCP`, `8000-8100/TCP`, `every UDP port`.
pub fn range_words(range: &PortRange) -> String {
    let PortRange { protocol, from, to } = *range;
    match (from, to) {
        (0 | 1, u16::MAX) => format!("every {protocol} port"),
        (from, to) if from == to => format!("{from}/{protocol}"),
        (from, to) => format!("{from}-{to}/{protocol}"),
    }
}

/// A list of ranges: one text each, and a single `every port` for all ports of all three protocols.
pub fn port_words(ports: &[PortRange]) -> Vec<String> {
    let is_whole = |range: &PortRange| range.from <= 1 && range.to == u16::MAX;
    if ports.len() == 3 && ports.iter().all(is_whole) {
        return vec!["every port".to_owned()];
    }
    ports.iter().map(range_words).collect()
}
