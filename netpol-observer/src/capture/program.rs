//! Loading and attaching the eBPF program, and its maps.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::maps::{Array, HashMap, MapData, PerCpuArray, RingBuf};
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use netpol_observer_common::{ABSENT, Counters, Field, FoldKey, FoldValue, LOCATION_RANGES};

use super::candidates::Candidates;
use super::error::CaptureError;
use super::forms::{Attach, Form, Programs, load_error};
use super::kernel::{Kernel, Offsets};
use super::symbols::Symbols;

/// The compiled program, or nothing where it was not built (see build.rs).
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/observer.bpf.o"));

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
    programs: Programs,
    release: String,
}

impl Program {
    /// Loads the program with the kernel's offsets; `ring_bytes` is a power of two of at least a page.
    pub(super) fn load(
        kernel: &Kernel,
        offsets: &Offsets,
        symbols: &Symbols,
        ring_bytes: u32,
        attach: Attach,
    ) -> Result<Self, CaptureError> {
        let mut ebpf = Self::load_maps(kernel, offsets, symbols, ring_bytes, VerifierLogLevel::default())?;
        let guarded = Self::is_guarded(kernel, offsets);
        let programs = Programs::load(&mut ebpf, kernel, attach, guarded)?;
        Ok(Program {
            fold: [take(&mut ebpf, "FOLD_EVEN")?, take(&mut ebpf, "FOLD_ODD")?],
            epoch: take(&mut ebpf, "EPOCH")?,
            counters: take(&mut ebpf, "COUNTERS")?,
            core_reasons: take(&mut ebpf, "CORE_REASON_ACTIONS")?,
            subsystem_reasons: take(&mut ebpf, "SUBSYSTEM_REASON_ACTIONS")?,
            locations: take(&mut ebpf, "LOCATIONS")?,
            epoch_now: 0,
            programs,
            release: kernel.release.clone(),
            ebpf: Arc::new(Mutex::new(ebpf)),
        })
    }

    /// Whether there is a program that stands in. Without the stack's place an interrupt's run cannot be told from a task's: then one program does
    /// all, as far as the guard lets it.
    pub(super) fn is_guarded(kernel: &Kernel, offsets: &Offsets) -> bool {
        kernel.guards_against_recursion() && offsets.table[Field::TaskStack as usize] != ABSENT
    }

    /// The object with its maps, set up for this kernel; no program of it is loaded yet.
    pub(super) fn load_maps(
        kernel: &Kernel,
        offsets: &Offsets,
        symbols: &Symbols,
        ring_bytes: u32,
        log: VerifierLogLevel,
    ) -> Result<Ebpf, CaptureError> {
        if !is_built_in() {
            return Err(CaptureError::NoProgram);
        }
        EbpfLoader::new()
            // For relocations that the object does not have; reading the kernel's types a second time takes longer than all the rest.
            .btf(None)
            .override_global("OFFSETS", &offsets.table, true)
            .override_global("HAS_REASON", &u32::from(kernel.gives_reasons()), true)
            .override_global("FORWARDERS", &["ip_forward", "ip6_forward"].map(|name| address(symbols, name)), true)
            .override_global("PREEMPTIBLE", &u32::from(kernel.preempts_programs()), true)
            .override_global("GUARDED", &u32::from(Self::is_guarded(kernel, offsets)), true)
            .map_max_entries("RECORDS", ring_bytes)
            .verifier_log_level(log)
            .load(OBJECT)
            .map_err(|error| load_error("create the program's maps", &kernel.release, &error))
    }

    /// Which form of it was loaded.
    pub(super) fn form(&self) -> Form {
        self.programs.form()
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

    /// Starts the programs. Nothing is captured until [`Program::set_candidates`].
    pub(super) fn attach(&mut self) -> Result<(), CaptureError> {
        self.programs.attach(&mut self.ebpf(), &self.release)
    }

    /// Stops them, and returns when no run of them is under way any more.
    pub(super) fn detach(&mut self) {
        self.programs.unload(&mut self.ebpf());
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

    /// Runs that the kernel skipped and no program made up for, at the most; see [`Programs::misses`].
    pub(super) fn misses(&self) -> u64 {
        self.programs.misses(&self.ebpf())
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

/// Where a function begins; 0 where that is not known.
fn address(symbols: &Symbols, function: &str) -> u64 {
    symbols.ranges(function).next().map_or(0, |(start, _)| start)
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
