//! Project tasks as a library: the kernel tests use parts of it too.

pub mod apiserver;
pub mod browser;
pub mod command;
pub mod crates;
pub mod demo;
pub mod fingerprint;
pub mod loaded;
pub mod machine;
pub mod netns;
pub mod packages;
pub mod soak;
pub mod tail;
pub mod testing;
pub mod toolchain;
pub mod traffic;
pub mod usage;
