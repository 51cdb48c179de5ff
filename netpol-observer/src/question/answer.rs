//! What came of a question: the links of the chain from the caller to the server, and what the engine says of each.

use std::net::IpAddr;

use crate::flow::Protocol;
use crate::identify::Party;
use crate::policy::{Explanation, Verdict};

/// The answer to a question about one port.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Who calls, as asked: `shop/web`, `Deployment shop/web`.
    pub from: String,
    /// Who is called, as asked.
    pub to: String,
    /// The port called; absent for protocols without ports.
    pub port: Option<u16>,
    /// The protocol.
    pub protocol: Protocol,
    /// Deny if any link denies; else undecided if any is; else allow.
    pub verdict: Verdict,
    /// What has to work, one after the other.
    pub chain: Vec<Link>,
    /// Things a reader should know.
    pub notes: Vec<String>,
}

impl Answer {
    /// The path that stands for the verdict: the first one of that verdict.
    pub fn decisive(&self) -> Option<&Path> {
        let links = self.chain.iter().filter(|link| link.verdict == self.verdict);
        let of_links = links.flat_map(|link| link.step.paths());
        of_links.clone().find(|path| path.verdict == self.verdict).or_else(|| of_links.clone().next())
    }
}

/// One thing that has to work.
#[derive(Clone, Debug)]
pub struct Link {
    /// What is said of it.
    pub verdict: Verdict,
    /// What it is.
    pub step: Step,
}

/// What has to work.
#[derive(Clone, Debug)]
pub enum Step {
    /// The caller asks the cluster's DNS for the name.
    Dns {
        /// `namespace/name` of the DNS Service.
        service: String,
        /// To its endpoints, over UDP and TCP. Empty when it could not be judged.
        paths: Vec<Path>,
        /// Why it was not judged; it then counts as working.
        unchecked: Option<String>,
    },
    /// The name leads to another name: a Service of type ExternalName.
    Alias {
        /// `namespace/name` of the Service.
        service: String,
        /// The name it leads to.
        name: String,
    },
    /// A name outside the cluster.
    Name {
        /// The name.
        name: String,
        /// Its addresses, where they are known.
        addresses: Option<Vec<IpAddr>>,
    },
    /// The Service with its port and endpoints.
    Service(ServiceLink),
    /// The connection itself, to every pod or address it may go to.
    Connection {
        /// Denied ones first.
        paths: Vec<Path>,
    },
}

impl Step {
    /// The connections it is made of.
    pub fn paths(&self) -> &[Path] {
        match self {
            Step::Dns { paths, .. } | Step::Connection { paths } => paths,
            Step::Alias { .. } | Step::Name { .. } | Step::Service(_) => &[],
        }
    }
}

/// What there is to say of a Service that is called.
#[derive(Clone, Debug)]
pub struct ServiceLink {
    /// `namespace/name`
    pub service: String,
    /// The port called.
    pub port: Option<u16>,
    /// Its name, where it has one.
    pub port_name: Option<String>,
    /// The name stands for the pods' own addresses: no port is translated.
    pub headless: bool,
    /// Each ready endpoint as `shop/api-1:8080`.
    pub endpoints: Vec<String>,
    /// The pods it selects that get no connections.
    pub not_ready: Vec<NotReady>,
    /// Why no call to it can work, whatever the policies say.
    pub problem: Option<String>,
}

/// A pod that a Service selects and that is no endpoint of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotReady {
    /// `namespace/name`
    pub pod: String,
    /// Why, as in `is not ready`.
    pub why: String,
}

/// A connection between two definite ends, and all others that the policies treat the same way.
#[derive(Clone, Debug)]
pub struct Path {
    /// Every source it stands for, the one explained first.
    pub from: Vec<String>,
    /// Every destination it stands for, the one explained first.
    pub to: Vec<String>,
    /// The source that is explained.
    pub source: Party,
    /// The destination that is explained.
    pub destination: Party,
    /// The port of the destination itself.
    pub port: Option<u16>,
    /// The protocol.
    pub protocol: Protocol,
    /// What the engine says of all of them.
    pub verdict: Verdict,
    /// Why.
    pub explanation: Explanation,
}
