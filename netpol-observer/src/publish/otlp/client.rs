//! Requests to a receiver, over gRPC or HTTP, and what their answers mean.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::uri::{PathAndQuery, Uri};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use prost::Message;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt as _;

use super::endpoint::{Endpoint, Protocol};

/// The longest time for a request, as the specification has it.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest time for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Of an answer no more is read.
const MAX_ANSWER: usize = 64 * 1024;
/// Of what a receiver says of a failure, so much is told.
const MAX_WORDS: usize = 300;
const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");
const AGENT: &str = concat!("netpol-observer/", env!("CARGO_PKG_VERSION"));

/// Why there can be no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A file of certificates.
    #[error("{file}: {why}")]
    File {
        /// Which.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// TLS cannot be had.
    #[error("no TLS: {0}")]
    Tls(String),
    /// The parts of the URL do not go together.
    #[error("no URL of a collector: {0}")]
    Url(#[from] http::Error),
}

/// What a request came to.
#[derive(Debug, PartialEq)]
pub(super) enum Outcome {
    /// The receiver has it, save so many items, and perhaps has something to say.
    Taken { rejected: u64, said: String },
    /// Later perhaps, after a time that the receiver asks for.
    Later { after: Option<Duration>, why: String },
    /// Never.
    Refused { why: String },
}

/// A kind of request.
pub(super) trait Signal: Message + Default + Clone + 'static {
    type Answer: Message + Default + 'static;
    /// Behind the base of an HTTP endpoint.
    const PATH: &'static str;
    const METHOD: &'static str;
    /// Items that were rejected, and why.
    fn rejected(answer: Self::Answer) -> (i64, String);
}

/// Sends requests to one receiver. Clones share its connections.
#[derive(Clone)]
pub(super) struct Client {
    pool: Pool<HttpsConnector<HttpConnector>, tonic::body::Body>,
    endpoint: Arc<Endpoint>,
    headers: Arc<HeaderMap>,
    origin: Uri,
}

impl Client {
    /// `ca` is a file of certificates, PEM, that are trusted instead of the machine's own.
    pub(super) fn new(endpoint: Endpoint, mut headers: HeaderMap, ca: Option<&Path>) -> Result<Self, ClientError> {
        headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT));
        let tls = tls(&endpoint, ca)?;
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        let is_grpc = endpoint.protocol == Protocol::Grpc;
        let connector = if is_grpc { builder.enable_http2().wrap_connector(tcp) } else { builder.enable_http1().wrap_connector(tcp) };
        let pool = Pool::builder(TokioExecutor::new())
            .http2_only(is_grpc)
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            // A connection that nobody answers on any more is not used again.
            .http2_keep_alive_interval(Duration::from_secs(20))
            .http2_keep_alive_timeout(TIMEOUT)
            .pool_max_idle_per_host(2)
            .build(connector);
        let origin = endpoint.origin()?;
        // Whatever may be wrong with it is wrong now.
        endpoint.uri("/v1/logs")?;
        Ok(Client { pool, endpoint: Arc::new(endpoint), headers: Arc::new(headers), origin })
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(super) async fn send<S: Signal>(&self, request: &S) -> Outcome {
        let outcome = async {
            match self.endpoint.protocol {
                Protocol::Grpc => self.call(request).await,
                Protocol::Http => self.post(request).await,
            }
        };
        match timeout(TIMEOUT, outcome).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::Later { after: None, why: format!("no answer within {} s", TIMEOUT.as_secs()) },
        }
    }

    async fn call<S: Signal>(&self, request: &S) -> Outcome {
        let mut grpc = tonic::client::Grpc::with_origin(self.pool.clone(), self.origin.clone()).max_decoding_message_size(MAX_ANSWER);
        if let Err(error) = grpc.ready().await {
            return Outcome::Later { after: None, why: words(&error) };
        }
        let mut request = tonic::Request::new(request.clone());
        *request.metadata_mut() = MetadataMap::from_headers(HeaderMap::clone(&self.headers));
        let codec = ProstCodec::<S, S::Answer>::default();
        match grpc.unary(request, PathAndQuery::from_static(S::METHOD), codec).await {
            Ok(answer) => taken::<S>(answer.into_inner()),
            Err(status) => of_status(&status),
        }
    }

    async fn post<S: Signal>(&self, request: &S) -> Outcome {
        let body = Full::new(Bytes::from(request.encode_to_vec()));
        let uri = match self.endpoint.uri(S::PATH) {
            Ok(uri) => uri,
            Err(error) => return Outcome::Refused { why: words(&error) },
        };
        let mut request = Request::new(tonic::body::Body::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        *request.headers_mut() = HeaderMap::clone(&self.headers);
        request.headers_mut().insert(CONTENT_TYPE, PROTOBUF);
        let (head, body) = match self.pool.request(request).await {
            Ok(response) => response.into_parts(),
            Err(error) => return Outcome::Later { after: None, why: words(&error) },
        };
        let is_protobuf = head.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(PROTOBUF.as_bytes()));
        // Whether it was taken stands in the head.
        let body = Limited::new(body, MAX_ANSWER).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        if head.status.is_success() {
            return match S::Answer::decode(body) {
                Ok(answer) if is_protobuf => taken::<S>(answer),
                Ok(_) | Err(_) => Outcome::Taken { rejected: 0, said: String::new() },
            };
        }
        let mut why = format!("HTTP {}", head.status);
        if is_protobuf
            && let Ok(status) = tonic_types::Status::decode(body)
            && !status.message.is_empty()
        {
            why = short(&format!("{why}: {}", status.message));
        }
        match head.status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                Outcome::Later { after: retry_after(&head.headers, SystemTime::now()), why }
            }
            _ => Outcome::Refused { why },
        }
    }
}

fn taken<S: Signal>(answer: S::Answer) -> Outcome {
    let (rejected, said) = S::rejected(answer);
    Outcome::Taken { rejected: u64::try_from(rejected).unwrap_or(0), said: short(&said) }
}

/// Which statuses are worth another try the specification lists; of exhausted resources only those that say when they will be back.
fn of_status(status: &Status) -> Outcome {
    let after = status.get_details_retry_info().map(|info| info.retry_delay.unwrap_or_default());
    if let Some(cause) = status.source() {
        // No answer of a gRPC server: the connection failed.
        return Outcome::Later { after, why: words(cause) };
    }
    let why = short(&format!("gRPC {:?}: {}", status.code(), status.message()));
    match status.code() {
        Code::Cancelled | Code::DeadlineExceeded | Code::Aborted | Code::OutOfRange | Code::Unavailable | Code::DataLoss => {
            Outcome::Later { after, why }
        }
        Code::ResourceExhausted if after.is_some() => Outcome::Later { after, why },
        _ => Outcome::Refused { why },
    }
}

/// Seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse::<u64>() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(text).ok().map(|date| date.duration_since(now).unwrap_or_default()),
    }
}

/// An error with its causes.
fn words(error: &(dyn Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !words.contains(&text) {
            words = format!("{words}: {text}");
        }
        next = cause.source();
    }
    short(&words)
}

fn short(text: &str) -> String {
    let text = crate::serve::render::clean(text);
    text.chars().take(MAX_WORDS).collect()
}

fn tls(endpoint: &Endpoint, ca: Option<&Path>) -> Result<ClientConfig, ClientError> {
    let failed = |error: &dyn std::fmt::Display| ClientError::Tls(error.to_string());
    // Named here, so that what else is linked into the program has no say in it.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(|error| failed(&error))?;
    let builder = match ca {
        Some(path) => builder.with_root_certificates(roots(path)?),
        // Whatever certificates the machine has are not asked for.
        None if endpoint.is_plain() => builder.with_root_certificates(RootCertStore::empty()),
        None => builder.with_native_roots().map_err(|error| failed(&error))?,
    };
    Ok(builder.with_no_client_auth())
}

fn roots(path: &Path) -> Result<RootCertStore, ClientError> {
    let failed = |why: &dyn std::fmt::Display| ClientError::File { file: path.display().to_string(), why: why.to_string() };
    let text = std::fs::read(path).map_err(|error| failed(&error))?;
    let certificates = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>().map_err(|error| failed(&error))?;
    if certificates.is_empty() {
        return Err(failed(&"there is no certificate in it (PEM, -----BEGIN CERTIFICATE-----)"));
    }
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(|error| failed(&error))?;
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    fn is_later(status: &Status) -> Option<Option<Duration>> {
        match of_status(status) {
            Outcome::Later { after, .. } => Some(after),
            _ => None,
        }
    }

    #[test]
    fn statuses_are_tried_again_as_the_specification_lists_them() {
        let again = [1, 4, 10, 11, 14, 15].map(Code::from_i32);
        for code in (1..=16).map(Code::from_i32) {
            assert_eq!(is_later(&Status::new(code, "x")).is_some(), again.contains(&code), "{code:?}");
        }
        let wait = Duration::from_secs(7);
        let full = Status::with_error_details(Code::ResourceExhausted, "full", ErrorDetails::with_retry_info(Some(wait)));
        assert_eq!(is_later(&full), Some(Some(wait)));
    }

    #[test]
    fn a_receiver_may_ask_for_a_time() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let of = |text: &str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(text).unwrap())]);
            retry_after(&headers, now)
        };
        assert_eq!(of("12"), Some(Duration::from_secs(12)));
        assert_eq!(of("Tue, 14 Nov 2023 22:13:50 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(of("Tue, 14 Nov 2000 22:13:50 GMT"), Some(Duration::ZERO));
        assert_eq!((of("soon"), of("-1")), (None, None));
    }
}
