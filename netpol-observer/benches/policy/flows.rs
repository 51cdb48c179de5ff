//! Connections as they occur in such a cluster, no two alike, and calls to Services.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use netpol_observer::cluster::{Index, Node, Pod, PodPhase, Service};
use netpol_observer::flow::Protocol;
use netpol_observer::policy::{Connection, Engine, Verdict};

use crate::cluster::random::Random;

/// A connection by its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Flow {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
}

impl Flow {
    /// With who the addresses belong to.
    pub(crate) fn connection(&self, index: &Index) -> Connection {
        Connection::between(self.source, self.destination, self.protocol, Some(self.port), index)
    }

    /// The engine's verdict, who the addresses belong to looked up.
    pub(crate) fn verdict(&self, engine: &Engine) -> Verdict {
        engine.verdict_between(self.source, self.destination, self.protocol, Some(self.port))
    }
}

/// Draws connections. In a hundred: 42 within a namespace, 10 from ingress controllers, 8 from Prometheus, 10 to DNS, 8 to the outside,
/// 4 from there, 4 from nodes, 2 to nodes, 12 between any two pods. Three in four go to a port that the destination serves.
pub(crate) struct Flows<'a> {
    pods: Vec<&'a Arc<Pod>>,
    /// Where in `pods` each namespace is.
    namespaces: Vec<std::ops::Range<usize>>,
    nodes: Vec<&'a Arc<Node>>,
    services: Vec<&'a Arc<Service>>,
    dns: Vec<&'a Arc<Pod>>,
    ingress: Vec<&'a Arc<Pod>>,
    monitoring: Vec<&'a Arc<Pod>>,
    random: Random,
    drawn: HashSet<Flow>,
}

/// Ports that somebody tries.
const PORTS: [u16; 12] = [22, 53, 80, 443, 3000, 5432, 5672, 6379, 8000, 8080, 9090, 15672];

impl<'a> Flows<'a> {
    pub(crate) fn new(index: &'a Index, seed: u64) -> Self {
        let pods: Vec<&Arc<Pod>> =
            index.pods().filter(|pod| pod.phase == PodPhase::Active && !pod.host_network && !pod.ips.is_empty()).collect();
        let mut namespaces: Vec<std::ops::Range<usize>> = Vec::new();
        for (i, pod) in pods.iter().enumerate() {
            match namespaces.last_mut() {
                Some(last) if pods[last.start].namespace == pod.namespace => last.end = i + 1,
                _ => namespaces.push(i..i + 1),
            }
        }
        let of = |namespace: &str| index.pods_in(namespace).filter(|pod| !pod.host_network).collect();
        Flows {
            namespaces,
            nodes: index.nodes().collect(),
            services: index.services().collect(),
            dns: of("kube-system"),
            ingress: of("ingress"),
            monitoring: of("monitoring"),
            random: Random::new(seed),
            drawn: HashSet::new(),
            pods,
        }
    }

    /// So many connections, none of which was drawn before. Fewer where the cluster is too small for so many.
    pub(crate) fn draw(&mut self, wanted: usize) -> Vec<Flow> {
        let mut flows = Vec::with_capacity(wanted);
        for _ in 0..wanted.saturating_mul(20) {
            if flows.len() == wanted {
                break;
            }
            let flow = self.one();
            if flow.source != flow.destination && self.drawn.insert(flow) {
                flows.push(flow);
            }
        }
        flows
    }

    /// So many calls to Services; the same may come again.
    pub(crate) fn service_calls(&mut self, wanted: usize) -> Vec<Flow> {
        let mut flows = Vec::with_capacity(wanted);
        while flows.len() < wanted {
            let source = self.pod();
            let service = self.random.pick(&self.services);
            let port = &service.ports[self.random.below(service.ports.len())];
            flows.push(Flow { source: source.ips[0], destination: service.cluster_ips[0], protocol: port.protocol, port: port.port });
        }
        flows
    }

    fn pod(&mut self) -> &'a Arc<Pod> {
        self.random.pick(&self.pods)
    }

    fn neighbours(&mut self) -> (&'a Arc<Pod>, &'a Arc<Pod>) {
        // By pods, not by namespaces: large ones talk more.
        let first = self.random.below(self.pods.len());
        let at = self.namespaces.partition_point(|range| range.end <= first);
        let range = self.namespaces[at].clone();
        let second = range.start + self.random.below(range.len());
        (self.pods[first], self.pods[second])
    }

    fn one(&mut self) -> Flow {
        match self.random.below(100) {
            0..42 => {
                let (source, destination) = self.neighbours();
                self.toward(source.ips[0], destination)
            }
            42..52 => {
                let source = self.random.pick(&self.ingress).ips[0];
                let destination = self.pod();
                self.toward(source, destination)
            }
            52..60 => {
                let source = self.random.pick(&self.monitoring).ips[0];
                let destination = self.pod();
                match destination.ports.iter().find(|port| port.name.as_deref() == Some("metrics")) {
                    Some(port) => Flow { source, destination: destination.ips[0], protocol: port.protocol, port: port.port },
                    None => self.toward(source, destination),
                }
            }
            60..70 => {
                let source = self.pod().ips[0];
                let protocol = self.random.pick(&[Protocol::Udp, Protocol::Udp, Protocol::Tcp]);
                Flow { source, destination: self.random.pick(&self.dns).ips[0], protocol, port: 53 }
            }
            70..78 => {
                let source = self.pod().ips[0];
                let port = self.random.pick(&[443, 443, 443, 80, 8443, 3128]);
                Flow { source, destination: self.outside(), protocol: Protocol::Tcp, port }
            }
            78..82 => {
                let source = self.outside();
                let destination = self.pod();
                self.toward(source, destination)
            }
            82..86 => {
                let source = self.node();
                let destination = self.pod();
                self.toward(source, destination)
            }
            86..88 => {
                let source = self.pod().ips[0];
                let port = self.random.pick(&[53, 6443, 10250]);
                Flow { source, destination: self.node(), protocol: Protocol::Tcp, port }
            }
            _ => {
                let (source, destination) = (self.pod(), self.pod());
                self.toward(source.ips[0], destination)
            }
        }
    }

    fn toward(&mut self, source: IpAddr, destination: &Pod) -> Flow {
        let (protocol, port) = if !destination.ports.is_empty() && self.random.percent(75) {
            let port = &destination.ports[self.random.below(destination.ports.len())];
            (port.protocol, port.port)
        } else {
            (self.random.pick(&[Protocol::Tcp, Protocol::Tcp, Protocol::Tcp, Protocol::Udp, Protocol::Sctp]), self.random.pick(&PORTS))
        };
        Flow { source, destination: destination.ips[0], protocol, port }
    }

    fn node(&mut self) -> IpAddr {
        self.random.pick(&self.nodes).addresses[0]
    }

    /// Outside of the cluster: the networks that policies name, and others.
    fn outside(&mut self) -> IpAddr {
        let last = [self.random.below(120) as u8, self.random.below(256) as u8];
        IpAddr::V4(match self.random.below(4) {
            0 => Ipv4Addr::new(198, 51, last[0], last[1]),
            1 => Ipv4Addr::new(203, 0, last[0], last[1]),
            _ => Ipv4Addr::new(93, 184, last[0], last[1]),
        })
    }
}
