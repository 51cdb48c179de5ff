//! A map as a Mermaid flowchart.

use super::graph::{Graph, Node};
use super::{By, Map};

/// How many arrows Mermaid draws before it refuses, unless its `maxEdges` is raised.
pub const MERMAID_EDGES: usize = 500;

/// A flowchart, and how many arrows it has: above [`MERMAID_EDGES`] Mermaid refuses to draw it as it comes.
pub fn mermaid(map: &Map, by: By) -> (String, usize) {
    let graph = Graph::of(map, by);
    let mut out = String::from("flowchart LR\n");
    let mut group: Option<&str> = None;
    for (at, node) in graph.nodes.iter().enumerate() {
        if group != node.group.as_deref() {
            if group.is_some() {
                out.push_str("  end\n");
            }
            group = node.group.as_deref();
            if let Some(name) = group {
                out.push_str(&format!("  subgraph g{at} [\"{}\"]\n", quoted(name)));
            }
        }
        let indent = if group.is_some() { "    " } else { "  " };
        out.push_str(&format!("{indent}n{at}{}\n", shape(node)));
    }
    if group.is_some() {
        out.push_str("  end\n");
    }
    let mut recorded = Vec::new();
    for (at, arrow) in graph.arrows.iter().enumerate() {
        let mut label = arrow.ports.iter().map(|words| quoted(words)).collect::<Vec<_>>().join("<br>");
        if arrow.denied > 0 {
            recorded.push(at.to_string());
            let gap = if label.is_empty() { "" } else { "<br>" };
            label.push_str(&format!("{gap}{} dropped", arrow.denied));
        }
        let line = if arrow.ports.is_empty() { "-.->" } else { "-->" };
        out.push_str(&format!("  n{} {line}|\"{label}\"| n{}\n", arrow.from, arrow.to));
    }
    if !recorded.is_empty() {
        out.push_str(&format!("  linkStyle {} stroke:#d64545,stroke-width:2px\n", recorded.join(",")));
    }
    let count = graph.arrows.len();
    (out, count)
}

/// Boxes for workloads, rounder ones for what policies do not select.
fn shape(node: &Node) -> String {
    let label = quoted(&node.label);
    match node.kind {
        "workload" | "namespace" => format!("[\"{label}\"]"),
        "nodes" => format!("{{{{\"{label}\"}}}}"),
        _ => format!("([\"{label}\"])"),
    }
}

/// Text within quotes of Mermaid, which takes HTML and Markdown there: all but plain characters by their numbers.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_alphanumeric() || matches!(c, '-' | '.' | '/' | ' ' | ':' | '=' | ',') {
            quoted.push(c);
        } else {
            quoted.push_str(&format!("#{};", u32::from(c)));
        }
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_mermaid_acts_on_is_written_by_numbers() {
        assert_eq!(quoted("deploy/web-1.2"), "deploy/web-1.2");
        assert_eq!(quoted("<b>\"#`*_[;\n"), "#60;b#62;#34;#35;#96;#42;#95;#91;#59;#10;");
    }
}
