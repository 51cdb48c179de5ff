//! From observations to the frames of one reader. Synchronous; the time comes from the caller.

use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::frame::{Frame, ItemFrame};
use super::query::{DropsQuery, Form};
use super::{Level, Observation};
use crate::capture::KernelLedger;
use crate::serve::json::{Line, Notice};
use crate::serve::render::{Palette, Renderer, clean_lines};
use crate::serve::{FoldOptions, Item, Ledger, Recent, Stream, StreamOptions};

/// Drops that one reader's folding remembers. Many readers share the memory that a tail has alone.
const FOLDED: usize = 2048;

/// The stream of one reader.
pub(super) struct Feed {
    stream: Stream,
    /// With `last`, until the history has been read.
    recent: Option<Recent>,
    form: Writing,
    node: Arc<str>,
    /// No frame may have an order before this.
    order: Timestamp,
    /// Tenants do not see the counters of the node.
    hides_kernel: bool,
    /// Frames that were not sent yet.
    out: Vec<u8>,
}

enum Writing {
    Json,
    Text(Renderer),
}

impl Feed {
    /// A stream as the query asks for it. `without_objects`: nothing has a name, so that everything is shown.
    pub(super) fn new(query: DropsQuery, node: Arc<str>, watermark: Timestamp, without_objects: bool, hides_kernel: bool) -> Self {
        let form = match query.form {
            Form::Json => Writing::Json,
            Form::Text => Writing::Text(Renderer {
                palette: if query.colour { Palette::COLOURED } else { Palette::PLAIN },
                time_zone: TimeZone::fixed(query.utc_offset),
                node: Some(Arc::clone(&node)),
                oneline: query.oneline,
            }),
        };
        let stream = Stream::new(StreamOptions {
            filters: query.filters,
            elsewhere: query.all || without_objects,
            noise: query.all,
            since: query.since,
            fold: FoldOptions { capacity: FOLDED, ..FoldOptions::default() },
        });
        let recent = query.last.map(|last| Recent::new(usize::try_from(last).unwrap_or(usize::MAX)));
        Feed { stream, recent, form, node, order: watermark, hides_kernel, out: Vec::new() }
    }

    /// Whether repeats under this id have a drop to go to.
    pub(super) fn knows(&self, id: crate::flow::FoldId) -> bool {
        self.stream.knows(id)
    }

    /// The first frame.
    pub(super) fn hello(&mut self, version: &str, kernel: &str, time: Timestamp, retained_since: Timestamp) {
        Frame::Hello { version, node: &self.node, kernel, time, retained_since }.write(&mut self.out);
    }

    /// Takes one observation; `now` is when it was given, or the wall clock.
    pub(super) fn take(&mut self, observation: Observation, now: Timestamp) {
        let items = match observation {
            Observation::Denial(denial) => self.stream.denial(denial, now),
            Observation::Repeat { id, count, last } => self.stream.repeat(id, count, last, now),
            Observation::Amendment(amendment) => self.stream.amendment((*amendment).clone(), now),
            Observation::PolicyChange(effect) => self.stream.policy_change(effect).into_iter().collect(),
            Observation::Undecodable => {
                self.stream.undecodable();
                return;
            }
            Observation::Ledger(ledger) => return self.kernel(ledger),
            Observation::Notice { time, level, message } => return self.notice(time, level, &message),
        };
        self.show(items, now);
    }

    /// The kernel's counters.
    pub(super) fn kernel(&mut self, ledger: KernelLedger) {
        if !self.hides_kernel {
            self.stream.kernel(ledger);
        }
    }

    /// The summaries that are due.
    pub(super) fn tick(&mut self, now: Timestamp) {
        let items = self.stream.tick(now);
        self.show(items, now);
    }

    /// When [`tick`](Feed::tick) has something to show.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.stream.next_due()
    }

    /// What was there when the reader came has been taken: with `last`, the last of it is shown, and everything from here on.
    pub(super) fn history_ends(&mut self) {
        let Some(recent) = self.recent.take() else { return };
        let (denials, repeats) = recent.left_out();
        self.stream.left_out_by_last(denials, repeats);
        for item in recent.into_items() {
            let time = time_of(&item);
            self.write(&item, time);
        }
    }

    /// All before this was taken.
    pub(super) fn watermark(&mut self, watermark: Timestamp) {
        self.order = self.order.max(watermark);
        Frame::Watermark { order: self.order }.write(&mut self.out);
    }

    /// The reader missed something.
    pub(super) fn lost(&mut self, count: u64, since: Timestamp) {
        Frame::Lost { count, since }.write(&mut self.out);
    }

    /// The summaries that are left, the ledger, and why it ends, where the agent ends it by itself.
    pub(super) fn end(&mut self, now: Timestamp, reason: Option<&str>) {
        let items = self.stream.finish();
        self.show(items, now);
        self.history_ends();
        let ledger: Ledger = *self.stream.ledger();
        Frame::Ledger { line: &Line::ledger(&ledger) }.write(&mut self.out);
        if let Some(reason) = reason {
            Frame::End { reason }.write(&mut self.out);
        }
    }

    /// The frames since the last time.
    pub(super) fn frames(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Bytes of the frames that wait.
    pub(super) fn len(&self) -> usize {
        self.out.len()
    }

    fn show(&mut self, items: Vec<Item>, now: Timestamp) {
        for item in items {
            match &mut self.recent {
                Some(recent) => recent.push(item),
                None => {
                    // A summary says when its last drop was, an amendment when the drop was; they belong where they are said.
                    let order = match &item {
                        Item::Denial { .. } | Item::PolicyChange(_) => time_of(&item),
                        Item::Repeats(_) | Item::Amendment { .. } => now,
                    };
                    self.write(&item, order);
                }
            }
        }
    }

    fn write(&mut self, item: &Item, order: Timestamp) {
        let order = order.max(self.order);
        let change = match item {
            Item::PolicyChange(effect) => Some(effect.id.to_string()),
            Item::Denial { .. } | Item::Repeats(_) | Item::Amendment { .. } => None,
        };
        match &self.form {
            Writing::Json => {
                let line = Line::of(item, Some(&self.node));
                Frame::Item { order, change, item: ItemFrame::Line(&line) }.write(&mut self.out);
            }
            Writing::Text(renderer) => {
                Frame::Item { order, change, item: ItemFrame::Text(&renderer.item(item)) }.write(&mut self.out);
            }
        }
    }

    fn notice(&mut self, time: Timestamp, level: Level, message: &str) {
        let order = time.max(self.order);
        match &self.form {
            Writing::Json => {
                let line = Line::Notice(Notice { time, level: level.name(), message });
                Frame::Item { order, change: None, item: ItemFrame::Line(&line) }.write(&mut self.out);
            }
            Writing::Text(_) => {
                let text = format!("{}: {}\n", level.name(), clean_lines(message));
                Frame::Item { order, change: None, item: ItemFrame::Text(&text) }.write(&mut self.out);
            }
        }
    }
}

fn time_of(item: &Item) -> Timestamp {
    match item {
        Item::Denial { denial, .. } => denial.event.time,
        Item::Repeats(summary) => summary.last,
        Item::PolicyChange(effect) => effect.when,
        Item::Amendment { amendment, .. } => amendment.time(),
    }
}

#[cfg(test)]
mod tests;
