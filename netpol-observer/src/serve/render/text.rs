//! Building lines: columns, colours, and nothing a terminal would act on.

use std::borrow::Cow;
use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

/// Width of the indented label in front of the lines of a block.
const LABEL_WIDTH: usize = 9;

/// What is coloured how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Palette {
    /// `DENIED`
    pub denied: Style,
    /// `DROPPED`, `REFUSED`
    pub dropped: Style,
    /// Times, labels and counts of repeats.
    pub dim: Style,
    /// The change that mends it.
    pub fix: Style,
    /// `CHANGED` and the like, of policies.
    pub changed: Style,
}

impl Palette {
    /// No colours.
    pub const PLAIN: Palette =
        Palette { denied: Style::new(), dropped: Style::new(), dim: Style::new(), fix: Style::new(), changed: Style::new() };

    /// Colours of the terminal's own palette.
    pub const COLOURED: Palette = Palette {
        denied: AnsiColor::Red.on_default().bold(),
        dropped: AnsiColor::Yellow.on_default().bold(),
        dim: Style::new().dimmed(),
        fix: AnsiColor::Green.on_default(),
        changed: AnsiColor::Cyan.on_default().bold(),
    };
}

/// Text under construction.
pub struct Text {
    out: String,
    palette: Palette,
    /// Label of the group the last line belongs to: the next line of the same group leaves it out.
    label: &'static str,
}

impl Text {
    /// Empty.
    pub fn new(palette: Palette) -> Self {
        Text { out: String::new(), palette, label: "" }
    }

    /// The colours in use.
    pub fn palette(&self) -> Palette {
        self.palette
    }

    /// Begins a line of a block; lines in a row with the same label show it once.
    pub fn label(&mut self, label: &'static str) {
        if self.label == label {
            _ = write!(self.out, "  {:LABEL_WIDTH$}", "");
        } else {
            self.label = label;
            self.out.push_str("  ");
            let dim = self.palette.dim;
            self.styled(dim, label);
            _ = write!(self.out, "{:1$}", "", LABEL_WIDTH.saturating_sub(label.len()));
        }
    }

    /// Appends text of any origin.
    pub fn put(&mut self, text: &str) {
        self.out.push_str(&clean(text));
    }

    /// Appends text of any origin in a style.
    pub fn styled(&mut self, style: Style, text: &str) {
        _ = write!(self.out, "{style}{}{style:#}", clean(text));
    }

    /// The space between the columns of a line.
    pub fn gap(&mut self) {
        self.out.push_str("      ");
    }

    /// Appends text and spaces up to a width in characters.
    pub fn padded(&mut self, text: &str, width: usize) {
        let text = clean(text);
        let missing = width.saturating_sub(text.chars().count());
        _ = write!(self.out, "{text}{:missing$}", "");
    }

    /// Ends a group of lines: the next one shows its label even if it is the same.
    pub fn end_block(&mut self) {
        self.label = "";
    }

    /// Ends the line.
    pub fn newline(&mut self) {
        self.out.push('\n');
    }

    /// What was built.
    pub fn finish(self) -> String {
        self.out
    }
}

/// Replaces what a terminal acts on or hides by Rust escapes: control characters, and Unicode's direction and invisible
/// format characters, which can make text look like other text.
pub fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unprintable) {
        return Cow::Borrowed(text);
    }
    let mut cleaned = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_unprintable(c) {
            cleaned.extend(c.escape_default());
        } else {
            cleaned.push(c);
        }
    }
    Cow::Owned(cleaned)
}

/// As [`clean`], but lines stay lines: for messages of the program's own that quote something.
pub fn clean_lines(text: &str) -> String {
    text.lines().map(clean).collect::<Vec<_>>().join("\n")
}

/// Controls (C0, DEL, C1), line and paragraph separators, bidirectional controls, zero-width characters, the byte order
/// mark and tag characters.
pub(crate) fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn nothing_a_terminal_acts_on_gets_through(text in "(\\PC|\\pC){0,40}") {
            let mut built = Text::new(Palette::PLAIN);
            built.put(&text);
            built.padded(&text, 10);
            built.styled(Palette::PLAIN.denied, &text);
            let finished = built.finish();
            prop_assert!(!finished.chars().any(is_unprintable), "{:?}", finished);
        }
    }

    #[test]
    fn escapes_are_readable() {
        assert_eq!(clean("veth\u{1b}[31m"), "veth\\u{1b}[31m");
        assert_eq!(clean("a\nb\u{202e}c\u{9b}"), "a\\nb\\u{202e}c\\u{9b}");
        assert!(matches!(clean("shop/wéb → ok"), Cow::Borrowed(_)));
    }
}
