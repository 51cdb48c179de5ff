//! `observer install`: what it prints, and that agents need what it grants, all of it and no more.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::{Value, json};
use xtask::apiserver::crd;

use crate::denials::{agent_status, ends, start_tail};
use crate::node::{Node, PORT, cluster, machine, pod, start_agent_as};
use crate::scene::{NAMESPACE, Scene};

pub(crate) const IMAGE: &str = "registry.example/netpol-observer:0.1.0";

/// What `observer install` prints.
pub(crate) fn installed(scene: &Scene, arguments: &[&str]) -> Vec<Value> {
    let run = scene.run(&[&["install", "-o", "json"], arguments].concat());
    assert_eq!((run.code, &*run.err), (Some(0), ""), "{}", run.out);
    let mut list: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!((&list["apiVersion"], &list["kind"]), (&json!("v1"), &json!("List")));
    serde_json::from_value(list["items"].take()).unwrap()
}

pub(crate) fn of_kind(objects: &[Value], kind: &str) -> Value {
    objects.iter().find(|object| object["kind"] == kind).unwrap().clone()
}

/// One with a token of the ServiceAccount that was installed.
pub(crate) fn kubeconfig(scene: &Scene) -> PathBuf {
    let token = scene.server.service_account_token(NAMESPACE, "netpol-observer", &[], 3600).unwrap();
    let kubeconfig = scene.path("agent");
    std::fs::write(&kubeconfig, scene.server.kubeconfig_of("agent", &token)).unwrap();
    kubeconfig
}

/// The resources of the role, as RBAC writes them.
fn granted(objects: &[Value]) -> BTreeSet<String> {
    let role = of_kind(objects, "ClusterRole");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let rule = |rule: &Value| {
        let group = text(&rule["apiGroups"][0]);
        let name = |plural: &Value| if group.is_empty() { text(plural) } else { format!("{}.{group}", text(plural)) };
        rule["resources"].as_array().unwrap().iter().map(name).collect::<Vec<_>>()
    };
    role["rules"].as_array().unwrap().iter().flat_map(rule).collect()
}

/// A definition of every policy kind in the role that is none of Kubernetes itself, but for one group: Calico's own API server shows the objects of the
/// definitions once more, and they are asked for once.
fn definitions(granted: &BTreeSet<String>, but: &str) -> Vec<Value> {
    let foreign = granted.iter().filter_map(|resource| resource.split_once('.')).filter(|(_, group)| *group != but);
    let own = ["networking.k8s.io", "discovery.k8s.io"];
    let definition = |(plural, group): (&str, &str)| {
        let version = match (plural, group) {
            ("clusternetworkpolicies", "policy.networking.k8s.io") => "v1alpha2",
            _ => "v1alpha1",
        };
        let kind = match plural {
            "adminnetworkpolicies" => "AdminNetworkPolicy".to_owned(),
            "baselineadminnetworkpolicies" => "BaselineAdminNetworkPolicy".to_owned(),
            "clusternetworkpolicies" => "ClusterNetworkPolicy".to_owned(),
            other => format!("Kind{}", other.replace('-', "")),
        };
        crd::definition(group, &[version], plural, &kind, group != "policy.networking.k8s.io")
    };
    foreign.filter(|(_, group)| !own.contains(group)).map(definition).collect()
}

#[test]
fn with_exactly_the_role_it_grants_everything_works() {
    let Some(_machine) = machine("install::with_exactly_the_role_it_grants_everything_works") else { return };
    for but in ["projectcalico.org", "crd.projectcalico.org"] {
        let (scene, node) = (Scene::new(), Node::new());
        cluster(&scene);
        let objects = installed(&scene, &["--image", IMAGE]);
        scene.server.load(objects.clone()).unwrap();
        let granted = granted(&objects);
        scene.server.load(definitions(&granted, but)).unwrap();
        let _agent = start_agent_as(&scene, &kubeconfig(&scene));

        let status = agent_status(&scene);
        let sync = status["sync"].as_object().unwrap();
        let watched: BTreeSet<String> = sync.iter().filter(|(_, of)| of["watching"] == true).map(|(name, _)| name.clone()).collect();
        let needed: BTreeSet<String> =
            granted.into_iter().filter(|resource| resource.split_once('.').is_none_or(|(_, group)| group != but)).collect();
        assert_eq!(watched, needed, "each rule is used, and there is one for everything: {status:#}");
        let stats = scene.server.stats();
        let of_agent = stats.by.iter().filter(|(asked, _)| asked.user.starts_with("system:serviceaccount:"));
        let refused: Vec<_> = of_agent.filter(|(_, count)| count.codes.contains_key(&403)).map(|(asked, _)| asked).collect();
        assert!(refused.is_empty(), "{refused:?}");

        let web = "10.244.2.10".parse().unwrap();
        scene.server.create(pod("web", "node-2", &json!({"app": "web"}), Some(web))).unwrap();
        let tail = start_tail(&scene);
        node.send(&[web], PORT);
        let line = tail.line("denial");
        assert_eq!(ends(&line), ("shop/web".to_owned(), "shop/api".to_owned()), "{line:#}");
        assert_eq!(line["class"], "policyDenied", "{line:#}");
    }
}

#[test]
fn a_rule_that_is_missing_is_named() {
    let Some(_machine) = machine("install::a_rule_that_is_missing_is_named") else { return };
    let (scene, _node) = (Scene::new(), Node::new());
    cluster(&scene);
    let mut objects = installed(&scene, &["--image", IMAGE]);
    let role = objects.iter_mut().find(|object| object["kind"] == "ClusterRole").unwrap();
    role["rules"].as_array_mut().unwrap().retain(|rule| rule["apiGroups"][0] != "networking.k8s.io");
    scene.server.load(objects).unwrap();
    let agent = crate::node::start_agent_without_objects(&scene, &["--kubeconfig", kubeconfig(&scene).to_str().unwrap()]);
    let end = std::time::Instant::now() + crate::PATIENCE;
    loop {
        let why = agent_status(&scene)["sync"]["networkpolicies.networking.k8s.io"]["why"].to_string();
        if why.contains("a ClusterRole with verbs list and watch on networkpolicies in API group") {
            break;
        }
        assert!(std::time::Instant::now() < end, "{why}\n{}", agent.said());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn it_is_yaml_that_kubectl_takes() {
    let scene = Scene::new();
    for arguments in [
        &["--image", IMAGE][..],
        &[
            "--image",
            IMAGE,
            "-n",
            "on",
            "--tenant-mode",
            "--older-kernels",
            "--image-pull-secret",
            "a.b",
            "--priority-class",
            "high",
            "--seccomp-profile",
            "a/b.json",
            "--events",
        ],
        &["--uninstall"],
    ] {
        let run = scene.run(&[&["install"], arguments].concat());
        assert_eq!((run.code, &*run.err), (Some(0), ""));
        let documents: Vec<Value> = serde_saphyr::from_multiple(&run.out).unwrap();
        assert_eq!(documents, installed(&scene, arguments), "{}", run.out);
        // A namespace that YAML could take for a truth value is a text.
        assert!(documents.iter().all(|object| object["metadata"]["namespace"] != true), "{}", run.out);
    }
}

#[test]
fn the_programs_arguments_are_those_it_has() {
    let scene = Scene::new();
    for arguments in [&["--image", IMAGE][..], &["--image", IMAGE, "--tenant-mode"], &["--image", IMAGE, "--events=across-namespaces"]] {
        let set = of_kind(&installed(&scene, arguments), "DaemonSet");
        let container = &set["spec"]["template"]["spec"]["containers"][0];
        let words = |value: &Value| serde_json::from_value::<Vec<String>>(value.clone()).unwrap();
        let mut lines =
            ["startupProbe", "livenessProbe", "readinessProbe"].map(|probe| words(&container[probe]["exec"]["command"])).to_vec();
        lines.push([vec!["observer".to_owned()], words(&container["args"])].concat());
        for line in lines {
            let parsed = netpol_observer::cli::command().try_get_matches_from(&line);
            assert!(parsed.is_ok_and(|parsed| parsed.subcommand_name() == Some("agent")), "{line:?}");
        }
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let scene = Scene::new();
    for (arguments, expected) in [
        (&[][..], "--image <IMAGE>"),
        (&["--image", ""], "registry.example/netpol-observer:0.1.0"),
        (&["--image", "Registry.example/Observer"], "registry.example/netpol-observer:0.1.0"),
        (&["--image", IMAGE, "-n", "Observing"], "lowercase RFC 1123 label"),
        (&["--image", IMAGE, "--priority-class", "-"], "lowercase RFC 1123 subdomain"),
        (&["--image", IMAGE, "--seccomp-profile", "/netpol-observer.json"], "a path below the kubelet's directory"),
        (&["--image", IMAGE, "--seccomp-profile", "a/../../b.json"], "a path below the kubelet's directory"),
        (&["--uninstall", "--image", IMAGE], "cannot be used with"),
        (&["--uninstall", "--events"], "cannot be used with"),
        (&["--image", IMAGE, "--events=all"], "own-namespace, across-namespaces"),
    ] {
        let run = scene.run(&[&["install"], arguments].concat());
        assert_eq!((run.code, &*run.out), (Some(2), ""), "{arguments:?}");
        assert!(run.err.contains(expected), "{arguments:?}: {}", run.err);
    }
}
