//! The grammar of label selectors, read as apimachinery reads it: the same selectors are taken, and what is refused is refused in its words.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;
use std::str::Chars;

/// One condition of a label selector.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    Exists,
    Missing,
    In(BTreeSet<String>),
    /// Also true for objects without the label.
    NotIn(BTreeSet<String>),
    Greater(i64),
    Less(i64),
}

impl Requirement {
    /// Whether labels fulfil it.
    pub(super) fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match &self.test {
            Test::Exists => value.is_some(),
            Test::Missing => value.is_none(),
            Test::In(values) => value.is_some_and(|value| values.contains(value)),
            Test::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Test::Greater(than) => number().is_some_and(|number| number > *than),
            Test::Less(than) => number().is_some_and(|number| number < *than),
        }
    }
}

/// Reads a selector. The error is the message of the refusal.
pub(super) fn parse(selector: &str) -> Result<Vec<Requirement>, String> {
    let mut parser = Parser { tokens: tokens(selector), position: 0 };
    let mut requirements = Vec::new();
    loop {
        let next = parser.peek().to_owned();
        if next.is_empty() {
            return Ok(requirements);
        }
        if next != "!" && is_symbol(&next) {
            return Err(format!("found '{next}', expected: !, identifier, or 'end of string'"));
        }
        requirements.push(parser.requirement().map_err(|why| format!("unable to parse requirement: {why}"))?);
        match parser.take().as_str() {
            "" => return Ok(requirements),
            "," => {
                let after = parser.peek();
                if after.is_empty() || (after != "!" && is_symbol(after)) {
                    return Err(format!("found '{after}', expected: identifier after ','"));
                }
            }
            other => return Err(format!("found '{other}', expected: ',' or 'end of string'")),
        }
    }
}

/// Symbols and words; the end is an empty one.
fn tokens(selector: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut characters = selector.chars().peekable();
    while let Some(character) = characters.peek().copied() {
        if matches!(character, ' ' | '\t' | '\r' | '\n') {
            characters.next();
        } else if is_special(character) {
            tokens.push(symbol(&mut characters));
        } else {
            let mut word = String::new();
            while let Some(character) = characters.next_if(|&next| !is_special(next) && !matches!(next, ' ' | '\t' | '\r' | '\n')) {
                word.push(character);
            }
            tokens.push(word);
        }
    }
    tokens.push(String::new());
    tokens
}

fn symbol(characters: &mut Peekable<Chars<'_>>) -> String {
    let mut symbol: String = characters.next().into_iter().collect();
    // `==` and `!=` are the only long ones.
    if matches!(symbol.as_str(), "=" | "!") && characters.next_if_eq(&'=').is_some() {
        symbol.push('=');
    }
    symbol
}

fn is_special(character: char) -> bool {
    matches!(character, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

fn is_symbol(token: &str) -> bool {
    token.starts_with(is_special)
}

struct Parser {
    tokens: Vec<String>,
    position: usize,
}

impl Parser {
    fn peek(&self) -> &str {
        self.tokens.get(self.position).map_or("", String::as_str)
    }

    fn take(&mut self) -> String {
        let token = self.peek().to_owned();
        self.position += 1;
        token
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let mut key = self.take();
        let missing = key == "!";
        if missing {
            key = self.take();
        }
        if key.is_empty() || is_symbol(&key) {
            return Err(format!("found '{key}', expected: identifier"));
        }
        let wrong = key_errors(&key);
        if !wrong.is_empty() {
            return Err(format!("<nil>: Invalid value: {key:?}: {}", wrong.join("; ")));
        }
        if missing || matches!(self.peek(), "" | ",") {
            return Ok(Requirement { key, test: if missing { Test::Missing } else { Test::Exists } });
        }
        let operator = self.take();
        let values = match operator.as_str() {
            "in" | "notin" => self.values()?,
            "=" | "==" | "!=" | ">" | "<" => BTreeSet::from([self.exact_value()?]),
            _ => return Err(format!("found '{operator}', expected: in, notin, =, ==, !=, gt, lt")),
        };
        let mut number = 0;
        let mut wrong = Vec::new();
        if matches!(operator.as_str(), ">" | "<") {
            for (index, value) in values.iter().enumerate() {
                match value.parse() {
                    Ok(parsed) => number = parsed,
                    Err(_) => {
                        let why = "for 'Gt', 'Lt' operators, the value must be an integer";
                        wrong.push(format!("values[{index}]: Invalid value: {value:?}: {why}"));
                    }
                }
            }
        }
        for (index, value) in values.iter().enumerate() {
            let errors = value_errors(value);
            if !errors.is_empty() {
                wrong.push(format!("values[{index}][{key}]: Invalid value: {value:?}: {}", errors.join("; ")));
            }
        }
        match wrong.as_slice() {
            [] => {}
            [one] => return Err(one.clone()),
            many => return Err(format!("[{}]", many.join(", "))),
        }
        let test = match operator.as_str() {
            "notin" | "!=" => Test::NotIn(values),
            ">" => Test::Greater(number),
            "<" => Test::Less(number),
            _ => Test::In(values),
        };
        Ok(Requirement { key, test })
    }

    fn exact_value(&mut self) -> Result<String, String> {
        if matches!(self.peek(), "" | ",") {
            return Ok(String::new());
        }
        let value = self.take();
        if is_symbol(&value) { Err(format!("found '{value}', expected: identifier")) } else { Ok(value) }
    }

    /// `(a,b)`. Nothing between commas is the empty value.
    fn values(&mut self) -> Result<BTreeSet<String>, String> {
        let open = self.take();
        if open != "(" {
            return Err(format!("found '{open}' expected: '('"));
        }
        let mut values = BTreeSet::new();
        let next = self.peek();
        if next == ")" {
            self.take();
            return Ok(BTreeSet::from([String::new()]));
        }
        if next.is_empty() || (next != "," && is_symbol(next)) {
            return Err(format!("found '{next}', expected: ',', ')' or identifier"));
        }
        loop {
            let token = self.take();
            if token == "," {
                if values.is_empty() {
                    values.insert(String::new());
                }
                if matches!(self.peek(), ")" | ",") {
                    values.insert(String::new());
                }
            } else if token.is_empty() || is_symbol(&token) {
                return Err(format!("found '{token}', expected: ',', or identifier"));
            } else {
                values.insert(token);
                if !matches!(self.peek(), "," | ")") {
                    return Err(format!("found '{}', expected: ',' or ')'", self.peek()));
                }
            }
            if self.peek() == ")" {
                self.take();
                return Ok(values);
            }
        }
    }
}

const NAME: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character \
     (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and \
     end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

/// What is wrong with a label's key: a name, with a domain before a slash or without.
pub(super) fn key_errors(key: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let name = match key.split('/').collect::<Vec<_>>().as_slice() {
        [name] => *name,
        ["", name] => {
            errors.push("prefix part must be non-empty".to_owned());
            *name
        }
        [domain, name] => {
            if domain.len() > 253 {
                errors.push("prefix part must be no more than 253 bytes".to_owned());
            }
            if !is_subdomain(domain) {
                errors.push(format!("prefix part {SUBDOMAIN}"));
            }
            *name
        }
        _ => {
            return vec![format!("a valid label key {NAME} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')")];
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        errors.push("name part must be no more than 63 bytes".to_owned());
    }
    if name.is_empty() || !has_form(name) {
        errors.push(format!("name part {NAME}"));
    }
    errors
}

fn value_errors(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 63 {
        errors.push("must be no more than 63 bytes".to_owned());
    }
    if !has_form(value) {
        let form = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end \
             with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
             '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
        errors.push(form.to_owned());
    }
    errors
}

/// Dots, dashes and underscores only inside.
fn has_form(value: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let ends = [value.as_bytes().first(), value.as_bytes().last()];
    value.bytes().all(inner) && ends.into_iter().flatten().all(u8::is_ascii_alphanumeric)
}

fn is_subdomain(domain: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    domain.split('.').all(|part| !part.is_empty() && part.bytes().all(inner) && !part.starts_with('-') && !part.ends_with('-'))
}
