//! The words of command lines that callers of the API send.

use crate::agent::{ExplainRequest, Explained, Words};
use crate::cli::{explain, filter};
use crate::policy::Engine;
use crate::serve::filter::Filters;

/// Reads them as the commands do.
pub(super) struct CommandLine;

impl Words for CommandLine {
    fn filters(&self, words: &[String]) -> Result<Filters, String> {
        filter::parse_words(words)
    }

    fn explain(&self, request: &ExplainRequest, engine: &Engine) -> Explained {
        explain::answer_words(request, engine)
    }
}
