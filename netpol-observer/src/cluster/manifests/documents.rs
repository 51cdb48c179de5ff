//! A file → the texts of its documents and the lines they begin on.

use serde::de::IgnoredAny;

/// One document of a file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Document<'a> {
    pub(super) text: &'a str,
    /// Line of its first character, from 1.
    pub(super) line: u32,
}

/// Splits a file before each `---` and behind each `...`, and JSON values that follow each other; documents of nothing but comments
/// are left out. Both marks end a document wherever they stand at the beginning of a line, even inside a string (YAML 1.2, 9.1.2), so
/// one broken document does not take the next one with it.
pub(super) fn documents(text: &str) -> Vec<Document<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = Vec::new();
    let mut start = Start { offset: 0, line: 1 };
    let mut chunk = Chunk::default();
    let mut offset = 0;
    let mut line = 1_u32;
    for content in text.split_inclusive('\n') {
        let next = Start { offset: offset + content.len(), line: line.saturating_add(1) };
        if is_mark(content, "---") {
            // Directives (`%YAML 1.2`) belong to the document that follows them.
            if chunk.has_content || chunk.is_open {
                push(&mut documents, text, start, offset, chunk);
                (start, chunk) = (Start { offset, line }, Chunk::default());
            }
            chunk.is_open = true;
            chunk.has_content |= has_content(content.get(3..).unwrap_or_default());
        } else if is_mark(content, "...") {
            push(&mut documents, text, start, offset, chunk);
            (start, chunk) = (next, Chunk::default());
        } else {
            chunk.has_content |= has_content(content) && !(content.starts_with('%') && !chunk.is_open && !chunk.has_content);
        }
        Start { offset, line } = next;
    }
    push(&mut documents, text, start, offset, chunk);
    documents
}

#[derive(Clone, Copy)]
struct Start {
    offset: usize,
    line: u32,
}

#[derive(Clone, Copy, Default)]
struct Chunk {
    has_content: bool,
    /// It began with `---`.
    is_open: bool,
}

fn is_mark(line: &str, mark: &str) -> bool {
    line.strip_prefix(mark).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn has_content(line: &str) -> bool {
    let line = line.trim_start();
    !line.is_empty() && !line.starts_with('#')
}

fn push<'a>(documents: &mut Vec<Document<'a>>, text: &'a str, start: Start, end: usize, chunk: Chunk) {
    if !chunk.has_content {
        return;
    }
    let Some(text) = text.get(start.offset..end) else { return };
    let document = Document { text, line: start.line };
    match json_values(document) {
        Some(values) => documents.extend(values),
        None => documents.push(document),
    }
}

/// The JSON values of a document that is a sequence of them; none when it is one value or YAML.
fn json_values(document: Document<'_>) -> Option<Vec<Document<'_>>> {
    if !document.text.trim_start().starts_with('{') {
        return None;
    }
    let mut stream = serde_json::Deserializer::from_str(document.text).into_iter::<IgnoredAny>();
    let mut values = Vec::new();
    let mut begin = 0;
    let mut line = document.line;
    while let Some(value) = stream.next() {
        value.ok()?;
        let text = document.text.get(begin..stream.byte_offset())?;
        values.push(Document { text, line });
        line = line.saturating_add(u32::try_from(text.matches('\n').count()).unwrap_or(u32::MAX));
        begin = stream.byte_offset();
    }
    (values.len() > 1).then_some(values)
}
