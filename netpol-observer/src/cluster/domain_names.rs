//! Names in the DNS and their addresses, from a file: a JSON object of lists, such as
//! `{"api.example.com": ["10.0.0.1", "2001:db8::1"]}`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use thiserror::Error;

use super::DomainName;
use super::convert::names::is_domain_name;

/// Why a text is no list of names and addresses.
#[derive(Debug, Error)]
pub enum DomainNamesError {
    /// No JSON, or not an object of lists of texts.
    #[error("not a JSON object of names with lists of addresses, such as {{\"api.example.com\": [\"10.0.0.1\"]}}: {0}")]
    Json(#[from] serde_json::Error),
    /// A key that is no name.
    #[error("{name:?} is no name in the DNS: labels of letters, digits, '-' and '_', with dots between them and no wildcard")]
    Name {
        /// As written.
        name: String,
    },
    /// A name that stands there twice; upper and lower case and a final dot make no difference.
    #[error("{name:?} stands there twice: put all its addresses in one list")]
    Twice {
        /// As written the second time.
        name: String,
    },
    /// Something in a list that is no address.
    #[error("{text:?} in the list of {name:?} is no IP address, such as 10.9.8.7 or 2001:db8::ffff")]
    Address {
        /// Whose list it is.
        name: String,
        /// As written.
        text: String,
    },
}

/// Reads names and their addresses, sorted by name. An empty list is a name that is known to have no address.
///
/// # Errors
///
/// The first thing in the text that is not as described above.
pub fn parse_domain_names(json: &str) -> Result<Vec<DomainName>, DomainNamesError> {
    let Entries(entries) = serde_json::from_str(json)?;
    let mut names = BTreeMap::new();
    for (written, texts) in entries {
        if written.starts_with('*') || !is_domain_name(&written) {
            return Err(DomainNamesError::Name { name: written });
        }
        let mut addresses = Vec::with_capacity(texts.len());
        for text in texts {
            match text.parse().map(|ip: IpAddr| ip.to_canonical()) {
                Ok(ip) if !addresses.contains(&ip) => addresses.push(ip),
                Ok(_) => {}
                Err(_) => return Err(DomainNamesError::Address { name: written, text }),
            }
        }
        if names.insert(canonical(&written), addresses).is_some() {
            return Err(DomainNamesError::Twice { name: written });
        }
    }
    Ok(names.into_iter().map(|(name, addresses)| DomainName { name, addresses }).collect())
}

/// A name as names are compared: lower case, without the final dot. A wildcard stays one.
pub(super) fn canonical(name: &str) -> Arc<str> {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase().into()
}

/// The entries in their order; a map would keep one of two equal keys without a word.
struct Entries(Vec<(String, Vec<String>)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;

        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of names with lists of addresses")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(EntriesVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lower_case_without_the_final_dot_and_sorted() {
        let names = parse_domain_names(r#"{"Www.Example.COM.": ["2001:db8::1", "10.0.0.1", "::ffff:10.0.0.1"], "a.example.com": []}"#);
        let told: Vec<_> = names.expect("fine").into_iter().map(|name| (name.name.to_string(), name.addresses)).collect();
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert_eq!(told, [("a.example.com".to_owned(), vec![]), ("www.example.com".to_owned(), vec![ip("2001:db8::1"), ip("10.0.0.1")])]);
        assert!(parse_domain_names("{}").expect("fine").is_empty());
    }

    #[test]
    fn errors_say_what_is_wrong_and_where() {
        let shape = "not a JSON object of names with lists of addresses, such as {\"api.example.com\": [\"10.0.0.1\"]}: ";
        let name = " is no name in the DNS: labels of letters, digits, '-' and '_', with dots between them and no wildcard";
        for (json, expected) in [
            ("", format!("{shape}EOF while parsing a value at line 1 column 0")),
            ("[]", format!("{shape}invalid type: sequence, expected an object of names with lists of addresses at line 1 column 0")),
            (
                "{\n\"a.example.com\": \"10.0.0.1\"}",
                format!("{shape}invalid type: string \"10.0.0.1\", expected a sequence at line 2 column 27"),
            ),
            (r#"{"a.example.com": [1]}"#, format!("{shape}invalid type: integer `1`, expected a string at line 1 column 20")),
            (r#"{"*.example.com": []}"#, format!("\"*.example.com\"{name}")),
            (r#"{"localhost": []}"#, format!("\"localhost\"{name}")),
            (r#"{"a..com": []}"#, format!("\"a..com\"{name}")),
            (r#"{"a.com": [], "A.com.": []}"#, "\"A.com.\" stands there twice: put all its addresses in one list".to_owned()),
            (
                r#"{"a.com": ["10.0.0.1", "10.0.0"]}"#,
                "\"10.0.0\" in the list of \"a.com\" is no IP address, such as 10.9.8.7 or 2001:db8::ffff".to_owned(),
            ),
        ] {
            assert_eq!(parse_domain_names(json).expect_err(json).to_string(), expected, "{json}");
        }
    }
}
