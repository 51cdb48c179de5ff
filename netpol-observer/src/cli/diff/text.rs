//! For people.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

use super::Compared;
use super::words::{cause, counts, object, times};
use crate::connectivity::port_words;
use crate::policy::Pair;
use crate::serve::render::clean_lines;

const DENIED: Style = Style::new().bold().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Red)));
const ALLOWED: Style = Style::new().bold().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Green)));
const OPEN: Style = Style::new().bold().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Yellow)));
const DIM: Style = Style::new().dimmed();

pub(super) fn write(compared: &Compared, out: &mut impl Write) -> io::Result<()> {
    let comparison = &compared.comparison;
    for (title, style, changes) in [
        ("newly denied", DENIED, &comparison.denied),
        ("newly allowed", ALLOWED, &comparison.allowed),
        ("undecided", OPEN, &comparison.undecided),
    ] {
        section(title, style, changes, compared.shown, out)?;
    }
    if let Some(seen) = compared.seen.as_ref().filter(|seen| !seen.changes.is_empty()) {
        writeln!(out, "{}", styled(Style::new().bold(), "of the connections that were seen"))?;
        for change in seen.changes.iter().take(compared.shown) {
            let (style, what) = if change.allowed { (ALLOWED, "would be allowed") } else { (DENIED, "would be denied") };
            let line = format!("{} → {}  {}/{}  seen {}", change.from, change.to, change.port, change.protocol, times(change));
            writeln!(out, "  {}  {}", styled(style, what), clean_lines(&line))?;
        }
        more(seen.changes.len(), compared.shown, out)?;
        writeln!(out)?;
    }
    for change in &comparison.objects {
        writeln!(out, "{}", clean_lines(&object(change)))?;
    }
    for (workloads, what) in [(&comparison.added, "added"), (&comparison.removed, "removed")] {
        for workload in workloads {
            writeln!(out, "workload {} {what}: its connections are not compared", clean_lines(&workload.to_string()))?;
        }
    }
    writeln!(out, "{}", clean_lines(&format!("{} → {}: {}", compared.old, compared.new, counts(comparison))))?;
    if let Some(seen) = &compared.seen {
        let changed =
            |allowed: bool| seen.changes.iter().filter(|change| change.allowed == allowed).map(|change| change.count).sum::<u64>();
        let unknown = if seen.unknown > 0 { format!(", {} of nobody who is known", seen.unknown) } else { String::new() };
        writeln!(out, "seen: {} would be denied, {} would be allowed, {} as before{unknown}", changed(false), changed(true), seen.same)?;
    }
    Ok(())
}

fn section(title: &str, style: Style, changes: &[Pair], shown: usize, out: &mut impl Write) -> io::Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    writeln!(out, "{}", styled(style, title))?;
    for change in changes.iter().take(shown) {
        let line = format!("{} → {}  {}", change.source, change.destination, port_words(&change.ports).join(", "));
        writeln!(out, "  {}", clean_lines(&line))?;
        for words in change.causes.iter().map(cause) {
            let direction = words.direction.to_string();
            writeln!(out, "    {direction:<7}  {} {}", styled(DIM, "before"), clean_lines(&words.before))?;
            writeln!(out, "             {}  {}", styled(DIM, "after"), clean_lines(&words.after))?;
        }
    }
    more(changes.len(), shown, out)?;
    writeln!(out)
}

fn more(count: usize, shown: usize, out: &mut impl Write) -> io::Result<()> {
    match count.saturating_sub(shown) {
        0 => Ok(()),
        left => writeln!(out, "  and {left} more (--all shows them)"),
    }
}

fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}
