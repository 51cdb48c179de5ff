//! Running programs: commands whose failure tells everything, and guards for those that keep running.

use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::command::find;

/// What a finished command wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs a command to its end. Failing means a message with the command, its status and what it wrote to standard error.
pub(super) fn run(command: &mut Command, input: Option<&str>) -> Result<Output> {
    let shown = describe(command);
    let mut child = resolve(command)
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{shown}`"))?;
    // On a thread, so that a command that writes before it has read everything does not wait for us and we for it.
    let writer =
        child.stdin.take().zip(input.map(str::to_owned)).map(|(mut pipe, text)| thread::spawn(move || pipe.write_all(text.as_bytes())));
    let output = child.wait_with_output().with_context(|| format!("cannot wait for `{shown}`"))?;
    // A command that fails early closes its input; its status says more than the broken pipe.
    if let Some(Ok(Err(error))) = writer.map(thread::JoinHandle::join)
        && error.kind() != ErrorKind::BrokenPipe
    {
        return Err(error).with_context(|| format!("cannot write to `{shown}`"));
    }
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        let mut message = format!("`{shown}` failed with {}: {}", output.status, stderr.trim());
        if let Some(input) = input {
            let _ = write!(message, "\nits input was:\n{}", input.trim_end());
        }
        bail!(message);
    }
    Ok(Output { stdout, stderr })
}

/// The command as a person would type it.
fn describe(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy()];
    words.extend(command.get_args().map(|argument| argument.to_string_lossy()));
    words.join(" ")
}

/// Replaces a bare program name by its path, because `PATH` may lack the `sbin` directories.
fn resolve(command: &mut Command) -> &mut Command {
    let program = command.get_program().to_string_lossy().into_owned();
    if !program.contains('/')
        && let Some(path) = find(&program)
        && let Some(directory) = path.parent()
    {
        let mut paths = vec![directory.to_owned()];
        paths.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
        if let Ok(joined) = std::env::join_paths(paths) {
            command.env("PATH", joined);
        }
    }
    command
}

/// A running program; killed and reaped when this value is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    shown: String,
}

impl Process {
    /// Starts a program in the network namespace this process is in. As with [`Netns::spawn`](crate::netns::Netns::spawn),
    /// it gets a process group of its own: Ctrl-C reaches this process alone, which then decides who ends when.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        let shown = describe(command);
        command.process_group(0);
        let child = resolve(command).spawn().with_context(|| format!("cannot start `{shown}`"))?;
        Ok(Self { child, shown })
    }

    /// The process, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its status if it has ended.
    ///
    /// # Errors
    /// The status cannot be read.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("cannot wait for `{}`", self.shown))
    }

    /// Sends a signal (`libc::SIGINT`, …). One that has ended gets none.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn signal(&mut self, signal: i32) -> Result<()> {
        if self.try_wait()?.is_some() {
            return Ok(());
        }
        let pid = i32::try_from(self.child.id()).context("process id out of range")?;
        // SAFETY: kill takes two integers and touches no memory of this process. The child has not been reaped (just
        // asked), so the id is still its own.
        if unsafe { libc::kill(pid, signal) } != 0 {
            return Err(std::io::Error::last_os_error()).with_context(|| format!("cannot send signal {signal} to `{}`", self.shown));
        }
        Ok(())
    }

    /// Waits until it ends, at most `timeout`; none when it still runs.
    ///
    /// # Errors
    /// The status cannot be read.
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<Option<ExitStatus>> {
        let end = Instant::now() + timeout;
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() >= end {
                return Ok(None);
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asks it with `signal` to end, waits at most `patience`, then kills it. None when it had to be killed.
    ///
    /// # Errors
    /// The status cannot be read.
    pub fn stop(mut self, signal: i32, patience: Duration) -> Result<Option<ExitStatus>> {
        self.signal(signal)?;
        self.wait_timeout(patience)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // It may end by itself in between; wait reaps it either way.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
