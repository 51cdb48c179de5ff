//! What the kernel tests share: when to skip, one test at a time, pods and calls.

use std::ffi::OsString;
use std::io::{ErrorKind, Read as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use netpol_observer::capture::live::{Live, LiveOptions, open};
use netpol_observer::capture::permissions::Permissions;
use netpol_observer::capture::{Attach, KernelLedger, is_built_in};
use xtask::machine::Machine;
use xtask::netns::{Bed, Netns};
use xtask::testing::skipped;

/// The machine for one test, or `None` after printing why it cannot run here.
pub(crate) fn machine(test: &str) -> Option<Machine> {
    Machine::for_test(test, &Permissions::read().missing_for_capture(), is_built_in())
}

/// Whether the machine is emulated, as the guests of `cargo xtask kernels` are: some ten to thirty times slower.
pub(crate) fn is_slow() -> bool {
    std::env::var_os("NETPOL_OBSERVER_TEST_SLOW").is_some()
}

/// A runtime like that of the binary.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
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

    pub(crate) fn namespaces(&self) -> [Netns; 3] {
        [self.node.clone(), self.web.clone(), self.api.clone()]
    }
}

/// A TCP server in `netns` that accepts on `address` and sends one byte to each caller, until the process ends. One that is there already is
/// enough.
pub(crate) fn serve_tcp(netns: &Netns, address: SocketAddr) {
    let listener = match netns.in_ns(|| TcpListener::bind(address)).unwrap() {
        Err(error) if error.kind() == ErrorKind::AddrInUse => return,
        listener => listener.unwrap(),
    };
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
