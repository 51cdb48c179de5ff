//! One guest: starts QEMU, follows what it tells, and ends it when it hangs.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::Plan;
use super::column::Types;
use super::debian::Kernel;
use super::image;
use super::report::Report;
use super::slots::Slot;

/// Memory of a guest in MiB.
const MEMORY: u32 = 1024;
/// For the way to the first line.
const BOOT: Duration = Duration::from_secs(180);
/// Beyond what a test may take, until its end is known.
const GRACE: Duration = Duration::from_secs(60);
/// No guest takes longer, whatever it says meanwhile.
const WHOLE: Duration = Duration::from_secs(45 * 60);

/// What the kernel is told. A frozen guest ends instead of waiting for somebody; stalls that are the emulation's are not reported as the
/// kernel's; and nobody attacks it.
const COMMAND_LINE: &str = "console=ttyS0 loglevel=7 panic=-1 rcupdate.rcu_cpu_stall_timeout=300 nowatchdog mitigations=off";

/// Turns what the test harness writes into lines of the guest's protocol.
const TESTS: &str = include_str!("tests.awk");

/// Where tests keep what the kernel said of shapes.
pub(super) const KEEP_SHAPES: &str = "NETPOL_OBSERVER_KEEP_SHAPES";

/// A guest to run.
pub(super) struct Guest<'a> {
    pub(super) column: &'static str,
    pub(super) kernel: &'a Kernel,
    pub(super) types: Types,
    /// Names of the tests.
    pub(super) tests: &'a [String],
    pub(super) plan: &'a Plan<'a>,
}

/// A QEMU that ends with this value, and with this process.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Guest<'_> {
    fn file(&self, what: &str) -> PathBuf {
        self.plan.directory.join(format!("{}.{what}", self.column))
    }

    /// What the first process reads: settings and the names of the tests.
    fn orders(&self) -> [(&'static str, String); 3] {
        let mut environment = vec![
            ("PATH", "/usr/local/sbin:/usr/sbin:/usr/bin:/usr/local/bin".to_owned()),
            ("HOME", "/root".to_owned()),
            ("RUST_BACKTRACE", "0".to_owned()),
            ("NETPOL_OBSERVER_TEST_SLOW", "1".to_owned()),
            ("TEST_TIMEOUT", self.plan.test_timeout.as_secs().to_string()),
            ("OBSERVER", self.plan.binaries.observer.to_string_lossy().into_owned()),
        ];
        if self.types == Types::Hidden {
            environment.push(("HIDE_BTF", "1".to_owned()));
            environment.push(("NETPOL_OBSERVER_TEST_BTF_FILE", "/tmp/vmlinux.btf".to_owned()));
        }
        if self.plan.keep_shapes.is_some() {
            environment.push((KEEP_SHAPES, "/root/shapes".to_owned()));
        }
        let environment = environment.iter().map(|(name, value)| format!("export {name}={value}\n")).collect();
        [("environment", environment), ("tests", groups(self.tests)), ("tests.awk", TESTS.to_owned())]
    }

    /// Boots it, runs the tests, and says what came of them.
    pub(super) fn run(&self) -> Result<Report> {
        let (name, test_timeout) = (self.column, self.plan.test_timeout);
        let initramfs = self.file("cpio");
        image::assemble(self.kernel, self.plan.base, &initramfs, &self.orders())?;

        let _slot = Slot::take(name)?;
        let console = self.file("console.log");
        let begin = Instant::now();
        let mut qemu = Qemu(self.start(&initramfs, &console)?);
        let out = qemu.0.stdout.take().context("piped")?;
        let (lines_in, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).split(b'\n').map_while(Result::ok) {
                if lines_in.send(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned()).is_err() {
                    break;
                }
            }
        });
        let mut report = Report::new(name, &self.kernel.release, self.tests.len());
        let mut patience = BOOT;
        let mut last_event = Instant::now();
        while !report.is_done() {
            let left = patience.saturating_sub(last_event.elapsed()).min(WHOLE.saturating_sub(begin.elapsed()));
            match lines.recv_timeout(left) {
                Ok(line) => {
                    if let Some(progress) = report.take(&line) {
                        eprintln!("xtask: {name} {progress}");
                    }
                    // Output alone does not show that a test gets anywhere.
                    if !line.starts_with('|') {
                        last_event = Instant::now();
                        patience = test_timeout + GRACE;
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    report.fault(format!("hangs: nothing for {} s", patience.as_secs()));
                    break;
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    let status = qemu.0.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
                    report.fault(format!("ended before its tests did (QEMU: {status})"));
                    break;
                }
            }
        }
        // The kernel's last words come while it powers off.
        let deadline = Instant::now() + Duration::from_secs(10);
        while report.is_done() && Instant::now() < deadline && matches!(qemu.0.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(100));
        }
        drop(qemu);
        let said = String::from_utf8_lossy(&fs::read(&console).unwrap_or_default()).into_owned();
        report.conclude(&said, &console, begin.elapsed());
        if let (Some(directory), Some(archive)) = (self.plan.keep_shapes, report.output_of("shapes")) {
            unpack(archive, directory)?;
        }
        let _ = fs::remove_file(&initramfs);
        Ok(report)
    }

    fn start(&self, initramfs: &Path, console: &Path) -> Result<Child> {
        let _ = fs::remove_file(console);
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-M", "q35", "-accel", "tcg,thread=multi"]);
        // What this model lacks (SMAP, five levels of page tables, wide registers) the emulator would work at for nothing: it takes a sixth less than `max`.
        command.args(["-cpu", "qemu64", "-smp", "2", "-m", &MEMORY.to_string()]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        command.arg("-serial").arg(format!("file:{}", console.display()));
        command.args(["-chardev", "stdio,id=results,signal=off", "-serial", "chardev:results"]);
        command.arg("-kernel").arg(self.kernel.image()).arg("-initrd").arg(initramfs).args(["-append", COMMAND_LINE]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        // SAFETY: the closure makes one system call and allocates nothing.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        command.spawn().context("cannot start qemu-system-x86_64")
    }
}

/// The tests of one module at the top of the test program on one line: they run in one process.
fn groups(tests: &[String]) -> String {
    let module = |test: &str| test.split_once("::").map(|(module, _)| module.to_owned());
    tests.chunk_by(|one, next| module(one) == module(next)).map(|group| group.join(" ") + "\n").collect()
}

/// Unpacks what the guest has sent as text.
fn unpack(archive: &str, directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let mut child = Command::new("sh").args(["-c", "base64 -d | tar -xz -C \"$0\""]).arg(directory).stdin(Stdio::piped()).spawn()?;
    child.stdin.take().context("piped")?.write_all(archive.as_bytes())?;
    let status = child.wait()?;
    if !status.success() {
        bail!("cannot unpack the shapes that a guest has kept into {}: {status}", directory.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use xtask::command::find;
    use xtask::testing::skipped;

    use super::*;

    #[test]
    fn tests_of_one_module_share_a_process() {
        let tests = ["a::x", "a::b::y", "b::x"].map(str::to_owned);
        assert_eq!(groups(&tests), "a::x a::b::y\nb::x\n");
    }

    /// What comes of the harness's words, without the seconds.
    fn protocol(harness: &str) -> Option<(String, String)> {
        let Some(busybox) = find("busybox") else {
            skipped("kernels::guest::tests", "the Debian package busybox-static is not installed");
            return None;
        };
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("tests.awk");
        fs::write(&script, TESTS).unwrap();
        let mut command = Command::new(busybox);
        command.arg("awk").arg("-v").arg(format!("run={}", directory.path().display()));
        command.arg("-v").arg(format!("kmsg={}", directory.path().join("kmsg").display())).arg("-f").arg(script);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(harness.as_bytes()).unwrap();
        let out = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        let line = |line: &str| {
            let keep = if line.starts_with("END ") { line.rsplit_once(' ').unwrap().0 } else { line };
            format!("{keep}\n")
        };
        Some((out.lines().map(line).collect(), fs::read_to_string(directory.path().join("done")).unwrap()))
    }

    #[test]
    fn the_harness_is_understood() {
        let harness = "\nrunning 5 tests\ntest a::x ... SKIPPED b\n  ok then\nok\ntest a::y ... ok\ntest a::z ... \nthread panicked\nFAILED\n\
                       test a::i ... ignored, why\ntest a::w ... ok\n\nfailures:\n    a::z\n\ntest result: FAILED. 3 passed\n";
        let Some((lines, done)) = protocol(harness) else { return };
        let expected = "BEGIN a::x\n|SKIPPED b\n|  ok then\nEND a::x 0\nBEGIN a::y\nEND a::y 0\nBEGIN a::z\n|thread panicked\nEND a::z 101\n\
                        BEGIN a::i\nEND a::i 0\nBEGIN a::w\nEND a::w 0\n";
        assert_eq!(lines, expected);
        assert_eq!(done, "a::x\na::y\na::z\na::i\na::w\n");
    }

    /// Killed, or gone by itself, in the middle of a test, which may have written nothing.
    #[test]
    fn an_early_end_fails_the_test_that_it_came_in() {
        let Some((lines, done)) = protocol("running 2 tests\ntest a::x ... ok\ntest a::y ... ") else { return };
        let ended = "|the process of the tests has ended within this one";
        assert_eq!(lines, format!("BEGIN a::x\nEND a::x 0\nBEGIN a::y\n{ended}\nEND a::y 137\n"));
        assert_eq!(done, "a::x\na::y\n");
    }
}
