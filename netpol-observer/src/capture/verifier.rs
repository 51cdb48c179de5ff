//! What the verifier has to do to accept the programs.

use std::io;
use std::path::Path;

use aya::programs::{BtfTracePoint, ProgramError, RawTracePoint};
use aya::{Btf, Ebpf, VerifierLogLevel};

use super::TRACEPOINT;
use super::error::CaptureError;
use super::forms::{Form, kernel_types, load_error};
use super::kernel::Kernel;
use super::program::Program;

/// How many instructions the verifier has gone through until it accepted a program; loops and branches count each time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The program's name.
    pub program: &'static str,
    /// Kernels since 5.2 give up at 1,000,000 (`BPF_COMPLEXITY_LIMIT_INSNS`).
    pub instructions: u32,
}

/// Has the running kernel verify the programs of a form; `kernel_btf` as for [`Kernel::read`]. Before 5.16 this is [`verified_by_log`].
///
/// # Errors
/// As for opening a capture; also when the kernel does not accept a program.
pub fn verified(form: Form, kernel_btf: Option<&Path>) -> Result<Vec<Verified>, CaptureError> {
    let kernel = Kernel::read(kernel_btf)?;
    let (mut ebpf, types) = (maps(&kernel)?, types(form)?);
    let mut all = Vec::new();
    for program in programs(form, &kernel)? {
        let Some(instructions) = load(&mut ebpf, types.as_ref(), program, &kernel)? else { return verified_by_log(form, kernel_btf) };
        all.push(Verified { program, instructions });
    }
    Ok(all)
}

/// The same by the verifier's log, which is shown for a load that fails. So the loads are made to fail when everything has been verified: for
/// want of a file descriptor. Until this returns, other threads of the process get none either.
///
/// # Errors
/// As [`verified`].
pub fn verified_by_log(form: Form, kernel_btf: Option<&Path>) -> Result<Vec<Verified>, CaptureError> {
    let kernel = Kernel::read(kernel_btf)?;
    let (mut ebpf, types) = (maps(&kernel)?, types(form)?);
    let mut all = Vec::new();
    for program in programs(form, &kernel)? {
        let instructions = without_descriptors(|| load(&mut ebpf, types.as_ref(), program, &kernel))??.ok_or_else(|| {
            CaptureError::Load(format!("kernel {} does not say how many instructions of {program} it verified", kernel.release))
        })?;
        all.push(Verified { program, instructions });
    }
    Ok(all)
}

fn maps(kernel: &Kernel) -> Result<Ebpf, CaptureError> {
    Program::load_maps(kernel, &kernel.offsets()?, &Kernel::symbols(), RING_BYTES, VerifierLogLevel::STATS)
}

/// The programs of a form that this kernel is given.
fn programs(form: Form, kernel: &Kernel) -> Result<Vec<&'static str>, CaptureError> {
    let [first, stand_in] = form.programs();
    let stand_in = Program::is_guarded(kernel, &kernel.offsets()?).then_some(stand_in);
    Ok([first].into_iter().chain(stand_in).chain([SURROUNDINGS]).collect())
}

/// The types that a form needs, read while there are descriptors.
fn types(form: Form) -> Result<Option<Btf>, CaptureError> {
    (form == Form::Typed).then(kernel_types).transpose()
}

/// The program that is run on request; it has one form.
const SURROUNDINGS: &str = "surroundings";
/// Enough for the map to be made.
const RING_BYTES: u32 = 64 * 1024;

/// Loads a program, and gives the number that the kernel tells of it or of its failure.
fn load(ebpf: &mut Ebpf, types: Option<&Btf>, name: &'static str, kernel: &Kernel) -> Result<Option<u32>, CaptureError> {
    let program = ebpf.program_mut(name).ok_or(CaptureError::ForeignObject(name))?;
    let foreign = |_: ProgramError| CaptureError::ForeignObject(name);
    let loaded = match types {
        Some(types) if name != SURROUNDINGS => {
            let program: &mut BtfTracePoint = program.try_into().map_err(foreign)?;
            program.load(TRACEPOINT, types).and_then(|()| program.info())
        }
        _ => {
            let program: &mut RawTracePoint = program.try_into().map_err(foreign)?;
            program.load().and_then(|()| program.info())
        }
    };
    match loaded {
        Ok(info) => Ok(info.verified_instruction_count()),
        Err(ProgramError::LoadError { io_error, verifier_log }) if io_error.raw_os_error() == Some(libc::EMFILE) => {
            Ok(processed(&verifier_log.to_string()))
        }
        Err(error) => Err(load_error("load the program", &kernel.release, &error)),
    }
}

/// `processed 13614 insns (limit 1000000) max_states_per_insn …` (`print_verification_stats()` in kernel/bpf/verifier.c).
fn processed(log: &str) -> Option<u32> {
    log.lines().find_map(|line| line.strip_prefix("processed ")?.split(' ').next()?.parse().ok())
}

/// Runs `work` while this process can open no more files.
fn without_descriptors<T>(work: impl FnOnce() -> T) -> Result<T, CaptureError> {
    let failed = |()| CaptureError::Io { what: "limit the number of open files", error: io::Error::last_os_error() };
    // All lower ones are taken from here on; what is above stays open.
    let next = std::fs::File::open("/dev/null").map_err(|error| CaptureError::Io { what: "open /dev/null", error })?;
    let lowest = std::os::fd::AsRawFd::as_raw_fd(&next);
    drop(next);
    let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointers are to an rlimit that outlives the calls.
    let set = |limit: &libc::rlimit| if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, limit) } == 0 { Ok(()) } else { Err(()) };
    // SAFETY: as above.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut before) } != 0 {
        return Err(failed(()));
    }
    set(&libc::rlimit { rlim_cur: u64::try_from(lowest).unwrap_or(0), ..before }).map_err(failed)?;
    let result = work();
    set(&before).map_err(failed)?;
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_found_in_a_log() {
        let log = "func#0 @0\nverification time 5144 usec\nstack depth 216\nprocessed 13614 insns (limit 1000000) max_states_per_insn 4\n";
        assert_eq!(processed(log), Some(13614));
        assert_eq!(processed("unknown func bpf_x#500\n"), None);
    }
}
