//! Reading a recording.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::{ErrorKind, Read};
use std::sync::Arc;

use bytes::Bytes;
use netpol_observer_common::{Counters, DropRecord, FoldKey, FoldValue};
use zerocopy::FromBytes as _;

use super::{
    ByteOrder, FAMILIES, FRAME_HEAD, HOOKS, KIND_CGROUP, KIND_CLOCK, KIND_END, KIND_FORGET_SYMBOLS, KIND_HOOK, KIND_LEDGER, KIND_PEER,
    KIND_REASON, KIND_RECORD, KIND_REPEAT, KIND_SYMBOL, LEDGER_FIELDS, MAGIC, MAX_FRAME, MAX_HEADER, MAX_PLACES, MAX_REASONS, MAX_SYMBOLS,
    REPEAT_LEN, RecordingHeader, VERSION,
};
use crate::capture::{Captured, KernelLedger};
use crate::flow::{HookFunction, HookPoint, KernelNames, Peer, Symbol};

/// Why a file cannot be replayed, or not further.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system could not read it.
    #[error("cannot read the recording at byte {at}: {source}")]
    Io {
        /// Byte it got to.
        at: u64,
        /// What the system said.
        source: std::io::Error,
    },
    /// It does not begin as recordings do.
    #[error("this is no recording of netpol-observer: it does not begin with {:?}", String::from_utf8_lossy(MAGIC))]
    NotARecording,
    /// Written by a later program.
    #[error("recording has format version {version}, this program reads up to {VERSION}: replay it with a newer netpol-observer")]
    NewerVersion {
        /// The file's.
        version: u32,
    },
    /// The header says something this program cannot follow.
    #[error("header of the recording: {0}")]
    Header(String),
    /// A frame makes no sense: the file was changed, or never was a recording.
    #[error("recording is damaged at byte {at}, after {records} records: {what}")]
    Damaged {
        /// Where the frame begins.
        at: u64,
        /// Records read before it.
        records: u64,
        /// What is wrong.
        what: String,
    },
}

/// How a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordingEnd {
    /// With its end mark.
    Complete {
        /// Records in it.
        records: u64,
    },
    /// Behind a complete frame, but without end mark.
    Unfinished {
        /// Records in it.
        records: u64,
    },
    /// Inside a frame.
    MidFrame {
        /// Complete records before that.
        records: u64,
    },
}

impl RecordingEnd {
    /// What a person should be told, unless all is well.
    pub fn notice(&self) -> Option<String> {
        match self {
            RecordingEnd::Complete { .. } => None,
            _ => Some(self.to_string()),
        }
    }
}

impl fmt::Display for RecordingEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RecordingEnd::Complete { records } => write!(f, "recording ends after {records} records"),
            RecordingEnd::Unfinished { records } => {
                write!(f, "recording ends without its end mark (was the recorder killed?) after {records} records")
            }
            RecordingEnd::MidFrame { records } => {
                write!(f, "recording ends in the middle of a frame (was the recorder killed?) after {records} records")
            }
        }
    }
}

/// Yields what was captured, and serves as the [`KernelNames`] of the kernel it was captured on.
///
/// The names belong to what was read last: decode it before the next call of [`next`](Self::next). Give it a buffered reader.
#[derive(Debug)]
pub struct RecordingReader<R: Read> {
    file: R,
    /// Bytes read.
    at: u64,
    header: RecordingHeader,
    records: u64,
    end: Option<RecordingEnd>,
    /// Set by an error; there is nothing to be read behind it.
    failed: bool,
    payload: Vec<u8>,
    reasons: BTreeMap<u32, Arc<str>>,
    symbols: HashMap<u64, Symbol>,
    /// Function names, each kept once.
    names: HashMap<Box<str>, Arc<str>>,
    clock_offset_ns: i64,
    hooks: HashMap<HookPoint, Arc<[HookFunction]>>,
    peers: HashMap<(u32, u32), Peer>,
    cgroups: HashMap<u64, Arc<str>>,
}

impl<R: Read> RecordingReader<R> {
    /// Reads the header.
    pub fn new(mut file: R) -> Result<Self, ReadError> {
        let mut head = [0; 16];
        let got = fill(&mut file, &mut head).map_err(|source| ReadError::Io { at: 0, source })?;
        let [magic @ .., v0, v1, v2, v3, l0, l1, l2, l3] = head;
        if magic != *MAGIC {
            return Err(ReadError::NotARecording);
        }
        if got < head.len() {
            return Err(ReadError::Header(format!("file ends after {got} bytes, inside the header (was the recorder killed?)")));
        }
        let version = u32::from_le_bytes([v0, v1, v2, v3]);
        if version > VERSION {
            return Err(ReadError::NewerVersion { version });
        }
        if version == 0 {
            return Err(ReadError::Header("format version 0 does not exist".to_owned()));
        }
        let len = u32::from_le_bytes([l0, l1, l2, l3]);
        if len > MAX_HEADER {
            return Err(ReadError::Header(format!("{len} bytes are more than the {MAX_HEADER} a header may have")));
        }
        let mut json = Vec::new();
        read_up_to(&mut file, len, &mut json).map_err(|source| ReadError::Io { at: 16, source })?;
        if json.len() < len as usize {
            let have = json.len();
            return Err(ReadError::Header(format!("file ends after {have} of its {len} bytes (was the recorder killed?)")));
        }
        let header: RecordingHeader = serde_json::from_slice(&json).map_err(|e| ReadError::Header(e.to_string()))?;
        check_header(&header)?;
        Ok(RecordingReader {
            file,
            at: 16 + u64::from(len),
            records: 0,
            end: None,
            failed: false,
            payload: Vec::new(),
            reasons: header.reasons.clone(),
            symbols: HashMap::new(),
            names: HashMap::new(),
            clock_offset_ns: header.clock_offset_ns,
            hooks: HashMap::new(),
            peers: HashMap::new(),
            cgroups: HashMap::new(),
            header,
        })
    }

    /// What the recording says of itself.
    pub fn header(&self) -> &RecordingHeader {
        &self.header
    }

    /// Records read so far.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// How it ended, once [`next`](Self::next) has given `None`.
    pub fn end(&self) -> Option<RecordingEnd> {
        self.end
    }

    /// The next of what was captured; `None` at the end, and after an error.
    #[expect(clippy::should_implement_trait, reason = "an iterator would keep the reader borrowed while it is needed for names")]
    pub fn next(&mut self) -> Result<Option<Captured>, ReadError> {
        while self.end.is_none() && !self.failed {
            let result = self.frame();
            self.failed = result.is_err();
            if let Some(captured) = result? {
                return Ok(Some(captured));
            }
        }
        Ok(None)
    }

    /// Reads one frame; `None` for those that are not for the caller, and at the end.
    fn frame(&mut self) -> Result<Option<Captured>, ReadError> {
        let frame_at = self.at;
        let records = self.records;
        let io = |at, source| ReadError::Io { at, source };
        let damaged = |what: String| ReadError::Damaged { at: frame_at, records, what };

        let mut head = [0; FRAME_HEAD];
        let got = fill(&mut self.file, &mut head).map_err(|source| io(frame_at, source))?;
        self.at += got as u64;
        if got < head.len() {
            self.end = Some(if got == 0 { RecordingEnd::Unfinished { records } } else { RecordingEnd::MidFrame { records } });
            return Ok(None);
        }
        let [kind, a, b, c, d] = head;
        let len = u32::from_le_bytes([a, b, c, d]);
        if len > MAX_FRAME {
            return Err(damaged(format!("a frame of {len} bytes, where the longest have {MAX_FRAME}")));
        }
        let mut payload = std::mem::take(&mut self.payload);
        payload.clear();
        read_up_to(&mut self.file, len, &mut payload).map_err(|source| io(self.at, source))?;
        self.at += payload.len() as u64;
        if payload.len() < len as usize {
            self.end = Some(RecordingEnd::MidFrame { records });
            return Ok(None);
        }
        let captured = self.take(kind, &payload).map_err(damaged)?;
        self.payload = payload;
        Ok(captured)
    }

    /// Takes in one frame, or says what is wrong with it.
    fn take(&mut self, kind: u8, payload: &[u8]) -> Result<Option<Captured>, String> {
        let wrong_length = |what: &str| format!("a {what} of {} bytes", payload.len());
        match kind {
            KIND_RECORD => {
                if payload.len() != size_of::<DropRecord>() {
                    return Err(wrong_length("record"));
                }
                self.records += 1;
                return Ok(Some(Captured::Record(Bytes::copy_from_slice(payload))));
            }
            KIND_REPEAT => {
                let wrong = || wrong_length("repeat");
                let payload: &[u8; REPEAT_LEN] = payload.try_into().map_err(|_| wrong())?;
                let (key, rest) = FoldKey::read_from_prefix(payload).map_err(|_| wrong())?;
                let value = FoldValue::read_from_bytes(rest).map_err(|_| wrong())?;
                return Ok(Some(Captured::Repeat { key, value }));
            }
            KIND_LEDGER => {
                return ledger(payload).map(|ledger| Some(Captured::Ledger(ledger))).ok_or_else(|| wrong_length("ledger"));
            }
            KIND_SYMBOL => {
                let (address, rest) = payload.split_first_chunk::<8>().ok_or_else(|| wrong_length("symbol"))?;
                let (offset, name) = rest.split_first_chunk::<8>().ok_or_else(|| wrong_length("symbol"))?;
                let name = std::str::from_utf8(name).map_err(|_| "a symbol whose name is not UTF-8".to_owned())?;
                if self.symbols.len() >= MAX_SYMBOLS {
                    return Err(format!("more than {MAX_SYMBOLS} symbols at one time"));
                }
                let name = self.interned(name);
                self.symbols.insert(u64::from_le_bytes(*address), Symbol { name, offset: u64::from_le_bytes(*offset) });
            }
            KIND_FORGET_SYMBOLS => {
                self.symbols.clear();
                self.names.clear();
            }
            KIND_CLOCK => {
                let offset = payload.try_into().map_err(|_| wrong_length("clock offset"))?;
                self.clock_offset_ns = i64::from_le_bytes(offset);
            }
            KIND_REASON => {
                let (number, name) = payload.split_first_chunk::<4>().ok_or_else(|| wrong_length("reason"))?;
                let name = std::str::from_utf8(name).map_err(|_| "a reason whose name is not UTF-8".to_owned())?;
                if self.reasons.len() >= MAX_REASONS {
                    return Err(format!("more than {MAX_REASONS} reasons"));
                }
                self.reasons.insert(u32::from_le_bytes(*number), name.into());
            }
            KIND_HOOK => {
                let wrong = || wrong_length("hook");
                let (netns, rest) = payload.split_first_chunk::<4>().ok_or_else(wrong)?;
                let ([family, hook], json) = rest.split_first_chunk::<2>().ok_or_else(wrong)?;
                let known = FAMILIES.get(usize::from(*family)).zip(HOOKS.get(usize::from(*hook)));
                let (&family, &hook) = known.ok_or_else(|| format!("a hook of unknown family {family} or number {hook}"))?;
                let functions: Vec<HookFunction> = serde_json::from_slice(json).map_err(|e| format!("functions of a hook: {e}"))?;
                if self.hooks.len() >= MAX_PLACES {
                    return Err(format!("more than {MAX_PLACES} hooks"));
                }
                self.hooks.insert(HookPoint { netns: u32::from_le_bytes(*netns), family, hook }, functions.into());
            }
            KIND_PEER => {
                let wrong = || wrong_length("peer");
                let (netns, rest) = payload.split_first_chunk::<4>().ok_or_else(wrong)?;
                let (ifindex, json) = rest.split_first_chunk::<4>().ok_or_else(wrong)?;
                let device = (u32::from_le_bytes(*netns), u32::from_le_bytes(*ifindex));
                if json.is_empty() {
                    self.peers.remove(&device);
                } else {
                    if self.peers.len() >= MAX_PLACES {
                        return Err(format!("peers of more than {MAX_PLACES} devices"));
                    }
                    self.peers.insert(device, serde_json::from_slice(json).map_err(|e| format!("the peer of a device: {e}"))?);
                }
            }
            KIND_CGROUP => {
                let (cgroup, pod_uid) = payload.split_first_chunk::<8>().ok_or_else(|| wrong_length("cgroup"))?;
                let pod_uid = std::str::from_utf8(pod_uid).map_err(|_| "a pod whose uid is not UTF-8".to_owned())?;
                if self.cgroups.len() >= MAX_PLACES {
                    return Err(format!("pods of more than {MAX_PLACES} cgroups"));
                }
                self.cgroups.insert(u64::from_le_bytes(*cgroup), pod_uid.into());
            }
            KIND_END => {
                let count = u64::from_le_bytes(payload.try_into().map_err(|_| wrong_length("end mark"))?);
                let records = self.records;
                if count != records {
                    return Err(format!("the end mark speaks of {count} records"));
                }
                self.end = Some(RecordingEnd::Complete { records });
            }
            other => return Err(format!("a frame of unknown kind {other}")),
        }
        Ok(None)
    }

    fn interned(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return Arc::clone(known);
        }
        let shared: Arc<str> = name.into();
        self.names.insert(name.into(), Arc::clone(&shared));
        shared
    }
}

impl<R: Read> KernelNames for RecordingReader<R> {
    fn reason(&self, number: u32) -> Option<Arc<str>> {
        self.reasons.get(&number).cloned()
    }

    fn symbol(&self, address: u64) -> Option<Symbol> {
        self.symbols.get(&address).cloned()
    }

    fn clock_offset_ns(&self) -> i64 {
        self.clock_offset_ns
    }

    fn hook_functions(&self, at: HookPoint, _ifindex: u32) -> Arc<[HookFunction]> {
        self.hooks.get(&at).map_or_else(|| Arc::from([]), Arc::clone)
    }

    fn pod_of_cgroup(&self, cgroup: u64) -> Option<Arc<str>> {
        self.cgroups.get(&cgroup).cloned()
    }

    fn peer(&self, netns: u32, ifindex: u32) -> Option<Peer> {
        self.peers.get(&(netns, ifindex)).cloned()
    }
}

fn check_header(header: &RecordingHeader) -> Result<(), ReadError> {
    let expected = size_of::<DropRecord>();
    if header.record_size != expected {
        return Err(ReadError::Header(format!(
            "records have {} bytes, this program's have {expected}: replay it with netpol-observer {}, which wrote it",
            header.record_size, header.tool_version
        )));
    }
    if header.byte_order != ByteOrder::NATIVE {
        return Err(ReadError::Header(format!(
            "recorded on {} with the other byte order ({:?}-endian): replay it on a machine of its kind",
            header.architecture, header.byte_order
        )));
    }
    if header.reasons.len() > MAX_REASONS {
        return Err(ReadError::Header(format!("{} names of reasons are more than {MAX_REASONS}", header.reasons.len())));
    }
    Ok(())
}

fn ledger(payload: &[u8]) -> Option<KernelLedger> {
    let (fields, rest) = payload.as_chunks::<8>();
    let fields: &[[u8; 8]; LEDGER_FIELDS] = fields.try_into().ok()?;
    if !rest.is_empty() {
        return None;
    }
    let [seen, reported, folded, ring_full, unfolded, received, folded_delivered, program_misses] = fields.map(u64::from_le_bytes);
    let counters = Counters { seen, reported, folded, ring_full, unfolded };
    Some(KernelLedger { counters, received, folded_delivered, program_misses })
}

/// Fills `to` as far as the file goes.
fn fill(file: &mut impl Read, to: &mut [u8]) -> std::io::Result<usize> {
    let mut got = 0;
    while let Some(rest) = to.get_mut(got..).filter(|rest| !rest.is_empty()) {
        match file.read(rest) {
            Ok(0) => break,
            Ok(len) => got += len,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}

/// Appends at most `len` bytes. Memory grows with what is there, not with what a length field claims.
fn read_up_to(file: &mut impl Read, len: u32, to: &mut Vec<u8>) -> std::io::Result<usize> {
    file.by_ref().take(u64::from(len)).read_to_end(to)
}
