//! Permissions and credentials.

use std::time::Duration;

use netpol_observer::watch::{State, permissions};
use serde_json::{Value, json};
use xtask::apiserver::{Options, Server, crd};

use crate::scene::{Scene, change, quick, server};

fn role(rules: Value) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "agent"}, "rules": rules})
}

fn binding() -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "agent"},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "agent"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "agent"},
    })
}

/// What docs/kubernetes.md asks for.
fn all_rules() -> Value {
    permissions()
        .iter()
        .map(|(group, resources)| json!({"apiGroups": [group], "resources": resources, "verbs": ["list", "watch"]}))
        .collect()
}

fn with_role(server: &Server, rules: Value) -> String {
    server.add_user("agent", &[]);
    server.create(role(rules)).unwrap();
    server.create(binding()).unwrap();
    server.kubeconfig("agent").unwrap()
}

#[test]
fn the_permissions_in_the_documentation_suffice() {
    for streaming_lists in [true, false] {
        let server = server(Options { streaming_lists, ..Options::default() });
        let definitions = [crd::admin_network_policy(), crd::baseline_admin_network_policy(), crd::cluster_network_policy()];
        for definition in definitions.into_iter().chain(crd::cilium()).chain(crd::calico()) {
            server.create(definition).unwrap();
        }
        let kubeconfig = with_role(&server, all_rules());
        let scene = Scene::of(server, &kubeconfig, quick(), true);
        scene.synced();
        scene.becomes("all watch", |scene| scene.status().resources.iter().all(|resource| resource.state == State::Watching));
        (0..5).for_each(|number| change(&scene.server, number));
        scene.settles();
        let refused = scene
            .server
            .stats()
            .by
            .iter()
            .filter(|(asked, _)| asked.user == "agent")
            .flat_map(|(_, count)| count.codes.keys().copied())
            .collect::<Vec<_>>();
        assert!(!refused.contains(&403), "{refused:?}");
    }
    let text = include_str!("../../../docs/kubernetes.md");
    for (group, resources) in permissions() {
        let row = format!("| `{group}` | {} |", resources.iter().map(|resource| format!("`{resource}`")).collect::<Vec<_>>().join(", "));
        assert!(text.contains(&row), "docs/kubernetes.md lacks the row\n{row}");
    }
}

#[test]
fn what_is_forbidden_is_told_and_granted_later() {
    let server = server(Options::default());
    server.create(crd::admin_network_policy()).unwrap();
    server.create(crd::cilium()[0].clone()).unwrap();
    let kubeconfig = with_role(&server, json!([{"apiGroups": ["", "discovery.k8s.io"], "resources": ["*"], "verbs": ["list", "watch"]}]));
    let scene = Scene::of(server, &kubeconfig, quick(), true);
    scene.becomes("it is told", |scene| {
        let status = scene.status();
        let forbidden = |name: &str| status.resource(name).is_some_and(|resource| matches!(resource.state, State::Forbidden { .. }));
        ["networkpolicies.networking.k8s.io", "adminnetworkpolicies.policy.networking.k8s.io", "ciliumnetworkpolicies.cilium.io"]
            .into_iter()
            .all(forbidden)
            && status.resource("pods").unwrap().state == State::Watching
    });
    let status = scene.status();
    let State::Forbidden { problem, needs } = &status.resource("networkpolicies.networking.k8s.io").unwrap().state else {
        panic!("not forbidden")
    };
    assert!(problem.contains("User \"agent\" cannot watch resource \"networkpolicies\""), "{problem}");
    assert_eq!(needs, "a ClusterRole with verbs list and watch on networkpolicies in API group \"networking.k8s.io\"");
    assert!(!status.synced, "NetworkPolicies are required");
    // How many there are of the others nobody knows.
    let uncounted = |scene: &Scene| {
        scene.with(|known| known.foreign.concerning("shop").map(|foreign| (foreign.kind.to_string(), foreign.counted)).collect::<Vec<_>>())
    };
    let both = [("CiliumNetworkPolicy".to_owned(), false), ("AdminNetworkPolicy".to_owned(), false)];
    scene.becomes("they may matter", |scene| uncounted(scene) == both);

    scene.server.load([role(all_rules())]).unwrap();
    scene.synced();
    scene.settles();
    scene.becomes("nothing is unknown", |scene| uncounted(scene).is_empty());
}

/// A permission is taken away while watches run, and given back after things have changed.
#[test]
fn a_permission_that_is_taken_away_and_given_back() {
    let server = server(Options::default());
    server.create(crd::cilium()[0].clone()).unwrap();
    let policy =
        |name: &str| json!({"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": {"namespace": "shop", "name": name}});
    server.create(policy("a")).unwrap();
    let kubeconfig = with_role(&server, all_rules());
    let scene = Scene::of(server, &kubeconfig, quick(), true);
    scene.synced();
    let counted =
        |scene: &Scene| scene.with(|known| known.foreign.kinds().map(|foreign| (foreign.counted, foreign.count)).collect::<Vec<_>>());
    scene.becomes("one is counted", |scene| counted(scene) == [(true, 1)]);
    scene.server.load([role(json!([]))]).unwrap();
    scene.server.cut_watches(xtask::apiserver::Scope::default(), xtask::apiserver::Cut::End);
    scene.becomes("nobody knows how many there are", |scene| counted(scene) == [(false, 0)]);
    scene.becomes("pods are forbidden", |scene| matches!(scene.status().resource("pods").unwrap().state, State::Forbidden { .. }));
    change(&scene.server, 0);
    scene.server.create(policy("b")).unwrap();
    scene.server.load([role(all_rules())]).unwrap();
    scene.settles();
    scene.becomes("two are counted", |scene| counted(scene) == [(true, 2)]);
}

/// A token in a file, as in a pod, is exchanged and the old one ends. kube reads the file anew about once a minute, so this takes as long.
#[test]
fn a_token_that_is_rotated() {
    let server = server(Options { anonymous: false, ..Options::default() });
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "agent", "namespace": "default"}});
    server.create(account).unwrap();
    let mut bound = binding();
    bound["subjects"] = json!([{"kind": "ServiceAccount", "name": "agent", "namespace": "default"}]);
    server.create(role(all_rules())).unwrap();
    server.create(bound).unwrap();
    let token = || server.service_account_token("default", "agent", &[], 600).unwrap();
    let (first, second) = (token(), token());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, &first).unwrap();
    let mut kubeconfig: Value = serde_json::from_str(&server.kubeconfig_of("agent", "")).unwrap();
    kubeconfig["users"][0]["user"] = json!({"tokenFile": file});
    let scene = Scene::of(server, &kubeconfig.to_string(), quick(), true);
    scene.synced();
    scene.settles();

    std::fs::write(&file, &second).unwrap();
    scene.server.revoke(&first);
    for resource in ["pods", "networkpolicies"] {
        scene.server.cut_watches(xtask::apiserver::Scope::resource(resource), xtask::apiserver::Cut::End);
    }
    (0..5).for_each(|number| change(&scene.server, number));
    scene.becomes("the old token is refused", |scene| match &scene.status().resource("pods").unwrap().state {
        State::Retrying { problem } => problem.contains("401"),
        state => *state == State::Watching && scene.status().resource("pods").unwrap().failures > 0,
    });
    // Less than a minute, and a little for the waits between tries.
    std::thread::sleep(Duration::from_secs(40));
    scene.settles();
    assert_eq!(scene.status().resource("pods").unwrap().lists, 1, "it went on where it was");
}
