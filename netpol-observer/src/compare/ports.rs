//! Sets of ports, as ranges in order.

use crate::policy::PortRange;

/// The ports of one set that are not in another.
pub(super) fn minus(ports: &[PortRange], away: &[PortRange]) -> Vec<PortRange> {
    let mut left = Vec::new();
    for range in ports {
        // In 32 bits, for what comes after the last port.
        let mut next = u32::from(range.from);
        for taken in away.iter().filter(|taken| taken.protocol == range.protocol && taken.from <= range.to && range.from <= taken.to) {
            if next < u32::from(taken.from)
                && let (Ok(from), Some(to)) = (u16::try_from(next), taken.from.checked_sub(1))
            {
                left.push(PortRange { from, to, ..*range });
            }
            next = next.max(u32::from(taken.to) + 1);
        }
        if let Ok(from) = u16::try_from(next)
            && from <= range.to
        {
            left.push(PortRange { from, ..*range });
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Protocol;

    fn range(from: u16, to: u16) -> PortRange {
        PortRange { protocol: Protocol::Tcp, from, to }
    }

    #[test]
    fn ports_of_one_set_that_are_not_in_another() {
        let all = [range(1, u16::MAX)];
        assert_eq!(minus(&all, &[range(80, 80), range(443, 8080)]), [range(1, 79), range(81, 442), range(8081, u16::MAX)]);
        assert_eq!(minus(&all, &all), []);
        assert_eq!(minus(&all, &[]), all);
        assert_eq!(minus(&[range(1, 10)], &[range(5, u16::MAX)]), [range(1, 4)]);
        assert_eq!(minus(&[range(1, 10)], &[PortRange { protocol: Protocol::Udp, ..range(1, 10) }]), [range(1, 10)]);
    }

    proptest::proptest! {
        #[test]
        fn a_port_is_left_where_it_is_in_one_and_not_in_the_other(a in proptest::collection::vec((0u16..50, 0u16..50), 0..6), b in proptest::collection::vec((0u16..50, 0u16..50), 0..6)) {
            let set = |pairs: &[(u16, u16)]| -> Vec<PortRange> {
                let mut ports: Vec<u16> = pairs.iter().flat_map(|(from, to)| *from..=*to).collect();
                ports.sort_unstable();
                ports.dedup();
                ports.into_iter().map(|port| range(port, port)).collect()
            };
            let (a, b) = (set(&a), set(&b));
            let left = minus(&a, &b);
            for port in 0..60 {
                let is_in = |set: &[PortRange]| set.iter().any(|range| range.from <= port && port <= range.to);
                proptest::prop_assert_eq!(is_in(&left), is_in(&a) && !is_in(&b));
            }
        }
    }
}
