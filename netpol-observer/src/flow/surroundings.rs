//! What surrounds a drop: the filters at its hook, and the other end of its device.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Hook, Symbol};

/// A netfilter hook of a network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HookPoint {
    /// Inode number of the namespace.
    pub netns: u32,
    /// Whose hooks.
    pub family: HookFamily,
    /// Which: prerouting, input, forward, output or postrouting.
    pub hook: Hook,
}

/// Families with hooks of their own (`struct netns_nf`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HookFamily {
    /// `hooks_ipv4`
    Ipv4,
    /// `hooks_ipv6`
    Ipv6,
    /// `hooks_bridge`
    Bridge,
}

impl HookPoint {
    /// The hook's number: `NF_INET_*`, which the bridge's first five share. `None` for ingress and egress, which belong to devices.
    pub fn number(&self) -> Option<u32> {
        match self.hook {
            Hook::Prerouting => Some(0),
            Hook::Input => Some(1),
            Hook::Forward => Some(2),
            Hook::Output => Some(3),
            Hook::Postrouting => Some(4),
            Hook::Ingress | Hook::Egress => None,
        }
    }
}

/// A function registered at a hook.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HookFunction {
    /// Its name: `nft_do_chain_inet`, `ipt_do_table`.
    pub function: Arc<str>,
    /// `nf_hook_ops.priority`: lower ones run first.
    pub priority: i32,
    /// The table it works for, without family: that of an nftables base chain, or an iptables table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<Arc<str>>,
    /// Of nftables the base chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<Arc<str>>,
}

/// Who keeps the rules a function works for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// With the family as `nft` writes it.
    Nftables(&'static str),
    /// Legacy, with the command that shows its rules.
    Xtables(&'static str),
    /// A BPF program of type netfilter.
    Bpf,
}

/// By name without suffixes. Others at a hook (connection tracking, address translation, defragmentation) do not filter.
const FILTERS: &[(&str, Kind)] = &[
    // net/netfilter/nft_chain_filter.c, nft_chain_route.c
    ("nft_do_chain_ipv4", Kind::Nftables("ip")),
    ("nft_do_chain_ipv6", Kind::Nftables("ip6")),
    ("nft_do_chain_inet", Kind::Nftables("inet")),
    ("nft_do_chain_bridge", Kind::Nftables("bridge")),
    ("nf_route_table_hook4", Kind::Nftables("ip")),
    ("nf_route_table_hook6", Kind::Nftables("ip6")),
    ("nf_route_table_inet", Kind::Nftables("inet")),
    // net/ipv4/netfilter/ip_tables.c and ip6_tables.c, since 5.16; before, one function for each table.
    ("ipt_do_table", Kind::Xtables("iptables")),
    ("ip6t_do_table", Kind::Xtables("ip6tables")),
    ("iptable_filter_hook", Kind::Xtables("iptables")),
    ("iptable_mangle_hook", Kind::Xtables("iptables")),
    ("iptable_raw_hook", Kind::Xtables("iptables")),
    ("iptable_security_hook", Kind::Xtables("iptables")),
    ("ip6table_filter_hook", Kind::Xtables("ip6tables")),
    ("ip6table_mangle_hook", Kind::Xtables("ip6tables")),
    ("ip6table_raw_hook", Kind::Xtables("ip6tables")),
    ("ip6table_security_hook", Kind::Xtables("ip6tables")),
    ("ebt_do_table", Kind::Xtables("ebtables")),
    ("ebt_in_hook", Kind::Xtables("ebtables")),
    ("ebt_out_hook", Kind::Xtables("ebtables")),
    // net/netfilter/nf_bpf_link.c
    ("nf_hook_run_bpf", Kind::Bpf),
];

fn base_name(function: &str) -> &str {
    function.split('.').next().unwrap_or(function)
}

impl HookFunction {
    fn kind(&self) -> Option<Kind> {
        let name = base_name(&self.function);
        FILTERS.iter().find(|(function, _)| *function == name).map(|(_, kind)| *kind)
    }

    /// The table of a legacy function that serves one table only has it in its name: `iptable_filter_hook`.
    pub fn table_in_name(function: &str) -> Option<&str> {
        let rest = function.strip_prefix("iptable_").or_else(|| function.strip_prefix("ip6table_"))?;
        base_name(rest).strip_suffix("_hook")
    }

    /// For people, as the commands take it that show the rules: `nft chain inet shop forward`, `iptables-legacy table filter`, `a BPF netfilter program`.
    pub fn words(&self) -> String {
        let of = |name: &Option<Arc<str>>, what: &str| name.as_deref().map_or_else(String::new, |name| format!("{what}{name}"));
        match self.kind() {
            Some(Kind::Nftables(family)) => match &self.table {
                Some(table) => format!("nft chain {family} {table}{}", of(&self.chain, " ")),
                None => format!("an nft chain of family {family}"),
            },
            Some(Kind::Xtables(command)) => format!("{command}-legacy{}", of(&self.table, " table ")),
            Some(Kind::Bpf) => "a BPF netfilter program".to_owned(),
            None => self.function.to_string(),
        }
    }
}

/// The other end of a veth or netkit pair.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// Inode number of its network namespace.
    pub netns: u32,
    /// Its index there.
    pub index: u32,
    /// Its name there: `eth0`.
    pub name: Arc<str>,
    /// `metadata.uid` of the pod whose processes are in that namespace, where the observer may look at them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<Arc<str>>,
}

/// Where in the hooks a packet was dropped; `None` unless a function there can have done it.
pub(super) fn point(
    netns: u32,
    ether_type: u16,
    location: Option<&Symbol>,
    hook: Option<Hook>,
    mut stack: impl Iterator<Item = Symbol>,
) -> Option<HookPoint> {
    const ETH_P_IP: u16 = 0x0800;
    const ETH_P_IPV6: u16 = 0x86DD;
    if netns == 0 || !matches!(location?.base_name(), "nft_do_chain" | "nf_hook_slow" | "nf_hook_run_bpf") {
        return None;
    }
    let family = match ether_type {
        _ if stack.any(|symbol| symbol.base_name() == "nft_do_chain_bridge") => HookFamily::Bridge,
        ETH_P_IP => HookFamily::Ipv4,
        ETH_P_IPV6 => HookFamily::Ipv6,
        _ => return None,
    };
    Some(HookPoint { netns, family, hook: hook? }).filter(|point| point.number().is_some())
}

/// Of the functions at the hook those that can have dropped the packet. `location` freed it; `stack` has the frames' functions.
///
/// From 6.6 on nf_tables frees the packets it drops (`nft_do_chain`), and the function that called it is on the stack; a
/// verdict that `nf_hook_slow` carries out can be any filter's.
pub(super) fn suspects(functions: &[HookFunction], location: &Symbol, stack: impl Iterator<Item = Symbol>) -> Vec<HookFunction> {
    let nftables = |function: &HookFunction| matches!(function.kind(), Some(Kind::Nftables(_)));
    if location.base_name() == "nft_do_chain" {
        let called: Vec<Symbol> = stack.filter(|symbol| FILTERS.iter().any(|(name, _)| *name == symbol.base_name())).collect();
        let ran = |function: &HookFunction| called.iter().any(|symbol| symbol.base_name() == base_name(&function.function));
        // The innermost walk decides; frames of a receive below a send do not reach this far.
        return functions.iter().filter(|function| nftables(function) && (called.is_empty() || ran(function))).cloned().collect();
    }
    functions.iter().filter(|function| function.kind().is_some()).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol(name: &str) -> Symbol {
        Symbol { name: name.into(), offset: 1 }
    }

    fn function(name: &str, table: Option<&str>, chain: Option<&str>) -> HookFunction {
        HookFunction { function: name.into(), priority: 0, table: table.map(Arc::from), chain: chain.map(Arc::from) }
    }

    fn at_the_hook() -> Vec<HookFunction> {
        vec![
            function("nf_conntrack_in", None, None),
            function("ipt_do_table", Some("filter"), None),
            function("nft_do_chain_ipv4.llvm.77", Some("filter"), Some("FORWARD")),
            function("nft_do_chain_inet", Some("shop"), Some("policies")),
        ]
    }

    #[test]
    fn a_chain_that_freed_the_packet_is_found_by_its_family() {
        let stack = ["nft_do_chain", "nft_do_chain_inet", "nf_hook_slow", "ip_forward"];
        let found = suspects(&at_the_hook(), &symbol("nft_do_chain"), stack.into_iter().map(symbol));
        assert_eq!(found.iter().map(HookFunction::words).collect::<Vec<_>>(), ["nft chain inet shop policies"]);
        let found = suspects(&at_the_hook(), &symbol("nft_do_chain"), std::iter::empty());
        assert_eq!(found.len(), 2, "without a stack both chains can have done it: {found:?}");
    }

    #[test]
    fn what_nf_hook_slow_drops_can_be_any_filters() {
        let found = suspects(&at_the_hook(), &symbol("nf_hook_slow"), ["nf_hook_slow", "ip_forward"].into_iter().map(symbol));
        let words: Vec<String> = found.iter().map(HookFunction::words).collect();
        assert_eq!(words, ["iptables-legacy table filter", "nft chain ip filter FORWARD", "nft chain inet shop policies"]);
    }

    #[test]
    fn older_kernels_have_a_function_for_each_table() {
        assert_eq!(HookFunction::table_in_name("iptable_filter_hook"), Some("filter"));
        assert_eq!(HookFunction::table_in_name("ip6table_raw_hook.cold"), Some("raw"));
        assert_eq!(HookFunction::table_in_name("ipt_do_table"), None);
    }

    #[test]
    fn only_filters_hooks_are_points() {
        let none = || std::iter::empty();
        let at = |location: &str, hook| point(7, 0x0800, Some(&symbol(location)), hook, none());
        assert_eq!(at("nf_hook_slow", Some(Hook::Forward)), Some(HookPoint { netns: 7, family: HookFamily::Ipv4, hook: Hook::Forward }));
        assert_eq!(at("nf_hook_slow", None), None);
        assert_eq!(at("nft_do_chain", Some(Hook::Ingress)), None, "netdev chains belong to a device");
        assert_eq!(at("tcp_v4_rcv", Some(Hook::Input)), None);
        let bridged = point(7, 0x0800, Some(&symbol("nft_do_chain")), Some(Hook::Forward), ["nft_do_chain_bridge"].into_iter().map(symbol));
        assert_eq!(bridged.map(|point| point.family), Some(HookFamily::Bridge));
    }
}
