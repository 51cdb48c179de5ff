//! A byte stream to an agent: by port-forward through the API server.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Portforwarder};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use super::access::describe;
use super::call::Unreached;
use super::roster::Agent;

/// Both directions of a connection.
pub trait Link: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Link for T {}

/// A connection that has been made.
pub struct Dialled {
    /// The connection. Dropping it ends it, whatever the other side does.
    pub link: Box<dyn Link>,
    /// What whoever is in between says went wrong; nothing as long as nothing did.
    pub trouble: Pin<Box<dyn Future<Output = Option<String>> + Send>>,
}

/// Makes connections to agents.
pub trait Dial: Send + Sync {
    /// Connects to the port of an agent's API.
    fn dial<'a>(&'a self, agent: &'a Agent) -> Pin<Box<dyn Future<Output = Result<Dialled, Unreached>> + Send + 'a>>;
}

/// Through the API server.
pub(super) struct Forward {
    client: kube::Client,
    port: u16,
}

impl Forward {
    pub(super) fn new(client: kube::Client, port: u16) -> Self {
        Forward { client, port }
    }
}

impl Dial for Forward {
    fn dial<'a>(&'a self, agent: &'a Agent) -> Pin<Box<dyn Future<Output = Result<Dialled, Unreached>> + Send + 'a>> {
        Box::pin(async move {
            let pods: Api<Pod> = Api::namespaced(self.client.clone(), &agent.namespace);
            let mut forwarder = pods.portforward(&agent.pod, &[self.port]).await.map_err(|error| refused(&error))?;
            let trouble = forwarder.take_error(self.port);
            let Some(stream) = forwarder.take_stream(self.port) else {
                return Err(Unreached::Failed("the port-forward has no stream".to_owned()));
            };
            let trouble = Box::pin(async move {
                match trouble {
                    Some(trouble) => trouble.await,
                    None => None,
                }
            });
            Ok(Dialled { link: Box::new(Forwarded { stream, forwarder }), trouble })
        })
    }
}

fn refused(error: &kube::Error) -> Unreached {
    match error {
        kube::Error::Api(status) if status.code == 403 => Unreached::Forbidden(status.message.clone()),
        error => Unreached::Failed(describe(error)),
    }
}

/// The forwarder works on a task of its own, which a connection that hangs would keep for ever.
struct Forwarded {
    stream: DuplexStream,
    forwarder: Portforwarder,
}

impl Drop for Forwarded {
    fn drop(&mut self) {
        self.forwarder.abort();
    }
}

impl AsyncRead for Forwarded {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Forwarded {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
