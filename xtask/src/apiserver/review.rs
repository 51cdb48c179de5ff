//! TokenReview, SubjectAccessReview and what one asks about oneself.

use serde_json::{Value, json};

use super::authn::{Unknown, User};
use super::rbac::{self, Attributes};
use super::state::{State, lock};
use super::status::{Cause, Refusal};

/// Answers a review: the object that was sent, with a status.
pub(super) fn answer(state: &State, user: &User, plural: &str, mut review: Value) -> Result<Value, Refusal> {
    let kind = super::discovery::REVIEWS.iter().find(|(_, name, _)| *name == plural);
    let (group, _, kind) = kind.ok_or_else(Refusal::no_such_resource)?;
    let (sent, api_version) = (review["kind"].as_str().unwrap_or_default(), review["apiVersion"].as_str().unwrap_or_default());
    if !review.is_object() || ![*kind, ""].contains(&sent) || !["", &format!("{group}/v1")].contains(&api_version) {
        return Err(Refusal::bad_request(format!("{sent} in version \"{api_version}\" cannot be handled as a {kind}")));
    }
    let status = match plural {
        "tokenreviews" => token(state, &review["spec"])?,
        "selfsubjectreviews" => json!({"userInfo": user.info()}),
        "selfsubjectaccessreviews" => access(state, user, &review["spec"])?,
        _ => {
            let spec = &review["spec"];
            let strings = |value: &Value| value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
            let subject =
                User { name: spec["user"].as_str().unwrap_or_default().to_owned(), groups: strings(&spec["groups"]), ..User::default() };
            if subject.name.is_empty() && subject.groups.is_empty() {
                let mut causes = refused_attributes(spec);
                causes.push(Cause::invalid("spec.user", "", "at least one of user or group must be specified"));
                return Err(Refusal::invalid(group, "", "", &causes));
            }
            access(state, &subject, spec)?
        }
    };
    (review["kind"], review["apiVersion"]) = ((*kind).into(), format!("{group}/v1").into());
    if !review["metadata"].is_object() {
        review["metadata"] = json!({});
    }
    review["status"] = status;
    Ok(review)
}

fn token(state: &State, spec: &Value) -> Result<Value, Refusal> {
    let token = spec["token"].as_str().unwrap_or_default();
    if token.is_empty() {
        return Err(Refusal::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences: Vec<String> = spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    let now = state.now();
    let checked = lock(&state.tokens).check(&lock(&state.store), token, &audiences, now);
    Ok(match checked {
        Ok((user, audiences)) => json!({"authenticated": true, "user": user.info(), "audiences": audiences}),
        Err(Unknown::Token(why) | Unknown::Audience(why)) => json!({"user": {}, "error": why}),
    })
}

/// What is wrong with the attributes of a review: one kind of them is needed, and not both.
fn refused_attributes(spec: &Value) -> Vec<Cause> {
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let cause = |field: &str, message: String| vec![Cause { reason: "FieldValueInvalid", field: field.to_owned(), message }];
    match (resource.is_object(), path.is_object()) {
        (true, true) => {
            let shown = json!({"Path": path["path"].as_str().unwrap_or_default(), "Verb": path["verb"].as_str().unwrap_or_default()});
            let message = format!("Invalid value: {shown}: cannot be specified in combination with resourceAttributes");
            cause("spec.nonResourceAttributes", message)
        }
        (false, false) => {
            let message = "Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified".to_owned();
            cause("spec.resourceAttributes", message)
        }
        _ => Vec::new(),
    }
}

fn access(state: &State, user: &User, spec: &Value) -> Result<Value, Refusal> {
    let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let asked = match (resource.is_object(), path.is_object()) {
        (true, false) => Attributes {
            verb: text(resource, "verb"),
            group: text(resource, "group"),
            resource: text(resource, "resource"),
            subresource: text(resource, "subresource"),
            namespace: text(resource, "namespace"),
            name: text(resource, "name"),
            path: String::new(),
        },
        (false, true) => Attributes { verb: text(path, "verb"), path: text(path, "path"), ..Attributes::default() },
        _ => {
            // The kind is lost on the way: the message begins with the group.
            return Err(Refusal::invalid("authorization.k8s.io", "", "", &refused_attributes(spec)));
        }
    };
    let decision = decide(state, user, &asked);
    let mut status = json!({"allowed": decision.allowed});
    if !decision.reason.is_empty() {
        status["reason"] = decision.reason.into();
    }
    Ok(status)
}

/// What the authorizer of a server says.
pub(super) fn decide(state: &State, user: &User, asked: &Attributes) -> rbac::Decision {
    if state.options.rbac {
        rbac::authorize(&lock(&state.store), user, asked)
    } else {
        rbac::Decision { allowed: true, reason: String::new() }
    }
}
