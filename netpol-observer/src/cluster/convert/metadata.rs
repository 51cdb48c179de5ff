//! `metadata`: what the API server refuses of it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::names::{invalid_label, invalid_label_key, invalid_label_value, invalid_subdomain};
use super::{Effect, FieldErrors, report_as};

/// Bytes of all annotations of an object, keys and values.
const MAX_ANNOTATIONS: usize = 256 << 10;

/// Reports what is wrong with the metadata of an object whose name must be a DNS subdomain. Nothing of it changes what a policy means.
pub(super) fn check(metadata: &ObjectMeta, is_namespaced: bool, errors: &mut FieldErrors) {
    let mut invalid = |field: &str, value: &str, problems: Vec<String>| {
        for problem in problems {
            report_as(errors, field, format!("Invalid value: {value:?}: {problem}"), Effect::AsWritten);
        }
    };
    if let Some(name) = metadata.name.as_deref().filter(|name| !name.is_empty()) {
        invalid("metadata.name", name, invalid_subdomain(name));
    }
    let namespace = metadata.namespace.as_deref().filter(|namespace| !namespace.is_empty());
    if let Some(namespace) = namespace.filter(|_| is_namespaced) {
        invalid("metadata.namespace", namespace, invalid_label(namespace));
    }
    for (key, value) in metadata.labels.iter().flatten() {
        invalid("metadata.labels", key, invalid_label_key(key));
        invalid("metadata.labels", value, invalid_label_value(value));
    }
    for key in metadata.annotations.iter().flatten().map(|(key, _)| key) {
        invalid("metadata.annotations", key, invalid_label_key(&key.to_lowercase()));
    }
    let annotations: usize = metadata.annotations.iter().flatten().map(|(key, value)| key.len() + value.len()).sum();
    if annotations > MAX_ANNOTATIONS {
        let message = format!("Too long: may not be more than {MAX_ANNOTATIONS} bytes");
        report_as(errors, "metadata.annotations", message, Effect::AsWritten);
    }
    if namespace.is_some() && !is_namespaced {
        report_as(errors, "metadata.namespace", "Forbidden: not allowed on this type", Effect::AsWritten);
    }
}
