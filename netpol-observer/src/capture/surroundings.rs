//! A drop's surroundings, asked of the running kernel: the functions registered at its hook, and the other end of its device.
//!
//! The `surroundings` program follows pointers from a device that a record came from (`net` → `netns_nf` → `nf_hook_entries` →
//! `nft_chain`; `net_device` → its peer). It is run on demand, at most once a second for each hook of a namespace; rules are
//! neither added nor listed, and no capability beyond those of capture is needed.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya::maps::{Array, MapData};
use aya::programs::{RawTracePoint, RawTracePointRunOptions, TestRun as _};
use netpol_observer_common::{ABSENT, HookEntry, MAX_HOOK_ENTRIES, Surroundings as Answer, Way};
use zerocopy::FromBytes as _;

use super::error::CaptureError;
use super::kernel::Kernel;
use super::program::{SharedEbpf, take};
use super::sandbox::Sandboxes;
use crate::flow::{HookFamily, HookFunction, HookPoint, Peer, Symbol};

/// The program's name in the object.
const PROGRAM: &str = "surroundings";
/// How long an answer holds: rules are changed, but not between the packets of one flood.
const VALID: Duration = Duration::from_secs(1);
/// Answers kept; beyond that all are forgotten.
const MAX_ANSWERS: usize = 4096;
/// `struct net_device` is padded to this before the private data of its driver (`NETDEV_ALIGN`), until 6.9 gave it a member.
const NETDEV_ALIGN: u32 = 32;

type AnswerBytes = [u8; size_of::<Answer>()];

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
    ways: Array<MapData, u32>,
    /// Offsets in `struct net` of the arrays of hooks.
    hooks: [Option<u32>; 3],
    functions: HashMap<HookPoint, (Instant, Arc<[HookFunction]>)>,
    peers: HashMap<(u32, u32), (Instant, Option<Peer>)>,
    sandboxes: Sandboxes,
}

impl Surroundings {
    /// Loads the program.
    pub(super) fn load(shared: &SharedEbpf, kernel: &Kernel) -> Result<Self, CaptureError> {
        let mut ebpf = shared.lock().unwrap_or_else(PoisonError::into_inner);
        program(&mut ebpf)?.load().map_err(|error| CaptureError::Load(error.to_string()))?;
        let mut state = State {
            answer: take(&mut ebpf, "SURROUNDINGS")?,
            ways: take(&mut ebpf, "WAYS")?,
            hooks: [None; 3],
            functions: HashMap::new(),
            peers: HashMap::new(),
            sandboxes: Sandboxes::default(),
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

    /// Runs the program. `None` when it knows nothing of the device, or the namespace is gone.
    fn ask(&self, state: &State, netns: u32, ifindex: u32, hooks_offset: u32) -> Option<Answer> {
        let mut options = RawTracePointRunOptions::new();
        options.args[..3].copy_from_slice(&[netns.into(), ifindex.into(), hooks_offset.into()]);
        let ran = {
            let mut ebpf = self.ebpf.lock().unwrap_or_else(PoisonError::into_inner);
            program(&mut ebpf).ok()?.test_run(options)
        };
        ran.inspect_err(|error| tracing::debug!("asking for surroundings: {error}")).ok()?;
        let bytes = state.answer.get(&0, 0).ok()?;
        Answer::read_from_bytes(&bytes).ok().filter(|answer| answer.netns == netns)
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
    ]
}

/// What this kernel lets be known, for `observer doctor`: whether chains of nf_tables, tables of x_tables, and peers are found.
pub(super) fn known(kernel: &Kernel) -> [(&'static str, bool); 3] {
    let ways = ways(kernel);
    let all = |wanted: &[Way]| ways.iter().filter(|(way, _)| wanted.contains(way)).all(|(_, offset)| offset.is_some());
    [
        ("nftables chains", all(&[Way::HookCount, Way::Hooks, Way::ChainName, Way::ChainTable, Way::TableName])),
        ("iptables tables", all(&[Way::HookCount, Way::Hooks, Way::XtTableName])),
        ("the other end of a veth", all(&[Way::DevicePrivate, Way::DeviceLinkOps, Way::LinkOpsKind, Way::DeviceNet, Way::DeviceIfindex])),
    ]
}

fn program(ebpf: &mut Ebpf) -> Result<&mut RawTracePoint, CaptureError> {
    let program = ebpf.program_mut(PROGRAM).ok_or(CaptureError::ForeignObject("program surroundings"))?;
    program.try_into().map_err(|_: aya::programs::ProgramError| CaptureError::ForeignObject("raw tracepoint program surroundings"))
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
