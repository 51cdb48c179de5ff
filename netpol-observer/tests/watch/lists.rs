//! How everything begins: the ways to list, and what comes after.

use netpol_observer::cluster::Kind;
use netpol_observer::watch::{News, State, Use, WatchOptions};
use serde_json::json;
use xtask::apiserver::{Cut, Fault, Options, Scope};

use crate::scene::{Scene, change, pod, policy, quick, server};

/// A cluster as it is found, then as it changes, whichever way its server lists.
fn is_followed(options: Options, watch: WatchOptions) -> Scene {
    let scene = Scene::new(server(options), watch);
    scene.synced();
    scene.settles();
    (0..20).for_each(|number| change(&scene.server, number));
    scene.settles();
    let pods = scene.server.stats();
    assert_eq!(pods.open_watches("pods"), 1);
    scene.becomes("the number of objects is right", |scene| {
        let counts = scene.with(|known| known.index().counts());
        let status = scene.status();
        let objects = |name| status.resource(name).map(|resource| resource.objects);
        objects("pods") == Some(counts.pods) && objects("networkpolicies.networking.k8s.io") == Some(counts.network_policies)
    });
    scene
}

#[test]
fn streaming_lists() {
    let scene = is_followed(Options::default(), quick());
    assert_eq!(scene.asked("list", "pods"), 0);
    assert_eq!(scene.asked("watch", "pods"), 1);
}

#[test]
fn a_server_without_streaming_lists() {
    let scene = is_followed(Options { streaming_lists: false, ..Options::default() }, quick());
    // The cache answers as a whole, whatever is asked for.
    assert_eq!(scene.asked("list", "pods"), 1);
    assert!(scene.asked("watch", "pods") <= 2);
}

#[test]
fn lists_where_streams_are_not_wanted() {
    let scene = is_followed(Options::default(), WatchOptions { streaming_lists: false, ..quick() });
    assert_eq!(scene.asked("list", "pods"), 1);
    assert_eq!(scene.asked("watch", "pods"), 1);
}

#[test]
fn changes_that_come_together_have_an_order() {
    let scene = Scene::new(server(Options::default()), quick());
    scene.synced();
    scene.settles();
    let is_of_pod = |news: &News| matches!(news, News::Applied(object) if object.key().kind == Kind::Pod);
    let before = scene.with(|known| known.updates.len());
    scene.server.load((0..200).map(|number| pod(&format!("more-{number}"), 300 + number))).unwrap();
    scene.settles();
    // Whoever looks at a moment between two of them sees what was told by then, and an address that was given and taken at once was had.
    let times: Vec<_> =
        scene.with(|known| known.updates[before..].iter().filter(|update| is_of_pod(&update.news)).map(|update| update.at).collect());
    assert_eq!(times.len(), 200);
    assert!(times.is_sorted_by(|one, next| one < next), "{times:?}");
}

#[test]
fn what_is_told_of_the_start() {
    let scene = Scene::new(server(Options::default()), quick());
    scene.synced();
    scene.settles();
    let status = scene.status();
    assert!(status.synced && status.discovered_at.is_some());
    for resource in status.resources.iter().filter(|resource| resource.used == Use::Required) {
        assert_eq!((resource.lists, resource.failures, resource.unreadable), (1, 0, 0), "{resource:#?}");
        assert!(resource.bytes > 0 && resource.requests == 1 && resource.listed_at.is_some(), "{resource:#?}");
    }
    let optional: Vec<_> = status.resources.iter().filter(|resource| resource.used == Use::Optional).collect();
    assert!(optional.len() == 3 && optional.iter().all(|resource| resource.state == State::Unserved), "{optional:#?}");
    assert_eq!(status.requests, status.resources.iter().map(|resource| resource.requests).sum::<u64>() + asked_for_discovery(&scene));
    // Every kind is listed, those that the cluster does not have as none.
    let listed = scene.with(|known| known.listed.iter().map(|(kind, _)| *kind).collect::<std::collections::BTreeSet<Kind>>());
    assert_eq!(listed.len(), 9, "{listed:?}");
    let since =
        scene.with(|known| known.updates.iter().filter(|update| matches!(update.news, News::Listed { since: Some(_), .. })).count());
    assert_eq!(since, 0, "nothing was known before the first lists");
    // It can be shown.
    let shown = serde_json::to_value(&status).unwrap();
    let pods = shown["resources"].as_array().unwrap().iter().find(|resource| resource["resource"] == "pods").unwrap();
    assert_eq!((&pods["state"], &pods["use"], &pods["objects"]), (&json!("watching"), &json!("required"), &json!(8)));
}

fn asked_for_discovery(scene: &Scene) -> u64 {
    let stats = scene.server.stats();
    stats
        .by
        .iter()
        .filter(|(asked, _)| asked.resource.starts_with("/apis") && asked.user_agent.starts_with("netpol-observer/"))
        .map(|(_, count)| count.requests)
        .sum()
}

/// Between two pages the server forgets the revision of the first.
#[test]
fn a_list_whose_next_page_is_too_old() {
    let server = server(Options { streaming_lists: false, ..Options::default() });
    let scene = Scene::new(server, quick());
    scene.synced();
    // Lists that are as new as etcd come in pages: those after the revision of the last one was refused.
    scene.server.fail_next(Scope::verb("pods", "watch"), 1, Fault::Gone);
    scene.server.fail_next(Scope::verb("pods", "list"), 1, Fault::Gone);
    let before = scene.asked("list", "pods");
    scene.server.fail_next(Scope::verb("pods", "list"), 2, Fault::Slow(std::time::Duration::from_millis(400)));
    scene.server.cut_watches(Scope::resource("pods"), Cut::End);
    scene.becomes("the second page is asked for", |scene| scene.asked("list", "pods") >= before + 3);
    change(&scene.server, 0);
    scene.server.compact();
    scene.settles();
    assert!(scene.status().resource("pods").unwrap().failures >= 3, "{:#?}", scene.status());
    let pages = scene.asked("list", "pods") - before;
    assert!(pages >= 6, "one refused, two of the list that broke off, three or more of the last: {pages}");
}

#[test]
fn a_list_that_is_shorter_than_before() {
    let scene = Scene::new(server(Options::default()), quick());
    scene.synced();
    scene.settles();
    scene.server.go_away().unwrap();
    for number in 0..6 {
        scene.server.finish_pod("shop", &format!("pod-{number}")).unwrap();
    }
    scene.server.create(pod("other", 77)).unwrap();
    let changed =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod-7", "namespace": "shop", "labels": {"app": "changed"}}});
    scene.server.patch(&changed).unwrap();
    scene.server.compact();
    let away_until = jiff::Timestamp::now();
    scene.server.come_back().unwrap();
    scene.settles();
    let (since, at) = scene.with(|known| {
        let again = known.updates.iter().rev().find(|update| matches!(update.news, News::Listed { kind: Kind::Pod, .. })).unwrap();
        let News::Listed { since, .. } = again.news else { unreachable!() };
        (since.unwrap(), again.at)
    });
    assert!(since < away_until && away_until < at, "{since} {away_until} {at}");
    scene.with(|known| {
        // Six went, one came, one changed; nothing else is a change.
        let pods: Vec<usize> = known.listed.iter().filter(|(kind, _)| *kind == Kind::Pod).map(|(_, changed)| *changed).collect();
        assert_eq!(pods, [8, 8]);
        let told: Vec<usize> = known.told.iter().filter(|(kind, _)| *kind == Kind::Pod).map(|(_, told)| *told).collect();
        assert_eq!(told, [8, 2], "what is as before is not told again");
        let policies: Vec<usize> =
            known.listed.iter().filter(|(kind, _)| *kind == Kind::NetworkPolicy).map(|(_, changed)| *changed).collect();
        assert_eq!(policies.iter().sum::<usize>(), 4, "no policy changed: {policies:?}");
        let epoch = jiff::Timestamp::UNIX_EPOCH;
        assert_eq!(known.timeline.changes(epoch, jiff::Timestamp::MAX, |_| true).count(), 8);
    });
}

/// An object that came between list and watch, and one that is written all the time.
#[test]
fn nothing_is_missed_between_list_and_watch() {
    for streaming in [true, false] {
        let server = server(Options { streaming_lists: streaming, ..Options::default() });
        server.fail_next(Scope::resource("pods"), 3, Fault::Slow(std::time::Duration::from_millis(100)));
        let scene = Scene::new(server, quick());
        (0..40).for_each(|number| change(&scene.server, number));
        scene.server.create(policy("last", "pod-1")).unwrap();
        scene.settles();
    }
}
