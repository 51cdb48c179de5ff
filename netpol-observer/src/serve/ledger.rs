//! Where every drop went: from the kernel's counters to the lines printed.

use std::fmt;

use crate::capture::KernelLedger;

/// The account of a run. [`balance`](Ledger::balance) tells whether it adds up; it does after every step, not only at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// The last counters the kernel gave; absent until the first, and in a recording cut before it.
    pub kernel: Option<KernelLedger>,
    /// Records received from the source.
    pub records: u64,
    /// Drops received as counts of repeats.
    pub counted: u64,
    /// Records that were understood.
    pub decoded: u64,
    /// Records that were not.
    pub undecodable: u64,
    /// Drops printed in full.
    pub shown: u64,
    /// Drops printed as part of a summary.
    pub repeats: u64,
    /// Repeats waiting for the next summary.
    pub pending: u64,
    /// Drops the filters left out.
    pub filtered_out: u64,
    /// Drops before `--since` or before the last `--last`.
    pub earlier: u64,
    /// Drops that touch nothing in the index.
    pub elsewhere: u64,
    /// Drops that are not the loss of a new connection.
    pub noise: u64,
    /// Repeats of a drop whose record was never received or is forgotten.
    pub unattributed: u64,
}

/// Two sides of the account that differ.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the account of drops does not add up: {left_name} is {left}, {right_name} is {right}; please report this as a bug")]
pub struct Imbalance {
    left_name: &'static str,
    left: u64,
    right_name: &'static str,
    right: u64,
}

impl Ledger {
    /// Checks that every drop is in exactly one place.
    ///
    /// # Errors
    /// Names the two sums that should be equal.
    pub fn balance(&self) -> Result<(), Imbalance> {
        equal("records", self.records, "decoded + undecodable", self.decoded + self.undecodable)?;
        equal(
            "decoded + repeats counted in the kernel",
            self.decoded + self.counted,
            "shown + repeats + pending + filtered out + earlier + elsewhere + noise + unattributed",
            self.shown + self.repeats + self.pending + self.filtered_out + self.earlier + self.elsewhere + self.noise + self.unattributed,
        )?;
        if let Some(kernel) = &self.kernel {
            let counters = &kernel.counters;
            equal(
                "seen by the kernel",
                counters.seen,
                "reported + folded + ring full",
                counters.reported + counters.folded + counters.ring_full,
            )?;
        }
        Ok(())
    }

    /// As [`balance`](Ledger::balance), and the kernel's final counters agree with what was received: nothing is left in between.
    ///
    /// # Errors
    /// Names the two sums that should be equal.
    pub fn balance_final(&self) -> Result<(), Imbalance> {
        self.balance()?;
        equal("repeats not yet shown", self.pending, "zero", 0)?;
        if let Some(kernel) = &self.kernel {
            equal("records read from the ring", kernel.received, "records", self.records)?;
            equal("repeats delivered by the kernel side", kernel.folded_delivered, "repeats counted", self.counted)?;
        }
        Ok(())
    }
}

fn equal(left_name: &'static str, left: u64, right_name: &'static str, right: u64) -> Result<(), Imbalance> {
    if left == right { Ok(()) } else { Err(Imbalance { left_name, left, right_name, right }) }
}

/// For the end of a run, on two or three lines. Counts that are usually zero appear when they are not.
impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(kernel) = &self.kernel {
            let counters = &kernel.counters;
            write!(
                f,
                "kernel   {} seen = {} reported + {} folded + {} lost because the ring was full",
                counters.seen, counters.reported, counters.folded, counters.ring_full
            )?;
            let undelivered = counters.folded.saturating_sub(kernel.folded_delivered);
            if undelivered > 0 {
                write!(f, "; {undelivered} of the folded were not delivered")?;
            }
            if kernel.program_misses > 0 {
                write!(f, "; the program was skipped {} times", kernel.program_misses)?;
            }
            writeln!(f)?;
        }
        write!(f, "drops    {} received = {} shown + {} repeats", self.records + self.counted, self.shown, self.repeats)?;
        for (count, name) in [
            (self.pending, "waiting for a summary"),
            (self.filtered_out, "filtered out"),
            (self.earlier, "earlier"),
            (self.elsewhere, "elsewhere"),
            (self.noise, "noise"),
            (self.unattributed, "unattributed"),
            (self.undecodable, "undecodable"),
        ] {
            if count > 0 {
                write!(f, " + {count} {name}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use netpol_observer_common::Counters;

    use super::*;

    #[test]
    fn an_account_that_adds_up() {
        let ledger = Ledger {
            kernel: Some(KernelLedger {
                counters: Counters { seen: 16, reported: 9, folded: 5, ring_full: 2, unfolded: 0 },
                received: 9,
                folded_delivered: 4,
                program_misses: 3,
            }),
            records: 9,
            counted: 4,
            decoded: 8,
            undecodable: 1,
            shown: 3,
            repeats: 5,
            filtered_out: 2,
            noise: 1,
            unattributed: 1,
            ..Ledger::default()
        };
        assert_eq!(ledger.balance_final(), Ok(()));
        insta::assert_snapshot!(ledger, @"
        kernel   16 seen = 9 reported + 5 folded + 2 lost because the ring was full; 1 of the folded were not delivered; the program was skipped 3 times
        drops    13 received = 3 shown + 5 repeats + 2 filtered out + 1 noise + 1 unattributed + 1 undecodable
        ");
    }

    #[test]
    fn what_is_missing_is_named() {
        let ledger = Ledger { records: 2, decoded: 2, shown: 1, ..Ledger::default() };
        let error = ledger.balance().unwrap_err().to_string();
        assert!(error.contains("is 2") && error.contains("is 1"), "{error}");
        let ledger = Ledger { records: 1, ..Ledger::default() };
        assert!(ledger.balance().unwrap_err().to_string().contains("decoded + undecodable"));
        let ledger = Ledger { records: 1, decoded: 1, pending: 1, ..Ledger::default() };
        assert_eq!(ledger.balance(), Ok(()));
        assert!(ledger.balance_final().is_err());
        let kernel = KernelLedger { counters: Counters { seen: 1, ..Counters::default() }, ..KernelLedger::default() };
        assert!(Ledger { kernel: Some(kernel), ..Ledger::default() }.balance().is_err());
    }
}
