//! `cargo xtask demo`: the shop of `deploy/examples/shop` in network namespaces, calls that are denied in many ways, and the
//! real observer explaining each.
//!
//! ```text
//!   shop (manifests) ─▶ stage (namespaces, ruleset, servers) ─▶ steps (clients) ─▶ kernel drops ─▶ observer
//!                                                                      └────────▶ expect ◀── JSON ──┘
//! ```
//!
//! Two things are checked per call: that the kernel did with it what the policies mean, by what the client saw; and that
//! the observer explained it, by its JSON.

mod expect;
mod interrupt;
mod observer;
pub mod pod;
mod shop;
mod stage;
mod steps;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anstream::println;
use anstyle::{AnsiColor, Style};
use anyhow::{Context as _, Result, bail};

use crate::demo::expect::Expected;
use crate::demo::interrupt::Interrupt;
use crate::demo::observer::Observers;
use crate::demo::shop::{Shop, of_family};
use crate::demo::stage::{Seen, Stage};
use crate::demo::steps::{ALLOWED, Call, DENIED, Denied, Step};

/// The shop, from the top of the repository.
const MANIFESTS: &str = "deploy/examples/shop";

/// How long the observer may take to report a drop after the client has given up.
const REPORT_PATIENCE: Duration = Duration::from_secs(3);

/// Time for the lines people read to come out behind the JSON, which is read faster.
const PRINT_DELAY: Duration = Duration::from_millis(200);

/// Time to read before the next step.
const PACE: Duration = Duration::from_millis(600);

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GREEN: Style = AnsiColor::Green.on_default();
const RED: Style = AnsiColor::Red.on_default().bold();

/// What the demo needs.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// The built `observer` program.
    pub observer: PathBuf,
}

/// Runs the demo and removes everything it made, also after a failure, Ctrl-C, SIGTERM or SIGHUP.
///
/// # Errors
/// Not root, something missing, interrupted; a call ended otherwise than the policies mean; a denied call was not
/// explained as it should; a policy was blamed for another call; the ledger does not add up.
pub fn run(options: DemoOptions) -> Result<()> {
    let interrupt = Interrupt::install()?;
    let started = Instant::now();
    // Not the path of this program's file, which a build that goes on meanwhile may replace.
    let program = PathBuf::from(format!("/proc/{}/exe", std::process::id()));
    let observer = options.observer.canonicalize().with_context(|| format!("no program at {}", options.observer.display()))?;

    let shop = Shop::load(&workspace()?.join(MANIFESTS))?;
    heading("Building a node in network namespaces");
    let stage = Stage::build(shop, &program)?;
    let (pods, hosts) = stage.size();
    println!("  {pods} pods and {hosts} hosts outside, with HTTP, UDP and DNS servers; Services and policies enforced by enforce.nft");

    heading("Starting the observer");
    println!("  {DIM}observer tail --manifests {MANIFESTS}{DIM:#}");
    let mut observers = Observers::start(&observer, &workspace()?, MANIFESTS, &interrupt)?;

    heading("Calls that policies allow");
    let mut problems = allowed_calls(&stage, &interrupt)?;

    heading("Calls that are denied");
    let mut rows = Vec::new();
    for step in DENIED {
        rows.push(denied_call(&stage, step, &mut observers, &interrupt)?);
    }

    heading("Ending the observer");
    observers.finish()?;
    for row in &mut rows {
        row.judge(&observers);
    }
    problems.extend(wrongly_blamed(&stage, &rows, &observers)?);

    heading("What was seen");
    let unexplained = summary(&rows);
    problems.extend(rows.iter().filter_map(|row| row.surprise.clone()));
    match expect::ledger(&observers.lines(|_| true)) {
        Some((ledger, true)) => println!("\n  {ledger}"),
        Some((ledger, false)) => problems.push(format!("the ledger does not add up: {ledger}")),
        None => problems.push("the observer wrote no ledger".to_owned()),
    }
    drop(stage);
    for problem in &problems {
        println!("  {} {problem}", mark(false));
    }
    if unexplained > 0 || !problems.is_empty() {
        bail!(
            "{unexplained} of {} denied calls were not explained as they should be, {} other problems; see above",
            rows.len(),
            problems.len()
        );
    }
    println!("  all {} denied calls explained in {:.0} s; everything is removed", rows.len(), started.elapsed().as_secs_f32());
    Ok(())
}

/// What the kernel did with every call, without an observer.
#[derive(Clone, Debug)]
pub struct Rehearsal {
    /// Calls that ended otherwise than they should.
    pub surprises: Vec<String>,
    /// The ruleset's counters: name and packets.
    pub counters: Vec<(String, u64)>,
}

/// Builds the shop, makes all calls at once and removes it. `program` is the built `xtask`.
///
/// # Errors
/// Not root, or something is missing or broken.
pub fn rehearse(program: &Path) -> Result<Rehearsal> {
    let interrupt = Interrupt::never();
    let stage = Stage::build(Shop::load(&workspace()?.join(MANIFESTS))?, program)?;
    let clients = ALLOWED.iter().chain(DENIED).map(|step| Ok((step, stage.start(step)?))).collect::<Result<Vec<_>>>()?;
    let mut surprises = Vec::new();
    for (step, client) in clients {
        surprises.extend(surprise(step, &client.finish(&interrupt)?));
    }
    let counters = stage.node().counters()?.into_iter().map(|(_, _, name, value)| (name, value.packets)).collect();
    Ok(Rehearsal { surprises, counters })
}

/// The top of the repository this was built from.
fn workspace() -> Result<PathBuf> {
    let crate_directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_directory.parent().map(Path::to_owned).context("the xtask crate has no parent directory")
}

/// A message when the kernel did not do what the policies mean.
fn surprise(step: &Step, seen: &Seen) -> Option<String> {
    match (seen, step.denied) {
        (Seen::Answer(_), None) | (Seen::NoAnswer(_), Some(_)) => None,
        (Seen::NoAnswer(failure), None) => Some(format!("{} should have been answered: {failure}", step.sentence())),
        (Seen::Answer(answer), Some(_)) => Some(format!("{} should have been denied: {answer}", step.sentence())),
    }
}

/// All at once: nothing is to be read between them.
fn allowed_calls(stage: &Stage, interrupt: &Interrupt) -> Result<Vec<String>> {
    let clients = ALLOWED.iter().map(|step| stage.start(step)).collect::<Result<Vec<_>>>()?;
    let mut problems = Vec::new();
    for (step, client) in ALLOWED.iter().zip(clients) {
        let seen = client.finish(interrupt)?;
        let problem = surprise(step, &seen);
        let mark = mark(problem.is_none());
        println!("  {mark} {:<68} {DIM}{seen}{DIM:#}", step.sentence());
        problems.extend(problem);
    }
    Ok(problems)
}

/// A denied call and what became of it.
struct Row {
    expected: Expected,
    seen: Seen,
    surprise: Option<String>,
    /// Differences of the report that comes nearest; none without a report.
    differences: Option<Vec<String>>,
}

fn denied_call(stage: &Stage, step: &Step, observers: &mut Observers, interrupt: &Interrupt) -> Result<Row> {
    let expected = expected(stage, step)?;
    println!("\n{BOLD}▶ {}{BOLD:#}\n  {DIM}{}: {}{DIM:#}", step.sentence(), step.title, step.why);
    let seen = stage.start(step)?.finish(interrupt)?;
    interrupt.wait(REPORT_PATIENCE, || {
        observers.check()?;
        Ok((!observers.lines(|line| expected.concerns(line)).is_empty()).then_some(()))
    })?;
    interrupt.pause(PRINT_DELAY)?;
    println!("  {DIM}the client saw:{DIM:#} {seen}");
    interrupt.pause(PACE)?;
    let surprise = surprise(step, &seen);
    Ok(Row { expected, seen, surprise, differences: None })
}

impl Row {
    /// Compares what was expected with what the observer reported by now.
    fn judge(&mut self, observers: &Observers) {
        let reports = observers.lines(|line| self.expected.concerns(line));
        self.differences = reports.iter().map(|line| self.expected.differences(line)).min_by_key(Vec::len);
    }

    fn is_explained(&self) -> bool {
        self.differences.as_ref().is_some_and(Vec::is_empty)
    }
}

/// Where the kernel drops the call: addresses after translation.
fn expected(stage: &Stage, step: &Step) -> Result<Expected> {
    let denied = step.denied.with_context(|| format!("{} is allowed", step.sentence()))?;
    let protocol = match step.call {
        Call::Http(..) => "TCP",
        Call::Udp(..) | Call::Dns(_) => "UDP",
    };
    let server = server_address(stage.shop(), &denied, step.ipv6).with_context(|| step.sentence())?;
    Ok(Expected { client: stage.caller_address(step)?, server, protocol, denied })
}

fn server_address(shop: &Shop, denied: &Denied, ipv6: bool) -> Result<IpAddr> {
    if denied.server == "node" {
        return of_family(&shop.node, ipv6);
    }
    if let Some(service) = denied.server.strip_prefix("service ") {
        return of_family(&shop.service(service)?.addresses, ipv6);
    }
    match denied.server.parse() {
        Ok(address) => Ok(address),
        Err(_) => of_family(&shop.pod(denied.server)?.addresses, ipv6),
    }
}

/// Reports that blame policies for something no step is denied by policies for.
fn wrongly_blamed(stage: &Stage, rows: &[Row], observers: &Observers) -> Result<Vec<String>> {
    let namespaces = stage.namespaces()?;
    let by_policy: Vec<&Expected> =
        rows.iter().map(|row| &row.expected).filter(|expected| expected.denied.class == "policyDenied").collect();
    let strays = observers.lines(|line| {
        expect::blames_policies(line) && expect::is_from(line, &namespaces) && !by_policy.iter().any(|expected| expected.concerns(line))
    });
    Ok(strays.iter().map(|line| format!("policies were blamed for {}", expect::describe(line))).collect())
}

/// Prints the table; says how many calls were not explained as they should be.
fn summary(rows: &[Row]) -> usize {
    for (step, row) in DENIED.iter().zip(rows) {
        let explanation = match &row.differences {
            None => "not seen".to_owned(),
            Some(differences) if !differences.is_empty() => differences.join("; "),
            Some(_) => {
                let Denied { class, directions, policies, .. } = row.expected.denied;
                format!("{class} {} {}", directions.join("+"), policies.join(", ")).trim_end().to_owned()
            }
        };
        let mark = mark(row.is_explained() && row.surprise.is_none());
        // Padding counts characters of a string, and not those of a value that formats itself.
        println!("  {mark} {:<26} {:<44} {explanation}", step.title, row.seen.to_string());
    }
    rows.iter().filter(|row| !row.is_explained()).count()
}

fn heading(text: &str) {
    println!("\n{BOLD}── {text}{BOLD:#}");
}

fn mark(good: bool) -> String {
    if good { format!("{GREEN}✓{GREEN:#}") } else { format!("{RED}✗{RED:#}") }
}
