//! Paths → answers.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::access::Scope;
use super::query::DropsQuery;
use super::reply::{self, Reply, error, object, text};
use super::server::Limits;
use super::status::{Parts, StatusObject};
use super::{About, Access, ExplainRequest, Explained, Health, Hub, KernelAbout, Objects, SharedPage, Snapshot, Words, drops};

/// What requests are answered from.
pub(super) struct Context {
    pub(super) about: About,
    pub(super) hub: Arc<Hub>,
    pub(super) health: Arc<Health>,
    pub(super) objects: Arc<dyn Objects>,
    pub(super) words: Arc<dyn Words>,
    pub(super) limits: Limits,
    pub(super) kernel: OnceLock<KernelAbout>,
    /// What is told at `/metrics`.
    pub(super) metrics: OnceLock<SharedPage>,
    /// Pages that are being made.
    pub(super) paging: Semaphore,
    pub(super) certificate: Option<String>,
    /// Explanations at once.
    pub(super) explaining: Semaphore,
    /// Requests that wait for one.
    pub(super) waiting: Semaphore,
}

/// A listener: who may ask there, and for what.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) access: Access,
    /// Metrics, and nothing else.
    pub(super) metrics_only: bool,
}

/// The one page that is not of the API.
pub(super) const METRICS: &str = "/metrics";

/// Answers a request.
pub(super) async fn answer(context: Arc<Context>, door: Arc<Door>, request: Request<Incoming>) -> Reply {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let known = if door.metrics_only { METRICS } else { "/healthz, /readyz, /metrics, /v1/status, /v1/drops and /v1/explain" };
    let Some(method) = method_of(&path).filter(|_| !door.metrics_only || path == METRICS) else {
        return error(StatusCode::NOT_FOUND, &format!("there is no {path} here; known are {known}"));
    };
    if request.method() != method {
        let mut refused = error(StatusCode::METHOD_NOT_ALLOWED, &format!("{path} is asked for with {method}"));
        if let Ok(allowed) = header::HeaderValue::from_str(method.as_str()) {
            refused.headers_mut().insert(header::ALLOW, allowed);
        }
        return refused;
    }
    if let Some(refused) = door.access.refuse_pages(request.headers()) {
        return refused;
    }
    if path != "/v1/drops" && !query.is_empty() {
        return error(StatusCode::BAD_REQUEST, &format!("{path} has no parameters, and {query:?} was given"));
    }
    match &*path {
        "/healthz" => return probe(context.health.trouble()),
        "/readyz" => {
            let missing = context.missing();
            return probe((!missing.is_empty()).then(|| missing.join("; ")));
        }
        METRICS => {
            return match door.access.refuse_page(request.headers(), METRICS).await {
                Some(refused) => refused,
                None => metrics(context).await,
            };
        }
        _ => {}
    }
    let scope = match door.access.caller(request.headers()).await {
        Ok(scope) => scope,
        Err(refused) => return refused,
    };
    match &*path {
        "/v1/status" => context.status(&scope),
        _ if !context.hub.is_started() => error(StatusCode::SERVICE_UNAVAILABLE, "the agent is starting: the capture is not attached yet"),
        "/v1/drops" => match DropsQuery::parse(&query, &*context.words) {
            Ok(query) => drops::answer(&context, scope, query),
            Err(message) => error(StatusCode::BAD_REQUEST, &message),
        },
        _ => explain(context, &scope, request).await,
    }
}

fn method_of(path: &str) -> Option<Method> {
    match path {
        "/healthz" | "/readyz" | METRICS | "/v1/status" | "/v1/drops" => Some(Method::GET),
        "/v1/explain" => Some(Method::POST),
        _ => None,
    }
}

fn probe(trouble: Option<String>) -> Reply {
    match trouble {
        None => text(StatusCode::OK, "ok"),
        Some(trouble) => text(StatusCode::SERVICE_UNAVAILABLE, &trouble),
    }
}

impl Context {
    /// What has to be there before answers can be relied on, and is not.
    fn missing(&self) -> Vec<String> {
        let capture = (!self.hub.is_started()).then(|| "the capture is not attached".to_owned());
        capture.into_iter().chain(self.objects.missing()).collect()
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            about: self.about.clone(),
            now: Timestamp::now(),
            missing: self.missing(),
            kernel: self.kernel.get().cloned(),
            hub: self.hub.status(),
            objects: self.objects.status(),
            watches: self.objects.watches(),
            waiting_since: self.objects.waiting_since(),
        }
    }

    fn status(&self, scope: &Scope) -> Reply {
        let (missing, hub) = (self.missing(), self.hub.status());
        let parts = Parts {
            about: &self.about,
            now: Timestamp::now(),
            missing: &missing,
            certificate: self.certificate.as_deref(),
            kernel: self.kernel.get(),
            hub: &hub,
            objects: scope.is_everything().then(|| self.objects.status()),
        };
        object(StatusCode::OK, &StatusObject::of(parts))
    }
}

async fn metrics(context: Arc<Context>) -> Reply {
    let Some(page) = context.metrics.get().cloned() else {
        return error(StatusCode::SERVICE_UNAVAILABLE, "the agent is starting");
    };
    let Ok(_paging) = context.paging.try_acquire() else {
        return error(StatusCode::SERVICE_UNAVAILABLE, "enough others are asking: try again later");
    };
    let kind = page.content_type();
    // It waits for the lock of the objects, which a long list may hold.
    let made = tokio::task::spawn_blocking({
        let context = Arc::clone(&context);
        move || page.text(&context.snapshot())
    });
    match made.await {
        Ok(text) => reply::page(kind, text),
        Err(failed) => {
            tracing::error!("metrics could not be told: {failed}");
            error(StatusCode::INTERNAL_SERVER_ERROR, "metrics could not be told; please report this as a bug")
        }
    }
}

async fn explain(context: Arc<Context>, scope: &Scope, request: Request<Incoming>) -> Reply {
    if !scope.is_everything() {
        // An answer names pods and policies of every namespace that it touches, and a question that finds nothing names what is there.
        return error(
            StatusCode::FORBIDDEN,
            "explain needs to get pods in all namespaces; observer explain -f answers from files of yours",
        );
    }
    let is_json = |kind: &str| kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json");
    if !request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).is_some_and(is_json) {
        return error(StatusCode::BAD_REQUEST, "the body must be application/json, and say so in its Content-Type");
    }
    let body = match timeout(context.limits.body, read(request.into_body(), context.limits.body_bytes)).await {
        Ok(Ok(body)) => body,
        Ok(Err(message)) => return error(StatusCode::BAD_REQUEST, &message),
        Err(_) => return error(StatusCode::BAD_REQUEST, "the body did not come in time"),
    };
    let asked: ExplainRequest = match serde_json::from_slice(&body) {
        Ok(asked) => asked,
        Err(why) => {
            let message = format!(
                r#"the body must be an object such as {{"args": ["--from", "shop/web", "--to", "shop/api", "--port", "80"], "form": "json"}}: {why}"#
            );
            return error(StatusCode::BAD_REQUEST, &message);
        }
    };
    let Ok(_waiting) = context.waiting.try_acquire() else {
        return error(StatusCode::SERVICE_UNAVAILABLE, "the agent has enough questions to answer already: try again later");
    };
    // Never closed.
    let Ok(_explaining) = context.explaining.acquire().await else {
        return error(StatusCode::SERVICE_UNAVAILABLE, "the agent is ending");
    };
    let (objects, words) = (Arc::clone(&context.objects), Arc::clone(&context.words));
    let explained = tokio::task::spawn_blocking(move || {
        let mut explained = Explained::default();
        let caveats = objects.caveats();
        objects.with_engine(&mut |engine| explained = words.explain(&asked, engine));
        for caveat in caveats {
            explained.err += &format!("warning: {caveat}\n");
        }
        explained
    });
    match explained.await {
        Ok(explained) => object(StatusCode::OK, &explained),
        Err(failed) => {
            tracing::error!("a question could not be answered: {failed}");
            error(StatusCode::INTERNAL_SERVER_ERROR, "the question could not be answered; please report this as a bug")
        }
    }
}

async fn read(body: Incoming, limit: usize) -> Result<Bytes, String> {
    let collected = Limited::new(body, limit).collect().await;
    collected.map(|body| body.to_bytes()).map_err(|failed| {
        if failed.is::<LengthLimitError>() {
            format!("the body is longer than {limit} bytes")
        } else {
            "the body could not be read".to_owned()
        }
    })
}

/// For probes and explanations alike: what takes longer has gone wrong.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
