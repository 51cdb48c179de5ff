//! Metrics: the page, who may see it, and what a real Prometheus makes of it.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use xtask::apiserver::{Options, Server};
use xtask::netns::Bed;
use xtask::packages;
use xtask::testing::{report, skipped};
use xtask::traffic::cluster::{CALLERS, SERVER_RANGE, caller, objects, server};
use xtask::traffic::{Datagram, Forger};

use crate::http::{Answer, PATIENCE, connect, send};
use crate::live::machine;
use crate::process::Agent;
use crate::scene::{DROPS, Scene};
use crate::tenant;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The values of a metric on a page, with their labels.
fn values<'a>(page: &'a str, name: &str) -> Vec<(&'a str, f64)> {
    let of_name = page.lines().filter_map(|line| line.strip_prefix(name)).filter(|rest| rest.starts_with(['{', ' ']));
    of_name.map(|rest| rest.rsplit_once(' ').unwrap()).map(|(labels, value)| (labels, value.parse().unwrap())).collect()
}

fn sum(page: &str, name: &str) -> f64 {
    values(page, name).iter().map(|(_, value)| value).sum()
}

fn page(agent: &Agent) -> String {
    let answer = agent.get("/metrics");
    assert_eq!(answer.code, 200);
    assert!(answer.headers.contains(&("content-type".into(), "application/openmetrics-text; version=1.0.0; charset=utf-8".into())));
    answer.text()
}

/// Where the listener for metrics is.
fn metrics_address(agent: &mut Agent) -> SocketAddr {
    agent.wait_for("metrics", |agent| agent.find("metrics on").is_some());
    let said = agent.find("metrics on").unwrap();
    said.trim_end_matches("/metrics").rsplit('/').next().unwrap().parse().unwrap()
}

#[test]
fn drops_of_a_recording_are_counted() {
    let scene = Scene::new();
    let mut agent = scene.open_agent(&["--metrics", "127.0.0.1:0"]);
    agent.wait_for("that all are settled", |agent| {
        let page = page(agent);
        let stage =
            |name: &str| values(&page, "netpol_observer_ledger_drops_total").iter().find(|(labels, _)| labels.contains(name)).unwrap().1;
        stage("settled") + stage("not_counted_unattributed") + stage("undecodable") == DROPS as f64
    });
    let page = page(&agent);
    let api: f64 = values(&page, "netpol_observer_drops_total")
        .iter()
        .filter(|(labels, _)| labels.contains(r#"policy="NetworkPolicy shop/api-allow-frontend",rule="ingress[0]",class="policyDenied""#))
        .map(|(_, count)| count)
        .sum();
    assert!(api >= 4.0, "web's four calls of api: {page}");
    assert_eq!(values(&page, "netpol_observer_build_info").len(), 1);
    // The listener for metrics has the same page and no others.
    let address = metrics_address(&mut agent);
    let get = |path: &str| send(connect(address), "GET", path, &[], "");
    assert_eq!((get("/metrics").code, get("/v1/status").code, get("/healthz").code), (200, 404, 404));
    assert_eq!(send(connect(address), "POST", "/metrics", &[], "").code, 405);
    assert_eq!(send(connect(address), "GET", "/metrics", &[("host", "evil.example")], "").code, 403);
    agent.stop();
}

#[test]
fn over_the_network_metrics_are_for_those_who_may_get_them() {
    let scene = Scene::new();
    let mut bed = tenant::Bed::without_tenants(&scene, &["--metrics", "0.0.0.0:0"]);
    let rules = json!([{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]);
    bed.server.load(tenant::role_and_binding("metrics", &rules, None, "shop/admin")).unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], metrics_address(&mut bed.agent).port()));
    let ask = |path: &str, token: &str| -> Answer {
        let bearer = format!("Bearer {token}");
        let headers = if token.is_empty() { Vec::new() } else { vec![("authorization", bearer.as_str())] };
        send(tenant::tls(address, &bed.fingerprint), "GET", path, &headers, "")
    };
    // A token for this program, and one for the API server, as the Secret of a ServiceAccount holds it.
    let of_api_server = |name: &str| bed.server.service_account_token("shop", name, &[], 600).unwrap();
    for token in [bed.token("shop", "admin"), of_api_server("admin")] {
        let answer = ask("/metrics", &token);
        assert_eq!(answer.code, 200);
        assert!(answer.text().ends_with("# EOF\n"));
        assert_eq!(ask("/v1/drops", &token).code, 404);
    }
    let refused = ask("/metrics", &of_api_server("dev"));
    assert_eq!(refused.code, 403);
    assert!(refused.text().contains("nonResourceURLs [/metrics]"));
    for token in ["", "nonsense"] {
        assert_eq!(ask("/metrics", token).code, 401, "{token:?}");
    }
    // The API itself is on the loopback as before, without tokens.
    assert_eq!(bed.agent.get("/v1/status").code, 200);
}

#[test]
fn what_is_wrong_with_the_options_is_said() {
    let scene = Scene::new();
    let agent = |arguments: &[&str]| {
        let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_observer"));
        let output =
            command.args(["agent", "-f"]).arg(scene.path("cluster.yaml")).args(arguments).env("KUBECONFIG", "/nowhere").output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = agent(&["--metrics", "0.0.0.0:0"]);
    assert!(code == Some(1) && said.contains("--metrics on an address that is no loopback needs an API server"), "{said}");
    let (code, said) = agent(&["--metrics-series", "0"]);
    assert!(code == Some(2) && said.contains("from 1 to 100000"), "{said}");
    let (code, said) = agent(&["--metrics", "127.0.0.1"]);
    assert_eq!(code, Some(2), "{said}");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (code, said) = agent(&["--listen", "127.0.0.1:0", "--metrics", &taken.local_addr().unwrap().to_string()]);
    assert!(code == Some(1) && said.contains("cannot listen on") && said.contains("--metrics takes another"), "{said}");
}

/// Prometheus and promtool, where they are to be had.
fn programs(test: &str) -> Option<PathBuf> {
    match packages::unpacked(&root(), "prometheus") {
        Ok(directory) => Some(directory.join("usr/bin")),
        Err(error) => {
            skipped(test, &format!("{error:#}"));
            None
        }
    }
}

#[test]
fn alert_rules_fire_and_resolve() {
    let Some(programs) = programs("metrics::alert_rules_fire_and_resolve") else { return };
    let promtool = |arguments: &[&str]| {
        let output =
            Command::new(programs.join("promtool")).args(arguments).current_dir(root().join("deploy/prometheus")).output().unwrap();
        assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    };
    promtool(&["check", "rules", "alerts.yaml"]);
    promtool(&["test", "rules", "alerts.test.yaml"]);
    // Each of them is in a test.
    let text = |file: &str| fs::read_to_string(root().join("deploy/prometheus").join(file)).unwrap();
    let (rules, tests) = (text("alerts.yaml"), text("alerts.test.yaml"));
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(tests.matches(&format!("alertname: {alert}\n")).count() >= 2, "{alert} has to fire and to resolve");
    }
}

/// A running Prometheus. Dropping it ends it.
struct Prometheus {
    child: Child,
    address: SocketAddr,
    _directory: TempDir,
}

impl Prometheus {
    fn start(programs: &Path, targets: &[SocketAddr]) -> Prometheus {
        let directory = TempDir::new().unwrap();
        let config = json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [root().join("deploy/prometheus/alerts.yaml")],
            "scrape_configs": [{"job_name": "netpol-observer", "static_configs": [{"targets": targets}]}],
        });
        // JSON is YAML.
        fs::write(directory.path().join("prometheus.yml"), config.to_string()).unwrap();
        // Free a moment ago.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new(programs.join("prometheus"))
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=error"])
            .arg(format!("--web.listen-address={address}"))
            .current_dir(directory.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let prometheus = Prometheus { child, address, _directory: directory };
        let end = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(address).is_err() || send(connect(address), "GET", "/-/ready", &[], "").code != 200 {
            assert!(Instant::now() < end, "Prometheus does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        prometheus
    }

    fn query(&self, query: &str) -> Vec<Value> {
        let query: String = form_urlencoded::byte_serialize(query.as_bytes()).collect();
        let answer = send(connect(self.address), "GET", &format!("/api/v1/query?query={query}"), &[], "").json();
        assert_eq!(answer["status"], "success", "{answer}");
        answer["data"]["result"].as_array().unwrap().clone()
    }

    /// The only value of a query.
    fn value(&self, query: &str) -> Option<f64> {
        self.query(query).first()?["value"][1].as_str()?.parse().ok()
    }

    fn wait_for(&self, what: &str, test: impl Fn(&Prometheus) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !test(self) {
            assert!(Instant::now() < end, "{what} did not come");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// All queries of the dashboard, with its variables as somebody has them who has chosen nothing.
fn dashboard() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(root().join("deploy/grafana/netpol-observer.json")).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row");
    let of_panel = |panel: &Value| -> Vec<(String, String)> {
        let targets = panel["targets"].as_array().unwrap().iter();
        targets.map(|target| (panel["title"].to_string(), target["expr"].as_str().unwrap().to_owned())).collect()
    };
    let chosen = |query: String| query.replace("$namespace", ".*").replace("$__rate_interval", "1m").replace("$__range", "10m");
    panels.flat_map(of_panel).map(|(title, query)| (title, chosen(query))).collect()
}

const FLOWS: u64 = 10_000;
const PORT: u16 = 9000;

/// Distinct in its ends, and between workloads of more pairs than there may be series.
fn flow(number: u64) -> Datagram {
    Datagram { source: caller(number), destination: server(number / CALLERS * 7 + number / 3), port: PORT + (number % 7) as u16 }
}

#[test]
fn ten_thousand_flows_scraped_by_prometheus() {
    const TEST: &str = "metrics::ten_thousand_flows_scraped_by_prometheus";
    let Some(_machine) = machine(TEST) else { return };
    let Some(programs) = programs(TEST) else { return };
    let mut bed = Bed::new("npo-test").unwrap();
    let node = bed.node("node", &["192.0.2.1".parse().unwrap()]).unwrap();
    node.routed_pod(&mut bed, "server", &[server(0).into()]).unwrap();
    let node = node.netns().clone();
    node.exec(&["ip", "route", "add", SERVER_RANGE, "dev", "vethserver", "src", "192.0.2.1"]).unwrap();
    node.nft(&format!(
        "table inet test {{
           counter denied {{ }}
           chain policies {{ type filter hook output priority 0; policy accept; udp dport >= {PORT} counter name denied drop; }}
         }}"
    ))
    .unwrap();
    fs::write(bed.directory().join("cluster.yaml"), objects()).unwrap();
    let mut agent = Agent::start(bed.directory(), &["-f", "cluster.yaml", "--metrics", "127.0.0.1:0"]);
    // What only one that watches tells.
    let api = Server::start(Options::default()).unwrap();
    let kubeconfig = bed.directory().join("kubeconfig");
    fs::write(&kubeconfig, api.kubeconfig("admin").unwrap()).unwrap();
    let watching = ["--kubeconfig", kubeconfig.to_str().unwrap(), "--start-jitter", "1ms", "--metrics", "127.0.0.1:0"];
    let mut watching = Agent::start(bed.directory(), &watching);
    let targets = [metrics_address(&mut agent), metrics_address(&mut watching)];
    let prometheus = Prometheus::start(&programs, &targets);
    prometheus.wait_for("the first scrape", |prometheus| prometheus.query("netpol_observer_ready").len() == 2);

    let wave = |first: u64| node.in_ns(|| Forger::new().unwrap().send(first, FLOWS as usize / 2, flow).unwrap()).unwrap();
    wave(0);
    let of_agent = format!(r#"instance="{}""#, targets[0]);
    let counted =
        |prometheus: &Prometheus| prometheus.value(&format!(r#"sum(netpol_observer_drops_total{{{of_agent},class="policyDenied"}})"#));
    prometheus.wait_for("half of the flows", |prometheus| counted(prometheus).is_some_and(|count| count >= FLOWS as f64 / 2.0));
    wave(FLOWS / 2);
    // All of them again: they are repeats, or came while the tables turned.
    node.in_ns(|| Forger::new().unwrap().send(0, FLOWS as usize, flow).unwrap()).unwrap();
    let dropped = node.counter("denied").unwrap().packets;
    assert_eq!(dropped, 2 * FLOWS);
    prometheus.wait_for("all drops", |prometheus| counted(prometheus).is_some_and(|count| count >= dropped as f64));
    assert_eq!(counted(&prometheus), Some(dropped as f64), "exactly what the firewall counted");

    // The bound of docs/metrics.md: series of drops, their overflow, and everything else.
    let value = |query: &str| prometheus.value(&query.replace("AGENT", &of_agent)).unwrap_or_else(|| panic!("{query} has no value"));
    let series = value("count(netpol_observer_drops_total{AGENT})");
    let all = value("count({AGENT})");
    let overflowed = value("netpol_observer_drops_overflowed_total{AGENT}");
    report(&format!("{FLOWS} flows: {series} series of drops, {all} in all; {overflowed} of {dropped} drops in the overflow"));
    assert!((1000.0..=1044.0).contains(&series), "{series}");
    assert!(all <= 1300.0, "{all}");
    assert!(overflowed > 0.0);
    assert_eq!(value("netpol_observer_drop_series{AGENT}"), 1000.0);

    prometheus.wait_for("rates", |prometheus| prometheus.value("sum(rate(netpol_observer_drops_total[1m])) > 0").is_some());
    for (title, query) in dashboard() {
        prometheus.wait_for(&format!("data for {title}: {query}"), |prometheus| !prometheus.query(&query).is_empty());
    }
    // The rules were read, and none of them fails.
    let rules = send(connect(prometheus.address), "GET", "/api/v1/rules", &[], "").json();
    let rules = rules["data"]["groups"][0]["rules"].as_array().unwrap().clone();
    assert!(rules.len() >= 9 && rules.iter().all(|rule| rule["health"] != "err"), "{rules:?}");
    let page = page(&agent);
    assert_eq!(sum(&page, "netpol_observer_drop_series"), 1000.0);
    agent.stop();
}
