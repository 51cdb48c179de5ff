//! A running `observer tail`.

use std::ffi::OsStr;
use std::io::{self, BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::netns::Process;

/// How long it may take to explain what is under way, after it was told to end.
const PATIENCE: Duration = Duration::from_secs(300);

/// A tail; killed when this value is dropped.
pub struct Tail {
    process: Process,
    said: Arc<Mutex<Vec<String>>>,
    listener: Option<JoinHandle<()>>,
}

impl Tail {
    /// Starts `observer tail` and waits until it watches.
    ///
    /// # Errors
    /// It cannot be started or ends before that; the message has what it said.
    pub fn start<A: AsRef<OsStr>>(observer: &Path, arguments: impl IntoIterator<Item = A>, stdout: Stdio) -> Result<Self> {
        let mut command = Command::new(observer);
        command.arg("tail").args(arguments).stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
        // It does not outlive who started it, whatever becomes of that.
        // SAFETY: the closure runs between fork and exec; it makes one system call and allocates nothing.
        unsafe {
            command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            })
        };
        let mut process = Process::start(&mut command)?;
        let mut lines = BufReader::new(process.child().stderr.take().context("its standard error is piped")?).lines();
        let mut said = Vec::new();
        loop {
            let Some(Ok(line)) = lines.next() else {
                bail!("`{} tail` ended before it watched: {}", observer.display(), said.join("; "));
            };
            if line.contains("watching drops") {
                break;
            }
            said.push(line);
        }
        let said = Arc::new(Mutex::new(said));
        let listener = {
            let said = Arc::clone(&said);
            thread::spawn(move || {
                for line in lines.map_while(Result::ok) {
                    let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
                    // Whatever it complains about, a few lines tell.
                    if said.len() < 50 {
                        said.push(line);
                    }
                }
            })
        };
        Ok(Self { process, said, listener: Some(listener) })
    }

    /// The process, for its pipe.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Ends it as Ctrl-C does, and waits until it has explained what was under way. Returns what it said on standard error.
    ///
    /// # Errors
    /// It does not end in a minute, or not with success.
    pub fn stop(mut self) -> Result<Vec<String>> {
        self.process.signal(libc::SIGINT)?;
        let status: Option<ExitStatus> = self.process.wait_timeout(PATIENCE)?;
        if let (Some(_), Some(listener)) = (status, self.listener.take()) {
            let _ = listener.join();
        }
        let said = std::mem::take(&mut *self.said.lock().unwrap_or_else(PoisonError::into_inner));
        match status {
            Some(status) if status.success() => Ok(said),
            Some(status) => bail!("`observer tail` ended with {status}: {}", said.join("; ")),
            None => bail!("`observer tail` did not end within {} s of SIGINT", PATIENCE.as_secs()),
        }
    }
}
