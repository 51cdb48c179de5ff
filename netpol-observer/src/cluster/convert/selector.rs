//! `metav1.LabelSelector` → [`Selector`].

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use super::names::{invalid_label_key, invalid_label_value};
use super::{FieldErrors, report};
use crate::cluster::{Operator, Requirement, Selector};

/// Compiles a selector. Terms the API server refuses are reported, and match nothing.
pub(super) fn selector(selector: LabelSelector, field: &str, errors: &mut FieldErrors) -> Selector {
    let mut requirements = Vec::new();
    for (key, value) in selector.match_labels.unwrap_or_default() {
        let mut problems = Problems { errors, first: None };
        let field = format!("{field}.matchLabels");
        problems.invalid(&field, &key, invalid_label_key(&key));
        problems.invalid(&field, &value, invalid_label_value(&value));
        let operator = problems.first.map_or_else(|| Operator::Equals(value.into()), Operator::Invalid);
        requirements.push(Requirement { key: key.into(), operator });
    }
    for (i, term) in selector.match_expressions.unwrap_or_default().into_iter().enumerate() {
        requirements.push(requirement(term, &format!("{field}.matchExpressions[{i}]"), errors));
    }
    requirements.shrink_to_fit();
    Selector { requirements }
}

fn requirement(term: LabelSelectorRequirement, field: &str, errors: &mut FieldErrors) -> Requirement {
    let LabelSelectorRequirement { key, operator, values } = term;
    let values = values.unwrap_or_default();
    let mut problems = Problems { errors, first: None };
    match (operator.as_str(), values.is_empty()) {
        ("In" | "NotIn", true) => {
            let message = "Required value: must be specified when `operator` is 'In' or 'NotIn'";
            problems.report(&format!("{field}.values"), message.into());
        }
        ("Exists" | "DoesNotExist", false) => {
            let message = "Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            problems.report(&format!("{field}.values"), message.into());
        }
        ("In" | "NotIn" | "Exists" | "DoesNotExist", _) => {}
        _ => problems.report(&format!("{field}.operator"), format!("Invalid value: {operator:?}: not a valid selector operator")),
    }
    problems.invalid(&format!("{field}.key"), &key, invalid_label_key(&key));
    for (i, value) in values.iter().enumerate() {
        problems.invalid(&format!("{field}.values[{i}]"), value, invalid_label_value(value));
    }
    let first = problems.first;
    let values = || values.into_iter().map(Arc::from).collect();
    let operator = match (first, operator.as_str()) {
        (Some(why), _) => Operator::Invalid(why),
        (None, "In") => Operator::In(values()),
        (None, "NotIn") => Operator::NotIn(values()),
        (None, "Exists") => Operator::Exists,
        (None, _) => Operator::DoesNotExist,
    };
    Requirement { key: key.into(), operator }
}

/// Reports the problems of one term; the first of them stands for it.
struct Problems<'a> {
    errors: &'a mut FieldErrors,
    first: Option<Arc<str>>,
}

impl Problems<'_> {
    fn report(&mut self, field: &str, message: String) {
        self.first.get_or_insert_with(|| message.as_str().into());
        report(self.errors, field, message);
    }

    fn invalid(&mut self, field: &str, value: &str, problems: Vec<String>) {
        for problem in problems {
            self.report(field, format!("Invalid value: {value:?}: {problem}"));
        }
    }
}
