//! What the fuzz targets share.

use std::net::IpAddr;

use netpol_observer::cluster::manifests::{self, Loaded};
use netpol_observer::flow::Protocol;
use netpol_observer::policy::{Connection, Engine, Profile};

/// Addresses outside, in a node's pod range, and special ones: beside the pods' own.
const STRANGERS: [&str; 4] = ["203.0.113.5", "10.1.0.77", "169.254.169.254", "2001:db8::5"];

/// Pods that are asked about: all of a large input would take too long for one run.
const PODS: usize = 4;

/// Manifests as from standard input; nothing where they are refused.
pub fn load(text: &[u8]) -> Option<Loaded> {
    let mut text = text;
    manifests::load(&["-".into()], &mut text).ok()
}

/// An engine over manifests.
pub fn engine(loaded: Loaded) -> Engine {
    let mut engine = Engine::new(Profile::default());
    engine.reset(loaded.objects);
    engine
}

/// Asks about the calls between the first pods, some strangers, nodes and Services: both ways of asking give one verdict, and an
/// explanation can be printed.
///
/// # Panics
/// When they do not: that is what is looked for.
pub fn ask(engine: &Engine) {
    let index = engine.index();
    let pods = index.pods().flat_map(|pod| pod.ips.iter().copied()).take(PODS);
    let nodes = index.nodes().flat_map(|node| node.addresses.iter().copied()).take(1);
    let services = index.services().flat_map(|service| service.cluster_ips.iter().copied()).take(1);
    let strangers = STRANGERS.iter().filter_map(|text| text.parse().ok());
    let ends: Vec<IpAddr> = pods.chain(nodes).chain(services).chain(strangers).collect();
    let ports = [(Protocol::Tcp, Some(80)), (Protocol::Udp, Some(53)), (Protocol::Sctp, None), (Protocol::Icmp, None)];
    for (at, &source) in ends.iter().enumerate() {
        for (to, &destination) in ends.iter().enumerate() {
            let (protocol, port) = ports[(at + to) % ports.len()];
            let connection = Connection::between(source, destination, protocol, port, index);
            let explanation = engine.explain(&connection);
            assert_eq!(engine.verdict(&connection), explanation.verdict, "{source} -> {destination} {protocol} {port:?}");
        }
    }
}
