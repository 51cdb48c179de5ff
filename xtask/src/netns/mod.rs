//! Test beds of network namespaces: a node, pods attached to it as CNI plugins do it, and hosts outside the cluster.
//!
//! ```text
//!   pod "api" ── eth0 ═ vethapi ──┐
//!   pod "web" ── eth0 ═ vethweb ──┤ node ── extclient ═ eth0 ── external host "client"
//! ```
//!
//! A [`Bed`] owns everything it makes. Dropping it (on panic too) kills what runs in its namespaces and removes them and
//! its temporary directory. A run that was killed leaves them behind; the names carry the process that made them, so that
//! [`Bed::cleanup_stale`], which [`Bed::new`] calls, can tell leftovers from beds in use.
//!
//! Needs root, and the programs of [`required_tools`].

mod named;
mod namespace;
mod netlink;
mod node;
mod process;
mod sandbox;
mod stale;
#[cfg(test)]
mod tests;

pub use namespace::{CounterValue, Netns};
pub use node::{Bridge, Node};
pub use process::{Output, Process};
pub use sandbox::{Sandbox, in_cgroup2};

use std::env;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, bail};

use crate::command::{find, is_root};
use crate::netns::stale::Owner;

/// Where iproute2 keeps named namespaces.
const NETNS_DIR: &str = "/run/netns";

/// Numbers the beds of one process.
static NEXT_BED: AtomicU32 = AtomicU32::new(0);

/// A program that is needed and was not found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissingTool {
    /// File name of the program.
    pub program: &'static str,
    /// Debian package that has it.
    pub package: &'static str,
}

/// The programs test beds need that are neither in `PATH` nor in the system directories.
pub fn required_tools() -> Vec<MissingTool> {
    missing(&[MissingTool { program: "ip", package: "iproute2" }, MissingTool { program: "nft", package: "nftables" }])
}

/// Likewise, what only the tests of further enforcers need; without, each says that it cannot run.
pub fn enforcer_tools() -> Vec<MissingTool> {
    missing(&[
        MissingTool { program: "iptables-legacy", package: "iptables" },
        MissingTool { program: "ipset", package: "ipset" },
        MissingTool { program: "tc", package: "iproute2" },
    ])
}

fn missing(tools: &[MissingTool]) -> Vec<MissingTool> {
    tools.iter().filter(|tool| find(tool.program).is_none()).copied().collect()
}

/// A set of network namespaces that lives as long as this value.
#[derive(Debug)]
pub struct Bed {
    id: String,
    directory: PathBuf,
    namespaces: Vec<Netns>,
}

impl Bed {
    /// An empty bed. Its namespaces are called `PREFIX-PID-START-NUMBER-NAME`.
    ///
    /// # Errors
    /// Not root, programs missing, or no temporary directory.
    pub fn new(prefix: &str) -> Result<Self> {
        check_name(prefix)?;
        if !is_root() {
            bail!("network namespaces need root: run this with sudo");
        }
        if let Some(tool) = required_tools().first() {
            bail!("the program `{}` is missing: install the package {} (apt-get install {})", tool.program, tool.package, tool.package);
        }
        Self::cleanup_stale(prefix)?;
        let number = NEXT_BED.fetch_add(1, Ordering::Relaxed);
        let id = format!("{prefix}-{}-{number}", Owner::this_process()?);
        let directory = env::temp_dir().join(&id);
        fs::create_dir(&directory).with_context(|| format!("cannot make the directory {}", directory.display()))?;
        Ok(Self { id, directory, namespaces: Vec::new() })
    }

    /// A directory for files of this run; removed with the bed.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A namespace with nothing in it but `lo`, which is up.
    ///
    /// # Errors
    /// The name is taken or unusable, or `ip` failed.
    pub fn namespace(&mut self, name: &str) -> Result<Netns> {
        let namespace = self.bare(name)?;
        namespace.netlink(|netlink| netlink.set_up("lo", None))?;
        Ok(namespace)
    }

    /// Likewise, with `lo` still down.
    fn bare(&mut self, name: &str) -> Result<Netns> {
        check_name(name)?;
        let namespace = Netns::named(format!("{}-{name}", self.id), name);
        named::add(namespace.full_name())?;
        self.namespaces.push(namespace.clone());
        namespace.quiet_ipv6()?;
        Ok(namespace)
    }

    /// A node: forwards IPv4 and IPv6, checks no reverse path, and has `addresses` as its own (on `lo`, as /32 and /128).
    ///
    /// # Errors
    /// As [`Bed::namespace`].
    pub fn node(&mut self, name: &str, addresses: &[IpAddr]) -> Result<Node> {
        let namespace = self.bare(name)?;
        Node::prepare(namespace, addresses)
    }

    /// Removes what dead runs with this prefix have left: namespaces, processes in them, temporary directories. Says how
    /// many namespaces that were.
    ///
    /// # Errors
    /// A leftover cannot be removed.
    pub fn cleanup_stale(prefix: &str) -> Result<usize> {
        stale::cleanup(prefix)
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        for namespace in self.namespaces.drain(..) {
            if let Err(error) = stale::remove_namespace(namespace.full_name()) {
                eprintln!("left behind: network namespace {}: {error:#}", namespace.full_name());
            }
        }
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            eprintln!("left behind: {}: {error}", self.directory.display());
        }
    }
}

/// Names become file names and words of command lines.
fn check_name(name: &str) -> Result<()> {
    let fits = !name.is_empty()
        && name.len() <= 63
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if !fits {
        bail!("`{name}` cannot name a namespace: use lower-case letters, digits and dashes, a letter first, at most 63");
    }
    Ok(())
}
