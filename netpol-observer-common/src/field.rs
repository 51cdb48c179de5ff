//! The kernel structure fields the eBPF program reads.
//!
//! rustc emits no CO-RE relocations, so user space looks each field up in the running kernel's BTF and hands the byte
//! offsets to the program as read-only data. The verifier treats them as constants.

/// Offset of a field that this kernel does not have. Reading it is dead code that the verifier removes.
pub const ABSENT: u32 = u32::MAX;

/// Where a [`Field`] is found, and whether the program can do without it.
#[derive(Clone, Copy, Debug)]
pub struct FieldSpec {
    /// The structure, as BTF names it.
    pub structure: &'static str,
    /// Members from the structure inwards, separated by dots; anonymous members are searched through, an array stands for its first element.
    pub path: &'static str,
    /// Size in bytes the program reads; BTF must agree.
    pub size: u32,
    /// Without it nothing sensible can be recorded: loading fails and names the field.
    pub required: bool,
}

macro_rules! fields {
    ($($(#[$doc:meta])* $variant:ident = $structure:literal . $path:literal $size:literal $required:literal,)*) => {
        /// A kernel field whose offset user space resolves; the discriminant is its place in the offset table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Field {
            $($(#[$doc])* $variant,)*
        }

        impl Field {
            /// All fields, in the order of the offset table.
            pub const ALL: &'static [Field] = &[$(Field::$variant,)*];
            /// Length of the offset table.
            pub const COUNT: usize = Field::ALL.len();

            /// Where the kernel has this field.
            pub const fn spec(self) -> FieldSpec {
                match self {
                    $(Field::$variant => FieldSpec { structure: $structure, path: $path, size: $size, required: $required },)*
                }
            }
        }
    };
}

fields! {
    /// Lowest address of the task's stack.
    TaskStack = "task_struct"."stack" 8 false,
    /// Start of the packet buffer.
    SkbHead = "sk_buff"."head" 8 true,
    /// First byte of the packet at the current layer.
    SkbData = "sk_buff"."data" 8 true,
    /// End of the linear data, relative to head.
    SkbTail = "sk_buff"."tail" 4 true,
    /// Length from data on.
    SkbLen = "sk_buff"."len" 4 true,
    /// ETH_P_* in network order.
    SkbProtocol = "sk_buff"."protocol" 2 true,
    /// Network header relative to head; 0xffff when unset.
    SkbNetworkHeader = "sk_buff"."network_header" 2 true,
    /// The device; in a union that other layers use for other things.
    SkbDev = "sk_buff"."dev" 8 true,
    /// The socket, or null.
    SkbSk = "sk_buff"."sk" 8 true,
    /// Route: a `dst_entry` pointer with SKB_DST_NOREF in bit 0.
    SkbRefdst = "sk_buff"."_skb_refdst" 8 false,
    /// Conntrack entry with `enum ip_conntrack_info` in the low three bits.
    SkbNfct = "sk_buff"."_nfct" 8 false,
    /// Interface index.
    DevIfindex = "net_device"."ifindex" 4 true,
    /// Interface name.
    DevName = "net_device"."name" 16 true,
    /// The device's network namespace.
    DevNet = "net_device"."nd_net.net" 8 false,
    /// Inode number of a network namespace.
    NetInum = "net"."ns.inum" 4 false,
    /// Device of a route.
    DstDev = "dst_entry"."dev" 8 false,
    /// What receives packets of a route: for what is forwarded `ip_forward()` or `ip6_forward()`.
    DstInput = "dst_entry"."input" 8 false,
    /// Index of the device a packet came in by.
    SkbIif = "sk_buff"."skb_iif" 4 false,
    /// The socket's network namespace.
    SockNet = "sock"."__sk_common.skc_net.net" 8 false,
    /// TCP_* state, which also tells a full socket from a request or time-wait socket.
    SockState = "sock"."__sk_common.skc_state" 1 false,
    /// The socket's cookie, 0 until somebody asked the kernel for it.
    SockCookie = "sock"."__sk_common.skc_cookie" 8 false,
    /// The socket's cgroup v2.
    SockCgroup = "sock"."sk_cgrp_data.cgroup" 8 false,
    /// Kernfs node of a cgroup.
    CgroupKn = "cgroup"."kn" 8 false,
    /// Its id.
    KernfsId = "kernfs_node"."id" 8 false,
    /// Original tuple of a conntrack entry: `tuplehash[IP_CT_DIR_ORIGINAL].tuple`.
    NfConnOriginal = "nf_conn"."tuplehash.tuple" 40 false,
    /// IPS_* bits.
    NfConnStatus = "nf_conn"."status" 8 false,
}
