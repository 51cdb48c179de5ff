//! Which connections a question is about.

use std::net::IpAddr;
use std::sync::Arc;

use super::Question;
use super::answer::{ServiceLink, Step};
use super::close::{close, did_you_mean, listed};
use super::end::End;
use super::error::QuestionError;
use super::find::{Destination, Member, members, service};
use super::service::{called, only_port, ports_of};
use super::target::{Callee, Host};
use crate::cluster::{Index, Service, ServiceDns};
use crate::flow::Protocol;
use crate::identify::{Identity, ServiceCall, service_call};

/// The Service that nearly every cluster has its DNS behind, and its port.
pub(super) const DNS: (&str, &str, u16) = ("kube-system", "kube-dns", 53);

/// ExternalNames that lead to another one, followed.
const MAX_ALIASES: usize = 8;

/// The domain of the cluster's own names.
const CLUSTER_DOMAIN: &str = ".svc.cluster.local";

/// What there is to ask the engine.
pub(super) struct Plan {
    pub(super) sources: Vec<Member>,
    /// Whether a name has to be looked up first.
    pub(super) looks_up: bool,
    /// What the name leads to, in order.
    pub(super) aliases: Vec<Step>,
    pub(super) service: Option<ServiceLink>,
    pub(super) call: Option<ServiceCall>,
    /// Whom the connections go to, with the port there.
    pub(super) destinations: Vec<Destination>,
    /// The destination is a name whose addresses are not known.
    pub(super) is_unknown_name: bool,
    pub(super) port: Option<u16>,
    pub(super) protocol: Protocol,
}

/// Whom a name stands for.
enum Named {
    Service(Arc<Service>),
    Member(Box<Member>),
    Outside(String),
}

/// Finds the ends.
///
/// # Errors
/// What is not there, and what was probably meant.
pub(super) fn plan(question: &Question, index: &Index) -> Result<Plan, QuestionError> {
    let protocol = question.called_protocol();
    let mut plan = Plan {
        sources: members(&question.from, index)?,
        looks_up: false,
        aliases: Vec::new(),
        service: None,
        call: None,
        destinations: Vec::new(),
        is_unknown_name: false,
        port: question.called_port(),
        protocol,
    };
    match &question.to {
        Callee::End(End::Service { namespace, name }) => {
            plan.looks_up = true;
            plan.call_service(service(namespace, name, index)?.clone(), index)?;
        }
        Callee::End(End::Ip(ip)) => plan.call_ip(*ip, index),
        Callee::End(end) => plan.call_members(members(end, index)?),
        Callee::Url(url) => match &url.host {
            Host::Ip(ip) => plan.call_ip(*ip, index),
            Host::Name(name) => {
                plan.looks_up = true;
                let namespace = namespace_of(&question.from, &plan.sources);
                plan.call_name(name, namespace.as_deref(), index)?;
            }
        },
    }
    Ok(plan)
}

impl Plan {
    fn call_members(&mut self, members: Vec<Member>) {
        self.destinations = members.into_iter().map(|member| (member, self.port)).collect();
    }

    fn call_ip(&mut self, ip: IpAddr, index: &Index) {
        match service_call((ip, self.port), self.protocol, index) {
            // An address that is a node's or a pod's too is called as that, unless a port of the Service tells otherwise.
            Some(call) => {
                // A node port is not the Service's own.
                let port = match index.node_port(call.port.unwrap_or_default(), self.protocol).filter(|_| index.node_at(ip).is_some()) {
                    Some((service, at)) if *service == call.service => service.ports.get(at).map(|port| port.port),
                    _ => call.port,
                };
                let called = called(&call.service, Some(ip), port, self.protocol, index);
                self.service = Some(called.link);
                self.call = Some(call);
                self.destinations = called.destinations;
            }
            None => self.call_members(vec![Member::of_ip(ip, index)]),
        }
    }

    fn call_service(&mut self, service: Arc<Service>, index: &Index) -> Result<(), QuestionError> {
        let mut next = service;
        for _ in 0..MAX_ALIASES {
            let ServiceDns::Name(name) = &next.dns else {
                return self.call_endpoints(&next, index);
            };
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            self.aliases.push(Step::Alias { service: format!("{}/{}", next.namespace, next.name), name: name.clone() });
            // The answer is a full name: no namespace is put behind it.
            match look_up(&name, None, index)? {
                Named::Service(service) => next = service,
                Named::Member(member) => {
                    self.call_members(vec![*member]);
                    return Ok(());
                }
                Named::Outside(name) => {
                    self.call_outside(&name, index);
                    return Ok(());
                }
            }
        }
        Err(QuestionError::new(format!("Service {}/{} leads to other names without end", next.namespace, next.name)))
    }

    fn call_endpoints(&mut self, service: &Arc<Service>, index: &Index) -> Result<(), QuestionError> {
        if self.port.is_none() && self.protocol.has_ports() {
            self.port = only_port(service, self.protocol);
            if self.port.is_none() {
                let error = QuestionError::new(format!("which port of Service {}/{}?", service.namespace, service.name));
                return Err(error.hint(format!("give it with --port; it has {}", ports_of(service))));
            }
        }
        let called = called(service, None, self.port, self.protocol, index);
        self.service = Some(called.link);
        self.call = Some(called.call);
        self.destinations = called.destinations;
        Ok(())
    }

    fn call_name(&mut self, name: &str, namespace: Option<&str>, index: &Index) -> Result<(), QuestionError> {
        match look_up(name, namespace, index)? {
            Named::Service(service) => self.call_service(service, index),
            Named::Member(member) => {
                self.call_members(vec![*member]);
                Ok(())
            }
            Named::Outside(name) => {
                self.call_outside(&name, index);
                Ok(())
            }
        }
    }

    fn call_outside(&mut self, name: &str, index: &Index) {
        let known = index.domain_name(name);
        self.aliases.push(Step::Name { name: name.to_owned(), addresses: known.map(|known| known.addresses.clone()) });
        let members = match known {
            Some(known) => known.addresses.iter().map(|ip| Member::of_ip(*ip, index)).collect(),
            None => {
                self.is_unknown_name = true;
                vec![Member { name: name.to_owned(), identity: Identity::External, ips: Vec::new(), note: None }]
            }
        };
        self.call_members(members);
    }
}

/// What the resolver of a pod of `namespace` makes of a name: the search path of a pod is its namespace, `svc` and the cluster's domain,
/// and a name that leads nowhere there is one of the outside.
fn look_up(name: &str, namespace: Option<&str>, index: &Index) -> Result<Named, QuestionError> {
    let inside = name.strip_suffix(CLUSTER_DOMAIN).or_else(|| name.strip_suffix(".svc"));
    let parts: Vec<&str> = inside.unwrap_or(name).split('.').collect();
    match (parts.as_slice(), namespace) {
        ([only], Some(namespace)) if inside.is_none() => service(namespace, only, index).cloned().map(Named::Service),
        ([only], None) if inside.is_none() => {
            Err(QuestionError::new(format!("{only}: a name alone is looked up in the namespace of the caller, and this caller has none"))
                .hint(format!("write {only}.NAMESPACE")))
        }
        ([name, namespace], _) if inside.is_some() || index.service(namespace, name).is_some() || has_services(namespace, index) => {
            service(namespace, name, index).cloned().map(Named::Service)
        }
        // Pods of a StatefulSet have names of their own below its headless Service.
        ([pod, name, namespace], _) if inside.is_some() || index.service(namespace, name).is_some() => {
            service(namespace, name, index)?;
            members(&End::Pod { namespace: (*namespace).to_owned(), name: (*pod).to_owned() }, index)?
                .pop()
                .map(|member| Named::Member(Box::new(member)))
                .ok_or_else(|| QuestionError::new(format!("no pod {namespace}/{pod}")))
        }
        _ if inside.is_some() => {
            Err(QuestionError::new(format!("{name} is no name of a Service")).hint("Services are named NAME.NAMESPACE.svc.cluster.local"))
        }
        ([service_name, typed], _) if index.domain_name(name).is_none() => match like_a_namespace(typed, service_name, index) {
            Some(error) => Err(error),
            None => Ok(Named::Outside(name.to_owned())),
        },
        _ => Ok(Named::Outside(name.to_owned())),
    }
}

fn has_services(namespace: &str, index: &Index) -> bool {
    index.namespace(namespace).is_some() || index.services().any(|service| &*service.namespace == namespace)
}

/// `api.shp`: a Service of a namespace that is spelt wrong, rather than a name of the outside.
fn like_a_namespace(typed: &str, name: &str, index: &Index) -> Option<QuestionError> {
    let with_service: Vec<&str> = index.services().filter(|service| &*service.name == name).map(|service| &*service.namespace).collect();
    let meant: Vec<String> = close(typed, with_service).into_iter().map(|namespace| format!("{name}.{namespace}")).collect();
    let question = did_you_mean(&meant)?;
    let mut namespaces: Vec<String> = index.services().map(|service| service.namespace.to_string()).collect();
    namespaces.dedup();
    Some(QuestionError::new(format!("no namespace {typed} with a Service {name}")).hint(question).hint(format!(
        "namespaces with Services: {}; a name outside the cluster is taken as one when --domain-names tells its addresses, or with a dot at its end: {name}.{typed}.",
        listed(&namespaces)
    )))
}

/// The namespace in which the caller's resolver looks first.
fn namespace_of(from: &End, sources: &[Member]) -> Option<String> {
    match from {
        End::Pod { namespace, .. } | End::Workload { namespace, .. } | End::Service { namespace, .. } | End::Labels { namespace, .. } => {
            Some(namespace.clone())
        }
        End::Ip(_) => sources.first()?.identity.pod().map(|pod| pod.namespace.to_string()),
        End::Node(_) => None,
    }
}
