//! What was said of a drop, and what is to be said of it by now.

use std::sync::Arc;

use jiff::Timestamp;

use crate::diagnose::{Attributed, Class, Denial, How, Moment, Span};
use crate::flow::FoldId;
use crate::identify::{Identity, Party};
use crate::policy::Verdict;

/// What was told after a drop had been given, and makes it another in the light of that.
#[derive(Clone, Debug)]
pub struct Amendment {
    /// The drop as it was given, or as it was amended last.
    pub before: Arc<Denial>,
    /// What it was before that, if it was amended already: as it was given first, and so on.
    pub earlier: Vec<Arc<Denial>>,
    /// The same drop as it is judged by now.
    pub denial: Arc<Denial>,
    /// Why it is amended, in words.
    pub why: String,
}

impl Amendment {
    /// What there is to amend between versions of one drop, the last of which is how it is judged by now; absent where they say the same.
    pub fn between(before: Arc<Denial>, earlier: Vec<Arc<Denial>>, denial: Arc<Denial>) -> Option<Self> {
        let why = amendment(&before, &denial)?;
        Some(Amendment { before, earlier, denial, why })
    }

    /// The id of the drop.
    pub fn id(&self) -> FoldId {
        self.denial.event.id
    }

    /// When the packet was dropped.
    pub fn time(&self) -> Timestamp {
        self.denial.event.time
    }
}

/// Why a drop is to be amended; absent where what was said of it still holds.
pub(super) fn amendment(before: &Denial, now: &Denial) -> Option<String> {
    let mut whys: Vec<String> = Vec::new();
    for (was, is) in [(&before.who.client, &now.who.client), (&before.who.server, &now.who.server)] {
        if (was.ip, names(was)) != (is.ip, names(is)) {
            let why = owner(is, now.moment.as_ref());
            if !whys.contains(&why) {
                whys.push(why);
            }
        }
    }
    let says = |denial: &Denial| -> (Class, Verdict) { (denial.diagnosis.class.clone(), denial.explanation.verdict) };
    if whys.is_empty() && says(before) != says(now) {
        let moment = now.moment.as_ref();
        let change = moment.and_then(|moment| moment.enforced_already().or_else(|| moment.not_yet_enforced()));
        whys.push(match change {
            Some(change) => change.to_string(),
            None => "what was told since makes it another".to_owned(),
        });
    }
    (!whys.is_empty()).then(|| whys.join("; "))
}

/// Who it is, so that two are told apart.
fn names(party: &Party) -> Vec<[Arc<str>; 3]> {
    let pod = |pod: &Arc<crate::cluster::Pod>| [pod.namespace.clone(), pod.name.clone(), pod.uid.clone()];
    match &party.identity {
        Identity::Pod(one) => vec![pod(one)],
        Identity::AmbiguousPods(pods) => {
            let mut names: Vec<_> = pods.iter().map(pod).collect();
            names.sort_unstable();
            names
        }
        Identity::Node(node) => vec![["node".into(), node.name.clone(), "".into()]],
        Identity::Service(service) => vec![["Service".into(), service.namespace.clone(), service.name.clone()]],
        Identity::UnownedPodAddress | Identity::Special | Identity::External | Identity::NotShown => Vec::new(),
    }
}

/// Who an end is by now.
fn owner(party: &Party, moment: Option<&Moment>) -> String {
    let ip = party.ip;
    let how = moment.and_then(|moment| moment.owners.iter().find(|Attributed { ip: known, .. }| *known == ip)).map(|known| &known.how);
    match (how, &party.identity) {
        (Some(How::PublishedLater { pod, after }), _) => {
            format!("{ip} was published as {}/{}'s {} after the drop", pod.namespace, pod.name, Span(*after))
        }
        (_, Identity::Pod(pod)) => format!("{ip} was {}/{}'s", pod.namespace, pod.name),
        (_, Identity::AmbiguousPods(pods)) => {
            let names: Vec<String> = pods.iter().map(|pod| format!("{}/{}", pod.namespace, pod.name)).collect();
            format!("{ip} may have been that of any of {}", names.join(", "))
        }
        _ => format!("{ip} is {party} by what was told since"),
    }
}
