//! Loading and attaching the eBPF program, and its maps.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::maps::{Array, HashMap, MapData, PerCpuArray, RingBuf};
use aya::programs::{BtfTracePoint, ProgramError, RawTracePoint};
use aya::{Btf, Ebpf, EbpfLoader};
use netpol_observer_common::{Counters, FoldKey, FoldValue, LOCATION_RANGES};

use super::candidates::Candidates;
use super::error::CaptureError;
use super::kernel::{Kernel, Offsets};
use super::permissions;

/// The compiled program, or nothing where it was not built (see build.rs).
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/observer.bpf.o"));

/// The tracepoint.
pub const TRACEPOINT: &str = "kfree_skb";

/// Which form of the program to load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attach {
    /// The typed form, or the raw one where the kernel does not take that.
    #[default]
    Auto,
    /// [`Form::Typed`] or nothing.
    Typed,
    /// [`Form::Raw`] or nothing.
    Raw,
}

/// The forms the program comes in. They do the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `BPF_PROG_TYPE_TRACING` with `BPF_TRACE_RAW_TP` ("tp_btf"): the verifier knows the arguments' types, and fields of the
    /// packet are plain loads.
    Typed,
    /// `BPF_PROG_TYPE_RAW_TRACEPOINT`: fields are read by a helper that checks each address. Needs no BTF in the kernel.
    Raw,
}

impl Form {
    /// Name of the program in the object.
    pub const fn program(self) -> &'static str {
        match self {
            Form::Typed => "kfree_skb",
            Form::Raw => "kfree_skb_raw",
        }
    }

    /// As documentation calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Form::Typed => "tp_btf",
            Form::Raw => "raw tracepoint",
        }
    }
}

/// The loaded object, of which parts are used by others.
pub(super) type SharedEbpf = Arc<Mutex<Ebpf>>;

type FoldMap = HashMap<MapData, [u8; size_of::<FoldKey>()], [u64; 2]>;

/// Whether this binary carries the eBPF program.
pub fn is_built_in() -> bool {
    !OBJECT.is_empty()
}

/// The loaded program with typed access to its maps.
pub(super) struct Program {
    ebpf: SharedEbpf,
    fold: [FoldMap; 2],
    epoch: Array<MapData, u32>,
    counters: PerCpuArray<MapData, [u64; 5]>,
    core_reasons: Array<MapData, u32>,
    subsystem_reasons: HashMap<MapData, u32, u32>,
    locations: Array<MapData, [u64; 2]>,
    epoch_now: u32,
    form: Form,
    release: String,
}

impl Program {
    /// Loads the program with the kernel's offsets; `ring_bytes` is a power of two of at least a page.
    pub(super) fn load(kernel: &Kernel, offsets: &Offsets, ring_bytes: u32, attach: Attach) -> Result<Self, CaptureError> {
        if !is_built_in() {
            return Err(CaptureError::NoProgram);
        }
        let mut ebpf = EbpfLoader::new()
            .override_global("OFFSETS", &offsets.table, true)
            .override_global("HAS_REASON", &u32::from(kernel.gives_reasons()), true)
            .map_max_entries("RECORDS", ring_bytes)
            .load(OBJECT)
            .map_err(|error| load_error("create the program's maps", &kernel.release, &error))?;
        let form = load_form(&mut ebpf, kernel, attach)?;
        Ok(Program {
            fold: [take(&mut ebpf, "FOLD_EVEN")?, take(&mut ebpf, "FOLD_ODD")?],
            epoch: take(&mut ebpf, "EPOCH")?,
            counters: take(&mut ebpf, "COUNTERS")?,
            core_reasons: take(&mut ebpf, "CORE_REASON_ACTIONS")?,
            subsystem_reasons: take(&mut ebpf, "SUBSYSTEM_REASON_ACTIONS")?,
            locations: take(&mut ebpf, "LOCATIONS")?,
            epoch_now: 0,
            form,
            release: kernel.release.clone(),
            ebpf: Arc::new(Mutex::new(ebpf)),
        })
    }

    /// Which form of it was loaded.
    pub(super) fn form(&self) -> Form {
        self.form
    }

    /// The object it is part of.
    pub(super) fn shared(&self) -> SharedEbpf {
        Arc::clone(&self.ebpf)
    }

    fn ebpf(&self) -> MutexGuard<'_, Ebpf> {
        self.ebpf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ring of records.
    pub(super) fn take_ring(&mut self) -> Result<RingBuf<MapData>, CaptureError> {
        take(&mut self.ebpf(), "RECORDS")
    }

    /// Diagnostics of the program go to the `log` facade.
    pub(super) fn take_logger(&mut self) -> Option<aya_log::EbpfLogger<&'static dyn log::Log>> {
        aya_log::EbpfLogger::init(&mut self.ebpf()).inspect_err(|error| tracing::debug!("no log ring in the eBPF object: {error}")).ok()
    }

    /// Starts it.
    pub(super) fn attach(&mut self) -> Result<(), CaptureError> {
        let mut ebpf = self.ebpf();
        let attached = match self.form {
            Form::Typed => typed(&mut ebpf)?.attach().map(drop),
            Form::Raw => raw(&mut ebpf)?.attach(TRACEPOINT).map(drop),
        };
        attached.map_err(|error| load_error("attach to the tracepoint", &self.release, &error))
    }

    /// Stops it, and returns when no run of it is under way any more.
    pub(super) fn detach(&mut self) {
        let mut ebpf = self.ebpf();
        let unloaded = match self.form {
            Form::Typed => typed(&mut ebpf).map(BtfTracePoint::unload),
            Form::Raw => raw(&mut ebpf).map(RawTracePoint::unload),
        };
        drop(ebpf);
        if let Ok(Err(error)) = unloaded {
            tracing::warn!("unloading the program: {error}");
        }
        wait_for_programs();
    }

    /// Replaces the candidate table.
    pub(super) fn set_candidates(&mut self, candidates: &Candidates) -> Result<(), CaptureError> {
        let failed = |error| CaptureError::Io { what: "set the candidate table", error: io::Error::other(error) };
        for reason in 0..self.core_reasons.len() {
            let action = candidates.reasons.get(&reason).copied().unwrap_or(0);
            self.core_reasons.set(reason, action, 0).map_err(failed)?;
        }
        for (&reason, &action) in candidates.reasons.range(self.core_reasons.len()..) {
            self.subsystem_reasons.insert(reason, action, 0).map_err(failed)?;
        }
        for i in 0..LOCATION_RANGES {
            let range = candidates.locations.get(i as usize).copied().unwrap_or_default();
            self.locations.set(i, [range.start, range.end], 0).map_err(failed)?;
        }
        Ok(())
    }

    /// The counters, summed over the CPUs.
    pub(super) fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        match self.counters.get(&0, 0) {
            Ok(values) => {
                for [seen, reported, folded, ring_full, unfolded] in values.iter().copied() {
                    sum += Counters { seen, reported, folded, ring_full, unfolded };
                }
            }
            Err(error) => tracing::warn!("reading the counters: {error}"),
        }
        sum
    }

    /// `recursion_misses` of the program: runs that the kernel skipped because it was already running on that CPU.
    pub(super) fn misses(&self) -> u64 {
        let read = || {
            let ebpf = self.ebpf();
            let program = ebpf.program(self.form.program())?;
            let fd = program.fd().ok()?.as_fd().as_raw_fd();
            let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
            info.lines().find_map(|line| line.strip_prefix("recursion_misses:")?.trim().parse().ok())
        };
        read().unwrap_or(0)
    }

    /// Lets the other fold table take over and empties the one that was in use.
    ///
    /// Between the two it waits until no run of the program can still be using the old table, so that nothing is counted in
    /// an entry after it has been read. Blocks for an RCU grace period, some milliseconds.
    pub(super) fn turn_fold(&mut self) -> Vec<(FoldKey, FoldValue)> {
        let old = (self.epoch_now & 1) as usize;
        let next = self.epoch_now.wrapping_add(1);
        if let Err(error) = self.epoch.set(0, next, 0) {
            tracing::warn!("turning the fold table: {error}");
            return Vec::new();
        }
        self.epoch_now = next;
        wait_for_programs();
        let table = &mut self.fold[old];
        let mut entries = Vec::new();
        for entry in table.iter() {
            match entry {
                Ok((key, [count, last_ns])) => entries.push((key, FoldValue { count, last_ns })),
                Err(error) => tracing::warn!("reading the fold table: {error}"),
            }
        }
        for (key, _) in &entries {
            if let Err(error) = table.remove(key) {
                tracing::warn!("emptying the fold table: {error}");
            }
        }
        entries.into_iter().map(|(key, value)| (zerocopy::transmute!(key), value)).filter(|(_, value)| value.count > 0).collect()
    }
}

/// Loads the form that was asked for, or the better one of those that this kernel takes.
fn load_form(ebpf: &mut Ebpf, kernel: &Kernel, attach: Attach) -> Result<Form, CaptureError> {
    if kernel.tracepoint_arguments(TRACEPOINT).is_none() {
        return Err(CaptureError::NoTracepoint { release: kernel.release.clone(), tracepoint: TRACEPOINT });
    }
    let failed = |error: &(dyn std::error::Error + 'static)| load_error("load the program", &kernel.release, error);
    let mut typed_form = || -> Result<Form, CaptureError> {
        if !kernel.has_typed_tracepoint(TRACEPOINT) {
            return Err(CaptureError::NoTypedTracepoint { release: kernel.release.clone(), tracepoint: TRACEPOINT });
        }
        let btf = Btf::from_sys_fs().map_err(|error| CaptureError::Load(error.to_string()))?;
        typed(ebpf)?.load(TRACEPOINT, &btf).map_err(|error| failed(&error))?;
        Ok(Form::Typed)
    };
    match attach {
        Attach::Typed => return typed_form(),
        Attach::Raw => {}
        Attach::Auto => match typed_form() {
            Ok(form) => return Ok(form),
            Err(CaptureError::NoTypedTracepoint { .. }) => {}
            // The verifier may object to the one and take the other; a missing permission is missing for both.
            Err(CaptureError::Load(error)) => tracing::warn!("falling back to a raw tracepoint: {error}"),
            Err(error) => return Err(error),
        },
    }
    raw(ebpf)?.load().map_err(|error| failed(&error))?;
    Ok(Form::Raw)
}

fn typed(ebpf: &mut Ebpf) -> Result<&mut BtfTracePoint, CaptureError> {
    let program = ebpf.program_mut(Form::Typed.program()).ok_or(CaptureError::ForeignObject("program kfree_skb"))?;
    program.try_into().map_err(|_: ProgramError| CaptureError::ForeignObject("tp_btf program kfree_skb"))
}

fn raw(ebpf: &mut Ebpf) -> Result<&mut RawTracePoint, CaptureError> {
    let program = ebpf.program_mut(Form::Raw.program()).ok_or(CaptureError::ForeignObject("program kfree_skb_raw"))?;
    program.try_into().map_err(|_: ProgramError| CaptureError::ForeignObject("raw tracepoint program kfree_skb_raw"))
}

pub(super) fn take<M: TryFrom<aya::maps::Map>>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, CaptureError> {
    ebpf.take_map(name).and_then(|map| M::try_from(map).ok()).ok_or(CaptureError::ForeignObject(name))
}

/// Waits for an RCU grace period: every tracing program that was running has ended (`__bpf_trace_run` holds the RCU read lock).
fn wait_for_programs() {
    // SAFETY: no memory is passed.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result != 0 {
        // nohz_full kernels refuse it; a run of the program takes microseconds.
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// Tells a missing permission from a refusal and from a rejected program.
fn load_error(what: &'static str, release: &str, error: &(dyn std::error::Error + 'static)) -> CaptureError {
    let mut source = Some(error);
    let mut text = String::new();
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<io::Error>()
            && let Some(code @ (libc::EPERM | libc::EACCES | libc::ENOSYS)) = io.raw_os_error()
            && let Some(refusal) = permissions::refusal(what, release, code)
        {
            return refusal;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&error.to_string());
        source = error.source();
    }
    CaptureError::Load(format!("{what}: {text}"))
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes as _;

    use super::*;

    #[test]
    fn the_key_keeps_its_bytes() {
        let mut bytes = [0u8; size_of::<FoldKey>()];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = i as u8;
        }
        let key: FoldKey = zerocopy::transmute!(bytes);
        assert_eq!(key.as_bytes(), bytes);
    }
}
