//! UDP datagrams whose headers are written here, source addresses included.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::ptr;

use anyhow::{Context as _, Result};

/// IPv4 header without options, UDP header, and a payload that makes it the smallest Ethernet frame.
const LENGTH: usize = 20 + 8 + 18;

/// What is told to the kernel at once.
const BATCH: usize = 64;

const SOURCE_PORT: u16 = 40_000;

/// Who sends to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Forged.
    pub source: Ipv4Addr,
    /// Must be routed somewhere.
    pub destination: Ipv4Addr,
    /// Destination port.
    pub port: u16,
}

/// Sends datagrams from any address, in the network namespace it was made in.
pub struct Forger {
    socket: OwnedFd,
    packets: Vec<[u8; LENGTH]>,
    addresses: Vec<libc::sockaddr_in>,
    vectors: Vec<libc::iovec>,
    messages: Vec<libc::mmsghdr>,
}

impl Forger {
    /// Opens a raw socket in the namespace of the calling thread.
    ///
    /// # Errors
    /// Not root.
    pub fn new() -> Result<Self> {
        // SAFETY: no memory is passed.
        let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_RAW) };
        if socket < 0 {
            return Err(io::Error::last_os_error()).context("cannot open a raw socket");
        }
        // SAFETY: a descriptor just made, owned by nobody else.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let mut packet = [0u8; LENGTH];
        packet[0] = 0x45;
        packet[8] = 64;
        packet[9] = libc::IPPROTO_UDP as u8;
        packet[20..22].copy_from_slice(&SOURCE_PORT.to_be_bytes());
        packet[24..26].copy_from_slice(&((LENGTH - 20) as u16).to_be_bytes());
        // SAFETY: plain old data of the C library; all zeros is a value of each.
        let (address, message) = unsafe { (std::mem::zeroed::<libc::sockaddr_in>(), std::mem::zeroed::<libc::mmsghdr>()) };
        let vector = libc::iovec { iov_base: ptr::null_mut(), iov_len: LENGTH };
        Ok(Self {
            socket,
            packets: vec![packet; BATCH],
            addresses: vec![address; BATCH],
            vectors: vec![vector; BATCH],
            messages: vec![message; BATCH],
        })
    }

    /// Sends `count` datagrams, number `first` and those after it, and returns how many the kernel took or dropped on their way out.
    ///
    /// # Errors
    /// The kernel refuses one for another reason than a firewall rule or a full queue.
    pub fn send(&mut self, first: u64, count: usize, datagram: impl Fn(u64) -> Datagram) -> Result<u64> {
        let mut sent = 0;
        while sent < count {
            let batch = (count - sent).min(BATCH);
            for at in 0..batch {
                self.write(at, datagram(first + (sent + at) as u64));
            }
            self.flush(batch)?;
            sent += batch;
        }
        Ok(sent as u64)
    }

    fn write(&mut self, at: usize, datagram: Datagram) {
        let packet = &mut self.packets[at];
        // The kernel fills in the length, the identification and the checksum of the header.
        packet[12..16].copy_from_slice(&datagram.source.octets());
        packet[16..20].copy_from_slice(&datagram.destination.octets());
        packet[22..24].copy_from_slice(&datagram.port.to_be_bytes());
        let address = &mut self.addresses[at];
        address.sin_family = libc::AF_INET as libc::sa_family_t;
        address.sin_addr.s_addr = u32::from_ne_bytes(datagram.destination.octets());
        self.vectors[at].iov_base = packet.as_mut_ptr().cast();
        let header = &mut self.messages[at].msg_hdr;
        header.msg_name = (&raw mut *address).cast();
        header.msg_namelen = size_of::<libc::sockaddr_in>() as u32;
        header.msg_iov = &raw mut self.vectors[at];
        header.msg_iovlen = 1;
    }

    fn flush(&mut self, batch: usize) -> Result<()> {
        let mut done = 0;
        while done < batch {
            let rest = &mut self.messages[done..batch];
            // SAFETY: the messages point into vectors of this value, which are neither moved nor resized.
            let sent = unsafe { libc::sendmmsg(self.socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as u32, 0) };
            if sent > 0 {
                done += sent as usize;
                continue;
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                // The OUTPUT hook dropped the first of the rest.
                Some(libc::EPERM | libc::ENOBUFS) => done += 1,
                Some(libc::EINTR | libc::EAGAIN) => {}
                _ => return Err(error).context("cannot send a forged datagram"),
            }
        }
        Ok(())
    }
}
