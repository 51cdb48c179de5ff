//! `cargo bench --bench watch`: what the watches cost on a large cluster, from the test API server to the explanation of a drop.

mod child;
mod objects;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use jiff::Timestamp;
use serde_json::json;
use xtask::apiserver::{ADMIN, Cut, Scope, Server};

use child::Said;

/// Measures watches on a generated cluster.
#[derive(Parser)]
struct Options {
    /// Pods of the cluster.
    #[arg(long, default_value_t = 100_000)]
    pods: usize,
    /// NetworkPolicies of the cluster.
    #[arg(long, default_value_t = 5_000)]
    policies: usize,
    /// Changes per second.
    #[arg(long, default_value_t = 200)]
    rate: usize,
    /// For how long.
    #[arg(long, default_value_t = 60)]
    seconds: usize,
    /// The process that is measured.
    #[arg(long, hide = true)]
    child: Option<String>,
    /// How it lists.
    #[arg(long, hide = true)]
    pages: bool,
    /// What cargo adds.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Why the benchmark could not run.
type Failure = Box<dyn std::error::Error>;

const MIB: f64 = (1 << 20) as f64;

/// Time for the last events to come, and for the memory of a list to be given back.
const SETTLE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let options = Options::parse();
    let done = match &options.child {
        Some(kubeconfig) => child::run(kubeconfig, !options.pages),
        None => run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench watch: {error}");
            ExitCode::from(2)
        }
    }
}

/// The process that is measured, and what it says.
struct Measured {
    process: Child,
    ask: ChildStdin,
    said: BufReader<ChildStdout>,
}

impl Measured {
    fn start(kubeconfig: &std::path::Path, pages: bool) -> Result<(Self, Said), Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--child").arg(kubeconfig).stdin(Stdio::piped()).stdout(Stdio::piped());
        if pages {
            command.arg("--pages");
        }
        let mut process = command.spawn()?;
        let (Some(ask), Some(said)) = (process.stdin.take(), process.stdout.take()) else { return Err("no pipes".into()) };
        let mut measured = Measured { process, ask, said: BufReader::new(said) };
        let first = measured.read()?;
        Ok((measured, first))
    }

    fn read(&mut self) -> Result<Said, Failure> {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        serde_json::from_str(&line).map_err(|error| format!("the measured process said {line:?}: {error}").into())
    }

    fn says(&mut self) -> Result<Said, Failure> {
        writeln!(self.ask)?;
        self.read()
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        // It may have ended by itself.
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    if cfg!(debug_assertions) {
        eprintln!("bench watch: not optimised; the figures mean nothing.");
    }
    let server = Server::start(xtask::apiserver::Options { history: 20_000, ..Default::default() })?;
    let began = Instant::now();
    server.load(objects::cluster(options.pods, options.policies)).map_err(|refusal| format!("{refusal:?}"))?;
    eprintln!("the server has its objects after {:.1} s", began.elapsed().as_secs_f64());
    let kubeconfig = tempfile::NamedTempFile::new()?;
    std::fs::write(kubeconfig.path(), server.kubeconfig(ADMIN)?)?;
    println!("{} pods, {} policies, {} changes per second for {} s", options.pods, options.policies, options.rate, options.seconds);
    println!("| | streaming lists | lists from the cache |\n|---|---:|---:|");
    let columns = [false, true].map(|pages| measure(options, &server, kubeconfig.path(), pages));
    let [stream, pages] = columns;
    for ((name, stream), (_, pages)) in stream?.into_iter().zip(pages?) {
        println!("| {name} | {stream} | {pages} |");
    }
    Ok(())
}

fn measure(options: &Options, server: &Server, kubeconfig: &std::path::Path, pages: bool) -> Result<Vec<(&'static str, String)>, Failure> {
    let (mut measured, first) = Measured::start(kubeconfig, pages)?;
    if first.pods != options.pods || first.policies != options.policies {
        return Err(format!("{} pods and {} policies arrived", first.pods, first.policies).into());
    }
    std::thread::sleep(SETTLE);
    let before = measured.says()?;
    let began = Instant::now();
    let written = change(options, server)?;
    std::thread::sleep(SETTLE);
    let after = measured.says()?;
    let elapsed = began.elapsed().as_secs_f64();
    let mut lags = after.lags;
    if after.arrived != written {
        let way = if pages { "lists from the cache" } else { "streaming lists" };
        return Err(format!("{way}: {written} writes of pods, of which {} arrived", after.arrived).into());
    }
    lags.sort_unstable();
    let lag = |part: f64| format!("{:.1} ms", lags[((lags.len() - 1) as f64 * part) as usize] as f64 / 1000.0);

    // Everything is forgotten at the server: the pods are listed once more.
    server.compact();
    server.cut_watches(Scope::resource("pods"), Cut::Gone);
    let again = loop {
        std::thread::sleep(Duration::from_millis(100));
        let said = measured.says()?;
        if said.lists > before.lists {
            break said;
        }
        if began.elapsed() > Duration::from_secs(600) {
            return Err("the pods were not listed again".into());
        }
    };
    std::thread::sleep(SETTLE);
    let last = measured.says()?;
    let mib = |bytes: u64| format!("{:.0} MiB", bytes as f64 / MIB);
    Ok(vec![
        ("everything is there after", format!("{:.1} s", first.seconds)),
        ("time on a CPU until then", format!("{:.1} s", first.cpu)),
        ("requests until then", first.requests.to_string()),
        ("bytes until then", mib(first.bytes)),
        ("most resident memory until then", mib(first.peak)),
        ("resident memory afterwards", mib(before.resident)),
        ("CPU under changes, of one", format!("{:.1} %", (after.cpu - before.cpu) / elapsed * 100.0)),
        ("bytes per second under changes", format!("{:.0} KiB", (after.bytes - before.bytes) as f64 / 1024.0 / elapsed)),
        ("from the write to an explanation by it, median", lag(0.5)),
        ("… 99th percentile", lag(0.99)),
        (
            "… of the pods, whose owner is certain at once",
            format!("{:.0} %", lags.len() as f64 / (written / child::EXPLAINED) as f64 * 100.0),
        ),
        ("… the longest", lag(1.0)),
        ("resident memory after the changes", mib(after.resident)),
        ("most resident memory while listing again", mib(again.peak)),
        ("resident memory after listing again", mib(last.resident)),
    ])
}

/// Writes at a rate: mostly pods that change, some that come and go, and EndpointSlices and policies. How many writes tell their time.
fn change(options: &Options, server: &Server) -> Result<usize, Failure> {
    let began = Instant::now();
    let mut written = 0;
    for number in 0..options.rate * options.seconds {
        let due = began + Duration::from_secs_f64(number as f64 / options.rate as f64);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        // Spread over the cluster.
        let pod = number * 7919 % options.pods;
        let now = Timestamp::now().as_microsecond().to_string();
        let done = match number % 20 {
            0 => server.load([objects::slice(pod / 10, number)]),
            1 => server.load([objects::policy(number % options.policies, number)]),
            2..5 => {
                let (namespace, name) = objects::pod_key(pod);
                written += 1;
                server.finish_pod(&namespace, &name).and_then(|()| server.create(objects::pod(pod, number, &now)).map(|_| ()))
            }
            _ => {
                let (namespace, name) = objects::pod_key(pod);
                written += 1;
                let labels = json!({"written-at": now});
                server
                    .patch(
                        &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": namespace, "name": name, "labels": labels}}),
                    )
                    .map(|_| ())
            }
        };
        done.map_err(|refusal| format!("{refusal:?}"))?;
    }
    eprintln!("{} changes took {:.1} s", options.rate * options.seconds, began.elapsed().as_secs_f64());
    Ok(written)
}
