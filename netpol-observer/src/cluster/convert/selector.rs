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
        let problem = match (invalid_label_key(&key), invalid_label_value(&value)) {
            (Some(why), _) => Some(format!("Invalid value: {key:?}: {why}")),
            (None, Some(why)) => Some(format!("Invalid value: {value:?}: {why}")),
            (None, None) => None,
        };
        let operator = match problem {
            Some(why) => invalid(errors, format!("{field}.matchLabels"), why),
            None => Operator::Equals(value.into()),
        };
        requirements.push(Requirement { key: key.into(), operator });
    }
    for (i, term) in selector.match_expressions.unwrap_or_default().into_iter().enumerate() {
        requirements.push(requirement(term, &format!("{field}.matchExpressions[{i}]"), errors));
    }
    Selector { requirements }
}

fn requirement(term: LabelSelectorRequirement, field: &str, errors: &mut FieldErrors) -> Requirement {
    let LabelSelectorRequirement { key, operator, values } = term;
    let values = values.unwrap_or_default();
    let operator = if let Some(why) = invalid_label_key(&key) {
        invalid(errors, format!("{field}.key"), format!("Invalid value: {key:?}: {why}"))
    } else {
        let bad_value = values.iter().enumerate().find_map(|(i, value)| Some((i, value, invalid_label_value(value)?)));
        match (operator.as_str(), values.is_empty(), bad_value) {
            ("In" | "NotIn", true, _) => {
                invalid(errors, format!("{field}.values"), "Required value: must be specified when `operator` is 'In' or 'NotIn'".into())
            }
            ("In" | "NotIn", false, Some((i, value, why))) => {
                invalid(errors, format!("{field}.values[{i}]"), format!("Invalid value: {value:?}: {why}"))
            }
            ("In", false, None) => Operator::In(values.into_iter().map(Arc::from).collect()),
            ("NotIn", false, None) => Operator::NotIn(values.into_iter().map(Arc::from).collect()),
            ("Exists", true, _) => Operator::Exists,
            ("DoesNotExist", true, _) => Operator::DoesNotExist,
            ("Exists" | "DoesNotExist", false, _) => invalid(
                errors,
                format!("{field}.values"),
                "Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'".into(),
            ),
            (other, _, _) => invalid(
                errors,
                format!("{field}.operator"),
                format!("Invalid value: {other:?}: not a valid selector operator: In, NotIn, Exists or DoesNotExist"),
            ),
        }
    };
    Requirement { key: key.into(), operator }
}

fn invalid(errors: &mut FieldErrors, field: String, why: String) -> Operator {
    let operator = Operator::Invalid(why.as_str().into());
    report(errors, field, why);
    operator
}
