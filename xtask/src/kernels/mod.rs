//! `cargo xtask kernels`: the kernel tests on distribution kernels, in guests that QEMU emulates.
//!
//! ```text
//!   Debian's packages ─ debian ─▶ kernel, modules ─┐
//!   this workspace ── binaries ─▶ tests, observer ─┼─ image ─▶ initramfs ─ guest ─▶ lines ─ report ─▶ outcomes, rows, faults
//!   this machine ───── (packages) ─▶ network tools ┘
//! ```
//!
//! Nothing is installed but QEMU and a few tools, and nothing of the machine's own network or package lists is touched: what is fetched
//! lies in target/kernels.

mod archive;
mod binaries;
mod debian;
mod guest;
mod image;
mod report;
mod slots;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use xtask::packages;

use binaries::Binaries;
use debian::{Kernel, SERIES};
use guest::Guest;
pub(crate) use report::Report;
use report::Verdict;

/// What `cargo xtask kernels` takes.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct KernelsOptions {
    /// Kernel series, separated by commas: 5.10, 6.1, 6.12, 7. Without: all.
    #[arg(long, value_name = "SERIES", value_delimiter = ',', value_parser = series_names())]
    pub(crate) kernel: Vec<String>,
    /// Guests at a time. At most two run on a machine, over all checkouts.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub(crate) jobs: u8,
    /// Seconds one test may take.
    #[arg(long, default_value_t = 420, value_name = "SECONDS")]
    pub(crate) test_timeout: u64,
    /// Only tests whose name has one of these in it.
    #[arg(value_name = "FILTER")]
    pub(crate) filters: Vec<String>,
}

fn series_names() -> Vec<&'static str> {
    SERIES.iter().map(|series| series.name).collect()
}

/// Debian packages that the guests or their making need.
const TOOLS: &[&str] = &["qemu-system-x86", "busybox-static", "kmod", "xz-utils", "iproute2", "nftables", "iptables", "ipset", "netbase"];

/// Runs the tests on the kernels and says how it went; fails when anything did.
pub(crate) fn run(root: &Path, options: &KernelsOptions) -> Result<()> {
    let reports = run_guests(root, options)?;
    for report in &reports {
        println!("{}", report.summary());
    }
    let failed = reports.iter().filter(|report| report.verdict() == Verdict::Failed).count();
    if failed > 0 {
        bail!("the tests failed on {failed} of {} kernels", reports.len());
    }
    Ok(())
}

/// Fetches, builds, and runs a guest for each kernel.
pub(crate) fn run_guests(root: &Path, options: &KernelsOptions) -> Result<Vec<Report>> {
    packages::ensure("kernels in guests", TOOLS)?;
    let directory = root.join("target/kernels");
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let wanted: Vec<_> =
        SERIES.iter().filter(|series| options.kernel.is_empty() || options.kernel.iter().any(|k| k == series.name)).collect();
    let kernels = debian::bring(&directory, &wanted)?;
    let binaries = Binaries::build(root, &directory)?;
    let tests = binaries.tests(&options.filters)?;
    if tests.is_empty() {
        bail!("no kernel test has {:?} in its name", options.filters);
    }
    let base = image::base(&directory, &binaries)?;
    eprintln!("xtask: {} tests on {} kernels", tests.len(), kernels.len());
    let begin = Instant::now();
    let queue: Mutex<VecDeque<&Kernel>> = Mutex::new(kernels.iter().collect());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let reports = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..usize::from(options.jobs).min(kernels.len()) {
            scope.spawn(|| {
                while let Some(kernel) = next() {
                    let guest = Guest { directory: &directory, kernel, base: &base, binaries: &binaries, tests: &tests };
                    let report =
                        guest.run(Duration::from_secs(options.test_timeout)).unwrap_or_else(|error| Report::not_run(kernel, &error));
                    reports.lock().unwrap_or_else(PoisonError::into_inner).push(report);
                }
            });
        }
    });
    let mut reports = reports.into_inner().unwrap_or_else(PoisonError::into_inner);
    reports.sort_by_key(|report| kernels.iter().position(|kernel| kernel.release == report.release));
    eprintln!("xtask: the guests took {:.0} s", begin.elapsed().as_secs_f64());
    Ok(reports)
}
