//! Project tasks as a library: the kernel tests use parts of it too.

pub mod command;
pub mod demo;
pub mod fingerprint;
pub mod netns;
pub mod packages;
pub mod testing;
pub mod toolchain;
