//! Who may ask: in the default mode whoever reaches the loopback of the pod, but no web page; in tenant mode whoever has a token.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::Tenants;
use super::reply::{Reply, error};
use super::tenant::{NO_TOKEN, Refused, TenantScope};

/// Who is let in.
#[derive(Clone)]
pub enum Access {
    /// Whoever reaches the listener, by one of these names.
    Loopback(Arc<[String]>),
    /// Whoever has a token, which is checked.
    Tenant(Arc<Tenants>),
}

/// What a caller may see.
#[derive(Clone)]
pub(super) enum Scope {
    /// Everything.
    All,
    /// What their token lets them see.
    Tenant(TenantScope),
}

/// A caller without a good token waits this long for the answer, so that guessing costs the API server little.
const REFUSED_AFTER: Duration = Duration::from_millis(250);

/// The names that a listener on the loopback goes by: port-forward brings the name that the client used for its own end. `extra` are the
/// names of the pod.
pub fn loopback_names(extra: impl IntoIterator<Item = String>) -> Access {
    Access::Loopback(["localhost".to_owned()].into_iter().chain(extra).collect())
}

impl Access {
    /// Refuses what a web page in a browser near the listener may have sent. A page of another origin can send requests here, and one whose
    /// name was made to resolve to this address can read the answers too; the former shows by its `Origin` or `Sec-Fetch-Site`, the latter by
    /// the `Host`.
    pub(super) fn refuse_pages(&self, headers: &HeaderMap) -> Option<Reply> {
        let page =
            |why: &str| error(StatusCode::FORBIDDEN, &format!("{why}: this is no place for web pages; ask with observer tail, or curl"));
        if headers.contains_key(header::ORIGIN) {
            return Some(page("the request has an Origin"));
        }
        if headers.get("sec-fetch-site").is_some_and(|site| site != "none" && site != "same-origin") {
            return Some(page("the request comes from another site"));
        }
        let Access::Loopback(names) = self else { return None };
        let mut hosts = headers.get_all(header::HOST).iter();
        match (hosts.next().map(HeaderValue::to_str), hosts.next()) {
            (Some(Ok(host)), None) if is_own(host, names) => None,
            (None, _) => Some(error(StatusCode::BAD_REQUEST, "the request has no Host")),
            _ => Some(page("the Host is not this one")),
        }
    }

    /// Refuses those who may not see a page of the node as a whole.
    pub(super) async fn refuse_page(&self, headers: &HeaderMap, path: &'static str) -> Option<Reply> {
        let Access::Tenant(tenants) = self else { return None };
        let allowed = match bearer(headers) {
            Some(token) => tenants.may_get(token, path).await,
            None => Err(Refused::Unknown(NO_TOKEN)),
        };
        match allowed {
            Ok(true) => None,
            Ok(false) => {
                let message = format!("this takes a ClusterRole with nonResourceURLs [{path}] and verbs [get]");
                Some(error(StatusCode::FORBIDDEN, &message))
            }
            Err(refused) => Some(refuse(refused).await),
        }
    }

    /// Who asks.
    pub(super) async fn caller(&self, headers: &HeaderMap) -> Result<Scope, Reply> {
        let Access::Tenant(tenants) = self else { return Ok(Scope::All) };
        let scope = match bearer(headers) {
            Some(token) => tenants.scope(token).await,
            None => Err(Refused::Unknown(NO_TOKEN)),
        };
        match scope {
            Ok(scope) => Ok(Scope::Tenant(scope)),
            Err(refused) => Err(refuse(refused).await),
        }
    }
}

async fn refuse(refused: Refused) -> Reply {
    match refused {
        Refused::Unknown(why) => {
            tokio::time::sleep(REFUSED_AFTER).await;
            let message = format!("{why}: make one with kubectl create token ACCOUNT --audience {}", super::AUDIENCE);
            let mut reply = error(StatusCode::UNAUTHORIZED, &message);
            reply.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            reply
        }
        Refused::CannotTell(why) => error(StatusCode::SERVICE_UNAVAILABLE, &format!("the agent cannot check who you are: {why}")),
    }
}

impl Scope {
    /// Whether nothing is withheld.
    pub(super) fn is_everything(&self) -> bool {
        match self {
            Scope::All => true,
            Scope::Tenant(scope) => scope.is_everything(),
        }
    }
}

/// Exactly one `Authorization: Bearer …`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (all.next(), all.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Whether a `Host` is the loopback by any of its addresses, or one of the names.
fn is_own(host: &str, names: &[String]) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((name, port)) if is_port(port) => name,
            _ => return false,
        },
        None => match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            Some(_) => return false,
            None => host,
        },
    };
    match name.parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical().is_loopback() || names.iter().any(|own| own.parse() == Ok(ip)),
        Err(_) => names.iter().any(|own| own.eq_ignore_ascii_case(name)),
    }
}

/// Nothing, or `:` and digits.
fn is_port(text: &str) -> bool {
    text.is_empty() || text.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn hosts_that_are_this_one() {
        let names = ["localhost".to_owned(), "agent-x7k2p".to_owned(), "10.244.1.9".to_owned()];
        for host in [
            "localhost",
            "localhost:9470",
            "LOCALHOST:1",
            "127.0.0.1",
            "127.0.0.1:9470",
            "127.8.9.1:1",
            "[::1]:9470",
            "[::1]",
            "[::ffff:127.0.0.1]:1",
            "agent-x7k2p:9470",
            "10.244.1.9:9470",
        ] {
            assert!(is_own(host, &names), "{host}");
        }
        for host in [
            "",
            ":",
            ":9470",
            "evil.example",
            "evil.example:9470",
            "localhost.evil.example",
            "127.0.0.1.evil.example:9470",
            "127.0.0.1:9470.evil.example",
            "localhost:94x0",
            "10.0.0.1:9470",
            "[::1]evil",
            "[::1",
            "::1:9470x",
            "[fd00::1]:9470",
            "0.0.0.0",
            "2130706433",
            "0x7f.1",
            "user@localhost",
        ] {
            assert!(!is_own(host, &names), "{host}");
        }
    }

    #[test]
    fn pages_are_refused() {
        let access = loopback_names([]);
        let status = |pairs: &[(&'static str, &str)]| access.refuse_pages(&headers(pairs)).map(|reply| reply.status().as_u16());
        assert_eq!(status(&[("host", "localhost:9470")]), None);
        assert_eq!(status(&[("host", "localhost:9470"), ("sec-fetch-site", "none")]), None);
        assert_eq!(status(&[("host", "localhost:9470"), ("sec-fetch-site", "cross-site")]), Some(403));
        assert_eq!(status(&[("host", "localhost:9470"), ("origin", "http://localhost:9470")]), Some(403));
        assert_eq!(status(&[("host", "localhost:9470"), ("origin", "null")]), Some(403));
        assert_eq!(status(&[("host", "evil.example")]), Some(403));
        assert_eq!(status(&[("host", "localhost"), ("host", "evil.example")]), Some(403), "two hosts");
        assert_eq!(status(&[]), Some(400));
    }

    #[test]
    fn tokens_are_found() {
        let token = |value: &str| bearer(&headers(&[("authorization", value)])).map(str::to_owned);
        assert_eq!(token("Bearer abc"), Some("abc".into()));
        assert_eq!(token("bearer abc"), Some("abc".into()));
        for value in ["abc", "Basic abc", "Bearer", ""] {
            assert_eq!(token(value), None, "{value}");
        }
        let mut two = headers(&[("authorization", "Bearer a")]);
        two.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer b"));
        assert_eq!(bearer(&two), None);
    }
}
