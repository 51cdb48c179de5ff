//! From captured records to things to show, with the ledger kept on the way.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use jiff::Timestamp;

use super::filter::Filters;
use super::fold::{Fate, Fold, FoldOptions, Key, Seen, Summary};
use super::open::{Open, Record};
use super::{Ledger, class_name};
use crate::capture::{Captured, KernelLedger};
use crate::diagnose::{Class, Denial, PastKnown};
use crate::effect::Effect;
use crate::flow::{FoldId, KernelNames, RecordError};
use crate::identify::{Identity, Party, Who};
use crate::pipeline::{Amendment, Pipeline, Step};
use crate::policy::Admission;

/// Something to show.
#[derive(Clone, Debug)]
pub enum Item {
    /// A drop, in full.
    Denial {
        /// What its repeats go under.
        key: Key,
        /// The drop.
        denial: Arc<Denial>,
    },
    /// Repeats of one shown before.
    Repeats(Summary),
    /// A policy changed.
    PolicyChange(Arc<Effect>),
    /// What is to be said otherwise of one shown before, or of one that was left out and would not have been.
    Amendment {
        /// What its repeats go under.
        key: Key,
        /// What is amended, and why.
        amendment: Amendment,
        /// It was left out before.
        is_first: bool,
    },
}

/// What to show and how often.
#[derive(Clone, Debug, Default)]
pub struct StreamOptions {
    /// What to leave out.
    pub filters: Filters,
    /// Drops that touch nothing in the index are shown.
    pub elsewhere: bool,
    /// Drops that are not the loss of a new connection are shown.
    pub noise: bool,
    /// Drops that ended before this are left out.
    pub since: Option<Timestamp>,
    /// How repeats are folded.
    pub fold: FoldOptions,
}

/// Decides what is shown of a sequence of drops.
pub struct Stream {
    options: StreamOptions,
    fold: Fold,
    open: Open,
    /// Lines that are long settled and may be amended all the same, when what was not heard of is heard of again.
    unheard: VecDeque<(FoldId, Timestamp)>,
    ledger: Ledger,
}

/// Such lines that are remembered; of more the oldest are not.
const MAX_UNHEARD: usize = 4096;

/// Whether a drop was judged while something was not heard of.
fn is_behind(denial: &Denial) -> bool {
    denial.moment.as_ref().is_some_and(|moment| matches!(moment.past, PastKnown::Behind { .. }))
}

impl Stream {
    /// A stream that has seen nothing yet.
    pub fn new(options: StreamOptions) -> Self {
        Stream { fold: Fold::new(options.fold), open: Open::default(), unheard: VecDeque::new(), options, ledger: Ledger::default() }
    }

    /// The account so far.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// When [`tick`](Stream::tick) has something to show.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.fold.next_due().into_iter().chain(self.open.next_due()).min()
    }

    /// Takes one captured piece. `now` is the caller's clock: the wall clock of a live capture, the time of the recording in
    /// a replay. `names` are those of the kernel captured. Records that cannot be decoded are counted.
    pub fn handle(&mut self, captured: &Captured, pipeline: &Pipeline, names: &dyn KernelNames, now: Timestamp) -> Vec<Item> {
        self.step(pipeline.step(captured, names), now)
    }

    /// Takes what became of one captured piece.
    pub fn step(&mut self, step: Result<Step, RecordError>, now: Timestamp) -> Vec<Item> {
        match step {
            Ok(Step::Denial(denial)) => self.denial(denial, now),
            Ok(Step::Amendment(amendment)) => self.amendment(amendment, now),
            Ok(Step::Repeat { id, count, last }) => self.repeat(id, count, last, now),
            Ok(Step::Ledger(kernel)) => {
                self.kernel(kernel);
                Vec::new()
            }
            Err(error) => {
                tracing::debug!(%error, "record not decoded");
                self.undecodable();
                Vec::new()
            }
        }
    }

    /// Takes the kernel's counters.
    pub fn kernel(&mut self, ledger: KernelLedger) {
        self.ledger.kernel = Some(ledger);
    }

    /// Counts a record that could not be decoded.
    pub fn undecodable(&mut self) {
        self.ledger.records += 1;
        self.ledger.undecodable += 1;
    }

    /// Whether repeats under this id have a drop to go to.
    pub fn knows(&self, id: FoldId) -> bool {
        self.open.knows(id) || self.fold.knows(id)
    }

    /// Takes a drop that came as a record.
    pub fn denial(&mut self, denial: Arc<Denial>, now: Timestamp) -> Vec<Item> {
        self.ledger.records += 1;
        self.ledger.decoded += 1;
        let mut items = self.settle(now);
        let fate = self.fate(&denial);
        let key = key_of(&denial, fate);
        *self.account(Some(fate)) += 1;
        // Where there is one set of objects for all times, nothing is amended.
        if denial.moment.is_none() || fate == Fate::Earlier {
            items.extend(self.fold_in(key, fate, denial, now));
            return items;
        }
        let is_first = self.fold.is_first(key, fate, denial.event.time);
        if is_first {
            items.extend(self.fold_in(key, fate, Arc::clone(&denial), now));
        }
        self.open.push(Record::new(denial, key, fate, is_first, now));
        items
    }

    /// Takes repeats that the kernel counted.
    pub fn repeat(&mut self, id: FoldId, count: u64, last: Timestamp, now: Timestamp) -> Vec<Item> {
        self.ledger.counted += count;
        let mut items = self.settle(now);
        if let Some(record) = self.open.latest(id) {
            record.repeats += count;
            record.last = record.last.max(last);
            let fate = record.fate;
            *self.account(Some(fate)) += count;
            return items;
        }
        let Seen { fate, revived, .. } = self.fold.repeat(id, count, last, now, self.options.since);
        *self.account(fate) += count;
        if let Some(denial) = revived {
            self.ledger.earlier -= 1;
            self.ledger.shown += 1;
            items.push(Item::Denial { key: key_of(&denial, Fate::Shown), denial });
        }
        items
    }

    /// Folds a drop that is in the account already, as one that waits when it is to be shown. The line of the first one.
    fn fold_in(&mut self, key: Key, fate: Fate, denial: Arc<Denial>, now: Timestamp) -> Vec<Item> {
        let seen = self.fold.record(key, fate, &denial, now);
        let mut items = Vec::new();
        items.extend(seen.flushed.map(|summary| self.show_repeats(summary)));
        if seen.first && fate == Fate::Shown {
            self.ledger.pending -= 1;
            self.ledger.shown += 1;
            items.push(Item::Denial { key, denial });
        }
        items
    }

    /// Folds what nothing can make another's any more.
    fn settle(&mut self, now: Timestamp) -> Vec<Item> {
        let mut items = Vec::new();
        while let Some(Record { denial, key, fate, folded, repeats, last, .. }) = self.open.settled(now) {
            if fate == Fate::Shown && is_behind(&denial) {
                self.unheard.push_back((denial.event.id, denial.event.time));
                if self.unheard.len() > MAX_UNHEARD {
                    self.unheard.pop_front();
                }
            }
            if folded {
                // It was folded when it came, and others of its id that came before it were after that.
                self.fold.set_latest(key);
            } else {
                items.extend(self.fold_in(key, fate, Arc::clone(&denial), now));
            }
            if repeats == 0 || self.fold.settle(key, repeats, last) {
                continue;
            }
            // The key was forgotten meanwhile, perhaps with a drop that brought it and turned out to be another's. This one has had its line.
            let seen = self.fold.record(key, fate, &denial, now);
            items.extend(seen.flushed.map(|summary| self.show_repeats(summary)));
            if !self.fold.settle(key, repeats, last) {
                *self.account(Some(fate)) -= repeats;
                self.ledger.unattributed += repeats;
            }
        }
        items
    }

    /// Takes what a change of a policy does. Changes are no drops: the account knows nothing of them.
    pub fn policy_change(&self, effect: Arc<Effect>) -> Option<Item> {
        let is_earlier = self.options.since.is_some_and(|since| effect.when < since);
        (!is_earlier && self.options.filters.admit_change(&effect)).then_some(Item::PolicyChange(effect))
    }

    /// Takes what is to be said otherwise of a drop that was taken before. The drop is no other for that: it is counted once, where it belongs
    /// by now, and its repeats with it. Nothing becomes of it where the drop was never taken (before this stream began) or is forgotten.
    pub fn amendment(&mut self, amendment: Amendment, now: Timestamp) -> Vec<Item> {
        let mut items = self.settle(now);
        let denial = &amendment.denial;
        let fate = self.fate(denial);
        let key = key_of(denial, fate);
        let Some(record) = self.open.find(amendment.id(), amendment.time()) else {
            items.extend(self.late_amendment(amendment, key, fate, now));
            return items;
        };
        let (key_before, fate_before, repeats, folded) = (record.key, record.fate, record.repeats, record.folded);
        let was_shown = folded && fate_before == Fate::Shown;
        // Whoever saw it is told, whatever the filters say of what it is by now.
        let fate = if was_shown { Fate::Shown } else { fate };
        let key = if was_shown { key_of(denial, fate) } else { key };
        record.amend(denial, key, fate);
        *self.account(Some(fate_before)) -= repeats;
        *self.account(Some(fate)) += repeats;
        if key == key_before {
            return items;
        }
        if folded {
            self.fold.forget_alone(key_before, amendment.time());
        }
        let is_first = self.fold.is_first(key, fate, amendment.time());
        if was_shown {
            if is_first {
                let seen = self.fold.record(key, fate, denial, now);
                items.extend(seen.flushed.map(|summary| self.show_repeats(summary)));
            }
            items.push(Item::Amendment { key, amendment, is_first: false });
            return items;
        }
        *self.account(Some(fate_before)) -= 1;
        *self.account(Some(fate)) += 1;
        if let Some(record) = self.open.find(amendment.id(), amendment.time()) {
            record.folded = is_first;
        }
        if is_first {
            let shown = self.fold_in(key, fate, Arc::clone(denial), now);
            // It was left out, and should not have been.
            let was_left_out = fate_before != Fate::Shown;
            items.extend(shown.into_iter().map(|item| match item {
                Item::Denial { key, .. } if was_left_out => Item::Amendment { key, amendment: amendment.clone(), is_first: true },
                other => other,
            }));
        }
        items
    }

    /// What is told of a drop that is folded already: its repeats are not told apart from those of others any more.
    fn late_amendment(&mut self, amendment: Amendment, key: Key, fate: Fate, now: Timestamp) -> Vec<Item> {
        let Amendment { before, earlier, .. } = &amendment;
        let counted = earlier.iter().chain([before]).map(|version| self.fate(version)).collect::<Vec<_>>();
        let was_shown = counted.contains(&Fate::Shown);
        let key_before = key_of(before, self.fate(before));
        let mut items = Vec::new();
        let is_known = self.fold.knows_key(key_before);
        // However long ago its line was: after a time without the API server that may be minutes.
        let was_unheard = self.unheard.contains(&(amendment.id(), amendment.time()));
        if key == key_before || !(is_known || was_unheard) {
            return items;
        }
        if was_shown {
            items.push(Item::Amendment { key, amendment, is_first: false });
        } else if fate == Fate::Shown && is_known {
            // It was left out, and should not have been.
            let account = self.account(counted.first().copied());
            let Some(others) = account.checked_sub(1) else { return items };
            *account = others;
            self.ledger.pending += 1;
            let shown = self.fold_in(key, fate, Arc::clone(&amendment.denial), now);
            items.extend(shown.into_iter().map(|item| match item {
                Item::Denial { key, .. } => Item::Amendment { key, amendment: amendment.clone(), is_first: true },
                other => other,
            }));
        }
        items
    }

    /// The summaries that are due.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Item> {
        let mut items = self.settle(now);
        items.extend(self.fold.due(now).into_iter().map(|summary| self.show_repeats(summary)));
        items
    }

    /// The summaries that are left, at the end.
    pub fn finish(&mut self) -> Vec<Item> {
        let mut items = self.settle(Timestamp::MAX);
        items.extend(self.fold.flush().into_iter().map(|summary| self.show_repeats(summary)));
        items
    }

    /// Moves denials and repeats that [`Recent`](super::Recent) pushed out from the shown to the earlier ones.
    pub fn left_out_by_last(&mut self, denials: u64, repeats: u64) {
        self.ledger.shown -= denials;
        self.ledger.repeats -= repeats;
        self.ledger.earlier += denials + repeats;
    }

    fn show_repeats(&mut self, summary: Summary) -> Item {
        self.ledger.pending -= summary.count;
        self.ledger.repeats += summary.count;
        Item::Repeats(summary)
    }

    /// Where drops that are not shown in full are counted.
    fn account(&mut self, fate: Option<Fate>) -> &mut u64 {
        match fate {
            Some(Fate::Shown) => &mut self.ledger.pending,
            Some(Fate::FilteredOut) => &mut self.ledger.filtered_out,
            Some(Fate::Earlier) => &mut self.ledger.earlier,
            Some(Fate::Elsewhere) => &mut self.ledger.elsewhere,
            Some(Fate::Noise) => &mut self.ledger.noise,
            None => &mut self.ledger.unattributed,
        }
    }

    fn fate(&self, denial: &Denial) -> Fate {
        let filters = &self.options.filters;
        let noise_wanted = self.options.noise || filters.asks_for_noise();
        if !self.options.elsewhere && !touches_index(denial) && !is_syncing(denial) {
            Fate::Elsewhere
        } else if !noise_wanted && denial.diagnosis.class == Class::Noise {
            Fate::Noise
        } else if !filters.admit(denial) {
            Fate::FilteredOut
        } else if self.options.since.is_some_and(|since| denial.event.time < since) {
            Fate::Earlier
        } else {
            Fate::Shown
        }
    }
}

/// Whether that may be otherwise when all objects are known.
fn is_syncing(denial: &Denial) -> bool {
    denial.moment.as_ref().is_some_and(|moment| matches!(&moment.past, PastKnown::Syncing { missing } if !missing.is_empty()))
}

/// Whether anything in the index is concerned: a pod, a node, a Service, or an address of a node's pod range.
pub(super) fn touches_index(denial: &Denial) -> bool {
    let who = &denial.who;
    who.service.is_some()
        || ends(who).any(|party| match party.identity {
            Identity::Pod(_)
            | Identity::AmbiguousPods(_)
            | Identity::Node(_)
            | Identity::Service(_)
            | Identity::UnownedPodAddress
            | Identity::NotShown => true,
            Identity::Special | Identity::External => false,
        })
}

/// Those of the connection, and those of the tunnel.
fn ends(who: &Who) -> impl Iterator<Item = &Party> {
    let tunnel = who.tunnel.iter().flat_map(|ends| [&ends.source, &ends.destination]);
    [&who.client, &who.server].into_iter().chain(tunnel)
}

/// Two drops with one kernel key may still differ to people: other pods behind the addresses by now, another Service in
/// front, other policies to blame.
fn key_of(denial: &Denial, fate: Fate) -> Key {
    let mut hasher = DefaultHasher::new();
    // A drop that goes on beyond `--since` stays the same drop.
    let fate = if fate == Fate::Earlier { Fate::Shown } else { fate };
    fate.hash(&mut hasher);
    class_name(&denial.diagnosis.class).hash(&mut hasher);
    denial.event.is_reply().hash(&mut hasher);
    denial.event.hook.hash(&mut hasher);
    for party in ends(&denial.who) {
        hash_party(party, &mut hasher);
    }
    if let Some(call) = &denial.who.service {
        (&call.service.namespace, &call.service.name, call.port).hash(&mut hasher);
    }
    for direction in [&denial.explanation.egress, &denial.explanation.ingress] {
        if let Admission::Denied { isolating, .. } = &direction.admission {
            direction.direction.hash(&mut hasher);
            for policy in isolating {
                policy.policy.hash(&mut hasher);
            }
        }
    }
    Key { id: denial.event.id, same: hasher.finish() }
}

fn hash_party(party: &Party, hasher: &mut DefaultHasher) {
    party.ip.hash(hasher);
    match &party.identity {
        Identity::Pod(pod) => (&pod.namespace, &pod.name, &pod.uid).hash(hasher),
        // Who else it may have been makes another drop of it.
        Identity::AmbiguousPods(pods) => pods.iter().for_each(|pod| (&pod.namespace, &pod.name, &pod.uid).hash(hasher)),
        Identity::Node(node) => node.name.hash(hasher),
        other => std::mem::discriminant(other).hash(hasher),
    }
}

#[cfg(test)]
mod tests;
