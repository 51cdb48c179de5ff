//! An agent that speaks the API by the letter and sees what a test tells it. What the real one refuses, this refuses.

use std::collections::BTreeSet;
use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};

/// How an agent behaves. May be changed while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// As it should.
    Well,
    /// Connections stay, and nothing more is said on them.
    Mute,
    /// Every request is refused.
    Refusing(u16, String),
    /// What is sent is no HTTP.
    Noise,
    /// The first frame is this one.
    First(String),
}

/// What the agent saw, in the order it saw it.
#[derive(Clone, Debug)]
pub(crate) struct Drop {
    pub(crate) order: Timestamp,
    pub(crate) id: u64,
}

#[derive(Debug)]
struct State {
    mode: Mode,
    drops: Vec<Drop>,
    /// Lines that are sent as they are, each before the drop of this number.
    lines: Vec<(usize, String)>,
    /// Connections of a lower number are broken off.
    broken_before: u64,
    connections: u64,
    ended: Option<String>,
    /// What came in requests.
    requests: Vec<Request>,
    /// Everything that was received, as it came.
    received: Vec<u8>,
    lost: u64,
    any_token: bool,
}

/// A request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// What makes one agent differ from another.
#[derive(Clone, Debug, Default)]
pub(crate) struct Agent {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    setup: Setup,
}

#[derive(Debug, Default)]
pub(crate) struct Setup {
    pub(crate) node: String,
    /// Its clock is so far ahead.
    pub(crate) skew: SignedDuration,
    pub(crate) kept_since: Option<Timestamp>,
    /// In tenant mode: the certificate and its key, and the tokens that are good.
    pub(crate) tls: Option<(Vec<u8>, Vec<u8>)>,
    pub(crate) tokens: Option<BTreeSet<String>>,
    /// What `/v1/status` says besides.
    pub(crate) status: Value,
    /// What `/v1/explain` answers.
    pub(crate) explained: Value,
}

impl Default for Shared {
    fn default() -> Self {
        let state = State {
            mode: Mode::Well,
            drops: Vec::new(),
            lines: Vec::new(),
            broken_before: 0,
            connections: 0,
            ended: None,
            requests: Vec::new(),
            received: Vec::new(),
            lost: 0,
            any_token: false,
        };
        Shared { state: Mutex::new(state), changed: Condvar::new(), setup: Setup::default() }
    }
}

type Answering = io::Result<()>;

impl Agent {
    pub(crate) fn new(setup: Setup) -> Agent {
        Agent { shared: Arc::new(Shared { setup, ..Shared::default() }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.shared.changed.notify_all();
    }

    /// The agent's clock.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::now() + self.shared.setup.skew
    }

    /// It sees a drop now.
    pub(crate) fn sees(&self, id: u64) {
        self.change(|state| {
            // The clock is read with the lock, so that no watermark is behind it.
            let order = self.now();
            state.drops.push(Drop { order, id });
        });
    }

    /// It saw a drop then.
    pub(crate) fn saw(&self, id: u64, order: Timestamp) {
        self.change(|state| state.drops.push(Drop { order, id }));
    }

    /// Sends a line as it is.
    pub(crate) fn says(&self, line: &str) {
        self.change(|state| {
            let at = state.drops.len();
            state.lines.push((at, line.to_owned()));
        });
    }

    pub(crate) fn becomes(&self, mode: Mode) {
        self.change(|state| state.mode = mode);
    }

    /// Breaks the connections that there are, without a word.
    pub(crate) fn breaks_off(&self) {
        self.change(|state| state.broken_before = state.connections);
    }

    /// Ends on purpose.
    pub(crate) fn ends(&self, reason: &str) {
        self.change(|state| state.ended = Some(reason.to_owned()));
    }

    /// Says that it did not send so many.
    pub(crate) fn loses(&self, count: u64) {
        self.change(|state| state.lost += count);
    }

    /// In tenant mode, any token is good from now on; what came is for the test to look at.
    pub(crate) fn accepts_any_token(&self) {
        self.change(|state| state.any_token = true);
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.state().requests.clone()
    }

    /// Whether these bytes came in whatever form.
    pub(crate) fn has_received(&self, bytes: &[u8]) -> bool {
        self.state().received.windows(bytes.len()).any(|window| window == bytes)
    }

    /// Waits until it was asked for drops so often.
    pub(crate) fn wait_for_readers(&self, count: usize) {
        let end = Instant::now() + super::PATIENCE;
        let mut state = self.state();
        while state.requests.iter().filter(|request| request.path == "/v1/drops").count() < count {
            assert!(Instant::now() < end, "{}: {count} requests for drops were waited for", self.shared.setup.node);
            state = self.shared.changed.wait_timeout(state, Duration::from_millis(50)).unwrap().0;
        }
    }

    /// Listens on a port of loopback, as the real one does in its pod.
    pub(crate) fn listen(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let agent = self.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let agent = agent.clone();
                thread::spawn(move || agent.accept(stream));
            }
        });
        address
    }

    fn accept(&self, stream: TcpStream) -> Answering {
        stream.set_nodelay(true)?;
        match &self.shared.setup.tls {
            None => self.serve(stream),
            Some((certificate, key)) => {
                let provider = Arc::new(rustls::crypto::ring::default_provider());
                let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.clone()));
                let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
                let config = config.with_no_client_auth().with_single_cert(vec![CertificateDer::from(certificate.clone())], key).unwrap();
                let connection = rustls::ServerConnection::new(Arc::new(config)).unwrap();
                self.serve(rustls::StreamOwned::new(connection, stream))
            }
        }
    }

    fn serve(&self, stream: impl Read + Write) -> Answering {
        let mut stream = BufReader::new(Tapped { stream, agent: self });
        let number = {
            let mut state = self.state();
            state.connections += 1;
            state.connections
        };
        let request = read_request(&mut stream)?;
        // What it sees from now on is new to who asks, as soon as a test can know that somebody has asked.
        let mut seen = 0;
        self.change(|state| {
            state.requests.push(request.clone());
            seen = state.drops.len();
        });
        let out = &mut stream.get_mut().stream;
        let mode = self.state().mode.clone();
        match mode {
            Mode::Refusing(status, message) => return refuse(out, status, &message),
            Mode::Noise => return out.write_all(b"SSH-2.0-OpenSSH_9.2\r\n"),
            Mode::Well | Mode::Mute | Mode::First(_) => {}
        }
        if request.header("origin").is_some() || !request.header("host").is_some_and(|host| host.starts_with("127.0.0.1")) {
            return refuse(out, 403, "this API is for its pod's loopback");
        }
        if let Some(tokens) = &self.shared.setup.tokens {
            let token = request.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
            let any = self.state().any_token;
            if !token.is_some_and(|token| any || tokens.contains(token)) {
                return refuse(out, 401, "no token that is good here");
            }
        } else if request.header("authorization").is_some() {
            return refuse(out, 400, "a credential has no business here");
        }
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/v1/drops") => match check(&request) {
                Ok(()) => self.drops(out, &request, number, seen),
                Err(why) => refuse(out, 400, &why),
            },
            ("GET", "/v1/status") => {
                let mut status = json!({"version": "0.1.0", "node": self.shared.setup.node, "time": self.now()});
                for (name, value) in self.shared.setup.status.as_object().into_iter().flatten() {
                    status[name] = value.clone();
                }
                answer(out, 200, &status.to_string())
            }
            ("POST", "/v1/explain") => answer(out, 200, &self.shared.setup.explained.to_string()),
            (_, path) => refuse(out, 404, &format!("{path} is not known here")),
        }
    }

    fn wait_while(&self, number: u64, holds: impl Fn(&State) -> bool) {
        let mut state = self.state();
        while holds(&state) && state.broken_before < number {
            state = self.shared.changed.wait(state).unwrap();
        }
    }

    fn drops(&self, out: &mut impl Write, request: &Request, number: u64, seen: usize) -> Answering {
        out.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n")?;
        let is = |name: &str| request.parameter(name) == Some("true");
        let json = request.parameter("form") != Some("text");
        let since: Option<Timestamp> = request.parameter("since").map(|since| since.parse().unwrap());
        let last: Option<usize> = request.parameter("last").map(|last| last.parse().unwrap());
        let node = &self.shared.setup.node;
        let (mut next, mut next_line, mut lost) = {
            let state = self.state();
            let kept = match (since, last) {
                (Some(since), _) => state.drops.iter().position(|drop| drop.order >= since).unwrap_or(state.drops.len()),
                (None, Some(last)) => seen.saturating_sub(last),
                // Without anything that asks for it, only what is dropped from now on is followed; without following, all that is kept.
                (None, None) => {
                    if is("follow") {
                        seen
                    } else {
                        0
                    }
                }
            };
            (kept, 0, 0)
        };
        let retained = self.shared.setup.kept_since.unwrap_or(Timestamp::UNIX_EPOCH);
        let mut first =
            json!({"frame": "hello", "version": "0.1.0", "node": node, "kernel": "6.18.0", "time": self.now(), "retainedSince": retained})
                .to_string();
        if let Mode::First(line) = &self.state().mode {
            first.clone_from(line);
        }
        chunk(out, &(first + "\n"))?;
        let mut shown = 0u64;
        loop {
            let mut frames = String::new();
            let state = self.state();
            if state.broken_before >= number {
                return Err(io::Error::from(io::ErrorKind::ConnectionReset));
            }
            if state.mode == Mode::Mute {
                drop(state);
                self.wait_while(number, |state| state.mode == Mode::Mute);
                continue;
            }
            // A few at a time, as a real one writes them.
            for _ in 0..64 {
                while let Some((at, line)) = state.lines.get(next_line).filter(|(at, _)| *at <= next || next >= state.drops.len()) {
                    let _ = at;
                    frames.push_str(line);
                    frames.push('\n');
                    next_line += 1;
                }
                let Some(seen) = state.drops.get(next) else { break };
                next += 1;
                if since.is_some_and(|since| seen.order < since) {
                    continue;
                }
                shown += 1;
                let frame = if json {
                    json!({"frame": "item", "order": seen.order, "line": {"type": "denial", "id": seen.id, "time": seen.order, "padding": "x".repeat(300)}})
                } else {
                    json!({"frame": "item", "order": seen.order, "text": format!("DENIED {} on {node}\n", seen.id)})
                };
                frames.push_str(&frame.to_string());
                frames.push('\n');
            }
            let all = next >= state.drops.len();
            if all && state.lost > lost {
                frames.push_str(&json!({"frame": "lost", "count": state.lost - lost, "since": self.now()}).to_string());
                frames.push('\n');
                lost = state.lost;
            }
            // The drops are seen with the lock: none comes before this.
            let watermark = if all { self.now() } else { state.drops[next].order };
            frames.push_str(&json!({"frame": "watermark", "order": watermark}).to_string());
            frames.push('\n');
            let ended = state.ended.clone();
            drop(state);
            chunk(out, &frames)?;
            if let Some(reason) = ended {
                chunk(out, &(json!({"frame": "end", "reason": reason}).to_string() + "\n"))?;
                return out.write_all(b"0\r\n\r\n");
            }
            if all && !is("follow") {
                let ledger = json!({"type": "ledger", "records": shown, "counted": 0, "decoded": shown, "shown": shown, "balanced": true});
                chunk(out, &(json!({"frame": "ledger", "line": ledger}).to_string() + "\n"))?;
                return out.write_all(b"0\r\n\r\n");
            }
            if all {
                let state = self.state();
                if state.drops.len() <= next && state.broken_before < number {
                    drop(self.shared.changed.wait_timeout(state, Duration::from_millis(100)).unwrap());
                }
            }
        }
    }
}

/// Keeps what comes.
struct Tapped<'a, S> {
    stream: S,
    agent: &'a Agent,
}

impl<S: Read> Read for Tapped<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.agent.state().received.extend_from_slice(&buffer[..count]);
        Ok(count)
    }
}

fn read_request(stream: &mut impl io::BufRead) -> io::Result<Request> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let path = path.to_owned();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').unwrap();
        headers.push((name.trim().to_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length").map_or(0, |(_, value)| value.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Request { method, path, query, headers, body: String::from_utf8(body).unwrap() })
}

/// The parameters that there are, each once but `arg`, with the values they may have.
fn check(request: &Request) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for (name, value) in &request.query {
        if name != "arg" && !seen.insert(name) {
            return Err(format!("the parameter {name} is given twice"));
        }
        let good = match name.as_str() {
            "follow" | "all" | "oneline" | "colour" => ["true", "false"].contains(&value.as_str()),
            "last" => value.parse::<u32>().is_ok_and(|last| last > 0),
            "since" => value.parse::<Timestamp>().is_ok(),
            "form" => ["text", "json"].contains(&value.as_str()),
            "utcOffset" => value.parse::<i32>().is_ok_and(|seconds| seconds.abs() < 93_600),
            "arg" => value.starts_with("--"),
            _ => false,
        };
        if !good {
            return Err(format!("the parameter {name} is not known, or cannot be {value:?}"));
        }
    }
    Ok(())
}

fn refuse(out: &mut impl Write, status: u16, message: &str) -> Answering {
    answer(out, status, &json!({"error": message}).to_string())
}

fn answer(out: &mut impl Write, status: u16, body: &str) -> Answering {
    write!(
        out,
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )?;
    out.flush()
}

fn chunk(out: &mut impl Write, text: &str) -> Answering {
    write!(out, "{:x}\r\n{text}\r\n", text.len())?;
    out.flush()
}
