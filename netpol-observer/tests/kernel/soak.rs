//! The short form of `cargo xtask soak`: floods with readers that come and go.

use std::path::Path;
use std::time::Duration;

use xtask::soak::{SoakOptions, run};
use xtask::testing::{report, skipped};

use crate::support::{is_slow, machine};

#[test]
fn readers_come_and_go_in_a_flood() {
    if is_slow() {
        return skipped("soak::readers_come_and_go_in_a_flood", "an emulated machine explains a flood for minutes");
    }
    let Some(_machine) = machine("soak::readers_come_and_go_in_a_flood") else { return };
    let options = SoakOptions {
        observer: Path::new(env!("CARGO_BIN_EXE_observer")).to_owned(),
        time: Duration::from_secs(15),
        phase: Duration::from_secs(4),
        report: Duration::from_secs(4),
        readers: 4,
    };
    let verdict = run(&options, |line| println!("{line}")).unwrap();
    report(&format!("soak: {verdict}"));
    verdict.conclude().unwrap();
    // At least one of those that are exact leaves after each of three phases; all that are there leave at the end.
    assert!(verdict.dropped > 10_000 && verdict.readers >= 4 + 3 - 1, "the floods flooded and readers left: {verdict}");
}
