//! How the API server words what a CustomResourceDefinition's schema refuses.

use std::sync::Arc;

use super::{Effect, FieldError, FieldErrors, report, report_as};

pub(super) const REQUIRED: &str = "Required value";

pub(super) fn too_few_items(field: &str) -> String {
    format!("Invalid value: 0: {field} in body should have at least 1 items")
}

pub(super) fn unsupported(value: &str, supported: &[&str]) -> String {
    let supported: Vec<_> = supported.iter().map(|value| format!("{value:?}")).collect();
    format!("Unsupported value: {value:?}: supported values: {}", supported.join(", "))
}

/// Reports a list or an object with more parts than allowed.
pub(super) fn at_most(number: usize, most: usize, field: &str, effect: Effect, errors: &mut FieldErrors) {
    if number > most {
        report_as(errors, field, format!("Too many: {number}: must have at most {most} items"), effect);
    }
}

/// Reports an object that has not exactly one of its fields.
pub(super) fn exactly_one(fields: &[bool], field: &str, errors: &mut FieldErrors) {
    let number = fields.iter().filter(|is_set| **is_set).count();
    if number == 0 {
        report(errors, field, too_few_properties(field));
    }
    at_most(number, 1, field, Effect::MatchesNothing, errors);
}

pub(super) fn too_few_properties(field: &str) -> String {
    format!("Invalid value: 0: {field} in body should have at least 1 properties")
}

/// Reports a text of more characters than allowed.
pub(super) fn at_most_long(text: &str, most: usize, field: &str, effect: Effect, errors: &mut FieldErrors) {
    if text.chars().count() > most {
        report_as(errors, field, format!("Too long: may not be more than {most} bytes"), effect);
    }
}

/// Reports a number outside of its range.
pub(super) fn within(number: i32, least: i32, most: i32, field: &str, effect: Effect, errors: &mut FieldErrors) {
    if number < least {
        let message = format!("Invalid value: {number}: {field} in body should be greater than or equal to {least}");
        report_as(errors, field, message, effect);
    } else if number > most {
        let message = format!("Invalid value: {number}: {field} in body should be less than or equal to {most}");
        report_as(errors, field, message, effect);
    }
}

/// Reports the items that stand earlier in the list already (`x-kubernetes-list-type: set`). They change nothing.
pub(super) fn unique(items: &[String], field: &str, errors: &mut FieldErrors) {
    for (i, item) in items.iter().enumerate() {
        if items.iter().take(i).any(|earlier| earlier == item) {
            report_as(errors, format!("{field}[{i}]"), format!("Duplicate value: {item:?}"), Effect::AsWritten);
        }
    }
}

/// Compiles a part of which the field is the root. Where anything in it keeps it from having a meaning, the whole part has the effect
/// and the first reason stands for it.
pub(super) fn part<T>(
    field: &str,
    effect: Effect,
    errors: &mut FieldErrors,
    compile: impl FnOnce(&mut FieldErrors) -> T,
) -> Result<T, Arc<str>> {
    let mut own = FieldErrors::new();
    let value = compile(&mut own);
    let mut reason = None;
    for error in own.iter_mut().filter(|error| error.effect != Effect::AsWritten) {
        error.effect = effect;
        reason.get_or_insert_with(|| within_part(field, error));
    }
    errors.append(&mut own);
    match reason {
        Some(reason) => Err(reason),
        None => Ok(value),
    }
}

/// The message with as much of its field as lies below the part.
fn within_part(part: &str, error: &FieldError) -> Arc<str> {
    match error.field.strip_prefix(part) {
        Some("") => error.message.as_str().into(),
        Some(rest) => format!("{}: {}", rest.trim_start_matches('.'), error.message).into(),
        None => error.to_string().into(),
    }
}
