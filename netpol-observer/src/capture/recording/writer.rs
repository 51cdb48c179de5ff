//! Writing a recording.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::io::{ErrorKind, Write};
use std::sync::Arc;

use bytes::Bytes;
use netpol_observer_common::{DropRecord, FoldKey, FoldValue};
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::{
    FAMILIES, FRAME_HEAD, HOOKS, KIND_CGROUP, KIND_CLOCK, KIND_END, KIND_FORGET_SYMBOLS, KIND_HOOK, KIND_LEDGER, KIND_PEER, KIND_REASON,
    KIND_RECORD, KIND_REPEAT, KIND_SYMBOL, MAGIC, MAX_FRAME, MAX_HEADER, MAX_PLACES, MAX_REASONS, MAX_SYMBOLS, RecordingHeader,
    SYMBOLS_PER_RECORD, VERSION,
};
use crate::capture::{Captured, KernelLedger};
use crate::flow::{HookFunction, HookPoint, KernelNames, Peer, hook_point};

/// Bytes collected before they are written.
const BUFFER: usize = 64 * 1024;

/// Why nothing more is recorded.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The header cannot be written down.
    #[error("cannot write the header of the recording: {0}")]
    Header(String),
    /// The file took no more, as on a full disk.
    #[error("recording stopped: {source}; {records} records were kept and can be replayed")]
    Io {
        /// What the system said.
        source: std::io::Error,
        /// Records that are complete in the file.
        records: u64,
    },
    /// An earlier call failed; what came after a gap is not worth keeping.
    #[error("recording has stopped after an earlier write error; {records} records were kept")]
    Stopped {
        /// Records that are complete in the file.
        records: u64,
    },
    /// The record is none of this program's.
    #[error("record of {got} bytes cannot be recorded, expected {expected}")]
    RecordSize {
        /// `size_of::<DropRecord>()`
        expected: usize,
        /// Bytes given.
        got: usize,
    },
}

/// Writes drops as they are captured, each behind the names it needs.
///
/// Give it the bare file: it collects up to 64 KiB itself, so that after an error it knows which records are in the file.
/// Call [`flush`](Self::flush) when nothing has come for a while and [`finish`](Self::finish) at the end. Dropped without, it
/// writes what it has and leaves the end mark out, as a killed recorder does.
#[derive(Debug)]
pub struct RecordingWriter<W: Write> {
    file: W,
    /// Not yet written.
    buffer: Vec<u8>,
    /// Where in `buffer` the records end.
    record_ends: VecDeque<usize>,
    /// Records complete in the file.
    kept: u64,
    stopped: bool,
    clock_offset_ns: i64,
    /// Addresses whose symbol is in the file and in force.
    symbols: HashSet<u64>,
    reasons: BTreeSet<u32>,
    /// Surroundings that are in the file and in force.
    hooks: HashMap<HookPoint, Arc<[HookFunction]>>,
    peers: HashMap<(u32, u32), Option<Peer>>,
    /// Cgroups whose pods are in the file.
    cgroups: HashSet<u64>,
}

impl<W: Write> RecordingWriter<W> {
    /// Begins a recording.
    pub fn new(file: W, header: &RecordingHeader) -> Result<Self, WriteError> {
        let json = serde_json::to_vec(header).map_err(|e| WriteError::Header(e.to_string()))?;
        let len = u32::try_from(json.len()).ok().filter(|len| *len <= MAX_HEADER);
        let len = len.ok_or_else(|| WriteError::Header(format!("{} bytes are more than {MAX_HEADER}", json.len())))?;
        let mut writer = RecordingWriter {
            file,
            buffer: Vec::with_capacity(BUFFER + 2 * MAX_FRAME as usize),
            record_ends: VecDeque::new(),
            kept: 0,
            stopped: false,
            clock_offset_ns: header.clock_offset_ns,
            symbols: HashSet::new(),
            reasons: header.reasons.keys().copied().collect(),
            hooks: HashMap::new(),
            peers: HashMap::new(),
            cgroups: HashSet::new(),
        };
        writer.buffer.extend_from_slice(MAGIC);
        writer.buffer.extend_from_slice(&VERSION.to_le_bytes());
        writer.buffer.extend_from_slice(&len.to_le_bytes());
        writer.buffer.extend_from_slice(&json);
        // At once, so that a file that cannot be written to is noticed before there is anything to lose.
        writer.flush()?;
        Ok(writer)
    }

    /// Records in the file or on their way there.
    pub fn records(&self) -> u64 {
        self.kept + self.record_ends.len() as u64
    }

    /// Bytes not yet handed to the file.
    #[cfg(test)]
    pub(super) fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Adds one of what was captured.
    pub fn write(&mut self, captured: &Captured, names: &dyn KernelNames) -> Result<(), WriteError> {
        if self.stopped {
            return Err(WriteError::Stopped { records: self.kept });
        }
        let clock_offset_ns = names.clock_offset_ns();
        if clock_offset_ns != self.clock_offset_ns {
            self.clock_offset_ns = clock_offset_ns;
            self.frame(KIND_CLOCK, &[&clock_offset_ns.to_le_bytes()]);
        }
        match captured {
            Captured::Record(bytes) => self.record(bytes, names)?,
            Captured::Repeat { key, value } => self.repeat(key, value, names),
            Captured::Ledger(ledger) => self.ledger(ledger),
        }
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    /// Hands everything collected to the file.
    pub fn flush(&mut self) -> Result<(), WriteError> {
        if self.stopped {
            return Err(WriteError::Stopped { records: self.kept });
        }
        let mut written = 0;
        let result = loop {
            let rest = self.buffer.get(written..).unwrap_or_default();
            if rest.is_empty() {
                break self.file.flush();
            }
            match self.file.write(rest) {
                Ok(0) => break Err(ErrorKind::WriteZero.into()),
                Ok(len) => written += len,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => break Err(e),
            }
        };
        while self.record_ends.pop_front_if(|end| *end <= written).is_some() {
            self.kept += 1;
        }
        self.buffer.clear();
        self.record_ends.clear();
        result.map_err(|source| {
            self.stopped = true;
            WriteError::Io { source, records: self.kept }
        })
    }

    /// Writes the end mark and gives the number of records.
    pub fn finish(mut self) -> Result<u64, WriteError> {
        let records = self.records();
        self.frame(KIND_END, &[&records.to_le_bytes()]);
        self.flush()?;
        Ok(records)
    }

    fn record(&mut self, bytes: &Bytes, names: &dyn KernelNames) -> Result<(), WriteError> {
        let record = DropRecord::read_from_bytes(bytes)
            .map_err(|_| WriteError::RecordSize { expected: size_of::<DropRecord>(), got: bytes.len() })?;
        self.reason(record.reason, names);
        if self.symbols.len() + SYMBOLS_PER_RECORD > MAX_SYMBOLS {
            self.symbols.clear();
            self.frame(KIND_FORGET_SYMBOLS, &[]);
        }
        for address in [record.location].into_iter().chain(record.stack) {
            self.symbol(address, names);
        }
        self.surroundings(&record, names);
        self.frame(KIND_RECORD, &[bytes]);
        self.record_ends.push_back(self.buffer.len());
        Ok(())
    }

    fn symbol(&mut self, address: u64, names: &dyn KernelNames) {
        if address == 0 || self.symbols.contains(&address) {
            return;
        }
        // An address without a name is asked for again: its module may be about to appear in the symbol table.
        if let Some(symbol) = names.symbol(address) {
            self.symbols.insert(address);
            self.frame(KIND_SYMBOL, &[&address.to_le_bytes(), &symbol.offset.to_le_bytes(), shortened(&symbol.name)]);
        }
    }

    /// What decoding the record will ask for, where it is new or has changed.
    fn surroundings(&mut self, record: &DropRecord, names: &dyn KernelNames) {
        if let Some(at) = hook_point(record, names)
            && (self.hooks.contains_key(&at) || self.hooks.len() < MAX_PLACES)
        {
            let functions = names.hook_functions(at, record.ifindex);
            let index_of = |place: Option<usize>| place.and_then(|place| u8::try_from(place).ok());
            let family = index_of(FAMILIES.iter().position(|&family| family == at.family));
            let hook = index_of(HOOKS.iter().position(|&hook| hook == at.hook));
            if let (Some(family), Some(hook)) = (family, hook)
                && self.hooks.get(&at).map_or(!functions.is_empty(), |known| *known != functions)
                && let Some(json) = serde_json::to_vec(&*functions).ok().filter(|json| json.len() < MAX_FRAME as usize - 8)
            {
                self.frame(KIND_HOOK, &[&at.netns.to_le_bytes(), &[family, hook], &json]);
                self.hooks.insert(at, functions);
            }
        }
        let device = (record.netns, record.ifindex);
        if record.ifindex != 0 && (self.peers.contains_key(&device) || self.peers.len() < MAX_PLACES) {
            let peer = names.peer(record.netns, record.ifindex);
            if self.peers.get(&device).map_or(peer.is_some(), |known| *known != peer) {
                let json = peer.as_ref().and_then(|peer| serde_json::to_vec(peer).ok()).unwrap_or_default();
                self.frame(KIND_PEER, &[&record.netns.to_le_bytes(), &record.ifindex.to_le_bytes(), &json]);
                self.peers.insert(device, peer);
            }
        }
        let cgroup = record.cgroup_id;
        if cgroup != 0
            && !self.cgroups.contains(&cgroup)
            && self.cgroups.len() < MAX_PLACES
            && let Some(pod_uid) = names.pod_of_cgroup(cgroup)
        {
            self.frame(KIND_CGROUP, &[&cgroup.to_le_bytes(), shortened(&pod_uid)]);
            self.cgroups.insert(cgroup);
        }
    }

    fn reason(&mut self, number: u32, names: &dyn KernelNames) {
        if self.reasons.contains(&number) || self.reasons.len() >= MAX_REASONS {
            return;
        }
        if let Some(name) = names.reason(number) {
            self.reasons.insert(number);
            self.frame(KIND_REASON, &[&number.to_le_bytes(), shortened(&name)]);
        }
    }

    fn repeat(&mut self, key: &FoldKey, value: &FoldValue, names: &dyn KernelNames) {
        self.reason(key.reason, names);
        self.frame(KIND_REPEAT, &[key.as_bytes(), value.as_bytes()]);
    }

    fn ledger(&mut self, ledger: &KernelLedger) {
        let KernelLedger { counters, received, folded_delivered, program_misses } = *ledger;
        let fields = [
            counters.seen,
            counters.reported,
            counters.folded,
            counters.ring_full,
            counters.unfolded,
            received,
            folded_delivered,
            program_misses,
        ];
        self.frame(KIND_LEDGER, &[fields.map(u64::to_le_bytes).as_flattened()]);
    }

    /// `parts` together are shorter than [`MAX_FRAME`].
    fn frame(&mut self, kind: u8, parts: &[&[u8]]) {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        debug_assert!(len <= MAX_FRAME as usize);
        self.buffer.reserve(FRAME_HEAD + len);
        self.buffer.push(kind);
        self.buffer.extend_from_slice(&(len as u32).to_le_bytes());
        for part in parts {
            self.buffer.extend_from_slice(part);
        }
    }
}

impl<W: Write> Drop for RecordingWriter<W> {
    fn drop(&mut self) {
        if !self.stopped && !self.buffer.is_empty() {
            // Nobody is left to hear of an error; the reader will say that the end is missing.
            let _ = self.flush();
        }
    }
}

/// A name that fits into a frame. The kernel's are shorter than 512 bytes.
fn shortened(name: &str) -> &[u8] {
    let mut end = name.len().min(MAX_FRAME as usize / 2);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.as_bytes().get(..end).unwrap_or_default()
}
