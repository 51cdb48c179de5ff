//! Holds what the engine says against the scan.

use std::cell::Cell;

use netpol_observer::cluster::Index;
use netpol_observer::policy::{Connection, Verdict};

use crate::flows::Flow;
use crate::scan::{Scan, Through};

/// Disagreements that are printed; the rest is counted only.
const SHOWN: u64 = 10;

/// Counts agreement.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    checked: Cell<u64>,
    wrong: Cell<u64>,
}

impl Judge {
    pub(crate) fn checked(&self) -> u64 {
        self.checked.get()
    }

    pub(crate) fn wrong(&self) -> u64 {
        self.wrong.get()
    }

    /// Compares two verdicts on a connection.
    pub(crate) fn compare(&self, what: &str, connection: &Connection, engine: Verdict, expected: Verdict) {
        self.checked.set(self.checked.get() + 1);
        if engine == expected {
            return;
        }
        self.wrong.set(self.wrong.get() + 1);
        if self.wrong.get() <= SHOWN {
            let Connection { source, destination, protocol, port, .. } = connection;
            let port = port.map(|port| port.to_string()).unwrap_or_default();
            eprintln!("WRONG {what}: {source} → {destination}:{port}/{protocol}: the engine says {engine:?}, the scan {expected:?}");
        }
    }

    /// Compares counts of pairs that are newly denied and newly allowed.
    pub(crate) fn counts(&self, what: &str, object: &str, engine: [u64; 2], expected: [u64; 2]) {
        self.checked.set(self.checked.get() + 2);
        let wrong = engine.iter().zip(expected).filter(|(engine, expected)| *engine != expected).count();
        self.wrong.set(self.wrong.get() + wrong as u64);
        if wrong > 0 && self.wrong.get() <= SHOWN {
            eprintln!("WRONG {what}: {object}: the engine says {engine:?} pairs newly denied and allowed, reachability {expected:?}");
        }
    }

    /// Compares the engine's verdicts on connections with the scan's.
    pub(crate) fn all(&self, what: &str, index: &Index, flows: &[Flow], verdicts: &[Verdict]) {
        assert_eq!(flows.len(), verdicts.len(), "{what}: a verdict per connection");
        let scan = Scan::new(index);
        for (flow, verdict) in flows.iter().zip(verdicts) {
            let connection = flow.connection(index);
            self.compare(what, &connection, *verdict, scan.verdict(&connection, Through::Namespace));
        }
    }
}
