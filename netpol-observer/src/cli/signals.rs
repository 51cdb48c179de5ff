//! The signals that end a command that runs on.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Exit code after a second Ctrl-C: as a shell reports a process that SIGINT ended.
pub(super) const INTERRUPTED: i32 = 130;

/// SIGINT and SIGTERM.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Catches them from now on. Needs the runtime entered.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Signals { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// The next one ends the process at once, with this exit code.
    pub(super) fn exit_at_next(mut self, code: i32) {
        tokio::spawn(async move {
            self.next().await;
            std::process::exit(code);
        });
    }

    /// The next of either; never when the process can get none any more.
    pub(super) async fn next(&mut self) {
        let got = tokio::select! {
            got = self.interrupt.recv() => got,
            got = self.terminate.recv() => got,
        };
        if got.is_none() {
            std::future::pending::<()>().await;
        }
    }
}
