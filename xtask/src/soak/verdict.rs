//! What a soak came to.

use std::fmt;
use std::time::Duration;

use crate::soak::mebibytes;
use crate::usage::Usage;

/// A reader's table of drops holds 65,536 and then is full: up to there memory grows, by so much. Shorter soaks do not get there.
const TABLE: u64 = 64 * 1024 * 1024;
/// Behind that, so much is the allocator's.
const FLAT: u64 = 16 * 1024 * 1024;
/// From here on a soak is long enough for the table to have been full when a third of it was over.
const LONG: Duration = Duration::from_secs(600);
/// Problems that are kept; of more only the number is.
const PROBLEMS: usize = 50;

/// Everything that was found.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Packets the firewall dropped.
    pub dropped: u64,
    /// Readers that came and left.
    pub readers: u64,
    /// Drops of the floods that all readers together accounted for.
    pub seen: u64,
    /// Of these, lost in full rings, and counted as that.
    pub ring_full: u64,
    /// Drops not seen because the kernel skipped the program, as it says itself.
    pub missing: u64,
    /// Resident memory of the reader that stays, bytes: the most in the first third of the time, and the most after that.
    pub memory: (u64, u64),
    /// What is not as it should be.
    pub problems: Vec<String>,
    /// What could not be looked at.
    pub notes: Vec<String>,
}

impl Verdict {
    pub(super) fn problem(&mut self, text: String) {
        if self.problems.len() < PROBLEMS {
            self.problems.push(text);
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} packets dropped; {} readers came and left and accounted for {} drops: {} of them lost in full rings, {} not seen where the \
             kernel skipped the program",
            self.dropped, self.readers, self.seen, self.ring_full, self.missing
        )?;
        writeln!(
            f,
            "resident memory of the reader that stayed: {:.1} MiB at most, later {:.1}",
            mebibytes(self.memory.0),
            mebibytes(self.memory.1)
        )?;
        for note in &self.notes {
            writeln!(f, "{note}")?;
        }
        let (memory, descriptors) = ("memory and descriptors flat", "no programs or maps left");
        match self.problems.len() {
            0 => write!(f, "passed: every ledger balanced against the firewall's counter, {memory}, {descriptors}, kernel log clean"),
            problems => write!(f, "FAILED: {problems} problems"),
        }
    }
}

/// Memory and descriptors, phase by phase.
#[derive(Debug, Default)]
pub(super) struct Samples(Vec<(Duration, Usage, Usage)>);

impl Samples {
    /// Of the reader that stays, and of this process.
    pub(super) fn add(&mut self, at: Duration, reader: Usage, own: Usage) {
        self.0.push((at, reader, own));
    }

    pub(super) fn judge(&self, time: Duration, verdict: &mut Verdict) {
        let bound = if time >= LONG { FLAT } else { TABLE };
        let early = |at: &Duration| *at <= time / 3;
        let Some((_, first, _)) = self.0.iter().rfind(|(at, ..)| early(at)).or(self.0.first()) else { return };
        let later = || self.0.iter().filter(|(at, ..)| !early(at));
        // The floods change from phase to phase, and what is under way with them: the most of some phases is held against the most of later ones.
        let most = |of: fn(&(Duration, Usage, Usage)) -> u64| {
            let (before, after): (Vec<_>, Vec<_>) = self.0.iter().partition(|(at, ..)| early(at));
            let most = |samples: &[&(Duration, Usage, Usage)]| samples.iter().map(|sample| of(sample)).max();
            (most(&before).unwrap_or_else(|| of(&self.0[0])), most(&after).unwrap_or(0))
        };
        verdict.memory = most(|(_, reader, _)| reader.resident);
        let own = most(|(_, _, own)| own.resident);
        for (who, (before, after), bound) in [("the reader that stays", verdict.memory, bound), ("this process", own, FLAT)] {
            if after > before + bound {
                verdict.problem(format!(
                    "memory of {who} grew from {:.1} to {:.1} MiB, more than {:.0}",
                    mebibytes(before),
                    mebibytes(after),
                    mebibytes(bound)
                ));
            }
        }
        if let Some((at, now, _)) = later().find(|(_, now, _)| now.descriptors != first.descriptors) {
            let (before, now) = (first.descriptors, now.descriptors);
            verdict.problem(format!("the reader that stays had {before} descriptors open, and {now} after {:.0} s", at.as_secs_f64()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTES: Duration = Duration::from_secs(1_200);

    fn judged(last_resident: u64, last_descriptors: usize) -> Vec<String> {
        let mut samples = Samples::default();
        let usage = |resident, descriptors| Usage { resident, descriptors, ..Usage::default() };
        for (at, resident, descriptors) in
            [(10, 30 << 20, 9), (390, 90 << 20, 9), (800, 91 << 20, 9), (1_190, last_resident, last_descriptors)]
        {
            samples.add(Duration::from_secs(at), usage(resident, descriptors), Usage::default());
        }
        let mut verdict = Verdict::default();
        samples.judge(MINUTES, &mut verdict);
        verdict.problems
    }

    #[test]
    fn memory_may_grow_until_the_table_is_full_and_not_after() {
        assert!(judged(100 << 20, 9).is_empty());
        assert_eq!(judged(107 << 20, 9).len(), 1);
    }

    #[test]
    fn what_comes_and_goes_with_the_floods_is_no_growth() {
        let mut samples = Samples::default();
        for (second, resident) in (0..120).map(|phase| (phase * 10, if phase % 3 == 2 { 120u64 } else { 80 })) {
            samples.add(
                Duration::from_secs(second),
                Usage { resident: resident << 20, descriptors: 9, ..Usage::default() },
                Usage::default(),
            );
        }
        let mut verdict = Verdict::default();
        samples.judge(MINUTES, &mut verdict);
        assert!(verdict.problems.is_empty(), "{:?}", verdict.problems);
        assert_eq!(verdict.memory, (120 << 20, 120 << 20));
    }

    #[test]
    fn one_descriptor_more_is_a_problem() {
        assert_eq!(judged(90 << 20, 10).len(), 1);
    }
}
