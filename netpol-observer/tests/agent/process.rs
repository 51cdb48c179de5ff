//! The real `observer agent` as a process.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::http::{Answer, Frames, PATIENCE, connect, send};

/// A running agent. Dropping it kills it.
pub(crate) struct Agent {
    child: Child,
    pub(crate) address: SocketAddr,
    /// Standard error so far.
    said: Arc<Mutex<Vec<String>>>,
}

impl Agent {
    /// Starts it in a directory and waits until it watches.
    pub(crate) fn start(directory: &Path, arguments: &[&str]) -> Agent {
        Agent::start_with(directory, arguments, &[])
    }

    pub(crate) fn start_with(directory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Agent {
        let mut command = Command::new(env!("CARGO_BIN_EXE_observer"));
        command
            .current_dir(directory)
            .env("TZ", "UTC")
            .env_remove("POD_NAME")
            .env_remove("RUST_LOG")
            .env("NODE_NAME", "node-2")
            .envs(environment.iter().copied())
            .arg("agent");
        if !arguments.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        let mut child = command.args(arguments).stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let said = Arc::new(Mutex::new(Vec::new()));
        std::thread::spawn({
            let said = Arc::clone(&said);
            move || lines.map_while(Result::ok).for_each(|line| said.lock().unwrap().push(line))
        });
        let mut agent = Agent { child, address: SocketAddr::from(([0, 0, 0, 0], 0)), said };
        agent.wait_for("that it watches", |agent| agent.find("watching drops").is_some());
        let listening = agent.find("listening on").unwrap();
        agent.address = listening.rsplit('/').next().unwrap().parse().unwrap();
        agent
    }

    /// The first line of standard error that holds a text.
    pub(crate) fn find(&self, text: &str) -> Option<String> {
        self.said.lock().unwrap().iter().find(|line| line.contains(text)).cloned()
    }

    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().join("\n")
    }

    /// Waits until something is so.
    pub(crate) fn wait_for(&mut self, what: &str, test: impl Fn(&Agent) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !test(self) {
            if let Some(status) = self.child.try_wait().unwrap() {
                std::thread::sleep(Duration::from_millis(100));
                panic!("the agent ended ({status}) before {what}:\n{}", self.said());
            }
            assert!(Instant::now() < end, "{what} did not come:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        send(connect(self.address), "GET", path, &[], "")
    }

    pub(crate) fn status(&self) -> Value {
        let answer = self.get("/v1/status");
        assert_eq!(answer.code, 200);
        answer.json()
    }

    pub(crate) fn drops(&self, query: &str) -> Frames {
        self.get(&format!("/v1/drops?{query}")).frames()
    }

    /// Resident memory, KiB.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok()).unwrap()
    }

    pub(crate) fn signal(&self, signal: i32) {
        // SAFETY: sends a signal to a child that has not been waited for.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    /// Waits until it has ended.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < end, "it did not end:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends it as a kubelet does, and expects that all went well; what it said.
    pub(crate) fn stop(mut self) -> String {
        self.signal(libc::SIGTERM);
        let status = self.wait();
        assert_eq!(status.code(), Some(0), "{}", self.said());
        // Its last words may still be on their way to the thread that reads them.
        let end = Instant::now() + PATIENCE;
        while self.find("drops  ").is_none() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.said()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// `N received` of the account at the end.
pub(crate) fn received(said: &str) -> u64 {
    let line = said.lines().find(|line| line.starts_with("drops ")).unwrap_or_else(|| panic!("no account in {said}"));
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
