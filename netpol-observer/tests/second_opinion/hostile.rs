//! No input panics: arbitrary bytes and manifests with anything in any place, through reader, engine and explanation.

use netpol_observer::cluster::manifests;
use netpol_observer::policy::{Engine, Profile};
use serde_json::{Value, json};
use xtask::testing::report;

use crate::engines::connection;
use crate::worlds::{POLICY_KINDS, Random, call, number, pod_addresses, seed, world};

const INPUTS: u64 = 1_500;
const CALLS: usize = 10;

#[test]
fn no_manifest_panics() {
    let seed = seed();
    let mut read = 0;
    let inputs = number("NETPOL_INPUTS").unwrap_or(INPUTS);
    for at in 0..inputs {
        let mut random = Random::new(seed.wrapping_add(at));
        let world = world(&mut random, &POLICY_KINDS);
        let mut items = Value::Array(world.objects.clone());
        for _ in 0..1 + random.below(4) {
            replace_something(&mut random, &mut items);
        }
        let mut text = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string().into_bytes();
        if random.chance(30) {
            damage(&mut random, &mut text);
        }
        let Ok(loaded) = manifests::load(&["-".into()], &mut &*text) else { continue };
        read += 1;
        let mut engine = Engine::new(Profile::default());
        engine.reset(loaded.objects);
        let pods = pod_addresses(&world);
        for _ in 0..CALLS {
            let call = call(&mut random, &pods);
            let asked = connection(&call, &engine);
            let explanation = engine.explain(&asked);
            assert_eq!(engine.verdict(&asked), explanation.verdict, "seed {seed}, input {at}: {call}");
            serde_json::to_string(&explanation).expect("an explanation is JSON");
        }
    }
    report(&format!("hostile manifests: {inputs} inputs, {read} read and asked about, seed {seed}"));
    assert!(read * 10 > inputs, "hardly any input was read");
}

/// Puts anything in the place of something.
fn replace_something(random: &mut Random, value: &mut Value) {
    let inner: Vec<&mut Value> = match value {
        Value::Array(entries) => entries.iter_mut().collect(),
        Value::Object(fields) => {
            fields.iter_mut().filter(|(key, _)| !matches!(key.as_str(), "apiVersion" | "kind")).map(|(_, field)| field).collect()
        }
        _ => Vec::new(),
    };
    let here = inner.is_empty() || random.chance(8);
    let at = random.below(inner.len().max(1));
    match inner.into_iter().nth(at).filter(|_| !here) {
        Some(inner) => replace_something(random, inner),
        None => *value = anything(random, value),
    }
}

/// Mostly of the type that was there: other types are refused by the reader.
fn anything(random: &mut Random, old: &Value) -> Value {
    if random.chance(15) {
        return random.pick(&[json!(null), json!({}), json!([]), json!(true), json!("x"), json!(-1), json!({"a": {"b": [[]]}})]);
    }
    match old {
        Value::String(_) => {
            let texts = [
                "",
                " ",
                "0",
                "-",
                "::",
                "a/b/c",
                "*.",
                "..",
                "\u{0}",
                "\u{1F980}",
                "10.0.0.0/-1",
                "0.0.0.0/0",
                "::ffff:0:0/95",
                "TCP",
                "In",
                "Pass",
            ];
            if random.chance(10) { json!("x".repeat(300)) } else { json!(random.pick(&texts)) }
        }
        Value::Number(_) => json!(random.pick(&[0_i64, -1, 1, 65535, 65536, i64::from(i32::MAX), i64::from(i32::MIN)])),
        Value::Array(entries) => entries.iter().cycle().take(random.below(3) * entries.len().min(40)).cloned().collect(),
        Value::Object(_) => json!({}),
        other => other.clone(),
    }
}

fn damage(random: &mut Random, text: &mut Vec<u8>) {
    for _ in 0..1 + random.below(5) {
        let at = random.below(text.len().max(1));
        match random.below(3) {
            0 => text.truncate(at),
            1 => text
                .splice(
                    at..at,
                    random.pick(&[&b"\n---\n"[..], b"{{", b"&a", b"*a", b"\xff\xfe", b"!!int", b"\t", b"\"", b": "]).iter().copied(),
                )
                .for_each(drop),
            _ => text.iter_mut().skip(at).take(3).for_each(|byte| *byte = random.next() as u8),
        }
    }
}
