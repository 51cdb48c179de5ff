//! What the running kernel offers: field offsets, reason names, symbols.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use netpol_observer_common::{ABSENT, Field};

use super::TRACEPOINT;
use super::btf::{Btf, BtfError};
use super::candidates::REASON_PREFIX;
use super::error::CaptureError;
use super::surroundings::Surroundings;
use super::symbols::Symbols;
use crate::flow::{HookFunction, HookPoint, KernelNames, Peer, Symbol};

const BTF_DIR: &str = "/sys/kernel/btf";
const KALLSYMS: &str = "/proc/kallsyms";

/// The layout of `struct nf_conntrack_tuple` that [`netpol_observer_common::ConntrackTuple`] assumes: member, offset, size.
const TUPLE_LAYOUT: &[(&str, u32, u32)] =
    &[("src.u3", 0, 16), ("src.u", 16, 2), ("src.l3num", 18, 2), ("dst.u3", 20, 16), ("dst.u", 36, 2), ("dst.protonum", 38, 1)];

/// Byte offsets for the eBPF program, and what could not be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offsets {
    /// In the order of [`Field::ALL`]; [`ABSENT`] where this kernel has no such field.
    pub table: [u32; Field::COUNT],
    /// Optional fields that are absent, and why.
    pub absent: Vec<(Field, BtfError)>,
}

/// Facts about the running kernel.
#[derive(Debug)]
pub struct Kernel {
    /// `uname -r`
    pub release: String,
    btf: Btf,
    modules: Vec<(String, Btf)>,
    /// The BTF came from a file, because the kernel shows none of its own.
    foreign: bool,
}

impl Kernel {
    /// Reads the kernel's BTF and that of its modules; or the BTF of this very kernel from `file`, in the form of
    /// /sys/kernel/btf/vmlinux, for kernels that were built without it.
    ///
    /// # Errors
    /// When the kernel shows no BTF, the file cannot be read, or it cannot be understood.
    pub fn read(file: Option<&Path>) -> Result<Self, CaptureError> {
        let path = file.map_or_else(|| Path::new(BTF_DIR).join("vmlinux"), Path::to_path_buf);
        let data = match fs::read(&path) {
            Ok(data) => data,
            Err(error) => return Err(CaptureError::NoBtf { path, error }),
        };
        let btf = Btf::parse(data).map_err(|error| CaptureError::Btf { path, error })?;
        // A module's BTF continues the numbering of its own kernel's; that of another build would be misread.
        let modules = if file.is_none() { modules(&btf) } else { Vec::new() };
        Ok(Kernel { release: release(), modules, btf, foreign: file.is_some() })
    }

    /// The modules whose BTF is used.
    pub fn modules(&self) -> Vec<&str> {
        self.modules.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// How many arguments this tracepoint gives to a program; `None` where BTF does not have it.
    pub fn tracepoint_arguments(&self, name: &str) -> Option<usize> {
        self.btf.tracepoint_arguments(name)
    }

    /// Whether the kernel itself knows the types of this tracepoint's arguments, so that `tp_btf` programs can use it.
    pub fn has_typed_tracepoint(&self, name: &str) -> bool {
        !self.foreign && self.tracepoint_arguments(name).is_some()
    }

    /// Whether drops come with a reason: the third argument of `kfree_skb`, from 5.17 on.
    pub fn gives_reasons(&self) -> bool {
        self.tracepoint_arguments(TRACEPOINT).is_some_and(|arguments| arguments >= 3)
    }

    /// Whether the kernel skips a program on a tracepoint that it has interrupted on the same CPU. The commit that brought this (6.2, "bpf:
    /// Prevent bpf program recursion for raw tracepoint probes") made a function of the counter of such runs.
    pub fn guards_against_recursion(&self) -> bool {
        self.btf.has_function("bpf_prog_inc_misses_counter")
    }

    /// Whether a task may be preempted in the middle of a program on a tracepoint: from 7.0 on, where tracepoints are guarded by SRCU instead of
    /// disabled preemption.
    pub fn preempts_programs(&self) -> bool {
        !is_before(&self.release, (7, 0))
    }

    /// Values and names (with prefix) of the drop reasons: the core's and those of subsystems. Empty where drops come without.
    pub fn reasons(&self) -> BTreeMap<u32, String> {
        if !self.gives_reasons() {
            return BTreeMap::new();
        }
        let mut reasons = self.btf.enumerators("skb_drop_reason");
        // Bookkeeping values are no reasons.
        reasons.retain(|_, name| !matches!(name.strip_prefix(REASON_PREFIX), Some("MAX" | "SUBSYS_MASK")));
        for enumeration in ["mac80211_drop_reason", "ovs_drop_reason"] {
            for btf in std::iter::once(&self.btf).chain(self.modules.iter().map(|(_, btf)| btf)) {
                reasons.extend(btf.enumerators(enumeration));
            }
        }
        reasons
    }

    /// Looks up every field the program reads.
    ///
    /// # Errors
    /// When a field without which nothing can be recorded is missing or has changed; it is named.
    pub fn offsets(&self) -> Result<Offsets, CaptureError> {
        let mut offsets = Offsets { table: [ABSENT; Field::COUNT], absent: Vec::new() };
        for &field in Field::ALL {
            match self.place(field) {
                Ok(offset) => offsets.table[field as usize] = offset,
                Err(error) if field.spec().required => return Err(CaptureError::Field(error)),
                Err(error) => offsets.absent.push((field, error)),
            }
        }
        Ok(offsets)
    }

    fn place(&self, field: Field) -> Result<u32, BtfError> {
        let spec = field.spec();
        let btf = self.defining(spec.structure, spec.path);
        let place = btf.place(spec.structure, spec.path)?;
        if place.size != spec.size {
            return Err(BtfError::Size {
                structure: spec.structure.to_owned(),
                path: spec.path.to_owned(),
                has: place.size,
                wants: spec.size,
            });
        }
        if field == Field::NfConnOriginal {
            check_tuple(btf)?;
        }
        Ok(place.offset)
    }

    /// Offset of a field of any size, or `None`.
    pub(super) fn offset_of(&self, structure: &str, path: &str) -> Option<u32> {
        self.defining(structure, path).place(structure, path).ok().map(|place| place.offset)
    }

    /// Size of a structure in bytes.
    pub(super) fn size_of(&self, structure: &str) -> Option<u32> {
        self.btf.structure_size(structure)
    }

    /// The BTF that defines a structure: the kernel's, or else the first module's that does.
    fn defining(&self, structure: &str, path: &str) -> &Btf {
        if matches!(self.btf.place(structure, path), Err(BtfError::NoStructure(_))) {
            for (_, module) in &self.modules {
                if !matches!(module.place(structure, path), Err(BtfError::NoStructure(_))) {
                    return module;
                }
            }
        }
        &self.btf
    }

    /// The kernel's symbols; empty where they are hidden from this process.
    pub fn symbols() -> Symbols {
        Symbols::parse(&fs::read_to_string(KALLSYMS).unwrap_or_default())
    }

    /// What gives numbers their names, now.
    pub fn names(&self) -> LiveNames {
        let reasons = self
            .reasons()
            .into_iter()
            .map(|(number, name)| (number, Arc::from(name.strip_prefix(REASON_PREFIX).unwrap_or(&name))))
            .collect();
        LiveNames {
            reasons,
            symbols: RwLock::new(Self::symbols()),
            found: RwLock::default(),
            clock_offset_ns: clock_offset_ns(),
            surroundings: OnceLock::new(),
        }
    }
}

fn check_tuple(btf: &Btf) -> Result<(), BtfError> {
    for &(path, offset, size) in TUPLE_LAYOUT {
        let place = btf.place("nf_conntrack_tuple", path)?;
        if (place.offset, place.size) != (offset, size) {
            return Err(BtfError::Size { structure: "nf_conntrack_tuple".into(), path: path.into(), has: place.size, wants: size });
        }
    }
    Ok(())
}

/// BTF of the loaded modules that can hold a structure of interest.
fn modules(kernel: &Btf) -> Vec<(String, Btf)> {
    const OF_INTEREST: &[&str] = &["nf_conntrack", "openvswitch", "mac80211", "nf_tables", "x_tables"];
    OF_INTEREST
        .iter()
        .filter_map(|&module| {
            let data = fs::read(Path::new(BTF_DIR).join(module)).ok()?;
            match kernel.with_module(data) {
                Ok(btf) => Some((module.to_owned(), btf)),
                Err(error) => {
                    tracing::warn!("BTF of module {module} is not used: {error}");
                    None
                }
            }
        })
        .collect()
}

/// `uname -r`
pub fn release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").map_or_else(|_| "unknown".to_owned(), |release| release.trim().to_owned())
}

/// Whether a release (`uname -r`) is older than a version; one that cannot be read is not.
pub fn is_before(release: &str, version: (u32, u32)) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < version,
        _ => false,
    }
}

/// Nanoseconds from CLOCK_MONOTONIC, which records use, to the Unix epoch.
fn clock_offset_ns() -> i64 {
    let mut monotonic = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec that outlives the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut monotonic) };
    let uptime = Duration::new(monotonic.tv_sec.unsigned_abs(), monotonic.tv_nsec.unsigned_abs() as u32);
    let wall = jiff::Timestamp::now().as_nanosecond();
    i64::try_from(wall - i128::try_from(uptime.as_nanos()).unwrap_or(0)).unwrap_or(0)
}

/// Functions kept in [`LiveNames`] at the most.
const FOUND_SYMBOLS: usize = 4096;

/// Names from the running kernel.
#[derive(Debug)]
pub struct LiveNames {
    reasons: BTreeMap<u32, Arc<str>>,
    symbols: RwLock<Symbols>,
    /// Functions found before: drops come from few places.
    found: RwLock<HashMap<u64, Option<Symbol>>>,
    clock_offset_ns: i64,
    /// Set once the programs are loaded, where they could be.
    surroundings: OnceLock<Surroundings>,
}

impl LiveNames {
    /// From here on these can be asked too.
    pub(super) fn set_surroundings(&self, surroundings: Surroundings) {
        // Set once, by the one that loads the programs.
        let _ = self.surroundings.set(surroundings);
    }

    /// After modules have been loaded: their symbols and types.
    pub(super) fn reload(&self) {
        self.reload_symbols();
        let Some(surroundings) = self.surroundings.get() else { return };
        if let Err(error) = Kernel::read(None).and_then(|kernel| surroundings.refresh(&kernel)) {
            tracing::debug!("after modules changed: {error}");
        }
    }

    /// Reads the symbols again, after modules have been loaded.
    fn reload_symbols(&self) {
        *self.symbols.write().unwrap_or_else(PoisonError::into_inner) = Kernel::symbols();
        self.found.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Runs `f` on the symbols.
    pub fn with_symbols<T>(&self, f: impl FnOnce(&Symbols) -> T) -> T {
        f(&self.symbols.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// All reasons, for a recording's header.
    pub fn reasons(&self) -> &BTreeMap<u32, Arc<str>> {
        &self.reasons
    }
}

impl KernelNames for LiveNames {
    fn reason(&self, number: u32) -> Option<Arc<str>> {
        self.reasons.get(&number).cloned()
    }

    fn symbol(&self, address: u64) -> Option<Symbol> {
        if let Some(found) = self.found.read().unwrap_or_else(PoisonError::into_inner).get(&address) {
            return found.clone();
        }
        // Held meanwhile, so that nothing of before a reload is kept after it.
        let mut found = self.found.write().unwrap_or_else(PoisonError::into_inner);
        let symbol = self.with_symbols(|symbols| symbols.find(address));
        if found.len() >= FOUND_SYMBOLS {
            found.clear();
        }
        found.insert(address, symbol.clone());
        symbol
    }

    fn clock_offset_ns(&self) -> i64 {
        self.clock_offset_ns
    }

    fn hook_functions(&self, at: HookPoint, ifindex: u32) -> Arc<[HookFunction]> {
        match self.surroundings.get() {
            Some(surroundings) => surroundings.hook_functions(at, ifindex, |address| self.symbol(address)),
            None => Arc::from([]),
        }
    }

    fn pod_of_cgroup(&self, cgroup: u64) -> Option<Arc<str>> {
        self.surroundings.get()?.pod_of_cgroup(cgroup)
    }

    fn peer(&self, netns: u32, ifindex: u32) -> Option<Peer> {
        self.surroundings.get()?.peer(netns, ifindex)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole field list against the kernel this test runs on; it prints why when there is none to ask.
    #[test]
    fn this_kernel_has_the_fields() {
        let kernel = match Kernel::read(None) {
            Ok(kernel) => kernel,
            Err(error) => {
                xtask::testing::skipped("this_kernel_has_the_fields", &error.to_string());
                return;
            }
        };
        let offsets = kernel.offsets().expect("required fields");
        for (field, error) in &offsets.absent {
            println!("absent {field:?}: {error}");
        }
        // On x86-64 and arm64 a list_head comes first, so that no required field of sk_buff lies at offset 0.
        assert!(Field::ALL.iter().filter(|f| f.spec().structure == "sk_buff").all(|&f| offsets.table[f as usize] != 0));
        assert_eq!(kernel.gives_reasons(), !kernel.reasons().is_empty());
    }

    #[test]
    fn a_file_that_is_no_btf_is_named() {
        let error = Kernel::read(Some(Path::new("Cargo.toml"))).unwrap_err();
        assert!(error.to_string().contains("Cargo.toml"), "{error}");
        let error = Kernel::read(Some(Path::new("no/such/file"))).unwrap_err();
        assert!(error.to_string().contains("no/such/file"), "{error}");
    }
}
