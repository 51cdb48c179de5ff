//! The query of `/v1/drops`: strict, so that a mistyped filter is not a stream of everything.

use std::str::FromStr;

use jiff::Timestamp;
use jiff::tz::Offset;

use super::Words;
use crate::serve::filter::Filters;

/// Words of filters in one query.
const MAX_WORDS: usize = 256;

/// In which form drops and answers are given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// Objects of docs/json.md.
    #[default]
    Json,
    /// As the commands print it.
    Text,
}

/// What a reader asks for.
#[derive(Debug)]
pub(super) struct DropsQuery {
    pub(super) follow: bool,
    pub(super) last: Option<u32>,
    pub(super) since: Option<Timestamp>,
    pub(super) filters: Filters,
    pub(super) all: bool,
    pub(super) form: Form,
    pub(super) oneline: bool,
    pub(super) colour: bool,
    pub(super) utc_offset: Offset,
}

impl DropsQuery {
    /// Reads a query.
    ///
    /// # Errors
    /// What is wrong with which parameter.
    pub(super) fn parse(query: &str, words: &dyn Words) -> Result<Self, String> {
        let mut asked = DropsQuery {
            follow: false,
            last: None,
            since: None,
            filters: Filters::default(),
            all: false,
            form: Form::Json,
            oneline: false,
            colour: false,
            utc_offset: Offset::UTC,
        };
        let mut filters = Vec::new();
        let mut seen = Vec::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if name != "arg" {
                if seen.contains(&name) {
                    return Err(format!("the parameter {name} is given twice"));
                }
                seen.push(name.clone());
            }
            match &*name {
                "follow" => asked.follow = parse(&name, &value, "true or false")?,
                "all" => asked.all = parse(&name, &value, "true or false")?,
                "oneline" => asked.oneline = parse(&name, &value, "true or false")?,
                "colour" => asked.colour = parse(&name, &value, "true or false")?,
                "last" => {
                    let last = parse(&name, &value, "a number from 1 on")?;
                    if last == 0 {
                        return Err("last: expected a number from 1 on, not 0".to_owned());
                    }
                    asked.last = Some(last);
                }
                "since" => asked.since = Some(parse(&name, &value, "a time such as 2026-11-23T14:02:00Z")?),
                "form" => {
                    asked.form = match &*value {
                        "json" => Form::Json,
                        "text" => Form::Text,
                        _ => return Err(format!("form: expected json or text, not {value:?}")),
                    }
                }
                "utcOffset" => {
                    const EXPECTED: &str = "seconds east of UTC, from -93599 to 93599";
                    let seconds = parse::<i32>(&name, &value, EXPECTED)?;
                    asked.utc_offset =
                        Offset::from_seconds(seconds).map_err(|_| format!("utcOffset: expected {EXPECTED}, not {seconds}"))?;
                }
                "arg" if filters.len() == MAX_WORDS => return Err(format!("more than {MAX_WORDS} words of filters (arg)")),
                "arg" => filters.push(value.into_owned()),
                _ => {
                    return Err(format!(
                        "the parameter {name:?} is not known here; known are follow, last, since, arg, all, form, oneline, colour and utcOffset"
                    ));
                }
            }
        }
        if asked.oneline && asked.form == Form::Json {
            return Err("oneline is about text, and form=json was asked for".to_owned());
        }
        asked.filters = words.filters(&filters)?;
        Ok(asked)
    }
}

fn parse<T: FromStr>(name: &str, value: &str, expected: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{name}: expected {expected}, not {value:?}"))
}

#[cfg(test)]
mod tests {
    use super::super::testing::NoWords;
    use super::*;

    fn query(text: &str) -> Result<DropsQuery, String> {
        DropsQuery::parse(text, &NoWords)
    }

    #[test]
    fn what_is_asked_for() {
        let asked =
            query("follow=true&last=20&since=2026-11-23T14%3A02%3A00Z&all=true&form=text&oneline=true&colour=true&utcOffset=3600").unwrap();
        assert!(asked.follow && asked.all && asked.oneline && asked.colour);
        assert_eq!((asked.last, asked.form, asked.utc_offset), (Some(20), Form::Text, Offset::from_seconds(3600).unwrap()));
        assert_eq!(asked.since, Some("2026-11-23T14:02:00Z".parse().unwrap()));
        let nothing = query("").unwrap();
        assert!(!nothing.follow && nothing.last.is_none() && nothing.form == Form::Json);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (text, named) in [
            ("folow=true", "folow"),
            ("follow=yes", "follow"),
            ("follow", "follow"),
            ("last=0", "last"),
            ("last=-1", "last"),
            ("last=99999999999999999999", "last"),
            ("since=yesterday", "since"),
            ("since=5m", "since"),
            ("form=yaml", "form"),
            ("utcOffset=100000", "utcOffset"),
            ("utcOffset=1e3", "utcOffset"),
            ("last=1&last=2", "last"),
            ("oneline=true", "oneline"),
            ("arg=--port&arg=x", "filters"),
            ("%00=1", "parameter"),
        ] {
            let error = query(text).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
        let many = vec!["arg=-n"; MAX_WORDS + 1].join("&");
        assert!(query(&many).unwrap_err().contains("256"));
    }
}
