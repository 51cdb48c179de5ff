//! The table of `observer status`.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::SKEW;
use crate::client::{AgentStatus, ClusterStatus, Skew};
use crate::serve::render::{clean, duration};

/// What is not known.
const NOTHING: &str = "-";

/// The agents, a line each, and below what is wrong with them.
pub(super) fn write(status: &ClusterStatus) -> String {
    let heads = ["NODE", "POD", "VERSION", "READY", "SYNC", "LAG", "SEEN", "REPORTED", "RING FULL", "CLIENTS"];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    rows.extend(status.agents.iter().map(row));
    rows.extend(status.without_agent.iter().map(|node| {
        let mut row = vec![clean(node).into_owned()];
        row.resize(heads.len(), NOTHING.to_owned());
        row[3] = "no agent".to_owned();
        row
    }));
    let widths: Vec<usize> = (0..heads.len()).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    for note in notes(status) {
        text.push_str(&clean(&note));
        text.push('\n');
    }
    text
}

fn row(status: &AgentStatus) -> Vec<String> {
    let agent = &status.agent;
    let ready = match &status.status {
        Err(_) => "unreachable",
        Ok(_) if agent.ready => "yes",
        Ok(_) => "no",
    };
    let said = status.status.as_ref().unwrap_or(&Value::Null);
    let ledger = &said["ledger"]["kernel"];
    [
        agent.node.clone(),
        agent.pod.clone(),
        word(&said["version"]),
        ready.to_owned(),
        sync(said),
        lag(said),
        word(&ledger["seen"]),
        word(&ledger["reported"]),
        word(&ledger["ringFull"]),
        word(&said["clients"]["readers"]),
    ]
    .map(|cell| clean(&cell).chars().take(80).collect())
    .to_vec()
}

fn word(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => NOTHING.to_owned(),
    }
}

/// How many of the kinds that must be watched are.
fn sync(said: &Value) -> String {
    let Some(kinds) = said["sync"].as_object() else { return NOTHING.to_owned() };
    let watched = kinds.values().filter(|kind| kind["watching"] == true).count();
    format!("{watched}/{}", kinds.len())
}

/// How old the oldest kind's last word is, by the agent's clock. A watch hears something at least once a minute.
fn lag(said: &Value) -> String {
    let time = |value: &Value| value.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    let (Some(now), Some(kinds)) = (time(&said["time"]), said["sync"].as_object()) else { return NOTHING.to_owned() };
    let oldest = kinds.values().filter(|kind| kind["watching"] == true).filter_map(|kind| time(&kind["lastEventAt"])).min();
    oldest.map_or_else(|| NOTHING.to_owned(), |oldest| duration(now.duration_since(oldest).max(SignedDuration::ZERO)))
}

fn notes(status: &ClusterStatus) -> Vec<String> {
    let mut notes = Vec::new();
    for AgentStatus { agent, status: said, skew } in &status.agents {
        let mut note = |what: String| notes.push(format!("{}: {what}", agent.node));
        match said {
            Err(why) => note(format!("cannot be reached: {why}")),
            Ok(said) => {
                let problems = said["kernel"]["problems"].as_array().into_iter().flatten();
                problems.filter_map(Value::as_str).for_each(|problem| note(format!("kernel: {problem}")));
                for (kind, sync) in said["sync"].as_object().into_iter().flatten() {
                    if sync["watching"] == false {
                        note(format!("{kind} are not watched: {}", word(&sync["why"])));
                    }
                }
                for (kind, number) in said["foreign"].as_object().into_iter().flatten() {
                    match number {
                        Value::Null => note(format!("{kind} cannot be counted, and are not evaluated")),
                        number if *number == 0 => {}
                        number => note(format!("{} {kind} are not evaluated", word(number))),
                    }
                }
                let missing = said["missing"].as_array().into_iter().flatten();
                missing.filter_map(Value::as_str).for_each(|missing| note(format!("not ready: {missing}")));
                if !agent.ready {
                    note("the pod is not ready".to_owned());
                }
            }
        }
        if let Some(skew) = skew.filter(|skew| skew.is_beyond(SKEW)) {
            note(clock(skew));
        }
    }
    for node in &status.without_agent {
        notes.push(format!("{node}: no agent runs there; drops there are not seen"));
    }
    notes.extend(status.nodes_unknown.iter().map(|why| format!("nodes without an agent are not known: {why}")));
    notes
}

fn clock(skew: Skew) -> String {
    let way = if skew.ahead.is_negative() { "behind" } else { "ahead of" };
    format!("its clock is about {} {way} that of this machine", duration(skew.ahead.abs()))
}
