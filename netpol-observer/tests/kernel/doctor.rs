//! `observer doctor` on a machine where everything works.

use netpol_observer::capture::doctor::{Status, examine};
use netpol_observer::capture::live::LiveOptions;

use crate::support::{as_this_machine_needs, machine, runtime};

#[test]
fn a_real_drop_is_seen() {
    let Some(_machine) = machine("doctor::a_real_drop_is_seen") else { return };
    let checks = runtime().block_on(examine(as_this_machine_needs(LiveOptions::default())));
    let failed: Vec<_> = checks.iter().filter(|check| check.status == Status::Fails || check.status == Status::Skipped).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(checks.iter().any(|check| check.name == "a real drop" && check.status == Status::Works));
}
