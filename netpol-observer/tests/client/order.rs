//! What several agents see comes as one stream, in the order of time.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::agent::Setup;
use crate::scene::Scene;

fn seconds(count: i64) -> SignedDuration {
    SignedDuration::from_secs(count)
}

#[test]
fn what_agents_have_kept_comes_in_the_order_of_time() {
    let (scene, agents) = Scene::with(&["node-1", "node-2", "node-3"]);
    let start = Timestamp::now() - seconds(600);
    for id in 0..300u64 {
        let agent = &agents[usize::try_from(id * 7 % 11 % 3).unwrap()];
        agent.saw(id, start + SignedDuration::from_millis(i64::try_from(id).unwrap()));
    }
    let run = scene.run(&["tail", "-o", "json", "--no-follow", "--since", "1h", "-n", "shop", "--not", "--port", "53"]);
    assert_eq!(run.code, Some(0), "{}", run.err);
    let ids: Vec<u64> = run.drops().into_iter().map(|(_, id)| id).collect();
    assert_eq!(ids, (0..300).collect::<Vec<_>>());
    assert!(run.drops().iter().all(|(node, id)| *node == format!("node-{}", id * 7 % 11 % 3 + 1)));
    assert!(run.err.contains("300 received from 3 agents = 300 in order\ndrops    300 received = 300 shown + 0 repeats"), "{}", run.err);
    let request = agents[0].requests().pop().unwrap();
    let words: Vec<_> = request.query.iter().filter(|(name, _)| name == "arg").map(|(_, value)| value.as_str()).collect();
    assert_eq!(words, ["--namespace=shop", "--not", "--port=53"]);
    let query = |name: &str| request.query.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
    assert_eq!((query("follow"), query("form"), query("all"), query("last")), (Some("false"), Some("json"), Some("false"), None));
    let since: Timestamp = query("since").unwrap().parse().unwrap();
    assert!((Timestamp::now().duration_since(since) - seconds(3600)).abs() < seconds(120));
}

#[test]
fn the_last_of_every_agent() {
    let (scene, agents) = Scene::with(&["node-1", "node-2"]);
    let start = Timestamp::now() - seconds(60);
    for (id, agent) in (0..20u64).zip(agents.iter().cycle()) {
        agent.saw(id, start + seconds(i64::try_from(id).unwrap()));
    }
    let run = scene.run(&["tail", "-o", "json", "--no-follow", "--last", "2"]);
    assert_eq!(run.drops().into_iter().map(|(_, id)| id).collect::<Vec<_>>(), [16, 17, 18, 19]);
    let run = scene.run(&["tail", "--no-follow", "--last", "1", "--node", "node-2"]);
    assert_eq!((run.out.as_str(), run.code), ("DENIED 19 on node-2\n", Some(0)), "{}", run.err);
}

#[test]
fn drops_as_they_happen() {
    let (scene, agents) = Scene::with(&["node-1", "node-2", "node-3"]);
    agents[0].saw(1000, Timestamp::now() - seconds(30));
    let tail = scene.tail(&[]);
    agents.iter().for_each(|agent| agent.wait_for_readers(1));
    for id in 0..60u64 {
        agents[usize::try_from(id % 3).unwrap()].sees(id);
    }
    assert_eq!(tail.next_ids(60), (0..60).collect::<Vec<_>>(), "what was before is not asked for");
    // At the end, what has come is given, though not all agents have passed it.
    let run = tail.interrupt();
    assert_eq!(run.code, Some(0), "{}", run.err);
    assert!(run.err.contains("60 received from 3 agents = 60 in order\n"), "{}", run.err);
}

#[test]
fn text_and_objects_of_the_run() {
    let (scene, agents) = Scene::with(&["node-1"]);
    agents[0].saw(1, Timestamp::now() - seconds(10));
    let run = scene.run(&["tail", "--no-follow", "--since", "1m"]);
    assert_eq!(run.out, "DENIED 1 on node-1\n");
    let mut lines = run.err.lines();
    assert_eq!(lines.next(), Some("asking the agents in namespace netpol-observer (test)"));
    assert_eq!(lines.next(), Some("watching drops of 1 agent on node-1"));
    assert_eq!(lines.next(), Some("agents   1 received from 1 agent = 1 in order"));
    assert_eq!(lines.next(), Some("drops    1 received = 1 shown + 0 repeats"));
    assert_eq!(lines.next(), None);
    let run = scene.run(&["tail", "--no-follow", "--since", "1m", "-o", "json"]);
    let objects: Vec<Value> = run.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let types: Vec<_> = objects.iter().map(|object| object["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["notice", "notice", "denial", "ledger", "notice", "notice"]);
    assert_eq!((&objects[2]["node"], &objects[3]["node"]), (&"node-1".into(), &"node-1".into()));
}

#[test]
fn a_clock_that_is_off_is_told_and_spoils_nothing_for_others() {
    let scene = Scene::new();
    let setup = |node: &str, skew| Setup { node: node.to_owned(), skew: seconds(skew), ..Setup::default() };
    let agents = [scene.agent(setup("node-1", 0)), scene.agent(setup("node-2", 0)), scene.agent(setup("node-3", 3600))];
    let tail = scene.tail(&[]);
    agents.iter().for_each(|agent| agent.wait_for_readers(1));
    for id in 0..90u64 {
        agents[usize::try_from(id % 3).unwrap()].sees(id);
    }
    let mut ids = tail.next_ids(90);
    tail.wait_for("warning: node-3: its clock is about 1 h 0 m ahead of that of this machine");
    let others: Vec<_> = ids.iter().filter(|id| **id % 3 != 2).collect();
    assert!(others.is_sorted(), "{ids:?}");
    ids.sort_unstable();
    assert_eq!(ids, (0..90).collect::<Vec<_>>());
    let run = tail.interrupt();
    assert!(run.err.contains("60 in order + 30 of a clock that is ahead"), "{}", run.err);
}
