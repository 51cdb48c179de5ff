//! Ctrl-C and SIGTERM as a flag that everything that waits looks at.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// How often a wait looks.
const PERIOD: Duration = Duration::from_millis(15);

/// Whether somebody wants this to end.
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on SIGINT, SIGTERM and SIGHUP no longer kill this process.
    pub(super) fn install() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&flag)).with_context(|| format!("cannot handle signal {signal}"))?;
        }
        Ok(Self(flag))
    }

    /// One that nobody raises.
    pub(super) fn never() -> Self {
        Self(Arc::new(AtomicBool::new(false)))
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        Ok(())
    }

    /// Asks `poll` until it has something, at most `patience`; none when it never had.
    pub(super) fn wait<T>(&self, patience: Duration, mut poll: impl FnMut() -> Result<Option<T>>) -> Result<Option<T>> {
        let end = Instant::now() + patience;
        loop {
            self.check()?;
            if let Some(value) = poll()? {
                return Ok(Some(value));
            }
            if Instant::now() >= end {
                return Ok(None);
            }
            thread::sleep(PERIOD);
        }
    }

    /// Sleeps.
    pub(super) fn pause(&self, time: Duration) -> Result<()> {
        self.wait(time, || Ok(None::<()>)).map(drop)
    }
}
