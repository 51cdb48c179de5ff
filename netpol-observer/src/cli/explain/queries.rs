//! `--queries`: many questions, one JSON object per line, answered one by one in constant memory.

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write};
use std::path::Path;
use std::process::ExitCode;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::closed;
use crate::cli::CommandError;
use crate::flow::Protocol;
use crate::policy::{Engine, Verdict};
use crate::question::{Answer, Callee, End, PortProtocol, Question, explain, verdict};
use crate::serve::json::{chain, write_value};
use crate::serve::render::is_unprintable;

/// Longest line.
const MAX_LINE: u64 = 1 << 20;

/// Fields that are the answer's.
const ANSWERED: &[&str] = &["verdict", "explanation", "chain", "error"];

/// How to answer.
pub(super) struct Options<'a> {
    /// Namespace of names without one.
    pub(super) namespace: &'a str,
    /// With explanation, or the verdict alone.
    pub(super) explain: bool,
}

/// Answers the lines of a file or of standard input.
pub(super) fn run(path: &Path, engine: &Engine, options: &Options<'_>) -> Result<ExitCode, CommandError> {
    let out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let failed = |error: io::Error| CommandError::failure(format!("--queries {}: {error}", path.display()));
    let all_answered = if path.as_os_str() == "-" {
        answer_lines(BufReader::with_capacity(1 << 16, io::stdin().lock()), out, engine, options)
    } else {
        answer_lines(BufReader::with_capacity(1 << 16, File::open(path).map_err(failed)?), out, engine, options)
    };
    match all_answered {
        Ok(true) => Ok(ExitCode::SUCCESS),
        Ok(false) => Ok(ExitCode::from(2)),
        Err(Failed::Reading(error)) => Err(failed(error)),
        Err(Failed::Writing(error)) => closed(Err(error)).map(|()| ExitCode::SUCCESS),
    }
}

enum Failed {
    Reading(io::Error),
    Writing(io::Error),
}

/// Whether every line had an answer.
fn answer_lines<R: io::Read>(
    mut reader: BufReader<R>,
    mut out: impl Write,
    engine: &Engine,
    options: &Options<'_>,
) -> Result<bool, Failed> {
    let (mut all_answered, mut number) = (true, 0_u64);
    let mut line = Vec::new();
    loop {
        // Whoever writes a line and waits for its answer gets it; a file is written in large pieces.
        if reader.buffer().is_empty() {
            out.flush().map_err(Failed::Writing)?;
        }
        line.clear();
        if reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line).map_err(Failed::Reading)? == 0 {
            break;
        }
        number += 1;
        let is_cut = line.last() != Some(&b'\n') && u64::try_from(line.len()).is_ok_and(|length| length >= MAX_LINE);
        if is_cut {
            reader.skip_until(b'\n').map_err(Failed::Reading)?;
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let answered = if is_cut { Err(format!("longer than {MAX_LINE} bytes")) } else { Ok(()) };
        let fields = answered.and_then(|()| serde_json::from_slice::<Fields<'_>>(&line).map_err(|error| in_line(&error)));
        let written = match fields {
            Ok(fields) => match fields.ask(engine, options) {
                Ok(answer) => fields.write(&mut out, &answer),
                Err(error) => {
                    all_answered = false;
                    fields.write(&mut out, &Reply::Error(format!("line {number}: {error}")))
                }
            },
            Err(error) => {
                all_answered = false;
                Fields(Vec::new()).write(&mut out, &Reply::Error(format!("line {number}: {error}")))
            }
        };
        written.map_err(Failed::Writing)?;
    }
    out.flush().map_err(Failed::Writing)?;
    Ok(all_answered)
}

/// The parser counts lines from the start of what it is given, which is always the first.
fn in_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let column = format!(" at line 1 column {}", error.column());
    format!("no question: {} (column {})", text.strip_suffix(&column).unwrap_or(&text), error.column())
}

/// What is added to a line.
enum Reply {
    Verdict(Verdict),
    Answer(Box<Answer>),
    Error(String),
}

/// The members of an object in their order, as they are written.
struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

/// A text that is borrowed where it holds no escapes.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object with from, to, port and protocol")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::with_capacity(8);
                while let Some((Text(name), value)) = map.next_entry()? {
                    fields.push((name, value));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

impl<'a> Fields<'a> {
    /// A member that is there and not null.
    fn get(&self, name: &str) -> Option<&'a str> {
        let found = self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.get());
        found.filter(|value| *value != "null")
    }

    fn text(&self, name: &str) -> Result<Option<Cow<'a, str>>, String> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match serde_json::from_str::<Text<'_>>(value) {
            Ok(Text(text)) => Ok(Some(text)),
            Err(_) => Err(format!("{name}: expected a text, not {value}")),
        }
    }

    fn question(&self, namespace: &str) -> Result<Question, String> {
        let required = |name: &str| self.text(name)?.ok_or_else(|| format!("{name} is missing"));
        let from = End::parse(&required("from")?, namespace).map_err(|error| format!("from: {error}"))?;
        let to = Callee::parse(&required("to")?, namespace).map_err(|error| format!("to: {error}"))?;
        let port = match self.get("port") {
            None => None,
            Some(value) => {
                let text = match value.strip_prefix('"') {
                    Some(_) => self.text("port")?.unwrap_or_default(),
                    None => Cow::Borrowed(value),
                };
                Some(text.parse::<PortProtocol>().map_err(|error| format!("port: {error}"))?)
            }
        };
        let protocol = match self.text("protocol")? {
            Some(text) => Some(text.parse::<Protocol>().map_err(|error| format!("protocol: {error}"))?),
            None => None,
        };
        let of_port = port.and_then(|port| port.protocol);
        if let (Some(one), Some(other)) = (of_port, protocol)
            && one != other
        {
            return Err(format!("the port says {one}, and the protocol {other}"));
        }
        Ok(Question { from, to, port: port.map(|port| port.port), protocol: of_port.or(protocol) })
    }

    fn ask(&self, engine: &Engine, options: &Options<'_>) -> Result<Reply, String> {
        let question = self.question(options.namespace)?;
        if options.explain {
            explain(&question, engine).map(|answer| Reply::Answer(Box::new(answer))).map_err(|error| error.to_string())
        } else {
            verdict(&question, engine).map(Reply::Verdict).map_err(|error| error.to_string())
        }
    }

    /// The line again, with the answer behind what it held.
    fn write(&self, out: &mut impl Write, reply: &Reply) -> io::Result<()> {
        out.write_all(b"{")?;
        let kept = self.0.iter().filter(|(name, _)| !ANSWERED.contains(&&**name));
        for (name, value) in kept {
            write_value(&**name, &mut *out)?;
            out.write_all(b":")?;
            out.write_all(printable(value.get()).as_bytes())?;
            out.write_all(b",")?;
        }
        match reply {
            Reply::Verdict(verdict) => {
                out.write_all(b"\"verdict\":")?;
                write_value(verdict, &mut *out)?;
            }
            Reply::Answer(answer) => {
                out.write_all(b"\"verdict\":")?;
                write_value(&answer.verdict, &mut *out)?;
                if let Some(path) = answer.decisive() {
                    out.write_all(b",\"explanation\":")?;
                    write_value(&path.explanation, &mut *out)?;
                }
                // A connection between two ends is its own explanation.
                if answer.chain.len() > 1 || answer.decisive().is_none() {
                    out.write_all(b",\"chain\":")?;
                    write_value(&chain(answer), &mut *out)?;
                }
            }
            Reply::Error(message) => {
                out.write_all(b"\"error\":")?;
                write_value(message, &mut *out)?;
            }
        }
        out.write_all(b"}\n")
    }
}

/// JSON in which nothing acts on a terminal. Control characters stand between values only, where a space does as well.
fn printable(json: &str) -> Cow<'_, str> {
    if !json.chars().any(is_unprintable) {
        return Cow::Borrowed(json);
    }
    let mut text = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        match c {
            c if c.is_ascii_control() && c != '\u{7f}' => text.push(' '),
            c if is_unprintable(c) => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| text.push_str(&format!("\\u{unit:04x}"))),
            c => text.push(c),
        }
    }
    Cow::Owned(text)
}
