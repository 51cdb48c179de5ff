//! Tests of pods, nodes, namespaces, Services and EndpointSlices.

use super::*;

fn pod_of(value: Value) -> (Pod, Vec<String>) {
    let mut errors = FieldErrors::new();
    let pod = pod(from(value), &mut errors);
    (pod, errors.iter().map(ToString::to_string).collect())
}

#[test]
fn pods() {
    let (pod, errors) = pod_of(json!({
        "metadata": {"name": "web-7d9f8-abcde", "namespace": "shop", "uid": "u", "labels": {"app": "web"}},
        "spec": {
            "nodeName": "n1",
            "containers": [
                {"name": "a", "ports": [{"name": "http", "containerPort": 8080}, {"containerPort": 53, "protocol": "UDP"}]},
                {"name": "b"},
            ],
            "initContainers": [
                {"name": "side", "restartPolicy": "Always", "ports": [{"containerPort": 9000, "protocol": "SCTP"}]},
                {"name": "once", "ports": [{"containerPort": 9001}]},
            ],
        },
        "status": {"phase": "Running", "podIP": "10.0.0.9", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}, {"ip": "::ffff:10.0.0.1"}]},
    }));
    assert_eq!(errors, [""; 0]);
    assert_eq!((&*pod.namespace, &*pod.name, &*pod.uid, pod.node.as_deref()), ("shop", "web-7d9f8-abcde", "u", Some("n1")));
    assert_eq!(pod.ips.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.1", "fd00::1"]);
    let ports: Vec<_> = pod.ports.iter().map(|p| format!("{:?} {}/{}", p.name.as_deref(), p.port, p.protocol)).collect();
    assert_eq!(ports, ["Some(\"http\") 8080/TCP", "None 53/UDP", "None 9000/SCTP"]);
    assert_eq!((pod.phase, pod.ready, pod.host_network), (PodPhase::Active, true, false));
    assert!(!pod.deleting);
}

#[test]
fn what_is_missing_in_a_pod_is_defaulted() {
    let (pod, errors) =
        pod_of(json!({"metadata": {"name": "a"}, "spec": {"containers": [], "hostNetwork": true}, "status": {"podIP": "10.0.0.1"}}));
    assert_eq!(errors, [""; 0]);
    assert_eq!((&*pod.namespace, pod.ips.len(), pod.host_network, pod.ready), ("default", 1, true, true));
    assert_eq!((&*pod.workload.kind, &*pod.workload.name), ("Pod", "a"));
}

#[test]
fn phases_and_readiness() {
    for (status, deleted, phase, ready) in [
        (json!({"phase": "Succeeded"}), false, PodPhase::Terminated, true),
        (json!({"phase": "Failed"}), false, PodPhase::Terminated, true),
        (json!({"phase": "Unknown"}), false, PodPhase::Active, true),
        (json!({"conditions": []}), false, PodPhase::Active, true),
        (json!({"conditions": [{"type": "Ready", "status": "True"}]}), false, PodPhase::Active, true),
        (json!({"conditions": [{"type": "Ready", "status": "True"}]}), true, PodPhase::Active, false),
        (json!({"conditions": [{"type": "Ready", "status": "False"}]}), false, PodPhase::Active, false),
        (json!({"conditions": [{"type": "PodScheduled", "status": "True"}]}), false, PodPhase::Active, false),
    ] {
        let mut metadata = json!({"name": "a"});
        if deleted {
            metadata["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        let (pod, _) = pod_of(json!({"metadata": metadata, "spec": {"containers": []}, "status": status}));
        assert_eq!((pod.phase, pod.ready, pod.deleting), (phase, ready, deleted), "{status}");
    }
}

#[test]
fn what_is_wrong_in_a_pod_is_left_out_and_reported() {
    let (pod, errors) = pod_of(json!({
        "metadata": {"name": "a"},
        "spec": {"containers": [
            {"name": "a", "ports": [{"containerPort": 0}, {"containerPort": 80, "protocol": "http"}, {"containerPort": 81}]},
        ]},
        "status": {"podIPs": [{"ip": "10.0.0.300"}, {"ip": "10.0.0.1"}]},
    }));
    assert_eq!((pod.ports.len(), pod.ips.len()), (1, 1));
    assert_eq!(
        errors,
        [
            "status.podIPs[0].ip: Invalid value: \"10.0.0.300\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            "spec.containers[0].ports[0].containerPort: Invalid value: 0: must be between 1 and 65535, inclusive",
            "spec.containers[0].ports[1].protocol: Unsupported value: \"http\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
        ]
    );
}

#[test]
fn workloads() {
    let owner = |kind: &str, name: &str, controller: bool| json!({"apiVersion": "v1", "kind": kind, "name": name, "uid": "", "controller": controller});
    for (owners, hash, expected) in [
        (json!([]), None, "Pod a"),
        (json!([owner("ReplicaSet", "web-7d9f8c5b4", true)]), Some("7d9f8c5b4"), "Deployment web"),
        (json!([owner("ReplicaSet", "web-7d9f8c5b4", true)]), None, "Deployment web"),
        (json!([owner("ReplicaSet", "web-7d9f8c5b4", true)]), Some("other"), "ReplicaSet web-7d9f8c5b4"),
        (json!([owner("ReplicaSet", "web-v2", true)]), None, "ReplicaSet web-v2"),
        (json!([owner("ReplicaSet", "web-https", true)]), None, "ReplicaSet web-https"),
        (json!([owner("ReplicaSet", "web", true)]), Some("web"), "ReplicaSet web"),
        (json!([owner("ReplicaSet", "-7d9f8c5b4", true)]), None, "ReplicaSet -7d9f8c5b4"),
        (json!([owner("StatefulSet", "db", true)]), None, "StatefulSet db"),
        (json!([owner("Job", "backup-28000000", true)]), None, "Job backup-28000000"),
        (json!([owner("Node", "n1", true)]), None, "Pod a"),
        (json!([owner("Thing", "x", false), owner("DaemonSet", "agent", true)]), None, "DaemonSet agent"),
        (json!([owner("Thing", "x", false), owner("Thing", "y", false)]), None, "Thing x"),
    ] {
        let mut metadata = json!({"name": "a", "ownerReferences": owners});
        if let Some(hash) = hash {
            metadata["labels"] = json!({"pod-template-hash": hash});
        }
        let (pod, _) = pod_of(json!({"metadata": metadata, "spec": {"containers": []}}));
        assert_eq!(format!("{} {}", pod.workload.kind, pod.workload.name), expected, "{owners}");
    }
}

#[test]
fn namespaces_get_their_name_as_a_label() {
    let namespace = namespace(from(json!({"metadata": {"name": "shop", "labels": {"team": "a", "kubernetes.io/metadata.name": "other"}}})));
    let labels: Vec<_> = namespace.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(labels, ["kubernetes.io/metadata.name=shop", "team=a"]);
}

#[test]
fn nodes() {
    let mut errors = FieldErrors::new();
    let written = json!({"metadata": {"name": "n1"}, "spec": {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24", "fd00::/64", "x"]},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.168.0.1"}, {"type": "Hostname", "address": "n1"},
            {"type": "Hostname", "address": "192.168.0.1"}, {"type": "ExternalIP", "address": "nowhere"}]}});
    let node = node(from(written), &mut errors);
    assert_eq!(node.addresses, ["192.168.0.1".parse::<IpAddr>().expect("an address")]);
    assert_eq!(node.pod_cidrs.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.1.0.0/24", "fd00::/64"]);
    assert_eq!(errors.iter().map(|error| &*error.field).collect::<Vec<_>>(), ["spec.podCIDRs[2]", "status.addresses[3].address"]);
}

#[test]
fn services() {
    let mut errors = FieldErrors::new();
    let written = json!({"metadata": {"name": "api"}, "spec": {
        "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"], "externalIPs": ["203.0.113.1"], "selector": {"app": "api"},
        "ports": [{"port": 80}, {"name": "x", "port": 81, "targetPort": "http", "nodePort": 30081},
            {"port": 82, "targetPort": 8082, "protocol": "UDP"},
            {"port": 0}, {"port": 83, "targetPort": 70000}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.1"}, {"hostname": "lb.example.org"}]}}});
    let service = service(from(written), &mut errors);
    assert_eq!(service.cluster_ips.len(), 2);
    let lists = [&service.external_ips, &service.load_balancer_ips].map(|ips| ips.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!(lists, [["203.0.113.1"], ["198.51.100.1"]]);
    let ports: Vec<_> = service.ports.iter().map(|p| (p.port, p.target_port.clone(), p.node_port, p.protocol)).collect();
    assert_eq!(
        ports,
        [
            (80, TargetPort::Number(80), None, Protocol::Tcp),
            (81, TargetPort::Name("http".into()), Some(30081), Protocol::Tcp),
            (82, TargetPort::Number(8082), None, Protocol::Udp),
        ]
    );
    assert_eq!(errors.iter().map(|error| &*error.field).collect::<Vec<_>>(), ["spec.ports[3].port", "spec.ports[4].targetPort"]);

    let headless = super::service(
        from(json!({"metadata": {"name": "db"}, "spec": {"clusterIP": "None", "publishNotReadyAddresses": true}})),
        &mut errors,
    );
    assert_eq!((headless.cluster_ips.len(), headless.publish_not_ready, headless.selector), (0, true, None));
}

#[test]
fn endpoint_slices() {
    let mut errors = FieldErrors::new();
    let mut written = json!({"metadata": {"name": "api-x", "labels": {"kubernetes.io/service-name": "api"}}, "addressType": "IPv4",
        "endpoints": [
            {"addresses": ["10.0.0.1"]},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": false}},
            {"addresses": ["10.0.0.3"], "conditions": {"ready": true}},
        ],
        "ports": [{"name": "http", "port": 8080}, {"name": "all"}, {"port": 53, "protocol": "UDP"}]});
    let slice = endpoint_slice(from(written.clone()), &mut errors);
    assert_eq!(
        slice.backends.iter().map(|b| (b.ip.to_string(), b.ready)).collect::<Vec<_>>(),
        [("10.0.0.1".into(), true), ("10.0.0.2".into(), false), ("10.0.0.3".into(), true)]
    );
    assert_eq!(slice.ports.iter().map(|p| (&*p.name, p.port)).collect::<Vec<_>>(), [("http", 8080), ("", 53)]);
    assert_eq!(slice.service.as_deref(), Some("api"));
    assert!(errors.is_empty());

    written["addressType"] = json!("FQDN");
    assert!(endpoint_slice(from(written), &mut errors).backends.is_empty());
}
