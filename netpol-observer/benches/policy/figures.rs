//! What a run came to: figures with their aims and the alternative's, as a table and as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

/// Everything that was measured.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) cores: usize,
    /// The kernel's version without what distributions add.
    pub(crate) kernel: String,
    pub(crate) clusters: Vec<Cluster>,
}

/// The figures of one cluster.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Cluster {
    pub(crate) pods: usize,
    pub(crate) namespaces: usize,
    pub(crate) network_policies: usize,
    pub(crate) cluster_policies: usize,
    pub(crate) objects: usize,
    pub(crate) manifest_bytes: usize,
    /// Of a hundred connections that are measured, how many are admitted.
    pub(crate) admitted_percent: f64,
    /// Verdicts that were held against the scan's.
    pub(crate) checked: u64,
    /// Those that differ.
    pub(crate) disagreements: u64,
    pub(crate) figures: Vec<Figure>,
}

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Unit {
    /// Less is better.
    Seconds,
    /// More is better.
    PerSecond,
    /// Less is better.
    Bytes,
}

/// One line of the table.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
    /// The median, where there were several.
    pub(crate) value: f64,
    /// The 99th percentile of many, or the worst of few.
    pub(crate) high: Option<f64>,
    pub(crate) aim: Option<f64>,
    pub(crate) met: Option<bool>,
    /// The same by the alternative.
    pub(crate) alternative: Option<f64>,
    /// How many times better than the alternative.
    pub(crate) ratio: Option<f64>,
    pub(crate) note: String,
}

impl Figure {
    pub(crate) fn new(name: &'static str, unit: Unit, value: f64, note: impl Into<String>) -> Self {
        Figure { name, unit, value, high: None, aim: None, met: None, alternative: None, ratio: None, note: note.into() }
    }

    /// The median of times, and the 99th percentile; of fewer than a hundred the worst.
    pub(crate) fn of_times(name: &'static str, times: &[Duration], note: impl Into<String>) -> Self {
        let mut sorted: Vec<f64> = times.iter().map(Duration::as_secs_f64).collect();
        sorted.sort_by(f64::total_cmp);
        let high = if sorted.len() < 100 { sorted.last().copied() } else { sorted.get(sorted.len() * 99 / 100).copied() };
        Figure { high, ..Figure::new(name, Unit::Seconds, median(&sorted), note) }
    }

    /// Holds the value against what it should be.
    pub(crate) fn aim(self, aim: f64) -> Self {
        let value = self.value;
        self.judged(aim, value)
    }

    /// Holds the high end against what the value should be.
    pub(crate) fn aim_at_worst(self, aim: f64) -> Self {
        let worst = self.high.unwrap_or(self.value);
        self.judged(aim, worst)
    }

    pub(crate) fn against(mut self, alternative: f64) -> Self {
        let (better, worse) = if self.unit == Unit::PerSecond { (self.value, alternative) } else { (alternative, self.value) };
        self.ratio = (worse > 0.0).then(|| better / worse);
        self.alternative = Some(alternative);
        self
    }

    fn judged(mut self, aim: f64, value: f64) -> Self {
        self.met = Some(if self.unit == Unit::PerSecond { value >= aim } else { value < aim });
        self.aim = Some(aim);
        self
    }
}

/// The middle of sorted values, 0 for none.
pub(crate) fn median(sorted: &[f64]) -> f64 {
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

impl Unit {
    /// As people read it.
    pub(crate) fn show(self, value: f64) -> String {
        let scaled = |value: f64, step: f64, names: &[&str]| {
            let mut value = value;
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
        };
        match self {
            Unit::Seconds => scaled(value * 1e9, 1000.0, &["ns", "µs", "ms", "s"]),
            Unit::PerSecond => scaled(value, 1000.0, &["/s", "k/s", "M/s"]),
            Unit::Bytes => scaled(value, 1024.0, &["B", "KiB", "MiB", "GiB"]),
        }
    }
}

impl Report {
    /// The tables, for people.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for cluster in &self.clusters {
            // Writing to a String does not fail.
            let _ = cluster.table(&mut text);
        }
        let aims = self.clusters.iter().flat_map(|cluster| &cluster.figures).filter_map(|figure| figure.met);
        let (met, missed): (Vec<bool>, Vec<bool>) = aims.partition(|met| *met);
        let _ = writeln!(text, "{} cores, kernel {}, seed {}", self.cores, self.kernel, self.seed);
        let _ = writeln!(text, "{} aims met, {} missed, {} verdicts wrong", met.len(), missed.len(), self.disagreements());
        text
    }

    /// Verdicts that differ from the scan's, in all clusters.
    pub(crate) fn disagreements(&self) -> u64 {
        self.clusters.iter().map(|cluster| cluster.disagreements).sum()
    }
}

impl Cluster {
    fn table(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "{} pods in {} namespaces, {} NetworkPolicies, {} cluster-scoped policies ({} objects, {} of YAML)",
            self.pods,
            self.namespaces,
            self.network_policies,
            self.cluster_policies,
            self.objects,
            Unit::Bytes.show(self.manifest_bytes as f64)
        )?;
        writeln!(
            text,
            "{:.0} % of the connections are admitted; {} verdicts held against the scan, {} differ",
            self.admitted_percent, self.checked, self.disagreements
        )?;
        let (name, figure, high, aim, scan) = ("", "median", "p99/worst", "aim", "without");
        writeln!(text, "\n  {name:<42} {figure:>10} {high:>10} {aim:>10}        {scan:>10} {:>8}", "ratio")?;
        for figure in &self.figures {
            let show = |value: Option<f64>| value.map(|value| figure.unit.show(value)).unwrap_or_default();
            let met = match figure.met {
                Some(true) => "met",
                Some(false) => "MISSED",
                None => "",
            };
            let ratio = figure.ratio.map(|ratio| format!("{ratio:.1}×")).unwrap_or_default();
            let (value, high, aim, alternative) = (show(Some(figure.value)), show(figure.high), show(figure.aim), show(figure.alternative));
            let line =
                format!("  {:<42} {value:>10} {high:>10} {aim:>10} {met:<6} {alternative:>10} {ratio:>8}  {}", figure.name, figure.note);
            writeln!(text, "{}", line.trim_end())?;
        }
        writeln!(text)
    }
}
