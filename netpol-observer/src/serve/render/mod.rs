//! Explanations as text: denials as a block of lines or one line, answers to questions in full.
//!
//! Everything printed goes through [`Text`], which lets no control character of an object or a kernel reach the terminal.

mod answer;
mod change;
mod command;
mod condition;
mod explanation;
mod moment;
mod names;
mod rule;
mod text;
mod why;

use std::fmt::Write as _;
use std::sync::Arc;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

pub use answer::answer;
pub use command::commands;
pub use condition::{miss, peer_conditions, port_conditions};
pub use explanation::{admits, in_short, write_explanation};
pub use names::{dialled, directions, heading, party, route};
pub(crate) use text::is_unprintable;
pub use text::{Palette, Text, clean, clean_lines};
pub use why::write_reasons;

use super::fold::Summary;
use super::{Item, Route};
use crate::diagnose::{Agreement, Class, Denial};
use crate::effect::Effect;
use crate::flow::HookFunction;
use crate::pipeline::Amendment;

/// Turns items into text.
#[derive(Clone, Debug)]
pub struct Renderer {
    /// Colours, or none.
    pub palette: Palette,
    /// Time zone of the times printed.
    pub time_zone: TimeZone,
    /// The node the drops are from, where known.
    pub node: Option<Arc<str>>,
    /// One line per denial instead of a block.
    pub oneline: bool,
}

impl Renderer {
    /// The text of an item, with its last newline.
    pub fn item(&self, item: &Item) -> String {
        match item {
            Item::Denial { denial, .. } if self.oneline => self.oneline(denial),
            Item::Denial { denial, .. } => self.block(denial),
            Item::Repeats(summary) => self.repeats(summary),
            Item::PolicyChange(effect) => self.policy_change(effect),
            Item::Amendment { amendment, .. } => self.amendment(amendment),
        }
    }

    /// A denial as a block: who called whom, who is to blame, what comes nearest, what to change, what the kernel saw.
    pub fn block(&self, denial: &Denial) -> String {
        let mut text = Text::new(self.palette);
        self.headline(&mut text, denial);
        text.newline();
        if matches!(denial.diagnosis.class, Class::PolicyDenied(_)) {
            write_explanation(&mut text, &denial.explanation);
        } else {
            text.label("cause");
            text.put(&denial.diagnosis.summary);
            text.newline();
            for note in &denial.explanation.notes {
                text.label("also");
                text.put(note);
                text.newline();
            }
        }
        if !denial.who.callers.is_empty() {
            text.label("host");
            text.put(&names::callers(&denial.who.callers, &denial.who.client));
            text.newline();
        }
        if !denial.who.host_network.is_empty() {
            text.label("host");
            text.put(&names::host_network(&denial.who.host_network, &denial.who.server));
            text.newline();
        }
        if let (Some(tunnel), Some(ends)) = (&denial.event.tunnel, &denial.who.tunnel) {
            text.label("tunnel");
            text.put(&names::tunnel(tunnel, ends));
            text.newline();
        }
        for sentence in denial.moment.iter().flat_map(|moment| moment::sentences(moment, &denial.diagnosis.class)) {
            text.label("moment");
            text.put(&sentence);
            text.newline();
        }
        text.label("kernel");
        text.put(&self.kernel(denial));
        text.gap();
        text.put(&agreement(&denial.diagnosis.agreement));
        text.newline();
        text.finish()
    }

    /// A denial on one line: the headline and what is to blame with the rule that came nearest, or the cause.
    pub fn oneline(&self, denial: &Denial) -> String {
        let mut text = Text::new(self.palette);
        self.headline(&mut text, denial);
        text.put("  ");
        text.put(&in_short(denial));
        text.newline();
        text.finish()
    }

    /// What is to be said otherwise of a drop that was shown: which one and why, and the drop as it is judged by now.
    pub fn amendment(&self, amendment: &Amendment) -> String {
        let mut text = Text::new(self.palette);
        self.time(&mut text, amendment.time());
        text.styled(self.palette.dim, "amended");
        text.put(&format!(" {}   was {}: {}", amendment.id(), route(&Route::of(&amendment.before)), amendment.why));
        text.newline();
        let denial = if self.oneline { self.oneline(&amendment.denial) } else { self.block(&amendment.denial) };
        text.finish() + &denial
    }

    /// Repeats, on one line.
    pub fn repeats(&self, summary: &Summary) -> String {
        let mut text = Text::new(self.palette);
        self.time(&mut text, summary.last);
        let span = summary.last.duration_since(summary.since).max(SignedDuration::ZERO);
        text.styled(self.palette.dim, &format!("+{} the same in {}", summary.count, duration(span)));
        text.put("   ");
        text.put(&route(&summary.route));
        text.newline();
        text.finish()
    }

    /// A change of a policy: how many pairs it newly denies and allows, and the first of them, or the first line alone.
    pub fn policy_change(&self, effect: &Effect) -> String {
        let mut text = Text::new(self.palette);
        self.time(&mut text, effect.when);
        change::write_headline(&mut text, effect);
        if !self.oneline {
            change::write_pairs(&mut text, effect);
        }
        text.finish()
    }

    fn headline(&self, text: &mut Text, denial: &Denial) {
        self.time(text, denial.event.time);
        let (verb, what) = heading(&denial.diagnosis.class);
        let style = if verb == "DENIED" { self.palette.denied } else { self.palette.dropped };
        text.styled(style, verb);
        text.put(" ");
        text.put(&what);
        text.put("  ");
        let to = Route::of(denial);
        text.put(&route(&to));
        if let Some(service) = dialled(&to) {
            text.put(&format!("  ({service})"));
        }
    }

    fn time(&self, text: &mut Text, time: Timestamp) {
        let zoned = time.to_zoned(self.time_zone.clone());
        text.styled(self.palette.dim, &zoned.strftime("%H:%M:%S%.3f").to_string());
        text.put(" ");
    }

    fn kernel(&self, denial: &Denial) -> String {
        let event = &denial.event;
        let mut words = event.reason.name.to_string();
        // Writing to a String does not fail.
        match &event.location.symbol {
            Some(symbol) => _ = write!(words, " in {}", symbol.base_name()),
            None if event.location.address != 0 => _ = write!(words, " at {:#x}", event.location.address),
            None => {}
        }
        if let Some(hook) = event.hook {
            _ = write!(words, ", {hook} hook");
        }
        match event.filters.as_slice() {
            [] => {}
            [filter] => _ = write!(words, ", {}", filter.words()),
            several => {
                let words_of: Vec<String> = several.iter().map(HookFunction::words).collect();
                _ = write!(words, ", one of: {}", words_of.join("; "));
            }
        }
        if let Some(node) = &self.node {
            _ = write!(words, ", on {node}");
        }
        match &event.interface {
            Some(interface) if interface.name.is_empty() => _ = write!(words, ", interface {}", interface.index),
            Some(interface) => _ = write!(words, ", {}", interface.name),
            None => {}
        }
        match (&event.peer, &denial.who.behind) {
            (Some(peer), Some(pod)) => _ = write!(words, " to {} of {}/{}", peer.name, pod.namespace, pod.name),
            (Some(peer), None) => _ = write!(words, " to {}", peer.name),
            (None, _) => {}
        }
        words
    }
}

fn agreement(agreement: &Agreement) -> String {
    match agreement {
        Agreement::Agrees => "agrees with the policies".to_owned(),
        Agreement::PoliciesAllow => "the policies allow it".to_owned(),
        Agreement::PolicyChanged { why } => why.clone(),
        Agreement::NotEnforcement => "not a drop that enforces policies".to_owned(),
        Agreement::CannotDecide { why } => format!("cannot decide: {why}"),
    }
}

/// `400 ms`, `7 s`, `1 m 5 s`, `2 h 3 m`.
pub fn duration(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        ..1 => format!("{} ms", duration.as_millis().max(0)),
        1..60 => format!("{seconds} s"),
        60..3600 => format!("{} m {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} m", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests;
