//! Which frees are drops to speak of: the table of reasons and locations that the eBPF program compares with.

use std::collections::BTreeMap;

use netpol_observer_common::{LOCATION_RANGES, LocationRange, ReasonAction};

use super::symbols::Symbols;

/// Prefix of the values of `enum skb_drop_reason`.
pub const REASON_PREFIX: &str = "SKB_DROP_REASON_";

/// Reasons that are reported wherever they occur (names without prefix; `include/net/dropreason-core.h`). For each of them the
/// diagnosis has a cause.
pub const REPORTED: &[&str] = &[
    // Enforcement: netfilter verdicts, tc programs, cgroup programs.
    "NETFILTER_DROP",
    "TC_INGRESS",
    "TC_EGRESS",
    "BPF_CGROUP_EGRESS",
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

/// Reasons that say too little by themselves, and the functions in which they are drops to speak of.
const BY_LOCATION: &[(&str, &[&str])] = &[(
    "NOT_SPECIFIED",
    &[
        // An NFQUEUE reader's drop verdict.
        "nfqnl_reinject",
    ],
)];

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
    /// Builds the table from the kernel's reason names (with prefix) and its symbols.
    pub fn new(reasons: &BTreeMap<u32, String>, symbols: &Symbols) -> Self {
        let number = |name: &str| reasons.iter().find(|(_, n)| n.strip_prefix(REASON_PREFIX) == Some(name)).map(|(&number, _)| number);
        let mut table = Candidates::default();
        for name in REPORTED {
            match number(name) {
                Some(number) => {
                    table.reasons.insert(number, ReasonAction::REPORT);
                }
                None => table.missing.push(format!("drop reason {name}")),
            }
        }
        for (reason, functions) in BY_LOCATION {
            let Some(number) = number(reason) else {
                table.missing.push(format!("drop reason {reason}"));
                continue;
            };
            for function in *functions {
                let before = table.locations.len();
                table.locations.extend(symbols.ranges(function).map(|(start, end)| LocationRange { start, end }));
                if table.locations.len() == before {
                    table.missing.push(format!("function {function} (drops there with reason {reason} are not seen)"));
                }
            }
            table.reasons.insert(number, ReasonAction::BY_LOCATION);
        }
        // More than fit can only be many clones of one function; the first ones are kept.
        table.locations.truncate(LOCATION_RANGES as usize);
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reasons(names: &[(u32, &str)]) -> BTreeMap<u32, String> {
        names.iter().map(|(number, name)| (*number, format!("{REASON_PREFIX}{name}"))).collect()
    }

    #[test]
    fn numbers_come_from_the_kernel() {
        let symbols = Symbols::parse("ffffffff81000000 t nfqnl_reinject\nffffffff81000100 T next\n");
        let table = Candidates::new(&reasons(&[(2, "NOT_SPECIFIED"), (77, "NETFILTER_DROP"), (9, "TCP_CSUM")]), &symbols);
        assert_eq!(table.reasons, BTreeMap::from([(2, ReasonAction::BY_LOCATION), (77, ReasonAction::REPORT)]));
        assert_eq!(table.locations, [LocationRange { start: 0xffff_ffff_8100_0000, end: 0xffff_ffff_8100_0100 }]);
        assert!(table.missing.iter().any(|m| m.contains("TC_INGRESS")), "{:?}", table.missing);
    }

    #[test]
    fn without_symbols_no_location_matches() {
        let table = Candidates::new(&reasons(&[(2, "NOT_SPECIFIED")]), &Symbols::default());
        assert!(table.locations.is_empty());
        assert!(table.missing.iter().any(|m| m.contains("nfqnl_reinject")));
    }
}
