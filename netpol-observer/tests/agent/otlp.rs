//! `--otlp-endpoint`, against a receiver that decodes with the official protobuf classes of another language (otlp_receiver.py).

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver as Lines, channel};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use xtask::testing::skipped;

use crate::http::PATIENCE;
use crate::scene::Scene;

/// What the receiver needs, from PyPI, as wheels of some megabytes.
const WHEELS: &[&str] =
    &["googleapis-common-protos==1.76.0", "grpcio==1.85.3", "opentelemetry-proto==1.45.2", "protobuf==7.36.2", "typing_extensions==4.16.0"];

/// Where they are, or why they are not. They are kept beside what else is built.
fn wheels() -> Result<PathBuf, String> {
    static WHERE: OnceLock<Mutex<Option<Result<PathBuf, String>>>> = OnceLock::new();
    let mut known = WHERE.get_or_init(Mutex::default).lock().unwrap();
    known.get_or_insert_with(install).clone()
}

fn install() -> Result<PathBuf, String> {
    let version = |python: &str| Command::new(python).args(["-c", "import sys; print('%d.%d' % sys.version_info[:2])"]).output();
    let python = version("python3").map_err(|error| format!("python3: {error}"))?;
    let python = String::from_utf8_lossy(&python.stdout).trim().replace('.', "-");
    let names: Vec<String> = WHEELS.iter().map(|wheel| wheel.replace("==", "-")).collect();
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("otlp-python-{python}-{}", names.join("-")));
    if kept.is_dir() {
        return Ok(kept);
    }
    let has_pip = || Command::new("python3").args(["-m", "pip", "--version"]).output().is_ok_and(|output| output.status.success());
    if !has_pip() {
        xtask::packages::ensure("the receiver of the tests of OTLP", &["python3", "python3-pip"]).map_err(|error| format!("{error:#}"))?;
    }
    let begun = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).map_err(|error| error.to_string())?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:", "--target"]);
    let output = pip.arg(begun.path()).args(WHEELS).output().map_err(|error| format!("pip: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("pip: {}", said.lines().last().unwrap_or("no reason given")));
    }
    // Whole, or not at all. Another test run may have been quicker.
    let begun = begun.keep();
    if std::fs::rename(&begun, &kept).is_err() {
        _ = std::fs::remove_dir_all(&begun);
    }
    if kept.is_dir() { Ok(kept) } else { Err(format!("{} could not be made", kept.display())) }
}

/// The receiver as a process. It ends when this is dropped.
struct Receiver {
    child: Child,
    lines: Lines<Value>,
    ports: Value,
}

impl Receiver {
    /// None where what it needs cannot be had, which is said.
    fn start(test: &str, arguments: &[&str]) -> Option<Receiver> {
        let packages = match wheels() {
            Ok(packages) => packages,
            Err(why) => {
                skipped(test, &why);
                return None;
            }
        };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/agent/otlp_receiver.py");
        let mut command = Command::new("python3");
        command.arg("-B").arg(script).args(arguments).env("PYTHONPATH", packages).env("GRPC_VERBOSITY", "ERROR");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| sender.send(serde_json::from_str(&line).unwrap()))
        });
        let ports = lines.recv_timeout(PATIENCE).unwrap();
        Some(Receiver { child, lines, ports })
    }

    fn url(&self, protocol: &str) -> String {
        let port = if protocol == "grpc" { &self.ports["grpc"] } else { &self.ports["http"] };
        format!("http://127.0.0.1:{port}")
    }

    /// Waits for a request, kept with the others.
    fn wait_for(&self, requests: &mut Vec<Value>, what: &str, test: impl Fn(&Value) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !requests.iter().any(&test) {
            let left = end.saturating_duration_since(Instant::now());
            requests.push(self.lines.recv_timeout(left).unwrap_or_else(|_| panic!("{what} did not come: {requests:#?}")));
        }
    }

    /// Everything that came and was not asked for yet.
    fn rest(&self) -> Vec<Value> {
        // The agent has ended: what it sent is printed already, or in the pipe.
        std::iter::from_fn(|| self.lines.recv_timeout(Duration::from_millis(300)).ok()).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // It may have ended.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn of<'a>(requests: &'a [Value], signal: &str) -> Vec<&'a Value> {
    requests.iter().filter(|request| request["signal"] == signal).collect()
}

/// The log records of requests that were taken.
fn records(requests: &[Value]) -> Vec<Value> {
    let taken = of(requests, "logs").into_iter().filter(|request| request["verdict"] == "take");
    taken.flat_map(|request| request["request"]["resourceLogs"][0]["scopeLogs"][0]["logRecords"].as_array().unwrap().clone()).collect()
}

/// Attributes as an object of plain values.
fn attributes(of: &Value) -> Value {
    let plain = |value: &Value| match value.as_object().and_then(|kinds| kinds.iter().next()) {
        Some((kind, number)) if kind == "intValue" => json!(number.as_str().unwrap().parse::<i64>().unwrap()),
        Some((_, value)) => value.clone(),
        None => Value::Null,
    };
    let all = of["attributes"].as_array().unwrap();
    Value::Object(all.iter().map(|one| (one["key"].as_str().unwrap().to_owned(), plain(&one["value"]))).collect())
}

/// Runs an agent on the recording and ends it; what it said.
fn agent(scene: &Scene, url: &str, protocol: &str, more: &[&str], before_the_end: impl FnOnce()) -> String {
    let arguments = [&["--otlp-endpoint", url, "--otlp-protocol", protocol, "--otlp-interval", "1s"], more].concat();
    let agent = scene.open_agent(&arguments);
    before_the_end();
    agent.stop()
}

fn drops_arrive(protocol: &str) {
    let Some(receiver) = Receiver::start(&format!("drops_arrive_over_{protocol}"), &[]) else { return };
    let scene = Scene::new();
    std::fs::write(scene.path("headers"), "# a token\nAuthorization: Bearer secret-token\n").unwrap();
    let said = agent(&scene, &receiver.url(protocol), protocol, &["--otlp-headers-file", "headers"], || ());
    assert!(!said.contains("secret-token") && !said.contains("and are lost"), "{said}");
    let requests = receiver.rest();
    assert!(requests.iter().all(|request| request["headers"]["authorization"] == "Bearer secret-token"));

    let records = records(&requests);
    let shown = |record: &Value| {
        let of = attributes(record);
        let text = |key: &str| of[key].as_str().unwrap_or("-").to_owned();
        format!(
            "{} {} {} {} {}: {}",
            record["eventName"].as_str().unwrap(),
            record["severityText"].as_str().unwrap(),
            of["netpol_observer.count"],
            text("netpol_observer.policy.name"),
            text("netpol_observer.rule"),
            record["body"]["stringValue"].as_str().unwrap()
        )
    };
    let mut lines: Vec<String> = records.iter().map(shown).collect();
    lines.sort();
    insta::allow_duplicates! {
        insta::assert_snapshot!(lines.join("\n"), @r#"
        netpol_observer.drop WARN 1 bank/vault-keeps-to-itself -: DENIED egress+ingress bank/vault → shop/api:8080/TCP: The policies deny this connection: no egress rule that applies to bank/vault allows calling shop/api on 8080/TCP, and no ingress rule that applies to shop/api allows bank/vault to call 8080/TCP.
        netpol_observer.drop WARN 1 bank/vault-keeps-to-itself -: DENIED ingress bank/teller → bank/vault:5432/TCP: The policies deny this connection: no ingress rule that applies to bank/vault allows bank/teller to call 5432/TCP.
        netpol_observer.drop WARN 1 bank/vault-keeps-to-itself -: DENIED ingress shop/web → bank/vault:5432/TCP: The policies deny this connection: no ingress rule that applies to bank/vault allows shop/web to call 5432/TCP.
        netpol_observer.drop WARN 1 shop/api-allow-frontend ingress[0]: DENIED ingress shop/web → shop/api:8080/TCP: The policies deny this connection: no ingress rule that applies to shop/api allows shop/web to call 8080/TCP.
        netpol_observer.repeats WARN 3 shop/api-allow-frontend ingress[0]: DENIED ingress shop/web → shop/api:8080/TCP: 3 more like it
        "#);
        let is_web = |of: &Value| of["client.address"] == "10.244.1.5" && of["server.port"] == 8080 && of["netpol_observer.fix"].is_string();
        let web = records.iter().find(|record| is_web(&attributes(record)));
        insta::assert_json_snapshot!(attributes(web.unwrap()), @r#"
        {
          "client.address": "10.244.1.5",
          "client.port": 40000,
          "destination.address": "10.244.2.7",
          "destination.port": 8080,
          "k8s.namespace.name": "shop",
          "k8s.pod.name": "api",
          "netpol_observer.agreement": "agrees",
          "netpol_observer.class": "policyDenied",
          "netpol_observer.count": 1,
          "netpol_observer.direction": "ingress",
          "netpol_observer.fix": "ingress[0].from += podSelector {app: web}",
          "netpol_observer.fold_id": "3f0a2a598a2cf0ed",
          "netpol_observer.nearest_miss": "peer differs: podSelector wants app=frontend, shop/web has app=web",
          "netpol_observer.peer.namespace": "shop",
          "netpol_observer.peer.pod": "web",
          "netpol_observer.peer.workload": "Pod/web",
          "netpol_observer.policy.kind": "NetworkPolicy",
          "netpol_observer.policy.name": "shop/api-allow-frontend",
          "netpol_observer.reason": "NETFILTER_DROP",
          "netpol_observer.reply": false,
          "netpol_observer.rule": "ingress[0]",
          "netpol_observer.service.name": "shop/api",
          "netpol_observer.service.port": 80,
          "netpol_observer.verdict": "deny",
          "netpol_observer.workload": "Pod/api",
          "network.interface.name": "veth1a2b",
          "network.transport": "tcp",
          "network.type": "ipv4",
          "server.address": "10.244.2.7",
          "server.port": 8080,
          "source.address": "10.244.1.5",
          "source.port": 40000
        }
        "#);
    }
    let resource = attributes(&of(&requests, "logs")[0]["request"]["resourceLogs"][0]["resource"]);
    assert_eq!((&resource["service.name"], &resource["k8s.node.name"]), (&json!("netpol-observer"), &json!("node-2")));

    // Of the sums the last one has everything.
    let last = of(&requests, "metrics").pop().unwrap();
    let metric = &last["request"]["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0];
    assert_eq!((&metric["name"], &metric["unit"]), (&json!("netpol_observer.drops"), &json!("{packet}")));
    assert_eq!(
        (&metric["sum"]["aggregationTemporality"], &metric["sum"]["isMonotonic"]),
        (&json!("AGGREGATION_TEMPORALITY_CUMULATIVE"), &json!(true))
    );
    let points = metric["sum"]["dataPoints"].as_array().unwrap();
    let value = |point: &Value| point["asInt"].as_str().unwrap().parse::<u64>().unwrap();
    let of_policy = |name: &str| points.iter().filter(|point| attributes(point)["policy"] == name).map(value).sum::<u64>();
    // web four times and vault once; the recording has nine drops, one of which is no packet.
    assert_eq!(points.iter().map(value).sum::<u64>(), 8);
    assert_eq!(of_policy("NetworkPolicy shop/api-allow-frontend"), 4);
    assert!(points.iter().all(|point| point["startTimeUnixNano"].as_str() < point["timeUnixNano"].as_str()));
}

#[test]
fn drops_arrive_over_grpc() {
    drops_arrive("grpc");
}

#[test]
fn drops_arrive_over_http() {
    drops_arrive("http/protobuf");
}

/// The records that arrive without trouble.
const RECORDS: usize = 5;

#[test]
fn a_receiver_that_fails_for_the_moment_loses_nothing() {
    let one = &|protocol: &str| {
        let test = "a_receiver_that_fails_for_the_moment_loses_nothing";
        let Some(receiver) = Receiver::start(test, &["--fail", "1", "--exhausted", "1"]) else { return };
        let mut requests = Vec::new();
        let is_taken = |request: &Value| request["signal"] == "logs" && request["verdict"] == "take";
        let said = agent(&Scene::new(), &receiver.url(protocol), protocol, &[], || {
            receiver.wait_for(&mut requests, "a request that is taken", is_taken);
        });
        requests.extend(receiver.rest());
        assert_eq!(records(&requests).len(), RECORDS, "{protocol}: {requests:#?}");
        let verdicts: Vec<&Value> = of(&requests, "logs").into_iter().map(|request| &request["verdict"]).take(3).collect();
        assert_eq!(verdicts, ["fail", "exhausted", "take"], "{protocol}");
        assert_eq!(said.matches("are tried again").count(), 1, "{said}");
        assert!(said.contains(" again\n") && !said.contains("and are lost"), "{said}");
    };
    std::thread::scope(|scope| ["grpc", "http/protobuf"].map(|protocol| scope.spawn(move || one(protocol))).map(|run| run.join().unwrap()));
}

#[test]
fn over_tls_the_certificates_of_the_file_are_trusted_and_no_others() {
    let scene = Scene::new();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(scene.path("ca.pem"), made.cert.pem()).unwrap();
    std::fs::write(scene.path("other.pem"), other.cert.pem()).unwrap();
    std::fs::write(scene.path("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let [chain, key] = ["ca.pem", "key.pem"].map(|name| scene.path(name).display().to_string());
    let test = "over_tls_the_certificates_of_the_file_are_trusted_and_no_others";
    for protocol in ["grpc", "http/protobuf"] {
        let Some(receiver) = Receiver::start(test, &["--tls", &chain, &key]) else { return };
        let url = receiver.url(protocol).replace("http://127.0.0.1", "https://localhost");
        let said = agent(&scene, &url, protocol, &["--otlp-ca", "other.pem"], || ());
        assert!(said.contains("invalid peer certificate") && said.contains("and are lost"), "{said}");
        assert!(receiver.rest().is_empty());
        let said = agent(&scene, &url, protocol, &["--otlp-ca", "ca.pem"], || ());
        assert!(!said.contains("tried again"), "{said}");
        assert_eq!(records(&receiver.rest()).len(), RECORDS, "{said}");
    }
}

#[test]
fn what_is_refused_away_or_too_slow_is_said_and_does_not_hold_the_agent() {
    let scene = &Scene::new();
    std::thread::scope(|scope| {
        for protocol in ["grpc", "http/protobuf"] {
            for (arguments, words) in [
                (&["--refuse", "9"][..], "did not take"),
                (&["--reject", "2"], "did not take 2 log records: some are too old"),
                (&["--slow", "60"], "log records were left at the end, and are lost"),
            ] {
                scope.spawn(move || {
                    let Some(receiver) = Receiver::start("what_is_refused_away_or_too_slow_is_said", arguments) else { return };
                    let start = Instant::now();
                    let said = agent(scene, &receiver.url(protocol), protocol, &[], || ());
                    assert!(said.contains(words), "{protocol} {arguments:?}: {said}");
                    assert!(start.elapsed() < Duration::from_secs(20), "{protocol} {arguments:?}: {:?}", start.elapsed());
                });
            }
        }
    });
    // Nobody listens on port 1.
    let said = agent(scene, "http://127.0.0.1:1", "grpc", &[], || ());
    assert!(said.contains("cannot be sent to http://127.0.0.1:1, and are tried again"), "{said}");
    assert!(said.contains(&format!("{RECORDS} log records were left at the end, and are lost")), "{said}");
}

#[test]
fn what_makes_no_sense_ends_the_agent_at_the_start() {
    let scene = Scene::new();
    std::fs::write(scene.path("bad"), "Authorization: x\nsecret-line\n").unwrap();
    std::fs::write(scene.path("empty.pem"), "").unwrap();
    let url = "https://127.0.0.1:1";
    for (arguments, code, words) in [
        (&["--otlp-endpoint", "collector:4317"][..], 2, "it does not begin with http:// or https://"),
        (&["--otlp-endpoint", "http://user:secret@collector"], 2, "must not hold a password"),
        (&["--otlp-endpoint", url, "--otlp-protocol", "http/json"], 2, "expected grpc or http/protobuf"),
        (&["--otlp-endpoint", url, "--otlp-headers-file", "none"], 1, "--otlp-headers-file none: No such file"),
        (&["--otlp-endpoint", url, "--otlp-headers-file", "bad"], 1, "bad: line 2 is not `Name: value`"),
        (&["--otlp-endpoint", url, "--otlp-ca", "none"], 1, "none: No such file"),
        (&["--otlp-endpoint", url, "--otlp-ca", "empty.pem"], 1, "empty.pem: there is no certificate in it"),
        (&["--otlp-interval", "1ms"], 2, "expected a time from 1s to 1h"),
        (&["--otlp-queue", "0"], 2, "--otlp-queue"),
    ] {
        let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_observer"));
        command.current_dir(scene.path(".")).args(["agent", "-f", "cluster.yaml", "--replay", "drops.rec", "--listen", "127.0.0.1:0"]);
        let output = command.env("RUST_LOG", "").args(arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(words) && !said.contains("secret"), "{arguments:?}: {said}");
    }
}
