//! `/v1/explain`, and the words of command lines that the API takes.

use serde::{Deserialize, Serialize};

use super::Form;
use crate::policy::Engine;
use crate::serve::filter::Filters;

/// Reads words of the command line. The command line knows them; the agent does not.
pub trait Words: Send + Sync {
    /// The filter options of `observer tail`.
    ///
    /// # Errors
    /// What is wrong with them, for people.
    fn filters(&self, words: &[String]) -> Result<Filters, String>;

    /// Runs `observer explain` on an engine. Neither reads files nor writes anything.
    fn explain(&self, request: &ExplainRequest, engine: &Engine) -> Explained;
}

/// The body of a request.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// Words of `observer explain`, without those that name files.
    pub args: Vec<String>,
    /// In which form; by default as the words say.
    pub form: Option<Form>,
    /// Whether text is coloured.
    #[serde(default)]
    pub colour: bool,
}

/// What the command would have done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// Its exit status.
    pub exit: u8,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}
