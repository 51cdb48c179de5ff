//! The calls of the demo, and what must come of each.

/// A call by someone of the shop.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// What it shows, in a few words.
    pub(super) title: &'static str,
    /// One sentence on why it ends as it does.
    pub(super) why: &'static str,
    /// Who calls: a pod `NAMESPACE/APP`, or the name of a host outside.
    pub(super) caller: &'static str,
    /// What is called.
    pub(super) call: Call,
    /// Over IPv6.
    pub(super) ipv6: bool,
    /// What the observer must say; none for a call that must get its answer.
    pub(super) denied: Option<Denied>,
}

/// A kind of call.
#[derive(Clone, Copy, Debug)]
pub(super) enum Call {
    /// HTTP.
    Http(Target, u16),
    /// A UDP datagram that is acknowledged.
    Udp(Target, u16),
    /// A look-up of a Service `NAMESPACE/NAME` at the cluster's DNS Service.
    Dns(&'static str),
}

/// Who is called.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    /// A Service `NAMESPACE/NAME` by its DNS name.
    Service(&'static str),
    /// A Service by its address, without asking DNS.
    ServiceAddress(&'static str),
    /// A pod `NAMESPACE/APP` by its address.
    Pod(&'static str),
    /// The node.
    Node,
    /// An address outside the cluster.
    Outside(&'static str),
}

/// What the observer must report of a denied call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Denied {
    /// `class` of the JSON.
    pub(super) class: &'static str,
    /// The side called, after translation: pod `NAMESPACE/APP`, `node`, or an address.
    pub(super) server: &'static str,
    /// Its port, after translation.
    pub(super) port: u16,
    /// Directions in which policies deny.
    pub(super) directions: &'static [&'static str],
    /// All policies that isolate in these directions, sorted.
    pub(super) policies: &'static [&'static str],
    /// The conditions the nearest rule misses; empty when there is no rule at all.
    pub(super) misses: &'static [&'static str],
    /// The Service dialled, where the kernel's evidence names it.
    pub(super) service: Option<&'static str>,
}

/// The cluster's DNS.
pub(super) const DNS_SERVICE: &str = "kube-system/kube-dns";

/// Hosts outside the cluster, their addresses, and the port they answer HTTP on.
pub(super) const OUTSIDE: &[(&str, &[&str], Option<u16>)] = &[
    ("customer", &["203.0.113.10", "2001:db8:1::10"], None),
    ("crawler", &["203.0.113.200", "2001:db8:1::200"], None),
    // The bank's production system and its test system.
    ("bank", &["198.51.100.20", "198.51.100.21", "2001:db8:2::20"], Some(8443)),
];

/// Ports that a manifest declares and nobody listens on: the cart's web server has crashed, its exporter runs.
pub(super) const CRASHED: &[(&str, u16)] = &[("shop/cart", 8080)];

use Call::{Dns, Http, Udp};
use Target::{Node, Outside, Pod, Service, ServiceAddress};

const fn allowed(title: &'static str, caller: &'static str, call: Call, ipv6: bool) -> Step {
    Step { title, why: "", caller, call, ipv6, denied: None }
}

/// Calls that must work.
pub(super) const ALLOWED: &[Step] = &[
    allowed("Service", "shop/frontend", Http(Service("shop/api"), 80), false),
    allowed("Service over IPv6", "shop/frontend", Http(Service("shop/api"), 80), true),
    allowed("pod to pod", "shop/api", Http(Service("shop/database"), 5432), false),
    allowed("metrics by name", "monitoring/prometheus", Http(Pod("shop/api"), 9090), false),
    allowed("metrics by name, other number", "monitoring/prometheus", Http(Pod("shop/cart"), 9102), false),
    allowed("DNS despite egress policy", "shop/payment", Dns("shop/api"), false),
    allowed("egress to the bank", "shop/payment", Http(Outside("198.51.100.20"), 8443), false),
    allowed("egress without DNS, by address", "shop/invoice", Http(ServiceAddress("shop/database"), 5432), false),
    allowed("customer from outside", "customer", Http(Pod("shop/frontend"), 8080), false),
];

/// What [`DENIED`] has in common where policies deny.
const POLICY: Denied =
    Denied { class: "policyDenied", server: "", port: 0, directions: &["ingress"], policies: &[], misses: &[], service: None };

/// Calls that must fail, one per cause.
pub(super) const DENIED: &[Step] = &[
    Step {
        title: "wrong label",
        why: "policy api admits pods with app=frontend; this one has app=frontend-legacy",
        caller: "shop/frontend-legacy",
        call: Http(Service("shop/api"), 80),
        ipv6: false,
        denied: Some(Denied {
            server: "shop/api",
            port: 8080,
            policies: &["shop/api", "shop/default-deny", "shop/metrics"],
            misses: &["podLabel"],
            service: Some("shop/api"),
            ..POLICY
        }),
    },
    Step {
        title: "wrong namespace label",
        why: "policy metrics wants a namespace with team=observability; tools has team=platform",
        caller: "tools/prometheus",
        call: Http(Pod("shop/api"), 9090),
        ipv6: false,
        denied: Some(Denied {
            server: "shop/api",
            port: 9090,
            policies: &["shop/api", "shop/default-deny", "shop/metrics"],
            misses: &["namespaceLabel"],
            ..POLICY
        }),
    },
    Step {
        title: "wrong port",
        why: "policy api admits the frontend on 8080, not on the metrics port",
        caller: "shop/frontend",
        call: Http(Pod("shop/api"), 9090),
        ipv6: false,
        denied: Some(Denied {
            server: "shop/api",
            port: 9090,
            policies: &["shop/api", "shop/default-deny", "shop/metrics"],
            misses: &["portNumber"],
            ..POLICY
        }),
    },
    Step {
        title: "named port, other number",
        why: "policy metrics admits the port named metrics, which is 9102 on the cart",
        caller: "monitoring/prometheus",
        call: Http(Pod("shop/cart"), 9090),
        ipv6: false,
        denied: Some(Denied {
            server: "shop/cart",
            port: 9090,
            policies: &["shop/cart", "shop/default-deny", "shop/metrics"],
            misses: &["namedPortNumber"],
            ..POLICY
        }),
    },
    Step {
        title: "default deny",
        why: "nobody wrote a rule for the mailer",
        caller: "shop/api",
        call: Http(Service("shop/mailer"), 80),
        ipv6: false,
        denied: Some(Denied {
            server: "shop/mailer",
            port: 8025,
            policies: &["shop/default-deny"],
            service: Some("shop/mailer"),
            ..POLICY
        }),
    },
    Step {
        title: "rejected call to a Service",
        why: "policy database admits api and invoice; this plugin answers the others with an ICMP error",
        caller: "shop/cart",
        call: Http(Service("shop/database"), 5432),
        ipv6: false,
        denied: Some(Denied {
            server: "shop/database",
            port: 5432,
            policies: &["shop/database", "shop/default-deny", "shop/metrics"],
            misses: &["podLabel"],
            service: Some("shop/database"),
            ..POLICY
        }),
    },
    Step {
        title: "egress",
        why: "policy payment-egress names the bank's production system; this is its test system",
        caller: "shop/payment",
        call: Http(Outside("198.51.100.21"), 8443),
        ipv6: false,
        denied: Some(Denied {
            server: "198.51.100.21",
            port: 8443,
            directions: &["egress"],
            policies: &["shop/payment-egress"],
            misses: &["outsideBlock"],
            ..POLICY
        }),
    },
    Step {
        title: "DNS forgotten",
        why: "policy invoice-egress admits the database and no DNS",
        caller: "shop/invoice",
        call: Dns("shop/database"),
        ipv6: false,
        denied: Some(Denied {
            server: "kube-system/coredns",
            port: 53,
            directions: &["egress"],
            policies: &["shop/invoice-egress"],
            misses: &["podLabel", "protocol"],
            service: Some(DNS_SERVICE),
            ..POLICY
        }),
    },
    Step {
        title: "both directions",
        why: "payment-egress does not name the api, and policy api does not name payment",
        caller: "shop/payment",
        call: Http(Service("shop/api"), 80),
        ipv6: false,
        denied: Some(Denied {
            server: "shop/api",
            port: 8080,
            directions: &["egress", "ingress"],
            policies: &["shop/api", "shop/default-deny", "shop/metrics", "shop/payment-egress"],
            misses: &["podLabel"],
            service: Some("shop/api"),
            ..POLICY
        }),
    },
    Step {
        title: "ipBlock except",
        why: "policy frontend admits 203.0.113.0/24 except its upper half",
        caller: "crawler",
        call: Http(Pod("shop/frontend"), 8080),
        ipv6: false,
        denied: Some(Denied {
            server: "shop/frontend",
            port: 8080,
            policies: &["shop/default-deny", "shop/frontend"],
            misses: &["excepted"],
            ..POLICY
        }),
    },
    Step {
        title: "IPv6",
        why: "policy frontend names IPv4 blocks only",
        caller: "customer",
        call: Http(Pod("shop/frontend"), 8080),
        ipv6: true,
        denied: Some(Denied {
            server: "shop/frontend",
            port: 8080,
            policies: &["shop/default-deny", "shop/frontend"],
            misses: &["family"],
            ..POLICY
        }),
    },
    Step {
        title: "UDP",
        why: "policy statsd has a port without protocol, which means TCP",
        caller: "shop/frontend",
        call: Udp(Pod("monitoring/statsd"), 8125),
        ipv6: false,
        denied: Some(Denied { server: "monitoring/statsd", port: 8125, policies: &["monitoring/statsd"], misses: &["protocol"], ..POLICY }),
    },
    Step {
        title: "host firewall",
        why: "no policy speaks of the node; the administrator's firewall dropped it",
        caller: "monitoring/prometheus",
        call: Http(Node, 9100),
        ipv6: false,
        denied: Some(Denied { class: "hostFirewall", server: "node", port: 9100, directions: &[], ..POLICY }),
    },
    Step {
        title: "nobody listens",
        why: "policies admit it; the cart's web server has crashed",
        caller: "shop/frontend",
        call: Http(Service("shop/cart"), 80),
        ipv6: false,
        denied: Some(Denied { class: "noListener", server: "shop/cart", port: 8080, directions: &[], ..POLICY }),
    },
    Step {
        title: "Service without endpoints",
        why: "no pod is behind the Service reports; no policy has a part in it",
        caller: "shop/frontend",
        call: Http(Service("shop/reports"), 80),
        ipv6: false,
        denied: Some(Denied {
            class: "serviceWithoutEndpoints",
            server: "service shop/reports",
            port: 80,
            directions: &[],
            service: Some("shop/reports"),
            ..POLICY
        }),
    },
];

impl Step {
    /// What happens, as one reads it in a log: `shop/frontend calls http://api.shop/`.
    pub(super) fn sentence(&self) -> String {
        let by = if self.ipv6 { " over IPv6" } else { "" };
        match self.call {
            Http(target, 80) => format!("{} calls http://{}/{by}", self.caller, target.name()),
            Http(target, port) => format!("{} calls http://{}:{port}/{by}", self.caller, target.name()),
            Udp(target, port) => format!("{} sends UDP to {}:{port}{by}", self.caller, target.name()),
            Dns(service) => format!("{} looks up {}{by}", self.caller, Service(service).name()),
        }
    }
}

impl Target {
    fn name(self) -> String {
        match self {
            // `NAME.NAMESPACE`, what people write in URLs; resolvers complete it.
            Service(key) => key.split_once('/').map_or_else(|| key.to_owned(), |(namespace, name)| format!("{name}.{namespace}")),
            ServiceAddress(key) => format!("<address of Service {key}>"),
            Pod(key) => format!("<{key}>"),
            Node => "<node-1>".to_owned(),
            Outside(address) => address.to_owned(),
        }
    }
}
