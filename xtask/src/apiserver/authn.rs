//! Who asks: bearer tokens of users and of ServiceAccounts.

use std::collections::{BTreeMap, HashMap};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::status::{Cause, Refusal};
use super::store::{Key, Store};
use super::write::{seconds, uid};

/// The audience of the API server itself.
pub const API_AUDIENCE: &str = "https://kubernetes.default.svc.cluster.local";

/// Who a request is from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// `alice`, `system:serviceaccount:NAMESPACE:NAME`.
    pub name: String,
    /// UID, when there is one.
    pub uid: String,
    /// Groups, `system:authenticated` among them.
    pub groups: Vec<String>,
    /// `extra` of reviews: what authenticators add.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// A user of a static token file.
    pub fn new(name: &str, groups: &[&str]) -> User {
        let groups = groups.iter().copied().chain(["system:authenticated"]).map(str::to_owned).collect();
        User { name: name.to_owned(), groups, ..User::default() }
    }

    /// Who asks without a token.
    pub fn anonymous() -> User {
        User { name: "system:anonymous".to_owned(), groups: vec!["system:unauthenticated".to_owned()], ..User::default() }
    }

    /// The user that a ServiceAccount's tokens stand for.
    pub fn service_account(namespace: &str, name: &str) -> User {
        User {
            name: format!("system:serviceaccount:{namespace}:{name}"),
            groups: vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{namespace}"),
                "system:authenticated".to_owned(),
            ],
            ..User::default()
        }
    }

    /// `UserInfo` of reviews.
    pub fn info(&self) -> Value {
        let mut info = json!({"username": self.name, "groups": self.groups});
        if !self.uid.is_empty() {
            info["uid"] = self.uid.as_str().into();
        }
        if !self.extra.is_empty() {
            info["extra"] = json!(self.extra);
        }
        info
    }
}

#[derive(Debug)]
struct Account {
    namespace: String,
    name: String,
    uid: String,
    audiences: Vec<String>,
    expires: Timestamp,
    /// The token ends with this pod.
    pod: Option<(String, String)>,
}

/// All tokens a server knows.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    users: HashMap<String, User>,
    accounts: HashMap<String, Account>,
}

/// Why a token is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    /// No authenticator knows it, it has expired, or its object is gone.
    Token(String),
    /// It is for others.
    Audience(String),
}

impl Tokens {
    /// A static token.
    pub(super) fn add(&mut self, token: &str, user: User) {
        self.users.insert(token.to_owned(), user);
    }

    /// The token of a static user.
    pub(super) fn of_user(&self, name: &str) -> Option<&str> {
        self.users.iter().find(|(_, user)| user.name == name).map(|(token, _)| token.as_str())
    }

    /// Forgets a token: it is refused with 401 from now on.
    pub(super) fn revoke(&mut self, token: &str) {
        self.users.remove(token);
        self.accounts.remove(token);
    }

    /// Checks a token for one of `audiences` (none: the API server's). The user, and those audiences it is for.
    pub(super) fn check(&self, store: &Store, token: &str, audiences: &[String], now: Timestamp) -> Result<(User, Vec<String>), Unknown> {
        let own = [API_AUDIENCE.to_owned()];
        let wanted = if audiences.is_empty() { &own[..] } else { audiences };
        let among = |valid: &[String]| wanted.iter().filter(|audience| valid.contains(audience)).cloned().collect::<Vec<_>>();
        if let Some(user) = self.users.get(token) {
            // Authenticators that know no audiences speak for the API server's.
            let for_us = among(&own);
            if for_us.is_empty() {
                return Err(Unknown::Audience("invalid bearer token".to_owned()));
            }
            return Ok((user.clone(), for_us));
        }
        let account = self.accounts.get(token).ok_or_else(|| Unknown::Token("invalid bearer token".to_owned()))?;
        if account.expires <= now {
            return Err(Unknown::Token("[invalid bearer token, service account token has expired]".to_owned()));
        }
        let for_us = among(&account.audiences);
        if for_us.is_empty() {
            let why =
                format!("[invalid bearer token, token audiences {:?} is invalid for the target audiences {wanted:?}]", account.audiences);
            return Err(Unknown::Audience(why));
        }
        let uid_of = |plural: &str, name: &str| {
            let key = Key(account.namespace.clone(), name.to_owned());
            store.table("", plural).and_then(|table| table.objects.get(&key)).map(|object| object.value()["metadata"]["uid"].clone())
        };
        if uid_of("serviceaccounts", &account.name).is_none_or(|uid| uid != account.uid.as_str()) {
            return Err(Unknown::Token("[invalid bearer token, service account token has been invalidated]".to_owned()));
        }
        let mut user = User { uid: account.uid.clone(), ..User::service_account(&account.namespace, &account.name) };
        if let Some((pod, pod_uid)) = &account.pod {
            if uid_of("pods", pod).is_none_or(|uid| uid != pod_uid.as_str()) {
                return Err(Unknown::Token("[invalid bearer token, service account token has been invalidated]".to_owned()));
            }
            user.extra.insert("authentication.kubernetes.io/pod-name".to_owned(), vec![pod.clone()]);
            user.extra.insert("authentication.kubernetes.io/pod-uid".to_owned(), vec![pod_uid.clone()]);
        }
        Ok((user, for_us))
    }

    /// Answers a TokenRequest of a ServiceAccount.
    pub(super) fn issue(&mut self, store: &Store, namespace: &str, name: &str, request: &Value, now: Timestamp) -> Result<Value, Refusal> {
        let find = |plural: &str, name: &str| {
            let key = Key(namespace.to_owned(), name.to_owned());
            let object = store.table("", plural).and_then(|table| table.objects.get(&key));
            object.map(|object| object.value()).ok_or_else(|| Refusal::not_found("", plural, name))
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let account_uid = text(&find("serviceaccounts", name)?["metadata"]["uid"]);
        let asked = request["spec"]["expirationSeconds"].as_u64().unwrap_or(3600);
        if !(600..=1 << 32).contains(&asked) {
            let why = if asked < 600 { "less than 10 minutes" } else { "larger than 2^32 seconds" };
            let message = format!("Invalid value: {asked}: may not specify a duration {why}");
            let cause = Cause { reason: "FieldValueInvalid", field: "spec.expirationSeconds".to_owned(), message };
            return Err(Refusal::invalid("authentication.k8s.io", "TokenRequest", "", &[cause]));
        }
        let bound = &request["spec"]["boundObjectRef"];
        let pod = match bound["kind"].as_str() {
            Some("Pod") => {
                let pod = find("pods", bound["name"].as_str().unwrap_or_default())?;
                if pod["spec"]["serviceAccountName"] != name {
                    let why = format!("cannot bind token for serviceaccount \"{name}\" to pod running with different serviceaccount name.");
                    return Err(Refusal::bad_request(why));
                }
                let (wanted, found) = (text(&bound["uid"]), text(&pod["metadata"]["uid"]));
                if !wanted.is_empty() && wanted != found {
                    let why = format!(
                        "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might have been \
                         deleted and then recreated"
                    );
                    return Err(Refusal::conflict("", "Pod", &text(&pod["metadata"]["name"]), &why));
                }
                Some((text(&pod["metadata"]["name"]), text(&pod["metadata"]["uid"])))
            }
            Some(kind) => return Err(Refusal::bad_request(format!("cannot bind token to object of type /v1, Kind={kind}"))),
            None => None,
        };
        let audiences = request["spec"]["audiences"].as_array().into_iter().flatten().map(text).collect::<Vec<_>>();
        let audiences = if audiences.is_empty() { vec![API_AUDIENCE.to_owned()] } else { audiences };
        let expires = now + jiff::SignedDuration::from_secs(asked.cast_signed());
        let token = self.add_account(
            Account { namespace: namespace.to_owned(), name: name.to_owned(), uid: account_uid.clone(), audiences, expires, pod },
            now,
        );
        let mut answer = request.clone();
        (answer["kind"], answer["apiVersion"]) = ("TokenRequest".into(), "authentication.k8s.io/v1".into());
        answer["metadata"] = json!({"name": name, "namespace": namespace, "uid": account_uid, "creationTimestamp": seconds(now)});
        answer["spec"]["expirationSeconds"] = asked.into();
        answer["spec"]["audiences"] = json!(self.accounts.get(&token).map(|account| &account.audiences));
        answer["status"] = json!({"token": token, "expirationTimestamp": seconds(expires)});
        Ok(answer)
    }

    /// A token that reads as a JWT, for clients that look at its expiry. It is looked up, not verified.
    fn add_account(&mut self, account: Account, now: Timestamp) -> String {
        let claims = json!({
            "aud": account.audiences, "exp": account.expires.as_second(), "iat": now.as_second(), "iss": API_AUDIENCE, "jti": uid(),
            "kubernetes.io": {"namespace": account.namespace, "serviceaccount": {"name": account.name, "uid": account.uid}},
            "sub": format!("system:serviceaccount:{}:{}", account.namespace, account.name),
        });
        let part = |text: String| URL_SAFE_NO_PAD.encode(text);
        let token = format!("{}.{}.{}", part(json!({"alg": "RS256", "kid": "test"}).to_string()), part(claims.to_string()), part(uid()));
        self.accounts.insert(token.clone(), account);
        token
    }
}
