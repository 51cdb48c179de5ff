//! Enforcers for the kernel tests: what eBPF dataplanes do with a packet that their policies deny, and nothing else. Not part of the
//! observer; the object lies beside its own.
//!
//! Denied are TCP and UDP to the ports 9001 to 9010, in IPv4 and IPv6 without extension headers.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "the program's macro leaves its comment behind")]

use aya_ebpf::{
    macros::{cgroup_skb, classifier, map, xdp},
    maps::PerCpuArray,
    programs::{SkBuffContext, TcContext, XdpContext, sk_buff::SkBuff},
};

const DENIED: core::ops::RangeInclusive<u16> = 9001..=9010;

const ETHERNET_HEADER: usize = 14;
const IPV6_HEADER: usize = 40;
const TCP: u8 = 6;
const UDP: u8 = 17;

const TC_ACT_OK: i32 = 0;
const TC_ACT_SHOT: i32 = 2;
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

/// Packets denied.
#[map]
static PACKETS_DENIED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// At either end of a device, as clsact filter or by tcx.
#[expect(unreachable_pub, reason = "the macro exports the program under this name")]
#[classifier]
pub fn deny_tc(ctx: TcContext) -> i32 {
    if denied(|offset| byte(&ctx.skb, offset), ETHERNET_HEADER) { TC_ACT_SHOT } else { TC_ACT_OK }
}

/// At the sockets of a control group, either direction; 0 denies.
#[expect(unreachable_pub, reason = "the macro exports the program under this name")]
#[cgroup_skb]
pub fn deny_cgroup(ctx: SkBuffContext) -> i32 {
    i32::from(!denied(|offset| byte(&ctx.skb, offset), 0))
}

/// Before there is a packet.
#[expect(unreachable_pub, reason = "the macro exports the program under this name")]
#[xdp]
pub fn deny_xdp(ctx: XdpContext) -> u32 {
    let (start, end) = (ctx.data(), ctx.data_end());
    let at = |offset: usize| {
        // SAFETY: the byte lies before the packet's end, which is what the verifier wants to see.
        if start + offset + 1 > end { None } else { Some(unsafe { *((start + offset) as *const u8) }) }
    };
    if denied(at, ETHERNET_HEADER) { XDP_DROP } else { XDP_PASS }
}

#[inline(always)]
fn byte(skb: &SkBuff, offset: usize) -> Option<u8> {
    skb.load::<u8>(offset).ok()
}

/// Whether the packet with its network header at `network` is for a denied port; counts those that are.
#[inline(always)]
fn denied(at: impl Fn(usize) -> Option<u8>, network: usize) -> bool {
    let Some(port) = destination_port(at, network) else { return false };
    let denied = DENIED.contains(&port);
    if denied && let Some(count) = PACKETS_DENIED.get_ptr_mut(0) {
        // SAFETY: this CPU's element.
        unsafe { *count += 1 };
    }
    denied
}

#[inline(always)]
fn destination_port(at: impl Fn(usize) -> Option<u8>, network: usize) -> Option<u16> {
    let first = at(network)?;
    let (protocol, transport) = match first >> 4 {
        4 => (at(network + 9)?, network + usize::from(first & 15) * 4),
        6 => (at(network + 6)?, network + IPV6_HEADER),
        _ => return None,
    };
    if protocol != TCP && protocol != UDP {
        return None;
    }
    Some(u16::from_be_bytes([at(transport + 2)?, at(transport + 3)?]))
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The kernel lets GPL-compatible programs only call some helpers.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
