//! What a request is about, read from its method and path alone, as the API server's RequestInfo.

use hyper::Method;

use super::options::truth;
use super::rbac::Attributes;

/// What a request is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Route {
    /// For the authorizer.
    pub(super) attributes: Attributes,
    /// `v1`; empty for what is no resource.
    pub(super) version: String,
}

impl Route {
    /// Reads a request. The name that a field selector asks for counts for lists and watches.
    pub(super) fn parse(method: &Method, path: &str, query: &str) -> Route {
        let parts: Vec<String> = path.split('/').filter(|part| !part.is_empty()).map(decode).collect();
        let mut parts = parts.iter().map(String::as_str).peekable();
        let mut route = Route::default();
        let head = parts.next().unwrap_or_default();
        let is_resource = match head {
            "api" => {
                route.version = parts.next().unwrap_or_default().to_owned();
                parts.peek().is_some()
            }
            "apis" => {
                route.attributes.group = parts.next().unwrap_or_default().to_owned();
                route.version = parts.next().unwrap_or_default().to_owned();
                parts.peek().is_some()
            }
            _ => false,
        };
        if !is_resource {
            let verb = method.as_str().to_lowercase();
            return Route { attributes: Attributes { verb, path: path.to_owned(), ..Attributes::default() }, version: String::new() };
        }
        let rest: Vec<&str> = parts.collect();
        let asked = &mut route.attributes;
        asked.path = path.to_owned();
        let rest = match rest.as_slice() {
            ["namespaces", namespace, "status" | "finalize", ..] => {
                asked.namespace = (*namespace).to_owned();
                &rest[..]
            }
            ["namespaces", namespace, after @ ..] => {
                asked.namespace = (*namespace).to_owned();
                if after.is_empty() { &rest[..] } else { &rest[2..] }
            }
            _ => &rest[..],
        };
        asked.resource = rest.first().copied().unwrap_or_default().to_owned();
        asked.name = rest.get(1).copied().unwrap_or_default().to_owned();
        asked.subresource = rest.get(2..).unwrap_or_default().join("/");
        let parameter =
            |wanted: &str| form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned());
        let collection = asked.name.is_empty();
        asked.verb = match (method.as_str(), collection) {
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            ("DELETE", true) => "deletecollection",
            ("DELETE", false) => "delete",
            ("GET" | "HEAD", false) => "get",
            ("GET" | "HEAD", true) if parameter("watch").is_some_and(|value| truth(&value)) => "watch",
            ("GET" | "HEAD", true) => "list",
            _ => "",
        }
        .to_owned();
        if collection
            && matches!(asked.verb.as_str(), "list" | "watch" | "deletecollection")
            && let Some(fields) = parameter("fieldSelector")
        {
            let name = fields.split(',').find_map(|term| term.strip_prefix("metadata.name="));
            asked.name = name.map(|name| name.trim_start_matches('=').to_owned()).unwrap_or_default();
        }
        route
    }

    /// What faults and counters call it: `pods`, `pods/portforward`, or the path of what is no resource.
    pub(super) fn shown(&self) -> String {
        if self.attributes.resource.is_empty() { self.attributes.path.clone() } else { self.attributes.combined() }
    }
}

/// Percent-decoded. Plus signs stay: they mean a space in queries only.
fn decode(part: &str) -> String {
    let part = part.replace('+', "%2B");
    form_urlencoded::parse(part.as_bytes()).next().map(|(name, _)| name.into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(method: Method, target: &str) -> (String, String, String, String) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let route = Route::parse(&method, path, query);
        (route.attributes.verb.clone(), route.shown(), route.attributes.namespace, route.attributes.name)
    }

    #[test]
    fn verbs_resources_namespaces_and_names() {
        for (method, target, expected) in [
            (Method::GET, "/api/v1/pods", ("list", "pods", "", "")),
            (Method::GET, "/api/v1/pods?watch=1", ("watch", "pods", "", "")),
            (Method::GET, "/api/v1/pods?watch=false", ("list", "pods", "", "")),
            (Method::GET, "/api/v1/pods?fieldSelector=metadata.name%3Dweb", ("list", "pods", "", "web")),
            (Method::GET, "/api/v1/namespaces/shop", ("get", "namespaces", "shop", "shop")),
            (Method::PUT, "/api/v1/namespaces/shop/status", ("update", "namespaces/status", "shop", "shop")),
            (Method::GET, "/api/v1/namespaces/shop/pods/web/portforward?ports=80", ("get", "pods/portforward", "shop", "web")),
            (
                Method::DELETE,
                "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies",
                ("deletecollection", "networkpolicies", "shop", ""),
            ),
            (Method::POST, "/apis/authentication.k8s.io/v1/tokenreviews", ("create", "tokenreviews", "", "")),
            (Method::GET, "/apis/networking.k8s.io/v1", ("get", "/apis/networking.k8s.io/v1", "", "")),
            (Method::GET, "/readyz", ("get", "/readyz", "", "")),
        ] {
            let (verb, shown, namespace, name) = parsed(method, target);
            assert_eq!((verb.as_str(), shown.as_str(), namespace.as_str(), name.as_str()), expected, "{target}");
        }
    }
}
