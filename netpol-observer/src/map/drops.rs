//! Recorded drops, laid over a map: [`Denial`]s between parties.

use std::collections::BTreeMap;

use super::{Denial, Map};
use crate::connectivity::{Connectivity, Drops, Places};

/// Lays drops that policies were the cause of over a map of the same parties. Those whose ends are not both on it are counted.
pub fn lay_over(drops: &Drops, map: &mut Map, connectivity: &Connectivity) {
    let places = Places::of(connectivity);
    let mut denials: BTreeMap<(usize, usize, String), Denial> = BTreeMap::new();
    for (newest, count, last) in drops.each().filter(|(newest, ..)| is_of_policies(&newest.class)) {
        let (Some(from), Some(to)) = (places.find(&newest.client), places.find(&newest.server)) else {
            map.elsewhere += count;
            continue;
        };
        let port = newest.server.port.map(|port| format!("{port}/")).unwrap_or_default() + &newest.protocol;
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
        if last > denial.last.as_str() {
            last.clone_into(&mut denial.last);
            denial.summary.clone_from(&newest.summary);
            denial.by = newest.by();
            denial.fixes = newest.fixes().map(str::to_owned).collect();
        }
    }
    map.denials = denials.into_values().collect();
}

/// Whether policies are why such drops happen.
fn is_of_policies(class: &str) -> bool {
    matches!(class, "policyDenied" | "policyChanged")
}
