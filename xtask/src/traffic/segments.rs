//! Many UDP datagrams of one flow with one system call: the kernel cuts them out of one buffer (UDP segmentation), which costs the sender a
//! fraction of what sending them one by one does.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, bail};

use super::Datagram;
use super::frames::open;

/// Datagrams that are cut out of one buffer at the most. The queue of the device at the other end holds a thousand.
pub const SEGMENTS: usize = 64;

const ETHERNET: usize = 14;
const IP: usize = 20;
const UDP: usize = 8;
const HEADERS: usize = ETHERNET + IP + UDP;
/// Makes it the smallest Ethernet frame.
const PAYLOAD: usize = 18;
const SOURCE_PORT: u16 = 40_000;

/// `struct virtio_net_hdr` (uapi/linux/virtio_net.h) in front of what is sent.
const VNET_HEADER: usize = 10;
const NEEDS_CHECKSUM: u8 = 1;
/// `VIRTIO_NET_HDR_GSO_UDP_L4`, since 6.2.
const GSO_UDP: u8 = 5;
/// `PACKET_VNET_HDR` (uapi/linux/if_packet.h)
const PACKET_VNET_HDR: libc::c_int = 15;

/// Sends such datagrams from a device. The device must not take them whole: `ethtool -K DEVICE tx-udp-segmentation off`.
pub struct Segments {
    socket: OwnedFd,
    address: libc::sockaddr_ll,
    buffer: [u8; VNET_HEADER + HEADERS + SEGMENTS * PAYLOAD],
}

impl Segments {
    /// From a device in the namespace of the calling thread, to `to`, the hardware address at its other end.
    ///
    /// # Errors
    /// There is no such device, or not root.
    pub fn new(device: &str, to: [u8; 6]) -> Result<Self> {
        let (socket, address) = open(device, to, libc::ETH_P_IP as u16)?;
        let on: libc::c_int = 1;
        // SAFETY: the pointer is to an int that outlives the call.
        let set = unsafe {
            let value = (&raw const on).cast();
            libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, PACKET_VNET_HDR, value, size_of_val(&on) as u32)
        };
        if set != 0 {
            return Err(io::Error::last_os_error()).context("PACKET_VNET_HDR");
        }
        let mut buffer = [0; VNET_HEADER + HEADERS + SEGMENTS * PAYLOAD];
        let (vnet, frame) = buffer.split_at_mut(VNET_HEADER);
        vnet[0] = NEEDS_CHECKSUM;
        vnet[2..4].copy_from_slice(&(HEADERS as u16).to_ne_bytes());
        vnet[6..8].copy_from_slice(&((ETHERNET + IP) as u16).to_ne_bytes());
        // Of the checksum in a UDP header.
        vnet[8..10].copy_from_slice(&6_u16.to_ne_bytes());
        frame[..6].copy_from_slice(&to);
        // A locally administered address.
        frame[6] = 2;
        frame[12..14].copy_from_slice(&(libc::ETH_P_IP as u16).to_be_bytes());
        frame[ETHERNET] = 0x45;
        frame[ETHERNET + 8] = 64;
        frame[ETHERNET + 9] = libc::IPPROTO_UDP as u8;
        frame[ETHERNET + IP..][..2].copy_from_slice(&SOURCE_PORT.to_be_bytes());
        Ok(Self { socket, address, buffer })
    }

    /// Sends `count` of them, [`SEGMENTS`] at the most.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn send(&mut self, datagram: Datagram, count: usize) -> Result<()> {
        if count == 0 || count > SEGMENTS {
            bail!("{count} segments, where 1 to {SEGMENTS} are possible");
        }
        let (vnet, frame) = self.buffer.split_at_mut(VNET_HEADER);
        // One is sent as it is.
        let (kind, size) = if count == 1 { (0, 0) } else { (GSO_UDP, PAYLOAD as u16) };
        vnet[1] = kind;
        vnet[4..6].copy_from_slice(&size.to_ne_bytes());
        let ip = &mut frame[ETHERNET..];
        let length = IP + UDP + count * PAYLOAD;
        ip[2..4].copy_from_slice(&(length as u16).to_be_bytes());
        ip[10..12].fill(0);
        ip[12..16].copy_from_slice(&datagram.source.octets());
        ip[16..20].copy_from_slice(&datagram.destination.octets());
        let header = !folded(sum(&ip[..IP]));
        ip[10..12].copy_from_slice(&header.to_be_bytes());
        let udp = &mut ip[IP..];
        let udp_length = (UDP + count * PAYLOAD) as u16;
        udp[2..4].copy_from_slice(&datagram.port.to_be_bytes());
        udp[4..6].copy_from_slice(&udp_length.to_be_bytes());
        // That of the pseudo header; the kernel adds the rest.
        let pseudo =
            folded(sum(&datagram.source.octets()) + sum(&datagram.destination.octets()) + libc::IPPROTO_UDP as u32 + u32::from(udp_length));
        udp[6..8].copy_from_slice(&pseudo.to_be_bytes());
        let length = VNET_HEADER + ETHERNET + length;
        loop {
            // SAFETY: buffer and address are valid for the lengths given.
            let sent = unsafe {
                let address = (&raw const self.address).cast();
                libc::sendto(
                    self.socket.as_raw_fd(),
                    self.buffer.as_ptr().cast(),
                    length,
                    0,
                    address,
                    size_of::<libc::sockaddr_ll>() as u32,
                )
            };
            if sent >= 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if !matches!(error.raw_os_error(), Some(libc::EINTR | libc::ENOBUFS | libc::EAGAIN)) {
                return Err(error).context("cannot send datagrams in one piece");
            }
        }
    }
}

/// The 16-bit words added up (RFC 1071).
fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0))).sum()
}

fn folded(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 1071, section 3.
    #[test]
    fn checksums_are_those_of_the_internet() {
        assert_eq!(folded(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])), 0xddf2);
        assert_eq!(folded(sum(&[0xff])), 0xff00);
        let header: [u8; IP] = [0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7];
        assert_eq!(!folded(sum(&header)), 0xb861);
    }
}
