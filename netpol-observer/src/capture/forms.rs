//! The programs on the tracepoint: in which form, how many, loading and attaching.

use std::error::Error;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::programs::{BtfTracePoint, ProgramError, RawTracePoint};
use aya::{Btf, Ebpf};

use super::error::CaptureError;
use super::kernel::Kernel;
use super::permissions;

/// The tracepoint.
pub const TRACEPOINT: &str = "kfree_skb";

/// Which form of the programs to load.
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

/// The forms the programs come in. They do the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `BPF_PROG_TYPE_TRACING` with `BPF_TRACE_RAW_TP` ("tp_btf"): the verifier knows the arguments' types, and fields of the
    /// packet are plain loads.
    Typed,
    /// `BPF_PROG_TYPE_RAW_TRACEPOINT`: fields are read by a helper that checks each address. Needs no BTF in the kernel.
    Raw,
}

impl Form {
    /// As documentation calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Form::Typed => "tp_btf",
            Form::Raw => "raw tracepoint",
        }
    }

    /// Names in the object: of the program, and of the one that stands in when the kernel skips the first.
    pub const fn programs(self) -> [&'static str; 2] {
        match self {
            Form::Typed => ["kfree_skb", "kfree_skb_2nd"],
            Form::Raw => ["kfree_skb_raw", "kfree_raw_2nd"],
        }
    }
}

/// The programs that were loaded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Programs {
    form: Form,
    /// The kernel guards against recursion, and there are two. Otherwise the first one does all; where the kernel does not guard, it may
    /// interrupt itself.
    guarded: bool,
    /// A task may be preempted in the middle of a program.
    preemptible: bool,
}

impl Programs {
    /// Loads the form that was asked for, or the better one of those that this kernel takes.
    pub(super) fn load(ebpf: &mut Ebpf, kernel: &Kernel, attach: Attach, guarded: bool) -> Result<Self, CaptureError> {
        if kernel.tracepoint_arguments(TRACEPOINT).is_none() {
            return Err(CaptureError::NoTracepoint { release: kernel.release.clone(), tracepoint: TRACEPOINT });
        }
        let programs = |form| Programs { form, guarded, preemptible: kernel.preempts_programs() };
        let mut typed = || -> Result<Self, CaptureError> {
            if !kernel.has_typed_tracepoint(TRACEPOINT) {
                return Err(CaptureError::NoTypedTracepoint { release: kernel.release.clone(), tracepoint: TRACEPOINT });
            }
            programs(Form::Typed).load_all(ebpf, &kernel.release)
        };
        match attach {
            Attach::Typed => return typed(),
            Attach::Raw => {}
            Attach::Auto => match typed() {
                Ok(programs) => return Ok(programs),
                Err(CaptureError::NoTypedTracepoint { .. }) => {}
                // The verifier may object to the one and take the other; a missing permission is missing for both.
                Err(CaptureError::Load(error)) => tracing::warn!("falling back to a raw tracepoint: {error}"),
                Err(error) => return Err(error),
            },
        }
        programs(Form::Raw).load_all(ebpf, &kernel.release)
    }

    fn load_all(self, ebpf: &mut Ebpf, release: &str) -> Result<Self, CaptureError> {
        let failed = |error: ProgramError| load_error("load the program", release, &error);
        let btf = match self.form {
            Form::Typed => Some(kernel_types()?),
            Form::Raw => None,
        };
        for &name in self.names() {
            match &btf {
                Some(btf) => typed(ebpf, name)?.load(TRACEPOINT, btf).map_err(failed)?,
                None => raw(ebpf, name)?.load().map_err(failed)?,
            }
        }
        Ok(self)
    }

    /// Which form was taken.
    pub(super) fn form(self) -> Form {
        self.form
    }

    /// Their names.
    fn names(self) -> &'static [&'static str] {
        let names: &'static [&'static str; 2] = match self.form {
            Form::Typed => const { &Form::Typed.programs() },
            Form::Raw => const { &Form::Raw.programs() },
        };
        if self.guarded { names } else { &names[..1] }
    }

    /// Starts them. The kernel shows a packet to programs in the order in which they were attached.
    pub(super) fn attach(self, ebpf: &mut Ebpf, release: &str) -> Result<(), CaptureError> {
        for &name in self.names() {
            let attached = match self.form {
                Form::Typed => typed(ebpf, name)?.attach().map(drop),
                Form::Raw => raw(ebpf, name)?.attach(TRACEPOINT).map(drop),
            };
            attached.map_err(|error| load_error("attach to the tracepoint", release, &error))?;
        }
        Ok(())
    }

    /// Stops them.
    pub(super) fn unload(self, ebpf: &mut Ebpf) {
        for &name in self.names() {
            let unloaded = match self.form {
                Form::Typed => typed(ebpf, name).map(BtfTracePoint::unload),
                Form::Raw => raw(ebpf, name).map(RawTracePoint::unload),
            };
            if let Ok(Err(error)) = unloaded {
                tracing::warn!("unloading the program {name}: {error}");
            }
        }
    }

    /// How many drops may have been missed at the most: runs that the kernel skipped because the program was already running on that CPU
    /// (`recursion_misses`), and that no other program made up for. 0 where the kernel does not guard.
    ///
    /// Two programs miss the same free only when one task was preempted in the middle of the one, and another in the middle of the other.
    pub(super) fn misses(self, ebpf: &Ebpf) -> u64 {
        if self.guarded && !self.preemptible {
            return 0;
        }
        let read = |name: &&str| {
            let fd = ebpf.program(name)?.fd().ok()?.as_fd().as_raw_fd();
            let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
            info.lines().find_map(|line| line.strip_prefix("recursion_misses:")?.trim().parse().ok())
        };
        self.names().iter().map(|name| read(name).unwrap_or(0)).min().unwrap_or(0)
    }
}

/// The kernel's types as the loader wants them.
pub(super) fn kernel_types() -> Result<Btf, CaptureError> {
    Btf::from_sys_fs().map_err(|error| CaptureError::Load(error.to_string()))
}

fn typed<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut BtfTracePoint, CaptureError> {
    let program = ebpf.program_mut(name).ok_or(CaptureError::ForeignObject(name))?;
    program.try_into().map_err(|_: ProgramError| CaptureError::ForeignObject(name))
}

fn raw<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut RawTracePoint, CaptureError> {
    let program = ebpf.program_mut(name).ok_or(CaptureError::ForeignObject(name))?;
    program.try_into().map_err(|_: ProgramError| CaptureError::ForeignObject(name))
}

/// Tells a missing permission from a refusal and from a rejected program.
pub(super) fn load_error(what: &'static str, release: &str, error: &(dyn Error + 'static)) -> CaptureError {
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
