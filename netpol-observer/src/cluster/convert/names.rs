//! What the API server accepts as label keys, label values and port names.

/// Why a text is no label key: an optional DNS subdomain and `/`, then a name of at most 63 characters.
pub(super) fn invalid_label_key(key: &str) -> Option<&'static str> {
    let name = match key.split_once('/') {
        Some((prefix, _)) if !is_dns_subdomain(prefix) => {
            return Some("prefix part must be a DNS subdomain of at most 253 characters: lower case letters, digits, '-' and '.'");
        }
        Some((_, name)) => name,
        None => key,
    };
    (!is_qualified_name(name))
        .then_some("name part must be 1 to 63 characters: letters, digits, '-', '_' and '.', beginning and ending with a letter or digit")
}

/// Why a text is no label value: it may be empty, and is otherwise like the name of a key.
pub(super) fn invalid_label_value(value: &str) -> Option<&'static str> {
    (!value.is_empty() && !is_qualified_name(value)).then_some(
        "a label value must be at most 63 characters: letters, digits, '-', '_' and '.', beginning and ending with a letter or digit",
    )
}

/// Why a text is no port name (IANA service name, RFC 6335).
pub(super) fn invalid_port_name(name: &str) -> Option<&'static str> {
    if name.len() > 15 {
        Some("must be no more than 15 characters")
    } else if !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-') {
        Some("must contain only lower case letters, digits and '-'")
    } else if !name.bytes().any(|byte| byte.is_ascii_lowercase()) {
        Some("must contain at least one letter (a number is written without quotes)")
    } else if name.contains("--") {
        Some("must not contain consecutive hyphens")
    } else if name.starts_with('-') || name.ends_with('-') {
        Some("must not begin or end with a hyphen")
    } else {
        None
    }
}

fn is_qualified_name(name: &str) -> bool {
    let is_end = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    name.len() <= 63
        && is_end(name.bytes().next())
        && is_end(name.bytes().next_back())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn is_dns_subdomain(name: &str) -> bool {
    let is_end = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    name.len() <= 253
        && name.split('.').all(|label| {
            is_end(label.bytes().next())
                && is_end(label.bytes().next_back())
                && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        })
}

/// The pattern of `domainNames` as published.
pub(super) const DOMAIN_NAME_PATTERN: &str =
    r"^(\*\.)?([a-zA-z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.)+[a-zA-z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.?$";

/// Whether a text matches [`DOMAIN_NAME_PATTERN`]: two labels or more, perhaps after `*.`, perhaps with a final dot.
pub(in crate::cluster) fn is_domain_name(name: &str) -> bool {
    let name = name.strip_prefix("*.").unwrap_or(name);
    let name = name.strip_suffix('.').unwrap_or(name);
    // The published range A-z takes in the six characters between the letters.
    let is_first = |byte: u8| byte.is_ascii_digit() || (b'A'..=b'z').contains(&byte);
    let is_inner = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
    let is_label = |label: &str| match label.as_bytes() {
        [] => false,
        [only] => is_first(*only),
        [first, inner @ .., last] => is_first(*first) && inner.iter().all(is_inner) && last.is_ascii_alphanumeric(),
    };
    name.contains('.') && name.split('.').all(is_label)
}
