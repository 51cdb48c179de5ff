//! The shop in network namespaces: real servers in the pods, real clients, the hand-written ruleset on the node.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::demo::interrupt::Interrupt;
use crate::demo::pod::{NOT_ANSWERED, READY};
use crate::demo::shop::{Shop, of_family};
use crate::demo::steps::{CRASHED, Call, DNS_SERVICE, OUTSIDE, Step, Target};
use crate::netns::{Bed, Netns, Process};

/// Begins the names of the demo's namespaces.
pub(super) const PREFIX: &str = "npo-demo";

/// The host outside that the node's default route leads to.
const UPLINK: &str = "customer";

/// A client that has not ended by then is broken: its own timeout is one second per exchange.
const CLIENT_PATIENCE: Duration = Duration::from_secs(10);

/// Everything that has been built. Fields are dropped in this order: the servers before their namespaces.
pub(super) struct Stage {
    servers: Vec<Process>,
    places: BTreeMap<String, Netns>,
    node: Netns,
    shop: Shop,
    program: PathBuf,
    _bed: Bed,
}

/// What a client saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// An answer.
    Answer(String),
    /// Why there was none.
    NoAnswer(String),
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Seen::Answer(text) | Seen::NoAnswer(text)) = self;
        f.write_str(text)
    }
}

/// A client under way.
pub(super) struct Client(Process);

impl Stage {
    /// Builds it. `program` is this program, which has the servers and clients as subcommands.
    ///
    /// # Errors
    /// Not root, something missing, a command failed, a server did not start.
    pub(super) fn build(shop: Shop, program: &Path) -> Result<Self> {
        let mut bed = Bed::new(PREFIX)?;
        let node = bed.node("node-1", &shop.node)?;
        let mut places = BTreeMap::new();
        for pod in &shop.pods {
            let place = if pod.host_network {
                node.netns().clone()
            } else {
                let name = short_name(&pod.key, places.keys());
                node.routed_pod(&mut bed, &name, &pod.addresses)?
            };
            places.insert(pod.key.clone(), place);
        }
        for (host, addresses, _) in OUTSIDE {
            let addresses = addresses.iter().map(|address| parse(address)).collect::<Result<Vec<_>>>()?;
            places.insert((*host).to_owned(), node.external_host(&mut bed, host, &addresses)?);
        }
        // A node has a default route; without one, packets to a Service address would die of that before any rule sees them.
        let uplink = crate::netns::Node::external_interface(UPLINK);
        for family in ["-4", "-6"] {
            node.netns().exec(&["ip", family, "route", "add", "default", "dev", &uplink])?;
        }
        node.netns().nft(&shop.ruleset).context("enforce.nft")?;

        let mut stage = Self { servers: Vec::new(), places, node: node.netns().clone(), shop, program: program.to_owned(), _bed: bed };
        stage.start_servers()?;
        Ok(stage)
    }

    pub(super) fn shop(&self) -> &Shop {
        &self.shop
    }

    /// The node's namespace, which holds the ruleset.
    pub(super) fn node(&self) -> &Netns {
        &self.node
    }

    /// Inode numbers of all its namespaces, to tell its drops from others on this machine.
    pub(super) fn namespaces(&self) -> Result<Vec<u64>> {
        self.places.values().chain([&self.node]).map(Netns::inode).collect()
    }

    /// How many pods and outside hosts there are.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.shop.pods.len(), OUTSIDE.len())
    }

    /// The address a step's caller calls from.
    pub(super) fn caller_address(&self, step: &Step) -> Result<IpAddr> {
        match OUTSIDE.iter().find(|(host, ..)| *host == step.caller) {
            Some((_, addresses, _)) => {
                let addresses = addresses.iter().map(|address| parse(address)).collect::<Result<Vec<_>>>()?;
                of_family(&addresses, step.ipv6)
            }
            None => of_family(&self.shop.pod(step.caller)?.addresses, step.ipv6),
        }
    }

    /// Starts a step's client.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn start(&self, step: &Step) -> Result<Client> {
        let place = self.places.get(step.caller).with_context(|| format!("nobody is called {}", step.caller))?;
        let mut command = Command::new(&self.program);
        command.arg("pod-call").args(self.call_arguments(step)?).stdin(Stdio::null()).stdout(Stdio::piped());
        place.spawn(command).map(Client).with_context(|| format!("the client of {}", step.caller))
    }

    fn call_arguments(&self, step: &Step) -> Result<Vec<String>> {
        let dns = || Ok::<_, anyhow::Error>(of_family(&self.shop.service(DNS_SERVICE)?.addresses, step.ipv6)?.to_string());
        let mut words: Vec<String> = Vec::new();
        match step.call {
            Call::Http(Target::Service(key), port) => {
                words.extend(["http".to_owned(), dns_name(key)?, port.to_string(), "--dns".to_owned(), dns()?]);
            }
            Call::Http(target, port) => words.extend(["http".to_owned(), self.address(target, step.ipv6)?.to_string(), port.to_string()]),
            Call::Udp(target, port) => {
                words.extend(["udp".to_owned(), SocketAddr::new(self.address(target, step.ipv6)?, port).to_string()]);
            }
            Call::Dns(key) => words.extend(["dns".to_owned(), dns_name(key)?, dns()?]),
        }
        if step.ipv6 && !matches!(step.call, Call::Udp(..)) {
            words.push("--ipv6".to_owned());
        }
        Ok(words)
    }

    fn address(&self, target: Target, ipv6: bool) -> Result<IpAddr> {
        match target {
            Target::Service(key) | Target::ServiceAddress(key) => of_family(&self.shop.service(key)?.addresses, ipv6),
            Target::Pod(key) => of_family(&self.shop.pod(key)?.addresses, ipv6),
            Target::Node => of_family(&self.shop.node, ipv6),
            Target::Outside(address) => parse(address),
        }
    }

    fn start_servers(&mut self) -> Result<()> {
        let records: Vec<String> = {
            let record = |key: &str, address: &IpAddr| dns_name(key).map(|name| format!("{name}={address}"));
            let services = self.shop.services.iter();
            services.flat_map(|service| service.addresses.iter().map(|address| record(&service.key, address))).collect::<Result<_>>()?
        };
        let mut wanted: Vec<(String, Vec<String>)> = Vec::new();
        for pod in &self.shop.pods {
            let mut words = Vec::new();
            for (protocol, port) in &pod.ports {
                match (protocol.as_str(), *port) {
                    ("UDP", 53) => words.extend(records.iter().flat_map(|record| ["--record".to_owned(), record.clone()])),
                    ("UDP", port) => words.extend(["--udp".to_owned(), port.to_string()]),
                    (_, port) if CRASHED.contains(&(pod.key.as_str(), port)) => {}
                    (_, port) => words.extend(["--http".to_owned(), port.to_string()]),
                }
            }
            wanted.push((pod.key.clone(), words));
        }
        for (host, _, port) in OUTSIDE {
            wanted.push(((*host).to_owned(), port.iter().flat_map(|port| ["--http".to_owned(), port.to_string()]).collect()));
        }
        for (key, words) in wanted.into_iter().filter(|(_, words)| !words.is_empty()) {
            let place = self.places.get(&key).with_context(|| format!("nobody is called {key}"))?;
            let mut command = Command::new(&self.program);
            // The server ends when its standard input does: even a demo that is killed leaves none running.
            command.args(["pod-serve", "--name", &key]).args(&words).stdin(Stdio::piped()).stdout(Stdio::piped());
            self.servers.push(place.spawn(command).with_context(|| format!("the server of {key}"))?);
        }
        for server in &mut self.servers {
            let mut line = String::new();
            if let Some(output) = server.child().stdout.take() {
                BufReader::new(output).read_line(&mut line).context("cannot read from a server")?;
            }
            if line.trim_end() != READY {
                bail!("a server of the demo did not start; its message is above");
            }
        }
        Ok(())
    }
}

impl Client {
    /// Waits for its end.
    ///
    /// # Errors
    /// It was interrupted, or is broken; that is not the same as getting no answer.
    pub(super) fn finish(mut self, interrupt: &Interrupt) -> Result<Seen> {
        let status = interrupt.wait(CLIENT_PATIENCE, || self.0.try_wait())?.context("a client of the demo does not end")?;
        let mut text = String::new();
        if let Some(mut output) = self.0.child().stdout.take() {
            output.read_to_string(&mut text).context("cannot read from a client")?;
        }
        let text = text.trim_end().to_owned();
        match status.code() {
            Some(0) => Ok(Seen::Answer(text)),
            Some(NOT_ANSWERED) => Ok(Seen::NoAnswer(text)),
            _ => bail!("a client of the demo ended with {status}; its message is above"),
        }
    }
}

/// `app`, or `app-namespace` where the app exists in two namespaces.
fn short_name<'a>(key: &str, mut taken: impl Iterator<Item = &'a String>) -> String {
    let (namespace, app) = key.split_once('/').unwrap_or(("", key));
    let exists = taken.any(|other| other.split_once('/').is_some_and(|(_, other)| other == app));
    if exists { format!("{app}-{namespace}") } else { app.to_owned() }
}

/// The name CoreDNS gives a Service `NAMESPACE/NAME`.
fn dns_name(key: &str) -> Result<String> {
    let (namespace, name) = key.split_once('/').with_context(|| format!("`{key}` is not NAMESPACE/NAME"))?;
    Ok(format!("{name}.{namespace}.svc.cluster.local"))
}

fn parse(address: &str) -> Result<IpAddr> {
    address.parse().with_context(|| format!("`{address}` is no IP address"))
}
