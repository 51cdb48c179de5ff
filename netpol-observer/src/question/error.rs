//! Questions that cannot be answered, and what to type instead.

use std::fmt;

/// Why a question makes no sense, or asks for what is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuestionError {
    /// What is wrong.
    pub message: String,
    /// What to do about it, a sentence each.
    pub hints: Vec<String>,
}

impl QuestionError {
    /// Without hints.
    pub fn new(message: impl Into<String>) -> Self {
        QuestionError { message: message.into(), hints: Vec::new() }
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

/// On one line.
impl fmt::Display for QuestionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for hint in &self.hints {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for QuestionError {}
