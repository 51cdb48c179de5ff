//! What is known of the moment of a drop, in sentences.

use std::sync::Arc;

use crate::cluster::Pod;
use crate::diagnose::{Attributed, Class, How, Moment, Span};
use crate::policy::Verdict;
use crate::timeline::{Holder, Owner};

/// Changes that are told of one drop.
const CHANGES_SHOWN: usize = 3;

/// What there is to say besides the cause, which says what brought the drop about.
pub(super) fn sentences(moment: &Moment, class: &Class) -> Vec<String> {
    let mut sentences: Vec<String> = moment.owners.iter().map(owner).collect();
    if *class != Class::PolicyChanged {
        sentences.extend(moment.changes.iter().take(CHANGES_SHOWN).map(|change| {
            let before = match change.verdict_before {
                Verdict::Allow => "the policies allowed it",
                Verdict::Deny => "the policies denied it",
                Verdict::Undecided => "it could not be decided",
            };
            format!("{change}: before that, {before}")
        }));
    }
    // Where it leaves the cause open, the cause says so.
    if !matches!(class, Class::Undecided) {
        sentences.extend(moment.not_evaluated().map(|what| format!("{what}; what they say of it is not known")));
        sentences.extend(moment.why_inexact());
    }
    sentences
}

fn owner(attributed: &Attributed) -> String {
    let ip = attributed.ip;
    match &attributed.how {
        How::Interface { pod, published } if published.is_empty() => {
            format!("{ip} was not yet published; the interface is {}'s", name(pod))
        }
        How::Interface { pod, published } => {
            let others: Vec<String> = published.iter().map(name).collect();
            format!("{ip} is {}'s by what is published; the interface is {}'s", others.join(", "), name(pod))
        }
        How::PublishedLater { pod, after } => format!("{ip} was published as {}'s {} after the drop", name(pod), Span(*after)),
        How::Gone { pod, before } => format!("{ip} was {}'s, which was gone {} before the drop", name(pod), Span(*before)),
        How::Several(owners) => {
            let owners: Vec<String> = owners.iter().map(tenure).collect();
            format!("{ip} was that of one of {}", owners.join(", "))
        }
        How::NotKnown => format!("the owner of {ip} is not yet known"),
    }
}

/// `shop/a until 14:02:11 UTC`
fn tenure(owner: &Owner) -> String {
    let who = match &owner.who {
        Holder::Pod(pod) => name(pod),
        other => other.to_string(),
    };
    let clock = |time: &jiff::Timestamp| time.strftime("%H:%M:%S%.3fZ").to_string();
    match (owner.since.as_ref().map(clock), owner.until.as_ref().map(clock)) {
        (None, None) => who,
        (Some(since), None) => format!("{who} (since {since})"),
        (None, Some(until)) => format!("{who} (until {until})"),
        (Some(since), Some(until)) => format!("{who} ({since} to {until})"),
    }
}

fn name(pod: &Arc<Pod>) -> String {
    format!("{}/{}", pod.namespace, pod.name)
}
