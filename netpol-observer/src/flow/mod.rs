//! Bytes of a dropped packet → [`Flow`], and a whole record → [`DropEvent`].
//!
//! Pure: no I/O, no clock. Any input, however short or hostile, gives a flow or an error, never a panic.
#![forbid(unsafe_code)]

mod event;
mod fold;
mod hook;
mod packet;
mod places;
mod protocol;
mod record;
mod surroundings;
#[doc(hidden)]
pub mod testing;
mod tunnel;

pub use event::{Conntrack, DropEvent, FoldId, Hook, Interface, KernelNames, Location, Reason, Socket, Symbol, Tuple};
pub use fold::{KeyFlow, decode_key, fold_key};
pub use packet::{FlowError, decode};
pub use places::{PLACES, Place, QUEUE_VERDICT, XDP_VERDICT, is_unspecific, place};
pub use protocol::{Protocol, UnknownProtocol};
pub use record::{RecordError, decode_record, hook_point};
pub use surroundings::{HookFamily, HookFunction, HookPoint, Peer};
pub use tunnel::{Inner, Tunnel, TunnelKind, decapsulate};

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The addresses and ports of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Flow {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Source port of TCP, UDP, SCTP; absent where the bytes do not hold it (later fragment, cut packet).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// Destination port, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_port: Option<u16>,
    /// Flags of a TCP header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_flags: Option<TcpFlags>,
    /// Type and code of ICMP or ICMPv6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmp: Option<IcmpKind>,
    /// Set for a fragment: its offset in bytes and whether more follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fragment: Option<Fragment>,
}

/// The flags byte of a TCP header (RFC 9293), without ECN bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TcpFlags {
    /// Opens a connection.
    pub syn: bool,
    /// Acknowledges.
    pub ack: bool,
    /// Ends the sender's side.
    pub fin: bool,
    /// Resets.
    pub rst: bool,
    /// Pushes.
    pub psh: bool,
}

/// Type and code of an ICMP or ICMPv6 message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct IcmpKind {
    /// First byte of the message.
    #[serde(rename = "type")]
    pub kind: u8,
    /// Second byte.
    pub code: u8,
}

/// Where a fragment stands in its packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fragment {
    /// Offset in bytes; 0 for the first fragment, which still has the ports.
    pub offset: u16,
    /// More fragments follow.
    pub more: bool,
}
