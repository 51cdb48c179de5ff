//! From whom to whom: the part of a denial that stays the same for its repeats.

use std::sync::Arc;

use crate::cluster::Service;
use crate::diagnose::{Class, Denial};
use crate::flow::{IcmpKind, Protocol};
use crate::identify::{Party, ServiceAddress};
use crate::pipeline::server_port;

/// The ends of a dropped connection and the kind of its cause: what a summary of repeats still has to say.
#[derive(Clone, Debug)]
pub struct Route {
    /// Who opened the connection.
    pub client: Party,
    /// Who was called.
    pub server: Party,
    /// The Service dialled.
    pub service: Option<Dialled>,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Port of the server, where the packet shows one.
    pub port: Option<u16>,
    /// Type and code of an ICMP message.
    pub icmp: Option<IcmpKind>,
    /// A fragment that shows no ports.
    pub fragment: bool,
    /// Kind of cause.
    pub class: Class,
}

/// The Service a client dialled, and the port of it.
#[derive(Clone, Debug)]
pub struct Dialled {
    /// The Service.
    pub service: Arc<Service>,
    /// The port dialled.
    pub port: Option<u16>,
    /// By an address of a load balancer.
    pub by_load_balancer: bool,
}

impl Route {
    /// The route of a denial.
    pub fn of(denial: &Denial) -> Self {
        let flow = &denial.event.flow;
        Route {
            client: denial.who.client.clone(),
            server: denial.who.server.clone(),
            service: denial.who.service.as_ref().map(|call| Dialled {
                service: Arc::clone(&call.service),
                port: call.port,
                by_load_balancer: call.by() == ServiceAddress::LoadBalancer,
            }),
            protocol: flow.protocol,
            port: server_port(&denial.event, &denial.who),
            icmp: flow.icmp,
            fragment: flow.fragment.is_some_and(|fragment| fragment.offset > 0),
            class: denial.diagnosis.class.clone(),
        }
    }
}

/// The name of a class in JSON (`policyDenied`). `--class` takes it too, or with hyphens.
pub fn class_name(class: &Class) -> &'static str {
    match class {
        Class::PolicyDenied(_) => "policyDenied",
        Class::DroppedReply => "droppedReply",
        Class::PolicyChanged => "policyChanged",
        Class::HostFirewall => "hostFirewall",
        Class::NoListener => "noListener",
        Class::ServiceWithoutEndpoints => "serviceWithoutEndpoints",
        Class::NoRoute => "noRoute",
        Class::ReversePathFilter => "reversePathFilter",
        Class::ConnectionState => "connectionState",
        Class::Noise => "noise",
        Class::Undecided => "undecided",
    }
}
