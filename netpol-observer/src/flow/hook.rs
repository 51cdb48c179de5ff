//! Which hook a packet was in: kernel function names → [`Hook`].
//!
//! INPUT, FORWARD and OUTPUT drop at the same address in `nf_hook_slow` or `nft_do_chain`; only the callers differ. The walk
//! goes from the innermost frame outwards, and the first function of the table decides: a forwarded packet may have `ip_forward`
//! inside `ip_rcv` (or, after a tail call, alone), an answer sent from the receive path has `__ip_local_out` inside
//! `ip_local_deliver`. Everything that is not in the table is neutral: the tracing frames, `nf_hook_slow`, `nft_do_chain`,
//! `ip_finish_output` and the like.
//!
//! The walk ends where the stack's owner took up the packet ([`ENTRIES`]): packets are received in soft interrupts, on top of
//! whatever the interrupted task was sending, and a bridge hands packets up in the middle of its own work.

use netpol_observer_common::RecordFlags;

use super::{Hook, Symbol};

/// When a function of the table decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// Whenever no function further in has decided.
    Always,
    /// Only when it freed the packet itself or called a tc classifier or an nftables netdev chain: the function also lies
    /// outside of much that has nothing to do with its hook.
    RunsFilter,
}

use When::{Always, RunsFilter};

/// Functions, without compiler suffixes, whose frame tells the hook. One group per hook; sources are of Linux 5.10 to 6.18.
const TABLE: &[(Hook, When, &[&str])] = &[
    // net/core/dev.c: sch_handle_ingress() is inlined on most kernels; nf_ingress() runs netdev chains there too.
    (Hook::Ingress, Always, &["sch_handle_ingress"]),
    // XDP on what is a packet already: net/core/dev.c, drivers/net/veth.c.
    (Hook::Ingress, Always, &["do_xdp_generic", "netif_receive_generic_xdp", "bpf_prog_run_generic_xdp", "veth_xdp_rcv_skb", "veth_poll"]),
    (Hook::Ingress, RunsFilter, &["__netif_receive_skb_core"]),
    (
        Hook::Prerouting,
        Always,
        &[
            // net/ipv4/ip_input.c, net/ipv6/ip6_input.c
            "ip_rcv",
            "ip_list_rcv",
            "ip_sublist_rcv",
            "ipv6_rcv",
            "ipv6_list_rcv",
            "ip6_sublist_rcv",
            // net/bridge/br_netfilter_hooks.c, br_netfilter_ipv6.c, br_input.c
            "ip_sabotage_in",
            "br_nf_pre_routing",
            "br_nf_pre_routing_ipv6",
            "br_nf_pre_routing_finish",
            "br_nf_pre_routing_finish_ipv6",
            "br_nf_pre_routing_finish_bridge",
            "br_handle_frame",
        ],
    ),
    (
        Hook::Input,
        Always,
        &[
            "ip_local_deliver",
            "ip_local_deliver_finish",
            "ip6_input",
            "ip6_input_finish",
            // What follows the hook; the functions before these are often gone by tail calls.
            "ip_protocol_deliver_rcu",
            "ip6_protocol_deliver_rcu",
            "tcp_v4_rcv",
            "tcp_v6_rcv",
            "__udp4_lib_rcv",
            "udp_rcv",
            "__udp6_lib_rcv",
            "udpv6_rcv",
            "sctp_rcv",
            // Towards the bridge's own address.
            "br_nf_local_in",
            "br_pass_frame_up",
        ],
    ),
    (
        Hook::Forward,
        Always,
        &[
            // net/ipv4/ip_forward.c, net/ipv6/ip6_output.c
            "ip_forward",
            "ip6_forward",
            // From one port of a bridge to another.
            "br_nf_forward",
            "br_nf_forward_ip",
            "br_nf_forward_finish",
            "br_handle_frame_finish",
        ],
    ),
    (
        Hook::Output,
        Always,
        &[
            // net/ipv4/ip_output.c
            "__ip_local_out",
            "ip_local_out",
            "__ip_queue_xmit",
            "ip_queue_xmit",
            "ip_build_and_send_pkt",
            "ip_send_skb",
            "ip_push_pending_frames",
            "ip_send_unicast_reply",
            // net/ipv4/raw.c, net/ipv6/raw.c: these call the hook themselves, their helpers are inlined
            "raw_sendmsg",
            "raw_send_hdrinc",
            "rawv6_sendmsg",
            "rawv6_send_hdrinc",
            // net/ipv6/output_core.c, ip6_output.c, ndisc.c, mcast.c
            "__ip6_local_out",
            "ip6_local_out",
            "ip6_xmit",
            "ip6_send_skb",
            "ip6_push_pending_frames",
            "ndisc_send_skb",
            "mld_sendpack",
            // net/bridge/br_device.c: what the host itself sends into the bridge
            "br_dev_xmit",
        ],
    ),
    (Hook::Postrouting, Always, &["ip_output", "ip_mc_output", "ip6_output", "br_nf_post_routing", "br_forward_finish"]),
    (Hook::Egress, Always, &["sch_handle_egress"]),
    (Hook::Egress, RunsFilter, &["__dev_queue_xmit"]),
];

/// What [`When::RunsFilter`] asks for further in: `net/sched`, `net/netfilter/nft_chain_filter.c`. Before 6.7 `nf_hook_slow` frees when
/// the chain has returned; with no other hook's function between, its caller is a device's.
const FILTERS: &[&str] = &[
    "tcf_classify",
    "tcf_classify_ingress",
    "tcx_run",
    "cls_bpf_classify",
    "nft_do_chain_netdev",
    "nft_do_chain_inet_ingress",
    "nf_hook_slow",
];

/// Functions that begin with a packet from a device: frames outside of them may be about another packet. `net/core/dev.c`,
/// `kernel/softirq.c`.
const ENTRIES: &[&str] = &[
    "__netif_receive_skb_one_core",
    "__netif_receive_skb_list_core",
    "process_backlog",
    "__napi_poll",
    "napi_poll",
    "net_rx_action",
    "handle_softirqs",
    "__do_softirq",
];

/// Functions that free what a filter drops.
const NETFILTER: &[&str] = &["nft_do_chain", "nf_hook_slow", "nf_hook_run_bpf"];

/// Functions behind the last hook, where programs of control groups run. `net/ipv4/ip_output.c`, `net/ipv6/ip6_output.c`.
const BEHIND_HOOKS: &[&str] = &["ip_finish_output", "ip_mc_finish_output", "ip6_finish_output"];

/// The hook a packet was dropped in. `reason` is the reason's name without prefix; `location` the function that freed the
/// packet; `stack` the frames' functions, innermost first, without those that have no name.
///
/// `flags` are of the record ([`RecordFlags`]): what the packet itself shows of its way. They decide where the stack does not reach.
pub(super) fn find(reason: &str, location: Option<&Symbol>, flags: u32, stack: impl IntoIterator<Item = Symbol>) -> Option<Hook> {
    // By definition of these, the stack can add nothing.
    match reason {
        "TC_INGRESS" | "XDP" => return Some(Hook::Ingress),
        "TC_EGRESS" => return Some(Hook::Egress),
        // After the hooks; what is on the stack is passed.
        "BPF_CGROUP_EGRESS" => return None,
        _ => {}
    }
    if location.is_some_and(|location| BEHIND_HOOKS.contains(&location.base_name())) {
        return None;
    }
    let mut filter_inside = false;
    // The location is the innermost frame of all, and stays when the kernel gave no stack.
    if let Some(location) = location
        && let Some(hook) = decide(location.base_name(), true)
    {
        return Some(hook);
    }
    for symbol in stack {
        let name = symbol.base_name();
        if let Some(hook) = decide(name, filter_inside) {
            return Some(hook);
        }
        if ENTRIES.contains(&name) {
            break;
        }
        filter_inside |= FILTERS.contains(&name);
    }
    // A filter's drop; others share these marks.
    let by_filter = location.is_some_and(|location| NETFILTER.contains(&location.base_name()));
    if !by_filter {
        None
    } else if flags & RecordFlags::FORWARDED != 0 {
        Some(Hook::Forward)
    } else {
        (flags & RecordFlags::DEVICE_FROM_ROUTE != 0).then_some(Hook::Output)
    }
}

fn decide(function: &str, runs_filter: bool) -> Option<Hook> {
    TABLE.iter().find(|(_, when, functions)| (*when == Always || runs_filter) && functions.contains(&function)).map(|(hook, _, _)| *hook)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symbol(name: &str) -> Symbol {
        Symbol { name: name.into(), offset: 0x10 }
    }

    #[track_caller]
    fn check(reason: &str, location: &str, stack: &[&str], expected: Option<Hook>) {
        let found = find(reason, Some(&symbol(location)), 0, stack.iter().map(|name| symbol(name)));
        assert_eq!(found, expected, "{reason} at {location} in {stack:?}");
    }

    #[test]
    fn the_innermost_decisive_frame_wins() {
        let receive = ["ip_rcv", "__netif_receive_skb_one_core", "process_backlog", "net_rx_action"];
        let neutral =
            ["bpf_prog_1_drop", "__traceiter_kfree_skb", "sk_skb_reason_drop", "nft_do_chain", "nft_do_chain_ipv4", "nf_hook_slow"];
        for (frame, hook) in [
            ("ip_forward", Hook::Forward),
            ("ip_local_deliver", Hook::Input),
            ("ip6_input", Hook::Input),
            ("__ip_local_out", Hook::Output),
            ("ip6_xmit", Hook::Output),
            ("ip_output", Hook::Postrouting),
            ("ip6_output", Hook::Postrouting),
        ] {
            let stack: Vec<&str> = neutral.into_iter().chain([frame]).chain(receive).collect();
            check("NETFILTER_DROP", "nf_hook_slow", &stack, Some(hook));
        }
        let stack: Vec<&str> = neutral.into_iter().chain(receive).collect();
        check("NETFILTER_DROP", "nft_do_chain", &stack, Some(Hook::Prerouting));
        check("NETFILTER_DROP", "nft_do_chain", &neutral, None);
    }

    #[test]
    fn the_packet_tells_where_the_stack_does_not_reach() {
        let find =
            |location, flags, stack: &[&str]| find("NETFILTER_DROP", Some(&symbol(location)), flags, stack.iter().map(|name| symbol(name)));
        let short = ["sk_skb_reason_drop", "nft_do_chain", "nft_do_chain_inet", "nf_hook_slow"];
        assert_eq!(find("nft_do_chain", RecordFlags::FORWARDED | RecordFlags::DEVICE, &short), Some(Hook::Forward));
        assert_eq!(find("nf_hook_slow", RecordFlags::DEVICE_FROM_ROUTE, &[]), Some(Hook::Output));
        assert_eq!(find("nf_hook_slow", RecordFlags::DEVICE, &[]), None);
        assert_eq!(
            find("nft_do_chain", RecordFlags::FORWARDED, &["nft_do_chain", "ip6_output"]),
            Some(Hook::Postrouting),
            "the stack goes first"
        );
        assert_eq!(find("tcp_v6_err", RecordFlags::FORWARDED, &[]), None, "no filter");
    }

    #[test]
    fn output_over_loopback_is_not_taken_for_input() {
        // Sent from the receive path, and received below a sender's frames.
        check(
            "NETFILTER_DROP",
            "nf_hook_slow",
            &["nf_hook_slow", "__ip_local_out", "ip_send_skb", "tcp_v4_rcv", "ip_local_deliver"],
            Some(Hook::Output),
        );
        check(
            "NETFILTER_DROP",
            "nf_hook_slow",
            &["nf_hook_slow", "ip_local_deliver", "ip_rcv", "__dev_queue_xmit", "ip_output"],
            Some(Hook::Input),
        );
    }

    #[test]
    fn compiler_suffixes_do_not_matter() {
        check("NETFILTER_DROP", "nf_hook_slow", &["nf_hook_slow", "br_nf_forward_ip.part.0", "br_handle_frame"], Some(Hook::Forward));
        check("NETFILTER_DROP", "ip6_input_finish.isra.0", &[], Some(Hook::Input));
    }

    #[test]
    fn bridged_packets() {
        check("NETFILTER_DROP", "nf_hook_slow", &["nf_hook_slow", "br_nf_pre_routing", "br_handle_frame"], Some(Hook::Prerouting));
        check(
            "NETFILTER_DROP",
            "nf_hook_slow",
            &["nf_hook_slow", "__br_forward", "br_forward", "br_handle_frame_finish", "br_handle_frame"],
            Some(Hook::Forward),
        );
        check(
            "NETFILTER_DROP",
            "nf_hook_slow",
            &["nf_hook_slow", "__br_forward", "br_dev_xmit", "__dev_queue_xmit", "ip_output"],
            Some(Hook::Output),
        );
        check(
            "NETFILTER_DROP",
            "nf_hook_slow",
            &["nf_hook_slow", "ip_sabotage_in", "nf_hook_slow", "ip_rcv", "br_pass_frame_up"],
            Some(Hook::Prerouting),
        );
    }

    #[test]
    fn traffic_control() {
        check("TC_INGRESS", "__netif_receive_skb_core.constprop.0", &["__netif_receive_skb_core.constprop.0"], Some(Hook::Ingress));
        check("TC_EGRESS", "__dev_queue_xmit", &["__dev_queue_xmit", "ip_finish_output2", "ip_output"], Some(Hook::Egress));
        // Kernels before 5.17 have no reason; the function that freed the packet says it.
        check("reason-0", "__dev_queue_xmit", &["kfree_skb", "__dev_queue_xmit", "ip_output"], Some(Hook::Egress));
        check("reason-0", "sch_handle_ingress", &[], Some(Hook::Ingress));
    }

    #[test]
    fn behind_the_hooks() {
        let stack = ["ip_finish_output", "ip_output", "__ip_queue_xmit", "__tcp_transmit_skb"];
        check("BPF_CGROUP_EGRESS", "ip_finish_output", &stack, None);
        check("reason-0", "ip6_finish_output", &["kfree_skb", "ip6_finish_output", "ip6_output", "ip6_xmit"], None);
        check(
            "SOCKET_FILTER",
            "udp_queue_rcv_one_skb",
            &["udp_queue_rcv_one_skb", "udp_queue_rcv_skb", "__udp4_lib_rcv"],
            Some(Hook::Input),
        );
        // A verdict from user space comes by netlink.
        let stack = ["nfqnl_reinject", "nfqnl_recv_verdict", "nfnetlink_rcv_msg", "netlink_rcv_skb", "netlink_unicast", "netlink_sendmsg"];
        check("NOT_SPECIFIED", "nfqnl_reinject", &stack, None);
    }

    #[test]
    fn xdp_behind_the_driver() {
        check("XDP", "do_xdp_generic", &["do_xdp_generic", "__netif_receive_skb_core", "process_backlog"], Some(Hook::Ingress));
        check("NOT_SPECIFIED", "veth_xdp_rcv_skb", &["veth_xdp_rcv_skb", "veth_xdp_rcv", "veth_poll"], Some(Hook::Ingress));
    }

    #[test]
    fn the_transmit_and_receive_core_decide_only_with_a_filter_inside() {
        check("NETFILTER_DROP", "nf_hook_slow", &["__dev_queue_xmit", "ip_finish_output2", "ip_output"], Some(Hook::Postrouting));
        // Netdev chains before 6.7.
        check(
            "NETFILTER_DROP",
            "nf_hook_slow",
            &["nf_hook_slow", "__dev_queue_xmit", "ip_finish_output2", "ip_output"],
            Some(Hook::Egress),
        );
        check("reason-0", "nf_hook_slow", &["kfree_skb", "nf_hook_slow", "__netif_receive_skb_core"], Some(Hook::Ingress));
        check(
            "NETFILTER_DROP",
            "nf_hook_slow",
            &["nft_do_chain", "nft_do_chain_netdev", "__dev_queue_xmit", "ip_output"],
            Some(Hook::Egress),
        );
        check("NETFILTER_DROP", "nf_hook_slow", &["nft_do_chain_netdev", "nf_hook_slow", "__netif_receive_skb_core"], Some(Hook::Ingress));
        check("NETFILTER_DROP", "ovs_dp_process_packet", &["netdev_frame_hook", "__netif_receive_skb_core"], None);
    }

    /// Stacks as Linux 6.18 had them, from the location outwards, with the sender's frames below the soft interrupt.
    #[test]
    fn stacks_of_a_real_kernel() {
        let below = "__netif_receive_skb_one_core process_backlog __napi_poll net_rx_action handle_softirqs do_softirq.part.0 \
                     __local_bh_enable_ip __dev_queue_xmit ip_finish_output2 ip_output ip_send_skb udp_send_skb udp_sendmsg";
        let bridge = "netif_receive_skb br_handle_frame_finish br_handle_frame __netif_receive_skb_core.constprop.0";
        let drop = "sk_skb_reason_drop nft_do_chain nft_do_chain_inet nf_hook_slow";
        for (stack, hook) in [
            (format!("{drop} ip_rcv {below}"), Some(Hook::Prerouting)),
            (format!("{drop} ip_forward {below}"), Some(Hook::Forward)),
            (format!("{drop} ip6_forward {below}"), Some(Hook::Forward)),
            (format!("{drop} ip_output {below}"), Some(Hook::Postrouting)),
            (format!("{drop} ip_local_deliver {below}"), Some(Hook::Input)),
            (format!("{drop} ip6_input {below}"), Some(Hook::Input)),
            (format!("{drop} __ip_local_out ip_local_out __ip_queue_xmit __tcp_transmit_skb"), Some(Hook::Output)),
            (format!("{drop} ip6_xmit inet6_csk_xmit __tcp_transmit_skb"), Some(Hook::Output)),
            (format!("{drop} __ip6_local_out ip6_local_out ip6_send_skb udp_v6_send_skb"), Some(Hook::Output)),
            (format!("{drop} br_nf_pre_routing br_handle_frame __netif_receive_skb_core.constprop.0 {below}"), Some(Hook::Prerouting)),
            (
                format!(
                    "{drop} br_nf_forward_ip.part.0 nf_hook_slow __br_forward br_handle_frame_finish br_nf_hook_thresh \
                     br_nf_pre_routing_finish br_nf_pre_routing br_handle_frame {below}"
                ),
                Some(Hook::Forward),
            ),
            (
                format!("{drop} br_nf_post_routing nf_hook_slow br_forward_finish br_nf_hook_thresh br_nf_forward_finish"),
                Some(Hook::Postrouting),
            ),
            (
                format!("{drop} ip_local_deliver ip_sabotage_in nf_hook_slow ip_rcv __netif_receive_skb_one_core {bridge} {below}"),
                Some(Hook::Input),
            ),
            (format!("sk_skb_reason_drop nft_do_chain nft_do_chain_bridge br_handle_frame {below}"), Some(Hook::Prerouting)),
            (format!("{drop} br_pass_frame_up br_handle_frame_finish br_handle_frame {below}"), Some(Hook::Input)),
            (format!("{drop} br_forward_finish br_handle_frame_finish br_handle_frame {below}"), Some(Hook::Postrouting)),
            (
                format!("{drop} __br_forward br_dev_xmit dev_hard_start_xmit __dev_queue_xmit ip_finish_output2 ip_output"),
                Some(Hook::Output),
            ),
            (
                format!(
                    "nft_do_chain nft_do_chain_netdev nf_hook_slow __netif_receive_skb_core.constprop.0 __netif_receive_skb_one_core {bridge}"
                ),
                Some(Hook::Ingress),
            ),
            ("nft_do_chain nft_do_chain_netdev nf_hook_slow __dev_queue_xmit ip_finish_output2 ip_output".to_owned(), Some(Hook::Egress)),
            (format!("sk_skb_reason_drop tcp_v4_rcv ip_protocol_deliver_rcu ip_local_deliver_finish {below}"), Some(Hook::Input)),
            // Behind the hook and before the next one: neither the bridge's frames nor the sender's say anything of it.
            (format!("sk_skb_reason_drop ip_error __netif_receive_skb_one_core {bridge} {below}"), None),
        ] {
            let stack: Vec<&str> = stack.split_whitespace().collect();
            check("NETFILTER_DROP", "nft_do_chain", &stack, hook);
        }
    }

    #[test]
    fn no_function_stands_in_two_places() {
        let mut all: Vec<&str> = TABLE.iter().flat_map(|(_, _, functions)| functions.iter().copied()).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
