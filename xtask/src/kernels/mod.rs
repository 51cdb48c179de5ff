//! `cargo xtask kernels`: the kernel tests on distribution kernels, in guests that QEMU emulates.
//!
//! ```text
//!   Debian's packages ─ debian ─▶ kernel, modules ─┐
//!   this workspace ── binaries ─▶ tests, observer ─┼─ image ─▶ initramfs ─ guest ─▶ lines ─ report ─▶ outcomes, rows, faults ─ table ─▶ docs
//!   this machine ───── (packages) ─▶ network tools ┘
//! ```
//!
//! Nothing is installed but QEMU and a few tools, and nothing of the machine's own network or package lists is touched: what is fetched
//! lies in target/kernels.

mod archive;
mod binaries;
mod column;
mod debian;
mod guest;
mod host;
mod image;
mod kept;
mod report;
mod slots;
mod table;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use xtask::packages;

use binaries::Binaries;
use column::{Column, Place, Types};
use debian::{Kernel, SERIES};
use guest::Guest;

pub(crate) use report::{Report, Verdict};

/// What `cargo xtask kernels` takes.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct KernelsOptions {
    /// What to run on, separated by commas; `host` is this machine itself. Without: all guests.
    #[arg(long, value_name = "KERNEL", value_delimiter = ',', value_parser = Column::names())]
    pub(crate) kernel: Vec<String>,
    /// Guests at a time. More than the default do not run on a machine, over all checkouts.
    #[arg(long, default_value_t = slots::count(), value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) jobs: u16,
    /// Seconds one test may take.
    #[arg(long, default_value_t = 420, value_name = "SECONDS")]
    pub(crate) test_timeout: u64,
    /// Write the table in docs/kernels.md from this run, and from the last whole runs on the other kernels.
    #[arg(long, conflicts_with = "filters")]
    pub(crate) write: bool,
    /// Have the tests keep what the kernels said of each shape, as fixtures below this directory.
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) keep_shapes: Option<PathBuf>,
    /// Only tests whose name has one of these in it.
    #[arg(value_name = "FILTER")]
    pub(crate) filters: Vec<String>,
}

/// Where everything of theirs lies.
const DIRECTORY: &str = "target/kernels";

/// Debian packages that the guests or their making need.
const TOOLS: &[&str] = &["qemu-system-x86", "busybox-static", "kmod", "xz-utils", "iproute2", "nftables", "iptables", "ipset", "netbase"];

/// The tests that CI runs in guests, where all would take too long, and those for a kernel that shows no types.
const CI: &[&str] = &[
    "confined::",
    "conntrack::",
    "doctor::",
    "flood::",
    "forms::",
    "packets::",
    "surroundings::",
    "tail::",
    "verifier::",
    "nftables::forward",
    "enforcers::ebpf::tc",
];

/// Runs the tests on the kernels and says how it went; fails when anything did.
pub(crate) fn run(root: &Path, options: &KernelsOptions) -> Result<()> {
    let session = Session::prepare(root, options)?;
    let reports = session.run(options)?;
    for report in &reports {
        println!("{}", report.summary());
    }
    if options.filters.is_empty() {
        for report in &reports {
            kept::save(&session.directory, report)?;
        }
    }
    if options.write {
        table::write(&root.join("docs/kernels.md"), &kept::load_all(&session.directory)?)?;
    }
    let failed = reports.iter().filter(|report| report.verdict() == Verdict::Failed).count();
    if failed > 0 {
        bail!("the tests failed on {failed} of {} kernels", reports.len());
    }
    Ok(())
}

/// Everything that has to be there before a guest can start.
pub(crate) struct Session {
    directory: PathBuf,
    columns: Vec<&'static Column>,
    kernels: Vec<Kernel>,
}

impl Session {
    /// Installs QEMU, fetches kernels.
    pub(crate) fn prepare(root: &Path, options: &KernelsOptions) -> Result<Self> {
        packages::ensure("kernels in guests", TOOLS)?;
        let directory = root.join(DIRECTORY);
        std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let columns = Column::chosen(&options.kernel);
        let of_column = |column: &&Column| match column.place {
            Place::Guest { series, .. } => Some(series),
            Place::Host => None,
        };
        let series: Vec<&str> = columns.iter().filter_map(of_column).collect();
        let kernels = debian::bring(&directory, SERIES.iter().filter(|known| series.contains(&known.name)))?;
        Ok(Session { directory, columns, kernels })
    }

    /// Builds the tests and runs them.
    pub(crate) fn run(&self, options: &KernelsOptions) -> Result<Vec<Report>> {
        let root = self.directory.ancestors().nth(2).context("the directory lies in target/")?;
        let binaries = Binaries::build(root, &self.directory)?;
        let tests = binaries.tests(&options.filters)?;
        if tests.is_empty() {
            bail!("no kernel test has {:?} in its name", options.filters);
        }
        let base = image::base(&self.directory, &binaries)?;
        eprintln!("xtask: {} tests on {} kernels", tests.len(), self.columns.len());
        let begin = Instant::now();
        let plan = Plan {
            directory: &self.directory,
            base: &base,
            binaries: &binaries,
            tests: &tests,
            filtered: !options.filters.is_empty(),
            test_timeout: Duration::from_secs(options.test_timeout),
            keep_shapes: options.keep_shapes.as_deref(),
        };
        let reports = Mutex::new(Vec::new());
        let add = |report: Report| reports.lock().unwrap_or_else(PoisonError::into_inner).push(report);
        let mut guests: Vec<&Column> = self.columns.iter().copied().filter(|column| column.place != Place::Host).collect();
        // What takes longest first: those that run all tests, of these the newest.
        guests.reverse();
        guests.sort_by_key(|column| matches!(column.place, Place::Guest { types: Types::Hidden, .. }));
        let queue = Mutex::new(VecDeque::from(guests));
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        std::thread::scope(|scope| {
            for _ in 0..options.jobs {
                scope.spawn(|| {
                    while let Some(column) = next() {
                        add(self.run_guest(column, &plan).unwrap_or_else(|error| Report::not_run(column.name, &error)));
                    }
                });
            }
        });
        // Behind the guests, which would take its processors.
        if self.columns.iter().any(|column| column.place == Place::Host) {
            add(host::run(&plan)?);
        }
        let mut reports = reports.into_inner().unwrap_or_else(PoisonError::into_inner);
        reports.sort_by_key(|report| self.columns.iter().position(|column| column.name == report.column));
        eprintln!("xtask: the tests took {:.0} s", begin.elapsed().as_secs_f64());
        Ok(reports)
    }

    fn run_guest(&self, column: &'static Column, plan: &Plan<'_>) -> Result<Report> {
        let Place::Guest { series, types } = column.place else { bail!("{} is no guest", column.name) };
        let kernel = self.kernels.iter().find(|kernel| kernel.series == series).context("its kernel was fetched")?;
        // Without the kernel's types the program is attached in another form; what shapes look like does not depend on it.
        let some = |test: &&String| types == Types::Shown || plan.filtered || CI.iter().any(|part| test.contains(part));
        let tests: Vec<String> = plan.tests.iter().filter(some).cloned().collect();
        Guest { column: column.name, kernel, types, tests: &tests, plan }.run()
    }
}

/// What is to be run, wherever.
pub(crate) struct Plan<'a> {
    directory: &'a Path,
    base: &'a Path,
    binaries: &'a Binaries,
    tests: &'a [String],
    /// Whether these tests were chosen by name.
    filtered: bool,
    test_timeout: Duration,
    keep_shapes: Option<&'a Path>,
}

/// Compiles what the guests run, so that it is there when they start.
pub(crate) fn build_ahead(root: &Path) -> Result<()> {
    Binaries::build(root, &root.join(DIRECTORY)).map(drop)
}

/// What CI runs, or why that cannot be done here.
pub(crate) fn oldest_and_newest(root: &Path) -> Result<Result<Vec<Report>, String>> {
    let options = KernelsOptions {
        kernel: vec!["5.10".to_owned(), "7".to_owned()],
        jobs: slots::count(),
        test_timeout: 420,
        write: false,
        keep_shapes: None,
        filters: CI.iter().map(|&filter| filter.to_owned()).collect(),
    };
    match Session::prepare(root, &options) {
        Ok(session) => session.run(&options).map(Ok),
        Err(error) => Ok(Err(format!("{error:#}"))),
    }
}
