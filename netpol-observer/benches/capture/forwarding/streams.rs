//! A TCP stream and small datagrams from the sender's pod through the node to the server's, and how much of them gets there.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use xtask::traffic::cluster::{caller, server};
use xtask::traffic::{Datagram, Forger, cpus, pin};

use crate::scene::{ALLOWED, DENIED, Scene};

/// Datagrams sent in one go.
const BATCH: usize = 64;
/// Datagrams that may be under way: far fewer than the receiver's buffer holds.
const WINDOW: u64 = 1_024;
const RECEIVE_BUFFER: libc::c_int = 16 * 1024 * 1024;
/// Flows of the datagrams.
const FLOWS: u64 = 1_000;
/// How long a datagram may take before it is held to be lost.
const PATIENCE: Duration = Duration::from_secs(2);

/// A TCP connection; what arrives is counted by a thread that ends with it.
pub(super) struct Stream {
    connection: TcpStream,
    arrived: Arc<AtomicU64>,
}

impl Stream {
    pub(super) fn new(scene: &Scene) -> Result<Self> {
        let listener = scene.server.in_ns(|| TcpListener::bind((server(0), 0)))?.context("cannot listen in the server's pod")?;
        let to = listener.local_addr()?;
        let connection = scene.sender.in_ns(|| TcpStream::connect_timeout(&to, PATIENCE))?.context("cannot connect through the node")?;
        let (mut receiver, _) = listener.accept()?;
        let arrived = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&arrived);
        thread::spawn(move || {
            // Another CPU than the sender's, if there is one.
            let _ = pin(cpus() - 1);
            let mut buffer = vec![0; 256 * 1024];
            while let Ok(bytes @ 1..) = receiver.read(&mut buffer) {
                counter.fetch_add(bytes as u64, Ordering::Relaxed);
            }
        });
        Ok(Stream { connection, arrived })
    }

    /// Bytes per second that arrive.
    pub(super) fn rate(&self, time: Duration) -> Result<f64> {
        thread::scope(|scope| {
            let sender = scope.spawn(|| -> Result<f64> {
                let _ = pin(0);
                let block = vec![0; 128 * 1024];
                let mut connection = &self.connection;
                // The congestion window grows again after the pause.
                let warm = Instant::now();
                while warm.elapsed() < time / 5 {
                    connection.write_all(&block).context("the TCP stream broke")?;
                }
                let (begin, before) = (Instant::now(), self.arrived.load(Ordering::Relaxed));
                while begin.elapsed() < time {
                    connection.write_all(&block).context("the TCP stream broke")?;
                }
                let arrived = self.arrived.load(Ordering::Relaxed) - before;
                Ok(arrived as f64 / begin.elapsed().as_secs_f64())
            });
            sender.join().ok().context("the sender panicked")?
        })
    }
}

/// Datagrams per second, those included that a rule drops: `dropped` of a hundred.
pub(super) fn datagrams(scene: &Scene, dropped: u64, time: Duration) -> Result<f64> {
    let socket = scene.server.in_ns(|| UdpSocket::bind((server(0), ALLOWED)))?.context("cannot open a socket in the server's pod")?;
    let size = RECEIVE_BUFFER;
    // SAFETY: the option's value is an int that outlives the call.
    let result = unsafe {
        let length = size_of_val(&size) as libc::socklen_t;
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, (&raw const size).cast(), length)
    };
    if result != 0 {
        return Err(std::io::Error::last_os_error()).context("cannot enlarge the receive buffer");
    }
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    let (arrived, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = pin(cpus() - 1);
            let mut buffer = [0; 64];
            while !stop.load(Ordering::Relaxed) {
                if socket.recv(&mut buffer).is_ok() {
                    arrived.fetch_add(1, Ordering::Release);
                }
            }
        });
        let sent = scene.sender.in_ns(|| {
            let _ = pin(0);
            send(dropped, time, &arrived)
        });
        stop.store(true, Ordering::Relaxed);
        sent?
    })
}

/// Sends as fast as what is not dropped arrives.
fn send(dropped: u64, time: Duration, arrived: &AtomicU64) -> Result<f64> {
    // 37 and 100 have no common divisor: each hundred has its share, spread out.
    let is_dropped = |i: u64| i * 37 % 100 < dropped;
    let datagram =
        |i: u64| Datagram { source: caller(i % FLOWS), destination: server(0), port: if is_dropped(i) { DENIED } else { ALLOWED } };
    let mut forger = Forger::new()?;
    let (mut sent, mut passing) = (0u64, 0u64);
    let begin = Instant::now();
    while begin.elapsed() < time {
        forger.send(sent, BATCH, datagram)?;
        passing += (sent..sent + BATCH as u64).filter(|&i| !is_dropped(i)).count() as u64;
        sent += BATCH as u64;
        let waiting = Instant::now();
        while passing - arrived.load(Ordering::Acquire).min(passing) > WINDOW {
            if waiting.elapsed() > PATIENCE {
                bail!("of {passing} datagrams that no rule drops {} arrived", arrived.load(Ordering::Acquire));
            }
            thread::yield_now();
        }
    }
    Ok(sent as f64 / begin.elapsed().as_secs_f64())
}
