//! What is in the cluster, before it is written down.

use super::Shape;
use super::random::Random;

/// Teams that own namespaces.
pub(super) const TEAMS: [&str; 12] =
    ["shop", "search", "payments", "identity", "data", "mobile", "growth", "logistics", "support", "risk", "media", "platform"];

/// Stages, the first for half of the namespaces.
pub(super) const STAGES: [&str; 4] = ["prod", "prod", "staging", "dev"];

const NOUNS: [&str; 16] = [
    "cart", "orders", "catalog", "users", "billing", "search", "mail", "reports", "stock", "prices", "events", "media", "auth", "audit",
    "quotes", "feeds",
];

/// A port that a container serves.
pub(super) type Port = (&'static str, u16, &'static str);

/// What workloads of a role have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Role {
    pub(super) name: &'static str,
    /// Label `tier`.
    pub(super) tier: &'static str,
    pub(super) kind: Kind,
    /// The numbers that the first port may have.
    numbers: &'static [u16],
    /// The first port's name; no ports at all where it is empty.
    port: &'static str,
    metrics: bool,
}

/// Kinds of workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Deployment,
    StatefulSet,
    DaemonSet,
    Job,
}

const DEPLOYMENT: Kind = Kind::Deployment;
const ROLES: [Role; 10] = [
    Role { name: "web", tier: "frontend", kind: DEPLOYMENT, numbers: &[8080, 3000, 80], port: "http", metrics: true },
    Role { name: "api", tier: "backend", kind: DEPLOYMENT, numbers: &[8080, 8000, 5000], port: "http", metrics: true },
    Role { name: "api", tier: "backend", kind: DEPLOYMENT, numbers: &[8080], port: "http", metrics: true },
    Role { name: "grpc", tier: "backend", kind: DEPLOYMENT, numbers: &[50051, 9000], port: "grpc", metrics: true },
    Role { name: "worker", tier: "backend", kind: DEPLOYMENT, numbers: &[8081], port: "health", metrics: true },
    Role { name: "postgres", tier: "data", kind: Kind::StatefulSet, numbers: &[5432], port: "postgres", metrics: true },
    Role { name: "redis", tier: "data", kind: DEPLOYMENT, numbers: &[6379], port: "redis", metrics: false },
    Role { name: "web", tier: "frontend", kind: DEPLOYMENT, numbers: &[8080], port: "http", metrics: false },
    Role { name: "rabbitmq", tier: "data", kind: Kind::StatefulSet, numbers: &[5672], port: "amqp", metrics: true },
    Role { name: "migrate", tier: "backend", kind: Kind::Job, numbers: &[], port: "", metrics: false },
];

/// Pods of one template.
#[derive(Clone, Debug)]
pub(super) struct Workload {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Labels besides those that controllers add.
    pub(super) labels: Vec<(&'static str, String)>,
    pub(super) ports: Vec<Port>,
    pub(super) replicas: usize,
    pub(super) host_network: bool,
}

impl Workload {
    /// Value of one of its labels.
    pub(super) fn label(&self, key: &str) -> &str {
        self.labels.iter().find(|(found, _)| *found == key).map_or("", |(_, value)| value)
    }

    /// The port that callers dial.
    pub(super) fn port(&self) -> Option<&Port> {
        self.ports.first()
    }
}

/// A namespace and what runs in it.
#[derive(Clone, Debug)]
pub(super) struct Namespace {
    pub(super) name: String,
    pub(super) labels: Vec<(&'static str, String)>,
    pub(super) workloads: Vec<Workload>,
    /// Whether it is the cluster's own.
    pub(super) is_system: bool,
}

/// The cluster.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) nodes: usize,
    pub(super) namespaces: Vec<Namespace>,
}

impl Plan {
    /// The teams that have a namespace.
    pub(super) fn teams(&self) -> &'static [&'static str] {
        let namespaces = self.namespaces.iter().filter(|namespace| !namespace.is_system).count();
        &TEAMS[..namespaces.min(TEAMS.len())]
    }

    pub(super) fn new(shape: &Shape, random: &mut Random) -> Self {
        let nodes = shape.nodes();
        let mut namespaces = system(nodes);
        let mut left = shape.pods - namespaces.iter().flat_map(|namespace| &namespace.workloads).map(|w| w.replicas).sum::<usize>();
        let others = shape.namespaces - namespaces.len();
        for i in 0..others {
            let fair = left / (others - i);
            let quota = if i + 1 == others { left } else { (fair * (50 + random.below(101)) / 100).min(left) };
            left -= quota;
            namespaces.push(of_a_team(i, quota, random));
        }
        Plan { nodes, namespaces }
    }
}

fn of_a_team(i: usize, quota: usize, random: &mut Random) -> Namespace {
    let team = TEAMS[i % TEAMS.len()];
    let stage = STAGES[(i + i / TEAMS.len()) % STAGES.len()];
    let name = format!("{team}-{stage}-{i}");
    let labels = vec![("team", team.to_owned()), ("stage", stage.to_owned()), ("pod-security.kubernetes.io/enforce", "baseline".into())];
    let mut workloads = Vec::new();
    let mut left = quota;
    while left > 0 {
        let replicas = (random.pick(&[1, 2, 3, 3, 4, 5, 5, 6, 8, 10])).min(left);
        left -= replicas;
        let n = workloads.len();
        let role = if n < 2 { ROLES[n] } else { random.pick(&ROLES) };
        workloads.push(workload(n, &role, team, replicas, random));
    }
    Namespace { name, labels, workloads, is_system: false }
}

fn workload(n: usize, role: &Role, team: &str, replicas: usize, random: &mut Random) -> Workload {
    let name = format!("{}-{}-{n}", random.pick(&NOUNS), role.name);
    let mut ports: Vec<Port> = role.numbers.first().map(|_| (role.port, random.pick(role.numbers), "TCP")).into_iter().collect();
    if role.metrics {
        ports.push(("metrics", random.pick(&[9090, 9102]), "TCP"));
    }
    let mut labels = vec![
        ("app.kubernetes.io/name", name.clone()),
        ("app.kubernetes.io/component", role.name.to_owned()),
        ("app.kubernetes.io/managed-by", "Helm".to_owned()),
        ("tier", role.tier.to_owned()),
        ("team", team.to_owned()),
        ("version", format!("v{}", 1 + random.below(3))),
    ];
    if random.percent(5) {
        labels.push(("legacy", "true".to_owned()));
    }
    Workload { name, kind: role.kind, labels, ports, replicas, host_network: false }
}

/// The namespaces of the cluster itself.
fn system(nodes: usize) -> Vec<Namespace> {
    let workload = |name: &str, kind, key, ports: &[Port], replicas| Workload {
        name: name.to_owned(),
        kind,
        labels: vec![(key, name.to_owned())],
        ports: ports.to_vec(),
        replicas,
        host_network: name == "kube-proxy",
    };
    let namespace = |name: &str, workloads| Namespace {
        name: name.to_owned(),
        labels: vec![("purpose", "system".to_owned())],
        workloads,
        is_system: true,
    };
    let dns = [("dns", 53, "UDP"), ("dns-tcp", 53, "TCP"), ("metrics", 9153, "TCP")];
    vec![
        namespace(
            "kube-system",
            vec![
                workload("kube-dns", DEPLOYMENT, "k8s-app", &dns, 2 + nodes / 50),
                workload("kube-proxy", Kind::DaemonSet, "k8s-app", &[("metrics", 10249, "TCP")], nodes),
            ],
        ),
        namespace(
            "monitoring",
            vec![workload("prometheus", Kind::StatefulSet, "app.kubernetes.io/name", &[("http", 9090, "TCP")], 2 + nodes / 100)],
        ),
        namespace(
            "ingress",
            vec![workload(
                "ingress-nginx",
                DEPLOYMENT,
                "app.kubernetes.io/name",
                &[("http", 80, "TCP"), ("https", 443, "TCP"), ("metrics", 10254, "TCP")],
                2 + nodes / 20,
            )],
        ),
        namespace("logging", vec![workload("fluent-bit", Kind::DaemonSet, "app.kubernetes.io/name", &[("http", 2020, "TCP")], nodes)]),
    ]
}
