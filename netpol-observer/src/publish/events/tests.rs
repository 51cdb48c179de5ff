//! The table alone, with times made up; and all of it on the test API server.

mod on_a_server;

use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::account::{Counters, Untold};
use super::mention::{Mention, mentions};
use super::note::Reporter;
use super::table::{Job, Outcome, Table};
use super::testing::{of, settled_of};
use super::{Disclosure, Limits, Rate};
use crate::cluster::Pod;
use crate::identify::{Identity, Party};

const SECOND: Duration = Duration::from_secs(1);

/// The client's mention of `count` drops on a port. `pod` makes the client another one, of another workload.
fn mention(pod: u16, port: u16, count: u64) -> Mention {
    let mut denial = of(u64::from(port));
    denial.event.flow.destination_port = Some(port);
    denial.event.conntrack = None;
    denial.who.service = None;
    if let Identity::Pod(client) = &denial.who.client.identity {
        let client = Pod { uid: format!("uid-{pod}").into(), namespace: format!("ns-{}", pod % 3).into(), ..Pod::clone(client) };
        denial.who.client = Party { ip: denial.who.client.ip, identity: Identity::Pod(Arc::new(client)) };
    }
    mentions(&settled_of(denial, count), Disclosure::AcrossNamespaces).remove(0)
}

fn without_record(mention: &Mention) -> Mention {
    Mention { denial: None, ..mention.clone() }
}

struct Scene {
    table: Table,
    account: Arc<Counters>,
    start: Instant,
}

impl Scene {
    fn new(limits: Limits) -> Self {
        let account = Arc::new(Counters::default());
        let reporter = Reporter::new("node-1", None, Disclosure::AcrossNamespaces);
        Scene { table: Table::new(reporter, limits, Arc::clone(&account)), account, start: Instant::now() }
    }

    fn take(&mut self, mention: &Mention, seconds: u64) {
        self.account.count_mentions(mention.count);
        self.table.take(mention, self.start + SECOND * u32::try_from(seconds).unwrap());
    }

    fn next(&mut self, seconds: u64) -> Option<Job> {
        self.table.next(self.start + SECOND * u32::try_from(seconds).unwrap())
    }

    fn done(&mut self, outcome: Outcome, seconds: u64) {
        self.table.done(&outcome, self.start + SECOND * u32::try_from(seconds).unwrap());
    }

    /// All that is to be asked at a time, with the outcome that it has. Names of what is created, and counts of what is changed.
    fn all(&mut self, outcome: &Outcome, seconds: u64) -> Vec<String> {
        let mut asked = Vec::new();
        while let Some(job) = self.next(seconds) {
            asked.push(shown(&job));
            self.done(outcome.clone(), seconds);
            if *outcome == Outcome::Failed {
                break;
            }
        }
        asked
    }
}

/// `create`, `create 3` and `patch 5`, with counts of series.
fn shown(job: &Job) -> String {
    match job {
        Job::Create(event) => match &event.series {
            Some(series) => format!("create {}", series.count),
            None => "create".to_owned(),
        },
        Job::Patch { series, .. } => format!("patch {}", series.count),
    }
}

#[test]
fn the_first_drop_is_an_event_and_further_ones_change_it_now_and_then() {
    let mut scene = Scene::new(Limits::default());
    let first = mention(1, 80, 1);
    let mut asked = Vec::new();
    for second in 0..600 {
        scene.take(&if second == 0 { first.clone() } else { without_record(&first) }, second);
        for what in scene.all(&Outcome::Done, second) {
            asked.push((second, what));
        }
    }
    let asked: Vec<(u64, &str)> = asked.iter().map(|(second, what)| (*second, what.as_str())).collect();
    assert_eq!(asked, [(0, "create"), (5, "patch 6"), (35, "patch 36"), (95, "patch 96"), (215, "patch 216"), (455, "patch 456")]);
    assert_eq!((scene.account.written(), scene.account.patched(), scene.account.told(), scene.account.waiting()), (1, 5, 456, 144));
}

#[test]
fn drops_that_came_together_are_a_series_from_the_start() {
    let mut scene = Scene::new(Limits::default());
    scene.take(&mention(1, 80, 3), 0);
    scene.take(&without_record(&mention(1, 80, 2)), 0);
    assert_eq!(scene.all(&Outcome::Done, 0), ["create 5"]);
}

#[test]
fn after_six_minutes_of_silence_there_is_a_new_event() {
    let mut scene = Scene::new(Limits::default());
    let first = mention(1, 80, 1);
    scene.take(&first, 0);
    assert_eq!(scene.all(&Outcome::Done, 0), ["create"]);
    scene.take(&first, 359);
    assert_eq!(scene.all(&Outcome::Done, 359), ["patch 2"]);
    assert_eq!(scene.all(&Outcome::Done, 359 + 360), [""; 0]);
    scene.take(&without_record(&first), 719);
    assert_eq!(scene.all(&Outcome::Done, 719), [""; 0], "repeats alone open none");
    scene.take(&first, 720);
    assert_eq!(scene.all(&Outcome::Done, 720), ["create"]);
    assert_eq!((scene.account.told(), scene.account.untold(Untold::NotOpened)), (3, 1));
}

#[test]
fn an_event_that_has_expired_is_written_anew() {
    let mut scene = Scene::new(Limits::default());
    let first = mention(1, 80, 1);
    scene.take(&first, 0);
    let Some(Job::Create(before)) = scene.next(0) else { panic!("none is created") };
    scene.done(Outcome::Done, 0);
    scene.take(&first, 10);
    assert_eq!(shown(&scene.next(10).unwrap()), "patch 2");
    scene.done(Outcome::Missing, 10);
    let Some(Job::Create(after)) = scene.next(10) else { panic!("none is created") };
    assert!(before.metadata.name != after.metadata.name && before.note == after.note && after.series.is_none());
    scene.done(Outcome::Done, 10);
    assert_eq!((scene.account.written(), scene.account.told(), scene.account.waiting()), (2, 2, 0));
}

#[test]
fn there_are_so_many_of_the_agent_and_so_many_of_a_pod() {
    let mut scene = Scene::new(Limits::default());
    for port in 0..100 {
        scene.take(&mention(1, port, 1), 0);
    }
    assert_eq!(scene.all(&Outcome::Done, 0).len(), 10);
    assert_eq!((scene.account.untold(Untold::PodLimited), scene.account.untold(Untold::RateLimited)), (90, 0));
    for pod in 2..102 {
        scene.take(&mention(pod, 80, 2), 0);
    }
    assert_eq!(scene.all(&Outcome::Done, 0).len(), 15);
    assert_eq!((scene.account.untold(Untold::PodLimited), scene.account.untold(Untold::RateLimited)), (90, 170));
    // In an hour, one each 5 seconds, whatever there is.
    let mut written = 0;
    for second in 1..=3600 {
        scene.take(&mention(u16::try_from(second + 1000).unwrap(), 80, 1), second);
        written += scene.all(&Outcome::Done, second).iter().filter(|what| what.starts_with("create")).count();
    }
    assert_eq!(written, 720);
    assert_eq!(scene.account.waiting(), scene.table.waiting());
    let (series, pods) = scene.table.remembered();
    assert!(series <= 80 && pods <= 80, "{series} {pods}");
}

#[test]
fn what_is_forbidden_is_not_asked_again_for_minutes() {
    let mut scene = Scene::new(Limits::default());
    scene.take(&mention(3, 80, 2), 0);
    scene.take(&mention(6, 80, 1), 0);
    scene.take(&mention(1, 80, 1), 0);
    assert_eq!(shown(&scene.next(0).unwrap()), "create 2");
    scene.done(Outcome::Forbidden, 0);
    assert_eq!(scene.all(&Outcome::Done, 0).len(), 1, "the same namespace is not tried, another one is");
    scene.take(&mention(3, 81, 4), 299);
    assert_eq!((scene.all(&Outcome::Done, 299), scene.account.forbidden()), (vec![], 7));
    scene.take(&mention(3, 81, 1), 300);
    assert_eq!(scene.all(&Outcome::Done, 300), ["create"]);
    // Who may create and not change them: what was not told is counted when the series is over.
    scene.take(&mention(3, 81, 5), 310);
    assert_eq!(scene.all(&Outcome::Forbidden, 310), ["patch 6"]);
    assert_eq!((scene.all(&Outcome::Forbidden, 609), scene.account.forbidden(), scene.account.waiting()), (vec![], 7, 5));
    assert_eq!(scene.all(&Outcome::Forbidden, 611), ["patch 6"]);
    assert_eq!((scene.all(&Outcome::Forbidden, 670), scene.account.forbidden(), scene.account.waiting()), (vec![], 12, 0));
}

#[test]
fn a_namespace_that_ends_and_an_event_that_is_refused_are_given_up() {
    let mut scene = Scene::new(Limits::default());
    scene.take(&mention(1, 80, 2), 0);
    assert_eq!(scene.all(&Outcome::NamespaceGone, 0), ["create 2"]);
    scene.take(&mention(1, 80, 1), 1);
    scene.take(&mention(2, 80, 1), 1);
    assert_eq!(scene.all(&Outcome::Refused, 1), ["create"]);
    assert_eq!((scene.account.untold(Untold::NamespaceGone), scene.account.untold(Untold::Refused)), (3, 1));
    assert_eq!((scene.account.failed(), scene.account.waiting()), (2, 0));
}

#[test]
fn without_an_api_server_nothing_grows_and_old_news_are_given_up() {
    let mut scene = Scene::new(Limits::default());
    for second in 0..3000 {
        scene.take(&mention(u16::try_from(second).unwrap(), 80, 1), second);
        scene.all(&Outcome::Failed, second);
        assert!(scene.table.remembered().0 <= 25 + 61, "{:?}", scene.table.remembered());
    }
    assert_eq!(scene.account.mentions(), scene.table.waiting() + scene.account.untold(Untold::Unreachable) + scene.account.rate_limited());
    assert!(scene.account.untold(Untold::Unreachable) > 500, "{}", scene.account);
}

#[test]
fn at_the_end_what_is_left_is_written() {
    let mut scene = Scene::new(Limits::default());
    scene.take(&mention(1, 80, 1), 0);
    scene.all(&Outcome::Done, 0);
    scene.take(&mention(1, 80, 4), 1);
    scene.take(&mention(2, 80, 1), 1);
    scene.table.end();
    assert_eq!(scene.next(1).map(|job| shown(&job)).as_deref(), Some("create"));
    scene.done(Outcome::Done, 1);
    assert_eq!(scene.all(&Outcome::Failed, 1), ["patch 5"]);
    scene.table.give_up();
    assert_eq!((scene.account.untold(Untold::Ended), scene.account.waiting(), scene.account.told()), (4, 0, 2));
}

#[test]
fn of_too_many_series_the_one_that_was_silent_for_longest_goes() {
    let mut scene = Scene::new(Limits { series: 2, creations: Rate { burst: 100, every: SECOND }, ..Limits::default() });
    scene.take(&mention(1, 80, 1), 0);
    scene.take(&mention(2, 80, 1), 1);
    scene.take(&mention(3, 80, 1), 1);
    assert_eq!(scene.account.untold(Untold::TableFull), 1, "those that are yet to be created stay");
    scene.all(&Outcome::Done, 1);
    scene.take(&mention(1, 80, 7), 2);
    scene.take(&mention(2, 80, 1), 3);
    scene.take(&mention(3, 80, 1), 4);
    assert_eq!((scene.account.untold(Untold::TableFull), scene.table.remembered().0), (8, 2));
}

fn steps() -> impl Strategy<Value = Vec<(u8, u16, u16, u64, u64)>> {
    proptest::collection::vec((0_u8..10, 0_u16..6, 0_u16..4, 1_u64..5, 0_u64..90), 1..200)
}

proptest! {
    /// Whatever comes and whatever is answered: each mention is told, waits, or is not told for one cause; and no more is asked than may be.
    #[test]
    fn the_account_is_balanced(steps in steps()) {
        let limits = Limits { series: 5, creations: Rate { burst: 4, every: SECOND * 20 }, of_pod: Rate { burst: 3, every: SECOND * 100 }, ..Limits::default() };
        let mut scene = Scene::new(limits.clone());
        let (mut now, mut creates, mut patches) = (0, 0_u64, 0_u64);
        let mut written = std::collections::HashMap::<String, i32>::new();
        for (what, pod, port, count, pause) in steps {
            match what {
                0..4 => {
                    let mention = mention(pod, 80 + port, count);
                    scene.take(&if what == 3 { without_record(&mention) } else { mention }, now);
                }
                _ => {
                    now += pause;
                    let Some(job) = scene.next(now) else { continue };
                    prop_assert!(scene.next(now).is_none(), "one at a time");
                    let outcome = match what {
                        4..7 => Outcome::Done,
                        7 => Outcome::Failed,
                        8 if matches!(job, Job::Patch { .. }) => Outcome::Missing,
                        _ => Outcome::Forbidden,
                    };
                    match &job {
                        Job::Create(event) => {
                            creates += 1;
                            if outcome == Outcome::Done {
                                let count = event.series.as_ref().map_or(1, |series| series.count);
                                let before = written.insert(event.metadata.name.clone().unwrap(), count);
                                prop_assert!(before.is_none(), "names are new");
                            }
                        }
                        Job::Patch { name, series, .. } => {
                            patches += 1;
                            let before = *written.get(name).expect("it is there");
                            prop_assert!(series.count > before && series.count >= 2, "{} after {before}", series.count);
                            if outcome == Outcome::Done {
                                written.insert(name.clone(), series.count);
                            }
                        }
                    }
                    scene.done(outcome, now);
                }
            }
            prop_assert_eq!(scene.account.waiting(), scene.table.waiting(), "{}", scene.account);
            prop_assert!(scene.table.remembered().0 <= 5);
        }
        let told: i64 = written.values().map(|count| i64::from(*count)).sum();
        prop_assert_eq!(scene.account.told(), u64::try_from(told).unwrap(), "what stands in Events");
        prop_assert!(scene.account.written() <= 4 + now / 20);
        prop_assert!(patches <= 10 + now / 5, "{patches} in {now} s");
        prop_assert!(creates >= scene.account.written());
        scene.table.give_up();
        prop_assert_eq!(scene.account.waiting(), 0);
    }
}
