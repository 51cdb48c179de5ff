//! The engine: the objects, and what is worked out from them once instead of for every question.

use std::net::IpAddr;
use std::sync::Arc;

use crate::cluster::{Direction, Index, Object, ObjectKey};
use crate::flow::Protocol;
use crate::identify::{Identity, Party, party};

use super::compiled::{At, Change, Compiled, Reachability, Turn, Work};
use super::connection::{Case, Connection, Profile};
use super::difference::Ruling;
use super::evaluate::{Changed, View};
use super::explain;
use super::explanation::{Explanation, Verdict};
use super::fix::Kept;

/// Answers whether connections are admitted, and why. Objects come and go through [`apply`](Engine::apply),
/// [`delete`](Engine::delete) and [`reset`](Engine::reset); after each the answers are those of an engine built afresh.
#[derive(Clone, Debug)]
pub struct Engine {
    index: Index,
    profile: Profile,
    compiled: Compiled,
    kept: Kept,
}

impl Default for Engine {
    fn default() -> Self {
        Engine::new(Profile::default())
    }
}

impl Engine {
    /// An engine that knows no object yet.
    pub fn new(profile: Profile) -> Self {
        Engine::over(Index::default(), profile)
    }

    /// An engine over the objects of an index.
    pub fn over(index: Index, profile: Profile) -> Self {
        let compiled = Compiled::build(&index, &profile);
        Engine { index, profile, compiled, kept: Kept::default() }
    }

    /// The objects.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// How it decides what the API leaves open.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Inserts the object, or replaces the one of the same kind, namespace and name. Works out anew only what it touches.
    pub fn apply(&mut self, object: impl Into<Object>) {
        let object = object.into();
        let key = object.key();
        let before = self.index.object(&key);
        // Given away, not cloned: the index lets an object that nobody else holds use the texts that it has already.
        self.index.apply(object);
        let now = self.index.object(&key);
        self.compiled.replaced(before.as_ref(), now.as_ref(), &self.index, &self.profile);
        self.tidy();
        self.kept = Kept::default();
    }

    /// Removes an object; nothing happens when it is not there.
    pub fn delete(&mut self, key: &ObjectKey) {
        let Some(before) = self.index.object(key) else { return };
        self.index.delete(key);
        self.compiled.replaced(Some(&before), None, &self.index, &self.profile);
        self.tidy();
        self.kept = Kept::default();
    }

    /// Makes an object what is given.
    pub(super) fn put(&mut self, key: &ObjectKey, object: Option<Object>) {
        match object {
            Some(object) => self.apply(object),
            None => self.delete(key),
        }
    }

    /// Makes changes, and finds the verdicts that turn by them, unless that is too much work. Also returns the objects of before.
    pub(super) fn compare(&mut self, changes: &[Change], work: &mut Work) -> (Index, Option<Vec<Turn>>) {
        let index = self.index.clone();
        self.compiled.expect(changes.iter().filter_map(|(_, after)| after.as_ref()), &index, &self.profile);
        let before = self.compiled.before(changes, &index, &self.profile, work);
        for (before, after) in changes {
            match (before, after) {
                (_, Some(object)) => self.index.apply(object.clone()),
                (Some(object), None) => self.index.delete(&object.key()),
                (None, None) => continue,
            }
            self.compiled.replaced(before.as_ref(), after.as_ref(), &self.index, &self.profile);
        }
        self.kept = Kept::default();
        let turns = before.and_then(|before| self.compiled.turns(&before, &self.index, &self.profile, work));
        (index, turns)
    }

    /// Lets go what nobody asks for any more.
    pub(super) fn tidy(&mut self) {
        self.compiled.tidy(&self.index, &self.profile);
    }

    /// What is worked out from the objects.
    pub(super) fn compiled(&self) -> &Compiled {
        &self.compiled
    }

    /// Forgets everything and takes these objects instead.
    pub fn reset(&mut self, objects: impl IntoIterator<Item = Object>) {
        self.index.reset(objects);
        self.compiled = Compiled::build(&self.index, &self.profile);
        self.kept = Kept::default();
    }

    /// Whether a new connection would be admitted.
    pub fn verdict(&self, connection: &Connection) -> Verdict {
        if let Some(verdict) = self.short(connection) {
            return verdict;
        }
        match (&connection.destination.identity, &connection.service) {
            (Identity::Service(_), Some(call)) => {
                let of = |&(ip, port): &(IpAddr, u16)| {
                    let backend = Connection { destination: party(ip, &self.index), port: Some(port), ..connection.clone() };
                    self.short(&backend).unwrap_or_else(|| explain::verdict(&self.view(), &backend))
                };
                explain::agreed(call.backends.iter().map(of)).unwrap_or(Verdict::Undecided)
            }
            _ => explain::verdict(&self.view(), connection),
        }
    }

    /// Whether a new connection between two addresses would be admitted; where a Service is called, over its endpoints.
    pub fn verdict_between(&self, source: IpAddr, destination: IpAddr, protocol: Protocol, port: Option<u16>) -> Verdict {
        let short = || {
            let port = port?;
            let sides = [self.compiled.at(source, &self.index)?, self.compiled.at(destination, &self.index)?];
            // A node's address and a port of it may be a Service's.
            let is_node_port = sides[1].is_node() && self.index.node_port(port, protocol).is_some();
            if is_node_port { None } else { self.compiled.verdict(&self.index, &self.profile, sides, protocol, port) }
        };
        short().unwrap_or_else(|| self.verdict(&Connection::between(source, destination, protocol, port, &self.index)))
    }

    /// Whether a new connection would be admitted, and why.
    pub fn explain(&self, connection: &Connection) -> Explanation {
        explain::explain(&self.view(), &self.kept, connection)
    }

    /// What policies say of a new connection in each direction, egress first, without the reasons of what does not match: much cheaper than
    /// [`explain`](Engine::explain). None for calls to a Service's address, and where a side may be several.
    pub fn rulings(&self, connection: &Connection) -> Option<[Ruling; 2]> {
        let mut cases = Case::all(connection, &connection.destination, connection.port);
        let case = cases.next().filter(|_| cases.next().is_none())?;
        if matches!(connection.destination.identity, Identity::Service(_)) {
            return None;
        }
        let view = self.view();
        let parties = [&connection.source, &connection.destination];
        Some(Direction::BOTH.map(|direction| explain::ruling(&view, &case, direction, parties)))
    }

    /// Whether a new connection would be admitted if some policies were what is given here, or not there. Nothing is worked out for that but
    /// what this connection needs, so that it costs no more than [`explain`](Engine::explain). Objects that are no policies are passed over.
    pub fn verdict_if(&self, connection: &Connection, policies: &[(ObjectKey, Option<Object>)]) -> Verdict {
        self.supposing(policies, |view| explain::verdict(view, connection))
    }

    /// As [`verdict_if`](Engine::verdict_if), and why.
    pub fn explain_if(&self, connection: &Connection, policies: &[(ObjectKey, Option<Object>)]) -> Explanation {
        self.supposing(policies, |view| explain::explain(view, &self.kept, connection))
    }

    fn supposing<R>(&self, policies: &[(ObjectKey, Option<Object>)], ask: impl FnOnce(&View<'_>) -> R) -> R {
        let changed = policies.iter().filter_map(|(_, object)| match object {
            Some(Object::NetworkPolicy(policy)) => Some(Changed::NetworkPolicy(policy.clone())),
            Some(Object::ClusterPolicy(policy)) => Some(Changed::ClusterPolicy(policy.clone())),
            _ => None,
        });
        let changed: Vec<Changed> = changed.collect();
        let gone: Vec<ObjectKey> = policies.iter().filter(|(_, object)| object.is_none()).map(|(key, _)| key.clone()).collect();
        ask(&View { changed: &changed, gone: &gone, ..self.view() })
    }

    /// Who can reach whom on which ports, over the whole cluster.
    pub fn reachability(&self) -> Reachability {
        self.compiled.reachability(&self.index, &self.profile)
    }

    /// The verdict from the rows, where both sides are what the objects say of their addresses.
    fn short(&self, connection: &Connection) -> Option<Verdict> {
        let side = |party: &Party| -> Option<At<'_>> {
            let at = self.compiled.at(party.ip, &self.index)?;
            let is_it = match (&party.identity, at.pod) {
                (Identity::Pod(pod), Some(here)) => Arc::ptr_eq(pod, here),
                (Identity::Node(_), None) => at.is_node(),
                (Identity::External, None) => !at.is_node(),
                _ => false,
            };
            is_it.then_some(at)
        };
        let sides = [side(&connection.source)?, side(&connection.destination)?];
        if connection.service.is_some() && is_same_pod(sides) {
            return None;
        }
        self.compiled.verdict(&self.index, &self.profile, sides, connection.protocol, connection.port?)
    }

    fn view(&self) -> View<'_> {
        View { index: &self.index, profile: &self.profile, compiled: &self.compiled, changed: &[], gone: &[] }
    }
}

/// A pod that calls itself.
fn is_same_pod(sides: [At<'_>; 2]) -> bool {
    matches!(sides.map(|side| side.pod), [Some(source), Some(destination)] if Arc::ptr_eq(source, destination))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Pod, convert};

    fn pod(name: &str) -> Pod {
        let pod = serde_json::json!({
            "metadata": {"name": name, "namespace": "shop", "labels": {"app": "web"}},
            "spec": {"nodeName": "node-1", "containers": []},
        });
        convert::pod(serde_json::from_value(pod).expect("a pod"), &mut Vec::new())
    }

    /// A watch brings pods one by one, and each has its own copy of every text.
    #[test]
    fn objects_share_their_texts_with_what_is_there() {
        let mut engine = Engine::default();
        ["a", "b"].into_iter().for_each(|name| engine.apply(pod(name)));
        let [a, b] = ["a", "b"].map(|name| engine.index().pod("shop", name).expect("a pod"));
        assert!(Arc::ptr_eq(&a.namespace, &b.namespace));
        assert!(a.labels.iter().zip(&b.labels).all(|(a, b)| Arc::ptr_eq(a.0, b.0) && Arc::ptr_eq(a.1, b.1)));
        assert_eq!((a.labels.len(), &**b), (1, &pod("b")));
    }
}
