//! For the comment of a pull request.

use std::io::{self, Write};

use super::Compared;
use super::words::{cause, counts, object, times};
use crate::connectivity::port_words;
use crate::policy::Pair;
use crate::serve::render::clean_lines;

pub(super) fn write(compared: &Compared, out: &mut impl Write) -> io::Result<()> {
    let comparison = &compared.comparison;
    writeln!(
        out,
        "### Network policies: {}\n",
        if comparison.is_same() { "no connection is decided otherwise".to_owned() } else { counts(comparison) }
    )?;
    writeln!(out, "{} → {}\n", code(&compared.old), code(&compared.new))?;
    section("🚫 Newly denied", &comparison.denied, compared.shown, out)?;
    section("✅ Newly allowed", &comparison.allowed, compared.shown, out)?;
    section("❔ Undecided", &comparison.undecided, compared.shown, out)?;
    if let Some(seen) = &compared.seen {
        let unknown = if seen.unknown > 0 { format!("; {} are of nobody who is known", seen.unknown) } else { String::new() };
        writeln!(out, "#### Connections that were seen\n")?;
        if seen.changes.is_empty() {
            writeln!(out, "None of the {} that were seen change{unknown}.\n", seen.same)?;
        } else {
            writeln!(out, "| | From | To | Port | Seen |\n|---|---|---|---|---|")?;
            for change in seen.changes.iter().take(compared.shown) {
                let what = if change.allowed { "✅ would be allowed" } else { "🚫 would be denied" };
                let (from, to) = (code(&change.from.to_string()), code(&change.to.to_string()));
                writeln!(out, "| {what} | {from} | {to} | {}/{} | {} |", change.port, change.protocol, cell(&times(change)))?;
            }
            more(seen.changes.len(), compared.shown, out)?;
            writeln!(out, "\n{} others are decided as before{unknown}.\n", seen.same)?;
        }
    }
    if !(comparison.objects.is_empty() && comparison.added.is_empty() && comparison.removed.is_empty()) {
        writeln!(out, "<details><summary>What is different</summary>\n")?;
        for change in &comparison.objects {
            writeln!(out, "- {}", cell(&object(change)))?;
        }
        for (workloads, what) in [(&comparison.added, "added"), (&comparison.removed, "removed")] {
            for workload in workloads {
                writeln!(out, "- workload {} {what}: its connections are not compared", code(&workload.to_string()))?;
            }
        }
        writeln!(out, "\n</details>")?;
    }
    Ok(())
}

fn section(title: &str, changes: &[Pair], shown: usize, out: &mut impl Write) -> io::Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    writeln!(out, "#### {title}: {}\n", changes.len())?;
    writeln!(out, "| From | To | Ports | Before | After |\n|---|---|---|---|---|")?;
    for change in changes.iter().take(shown) {
        let causes: Vec<_> = change.causes.iter().map(cause).collect();
        let side = |of: &dyn Fn(&super::words::CauseWords) -> String| {
            causes.iter().map(|cause| cell(&format!("{}: {}", cause.direction, of(cause)))).collect::<Vec<_>>().join("<br>")
        };
        let (before, after) = (side(&|cause| cause.before.clone()), side(&|cause| cause.after.clone()));
        let ports = cell(&port_words(&change.ports).join(", "));
        writeln!(
            out,
            "| {} | {} | {ports} | {before} | {after} |",
            code(&change.source.to_string()),
            code(&change.destination.to_string())
        )?;
    }
    more(changes.len(), shown, out)?;
    writeln!(out)
}

fn more(count: usize, shown: usize, out: &mut impl Write) -> io::Result<()> {
    match count.saturating_sub(shown) {
        0 => Ok(()),
        left => writeln!(out, "\nand {left} more"),
    }
}

/// Text that stays text: no markup, no mention of people, no new cell.
fn cell(text: &str) -> String {
    let mut escaped = String::new();
    for letter in clean_lines(text).chars() {
        match letter {
            '\n' => escaped.push(' '),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '@' => escaped.push_str("&#64;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '!' | '~' => {
                escaped.push('\\');
                escaped.push(letter);
            }
            _ => escaped.push(letter),
        }
    }
    escaped
}

/// A name as code. What would end the code or the cell is left to [`cell`].
fn code(text: &str) -> String {
    let text = clean_lines(text);
    if text.contains(['`', '|', '\n']) { cell(&text) } else { format!("`{text}`") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text() {
        assert_eq!(cell("a|b <img> @all [x](y) `c`\n#1"), "a\\|b &lt;img&gt; &#64;all \\[x\\](y) \\`c\\` \\#1");
        assert_eq!((code("shop/deploy/web"), code("a`b|c")), ("`shop/deploy/web`".to_owned(), "a\\`b\\|c".to_owned()));
    }
}
