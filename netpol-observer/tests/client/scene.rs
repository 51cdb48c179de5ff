//! A cluster with agents, an API server in front of it, and the real program.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use xtask::apiserver::{ADMIN, Options, Server};

use crate::agent::{Agent, Setup};

/// Long enough for a loaded machine; nothing waits for it to pass.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const NAMESPACE: &str = "netpol-observer";

pub(crate) struct Scene {
    pub(crate) server: Server,
    pub(crate) directory: TempDir,
}

impl Scene {
    pub(crate) fn new() -> Scene {
        let server = Server::start(Options::default()).unwrap();
        server.create(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})).unwrap();
        let scene = Scene { server, directory: TempDir::new().unwrap() };
        scene.write_kubeconfig(ADMIN);
        scene
    }

    /// With an agent on each of these nodes.
    pub(crate) fn with(nodes: &[&str]) -> (Scene, Vec<Agent>) {
        let scene = Scene::new();
        let agents = nodes.iter().map(|node| scene.agent(Setup { node: (*node).to_owned(), ..Setup::default() })).collect();
        (scene, agents)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn write_kubeconfig(&self, user: &str) {
        std::fs::write(self.path("kubeconfig"), self.server.kubeconfig(user).unwrap()).unwrap();
    }

    pub(crate) fn node(&self, name: &str) {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
        self.server.load([node]).unwrap();
    }

    /// A node with an agent, whose pod is `agent-NODE`.
    pub(crate) fn agent(&self, setup: Setup) -> Agent {
        let node = setup.node.clone();
        let agent = Agent::new(setup);
        self.pod(&node, &format!("agent-{node}"), &agent);
        agent
    }

    pub(crate) fn pod(&self, node: &str, name: &str, agent: &Agent) {
        self.node(node);
        self.server.forward(NAMESPACE, name, 9470, agent.listen());
        self.server.create(pod(node, name, true)).unwrap();
    }

    /// The user jane, with these rules in the namespace of the agents.
    pub(crate) fn jane(&self, rules: &Value) {
        self.server.add_user("jane", &[]);
        self.write_kubeconfig("jane");
        let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"namespace": NAMESPACE, "name": "jane"}, "rules": rules});
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"namespace": NAMESPACE, "name": "jane"},
            "subjects": [{"kind": "User", "name": "jane"}], "roleRef": {"kind": "Role", "name": "jane"},
        });
        self.server.load([role, binding]).unwrap();
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_observer"));
        command.current_dir(&self.directory).args(arguments);
        command.env("KUBECONFIG", self.path("kubeconfig")).env("HOME", self.directory.path()).env("TZ", "UTC");
        for name in ["NODE_NAME", "RUST_LOG", "NO_COLOR", "OBSERVER_AGENT_NAMESPACE", "KUBERNETES_SERVICE_HOST"] {
            command.env_remove(name);
        }
        command
    }

    /// Runs to the end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        let mut child = self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
        let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let errors = thread::spawn(move || {
            let mut text = String::new();
            err.read_to_string(&mut text).unwrap();
            text
        });
        let mut text = String::new();
        out.read_to_string(&mut text).unwrap();
        let err = errors.join().unwrap();
        Run { out: text, err, code: child.wait().unwrap().code() }
    }

    /// Starts a `tail` with JSON on its standard output, and waits until it has found its agents.
    pub(crate) fn tail(&self, arguments: &[&str]) -> Tail {
        let tail = Tail::start(self.command(&[&["tail", "-o", "json"], arguments].concat()));
        tail.wait_for("watching drops of");
        tail
    }
}

pub(crate) fn pod(node: &str, name: &str, ready: bool) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": NAMESPACE, "name": name,
            "labels": {"app.kubernetes.io/name": "netpol-observer", "app.kubernetes.io/component": "agent"},
        },
        "spec": {"nodeName": node, "containers": [{"name": "agent", "image": "netpol-observer"}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
    })
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) code: Option<i32>,
}

impl Run {
    /// The lines that are drops: node and number.
    pub(crate) fn drops(&self) -> Vec<(String, u64)> {
        self.out.lines().filter_map(drop_of).collect()
    }
}

/// Node and number of a line that is a drop.
fn drop_of(line: &str) -> Option<(String, u64)> {
    let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    (value["type"] == "denial").then(|| (value["node"].as_str().unwrap().to_owned(), value["id"].as_u64().unwrap()))
}

/// A `tail` that runs.
pub(crate) struct Tail {
    child: Child,
    out: mpsc::Receiver<String>,
    err: mpsc::Receiver<String>,
    /// What was read of standard error.
    said: std::cell::RefCell<String>,
}

impl Tail {
    pub(crate) fn start(mut command: Command) -> Tail {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
        let out = lines(child.stdout.take().unwrap());
        let err = lines(child.stderr.take().unwrap());
        Tail { child, out, err, said: std::cell::RefCell::default() }
    }

    /// Waits until standard error holds a text.
    pub(crate) fn wait_for(&self, text: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.said.borrow().contains(text) {
            match self.err.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let mut said = self.said.borrow_mut();
                    said.push_str(&line);
                    said.push('\n');
                }
                Err(error) => panic!("{text:?} was waited for ({error}): {}", self.said.borrow()),
            }
        }
    }

    /// The next drop: node and number.
    pub(crate) fn next(&self) -> (String, u64) {
        loop {
            let line = self.out.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("no drop ({error}): {}", self.said()));
            if let Some(drop) = drop_of(&line) {
                return drop;
            }
        }
    }

    /// The next line, if one comes in time.
    pub(crate) fn next_line(&self, patience: Duration) -> Option<String> {
        self.out.recv_timeout(patience).ok()
    }

    pub(crate) fn next_ids(&self, count: usize) -> Vec<u64> {
        (0..count).map(|_| self.next().1).collect()
    }

    /// What was said on standard error so far.
    pub(crate) fn said(&self) -> String {
        let mut said = self.said.borrow_mut();
        while let Ok(line) = self.err.try_recv() {
            said.push_str(&line);
            said.push('\n');
        }
        said.clone()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Interrupts it; what it prints then.
    pub(crate) fn interrupt(mut self) -> Run {
        // SAFETY: sends a signal to a child that has not been waited for.
        assert_eq!(unsafe { libc::kill(i32::try_from(self.child.id()).unwrap(), libc::SIGINT) }, 0);
        let out: String = self.out.iter().flat_map(|line| [line, "\n".to_owned()]).collect();
        let rest: String = self.err.iter().flat_map(|line| [line, "\n".to_owned()]).collect();
        let code = self.child.wait().unwrap().code();
        Run { out, err: self.said.take() + &rest, code }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(stream: impl std::io::Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
