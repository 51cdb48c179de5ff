//! Ethernet frames of a protocol that no part of the kernel takes: it frees them, and that is no drop to speak of.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};

/// For experiments (IEEE 802, "Local Experimental Ethertype 1"): freed with `SKB_DROP_REASON_UNHANDLED_PROTO`.
const ETHER_TYPE: u16 = 0x88B5;

/// A packet socket, and the address of `to` at the other end of a device in the namespace of the calling thread.
pub(super) fn open(device: &str, to: [u8; 6], ether_type: u16) -> Result<(OwnedFd, libc::sockaddr_ll)> {
    let name = CString::new(device).context("a device's name")?;
    // SAFETY: the string is terminated.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 {
        return Err(io::Error::last_os_error()).with_context(|| format!("no device {device}"));
    }
    // SAFETY: no memory is passed.
    let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error()).context("cannot open a packet socket");
    }
    // SAFETY: a descriptor just made, owned by nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: plain old data; all zeros is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = ether_type.to_be();
    address.sll_ifindex = i32::try_from(index).context("a device's index")?;
    address.sll_halen = 6;
    address.sll_addr[..6].copy_from_slice(&to);
    Ok((socket, address))
}

/// Sends such frames from a device.
pub struct Frames {
    socket: OwnedFd,
    address: libc::sockaddr_ll,
    frame: [u8; 60],
}

impl Frames {
    /// From a device in the namespace of the calling thread, to `to`, the hardware address at its other end.
    ///
    /// # Errors
    /// There is no such device, or not root.
    pub fn new(device: &str, to: [u8; 6]) -> Result<Self> {
        let (socket, address) = open(device, to, ETHER_TYPE)?;
        let mut frame = [0; 60];
        frame[..6].copy_from_slice(&to);
        frame[6] = 2;
        frame[12..14].copy_from_slice(&ETHER_TYPE.to_be_bytes());
        Ok(Self { socket, address, frame })
    }

    /// Sends one.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn send(&self) -> Result<()> {
        // SAFETY: buffer and address are valid for the lengths given.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                self.frame.as_ptr().cast(),
                self.frame.len(),
                0,
                (&raw const self.address).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        if sent < 0 {
            return Err(io::Error::last_os_error()).context("cannot send a frame");
        }
        Ok(())
    }
}
