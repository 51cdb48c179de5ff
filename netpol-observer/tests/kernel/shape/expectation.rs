//! What the drops of a shape must come to, as data: told by the running kernel and again by a recording of it (tests/shapes.rs).

use std::collections::BTreeMap;

use netpol_observer::diagnose::{Agreement, Class, Denial};
use netpol_observer::pipeline::server_port;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Exactly these flows, and each of their drops like this.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Expectation {
    /// What dropped the packets, and how: `iptables-legacy REJECT tcp-reset`. The same words on every kernel.
    pub(crate) shape: String,
    /// `ipv4`, `ipv6`, or empty where the shape has no family.
    pub(crate) family: String,
    /// The denied flows; nothing else may be reported but noise.
    pub(crate) denied: Vec<Ends>,
    /// What kernels make of it, by age: the last one that is not newer than the kernel holds.
    pub(crate) looks: Vec<Look>,
    /// Name of the device, and whether the packet was on its way out by it.
    pub(crate) interface: Option<String>,
    #[serde(default)]
    pub(crate) outgoing: bool,
    /// The pod in the namespace at the other end of the device: `shop/web`.
    pub(crate) behind: Option<String>,
    /// The Service that was called, where that matters: `shop/api`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) service: Option<String>,
    /// The tunnel the packets were dropped in: `VXLAN 1 node node-1 → node node-2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tunnel: Option<String>,
    /// Words that the summary has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) says: Option<String>,
}

/// A flow: who called whom, as [`netpol_observer::identify::Party`] shows them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Ends {
    pub(crate) client: String,
    pub(crate) server: String,
    pub(crate) port: u16,
    pub(crate) protocol: String,
}

/// How a kernel shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Look {
    /// From this version on, `5.18`.
    pub(crate) since: String,
    /// Not seen, or not told from others, on these kernels, and why. The rest is empty then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gap: Option<String>,
    pub(crate) reason: String,
    /// The function that freed the packet, without compiler suffixes; `a|b` where compilers make one part of the other.
    pub(crate) location: String,
    pub(crate) hook: Option<String>,
    /// [`Class`] and [`Agreement`] as JSON has them (of the latter the verdict alone).
    pub(crate) class: Value,
    pub(crate) agreement: String,
}

impl Look {
    /// A drop of the policies' enforcement.
    pub(crate) fn of_class(since: &str, reason: &str, location: &str, hook: &str, class: &Class, agreement: &Agreement) -> Self {
        Look {
            since: since.to_owned(),
            gap: None,
            reason: reason.to_owned(),
            location: location.to_owned(),
            hook: (!hook.is_empty()).then(|| hook.to_owned()),
            class: json!(class),
            agreement: verdict(agreement),
        }
    }

    /// Not seen from this version on.
    pub(crate) fn gap(since: &str, why: &str) -> Self {
        let (reason, location, agreement) = Default::default();
        Look { since: since.to_owned(), gap: Some(why.to_owned()), reason, location, hook: None, class: Value::Null, agreement }
    }
}

fn verdict(agreement: &Agreement) -> String {
    json!(agreement)["verdict"].as_str().unwrap_or_default().to_owned()
}

/// `6.18.44-cloud` → (6, 18)
pub(crate) fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn tunnel(denial: &Denial) -> Option<String> {
    let (tunnel, ends) = (denial.event.tunnel.as_ref()?, denial.who.tunnel.as_ref()?);
    let vni = tunnel.vni.map_or_else(String::new, |vni| format!(" {vni}"));
    Some(format!("{}{vni} {} → {}", tunnel.kind, ends.source, ends.destination))
}

/// The flow of a denial.
pub(crate) fn ends(denial: &Denial) -> Ends {
    let Denial { event, who, .. } = denial;
    Ends {
        client: who.client.to_string(),
        server: who.server.to_string(),
        port: server_port(event, who).unwrap_or(0),
        protocol: event.flow.protocol.to_string(),
    }
}

impl Expectation {
    /// What holds on a kernel.
    pub(crate) fn look(&self, release: &str) -> &Look {
        let fits = |look: &&Look| version(&look.since) <= version(release);
        self.looks.iter().filter(fits).max_by_key(|look| version(&look.since)).unwrap_or_else(|| panic!("no look of {release}: {self:#?}"))
    }

    /// Compares; gives what was found in a few words, or everything that differs.
    pub(crate) fn check(&self, release: &str, denials: &[Denial]) -> Result<String, String> {
        let look = self.look(release);
        let mut problems = Vec::new();
        let mut found: BTreeMap<Ends, usize> = BTreeMap::new();
        for denial in denials {
            let flow = ends(denial);
            if !self.denied.contains(&flow) {
                // A reset after a reject, a segment behind a close: not shown to anybody who does not ask for it.
                if denial.diagnosis.class != Class::Noise {
                    problems
                        .push(format!("not a denied flow: {flow:?}: {} at {:?}", denial.diagnosis.summary, denial.event.location.symbol));
                }
                continue;
            }
            *found.entry(flow.clone()).or_default() += 1;
            if look.gap.is_none() {
                problems.extend(self.compare(look, denial).into_iter().map(|problem| format!("port {}: {problem}", flow.port)));
            }
        }
        match &look.gap {
            Some(_) if !found.is_empty() => problems.push(format!("a gap no more: {found:?}")),
            Some(why) if problems.is_empty() => return Ok(why.clone()),
            Some(_) => {}
            None => {
                let missing = self.denied.iter().filter(|flow| !found.contains_key(flow));
                problems.extend(missing.map(|flow| format!("not reported: {flow:?}")));
            }
        }
        problems.sort();
        problems.dedup();
        if problems.is_empty() { Ok(self.words(look)) } else { Err(problems.join("\n")) }
    }

    fn words(&self, look: &Look) -> String {
        let of = |word: &Option<String>| word.as_ref().map_or_else(String::new, |word| format!(" {word}"));
        format!("{} {}{}{}", look.reason, look.location, of(&look.hook), of(&self.interface))
    }

    fn compare(&self, look: &Look, denial: &Denial) -> Vec<String> {
        let Denial { event, who, diagnosis, .. } = denial;
        let mut problems = Vec::new();
        let mut same = |what: &str, is: Value, wanted: Value| {
            if is != wanted {
                problems.push(format!("{what}: {is}, expected {wanted}"));
            }
        };
        same("reason", json!(event.reason.name), json!(look.reason));
        let location = event.location.symbol.as_ref().map_or("", |symbol| symbol.base_name());
        if !look.location.split('|').any(|function| function == location) {
            same("location", json!(location), json!(look.location));
        }
        same("hook", json!(event.hook.map(|hook| hook.to_string())), json!(look.hook));
        same("class", json!(diagnosis.class), look.class.clone());
        same("agreement", json!(verdict(&diagnosis.agreement)), json!(look.agreement));
        same("interface", json!(event.interface.as_ref().map(|interface| &interface.name)), json!(self.interface));
        same("outgoing", json!(event.outgoing), json!(self.outgoing));
        same("behind", json!(who.behind.as_ref().map(|pod| format!("{}/{}", pod.namespace, pod.name))), json!(self.behind));
        let service = who.service.as_ref().map(|call| format!("{}/{}", call.service.namespace, call.service.name));
        if let Some(wanted) = &self.service {
            same("service", json!(service), json!(wanted));
        }
        same("tunnel", json!(tunnel(denial)), json!(self.tunnel));
        if let Some(words) = &self.says
            && !diagnosis.summary.contains(words)
        {
            problems.push(format!("does not say \"{words}\": {}", diagnosis.summary));
        }
        problems
    }
}
