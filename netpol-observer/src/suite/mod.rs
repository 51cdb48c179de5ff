//! Policy tests: what people expect of connections → what came of it. `observer check`.
//!
//! Pure. Who is meant is found by `question`, what a connection comes to is the [`Engine`](crate::policy::Engine)'s to say.
#![forbid(unsafe_code)]

mod result;

pub use crate::cluster::policy_test::Expect;
pub use result::{Failure, MAX_FAILURES, Outcome, Problem, Report, TestResult};
