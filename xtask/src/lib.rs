//! Project tasks, as a library so that the kernel tests can use the test bed.

pub mod demo;
pub mod netns;
