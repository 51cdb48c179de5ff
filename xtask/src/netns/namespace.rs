//! A handle to one namespace, and doing things inside it.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::netns::NETNS_DIR;
use crate::netns::netlink::Netlink;
use crate::netns::process::{self, Output, Process};

/// How long a new link may take to come up.
const LINK_PATIENCE: Duration = Duration::from_secs(10);

/// A named network namespace. The handle is a name: it keeps nothing alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netns {
    full_name: String,
    short_name: String,
}

/// What a named nftables counter has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CounterValue {
    /// Packets.
    pub packets: u64,
    /// Bytes from the network header on.
    pub bytes: u64,
}

impl Netns {
    pub(super) fn named(full_name: String, short_name: &str) -> Self {
        Self { full_name, short_name: short_name.to_owned() }
    }

    /// The name it was asked for by.
    pub fn name(&self) -> &str {
        &self.short_name
    }

    /// The name `ip netns` knows it by, unique on this machine.
    pub fn full_name(&self) -> &str {
        &self.full_name
    }

    /// The file that stands for it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(NETNS_DIR).join(&self.full_name)
    }

    /// Its inode number, which the kernel's records carry (`net.ns.inum`).
    ///
    /// # Errors
    /// It is gone.
    pub fn inode(&self) -> Result<u64> {
        use std::os::unix::fs::MetadataExt as _;
        Ok(fs::metadata(self.path()).with_context(|| format!("network namespace {} is gone", self.full_name))?.ino())
    }

    /// Runs a closure on a thread of its own that has entered the namespace. Sockets opened there stay in it wherever
    /// they are used afterwards; so do processes started there. A panic of the closure goes on in the caller.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub fn in_ns<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let file = self.open()?;
        thread::scope(|scope| {
            scope
                .spawn(move || {
                    enter(file.as_raw_fd()).with_context(|| format!("cannot enter network namespace {}", self.full_name))?;
                    Ok(work())
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs a program in the namespace to its end.
    ///
    /// # Errors
    /// It cannot be started or fails; the message has the command, the status and what it wrote to standard error.
    pub fn exec(&self, words: &[&str]) -> Result<Output> {
        self.exec_with_input(words, None)
    }

    /// Starts a program in the namespace that goes on running until the guard is dropped. Pipes are as set on `command`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&self, mut command: Command) -> Result<Process> {
        self.place(&mut command)?;
        Process::start(&mut command).with_context(|| format!("in network namespace {}", self.short_name))
    }

    /// Loads a ruleset written in the nft language; atomic, as `nft -f` is.
    ///
    /// # Errors
    /// nft refuses it; the message says where.
    pub fn nft(&self, ruleset: &str) -> Result<()> {
        self.exec_with_input(&["nft", "-f", "-"], Some(ruleset)).map(drop)
    }

    /// All named counters: family, table, name and value.
    ///
    /// # Errors
    /// nft fails or answers with something else than counters.
    pub fn counters(&self) -> Result<Vec<(String, String, String, CounterValue)>> {
        let output = self.exec(&["nft", "-j", "list", "counters"])?;
        let answer: Value = serde_json::from_str(&output.stdout).context("nft -j list counters does not answer with JSON")?;
        let entries = answer.get("nftables").and_then(Value::as_array).context("nft -j list counters: no list `nftables`")?;
        entries
            .iter()
            .filter_map(|entry| entry.get("counter"))
            .map(|counter| {
                let text = |key: &str| counter.get(key).and_then(Value::as_str).map(str::to_owned);
                let number = |key: &str| counter.get(key).and_then(Value::as_u64);
                (|| {
                    let value = CounterValue { packets: number("packets")?, bytes: number("bytes")? };
                    Some((text("family")?, text("table")?, text("name")?, value))
                })()
                .with_context(|| format!("nft -j list counters: not a counter: {counter}"))
            })
            .collect()
    }

    /// The named counter, in whichever table it is.
    ///
    /// # Errors
    /// No table or more than one has a counter of that name.
    pub fn counter(&self, name: &str) -> Result<CounterValue> {
        let counters = self.counters()?;
        let mut found = counters.iter().filter(|(_, _, candidate, _)| candidate == name);
        match (found.next(), found.next()) {
            (Some((_, _, _, value)), None) => Ok(*value),
            (Some(_), Some(_)) => bail!("several tables of {} have a counter `{name}`", self.short_name),
            (None, _) => {
                let names: Vec<&str> = counters.iter().map(|(_, _, name, _)| name.as_str()).collect();
                bail!("no counter `{name}` in {}; there are: {}", self.short_name, names.join(", "))
            }
        }
    }

    /// Sets a kernel parameter, named as sysctl(8) does it (`net.ipv4.conf.all.rp_filter`).
    ///
    /// # Errors
    /// This kernel does not have it, or refuses the value.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        let path = sysctl_path(name);
        self.in_ns(|| fs::write(&path, value))?
            .with_context(|| format!("cannot set {name}={value} in network namespace {}", self.short_name))
    }

    /// Whether this kernel has the parameter in this namespace.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub fn has_sysctl(&self, name: &str) -> Result<bool> {
        let path = sysctl_path(name);
        self.in_ns(|| path.exists())
    }

    /// Waits until a device that has been set up is ready for IPv6 too, which it is last: some time after the other end is up, its routes to
    /// multicast groups and its link-local address appear. What is sent before has no route.
    ///
    /// # Errors
    /// It does not come up within [`LINK_PATIENCE`].
    pub fn wait_for_link(&self, interface: &str) -> Result<()> {
        let end = Instant::now() + LINK_PATIENCE;
        self.in_ns(|| {
            loop {
                let addresses = fs::read_to_string("/proc/thread-self/net/if_inet6")
                    .context("this kernel has no IPv6, which the test beds need: boot it without ipv6.disable=1")?;
                if addresses.lines().any(|line| is_own_link_local(line, interface)) {
                    return Ok(());
                }
                if Instant::now() >= end {
                    bail!("{interface} in {} does not come up; addresses there:\n{}", self.short_name, addresses.trim());
                }
                thread::sleep(Duration::from_millis(2));
            }
        })?
    }

    /// Runs lines of ip(8) commands, each without the leading `ip`, to the first that fails.
    ///
    /// # Errors
    /// One fails; the message has what ip said and all lines.
    pub fn ip(&self, commands: &str) -> Result<()> {
        self.exec_with_input(&["ip", "-batch", "-"], Some(commands)).map(drop)
    }

    /// Asks the kernel for devices, addresses and routes.
    pub(super) fn netlink(&self, work: impl FnOnce(&mut Netlink) -> Result<()> + Send) -> Result<()> {
        self.in_ns(|| work(&mut Netlink::open()?))?.with_context(|| format!("in network namespace {}", self.short_name))
    }

    /// Addresses count at once (no duplicate address detection) and nobody asks for routers.
    pub(super) fn quiet_ipv6(&self) -> Result<()> {
        for scope in ["all", "default"] {
            self.sysctl(&format!("net.ipv6.conf.{scope}.disable_ipv6"), "0")?;
            self.sysctl(&format!("net.ipv6.conf.{scope}.accept_dad"), "0")?;
            self.sysctl(&format!("net.ipv6.conf.{scope}.accept_ra"), "0")?;
            self.sysctl(&format!("net.ipv6.conf.{scope}.router_solicitations"), "0")?;
        }
        Ok(())
    }

    fn exec_with_input(&self, words: &[&str], input: Option<&str>) -> Result<Output> {
        let [program, arguments @ ..] = words else { bail!("no program to run in {}", self.short_name) };
        let mut command = Command::new(program);
        command.args(arguments);
        self.place(&mut command)?;
        process::run(&mut command, input).with_context(|| format!("in network namespace {}", self.short_name))
    }

    /// Makes a command start inside the namespace.
    fn place(&self, command: &mut Command) -> Result<()> {
        let file = self.open()?;
        // SAFETY: the closure runs between fork and exec; it makes one system call and allocates nothing. It owns the
        // file, so the descriptor is open.
        unsafe { command.pre_exec(move || enter(file.as_raw_fd())) };
        Ok(())
    }

    pub(super) fn open(&self) -> Result<File> {
        File::open(self.path()).with_context(|| format!("network namespace {} is gone", self.full_name))
    }
}

/// Whether a line of /proc/net/if_inet6 (address, index, prefix length, scope, flags, name) is the link-local address that a device gives itself.
/// fe80::1 is what nodes are given as gateway.
fn is_own_link_local(line: &str, interface: &str) -> bool {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [address, _, _, scope, _, name] = words[..] else { return false };
    name == interface && scope == "20" && address != "fe800000000000000000000000000001"
}

/// Moves the calling thread into a network namespace.
fn enter(descriptor: RawFd) -> io::Result<()> {
    // SAFETY: setns takes two integers and touches no memory of this process; the callers hold the descriptor open.
    if unsafe { libc::setns(descriptor, libc::CLONE_NEWNET) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `/proc/sys/net` shows the namespace of the thread that looks.
fn sysctl_path(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(name.replace('.', "/"))
}
