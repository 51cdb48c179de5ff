//! One request to an agent: HTTP/1.1 over a connection of its own.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::dial::Dial;
use super::roster::Agent;
use super::tenant::Tenant;

/// How long a connection, and the head of its answer, may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// After a connection broke, whoever is in between may still say why.
const WHY: Duration = Duration::from_millis(200);

/// Connections that are being made at once: an API server is not to be flooded because somebody looks.
const AT_ONCE: usize = 16;

/// The longest answer that is read whole.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// The longest error text that is shown.
const MAX_ERROR: usize = 2000;

/// Why an agent cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreached {
    /// The API server does not let this user through.
    #[error("{0}")]
    Forbidden(String),
    /// The agent does not do what it is asked.
    #[error("the agent answers {status}: {message}")]
    Refused {
        /// HTTP's status.
        status: u16,
        /// What it says.
        message: String,
    },
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

/// The ways to agents.
#[derive(Clone)]
pub struct Access {
    dial: Arc<dyn Dial>,
    tenant: Option<Arc<Tenant>>,
    connecting: Arc<Semaphore>,
}

/// An answer whose body is still to come. Dropping it ends the connection.
pub(super) struct Called {
    pub(super) status: StatusCode,
    pub(super) body: Incoming,
    _connection: Connection,
    trouble: Option<Trouble>,
}

type Trouble = Pin<Box<dyn Future<Output = Option<String>> + Send>>;

/// The task that moves the bytes, ended with it.
struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Access {
    /// By `dial`; in tenant mode under TLS, with a token.
    pub fn new(dial: Arc<dyn Dial>, tenant: Option<Arc<Tenant>>) -> Self {
        Access { dial, tenant, connecting: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Asks, and gives the head of the answer.
    pub(super) async fn call(&self, agent: &Agent, method: Method, path: &str, body: Option<String>) -> Result<Called, Unreached> {
        let called = async {
            // Closed it is never.
            let _turn = self.connecting.acquire().await;
            timeout(PATIENCE, self.try_call(agent, method, path, body)).await
        };
        called.await.unwrap_or_else(|_| Err(Unreached::Failed(format!("no answer within {} s", PATIENCE.as_secs()))))
    }

    async fn try_call(&self, agent: &Agent, method: Method, path: &str, body: Option<String>) -> Result<Called, Unreached> {
        let dialled = self.dial.dial(agent).await?;
        let mut trouble = Some(dialled.trouble);
        let failed = async |what: String, trouble: &mut Option<Trouble>| Unreached::Failed(why(trouble).await.unwrap_or(what));
        let (link, token) = match &self.tenant {
            Some(tenant) => match tenant.secure(dialled.link).await {
                Ok(secured) => secured,
                Err(what) => return Err(failed(what, &mut trouble).await),
            },
            None => (dialled.link, None),
        };
        let (mut sender, connection) = match http1::handshake(TokioIo::new(link)).await {
            Ok(ends) => ends,
            Err(error) => return Err(failed(error.to_string(), &mut trouble).await),
        };
        let connection = Connection(tokio::spawn(async move {
            // An end before its time shows in the body.
            _ = connection.await;
        }));
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, "127.0.0.1");
        request = request.header(header::USER_AGENT, concat!("netpol-observer/", env!("CARGO_PKG_VERSION")));
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(token) = token {
            let mut value = header::HeaderValue::try_from(format!("Bearer {token}"))
                .map_err(|_| Unreached::Failed("the token of the ServiceAccount cannot stand in a header".to_owned()))?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        let request = request.body(Full::new(Bytes::from(body.unwrap_or_default())));
        let request = request.map_err(|error| Unreached::Failed(format!("cannot ask for {path}: {error}")))?;
        let response: Response<Incoming> = match sender.send_request(request).await {
            Ok(response) => response,
            Err(error) => {
                let hint = if self.tenant.is_none() && error.is_parse() {
                    "; if the agents run in tenant mode, name a ServiceAccount with --as-service-account"
                } else {
                    ""
                };
                return Err(failed(format!("no answer in HTTP: {}{hint}", cause(&error)), &mut trouble).await);
            }
        };
        let (head, body) = response.into_parts();
        Ok(Called { status: head.status, body, _connection: connection, trouble })
    }

    /// Asks, and reads the whole answer.
    pub(super) async fn ask(
        &self,
        agent: &Agent,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Result<(StatusCode, Bytes), Unreached> {
        self.call(agent, method, path, body).await?.whole().await
    }

    /// The agent did not accept the token: the next request has another.
    pub(super) async fn forget_token(&self) {
        if let Some(tenant) = &self.tenant {
            tenant.forget_token().await;
        }
    }
}

impl Called {
    /// The status and the whole body.
    pub(super) async fn whole(mut self) -> Result<(StatusCode, Bytes), Unreached> {
        match timeout(PATIENCE, Limited::new(&mut self.body, MAX_ANSWER).collect()).await {
            Ok(Ok(body)) => Ok((self.status, body.to_bytes())),
            Ok(Err(error)) => Err(self.broken(&error.to_string()).await),
            Err(_) => Err(Unreached::Failed(format!("the answer did not end within {} s", PATIENCE.as_secs()))),
        }
    }

    /// What broke the answer in its middle.
    pub(super) async fn broken(&mut self, what: &str) -> Unreached {
        Unreached::Failed(why(&mut self.trouble).await.unwrap_or_else(|| what.to_owned()))
    }

    /// An answer that is an error: reads what it says.
    pub(super) async fn refusal(self) -> Unreached {
        let status = self.status;
        let body = self.whole().await.map(|(_, body)| body).unwrap_or_default();
        refusal(status, &body)
    }
}

/// An answer that is no success.
pub(super) fn refusal(status: StatusCode, body: &[u8]) -> Unreached {
    #[derive(Deserialize)]
    struct Refusal {
        error: String,
    }
    let message = match serde_json::from_slice::<Refusal>(body) {
        Ok(refusal) => refusal.error,
        Err(_) => String::from_utf8_lossy(&body[..body.len().min(MAX_ERROR)]).trim().to_owned(),
    };
    let message: String = message.chars().take(MAX_ERROR).collect();
    let message = if message.is_empty() { status.canonical_reason().unwrap_or("nothing more").to_owned() } else { message };
    Unreached::Refused { status: status.as_u16(), message }
}

async fn why(trouble: &mut Option<Trouble>) -> Option<String> {
    timeout(WHY, trouble.take()?).await.ok().flatten()
}

/// The last cause of an error, which says most.
fn cause(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
