//! The switches of a [`Profile`] as people type them: `other-protocols=denied`.

use crate::policy::{BaselineScope, OtherProtocols, Profile, TiedPriorities};

/// What a value does to a profile.
type Set = fn(&mut Profile);

/// The switches with their values, the default first.
const SWITCHES: &[(&str, &[(&str, Set)])] = &[
    (
        "ip-block-matches-pods",
        &[("true", |profile| profile.ip_block_matches_pods = true), ("false", |profile| profile.ip_block_matches_pods = false)],
    ),
    (
        "tied-priorities",
        &[
            ("undecided", |profile| profile.tied_priorities = TiedPriorities::Undecided),
            ("by-name", |profile| profile.tied_priorities = TiedPriorities::ByName),
        ],
    ),
    (
        "other-protocols",
        &[
            ("undecided", |profile| profile.other_protocols = OtherProtocols::Undecided),
            ("denied", |profile| profile.other_protocols = OtherProtocols::Denied),
            ("admitted", |profile| profile.other_protocols = OtherProtocols::Admitted),
        ],
    ),
    (
        "baseline",
        &[
            ("per-direction", |profile| profile.baseline = BaselineScope::PerDirection),
            ("per-pod", |profile| profile.baseline = BaselineScope::PerPod),
        ],
    ),
];

/// One switch set to one value.
#[derive(Clone, Copy, Debug)]
pub struct Switch {
    name: &'static str,
    set: Set,
}

/// Why a switch cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SwitchError {
    /// No `=`.
    #[error("expected SWITCH=VALUE, one of {}", all())]
    NoValue,
    /// No switch of that name.
    #[error("no switch is named {name:?}; there are {}", all())]
    Switch {
        /// What was typed.
        name: String,
    },
    /// The switch has no such value.
    #[error("{switch} cannot be {value:?}; it is {}", values(.switch))]
    Value {
        /// The switch.
        switch: &'static str,
        /// What was typed.
        value: String,
    },
}

impl Switch {
    /// Reads `other-protocols=denied`.
    ///
    /// # Errors
    /// Names what there is.
    pub fn parse(text: &str) -> Result<Self, SwitchError> {
        let (name, value) = text.split_once('=').ok_or(SwitchError::NoValue)?;
        let (name, value) = (name.trim(), value.trim());
        let (name, values) =
            SWITCHES.iter().find(|(switch, _)| *switch == name).ok_or_else(|| SwitchError::Switch { name: name.to_owned() })?;
        match values.iter().find(|(known, _)| *known == value) {
            Some((_, set)) => Ok(Switch { name, set: *set }),
            None => Err(SwitchError::Value { switch: name, value: value.to_owned() }),
        }
    }
}

/// The default profile with the switches set, the last of a name last.
///
/// # Errors
/// A switch that is given twice.
pub fn profile(switches: &[Switch]) -> Result<Profile, String> {
    let mut profile = Profile::default();
    for (at, switch) in switches.iter().enumerate() {
        if switches.iter().take(at).any(|earlier| earlier.name == switch.name) {
            return Err(format!("--profile {} is given twice", switch.name));
        }
        (switch.set)(&mut profile);
    }
    Ok(profile)
}

fn all() -> String {
    SWITCHES.iter().map(|(name, _)| format!("{name}={}", values(name))).collect::<Vec<_>>().join(", ")
}

fn values(switch: &str) -> String {
    let found = SWITCHES.iter().find(|(name, _)| *name == switch).map(|(_, values)| *values).unwrap_or_default();
    found.iter().map(|(value, _)| *value).collect::<Vec<_>>().join("|")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(switches: &[&str]) -> Profile {
        profile(&switches.iter().map(|text| Switch::parse(text).unwrap()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn every_switch_sets_its_field_and_the_first_value_is_the_default() {
        let firsts: Vec<String> = SWITCHES.iter().map(|(name, values)| format!("{name}={}", values[0].0)).collect();
        assert_eq!(of(&firsts.iter().map(String::as_str).collect::<Vec<_>>()), Profile::default());
        let changed = of(&["ip-block-matches-pods=false", "tied-priorities=by-name", "other-protocols=admitted", "baseline=per-pod"]);
        let expected = Profile {
            ip_block_matches_pods: false,
            tied_priorities: TiedPriorities::ByName,
            other_protocols: OtherProtocols::Admitted,
            baseline: BaselineScope::PerPod,
        };
        assert_eq!(changed, expected);
        assert_eq!(of(&["other-protocols=denied"]).other_protocols, OtherProtocols::Denied);
    }

    #[test]
    fn errors_name_what_there_is() {
        let error = |text| Switch::parse(text).unwrap_err().to_string();
        assert_eq!(error("baseline=x"), "baseline cannot be \"x\"; it is per-direction|per-pod");
        assert!(error("bsline=per-pod").starts_with("no switch is named \"bsline\"; there are ip-block-matches-pods=true|false, "));
        assert!(error("baseline").starts_with("expected SWITCH=VALUE, one of ip-block-matches-pods=true|false, "));
        let twice = [Switch::parse("baseline=per-pod").unwrap(), Switch::parse("baseline=per-pod").unwrap()];
        assert_eq!(profile(&twice).unwrap_err(), "--profile baseline is given twice");
    }
}
