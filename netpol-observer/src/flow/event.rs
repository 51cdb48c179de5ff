//! A dropped packet with the kernel's evidence, decoded.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::{Flow, HookFunction, HookPoint, Peer, Protocol, Tunnel, fold};

/// One dropped packet, decoded: what the kernel saw, in the words of the kernel. Nothing here knows of pods or policies.
#[derive(Clone, Debug, PartialEq)]
pub struct DropEvent {
    /// Wall-clock time of the drop.
    pub time: jiff::Timestamp,
    /// What it is folded under.
    pub id: FoldId,
    /// Whether the kernel counts repeats under `id` instead of reporting each.
    pub folded: bool,
    /// Why the kernel freed the packet.
    pub reason: Reason,
    /// Where in the kernel.
    pub location: Location,
    /// The hook it was in, as far as the stack tells.
    pub hook: Option<Hook>,
    /// The device it was on, or was to leave by.
    pub interface: Option<Interface>,
    /// The packet was on its way out when dropped: it had no device of its own yet (OUTPUT).
    pub outgoing: bool,
    /// Inode number of the network namespace.
    pub netns: Option<u32>,
    /// Length from the network header on, bytes.
    pub packet_len: u32,
    /// Addresses and ports of the packet, or, when it is the packet of a tunnel, of the one inside.
    pub flow: Flow,
    /// The tunnel that the packet was dropped in.
    pub tunnel: Option<Tunnel>,
    /// The connection that `flow` belongs to, where the kernel tracked it.
    pub conntrack: Option<Conntrack>,
    /// The socket that sent or would have received it.
    pub socket: Option<Socket>,
    /// At a netfilter hook: the filters there that can have dropped it, in the order they run. One, as a rule.
    pub filters: Vec<HookFunction>,
    /// The other end of the device, where that is one of a pair: for a node's end the pod's.
    pub peer: Option<Peer>,
}

impl DropEvent {
    /// Whether the packet answers somebody rather than opens a connection: conntrack says so, or a TCP SYN+ACK.
    pub fn is_reply(&self) -> bool {
        match &self.conntrack {
            Some(conntrack) => conntrack.reply,
            None => self.flow.tcp_flags.is_some_and(|flags| flags.syn && flags.ack),
        }
    }

    /// The drop as that of the tunnel's packet itself, whatever is inside.
    #[must_use]
    pub fn outside(mut self) -> Self {
        if let Some(tunnel) = self.tunnel.take() {
            self.id = FoldId::of(&fold::key(self.netns.unwrap_or_default(), self.reason.number, &tunnel.outer));
            self.flow = tunnel.outer;
            self.conntrack = tunnel.conntrack;
        }
        self
    }
}

/// Short stable name of what repeats are folded under: a hash of network namespace, addresses, destination port, protocol
/// and reason. The same drop has the same id in a recording and in its replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FoldId(pub u64);

impl fmt::Display for FoldId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for FoldId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A drop reason: `enum skb_drop_reason`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Reason {
    /// The running kernel's number.
    pub number: u32,
    /// Its name without the `SKB_DROP_REASON_` prefix, or `reason-N` where BTF has none.
    pub name: Arc<str>,
}

/// The address a packet was freed from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Location {
    /// Zero when the reader may not see kernel addresses.
    pub address: u64,
    /// The function it lies in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub symbol: Option<Symbol>,
}

/// A kernel function and an offset into it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Symbol {
    /// As in /proc/kallsyms, compiler suffixes (`.isra.0`) included.
    pub name: Arc<str>,
    /// Bytes from its start.
    pub offset: u64,
}

impl Symbol {
    /// The name without suffixes the compiler adds: `.isra.0`, `.constprop.0`, `.part.0`, `.cold`, `.llvm.…`.
    pub fn base_name(&self) -> &str {
        self.name.split('.').next().unwrap_or(&self.name)
    }
}

/// The place in the stack where the packet was when it was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Hook {
    /// tc or netdev ingress.
    Ingress,
    /// NF_INET_PRE_ROUTING
    Prerouting,
    /// NF_INET_LOCAL_IN
    Input,
    /// NF_INET_FORWARD
    Forward,
    /// NF_INET_LOCAL_OUT
    Output,
    /// NF_INET_POST_ROUTING
    Postrouting,
    /// tc egress.
    Egress,
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Hook::Ingress => "ingress",
            Hook::Prerouting => "prerouting",
            Hook::Input => "input",
            Hook::Forward => "forward",
            Hook::Output => "output",
            Hook::Postrouting => "postrouting",
            Hook::Egress => "egress",
        })
    }
}

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Interface {
    /// Index in its namespace.
    pub index: u32,
    /// Name.
    pub name: Arc<str>,
}

/// The connection-tracking entry of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Conntrack {
    /// What the opener of the connection sent, before any address translation.
    pub original: Tuple,
    /// The packet goes against that direction.
    pub reply: bool,
    /// IPS_SEEN_REPLY: the connection has had traffic both ways.
    pub seen_reply: bool,
}

/// Addresses and ports of one direction of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tuple {
    /// Source address.
    pub source: IpAddr,
    /// Source port, for protocols with ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// Destination address: for a Service, its virtual address.
    pub destination: IpAddr,
    /// Destination port, for protocols with ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<u16>,
    /// Protocol.
    pub protocol: Protocol,
}

/// The socket on a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Socket {
    /// `SO_COOKIE`, when the socket has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie: Option<u64>,
    /// Kernfs id of its cgroup v2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<u64>,
    /// `metadata.uid` of the pod whose cgroup it is, where the observer may look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<Arc<str>>,
}

/// What gives kernel numbers their names: the running kernel's BTF and symbol table, or those kept in a recording.
pub trait KernelNames {
    /// Name of a drop reason, without prefix.
    fn reason(&self, number: u32) -> Option<Arc<str>>;
    /// The function an address lies in.
    fn symbol(&self, address: u64) -> Option<Symbol>;
    /// Nanoseconds to add to a record's monotonic time to get nanoseconds since the Unix epoch.
    fn clock_offset_ns(&self) -> i64;
    /// The functions registered at a hook, in the order they run. `ifindex` is of a device in that namespace that a record came
    /// from, 0 for none.
    fn hook_functions(&self, _at: HookPoint, _ifindex: u32) -> Arc<[HookFunction]> {
        Arc::from([])
    }
    /// `metadata.uid` of the pod that a cgroup v2 belongs to, by its kernfs id.
    fn pod_of_cgroup(&self, _cgroup: u64) -> Option<Arc<str>> {
        None
    }
    /// The other end of a device.
    fn peer(&self, _netns: u32, _ifindex: u32) -> Option<Peer> {
        None
    }
}
