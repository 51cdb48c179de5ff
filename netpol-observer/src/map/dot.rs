//! A map in the language of Graphviz.

use super::graph::Graph;
use super::{By, Map};

/// A directed graph with a cluster for each namespace.
pub fn dot(map: &Map, by: By) -> String {
    let graph = Graph::of(map, by);
    let mut out = format!(
        "digraph map {{\n  label={};\n  labelloc=t;\n  rankdir=LR;\n  compound=true;\n  fontname=\"sans-serif\";\n  \
         node [shape=box, style=\"rounded,filled\", fillcolor=\"#eef2f7\", color=\"#8896a8\", fontname=\"sans-serif\"];\n  \
         edge [color=\"#4b6a88\", fontname=\"sans-serif\", fontsize=10];\n",
        quoted(&map.title)
    );
    let mut group: Option<&str> = None;
    for (at, node) in graph.nodes.iter().enumerate() {
        if group != node.group.as_deref() {
            if group.is_some() {
                out.push_str("  }\n");
            }
            group = node.group.as_deref();
            if let Some(name) = group {
                out.push_str(&format!("  subgraph cluster_{at} {{\n    label={};\n    color=\"#b8c2cf\";\n", quoted(name)));
            }
        }
        let indent = if group.is_some() { "    " } else { "  " };
        let shape = match node.kind {
            "workload" | "namespace" => "",
            "nodes" => ", shape=hexagon",
            _ => ", shape=ellipse",
        };
        out.push_str(&format!("{indent}n{at} [label={}, tooltip={}{shape}];\n", quoted(&node.label), quoted(&node.name)));
    }
    if group.is_some() {
        out.push_str("  }\n");
    }
    for arrow in &graph.arrows {
        let mut label = arrow.ports.join("\n");
        let mut style = String::new();
        if arrow.denied > 0 {
            let gap = if label.is_empty() { "" } else { "\n" };
            label.push_str(&format!("{gap}{} dropped", arrow.denied));
            style.push_str(", color=\"#d64545\"");
        }
        if arrow.ports.is_empty() {
            style.push_str(", style=dashed");
        }
        out.push_str(&format!("  n{} -> n{} [label={}{style}];\n", arrow.from, arrow.to, quoted(&label)));
    }
    out.push_str("}\n");
    out
}

/// A quoted string. Within labels a backslash begins an escape, so it is doubled.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            // Graphviz reads entities of HTML in labels.
            '&' => quoted.push_str("&amp;"),
            c if c.is_control() => quoted.push('\u{fffd}'),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_backslashes_and_entities_are_text() {
        assert_eq!(quoted(r#"a"b\N&amp;"#), r#""a\"b\\N&amp;amp;""#);
        assert_eq!(quoted("a\nb\u{7}"), "\"a\\nb\u{fffd}\"");
    }
}
