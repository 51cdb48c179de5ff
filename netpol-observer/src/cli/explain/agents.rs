//! The answer of an agent of the cluster, which knows the objects as they are now.

use std::io::{self, BufWriter, Write as _};
use std::process::ExitCode;

use serde_json::Value;

use super::super::CommandError;
use super::super::tail::ignore_closed;
use super::{AnswerForm, ExplainArgs, closed};
use crate::client::Cleaner;
use crate::serve::render::{Palette, clean_lines};

/// Has an agent answer, and writes what it says.
pub(super) fn answer(arguments: &ExplainArgs, coloured: bool) -> Result<ExitCode, CommandError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| CommandError::failure(format!("cannot start: {error}")))?;
    let json = arguments.output != AnswerForm::Text;
    let coloured = coloured && !json;
    let answered = runtime.block_on(async {
        let cluster = arguments.cluster.cluster().await?;
        let asked = cluster.explain(&arguments.cluster.nodes, &arguments.words(), json, coloured).await;
        asked.map_err(|stop| arguments.cluster.failed(stop, &cluster))
    })?;
    if !answered.err.is_empty() {
        ignore_closed(writeln!(io::stderr(), "{}", clean_lines(answered.err.trim_end())))?;
    }
    let out = match arguments.output {
        AnswerForm::Text => {
            let cleaner = if coloured { Cleaner::of(Palette::COLOURED) } else { Cleaner::plain() };
            if answered.out.is_empty() { String::new() } else { cleaner.terminal(&answered.out) }
        }
        AnswerForm::Json => objects(&answered.out)?.iter().map(|object| format!("{}\n", printable(object))).collect(),
        AnswerForm::Yaml => {
            let documents = objects(&answered.out)?.iter().map(super::yaml).collect::<io::Result<Vec<_>>>();
            documents
                .map_err(|error| CommandError::failure(format!("the agent's answer cannot be written as YAML: {error}")))?
                .join("---\n")
        }
    };
    let mut stdout = BufWriter::new(io::stdout());
    closed(stdout.write_all(out.as_bytes()).and_then(|()| stdout.flush()))?;
    match answered.exit {
        code @ 0..=3 => Ok(ExitCode::from(code)),
        code => Err(CommandError::failure(format!("the agent's answer ended with the status {code}, which means nothing here"))),
    }
}

/// The objects that the agent has written, one per line.
fn objects(text: &str) -> Result<Vec<Value>, CommandError> {
    let read = text.lines().filter(|line| !line.is_empty()).map(serde_json::from_str).collect::<Result<_, _>>();
    read.map_err(|error| CommandError::failure(format!("the agent's answer is no JSON: {error}")))
}

/// An object in one line that no terminal acts on.
fn printable(object: &Value) -> String {
    let mut line = Vec::new();
    // A value always serialises, and a vector takes everything.
    _ = crate::serve::json::write_value(object, &mut line);
    String::from_utf8_lossy(&line).into_owned()
}

impl ExplainArgs {
    /// The command line without what names files, and without what is about printing.
    fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        words.extend(self.from.iter().map(|from| format!("--from={from}")));
        words.extend(self.to.iter().map(|to| format!("--to={to}")));
        words.extend(self.ports.iter().map(|port| match port.protocol {
            Some(protocol) => format!("--port={}/{protocol}", port.port),
            None => format!("--port={}", port.port),
        }));
        words.extend(self.protocol.iter().map(|protocol| format!("--protocol={protocol}")));
        words.push(format!("--namespace={}", self.namespace));
        // Whatever it looks like, it is no option.
        words.extend(self.url.iter().flat_map(|url| ["--".to_owned(), url.clone()]));
        words
    }
}
