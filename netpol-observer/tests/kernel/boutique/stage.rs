//! One pod of each workload in a network namespace of its own, hosts outside the cluster, and servers on all of their ports.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::path::Path;
use std::thread;

use serde_json::Value;
use xtask::netns::{Bed, Netns};

/// Served everywhere, and spoken of by no policy.
const STRAY: u16 = 7777;

/// Hosts outside the cluster, with the ports they serve besides: of the content delivery network and of its last quarter, the bank and its test system,
/// the mail relay and its neighbour, the carrier, a stranger with a DNS server.
const OUTSIDE: &[(&str, &[u16])] = &[
    ("203.0.113.10", &[]),
    ("203.0.113.200", &[]),
    ("198.51.100.20", &[443, 8443]),
    ("198.51.100.200", &[443]),
    ("192.0.2.25", &[587]),
    ("192.0.2.26", &[587]),
    ("192.0.2.70", &[8442, 8443, 8445, 8446]),
    ("192.0.2.99", &[53, 443]),
];

/// How policy tests name the kinds of workloads.
const KINDS: &[(&str, &str)] =
    &[("Deployment", "deploy"), ("StatefulSet", "sts"), ("DaemonSet", "ds"), ("CronJob", "cronjob"), ("Job", "job")];

/// Who opens and takes connections.
pub(super) struct Place {
    /// Where it is; hosts outside share a namespace.
    pub(super) netns: Netns,
    pub(super) address: Ipv4Addr,
    ports: BTreeSet<u16>,
    is_outside: bool,
}

/// A connection, its ends as policy tests name them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Connection {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) port: u16,
    /// `TCP` or `UDP`.
    pub(super) protocol: &'static str,
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Connection { from, to, port, protocol } = self;
        write!(f, "{from} to {to}:{port}/{protocol}")
    }
}

/// Everything that has been built. Goes with its bed; the servers end with the process.
pub(super) struct Stage {
    pub(super) node: Netns,
    /// By how policy tests name them.
    pub(super) places: BTreeMap<String, Place>,
    _bed: Bed,
}

impl Stage {
    /// Builds it from the manifests and `enforce.nft` of `directory`, loads the rules, and starts the servers.
    pub(super) fn build(directory: &Path) -> Self {
        let rules = std::fs::read_to_string(directory.join("enforce.nft")).unwrap();
        let addresses: BTreeMap<String, Ipv4Addr> = rules
            .lines()
            .filter_map(|line| line.strip_prefix("define ")?.split_once(" = "))
            .map(|(name, address)| (name.replace('_', "-"), address.parse().unwrap()))
            .collect();
        let mut bed = Bed::new("npo-boutique").unwrap();
        let node = bed.node("node", &["192.168.50.11".parse().unwrap()]).unwrap();
        let mut places = BTreeMap::new();
        for (name, spoken, ports) in workloads(&directory.join("workloads")) {
            let address = *addresses.get(&name).unwrap_or_else(|| panic!("enforce.nft gives {spoken} no address"));
            let netns = node.routed_pod(&mut bed, &name, &[address.into()]).unwrap();
            assert!(places.insert(spoken, Place { netns, address, ports, is_outside: false }).is_none());
        }
        assert_eq!(places.len(), addresses.len(), "enforce.nft has an address for each workload and no other");
        let outside: Vec<IpAddr> = OUTSIDE.iter().map(|(address, _)| address.parse().unwrap()).collect();
        let host = node.external_host(&mut bed, "outside", &outside).unwrap();
        for (address, ports) in OUTSIDE {
            let place =
                Place { netns: host.clone(), address: address.parse().unwrap(), ports: ports.iter().copied().collect(), is_outside: true };
            places.insert((*address).to_owned(), place);
        }
        for (name, place) in &mut places {
            place.ports.insert(STRAY);
            place.serve(name);
        }
        node.netns().nft(&rules).unwrap();
        Stage { node: node.netns().clone(), places, _bed: bed }
    }

    /// Every connection between two of them on every port that the one called serves, but those that stay outside.
    pub(super) fn connections(&self) -> Vec<Connection> {
        let mut connections = Vec::new();
        for (from, caller) in &self.places {
            for (to, called) in self.places.iter().filter(|(to, called)| *to != from && !(caller.is_outside && called.is_outside)) {
                for (port, protocol) in called.ports.iter().flat_map(|port| [(*port, "TCP"), (*port, "UDP")]) {
                    connections.push(Connection { from: from.clone(), to: to.clone(), port, protocol });
                }
            }
        }
        connections
    }
}

impl Place {
    /// Answers every connection and every datagram with `name`, over both protocols on each port.
    fn serve(&self, name: &str) {
        for port in &self.ports {
            let address = (self.address, *port);
            let (tcp, udp) = self.netns.in_ns(|| (TcpListener::bind(address).unwrap(), UdpSocket::bind(address).unwrap())).unwrap();
            let answer = name.to_owned();
            thread::spawn(move || {
                for mut stream in tcp.incoming().flatten() {
                    let _ = stream.write_all(answer.as_bytes());
                }
            });
            let answer = name.to_owned();
            thread::spawn(move || {
                while let Ok((_, caller)) = udp.recv_from(&mut [0; 16]) {
                    let _ = udp.send_to(answer.as_bytes(), caller);
                }
            });
        }
    }
}

/// The workloads of a directory: name, how policy tests name it, and the ports it declares.
fn workloads(directory: &Path) -> Vec<(String, String, BTreeSet<u16>)> {
    let mut found = Vec::new();
    for file in std::fs::read_dir(directory).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        for object in serde_saphyr::from_multiple::<Value>(&text).unwrap() {
            let Some((kind, short)) = KINDS.iter().find(|(kind, _)| object["kind"] == *kind) else { continue };
            let spec = if *kind == "CronJob" { &object["spec"]["jobTemplate"]["spec"] } else { &object["spec"] };
            let (namespace, name) = (object["metadata"]["namespace"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap());
            let ports = spec["template"]["spec"]["containers"][0]["ports"].as_array().into_iter().flatten();
            let ports = ports.map(|port| u16::try_from(port["containerPort"].as_u64().unwrap()).unwrap()).collect();
            found.push((name.to_owned(), format!("{namespace}/{short}/{name}"), ports));
        }
    }
    found
}
