use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::agent::testing::{denial, notice, repeat};

/// An API server by hand: users by token, readable namespaces, and whether it answers at all.
#[derive(Default)]
struct State {
    users: Mutex<Vec<(String, User)>>,
    readable: Mutex<BTreeSet<String>>,
    away: AtomicBool,
    asked: AtomicUsize,
}

#[derive(Clone)]
struct ByHand(Arc<State>);

impl Reviews for ByHand {
    fn user<'a>(
        &'a self,
        token: &'a str,
        audience: Option<&'a str>,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Option<User>, ReviewError>> + Send + 'a>> {
        Box::pin(async move {
            assert!(audience.is_none_or(|audience| audience == "netpol-observer"));
            self.0.asked.fetch_add(1, Ordering::Relaxed);
            if self.0.away.load(Ordering::Relaxed) {
                return Err(ReviewError::new("connection refused"));
            }
            // Those that begin so are for the API server.
            let is_asked_for = audience.is_some() != token.starts_with("api-");
            let users = self.0.users.lock().unwrap();
            Ok(users.iter().find(|(known, _)| known == token && is_asked_for).map(|(_, user)| user.clone()))
        })
    }

    fn may_get_path<'a>(
        &'a self,
        user: &'a User,
        path: &'a str,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<bool, ReviewError>> + Send + 'a>> {
        Box::pin(async move {
            self.0.asked.fetch_add(1, Ordering::Relaxed);
            Ok(path == "/metrics" && user.name == "prometheus")
        })
    }

    fn may_get_pods<'a>(
        &'a self,
        _user: &'a User,
        namespace: Option<&'a str>,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<bool, ReviewError>> + Send + 'a>> {
        Box::pin(async move {
            self.0.asked.fetch_add(1, Ordering::Relaxed);
            if self.0.away.load(Ordering::Relaxed) {
                return Err(ReviewError::new("connection refused"));
            }
            Ok(self.0.readable.lock().unwrap().contains(namespace.unwrap_or("*")))
        })
    }
}

fn state_of(readable: &[&str]) -> Arc<State> {
    let state = Arc::new(State::default());
    let user = User { name: "jane".to_owned(), ..User::default() };
    state.users.lock().unwrap().push(("good".to_owned(), user));
    state.readable.lock().unwrap().extend(readable.iter().map(|name| (*name).to_owned()));
    state
}

fn tenants(state: &Arc<State>, kept_for: Duration) -> Arc<Tenants> {
    Arc::new(Tenants::new(Box::new(ByHand(Arc::clone(state))), "node-2").keeping_answers_for(kept_for))
}

const LONG: Duration = Duration::from_secs(3600);

fn is_denial(observation: &Option<Observation>) -> bool {
    matches!(observation, Some(Observation::Denial(_)))
}

#[tokio::test]
async fn tokens_that_are_none() {
    let tenants = tenants(&state_of(&["shop"]), LONG);
    for token in ["", "bad", "good ", "Good", &"x".repeat(MAX_TOKEN + 1)] {
        assert!(matches!(tenants.scope(token).await.err(), Some(Refused::Unknown(_))), "{token:.20}");
    }
    assert!(tenants.scope("good").await.is_ok());
}

#[tokio::test]
async fn answers_are_kept_and_then_asked_for_again() {
    let state = state_of(&["shop"]);
    let keeping = tenants(&state, LONG);
    for _ in 0..10 {
        keeping.scope("good").await.unwrap();
        keeping.scope("bad").await.err().unwrap();
    }
    assert_eq!(state.asked.load(Ordering::Relaxed), 3, "two tokens and the access of one");
    let forgetting = tenants(&state, Duration::ZERO);
    let scope = forgetting.scope("good").await.unwrap();
    scope.check().await.unwrap();
    state.users.lock().unwrap().clear();
    assert!(scope.check().await.unwrap_err().contains("not valid"), "revoked");
}

#[tokio::test]
async fn what_cannot_be_asked_is_not_allowed() {
    let state = state_of(&["shop", "*"]);
    let tenants = tenants(&state, Duration::ZERO);
    let scope = tenants.scope("good").await.unwrap();
    assert!(scope.is_everything());
    state.away.store(true, Ordering::Relaxed);
    assert!(matches!(tenants.scope("good").await.err(), Some(Refused::CannotTell(_))));
    assert!(scope.check().await.unwrap_err().contains("cannot be checked"));
    state.away.store(false, Ordering::Relaxed);
    scope.check().await.unwrap();
    // Less than before: the stream ends rather than go on.
    state.readable.lock().unwrap().remove("*");
    assert!(scope.check().await.unwrap_err().contains("changed"));
    let scope = tenants.scope("good").await.unwrap();
    state.away.store(true, Ordering::Relaxed);
    assert!(scope.admit(denial(1, 1), |_| true).await.unwrap_err().contains("cannot be told"));
}

#[tokio::test]
async fn a_token_that_changes_hands_is_noticed() {
    let state = state_of(&["shop"]);
    let tenants = tenants(&state, Duration::ZERO);
    let scope = tenants.scope("good").await.unwrap();
    state.users.lock().unwrap()[0].1.groups.push("more".to_owned());
    assert!(scope.check().await.unwrap_err().contains("somebody else"));
}

#[tokio::test]
async fn only_what_is_theirs_gets_through() {
    let state = state_of(&["shop"]);
    let scope = tenants(&state, LONG).scope("good").await.unwrap();
    assert!(is_denial(&scope.admit(denial(1, 1), |_| true).await.unwrap()));
    let Some(Observation::Denial(shown)) = scope.admit(denial(1, 1), |_| true).await.unwrap() else { panic!() };
    // Repeats go under the id that the tenant was given, and only when they were given it.
    let known = |id| id == shown.event.id;
    let Some(Observation::Repeat { id, count: 4, .. }) = scope.admit(repeat(1, 4, 2), known).await.unwrap() else { panic!() };
    assert_eq!(id, shown.event.id);
    assert!(scope.admit(repeat(2, 4, 2), known).await.unwrap().is_none());
    for of_the_node in [Observation::Undecodable, Observation::Ledger(Default::default()), notice("of all", 1)] {
        assert!(scope.admit(of_the_node, |_| true).await.unwrap().is_none());
    }
    let nothing = tenants(&state_of(&["other"]), LONG).scope("good").await.unwrap();
    assert!(nothing.admit(denial(1, 1), |_| true).await.unwrap().is_none());
    let everything = tenants(&state_of(&["*"]), LONG).scope("good").await.unwrap();
    let Some(Observation::Denial(whole)) = everything.admit(denial(1, 1), |_| true).await.unwrap() else { panic!() };
    assert_eq!(whole.event.id, FoldId(1), "nothing is withheld from those who may read all");
    assert!(everything.admit(Observation::Undecodable, |_| true).await.unwrap().is_some());
}

#[tokio::test]
async fn a_page_is_for_those_who_may_get_its_path() {
    let state = state_of(&[]);
    let prometheus = User { name: "prometheus".to_owned(), ..User::default() };
    for token in ["scraper", "api-scraper"] {
        state.users.lock().unwrap().push((token.to_owned(), prometheus.clone()));
    }
    let tenants = tenants(&state, LONG);
    for token in ["scraper", "api-scraper"] {
        assert_eq!(tenants.may_get(token, "/metrics").await, Ok(true));
        assert_eq!(tenants.may_get(token, "/other").await, Ok(false));
    }
    assert_eq!(tenants.may_get("good", "/metrics").await, Ok(false));
    for token in ["", "bad", "api-bad"] {
        assert!(matches!(tenants.may_get(token, "/metrics").await, Err(Refused::Unknown(_))), "{token}");
    }
    let asked = state.asked.load(Ordering::Relaxed);
    assert_eq!(tenants.may_get("scraper", "/metrics").await, Ok(true));
    assert_eq!(state.asked.load(Ordering::Relaxed), asked, "the answer is kept");
    state.away.store(true, Ordering::Relaxed);
    assert!(matches!(tenants.may_get("another", "/metrics").await, Err(Refused::CannotTell(_))));
    // A token for the API server opens nothing else.
    assert!(matches!(tenants.scope("api-scraper").await.err(), Some(Refused::CannotTell(_) | Refused::Unknown(_))));
}

#[test]
fn tokens_do_not_show() {
    assert_eq!(format!("{:?}", Token("abc".into())), "Token(…)");
}
