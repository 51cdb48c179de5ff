//! The engine: the objects, and what is worked out from them once instead of for every question.

use std::net::IpAddr;

use crate::cluster::{Index, Object, ObjectKey};
use crate::flow::Protocol;

use super::connection::{Connection, Profile};
use super::explanation::{Explanation, Verdict};

/// Answers whether connections are admitted, and why. Objects come and go through [`apply`](Engine::apply),
/// [`delete`](Engine::delete) and [`reset`](Engine::reset); after each the answers are those of an engine built afresh.
#[derive(Clone, Debug, Default)]
pub struct Engine {
    index: Index,
    profile: Profile,
}

impl Engine {
    /// An engine that knows no object yet.
    pub fn new(profile: Profile) -> Self {
        Engine { index: Index::default(), profile }
    }

    /// An engine over the objects of an index.
    pub fn over(index: Index, profile: Profile) -> Self {
        Engine { index, profile }
    }

    /// The objects.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// How it decides what the API leaves open.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Inserts the object, or replaces the one of the same kind, namespace and name.
    pub fn apply(&mut self, object: impl Into<Object>) {
        self.index.apply(object);
    }

    /// Removes an object; nothing happens when it is not there.
    pub fn delete(&mut self, key: &ObjectKey) {
        self.index.delete(key);
    }

    /// Forgets everything and takes these objects instead.
    pub fn reset(&mut self, objects: impl IntoIterator<Item = Object>) {
        self.index.reset(objects);
    }

    /// Whether a new connection would be admitted.
    pub fn verdict(&self, connection: &Connection) -> Verdict {
        super::explain::verdict(connection, &self.index, &self.profile)
    }

    /// Whether a new connection between two addresses would be admitted; where a Service is called, over its endpoints.
    pub fn verdict_between(&self, source: IpAddr, destination: IpAddr, protocol: Protocol, port: Option<u16>) -> Verdict {
        self.verdict(&Connection::between(source, destination, protocol, port, &self.index))
    }

    /// Whether a new connection would be admitted, and why.
    pub fn explain(&self, connection: &Connection) -> Explanation {
        super::explain::explain(connection, &self.index, &self.profile)
    }
}
