//! What an Event says.

use std::borrow::Cow;
use std::hash::{BuildHasher as _, RandomState};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::mention::{Mention, Role};
use super::{CONTROLLER, Disclosure};
use crate::agent::seen_from;
use crate::cluster::Pod;
use crate::diagnose::{Class, Denial};
use crate::identify::{Identity, Party};
use crate::policy::Admission;
use crate::serve::Route;
use crate::serve::render::{admits, clean, dialled, directions, heading, in_short, route};

/// Longest note, in bytes (pkg/apis/core/validation/events.go).
const NOTE: usize = 1024;
/// Longest name of an Event: that of a DNS subdomain.
const NAME: usize = 253;
/// Longest `reportingInstance`, in bytes.
const INSTANCE: usize = 128;
const CUT: &str = "…";

/// Who reports.
#[derive(Clone, Debug)]
pub(super) struct Reporter {
    pub(super) instance: String,
    pub(super) node: String,
    pub(super) disclosure: Disclosure,
}

impl Reporter {
    /// `pod` is the agent's own, if it is in one.
    pub(super) fn new(node: &str, pod: Option<&str>, disclosure: Disclosure) -> Self {
        let instance = cut(pod.unwrap_or(node), INSTANCE).into_owned();
        Reporter { instance, node: node.to_owned(), disclosure }
    }

    /// The Event of a drop, without its times.
    pub(super) fn event(&self, mention: &Mention, denial: &Denial) -> Event {
        let pod = &mention.pod;
        let (kind, action) = match mention.role {
            Role::Caller => ("Warning", "Connect"),
            // Its policies do what they say.
            Role::Called => ("Normal", "Accept"),
        };
        Event {
            metadata: ObjectMeta { name: Some(name(&pod.name)), namespace: Some(pod.namespace.to_string()), ..ObjectMeta::default() },
            regarding: Some(reference(pod)),
            related: mention.related.as_deref().map(reference),
            reason: Some(reason(&denial.diagnosis.class).to_owned()),
            action: Some(action.to_owned()),
            type_: Some(kind.to_owned()),
            note: Some(self.note(pod, denial)),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            ..Event::default()
        }
    }

    /// What is said of a drop to those who may read the namespace of a pod.
    fn note(&self, pod: &Pod, denial: &Denial) -> String {
        let text = match self.disclosure {
            Disclosure::AcrossNamespaces => sentences(denial),
            // Neither end is in the namespace of a pod that is one of them: that cannot be.
            Disclosure::OwnNamespace => match seen_from(&pod.namespace, &self.node, denial) {
                Some(seen) => sentences(&seen),
                None => String::new(),
            },
        };
        cut(&clean(&text), NOTE).into_owned()
    }
}

/// The reason of an Event, by the kind of cause.
pub(super) fn reason(class: &Class) -> &'static str {
    match class {
        Class::PolicyDenied(_) => "NetworkPolicyDenied",
        Class::DroppedReply => "ReplyDropped",
        Class::PolicyChanged => "NetworkPolicyChangeNotEnforced",
        Class::HostFirewall => "DroppedByHostFirewall",
        Class::NoListener => "NoListener",
        Class::ServiceWithoutEndpoints => "ServiceWithoutEndpoints",
        Class::NoRoute => "NoRoute",
        Class::ReversePathFilter => "DroppedByReversePathFilter",
        Class::ConnectionState => "InvalidConnectionState",
        Class::Noise => "Noise",
        Class::Undecided => "Undecided",
    }
}

/// From whom to whom, what became of it and why, and what would mend it.
fn sentences(denial: &Denial) -> String {
    let mut to = Route::of(denial);
    let is_hidden = [&mut to.client, &mut to.server].map(show_address).contains(&true);
    let mut text = route(&to);
    if let Some(service) = dialled(&to) {
        text += &format!(" ({service})");
    }
    match &denial.diagnosis.class {
        Class::PolicyDenied(denying) => {
            text += &format!(" was denied ({})", directions(denying));
            text += &if is_explained(denial) { format!(" {}.", in_short(denial)) } else { " by policies of another namespace.".to_owned() };
        }
        class => {
            text += &format!(" was dropped ({})", heading(class).1);
            text += &if is_hidden { ".".to_owned() } else { format!(": {}", denial.diagnosis.summary) };
        }
    }
    for fix in &denial.explanation.fixes {
        let change = match &fix.policy {
            Some(policy) if denial.explanation.fixes.len() > 1 => format!("{}: {}", policy.full_name(), fix.change),
            _ => fix.change.clone(),
        };
        let besides = admits(&fix.newly_admits);
        let besides = if besides.is_empty() { besides } else { format!(" ({besides})") };
        text += &format!(" Fix: {change}{besides}.");
    }
    if is_hidden {
        text += " The other end is in another namespace, and not named here.";
    }
    text
}

/// Shows an end that is not to be named by its address; whether it is one.
fn show_address(party: &mut Party) -> bool {
    let is_hidden = matches!(party.identity, Identity::NotShown);
    if is_hidden {
        party.identity = Identity::External;
    }
    is_hidden
}

/// Whether some policy that denies it may be named.
fn is_explained(denial: &Denial) -> bool {
    let explanation = &denial.explanation;
    [&explanation.egress, &explanation.ingress].iter().any(|direction| matches!(direction.admission, Admission::Denied { .. }))
}

fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(pod.namespace.to_string()),
        name: Some(pod.name.to_string()),
        uid: Some(pod.uid.to_string()),
        ..ObjectReference::default()
    }
}

/// The pod's, and a number by lot: agents of several nodes may write of one pod at once.
pub(super) fn name(pod: &str) -> String {
    let suffix = format!(".{:016x}", RandomState::new().hash_one(pod));
    let most = NAME - suffix.len();
    let stem = if pod.len() > most { pod.get(..most).unwrap_or_default() } else { pod };
    format!("{}{suffix}", stem.trim_end_matches(['-', '.']))
}

/// So many bytes at most, with whole characters.
fn cut(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most {
        return Cow::Borrowed(text);
    }
    let mut end = most.saturating_sub(CUT.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Cow::Owned(format!("{}{CUT}", text.get(..end).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::diagnose::Agreement;
    use crate::publish::events::mention::mentions;
    use crate::publish::events::testing::{call_across, of, settled_of, with_uid};
    use crate::serve::testing::innocent;

    /// The Events of a drop.
    fn events(denial: &Denial, disclosure: Disclosure) -> Vec<Event> {
        let reporter = Reporter::new("node-1", Some("netpol-observer-x7"), disclosure);
        let mentions = mentions(&settled_of(denial.clone(), 1), disclosure);
        mentions.iter().map(|mention| reporter.event(mention, denial)).collect()
    }

    fn notes(denial: &Denial, disclosure: Disclosure) -> Vec<String> {
        events(denial, disclosure).into_iter().map(|event| event.note.unwrap()).collect()
    }

    #[test]
    fn both_pods_of_a_namespace_are_told_all_of_it() {
        let note = "shop/web-7d9f → shop/api-5c4b:8080/TCP (Service shop/api:80) was denied (ingress) by shop/api-allow-frontend; nearest \
                    ingress[0]: peer differs: podSelector wants app=frontend, shop/web-7d9f has app=web. Fix: ingress[0].from += podSelector \
                    {app: web} (admits 1 more workload: shop/web).";
        for disclosure in [Disclosure::OwnNamespace, Disclosure::AcrossNamespaces] {
            assert_eq!(notes(&of(1), disclosure), [note, note]);
        }
        let events = events(&of(1), Disclosure::OwnNamespace);
        let said = |event: &Event| [&event.type_, &event.reason, &event.action].map(|text| text.clone().unwrap());
        assert_eq!(said(&events[0]), ["Warning", "NetworkPolicyDenied", "Connect"]);
        assert_eq!(said(&events[1]), ["Normal", "NetworkPolicyDenied", "Accept"]);
        let named = |reference: &Option<ObjectReference>| reference.clone().and_then(|reference| reference.uid);
        assert_eq!(named(&events[0].regarding), named(&events[1].related));
        assert_eq!(named(&events[1].regarding).as_deref(), Some("uid-api-5c4b"));
    }

    #[test]
    fn of_another_namespace_only_the_address_is_said_unless_it_may_be_named() {
        let mut denial = of(1);
        call_across(&mut denial);
        assert_eq!(
            notes(&denial, Disclosure::OwnNamespace),
            [
                "batch/web-7d9f → 10.96.0.10:80/TCP was denied (ingress) by policies of another namespace. The other end is in another \
                 namespace, and not named here.",
                "10.244.1.5 → shop/api-5c4b:8080/TCP (Service shop/api:80) was denied (ingress) by shop/api-allow-frontend. The other end is \
                 in another namespace, and not named here."
            ]
        );
        assert!(events(&denial, Disclosure::OwnNamespace).iter().all(|event| event.related.is_none()));
        let across = notes(&denial, Disclosure::AcrossNamespaces);
        assert!(across[0] == across[1] && across[0].contains("podSelector wants app=frontend"), "{across:?}");
        assert!(events(&denial, Disclosure::AcrossNamespaces).iter().all(|event| event.related.is_some()));
    }

    /// No word of another namespace stands anywhere in an Event.
    #[test]
    fn nothing_of_another_namespace_gets_into_an_event() {
        let mut denial = of(1);
        call_across(&mut denial);
        let [caller, called] = <[Event; 2]>::try_from(events(&denial, Disclosure::OwnNamespace)).unwrap();
        let text = |event: &Event| serde_json::to_string(event).unwrap();
        for word in ["shop", "api-5c4b", "allow-frontend", "frontend", "10.244.2.7", "8080", "uid-api"] {
            assert!(!text(&caller).contains(word), "{word}: {}", text(&caller));
        }
        for word in ["batch", "web-7d9f", "app=web", "app: web", "uid-web"] {
            assert!(!text(&called).contains(word), "{word}: {}", text(&called));
        }
    }

    #[test]
    fn where_no_policy_is_to_blame_the_cause_is_said() {
        let mut denial = innocent(Class::HostFirewall, Agreement::PoliciesAllow, "A firewall rule dropped it.");
        with_uid(&mut denial);
        let note = "shop/web-7d9f → shop/api-5c4b:8080/TCP (Service shop/api:80) was dropped (host firewall): A firewall rule dropped it.";
        assert_eq!(notes(&denial, Disclosure::OwnNamespace), [note]);
        assert_eq!(events(&denial, Disclosure::OwnNamespace)[0].reason.as_deref(), Some("DroppedByHostFirewall"));
        call_across(&mut denial);
        let note =
            "batch/web-7d9f → 10.96.0.10:80/TCP was dropped (host firewall). The other end is in another namespace, and not named here.";
        assert_eq!(notes(&denial, Disclosure::OwnNamespace), [note]);
    }

    #[test]
    fn what_is_too_long_is_cut() {
        let mut denial = of(1);
        denial.explanation.fixes[0].change = "é".repeat(2000);
        let note = notes(&denial, Disclosure::OwnNamespace).remove(0);
        assert!(note.len() <= NOTE && note.len() > NOTE - 4 && note.ends_with("é…"), "{}", note.len());
        let instance = Reporter::new(&"n".repeat(253), None, Disclosure::OwnNamespace).instance;
        assert!(instance.len() <= INSTANCE && instance.ends_with("n…"), "{instance}");
    }

    proptest! {
        #[test]
        fn names_are_names(pod in "[a-z0-9]([a-z0-9-]{0,60}[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]{0,60}[a-z0-9])?){0,3}") {
            let name = name(&pod);
            prop_assert!(crate::cluster::convert::invalid_subdomain(&name).is_empty(), "{}", name);
            prop_assert!(pod.len() > 200 || name.starts_with(&pod));
        }

        #[test]
        fn cuts_are_within_bounds(text in "\\PC{0,60}", most in 3_usize..80) {
            let cut = cut(&text, most);
            prop_assert!(cut.len() <= most && (cut == text || cut.ends_with(CUT)));
        }
    }
}
