//! A map as a table.

use super::graph::Graph;
use super::{By, Map};

/// Who can talk to whom: a line for each pair that is admitted, by caller, and a summary.
pub fn text(map: &Map, by: By) -> String {
    let graph = Graph::of(map, by);
    let name = |at: usize| graph.nodes.get(at).map(|node| node.name.as_str()).unwrap_or_default();
    let rows = graph.arrows.iter().map(|arrow| {
        let ports = if arrow.ports.is_empty() { "nothing".to_owned() } else { arrow.ports.join(", ") };
        let denied = if arrow.denied > 0 { format!("{} dropped", arrow.denied) } else { String::new() };
        [name(arrow.from).to_owned(), name(arrow.to).to_owned(), ports, denied]
    });
    let header = ["FROM", "TO", "PORTS", "RECORDED"].map(str::to_owned);
    let rows: Vec<[String; 4]> = [header].into_iter().chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths = [width(0), width(1), width(2)];
    let has_denials = !map.denials.is_empty();
    let mut out = String::new();
    for row in &rows {
        let [from, to, ports, denied] = row;
        let denied = if has_denials { denied.as_str() } else { "" };
        let line = format!("{from:0$}  {to:1$}  {ports:2$}  {denied}", widths[0], widths[1], widths[2]);
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out.push('\n');
    out.push_str(&summary(map));
    out.push('\n');
    out
}

/// `12 workloads in 3 namespaces: of 132 pairs 20 are admitted on every port, 12 on some, 100 on none`
fn summary(map: &Map) -> String {
    let workloads = map.parties.iter().filter(|party| party.kind == "workload");
    let mut namespaces: Vec<&str> = workloads.clone().map(|party| party.namespace.as_str()).collect();
    namespaces.dedup();
    let [denied, some, every] = map.counts();
    let total = denied + some + every;
    let mut summary = format!(
        "{} in {}: of {} {every} may talk on every port, {some} on some, {denied} on none",
        counted(workloads.count(), "workload", "workloads"),
        counted(namespaces.len(), "namespace", "namespaces"),
        counted(total, "pair", "pairs"),
    );
    let dropped: u64 = map.denials.iter().map(|denial| denial.count).sum();
    if dropped > 0 || map.elsewhere > 0 {
        summary.push_str(&format!("\nrecorded: {dropped} dropped packets on {}", counted(map.denials.len(), "connection", "connections")));
    }
    if map.elsewhere > 0 {
        summary.push_str(&format!(", and {} of which an end is not among the manifests", map.elsewhere));
    }
    summary
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
