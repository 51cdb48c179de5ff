//! Who had an address at the moment of the drop.

use super::*;

/// Behind interface 7, which all records are from.
fn behind(world: &mut World, name: &str) {
    world.kernel.behind.insert(7, format!("{name}#").into());
}

#[test]
fn an_address_that_moved_was_that_of_its_owner_of_then() {
    let mut world = world();
    world.apply(-50_000, pod("old", Some(A)));
    world.apply(-20_000, Pod { deleting: true, ..pod("old", Some(A)) });
    world.delete(-10_000, "old");
    world.apply(-9_000, pod("new", None));
    world.apply(-8_000, pod("new", Some(A)));
    for (when, expected) in [(-30_000, "old"), (-8_000, "new"), (-1_000, "new"), (-9_300, "new|old"), (-15_000, "old")] {
        world.drop(0, &syn(when, A, API));
        let expected = expected.split('|').rev().collect::<Vec<_>>().join("|");
        assert_eq!(world.given(), [format!("{when} {expected} → api")]);
    }
    // So long before its publication the new one cannot have had it, and so long after its end the old one cannot.
    world.drop(0, &syn(-11_500, A, API));
    assert_eq!(world.given(), ["-11500 old → api"]);
}

#[test]
fn a_pod_published_later_is_waited_for() {
    let mut world = world();
    world.apply(-100, pod("web", None));
    world.drop(1, &syn(0, A, API));
    assert_eq!((world.given(), world.moments.next_due()), (vec![], Some(at(3_000))));
    assert_eq!(world.moments.oldest_held(), Some(at(0)));
    world.tick(2_999);
    assert!(world.given().is_empty());
    world.apply(2_999, pod("web", Some(A)));
    let denial = world.denial();
    assert_eq!(party(&denial.who.client), "web");
    assert!(matches!(how(&denial)[..], [How::PublishedLater { after, .. }] if *after == SignedDuration::from_millis(2_999)), "{denial:?}");
    assert_eq!(world.moments.next_due(), None);
}

#[test]
fn an_owner_that_nobody_tells_of_is_said_to_be_unknown_and_told_later() {
    let mut world = world();
    world.apply(-100, pod("web", None));
    world.drop(1, &syn(0, A, API));
    world.tick(3_000);
    let denial = world.denial();
    assert!(matches!(how(&denial)[..], [How::NotKnown]) && party(&denial.who.client) == "?");
    world.apply(3_500, pod("other", Some("10.244.9.9")));
    assert!(world.given().is_empty());
    world.apply(5_000, pod("web", Some(A)));
    match std::mem::take(&mut world.steps).as_slice() {
        [Step::Amendment(amendment)] => {
            assert_eq!((amendment.id(), amendment.time()), (denial.event.id, at(0)));
            assert!(Arc::ptr_eq(&amendment.before, &denial));
            assert_eq!(amendment.why, "10.244.1.5 was published as shop/web's 5 s after the drop");
            assert_eq!(party(&amendment.denial.who.client), "web");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(world.moments.status().amended, 1);
}

#[test]
fn a_pod_that_came_later_is_no_owner() {
    let mut world = world();
    world.drop(1, &syn(0, A, API));
    // It is told of more than the lag of a watch after the drop.
    world.apply(2_001, pod("late", None));
    world.apply(2_500, pod("late", Some(A)));
    assert!(world.given().is_empty());
    world.tick(3_000);
    assert_eq!(world.given(), ["0 ? → api"]);
    world.apply(4_000, Pod { ready: false, ..pod("late", Some(A)) });
    assert!(world.given().is_empty());
}

#[test]
fn a_publication_on_its_way_is_told_a_little_later() {
    let mut world = world();
    world.apply(-5_000, pod("old", Some(A)));
    world.apply(-2_000, Pod { deleting: true, ..pod("old", Some(A)) });
    world.apply(-100, pod("new", None));
    world.drop(1, &syn(0, A, API));
    // Held no longer than a publication takes.
    world.tick(3_000);
    assert_eq!(world.given(), ["0 old → api"]);
    world.apply(3_500, pod("new", Some(A)));
    assert_eq!(world.given(), ["0 old → api is 0 old|new → api"]);
}

#[test]
fn who_turns_up_too_late_is_not_taken_for_the_owner() {
    let mut world = world();
    world.apply(-100, pod("web", None));
    world.drop(1, &syn(0, A, API));
    world.tick(3_000);
    world.steps.clear();
    world.apply(13_501, pod("web", Some(A)));
    assert!(world.given().is_empty());
    assert_eq!(world.moments.status().watched, 0);
}

#[test]
fn the_interface_tells_a_pod_before_its_address_is_published() {
    let mut world = world();
    behind(&mut world, "web");
    world.apply(-100, pod("web", None));
    world.drop(1, &syn(0, A, API));
    let denial = world.denial();
    assert_eq!(party(&denial.who.client), "web");
    assert!(matches!(how(&denial)[..], [How::Interface { published, .. }] if published.is_empty()), "{denial:?}");
    assert_eq!(denial.who.behind.as_ref().map(|pod| &*pod.name), Some("web"));
    // Its publication changes nothing.
    world.apply(500, pod("web", Some(A)));
    assert!(world.given().is_empty());
}

#[test]
fn the_interface_wins_over_what_is_published() {
    let mut world = world();
    behind(&mut world, "new");
    world.apply(-50_000, pod("old", Some(A)));
    world.apply(-2_000, Pod { deleting: true, ..pod("old", Some(A)) });
    world.apply(-100, pod("new", None));
    world.drop(1, &syn(0, A, API));
    let denial = world.denial();
    assert_eq!(party(&denial.who.client), "new");
    assert!(matches!(&how(&denial)[..], [How::Interface { published, .. }] if published.len() == 1 && &*published[0].name == "old"));
    // On its way in, a packet is on the receiver's interface.
    world.drop(2, &syn(1, API, A).outgoing());
    assert_eq!(world.given(), ["1 api → new"]);
}

#[test]
fn a_bridge_shows_the_interface_that_a_packet_leaves_by() {
    let mut world = world();
    behind(&mut world, "new");
    world.apply(-100, pod("new", None));
    world.drop(1, &syn(0, API, A));
    assert_eq!(world.given(), ["0 api → new"]);
    // Two that are not published: it cannot be told which of them it is.
    world.drop(1, &syn(0, B, A));
    assert!(world.given().is_empty());
    world.apply(200, pod("new", Some(B)));
    world.tick(3_000);
    assert_eq!(world.given(), ["0 new → ?"]);
}

#[test]
fn a_pod_that_forwards_packets_of_others_is_not_their_sender() {
    let mut world = world();
    behind(&mut world, "gateway");
    world.apply(-50_000, pod("gateway", Some(B)));
    world.drop(1, &syn(0, "203.0.113.9", API));
    let denial = world.denial();
    assert_eq!(party(&denial.who.client), "External");
    assert_eq!(denial.who.behind.as_ref().map(|pod| &*pod.name), Some("gateway"));
}

#[test]
fn a_pod_of_which_nothing_was_told_is_waited_for_by_its_interface() {
    let mut world = world();
    behind(&mut world, "web");
    world.drop(1, &syn(0, A, API));
    assert!(world.given().is_empty());
    world.apply(400, pod("web", None));
    assert_eq!(world.given(), ["0 web → api"]);
}

#[test]
fn a_pod_that_ends_may_have_left_its_address_to_another() {
    let mut world = world();
    world.apply(-50_000, pod("old", Some(A)));
    world.apply(-1_000, Pod { deleting: true, ..pod("old", Some(A)) });
    world.drop(1, &syn(0, A, API));
    assert_eq!(world.moments.next_due(), Some(at(3_000)));
    world.tick(3_000);
    assert_eq!(world.given(), ["0 old → api"]);
    world.apply(3_500, pod("new", None));
    world.drop(4_001, &syn(4_000, A, API));
    world.apply(4_500, pod("new", Some(A)));
    let denial = world.denial();
    assert_eq!(party(&denial.who.client), "old|new");
    assert!(matches!(how(&denial)[..], [How::Several(owners)] if owners.len() == 2));
    // From its publication on the address is the new one's, though the old object is still there.
    world.drop(4_501, &syn(4_500, A, API));
    assert_eq!(world.given(), ["4500 new → api"]);
}

#[test]
fn that_a_pod_ends_may_be_told_after_the_drop() {
    let mut world = world();
    world.apply(-50_000, pod("old", Some(A)));
    world.apply(-50_000, pod("new", None));
    world.drop(1, &syn(0, A, API));
    assert_eq!(world.given(), ["0 old → api"]);
    world.apply(1_500, Pod { deleting: true, ..pod("old", Some(A)) });
    assert!(world.given().is_empty());
    world.apply(2_500, pod("new", Some(A)));
    assert_eq!(world.given(), ["0 old → api is 0 old|new → api"]);
    // No longer so if its end begins later.
    let mut world = self::world();
    world.apply(-50_000, pod("old", Some(A)));
    world.drop(1, &syn(0, A, API));
    world.steps.clear();
    world.apply(2_001, Pod { deleting: true, ..pod("old", Some(A)) });
    world.apply(2_500, pod("new", Some(A)));
    assert!(world.given().is_empty());
}

#[test]
fn the_last_owner_of_an_address_is_named_for_a_while() {
    let mut world = world();
    world.apply(-50_000, pod("old", Some(A)));
    world.delete(-1_000, "old");
    world.drop(1, &syn(0, API, A));
    world.tick(3_000);
    let denial = world.denial();
    assert_eq!(party(&denial.who.server), "old");
    assert!(matches!(how(&denial)[..], [How::Gone { before, .. }] if *before == SignedDuration::from_secs(1)), "{denial:?}");
    world.drop(3_001, &syn(3_000, API, A));
    world.tick(6_000);
    assert_eq!(world.given(), ["3000 api → ?"]);
}

#[test]
fn two_pods_that_claim_an_address_are_both_named_at_once() {
    let mut world = world();
    world.apply(-50_000, pod("a", Some(A)));
    world.apply(-40_000, pod("b", Some(A)));
    world.drop(1, &syn(0, A, API));
    assert_eq!(world.given(), ["0 a|b → api"]);
}

#[test]
fn before_every_kind_was_listed_nothing_is_certain() {
    let mut timeline = Timeline::new(Profile::default(), Limits::default(), at(-60_000));
    timeline.reset(at(-50_000), &KINDS[..5], [pod("api", Some(API)).into(), pod("web", Some(A)).into()]);
    let mut world = World { moments: Moments::new(timeline, MomentsOptions::default()), ..world() };
    world.drop(1, &syn(0, A, API));
    assert_eq!(world.moments.next_due(), Some(at(3_000)));
    world.tick(3_000);
    let denial = world.denial();
    assert_eq!(moment(&denial).past, crate::diagnose::PastKnown::Syncing { missing: vec![Kind::NetworkPolicy] });
    assert_eq!(denial.diagnosis.class, crate::diagnose::Class::Undecided);
    assert!(denial.diagnosis.summary.contains("still syncing: there is no list yet of NetworkPolicy"), "{}", denial.diagnosis.summary);
    world.drop(4_000, &syn(3_500, A, API));
    world.moments.timeline_mut().reset(at(5_000), &[Kind::NetworkPolicy], [policy("api", &[]).into()]);
    world.tick(5_000);
    // The one that was given is judged again, and the one that waits is given.
    let steps = std::mem::take(&mut world.steps);
    let [Step::Amendment(Amendment { denial: first, .. }), Step::Denial(second)] = steps.as_slice() else { panic!("{steps:?}") };
    for denial in [first, second] {
        assert_eq!(moment(denial).past, crate::diagnose::PastKnown::Syncing { missing: Vec::new() });
        assert!(matches!(denial.diagnosis.class, crate::diagnose::Class::PolicyDenied(_)), "{:?}", denial.diagnosis);
    }
    world.drop(6_000, &syn(5_500, A, API));
    assert!(moment(&world.denial()).is_plain());
}

#[test]
fn what_is_older_than_the_memory_is_not_certain() {
    let limits = Limits { max_changes: 1, ..Limits::default() };
    let mut timeline = Timeline::new(Profile::default(), limits, at(-60_000));
    timeline.reset(at(-60_000), &KINDS, [pod("api", Some(API)).into(), pod("web", Some(A)).into()]);
    let mut world = World { moments: Moments::new(timeline, MomentsOptions::default()), ..world() };
    world.apply(-20_000, pod("x", None));
    world.apply(-10_000, pod("y", None));
    world.drop(1, &syn(-30_000, A, API));
    let denial = world.denial();
    assert_eq!(moment(&denial).past, crate::diagnose::PastKnown::BeforeHorizon { horizon: at(-20_000) });
    assert_eq!(denial.diagnosis.class, crate::diagnose::Class::Undecided, "no host firewall is blamed by what is not known");
}

#[test]
fn all_that_may_have_called_from_a_node_are_named() {
    let mut world = world();
    for name in ["exporter", "proxy"] {
        world.apply(-5_000, Pod { host_network: true, ..pod(name, Some("192.168.0.1")) });
    }
    world.drop(1, &syn(0, "192.168.0.1", API));
    let denial = world.denial();
    assert_eq!(denial.who.callers.iter().map(|pod| &*pod.name).collect::<Vec<_>>(), ["exporter", "proxy"]);
    assert!(moment(&denial).is_plain());
}

/// Pods are not heard of from -1 s on.
fn cut_off(world: &mut World) {
    world.moments.set_unheard([(Kind::Pod, at(-1_000))].into(), at(-1_000));
}

/// The list with which they are heard of again.
fn listed(world: &mut World, milliseconds: i64, pods: Vec<Pod>) {
    let objects = pods.into_iter().chain([pod("api", Some(API))]).map(Into::into);
    world.moments.timeline_mut().reset(at(milliseconds), &[Kind::Pod], objects);
    world.moments.heard_again(Kind::Pod, at(-1_000), at(milliseconds));
    world.moments.set_unheard([].into(), at(milliseconds));
    world.tick(milliseconds);
}

#[test]
fn who_came_while_pods_were_not_heard_of_is_told_with_the_list() {
    let mut world = world();
    cut_off(&mut world);
    world.drop(2_001, &syn(2_000, A, API));
    world.tick(5_000);
    assert_eq!(world.given(), ["2000 ? → api"]);
    // It was longer away than an address takes to be published, and than owners turn up late.
    world.tick(50_000);
    assert_eq!(world.moments.status().watched, 1);
    listed(&mut world, 60_000, vec![pod("web", Some(A))]);
    let denial = world.denial();
    assert_eq!(told(&Step::Denial(denial.clone())), "2000 web → api");
    assert!(!moment(&denial).is_plain() && matches!(how(&denial).as_slice(), [How::PublishedLater { .. }]), "{:?}", denial.moment);
    // Who comes afterwards cannot have been it.
    world.apply(61_000, pod("other", Some(A)));
    assert_eq!(world.given(), [] as [String; 0]);
}

#[test]
fn an_address_that_changed_hands_while_pods_were_not_heard_of_may_be_eithers() {
    let mut world = world();
    world.apply(-30_000, pod("web", Some(A)));
    cut_off(&mut world);
    world.drop(2_001, &syn(2_000, A, API));
    assert_eq!(world.given(), ["2000 web → api"]);
    listed(&mut world, 40_000, vec![pod("next", Some(A))]);
    assert_eq!(world.given(), ["2000 web → api is 2000 web|next → api"]);
    // Before the cut, but for what may not have been told any more, it was the first one, and afterwards it is the other.
    world.drop(40_500, &syn(-4_000, A, API));
    world.drop(40_501, &syn(40_400, A, API).with(|record| record.netns = 9));
    assert_eq!(world.given(), ["-4000 web → api", "40400 next → api"]);
}

#[test]
fn a_drop_just_before_pods_are_not_heard_of_any_more_is_looked_at_again() {
    let mut world = world();
    world.apply(-30_000, pod("web", Some(A)));
    world.drop(1, &syn(-1_500, A, API));
    assert_eq!(world.given(), ["-1500 web → api"]);
    // That its pod ended before may not have been told any more.
    cut_off(&mut world);
    world.tick(20_000);
    listed(&mut world, 40_000, vec![pod("next", Some(A))]);
    assert_eq!(world.given(), ["-1500 web → api is -1500 web|next → api"]);
    world.tick(60_000);
    assert_eq!(world.moments.status().watched, 0);
}

#[test]
fn what_the_list_has_no_news_of_is_not_watched_any_longer() {
    let mut world = world();
    world.apply(-30_000, pod("web", Some(A)));
    cut_off(&mut world);
    world.drop(2_001, &syn(2_000, A, API));
    world.drop(2_002, &syn(2_000, B, API));
    world.tick(5_000);
    assert_eq!(world.given(), ["2000 web → api", "2000 ? → api"]);
    listed(&mut world, 40_000, vec![pod("web", Some(A))]);
    world.tick(40_001);
    assert_eq!((world.given(), world.moments.status().watched), (vec![], 0));
}

/// The server kept what the watch has missed: it goes on where it was, without a list.
#[test]
fn a_watch_that_goes_on_tells_who_came_meanwhile() {
    let mut world = world();
    cut_off(&mut world);
    world.drop(2_001, &syn(2_000, A, API));
    world.drop(2_002, &syn(2_000, B, API));
    world.tick(5_000);
    assert_eq!(world.given(), ["2000 ? → api", "2000 ? → api"]);
    // One comes before it is known that the watch goes on, one after.
    world.apply(60_000, pod("web", Some(A)));
    assert!(world.given().is_empty());
    world.moments.set_unheard([].into(), at(60_010));
    world.tick(60_010);
    assert_eq!(world.given(), ["2000 ? → api is 2000 web → api"]);
    world.apply(60_100, pod("late", Some(B)));
    assert_eq!(world.given(), ["2000 ? → api is 2000 late → api"]);
    world.tick(80_000);
    assert_eq!(world.moments.status().watched, 0);
}

#[test]
fn who_is_long_gone_is_not_named_while_the_next_is_waited_for() {
    let mut world = world();
    world.apply(0, pod("first", Some(A)));
    world.apply(4_000, Pod { deleting: true, ready: false, ..pod("first", Some(A)) });
    world.apply(4_250, pod("second", Some(A)));
    world.delete(6_750, "second");
    world.apply(7_250, pod("third", None));
    world.drop(8_750, &syn(8_750, A, API));
    assert_eq!(world.given(), [] as [String; 0]);
    world.moments.timeline_mut().delete(at(9_000), &key("first"));
    world.moments.timeline_mut().apply(at(9_000), pod("third", Some(A)));
    world.tick(9_000);
    assert_eq!(world.given(), ["8750 third → api"]);
}
