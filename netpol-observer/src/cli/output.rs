//! Standard output and standard error of a `tail`.

use std::io::{self, Write};

use jiff::Timestamp;

use crate::serve::json::{Line, Notice};
use crate::serve::render::{Renderer, clean_lines};
use crate::serve::{Item, Ledger};

/// In what form.
pub(super) enum Form {
    /// For people.
    Text(Renderer),
    /// One object per line.
    Json {
        /// The node the drops are from.
        node: Option<String>,
    },
}

/// Where everything is written. `out` is standard output, `err` standard error, save for tests.
pub(super) struct Output<O, E> {
    pub(super) out: O,
    pub(super) err: E,
    pub(super) form: Form,
}

impl<O: Write, E: Write> Output<O, E> {
    /// Writes a drop or a summary of repeats.
    pub(super) fn item(&mut self, item: &Item) -> io::Result<()> {
        match &self.form {
            Form::Text(renderer) => self.out.write_all(renderer.item(item).as_bytes()),
            Form::Json { node } => Line::of(item, node.as_deref()).write(&mut self.out),
        }
    }

    /// Something that is wrong but ends nothing: a line on standard error, or an object among the others.
    pub(super) fn warning(&mut self, message: &str) -> io::Result<()> {
        match &self.form {
            Form::Text(_) => self.say(&format!("warning: {message}")),
            Form::Json { .. } => {
                Line::Notice(Notice { time: Timestamp::now(), level: "warning", message }).write(&mut self.out)?;
            }
        }
        Ok(())
    }

    /// Something to know: always a line on standard error, and an object among the others too.
    pub(super) fn info(&mut self, message: &str) -> io::Result<()> {
        self.say(message);
        if let Form::Json { .. } = &self.form {
            Line::Notice(Notice { time: Timestamp::now(), level: "info", message }).write(&mut self.out)?;
            self.out.flush()?;
        }
        Ok(())
    }

    /// The account at the end: on standard error, or as the last object.
    pub(super) fn ledger(&mut self, ledger: &Ledger) -> io::Result<()> {
        match &self.form {
            Form::Text(_) => self.say(&ledger.to_string()),
            Form::Json { .. } => Line::ledger(ledger).write(&mut self.out)?,
        }
        Ok(())
    }

    /// Hands over what is collected.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// A line on standard error; when that is closed there is nobody to tell.
    fn say(&mut self, text: &str) {
        _ = writeln!(self.err, "{}", clean_lines(text));
    }
}
