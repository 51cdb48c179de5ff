//! How parties and evidence are called in a summary. Plain words first, the kernel's beside them.

use crate::flow::{DropEvent, Hook};
use crate::identify::{Identity, Party, Who};

/// Joins the sentences there are.
pub(super) fn sentences<const N: usize>(parts: [Option<String>; N]) -> String {
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// Words for one drop.
pub(super) struct Words<'a> {
    pub(super) event: &'a DropEvent,
    pub(super) who: &'a Who,
}

impl Words<'_> {
    /// The side that opened the connection.
    pub(super) fn client(&self) -> String {
        party(&self.who.client)
    }

    /// The side that was called.
    pub(super) fn server(&self) -> String {
        party(&self.who.server)
    }

    /// Port and protocol that the server was called on, as people write them: `8080/TCP`, `ICMP`. For a call to a Service that
    /// was dropped before translation this is the target port, which is what policies and listeners go by.
    pub(super) fn port(&self) -> String {
        let flow = &self.event.flow;
        let untranslated = self.who.service.as_ref().filter(|call| call.ip == flow.destination);
        let target = untranslated.and_then(|call| call.backends.iter().find(|(ip, _)| *ip == self.who.server.ip));
        match target.map(|(_, port)| *port).or(flow.destination_port) {
            Some(port) => format!("{port}/{}", flow.protocol),
            None => flow.protocol.to_string(),
        }
    }

    /// Name of the device.
    pub(super) fn interface(&self) -> Option<&str> {
        self.event.interface.as_ref().map(|interface| &*interface.name).filter(|name| !name.is_empty())
    }

    /// `dropped in the forward hook on veth1a2b (NETFILTER_DROP in nf_hook_slow)`, as far as it is known.
    pub(super) fn evidence(&self) -> String {
        let mut text = "dropped".to_owned();
        if let Some(hook) = self.event.hook {
            text += &format!(" in the {hook} hook");
        }
        if let Some(interface) = self.interface() {
            text += if self.event.outgoing { " on its way out by " } else { " on " };
            text += interface;
        }
        text + &self.kernel()
    }

    /// ` (NETFILTER_DROP in nf_hook_slow)`
    fn kernel(&self) -> String {
        let reason = &self.event.reason.name;
        match &self.event.location.symbol {
            // Number 0 stands for kernels without reasons.
            Some(symbol) if self.event.reason.number == 0 => format!(" (in {})", symbol.base_name()),
            Some(symbol) => format!(" ({reason} in {})", symbol.base_name()),
            None => format!(" ({reason})"),
        }
    }

    /// What an enforcer dropped although the policies allow it.
    pub(super) fn host_firewall(&self) -> String {
        let interface = self.interface().map(|name| format!(" on {name}")).unwrap_or_default();
        let kernel = self.kernel();
        let evidence = self.evidence();
        match (&self.who.server.identity, &self.who.client.identity) {
            (Identity::Node(node), _) if self.event.hook == Some(Hook::Input) => format!(
                "The packet was dropped in the input hook of node {}{interface}{kernel}: a host firewall rule; no NetworkPolicy speaks of nodes.",
                node.name
            ),
            (Identity::Node(node), _) => format!(
                "The packet to node {} was {evidence}: a firewall rule outside the policies; no NetworkPolicy speaks of nodes.",
                node.name
            ),
            (_, Identity::Node(node)) if self.event.hook == Some(Hook::Output) => format!(
                "The packet was dropped in the output hook of node {}{interface}{kernel}, as it was being sent: a host firewall rule; the \
                 policies allow it.",
                node.name
            ),
            _ => format!(
                "The packet was {evidence}, and the policies allow it: {}, or enforcement rules that are stale.",
                self.kind_of_rule()
            ),
        }
    }

    pub(super) fn kind_of_rule(&self) -> &'static str {
        let symbol = self.event.location.symbol.as_ref();
        if symbol.is_some_and(|symbol| symbol.base_name().contains("xdp") || symbol.base_name() == "veth_poll") {
            return "an XDP program outside the policies";
        }
        match &*self.event.reason.name {
            "TC_INGRESS" | "TC_EGRESS" => "a traffic-control (eBPF) program outside the policies",
            "BPF_CGROUP_EGRESS" => "an eBPF program on the sender's cgroup",
            "SOCKET_FILTER" => "an eBPF program on the receiver's cgroup or a filter on its socket",
            _ => "a firewall rule outside the policies",
        }
    }
}

pub(super) fn party(party: &Party) -> String {
    let ip = party.ip;
    match &party.identity {
        Identity::Pod(pod) => format!("{}/{}", pod.namespace, pod.name),
        Identity::Node(node) => format!("node {}", node.name),
        Identity::Service(service) => format!("Service {}/{}", service.namespace, service.name),
        Identity::AmbiguousPods(pods) => format!("one of the {} pods with address {ip}", pods.len()),
        Identity::UnownedPodAddress => format!("{ip} (a pod address without a known pod)"),
        Identity::Special | Identity::External | Identity::NotShown => ip.to_string(),
    }
}
