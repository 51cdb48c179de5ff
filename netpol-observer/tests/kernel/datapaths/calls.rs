//! Allowed calls beside denied ones, by ways of their own; and packets made by hand.

use std::mem::size_of;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};

use xtask::netns::Netns;

use crate::shape::{ALLOWED_PORT, DENIED, allowed_calls, apart, brief, patience};
use crate::support::{call_tcp, serve_tcp};

/// Who makes the allowed calls, and the address they go to.
pub(super) struct Allowed {
    caller: Netns,
    address: SocketAddr,
}

impl Allowed {
    /// Calls of `caller` to a server of its own in `server`.
    pub(super) fn new(caller: &Netns, server: &Netns, listens: IpAddr) -> Self {
        let address = SocketAddr::new(listens, ALLOWED_PORT);
        serve_tcp(server, address);
        Allowed { caller: caller.clone(), address }
    }

    /// Called by another address than it listens on: a Service's.
    pub(super) fn dialled(mut self, address: IpAddr, port: u16) -> Self {
        self.address = SocketAddr::new(address, port);
        self
    }

    /// Runs `denied` beside the allowed calls, of which each is answered.
    pub(super) fn beside(self, denied: impl FnOnce() + Send) -> impl FnOnce() + Send {
        move || {
            std::thread::scope(|scope| {
                scope.spawn(denied);
                let calls = || {
                    let left = AtomicUsize::new(allowed_calls());
                    std::thread::scope(|scope| {
                        for _ in 0..4 {
                            scope.spawn(|| {
                                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                                    call_tcp(self.address, patience()).expect("allowed");
                                }
                            });
                        }
                    });
                };
                self.caller.in_ns(calls).unwrap();
            });
        }
    }
}

/// A call per denied port, none of which gets through.
pub(super) fn denied<F: Fn(u16) -> SocketAddr + Send + Sync>(caller: &Netns, to: F) -> impl FnOnce() + Send + use<F> {
    let caller = caller.clone();
    move || {
        caller
            .in_ns(|| {
                std::thread::scope(|scope| {
                    for port in DENIED {
                        let address = to(port);
                        scope.spawn(move || call_tcp(address, brief()).expect_err("denied"));
                        std::thread::sleep(apart());
                    }
                });
            })
            .unwrap();
    }
}

/// Sends whole packets, IP header included, from a namespace.
pub(super) fn send_raw(from: &Netns, packets: &[Vec<u8>]) {
    from.in_ns(|| {
        let sockets = [libc::AF_INET, libc::AF_INET6].map(raw_socket);
        for packet in packets {
            let six = packet[0] >> 4 == 6;
            let socket = sockets[usize::from(six)].as_raw_fd();
            let sent = if six { send_v6(socket, packet) } else { send_v4(socket, packet) };
            assert_eq!(sent, packet.len() as isize, "{}", std::io::Error::last_os_error());
        }
    })
    .unwrap();
}

/// `IPPROTO_RAW` sockets take packets with their IP header.
fn raw_socket(family: i32) -> OwnedFd {
    // SAFETY: a new descriptor, owned by nobody else.
    let fd = unsafe { libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::IPPROTO_RAW) };
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: as above.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn send_v4(socket: i32, packet: &[u8]) -> isize {
    let to = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(packet[16..20].try_into().unwrap()) },
        sin_zero: [0; 8],
    };
    // SAFETY: both buffers are as long as is said.
    unsafe { libc::sendto(socket, packet.as_ptr().cast(), packet.len(), 0, (&raw const to).cast(), size_of::<libc::sockaddr_in>() as u32) }
}

fn send_v6(socket: i32, packet: &[u8]) -> isize {
    let to = libc::sockaddr_in6 {
        sin6_family: libc::AF_INET6 as u16,
        sin6_port: 0,
        sin6_flowinfo: 0,
        sin6_addr: libc::in6_addr { s6_addr: packet[24..40].try_into().unwrap() },
        sin6_scope_id: 0,
    };
    // SAFETY: both buffers are as long as is said.
    unsafe { libc::sendto(socket, packet.as_ptr().cast(), packet.len(), 0, (&raw const to).cast(), size_of::<libc::sockaddr_in6>() as u32) }
}
