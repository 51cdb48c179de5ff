//! What a tenant is shown of the moment of a drop, and of what is amended.

use std::sync::Arc;

use super::Sight;
use crate::cluster::{Kind, ObjectKey, Pod};
use crate::diagnose::{Attributed, Denial, How, Moment, RecentChange};
use crate::effect::Effect;
use crate::pipeline::Amendment;
use crate::policy::{Difference, NotCounted};
use crate::timeline::Holder;

/// The namespaces that have to be decided on before a moment can be shown.
pub(super) fn namespaces(moment: &Moment) -> Vec<Arc<str>> {
    let named = moment.owners.iter().flat_map(|owner| named(&owner.how)).flatten();
    let changed = moment.changes.iter().filter_map(|change| namespace_of(&change.key));
    named.chain(changed).collect()
}

/// The namespace that an object is in, or that it is; none of what is the cluster's.
pub(in super::super) fn namespace_of(key: &ObjectKey) -> Option<Arc<str>> {
    match key.kind {
        Kind::Namespace => Some(Arc::clone(&key.name)),
        _ => Some(&key.namespace).filter(|namespace| !namespace.is_empty()).map(Arc::clone),
    }
}

/// Whom an attribution names, by their namespaces; a node has none.
fn named(how: &How) -> Vec<Option<Arc<str>>> {
    let pod = |pod: &Arc<Pod>| Some(Arc::clone(&pod.namespace));
    match how {
        How::Interface { pod: own, published } => [own].into_iter().chain(published).map(pod).collect(),
        How::PublishedLater { pod: own, after: _ } | How::Gone { pod: own, before: _ } => vec![pod(own)],
        How::Several(owners) => owners
            .iter()
            .map(|owner| match &owner.who {
                Holder::Pod(own) | Holder::HostNetworkPod(own) => pod(own),
                Holder::Service(service) => Some(Arc::clone(&service.namespace)),
                Holder::Node(_) => None,
            })
            .collect(),
        How::NotKnown => Vec::new(),
    }
}

impl Sight<'_> {
    /// What is known of the moment; `hidden`: an end is not shown.
    pub(super) fn moment(&self, moment: &Moment, hidden: bool) -> Moment {
        let Moment { past, owners, changes, unevaluated } = moment;
        // What the other end was before, what changed for it and which policies concern it is as little theirs as the end.
        if hidden {
            return Moment { past: past.clone(), ..Moment::default() };
        }
        // Nodes are not theirs either.
        let is_readable = |namespace: &Option<Arc<str>>| namespace.as_ref().is_some_and(|namespace| self.may_read(namespace));
        let all_theirs = |owner: &&Attributed| named(&owner.how).iter().all(is_readable);
        let is_theirs = |change: &&RecentChange| namespace_of(&change.key).is_none_or(|namespace| self.may_read(&namespace));
        Moment {
            past: past.clone(),
            owners: owners.iter().filter(all_theirs).cloned().collect(),
            changes: changes.iter().filter(is_theirs).cloned().collect(),
            unevaluated: unevaluated.clone(),
        }
    }

    /// What there is to amend in what they were shown.
    pub(in super::super) fn amendment(&self, amendment: &Amendment) -> Amended {
        // The words are made anew: those that there are name whoever they are about.
        let Amendment { before, earlier, denial, why: _ } = amendment;
        let Some(denial) = self.of(denial) else {
            let was_shown = [before].into_iter().chain(earlier).any(|version| self.of(version).is_some());
            return if was_shown { Amended::NotTheirs } else { Amended::Nothing };
        };
        let denial = Arc::new(denial);
        let mut shown: Vec<Arc<Denial>> = earlier.iter().chain([before]).filter_map(|version| self.of(version)).map(Arc::new).collect();
        match shown.pop() {
            // It was not theirs before.
            None => Amended::New(denial),
            Some(before) => {
                Amendment::between(before, shown, denial).map_or(Amended::Nothing, |amendment| Amended::Shown(Box::new(amendment)))
            }
        }
    }

    /// A change of a policy that they may know of; what it does is counted over all namespaces, and not shown.
    pub(in super::super) fn policy_change(&self, effect: &Effect) -> Option<Effect> {
        let Effect { when, key, change, resource_version, id, difference: _ } = effect;
        namespace_of(key).is_some_and(|namespace| self.may_read(&namespace)).then(|| Effect {
            when: *when,
            key: key.clone(),
            change: *change,
            resource_version: resource_version.clone(),
            id: *id,
            difference: Difference::NotCounted(NotCounted::NotShown),
        })
    }
}

/// What becomes of an amendment for a tenant.
pub(in super::super) enum Amended {
    /// They see no difference.
    Nothing,
    /// They see this.
    Shown(Box<Amendment>),
    /// They did not see the drop before.
    New(Arc<Denial>),
    /// What they were shown as theirs is not.
    NotTheirs,
}
