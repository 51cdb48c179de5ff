//! What makes two drops the same, read from the packet.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use netpol_observer_common::{Field, FoldKey, FoldValue, TUNNEL_PORTS, cgroup_of_key};

use crate::kernel::SkBuff;
use crate::maps::add_one;

const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86DD;
const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// The key of a packet; `None` for one that is not plain IPv4 or IPv6. IPv6 extension headers are not walked: such a packet
/// is rare, has no key, and each is reported. Nor has a datagram to a port of tunnels: inside are many connections.
#[inline(always)]
pub(crate) fn key<const TYPED: bool>(skb: &SkBuff<TYPED>, netns: u32, reason: u32, cgroup: u64) -> Option<FoldKey> {
    // SAFETY: a __be16 field.
    let ether_type = u16::from_be(unsafe { skb.get::<u16>(Field::SkbProtocol) });
    let (network, len) = skb.network();
    let mut key = FoldKey {
        netns,
        reason,
        src: [0; 16],
        dst: [0; 16],
        dst_port: [0; 2],
        ether_type,
        protocol: 0,
        later_fragment: 0,
        cgroup: cgroup_of_key(cgroup),
    };
    match ether_type {
        // With the transport's first four bytes, behind a header without options.
        ETH_P_IP if len >= 24 => {
            let mut header = [0u8; 24];
            read(&mut header, network)?;
            key.protocol = header[9];
            key.src[..4].copy_from_slice(&header[12..16]);
            key.dst[..4].copy_from_slice(&header[16..20]);
            if (u16::from_be_bytes([header[6], header[7]]) & 0x1fff) != 0 {
                key.later_fragment = 1;
                return Some(key);
            }
            let transport = u32::from(header[0] & 0x0f) * 4;
            let mut start = [header[20], header[21], header[22], header[23]];
            if transport != 20 {
                if len < transport + 4 {
                    return None;
                }
                read(&mut start, network + u64::from(transport))?;
            }
            key.dst_port = ports(key.protocol, start)?;
            Some(key)
        }
        ETH_P_IPV6 if len >= 44 => {
            let mut header = [0u8; 44];
            read(&mut header, network)?;
            key.protocol = header[6];
            key.src.copy_from_slice(&header[8..24]);
            key.dst.copy_from_slice(&header[24..40]);
            key.dst_port = ports(key.protocol, [header[40], header[41], header[42], header[43]])?;
            Some(key)
        }
        _ => None,
    }
}

/// The destination port, or type and code; `None` where the protocol has neither, or it is a tunnel's.
#[inline(always)]
fn ports(protocol: u8, start: [u8; 4]) -> Option<[u8; 2]> {
    match protocol {
        UDP if TUNNEL_PORTS.contains(&u16::from_be_bytes([start[2], start[3]])) => None,
        TCP | UDP | SCTP => Some([start[2], start[3]]),
        ICMP | ICMPV6 => Some([start[0], start[1]]),
        _ => None,
    }
}

#[inline(always)]
fn read<const N: usize>(buffer: &mut [u8; N], address: u64) -> Option<()> {
    // SAFETY: the helper writes N bytes into the buffer or fails.
    let result = unsafe { bpf_probe_read_kernel(buffer.as_mut_ptr().cast(), N as u32, address as *const _) };
    if result == 0 { Some(()) } else { None }
}

/// Counts one more drop under a key.
#[inline(always)]
pub(crate) fn add(value: *mut FoldValue, now: u64) {
    // SAFETY: a pointer to a map value, valid for this run of the program; the count lies at its start. Other CPUs add to it
    // at the same time, hence the atomic; of several times written at once any is good.
    unsafe {
        add_one(&raw mut (*value).count);
        (&raw mut (*value).last_ns).write_volatile(now);
    }
}
