//! A drop's surroundings, asked of the running kernel: the functions registered at its hook, and the other end of its device.
//!
//! The `surroundings` program follows pointers from a device that a record came from (`net` → `netns_nf` → `nf_hook_entries` →
//! `nft_chain`; `net_device` → its peer), and `cgroup_names` those from a socket's cgroup to the root of its hierarchy. They are run on demand,
//! at most once a second for each hook of a namespace; rules are neither added nor listed, and no capability beyond those of capture is needed,
//! nor a view of the host's processes or cgroups.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya::maps::{Array, MapData};
use aya::programs::{RawTracePoint, RawTracePointRunOptions, TestRun as _};
use netpol_observer_common::{ABSENT, CgroupNames, HookEntry, MAX_HOOK_ENTRIES, Surroundings as Answer, Way};
use zerocopy::FromBytes as _;

use super::error::CaptureError;
use super::kernel::Kernel;
use super::program::{SharedEbpf, take};
use super::sandbox::{Sandboxes, pod_uid_in};
use crate::flow::{HookFamily, HookFunction, HookPoint, Peer, Symbol};

/// The programs' names in the object.
const PROGRAM: &str = "surroundings";
const CGROUP_PROGRAM: &str = "cgroup_names";
/// How long an answer holds: rules are changed, but not between the packets of one flood.
const VALID: Duration = Duration::from_secs(1);
/// Answers kept; beyond that all are forgotten.
const MAX_ANSWERS: usize = 4096;
/// `struct net_device` is padded to this before the private data of its driver (`NETDEV_ALIGN`), until 6.9 gave it a member.
const NETDEV_ALIGN: u32 = 32;

type AnswerBytes = [u8; size_of::<Answer>()];
type CgroupBytes = [u8; size_of::<CgroupNames>()];

/// What can be asked.
pub(super) struct Surroundings {
    ebpf: SharedEbpf,
    state: Mutex<State>,
}

impl std::fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings").finish_non_exhaustive()
    }
}

struct State {
    answer: Array<MapData, AnswerBytes>,
    cgroup_answer: Array<MapData, CgroupBytes>,
    ways: Array<MapData, u32>,
    /// Offsets in `struct net` of the arrays of hooks.
    hooks: [Option<u32>; 3],
    functions: HashMap<HookPoint, (Instant, Arc<[HookFunction]>)>,
    peers: HashMap<(u32, u32), (Instant, Option<Peer>)>,
    sandboxes: Sandboxes,
    /// By the ids of their cgroups. Whose a cgroup is never changes, and no other gets its id; one that was not found is asked for again.
    pods: HashMap<u64, (Instant, Option<Arc<str>>)>,
}

impl Surroundings {
    /// Loads the programs.
    pub(super) fn load(shared: &SharedEbpf, kernel: &Kernel) -> Result<Self, CaptureError> {
        let mut ebpf = shared.lock().unwrap_or_else(PoisonError::into_inner);
        for name in [PROGRAM, CGROUP_PROGRAM] {
            program(&mut ebpf, name)?.load().map_err(|error| CaptureError::Load(error.to_string()))?;
        }
        let mut state = State {
            answer: take(&mut ebpf, "SURROUNDINGS")?,
            cgroup_answer: take(&mut ebpf, "CGROUP_NAMES")?,
            ways: take(&mut ebpf, "WAYS")?,
            hooks: [None; 3],
            functions: HashMap::new(),
            peers: HashMap::new(),
            sandboxes: Sandboxes::default(),
            pods: HashMap::new(),
        };
        drop(ebpf);
        state.find_ways(kernel)?;
        Ok(Surroundings { ebpf: Arc::clone(shared), state: Mutex::new(state) })
    }

    /// Looks the fields up again, after modules have been loaded.
    pub(super) fn refresh(&self, kernel: &Kernel) -> Result<(), CaptureError> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).find_ways(kernel)
    }

    /// See [`KernelNames::hook_functions`](crate::flow::KernelNames::hook_functions). `symbol` names a function.
    pub(super) fn hook_functions(&self, at: HookPoint, ifindex: u32, symbol: impl Fn(u64) -> Option<Symbol>) -> Arc<[HookFunction]> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = valid(&state.functions, &at) {
            return known;
        }
        let found: Arc<[HookFunction]> = match state.hooks_offset(at).and_then(|offset| self.ask(&state, at.netns, ifindex, offset)) {
            Some(answer) => {
                let count = (answer.hooks as usize).min(MAX_HOOK_ENTRIES);
                answer.entries.iter().take(count).filter_map(|entry| function(entry, &symbol)).collect()
            }
            None => Arc::from([]),
        };
        keep(&mut state.functions, at, Arc::clone(&found));
        found
    }

    /// See [`KernelNames::peer`](crate::flow::KernelNames::peer).
    pub(super) fn peer(&self, netns: u32, ifindex: u32) -> Option<Peer> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { peers, sandboxes, .. } = &mut *state;
        if let Some((when, known)) = peers.get_mut(&(netns, ifindex))
            && when.elapsed() < VALID
        {
            // The device is there before the pod's first process is.
            if let Some(peer) = known
                && peer.pod_uid.is_none()
            {
                peer.pod_uid = sandboxes.pod_uid(peer.netns);
            }
            return known.clone();
        }
        let answer = self.ask(&state, netns, ifindex, 0).filter(|answer| answer.peer_netns != 0 && is_pair(&text(&answer.kind)));
        let peer = answer.map(|answer| Peer {
            netns: answer.peer_netns,
            index: answer.peer_ifindex,
            name: text(&answer.peer_name),
            pod_uid: state.sandboxes.pod_uid(answer.peer_netns),
        });
        keep(&mut state.peers, (netns, ifindex), peer.clone());
        peer
    }

    /// See [`KernelNames::pod_of_cgroup`](crate::flow::KernelNames::pod_of_cgroup).
    pub(super) fn pod_of_cgroup(&self, id: u64) -> Option<Arc<str>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((when, pod)) = state.pods.get(&id)
            && (pod.is_some() || when.elapsed() < VALID)
        {
            return pod.clone();
        }
        let names = self.run(CGROUP_PROGRAM, &[id]).and_then(|()| state.cgroup_answer.get(&0, 0).ok());
        let names = names.and_then(|bytes| CgroupNames::read_from_bytes(&bytes).ok()).filter(|names| names.id == id);
        // From the root: what is below its own group a pod may name as it likes.
        let pod = names.and_then(|names| names.names.iter().rev().find_map(|name| pod_uid_in(&text(name)))).map(Arc::from);
        keep(&mut state.pods, id, pod.clone());
        pod
    }

    /// Asks about a device and a hook. `None` when nothing is known of the device, or the namespace is gone.
    fn ask(&self, state: &State, netns: u32, ifindex: u32, hooks_offset: u32) -> Option<Answer> {
        self.run(PROGRAM, &[netns.into(), ifindex.into(), hooks_offset.into()])?;
        let bytes = state.answer.get(&0, 0).ok()?;
        Answer::read_from_bytes(&bytes).ok().filter(|answer| answer.netns == netns)
    }

    /// Runs one of the programs.
    fn run(&self, name: &str, arguments: &[u64]) -> Option<()> {
        let mut options = RawTracePointRunOptions::new();
        options.args[..arguments.len()].copy_from_slice(arguments);
        let ran = {
            let mut ebpf = self.ebpf.lock().unwrap_or_else(PoisonError::into_inner);
            program(&mut ebpf, name).ok()?.test_run(options)
        };
        ran.inspect_err(|error| tracing::debug!("asking for surroundings: {error}")).ok().map(drop)
    }
}

impl State {
    fn find_ways(&mut self, kernel: &Kernel) -> Result<(), CaptureError> {
        for (way, offset) in ways(kernel) {
            self.ways
                .set(way as u32, offset.unwrap_or(ABSENT), 0)
                .map_err(|error| CaptureError::Io { what: "set the offsets of the surroundings", error: std::io::Error::other(error) })?;
        }
        self.hooks = ["nf.hooks_ipv4", "nf.hooks_ipv6", "nf.hooks_bridge"].map(|path| kernel.offset_of("net", path));
        self.functions.clear();
        Ok(())
    }

    fn hooks_offset(&self, at: HookPoint) -> Option<u32> {
        let array = match at.family {
            HookFamily::Ipv4 => 0,
            HookFamily::Ipv6 => 1,
            HookFamily::Bridge => 2,
        };
        Some(self.hooks[array]? + at.number()? * size_of::<u64>() as u32)
    }
}

/// Where each field is; `None` for those this kernel does not show.
fn ways(kernel: &Kernel) -> [(Way, Option<u32>); Way::COUNT] {
    let private = kernel.offset_of("net_device", "priv");
    let private = private.or_else(|| kernel.size_of("net_device").map(|size| size.next_multiple_of(NETDEV_ALIGN)));
    let field = |structure, path| kernel.offset_of(structure, path);
    [
        (Way::NetInum, field("net", "ns.inum")),
        (Way::DevicePrivate, private),
        (Way::DeviceLinkOps, field("net_device", "rtnl_link_ops")),
        (Way::LinkOpsKind, field("rtnl_link_ops", "kind")),
        (Way::DeviceIfindex, field("net_device", "ifindex")),
        (Way::DeviceName, field("net_device", "name")),
        (Way::DeviceNet, field("net_device", "nd_net.net")),
        (Way::HookCount, field("nf_hook_entries", "num_hook_entries")),
        (Way::Hooks, field("nf_hook_entries", "hooks")),
        (Way::HookPriority, field("nf_hook_ops", "priority")),
        (Way::ChainName, field("nft_chain", "name")),
        (Way::ChainTable, field("nft_chain", "table")),
        (Way::TableName, field("nft_table", "name")),
        (Way::XtTableName, field("xt_table", "name")),
        (Way::KernfsId, field("kernfs_node", "id")),
        (Way::KernfsName, field("kernfs_node", "name")),
        (Way::KernfsParent, field("kernfs_node", "__parent").or_else(|| field("kernfs_node", "parent"))),
    ]
}

/// What this kernel lets be known, for `observer doctor`: whether chains of nf_tables, tables of x_tables, peers, and the names of cgroups are found.
pub(super) fn known(kernel: &Kernel) -> [(&'static str, bool); 4] {
    let ways = ways(kernel);
    let all = |wanted: &[Way]| ways.iter().filter(|(way, _)| wanted.contains(way)).all(|(_, offset)| offset.is_some());
    [
        ("nftables chains", all(&[Way::HookCount, Way::Hooks, Way::ChainName, Way::ChainTable, Way::TableName])),
        ("iptables tables", all(&[Way::HookCount, Way::Hooks, Way::XtTableName])),
        ("the other end of a veth", all(&[Way::DevicePrivate, Way::DeviceLinkOps, Way::LinkOpsKind, Way::DeviceNet, Way::DeviceIfindex])),
        ("the names of cgroups", all(&[Way::KernfsId, Way::KernfsName, Way::KernfsParent])),
    ]
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut RawTracePoint, CaptureError> {
    let program = ebpf.program_mut(name).ok_or(CaptureError::ForeignObject("programs for surroundings"))?;
    program.try_into().map_err(|_: aya::programs::ProgramError| CaptureError::ForeignObject("raw tracepoint programs for surroundings"))
}

fn function(entry: &HookEntry, symbol: impl Fn(u64) -> Option<Symbol>) -> Option<HookFunction> {
    let name = symbol(entry.function)?.name;
    let some = |bytes: &[u8]| Some(text(bytes)).filter(|name| !name.is_empty());
    let (table, chain) = if name.starts_with("nft_do_chain") || name.starts_with("nf_route_table") {
        (some(&entry.nft_table), some(&entry.nft_chain))
    } else if let Some(table) = HookFunction::table_in_name(&name) {
        (Some(Arc::from(table)), None)
    } else if name.contains("t_do_table") {
        (some(&entry.xt_table), None)
    } else {
        (None, None)
    };
    Some(HookFunction { function: name, priority: entry.priority, table, chain })
}

/// Devices that come in pairs and keep their peer as first private member.
fn is_pair(kind: &str) -> bool {
    matches!(kind, "veth" | "netkit")
}

fn text(bytes: &[u8]) -> Arc<str> {
    let name = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(name).into()
}

fn valid<K: Eq + Hash, V: Clone>(answers: &HashMap<K, (Instant, V)>, key: &K) -> Option<V> {
    answers.get(key).filter(|(when, _)| when.elapsed() < VALID).map(|(_, value)| value.clone())
}

fn keep<K: Eq + Hash, V>(answers: &mut HashMap<K, (Instant, V)>, key: K, value: V) {
    if answers.len() >= MAX_ANSWERS {
        answers.clear();
    }
    answers.insert(key, (Instant::now(), value));
}
