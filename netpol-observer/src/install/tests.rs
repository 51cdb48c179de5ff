use k8s_openapi::api::{apps, core, networking, rbac};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::*;

fn options() -> Options {
    Options::new(NAME, "registry.example/netpol-observer:0.1.0")
}

fn everything() -> Options {
    Options {
        namespace: "observing".to_owned(),
        image_pull_secrets: vec!["registry".to_owned()],
        tenant_mode: true,
        metrics: true,
        pod_monitor: true,
        older_kernels: true,
        priority_class: Some("system-node-critical".to_owned()),
        seccomp_profile: Some("profiles/netpol-observer.json".to_owned()),
        otlp: Some(Otlp {
            endpoint: "https://collector:4317".to_owned(),
            protocol: "grpc".to_owned(),
            headers_secret: Some("otlp".to_owned()),
            ca_config_map: Some("otlp-ca".to_owned()),
        }),
        events: Some(ACROSS_NAMESPACES),
        ..options()
    }
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

/// Reads an object by the published schema; what it does not know is lost on the way, and shows.
fn is_valid<T: DeserializeOwned + Serialize>(object: &Value) {
    let read: T = serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{error}: {object:#}"));
    assert_eq!(serde_json::to_value(read).unwrap(), *object);
}

#[test]
fn the_objects_follow_the_published_schemas() {
    for options in [options(), everything()] {
        for object in objects(&options) {
            match object["kind"].as_str().unwrap() {
                "Namespace" => is_valid::<core::v1::Namespace>(&object),
                "ServiceAccount" => is_valid::<core::v1::ServiceAccount>(&object),
                "ClusterRole" => is_valid::<rbac::v1::ClusterRole>(&object),
                "ClusterRoleBinding" => is_valid::<rbac::v1::ClusterRoleBinding>(&object),
                "NetworkPolicy" => is_valid::<networking::v1::NetworkPolicy>(&object),
                "Secret" => is_valid::<core::v1::Secret>(&object),
                // The operator's own kind.
                "PodMonitor" => {}
                "DaemonSet" => is_valid::<apps::v1::DaemonSet>(&object),
                other => panic!("{other} is not looked at"),
            }
        }
    }
}

#[test]
fn the_agent_has_no_more_rights_than_it_needs() {
    let objects = objects(&options());
    let set = of_kind(&objects, "DaemonSet")[0];
    let pod = &set["spec"]["template"]["spec"];
    let context = &pod["containers"][0]["securityContext"];
    assert_eq!(context["capabilities"], json!({"drop": ["ALL"], "add": ["BPF", "PERFMON", "SYSLOG"]}));
    assert_eq!((&context["allowPrivilegeEscalation"], &context["readOnlyRootFilesystem"]), (&json!(false), &json!(true)));
    assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault");
    for host in ["hostNetwork", "hostPID", "hostIPC"] {
        assert_eq!(pod[host], false, "{host}");
    }
    assert!(pod.get("volumes").is_none(), "nothing of the host is mounted");
    let verbs = of_kind(&objects, "ClusterRole")[0]["rules"].as_array().unwrap().iter().map(|rule| &rule["verbs"]);
    assert!(verbs.into_iter().all(|verbs| *verbs == json!(["list", "watch"])));
    assert_eq!(of_kind(&objects, "NetworkPolicy")[0]["spec"]["ingress"], json!([]));
    assert_eq!(of_kind(&objects, "ClusterRoleBinding").len(), 1);
}

#[test]
fn what_is_opted_in_is_there() {
    let objects = objects(&everything());
    let pod = &of_kind(&objects, "DaemonSet")[0]["spec"]["template"]["spec"];
    assert_eq!((&pod["priorityClassName"], &pod["imagePullSecrets"]), (&json!("system-node-critical"), &json!([{"name": "registry"}])));
    let container = &pod["containers"][0];
    let expected = "agent --tenant-mode --listen [::]:9470 --metrics [::]:9471 --otlp-endpoint https://collector:4317 --otlp-protocol grpc \
        --otlp-headers-file /etc/netpol-observer/otlp-headers/headers --otlp-ca /etc/netpol-observer/otlp-ca/ca.crt --events=across-namespaces";
    assert_eq!(container["args"], json!(expected.split(' ').collect::<Vec<_>>()));
    let mounted: Vec<&Value> = container["volumeMounts"].as_array().unwrap().iter().map(|mount| &mount["readOnly"]).collect();
    assert_eq!(mounted, [true, true]);
    assert_eq!(container["securityContext"]["capabilities"]["add"], json!(["BPF", "PERFMON", "SYSLOG", "SYS_RESOURCE"]));
    assert_eq!(
        container["securityContext"]["seccompProfile"],
        json!({"type": "Localhost", "localhostProfile": "profiles/netpol-observer.json"})
    );
    let roles: Vec<&Value> = of_kind(&objects, "ClusterRoleBinding").into_iter().map(|binding| &binding["roleRef"]["name"]).collect();
    assert_eq!(roles, [NAME, "system:auth-delegator", "netpol-observer-metrics", "netpol-observer-events"]);
    assert_eq!(
        of_kind(&objects, "NetworkPolicy")[0]["spec"]["ingress"],
        json!([{"ports": [{"port": 9470, "protocol": "TCP"}, {"port": 9471, "protocol": "TCP"}]}])
    );
    let rules = &of_kind(&objects, "ClusterRole").into_iter().find(|role| role["metadata"]["name"] == EVENTS).unwrap()["rules"];
    assert_eq!(*rules, json!([{"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]}]));
}

#[test]
fn the_clusters_own_namespaces_are_not_made_and_no_others_are_removed_but_ours() {
    let in_namespace = |name: &str| Options { namespace: name.to_owned(), ..options() };
    let made = |name: &str| of_kind(&objects(&in_namespace(name)), "Namespace").len();
    let removed = |name: &str| of_kind(&removal(&in_namespace(name)), "Namespace").len();
    assert_eq!(["netpol-observer", "monitoring", "kube-system"].map(made), [1, 1, 0]);
    assert_eq!(["netpol-observer", "monitoring", "kube-system"].map(removed), [1, 0, 0]);
}

#[test]
fn all_that_any_options_make_is_removed() {
    let key = |object: &Value| [&object["kind"], &object["metadata"]["namespace"], &object["metadata"]["name"]].map(Value::to_string);
    let removed: Vec<_> = removal(&options()).iter().map(key).collect();
    for options in [options(), Options { namespace: NAME.to_owned(), ..everything() }] {
        // Where the operator is not, kubectl knows no PodMonitor; its owner is gone with the namespace.
        for object in objects(&options).into_iter().filter(|object| object["kind"] != "PodMonitor") {
            assert!(removed.contains(&key(&object)), "{object:#}");
        }
    }
    assert!(removal(&options()).iter().all(|object| object.as_object().unwrap().len() == 3 && object.get("spec").is_none()));
}

#[test]
fn who_scrapes_may_get_metrics_and_nothing_else() {
    let objects = objects(&Options { metrics: true, pod_monitor: true, ..options() });
    let role = of_kind(&objects, "ClusterRole").into_iter().find(|role| role["metadata"]["name"] == "netpol-observer-metrics").unwrap();
    assert_eq!(role["rules"], json!([{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]));
    let monitor = of_kind(&objects, "PodMonitor")[0];
    let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
    let secret = of_kind(&objects, "Secret")[0];
    assert_eq!(endpoint["authorization"]["credentials"]["name"], secret["metadata"]["name"]);
    assert_eq!(monitor["metadata"]["namespace"], secret["metadata"]["namespace"], "a PodMonitor reads Secrets of its own namespace");
    let pod = &of_kind(&objects, "DaemonSet")[0]["spec"]["template"];
    let selected = monitor["spec"]["selector"]["matchLabels"].as_object().unwrap();
    assert!(selected.iter().all(|(name, value)| pod["metadata"]["labels"][name] == *value));
    assert_eq!(pod["spec"]["containers"][0]["ports"], json!([{"name": endpoint["port"], "containerPort": 9471, "protocol": "TCP"}]));
}
