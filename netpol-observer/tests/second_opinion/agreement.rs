//! A naive evaluator and the engine agree, on verdicts and on what explanations say they are.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use netpol_observer::policy::{
    Admission, BaselineScope, DirectionExplanation, Engine, OtherProtocols, Profile, TiedPriorities, TierOutcome, Verdict,
};
use xtask::testing::report;

use crate::engines::{connection, engine};
use crate::naive::{Call, Opinion, World, opinion};
use crate::worlds::{POLICY_KINDS, Random, call, number, pod_addresses, reduced, seed, world};

/// What the engine evaluates by now.
const KINDS: &[&str] = &POLICY_KINDS;

/// Triples of cluster, policies and call per run.
const TRIPLES: u64 = 100_000;

/// Per world, which is what takes time to make and to read.
const CALLS: u64 = 200;

#[derive(Default)]
struct Tally {
    triples: u64,
    verdicts: BTreeMap<&'static str, u64>,
    tiers: BTreeMap<String, u64>,
}

impl Tally {
    fn add(&mut self, opinion: &Opinion) {
        self.triples += 1;
        *self.verdicts.entry(word(opinion.verdict)).or_default() += 1;
        let tiers: Vec<&str> = opinion.decided_by.iter().copied().collect();
        let tiers = if tiers.is_empty() { "none".to_owned() } else { tiers.join("+") };
        *self.tiers.entry(tiers).or_default() += 1;
    }

    fn merge(&mut self, other: Tally) {
        self.triples += other.triples;
        other.verdicts.into_iter().for_each(|(word, number)| *self.verdicts.entry(word).or_default() += number);
        other.tiers.into_iter().for_each(|(tiers, number)| *self.tiers.entry(tiers).or_default() += number);
    }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "allow",
        Verdict::Deny => "deny",
        Verdict::Undecided => "undecided",
    }
}

/// The default for half of the worlds, anything for the others.
fn profile(random: &mut Random) -> Profile {
    if random.chance(50) {
        return Profile::default();
    }
    Profile {
        ip_block_matches_pods: random.chance(50),
        tied_priorities: random.pick(&[TiedPriorities::Undecided, TiedPriorities::ByName]),
        other_protocols: random.pick(&[OtherProtocols::Undecided, OtherProtocols::Denied, OtherProtocols::Admitted]),
        baseline: random.pick(&[BaselineScope::PerDirection, BaselineScope::PerPod]),
    }
}

#[test]
fn naive_evaluator_and_engine_agree() {
    let seed = seed();
    let triples = number("NETPOL_TRIPLES").unwrap_or(TRIPLES);
    let worlds = triples.div_ceil(CALLS);
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    let tally = std::thread::scope(|scope| {
        let run = |thread: u64| {
            let mut tally = Tally::default();
            for at in (thread..worlds).step_by(threads as usize) {
                one_world(seed.wrapping_add(at), &mut tally);
            }
            tally
        };
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || run(thread))).collect();
        let mut all = Tally::default();
        for thread in running {
            match thread.join() {
                Ok(tally) => all.merge(tally),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        all
    });
    let mut text = format!("second opinion: {} triples agree (worlds {worlds}, seed {seed})\n", tally.triples);
    for (what, counts) in [("verdict", own(&tally.verdicts)), ("decided by", tally.tiers)] {
        let _ =
            writeln!(text, "  {what}: {}", counts.iter().map(|(word, number)| format!("{word} {number}")).collect::<Vec<_>>().join(", "));
    }
    report(text.trim_end());
    assert!(tally.triples >= triples);
    // Generators that make one verdict only prove nothing.
    for word in ["allow", "deny", "undecided"] {
        assert!(tally.verdicts.get(word).is_some_and(|number| *number >= triples / 50), "{word} is too rare: {:?}", tally.verdicts);
    }
}

fn own(counts: &BTreeMap<&'static str, u64>) -> BTreeMap<String, u64> {
    counts.iter().map(|(word, number)| ((*word).to_owned(), *number)).collect()
}

fn one_world(seed: u64, tally: &mut Tally) {
    let mut random = Random::new(seed);
    let profile = profile(&mut random);
    let world = world(&mut random, KINDS);
    let engine = engine(&world, profile);
    let pods = pod_addresses(&world);
    for _ in 0..CALLS {
        let call = call(&mut random, &pods);
        let expected = opinion(&world, &call, &profile);
        if let Some(what) = difference(&engine, &call, &expected) {
            let smaller = reduced(&world, |world| disagree(world, &call, profile).is_some());
            let what = disagree(&smaller, &call, profile).unwrap_or(what);
            panic!("seed {seed}: {call}: {what}\n{profile:?}\n{smaller}");
        }
        tally.add(&expected);
    }
}

fn disagree(world: &World, call: &Call, profile: Profile) -> Option<String> {
    difference(&engine(world, profile), call, &opinion(world, call, &profile))
}

/// How the engine differs from what is expected, if it does.
fn difference(engine: &Engine, call: &Call, expected: &Opinion) -> Option<String> {
    let connection = connection(call, engine);
    let verdicts = [
        ("verdict", engine.verdict(&connection)),
        ("verdict, asked again", engine.verdict(&connection)),
        ("verdict_between", engine.verdict_between(call.source, call.destination, call.protocol, call.port)),
    ];
    for (way, verdict) in verdicts {
        if verdict != expected.verdict {
            return Some(format!("{way} says {verdict:?}, expected {expected:?}"));
        }
    }
    let explanation = engine.explain(&connection);
    if explanation.verdict != expected.verdict {
        return Some(format!("explain says {:?}, expected {expected:?}", explanation.verdict));
    }
    [&explanation.egress, &explanation.ingress].into_iter().find_map(inconsistency).map(|what| format!("{what}: {explanation:#?}"))
}

/// What an explanation of a direction says of its tiers must be what it comes to.
fn inconsistency(explained: &DirectionExplanation) -> Option<String> {
    let last = explained.tiers.last().map(|step| &step.outcome);
    let fits = match (&explained.admission, last) {
        // Where no rule admits it the profile does.
        (Admission::Allowed { by }, Some(TierOutcome::Deny { .. })) => by.is_empty(),
        (Admission::Denied { .. }, Some(TierOutcome::Accept { .. })) => false,
        (Admission::Denied { by, isolating, .. }, _) => by.is_some() == isolating.is_empty(),
        _ => true,
    };
    (!fits).then(|| format!("{} contradicts itself", explained.direction))
}
