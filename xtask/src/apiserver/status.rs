//! What the API server answers when it refuses: `Status` objects with the codes, reasons and messages of apimachinery's `errors`.

use serde_json::{Value, json};

/// A refusal: the HTTP status and the fields of its `Status` body.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// HTTP status.
    pub code: u16,
    /// `reason`, as clients test it: `NotFound`, `Expired`, `Forbidden`, …
    pub reason: &'static str,
    /// `message`, for people.
    pub message: String,
    /// `details`, when the real server gives any.
    pub details: Option<Value>,
    /// `metadata.continue` of an expired list: a token for the rest of it, inconsistent with what was read before.
    pub continue_token: Option<String>,
    /// The header `Retry-After`, in seconds.
    pub retry_after: Option<u32>,
}

impl Refusal {
    /// A refusal without details.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Refusal {
        Refusal { code, reason, message: message.into(), details: None, continue_token: None, retry_after: None }
    }

    fn with_details(mut self, details: Value) -> Refusal {
        self.details = Some(details);
        self
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Refusal {
        Refusal::new(400, "BadRequest", message)
    }

    /// 401: no token, or one that no authenticator knows.
    pub fn unauthorized() -> Refusal {
        Refusal::new(401, "Unauthorized", "Unauthorized")
    }

    /// 404 for an object of a resource (`pods`, or `networkpolicies.networking.k8s.io`).
    pub fn not_found(group: &str, plural: &str, name: &str) -> Refusal {
        Refusal::new(404, "NotFound", format!("{} \"{name}\" not found", qualified(plural, group)))
            .with_details(details(name, group, plural))
    }

    /// 404 for a resource or subresource that a group does not have.
    pub fn no_such_resource() -> Refusal {
        Refusal::new(404, "NotFound", "the server could not find the requested resource").with_details(json!({}))
    }

    /// 405.
    pub fn method_not_allowed() -> Refusal {
        Refusal::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource").with_details(json!({}))
    }

    /// 406: none of the media types in `Accept`.
    pub fn not_acceptable() -> Refusal {
        let message = "only the following media types are accepted: application/json";
        Refusal::new(406, "NotAcceptable", message)
    }

    /// 415: the media type of the body.
    pub fn unsupported_media_type(accepted: &[&str]) -> Refusal {
        let message = format!("the body of the request was in an unknown format - accepted media types include: {}", accepted.join(", "));
        Refusal::new(415, "UnsupportedMediaType", message)
    }

    /// 409 for a name that is taken.
    pub fn already_exists(group: &str, plural: &str, name: &str) -> Refusal {
        Refusal::new(409, "AlreadyExists", format!("{} \"{name}\" already exists", qualified(plural, group)))
            .with_details(details(name, group, plural))
    }

    /// 409 for a write that knew an older object.
    pub fn conflict(group: &str, plural: &str, name: &str, why: &str) -> Refusal {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", qualified(plural, group));
        Refusal::new(409, "Conflict", message).with_details(details(name, group, plural))
    }

    /// 422: fields that validation refuses. Each cause is `path`, reason (`FieldValueRequired`, …) and message.
    pub fn invalid(group: &str, kind: &str, name: &str, causes: &[Cause]) -> Refusal {
        let mut shown: Vec<_> = causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        // The message says nothing twice, the causes may.
        let mut said = std::collections::BTreeSet::new();
        shown.retain(|text| said.insert(text.clone()));
        let shown = if let [one] = shown.as_slice() { one.clone() } else { format!("[{}]", shown.join(", ")) };
        let mut details = details(name, group, kind);
        details["causes"] =
            causes.iter().map(|cause| json!({"reason": cause.reason, "message": cause.message, "field": cause.field})).collect();
        Refusal::new(422, "Invalid", format!("{} \"{name}\" is invalid: {shown}", qualified(kind, group))).with_details(details)
    }

    /// 403 with the authorizer's message.
    pub fn forbidden(group: &str, plural: &str, name: &str, why: &str) -> Refusal {
        let resource = qualified(plural, group);
        let message = match (plural, name) {
            ("", _) => format!("forbidden: {why}"),
            (_, "") => format!("{resource} is forbidden: {why}"),
            _ => format!("{resource} \"{name}\" is forbidden: {why}"),
        };
        Refusal::new(403, "Forbidden", message).with_details(if plural.is_empty() { json!({}) } else { details(name, group, plural) })
    }

    /// With the cause by which clients know that a namespace is being deleted.
    #[must_use]
    pub fn of_terminating(mut self, namespace: &str) -> Refusal {
        let cause = json!({
            "reason": "NamespaceTerminating", "message": format!("namespace {namespace} is being terminated"), "field": "metadata.namespace",
        });
        self.details.get_or_insert_with(|| json!({}))["causes"] = json!([cause]);
        self
    }

    /// 410: the history does not reach back that far.
    pub fn expired(message: impl Into<String>) -> Refusal {
        Refusal::new(410, "Expired", message)
    }

    /// 504: a resourceVersion that this server has not reached.
    pub fn too_large_resource_version(asked: u64, current: u64, retry_after: Option<u32>) -> Refusal {
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        let mut details = json!({"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]});
        if let Some(seconds) = retry_after {
            details["retryAfterSeconds"] = seconds.into();
        }
        let mut refusal = Refusal::new(504, "Timeout", message).with_details(details);
        refusal.retry_after = retry_after;
        refusal
    }

    /// 500: a get or watch from a revision that is no number. Only lists have a refusal of their own for it.
    pub fn unreadable_revision(cause: &Cause) -> Refusal {
        Refusal::new(500, "", format!("{}: {}", cause.field, cause.message))
    }

    /// 500.
    pub fn internal(why: impl std::fmt::Display) -> Refusal {
        Refusal::new(500, "InternalError", format!("Internal error occurred: {why}"))
            .with_details(json!({"causes": [{"message": why.to_string()}]}))
    }

    /// 503.
    pub fn unavailable() -> Refusal {
        Refusal::new(503, "ServiceUnavailable", "the server is currently unable to handle the request")
    }

    /// The `Status` object.
    pub fn body(&self) -> Value {
        let mut body = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code,
        });
        if !self.reason.is_empty() {
            body["reason"] = self.reason.into();
        }
        if let Some(details) = &self.details {
            body["details"] = details.clone();
        }
        if let Some(token) = &self.continue_token {
            body["metadata"]["continue"] = token.as_str().into();
        }
        body
    }
}

/// One field that validation refuses.
#[derive(Clone, Debug, PartialEq)]
pub struct Cause {
    /// `FieldValueRequired`, `FieldValueInvalid`, `FieldValueForbidden`, `FieldValueNotSupported`.
    pub reason: &'static str,
    /// Path of the field.
    pub field: String,
    /// What is wrong, as field errors print it: `Required value`, `Invalid value: "x": why`.
    pub message: String,
}

impl Cause {
    /// A field that may not be set in this request.
    pub fn forbidden(field: &str, why: impl std::fmt::Display) -> Cause {
        Cause { reason: "FieldValueForbidden", field: field.to_owned(), message: format!("Forbidden: {why}") }
    }

    /// A field that must be set.
    pub fn required(field: &str, why: &str) -> Cause {
        let message = if why.is_empty() { "Required value".to_owned() } else { format!("Required value: {why}") };
        Cause { reason: "FieldValueRequired", field: field.to_owned(), message }
    }

    /// A value that the field cannot have.
    pub fn invalid(field: &str, value: &str, why: impl std::fmt::Display) -> Cause {
        Cause { reason: "FieldValueInvalid", field: field.to_owned(), message: format!("Invalid value: \"{value}\": {why}") }
    }

    /// A value outside of a list.
    pub fn not_supported(field: &str, value: &str, supported: &[&str]) -> Cause {
        let supported: Vec<_> = supported.iter().map(|value| format!("\"{value}\"")).collect();
        let message = format!("Unsupported value: \"{value}\": supported values: {}", supported.join(", "));
        Cause { reason: "FieldValueNotSupported", field: field.to_owned(), message }
    }
}

/// `pods`, or `networkpolicies.networking.k8s.io`.
fn qualified(plural: &str, group: &str) -> String {
    if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") }
}

fn details(name: &str, group: &str, plural: &str) -> Value {
    let mut details = json!({});
    if !plural.is_empty() {
        details["kind"] = plural.into();
    }
    if !name.is_empty() {
        details["name"] = name.into();
    }
    if !group.is_empty() {
        details["group"] = group.into();
    }
    details
}
