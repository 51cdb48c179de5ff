//! From raw objects to an engine, through the reader of manifests and the conversion that the program uses.

use netpol_observer::cluster::{DomainName, Object, manifests};
use netpol_observer::policy::{Connection, Engine, Profile};
use serde_json::{Value, json};

use crate::naive::{Call, World};

/// Objects as the program reads them.
pub(crate) fn read(objects: &[Value]) -> Vec<Object> {
    let text = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
    let loaded = manifests::load(&["-".into()], &mut text.as_bytes()).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    assert!(loaded.skipped.is_empty(), "{:?}", loaded.skipped);
    loaded.objects
}

pub(crate) fn name(name: &str, addresses: &[std::net::IpAddr]) -> Object {
    DomainName { name: name.into(), addresses: addresses.to_vec() }.into()
}

pub(crate) fn objects(world: &World) -> Vec<Object> {
    let names = world.names.iter().map(|(known, addresses)| name(known, addresses));
    read(&world.objects).into_iter().chain(names).collect()
}

pub(crate) fn engine(world: &World, profile: Profile) -> Engine {
    let mut engine = Engine::new(profile);
    engine.reset(objects(world));
    engine
}

pub(crate) fn connection(call: &Call, engine: &Engine) -> Connection {
    Connection::between(call.source, call.destination, call.protocol, call.port, engine.index())
}
