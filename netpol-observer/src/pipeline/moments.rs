//! Drops judged as of their time, over a [`Timeline`].
//!
//! What the API server says comes late: a new pod sends before its address is published, an object is deleted after its pod is gone, a
//! policy is enforced before its watch tells of it. So a drop of which an end is nobody's yet is held a little, and what is told later of one
//! that was given already amends it.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::amend::{Amendment, amendment};
use super::attribution::{Gist, Lateness, attribute};
use super::changes::Changes;
use super::cuts::Cuts;
use super::held::{Held, Waiting};
use super::judge::{AsOf, Judged, Watch};
use super::touched::{Touched, addresses, uid_of};
use super::uids::Uids;
use super::{Step, repeat_of};
use crate::capture::Captured;
use crate::cluster::{ForeignPolicies, Kind};
use crate::diagnose::{Agreement, Denial};
use crate::flow::{DropEvent, FoldId, KernelNames, RecordError, decode_record};
use crate::timeline::{LookBack, Timeline};

/// How often a drop is amended at most.
const MAX_AMENDMENTS: usize = 8;

/// Bounds of what waits and of what is watched, and what is needed to know the past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MomentsOptions {
    /// Drops that are held at most; more are given at once. 10,000.
    pub max_held: usize,
    /// Drops that were given and may be amended, at most; of more the oldest are not. 4096.
    pub max_watched: usize,
    /// How much later than a publication takes ([`PUBLISH_LAG`](super::PUBLISH_LAG)) an owner may turn up and amend a drop whose owner was not
    /// known. 10 seconds.
    pub late: SignedDuration,
    /// The kinds without a list of which nothing is certain.
    pub required: Vec<Kind>,
}

impl Default for MomentsOptions {
    fn default() -> Self {
        let required = [Kind::Namespace, Kind::Node, Kind::Pod, Kind::Service, Kind::EndpointSlice, Kind::NetworkPolicy];
        MomentsOptions { max_held: 10_000, max_watched: 4096, late: SignedDuration::from_secs(10), required: required.to_vec() }
    }
}

/// What is held and what became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MomentsStatus {
    /// Drops that are held now.
    pub held: usize,
    /// Drops that were given and may be amended now.
    pub watched: usize,
    /// Drops that were held so far.
    pub held_in_all: u64,
    /// Drops that were given at once because too many were held.
    pub not_held: u64,
    /// Amendments so far.
    pub amended: u64,
    /// Drops that could not be watched any longer because too many were.
    pub not_watched: u64,
}

/// Judges drops by the pods and policies of their moment.
///
/// The caller tells the [timeline](Moments::timeline_mut) what changes, and calls [`tick`](Moments::tick) afterwards and when
/// [`next_due`](Moments::next_due) says. Times are the caller's; the clock is that of the drops.
pub struct Moments {
    timeline: Timeline,
    foreign: Arc<ForeignPolicies>,
    options: MomentsOptions,
    uids: Uids,
    changes: Changes,
    cuts: Cuts,
    held: Held,
    given: VecDeque<Given>,
    /// All ends of what was given are to be looked at again, whether or not there is news of them.
    look_again: bool,
    /// Number of the first change that was not looked at.
    seen: u64,
    /// How many kinds were listed by then: the objects of a first list are no changes.
    listed_kinds: usize,
    counts: MomentsStatus,
}

/// A drop that was given, and that may be amended.
struct Given {
    denial: Arc<Denial>,
    /// What it was before it was amended.
    earlier: Vec<Arc<Denial>>,
    watch: Watch,
}

/// A captured piece, decoded.
enum Piece {
    Drop(Box<DropEvent>),
    Other(Result<Step, RecordError>),
}

impl Moments {
    /// Judges by a timeline.
    pub fn new(timeline: Timeline, options: MomentsOptions) -> Self {
        let mut changes = Changes::default();
        for change in timeline.changes_from(0) {
            changes.note(change);
        }
        Moments {
            seen: timeline.next_change(),
            listed_kinds: timeline.listed_kinds(),
            timeline,
            foreign: Arc::default(),
            options,
            uids: Uids::default(),
            changes,
            cuts: Cuts::default(),
            held: Held::default(),
            given: VecDeque::new(),
            look_again: false,
            counts: MomentsStatus::default(),
        }
    }

    /// The objects of now and of the past.
    pub fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// The same, to tell it what changes; [`tick`](Moments::tick) then sees to what was waiting for it.
    pub fn timeline_mut(&mut self) -> &mut Timeline {
        &mut self.timeline
    }

    /// The policies that the engine does not evaluate, as they are from now on.
    pub fn set_foreign(&mut self, foreign: Arc<ForeignPolicies>) {
        self.foreign = foreign;
    }

    /// These kinds are not heard of at the moment, each since its time: what is known of them may be otherwise by now.
    pub fn set_unheard(&mut self, kinds: BTreeMap<Kind, Timestamp>, now: Timestamp) {
        if let Some(since) = kinds.get(&Kind::Pod).filter(|_| !self.cuts.is_open(Kind::Pod)) {
            // What there was to be told of drops shortly before is told with the news of afterwards, if it is not told yet.
            for given in self.given.iter_mut().filter(|given| given.watch.until >= *since) {
                given.watch.until = Timestamp::MAX;
            }
        }
        let resumed = self.cuts.set_open(kinds, now.max(self.timeline.last()));
        if let Some((_, told)) = resumed.iter().find(|(kind, _)| *kind == Kind::Pod) {
            self.pods_heard_again(*told);
            // What was told by now came before it was known that it was news of then.
            self.look_again = true;
        }
    }

    /// A kind was listed anew at a time: what changed since it was heard of before has changed some time in between.
    pub fn heard_again(&mut self, kind: Kind, since: Timestamp, at: Timestamp) {
        // As the timeline has it.
        let at = at.max(self.timeline.last());
        self.cuts.close(kind, since, at);
        if kind == Kind::Pod {
            self.pods_heard_again(at);
        }
    }

    /// What was to be looked at when pods are heard of again is, by news of its ends until a time.
    fn pods_heard_again(&mut self, until: Timestamp) {
        for given in self.given.iter_mut().filter(|given| given.watch.until == Timestamp::MAX && !given.watch.is_without_lists) {
            given.watch.until = until;
        }
    }

    /// What is held and what became of it.
    pub fn status(&self) -> MomentsStatus {
        MomentsStatus { held: self.held.len(), watched: self.given.len(), ..self.counts }
    }

    /// The time of the oldest drop that is held: all earlier ones were given.
    pub fn oldest_held(&self) -> Option<Timestamp> {
        self.held.times().min()
    }

    /// When [`tick`](Moments::tick) has something to give, whatever changes until then.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.held.next_due()
    }

    /// Takes a batch of captured pieces, and gives what is to be given now: each id's drops and repeats in their order. `names` are those of
    /// the kernel that they come from. Records that cannot be decoded are given as errors.
    pub fn take(&mut self, batch: &[Captured], names: &dyn KernelNames, now: Timestamp) -> Vec<Result<Step, RecordError>> {
        let steps: Vec<_> = self.tick(now).into_iter().map(Ok).collect();
        let mut pieces: Vec<Piece> = batch.iter().map(|captured| decode(captured, names)).collect();
        let mut order: Vec<(Timestamp, usize)> = Vec::new();
        for (place, piece) in pieces.iter().enumerate() {
            if let Piece::Drop(event) = piece {
                order.push((event.time, place));
            }
        }
        order.sort_unstable();
        let events = pieces.iter().filter_map(Piece::event);
        let of_socket = |event: &'_ DropEvent| event.socket.as_ref().and_then(|socket| socket.pod_uid.clone());
        let uids: Vec<Arc<str>> = events.flat_map(|event| [uid_of(event).cloned(), of_socket(event)]).flatten().collect();
        self.uids.find(uids.iter(), &self.timeline);
        let Moments { timeline, foreign, options, uids, changes, cuts, held, counts, .. } = &mut *self;
        let as_of = AsOf { uids, foreign, required: &options.required, late: options.late, changes, cuts, now };
        let mut look = timeline.look_back();
        let mut room = options.max_held.saturating_sub(held.len());
        // In the order of their times, so that the engine goes through the changes between them once.
        let mut judged: HashMap<usize, Judged> = HashMap::with_capacity(order.len());
        let mut waiting: HashSet<FoldId> = HashSet::new();
        for (_, place) in order {
            let Some(event) = pieces.get_mut(place).and_then(Piece::take) else { continue };
            let id = event.id;
            if room > 0 && (held.has(id) || waiting.contains(&id)) {
                // Behind another of its id, which it must not overtake.
                let until = super::attribution::later(event.time, super::PUBLISH_LAG);
                judged.insert(place, Judged::Wait(event, until));
                room -= 1;
                continue;
            }
            let outcome = as_of.judge(&mut look, *event, false);
            let outcome = match outcome {
                Judged::Wait(event, _) if room == 0 => {
                    counts.not_held += 1;
                    as_of.judge(&mut look, *event, true)
                }
                outcome => outcome,
            };
            if matches!(outcome, Judged::Wait(..)) {
                waiting.insert(id);
                room -= 1;
            }
            judged.insert(place, outcome);
        }
        let mut giving = Giving { steps, given: Vec::new() };
        for (place, piece) in pieces.into_iter().enumerate() {
            match (judged.remove(&place), piece) {
                (Some(Judged::Wait(event, until)), _) => {
                    counts.held_in_all += 1;
                    held.push(event.id, event, until);
                }
                (Some(Judged::Given { denial, watch }), _) => {
                    // Where there was no room to wait behind others of its id, those go first.
                    let id = denial.event.id;
                    release(held, id, &as_of, &mut look, true, &mut giving);
                    giving.give(denial, watch);
                }
                (None, Piece::Other(Ok(Step::Repeat { id, count, last }))) if held.has(id) => held.push_repeat(id, count, last),
                (None, Piece::Other(other)) => giving.steps.push(other),
                (None, Piece::Drop(_)) => {}
            }
        }
        drop(look);
        self.watch(giving.given);
        giving.steps
    }

    /// Gives what has waited long enough, or what there is to say now of drops by what was told since the last time.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Step> {
        let touched = self.touched();
        let mut steps = self.amend(&touched, now);
        self.given.retain(|given| given.watch.until >= now);
        let is_due = self.held.next_due().is_some_and(|due| due <= now);
        if is_due || !touched.is_nothing() {
            let Moments { timeline, options, cuts, held, .. } = &mut *self;
            let lateness = Lateness { late: options.late, cuts };
            let look = timeline.look_back();
            let is_settled = |ip: &IpAddr, when| attribute(&look, *ip, when, lateness).is_settled();
            let ready = held.ready(now, |event| {
                let mut touched_ends = addresses(event).filter(|ip| touched.addresses.contains(ip));
                touched.everything || touched.touches_pod_of(event) || touched_ends.any(|ip| is_settled(&ip, event.time))
            });
            drop(look);
            steps.extend(self.release(&ready, now, false));
        }
        steps
    }

    /// Gives everything that waits, at the end.
    pub fn finish(&mut self, now: Timestamp) -> Vec<Step> {
        let mut steps = self.tick(now);
        let all = self.held.ready(Timestamp::MAX, |_| true);
        steps.extend(self.release(&all, now, true));
        steps
    }

    /// Judges what waits of some ids.
    fn release(&mut self, ids: &[FoldId], now: Timestamp, must: bool) -> Vec<Step> {
        if ids.is_empty() {
            return Vec::new();
        }
        let Moments { timeline, foreign, options, uids, changes, cuts, held, .. } = &mut *self;
        let as_of = AsOf { uids, foreign, required: &options.required, late: options.late, changes, cuts, now };
        let mut look = timeline.look_back();
        let mut giving = Giving::default();
        for id in ids {
            release(held, *id, &as_of, &mut look, must, &mut giving);
        }
        drop(look);
        self.watch(giving.given);
        // None of them is an error: they were decoded when they came.
        giving.steps.into_iter().filter_map(Result::ok).collect()
    }

    /// Judges again what was given and may be otherwise by now.
    fn amend(&mut self, touched: &Touched, now: Timestamp) -> Vec<Step> {
        let look_again = std::mem::take(&mut self.look_again);
        if touched.is_nothing() && !look_again || self.given.is_empty() {
            return Vec::new();
        }
        // With the last of the first lists everything is judged again; what each of them alone brings is not worth a line.
        if self.options.required.iter().any(|kind| !self.timeline.is_listed(*kind)) {
            return Vec::new();
        }
        // Looking who had an address costs little; judging again means to go back in time.
        let Moments { timeline, options, cuts, given, .. } = &mut *self;
        let lateness = Lateness { late: options.late, cuts };
        let look = timeline.look_back();
        let is_other = |(ip, gist): &(IpAddr, Gist), when| {
            (look_again || touched.addresses.contains(ip)) && attribute(&look, *ip, when, lateness).gist() != *gist
        };
        let affected = |given: &Given| {
            let event = &given.denial.event;
            touched.everything
                || touched.touches_pod_of(event)
                || is_against_policies(&given.denial) && touched.touches_policies_of([&given.denial.who.client, &given.denial.who.server])
                || given.watch.ends.iter().any(|end| is_other(end, event.time))
        };
        let mut places: Vec<(Timestamp, usize)> = Vec::new();
        for (place, given) in given.iter().enumerate() {
            if affected(given) {
                places.push((given.denial.event.time, place));
            }
        }
        drop(look);
        places.sort_unstable();
        if places.is_empty() {
            return Vec::new();
        }
        let Moments { timeline, foreign, options, uids, changes, cuts, given, counts, .. } = &mut *self;
        let as_of = AsOf { uids, foreign, required: &options.required, late: options.late, changes, cuts, now };
        let mut look = timeline.look_back();
        let mut steps = Vec::new();
        for (_, place) in places {
            let Some(given) = given.get_mut(place) else { continue };
            let Judged::Given { denial, watch } = as_of.judge(&mut look, given.denial.event.clone(), true) else { continue };
            // Nothing more can come of it, or what it is now may change later than what it was.
            given.watch = watch.unwrap_or(Watch { until: Timestamp::MIN, is_without_lists: false, ends: Vec::new() });
            if let Some(why) = amendment(&given.denial, &denial) {
                let before = std::mem::replace(&mut given.denial, Arc::new(*denial));
                counts.amended += 1;
                let earlier = given.earlier.clone();
                given.earlier.push(Arc::clone(&before));
                if given.earlier.len() >= MAX_AMENDMENTS {
                    given.watch.until = Timestamp::MIN;
                }
                steps.push(Step::Amendment(Amendment { before, earlier, denial: Arc::clone(&given.denial), why }));
            }
        }
        steps
    }

    fn watch(&mut self, given: Vec<Given>) {
        self.given.extend(given);
        while self.given.len() > self.options.max_watched {
            self.given.pop_front();
            self.counts.not_watched += 1;
        }
    }

    /// What the changes since the last time may make a difference to.
    fn touched(&mut self) -> Touched {
        let next = self.timeline.next_change();
        let mut touched = Touched::default();
        let mut found: u64 = 0;
        for change in self.timeline.changes_from(self.seen) {
            found += 1;
            touched.note(change, self.changes.note(change));
            [&change.before, &change.after].into_iter().flatten().for_each(|object| self.uids.note(object));
        }
        touched.everything = found != next - self.seen || self.listed_kinds != self.timeline.listed_kinds();
        if touched.everything {
            self.uids.look_again(&self.timeline);
        }
        self.changes.expire(self.timeline.horizon());
        self.cuts.expire(self.timeline.horizon());
        (self.seen, self.listed_kinds) = (next, self.timeline.listed_kinds());
        touched
    }
}

impl Piece {
    fn event(&self) -> Option<&DropEvent> {
        match self {
            Piece::Drop(event) => Some(event),
            Piece::Other(_) => None,
        }
    }

    fn take(&mut self) -> Option<Box<DropEvent>> {
        let placeholder = Piece::Other(Ok(Step::Ledger(Default::default())));
        match std::mem::replace(self, placeholder) {
            Piece::Drop(event) => Some(event),
            Piece::Other(_) => None,
        }
    }
}

/// Whether a change of policies may put a drop into another light: the kernel did not do what they said.
fn is_against_policies(denial: &Denial) -> bool {
    !matches!(denial.diagnosis.agreement, Agreement::Agrees | Agreement::NotEnforcement)
}

fn decode(captured: &Captured, names: &dyn KernelNames) -> Piece {
    match captured {
        Captured::Record(bytes) => match decode_record(bytes, names) {
            Ok(event) => Piece::Drop(Box::new(event)),
            Err(error) => Piece::Other(Err(error)),
        },
        Captured::Repeat { key, value } => Piece::Other(Ok(repeat_of(key, value, names))),
        Captured::Ledger(ledger) => Piece::Other(Ok(Step::Ledger(*ledger))),
    }
}

/// What is given in the course of something, and what of it may be amended.
#[derive(Default)]
struct Giving {
    steps: Vec<Result<Step, RecordError>>,
    given: Vec<Given>,
}

impl Giving {
    fn give(&mut self, denial: Box<Denial>, watch: Option<Watch>) {
        let denial: Arc<Denial> = Arc::from(denial);
        self.given.extend(watch.map(|watch| Given { denial: Arc::clone(&denial), earlier: Vec::new(), watch }));
        self.steps.push(Ok(Step::Denial(denial)));
    }
}

/// Gives what waits of an id, up to the first that goes on waiting.
fn release(held: &mut Held, id: FoldId, as_of: &AsOf<'_>, look: &mut LookBack<'_>, must: bool, giving: &mut Giving) {
    let mut queue = held.take(id);
    while let Some(waiting) = queue.pop_front() {
        match waiting {
            Waiting::Repeat { count, last } => giving.steps.push(Ok(Step::Repeat { id, count, last })),
            Waiting::Drop { event, .. } => match as_of.judge(look, *event, must) {
                Judged::Given { denial, watch } => giving.give(denial, watch),
                Judged::Wait(event, until) => {
                    queue.push_front(Waiting::Drop { event, until });
                    break;
                }
            },
        }
    }
    held.put(id, queue);
}
