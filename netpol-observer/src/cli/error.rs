//! Errors as people meet them: what happened, what to do next, and the exit code.

use std::fmt;
use std::process::ExitCode;

/// Something that ends a command.
#[derive(Debug)]
pub struct CommandError {
    message: String,
    hints: Vec<String>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Failure,
    Usage,
}

impl CommandError {
    /// Something went wrong: exit code 1.
    pub fn failure(message: impl fmt::Display) -> Self {
        CommandError { message: message.to_string(), hints: Vec::new(), kind: Kind::Failure }
    }

    /// The command line asks for something that makes no sense: exit code 2.
    pub fn usage(message: impl fmt::Display) -> Self {
        CommandError { kind: Kind::Usage, ..CommandError::failure(message) }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hints.push(hint.to_string());
        self
    }

    /// Exit code 2, for commands whose 1 is an answer.
    #[must_use]
    pub fn instead_of_an_answer(self) -> Self {
        CommandError { kind: Kind::Usage, ..self }
    }

    /// What the process ends with.
    pub fn exit_code(&self) -> ExitCode {
        match self.kind {
            Kind::Failure => ExitCode::from(1),
            Kind::Usage => ExitCode::from(2),
        }
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        for hint in &self.hints {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for CommandError {}
