//! Fixes as commands to be run.

use serde_json::{Value, json};

use super::text::clean_lines;
use crate::policy::{Fix, Manifest};

/// The commands that apply a fix, one element per line. They may be pasted into a shell: whatever stands in an object's name is quoted.
pub fn commands(fix: &Fix) -> Vec<String> {
    if let Manifest::Labels { workload, namespace, labels } = &fix.manifest {
        return relabel(&workload.kind, &workload.name, namespace, labels, fix);
    }
    match &fix.policy {
        Some(policy) if !fix.patch.is_empty() => {
            let resource = resource(policy.kind);
            vec![format!(
                "kubectl patch {resource} {}{} --type=json -p {}",
                word(&policy.name),
                in_namespace(&policy.namespace),
                patch(fix)
            )]
        }
        _ => apply(&fix.manifest.to_json()),
    }
}

/// As `kubectl` takes the kind. The group tells these kinds from others of the same name.
fn resource(kind: &str) -> String {
    match kind {
        "NetworkPolicy" => "networkpolicy".to_owned(),
        "AdminNetworkPolicy" | "BaselineAdminNetworkPolicy" | "ClusterNetworkPolicy" => {
            format!("{}.policy.networking.k8s.io", kind.to_ascii_lowercase())
        }
        kind => word(&kind.to_ascii_lowercase()),
    }
}

fn relabel(kind: &str, name: &str, namespace: &str, labels: &crate::cluster::Labels, fix: &Fix) -> Vec<String> {
    let (name, place) = (word(name), in_namespace(namespace));
    if !fix.patch.is_empty() {
        return vec![format!("kubectl patch {} {name}{place} --type=json -p {}", resource(kind), patch(fix))];
    }
    let template = json!({ "template": { "metadata": { "labels": labels } } });
    match kind {
        "Pod" => {
            let pairs: Vec<String> = labels.iter().map(|(key, value)| word(&format!("{key}={value}"))).collect();
            vec![format!("kubectl label pod {name}{place} --overwrite {}", pairs.join(" "))]
        }
        // The template of a Job that is there cannot be changed.
        "Job" => vec![format!("# add the labels to the pod template of Job {name} and create it anew")],
        _ => {
            let spec = if kind == "CronJob" { json!({ "jobTemplate": { "spec": template } }) } else { template };
            let merged = word(&json!({ "spec": spec }).to_string());
            vec![format!("kubectl patch {} {name}{place} --type=merge -p {merged}", resource(kind))]
        }
    }
}

fn patch(fix: &Fix) -> String {
    word(&serde_json::to_string(&fix.patch).unwrap_or_default())
}

/// A manifest handed to `kubectl apply` as it stands.
fn apply(manifest: &Value) -> Vec<String> {
    let Some(yaml) = yaml(manifest) else { return Vec::new() };
    let mut lines = vec!["kubectl apply -f - <<'EOF'".to_owned()];
    lines.extend(yaml.lines().map(str::to_owned));
    lines.push("EOF".to_owned());
    lines
}

/// A manifest as people write it: what says what it is comes first.
fn yaml(manifest: &Value) -> Option<String> {
    let members = manifest.as_object()?;
    let mut text = String::new();
    for member in ["apiVersion", "kind", "metadata", "spec"] {
        if let Some(value) = members.get(member) {
            text.push_str(&serde_saphyr::to_string(&json!({ member: value })).ok()?);
        }
    }
    // A line that ends the document would let what follows run.
    (!text.lines().any(|line| line == "EOF")).then(|| clean_lines(&text))
}

fn in_namespace(namespace: &str) -> String {
    if namespace.is_empty() { String::new() } else { format!(" -n {}", word(namespace)) }
}

/// A word of a shell's command line.
fn word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '=' | ':' | '+' | ',');
    if !text.is_empty() && text.chars().all(is_plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}
