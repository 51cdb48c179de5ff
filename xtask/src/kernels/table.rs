//! The tables of docs/kernels.md, between two markers; what stands around them is written by hand.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use xtask::testing::RowResult;

use super::kept::Kept;

const BEGIN: &str = "<!-- written by cargo xtask kernels --write: begin -->";
const END: &str = "<!-- written by cargo xtask kernels --write: end -->";

/// The checks that differ from kernel to kernel.
const CHECKS: &[&str] = &["tracepoint", "kernel types", "kernel fields", "drop reasons", "candidate table", "surroundings", "memory lock"];

/// Writes the tables into the document.
pub(super) fn write(document: &Path, columns: &[Kept]) -> Result<()> {
    let text = fs::read_to_string(document).with_context(|| format!("cannot read {}", document.display()))?;
    fs::write(document, between_markers(&text, &tables(columns))?).with_context(|| format!("cannot write {}", document.display()))
}

fn between_markers(text: &str, new: &str) -> Result<String> {
    let Some((before, (_, after))) = text.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?))) else {
        bail!("the document has no lines {BEGIN} and {END}");
    };
    Ok(format!("{before}{BEGIN}\n\n{new}\n{END}{after}"))
}

/// `7 (7.3)`: how a column is called.
fn title(kept: &Kept) -> String {
    let version: Vec<&str> = kept.release.split('.').take(2).collect();
    let version = version.join(".");
    match kept.column.as_str() {
        "host" => format!("{version} (development machine)"),
        column if column.ends_with("-no-btf") => format!("{version} without BTF"),
        _ => version,
    }
}

fn tables(columns: &[Kept]) -> String {
    let mut text = String::from("### Runs\n\n| kernel | release | tests passed | failed | skipped |\n|---|---|---:|---:|---:|\n");
    for kept in columns {
        let failed = if kept.is_good { "0".to_owned() } else { format!("**{}**", kept.failed.max(1)) };
        let _ = writeln!(text, "| {} | {} | {} | {failed} | {} |", title(kept), kept.release, kept.passed, kept.skipped.len());
    }
    text += "\n### What `observer doctor` finds\n\n| check | found |\n|---|---|\n";
    for &name in CHECKS {
        let found = columns.iter().filter_map(|kept| {
            let check = kept.checks.iter().find(|check| check.name == name)?;
            let limited = if check.status == "works" { String::new() } else { format!("*{}*: ", check.status) };
            Some((title(kept), format!("{limited}{}", check.found.replace(&kept.release, "…"))))
        });
        let found = grouped(found);
        if !found.is_empty() {
            let _ = writeln!(text, "| {name} | {found} |");
        }
    }
    text += "\n### Shapes of drops\n\n";
    text += &shapes(columns);
    text
}

/// Every row that any kernel has, with a cell for each kernel, and what was found.
fn shapes(columns: &[Kept]) -> String {
    let mut names: Vec<(&str, &str)> = Vec::new();
    for row in columns.iter().flat_map(|kept| &kept.rows) {
        if !names.contains(&(&row.shape, &row.family)) {
            names.push((&row.shape, &row.family));
        }
    }
    let titles: Vec<String> = columns.iter().map(title).collect();
    let mut text = format!("| shape | family | {} |\n|---|---|{}\n", titles.join(" | "), ":-:|".repeat(titles.len()));
    let mut details = String::from(
        "\nWhat the drops look like (reason, function, hook), and why a cell is no ✓:\n\n| shape | family | found |\n|---|---|---|\n",
    );
    for (shape, family) in names {
        let of = |kept: &Kept| kept.rows.iter().find(|row| (&*row.shape, &*row.family) == (shape, family)).cloned();
        let cells = columns.iter().map(|kept| match of(kept) {
            // Numbers are what such a row is about.
            Some(row) if row.result == RowResult::Pass && is_number(&row.found) => row.found,
            Some(row) => match row.result {
                RowResult::Pass => "✓".to_owned(),
                RowResult::Gap => "gap".to_owned(),
                RowResult::CannotRun => "–".to_owned(),
            },
            None if kept.column.ends_with("-no-btf") => "·".to_owned(),
            // The test failed, or there was none.
            None => "?".to_owned(),
        });
        let _ = writeln!(text, "| {shape} | {family} | {} |", cells.collect::<Vec<_>>().join(" | "));
        let found = columns.iter().filter_map(|kept| Some((title(kept), of(kept)?.found))).filter(|(_, found)| !is_number(found));
        let found = grouped(found);
        if !found.is_empty() {
            let _ = writeln!(details, "| {shape} | {family} | {found} |");
        }
    }
    text + &details
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || c == ',')
}

/// `5.10, 6.1: this; 6.12: that`; without kernels where all say the same.
fn grouped(found: impl Iterator<Item = (String, String)>) -> String {
    let mut order: Vec<String> = Vec::new();
    let mut kernels: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (kernel, text) in found {
        let text = text.replace('|', "\\|").replace('\n', " ");
        if !kernels.contains_key(&text) {
            order.push(text.clone());
        }
        kernels.entry(text).or_default().push(kernel);
    }
    match order.as_slice() {
        [one] => one.clone(),
        _ => order.iter().map(|text| format!("{}: {text}", kernels[text].join(", "))).collect::<Vec<_>>().join("<br>"),
    }
}

#[cfg(test)]
mod tests {
    use xtask::testing::Row;

    use super::super::kept::Check;
    use super::*;

    fn kept(column: &str, release: &str, tracepoint: &str, rows: &[(&str, &str, RowResult, &str)]) -> Kept {
        let row = |&(shape, family, result, found): &(&str, &str, RowResult, &str)| Row {
            shape: shape.to_owned(),
            family: family.to_owned(),
            result,
            found: found.to_owned(),
        };
        Kept {
            column: column.to_owned(),
            release: release.to_owned(),
            passed: 3,
            failed: 0,
            skipped: Vec::new(),
            is_good: column != "7",
            seconds: 1.0,
            checks: vec![Check { name: "tracepoint".to_owned(), status: "works".to_owned(), found: tracepoint.to_owned() }],
            rows: rows.iter().map(row).collect(),
        }
    }

    #[test]
    fn tables_say_what_each_kernel_found() {
        let columns = [
            kept("5.10", "5.10.0-46-cloud-amd64", "2 arguments", &[("nftables DROP", "ipv4", RowResult::Pass, "nf_hook_slow")]),
            kept(
                "7",
                "7.3.4+deb13-cloud-amd64",
                "4 arguments",
                &[
                    ("nftables DROP", "ipv4", RowResult::Pass, "nft_do_chain"),
                    ("XDP", "", RowResult::Gap, "never a packet"),
                    ("verifier", "", RowResult::Pass, "1,234"),
                ],
            ),
        ];
        let text = tables(&columns);
        for line in [
            "| 5.10 | 5.10.0-46-cloud-amd64 | 3 | 0 | 0 |",
            "| 7.3 | 7.3.4+deb13-cloud-amd64 | 3 | **1** | 0 |",
            "| tracepoint | 5.10: 2 arguments<br>7.3: 4 arguments |",
            "| nftables DROP | ipv4 | ✓ | ✓ |",
            "| XDP |  | ? | gap |",
            "| verifier |  | ? | 1,234 |",
            "| nftables DROP | ipv4 | 5.10: nf_hook_slow<br>7.3: nft_do_chain |",
            "| XDP |  | never a packet |",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\nin\n{text}");
        }
    }

    #[test]
    fn the_text_around_the_tables_stays() {
        let text = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        assert_eq!(between_markers(&text, "new").unwrap(), format!("before\n{BEGIN}\n\nnew\n{END}\nafter\n"));
        assert!(between_markers("no markers", "new").is_err());
    }
}
