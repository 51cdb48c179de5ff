//! One request from its head to its answer: faults, authentication, authorization, then what it asks for.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::{HeaderMap, Request, Response, header};
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use super::authn::User;
use super::connection::Listening;
use super::fault::Fault;
use super::list::View;
use super::rbac::Attributes;
use super::resources;
use super::review::decide;
use super::route::Route;
use super::state::{State, lock};
use super::stats::Asked;
use super::status::Refusal;
use super::watch::{Broken, Piece};
use super::{discovery, write};

/// The body of an answer.
pub(super) type Answer = Response<UnsyncBoxBody<Bytes, Broken>>;

/// What a request can do to its connection.
#[derive(Clone)]
pub(super) struct Connection {
    /// The connection is to be reset, not closed.
    pub(super) reset: Arc<AtomicBool>,
    pub(super) listening: watch::Receiver<(u64, Listening)>,
}

/// A request that may go on.
pub(super) struct Asking {
    pub(super) route: Route,
    pub(super) user: User,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    pub(super) asked: Asked,
    pub(super) view: View,
    pub(super) slow: Option<std::time::Duration>,
}

/// Answers a request.
pub(super) async fn answer(state: Arc<State>, connection: Connection, request: Request<Incoming>) -> Result<Answer, Broken> {
    let (path, query) = (request.uri().path().to_owned(), request.uri().query().unwrap_or_default().to_owned());
    let route = Route::parse(request.method(), &path, &query);
    let agent = request.headers().get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default().to_owned();
    let mut asked = Asked { verb: route.attributes.verb.clone(), resource: route.shown(), user_agent: agent, user: String::new() };
    let user = authenticate(&state, request.headers());
    if let Ok(user) = &user {
        asked.user.clone_from(&user.name);
    }
    lock(&state.stats).count(&asked).requests += 1;
    let fault = lock(&state.faults).take(&asked.resource, &asked.verb);
    let slow = match &fault {
        Some(Fault::Slow(delay)) => Some(*delay),
        _ => None,
    };
    if let Some(delay) = slow {
        tokio::time::sleep(delay).await;
    }
    let refused = match &fault {
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Reset) => {
            connection.reset.store(true, Ordering::Relaxed);
            return Err(Broken);
        }
        Some(Fault::Gone) => Some(Refusal::expired("The resourceVersion for the provided list is too old.")),
        Some(Fault::Internal) => Some(Refusal::internal("a test asked for this")),
        Some(Fault::Unavailable) => Some(Refusal::unavailable()),
        Some(Fault::Unauthorized) => Some(Refusal::unauthorized()),
        Some(Fault::NotFound) => Some(Refusal::no_such_resource()),
        Some(Fault::TooManyRequests(_) | Fault::Truncate | Fault::Slow(_)) | None => None,
    };
    let answered = match (refused, user) {
        (Some(refusal), _) | (None, Err(refusal)) => Err(refusal),
        (None, Ok(_)) if let Some(Fault::TooManyRequests(seconds)) = &fault => Ok(too_many_requests(*seconds)),
        (None, Ok(user)) => proceed(&state, &connection, route, user, query, asked.clone(), slow, request).await,
    };
    let mut answer = answered.unwrap_or_else(|refusal| refuse(&refusal));
    let headers = answer.headers_mut();
    let mut set = |name, value: String| header::HeaderValue::from_str(&value).map(|value| headers.insert(name, value));
    let _ = set(header::DATE, state.now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string());
    let _ = set(header::HeaderName::from_static("audit-id"), write::uid());
    let _ = set(header::CACHE_CONTROL, "no-cache, private".to_owned());
    {
        let mut stats = lock(&state.stats);
        let count = stats.count(&asked);
        *count.codes.entry(answer.status().as_u16()).or_default() += 1;
        count.bytes += answer.body().size_hint().exact().unwrap_or(0);
    }
    if fault == Some(Fault::Truncate) { Ok(truncate(answer)) } else { Ok(answer) }
}

#[expect(clippy::too_many_arguments, reason = "called once; the parts of a request that are still needed")]
async fn proceed(
    state: &Arc<State>,
    connection: &Connection,
    route: Route,
    user: User,
    query: String,
    asked: Asked,
    slow: Option<std::time::Duration>,
    request: Request<Incoming>,
) -> Result<Answer, Refusal> {
    authorize(state, &user, &route.attributes)?;
    let path = route.attributes.path.clone();
    if route.attributes.resource.is_empty() {
        if matches!(path.as_str(), "/healthz" | "/livez" | "/readyz") {
            return Ok(respond(200, "text/plain; charset=utf-8", b"ok".to_vec()));
        }
        let answered = discovery::answer(&lock(&state.store), &path, &state.options.git_version);
        return match answered {
            Some(answered) => {
                view(request.headers())?;
                Ok(json(200, &answered?))
            }
            None => {
                let mut parts = path.split('/').filter(|part| !part.is_empty());
                let builtin = match (parts.next(), parts.next()) {
                    (Some("api"), _) => true,
                    (Some("apis"), Some(group)) => lock(&state.store).has_builtin_group(group),
                    _ => false,
                };
                resources::no_such_path(builtin)
            }
        };
    }
    let asking = Asking { view: view(request.headers())?, headers: request.headers().clone(), route, user, query, asked, slow };
    resources::answer(state, connection, asking, request).await
}

fn authenticate(state: &State, headers: &HeaderMap) -> Result<User, Refusal> {
    let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (scheme, token) = header.split_once(' ').unwrap_or_default();
    // More than one space makes it no token at all.
    let token = token.split(' ').next().unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return if state.options.anonymous { Ok(User::anonymous()) } else { Err(Refusal::unauthorized()) };
    }
    // A wrong token is refused even where none would do.
    let now = state.now();
    let checked = lock(&state.tokens).check(&lock(&state.store), token, &[], now);
    checked.map(|(user, _)| user).map_err(|_| Refusal::unauthorized())
}

/// 403 unless the authorizer allows it.
pub(super) fn authorize(state: &State, user: &User, asked: &Attributes) -> Result<(), Refusal> {
    let decision = decide(state, user, asked);
    if decision.allowed {
        return Ok(());
    }
    Err(Refusal::forbidden(&asked.group, &asked.resource, &asked.name, &asked.denied(user, &decision.reason)))
}

/// What `Accept` asks for, in its order.
fn view(headers: &HeaderMap) -> Result<View, Refusal> {
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    accepted.split(',').find_map(view_of).ok_or_else(Refusal::not_acceptable)
}

fn view_of(media: &str) -> Option<View> {
    let mut parts = media.split(';').map(str::trim);
    let json = matches!(parts.next()?, "application/json" | "application/*" | "*/*");
    let parts: Vec<_> = parts.collect();
    let kind = parts.iter().find_map(|part| part.strip_prefix("as="));
    match kind {
        _ if !json => None,
        None => Some(View::Full),
        Some("PartialObjectMetadata" | "PartialObjectMetadataList") if parts.contains(&"g=meta.k8s.io") && parts.contains(&"v=v1") => {
            Some(View::Metadata)
        }
        // Tables and aggregated discovery: as from a server without them, the next entry counts.
        Some(_) => None,
    }
}

/// An answer with a body.
pub(super) fn respond(code: u16, content_type: &'static str, body: Vec<u8>) -> Answer {
    let body = Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed_unsync();
    let mut answer = Response::new(body);
    *answer.status_mut() = hyper::StatusCode::from_u16(code).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    answer
}

/// An answer with a JSON body.
pub(super) fn json(code: u16, value: &Value) -> Answer {
    let mut body = value.to_string().into_bytes();
    body.push(b'\n');
    respond(code, "application/json", body)
}

fn refuse(refusal: &Refusal) -> Answer {
    let mut answer = json(refusal.code, &refusal.body());
    if let Some(seconds) = refusal.retry_after {
        answer.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from(seconds));
    }
    answer
}

/// What priority and fairness answers: no Status, since no handler of a resource was reached.
fn too_many_requests(seconds: u32) -> Answer {
    let mut answer = respond(429, "text/plain; charset=utf-8", b"Too many requests, please try again later.\n".to_vec());
    answer.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from(seconds));
    answer
}

/// The pieces of a watch as a body.
struct Pieces(mpsc::Receiver<Piece>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

/// An answer that goes on until its sender is dropped.
pub(super) fn stream(pieces: mpsc::Receiver<Piece>) -> Answer {
    let mut answer = Response::new(Pieces(pieces).boxed_unsync());
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    answer
}

/// Half of the first piece, then the end of the connection.
fn truncate(answer: Answer) -> Answer {
    let (mut parts, mut body) = answer.into_parts();
    if let Some(length) = body.size_hint().exact() {
        parts.headers.insert(header::CONTENT_LENGTH, header::HeaderValue::from(length));
    }
    let (send, pieces) = mpsc::channel(2);
    tokio::spawn(async move {
        if let Some(Ok(frame)) = body.frame().await
            && let Ok(data) = frame.into_data()
        {
            let _ = send.send(Ok(data.slice(..data.len() / 2))).await;
        }
        // Time for the half to leave, or a client sees nothing at all.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        let _ = send.send(Err(Broken)).await;
    });
    Response::from_parts(parts, Pieces(pieces).boxed_unsync())
}
