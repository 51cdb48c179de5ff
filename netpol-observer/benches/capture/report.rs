//! What a run came to: tables for people, and JSON.

use std::fmt::Write as _;

use serde::Serialize;

/// Everything that was measured.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    /// The kernel's version without what distributions add.
    pub(crate) kernel: String,
    pub(crate) cores: usize,
    pub(crate) quick: bool,
    pub(crate) parts: Vec<Part>,
}

/// A table.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Part {
    pub(crate) name: &'static str,
    /// What was measured, in a sentence.
    pub(crate) what: &'static str,
    /// Heads of the columns behind the label.
    pub(crate) columns: Vec<&'static str>,
    pub(crate) rows: Vec<Row>,
    pub(crate) notes: Vec<String>,
}

/// A line of a table.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row {
    pub(crate) label: String,
    pub(crate) cells: Vec<Cell>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) aim: Option<Aim>,
}

/// What the figure of a row should be.
#[derive(Debug, Serialize)]
pub(crate) struct Aim {
    pub(crate) text: String,
    pub(crate) met: bool,
}

/// A figure with its unit.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase", tag = "unit", content = "value")]
pub(crate) enum Cell {
    Nanoseconds(f64),
    Milliseconds(f64),
    PerSecond(f64),
    BitsPerSecond(f64),
    Percent(f64),
    Times(f64),
    Bytes(u64),
    Count(u64),
    Text(String),
    Absent,
}

impl Part {
    pub(crate) fn new(name: &'static str, what: &'static str, columns: &[&'static str]) -> Self {
        Part { name, what, columns: columns.to_vec(), rows: Vec::new(), notes: Vec::new() }
    }

    pub(crate) fn row(&mut self, label: impl Into<String>, cells: Vec<Cell>) {
        self.rows.push(Row { label: label.into(), cells, aim: None });
    }

    /// A row that is held against an aim.
    pub(crate) fn row_with_aim(&mut self, label: impl Into<String>, cells: Vec<Cell>, text: impl Into<String>, met: bool) {
        self.rows.push(Row { label: label.into(), cells, aim: Some(Aim { text: text.into(), met }) });
    }

    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }
}

impl Report {
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for part in &self.parts {
            part.table(&mut text);
        }
        let aims: Vec<bool> = self.parts.iter().flat_map(|part| &part.rows).filter_map(|row| row.aim.as_ref()).map(|aim| aim.met).collect();
        let met = aims.iter().filter(|met| **met).count();
        let quick = if self.quick { ", quick" } else { "" };
        // Writing to a String does not fail.
        let _ = writeln!(text, "{} cores, kernel {}{quick}: {met} aims met, {} missed", self.cores, self.kernel, aims.len() - met);
        text
    }
}

impl Part {
    fn table(&self, text: &mut String) {
        let mut lines = vec![std::iter::once(String::new()).chain(self.columns.iter().map(|&head| head.to_owned())).collect::<Vec<_>>()];
        for row in &self.rows {
            lines.push(std::iter::once(row.label.clone()).chain(row.cells.iter().map(Cell::show)).collect());
        }
        let widths: Vec<usize> = (0..=self.columns.len())
            .map(|at| lines.iter().filter_map(|line| line.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0))
            .collect();
        let _ = writeln!(text, "{}: {}\n", self.name, self.what);
        let aims = std::iter::once(None).chain(self.rows.iter().map(|row| row.aim.as_ref()));
        for (line, aim) in lines.iter().zip(aims) {
            let mut shown = String::from(" ");
            for (at, cell) in line.iter().enumerate() {
                let width = widths.get(at).copied().unwrap_or(0);
                let _ = if at == 0 { write!(shown, " {cell:<width$}") } else { write!(shown, "  {cell:>width$}") };
            }
            if let Some(aim) = aim {
                let _ = write!(shown, "  {} {}", aim.text, if aim.met { "met" } else { "MISSED" });
            }
            let _ = writeln!(text, "{}", shown.trim_end());
        }
        for note in &self.notes {
            let _ = writeln!(text, "  · {note}");
        }
        text.push('\n');
    }
}

impl Cell {
    fn show(&self) -> String {
        match self {
            Cell::Nanoseconds(value) => format!("{value:.0} ns"),
            Cell::Milliseconds(value) => format!("{value:.2} ms"),
            Cell::PerSecond(value) => scaled(*value, 1000.0, &["/s", "k/s", "M/s"]),
            Cell::BitsPerSecond(value) => scaled(*value, 1000.0, &["bit/s", "kbit/s", "Mbit/s", "Gbit/s"]),
            Cell::Percent(value) => format!("{value:.1} %"),
            Cell::Times(value) => format!("{value:.3}×"),
            Cell::Bytes(value) => scaled(*value as f64, 1024.0, &["B", "KiB", "MiB", "GiB"]),
            Cell::Count(value) => value.to_string(),
            Cell::Text(value) => value.clone(),
            Cell::Absent => "–".to_owned(),
        }
    }
}

fn scaled(mut value: f64, step: f64, names: &[&str]) -> String {
    let mut names = names.iter();
    let mut name = names.next().copied().unwrap_or_default();
    for next in names {
        if value < step {
            break;
        }
        value /= step;
        name = next;
    }
    let digits = if value >= 100.0 { 0 } else { 1 };
    format!("{value:.digits$} {name}")
}
