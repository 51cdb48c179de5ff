//! What people and programs see of the denials: repeats folded, filtered, rendered as text or JSON, and every drop accounted.
//!
//! [`Stream`] is the whole way from a captured record to something to show; it is synchronous, takes the time from its
//! caller and does no I/O, so that live capture, replay and tests go through the same code.
#![forbid(unsafe_code)]

mod brief;
pub mod filter;
mod fold;
pub mod json;
mod ledger;
mod open;
mod recent;
pub mod render;
mod route;
mod settle;
mod stream;
#[cfg(test)]
pub(crate) mod testing;

pub use crate::question::label_selector;
pub use brief::{Blame, Brief, Owner};
pub use fold::{Fate, Fold, FoldOptions, Key, Seen, Summary};
pub use ledger::{Imbalance, Ledger};
pub use recent::Recent;
pub use route::{Dialled, Route, class_name};
pub use settle::{Settled, Settling};
pub use stream::{Item, Stream, StreamOptions};
