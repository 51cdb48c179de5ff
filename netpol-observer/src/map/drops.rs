//! Recorded drops, laid over a map: what `observer tail -o json` wrote → [`Denial`]s between parties.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use serde_json::Value;

use super::{Denial, Map};
use crate::connectivity::{Connectivity, Places, RecordedEnd};

/// Drops that policies are the cause of, and how many others there were.
#[derive(Clone, Debug, Default)]
pub struct Drops {
    /// By id, and by the time of the packet.
    seen: HashMap<String, BTreeMap<String, Line>>,
    /// Repeats: how many, and when the last was.
    repeats: HashMap<String, (u64, String)>,
}

/// Why drops cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct UnreadableDrops {
    line: usize,
    problem: String,
}

/// The fields of `denial` and `repeat` that matter here.
#[derive(Clone, Debug, Deserialize)]
struct Line {
    id: String,
    time: String,
    #[serde(default)]
    last: String,
    count: u64,
    class: String,
    #[serde(default)]
    summary: String,
    client: RecordedEnd,
    server: RecordedEnd,
    protocol: String,
    #[serde(default)]
    explanation: Explanation,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Explanation {
    #[serde(default)]
    egress: Side,
    #[serde(default)]
    ingress: Side,
    #[serde(default)]
    fixes: Vec<Fix>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Side {
    #[serde(default)]
    outcome: String,
    #[serde(default)]
    by: Value,
    #[serde(default)]
    isolating: Vec<Isolating>,
}

#[derive(Clone, Debug, Deserialize)]
struct Isolating {
    policy: Policy,
}

#[derive(Clone, Debug, Deserialize)]
struct Rule {
    policy: Policy,
    direction: String,
    index: usize,
}

#[derive(Clone, Debug, Deserialize)]
struct Policy {
    kind: String,
    #[serde(default)]
    namespace: String,
    name: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Fix {
    change: String,
}

impl Drops {
    /// Reads lines that `observer tail -o json` wrote; objects of other types among them are passed over.
    ///
    /// # Errors
    /// When a line is no such object.
    pub fn read(text: &str) -> Result<Self, UnreadableDrops> {
        let mut drops = Drops::default();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            drops.take(line).map_err(|problem| UnreadableDrops { line: number + 1, problem })?;
        }
        Ok(drops)
    }

    fn take(&mut self, line: &str) -> Result<(), String> {
        let mut object: Value = serde_json::from_str(line).map_err(|error| format!("no JSON: {error}"))?;
        let read = |object: Value| Line::deserialize(object).map_err(|error| format!("not as `observer tail -o json` writes it: {error}"));
        match object.get("type").and_then(Value::as_str) {
            Some("denial") => self.put(read(object)?),
            // The drop as it is judged by now.
            Some("amendment") => self.put(read(object.get_mut("denial").map(Value::take).unwrap_or_default())?),
            Some("repeat") => {
                let line = read(object)?;
                let repeats = self.repeats.entry(line.id).or_default();
                repeats.0 += line.count;
                repeats.1 = line.last.max(std::mem::take(&mut repeats.1));
            }
            Some(_) => {}
            None => return Err("an object without type: not as `observer tail -o json` writes it".to_owned()),
        }
        Ok(())
    }

    fn put(&mut self, line: Line) {
        self.seen.entry(line.id.clone()).or_default().insert(line.time.clone(), line);
    }

    /// Lays them over a map of the same parties. Those whose ends are not both on it are counted.
    pub fn lay_over(&self, map: &mut Map, connectivity: &Connectivity) {
        let places = Places::of(connectivity);
        let mut denials: BTreeMap<(usize, usize, String), Denial> = BTreeMap::new();
        for (id, lines) in &self.seen {
            let (repeats, last_repeat) = self.repeats.get(id).cloned().unwrap_or_default();
            // Repeats are of the newest.
            let Some(newest) = lines.values().next_back().filter(|line| is_of_policies(&line.class)) else { continue };
            let count = lines.values().map(|line| line.count).sum::<u64>() + repeats;
            let (Some(from), Some(to)) = (places.find(&newest.client), places.find(&newest.server)) else {
                map.elsewhere += count;
                continue;
            };
            let port = newest.server.port.map(|port| format!("{port}/")).unwrap_or_default() + &newest.protocol;
            let last = newest.last.clone().max(last_repeat);
            let denial = denials.entry((from, to, port.clone())).or_insert_with(|| Denial {
                from,
                to,
                port,
                count: 0,
                last: String::new(),
                summary: String::new(),
                by: None,
                fixes: Vec::new(),
            });
            denial.count += count;
            if last > denial.last {
                denial.last = last;
                denial.summary.clone_from(&newest.summary);
                denial.by = newest.explanation.by();
                denial.fixes = newest.explanation.fixes.iter().map(|fix| fix.change.clone()).collect();
            }
        }
        map.denials = denials.into_values().collect();
    }
}

/// Whether policies are why such drops happen.
fn is_of_policies(class: &str) -> bool {
    matches!(class, "policyDenied" | "policyChanged")
}

impl Explanation {
    /// The rule, or the policies, that denied it in the first direction that did.
    fn by(&self) -> Option<String> {
        let side = [&self.egress, &self.ingress].into_iter().find(|side| side.outcome == "denied")?;
        if let Ok(rule) = Rule::deserialize(&side.by) {
            return Some(format!("{} {}[{}]", rule.policy.words(), rule.direction, rule.index));
        }
        let isolating: Vec<String> = side.isolating.iter().map(|isolating| isolating.policy.words()).collect();
        (!isolating.is_empty()).then(|| isolating.join(", "))
    }
}

impl Policy {
    fn words(&self) -> String {
        let namespace = if self.namespace.is_empty() { String::new() } else { format!("{}/", self.namespace) };
        format!("{} {namespace}{}", self.kind, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denial(time: &str, class: &str) -> String {
        let end = r#"{"ip": "10.0.0.1", "kind": "external"}"#;
        format!(
            r#"{{"type": "denial", "id": "a", "time": "{time}", "count": 1, "class": "{class}", "client": {end}, "server": {end}, "protocol": "TCP"}}"#
        )
    }

    /// A drop that is judged otherwise later counts as it is judged by now.
    #[test]
    fn amendments_take_the_place_of_drops() {
        let first = denial("2026-11-30T10:00:00Z", "policyDenied");
        let amended = denial("2026-11-30T10:00:00Z", "noListener").replace(r#""type": "denial", "#, "");
        let amendment = format!(r#"{{"type": "amendment", "id": "a", "time": "2026-11-30T10:00:00Z", "why": "w", "denial": {amended}}}"#);
        let drops = Drops::read(&format!("{first}\n\n{amendment}\n")).expect("drops");
        let classes: Vec<&str> = drops.seen["a"].values().map(|line| line.class.as_str()).collect();
        assert_eq!(classes, ["noListener"]);
    }

    #[test]
    fn what_is_no_such_object_is_said_by_its_line() {
        let good = denial("2026-11-30T10:00:00Z", "policyDenied");
        for (line, words) in
            [("[]", "line 2: an object without type"), ("{", "line 2: no JSON"), (r#"{"type": "repeat"}"#, "line 2: not as")]
        {
            let error = Drops::read(&format!("{good}\n{line}")).expect_err("unreadable");
            assert!(error.to_string().starts_with(words), "{error}");
        }
    }
}
