//! The loop of an agent's capture: source → judge → hub, until it is told to stop.

use std::fs::File;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::say;
use crate::agent::{Health, Hub, Judge, Level, Observation, Timings};
use crate::capture::Captured;
use crate::cli::CommandError;
use crate::cli::record::Recorder;
use crate::cli::source::Source;
use crate::pipeline::time_of;

/// Pieces that are judged before they are given to the hub, when drops come faster than they are explained.
const TOGETHER: usize = 64;

/// At least this often readers are told how far they have everything.
const TICK: Duration = Duration::from_millis(100);

/// From a drop in the kernel to its record here, at the longest, as a rule: what is later is given later, under a later order.
const ON_THE_WAY: SignedDuration = SignedDuration::from_millis(50);

/// At the latest after this long, what was recorded goes to the file.
const FLUSH: Duration = Duration::from_secs(5);

/// What others know the loop by.
pub(super) struct Instruments {
    pub(super) health: Arc<Health>,
    pub(super) timings: Timings,
}

/// Everything the loop works with.
pub(super) struct Capturing {
    pub(super) source: Source,
    pub(super) judge: Box<dyn Judge>,
    pub(super) hub: Arc<Hub>,
    pub(super) recorder: Option<Recorder<File>>,
    pub(super) instruments: Instruments,
}

impl Capturing {
    /// Runs until `stop` says true, and gives what was under way.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<(), CommandError> {
        let result = self.until_stopped(&mut stop).await;
        let rest = self.source.finish().await;
        for captured in rest.chunks(TOGETHER) {
            self.take(captured);
        }
        let warning = self.recorder.take().and_then(Recorder::finish);
        self.warn(warning);
        let now = Timestamp::now();
        let rest = self.judge.finish(self.source.names(), now);
        self.hub.give(rest, now, now);
        result
    }

    async fn until_stopped(&mut self, stop: &mut watch::Receiver<bool>) -> Result<(), CommandError> {
        let mut stopped = pin!(async {
            // Whoever could say it has gone: that says it too.
            _ = stop.wait_for(|stop| *stop).await;
        });
        let mut flushed = Instant::now();
        let mut at_end = false;
        loop {
            self.instruments.health.turn();
            let due = self.judge.next_due().map_or(TICK, until).min(TICK);
            let mut batch = Vec::new();
            tokio::select! {
                biased;
                () = &mut stopped => return Ok(()),
                captured = self.source.next(), if !at_end => match captured? {
                    Some(captured) => batch.push(captured),
                    None if self.source.is_live() => {
                        return Err(CommandError::failure("the capture has ended by itself; the log says why"));
                    }
                    None => {
                        at_end = true;
                        self.tell_the_end();
                    }
                },
                () = sleep_until(Instant::now() + due) => {}
            }
            // All that was dropped before this, but for what is on its way, is either in this batch or behind it.
            let mut asked = Timestamp::now();
            let mut emptied = false;
            while batch.len() < TOGETHER {
                asked = Timestamp::now();
                match self.source.ready() {
                    Some(captured) => batch.push(captured),
                    None => {
                        emptied = true;
                        break;
                    }
                }
            }
            // While more is waiting, everything is there up to what was taken last: it comes in the order of time, but for what is on its way.
            let complete = if emptied { Some(asked) } else { batch.last().and_then(|last| time_of(last, self.source.names())) };
            self.take(&batch);
            let (now, begun) = (Timestamp::now(), Instant::now());
            let observations = self.judge.tick(self.source.names(), now);
            self.time(&observations, begun);
            let complete = complete.into_iter().chain(self.judge.behind_since(self.source.names())).min();
            let watermark = complete.and_then(|complete| complete.checked_sub(ON_THE_WAY).ok()).unwrap_or(Timestamp::MIN);
            self.hub.give(observations, watermark, now);
            if flushed.elapsed() > FLUSH {
                flushed = Instant::now();
                let warning = self.recorder.as_mut().and_then(Recorder::flush);
                self.warn(warning);
            }
        }
    }

    fn take(&mut self, batch: &[Captured]) {
        for captured in batch {
            let names = self.source.names();
            let warning = self.recorder.as_mut().and_then(|recorder| recorder.write(captured, names));
            self.warn(warning);
        }
        let (now, begun) = (Timestamp::now(), Instant::now());
        let observations = self.judge.take(batch, self.source.names(), now);
        self.time(&observations, begun);
        if !observations.is_empty() {
            self.hub.give(observations, Timestamp::MIN, Timestamp::now());
        }
    }

    /// How long these took to explain since `begun`, and how long after the packets they are there.
    fn time(&self, observations: &[Observation], begun: Instant) {
        let denials = || {
            observations.iter().filter_map(|observation| if let Observation::Denial(denial) = observation { Some(denial) } else { None })
        };
        let count = denials().count();
        let mean = begun.elapsed().as_secs_f64() / u32::try_from(count).map_or(f64::INFINITY, f64::from);
        let now = Timestamp::now();
        for denial in denials() {
            self.instruments.timings.explanation.observe(mean);
            if self.source.is_live() {
                self.instruments.timings.report.observe(now.duration_since(denial.event.time).as_secs_f64().max(0.0));
            }
        }
    }

    fn tell_the_end(&mut self) {
        let notice = self.source.end_notice();
        self.warn(notice);
    }

    fn warn(&self, warning: Option<String>) {
        let Some(warning) = warning else { return };
        say(&format!("warning: {warning}"));
        self.hub.give(vec![notice(&warning)], Timestamp::MIN, Timestamp::now());
    }
}

fn notice(warning: &str) -> Observation {
    Observation::Notice { time: Timestamp::now(), level: Level::Warning, message: warning.into() }
}

/// How long from now until `due`, by the wall clock.
fn until(due: Timestamp) -> Duration {
    due.duration_since(Timestamp::now()).try_into().unwrap_or(Duration::ZERO)
}
