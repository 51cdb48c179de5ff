//! Label selectors, compiled: what `metav1.LabelSelector` means as a list of requirements.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::Labels;

/// A label selector: all requirements must hold. None at all selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selector {
    /// `matchLabels` and then `matchExpressions`.
    pub requirements: Vec<Requirement>,
}

/// One term of a selector.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    /// Label key.
    pub key: Arc<str>,
    /// How the label is compared.
    pub operator: Operator,
}

/// `matchExpressions[].operator` with its values.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    /// A term of `matchLabels`: the label exists and has this value.
    Equals(Arc<str>),
    /// The label exists and has one of the values.
    In(Vec<Arc<str>>),
    /// The label is missing or has none of the values.
    NotIn(Vec<Arc<str>>),
    /// The label exists.
    Exists,
    /// The label is missing.
    DoesNotExist,
    /// Not a valid term, with the reason; fails closed: matches nothing.
    Invalid(Arc<str>),
}

impl Selector {
    /// Whether `labels` meets every requirement.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches(labels))
    }

    /// The requirements that `labels` does not meet.
    pub fn failed<'a>(&'a self, labels: &'a Labels) -> impl Iterator<Item = &'a Requirement> {
        self.requirements.iter().filter(|requirement| !requirement.matches(labels))
    }
}

impl Requirement {
    /// Whether `labels` meets this one.
    pub fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match &self.operator {
            Operator::Equals(wanted) => value == Some(wanted),
            Operator::In(values) => value.is_some_and(|value| values.contains(value)),
            Operator::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Invalid(_) => false,
        }
    }
}

/// As `kubectl` writes selectors: `app=web`, `tier in (a,b)`, `tier notin (a)`, `app`, `!app`.
impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match &self.operator {
            Operator::Equals(value) => write!(f, "{key}={value}"),
            Operator::In(values) if values.len() == 1 => write!(f, "{key}={}", values[0]),
            Operator::In(values) => write!(f, "{key} in ({})", values.join(",")),
            Operator::NotIn(values) if values.len() == 1 => write!(f, "{key}!={}", values[0]),
            Operator::NotIn(values) => write!(f, "{key} notin ({})", values.join(",")),
            Operator::Exists => write!(f, "{key}"),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::Invalid(why) => write!(f, "{key} (invalid: {why})"),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.requirements.is_empty() {
            return f.write_str("<all>");
        }
        for (i, requirement) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{requirement}")?;
        }
        Ok(())
    }
}

impl Serialize for Requirement {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
