//! Policy kinds that clusters have or do not have, and those that are only counted.

use netpol_observer::cluster::Kind;
use netpol_observer::watch::{News, State, WatchOptions};
use serde_json::{Value, json};
use xtask::apiserver::{Fault, Options, Scope, crd};

use crate::scene::{Scene, quick, server};

const CRD: (&str, &str) = ("apiextensions.k8s.io/v1", "CustomResourceDefinition");
const ADMIN: &str = "adminnetworkpolicies.policy.networking.k8s.io";

fn admin_policy(name: &str, priority: u32) -> Value {
    json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha1", "kind": "AdminNetworkPolicy", "metadata": {"name": name},
        "spec": {
            "priority": priority, "subject": {"namespaces": {}},
            "ingress": [{"name": "a", "action": "Deny", "from": [{"namespaces": {"matchLabels": {"a": "b"}}}]}],
        },
    })
}

fn cilium_policy(namespace: &str, name: &str) -> Value {
    json!({"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": {"namespace": namespace, "name": name}, "spec": {"endpointSelector": {}}})
}

fn remove(scene: &Scene, definition: &str) {
    scene.server.delete(CRD.0, CRD.1, "", definition).unwrap();
}

fn policies(scene: &Scene) -> usize {
    scene.with(|known| known.index().counts().cluster_policies)
}

#[test]
fn a_kind_appears_and_disappears_with_its_objects() {
    let scene = Scene::new(server(Options::default()), quick());
    scene.synced();
    scene.settles();
    for round in 0..3 {
        scene.server.create(crd::admin_network_policy()).unwrap();
        (0..7).for_each(|number| _ = scene.server.create(admin_policy(&format!("round-{round}-{number}"), number)).unwrap());
        scene.settles();
        assert_eq!(policies(&scene), 7);
        scene.becomes("it watches", |scene| scene.status().resource(ADMIN).unwrap().state == State::Watching);
        scene.server.create(admin_policy("late", 9)).unwrap();
        scene.settles();
        assert_eq!(policies(&scene), 8);
        remove(&scene, ADMIN);
        scene.settles();
        assert_eq!(policies(&scene), 0);
        scene.becomes("it is told", |scene| scene.status().resource(ADMIN).unwrap().state == State::Unserved);
    }
    let served: Vec<bool> = scene.with(|known| {
        let news = known.updates.iter().filter_map(|update| match update.news {
            News::Served { kind: Kind::AdminNetworkPolicy, served } => Some(served),
            _ => None,
        });
        news.collect()
    });
    assert_eq!(served, [false, true, false, true, false, true, false]);
}

/// Removed and made again between two looks: what is left of it are the new objects.
#[test]
fn a_kind_that_is_made_anew_at_once() {
    let watch = WatchOptions { discovery_period: std::time::Duration::from_secs(3600), ..quick() };
    let server = server(Options::default());
    server.create(crd::admin_network_policy()).unwrap();
    server.create(admin_policy("old", 1)).unwrap();
    let scene = Scene::new(server, watch);
    scene.synced();
    scene.settles();
    remove(&scene, ADMIN);
    scene.server.create(crd::admin_network_policy()).unwrap();
    scene.server.create(admin_policy("new", 1)).unwrap();
    scene.settles();
    // A watch is told at once that its resource is gone: nobody waits for the next look.
    remove(&scene, ADMIN);
    scene.settles();
    scene.becomes("it is told", |scene| scene.status().resource(ADMIN).unwrap().state == State::Unserved);
}

/// "Not found" once, of what is there: its objects stay.
#[test]
fn a_passing_404_takes_nothing_away() {
    let server = server(Options::default());
    server.create(crd::admin_network_policy()).unwrap();
    server.create(admin_policy("a", 1)).unwrap();
    let scene = Scene::new(server, quick());
    scene.synced();
    scene.settles();
    scene.server.fail_next(Scope::verb("adminnetworkpolicies", "watch"), 3, Fault::NotFound);
    scene.server.cut_watches(Scope::resource("adminnetworkpolicies"), xtask::apiserver::Cut::End);
    scene.server.create(admin_policy("b", 2)).unwrap();
    scene.settles();
    scene.with(|known| {
        let gone =
            known.updates.iter().any(|update| matches!(&update.news, News::Served { kind: Kind::AdminNetworkPolicy, served: false }));
        assert!(!gone, "{:#?}", known.updates);
    });
}

#[test]
fn policies_of_plugins_are_counted() {
    let server = server(Options::default());
    for definition in crd::cilium().into_iter().chain(crd::calico()) {
        server.create(definition).unwrap();
    }
    server.create(cilium_policy("shop", "a")).unwrap();
    let scene = Scene::new(server, quick());
    scene.becomes("one is counted", |scene| count(scene, "CiliumNetworkPolicy") == Some((1, 1, 0)));
    (0..8).for_each(|number| _ = scene.server.create(cilium_policy("shop", &format!("more-{number}"))).unwrap());
    scene.server.create(cilium_policy("default", "b")).unwrap();
    scene.becomes("ten are counted", |scene| count(scene, "CiliumNetworkPolicy") == Some((10, 9, 1)));
    scene.with(|known| {
        let cilium = known.foreign.kinds().find(|foreign| &*foreign.kind == "CiliumNetworkPolicy").unwrap();
        let names: Vec<&str> = cilium.namespaces["shop"].names.iter().map(|name| &**name).collect();
        assert_eq!(names, ["a", "more-0", "more-1", "more-2", "more-3"]);
    });
    scene.server.delete("cilium.io/v2", "CiliumNetworkPolicy", "shop", "a").unwrap();
    scene.becomes("one less", |scene| count(scene, "CiliumNetworkPolicy") == Some((9, 8, 1)));
    let wide =
        json!({"apiVersion": "crd.projectcalico.org/v1", "kind": "GlobalNetworkPolicy", "metadata": {"name": "default.all"}, "spec": {}});
    scene.server.create(wide).unwrap();
    scene.becomes("a policy of the cluster concerns all", |scene| count(scene, "GlobalNetworkPolicy") == Some((1, 1, 1)));
    assert_eq!(count(&scene, "NetworkPolicy"), Some((0, 0, 0)), "Calico's kind has none; those of the API are not counted here");

    // Counting reads no more than metadata.
    let specs = scene.with(|known| known.updates.iter().filter(|update| matches!(update.news, News::Applied(_))).count());
    assert_eq!(specs, 0);
    remove(&scene, "ciliumnetworkpolicies.cilium.io");
    scene.becomes("the kind is gone", |scene| count(scene, "CiliumNetworkPolicy").is_none());
    scene.settles();
}

/// Total, concerning `shop`, concerning `default`; of what was counted.
fn count(scene: &Scene, kind: &str) -> Option<(usize, usize, usize)> {
    scene.with(|known| {
        let foreign = known.foreign.kinds().find(|foreign| &*foreign.kind == kind && foreign.counted)?;
        Some((foreign.count, foreign.concerning("shop"), foreign.concerning("default")))
    })
}

#[test]
fn versions_that_are_not_read_are_counted() {
    let server = server(Options::default());
    let definition =
        |versions: &[&str]| crd::definition("policy.networking.k8s.io", versions, "clusternetworkpolicies", "ClusterNetworkPolicy", false);
    server.create(definition(&["v1beta1"])).unwrap();
    let newer = json!({"apiVersion": "policy.networking.k8s.io/v1beta1", "kind": "ClusterNetworkPolicy", "metadata": {"name": "a"}, "spec": {"new": 1}});
    server.create(newer).unwrap();
    let scene = Scene::new(server, quick());
    scene.synced();
    scene.becomes("it is counted", |scene| count(scene, "ClusterNetworkPolicy") == Some((1, 1, 1)));
    assert_eq!(policies(&scene), 0);
    // The cluster begins to serve the version that is read, of the same objects.
    let mut definition = definition(&["v1beta1", "v1alpha2"]);
    definition["metadata"]["name"] = "clusternetworkpolicies.policy.networking.k8s.io".into();
    scene.server.load([definition]).unwrap();
    scene.becomes("it is read", |scene| policies(scene) == 1 && count(scene, "ClusterNetworkPolicy").is_none());
}

#[test]
fn an_object_that_cannot_be_read_is_told() {
    let server = server(Options::default());
    server.create(crd::admin_network_policy()).unwrap();
    server.create(admin_policy("good", 1)).unwrap();
    let mut broken = admin_policy("broken", 2);
    broken["spec"]["priority"] = "high".into();
    server.create(broken).unwrap();
    let mut odd = admin_policy("odd", 3);
    odd["spec"]["ingress"][0]["action"] = "Drop".into();
    server.create(odd).unwrap();
    let scene = Scene::new(server, quick());
    scene.synced();
    scene.becomes("two are read", |scene| policies(scene) == 2);
    let warned = |scene: &Scene| scene.status().warnings.iter().map(|warning| warning.object.clone()).collect::<Vec<_>>();
    assert_eq!(warned(&scene), ["AdminNetworkPolicy broken", "AdminNetworkPolicy odd"]);
    assert_eq!(scene.status().resource(ADMIN).unwrap().unreadable, 1);
    // With another list too, of which the good one is not read again.
    let lists = |scene: &Scene| scene.with(|known| known.told.iter().filter(|(kind, _)| *kind == Kind::AdminNetworkPolicy).count());
    let before = lists(&scene);
    scene.server.go_away().unwrap();
    scene.server.compact();
    scene.server.skip_revisions(10);
    scene.server.create(admin_policy("new", 4)).unwrap();
    scene.server.compact();
    scene.server.come_back().unwrap();
    scene.becomes("there was another list", |scene| lists(scene) > before && policies(scene) == 3);
    assert_eq!(warned(&scene), ["AdminNetworkPolicy broken", "AdminNetworkPolicy odd"]);
    assert!(scene.server.delete("policy.networking.k8s.io/v1alpha1", "AdminNetworkPolicy", "", "new").unwrap());
    scene.becomes("it went", |scene| policies(scene) == 2);
    // One that was read becomes such that it cannot be: it does not stay as it was.
    let spoiled = json!({"apiVersion": "policy.networking.k8s.io/v1alpha1", "kind": "AdminNetworkPolicy", "metadata": {"name": "good"}, "spec": {"subject": 7}});
    scene.server.patch(&spoiled).unwrap();
    scene.becomes("it is not there", |scene| policies(scene) == 1);
    scene.server.load([admin_policy("good", 1), admin_policy("broken", 2), admin_policy("odd", 3)]).unwrap();
    scene.settles();
    scene.becomes("nothing is wrong any more", |scene| warned(scene).is_empty());
}

#[test]
fn discovery_that_fails_takes_nothing_away() {
    let server = server(Options::default());
    server.create(crd::admin_network_policy()).unwrap();
    server.create(admin_policy("a", 1)).unwrap();
    let scene = Scene::new(server, quick());
    scene.synced();
    scene.settles();
    let group = "/apis/policy.networking.k8s.io/v1alpha1";
    for path in ["/apis", group] {
        let asked = |scene: &Scene| scene.asked("get", path);
        let before = asked(&scene);
        scene.server.fail_next(Scope::resource(path), 3, Fault::Unavailable);
        scene.becomes("it was asked", |scene| asked(scene) >= before + 4);
        assert_eq!(policies(&scene), 1);
    }
    scene.with(|known| {
        assert!(!known.updates.iter().any(|update| matches!(&update.news, News::Served { kind: Kind::AdminNetworkPolicy, served: false })));
    });
}
