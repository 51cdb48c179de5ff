//! The listener: connections, their limits, and an orderly end.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::routes::{Context, Door, PATIENCE, answer};
use super::{About, Access, Certificate, Health, Hub, KernelAbout, Objects, SharedPage, Words};

/// What a caller may take of the agent.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once, streams among them.
    pub connections: usize,
    /// Bytes of a request's head.
    pub head_bytes: usize,
    /// Header fields of a request.
    pub headers: usize,
    /// A head has to be there after this long. A connection without a request ends then, too.
    pub head: Duration,
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// A body has to be there after this long.
    pub body: Duration,
    /// A reader that takes nothing for this long is cut off.
    pub stall: Duration,
    /// How long readers may take what is left at the end. Then they are told what they miss.
    pub catch_up: Duration,
    /// How long connections have at the end, all in all.
    pub shutdown: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 256,
            head_bytes: 32 * 1024,
            headers: 64,
            head: PATIENCE,
            body_bytes: 64 * 1024,
            body: PATIENCE,
            stall: Duration::from_secs(300),
            catch_up: Duration::from_secs(3),
            shutdown: Duration::from_secs(15),
        }
    }
}

/// Explanations at once; more wait.
const EXPLAINING: usize = 2;
/// Requests for explanations that wait.
const WAITING: usize = 32;
/// Pages of metrics that are made at once.
const PAGING: usize = 4;

/// A server of the API.
pub struct Server {
    context: Arc<Context>,
    door: Arc<Door>,
    tls: Option<TlsAcceptor>,
}

impl Server {
    /// What it answers from, and who may ask. With a certificate it speaks TLS.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a part of the agent, given once, and a structure of them would be the server itself"
    )]
    pub fn new(
        about: About,
        hub: Arc<Hub>,
        health: Arc<Health>,
        objects: Arc<dyn Objects>,
        words: Arc<dyn Words>,
        access: Access,
        certificate: Option<&Certificate>,
        limits: Limits,
    ) -> Self {
        let context = Context {
            about,
            hub,
            health,
            objects,
            words,
            limits,
            kernel: OnceLock::new(),
            metrics: OnceLock::new(),
            paging: Semaphore::new(PAGING),
            certificate: certificate.map(|certificate| certificate.fingerprint().to_owned()),
            explaining: Semaphore::new(EXPLAINING),
            waiting: Semaphore::new(WAITING),
        };
        let door = Arc::new(Door { access, metrics_only: false });
        Server { context: Arc::new(context), door, tls: certificate.map(Certificate::acceptor) }
    }

    /// The same agent by another listener, where there are metrics and nothing else.
    #[must_use]
    pub fn for_metrics(&self, access: Access, certificate: Option<&Certificate>) -> Self {
        let door = Arc::new(Door { access, metrics_only: true });
        Server { context: Arc::clone(&self.context), door, tls: certificate.map(Certificate::acceptor) }
    }

    /// What is told at `/metrics`.
    pub fn set_metrics(&self, page: SharedPage) {
        // It is set once.
        _ = self.context.metrics.set(page);
    }

    /// The kernel that is captured from, once it is known.
    pub fn set_kernel(&self, kernel: KernelAbout) {
        // It is set once.
        _ = self.context.kernel.set(kernel);
    }

    /// Opens a port.
    ///
    /// # Errors
    /// Those of the system.
    pub fn bind(address: SocketAddr) -> std::io::Result<StdListener> {
        let listener = StdListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    /// Serves until `stop` says true (or is dropped), and then until streams have ended, at the longest for the time that the limits give.
    ///
    /// # Errors
    /// The listener cannot be used.
    pub async fn serve(&self, listener: StdListener, mut stop: watch::Receiver<bool>) -> std::io::Result<()> {
        let listener = TcpListener::from_std(listener)?;
        let limits = self.context.limits;
        let connections = Arc::new(Semaphore::new(limits.connections));
        let mut stopped = pin!(stopped(stop.clone()));
        loop {
            // The kernel keeps others waiting while there are as many as there may be.
            let permit = tokio::select! {
                biased;
                () = &mut stopped => break,
                permit = Arc::clone(&connections).acquire_owned() => permit,
            };
            let accepted = tokio::select! {
                biased;
                () = &mut stopped => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let connection = self.connection(stream, stop.clone());
                    tokio::spawn(async move {
                        connection.await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    // Out of descriptors, as a rule: what is open will end.
                    tracing::warn!("a connection could not be accepted: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(listener);
        let all = u32::try_from(limits.connections).unwrap_or(u32::MAX);
        if timeout(limits.shutdown, connections.acquire_many(all)).await.is_err() {
            tracing::warn!("{} connections were cut off at the end", limits.connections.saturating_sub(connections.available_permits()));
        }
        _ = stop.borrow_and_update();
        Ok(())
    }

    fn connection(&self, stream: TcpStream, stop: watch::Receiver<bool>) -> impl Future<Output = ()> + Send + 'static {
        let (context, door) = (Arc::clone(&self.context), Arc::clone(&self.door));
        let tls = self.tls.clone();
        async move {
            // Frames are written when they are complete.
            _ = stream.set_nodelay(true);
            match tls {
                None => serve_connection(context, door, stream, stop).await,
                Some(tls) => match timeout(context.limits.head, tls.accept(stream)).await {
                    Ok(Ok(stream)) => serve_connection(context, door, stream, stop).await,
                    // Whoever does not get through the handshake is told by TLS, or has gone.
                    Ok(Err(error)) => tracing::debug!("TLS handshake: {error}"),
                    Err(_) => tracing::debug!("TLS handshake: not in time"),
                },
            }
        }
    }
}

async fn serve_connection(
    context: Arc<Context>,
    door: Arc<Door>,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    stop: watch::Receiver<bool>,
) {
    let limits = context.limits;
    let service = service_fn(move |request| {
        let (context, door) = (Arc::clone(&context), Arc::clone(&door));
        async move { Ok::<_, Infallible>(answer(context, door, request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_headers(limits.headers)
        .max_buf_size(limits.head_bytes.max(8192))
        .serve_connection(TokioIo::new(stream), service);
    let mut served = pin!(served);
    // What a caller does wrong on the wire ends the connection, and is nobody's news.
    let ended = tokio::select! {
        ended = served.as_mut() => Some(ended),
        () = stopped(stop) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            // What is being answered is answered to its end: streams have theirs from the hub.
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a connection ended: {error}");
    }
}

/// Until it is time to stop.
async fn stopped(mut stop: watch::Receiver<bool>) {
    // Whoever could say it has gone: that says it too.
    _ = stop.wait_for(|stop| *stop).await;
}
