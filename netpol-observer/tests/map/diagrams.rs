//! The diagrams, read by the programs they are for.

use std::io::Write as _;
use std::process::{Command, Stdio};

use xtask::testing::skipped;

use crate::scene::{DROPS, HOSTILE, SHOP, Scene};

/// What Graphviz makes of a graph: each node and each edge on a line.
fn graphviz(dot: &str) -> String {
    let mut process =
        Command::new("dot").arg("-Tplain").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    process.stdin.take().unwrap().write_all(dot.as_bytes()).unwrap();
    let output = process.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}\n{dot}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn graphviz_draws_it() {
    if let Err(error) = xtask::packages::ensure("the test of diagrams", &["graphviz"]) {
        skipped("graphviz_draws_it", &error.to_string());
        return;
    }
    let scene = Scene::new(&[("shop.yaml", SHOP), ("hostile.yaml", HOSTILE), ("drops.json", DROPS)]);
    for (arguments, nodes, edges) in [
        (&["shop.yaml"][..], 5, 11),
        (&["shop.yaml", "--drops", "drops.json"], 5, 12),
        (&["shop.yaml", "--by", "namespace"], 4, 7),
        (&["hostile.yaml"], 3, 5),
    ] {
        let (code, dot, err) = scene.map(&[arguments, &["-o", "dot"]].concat());
        assert_eq!(code, 0, "{err}");
        let plain = graphviz(&dot);
        let count = |kind: &str| plain.lines().filter(|line| line.starts_with(kind)).count();
        assert_eq!((count("node "), count("edge ")), (nodes, edges), "{arguments:?}\n{dot}\n{plain}");
    }
    let (_, dot, _) = scene.map(&["hostile.yaml", "-o", "dot"]);
    assert!(graphviz(&dot).contains("<img src=x onerror=window.pwned=1>"), "{dot}");
}

#[test]
fn mermaid_warns_of_its_limit() {
    let scene = Scene::new(&[("large.yaml", &crate::scene::large(3))]);
    let (code, chart, err) = scene.map(&["large.yaml", "-o", "mermaid"]);
    assert_eq!(code, 0);
    let arrows = chart.lines().filter(|line| line.contains("-->")).count();
    assert!(arrows > 500 && err.contains(&format!("warning: {arrows} arrows, and Mermaid refuses")), "{arrows}: {err}");
    let (_, chart, err) = scene.map(&["large.yaml", "-o", "mermaid", "--by", "namespace"]);
    assert!(chart.lines().filter(|line| line.contains("-->")).count() <= 500 && err.is_empty(), "{err}");
}
