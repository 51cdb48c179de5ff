//! What goes wrong on the way, and that nothing of it stays.

use std::time::Duration;

use jiff::Timestamp;
use netpol_observer::watch::{State, WatchOptions};
use xtask::apiserver::{Cut, Fault, Options, Scope};

use crate::scene::{Scene, change, quick, server};

/// The kinds that change in these tests.
const CHANGING: [&str; 2] = ["pods", "networkpolicies"];

fn lists(scene: &Scene, resource: &str) -> u64 {
    scene.status().resource(resource).unwrap().lists
}

/// Watches end in a way while objects change; afterwards all is known, and nothing was listed again unless the revision was refused.
fn cut(how: Cut, watch: WatchOptions, lists_after: u64) {
    for streaming_lists in [true, false] {
        let scene = Scene::new(server(Options { streaming_lists, ..Options::default() }), watch.clone());
        scene.synced();
        scene.settles();
        for resource in CHANGING {
            scene.becomes("it watches", |scene| scene.server.stats().open_watches(resource) == 1);
        }
        for resource in CHANGING {
            scene.server.cut_watches(Scope::resource(resource), how);
        }
        (0..10).for_each(|number| change(&scene.server, number));
        scene.settles();
        assert_eq!(lists(&scene, "pods"), lists_after, "{how:?}");
        (10..20).for_each(|number| change(&scene.server, number));
        scene.settles();
        assert!(scene.status().resource("pods").unwrap().watches >= 2, "{:#?}", scene.status());
    }
}

#[test]
fn a_watch_that_ends_goes_on_where_it_was() {
    cut(Cut::End, quick(), 1);
}

#[test]
fn a_watch_whose_connection_is_reset_goes_on_where_it_was() {
    cut(Cut::Reset, quick(), 1);
}

#[test]
fn a_half_open_watch_is_found_out_and_goes_on_where_it_was() {
    cut(Cut::Silence, WatchOptions { quiet: Duration::from_millis(500), ..quick() }, 1);
}

#[test]
fn a_watch_that_is_too_old_is_listed_again() {
    cut(Cut::Gone, quick(), 2);
}

#[test]
fn bookmarks_keep_a_quiet_watch_alive_and_move_it_on() {
    let options = Options { bookmark_period: Duration::from_millis(100), ..Options::default() };
    let scene = Scene::new(server(options), WatchOptions { quiet: Duration::from_secs(3), ..quick() });
    scene.synced();
    scene.settles();
    // Much happens that concerns no pod; the server forgets all of it and what was before.
    scene.server.skip_revisions(5000);
    let heard = scene.status().resource("pods").unwrap().heard_at.unwrap();
    scene.becomes("bookmarks come", |scene| {
        let pods = scene.status();
        pods.resource("pods").unwrap().heard_at.unwrap().duration_since(heard).as_millis() > 1000
    });
    assert_eq!(scene.asked("watch", "pods"), 1, "{:#?}", scene.status());
    scene.server.compact();
    scene.server.cut_watches(Scope::resource("pods"), Cut::End);
    (0..3).for_each(|number| change(&scene.server, number));
    scene.settles();
    assert_eq!(lists(&scene, "pods"), 1, "the bookmark was new enough");
}

#[test]
fn watches_end_after_their_time_and_go_on() {
    let watch = WatchOptions { watch_timeout: Duration::from_secs(1), ..quick() };
    let scene = Scene::new(server(Options::default()), watch);
    scene.synced();
    for number in 0..30 {
        change(&scene.server, number);
        std::thread::sleep(Duration::from_millis(100));
    }
    scene.settles();
    let status = scene.status();
    let pods = status.resource("pods").unwrap();
    assert!(pods.watches >= 2 && pods.lists == 1 && pods.failures == 0, "{pods:#?}");
}

/// What a server says when it is not well, each a few times, and for everything that is asked.
#[test]
fn refusals_pass() {
    for streaming_lists in [true, false] {
        let server = server(Options { streaming_lists, ..Options::default() });
        let faults = [
            Fault::Internal,
            Fault::Unavailable,
            Fault::TooManyRequests(1),
            Fault::Unauthorized,
            Fault::Gone,
            Fault::NotFound,
            Fault::Reset,
            Fault::Truncate,
        ];
        for fault in &faults {
            server.fail_next(Scope::resource("pods"), 2, fault.clone());
            server.fail_next(Scope::resource("nodes"), 1, fault.clone());
        }
        server.fail_next(Scope::resource("/apis"), 2, Fault::Unavailable);
        let scene = Scene::new(server, quick());
        scene.synced();
        scene.settles();
        for fault in faults {
            scene.server.fail_next(Scope::verb("pods", "watch"), 2, fault);
        }
        scene.server.cut_watches(Scope::resource("pods"), Cut::End);
        (0..10).for_each(|number| change(&scene.server, number));
        scene.settles();
        let status = scene.status();
        assert!(status.resource("pods").unwrap().failures >= 20, "{status:#?}");
        scene.becomes("all watches run", |scene| {
            scene.status().resources.iter().all(|resource| matches!(resource.state, State::Watching | State::Unserved))
        });
    }
}

/// A watch is told 410 again and again: it lists again and again, and less and less often.
#[test]
fn a_storm_of_expired_watches() {
    for streaming_lists in [true, false] {
        let watch = WatchOptions { last_retry: Duration::from_secs(2), ..quick() };
        let scene = Scene::new(server(Options { streaming_lists, ..Options::default() }), watch);
        scene.synced();
        scene.settles();
        let asked = |scene: &Scene| ["list", "watch"].map(|verb| scene.asked(verb, "pods")).iter().sum::<u64>();
        let (before, began) = (asked(&scene), std::time::Instant::now());
        scene.server.fail_next(Scope::verb("pods", "watch"), usize::MAX, Fault::Gone);
        scene.server.cut_watches(Scope::resource("pods"), Cut::Gone);
        let mut number = 0;
        while began.elapsed() < Duration::from_secs(4) {
            change(&scene.server, number);
            number += 1;
            std::thread::sleep(Duration::from_millis(20));
        }
        let in_storm = asked(&scene) - before;
        assert!((3..60).contains(&in_storm), "{in_storm} requests in {:?}", began.elapsed());
        scene.server.clear_faults();
        scene.settles();
        scene.becomes("it watches", |scene| scene.status().resource("pods").unwrap().state == State::Watching);
    }
}

#[test]
fn the_server_is_away_and_comes_back() {
    for forgets in [true, false] {
        let scene = Scene::new(server(Options::default()), quick());
        scene.synced();
        scene.settles();
        scene.server.go_away().unwrap();
        scene.becomes("it is told", |scene| {
            scene.status().resources.iter().filter(|resource| matches!(resource.state, State::Retrying { .. })).count() >= 6
        });
        let State::Retrying { problem } = scene.status().resource("pods").unwrap().state.clone() else { panic!("no problem") };
        assert!(problem.contains("cannot be reached"), "{problem}");
        (0..10).for_each(|number| change(&scene.server, number));
        std::thread::sleep(Duration::from_secs(2));
        let failures = scene.status().resource("pods").unwrap().failures;
        assert!(failures < 40, "{failures} tries in two seconds");
        if forgets {
            scene.server.compact();
        }
        scene.server.come_back().unwrap();
        scene.settles();
        assert_eq!(lists(&scene, "pods"), if forgets { 2 } else { 1 });
        assert!(scene.status().synced, "what was complete once stays so");
    }
}

#[test]
fn a_server_that_answers_nothing() {
    let watch = WatchOptions { answer_timeout: Duration::from_millis(500), quiet: Duration::from_millis(500), ..quick() };
    let scene = Scene::new(server(Options { bookmark_period: Duration::from_millis(100), ..Options::default() }), watch);
    scene.synced();
    scene.settles();
    scene.server.go_deaf().unwrap();
    (0..10).for_each(|number| change(&scene.server, number));
    scene.becomes("it is told", |scene| match &scene.status().resource("pods").unwrap().state {
        State::Retrying { problem } => problem.contains("nothing came"),
        _ => false,
    });
    scene.server.come_back().unwrap();
    scene.settles();
    // One request that hangs does not hold up the others either.
    scene.server.fail_next(Scope::verb("pods", "watch"), 2, Fault::Hang);
    scene.server.cut_watches(Scope::resource("pods"), Cut::Reset);
    (10..20).for_each(|number| change(&scene.server, number));
    scene.settles();
}

/// The server's clock says nothing about when something was received.
#[test]
fn clocks_of_others_do_not_count() {
    for skew in [-86_400, 86_400] {
        let server = server(Options::default());
        server.set_clock_skew(skew);
        let start = Timestamp::now();
        let scene = Scene::new(server, quick());
        scene.synced();
        (0..5).for_each(|number| change(&scene.server, number));
        scene.server.delete("v1", "Pod", "shop", "pod-6").unwrap();
        scene.settles();
        let end = Timestamp::now();
        scene.with(|known| {
            assert!(known.updates.iter().all(|update| start <= update.at && update.at <= end));
            assert!(known.updates.len() > 20);
        });
    }
}

/// Nobody reads for a while: what waits is bounded, and nothing of it is lost.
#[test]
fn a_slow_reader_slows_the_watches() {
    let kubeconfig = |server: &xtask::apiserver::Server| server.kubeconfig(xtask::apiserver::ADMIN).unwrap();
    let server = server(Options { history: 100_000, ..Options::default() });
    let config = kubeconfig(&server);
    let scene = Scene::of(server, &config, WatchOptions { buffer: 4, ..quick() }, false);
    scene.becomes("the buffer is full", |scene| scene.waiting() == 4);
    (0..300).for_each(|number| change(&scene.server, number));
    assert_eq!(scene.waiting(), 4);
    scene.read();
    scene.settles();
    assert_eq!(lists(&scene, "pods"), 1);
}

/// Nobody reads, and the server says again and again that all is to be listed: of each kind one list waits, and no second one is made.
#[test]
fn lists_do_not_pile_up_in_front_of_a_slow_reader() {
    let server = server(Options::default());
    let config = server.kubeconfig(xtask::apiserver::ADMIN).unwrap();
    let scene = Scene::of(server, &config, quick(), false);
    scene.synced();
    for number in 0..10 {
        scene.becomes("it has watched", |scene| scene.status().resource("pods").unwrap().watches >= 1);
        change(&scene.server, number);
        scene.server.cut_watches(Scope::default(), Cut::Gone);
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(lists(&scene, "pods"), 1);
    scene.read();
    scene.settles();
    assert_eq!(lists(&scene, "pods"), 2);
}
