//! The two questions to the API server.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::hash;

/// An answer that comes later.
type Later<'a, T> = Pin<Box<dyn Future<Output = Result<T, ReviewError>> + Send + 'a>>;

/// Who can say whose a token is, and what they may do.
pub trait Reviews: Send + Sync {
    /// Whose token it is, if it is valid and for this audience; without one, for the API server itself.
    fn user<'a>(&'a self, token: &'a str, audience: Option<&'a str>) -> Later<'a, Option<User>>;

    /// Whether the user may `get` the `pods` of a namespace, or of all.
    fn may_get_pods<'a>(&'a self, user: &'a User, namespace: Option<&'a str>) -> Later<'a, bool>;

    /// Whether the user may `get` a path that is no resource (`nonResourceURLs`).
    fn may_get_path<'a>(&'a self, user: &'a User, path: &'a str) -> Later<'a, bool>;
}

/// A user as the API server names them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct User {
    /// `system:serviceaccount:shop:debugger`
    #[serde(rename(deserialize = "username", serialize = "user"))]
    pub name: String,
    /// UID.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// What authenticators add.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// A hash over everything that access may depend on.
    pub(super) fn hash(&self) -> super::Hash {
        // Plain texts always serialise.
        hash(&serde_json::to_vec(self).unwrap_or_default())
    }
}

/// The API server could not be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReviewError(String);

impl ReviewError {
    /// Why. Must not hold the token.
    pub fn new(why: impl Into<String>) -> Self {
        ReviewError(why.into())
    }
}

impl fmt::Display for ReviewError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ReviewError {}

/// Asks a real API server.
pub struct KubeReviews {
    client: kube::Client,
}

impl KubeReviews {
    /// With the agent's own credentials, which need `create` on `tokenreviews` and `subjectaccessreviews`.
    pub fn new(client: kube::Client) -> Self {
        KubeReviews { client }
    }

    /// The status of a review. Answers are read here, not by the client, which logs what it cannot read: a TokenReview holds the token.
    async fn review(&self, path: &str, review: &Value) -> Result<Value, ReviewError> {
        let request = http::Request::post(path)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(review.to_string().into_bytes())
            .map_err(|error| ReviewError::new(error.to_string()))?;
        let text = self.client.request_text(request).await.map_err(|error| match error {
            kube::Error::Api(status) if status.code == 403 => {
                ReviewError::new(format!("{} (the agent needs the role system:auth-delegator)", status.message))
            }
            kube::Error::Api(status) => ReviewError::new(format!("the API server answered {} {}", status.code, status.reason)),
            error => ReviewError::new(error.to_string()),
        })?;
        let mut answer: Value =
            serde_json::from_str(&text).map_err(|_| ReviewError::new("the API server's answer to a review is no JSON"))?;
        Ok(answer["status"].take())
    }

    async fn allows(&self, user: &User, kind: &str, attributes: Value) -> Result<bool, ReviewError> {
        let mut spec = serde_json::to_value(user).map_err(|error| ReviewError::new(error.to_string()))?;
        spec[kind] = attributes;
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec});
        let status = self.review("/apis/authorization.k8s.io/v1/subjectaccessreviews", &review).await?;
        Ok(status["allowed"] == true && status["denied"] != true)
    }
}

impl Reviews for KubeReviews {
    fn user<'a>(&'a self, token: &'a str, audience: Option<&'a str>) -> Later<'a, Option<User>> {
        Box::pin(async move {
            let mut review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
            if let Some(audience) = audience {
                review["spec"]["audiences"] = json!([audience]);
            }
            let status = self.review("/apis/authentication.k8s.io/v1/tokenreviews", &review).await?;
            Ok(authenticated(&status, audience))
        })
    }

    fn may_get_pods<'a>(&'a self, user: &'a User, namespace: Option<&'a str>) -> Later<'a, bool> {
        // No namespace stands for all of them.
        let attributes = json!({"verb": "get", "version": "v1", "resource": "pods", "namespace": namespace.unwrap_or_default()});
        Box::pin(self.allows(user, "resourceAttributes", attributes))
    }

    fn may_get_path<'a>(&'a self, user: &'a User, path: &'a str) -> Later<'a, bool> {
        Box::pin(self.allows(user, "nonResourceAttributes", json!({"verb": "get", "path": path})))
    }
}

/// The user, when the status says that the token is valid, and for this audience: an API server that knows no audiences says nothing of
/// them, and then the token may be one for the API server itself.
fn authenticated(status: &Value, audience: Option<&str>) -> Option<User> {
    let names = |audience| status["audiences"].as_array().is_some_and(|audiences| audiences.iter().any(|known| known == audience));
    let is_for_us = audience.is_none_or(names);
    if status["authenticated"] != true || !is_for_us || status.get("error").is_some_and(|error| error.as_str() != Some("")) {
        return None;
    }
    let user: User = serde_json::from_value(status["user"].clone()).ok()?;
    (!user.name.is_empty()).then_some(user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_valid_token_for_this_audience_is_somebody() {
        let user = json!({"username": "jane", "groups": ["dev"]});
        let good = json!({"authenticated": true, "audiences": ["other", "netpol-observer"], "user": user});
        assert_eq!(authenticated(&good, Some("netpol-observer")).map(|user| user.name), Some("jane".to_owned()));
        for (field, value) in [
            ("authenticated", json!(false)),
            ("authenticated", json!("true")),
            ("authenticated", Value::Null),
            ("audiences", json!([])),
            ("audiences", json!(["netpol-observer2"])),
            ("audiences", json!("netpol-observer")),
            ("audiences", Value::Null),
            ("user", json!({})),
            ("user", json!({"username": ""})),
            ("user", Value::Null),
            ("error", json!("token lookup failed")),
        ] {
            let mut bad = good.clone();
            bad[field] = value.clone();
            assert_eq!(authenticated(&bad, Some("netpol-observer")), None, "{field}: {value}");
            assert_eq!(authenticated(&bad, None).is_some(), field == "audiences", "{field}: {value}");
        }
    }

    #[test]
    fn users_that_differ_have_different_hashes() {
        let user = |name: &str, groups: &[&str]| User {
            name: name.to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            ..User::default()
        };
        let users = [user("a", &[]), user("a", &["b"]), user("a", &["b", "c"]), user("ab", &["c"]), user("", &["a"])];
        for (one, user) in users.iter().enumerate() {
            for (other, another) in users.iter().enumerate() {
                assert_eq!(user.hash() == another.hash(), one == other);
            }
        }
    }
}
