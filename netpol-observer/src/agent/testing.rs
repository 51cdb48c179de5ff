//! What the tests of this module share.

use std::sync::Arc;

use jiff::Timestamp;

use super::{ExplainRequest, Explained, Observation, Words};
use crate::flow::FoldId;
use crate::policy::Engine;
use crate::serve::filter::{Filter, Filters, Side};
use crate::serve::testing::{at, example_at};

/// Knows `-n NAMESPACE` only.
pub(super) struct NoWords;

impl Words for NoWords {
    fn filters(&self, words: &[String]) -> Result<Filters, String> {
        let mut filters = Filters::default();
        for pair in words.chunks(2) {
            match pair {
                [option, namespace] if option == "-n" => filters.wanted.push(Filter::Namespace(Side::Either, namespace.clone())),
                _ => return Err(format!("the filters {words:?} are not known")),
            }
        }
        Ok(filters)
    }

    fn explain(&self, _request: &ExplainRequest, _engine: &Engine) -> Explained {
        Explained { exit: 2, out: String::new(), err: "not here".to_owned() }
    }
}

/// A denial under this id, so many seconds after the example.
pub(super) fn denial(id: u64, seconds: i64) -> Observation {
    Observation::Denial(example_at(id, seconds))
}

pub(super) fn repeat(id: u64, count: u64, seconds: i64) -> Observation {
    Observation::Repeat { id: FoldId(id), count, last: at(seconds) }
}

pub(super) fn notice(text: &str, seconds: i64) -> Observation {
    Observation::Notice { time: at(seconds), level: super::Level::Warning, message: Arc::from(text) }
}

/// Ids of denials and repeats, in their order.
pub(super) fn ids(observations: &[(Timestamp, Observation)]) -> Vec<u64> {
    observations
        .iter()
        .map(|(_, observation)| match observation {
            Observation::Denial(denial) => denial.event.id.0,
            Observation::Repeat { id, .. } => id.0,
            other => panic!("{other:?}"),
        })
        .collect()
}
