//! The command on an engine that is there already: for questions that come to an agent.

use clap::{Args as _, FromArgMatches as _};

use super::{AnswerForm, ExplainArgs, exit_code, usage};
use crate::agent::{ExplainRequest, Explained, Form};
use crate::cli::{Colour, CommandError};
use crate::policy::Engine;
use crate::question::{Answer, explain};
use crate::serve::render::clean_lines;

/// What the command would print, and end with. Reads no file and writes nothing.
pub(in crate::cli) fn answer_words(request: &ExplainRequest, engine: &Engine) -> Explained {
    let command = ExplainArgs::augment_args(clap::Command::new("observer explain"))
        .no_binary_name(true)
        // The objects are the agent's.
        .mut_arg("manifests", |manifests| manifests.required(false).hide(true));
    let parsed = command.try_get_matches_from(&request.args).and_then(|matches| ExplainArgs::from_arg_matches(&matches));
    match parsed {
        Ok(arguments) => arguments.answer_with(request, engine).unwrap_or_else(|error| failed(&error)),
        Err(error) if error.use_stderr() => Explained { exit: 2, out: String::new(), err: error.render().to_string() },
        // --help
        Err(help) => Explained { exit: 0, out: help.render().to_string(), err: String::new() },
    }
}

impl ExplainArgs {
    fn answer_with(mut self, request: &ExplainRequest, engine: &Engine) -> Result<Explained, CommandError> {
        let files = [
            (!self.manifests.is_empty(), "--manifests"),
            (self.queries.is_some(), "--queries"),
            (self.domain_names.is_some(), "--domain-names"),
            (!self.profile.is_empty(), "--profile"),
        ];
        let file = files.into_iter().find_map(|(given, option)| given.then_some(option));
        if let Some(option) = file.or_else(|| self.cluster.given()) {
            return Err(CommandError::usage(format!("an agent answers from the objects that it has, and takes no {option}"))
                .hint(format!("leave {option} out, or give --manifests to ask without an agent")));
        }
        self.check()?;
        match request.form {
            Some(Form::Json) => self.output = AnswerForm::Json,
            Some(Form::Text) => self.output = AnswerForm::Text,
            None => {}
        }
        let questions = self.questions().map_err(usage)?;
        let answers = questions.iter().map(|question| explain(question, engine)).collect::<Result<Vec<Answer>, _>>().map_err(usage)?;
        let colour = if request.colour { Colour::Always } else { Colour::Never };
        let out = self.write(&answers, colour).map_err(CommandError::failure)?;
        Ok(Explained { exit: exit_code(&answers), out, err: String::new() })
    }
}

/// Without an answer the command ends with 2.
fn failed(error: &CommandError) -> Explained {
    Explained { exit: 2, out: String::new(), err: format!("{}\n", clean_lines(&error.to_string())) }
}
