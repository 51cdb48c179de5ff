//! The loop of a `tail`: source → stream → output, until the end, a signal or a reader that has gone.

use std::fs::File;
use std::io::{self, Write};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep_until};

use super::CommandError;
use super::output::Output;
use super::record::Recorder;
use super::signals::{INTERRUPTED, Signals};
use super::source::Source;
use crate::capture::Captured;
use crate::flow::KernelNames;
use crate::pipeline::{Pipeline, time_of};
use crate::serve::{Item, Recent, Stream};

/// Far away, for timers that are not set.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// At the latest after this long without a drop, what was recorded goes to the file.
const IDLE: Duration = Duration::from_secs(5);

/// Pieces that are taken before the output is flushed, when drops come faster than they are explained.
const TOGETHER: usize = 64;

/// Everything a tail works with.
pub(super) struct Follow<O, E> {
    pub(super) pipeline: Pipeline,
    pub(super) stream: Stream,
    /// With `--last`, nothing is shown before the end.
    pub(super) recent: Option<Recent>,
    pub(super) recorder: Option<Recorder<File>>,
    pub(super) output: Output<O, E>,
    /// When to stop by oneself.
    pub(super) duration: Option<Duration>,
}

/// Why the loop ended early.
enum Stop {
    /// Whoever read the output has gone: nothing more to do, and no error.
    ReaderGone,
    Failed(CommandError),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Stop::ReaderGone,
            _ => Stop::Failed(CommandError::failure(format!("cannot write the output: {error}"))),
        }
    }
}

impl<O: Write, E: Write> Follow<O, E> {
    /// Runs to the end. `attached` is what to tell once signals are caught.
    pub(super) async fn run(mut self, source: Source, attached: &str, without_objects: bool) -> Result<(), CommandError> {
        match self.try_run(source, attached, without_objects).await {
            Ok(()) | Err(Stop::ReaderGone) => Ok(()),
            Err(Stop::Failed(error)) => Err(error),
        }
    }

    async fn try_run(&mut self, mut source: Source, attached: &str, without_objects: bool) -> Result<(), Stop> {
        let mut signals = Signals::new().map_err(|error| Stop::Failed(CommandError::failure(format!("cannot catch signals: {error}"))))?;
        self.output.info(attached)?;
        if without_objects {
            self.output.warning("without --manifests nothing has a name, and no policy can be found to blame")?;
        }
        let mut now = Timestamp::MIN;
        let result = self.until_stopped(&mut source, &mut signals, &mut now).await;
        // From here on a second signal does not wait for anything.
        signals.exit_at_next(INTERRUPTED);
        let failure = match result {
            Ok(()) => None,
            Err(Stop::Failed(error)) => Some(error),
            Err(Stop::ReaderGone) => {
                self.end_recording()?;
                return Err(Stop::ReaderGone);
            }
        };
        let notice = source.end_notice();
        let live = source.is_live();
        for captured in source.finish().await {
            self.take(&captured, source.names(), &mut now, live)?;
        }
        let items = self.stream.finish();
        self.show(items)?;
        self.show_recent()?;
        if let Some(notice) = notice {
            self.output.warning(&notice)?;
        }
        self.end_recording()?;
        let ledger = *self.stream.ledger();
        if let Err(imbalance) = if live { ledger.balance_final() } else { ledger.balance() } {
            self.output.warning(&imbalance.to_string())?;
        }
        self.output.ledger(&ledger)?;
        self.output.flush()?;
        failure.map_or(Ok(()), |error| Err(Stop::Failed(error)))
    }

    async fn until_stopped(&mut self, source: &mut Source, signals: &mut Signals, now: &mut Timestamp) -> Result<(), Stop> {
        let live = source.is_live();
        let end = Instant::now() + self.duration.unwrap_or(NEVER);
        loop {
            // A replay has the recording's clock, which moves with its drops only.
            let due = until(self.stream.next_due()).min(IDLE);
            tokio::select! {
                biased;
                () = signals.next() => return Ok(()),
                () = sleep_until(end), if self.duration.is_some() => return Ok(()),
                () = sleep_until(Instant::now() + due), if live => {
                    *now = Timestamp::now();
                    let items = self.stream.tick(*now);
                    self.show(items)?;
                    self.flush_recorder()?;
                    self.output.flush()?;
                }
                captured = source.next() => match captured.map_err(Stop::Failed)? {
                    Some(captured) => {
                        self.take(&captured, source.names(), now, live)?;
                        // What is there already is written in one go; signals and timers get their turn after some milliseconds.
                        for _ in 1..TOGETHER {
                            let Some(captured) = source.ready() else { break };
                            self.take(&captured, source.names(), now, live)?;
                        }
                        if live {
                            self.output.flush()?;
                        }
                    }
                    None => return Ok(()),
                },
            }
        }
    }

    fn take(&mut self, captured: &Captured, names: &dyn KernelNames, now: &mut Timestamp, live: bool) -> Result<(), Stop> {
        if let Some(warning) = self.recorder.as_mut().and_then(|recorder| recorder.write(captured, names)) {
            self.output.warning(&warning)?;
        }
        *now = if live { Timestamp::now() } else { time_of(captured, names).map_or(*now, |time| time.max(*now)) };
        let items = self.stream.tick(*now);
        self.show(items)?;
        let items = self.stream.handle(captured, &self.pipeline, names, *now);
        self.show(items)
    }

    fn show(&mut self, items: Vec<Item>) -> Result<(), Stop> {
        for item in items {
            match &mut self.recent {
                Some(recent) => recent.push(item),
                None => self.output.item(&item)?,
            }
        }
        Ok(())
    }

    fn show_recent(&mut self) -> Result<(), Stop> {
        let Some(recent) = self.recent.take() else { return Ok(()) };
        let (denials, repeats) = recent.left_out();
        self.stream.left_out_by_last(denials, repeats);
        for item in recent.into_items() {
            self.output.item(&item)?;
        }
        Ok(())
    }

    fn flush_recorder(&mut self) -> Result<(), Stop> {
        if let Some(warning) = self.recorder.as_mut().and_then(Recorder::flush) {
            self.output.warning(&warning)?;
        }
        Ok(())
    }

    fn end_recording(&mut self) -> Result<(), Stop> {
        if let Some(warning) = self.recorder.take().and_then(Recorder::finish) {
            self.output.warning(&warning)?;
        }
        Ok(())
    }
}

/// How long from now until `due`, by the wall clock.
fn until(due: Option<Timestamp>) -> Duration {
    due.map_or(NEVER, |due| due.duration_since(Timestamp::now()).try_into().unwrap_or(Duration::ZERO))
}
