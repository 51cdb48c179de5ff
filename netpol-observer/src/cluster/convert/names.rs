//! What the API server accepts as names of objects, label keys, label values, port names and names in the DNS, in its words.

/// Why a text is no label key: an optional DNS subdomain and `/`, then a name. Empty when it is one.
pub(super) fn invalid_label_key(key: &str) -> Vec<String> {
    const REGEX: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
    const MUST: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
    let rule = mismatch(MUST, REGEX, &["MyName", "my.name", "123-abc"]);
    let mut problems = Vec::new();
    let name = match key.split('/').collect::<Vec<_>>().as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                problems.push("prefix part must be non-empty".to_owned());
            } else {
                problems.extend(invalid_subdomain(prefix).into_iter().map(|problem| format!("prefix part {problem}")));
            }
            *name
        }
        _ => {
            let prefix = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return vec![format!("a valid label key {rule} {prefix}")];
        }
    };
    if name.is_empty() {
        problems.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        problems.push(too_long("name part ", 63));
    }
    if !is_qualified_name(name) {
        problems.push(format!("name part {rule}"));
    }
    problems
}

/// Why a text is no label value: it may be empty, and is otherwise like the name of a key.
pub(super) fn invalid_label_value(value: &str) -> Vec<String> {
    const REGEX: &str = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";
    const MUST: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end \
                        with an alphanumeric character";
    let mut problems = Vec::new();
    if value.len() > 63 {
        problems.push(too_long("", 63));
    }
    if !value.is_empty() && !is_qualified_name(value) {
        problems.push(mismatch(MUST, REGEX, &["MyValue", "my_value", "12345"]));
    }
    problems
}

/// Why a text is no port name (IANA service name, RFC 6335).
pub(super) fn invalid_port_name(name: &str) -> Vec<String> {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let mut problems = Vec::new();
    if name.len() > 15 {
        problems.push(too_long("", 15));
    }
    for (is_broken, rule) in [
        (name.is_empty() || !name.bytes().all(is_allowed), "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)"),
        (!name.bytes().any(|byte| byte.is_ascii_lowercase()), "must contain at least one letter (a-z)"),
        (name.contains("--"), "must not contain consecutive hyphens"),
        (name.starts_with('-') || name.ends_with('-'), "must not begin or end with a hyphen"),
    ] {
        if is_broken {
            problems.push(rule.to_owned());
        }
    }
    problems
}

/// Why a text is no DNS subdomain (RFC 1123), as most objects' names must be.
pub fn invalid_subdomain(name: &str) -> Vec<String> {
    const REGEX: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
    const MUST: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and \
                        end with an alphanumeric character";
    let mut problems = Vec::new();
    if name.len() > 253 {
        problems.push(too_long("", 253));
    }
    if !name.split('.').all(is_label) {
        problems.push(mismatch(MUST, REGEX, &["example.com"]));
    }
    problems
}

/// Why a text is no DNS label (RFC 1123), as namespaces' names must be.
pub fn invalid_label(name: &str) -> Vec<String> {
    const REGEX: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
    const MUST: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with \
                        an alphanumeric character";
    let mut problems = Vec::new();
    if name.len() > 63 {
        problems.push(too_long("", 63));
    }
    if !is_label(name) {
        problems.push(if name.split('.').all(is_label) {
            "must not contain dots".to_owned()
        } else {
            mismatch(MUST, REGEX, &["my-name", "123-abc"])
        });
    }
    problems
}

fn too_long(what: &str, most: usize) -> String {
    format!("{what}must be no more than {most} bytes")
}

/// The API server's words, two spaces included.
fn mismatch(must: &str, regex: &str, examples: &[&str]) -> String {
    let examples: Vec<_> = examples.iter().map(|example| format!("'{example}', ")).collect();
    format!("{must} (e.g. {}regex used for validation is '{regex}')", examples.join(" or "))
}

fn is_qualified_name(name: &str) -> bool {
    let is_end = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    is_end(name.bytes().next())
        && is_end(name.bytes().next_back())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn is_label(label: &str) -> bool {
    let is_end = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    is_end(label.bytes().next())
        && is_end(label.bytes().next_back())
        && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
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
