//! What the kernel tests share: when to skip, one test at a time, and drops read byte by byte.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use netpol_observer::capture::live::{Live, LiveOptions, open};
use netpol_observer::capture::permissions::Permissions;
use netpol_observer::capture::{Attach, Captured, KernelLedger, is_built_in};
use netpol_observer::flow::{decode, fold_key};
use netpol_observer_common::{DropRecord, FoldKey};
use xtask::netns::{Bed, Netns, required_tools};
use xtask::testing::skipped;
use zerocopy::FromBytes as _;

/// One test at a time: the tracepoint is the machine's, and some tests count every drop there is.
static MACHINE: Mutex<()> = Mutex::new(());

/// The machine, for as long as this value lives: no other test runs on it, of this process or of another one.
pub(crate) struct Machine {
    _of_this_process: MutexGuard<'static, ()>,
    /// Locked; closing it gives the machine back, also when the process is killed.
    _of_all: File,
}

/// The machine for one test, or `None` after printing why it cannot run here.
pub(crate) fn machine(test: &str) -> Option<Machine> {
    let missing = Permissions::read().missing_for_capture();
    let why = if !missing.is_empty() {
        format!("missing {missing:?}; run as root")
    } else if !is_built_in() {
        "built without the eBPF program; run `cargo xtask test`".to_owned()
    } else if let Some(tool) = required_tools().first() {
        format!("the Debian package {} is not installed", tool.package)
    } else {
        let of_this_process = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
        let of_all = File::create(std::env::temp_dir().join("npo-test.lock")).unwrap();
        of_all.lock().unwrap();
        return Some(Machine { _of_this_process: of_this_process, _of_all: of_all });
    };
    skipped(test, &why);
    None
}

/// Whether the machine is emulated, as the guests of `cargo xtask kernels` are: some ten to thirty times slower.
pub(crate) fn is_slow() -> bool {
    std::env::var_os("NETPOL_OBSERVER_TEST_SLOW").is_some()
}

/// A runtime like that of the binary.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

/// A drop as the kernel reported it, repeats added.
#[derive(Clone)]
pub(crate) struct Seen {
    pub(crate) record: DropRecord,
    /// Packets: the record's and its repeats.
    pub(crate) packets: u64,
}

impl Seen {
    fn network(&self) -> (u8, usize) {
        match self.record.header[0] >> 4 {
            4 => (self.record.header[9], usize::from(self.record.header[0] & 15) * 4),
            _ => (self.record.header[6], 40),
        }
    }

    pub(crate) fn protocol(&self) -> u8 {
        self.network().0
    }

    pub(crate) fn destination_port(&self) -> u16 {
        let at = self.network().1 + 2;
        u16::from_be_bytes([self.record.header[at], self.record.header[at + 1]])
    }

    pub(crate) fn source_port(&self) -> u16 {
        let at = self.network().1;
        u16::from_be_bytes([self.record.header[at], self.record.header[at + 1]])
    }

    fn key(&self) -> ([u8; 16], [u8; 16], [u8; 2]) {
        let header = &self.record.header;
        let (mut src, mut dst) = ([0; 16], [0; 16]);
        let (_, transport) = self.network();
        if header[0] >> 4 == 4 {
            src[..4].copy_from_slice(&header[12..16]);
            dst[..4].copy_from_slice(&header[16..20]);
        } else {
            src.copy_from_slice(&header[8..24]);
            dst.copy_from_slice(&header[24..40]);
        }
        if header[0] >> 4 == 4 && u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0 {
            return (src, dst, [0; 2]);
        }
        let ports = if matches!(self.protocol(), 1 | 58) { transport } else { transport + 2 };
        (src, dst, [header[ports], header[ports + 1]])
    }
}

/// A capture that runs while packets are made in other threads.
pub(crate) struct Observed {
    pub(crate) seen: Vec<Seen>,
    pub(crate) ledger: KernelLedger,
    reasons: BTreeMap<u32, std::sync::Arc<str>>,
}

/// Captures while `traffic` runs, and a moment longer for what is under way.
pub(crate) fn observe(options: LiveOptions, traffic: impl FnOnce() + Send) -> Observed {
    runtime().block_on(async {
        let mut live = start(options);
        let reasons = live.reasons().clone();
        let mut collector = Collector::default();
        std::thread::scope(|scope| {
            let traffic = scope.spawn(traffic);
            tokio::task::block_in_place(|| {
                tokio::runtime::Handle::current().block_on(async {
                    while !traffic.is_finished() {
                        if let Ok(Some(captured)) = tokio::time::timeout(Duration::from_millis(20), live.next()).await {
                            collector.take(captured);
                        }
                    }
                });
            });
            traffic.join().unwrap();
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        live.stop();
        while let Some(captured) = live.next().await {
            collector.take(captured);
        }
        let ledger = collector.ledger.expect("a final ledger");
        Observed { seen: collector.seen, ledger, reasons }
    })
}

/// With NETPOL_OBSERVER_TEST_BTF_FILE the machine is one whose kernel shows no types (`cargo xtask kernels --kernel 5.10-no-btf`), and they are in
/// this file.
pub(crate) fn btf_file() -> Option<PathBuf> {
    std::env::var_os("NETPOL_OBSERVER_TEST_BTF_FILE").map(PathBuf::from)
}

pub(crate) fn as_this_machine_needs(options: LiveOptions) -> LiveOptions {
    match btf_file() {
        Some(file) => LiveOptions { attach: Attach::Raw, kernel_btf: Some(file), ..options },
        None => options,
    }
}

/// The same as options of the observer.
pub(crate) fn arguments_for_this_machine() -> Vec<OsString> {
    match btf_file() {
        Some(file) => vec!["--attach".into(), "raw-tracepoint".into(), "--kernel-btf".into(), file.into()],
        None => Vec::new(),
    }
}

/// Whether the kernel shows its types; prints that the test is skipped where it does not.
pub(crate) fn shows_types(test: &str) -> bool {
    let shows = std::path::Path::new("/sys/kernel/btf/vmlinux").exists();
    if !shows {
        skipped(test, "this kernel shows no types");
    }
    shows
}

pub(crate) fn start(options: LiveOptions) -> Live {
    open(as_this_machine_needs(options)).unwrap_or_else(|error| panic!("{error}\nhint: {}", error.hint()))
}

#[derive(Default)]
struct Collector {
    seen: Vec<Seen>,
    ledger: Option<KernelLedger>,
}

impl Collector {
    fn take(&mut self, captured: Captured) {
        match captured {
            Captured::Record(bytes) => {
                let record = DropRecord::read_from_bytes(&bytes).expect("a whole record");
                self.seen.push(Seen { record, packets: 1 });
            }
            Captured::Repeat { key, value } => {
                let reported = self.seen.iter().any(|seen| user_space_key(&seen.record) == key);
                assert!(reported, "the kernel's key is the one user space makes of its record: {key:?}");
                let mut same = self.seen.iter_mut().rev().filter(|seen| is_same(seen, &key));
                same.next().expect("a repeat comes behind its record").packets += value.count;
            }
            Captured::Ledger(ledger) => self.ledger = Some(ledger),
        }
    }
}

/// The key as user space makes it, to name a drop the same way in all records.
fn user_space_key(record: &DropRecord) -> FoldKey {
    let bytes = &record.header[..usize::from(record.header_len)];
    fold_key(record, &decode(record.ether_type, bytes).expect("a packet"))
}

fn is_same(seen: &Seen, key: &FoldKey) -> bool {
    let record = &seen.record;
    (record.netns, record.reason, seen.protocol()) == (key.netns, key.reason, key.protocol)
        && seen.key() == (key.src, key.dst, key.dst_port)
}

impl Observed {
    /// The drops in one network namespace.
    pub(crate) fn in_netns(&self, netns: &Netns) -> Vec<&Seen> {
        let inode = u32::try_from(netns.inode().unwrap()).unwrap();
        self.seen.iter().filter(|seen| seen.record.netns == inode).collect()
    }

    /// What [`Observed::reason`] says for this reason: kernels before 5.17 name none.
    pub(crate) fn named<'a>(&self, reason: &'a str) -> &'a str {
        if self.reasons.is_empty() { "?" } else { reason }
    }

    pub(crate) fn reason(&self, seen: &Seen) -> &str {
        self.reasons.get(&seen.record.reason).map_or("?", |name| name)
    }

    /// Everything the program saw is accounted for.
    pub(crate) fn assert_balanced(&self) {
        assert_balanced(&self.ledger);
        let packets: u64 = self.seen.iter().map(|seen| seen.packets).sum();
        assert_eq!(self.ledger.counters.seen - self.ledger.counters.ring_full, packets);
    }
}

/// Whether a ledger accounts for everything the program saw: what it saw, the records it wrote and were read, the repeats it counted and were
/// delivered.
pub(crate) fn is_balanced(ledger: &KernelLedger) -> bool {
    let KernelLedger { counters, received, folded_delivered, .. } = ledger;
    counters.seen == counters.reported + counters.folded + counters.ring_full
        && counters.reported == *received
        && counters.folded == *folded_delivered
}

/// A final ledger that accounts for everything the program saw.
pub(crate) fn assert_balanced(ledger: &KernelLedger) {
    assert!(is_balanced(ledger), "{ledger:?}");
}

/// A node with two pods on links of their own, the pods with IPv4 and IPv6 addresses ending in 10 and 20.
pub(crate) struct Pods {
    pub(crate) node: Netns,
    pub(crate) web: Netns,
    pub(crate) api: Netns,
    _bed: Bed,
}

impl Pods {
    pub(crate) fn new() -> Self {
        let mut bed = Bed::new("npo-test").unwrap();
        let own: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let node = bed.node("node", &own).unwrap();
        let mut pod = |name: &str, last: &str| {
            let addresses = [format!("10.244.1.{last}"), format!("fd00:10:244:1::{last}")].map(|address| address.parse().unwrap());
            node.routed_pod(&mut bed, name, &addresses).unwrap()
        };
        let (web, api) = (pod("web", "10"), pod("api", "20"));
        Pods { node: node.netns().clone(), web, api, _bed: bed }
    }
}

/// A TCP server in `netns` that accepts on `address` and sends one byte to each caller, until the process ends.
pub(crate) fn serve_tcp(netns: &Netns, address: SocketAddr) {
    let listener = netns.in_ns(|| TcpListener::bind(address)).unwrap().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            use std::io::Write as _;
            let _ = (&stream).write_all(b"!");
        }
    });
}

/// Calls and waits for the byte. Within the namespace of the calling thread.
pub(crate) fn call_tcp(address: SocketAddr, patience: Duration) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.read_exact(&mut [0])
}

/// Sends one datagram; the kernel's refusal (EPERM, when the OUTPUT hook drops it) is no error here.
pub(crate) fn send_udp(address: SocketAddr, payload: &[u8]) {
    let any: IpAddr = if address.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
    let _ = UdpSocket::bind((any, 0)).unwrap().send_to(payload, address);
}
