//! Where the drops of a `tail` come from: the running kernel, or a recording.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use super::CommandError;
use crate::agent::KernelAbout;
use crate::capture::live::{Live, LiveOptions, open as attach};
use crate::capture::{Captured, RecordingHeader, RecordingReader};
use crate::flow::KernelNames;
use crate::pipeline::time_of;

/// A source of drops.
pub(super) enum Source {
    /// The running kernel.
    Live(Box<LiveSource>),
    /// A recording.
    Replay(Box<Replay>),
}

/// A live capture with what is known of the kernel.
pub(super) struct LiveSource {
    /// Absent once it is finished.
    live: Option<Live>,
    names: Arc<dyn KernelNames + Send + Sync>,
    header: RecordingHeader,
}

/// A recording being read.
pub(super) struct Replay {
    path: PathBuf,
    reader: RecordingReader<BufReader<File>>,
    taken: u64,
}

impl Source {
    /// Attaches to the running kernel.
    pub(super) fn live(options: LiveOptions) -> Result<Self, CommandError> {
        let live = attach(options).map_err(|error| CommandError::failure(&error).hint(error.hint()))?;
        let names = live.names();
        let mut header =
            RecordingHeader::new(live.release().to_owned(), std::env::consts::ARCH.to_owned(), Timestamp::now(), names.as_ref());
        header.node_name = host_name();
        Ok(Source::Live(Box::new(LiveSource { live: Some(live), names, header })))
    }

    /// Opens a recording.
    pub(super) fn replay(path: &Path) -> Result<Self, CommandError> {
        Ok(Source::Replay(Box::new(Replay { path: path.to_owned(), reader: open(path)?, taken: 0 })))
    }

    /// The names of the kernel the drops are from. Those of a recording go with what [`next`](Source::next) gave last.
    pub(super) fn names(&self) -> &dyn KernelNames {
        match self {
            Source::Live(live) => live.names.as_ref(),
            Source::Replay(replay) => &replay.reader,
        }
    }

    /// The next piece; `None` at the end. May be dropped while it waits: nothing is lost by that.
    pub(super) async fn next(&mut self) -> Result<Option<Captured>, CommandError> {
        match self {
            Source::Live(source) => match &mut source.live {
                Some(live) => Ok(live.next().await),
                None => Ok(None),
            },
            Source::Replay(replay) => {
                replay.taken += 1;
                if replay.taken.is_multiple_of(256) {
                    // A file never makes us wait; signals need a chance all the same.
                    tokio::task::yield_now().await;
                }
                replay.reader.next().map_err(|error| CommandError::failure(format!("{}: {error}", replay.path.display())))
            }
        }
    }

    /// The next piece of a live capture, if it is there already.
    pub(super) fn ready(&mut self) -> Option<Captured> {
        match self {
            Source::Live(source) => source.live.as_mut()?.ready(),
            Source::Replay(_) => None,
        }
    }

    /// Detaches and gives what was still under way, the final ledger last. [`names`](Source::names) goes on to serve.
    pub(super) async fn finish(&mut self) -> Vec<Captured> {
        match self {
            Source::Live(source) => match source.live.take() {
                Some(live) => live.finish().await,
                None => Vec::new(),
            },
            Source::Replay(_) => Vec::new(),
        }
    }

    /// What to tell of the way it ended.
    pub(super) fn end_notice(&self) -> Option<String> {
        match self {
            Source::Live(_) => None,
            Source::Replay(replay) => {
                let notice = replay.reader.end()?.notice()?;
                Some(format!("{}: {notice}", replay.path.display()))
            }
        }
    }

    /// Kernel, node and names the drops are from.
    pub(super) fn header(&self) -> &RecordingHeader {
        match self {
            Source::Live(live) => &live.header,
            Source::Replay(replay) => replay.reader.header(),
        }
    }

    /// What there is to say of the kernel.
    pub(super) fn about(&self) -> KernelAbout {
        let live = match self {
            Source::Live(source) => source.live.as_ref(),
            Source::Replay(_) => None,
        };
        let nameless = live.filter(|live| !live.knows_functions()).map(|_| {
            "the kernel does not show where its functions are (CAP_SYSLOG, kernel.kptr_restrict): places of drops have no names, and some are not seen"
                .to_owned()
        });
        KernelAbout {
            release: self.header().kernel_release.clone(),
            attach: live.map(|live| live.form().name()),
            problems: nameless.into_iter().collect(),
        }
    }

    /// Whether time passes while it waits.
    pub(super) fn is_live(&self) -> bool {
        matches!(self, Source::Live(_))
    }
}

/// Time of the last drop in a recording; of what can be read of it, when it is damaged.
pub(super) fn end_of(path: &Path) -> Result<Option<Timestamp>, CommandError> {
    let mut reader = open(path)?;
    let mut end = None;
    while let Ok(Some(captured)) = reader.next() {
        end = end.max(time_of(&captured, &reader));
    }
    Ok(end)
}

fn open(path: &Path) -> Result<RecordingReader<BufReader<File>>, CommandError> {
    let failed = |error: &dyn std::fmt::Display| CommandError::failure(format!("{}: {error}", path.display()));
    let file = File::open(path).map_err(|error| failed(&error))?;
    RecordingReader::new(BufReader::new(file)).map_err(|error| failed(&error))
}

/// The name of this machine.
pub(super) fn host_name() -> Option<String> {
    read_word("/proc/sys/kernel/hostname")
}

/// The text of a file in /proc without its newline.
fn read_word(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}
