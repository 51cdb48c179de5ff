//! The observer under test: one that people read, one whose JSON is checked.

use std::io::{self, BufRead as _, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::demo::interrupt::Interrupt;
use crate::netns::Process;

/// What it writes to standard error once it is attached.
const ATTACHED: &str = "watching";

/// How long attaching may take.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// How long it may take to end after SIGINT, its last lines and the ledger included.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// Two running observers. Dropping it ends them as [`Observers::finish`] does.
pub(super) struct Observers {
    people: Tail,
    json: Tail,
    lines: Arc<Mutex<Lines>>,
}

#[derive(Default)]
struct Lines {
    parsed: Vec<Value>,
    broken: Option<String>,
}

/// One `observer tail`.
struct Tail {
    what: &'static str,
    process: Option<Process>,
    messages: Arc<Mutex<Vec<String>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Observers {
    /// Starts both in `directory`, which `manifests` is relative to so that the files' names stay short in what is printed,
    /// and waits until they are attached.
    ///
    /// # Errors
    /// One cannot be started, ends at once or does not say in time that it is attached; with what it said instead.
    pub(super) fn start(program: &Path, directory: &Path, manifests: &str, interrupt: &Interrupt) -> Result<Self> {
        let tail = |format: &[&str]| {
            let mut command = Command::new(program);
            command
                .current_dir(directory)
                .args(["tail", "--manifests", manifests, "--node-name", "node-1"])
                .args(format)
                .stdin(Stdio::null())
                .stderr(Stdio::piped());
            command
        };
        let people = Tail::start("observer tail", tail(&[]), true)?;
        let mut command = tail(&["-o", "json"]);
        command.stdout(Stdio::piped());
        let mut json = Tail::start("observer tail -o json", command, false)?;
        let lines = Arc::new(Mutex::new(Lines::default()));
        if let Some(output) = json.process.as_mut().and_then(|process| process.child().stdout.take()) {
            let lines = Arc::clone(&lines);
            json.readers.push(thread::spawn(move || read_json(output, &lines)));
        }
        let mut observers = Self { people, json, lines };
        let attached = interrupt.wait(START_PATIENCE, || {
            observers.check()?;
            Ok((observers.people.is_attached() && observers.json.is_attached()).then_some(()))
        })?;
        if attached.is_none() {
            bail!("the observer did not say \"{ATTACHED} …\" within {} s; it said: {}", START_PATIENCE.as_secs(), observers.people.said());
        }
        Ok(observers)
    }

    /// Fails when one of them is no longer running or writes something that is no JSON.
    pub(super) fn check(&mut self) -> Result<()> {
        for tail in [&mut self.people, &mut self.json] {
            if let Some(process) = &mut tail.process
                && let Some(status) = process.try_wait()?
            {
                tail.join();
                bail!("`{}` ended with {status}; it said: {}", tail.what, tail.said());
            }
        }
        match &lock(&self.lines).broken {
            Some(line) => bail!("`{}` wrote a line that is no JSON: {line}", self.json.what),
            None => Ok(()),
        }
    }

    /// The lines of JSON so far for which `wanted` holds.
    pub(super) fn lines(&self, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        lock(&self.lines).parsed.iter().filter(|line| wanted(line)).cloned().collect()
    }

    /// Ends both with SIGINT, and waits for their last lines. To be called once; [`Observers::lines`] still answers.
    ///
    /// # Errors
    /// One had to be killed, or failed.
    pub(super) fn finish(&mut self) -> Result<()> {
        for tail in [&mut self.json, &mut self.people] {
            tail.stop()?;
        }
        self.check()
    }
}

impl Tail {
    /// With `echo`, what it writes to standard error is also written to ours.
    fn start(what: &'static str, mut command: Command, echo: bool) -> Result<Self> {
        end_with_parent(&mut command);
        let mut process = Process::start(&mut command)?;
        let messages = Arc::new(Mutex::new(Vec::new()));
        let mut readers = Vec::new();
        if let Some(errors) = process.child().stderr.take() {
            let messages = Arc::clone(&messages);
            readers.push(thread::spawn(move || {
                for line in BufReader::new(errors).lines().map_while(Result::ok) {
                    if echo {
                        anstream::eprintln!("{line}");
                    }
                    lock(&messages).push(line);
                }
            }));
        }
        Ok(Self { what, process: Some(process), messages, readers })
    }

    fn is_attached(&self) -> bool {
        lock(&self.messages).iter().any(|line| line.contains(ATTACHED))
    }

    fn said(&self) -> String {
        let messages = lock(&self.messages);
        if messages.is_empty() { "nothing".to_owned() } else { messages.join("\n") }
    }

    fn stop(&mut self) -> Result<()> {
        let Some(process) = self.process.take() else { return Ok(()) };
        let status = process.stop(libc::SIGINT, END_PATIENCE);
        self.join();
        match status.with_context(|| format!("`{}`", self.what))? {
            None => bail!("`{}` did not end within {} s after SIGINT", self.what, END_PATIENCE.as_secs()),
            Some(status) if !status.success() => bail!("`{}` ended with {status}; it said: {}", self.what, self.said()),
            Some(_) => Ok(()),
        }
    }

    /// Waits for the rest of its output. Only when it has ended.
    fn join(&mut self) {
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        // On the way out of an error already: what goes wrong here would hide it.
        let _ = self.stop();
    }
}

/// Has the kernel send SIGINT to the program when the thread that starts it ends, so that a demo that is killed leaves no
/// observer writing to the terminal.
fn end_with_parent(command: &mut Command) {
    // SAFETY: the closure runs between fork and exec; it makes one system call with integers and allocates nothing.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGINT as libc::c_ulong) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
}

fn read_json(output: impl Read, lines: &Mutex<Lines>) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        let mut lines = lock(lines);
        match serde_json::from_str(&line) {
            Ok(value) => lines.parsed.push(value),
            Err(_) => lines.broken = Some(line),
        }
    }
}

/// The data are whole even if a holder of the lock panicked: every change is a single push.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
