//! `observer explain` as people run it: the real program on manifests.

mod queries;
mod scene;
mod text;

use scene::{CLUSTER, Scene};
use serde_json::Value;

/// Verdict and exit code of a question.
fn ask(scene: &Scene, arguments: &[&str]) -> (String, i32) {
    let (answer, code) = scene.json(arguments);
    (answer["verdict"].as_str().unwrap().to_owned(), code)
}

fn links(answer: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    answer["chain"].as_array().unwrap().iter().map(|link| format!("{} {}", text(&link["link"]), text(&link["verdict"]))).collect()
}

const ALLOW: (&str, i32) = ("allow", 0);
const DENY: (&str, i32) = ("deny", 1);
const UNDECIDED: (&str, i32) = ("undecided", 3);

#[test]
fn every_form_of_an_end() {
    let scene = Scene::new();
    for (from, to, port, expected) in [
        ("shop/web-7d9f-a", "shop/api-1", "8080", ALLOW),
        ("shop/web-7d9f-a", "shop/api-2", "8080", DENY),
        ("shop/web-8c8c-c", "shop/api-2", "8080", ALLOW),
        ("shop/web-8c8c-c", "shop/api-2", "8081", DENY),
        ("shop/rs/web-8c8c", "shop/pod/api-2", "8080", ALLOW),
        ("shop/replicaset/web-7d9f", "shop/api-2", "8080", DENY),
        ("shop/deploy/web", "shop/api-1", "8080", ALLOW),
        ("shop/deployment/web", "shop/api-2", "8080", UNDECIDED),
        ("shop/app=web,!canary", "shop/api-2", "8080", DENY),
        ("shop/app.kubernetes.io/name=web", "shop/api-2", "8080", DENY),
        ("shop/app=web,canary in (true)", "shop/api-2", "8080", ALLOW),
        ("shop/job/invoice-100", "shop/sts/db", "5432", ALLOW),
        ("shop/cronjob/invoice", "shop/statefulset/db", "5433", DENY),
        ("shop/cj/invoice", "10.0.1.21", "5432", ALLOW),
        ("shop/svc/locked", "shop/db-0", "5432", DENY),
        ("shop/ds/agent", "shop/api-2", "8080", DENY),
        ("node/n1", "shop/api-2", "8080", DENY),
        ("shop/api-1", "node/n1", "10250", ALLOW),
        ("shop/api-1", "shop/daemonset/agent", "9100", ALLOW),
        ("203.0.113.7", "shop/api-1", "8080", ALLOW),
        ("203.0.113.7", "shop/api-2", "8080", DENY),
        ("2001:db8::7", "fd00::1", "80", ALLOW),
        ("10.0.1.31", "198.51.100.9", "443", ALLOW),
        ("shop/invoice-100-x", "203.0.113.9", "443", DENY),
        ("shop/invoice-100-x", "192.0.2.1", "443", DENY),
        // A pod without an address has labels all the same.
        ("shop/fresh", "shop/db-0", "5432", ALLOW),
        ("shop/api-4", "shop/db-0", "5432", DENY),
    ] {
        let (verdict, code) = ask(&scene, &["--from", from, "--to", to, "--port", port]);
        assert_eq!((verdict.as_str(), code), expected, "{from} → {to}:{port}");
    }
}

#[test]
fn namespaces_ports_and_protocols() {
    let scene = Scene::new();
    let of = |arguments: &[&str]| ask(&scene, arguments);
    let is = |expected: (&str, i32)| (expected.0.to_owned(), expected.1);
    assert_eq!(of(&["-n", "shop", "--from", "deploy/web", "--to", "api-1", "--port", "8080"]), is(ALLOW));
    assert_eq!(of(&["-n", "shop", "--from", "canary=true", "--to", "api-2", "--port", "8080"]), is(ALLOW));
    assert_eq!(of(&["--from", "shop/invoice-100-x", "--to", "shop/db-0", "--port", "5432/UDP"]), is(DENY));
    assert_eq!(of(&["--from", "shop/invoice-100-x", "--to", "shop/db-0", "--port", "5432", "--protocol", "udp"]), is(DENY));
    assert_eq!(of(&["--from", "shop/invoice-100-x", "--to", "shop/db-0", "--protocol", "ICMP"]), is(UNDECIDED));
    let to_a_block = ["--from", "shop/invoice-100-x", "--to", "kube-system/coredns", "--port", "9153"];
    assert_eq!(of(&to_a_block), is(ALLOW));
    assert_eq!(of(&[&to_a_block[..], &["--profile", "ip-block-matches-pods=false"]].concat()), is(DENY));

    let several = scene.explain(&["--from", "shop/invoice-100-x", "--to", "shop/db-0", "-p", "5432", "-p", "5433", "-o", "json"]);
    let verdicts: Vec<Value> = several.out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["verdict"].clone()).collect();
    assert_eq!((verdicts, several.code), (vec!["allow".into(), "deny".into()], 1));
}

#[test]
fn a_workload_stands_for_its_pods() {
    let (answer, _) = Scene::new().json(&["--from", "shop/deploy/web", "--to", "shop/api-2", "--port", "8080"]);
    let paths = answer["chain"][0]["paths"].as_array().unwrap();
    let groups: Vec<_> = paths.iter().map(|path| (path["verdict"].as_str().unwrap(), path["from"].clone())).collect();
    let names = |names: &[&str]| Value::from(names.to_vec());
    assert_eq!(groups, [("deny", names(&["shop/web-7d9f-a", "shop/web-7d9f-b"])), ("allow", names(&["shop/web-8c8c-c"]))]);
    let (answer, _) = Scene::new().json(&["--from", "shop/deploy/web", "--to", "shop/api-1", "--port", "8080"]);
    assert_eq!(answer["chain"][0]["paths"].as_array().unwrap().len(), 1, "three pods, one answer: {answer}");
}

#[test]
fn the_chain_of_a_service() {
    let scene = Scene::new();
    for (arguments, expected, code) in [
        (&["--from", "shop/web-8c8c-c", "http://api.shop:80/orders"][..], &["dns allow", "service allow", "connection allow"][..], 0),
        // One of its endpoints is locked.
        (&["--from", "shop/web-7d9f-a", "http://api"], &["dns allow", "service allow", "connection undecided"], 3),
        (&["--from", "shop/web-7d9f-a", "http://locked.shop.svc"], &["dns allow", "service allow", "connection deny"], 1),
        (&["--from", "shop/web-8c8c-c", "locked.shop.svc.cluster.local:80"], &["dns allow", "service allow", "connection allow"], 0),
        (&["--from", "shop/web-8c8c-c", "--to", "https://OPEN.shop./x?y#z"], &["dns allow", "service allow", "connection allow"], 0),
        // By its address nothing is looked up.
        (&["--from", "shop/web-7d9f-a", "http://10.96.0.21/"], &["service allow", "connection deny"], 1),
        (&["--from", "shop/web-7d9f-a", "--to", "10.96.0.21", "--port", "80"], &["service allow", "connection deny"], 1),
        (&["--from", "shop/web-7d9f-a", "http://10.0.1.12:8080"], &["connection deny"], 1),
        (&["--from", "shop/web-7d9f-a", "http://[fd00::1]:8080"], &["connection allow"], 0),
        // Its only port goes without saying.
        (&["--from", "shop/web-7d9f-a", "--to", "shop/svc/locked"], &["dns allow", "service allow", "connection deny"], 1),
        // No DNS in its egress rules: the database itself may be called.
        (&["--from", "shop/invoice-100-x", "--to", "shop/svc/db"], &["dns deny", "service allow", "connection allow"], 1),
        (&["--from", "shop/invoice-100-x", "postgres://user:secret@db/orders"], &["dns deny", "service allow", "connection allow"], 1),
        // A pod of a StatefulSet by its own name; headless Services translate no port.
        (&["--from", "shop/invoice-100-x", "db-0.db.shop:5432"], &["dns deny", "connection allow"], 1),
        (&["--from", "shop/api-1", "db.shop:5433"], &["dns allow", "service allow", "connection deny"], 1),
        (&["--from", "shop/web-7d9f-a", "http://reports"], &["dns allow", "service undecided"], 3),
        (&["--from", "shop/web-7d9f-a", "http://api:8080"], &["dns allow", "service undecided"], 3),
        // Manifests no cluster has seen: no addresses at all.
        (&["--from", "shop/web-7d9f-a", "http://fresh"], &["dns allow", "service allow", "connection allow"], 0),
        (&["--from", "shop/web-7d9f-a", "http://old-api"], &["dns allow", "alias allow", "service allow", "connection deny"], 1),
        // The caller is no pod of the cluster, or in its node's network: its resolver is another one.
        (&["--from", "203.0.113.7", "http://open.shop"], &["service allow", "connection allow"], 0),
        (&["--from", "node/n1", "http://open.shop"], &["service allow", "connection allow"], 0),
    ] {
        let (answer, found) = scene.json(arguments);
        assert_eq!((links(&answer), found), (expected.iter().map(ToString::to_string).collect(), code), "{arguments:?}: {answer}");
    }
}

#[test]
fn what_a_service_leaves_out() {
    let (answer, _) = Scene::new().json(&["--from", "shop/web-8c8c-c", "http://api"]);
    let service = &answer["chain"][1];
    assert_eq!(service["endpoints"], serde_json::json!(["shop/api-1:8080", "shop/api-2:8080"]));
    assert_eq!(
        service["notReady"],
        serde_json::json!([
            {"pod": "shop/api-3", "why": "is not ready"},
            {"pod": "shop/api-4", "why": "has ended (phase Succeeded or Failed)"},
        ])
    );
    let (answer, _) = Scene::new().json(&["--from", "shop/web-8c8c-c", "http://api:8080"]);
    assert_eq!(answer["chain"][1]["problem"], "Service shop/api has no port 8080/TCP, only 80/TCP (http)");
    let (answer, _) = Scene::new().json(&["--from", "shop/web-8c8c-c", "http://locked:8080"]);
    let problem = "Service shop/locked has no port 8080/TCP, only 80/TCP; 8080/TCP is the port of the pods behind it, and callers dial 80";
    assert_eq!(answer["chain"][1]["problem"], problem);
}

#[test]
fn names_outside_the_cluster() {
    let scene = Scene::new();
    // Whatever the address: nothing restricts it.
    let (answer, code) = scene.json(&["--from", "shop/web-7d9f-a", "https://api.bank.example/"]);
    assert_eq!((links(&answer), code), (vec!["dns allow".into(), "name allow".into(), "connection allow".into()], 0));
    // Port 8443 is in no rule; 443 only to one block.
    let (answer, code) = scene.json(&["--from", "shop/invoice-100-x", "https://api.bank.example:8443"]);
    assert_eq!((answer["chain"][2]["verdict"].as_str().unwrap(), code), ("deny", 1));
    assert_eq!(answer["chain"][2]["paths"][0]["explanation"]["fixes"], serde_json::json!([]));
    let (answer, _) = scene.json(&["--from", "shop/invoice-100-x", "https://api.bank.example"]);
    assert_eq!(answer["chain"][2]["verdict"], "undecided");
    assert!(answer["chain"][2]["paths"][0]["explanation"]["notes"][0].as_str().unwrap().contains("--domain-names"), "{answer}");

    scene.file("names.json", r#"{"API.bank.example.": ["198.51.100.9"], "gone.example": []}"#);
    let known = |url: &str| scene.json(&["--domain-names", "names.json", "--from", "shop/invoice-100-x", url]).0;
    let answer = known("https://api.bank.example");
    assert_eq!(links(&answer), ["dns deny", "name allow", "connection allow"]);
    assert_eq!(answer["chain"][1]["addresses"], serde_json::json!(["198.51.100.9"]));
    assert_eq!(links(&known("https://gone.example")), ["dns deny", "name undecided"]);
    let answer = known("payments.shop:443");
    assert_eq!(links(&answer), ["dns deny", "alias allow", "name allow", "connection allow"]);
    assert_eq!(answer["chain"][1]["name"], "api.bank.example");

    scene.file("bad.json", r#"{"a": 1}"#);
    let error = scene.error(&["--domain-names", "bad.json", "--from", "shop/web-7d9f-a", "https://a.example"]);
    assert!(error.contains("--domain-names bad.json: "), "{error}");
}

#[test]
fn wrong_names_say_what_was_meant() {
    let scene = Scene::new();
    for (from, to, expected) in [
        ("shop/api-1x", "shop/db-0", "no pod shop/api-1x\nhint: did you mean shop/api-1, shop/api-2 or shop/api-3?"),
        (
            "shop/web",
            "shop/db-0",
            "no pod shop/web\nhint: did you mean shop/deploy/web, shop/web-7d9f-a, shop/web-7d9f-b or shop/web-8c8c-c?",
        ),
        ("shop/deploy/wbe", "shop/db-0", "no pod of Deployment shop/wbe\nhint: did you mean shop/deploy/web?"),
        ("shop/sts/x", "shop/db-0", "no pod of StatefulSet shop/x\nhint: StatefulSets with pods of namespace shop: db"),
        ("shop/web-7d9f-a", "shop/svc/pai", "no Service shop/pai\nhint: did you mean shop/svc/api?"),
        ("shop/app=wbe", "shop/db-0", "no pod of namespace shop has the labels app=wbe\nhint: pods of namespace shop: "),
        (
            "web",
            "shop/db-0",
            "no pod default/web\nhint: namespace default has no pods; namespaces with pods: kube-system, shop\nhint: write namespace/name, or give the namespace with -n",
        ),
        ("shpo/api-1", "shop/db-0", "no pod shpo/api-1\nhint: did you mean shop/api-1?"),
        ("node/n2", "shop/db-0", "no node n2\nhint: did you mean node/n1?"),
        ("10.0.0.0/8", "shop/db-0", "--from: 10.0.0.0/8 is a range of addresses\nhint: ask about one address of it"),
        (
            "shop/api-1:80",
            "shop/db-0",
            "--from: shop/api-1:80: \"api-1:80\" is no name of an object\nhint: the port is asked for with --port",
        ),
        ("http://api", "shop/db-0", "--from: http://api is a URL, and only the side that is called can be one"),
        ("shop/x/y", "shop/db-0", "--from: shop/x/y: \"x\" is no kind that has or makes pods"),
        ("fd00::9", "shop/db-0", "fd00::9 and shop/db-0 have no address of the same family: one is IPv4, the other IPv6"),
    ] {
        let error = scene.error(&["--from", from, "--to", to, "--port", "1"]);
        assert!(error.starts_with(&format!("error: {expected}")), "{from} → {to}: {error}");
    }
    for (arguments, expected) in [
        (&["--from", "shop/web-7d9f-a", "http://ap"][..], "no Service shop/ap\nhint: did you mean shop/svc/api?"),
        (&["--from", "shop/web-7d9f-a", "http://api.shpo"], "no namespace shpo with a Service api\nhint: did you mean api.shop?"),
        (
            &["--from", "203.0.113.7", "http://api"],
            "api: a name alone is looked up in the namespace of the caller, and this caller has none\nhint: write api.NAMESPACE",
        ),
        (&["--from", "shop/web-7d9f-a", "http://api:0"], "http://api:0: the port must be a number from 1 to 65535"),
        (&["--from", "shop/web-7d9f-a", "gopher://api"], "gopher://api: the port of \"gopher\" is not known here, and the URL names none"),
        (
            &["--from", "shop/web-7d9f-a", "--to", "shop/svc/open"],
            "which port of Service shop/open?\nhint: give it with --port; it has 80/TCP, 443/TCP",
        ),
        (
            &["--from", "shop/web-7d9f-a", "--to", "shop/api-1"],
            "which port is called?\nhint: give it with --port, such as --port 8080 or --port 53/UDP",
        ),
        (&["--from", "shop/web-7d9f-a", "--to", "shop/api-1", "--port", "1", "--protocol", "icmp"], "ICMP has no ports"),
        (
            &["--from", "shop/web-7d9f-a", "--to", "shop/api-1", "--port", "1/TCP", "--protocol", "udp"],
            "--port 1/TCP and --protocol UDP contradict each other",
        ),
        (
            &["--from", "shop/web-7d9f-a", "--to", "shop/api-1", "--port", "x"],
            "invalid value 'x' for '--port <PORT[/PROTOCOL]>': expected a port number",
        ),
        (
            &["--from", "a", "--to", "b", "--profile", "x=y"],
            "invalid value 'x=y' for '--profile <SWITCH=VALUE>': no switch is named \"x\"; there are ip-block-matches-pods=true|false",
        ),
        (
            &["--from", "a", "--to", "b", "--port", "1", "--profile", "baseline=per-pod", "--profile", "baseline=per-pod"],
            "--profile baseline is given twice",
        ),
        (&["--from", "a", "--to", "b", "-f", "none.yaml"], "the manifests cannot be used\nnone.yaml: "),
        (&["-f", "-", "--queries", "-"], "standard input (-) is asked for more than once"),
        (&["--to", "b"], "the following required arguments were not provided:\n  --from <END>"),
        (&["--from", "b"], "the following required arguments were not provided:\n"),
    ] {
        let port = if expected.starts_with("the manifests") { &["--port", "1"][..] } else { &[] };
        let error = scene.error(&[arguments, port].concat());
        assert!(error.starts_with(&format!("error: {expected}")), "{arguments:?}: {error}");
    }
}

#[test]
fn manifests_from_several_places_with_what_is_wrong_in_them() {
    let scene =
        Scene::with("{apiVersion: v1, kind: Pod, metadata: {name: a}}\n---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: web}}");
    let second = "{apiVersion: v1, kind: Pod, metadata: {name: b}, spek: {}}";
    let run = scene.explain_with(&["-f", "cluster.yaml", "-f", "-", "--from", "a", "--to", "b", "--port", "1"], second);
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.err.contains("warning: -:1: Pod default/b: spek: unknown field"), "{}", run.err);
    assert!(run.err.contains("warning: objects of kinds that play no part here are left out: 1 v1 ConfigMap"), "{}", run.err);
}

#[test]
fn a_workload_without_pods_stands_for_those_it_makes() {
    let scene = Scene::with(
        "{apiVersion: v1, kind: Pod, metadata: {name: a}}\n---\n{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {template: {metadata: {labels: {app: web}}}}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: web}, spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress]}}",
    );
    let run = scene.explain(&["--from", "deploy/web", "--to", "a", "--port", "1"]);
    assert_eq!(run.code, 1, "{}", run.err);
    assert!(run.out.contains("default/web-xxxxx"), "{}", run.out);
}

#[test]
fn json_and_yaml_hold_the_same() {
    let scene = Scene::new();
    let question = ["--from", "shop/web-7d9f-a", "http://api"];
    let (json, _) = scene.json(&question);
    let yaml = scene.explain(&[&question[..], &["-o", "yaml"]].concat());
    let yaml: Value = serde_saphyr::from_str(&yaml.out).unwrap_or_else(|error| panic!("{error}: {}", yaml.out));
    assert_eq!(yaml, json);
    assert_eq!(json["question"], serde_json::json!({"from": "shop/web-7d9f-a", "to": "http://api", "port": 80, "protocol": "TCP"}));
    assert_eq!(json["explanation"], json["chain"][2]["paths"][0]["explanation"], "of the endpoints, the denied one");
    let two = scene.explain(&["--from", "shop/web-7d9f-a", "--to", "shop/db-0", "-p", "1", "-p", "2", "-o", "yaml"]);
    assert_eq!(two.out.split("\n---\n").count(), 2, "{}", two.out);
}

#[test]
fn colours_and_names_that_act_on_terminals() {
    let manifests = "{apiVersion: v1, kind: Pod, metadata: {name: \"a\\e[31m\"}}\n---\n{apiVersion: v1, kind: Pod, metadata: {name: b}}";
    let scene = Scene::with(manifests);
    for form in ["text", "json", "yaml"] {
        let run = scene.explain(&["--from", "default/!x", "--to", "b", "--port", "1", "-o", form]);
        assert_eq!(run.code, 0, "{}", run.err);
        assert!(!run.out.contains('\u{1b}'), "{:?}", run.out);
    }
    let coloured = scene.explain(&["--from", "b", "--to", "b", "--port", "1", "--color", "always"]);
    assert!(coloured.out.contains("\u{1b}["), "{}", coloured.out);
}

#[test]
fn the_cluster_of_these_tests_has_no_mistakes() {
    assert_eq!(Scene::with(CLUSTER).explain(&["--from", "shop/api-1", "--to", "shop/api-1", "--port", "1"]).err, "");
}
