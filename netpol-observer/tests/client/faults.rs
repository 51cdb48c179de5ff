//! Agents that die, hang, flood and talk nonsense, and an API server that goes away.

use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};

use crate::agent::{Mode, Setup};
use crate::scene::{NAMESPACE, Scene, pod};

#[test]
fn agents_that_come_and_go() {
    let (scene, agents) = Scene::with(&["node-1", "node-2"]);
    let tail = scene.tail(&[]);
    agents.iter().for_each(|agent| agent.wait_for_readers(1));
    agents[0].sees(1);
    assert_eq!(tail.next(), ("node-1".to_owned(), 1));

    let late = Setup { node: "node-3".to_owned(), kept_since: Some(Timestamp::now()), ..Setup::default() };
    let third = scene.agent(late);
    // It sees something before anybody could ask it.
    third.sees(2);
    tail.wait_for("node-3: the agent came");
    assert_eq!(tail.next(), ("node-3".to_owned(), 2));

    // It says that it ends, its pod goes, and another comes in its place.
    agents[1].ends("shutting down");
    tail.wait_for("node-2: the agent ended: shutting down");
    scene.server.finish_pod(NAMESPACE, "agent-node-2").unwrap();
    tail.wait_for("node-2: the agent went");
    agents[0].sees(3);
    assert_eq!(tail.next().1, 3);
    tail.wait_for("warning: node-2 is silent: no agent runs there; drops there are not seen");
    let next = crate::agent::Agent::new(Setup { node: "node-2".to_owned(), ..Setup::default() });
    scene.pod("node-2", "agent-new", &next);
    tail.wait_for("node-2 is silent no more");
    next.wait_for_readers(1);
    next.sees(4);
    assert_eq!(tail.next(), ("node-2".to_owned(), 4));
    assert_eq!(tail.interrupt().code, Some(0));
}

#[test]
fn connections_that_break_lose_and_double_nothing() {
    let (scene, agents) = Scene::with(&["node-1", "node-2"]);
    let tail = scene.tail(&[]);
    agents.iter().for_each(|agent| agent.wait_for_readers(1));
    let mut ids = Vec::new();
    for round in 0..5u64 {
        for id in round * 40..round * 40 + 40 {
            agents[usize::try_from(id % 2).unwrap()].sees(id);
        }
        agents[0].breaks_off();
        // While nobody reads it.
        agents[0].sees(10_000 + round);
        ids.extend(tail.next_ids(41));
    }
    ids.sort_unstable();
    assert_eq!(ids, (0..200).chain(10_000..10_005).collect::<Vec<_>>());
    assert!(agents[0].requests().len() > 5);
    let run = tail.interrupt();
    assert_eq!(run.drops(), [], "nothing comes twice");
    assert_eq!(run.code, Some(0));
}

#[test]
fn an_agent_that_kept_less_than_is_asked_for_is_told() {
    let scene = Scene::new();
    let kept_since = Timestamp::now() - SignedDuration::from_secs(60);
    let agent = scene.agent(Setup { node: "node-1".to_owned(), kept_since: Some(kept_since), ..Setup::default() });
    agent.saw(1, Timestamp::now());
    let run = scene.run(&["tail", "--no-follow", "--since", "1h", "-o", "json"]);
    assert_eq!(run.drops().len(), 1);
    assert!(run.err.contains("warning: node-1: what was dropped from "), "{}", run.err);
    assert!(run.err.contains(&format!(" to {kept_since} is not known")), "{}", run.err);
}

#[test]
fn one_that_hangs_holds_nobody_up() {
    let (scene, agents) = Scene::with(&["node-1", "node-2", "node-3"]);
    let tail = scene.tail(&[]);
    agents.iter().for_each(|agent| agent.wait_for_readers(1));
    agents[2].sees(0);
    assert_eq!(tail.next().1, 0);
    agents[2].becomes(Mode::Mute);
    for id in 1..50 {
        agents[usize::try_from(id % 2).unwrap()].sees(id);
        agents[2].sees(1000 + id);
    }
    assert_eq!(tail.next_ids(49), (1..50).collect::<Vec<_>>());
    tail.wait_for("warning: node-3: the agent cannot be reached: it sends nothing; trying again");
    // Its connection is held to be dead after a while; the next one brings what it saw.
    agents[2].wait_for_readers(2);
    agents[2].becomes(Mode::Well);
    assert_eq!(tail.next_ids(49), (1001..1050).collect::<Vec<_>>());
    tail.wait_for("node-3: the agent can be reached again");
    assert!(tail.interrupt().drops().is_empty());
}

/// Resident memory of a process in kilobytes.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn one_that_floods_is_slowed_and_loses_nothing() {
    const MANY: u64 = 60_000;
    let (scene, agents) = Scene::with(&["node-1", "node-2"]);
    let tail = scene.tail(&[]);
    agents.iter().for_each(|agent| agent.wait_for_readers(1));
    for id in 0..MANY {
        agents[0].sees(id);
        if id % 6000 == 0 {
            agents[1].sees(1_000_000 + id);
        }
    }
    let (mut flood, mut few) = (Vec::new(), Vec::new());
    for _ in 0..MANY + 10 {
        let (node, id) = tail.next();
        if node == "node-1" { flood.push(id) } else { few.push(id) }
    }
    assert!(flood.into_iter().eq(0..MANY));
    assert_eq!(few.len(), 10);
    let peak = resident(tail.pid());
    assert!(peak < 100_000, "{peak} kB for 25 MB of drops");
    assert!(tail.interrupt().drops().is_empty());
}

#[test]
fn an_agent_of_another_version_is_left_out_and_told() {
    let (scene, agents) = Scene::with(&["node-1", "node-2"]);
    agents[0].becomes(Mode::Refusing(404, "/v1/drops is not known here;\n this agent speaks /v2".to_owned()));
    let tail = scene.tail(&[]);
    agents[1].wait_for_readers(1);
    agents[1].sees(1);
    assert_eq!(tail.next().1, 1);
    tail.wait_for("node-1: the agent cannot be reached: the agent answers 404: /v1/drops is not known here;\\n this agent speaks /v2");
    // It is replaced by one that can.
    agents[0].becomes(Mode::Well);
    tail.wait_for("node-1: the agent can be reached again");
}

#[test]
fn nonsense_is_counted_and_the_rest_is_read() {
    let (scene, agents) = Scene::with(&["node-1", "node-2", "node-3", "node-4"]);
    agents[1].becomes(Mode::Noise);
    agents[2].becomes(Mode::First(r#"{"frame":"item","order":"2026-11-23T14:02:11Z","text":"no hello"}"#.to_owned()));
    let start = Timestamp::now();
    let frame = |rest: &str| format!("{{\"frame\":\"item\",\"order\":\"{start}\",{rest}}}");
    for line in [
        "no JSON",
        &frame("\"line\":[]"),
        &frame("\"line\":{\"type\":\"denial\",\"node\":\"node-2\",\"id\":5}"),
        &format!("{{\"frame\":\"item\",\"padding\":\"{}\"}}", "x".repeat(3 << 20)),
        r#"{"frame":"of a later version","order":7}"#,
    ] {
        agents[0].says(line);
    }
    agents[0].saw(1, start);
    let mut evil = String::new();
    write!(
        evil,
        "{{\"frame\":\"item\",\"order\":\"{start}\",\"text\":\"\\u001b]0;title\\u0007\\u001b[31mDENIED\\u001b[0m \\u009b2J\\n\"}}"
    )
    .unwrap();
    agents[3].says(&evil);
    let run = scene.run(&["tail", "-o", "json", "--no-follow", "--since", "1m", "--node", "node-1"]);
    assert_eq!(run.drops(), [("node-1".to_owned(), 1)]);
    assert!(run.err.contains("; 4 frames could not be read"), "{}", run.err);
    assert!(
        run.err.contains("warning: node-1: 4 frames of the agent could not be read, and are left out: it is no frame of the agents' API"),
        "{}",
        run.err
    );
    let run = scene.run(&["tail", "--no-follow", "--since", "1m", "--node", "node-2", "--node", "node-3"]);
    assert_eq!((run.out.as_str(), run.code), ("", Some(0)), "{}", run.err);
    assert!(run.err.contains("node-2: the agent cannot be reached: no answer in HTTP:"), "{}", run.err);
    assert!(run.err.contains("if the agents run in tenant mode, name a ServiceAccount with --as-service-account"), "{}", run.err);
    assert!(
        run.err.contains("node-3: the agent cannot be reached: what answers there is no agent: its first frame is no hello"),
        "{}",
        run.err
    );
    for (colour, expected) in [
        ("never", "\\u{1b}]0;title\\u{7}\\u{1b}[31mDENIED\\u{1b}[0m \\u{9b}2J\n"),
        ("always", "\\u{1b}]0;title\\u{7}\u{1b}[31mDENIED\u{1b}[0m \\u{9b}2J\n"),
    ] {
        let run = scene.run(&["tail", "--no-follow", "--since", "1m", "--node", "node-4", "--color", colour]);
        assert_eq!(run.out, expected);
    }
}

#[test]
fn observations_that_were_not_sent_are_told() {
    let (scene, agents) = Scene::with(&["node-1"]);
    let tail = scene.tail(&[]);
    agents[0].wait_for_readers(1);
    agents[0].loses(7);
    tail.wait_for("warning: node-1: 7 drops were not sent, since they were read too slowly");
    let run = tail.interrupt();
    assert!(run.err.contains("; 7 drops were not sent, since they were read too slowly"), "{}", run.err);
}

#[test]
fn an_api_server_that_goes_away_and_comes_back() {
    let nodes = ["node-1", "node-2", "node-3", "node-4", "node-5"];
    let (scene, agents) = Scene::with(&nodes);
    let tail = scene.tail(&[]);
    agents.iter().for_each(|agent| agent.wait_for_readers(1));
    agents[0].sees(1);
    assert_eq!(tail.next().1, 1);
    scene.server.go_away().unwrap();
    tail.wait_for("warning: node-");
    assert!(tail.said().contains(" and 2 more: the agents cannot be reached: "), "one line for all: {}", tail.said());
    for (id, agent) in (2..).zip(&agents) {
        agent.sees(id);
    }
    scene.server.come_back().unwrap();
    let mut ids = tail.next_ids(5);
    ids.sort_unstable();
    assert_eq!(ids, (2..7).collect::<Vec<_>>(), "what happened meanwhile is not lost");
    tail.wait_for("can be reached again");
    let run = tail.interrupt();
    assert_eq!((run.code, run.drops()), (Some(0), vec![]));
}

#[test]
fn a_reader_that_goes_ends_it_quietly() {
    let (scene, agents) = Scene::with(&["node-1"]);
    for id in 0..5000 {
        agents[0].saw(id, Timestamp::now());
    }
    let mut child = scene
        .command(&["tail", "--since", "1h"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    assert_eq!(line, "DENIED 0 on node-1\n");
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn nodes_without_an_agent_that_is_ready_are_named() {
    let (scene, agents) = Scene::with(&["node-1"]);
    scene.node("node-2");
    scene.node("node-3");
    scene.server.create(pod("node-4", "agent-4", false)).unwrap();
    let tail = scene.tail(&[]);
    agents[0].wait_for_readers(1);
    tail.wait_for("warning: node-2, node-3 are silent: no agent runs there; drops there are not seen");
    tail.wait_for("warning: node-4 is silent: its agent is not ready; drops there are not seen");
}
