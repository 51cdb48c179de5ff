//! `observer map` as people run it: the real program on manifests; its diagrams read by Graphviz and Mermaid, its page opened in a real browser.

mod diagrams;
mod page;
mod scene;

use std::collections::BTreeSet;

use insta::assert_snapshot;
use serde_json::Value;

use crate::scene::{DROPS, SHOP, Scene};

#[test]
fn a_table_of_who_can_talk_to_whom() {
    let scene = Scene::new(&[("shop.yaml", SHOP), ("drops.json", DROPS)]);
    let (code, out, err) = scene.map(&["shop.yaml", "--drops", "drops.json"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_snapshot!(out);
    let (_, out, _) = scene.map(&["shop.yaml", "--by", "namespace"]);
    assert_snapshot!(out);
}

#[test]
fn a_namespace_and_those_around_it() {
    let scene = Scene::new(&[("shop.yaml", SHOP)]);
    let (_, out, _) = scene.map(&["shop.yaml", "-n", "data"]);
    assert_snapshot!(out);
    let (code, _, err) = scene.map(&["shop.yaml", "-n", "dta"]);
    assert_eq!(code, 2);
    assert!(err.contains("there is no workload in the namespace dta"), "{err}");
}

/// Every pair is told of once, by the engine's words: what the JSON says of a pair is what `observer explain` says of it.
#[test]
fn json_says_what_explain_says() {
    let scene = Scene::new(&[("shop.yaml", SHOP)]);
    let (code, out, _) = scene.map(&["shop.yaml", "-o", "json"]);
    assert_eq!(code, 0);
    let map: Value = serde_json::from_str(&out).unwrap();
    let id = |at: &Value| map["parties"][usize::try_from(at.as_u64().unwrap()).unwrap()]["id"].as_str().unwrap().to_owned();
    let pairs: Vec<&Value> = ["edges", "denied"].iter().flat_map(|kind| map[kind].as_array().unwrap()).collect();
    let mut seen: Vec<(String, String)> = pairs.iter().map(|pair| (id(&pair["from"]), id(&pair["to"]))).collect();
    seen.sort();
    let count = seen.len();
    seen.dedup();
    assert_eq!(seen.len(), count);
    let mut questions = String::new();
    let mut expected = Vec::new();
    for (kind, verdict) in [("edges", "allow"), ("denied", "deny")] {
        for pair in map[kind].as_array().unwrap() {
            let (from, to) = (id(&pair["from"]), id(&pair["to"]));
            let ports = if kind == "edges" { &pair["by"][0]["ports"] } else { &pair["ports"] };
            let port = ports[0].as_str().unwrap();
            // `observer explain` speaks of a pod and itself too, where the pods of a workload call each other.
            if from == to || [&from, &to].iter().any(|end| !end.starts_with("shop/") && !end.starts_with("data/")) {
                continue;
            }
            let (number, protocol) = port.split_once('/').unwrap_or(("80", "TCP"));
            questions.push_str(&format!("{{\"from\":\"{from}\",\"to\":\"{to}\",\"port\":{number},\"protocol\":\"{protocol}\"}}\n"));
            expected.push(format!("{from} -> {to} {port}: {verdict}"));
        }
    }
    assert!(expected.len() == 6, "{expected:?}");
    let answers = scene.run(&["explain", "-f", "shop.yaml", "--queries", "-", "--no-explanation"], &questions);
    let found = answers.1.lines().zip(&expected).map(|(line, expected)| {
        let verdict = serde_json::from_str::<Value>(line).unwrap()["verdict"].as_str().unwrap().to_owned();
        format!("{}: {verdict}", expected.rsplit_once(':').unwrap().0)
    });
    assert_eq!(found.collect::<Vec<_>>(), expected);
}

/// Every field that is written, with `[]` for elements of arrays.
fn fields(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                fields(value, &path, found);
                found.insert(path);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| fields(value, &format!("{path}[]"), found)),
        _ => {}
    }
}

#[test]
fn the_document_names_every_field() {
    let scene = Scene::new(&[("shop.yaml", SHOP), ("drops.json", DROPS)]);
    let (_, out, _) = scene.map(&["shop.yaml", "--drops", "drops.json", "-o", "json"]);
    let mut written = BTreeSet::new();
    fields(&serde_json::from_str(&out).unwrap(), "", &mut written);
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/map.md")).unwrap();
    let table = document.split("## JSON").nth(1).unwrap();
    let mut documented: BTreeSet<String> =
        table.lines().filter_map(|line| Some(line.strip_prefix("| `")?.split('`').next()?.to_owned())).collect();
    // Nothing in the shop is undecided.
    assert!(documented.remove("rulings[].why"));
    assert_eq!(written, documented);
}

#[test]
fn what_cannot_be_used_is_said() {
    let scene = Scene::new(&[
        ("shop.yaml", SHOP),
        ("none.yaml", "{apiVersion: v1, kind: Namespace, metadata: {name: shop}}\n"),
        ("drops.txt", "{\"type\": \"ledger\"}\nnothing\n"),
        ("drops.json", "{\"type\": \"denial\", \"id\": 7}\n"),
    ]);
    let cases: [(&[&str], i32, &str); 6] = [
        (&[], 2, "nothing to map"),
        (&["none.yaml"], 1, "there are no workloads among the manifests"),
        (&["missing.yaml"], 1, "missing.yaml"),
        (&["-", "--drops", "-"], 2, "- is given more than once"),
        (&["shop.yaml", "--drops", "drops.txt"], 1, "drops.txt: line 2: no JSON"),
        (&["shop.yaml", "--drops", "drops.json"], 1, "drops.json: line 1: not as `observer tail -o json` writes it"),
    ];
    for (arguments, expected, words) in cases {
        let (code, out, err) = scene.map(arguments);
        assert_eq!((code, out.as_str()), (expected, ""), "{arguments:?}: {err}");
        assert!(err.contains(words), "{arguments:?}: {err}");
    }
}
