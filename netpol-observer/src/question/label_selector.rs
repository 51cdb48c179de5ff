//! Label selectors as people type them for `kubectl -l`.
//!
//! The grammar is that of `labels.Parse` (k8s.io/apimachinery): terms separated by commas, all of which must hold.

use std::sync::Arc;

use crate::cluster::{Operator, Requirement, Selector};

/// Why a selector cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}; expected terms such as app=web, tier!=db, env in (a,b), env notin (c), app, !app")]
pub struct SelectorError(String);

/// Reads `app=web,tier!=db,env in (a,b),env notin (c),owner,!legacy`. Spaces between tokens do not matter.
///
/// # Errors
/// Names the term that is none of these. An empty selector is an error here: it would select everything.
pub fn parse_selector(text: &str) -> Result<Selector, SelectorError> {
    let requirements = split_terms(text)?.into_iter().map(parse_term).collect::<Result<Vec<_>, _>>()?;
    Ok(Selector { requirements })
}

/// Splits at the commas outside parentheses.
fn split_terms(text: &str) -> Result<Vec<&str>, SelectorError> {
    let mut terms = Vec::new();
    let mut inside = false;
    let mut rest = text;
    let mut end = 0;
    for (position, c) in text.char_indices() {
        match c {
            '(' if inside => return Err(SelectorError(format!("a parenthesis inside parentheses in {text:?}"))),
            '(' => inside = true,
            ')' if !inside => return Err(SelectorError(format!("a closing parenthesis without an opening one in {text:?}"))),
            ')' => inside = false,
            ',' if !inside => {
                let (term, behind) = rest.split_at(position - end);
                terms.push(term.trim());
                rest = behind.strip_prefix(',').unwrap_or(behind);
                end = position + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err(SelectorError(format!("a parenthesis is not closed in {text:?}")));
    }
    terms.push(rest.trim());
    Ok(terms)
}

fn parse_term(term: &str) -> Result<Requirement, SelectorError> {
    let bad = |what: &str| SelectorError(format!("{what} in the term {term:?}"));
    if let Some(key) = term.strip_prefix('!') {
        return Ok(Requirement { key: label_key(key).ok_or_else(|| bad("no label key"))?, operator: Operator::DoesNotExist });
    }
    if let Some((left, values)) = term.split_once('(') {
        let values = values.strip_suffix(')').ok_or_else(|| bad("something behind the parenthesis"))?;
        let values: Vec<Arc<str>> =
            values.split(',').map(|value| label_value(value).ok_or_else(|| bad("a bad value"))).collect::<Result<_, _>>()?;
        let mut words = left.split_whitespace();
        return match (words.next().and_then(label_key), words.next(), words.next()) {
            (Some(key), Some("in"), None) => Ok(Requirement { key, operator: Operator::In(values) }),
            (Some(key), Some("notin"), None) => Ok(Requirement { key, operator: Operator::NotIn(values) }),
            _ => Err(bad("neither \"in\" nor \"notin\" between a label key and values")),
        };
    }
    let (key, operator) = if let Some((key, value)) = term.split_once("!=") {
        (key, Operator::NotIn(vec![label_value(value).ok_or_else(|| bad("a bad value"))?]))
    } else if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        (key, Operator::In(vec![label_value(value).ok_or_else(|| bad("a bad value"))?]))
    } else {
        (term, Operator::Exists)
    };
    Ok(Requirement { key: label_key(key).ok_or_else(|| bad("no label key"))?, operator })
}

fn label_key(text: &str) -> Option<Arc<str>> {
    let text = text.trim();
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    (!text.is_empty() && text.chars().all(fits)).then(|| text.into())
}

fn label_value(text: &str) -> Option<Arc<str>> {
    let text = text.trim();
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.chars().all(fits).then(|| text.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_form_reads_back_as_kubectl_writes_it() {
        for (text, expected) in [
            ("app=web", "app=web"),
            ("app==web", "app=web"),
            (" app = web , tier != db ", "app=web,tier!=db"),
            ("env in (a, b)", "env in (a,b)"),
            ("env in (a)", "env=a"),
            ("env notin (a,b),app", "env notin (a,b),app"),
            ("!legacy", "!legacy"),
            ("app.kubernetes.io/name=api", "app.kubernetes.io/name=api"),
            ("app=", "app="),
        ] {
            assert_eq!(parse_selector(text).map(|selector| selector.to_string()), Ok(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for text in
            ["", ",", "a=b,", "=b", "a in b", "a in (b", "a in (b)c", "a (b)", "a b", "in (a)", "a in ((b))", "a)", "!", "a=b=c", "a=ü"]
        {
            assert!(parse_selector(text).is_err(), "{text:?} was taken");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "[a-z!=,() in]{0,30}|\\PC{0,20}") {
            let _ = parse_selector(&text);
        }
    }
}
