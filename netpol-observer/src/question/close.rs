//! Names that are not there: which ones were probably meant, and which there are.

use std::collections::BTreeSet;

/// Names suggested.
const SUGGESTED: usize = 3;
/// Names listed of all there are.
const LISTED: usize = 10;

/// The names that come close to the one typed, the closest first: those that begin with it, and those few letters away.
pub(super) fn close<'a>(typed: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let far = (typed.chars().count() / 3).max(1) + 1;
    let distance = |name: &str| {
        let begins = !typed.is_empty() && name.strip_prefix(typed).is_some_and(|rest| rest.starts_with('-'));
        if begins { Some(0) } else { Some(strsim::osa_distance(typed, name)).filter(|distance| *distance < far) }
    };
    let distinct: BTreeSet<&str> = names.into_iter().collect();
    let mut found: Vec<_> =
        distinct.into_iter().filter_map(|name| Some((distance(name)?, name.len().abs_diff(typed.len()), name))).collect();
    found.sort_unstable();
    found.into_iter().take(SUGGESTED).map(|(_, _, name)| name).collect()
}

/// `did you mean a or b?`
pub(super) fn did_you_mean(names: &[String]) -> Option<String> {
    match names {
        [] => None,
        [name] => Some(format!("did you mean {name}?")),
        [first @ .., last] => Some(format!("did you mean {} or {last}?", first.join(", "))),
    }
}

/// `a, b, c and 12 more`
pub(super) fn listed(names: &[String]) -> String {
    let shown = names.get(..LISTED.min(names.len())).unwrap_or_default().join(", ");
    match names.len().saturating_sub(LISTED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_close() {
        let names = ["web", "web-7d9f-x2", "api", "frontend", "wbe2", "database"];
        assert_eq!(close("wbe", names), ["web", "wbe2"]);
        assert_eq!(close("frontned", names), ["frontend"]);
        assert_eq!(close("web", names), ["web", "web-7d9f-x2"]);
        assert_eq!(close("zzz", names), [""; 0]);
        assert_eq!(close("", names), [""; 0]);
        assert_eq!(did_you_mean(&["a".into(), "b".into(), "c".into()]).unwrap(), "did you mean a, b or c?");
        let many: Vec<String> = (0..12).map(|n| n.to_string()).collect();
        assert_eq!(listed(&many), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more");
    }
}
