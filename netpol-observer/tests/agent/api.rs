//! What the API answers, on drops of a recording.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::http::{accounted, connect, items, send};
use crate::process::received;
use crate::scene::{DROPS, Scene};

fn pairs(frames: &[Value]) -> Vec<(String, String)> {
    let name = |party: &Value| party["name"].as_str().or(party["ip"].as_str()).unwrap().to_owned();
    items(frames, "denial").into_iter().map(|line| (name(&line["client"]), name(&line["server"]))).collect()
}

#[test]
fn recent_drops_are_those_of_a_tail() {
    let scene = Scene::new();
    let agent = scene.open_agent(&[]);
    for filters in [
        &[][..],
        &["-n", "bank"],
        &["--to-pod", "api", "--not", "--from-namespace", "bank"],
        &["--all"],
        &["--port", "80", "--port", "5432"],
    ] {
        let (tail, _) = scene.observer(&[&["tail", "--replay", "drops.rec", "-f", "cluster.yaml", "-o", "json"], filters].concat());
        let tail: Vec<Value> = tail.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let of_tail = |kind: &str| tail.iter().filter(|line| line["type"] == kind).collect::<Vec<_>>();
        let arguments: Vec<String> =
            filters.iter().map(|word| if *word == "--all" { "all=true".to_owned() } else { format!("arg={word}") }).collect();
        let frames = agent.drops(&arguments.join("&")).rest();
        assert_eq!(items(&frames, "denial"), of_tail("denial"), "{filters:?}");
        assert_eq!(items(&frames, "repeat").len(), of_tail("repeat").len());
        let (ours, theirs) = (items(&frames, "ledger"), of_tail("ledger"));
        for field in
            ["records", "counted", "shown", "repeats", "filteredOut", "elsewhere", "unattributed", "undecodable", "balanced", "kernel"]
        {
            assert_eq!(ours[0][field], theirs[0][field], "{filters:?}: {field}");
        }
        assert_eq!(accounted(&frames), DROPS);
        let kinds: Vec<_> = frames.iter().map(|frame| frame["frame"].as_str().unwrap()).collect();
        assert_eq!((kinds.first(), kinds.last()), (Some(&"hello"), Some(&"ledger")));
    }
}

#[test]
fn text_is_that_of_a_tail() {
    let scene = Scene::new();
    let agent = scene.open_agent(&[]);
    for (query, arguments) in
        [("form=text", &[][..]), ("form=text&oneline=true", &["--oneline"]), ("form=text&colour=true", &["--color", "always"])]
    {
        let (tail, _) = scene.observer(&[&["tail", "--replay", "drops.rec", "-f", "cluster.yaml"], arguments].concat());
        let frames = agent.drops(query).rest();
        let text: Vec<&str> = frames.iter().filter_map(|frame| frame["text"].as_str()).collect();
        assert!(text.len() > 3);
        for item in text {
            assert!(tail.contains(item), "{item}\nis not in\n{tail}");
        }
    }
    let shifted = agent.drops("form=text&oneline=true&utcOffset=-3600").rest();
    assert!(shifted[1]["text"].as_str().unwrap().starts_with("07:00:00.000"), "{}", shifted[1]);
}

#[test]
fn the_last_and_since() {
    let scene = Scene::new();
    let agent = scene.open_agent(&[]);
    let last = agent.drops("last=2").rest();
    assert_eq!(pairs(&last), [("teller".into(), "vault".into()), ("web".into(), "vault".into())]);
    assert_eq!(accounted(&last), DROPS);
    let since = agent.drops("since=2027-01-15T08:00:02.500Z").rest();
    assert_eq!(pairs(&since), [("teller".into(), "vault".into()), ("web".into(), "vault".into())]);
    let both = agent.drops("since=2027-01-15T08:00:01Z&last=3&arg=-n&arg=shop").rest();
    assert_eq!(pairs(&both), [("web".into(), "api".into()), ("vault".into(), "api".into()), ("web".into(), "vault".into())]);
}

#[test]
fn a_stream_goes_on_and_ends_with_the_agent() {
    let scene = Scene::new();
    let agent = scene.open_agent(&[]);
    let mut live = agent.drops("follow=true");
    let mut with_history = agent.drops("follow=true&last=1");
    // Watermarks come also when nothing happens, and never go back.
    let frames = live.until("three watermarks", {
        let seen = std::cell::Cell::new(0);
        move |frame| {
            seen.set(seen.get() + usize::from(frame["frame"] == "watermark"));
            seen.get() == 3
        }
    });
    assert!(items(&frames, "denial").is_empty(), "what was before is not asked for");
    let orders: Vec<jiff::Timestamp> = frames
        .iter()
        .filter(|frame| frame["frame"] == "watermark")
        .map(|frame| frame["order"].as_str().unwrap().parse().unwrap())
        .collect();
    assert!(orders.is_sorted(), "{orders:?}");
    let frames = with_history.until("a watermark", |frame| frame["frame"] == "watermark");
    assert_eq!(pairs(&frames), [("web".into(), "vault".into())]);
    assert_eq!(agent.status()["clients"]["readers"], 2);
    let said = agent.stop();
    assert_eq!(received(&said), DROPS);
    for stream in [live, with_history] {
        let rest = stream.rest();
        let [.., ledger, end] = rest.as_slice() else { panic!("{rest:?}") };
        assert_eq!((&ledger["frame"], &ledger["line"]["balanced"]), (&"ledger".into(), &true.into()));
        assert_eq!((&end["frame"], &end["reason"]), (&"end".into(), &"shutting down".into()));
    }
}

#[test]
fn explain_is_the_command() {
    let scene = Scene::new();
    let agent = scene.open_agent(&[]);
    let ask = |body: Value| {
        let answer = send(connect(agent.address), "POST", "/v1/explain", &[("content-type", "application/json")], &body.to_string());
        assert_eq!(answer.code, 200);
        answer.json()
    };
    for words in [
        &["--from", "shop/web", "--to", "shop/api", "--port", "8080"][..],
        &["--from", "shop/web", "http://api.shop:80/"],
        &["--from", "bank/teller", "--to", "shop/web", "--port", "80"],
        &["--from", "bank/nobody", "--to", "shop/web", "--port", "80"],
        &["--from", "shop/web", "--to", "shop/api"],
    ] {
        for (form, output) in [("text", "text"), ("json", "json")] {
            let (out, exit) = scene.observer(&[&["explain", "-f", "cluster.yaml", "-o", output], words].concat());
            let answer = ask(json!({"args": words, "form": form}));
            assert_eq!(
                (answer["out"].as_str().unwrap(), answer["exit"].as_i64().unwrap()),
                (&*out, i64::from(exit)),
                "{words:?}: {answer}"
            );
            assert_eq!(answer["err"].as_str().unwrap().is_empty(), exit != 2, "{answer}");
        }
    }
    let coloured = ask(json!({"args": ["--from", "shop/web", "--to", "shop/api", "-p", "80"], "form": "text", "colour": true}));
    assert!(coloured["out"].as_str().unwrap().contains("\u{1b}["));
    let yaml = ask(json!({"args": ["--from", "shop/web", "--to", "shop/api", "-p", "80", "-o", "yaml"]}));
    assert!(yaml["out"].as_str().unwrap().contains("\ntype: answer\n"), "{yaml}");
    for words in [
        &["-f", "/etc/passwd", "--from", "shop/web", "--to", "shop/api", "-p", "80"][..],
        &["--queries", "-"],
        &["--domain-names", "/etc/passwd", "--from", "shop/web", "--to", "shop/api", "-p", "80"],
        &["--profile", "baseline=per-pod", "--from", "shop/web", "--to", "shop/api", "-p", "80"],
        &["--kubeconfig", "/etc/passwd", "--from", "shop/web", "--to", "shop/api", "-p", "80"],
        &["--frobnicate"],
        &[],
    ] {
        let answer = ask(json!({"args": words}));
        assert_eq!((&answer["exit"], &answer["out"]), (&2.into(), &"".into()), "{words:?}: {answer}");
        assert!(!answer["err"].as_str().unwrap().contains("root:"), "{answer}");
    }
    assert!(ask(json!({"args": ["--help"]}))["out"].as_str().unwrap().contains("--from"));
}

#[test]
fn status_and_probes() {
    let scene = Scene::new();
    let agent = scene.agent(&["--pod-name", "agent-x"], &[]);
    assert_eq!((agent.get("/healthz").code, agent.get("/readyz").code), (200, 200));
    let status = agent.status();
    assert_eq!(
        (&status["node"], &status["pod"], &status["version"]),
        (&"node-2".into(), &"agent-x".into(), &env!("CARGO_PKG_VERSION").into())
    );
    assert_eq!(status["kernel"]["release"], "6.18.0");
    assert_eq!(status["missing"], json!([]));
    assert_eq!((&status["objects"]["pods"], &status["objects"]["networkPolicies"]), (&4.into(), &2.into()));
    assert_eq!((&status["ledger"]["balanced"], &status["ledger"]["type"]), (&true.into(), &"ledger".into()));
    assert!(status["uptimeSeconds"].as_i64().unwrap() < 3600);
    assert!(status.get("certificateSha256").is_none());
}

#[test]
fn a_kubelet_asks_by_command() {
    let scene = Scene::new();
    let agent = scene.agent(&[], &[]);
    let probe = |probe: &str, address: &str| scene.observer(&["agent", "--probe", probe, "--listen", address]).1;
    let address = agent.address.to_string();
    assert_eq!((probe("healthz", &address), probe("readyz", &address)), (0, 0));
    drop(agent);
    assert_eq!((probe("healthz", &address), probe("readyz", &address)), (1, 1));
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    let scene = Scene::new();
    let agent = scene.agent(&[], &[]);
    let seen: BTreeSet<u16> = [
        ("GET", "/", 404, "/"),
        ("GET", "/v2/drops", 404, "/v2/drops"),
        ("GET", "/v1/drops/", 404, "/v1/drops/"),
        ("GET", "/metric", 404, "/metrics"),
        ("POST", "/v1/drops", 405, "GET"),
        ("GET", "/v1/explain", 405, "POST"),
        ("DELETE", "/v1/status", 405, "GET"),
        ("GET", "/v1/status?verbose=true", 400, "verbose"),
        ("GET", "/v1/drops?frobnicate=1", 400, "frobnicate"),
        ("GET", "/v1/drops?arg=--frobnicate", 400, "--frobnicate"),
        ("GET", "/v1/drops?arg=--port&arg=http", 400, "--port"),
        ("GET", "/v1/drops?arg=--not", 400, "--not"),
        ("GET", "/v1/drops?arg=-f&arg=/etc/passwd", 400, "-f"),
        ("POST", "/v1/explain", 400, "application/json"),
    ]
    .into_iter()
    .map(|(method, path, code, named)| {
        let answer = send(connect(agent.address), method, path, &[], "");
        assert_eq!(answer.code, code, "{method} {path}");
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(named), "{method} {path}: {error}");
        code
    })
    .collect();
    assert_eq!(seen.len(), 3);
}

#[test]
fn what_the_command_line_refuses() {
    let scene = Scene::new();
    for (arguments, named) in [
        (&["--listen", "0.0.0.0:9470", "-f", "cluster.yaml"][..], "loopback"),
        (&["--listen", "[::]:9470", "-f", "cluster.yaml"], "loopback"),
        (&["--tls-cert", "a", "--tls-key", "b", "-f", "cluster.yaml"], "--tenant-mode"),
        (&["--tls-cert", "a", "--tenant-mode", "-f", "cluster.yaml"], "--tls-key"),
        (&["--retain", "5", "-f", "cluster.yaml"], "--retain"),
        (&["--replay", "drops.rec"], "--manifests"),
    ] {
        let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_observer"));
        let output = command.current_dir(scene.path("")).arg("agent").args(arguments).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.contains(named), "{arguments:?}: {error}");
    }
    let taken = scene.agent(&[], &[]);
    let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_observer"));
    let output = command
        .current_dir(scene.path(""))
        .args(["agent", "-f", "cluster.yaml", "--replay", "drops.rec", "--listen", &taken.address.to_string()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("cannot listen"));
}
