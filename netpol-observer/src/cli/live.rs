//! Stands in for the live capture in a program that is built without it.

use std::sync::Arc;

use super::CommandError;
use crate::capture::Captured;
use crate::flow::KernelNames;

/// A live capture. There is none in this program.
pub(super) enum Live {}

impl Live {
    /// Loads and attaches the programs.
    pub(super) fn open() -> Result<Live, CommandError> {
        Err(CommandError::failure("this program was built without capture").hint("replay a recording with --replay FILE"))
    }

    /// Names of the running kernel.
    pub(super) fn names(&self) -> Arc<dyn KernelNames + Send + Sync> {
        match *self {}
    }

    /// Waits for the next piece. Cancelling it loses nothing.
    #[expect(clippy::unused_async, reason = "a capture waits")]
    pub(super) async fn next(&mut self) -> Option<Captured> {
        match *self {}
    }

    /// Detaches, drains the rings and reads the final counters: they come last.
    #[expect(clippy::unused_async, reason = "a capture waits")]
    pub(super) async fn finish(self) -> Vec<Captured> {
        match self {}
    }
}
