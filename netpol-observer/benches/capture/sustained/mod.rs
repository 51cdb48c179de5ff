//! Drops per second that are delivered without loss: by the observer, by bpftrace and by NFLOG with ulogd2, at the same offered loads.

mod alternatives;
mod observer;

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use xtask::traffic::{Forger, Segments, Sent, cpus, paced, pin};

use crate::report::{Cell, Part};
use crate::scene::{Scene, all_different, of_flows};
use crate::{Effort, progress};

/// Flows of a cluster in which much is denied.
const FLOWS: u64 = 5_000;
/// Where the steps begin; each doubles.
const FIRST_RATE: f64 = 5_000.0;
/// A sender that reaches less than this of the rate is the limit.
const REACHED: f64 = 0.95;
/// After the load ends, this long is given for what is under way. What comes later was waiting in a buffer: the rate could not be kept.
const GRACE: Duration = Duration::from_secs(1);
/// Lines that may come later all the same, of a hundred; and as many as a buffer of output that is not yet full may hold.
const LATE_PERCENT: u64 = 1;
const LATE_LINES: u64 = 200;
/// Buffers that wait for more are emptied after this: the kernel's of NFLOG.
const SETTLE: Duration = Duration::from_millis(1_500);
/// How often a rate is tried that the sender does not reach.
const TRIES: usize = 3;
/// As many times the best alternative's rate is the aim.
const AIM: f64 = 5.0;

/// Something that reports drops into a file.
trait Tool {
    fn name(&self) -> &str;

    /// What the firewall's rule needs in front of its counter.
    fn rule(&self) -> &'static str {
        ""
    }

    /// Starts it, writing to `output`, and returns when it is ready.
    fn start(&self, output: &Path) -> Result<Box<dyn Running>>;

    /// How many packets it has reported, by what it has written.
    fn delivered(&self, text: &[u8]) -> Result<u64>;

    /// How many lines report packets one by one.
    fn reports(&self, text: &[u8]) -> u64;
}

/// Told to end, and waited for.
trait Running {
    /// Returns what it had to say about losses.
    fn stop(self: Box<Self>) -> Result<Vec<String>>;
}

/// One load.
#[derive(Clone, Debug)]
struct Step {
    sent: Sent,
    /// By the firewall.
    dropped: u64,
    delivered: u64,
    /// Reports that came later than they should.
    late: u64,
    reports: u64,
    said: Vec<String>,
}

impl Step {
    fn lost(&self) -> u64 {
        self.dropped.saturating_sub(self.delivered)
    }

    fn is_clean(&self) -> bool {
        self.lost() == 0 && self.late <= (self.reports * LATE_PERCENT / 100).max(LATE_LINES)
    }

    fn rate(&self) -> f64 {
        self.dropped as f64 / self.sent.time.as_secs_f64()
    }
}

/// What a tool can do.
struct Limit {
    /// The highest rate at which all was well, 0 for none.
    best: f64,
    why: String,
}

/// What is dropped.
#[derive(Clone, Copy, Debug)]
enum Load {
    /// [`FLOWS`] flows that repeat. Each CPU has a sender, and many packets leave it with one system call: it is not the senders that are measured.
    Flows,
    /// Every packet another flow, each sent by itself.
    Different,
}

impl Load {
    fn send(self, scene: &Scene, rate: f64, time: Duration) -> Result<Sent> {
        match self {
            Load::Different => scene.sender.in_ns(|| {
                let mut forger = Forger::new()?;
                paced(rate, time, |first, count| forger.send(first, count, all_different))
            })?,
            Load::Flows => {
                let (senders, address) = (cpus(), scene.hardware_address()?);
                let send = |number: usize| -> Result<Sent> {
                    pin(number)?;
                    let mut segments = Segments::new("eth0", address)?;
                    let mut flows = (number as u64..).step_by(senders).map(of_flows(FLOWS));
                    paced(rate / senders as f64, time, |_, count| {
                        segments.send(flows.next().context("there are endlessly many")?, count)?;
                        Ok(count as u64)
                    })
                };
                thread::scope(|scope| {
                    let running: Vec<_> = (0..senders).map(|number| scope.spawn(move || scene.sender.in_ns(|| send(number))?)).collect();
                    running.into_iter().try_fold(Sent::default(), |all, sender| {
                        let sent = sender.join().ok().context("a sender panicked")??;
                        Ok(Sent { packets: all.packets + sent.packets, time: all.time.max(sent.time) })
                    })
                })
            }
        }
    }
}

struct Contender {
    tool: Box<dyn Tool>,
    load: Load,
}

pub(crate) fn measure(scene: &Scene, observer: &Path, effort: Effort) -> Result<Part> {
    let mut part = Part::new(
        "sustained",
        "drops per second that are delivered without loss, each packet in a line of its own or in the count of one",
        &["without loss", "limit", "delivered of the observer's load", "observer as against it", "… every packet another flow"],
    );
    let observed = |name| -> Box<dyn Tool> { Box::new(observer::Tail::new(name, observer, scene.manifests())) };
    scene.cut_segments(true)?;
    let flows = Contender { tool: observed("observer tail, 5,000 flows"), load: Load::Flows };
    let different = Contender { tool: observed("observer tail, every packet another flow"), load: Load::Different };
    let mut alternatives = Vec::new();
    for tool in [alternatives::bpftrace(scene), alternatives::ulogd(scene)] {
        match tool {
            Ok(tool) => alternatives.push(Contender { tool, load: Load::Flows }),
            Err((name, error)) => part
                .row(name, vec![Cell::Absent, Cell::Text(format!("cannot run here: {error:#}")), Cell::Absent, Cell::Absent, Cell::Absent]),
        }
    }
    let with_fold = climb(scene, &flows, effort)?;
    let without_fold = climb(scene, &different, effort)?;
    let limits: Vec<Limit> = alternatives.iter().map(|contender| climb(scene, contender, effort)).collect::<Result<_>>()?;
    let best = limits.iter().map(|limit| limit.best).fold(0.0, f64::max);

    let met = best > 0.0 && with_fold.best >= AIM * best;
    let cells = |limit: &Limit| vec![Cell::PerSecond(limit.best), Cell::Text(limit.why.clone()), Cell::Absent, Cell::Absent, Cell::Absent];
    part.row_with_aim(flows.tool.name(), cells(&with_fold), format!("{AIM} times the best alternative"), met);
    part.row(different.tool.name(), cells(&without_fold));
    for (contender, limit) in alternatives.iter().zip(&limits) {
        let step = step_at(scene, contender, with_fold.best.max(FIRST_RATE), effort)?;
        let share = 100.0 * step.delivered as f64 / step.dropped.max(1) as f64;
        let times = |rate: f64| if limit.best > 0.0 { Cell::Times(rate / limit.best) } else { Cell::Absent };
        part.row(
            contender.tool.name(),
            vec![
                Cell::PerSecond(limit.best),
                Cell::Text(limit.why.clone()),
                Cell::Percent(share),
                times(with_fold.best),
                times(without_fold.best),
            ],
        );
    }
    scene.cut_segments(false)?;
    part.note("delivered is held against the firewall's own counter; a rate counts when nothing is lost and no more than 1 % of the lines (or 200) come later than a second after the load's end");
    part.note("all write to a file; bpftrace's buffers, ulogd2's socket buffer and the observer's ring are of 8 MiB each");
    part.note("the observer's lines name pods, rules and fixes; the others' name addresses");
    Ok(part)
}

/// Doubles the rate until something is lost, then looks between the last two.
fn climb(scene: &Scene, contender: &Contender, effort: Effort) -> Result<Limit> {
    let mut limit = Limit { best: 0.0, why: String::new() };
    let mut rate = FIRST_RATE;
    let mut bad = None;
    loop {
        let mut step = step_at(scene, contender, rate, effort)?;
        for _ in 1..TRIES {
            // Something else may have taken the sender's CPU.
            if !step.is_clean() || step.sent.rate() >= rate * REACHED {
                break;
            }
            step = step_at(scene, contender, rate, effort)?;
        }
        if !step.is_clean() {
            limit.why = why(&step, rate);
            bad = Some(rate);
            break;
        }
        limit.best = limit.best.max(step.rate());
        if step.sent.rate() < rate * REACHED {
            limit.why = "the sender's".to_owned();
            break;
        }
        rate *= 2.0;
    }
    if let Some(mut bad) = bad {
        let mut good = limit.best;
        for _ in 0..effort.pick(3, 1) {
            let between = if good > 0.0 { f64::midpoint(good, bad) } else { bad / 4.0 };
            let step = step_at(scene, contender, between, effort)?;
            if step.is_clean() {
                (good, limit.best) = (between, step.rate());
            } else {
                limit.why = why(&step, between);
                bad = between;
            }
        }
    }
    Ok(limit)
}

fn why(step: &Step, rate: f64) -> String {
    let (lost, late) = (step.lost(), step.late);
    if lost > 0 {
        format!("at {:.0}/s {:.1} % lost", rate, 100.0 * lost as f64 / step.dropped.max(1) as f64)
    } else {
        format!("at {rate:.0}/s {:.1} % late", 100.0 * late as f64 / step.reports.max(1) as f64)
    }
}

/// Starts the tool, drops at this rate, and counts.
fn step_at(scene: &Scene, contender: &Contender, rate: f64, effort: Effort) -> Result<Step> {
    let tool = &contender.tool;
    scene.rules(tool.rule())?;
    let output = scene.directory().join("delivered");
    let running = tool.start(&output)?;
    let sent = contender.load.send(scene, rate, effort.pick(Duration::from_secs(4), Duration::from_millis(1500)))?;
    thread::sleep(GRACE);
    let cut = fs::metadata(&output).map(|file| file.len()).unwrap_or(0) as usize;
    thread::sleep(SETTLE);
    let said = running.stop()?;
    let text = fs::read(&output)?;
    let reports = tool.reports(&text);
    let step = Step {
        sent,
        dropped: scene.dropped()?,
        delivered: tool.delivered(&text)?,
        late: reports - tool.reports(&text[..cut.min(text.len())]),
        reports,
        said,
    };
    // It may be some hundred MiB.
    fs::remove_file(&output)?;
    let said = step.said.last().map(|line| format!(" ({line})")).unwrap_or_default();
    progress(&format!(
        "sustained: {}: asked for {rate:.0}/s, {:.0}/s dropped, {} of {} delivered, {} of {} lines late{said}",
        tool.name(),
        step.rate(),
        step.delivered,
        step.dropped,
        step.late,
        step.reports
    ));
    Ok(step)
}

/// Lines that begin with `start`.
fn lines_with(text: &[u8], start: &[u8]) -> u64 {
    text.split(|&byte| byte == b'\n').filter(|line| line.starts_with(start)).count() as u64
}
