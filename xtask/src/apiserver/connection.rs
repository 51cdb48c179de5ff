//! Connections: accepting them, and breaking them when a test asks for it.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::handle::{self, Connection};
use super::state::State;

/// Whether the server listens. Each change breaks all connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listening {
    /// Connections are accepted and served.
    Here,
    /// The port is closed, connections are reset.
    Away,
    /// Connections are accepted by the kernel, and nothing is ever read.
    Deaf,
}

/// A stream that is reset instead of closed when it is told so.
struct Resettable {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Drop for Resettable {
    fn drop(&mut self) {
        if self.reset.load(Ordering::Relaxed) {
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Resettable {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Resettable {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffers: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Opens the port. Needs the runtime's context.
pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    // The standard library sets SO_REUSEADDR, so that a server that was away gets its port back.
    let listener = StdListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Accepts until the server is dropped. `acknowledge` tells who changed `listening` that it is so.
pub(super) async fn accept(
    state: Arc<State>,
    listener: TcpListener,
    address: SocketAddr,
    mut listening: watch::Receiver<(u64, Listening)>,
    acknowledge: watch::Sender<u64>,
) {
    let mut listener = Some(listener);
    let mut held = Vec::new();
    loop {
        let (epoch, wanted) = *listening.borrow_and_update();
        match wanted {
            Listening::Away => listener = None,
            Listening::Here | Listening::Deaf if listener.is_none() => match bind(address) {
                Ok(bound) => listener = Some(bound),
                // Someone took the port. Whoever waits for the acknowledgement waits on, and its time limit tells.
                Err(_) => {
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                    continue;
                }
            },
            _ => {}
        }
        if wanted != Listening::Deaf {
            held.clear();
        }
        acknowledge.send_replace(epoch);
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = listening.changed() => if changed.is_err() { return },
            Ok((stream, _)) = accepted => {
                let _ = stream.set_nodelay(true);
                if wanted == Listening::Deaf {
                    held.push(stream);
                } else {
                    tokio::spawn(serve(Arc::clone(&state), stream, listening.clone()));
                }
            }
        }
    }
}

async fn serve(state: Arc<State>, stream: TcpStream, mut listening: watch::Receiver<(u64, Listening)>) {
    let reset = Arc::new(AtomicBool::new(false));
    let connection = Connection { reset: Arc::clone(&reset), listening: listening.clone() };
    let stream = TokioIo::new(Resettable { stream, reset: Arc::clone(&reset) });
    let service = service_fn(move |request| handle::answer(Arc::clone(&state), connection.clone(), request));
    let served = http1::Builder::new().auto_date_header(false).serve_connection(stream, service).with_upgrades();
    tokio::select! {
        // A client that leaves, and faults that break the connection, end it with an error that is nobody's news.
        _ = served => {}
        _ = listening.changed() => reset.store(true, Ordering::Relaxed),
    }
}
