//! `observer agent --events`: Events of real drops, with exactly the role that `observer install --events` grants.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::denials::start_tail;
use crate::install::{IMAGE, installed, kubeconfig, of_kind};
use crate::node::{Node, PORT, cluster, machine, pod, start_agent_with};
use crate::scene::{Scene, Tail};

const WEB: Ipv4Addr = Ipv4Addr::new(10, 244, 2, 10);
/// Pods that call beside web, each of a workload of its own.
const OTHERS: u8 = 30;

/// What the agent may write at once; then one each 5 seconds.
const BURST: u64 = 25;

/// The agent with the arguments of the DaemonSet that was installed.
fn start(scene: &Scene, objects: &[Value]) -> Tail {
    let kubeconfig = kubeconfig(scene);
    let args = &of_kind(objects, "DaemonSet")["spec"]["template"]["spec"]["containers"][0]["args"];
    let args: Vec<String> = serde_json::from_value(args.clone()).unwrap();
    let rest = args.iter().skip(1).map(String::as_str).chain(["--kubeconfig", kubeconfig.to_str().unwrap()]);
    start_agent_with(scene, &rest.collect::<Vec<_>>())
}

/// The Events that the API server has.
fn events(scene: &Scene) -> Vec<Value> {
    scene.server.list("events.k8s.io/v1", "Event")
}

fn until(scene: &Scene, agent: &Tail, is_so: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let end = Instant::now() + crate::PATIENCE;
    loop {
        let events = events(scene);
        if is_so(&events) {
            return events;
        }
        assert!(Instant::now() < end, "{events:#?}\n{}", agent.said());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The number before a word in the agent's last words about Events, or after.
fn number(said: &str, word: &str) -> u64 {
    let account = said.lines().find_map(|line| line.strip_prefix("Events: ")).unwrap_or_else(|| panic!("{said}"));
    account
        .split(&format!(" {word}"))
        .next()
        .unwrap()
        .rsplit([' ', '('])
        .next()
        .unwrap()
        .parse()
        .unwrap_or_else(|error| panic!("{error}: {account}"))
}

fn about<'a>(events: &'a [Value], pod: &str) -> &'a Value {
    events.iter().find(|event| event["regarding"]["name"] == pod).unwrap_or_else(|| panic!("{events:#?}"))
}

#[test]
fn a_drop_is_told_to_both_pods_its_repeats_are_a_series_and_a_flood_is_limited() {
    let Some(_machine) = machine("events::a_drop_is_told_to_both_pods_its_repeats_are_a_series_and_a_flood_is_limited") else { return };
    let (scene, node) = (Scene::new(), Node::new());
    cluster(&scene);
    let objects = installed(&scene, &["--image", IMAGE, "--events"]);
    scene.server.load(objects.clone()).unwrap();
    let web = scene.server.create(pod("web", "node-2", &json!({"app": "web"}), Some(WEB))).unwrap();
    let others: Vec<Ipv4Addr> = (0..OTHERS).map(|number| Ipv4Addr::new(10, 244, 2, 100 + number)).collect();
    for (number, address) in others.iter().enumerate() {
        scene.server.create(pod(&format!("other-{number}"), "node-2", &json!({"app": "other"}), Some(*address))).unwrap();
    }
    let agent = start(&scene, &objects);

    let begin = Instant::now();
    node.send(&[WEB], PORT);
    // Seven more, in the next turn of the kernel's tables: they are settled while the Event is written already.
    std::thread::sleep(Duration::from_millis(1200));
    node.send(&[WEB; 7], PORT);
    let first = until(&scene, &agent, |events| events.len() == 2);
    let note = format!(
        "shop/web → shop/api:{PORT}/UDP was denied (ingress) by shop/api; nearest ingress[0]: peer differs: podSelector wants app=front, shop/web \
         has app=web. Fix: ingress += from podSelector {{app: web}}, ports {PORT}/UDP (admits 1 more workload: shop/web)."
    );
    for (pod, other, kind, action) in [("web", "api", "Warning", "Connect"), ("api", "web", "Normal", "Accept")] {
        let event = about(&first, pod);
        assert_eq!((&event["type"], &event["action"], &event["note"]), (&json!(kind), &json!(action), &json!(note)), "{event:#}");
        assert_eq!((&event["reason"], &event["reportingInstance"]), (&json!("NetworkPolicyDenied"), &json!("agent-1")), "{event:#}");
        assert_eq!((&event["metadata"]["namespace"], &event["related"]["name"]), (&json!("shop"), &json!(other)), "{event:#}");
        assert!(event.get("series").is_none(), "{event:#}");
    }
    assert_eq!(about(&first, "web")["regarding"]["uid"], web["metadata"]["uid"]);

    until(&scene, &agent, |events| events.len() == 2 && events.iter().all(|event| event["series"]["count"] == 8));

    for port in PORT + 1..PORT + 21 {
        node.send(&[&[WEB], others.as_slice()].concat(), port);
    }
    let flood = u64::from(OTHERS) * 20 + 20;
    assert_eq!(node.denied(), flood + 8);
    // Enough for all of it to be settled.
    until(&scene, &agent, |events| events.len() as u64 >= BURST);
    std::thread::sleep(Duration::from_secs(2));
    let ended = agent.interrupt();
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let (said, written) = (&ended.err, events(&scene).len() as u64);
    let allowed = BURST + begin.elapsed().as_secs() / 5 + 1;
    assert!((BURST..=allowed).contains(&written), "{written} of {allowed}: {said}");
    assert_eq!(number(said, "Events written"), written, "{said}");
    assert_eq!(number(said, "mentions"), 2 * (flood + 8), "{said}");
    assert_eq!((number(said, "told") + number(said, "not told"), number(said, "waiting")), (2 * (flood + 8), 0), "{said}");
    assert_eq!(number(said, "not told"), number(said, "rate_limited") + number(said, "pod_limited"), "{said}");
    let of_api = events(&scene).iter().filter(|event| event["regarding"]["name"] == "api").count();
    assert!(of_api <= 10, "{of_api} of one pod");
    let stats = scene.server.stats();
    let refused: Vec<_> = stats.by.iter().filter(|(_, count)| count.codes.keys().any(|code| *code >= 400)).collect();
    assert!(refused.iter().all(|(asked, _)| !asked.user.starts_with("system:serviceaccount:")), "{refused:?}");
}

#[test]
fn without_the_role_it_is_said_once_and_all_else_works() {
    let Some(_machine) = machine("events::without_the_role_it_is_said_once_and_all_else_works") else { return };
    let (scene, node) = (Scene::new(), Node::new());
    cluster(&scene);
    let objects = installed(&scene, &["--image", IMAGE, "--events"]);
    scene.server.load(objects.iter().filter(|object| object["metadata"]["name"] != "netpol-observer-events").cloned()).unwrap();
    scene.server.create(pod("web", "node-2", &json!({"app": "web"}), Some(WEB))).unwrap();
    let agent = start(&scene, &objects);
    let tail = start_tail(&scene);
    node.send(&[WEB], PORT);
    node.send(&[WEB], PORT + 1);
    assert_eq!(tail.line("denial")["class"], "policyDenied");
    agent.wait_for("some Events are left out");
    assert!(
        agent.said().contains("cannot create resource \"events\" in API group \"events.k8s.io\" in the namespace \"shop\""),
        "{}",
        agent.said()
    );
    std::thread::sleep(Duration::from_millis(700));
    let ended = agent.interrupt();
    assert_eq!((ended.code, ended.err.matches("left out").count()), (Some(0), 1), "{}", ended.err);
    assert_eq!((number(&ended.err, "forbidden"), number(&ended.err, "not told")), (4, 4), "{}", ended.err);
    assert_eq!(scene.server.stats().requests("create", "events"), 1, "it is not asked for each");
}

#[test]
fn without_a_cluster_there_is_nothing_to_write_to() {
    let scene = Scene::new();
    std::fs::write(scene.path("cluster.yaml"), "").unwrap();
    for arguments in [&["-f", "cluster.yaml"][..], &["--replay", "drops", "-f", "cluster.yaml"], &["--replay", "drops"]] {
        let run = scene.run(&[&["agent", "--events"], arguments].concat());
        assert_eq!((run.code, &*run.out), (Some(2), ""), "{arguments:?}: {}", run.err);
        assert!(run.err.contains("--events needs a cluster"), "{arguments:?}: {}", run.err);
    }
    let run = scene.run(&["agent", "--events=all"]);
    assert!(run.code == Some(2) && run.err.contains("own-namespace, across-namespaces"), "{}", run.err);
}

/// The commands of docs/events.md that need no cluster do what is said of them.
#[test]
fn the_commands_of_the_documentation_work() {
    let scene = Scene::new();
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/events.md")).unwrap();
    let commands: Vec<&str> = page.lines().filter(|line| line.starts_with("observer install ")).collect();
    assert!(commands.len() >= 2, "{commands:?}");
    for command in commands {
        let words: Vec<&str> = command.split('|').next().unwrap().split_whitespace().skip(1).collect();
        let run = scene.run(&words);
        assert_eq!((run.code, &*run.err), (Some(0), ""), "{command}");
        assert!(run.out.contains("netpol-observer-events"), "{command}: {}", run.out);
    }
    // The binding of a single namespace is one that the API server takes.
    let binding = page.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let binding: Value = serde_saphyr::from_str(binding).unwrap();
    scene.server.load([json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}), binding]).unwrap();
}
