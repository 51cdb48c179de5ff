//! The answer to a question as one object.

use std::net::IpAddr;

use serde::Serialize;

use super::parts::PartyObject;
use crate::flow::Protocol;
use crate::policy::{Explanation, Verdict};
use crate::question::{Answer, Link, Path, ServiceLink, Step};

/// The object of an answer.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AnswerObject<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    question: QuestionObject<'a>,
    verdict: Verdict,
    chain: Vec<LinkObject<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    explanation: Option<&'a Explanation>,
    notes: &'a [String],
}

#[derive(Serialize)]
struct QuestionObject<'a> {
    from: &'a str,
    to: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    protocol: Protocol,
}

/// One link of the chain.
#[derive(Serialize)]
#[serde(tag = "link", rename_all = "camelCase")]
pub enum LinkObject<'a> {
    /// The cluster's DNS is asked.
    Dns {
        /// What is said of it.
        verdict: Verdict,
        /// `namespace/name` of the DNS Service.
        service: &'a str,
        /// Why it was not judged.
        #[serde(skip_serializing_if = "Option::is_none")]
        unchecked: Option<&'a str>,
        /// The connections.
        paths: Vec<PathObject<'a>>,
    },
    /// A Service that stands for another name.
    Alias {
        /// What is said of it.
        verdict: Verdict,
        /// `namespace/name`
        service: &'a str,
        /// The name it leads to.
        name: &'a str,
    },
    /// A name outside the cluster.
    Name {
        /// What is said of it.
        verdict: Verdict,
        /// The name.
        name: &'a str,
        /// Its addresses, where known.
        #[serde(skip_serializing_if = "Option::is_none")]
        addresses: Option<&'a [IpAddr]>,
    },
    /// The Service.
    Service(ServiceLinkObject<'a>),
    /// The connection itself.
    Connection {
        /// What is said of it.
        verdict: Verdict,
        /// All there are.
        paths: Vec<PathObject<'a>>,
    },
}

/// `link: service`
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceLinkObject<'a> {
    verdict: Verdict,
    service: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port_name: Option<&'a str>,
    headless: bool,
    endpoints: &'a [String],
    not_ready: Vec<NotReadyObject<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'a str>,
}

#[derive(Serialize)]
struct NotReadyObject<'a> {
    pod: &'a str,
    why: &'a str,
}

/// Connections that the policies treat the same way.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PathObject<'a> {
    from: &'a [String],
    to: &'a [String],
    client: PartyObject<'a>,
    server: PartyObject<'a>,
    protocol: Protocol,
    verdict: Verdict,
    explanation: &'a Explanation,
}

impl<'a> AnswerObject<'a> {
    /// The object of `answer`.
    pub fn of(answer: &'a Answer) -> Self {
        AnswerObject {
            kind: "answer",
            question: QuestionObject { from: &answer.from, to: &answer.to, port: answer.port, protocol: answer.protocol },
            verdict: answer.verdict,
            chain: chain(answer),
            explanation: answer.decisive().map(|path| &path.explanation),
            notes: &answer.notes,
        }
    }
}

/// The links of an answer.
pub fn chain(answer: &Answer) -> Vec<LinkObject<'_>> {
    answer.chain.iter().map(link).collect()
}

fn link(link: &Link) -> LinkObject<'_> {
    let verdict = link.verdict;
    match &link.step {
        Step::Dns { service, paths, unchecked } => {
            LinkObject::Dns { verdict, service, unchecked: unchecked.as_deref(), paths: paths.iter().map(path).collect() }
        }
        Step::Alias { service, name } => LinkObject::Alias { verdict, service, name },
        Step::Name { name, addresses } => LinkObject::Name { verdict, name, addresses: addresses.as_deref() },
        Step::Service(service) => LinkObject::Service(service_link(service, verdict)),
        Step::Connection { paths } => LinkObject::Connection { verdict, paths: paths.iter().map(path).collect() },
    }
}

fn service_link(link: &ServiceLink, verdict: Verdict) -> ServiceLinkObject<'_> {
    ServiceLinkObject {
        verdict,
        service: &link.service,
        port: link.port,
        port_name: link.port_name.as_deref(),
        headless: link.headless,
        endpoints: &link.endpoints,
        not_ready: link.not_ready.iter().map(|pod| NotReadyObject { pod: &pod.pod, why: &pod.why }).collect(),
        problem: link.problem.as_deref(),
    }
}

fn path(path: &Path) -> PathObject<'_> {
    PathObject {
        from: &path.from,
        to: &path.to,
        client: PartyObject::of(&path.source, None),
        server: PartyObject::of(&path.destination, path.port),
        protocol: path.protocol,
        verdict: path.verdict,
        explanation: &path.explanation,
    }
}
