//! Objects that come, change and go one at a time, with questions between so that whatever is kept fills up, leave an engine that
//! answers like one built afresh from the same objects.

use std::collections::BTreeMap;
use std::net::IpAddr;

use netpol_observer::cluster::{Object, ObjectKey};
use netpol_observer::policy::{Engine, Profile};
use serde_json::Value;
use xtask::testing::report;

use crate::engines::{connection, name, objects, read};
use crate::worlds::{self, POLICY_KINDS, Random, call, number, pod_addresses, seed, world};

const SEQUENCES: u64 = 60;
const STEPS: usize = 40;
/// Calls asked between two changes, and calls compared after some of them.
const ASKED: usize = 4;
const COMPARED: usize = 12;

/// Whether the suggested fixes must be the same too. To be turned on when the engine holds it: `NETPOL_SEED=1795418264155711516
/// NETPOL_SEQUENCES=1` shows an edit before and a new policy after a change, for the same denial.
const SAME_FIXES: bool = false;

#[test]
fn updates_equal_a_rebuild() {
    let seed = seed();
    let sequences = number("NETPOL_SEQUENCES").unwrap_or(SEQUENCES);
    let (mut changes, mut comparisons) = (0, 0);
    for at in 0..sequences {
        let seed = seed.wrapping_add(at);
        let mut random = Random::new(seed);
        let start = world(&mut random, &POLICY_KINDS);
        let mut state: BTreeMap<ObjectKey, Object> = objects(&start).into_iter().map(|object| (object.key(), object)).collect();
        // Addresses that were somebody's once are asked about too.
        let mut addresses = pod_addresses(&start);
        let mut engine = Engine::new(Profile::default());
        engine.reset(state.values().cloned());
        let mut told = Vec::new();
        for step in 0..STEPS {
            told.push(change(&mut random, &mut engine, &mut state, &mut addresses));
            changes += 1;
            for _ in 0..ASKED {
                let call = call(&mut random, &addresses);
                let asked = connection(&call, &engine);
                engine.verdict(&asked);
                engine.explain(&asked);
            }
            if step % 3 != 0 && step + 1 != STEPS {
                continue;
            }
            let mut fresh = Engine::new(Profile::default());
            fresh.reset(state.values().cloned());
            for _ in 0..COMPARED {
                let call = call(&mut random, &addresses);
                let [old, new] = [&engine, &fresh].map(|engine| {
                    let asked = connection(&call, engine);
                    let between = engine.verdict_between(call.source, call.destination, call.protocol, call.port);
                    let mut explanation = engine.explain(&asked);
                    if !SAME_FIXES {
                        explanation.fixes.clear();
                    }
                    (engine.verdict(&asked), between, serde_json::to_string(&explanation).expect("an explanation is JSON"))
                });
                comparisons += 1;
                assert_eq!(old, new, "seed {seed}, step {step}: {call}\n{}", told.join("\n"));
            }
        }
    }
    report(&format!("updates equal a rebuild: {sequences} sequences, {changes} changes, {comparisons} comparisons, seed {seed}"));
}

/// Makes one change, to the engine and to the objects that a fresh one is built from; says what it was.
fn change(random: &mut Random, engine: &mut Engine, state: &mut BTreeMap<ObjectKey, Object>, addresses: &mut Vec<IpAddr>) -> String {
    let object = match random.below(24) {
        0..4 => {
            let keys: Vec<&ObjectKey> = state.keys().collect();
            if keys.is_empty() {
                return "nothing to delete".to_owned();
            }
            let key = random.pick(&keys).clone();
            state.remove(&key);
            engine.delete(&key);
            return format!("delete {key}");
        }
        4 => {
            engine.reset(state.values().cloned());
            return "reset".to_owned();
        }
        5 => name(worlds::name_in_dns(random), &worlds::learned(random)),
        6..11 => {
            let number = random.below(9);
            let pod = worlds::pod(random, number);
            let new = pod["status"]["podIPs"].as_array().into_iter().flatten();
            addresses.extend(new.filter_map(|ip| ip["ip"].as_str()?.parse::<IpAddr>().ok()));
            only(&pod)
        }
        11..13 => only(&worlds::any_namespace(random)),
        13 => {
            let number = 1 + random.below(3);
            only(&worlds::node(random, number))
        }
        14 => {
            let number = random.below(3);
            only(&worlds::service(random, number))
        }
        15 => only(&worlds::slice(random)),
        _ => {
            let kind = random.pick(&POLICY_KINDS);
            let number = random.below(4);
            only(&worlds::policy(random, kind, number))
        }
    };
    state.insert(object.key(), object.clone());
    let told = format!("apply {object:?}");
    engine.apply(object);
    told
}

fn only(object: &Value) -> Object {
    let [object] = <[Object; 1]>::try_from(read(std::slice::from_ref(object))).expect("one object");
    object
}
