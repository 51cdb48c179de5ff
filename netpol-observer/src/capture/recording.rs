//! Drops written to a file and read back: `observer tail --record FILE` and `--replay FILE`.
//!
//! A recording holds what the kernel side wrote, byte for byte, and the names and the clock that were needed to decode it,
//! so that a replay gives the same drops on any machine. Nothing in it is decoded; a newer program decodes old recordings.
//!
//! ```text
//! magic "npo-rec\n"   8 bytes
//! version             u32
//! header length       u32, then as many bytes of JSON: RecordingHeader
//! frames              kind u8, length u32, then as many bytes
//! ```
//!
//! Numbers are little-endian. Records and fold keys are in the byte order of the machine that wrote them, which the header
//! names. What a frame needs (names, clock) stands before it, and the last frame of a recorder that was not killed is the end.

mod reader;
mod writer;

use std::collections::BTreeMap;
use std::sync::Arc;

use netpol_observer_common::{CORE_REASONS, DropRecord, FoldKey, FoldValue, STACK_FRAMES};
use serde::{Deserialize, Serialize};

use crate::flow::{Hook, HookFamily, KernelNames};

pub use reader::{ReadError, RecordingEnd, RecordingReader};
pub use writer::{RecordingWriter, WriteError};

/// First bytes of every recording.
const MAGIC: &[u8; 8] = b"npo-rec\n";
/// Goes up whenever a program that knows only the versions before would misread the file, be it by a new kind of frame.
const VERSION: u32 = 3;
/// Bytes of JSON a header may have; a thousand reasons are some 40 KB.
const MAX_HEADER: u32 = 1 << 20;
/// Bytes a frame may have; the longest are records and symbols (`KSYM_NAME_LEN` is 512).
const MAX_FRAME: u32 = 4096;
/// Kind and length.
const FRAME_HEAD: usize = 5;
/// Symbols a recording has in force at one time. The writer forgets them all and starts over before it exceeds this.
const MAX_SYMBOLS: usize = 65_536;
/// A record refers to at most these many addresses.
const SYMBOLS_PER_RECORD: usize = STACK_FRAMES + 1;
/// Names of reasons, those of the header included.
const MAX_REASONS: usize = 16_384;

/// `DropRecord`
const KIND_RECORD: u8 = 1;
/// `FoldKey`, `FoldValue`
const KIND_REPEAT: u8 = 2;
/// Address u64, offset u64, name
const KIND_SYMBOL: u8 = 3;
/// No bytes: all symbols so far are void.
const KIND_FORGET_SYMBOLS: u8 = 4;
/// i64 nanoseconds, from here on
const KIND_CLOCK: u8 = 5;
/// Eight u64: `KernelLedger`
const KIND_LEDGER: u8 = 6;
/// Number u32, name: a reason the header does not have, of a module loaded since
const KIND_REASON: u8 = 7;
/// Number of records u64: nothing follows
const KIND_END: u8 = 8;
/// Network namespace u32, family u8, hook u8, JSON list: the functions at a netfilter hook, from here on (since version 2)
const KIND_HOOK: u8 = 9;
/// Network namespace u32, interface index u32, JSON: the other end of a device, from here on; without JSON: none any more (since 2)
const KIND_PEER: u8 = 10;
/// Kernfs id of a cgroup u64, uid: the pod whose cgroup it is (since 3)
const KIND_CGROUP: u8 = 11;

/// Hooks, devices and cgroups a recording has surroundings of; those of later ones are left out.
const MAX_PLACES: usize = 16_384;

/// The families and hooks by the numbers frames have for them.
const FAMILIES: [HookFamily; 3] = [HookFamily::Ipv4, HookFamily::Ipv6, HookFamily::Bridge];
const HOOKS: [Hook; 5] = [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting];

const REPEAT_LEN: usize = size_of::<FoldKey>() + size_of::<FoldValue>();
const LEDGER_FIELDS: usize = 8;

/// What a recording says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordingHeader {
    /// `uname -r` of the machine recorded.
    pub kernel_release: String,
    /// `uname -m` of it.
    pub architecture: String,
    /// Its node in the cluster, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
    /// [`KernelNames::clock_offset_ns`] at the start.
    pub clock_offset_ns: i64,
    /// Drop reasons of that kernel: number → name without prefix.
    pub reasons: BTreeMap<u32, Arc<str>>,
    /// Bytes of a record: with another size this is not the layout this program knows.
    pub record_size: usize,
    /// Byte order of records and fold keys.
    pub byte_order: ByteOrder,
    /// When it was begun.
    pub created: jiff::Timestamp,
    /// Version of the program that wrote it.
    pub tool_version: String,
}

impl RecordingHeader {
    /// The header of a recording of this machine, with the names that `names` has at this moment.
    pub fn new(kernel_release: String, architecture: String, created: jiff::Timestamp, names: &dyn KernelNames) -> Self {
        // Reasons of subsystems (mac80211, Open vSwitch, …) have the subsystem's number in the upper half.
        let subsystems = (1..=16_u32).flat_map(|subsystem| (0..256).map(move |reason| (subsystem << 16) | reason));
        let reasons = (0..CORE_REASONS).chain(subsystems).filter_map(|number| Some((number, names.reason(number)?))).collect();
        RecordingHeader {
            kernel_release,
            architecture,
            node_name: None,
            clock_offset_ns: names.clock_offset_ns(),
            reasons,
            record_size: size_of::<DropRecord>(),
            byte_order: ByteOrder::NATIVE,
            created,
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// Order of the bytes of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ByteOrder {
    /// Least significant first: x86, ARM, RISC-V, ppc64le.
    Little,
    /// Most significant first: s390x.
    Big,
}

impl ByteOrder {
    /// This machine's.
    pub const NATIVE: ByteOrder = if cfg!(target_endian = "little") { ByteOrder::Little } else { ByteOrder::Big };
}

#[cfg(test)]
mod tests;
