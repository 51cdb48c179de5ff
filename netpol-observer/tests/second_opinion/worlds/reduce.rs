//! A failing world made small: whatever can go goes.

use serde_json::Value;

use crate::naive::World;

/// The smallest world reached by leaving out objects, list entries and fields one at a time, for which `fails` still holds.
pub(crate) fn reduced(world: &World, fails: impl Fn(&World) -> bool) -> World {
    let mut smallest = world.clone();
    loop {
        let Some(smaller) = smaller(&smallest).find(&fails) else { return smallest };
        smallest = smaller;
    }
}

fn smaller(world: &World) -> impl Iterator<Item = World> {
    let without_name = world.names.keys().map(|name| {
        let mut smaller = world.clone();
        smaller.names.remove(name);
        smaller
    });
    let without_object = (0..world.objects.len()).map(|at| {
        let mut smaller = world.clone();
        smaller.objects.remove(at);
        smaller
    });
    let without_part = (0..world.objects.len()).flat_map(move |at| {
        let mut paths = Vec::new();
        parts(&world.objects[at], &mut Vec::new(), &mut paths);
        paths.into_iter().map(move |path| {
            let mut smaller = world.clone();
            remove(&mut smaller.objects[at], &path);
            smaller
        })
    });
    without_object.chain(without_name).chain(without_part)
}

/// Paths to all fields and entries below `spec`, `status` and the labels.
fn parts(value: &Value, path: &mut Vec<String>, paths: &mut Vec<Vec<String>>) {
    let keys: Vec<String> = match value {
        Value::Object(fields) => fields.keys().cloned().collect(),
        Value::Array(entries) => (0..entries.len()).map(|at| at.to_string()).collect(),
        _ => Vec::new(),
    };
    for key in keys {
        let is_identity = path.is_empty() && matches!(&*key, "apiVersion" | "kind" | "metadata");
        let is_name = path.len() == 1 && path[0] == "metadata" && matches!(&*key, "name" | "namespace");
        let inner = match value {
            Value::Array(entries) => &entries[key.parse::<usize>().expect("an index")],
            other => &other[&*key],
        };
        path.push(key);
        if !is_identity && !is_name {
            paths.push(path.clone());
        }
        parts(inner, path, paths);
        path.pop();
    }
}

fn remove(value: &mut Value, path: &[String]) {
    let Some((last, before)) = path.split_last() else { return };
    let mut at = value;
    for key in before {
        at = match at {
            Value::Array(entries) => &mut entries[key.parse::<usize>().expect("an index")],
            other => &mut other[&**key],
        };
    }
    match at {
        Value::Array(entries) => drop(entries.remove(last.parse().expect("an index"))),
        Value::Object(fields) => drop(fields.remove(last)),
        _ => {}
    }
}
