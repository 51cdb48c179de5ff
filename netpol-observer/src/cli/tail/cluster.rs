//! `observer tail` on the agents of a cluster.

use std::io::{self, BufWriter, Write};
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::super::signals::{INTERRUPTED, Signals};
use super::{CommandError, OUTPUT_BYTES, OutputForm, TailArgs};
use crate::cli::Colour;
use crate::client::{Cleaner, Follow, FollowOptions, Level, Notice, Query, Roster, Sink, Stop, Summary, named_object};
use crate::serve::Ledger;
use crate::serve::json::{Line, Notice as NoticeObject};
use crate::serve::render::{Palette, clean};

/// Follows the agents until the end.
pub(super) fn run(arguments: &TailArgs, colour: Colour) -> Result<(), CommandError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| CommandError::failure(format!("cannot start: {error}")))?;
    runtime.block_on(follow(arguments, colour))
}

async fn follow(arguments: &TailArgs, colour: Colour) -> Result<(), CommandError> {
    let cluster = arguments.cluster.cluster().await?;
    let mut signals = Signals::new().map_err(|error| CommandError::failure(format!("cannot catch signals: {error}")))?;
    let json = arguments.output == OutputForm::Json;
    let coloured = !json && super::is_coloured(colour);
    let options = FollowOptions {
        query: arguments.query(json, coloured),
        cleaner: if coloured { Cleaner::of(Palette::COLOURED) } else { Cleaner::plain() },
        delay: arguments.delay.unsigned_abs(),
        nodes: arguments.cluster.nodes.clone(),
    };
    let mut output = ClusterOutput { out: BufWriter::with_capacity(OUTPUT_BYTES, io::stdout()), err: io::stderr(), json };
    let place = format!("asking the agents in namespace {} ({})", cluster.agent_namespace(), cluster.name());
    let place = format!("{place}{}", if arguments.no_follow { "" } else { "; Ctrl-C ends" });
    let duration = arguments.duration.map(SignedDuration::unsigned_abs);
    let end = async {
        tokio::select! {
            () = signals.next() => {}
            () = sleep(duration) => {}
        }
        // From here on a second signal does not wait for anything.
        signals.exit_at_next(INTERRUPTED);
    };
    let followed = match output.notice(&Notice { level: Level::Info, node: None, message: place }) {
        Ok(()) => Follow::new(cluster.access(), options, &mut output).run(Roster::watch(&cluster), end).await,
        Err(error) => Err(Stop::Output(error)),
    };
    let ended = followed.and_then(|summary| Ok(output.summary(&summary)?));
    match ended {
        // Whoever read the output has gone: no error.
        Err(Stop::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(stop) => Err(arguments.cluster.failed(stop, &cluster)),
        Ok(()) => Ok(()),
    }
}

async fn sleep(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}

impl TailArgs {
    fn query(&self, json: bool, colour: bool) -> Query {
        let now = Timestamp::now();
        Query {
            words: self.filters.words.clone(),
            follow: !self.no_follow,
            last: self.last,
            since: self.since.map(|since| since.before(now)),
            all: self.all,
            json,
            oneline: self.oneline,
            colour,
            utc_offset: TimeZone::system().to_offset(now).seconds(),
        }
    }
}

/// Standard output and standard error.
struct ClusterOutput<O, E> {
    out: O,
    err: E,
    json: bool,
}

impl<O: Write, E: Write> Sink for ClusterOutput<O, E> {
    fn frame(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())
    }

    fn notice(&mut self, notice: &Notice) -> io::Result<()> {
        let (level, prefix) = match notice.level {
            Level::Info => ("info", ""),
            Level::Warning => ("warning", "warning: "),
        };
        // Standard error may be closed; that ends nothing. What is quoted of an agent stays in its line.
        _ = writeln!(self.err, "{prefix}{}", clean(&notice.message));
        if self.json {
            let mut line = Vec::new();
            Line::Notice(NoticeObject { time: Timestamp::now(), level, message: &notice.message }).write(&mut line)?;
            match &notice.node {
                Some(node) => self.out.write_all(named_object(&String::from_utf8_lossy(&line), node).as_bytes())?,
                None => self.out.write_all(&line)?,
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<O: Write, E: Write> ClusterOutput<O, E> {
    /// The account at the end.
    fn summary(&mut self, summary: &Summary) -> io::Result<()> {
        for message in account(summary) {
            self.notice(&Notice { level: Level::Info, node: None, message })?;
        }
        self.flush()
    }
}

/// What came from where, on one or two lines. Counts that are usually zero appear when they are not.
fn account(summary: &Summary) -> Vec<String> {
    let frames = summary.frames;
    let agents = if summary.agents == 1 { "agent" } else { "agents" };
    let all = frames.in_order + frames.late + frames.ahead;
    let mut text = format!("agents   {all} received from {} {agents} = {} in order", summary.agents, frames.in_order);
    for (count, name) in [(frames.late, "late"), (frames.ahead, "of a clock that is ahead")] {
        if count > 0 {
            text.push_str(&format!(" + {count} {name}"));
        }
    }
    for (count, name) in
        [(summary.lost, "drops were not sent, since they were read too slowly"), (summary.unreadable, "frames could not be read")]
    {
        if count > 0 {
            text.push_str(&format!("; {count} {name}"));
        }
    }
    let mut lines = vec![text];
    if summary.accounts > 0 {
        let counts = &summary.counts;
        let ledger = Ledger {
            kernel: None,
            records: counts.records,
            counted: counts.counted,
            decoded: counts.decoded,
            undecodable: counts.undecodable,
            shown: counts.shown,
            repeats: counts.repeats,
            pending: counts.pending,
            filtered_out: counts.filtered_out,
            earlier: counts.earlier,
            elsewhere: counts.elsewhere,
            noise: counts.noise,
            unattributed: counts.unattributed,
        };
        lines.push(ledger.to_string());
    }
    lines
}
