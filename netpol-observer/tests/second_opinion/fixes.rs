//! Every suggested fix, applied to the raw objects by somebody who does not know the engine, keeps its promise: once through its JSON
//! patch on the object as an API server stores it, and once through its manifest.

use std::net::IpAddr;

use json_patch::Patch;
use netpol_observer::policy::{Admission, DirectionExplanation, Engine, Explanation, Fix, Manifest, Profile, Remaining, Verdict};
use serde_json::{Value, json};
use xtask::testing::report;

use crate::engines::{connection, engine};
use crate::naive::{Call, World, admits};
use crate::worlds::{POLICY_KINDS, Random, call, number, pod_addresses, reduced, seed, world};

const WORLDS: u64 = 60;

/// Whether all that is promised of policies is asked of label changes too: that they name this call's peer even while the other direction
/// denies, that their patch applies to an object without labels, and that nobody loses anything when a policy selects the pod for its
/// new label. To be turned on when the engine holds it.
const STRICT_LABELS: bool = false;

/// Whether patches are tried on ClusterNetworkPolicies that leave the optional `namespaceSelector` of `pods` out. To be turned on when the
/// `test` of a patch quotes such a peer as it is written.
const STRICT_ABSENT_NAMESPACES: bool = false;

/// Calls per world, and how many that have fixes are looked at: applying one means reading all objects again.
const CALLS: usize = 100;
const FIXED: usize = 5;

#[derive(Default)]
struct Tally {
    patches: usize,
    manifests: usize,
    labels: usize,
    without: usize,
}

#[test]
fn fixes_keep_their_promise() {
    let seed = seed();
    let mut tally = Tally::default();
    for at in 0..number("NETPOL_WORLDS").unwrap_or(WORLDS) {
        let seed = seed.wrapping_add(at);
        let mut random = Random::new(seed);
        // As an API server keeps it: what a fix edits is what is there.
        let world = stored(&world(&mut random, &POLICY_KINDS));
        let before = engine(&world, Profile::default());
        let pods = pod_addresses(&world);
        let mut fixed = 0;
        for _ in 0..CALLS {
            let call = call(&mut random, &pods);
            match check(&world, &before, &call, &mut tally) {
                Ok(fixes) => fixed += usize::from(fixes > 0),
                Err(broken) => {
                    let again = |world: &World| {
                        let world = stored(world);
                        check(&world, &engine(&world, Profile::default()), &call, &mut Tally::default())
                    };
                    let smaller = reduced(&world, |world| again(world).is_err());
                    let broken = again(&smaller).err().unwrap_or(broken);
                    panic!("seed {seed}: {call}: {broken}\n{smaller}");
                }
            }
            if fixed == FIXED {
                break;
            }
        }
    }
    let Tally { patches, manifests, labels, without } = tally;
    report(&format!(
        "fixes: {patches} patches and {manifests} manifests applied ({labels} of labels), {without} denials without one, seed {seed}"
    ));
    assert!(patches > 50 && manifests > 50, "hardly a fix was tried");
}

/// The fixes of one call, if it is denied and goes to somebody definite; how many there are.
fn check(world: &World, before: &Engine, call: &Call, tally: &mut Tally) -> Result<usize, String> {
    let asked = connection(call, before);
    if asked.service.is_some() || before.verdict(&asked) != Verdict::Deny {
        return Ok(0);
    }
    let explanation = before.explain(&asked);
    tally.without += explanation.remaining.iter().filter(|remaining| matches!(remaining, Remaining::NoFix { .. })).count();
    tally.labels += explanation.fixes.iter().filter(|fix| matches!(fix.manifest, Manifest::Labels { .. })).count();
    for way in ["patch", "manifest"] {
        let mut changed = world.clone();
        let mut old = before.clone();
        for fix in &explanation.fixes {
            let is_label = matches!(fix.manifest, Manifest::Labels { .. });
            if is_label && !STRICT_LABELS && way == "patch" {
                return Ok(0);
            }
            let is_patched = way == "patch" && patched(&mut changed, fix)?;
            if is_patched {
                tally.patches += 1;
            } else {
                replaced(&mut changed, fix)?;
                tally.manifests += 1;
            }
            let new = engine(&changed, Profile::default());
            keeps_promise(&changed, [&old, &new], call, fix).map_err(|broken| format!("by its {way}: {broken}: {}", shown(fix)))?;
            old = new;
        }
        opens_all(&explanation, &old, call)?;
    }
    Ok(explanation.fixes.len())
}

fn shown(fix: &Fix) -> String {
    serde_json::to_string_pretty(fix).expect("a fix is JSON")
}

/// The world as an API server keeps it: what it defaults is there, what is empty is not.
fn stored(world: &World) -> World {
    let mut stored = world.clone();
    for object in &mut stored.objects {
        without_nulls(object);
        if object["metadata"]["labels"].as_object().is_some_and(serde_json::Map::is_empty) {
            object["metadata"].as_object_mut().expect("an object").remove("labels");
        }
        let kind = object["kind"].as_str().unwrap_or_default().to_owned();
        if kind == "NetworkPolicy" && object["spec"].is_null() {
            object["spec"] = json!({});
        }
        let Some(spec) = object["spec"].as_object_mut() else { continue };
        if kind == "NetworkPolicy" {
            let has_egress = spec.get("egress").and_then(Value::as_array).is_some_and(|rules| !rules.is_empty());
            let has_types = spec.get("policyTypes").and_then(Value::as_array).is_some_and(|types| !types.is_empty());
            if !has_types {
                spec.insert("policyTypes".into(), if has_egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) });
            }
            spec.entry("podSelector").or_insert_with(|| json!({}));
        }
        for direction in ["ingress", "egress"] {
            let is_empty = object["spec"].get(direction).and_then(Value::as_array).is_some_and(Vec::is_empty);
            if is_empty {
                object["spec"].as_object_mut().expect("an object").remove(direction);
            }
            for rule in object["spec"].get_mut(direction).and_then(Value::as_array_mut).into_iter().flatten() {
                stored_rule(rule, &kind);
            }
        }
    }
    stored
}

fn stored_rule(rule: &mut Value, kind: &str) {
    let Some(rule) = rule.as_object_mut() else { return };
    if kind == "NetworkPolicy" {
        // Lists marked `omitempty` go when they are empty; those of custom resources stay as they are.
        for list in ["from", "to", "ports"] {
            if rule.get(list).and_then(Value::as_array).is_some_and(Vec::is_empty) {
                rule.remove(list);
            }
        }
        for peers in ["from", "to"] {
            for peer in rule.get_mut(peers).and_then(Value::as_array_mut).into_iter().flatten() {
                let Some(block) = peer.get_mut("ipBlock").and_then(Value::as_object_mut) else { continue };
                if block.get("except").and_then(Value::as_array).is_some_and(Vec::is_empty) {
                    block.remove("except");
                }
            }
        }
    }
    let fills_in = kind == "ClusterNetworkPolicy" && !STRICT_ABSENT_NAMESPACES;
    for peers in ["from", "to"].into_iter().filter(|_| fills_in) {
        for peer in rule.get_mut(peers).and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(pods) = peer.get_mut("pods").and_then(Value::as_object_mut) else { continue };
            pods.entry("namespaceSelector").or_insert_with(|| json!({}));
        }
    }
    for port in rule.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        let port = match kind {
            "NetworkPolicy" => Some(port),
            _ => ["portNumber", "portRange"].into_iter().find(|field| port.get(field).is_some()).map(|field| &mut port[field]),
        };
        let Some(port) = port.and_then(Value::as_object_mut) else { continue };
        if port.get("protocol").and_then(Value::as_str).unwrap_or_default().is_empty() {
            port.insert("protocol".into(), json!("TCP"));
        }
    }
}

/// Nor what is empty in a selector. (Custom resources keep that as it was written; nobody writes it.)
fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let is_empty =
                |field: &Value| field.as_array().is_some_and(Vec::is_empty) || field.as_object().is_some_and(serde_json::Map::is_empty);
            fields.retain(|name, field| {
                !(field.is_null() || (matches!(&**name, "matchLabels" | "matchExpressions" | "values") && is_empty(field)))
            });
            fields.values_mut().for_each(without_nulls);
        }
        Value::Array(entries) => entries.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

/// Applies the patch; false where the fix is a new policy, which has none.
fn patched(world: &mut World, fix: &Fix) -> Result<bool, String> {
    let patch = serde_json::to_value(&fix.patch).expect("a patch is JSON");
    let patch: Patch = serde_json::from_value(patch).map_err(|error| format!("no JSON patch: {error}: {}", shown(fix)))?;
    let apply =
        |object: &mut Value| json_patch::patch(object, &patch).map_err(|error| format!("patch refused: {error}: {}\n{object}", shown(fix)));
    if let Manifest::Labels { workload, namespace, .. } = &fix.manifest {
        let of_it: Vec<usize> =
            (0..world.objects.len()).filter(|at| is_of(&world.objects[*at], &workload.kind, &workload.name, namespace)).collect();
        let Some(first) = of_it.first() else { return Err(format!("nothing to patch: {}", shown(fix))) };
        if &*workload.kind == "Pod" {
            apply(&mut world.objects[*first])?;
            return Ok(true);
        }
        // The template has labels always: the workload's own selector wants them.
        let before = json!({"app.kubernetes.io/managed": "yes"});
        let mut owner = json!({"spec": {"template": {"metadata": {"labels": before}}}});
        apply(&mut owner)?;
        for at in of_it {
            add_labels(&mut world.objects[at], &owner["spec"]["template"]["metadata"]["labels"]);
        }
        return Ok(true);
    }
    let Some(policy) = &fix.policy else {
        return if fix.patch.is_empty() { Ok(false) } else { Err(format!("a patch for a new policy: {}", shown(fix))) };
    };
    if fix.patch.is_empty() {
        return Err(format!("an edit without a patch: {}", shown(fix)));
    }
    let is_it = |object: &&mut Value| {
        object["kind"] == policy.kind
            && object["metadata"]["name"] == *policy.name
            && (policy.namespace.is_empty() || object["metadata"]["namespace"] == *policy.namespace)
    };
    let Some(object) = world.objects.iter_mut().find(is_it) else { return Err(format!("edits what is not there: {}", shown(fix))) };
    apply(object)?;
    Ok(true)
}

/// Applies the manifest, as a server-side apply of it alone does.
fn replaced(world: &mut World, fix: &Fix) -> Result<(), String> {
    let manifest = fix.manifest.to_json();
    if let Manifest::Labels { workload, namespace, .. } = &fix.manifest {
        let of_it = |object: &&mut Value| is_of(object, &workload.kind, &workload.name, namespace);
        let labels =
            if &*workload.kind == "Pod" { &manifest["metadata"]["labels"] } else { &manifest["spec"]["template"]["metadata"]["labels"] };
        world.objects.iter_mut().filter(of_it).for_each(|pod| add_labels(pod, labels));
        return Ok(());
    }
    let is_it = |object: &Value| {
        let same = |field: &str| object["metadata"][field] == manifest["metadata"][field];
        object["kind"] == manifest["kind"] && same("name") && same("namespace")
    };
    let place = world.objects.iter().position(is_it);
    if place.is_some() != fix.policy.is_some() {
        return Err(format!("an edit edits, a new policy replaces none: {}", shown(fix)));
    }
    match place {
        Some(place) => world.objects[place] = manifest,
        None => world.objects.push(manifest),
    }
    Ok(())
}

fn add_labels(pod: &mut Value, labels: &Value) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        pod["metadata"]["labels"][key] = value.clone();
    }
}

/// Whether a pod belongs to a workload.
fn is_of(pod: &Value, kind: &str, name: &str, namespace: &str) -> bool {
    if pod["kind"] != "Pod" || pod["metadata"]["namespace"] != namespace {
        return false;
    }
    let owner = &pod["metadata"]["ownerReferences"][0];
    match kind {
        "Pod" => owner.is_null() && pod["metadata"]["name"] == name,
        "Deployment" => {
            owner["kind"] == "ReplicaSet" && owner["name"].as_str().is_some_and(|set| set.strip_suffix("-6d4cf56db6") == Some(name))
        }
        _ => owner["kind"] == kind && owner["name"] == name,
    }
}

/// In its direction the call passes, nobody loses anything, and who gains is named.
fn keeps_promise(after: &World, [old, new]: [&Engine; 2], call: &Call, fix: &Fix) -> Result<(), String> {
    let direction = fix.direction.to_string();
    let possible = admits(after, call, &direction, &Profile::default());
    if possible.contains(&false) {
        return Err("it is not admitted".to_owned());
    }
    if matches!(fix.manifest, Manifest::Labels { .. }) && !STRICT_LABELS {
        return Ok(());
    }
    if fix.newly_admits.is_empty() {
        return Err("it names nobody, and admits this call at least".to_owned());
    }
    let mut ips: Vec<IpAddr> =
        old.index().pods().flat_map(|pod| pod.ips.clone()).filter(|ip| ip.is_ipv4() == call.source.to_canonical().is_ipv4()).collect();
    ips.sort();
    ips.dedup();
    for &source in &ips {
        for &destination in &ips {
            for port in [call.port, Some(80)] {
                let verdict = |engine: &Engine| engine.verdict_between(source, destination, call.protocol, port);
                match (verdict(old), verdict(new)) {
                    (Verdict::Allow, Verdict::Deny | Verdict::Undecided) => {
                        return Err(format!("{source} -> {destination} {port:?} is denied by it"));
                    }
                    (Verdict::Deny, Verdict::Allow) => is_named(old, [source, destination], fix)?,
                    _ => {}
                }
            }
        }
    }
    Ok(())
}

/// One of the ends is among those that the fix names: the one that is not its subject.
fn is_named(engine: &Engine, ends: [IpAddr; 2], fix: &Fix) -> Result<(), String> {
    let [sources, destinations] = ends.map(|ip| -> Vec<String> {
        engine.index().pods_at(ip).iter().map(|pod| format!("{}/{}", pod.namespace, pod.workload.name)).collect()
    });
    let is_told = |workload: &String| fix.newly_admits.iter().any(|name| name.contains(workload.as_str()));
    let peers = if fix.direction.to_string() == "egress" { &destinations } else { &sources };
    let by_label = matches!(fix.manifest, Manifest::Labels { .. }) && (sources.iter().any(is_told) || destinations.iter().any(is_told));
    // Addresses that several pods claim are in doubt anyway.
    if peers.len() != 1 || by_label || peers.iter().all(is_told) {
        return Ok(());
    }
    Err(format!("{sources:?} -> {destinations:?} gains unsaid"))
}

/// All fixes together admit the call, unless something is said to remain.
fn opens_all(explanation: &Explanation, engine: &Engine, call: &Call) -> Result<(), String> {
    // Where an address has several owners, each reading may be denied in another direction.
    let undecided = |explained: &DirectionExplanation| matches!(explained.admission, Admission::Undecided { .. });
    let is_open = explanation.remaining.iter().any(|remaining| matches!(remaining, Remaining::NoFix { .. }))
        || [&explanation.egress, &explanation.ingress].into_iter().any(undecided);
    match engine.verdict(&connection(call, engine)) {
        Verdict::Deny if !is_open => Err(format!("still denied after all fixes: {explanation:#?}")),
        _ => Ok(()),
    }
}
