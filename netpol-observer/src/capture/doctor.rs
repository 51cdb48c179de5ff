//! What works here and what does not: the checks behind `observer doctor`.

use std::io;
use std::net::UdpSocket;
use std::time::Duration;

use netpol_observer_common::{DropRecord, Field};
use serde::Serialize;
use tokio::time::timeout;
use zerocopy::FromBytes as _;

use super::candidates::Candidates;
use super::kernel::{self, Kernel};
use super::live::{LiveOptions, open};
use super::permissions::{self, Capability, Permissions, refuser};
use super::surroundings;
use super::{Attach, CaptureError, Captured, Form, TRACEPOINT, is_built_in};

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Works,
    /// Capture works with something less.
    Limited,
    /// Capture cannot work.
    Fails,
    /// Could not be asked, because something before it failed.
    Skipped,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// How it is.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// What it means and what to do, unless it works.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Check {
    fn works(name: &'static str, found: impl Into<String>) -> Self {
        Check { name, status: Status::Works, found: found.into(), advice: None }
    }

    fn not(name: &'static str, status: Status, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Check { name, status, found: found.into(), advice: Some(advice.into()) }
    }

    fn error(name: &'static str, error: &CaptureError) -> Self {
        Check::not(name, Status::Fails, error.to_string(), error.hint())
    }
}

/// Looks at everything capture needs, from the binary to a real packet. Changes nothing; the one packet it has dropped goes
/// to this machine's own loopback address.
pub async fn examine(options: LiveOptions) -> Vec<Check> {
    let mut checks = vec![program(), capabilities(), system_call()];
    checks.extend(memory_lock());
    match Kernel::read(options.kernel_btf.as_deref()) {
        Ok(kernel) => {
            checks.push(types(&kernel, &options));
            checks.extend(kernel_checks(&kernel, options.attach));
        }
        Err(error) => checks.push(Check::error("kernel types", &error)),
    }
    let blocked = checks.iter().any(|check| check.status == Status::Fails);
    checks.push(if blocked {
        Check { name: "a real drop", status: Status::Skipped, found: "not tried, since something above fails".to_owned(), advice: None }
    } else {
        real_drop(options).await
    });
    checks
}

fn program() -> Check {
    if is_built_in() { Check::works("eBPF program", "built in") } else { Check::error("eBPF program", &CaptureError::NoProgram) }
}

fn capabilities() -> Check {
    const NAME: &str = "capabilities";
    let permissions = Permissions::read();
    let missing = permissions.missing_for_capture();
    if !missing.is_empty() {
        return Check::error(NAME, &CaptureError::NotPermitted { what: "load and attach programs", missing });
    }
    if !permissions.has(Capability::Syslog) {
        return Check::not(
            NAME,
            Status::Limited,
            "CAP_BPF and CAP_PERFMON, but not CAP_SYSLOG",
            "without CAP_SYSLOG kernel addresses have no names: the hook is not known, and drops that are told by their place are not seen",
        );
    }
    Check::works(NAME, "CAP_BPF, CAP_PERFMON and CAP_SYSLOG are effective")
}

fn system_call() -> Check {
    const NAME: &str = "bpf()";
    let confined = match Permissions::read().seccomp {
        0 => "no seccomp filter",
        _ => "a seccomp filter, which lets it through",
    };
    match refuser() {
        None => Check::works(NAME, format!("the system call reaches the kernel ({confined})")),
        Some(refuser) => Check::error(NAME, &CaptureError::Refused(refuser)),
    }
}

/// Of interest only where maps count against the limit.
fn memory_lock() -> Option<Check> {
    const NAME: &str = "memory lock";
    let release = kernel::release();
    let limit = permissions::memory_lock(&release)?;
    Some(if Permissions::read().has(Capability::SysResource) {
        Check::works(NAME, format!("maps count against the limit of {} KiB, which CAP_SYS_RESOURCE raises", limit / 1024))
    } else {
        let error = CaptureError::MemoryLock { release, limit };
        Check::not(NAME, Status::Limited, error.to_string(), error.hint())
    })
}

fn types(kernel: &Kernel, options: &LiveOptions) -> Check {
    const NAME: &str = "kernel types";
    let modules = kernel.modules();
    let of_modules = if modules.is_empty() { String::new() } else { format!(", and of its modules {}", modules.join(", ")) };
    match &options.kernel_btf {
        Some(path) => Check::works(NAME, format!("BTF in {} for kernel {}", path.display(), kernel.release)),
        None => Check::works(NAME, format!("BTF of kernel {}{of_modules}", kernel.release)),
    }
}

fn tracepoint(kernel: &Kernel, attach: Attach) -> Check {
    const NAME: &str = "tracepoint";
    let Some(arguments) = kernel.tracepoint_arguments(TRACEPOINT) else {
        return Check::error(NAME, &CaptureError::NoTracepoint { release: kernel.release.clone(), tracepoint: TRACEPOINT });
    };
    let form = match (attach, kernel.has_typed_tracepoint(TRACEPOINT)) {
        (Attach::Raw, _) | (Attach::Auto, false) => Form::Raw,
        (Attach::Auto | Attach::Typed, true) => Form::Typed,
        (Attach::Typed, false) => {
            let error = CaptureError::NoTypedTracepoint { release: kernel.release.clone(), tracepoint: TRACEPOINT };
            return Check::error(NAME, &error);
        }
    };
    Check::works(NAME, format!("{TRACEPOINT} with {arguments} arguments, by {}", form.name()))
}

fn kernel_checks(kernel: &Kernel, attach: Attach) -> Vec<Check> {
    let mut checks = vec![tracepoint(kernel, attach)];
    checks.push(match kernel.offsets() {
        Err(error) => Check::error("kernel fields", &error),
        Ok(offsets) if offsets.absent.is_empty() => Check::works("kernel fields", format!("all {} found", Field::COUNT)),
        Ok(offsets) => {
            let list: Vec<String> = offsets.absent.iter().map(|(_, error)| error.to_string()).collect();
            let advice = "records leave out what these fields would tell; where they belong to a module (nf_conntrack), load it first";
            Check::not("kernel fields", Status::Limited, list.join("; "), advice)
        }
    });
    let reasons = kernel.reasons();
    let symbols = Kernel::symbols();
    checks.push(if reasons.is_empty() && symbols.is_empty() {
        Check::error("drop reasons", &CaptureError::NoPlaces { release: kernel.release.clone() })
    } else if reasons.is_empty() {
        let advice = "drops are told from other frees by the function that freed the packet; what shares a function cannot be told apart";
        Check::not("drop reasons", Status::Limited, "none: this kernel is from before 5.17", advice)
    } else {
        Check::works("drop reasons", format!("{} named by the kernel", reasons.len()))
    });
    checks.push(if symbols.is_empty() {
        let advice = "give CAP_SYSLOG, and set sysctl kernel.kptr_restrict to 0 or 1";
        Check::not("kernel symbols", Status::Limited, "/proc/kallsyms shows no addresses to this process", advice)
    } else {
        Check::works("kernel symbols", format!("{} functions", symbols.len()))
    });
    let candidates = Candidates::new(&reasons, &symbols);
    let found = format!("{} reasons, {} functions", candidates.reasons.len(), candidates.locations.len());
    checks.push(if candidates.missing.is_empty() {
        Check::works("candidate table", found)
    } else {
        let advice = format!("drops of these kinds cannot be told apart on this kernel as it is now: {}", candidates.missing.join("; "));
        Check::not("candidate table", Status::Limited, found, advice)
    });
    let missing: Vec<&str> = surroundings::known(kernel).into_iter().filter(|(_, known)| !known).map(|(what, _)| what).collect();
    checks.push(if missing.is_empty() {
        Check::works("surroundings", "chains of nftables, tables of iptables, the other end of a veth, the names of cgroups")
    } else {
        // As long as a module is not loaded, nothing of its kind drops packets.
        let found = format!("without {}: this kernel shows no types of them, or their modules are not loaded", missing.join(", "));
        Check::works("surroundings", found)
    });
    let cgroups = match std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers") {
        Ok(_) => Check::works("cgroups", "version 2: sockets are told apart by their cgroup"),
        Err(_) => {
            Check::not("cgroups", Status::Limited, "no cgroup v2 hierarchy at /sys/fs/cgroup", "sockets' cgroups may all be the root's")
        }
    };
    checks.push(cgroups);
    checks
}

/// Calls a port on loopback that nobody listens on, and waits for the record of it.
async fn real_drop(options: LiveOptions) -> Check {
    const NAME: &str = "a real drop";
    let mut live = match open(options) {
        Ok(live) => live,
        Err(error) => return Check::error(NAME, &error),
    };
    let port = match call_closed_port() {
        Ok(port) => port,
        Err(error) => {
            return Check::not(NAME, Status::Limited, format!("cannot make one: {error}"), "loopback is not usable here");
        }
    };
    let seen = timeout(Duration::from_secs(3), async {
        while let Some(captured) = live.next().await {
            if let Captured::Record(bytes) = captured
                && let Ok(record) = DropRecord::read_from_bytes(&bytes)
                && record.header.get(22..24) == Some(&port.to_be_bytes()[..])
            {
                return true;
            }
        }
        false
    })
    .await;
    live.stop();
    match seen {
        Ok(true) => Check::works(
            NAME,
            format!("a datagram to the closed port 127.0.0.1:{port} was dropped and its record has arrived, by {}", live.form().name()),
        ),
        _ => Check::not(
            NAME,
            Status::Fails,
            format!("no record within 3 s of a datagram to the closed port 127.0.0.1:{port} on kernel {}", kernel::release()),
            "the program is attached but does not see drops; please report the kernel release and this output",
        ),
    }
}

/// Sends a datagram to a loopback port that was free a moment ago.
fn call_closed_port() -> io::Result<u16> {
    let closed = UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
    UdpSocket::bind("127.0.0.1:0")?.send_to(b"observer doctor", closed)?;
    Ok(closed.port())
}
