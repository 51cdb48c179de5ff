//! Tenant mode: who asks, and which namespaces they may read.
//!
//! A caller has a bearer token whose audience is this program. The API server says whose it is (TokenReview) and whether they may `get` the
//! `pods` of a namespace (SubjectAccessReview). Answers are kept for some seconds; what cannot be asked is not allowed.

mod cache;
mod reviews;
mod withhold;

use std::collections::BTreeSet;
use std::fmt;
use std::hash::RandomState;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ring::digest::{SHA256, digest};
use tokio::sync::Semaphore;
use tokio::time::timeout;

pub use self::reviews::{KubeReviews, ReviewError, Reviews, User};

use self::cache::Cache;
use self::withhold::{Amended, Sight};
use super::{Level, Observation};
use crate::diagnose::Denial;
use crate::flow::FoldId;

/// What a token must be for.
pub const AUDIENCE: &str = "netpol-observer";

/// How long an answer of the API server is good for.
const KEPT_FOR: Duration = Duration::from_secs(10);
/// Answers kept, of each kind.
const KEPT: usize = 4096;
/// Questions to the API server at once.
const AT_ONCE: usize = 8;
/// The API server has this long.
const PATIENCE: Duration = Duration::from_secs(5);
/// What callers are told.
pub(super) const NO_TOKEN: &str = "a bearer token is needed";
const NOT_VALID: &str = "the token is not valid, has expired, or is not for this program";
/// Longest token.
const MAX_TOKEN: usize = 8 * 1024;

type Hash = [u8; 32];

/// A user, and the namespace that they want to read, or all.
type Access = (Hash, Option<Arc<str>>);

/// Checks callers.
pub struct Tenants {
    reviews: Box<dyn Reviews>,
    node: Arc<str>,
    tokens: Mutex<Cache<Hash, Option<Arc<User>>>>,
    access: Mutex<Cache<Access, bool>>,
    pages: Mutex<Cache<Hash, Result<bool, &'static str>>>,
    asking: Semaphore,
    ids: RandomState,
    kept_for: Duration,
}

/// Why a caller is not let in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Nobody, or nobody that is known: 401.
    Unknown(&'static str),
    /// It cannot be told: 503.
    CannotTell(String),
}

/// A bearer token. Its text is shown to nobody but the API server.
#[derive(Clone)]
struct Token(Arc<str>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// A caller and what they may see.
#[derive(Clone)]
pub(super) struct TenantScope {
    tenants: Arc<Tenants>,
    token: Token,
    user: Arc<User>,
    /// They may read the pods of all namespaces.
    everything: bool,
}

impl Tenants {
    /// Asks `reviews`. `node` is the name of the node that the agent is on.
    pub fn new(reviews: Box<dyn Reviews>, node: &str) -> Self {
        Tenants {
            reviews,
            node: node.into(),
            tokens: Mutex::new(Cache::new(KEPT)),
            access: Mutex::new(Cache::new(KEPT)),
            pages: Mutex::new(Cache::new(KEPT)),
            asking: Semaphore::new(AT_ONCE),
            ids: RandomState::new(),
            kept_for: KEPT_FOR,
        }
    }

    /// Keeps answers of the API server for another time than by default.
    #[must_use]
    pub fn keeping_answers_for(self, kept_for: Duration) -> Self {
        Tenants { kept_for, ..self }
    }

    /// Who has this token, and what they may see.
    pub(super) async fn scope(self: &Arc<Self>, token: &str) -> Result<TenantScope, Refused> {
        if token.is_empty() || token.len() > MAX_TOKEN {
            return Err(Refused::Unknown(NO_TOKEN));
        }
        let token = Token(token.into());
        let user = self.user(&token).await?;
        let everything = self.may_read(&user, None).await.map_err(Refused::CannotTell)?;
        Ok(TenantScope { tenants: Arc::clone(self), token, user, everything })
    }

    /// Whether whoever has this token may `get` a page that is no resource, such as `/metrics`. A token for this program is as good here as one for the API
    /// server, which is what the Secret of a ServiceAccount holds.
    pub(super) async fn may_get(&self, token: &str, path: &'static str) -> Result<bool, Refused> {
        if token.is_empty() || token.len() > MAX_TOKEN {
            return Err(Refused::Unknown(NO_TOKEN));
        }
        let key = hash(format!("{path}\0{token}").as_bytes());
        if let Some(known) = lock(&self.pages).get(&key, Instant::now()) {
            return known.map_err(Refused::Unknown);
        }
        let known = match self.anybody(token).await.map_err(Refused::CannotTell)? {
            Some(user) => Ok(self.ask(self.reviews.may_get_path(&user, path)).await.map_err(Refused::CannotTell)?),
            None => Err(NOT_VALID),
        };
        lock(&self.pages).insert(key, known, Instant::now(), self.kept_for);
        known.map_err(Refused::Unknown)
    }

    /// Whose a token is, for whichever of the two it is.
    async fn anybody(&self, token: &str) -> Result<Option<User>, String> {
        match self.ask(self.reviews.user(token, Some(AUDIENCE))).await? {
            None => self.ask(self.reviews.user(token, None)).await,
            user => Ok(user),
        }
    }

    async fn user(&self, token: &Token) -> Result<Arc<User>, Refused> {
        let key = hash(token.0.as_bytes());
        let refused = Refused::Unknown(NOT_VALID);
        if let Some(known) = lock(&self.tokens).get(&key, Instant::now()) {
            return known.ok_or(refused);
        }
        let found = self.ask(self.reviews.user(&token.0, Some(AUDIENCE))).await.map_err(Refused::CannotTell)?.map(Arc::new);
        lock(&self.tokens).insert(key, found.clone(), Instant::now(), self.kept_for);
        found.ok_or(refused)
    }

    /// Whether a user may read the pods of a namespace, or of all.
    async fn may_read(&self, user: &User, namespace: Option<&Arc<str>>) -> Result<bool, String> {
        let key = (user.hash(), namespace.cloned());
        if let Some(known) = lock(&self.access).get(&key, Instant::now()) {
            return Ok(known);
        }
        let allowed = self.ask(self.reviews.may_get_pods(user, namespace.map(|namespace| &**namespace))).await?;
        lock(&self.access).insert(key, allowed, Instant::now(), self.kept_for);
        Ok(allowed)
    }

    async fn ask<T>(&self, question: impl Future<Output = Result<T, ReviewError>>) -> Result<T, String> {
        // Never closed.
        let _asking = self.asking.acquire().await.map_err(|error| error.to_string())?;
        let answer = timeout(PATIENCE, question).await;
        let answer = answer.unwrap_or_else(|_| Err(ReviewError::new(format!("no answer within {} s", PATIENCE.as_secs()))));
        answer.map_err(|error| {
            tracing::warn!("the API server cannot be asked about a caller: {error}");
            error.to_string()
        })
    }
}

impl TenantScope {
    /// Whether they may see everything.
    pub(super) fn is_everything(&self) -> bool {
        self.everything
    }

    /// Whether the token is still good, and still lets them see as much as when they came.
    ///
    /// # Errors
    /// Why not, for the reader.
    pub(super) async fn check(&self) -> Result<(), String> {
        match self.tenants.user(&self.token).await {
            Ok(user) if user.hash() == self.user.hash() => {}
            Ok(_) => return Err("the token stands for somebody else now".to_owned()),
            Err(Refused::Unknown(why)) => return Err(why.to_owned()),
            Err(Refused::CannotTell(why)) => return Err(format!("the token cannot be checked: {why}")),
        }
        let everything = self.may_read(None).await?;
        if everything == self.everything { Ok(()) } else { Err("what you may read has changed: ask again".to_owned()) }
    }

    /// The observation as they may see it. `knows` tells whether repeats under an id have a drop to go to.
    ///
    /// # Errors
    /// It cannot be told whether they may see it.
    pub(super) async fn admit(&self, observation: Observation, knows: impl Fn(FoldId) -> bool) -> Result<Option<Observation>, String> {
        if self.everything {
            return Ok(Some(observation));
        }
        match observation {
            Observation::Denial(denial) => {
                let readable = self.readable(withhold::namespaces(&denial)).await?;
                Ok(self.sight(&|namespace| readable.contains(namespace)).of(&denial).map(|shown| Observation::Denial(Arc::new(shown))))
            }
            Observation::Amendment(amendment) => {
                let versions = amendment.earlier.iter().chain([&amendment.before, &amendment.denial]);
                let readable = self.readable(versions.flat_map(|denial| withhold::namespaces(denial))).await?;
                let amended = self.sight(&|namespace| readable.contains(namespace)).amendment(&amendment);
                Ok(match amended {
                    Amended::Nothing => None,
                    Amended::Shown(amendment) => Some(Observation::Amendment(Arc::from(amendment))),
                    Amended::New(denial) => Some(Observation::Denial(denial)),
                    Amended::NotTheirs => Some(Observation::Notice {
                        time: amendment.time(),
                        level: Level::Warning,
                        message: format!("the drop at {} is not yours: it was between others than was said", amendment.time()).into(),
                    }),
                })
            }
            Observation::PolicyChange(effect) => {
                let readable = self.readable(withhold::namespace_of_object(&effect.key)).await?;
                let shown = self.sight(&|namespace| readable.contains(namespace)).policy_change(&effect);
                Ok(shown.map(|effect| Observation::PolicyChange(Arc::new(effect))))
            }
            Observation::Repeat { id, count, last } => {
                let id = withhold::id(id, &self.tenants.ids);
                Ok(knows(id).then_some(Observation::Repeat { id, count, last }))
            }
            // Of the node as a whole.
            Observation::Undecodable | Observation::Ledger(_) | Observation::Notice { .. } => Ok(None),
        }
    }

    /// Those of the namespaces that they may read.
    async fn readable(&self, namespaces: impl IntoIterator<Item = Arc<str>>) -> Result<BTreeSet<Arc<str>>, String> {
        let mut readable = BTreeSet::new();
        for namespace in namespaces.into_iter().collect::<BTreeSet<_>>() {
            if self.may_read(Some(&namespace)).await? {
                readable.insert(namespace);
            }
        }
        Ok(readable)
    }

    fn sight<'a>(&'a self, may_read: &'a dyn Fn(&str) -> bool) -> Sight<'a> {
        Sight { may_read, node: &self.tenants.node, ids: &self.tenants.ids }
    }

    async fn may_read(&self, namespace: Option<&Arc<str>>) -> Result<bool, String> {
        self.tenants.may_read(&self.user, namespace).await.map_err(|why| format!("what you may read cannot be told: {why}"))
    }
}

/// A drop as those are shown it who may read the pods of one namespace and of no other; `None` when neither end is in it. `node` is the agent's.
pub fn seen_from(namespace: &str, node: &str, denial: &Denial) -> Option<Denial> {
    let may_read = |asked: &str| asked == namespace;
    // The id is made anew each time: nobody compares it.
    Sight { may_read: &may_read, node, ids: &RandomState::new() }.of(denial)
}

fn hash(bytes: &[u8]) -> Hash {
    let mut hash = Hash::default();
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
