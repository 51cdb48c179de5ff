//! `--domain-names`

use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use crate::cli::CommandError;
use crate::cluster::DomainName;
use crate::cluster::domain_names::parse_domain_names;

/// Reads the file.
pub(super) fn read(path: &Path) -> Result<Vec<DomainName>, CommandError> {
    let failed = |error: &dyn std::fmt::Display| {
        CommandError::failure(format!("--domain-names {}: {error}", path.display()))
            .hint("it must be a JSON object of names with lists of addresses, such as {\"api.example.com\": [\"203.0.113.7\"]}")
    };
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        io::stdin().read_to_string(&mut text).map(drop)
    } else {
        fs::read_to_string(path).map(|found| text = found)
    };
    read.map_err(|error| failed(&error))?;
    parse_domain_names(&text).map_err(|error| failed(&error))
}
