//! What agents send, made fit for a terminal: an agent may be compromised, and may not speak to the terminal of whoever watches. Pure.

use std::fmt::Write as _;

use serde::Deserialize;

use super::frame::{Unreadable, short};
use crate::serve::render::{Palette, is_unprintable};

/// Keeps newlines and, where colours were asked for, the colours of [`Palette`]; every other control character or invisible character becomes
/// a visible escape, as in what this program prints itself.
#[derive(Clone, Debug, Default)]
pub struct Cleaner {
    /// The sequences that may stay, each from its escape character to its `m`.
    sequences: Vec<String>,
}

const RESET: &str = "\u{1b}[0m";

impl Cleaner {
    /// Lets no sequence through.
    pub fn plain() -> Self {
        Cleaner::default()
    }

    /// Lets the colours of a palette through.
    pub fn of(palette: Palette) -> Self {
        let mut sequences = vec![RESET.to_owned()];
        for style in [palette.denied, palette.dropped, palette.dim, palette.fix] {
            // A style may be several sequences in a row.
            let rendered = style.render().to_string();
            sequences.extend(rendered.split('\u{1b}').filter(|rest| !rest.is_empty()).map(|rest| format!("\u{1b}{rest}")));
        }
        sequences.sort();
        sequences.dedup();
        Cleaner { sequences }
    }

    /// Text for the terminal, which ends with a newline and leaves no colour behind.
    pub fn terminal(&self, text: &str) -> String {
        let mut cleaned = String::with_capacity(text.len() + 1);
        let mut coloured = false;
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            if let Some(sequence) = self.sequences.iter().find(|sequence| rest.starts_with(sequence.as_str())) {
                coloured = sequence != RESET;
                cleaned.push_str(sequence);
                rest = &rest[sequence.len()..];
                continue;
            }
            if c == '\n' || !is_unprintable(c) {
                cleaned.push(c);
            } else {
                cleaned.extend(c.escape_default());
            }
            rest = &rest[c.len_utf8()..];
        }
        if coloured {
            cleaned.push_str(RESET);
        }
        if !cleaned.ends_with('\n') {
            cleaned.push('\n');
        }
        cleaned
    }
}

/// The node that a line names, if it does.
#[derive(Deserialize)]
struct Head {
    node: Option<String>,
}

/// An object as it is, in one line, with the node that it is from. Characters that a terminal acts on stay what they are to a program that
/// reads the object: JSON has escapes of its own for them.
pub(super) fn json_line(object: &str, node: &str) -> Result<String, Unreadable> {
    let head: Head = serde_json::from_str(object).map_err(|error| Unreadable::Json(error.to_string()))?;
    let inside = object.trim_start().strip_prefix('{').ok_or_else(|| Unreadable::Json("no object".to_owned()))?;
    let mut line = String::with_capacity(object.len() + node.len() + 16);
    match head.node {
        Some(named) if named != node => return Err(Unreadable::OtherNode(short(Some(named)))),
        Some(_) => line.push('{'),
        None => {
            line.push_str("{\"node\":");
            // A string always serialises.
            line.push_str(&serde_json::to_string(node).unwrap_or_default());
            if !inside.trim_start().starts_with('}') {
                line.push(',');
            }
        }
    }
    for c in inside.chars() {
        match c {
            // Raw, these stand between tokens only.
            '\n' | '\r' | '\t' => line.push(' '),
            c if is_unprintable(c) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Writing to a string does not fail.
                    _ = write!(line, "\\u{unit:04x}");
                }
            }
            c => line.push(c),
        }
    }
    line.push('\n');
    Ok(line)
}

/// An object of this program's own, with the node that it is about; as it is, should that not be possible.
pub fn named_object(object: &str, node: &str) -> String {
    json_line(object.trim_end(), node).unwrap_or_else(|_| object.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn coloured() -> Cleaner {
        Cleaner::of(Palette::COLOURED)
    }

    #[test]
    fn colours_of_the_palette_stay_and_nothing_else() {
        let palette = Palette::COLOURED;
        let own = format!("{0}DENIED{0:#} x\n  {1}by{1:#} y\n", palette.denied, palette.dim);
        assert_eq!(coloured().terminal(&own), own);
        assert_eq!(Cleaner::plain().terminal("\u{1b}[31mred\n"), "\\u{1b}[31mred\n");
        for evil in ["\u{1b}]0;title\u{7}", "\u{1b}[2J", "\u{1b}[35m", "\u{9b}31m", "\u{1b}[1;31m", "a\rb", "\u{202e}", "\u{1b}"] {
            let cleaned = coloured().terminal(evil);
            assert!(!cleaned.trim_end().chars().any(is_unprintable), "{evil:?}: {cleaned:?}");
        }
    }

    #[test]
    fn a_colour_ends_with_its_text_and_text_with_a_newline() {
        assert_eq!(coloured().terminal("\u{1b}[31mred"), "\u{1b}[31mred\u{1b}[0m\n");
        assert_eq!(coloured().terminal("a\n\nb"), "a\n\nb\n");
        assert_eq!(coloured().terminal(""), "\n");
    }

    #[test]
    fn a_json_line_names_its_node() {
        assert_eq!(json_line(r#"{"type":"x"}"#, "n\"1").unwrap(), "{\"node\":\"n\\\"1\",\"type\":\"x\"}\n");
        assert_eq!(json_line(" { } ", "n").unwrap(), "{\"node\":\"n\" } \n");
        assert_eq!(json_line(r#"{"node":"n","a":1}"#, "n").unwrap(), "{\"node\":\"n\",\"a\":1}\n");
        assert_eq!(json_line(r#"{"node":"m"}"#, "n"), Err(Unreadable::OtherNode("m".to_owned())));
        assert!(json_line(r#"{"node":"n","node":"m"}"#, "n").is_err(), "which of two names a reader takes is not for the agent to choose");
        assert_eq!(json_line("{\"a\":\"\u{9b}\u{e0001}\"}", "n").unwrap(), "{\"node\":\"n\",\"a\":\"\\u009b\\udb40\\udc01\"}\n");
    }

    proptest! {
        #[test]
        fn nothing_but_colours_gets_through(text in "(\\PC|\\pC|\u{1b}\\[[0-9;]{0,4}[a-zA-Z]|\n){0,30}") {
            let mut cleaned = coloured().terminal(&text);
            for sequence in coloured().sequences {
                cleaned = cleaned.replace(&sequence, "");
            }
            prop_assert!(!cleaned.chars().any(|c| c != '\n' && is_unprintable(c)), "{:?}", cleaned);
        }
    }
}
