//! Options of commands that attach to the running kernel.

use std::path::PathBuf;

use clap::Args;

use crate::capture::Attach;
use crate::capture::live::LiveOptions;

/// How to attach.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct LiveArgs {
    /// How to attach to the kernel's tracepoint: by tp-btf, where the verifier knows the arguments' types; as raw tracepoint; or
    /// by the first that works.
    #[arg(long, value_enum, default_value_t, value_name = "FORM", help_heading = "Kernel")]
    attach: AttachForm,

    /// Read the running kernel's type information from this file, in the form of /sys/kernel/btf/vmlinux, where the kernel itself
    /// shows none.
    #[arg(long, value_name = "FILE", help_heading = "Kernel")]
    kernel_btf: Option<PathBuf>,
}

/// `--attach`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum AttachForm {
    #[default]
    Auto,
    TpBtf,
    RawTracepoint,
}

impl LiveArgs {
    /// For capture.
    pub(super) fn options(&self) -> LiveOptions {
        let attach = match self.attach {
            AttachForm::Auto => Attach::Auto,
            AttachForm::TpBtf => Attach::Typed,
            AttachForm::RawTracepoint => Attach::Raw,
        };
        LiveOptions { attach, kernel_btf: self.kernel_btf.clone(), ..LiveOptions::default() }
    }

    /// Whether anything was asked for.
    pub(super) fn is_given(&self) -> bool {
        self.attach != AttachForm::Auto || self.kernel_btf.is_some()
    }
}
