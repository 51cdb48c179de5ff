//! The calls beside each other: many that are allowed, ten that are not.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use xtask::netns::Netns;

use crate::support::{call_tcp, is_slow, send_udp, serve_tcp};

/// The port that is allowed.
pub(crate) const ALLOWED_PORT: u16 = 8080;
/// One denied flow per port.
pub(crate) const DENIED: std::ops::RangeInclusive<u16> = 9001..=9010;
/// Callers of the allowed port at one time.
const CALLERS: usize = 4;

/// How long an answer may take that is bound to come.
pub(crate) fn patience() -> Duration {
    Duration::from_secs(if is_slow() { 60 } else { 5 })
}

/// How long one waits for an answer that must not come.
pub(crate) fn brief() -> Duration {
    // Less than TCP waits before it opens again: a packet that was not seen shall not be made up for.
    Duration::from_millis(if is_slow() { 700 } else { 300 })
}

/// How long after one denied call the next one begins. Where tasks are preempted in the middle of programs that take so long as they do under
/// emulation, two can be at once, and the packet of a third be missed (`program misses`).
pub(crate) fn apart() -> Duration {
    Duration::from_millis(if is_slow() { 25 } else { 0 })
}

/// Allowed calls beside the denied ones.
pub(crate) fn allowed_calls() -> usize {
    if is_slow() { 100 } else { 1000 }
}

/// TCP from one namespace to an address of another: every allowed call is answered, none of the denied ones is.
pub(crate) fn tcp(client: &Netns, server: &Netns, address: IpAddr) -> impl FnOnce() + Send + use<> {
    tcp_to(client, server, address, address)
}

/// Likewise, the denied calls to another address.
pub(crate) fn tcp_to(client: &Netns, server: &Netns, address: IpAddr, denied: IpAddr) -> impl FnOnce() + Send + use<> {
    serve_tcp(server, SocketAddr::new(address, ALLOWED_PORT));
    let client = client.clone();
    move || {
        client.in_ns(|| call_all(address, Some(denied))).unwrap();
    }
}

fn call_all(address: IpAddr, denied: Option<IpAddr>) {
    let left = AtomicUsize::new(allowed_calls());
    std::thread::scope(|scope| {
        for to in denied.into_iter().flat_map(|address| DENIED.map(move |port| SocketAddr::new(address, port))) {
            scope.spawn(move || call_tcp(to, brief()).expect_err("denied"));
            std::thread::sleep(apart());
        }
        for _ in 0..CALLERS {
            scope.spawn(|| {
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                    call_tcp(SocketAddr::new(address, ALLOWED_PORT), patience()).expect("allowed");
                }
            });
        }
    });
}

/// One datagram to each of the denied ports of an address, beside the allowed calls of another.
pub(crate) fn udp_to(client: &Netns, server: &Netns, address: IpAddr, denied: IpAddr) -> impl FnOnce() + Send + use<> {
    serve_tcp(server, SocketAddr::new(address, ALLOWED_PORT));
    let client = client.clone();
    move || {
        client
            .in_ns(|| {
                send_apart(denied);
                call_all(address, None);
            })
            .unwrap();
    }
}

fn send_apart(address: IpAddr) {
    for port in DENIED {
        send_udp(SocketAddr::new(address, port), b"x");
        std::thread::sleep(apart());
    }
}

/// The denied flows as datagrams, one each; the allowed calls are TCP.
pub(crate) fn udp(client: &Netns, server: &Netns, address: IpAddr) -> impl FnOnce() + Send + use<> {
    serve_tcp(server, SocketAddr::new(address, ALLOWED_PORT));
    // Somebody listens: what gets through nevertheless would not be refused.
    let sockets: Vec<UdpSocket> = server.in_ns(|| DENIED.map(|port| UdpSocket::bind((address, port)).unwrap()).collect()).unwrap();
    let client = client.clone();
    move || {
        client
            .in_ns(|| {
                send_apart(address);
                call_all(address, None);
            })
            .unwrap();
        for socket in sockets {
            socket.set_nonblocking(true).unwrap();
            socket.recv(&mut [0; 16]).expect_err("denied");
        }
    }
}
