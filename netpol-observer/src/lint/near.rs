//! Why a selector matches nothing, and what comes nearest, in words.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cluster::{Labels, Operator, Requirement, Selector};

use super::facts::{Area, Group};

/// Labels that are suggested for one that nothing has.
const SUGGESTIONS: usize = 3;

/// Something with labels: how it is called, and how many there are of it.
#[derive(Clone, Debug)]
pub(super) struct Labelled<'a> {
    pub(super) name: String,
    pub(super) labels: &'a Labels,
    pub(super) count: usize,
}

impl<'a> From<&Group<'a>> for Labelled<'a> {
    fn from(group: &Group<'a>) -> Self {
        Labelled { name: format!("{}/{}", group.pod.namespace, group.pod.name), labels: &group.pod.labels, count: group.count }
    }
}

impl<'a> From<&'a Area<'_>> for Labelled<'a> {
    fn from(area: &'a Area<'_>) -> Self {
        Labelled { name: area.name.to_string(), labels: &area.labels, count: 1 }
    }
}

/// Why none of `all` matches. `none` is how "none of them" is said: `no pod of namespace shop`.
pub(super) fn miss(selector: &Selector, all: &[Labelled<'_>], none: &str) -> String {
    let unmet = selector.requirements.iter().find(|term| !all.iter().any(|one| term.matches(one.labels)));
    if let Some(term) = unmet {
        return match &term.operator {
            Operator::DoesNotExist => format!("{none} is without the label {}", term.key),
            Operator::NotIn(_) => format!("{none} has {term}: all have {}", values(term, all).join(", ")),
            _ => format!("{none} has {term}{}", instead(term, all)),
        };
    }
    let nearest = all.iter().min_by_key(|one| selector.failed(one.labels).count());
    let Some(nearest) = nearest else { return format!("{none} is there") };
    let failed: Vec<String> = selector.failed(nearest.labels).map(|term| lacks(term, nearest.labels)).collect();
    let met: Vec<String> = selector.requirements.iter().filter(|term| term.matches(nearest.labels)).map(ToString::to_string).collect();
    let met = if met.is_empty() { String::new() } else { format!("has {}, but ", met.join(",")) };
    format!("{none} has all of {selector}: the nearest, {}, {met}{}", nearest.name, failed.join(" and "))
}

/// `has app=web where app=api is wanted`
fn lacks(term: &Requirement, labels: &Labels) -> String {
    let key = &term.key;
    match labels.get(key) {
        Some(value) => format!("has {key}={value} where {term} is wanted"),
        None => format!("has no label {key} where {term} is wanted"),
    }
}

/// What there is in place of a label that nothing has: `; 3 have app=api`.
fn instead(term: &Requirement, all: &[Labelled<'_>]) -> String {
    let found = values(term, all);
    if !found.is_empty() {
        return format!("; {}", found.join(", "));
    }
    let wanted: &[Arc<str>] = match &term.operator {
        Operator::Equals(value) => std::slice::from_ref(value),
        Operator::In(values) => values,
        _ => &[],
    };
    // The right value under another key: `name` for `app.kubernetes.io/name`.
    let mut under: BTreeMap<&str, (&str, usize)> = BTreeMap::new();
    for one in all {
        for (key, value) in one.labels.iter().filter(|(_, value)| wanted.contains(value)) {
            under.entry(key).or_insert((value, 0)).1 += one.count;
        }
    }
    if under.is_empty() {
        return format!("; none has a label {}", term.key);
    }
    let mut under: Vec<_> = under.into_iter().collect();
    under.sort_by_key(|(key, (_, count))| (distance(key, &term.key), std::cmp::Reverse(*count)));
    let under: Vec<String> = under.into_iter().take(SUGGESTIONS).map(|(key, (value, count))| have(count, key, value)).collect();
    format!("; none has a label {}, but {}", term.key, under.join(", "))
}

/// `3 have app=api`, those first whose value is most like the one that is wanted.
fn values(term: &Requirement, all: &[Labelled<'_>]) -> Vec<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for one in all {
        if let Some(value) = one.labels.get(&term.key) {
            *counts.entry(value).or_default() += one.count;
        }
    }
    let likeness = |value: &str| match &term.operator {
        Operator::Equals(wanted) => distance(value, wanted),
        Operator::In(wanted) => wanted.iter().map(|wanted| distance(value, wanted)).min().unwrap_or_default(),
        _ => 0,
    };
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(value, count)| (likeness(value), std::cmp::Reverse(*count)));
    let more = counts.len().saturating_sub(SUGGESTIONS);
    let mut found: Vec<String> = counts.into_iter().take(SUGGESTIONS).map(|(value, count)| have(count, &term.key, value)).collect();
    if more > 0 {
        found.push(format!("{more} more values"));
    }
    found
}

fn have(count: usize, key: &str, value: &str) -> String {
    format!("{count} {} {key}={value}", if count == 1 { "has" } else { "have" })
}

/// Edit distance; label values have at most 63 bytes, and what is longer is refused before it gets here or stays short enough.
pub(super) fn distance(one: &str, other: &str) -> usize {
    let other: Vec<u8> = other.bytes().take(253).collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, byte) in one.bytes().take(253).enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, wanted) in row.iter_mut().skip(1).zip(&other) {
            let replaced = diagonal + usize::from(byte != *wanted);
            diagonal = *cell;
            left = replaced.min(left + 1).min(*cell + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}
