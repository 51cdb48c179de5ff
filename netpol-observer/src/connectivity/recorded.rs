//! Recorded drops: what `observer tail -o json` wrote → one [`RecordedDrop`] for each kind of connection, as it is judged by now.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use super::RecordedEnd;

/// Drops that were recorded, amendments taken in and repeats counted.
#[derive(Clone, Debug, Default)]
pub struct Drops {
    /// By id, and by the time of the packet.
    seen: BTreeMap<String, BTreeMap<String, RecordedDrop>>,
    /// Repeats: how many, and the last.
    repeats: BTreeMap<String, (u64, RecordedDrop)>,
}

/// Why drops cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct UnreadableDrops {
    line: usize,
    problem: String,
}

/// The fields of `denial` and `repeat` (docs/json.md) that matter here.
#[derive(Clone, Debug, Deserialize)]
pub struct RecordedDrop {
    id: String,
    time: String,
    #[serde(default)]
    last: String,
    count: u64,
    /// Kind of cause: `policyDenied`, …
    pub class: String,
    /// Why, in a sentence.
    #[serde(default)]
    pub summary: String,
    /// Who called.
    pub client: RecordedEnd,
    /// Who was called.
    pub server: RecordedEnd,
    /// `TCP`, …
    pub protocol: String,
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
            drops.line(line).map_err(|problem| UnreadableDrops { line: number + 1, problem })?;
        }
        Ok(drops)
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        self.take(serde_json::from_str(line).map_err(|error| format!("no JSON: {error}"))?)
    }

    /// Takes an object in; one of another type is passed over.
    ///
    /// # Errors
    /// It is none that `observer tail -o json` writes.
    pub fn take(&mut self, mut object: Value) -> Result<(), String> {
        let read =
            |object: Value| RecordedDrop::deserialize(object).map_err(|error| format!("not as `observer tail -o json` writes it: {error}"));
        match object.get("type").and_then(Value::as_str) {
            Some("denial") => self.put(read(object)?),
            // The drop as it is judged by now.
            Some("amendment") => self.put(read(object.get_mut("denial").map(Value::take).unwrap_or_default())?),
            Some("repeat") => {
                let line = read(object)?;
                match self.repeats.get_mut(&line.id) {
                    Some((count, last)) => {
                        *count += line.count;
                        if line.last > last.last {
                            *last = line;
                        }
                    }
                    None => drop(self.repeats.insert(line.id.clone(), (line.count, line))),
                }
            }
            Some(_) => {}
            None => return Err("an object without type: not as `observer tail -o json` writes it".to_owned()),
        }
        Ok(())
    }

    /// Each kind of connection, by id: as its newest drop is judged, how many packets, and when the last was. Of a recording that begins with a repeat the drop
    /// is not known, and the repeat stands for it.
    pub fn each(&self) -> impl Iterator<Item = (&RecordedDrop, u64, &str)> {
        let ids: BTreeSet<&String> = self.seen.keys().chain(self.repeats.keys()).collect();
        ids.into_iter().filter_map(|id| {
            let lines = self.seen.get(id);
            let repeats = self.repeats.get(id);
            let newest = lines.and_then(|lines| lines.values().next_back()).or(repeats.map(|(_, last)| last))?;
            let count = lines.into_iter().flatten().map(|(_, line)| line.count).sum::<u64>() + repeats.map_or(0, |(count, _)| *count);
            let last = repeats.map_or("", |(_, repeat)| &repeat.last).max(newest.last.as_str());
            Some((newest, count, last))
        })
    }

    fn put(&mut self, line: RecordedDrop) {
        self.seen.entry(line.id.clone()).or_default().insert(line.time.clone(), line);
    }
}

impl RecordedDrop {
    /// The rule, or the policies, that denied it.
    pub fn by(&self) -> Option<String> {
        self.explanation.by()
    }

    /// The changes that would have admitted it.
    pub fn fixes(&self) -> impl Iterator<Item = &str> {
        self.explanation.fixes.iter().map(|fix| &*fix.change)
    }
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
        let classes: Vec<_> = drops.each().map(|(drop, count, _)| (drop.class.as_str(), count)).collect();
        assert_eq!(classes, [("noListener", 1)]);
    }

    /// Of a recording that begins in the middle.
    #[test]
    fn a_repeat_stands_for_a_drop_that_is_not_there() {
        let repeat = |last: &str, count: u64| {
            let line = denial("2026-11-30T10:00:00Z", "policyDenied").replace("denial", "repeat");
            line.replace(r#""count": 1"#, &format!(r#""count": {count}, "last": "{last}""#))
        };
        let drops = Drops::read(&format!("{}\n{}", repeat("2026-11-30T10:00:09Z", 5), repeat("2026-11-30T10:00:04Z", 2))).expect("drops");
        let found: Vec<_> = drops.each().map(|(_, count, last)| (count, last)).collect();
        assert_eq!(found, [(7, "2026-11-30T10:00:09Z")]);
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
