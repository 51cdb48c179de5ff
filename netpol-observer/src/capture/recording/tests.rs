use std::cell::RefCell;
use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;

use netpol_observer_common::Counters;
use proptest::prelude::*;

use super::*;
use crate::capture::{Captured, KernelLedger};
use crate::flow::testing::{Names, RecordBuilder};
use crate::flow::{DropEvent, HookFunction, HookPoint, KernelNames, Peer, Symbol, decode_record};

fn header(names: &Names) -> RecordingHeader {
    RecordingHeader::new("6.18.44".to_owned(), "x86_64".to_owned(), "2026-11-23T02:00:00Z".parse().unwrap(), names)
}

fn drop_of(i: u64) -> RecordBuilder {
    let end = |last: u64, port| SocketAddr::from(([10, 0, 0, (last % 250) as u8], port));
    RecordBuilder::tcp_syn(end(i, 40_000), end(i + 1, 80)).time_ns(i * 1_000)
}

fn repeat(count: u64) -> Captured {
    let record = drop_of(1).build();
    let flow = decode_record(&drop_of(1).bytes(), &Names::linux()).unwrap().flow;
    Captured::Repeat { key: crate::flow::fold_key(&record, &flow), value: FoldValue { count, last_ns: 77 } }
}

const LEDGER: KernelLedger = KernelLedger {
    counters: Counters { seen: 1, reported: 2, folded: 3, ring_full: 4, unfolded: 5 },
    received: 6,
    folded_delivered: 7,
    program_misses: u64::MAX,
};

/// Two records, a repeat and a ledger.
fn captured() -> Vec<Captured> {
    vec![Captured::Record(drop_of(1).bytes()), repeat(3), Captured::Record(drop_of(2).bytes()), Captured::Ledger(LEDGER)]
}

fn record_all(all: &[Captured], names: &Names) -> Vec<u8> {
    let mut file = Vec::new();
    let mut writer = RecordingWriter::new(&mut file, &header(names)).unwrap();
    for captured in all {
        writer.write(captured, names).unwrap();
    }
    writer.finish().unwrap();
    file
}

/// What a reader gave: everything as text, decoded where it is a record, and how it ended.
struct Replay {
    items: Vec<String>,
    events: Vec<DropEvent>,
    result: Result<RecordingEnd, ReadError>,
}

fn replay(file: &[u8]) -> Replay {
    let mut replay = Replay { items: Vec::new(), events: Vec::new(), result: Ok(RecordingEnd::Unfinished { records: u64::MAX }) };
    let mut reader = match RecordingReader::new(file) {
        Ok(reader) => reader,
        Err(e) => return Replay { result: Err(e), ..replay },
    };
    replay.result = loop {
        match reader.next() {
            Ok(Some(captured)) => {
                replay.items.push(format!("{captured:?}"));
                if let Captured::Record(bytes) = &captured
                    && let Ok(event) = decode_record(bytes, &reader)
                {
                    replay.events.push(event);
                }
            }
            Ok(None) => break Ok(reader.end().unwrap()),
            Err(e) => {
                assert!(matches!(reader.next(), Ok(None)), "nothing comes behind an error");
                break Err(e);
            }
        }
    };
    replay
}

fn texts(all: &[Captured]) -> Vec<String> {
    all.iter().map(|captured| format!("{captured:?}")).collect()
}

#[test]
fn a_replay_gives_what_was_captured_and_decodes_alike() {
    let names = Names::linux();
    let replay = replay(&record_all(&captured(), &names));
    assert_eq!(replay.items, texts(&captured()));
    assert_eq!(replay.result.unwrap(), RecordingEnd::Complete { records: 2 });
    let live: Vec<DropEvent> = [1, 2].map(|i| decode_record(&drop_of(i).bytes(), &names).unwrap()).into();
    assert_eq!(replay.events, live);
    assert!(live[0].location.symbol.is_some() && live[0].hook.is_some());
}

#[test]
fn the_header_comes_back() {
    let names = Names::linux();
    let file = record_all(&[], &names);
    let reader = RecordingReader::new(file.as_slice()).unwrap();
    assert_eq!(*reader.header(), header(&names));
    assert_eq!(reader.header().reasons.get(&12).map(|name| &**name), Some("NETFILTER_DROP"));
    assert_eq!(reader.reason(73).as_deref(), Some("TC_INGRESS"));
}

#[test]
fn clock_and_names_hold_from_where_they_changed() {
    let mut names = Names::linux();
    let mut file = Vec::new();
    let mut writer = RecordingWriter::new(&mut file, &header(&names)).unwrap();
    let late = 0x2_0001;
    writer.write(&Captured::Record(drop_of(1).reason(late).bytes()), &names).unwrap();
    names.clock_offset_ns += 5;
    names.reasons.insert(late, "OVS_LAST_ACTION".into());
    writer.write(&Captured::Record(drop_of(1).reason(late).bytes()), &names).unwrap();
    writer.finish().unwrap();
    let events = replay(&file).events;
    assert_eq!(events[1].time.as_nanosecond() - events[0].time.as_nanosecond(), 5);
    assert_eq!((&*events[0].reason.name, &*events[1].reason.name), ("reason-131073", "OVS_LAST_ACTION"));
}

#[test]
fn a_symbol_is_written_once_until_too_many_are_in_force() {
    let names = Names::linux();
    let once = record_all(&[Captured::Record(drop_of(1).bytes())], &names).len();
    let twice = record_all(&[Captured::Record(drop_of(1).bytes()), Captured::Record(drop_of(1).bytes())], &names).len();
    assert_eq!(twice - once, FRAME_HEAD + size_of::<DropRecord>());

    // Every record has 17 addresses nobody has seen before; all of them keep their names.
    let records: Vec<Captured> = (0..5_000_u64)
        // And the first once more, after they have been forgotten.
        .chain([0])
        .map(|i| {
            let base = names.address("ip_forward") + i * 0x1000;
            let stack: Vec<u64> = (1..=16).map(|frame| base + frame).collect();
            Captured::Record(drop_of(i).location(base).stack(&stack).bytes())
        })
        .collect();
    let replay = replay(&record_all(&records, &names));
    assert_eq!(replay.result.unwrap(), RecordingEnd::Complete { records: 5_001 });
    assert_eq!(replay.events.len(), 5_001);
    assert!(replay.events.iter().all(|event| event.location.symbol.is_some()));
}

/// A disk with room for so many bytes, that takes at most 1000 at once and is interrupted every other time.
#[derive(Debug)]
struct Disk {
    room: usize,
    file: Vec<u8>,
    interrupt: bool,
}

impl Disk {
    fn new(room: usize) -> Self {
        Disk { room, file: Vec::new(), interrupt: false }
    }
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.interrupt = !self.interrupt;
        if self.interrupt {
            return Err(ErrorKind::Interrupted.into());
        }
        let len = bytes.len().min(1000).min(self.room - self.file.len());
        if len == 0 {
            return Err(ErrorKind::StorageFull.into());
        }
        self.file.extend_from_slice(&bytes[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_says_how_many_records_it_kept_and_they_can_be_replayed() {
    let names = Names::linux();
    let start = record_all(&[], &names).len();
    for room in (start..start + 200_000).step_by(7_919) {
        let mut disk = Disk::new(room);
        let mut writer = RecordingWriter::new(&mut disk, &header(&names)).unwrap();
        let error = (1..10_000).find_map(|i| writer.write(&Captured::Record(drop_of(i).bytes()), &names).err()).unwrap();
        let WriteError::Io { source, records } = error else { panic!("{error}") };
        assert_eq!(source.kind(), ErrorKind::StorageFull);
        assert_eq!(writer.records(), records);
        let after = writer.write(&captured()[0], &names);
        assert!(matches!(after, Err(WriteError::Stopped { records: same }) if same == records));
        drop(writer);
        assert_eq!(disk.file.len(), room);
        let replay = replay(&disk.file);
        assert_eq!(replay.events.len() as u64, records);
        match replay.result.unwrap() {
            RecordingEnd::Unfinished { records: read } | RecordingEnd::MidFrame { records: read } => assert_eq!(read, records),
            complete => panic!("{complete}"),
        }
    }
    let error = RecordingWriter::new(Disk::new(10), &header(&names)).unwrap_err();
    assert!(error.to_string().ends_with("0 records were kept and can be replayed"), "{error}");
}

#[test]
fn a_disk_may_be_full_after_any_byte() {
    let names = Names::linux();
    let start = record_all(&[], &names).len() - (FRAME_HEAD + 8);
    for room in start..start + 1_300 {
        let mut disk = Disk::new(room);
        let mut writer = RecordingWriter::new(&mut disk, &header(&names)).unwrap();
        let error = (1..10).find_map(|i| {
            let written = writer.write(&Captured::Record(drop_of(i).bytes()), &names);
            written.and_then(|()| if i % 3 == 0 { writer.flush() } else { Ok(()) }).err()
        });
        let Some(WriteError::Io { records, .. }) = error else { panic!("{error:?}") };
        drop(writer);
        assert_eq!(replay(&disk.file).events.len() as u64, records, "room for {room}");
    }
}

#[test]
fn a_recorder_that_is_dropped_leaves_what_it_had_without_end_mark() {
    let names = Names::linux();
    let mut file = Vec::new();
    let mut writer = RecordingWriter::new(&mut file, &header(&names)).unwrap();
    writer.write(&captured()[0], &names).unwrap();
    drop(writer);
    let end = replay(&file).result.unwrap();
    assert_eq!(end, RecordingEnd::Unfinished { records: 1 });
    assert_eq!(end.notice().unwrap(), "recording ends without its end mark (was the recorder killed?) after 1 records");
}

#[test]
fn a_file_cut_anywhere_gives_everything_before_the_cut() {
    let file = record_all(&captured(), &Names::linux());
    let begin = record_all(&[], &Names::linux()).len() - (FRAME_HEAD + 8);
    let all = texts(&captured());
    let (mut mid, mut before) = (0, 0);
    for len in 0..file.len() {
        let replay = replay(&file[..len]);
        assert!(all.starts_with(&replay.items), "cut at {len}");
        assert!(replay.items.len() >= before, "cut at {len}");
        before = replay.items.len();
        match replay.result {
            Err(e) => {
                assert!(len < begin, "{e} at {len}");
                assert!(matches!((len, e), (..8, ReadError::NotARecording) | (8.., ReadError::Header(_))));
            }
            Ok(end) => {
                assert!(len >= begin);
                let records = replay.events.len() as u64;
                mid += u32::from(end == RecordingEnd::MidFrame { records });
                assert!(end == RecordingEnd::MidFrame { records } || end == RecordingEnd::Unfinished { records }, "{end} at {len}");
            }
        }
    }
    assert_eq!(before, 4);
    assert!(mid > 800);
    let cut = replay(&file[..file.len() - 1]).result.unwrap();
    assert_eq!(cut.notice().unwrap(), "recording ends in the middle of a frame (was the recorder killed?) after 2 records");
}

/// A kernel whose rules and devices change between two records.
struct Surrounded {
    names: Names,
    functions: RefCell<Vec<HookFunction>>,
    peer: RefCell<Option<Peer>>,
    pod: RefCell<Option<Arc<str>>>,
}

impl KernelNames for Surrounded {
    fn reason(&self, number: u32) -> Option<Arc<str>> {
        self.names.reason(number)
    }

    fn symbol(&self, address: u64) -> Option<Symbol> {
        self.names.symbol(address)
    }

    fn clock_offset_ns(&self) -> i64 {
        self.names.clock_offset_ns()
    }

    fn hook_functions(&self, _at: HookPoint, _ifindex: u32) -> Arc<[HookFunction]> {
        self.functions.borrow().as_slice().into()
    }

    fn pod_of_cgroup(&self, cgroup: u64) -> Option<Arc<str>> {
        self.pod.borrow().clone().filter(|_| cgroup == 4242)
    }

    fn peer(&self, _netns: u32, _ifindex: u32) -> Option<Peer> {
        self.peer.borrow().clone()
    }
}

#[test]
fn surroundings_are_those_of_the_time() {
    let function = |table: &str| HookFunction { function: "ipt_do_table".into(), priority: -7, table: Some(table.into()), chain: None };
    let peer = Peer { netns: 77, index: 2, name: "eth0".into(), pod_uid: Some("uid".into()) };
    let (functions, pod) = (vec![function("filter")].into(), Some("pod".into()).into());
    let kernel = Surrounded { names: Names::linux(), functions, peer: Some(peer.clone()).into(), pod };
    let mut file = Vec::new();
    let mut writer = RecordingWriter::new(&mut file, &header(&kernel.names)).unwrap();
    let record = Captured::Record(drop_of(1).socket(7, 4242).bytes());
    writer.write(&record, &kernel).unwrap();
    let first = writer.buffered();
    writer.write(&record, &kernel).unwrap();
    assert_eq!(writer.buffered() - first, FRAME_HEAD + size_of::<DropRecord>(), "what is known is not written again");
    *kernel.functions.borrow_mut() = vec![function("raw"), function("mangle")];
    *kernel.peer.borrow_mut() = None;
    // The kernel forgets where cgroups were; whose one was stays so.
    *kernel.pod.borrow_mut() = None;
    writer.write(&record, &kernel).unwrap();
    writer.finish().unwrap();

    let events = replay(&file).events;
    assert_eq!(events[0].filters, [function("filter")]);
    assert_eq!(events[0].peer, Some(peer));
    assert_eq!(events[1], events[0]);
    assert_eq!(events[2].filters, [function("raw"), function("mangle")]);
    assert_eq!(events[2].peer, None);
    let pods: Vec<_> = events.iter().map(|event| event.socket.as_ref().unwrap().pod_uid.as_deref()).collect();
    assert_eq!(pods, [Some("pod"); 3]);
}

fn error_of(file: &[u8]) -> String {
    match replay(file).result {
        Err(e) => e.to_string(),
        Ok(end) => panic!("{end}"),
    }
}

fn file_with_header(change: impl FnOnce(&mut RecordingHeader)) -> Vec<u8> {
    let names = Names::linux();
    let mut header = header(&names);
    change(&mut header);
    let mut file = Vec::new();
    RecordingWriter::new(&mut file, &header).unwrap().finish().unwrap();
    file
}

#[test]
fn files_that_cannot_be_replayed_say_why() {
    let good = record_all(&captured(), &Names::linux());
    let with = |at: usize, bytes: &[u8]| {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        error_of(&file)
    };
    assert_eq!(error_of(b"{\"kind\": \"Pod\"}..."), "this is no recording of netpol-observer: it does not begin with \"npo-rec\\n\"");
    assert!(error_of(b"").starts_with("this is no recording"));
    assert_eq!(with(8, &[4]), "recording has format version 4, this program reads up to 3: replay it with a newer netpol-observer");
    assert!(with(8, &[0]).contains("format version 0"));
    assert!(with(12, &[0xff; 4]).contains("4294967295 bytes are more than the 1048576"));
    assert!(with(16, b"}").starts_with("header of the recording: "));
    assert!(error_of(&file_with_header(|header| header.record_size = 400)).contains("records have 400 bytes, this program's have 384"));
    let other = if ByteOrder::NATIVE == ByteOrder::Little { ByteOrder::Big } else { ByteOrder::Little };
    assert!(error_of(&file_with_header(|header| header.byte_order = other)).contains("other byte order"));
}

#[test]
fn damaged_frames_say_where() {
    let mut file = record_all(&captured()[..1], &Names::linux());
    file.truncate(file.len() - (FRAME_HEAD + 8));
    let at = file.len();
    let frame = |kind: u8, len: u32, payload: &[u8]| {
        let text = error_of(&[file.as_slice(), &[kind], &len.to_le_bytes(), payload].concat());
        let prefix = format!("recording is damaged at byte {at}, after 1 records: ");
        text.strip_prefix(&prefix).map(str::to_owned).unwrap_or(text)
    };
    assert_eq!(frame(99, 0, &[]), "a frame of unknown kind 99");
    assert_eq!(frame(KIND_HOOK, 6, &[0, 0, 0, 0, 3, 0]), "a hook of unknown family 3 or number 0");
    assert!(frame(KIND_HOOK, 8, &[0, 0, 0, 0, 0, 0, b'{', b'}']).starts_with("functions of a hook: "));
    assert!(frame(KIND_PEER, 9, &[0, 0, 0, 0, 0, 0, 0, 0, b'x']).starts_with("the peer of a device: "));
    assert_eq!(frame(KIND_RECORD, u32::MAX, &[]), "a frame of 4294967295 bytes, where the longest have 4096");
    assert_eq!(frame(KIND_RECORD, 5, &[0; 5]), "a record of 5 bytes");
    assert_eq!(frame(KIND_REPEAT, 63, &[0; 63]), "a repeat of 63 bytes");
    assert_eq!(frame(KIND_LEDGER, 65, &[0; 65]), "a ledger of 65 bytes");
    assert_eq!(frame(KIND_SYMBOL, 9, &[0; 9]), "a symbol of 9 bytes");
    assert_eq!(frame(KIND_SYMBOL, 17, &[0xff; 17]), "a symbol whose name is not UTF-8");
    assert_eq!(frame(KIND_CLOCK, 7, &[0; 7]), "a clock offset of 7 bytes");
    assert_eq!(frame(KIND_END, 8, &[9, 0, 0, 0, 0, 0, 0, 0]), "the end mark speaks of 9 records");
}

#[test]
fn names_do_not_grow_without_bound() {
    let mut file = record_all(&[], &Names::linux());
    file.truncate(file.len() - (FRAME_HEAD + 8));
    for address in 0..=MAX_SYMBOLS as u64 {
        file.push(KIND_SYMBOL);
        file.extend_from_slice(&17_u32.to_le_bytes());
        file.extend_from_slice(&address.to_le_bytes());
        file.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, b'f']);
    }
    assert!(error_of(&file).contains("more than 65536 symbols at one time"));
}

#[test]
fn a_record_of_another_size_is_refused_and_the_rest_goes_on() {
    let names = Names::linux();
    let mut file = Vec::new();
    let mut writer = RecordingWriter::new(&mut file, &header(&names)).unwrap();
    let error = writer.write(&Captured::Record(vec![0; 5].into()), &names).unwrap_err();
    assert_eq!(error.to_string(), "record of 5 bytes cannot be recorded, expected 384");
    writer.write(&captured()[0], &names).unwrap();
    assert_eq!(writer.finish().unwrap(), 1);
    assert_eq!(replay(&file).items.len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes(file in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(replay(&file).result.is_err());
        let behind_magic = [MAGIC.as_slice(), &VERSION.to_le_bytes(), &file].concat();
        let _ = replay(&behind_magic);
    }

    #[test]
    fn any_frames(frames in prop::collection::vec((0..10_u8, prop::collection::vec(any::<u8>(), 0..70)), 0..20), tail in prop::collection::vec(any::<u8>(), 0..20)) {
        let mut file = record_all(&[], &Names::linux());
        file.truncate(file.len() - (FRAME_HEAD + 8));
        for (kind, payload) in frames {
            file.push(kind);
            file.extend_from_slice(&(payload.len() as u32).to_le_bytes());
            file.extend_from_slice(&payload);
        }
        file.extend_from_slice(&tail);
        let _ = replay(&file);
    }

    #[test]
    fn flipped_bytes(flips in prop::collection::vec((any::<prop::sample::Index>(), 1..=u8::MAX), 1..4)) {
        let mut file = record_all(&captured(), &Names::linux());
        for (at, value) in flips {
            let at = at.index(file.len());
            file[at] ^= value;
        }
        let _ = replay(&file);
    }

    #[test]
    fn any_order_of_captured_items_comes_back(kinds in prop::collection::vec(0..3_u8, 0..40)) {
        let all: Vec<Captured> = kinds
            .iter()
            .enumerate()
            .map(|(i, kind)| match kind {
                0 => Captured::Record(drop_of(i as u64).bytes()),
                1 => repeat(i as u64),
                _ => Captured::Ledger(KernelLedger { received: i as u64, ..LEDGER }),
            })
            .collect();
        let replay = replay(&record_all(&all, &Names::linux()));
        prop_assert_eq!(replay.items, texts(&all));
    }
}
