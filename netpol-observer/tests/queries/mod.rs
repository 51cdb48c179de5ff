//! Queries with expected verdicts, as the conformance sets and our own cases have them.

use std::net::IpAddr;
use std::path::Path;

use netpol_observer::cluster::{Index, manifests};
use netpol_observer::flow::Protocol;
use netpol_observer::identify::{Identity, Party, party};
use netpol_observer::policy::{Connection, Engine, Explanation, Profile, Verdict};
use serde::Deserialize;

/// One line of `expect.jsonl`.
#[derive(Debug, Deserialize)]
pub(crate) struct Query {
    /// `namespace/pod` or an IP address.
    pub(crate) from: String,
    /// Likewise.
    pub(crate) to: String,
    pub(crate) port: Option<u16>,
    pub(crate) protocol: Protocol,
    pub(crate) verdict: String,
}

impl Query {
    pub(crate) fn read(file: &Path) -> Vec<Query> {
        let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{}: {error}: {line}", file.display()));
        text.lines().filter(|line| !line.trim().is_empty()).map(parse).collect()
    }

    /// Asks the engine, for every pair of addresses of one family that the two ends have: they must agree with each other, the
    /// explanation with the verdict, and both with what is expected.
    pub(crate) fn check(&self, engine: &Engine) -> Result<(), String> {
        let index = engine.index();
        for connection in self.connections(index) {
            let explanation = engine.explain(&connection);
            let quick = engine.verdict(&connection);
            if quick != explanation.verdict {
                return Err(format!("{self:?}: verdict says {quick:?}, explain {:?}", explanation.verdict));
            }
            let got = word(explanation.verdict);
            if got != self.verdict {
                let json = serde_json::to_string_pretty(&explanation).unwrap();
                return Err(format!(
                    "{self:?}: expected {}, got {got} for {} -> {}: {json}",
                    self.verdict, connection.source.ip, connection.destination.ip
                ));
            }
            prove_fixes(&explanation);
        }
        Ok(())
    }

    pub(crate) fn connections(&self, index: &Index) -> Vec<Connection> {
        let mut found = Vec::new();
        for source in ends(&self.from, index) {
            for destination in ends(&self.to, index) {
                if source.ip.is_ipv4() != destination.ip.is_ipv4() {
                    continue;
                }
                let service = match &destination.identity {
                    Identity::Service(service) => {
                        let port = service.ports.iter().find(|port| Some(port.port) == self.port && port.protocol == self.protocol);
                        let backends = port.map(|port| index.backends(service, port)).unwrap_or_default();
                        Some(netpol_observer::identify::ServiceCall {
                            service: service.clone(),
                            ip: destination.ip,
                            port: self.port,
                            port_name: port.and_then(|port| port.name.clone()),
                            // Translation does not change the family.
                            backends: backends.into_iter().filter(|(ip, _)| ip.is_ipv4() == destination.ip.is_ipv4()).collect(),
                        })
                    }
                    _ => None,
                };
                found.push(Connection { source: source.clone(), destination, protocol: self.protocol, port: self.port, service });
            }
        }
        assert!(!found.is_empty(), "{self:?}: no addresses of one family");
        found
    }
}

fn ends(name: &str, index: &Index) -> Vec<Party> {
    if let Ok(ip) = name.parse::<IpAddr>() {
        return vec![party(ip, index)];
    }
    let (namespace, pod) = name.split_once('/').unwrap_or_else(|| panic!("{name} is no IP address and no namespace/pod"));
    let pod = index.pod(namespace, pod).unwrap_or_else(|| panic!("no pod {name}"));
    pod.ips.iter().map(|&ip| party(ip, index)).collect()
}

pub(crate) fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "allow",
        Verdict::Deny => "deny",
        Verdict::Undecided => "undecided",
    }
}

/// A denial has a fix for each direction that denies, or says why not.
fn prove_fixes(explanation: &Explanation) {
    use netpol_observer::policy::{Admission, Remaining};
    for explained in [&explanation.egress, &explanation.ingress] {
        let denied = matches!(explained.admission, Admission::Denied { .. });
        let fixed = explanation.fixes.iter().filter(|fix| fix.direction == explained.direction).count();
        let none =
            explanation.remaining.iter().filter(|r| matches!(r, Remaining::NoFix { direction, .. } if *direction == explained.direction));
        assert_eq!(fixed + none.count(), usize::from(denied), "{explanation:#?}");
    }
}

/// An engine over all objects of a directory of manifests.
pub(crate) fn load_engine(directory: &Path) -> Engine {
    let loaded = manifests::load(&[directory.to_owned()], &mut std::io::empty()).unwrap_or_else(|errors| panic!("{errors}"));
    let mut engine = Engine::new(Profile::default());
    engine.reset(loaded.objects);
    engine
}
