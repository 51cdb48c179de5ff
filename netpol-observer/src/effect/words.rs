//! Effects in a sentence.

use crate::policy::{Difference, NotCounted, Pairs, Turned};

/// `2 workload pairs newly denied, 1 newly allowed; outside: 3 pairs newly denied`
pub fn summary(difference: &Difference) -> String {
    let turned = match difference {
        Difference::NotCounted(NotCounted::Verdicts(bound)) => {
            return format!("not counted: more than {bound} verdicts would have to be compared");
        }
        Difference::NotCounted(NotCounted::Objects(bound)) => return format!("not counted: more than {bound} objects changed at once"),
        Difference::NotCounted(NotCounted::Busy) => return "not counted: changes come too fast".to_owned(),
        Difference::NotCounted(NotCounted::NotShown) => return "what it does is not shown: you may not read all namespaces".to_owned(),
        Difference::Counted(turned) => turned,
    };
    let parts = [
        counts(turned, "workload ", |pairs| pairs.workloads),
        counts(turned, "", |pairs| pairs.outside).map(|counts| format!("outside: {counts}")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { "no verdict changes".to_owned() } else { parts.join("; ") }
}

/// `2 pairs newly denied, 1 newly allowed`, or nothing where all counts are zero.
fn counts(turned: &Turned, what: &str, count: impl Fn(&Pairs) -> u64) -> Option<String> {
    let all = [(&turned.denied, "newly denied"), (&turned.allowed, "newly allowed"), (&turned.undecided, "undecided")];
    let counts = all.map(|(pairs, became)| (count(pairs), became)).into_iter().filter(|(count, _)| *count > 0);
    let parts: Vec<String> = counts
        .enumerate()
        .map(|(place, (count, became))| match (place, count) {
            (0, 1) => format!("1 {what}pair {became}"),
            (0, _) => format!("{count} {what}pairs {became}"),
            _ => format!("{count} {became}"),
        })
        .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}
