//! Functions that free packets for a reason which the kernel does not name: no kernel before 5.17 names any, and each reason came with
//! a version of its own.
//!
//! The table is for both sides of the pipeline: capture asks which functions to report where a reason is missing, the diagnosis what a
//! free there means.

/// What it means that a function freed a packet without a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Names without compiler suffixes, called in one another at most: what one of them frees, by inlining, another may.
    pub functions: &'static [&'static str],
    /// The reasons (without prefix) that kernels have for it today, or by which it is known here.
    pub reasons: &'static [&'static str],
    /// The function frees for other reasons too, that are no drops to speak of, or several of `reasons`: what it was cannot be decided.
    pub shared: bool,
}

/// What an NFQUEUE reader's drop verdict is called here. No kernel has a reason for it.
pub const QUEUE_VERDICT: &str = "NFQUEUE_DROP";

/// Sources are those of Linux 5.10 to 6.18. Enforcement first: it stays when there is not room for all.
pub const PLACES: &[Place] = &[
    // net/netfilter/core.c, nf_tables_core.c: free for NF_DROP alone.
    Place { functions: &["nf_hook_slow", "nft_do_chain"], reasons: &["NETFILTER_DROP"], shared: false },
    // net/netfilter/nf_queue.c, since 6.12 part of nfnetlink_queue.c.
    Place { functions: &["nf_reinject", "nfqnl_reinject"], reasons: &[QUEUE_VERDICT], shared: false },
    // net/core/dev.c. sch_handle_ingress() and sch_handle_egress() are inlined as a rule; their callers free for other reasons too.
    Place { functions: &["sch_handle_ingress"], reasons: &["TC_INGRESS"], shared: false },
    Place { functions: &["sch_handle_egress"], reasons: &["TC_EGRESS"], shared: false },
    Place { functions: &["__netif_receive_skb_core"], reasons: &["TC_INGRESS"], shared: true },
    Place { functions: &["__dev_queue_xmit"], reasons: &["TC_EGRESS"], shared: true },
    // net/ipv4/ip_output.c, net/ipv6/ip6_output.c: a control group's program, and what is inlined there (segmentation, neighbours).
    Place { functions: &["ip_finish_output", "ip_mc_finish_output", "ip6_finish_output"], reasons: &["BPF_CGROUP_EGRESS"], shared: true },
    // net/core/dev.c, drivers/net/veth.c: XDP programs on what is a packet already. The reason XDP is of failed redirects alone.
    Place {
        functions: &["do_xdp_generic", "netif_receive_generic_xdp", "bpf_prog_run_generic_xdp", "veth_xdp_rcv_skb", "veth_poll"],
        reasons: &[XDP_VERDICT],
        shared: false,
    },
    // net/ipv4/tcp_ipv4.c, net/ipv6/tcp_ipv6.c: nobody listens, the filter of a socket or its control group, and damaged or late segments.
    Place { functions: &["tcp_v4_rcv", "tcp_v6_rcv"], reasons: &["NO_SOCKET", "SOCKET_FILTER"], shared: true },
    // net/ipv4/udp.c, net/ipv6/udp.c: nobody listens, or a wrong checksum.
    Place { functions: &["__udp4_lib_rcv", "__udp6_lib_rcv"], reasons: &["NO_SOCKET"], shared: true },
    // net/ipv4/ip_input.c: every error of the route's look-up, and bad options.
    Place { functions: &["ip_rcv_finish_core"], reasons: &["IP_RPFILTER", "IP_INVALID_SOURCE"], shared: true },
    // net/ipv4/route.c, net/ipv6/route.c: destinations of routes that lead nowhere.
    Place {
        functions: &["ip_error", "ip6_pkt_drop", "ip6_pkt_discard", "ip6_pkt_discard_out", "ip6_pkt_prohibit", "ip6_pkt_prohibit_out"],
        reasons: &["IP_INNOROUTES", "IP_INADDRERRORS"],
        shared: false,
    },
    Place { functions: &["__ip_queue_xmit"], reasons: &["IP_OUTNOROUTES"], shared: false },
];

/// What an XDP program's drop verdict behind the driver is called here. No kernel up to 6.18 has a reason for it.
pub const XDP_VERDICT: &str = "XDP_DROP";

/// What it means that this function (without suffixes) freed a packet without a reason.
pub fn place(function: &str) -> Option<&'static Place> {
    PLACES.iter().find(|place| place.functions.contains(&function))
}

/// Whether a reason says nothing: `NOT_SPECIFIED`, and number 0, which is what stands for kernels without reasons. (No kernel with
/// reasons drops with its number 0, "not dropped yet".)
pub fn is_unspecific(number: u32, name: &str) -> bool {
    number == 0 || name == "NOT_SPECIFIED"
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_function_stands_in_two_places() {
        let all: Vec<&str> = PLACES.iter().flat_map(|place| place.functions.iter().copied()).collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        assert!(all.len() <= netpol_observer_common::LOCATION_RANGES as usize - 4, "room for clones and cold parts");
        assert!(PLACES.iter().all(|place| !place.reasons.is_empty()));
    }
}
