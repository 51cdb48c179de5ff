//! Which frees are drops to speak of: the table of reasons and locations that the eBPF program compares with.

use std::collections::BTreeMap;

use netpol_observer_common::{LOCATION_RANGES, LocationRange, ReasonAction};

use super::symbols::Symbols;
use crate::flow::{PLACES, Place};

/// Prefix of the values of `enum skb_drop_reason`.
pub const REASON_PREFIX: &str = "SKB_DROP_REASON_";

/// The reason of drops that have none, from 5.17 on.
const NOT_SPECIFIED: &str = "NOT_SPECIFIED";

/// Reasons that are reported wherever they occur (names without prefix; `include/net/dropreason-core.h`). For each of them the
/// diagnosis has a cause. Where a kernel lacks one, the functions that would give it stand in for it ([`PLACES`]).
pub const REPORTED: &[&str] = &[
    // Enforcement: netfilter verdicts, tc programs, cgroup programs (the second is that of a socket's own filter too), XDP behind the driver.
    "NETFILTER_DROP",
    "TC_INGRESS",
    "TC_EGRESS",
    "BPF_CGROUP_EGRESS",
    "SOCKET_FILTER",
    "XDP",
    // Nobody listens.
    "NO_SOCKET",
    // The address or the way is wrong.
    "IP_RPFILTER",
    "IP_LOCAL_SOURCE",
    "IP_INVALID_SOURCE",
    "IP_INNOROUTES",
    "IP_INADDRERRORS",
    "IP_OUTNOROUTES",
];

/// The table, ready for the program's maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidates {
    /// Reason number → [`ReasonAction`].
    pub reasons: BTreeMap<u32, u32>,
    /// Functions for [`ReasonAction::BY_LOCATION`].
    pub locations: Vec<LocationRange>,
    /// What this kernel lacks, for `observer doctor`.
    pub missing: Vec<String>,
}

impl Candidates {
    /// Builds the table from the kernel's reason names (with prefix; none where drops come without reasons) and its symbols.
    pub fn new(reasons: &BTreeMap<u32, String>, symbols: &Symbols) -> Self {
        let number = |name: &str| reasons.iter().find(|(_, n)| n.strip_prefix(REASON_PREFIX) == Some(name)).map(|(&number, _)| number);
        let mut table = Candidates::default();
        for name in REPORTED {
            match number(name) {
                Some(number) => {
                    table.reasons.insert(number, ReasonAction::REPORT);
                }
                // One line for all of them is enough.
                None if reasons.is_empty() => {}
                None => table.missing.push(format!("drop reason {name}")),
            }
        }
        // Without reasons the program is told 0.
        let unspecific = if reasons.is_empty() { Some(0) } else { number(NOT_SPECIFIED) };
        let Some(unspecific) = unspecific else {
            table.missing.push(format!("drop reason {NOT_SPECIFIED}"));
            return table;
        };
        if reasons.is_empty() {
            table.missing.push("drop reasons (before 5.17); functions stand in for them".to_owned());
        }
        let unnamed = |place: &&Place| place.reasons.iter().any(|reason| number(reason).is_none());
        for place in PLACES.iter().filter(unnamed) {
            let before = table.locations.len();
            for function in place.functions {
                table.locations.extend(symbols.ranges(function).map(|(start, end)| LocationRange { start, end }));
            }
            if table.locations.len() == before && !optional(place) {
                table.missing.push(format!("function {} (drops there without a reason are not seen)", place.functions.join(", ")));
            }
        }
        if !table.locations.is_empty() {
            table.reasons.insert(unspecific, ReasonAction::BY_LOCATION);
        }
        // More than fit can only be many clones of one function; the first ones are kept.
        if table.locations.len() > LOCATION_RANGES as usize {
            table.missing.push(format!("room for {} ranges of functions", table.locations.len() - LOCATION_RANGES as usize));
            table.locations.truncate(LOCATION_RANGES as usize);
        }
        table
    }
}

/// Functions that are inlined as a rule, or belong to modules that need not be loaded.
fn optional(place: &Place) -> bool {
    place.functions.iter().any(|function| function.starts_with("sch_handle_") || *function == "nfqnl_reinject")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reasons(names: &[(u32, &str)]) -> BTreeMap<u32, String> {
        names.iter().map(|(number, name)| (*number, format!("{REASON_PREFIX}{name}"))).collect()
    }

    /// Function `n` of `names` at `n` times 0x100.
    fn symbols(names: &[&str]) -> Symbols {
        let lines = names.iter().chain(&["end"]).enumerate();
        Symbols::parse(
            &lines.map(|(n, name)| format!("{:016x} t {name}\n", 0xffff_ffff_8100_0000_u64 + n as u64 * 0x100)).collect::<String>(),
        )
    }

    fn range(n: u64) -> LocationRange {
        let start = 0xffff_ffff_8100_0000 + n * 0x100;
        LocationRange { start, end: start + 0x100 }
    }

    #[test]
    fn numbers_come_from_the_kernel() {
        let all: Vec<(u32, &str)> = (2..).zip(REPORTED.iter().copied().chain(["NOT_SPECIFIED", "TCP_CSUM"])).collect();
        let table = Candidates::new(&reasons(&all), &symbols(&["nf_hook_slow", "nfqnl_reinject"]));
        let reported = all.iter().filter(|(_, name)| REPORTED.contains(name)).map(|(number, _)| (*number, ReasonAction::REPORT));
        let unspecific = all.iter().find(|(_, name)| *name == "NOT_SPECIFIED").map(|(number, _)| (*number, ReasonAction::BY_LOCATION));
        assert_eq!(table.reasons, reported.chain(unspecific).collect());
        assert_eq!(table.locations, [range(1)], "of named reasons the place does not matter");
    }

    #[test]
    fn functions_stand_in_for_reasons_that_are_missing() {
        // 5.17: some reasons, none of enforcement.
        let some = [(2, "NOT_SPECIFIED"), (3, "NO_SOCKET"), (6, "SOCKET_FILTER")];
        let names = ["nf_hook_slow", "__netif_receive_skb_core.constprop.0", "tcp_v4_rcv", "ip_error"];
        let table = Candidates::new(&reasons(&some), &symbols(&names));
        assert_eq!(table.reasons, BTreeMap::from([(2, ReasonAction::BY_LOCATION), (3, ReasonAction::REPORT), (6, ReasonAction::REPORT)]));
        assert_eq!(table.locations, [range(0), range(1), range(3)]);
        assert!(table.missing.iter().any(|m| m.contains("TC_INGRESS")), "{:?}", table.missing);
        // 5.10: none at all.
        let table = Candidates::new(&BTreeMap::new(), &symbols(&names));
        assert_eq!(table.reasons, BTreeMap::from([(0, ReasonAction::BY_LOCATION)]));
        assert_eq!(table.locations.len(), 4);
    }

    #[test]
    fn without_symbols_no_location_matches() {
        let table = Candidates::new(&reasons(&[(2, "NOT_SPECIFIED")]), &Symbols::default());
        assert!(table.locations.is_empty());
        assert!(!table.reasons.contains_key(&2), "then the reason need not be looked at");
        assert!(table.missing.iter().any(|m| m.contains("nf_hook_slow")));
    }
}
