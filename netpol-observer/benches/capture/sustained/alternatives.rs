//! What people use today: bpftrace on the tracepoint, and the firewall's own log.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result, bail};
use aya::programs::loaded_programs;
use netpol_observer::capture::kernel::Kernel;
use xtask::netns::{Netns, Process};
use xtask::packages;

use super::{Running, Tool, lines_with};
use crate::scene::Scene;

/// `enum bpf_prog_type` (include/uapi/linux/bpf.h).
const BPF_PROG_TYPE_TRACEPOINT: u32 = 5;

/// How long one may take to start, and to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes of the buffers between kernel and program, as many as the observer's ring has.
const BUFFER: usize = 8 * 1024 * 1024;

/// Beginning of a line that bpftrace prints for a packet.
const MARK: &str = "drop ";

/// Where bpftrace looks for the tracepoints' formats. Not every machine has it mounted: then it is mounted for bpftrace alone.
const TRACEFS: &str = "/sys/kernel/tracing";

struct Bpftrace {
    program: String,
}

/// The well-known one-liner, with what it can tell of a packet.
pub(super) fn bpftrace(_scene: &Scene) -> Result<Box<dyn Tool>, (&'static str, Error)> {
    let make = || -> Result<Bpftrace> {
        packages::ensure("the comparison with bpftrace", &["bpftrace", "util-linux", "mount"])?;
        let reasons = Kernel::read(None)?.reasons();
        let reason = reasons.iter().find(|(_, name)| name.ends_with("_NETFILTER_DROP")).map(|(number, _)| number);
        let reason = reason.context("this kernel has no drop reason NETFILTER_DROP")?;
        let program = format!(
            r#"BEGIN {{ printf("ready\n"); }}
            tracepoint:skb:kfree_skb /args->reason == {reason}/ {{
              $skb = (struct sk_buff *)args->skbaddr;
              $ip = (struct iphdr *)($skb->head + $skb->network_header);
              $udp = (struct udphdr *)($skb->head + $skb->network_header + 20);
              printf("{MARK}%llu %d %s %s > %s %d\n", nsecs, args->reason, ksym(args->location), ntop($ip->saddr), ntop($ip->daddr), $udp->dest);
            }}"#
        );
        Ok(Bpftrace { program })
    };
    let name = "bpftrace, kfree_skb one-liner";
    make().map(|tool| Box::new(tool) as Box<dyn Tool>).map_err(|error| (name, error))
}

impl Tool for Bpftrace {
    fn name(&self) -> &str {
        "bpftrace, kfree_skb one-liner"
    }

    fn start(&self, output: &Path) -> Result<Box<dyn Running>> {
        let mount = if Path::new(TRACEFS).join("events").is_dir() { "" } else { "mount -t tracefs tracefs /sys/kernel/tracing && " };
        let mut command = Command::new("unshare");
        // Written in blocks: a system call for each line would slow it down.
        command.args(["--mount", "sh", "-c", &format!("{mount}exec bpftrace -B full -o \"$1\" -e \"$0\""), &self.program]).arg(output);
        let pages = BUFFER / 4096 / xtask::traffic::cpus();
        command.env("BPFTRACE_PERF_RB_PAGES", pages.next_power_of_two().to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = Process::start(&mut command)?;
        let said = listen(&mut process)?;
        // "Attaching 2 probes..." is written to the output, and is in a buffer until there is more of it; the program is there before.
        let begin = Instant::now();
        while !is_loaded("kfree_skb") {
            if process.try_wait()?.is_some() || begin.elapsed() > PATIENCE {
                drop(process);
                bail!("bpftrace does not start: {}", said.join().unwrap_or_default().join("; "));
            }
            thread::sleep(Duration::from_millis(50));
        }
        thread::sleep(Duration::from_millis(300));
        Ok(Box::new(Started { process, said, signal: libc::SIGINT, log: None }))
    }

    fn delivered(&self, text: &[u8]) -> Result<u64> {
        Ok(self.reports(text))
    }

    fn reports(&self, text: &[u8]) -> u64 {
        lines_with(text, MARK.as_bytes())
    }
}

/// Whether a program on an ordinary tracepoint with this name is loaded: bpftrace gives its program the tracepoint's.
fn is_loaded(name: &str) -> bool {
    loaded_programs()
        .flatten()
        .any(|program| program.name_as_str() == Some(name) && program.program_type() as u32 == BPF_PROG_TYPE_TRACEPOINT)
}

struct Ulogd {
    node: Netns,
    directory: PathBuf,
    plugins: PathBuf,
}

/// The firewall logs to a netlink group, and ulogd2 writes a line for each packet.
pub(super) fn ulogd(scene: &Scene) -> Result<Box<dyn Tool>, (&'static str, Error)> {
    let make = || -> Result<Ulogd> {
        packages::ensure("the comparison with NFLOG", &["ulogd2"])?;
        let directories = fs::read_dir("/usr/lib").context("cannot list /usr/lib")?.flatten().map(|entry| entry.path().join("ulogd"));
        let plugins = directories.into_iter().find(|directory| directory.join("ulogd_inppkt_NFLOG.so").is_file());
        let plugins = plugins.context("ulogd2's plugins are not below /usr/lib")?;
        scene.rules(NFLOG).context("this kernel has no NFLOG")?;
        scene.rules("")?;
        Ok(Ulogd { node: scene.node.clone(), directory: scene.directory().to_owned(), plugins })
    };
    make().map(|tool| Box::new(tool) as Box<dyn Tool>).map_err(|error| ("NFLOG with ulogd2", error))
}

/// As many packets as the kernel will put into one message at most.
const NFLOG: &str = "log group 7 queue-threshold 64";

impl Tool for Ulogd {
    fn name(&self) -> &str {
        "NFLOG with ulogd2"
    }

    fn rule(&self) -> &'static str {
        NFLOG
    }

    fn start(&self, output: &Path) -> Result<Box<dyn Running>> {
        let (log, configuration) = (self.directory.join("ulogd.log"), self.directory.join("ulogd.conf"));
        let _ = fs::remove_file(&log);
        let _ = fs::remove_file(output);
        let plugins: String = ["inppkt_NFLOG", "raw2packet_BASE", "filter_IFINDEX", "filter_IP2STR", "filter_PRINTPKT", "output_LOGEMU"]
            .map(|plugin| format!("plugin=\"{}/ulogd_{plugin}.so\"\n", self.plugins.display()))
            .concat();
        let text = format!(
            "[global]\nlogfile=\"{}\"\nloglevel=3\n{plugins}\
             stack=log:NFLOG,base:BASE,ifi:IFINDEX,ip2str:IP2STR,print:PRINTPKT,emu:LOGEMU\n\
             [log]\ngroup=7\nnetlink_socket_buffer_size={BUFFER}\nnetlink_socket_buffer_maxsize={}\n\
             [emu]\nfile=\"{}\"\nsync=0\n",
            log.display(),
            // It takes sizes below this one only.
            2 * BUFFER,
            output.display()
        );
        fs::write(&configuration, text).with_context(|| format!("cannot write {}", configuration.display()))?;
        let mut command = Command::new("ulogd");
        command.arg("--configfile").arg(&configuration).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = self.node.spawn(command)?;
        let said = listen(&mut process)?;
        let begin = Instant::now();
        while !fs::read_to_string(&log).unwrap_or_default().contains("entering main loop") {
            if process.try_wait()?.is_some() || begin.elapsed() > PATIENCE {
                drop(process);
                let text = fs::read_to_string(&log).unwrap_or_default();
                bail!("ulogd does not start: {} {}", said.join().unwrap_or_default().join("; "), text.trim());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(Box::new(Started { process, said, signal: libc::SIGTERM, log: Some(log) }))
    }

    fn delivered(&self, text: &[u8]) -> Result<u64> {
        Ok(self.reports(text))
    }

    fn reports(&self, text: &[u8]) -> u64 {
        text.iter().filter(|&&byte| byte == b'\n').count() as u64
    }
}

struct Started {
    process: Process,
    said: JoinHandle<Vec<String>>,
    signal: i32,
    /// Where it says things besides.
    log: Option<PathBuf>,
}

impl Running for Started {
    fn stop(self: Box<Self>) -> Result<Vec<String>> {
        let status = self.process.stop(self.signal, PATIENCE)?;
        if status.is_none() {
            bail!("it did not end within {} s", PATIENCE.as_secs());
        }
        let mut said = self.said.join().unwrap_or_default();
        if let Some(log) = self.log.and_then(|log| File::open(log).ok()) {
            said.extend(BufReader::new(log).lines().map_while(Result::ok));
        }
        // What it says of itself when all is well is of no interest.
        said.retain(|line| line.contains("ost") || line.contains("losing") || line.contains("full"));
        Ok(said)
    }
}

/// Reads standard error, so that it does not fill up.
fn listen(process: &mut Process) -> Result<JoinHandle<Vec<String>>> {
    let lines = BufReader::new(process.child().stderr.take().context("standard error is piped")?).lines();
    Ok(thread::spawn(move || lines.map_while(Result::ok).collect()))
}
