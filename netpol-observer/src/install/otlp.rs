//! What an agent's container needs to send drops to a collector.

use serde_json::{Value, json};

use super::Otlp;

/// Where the Secret and the ConfigMap are mounted.
const HEADERS: &str = "/etc/netpol-observer/otlp-headers";
const CA: &str = "/etc/netpol-observer/otlp-ca";

/// The arguments.
pub(super) fn arguments(otlp: &Otlp) -> Vec<String> {
    let mut arguments = vec!["--otlp-endpoint".to_owned(), otlp.endpoint.clone(), "--otlp-protocol".to_owned(), otlp.protocol.clone()];
    if otlp.headers_secret.is_some() {
        arguments.extend(["--otlp-headers-file".to_owned(), format!("{HEADERS}/headers")]);
    }
    if otlp.ca_config_map.is_some() {
        arguments.extend(["--otlp-ca".to_owned(), format!("{CA}/ca.crt")]);
    }
    arguments
}

/// The volumes of the pod, and where they are in the container. Each brings one key, whatever else there is.
pub(super) fn volumes(otlp: &Otlp) -> (Vec<Value>, Vec<Value>) {
    let mut volumes = Vec::new();
    if let Some(name) = &otlp.headers_secret {
        // For the owner alone: root, which the agent is in name.
        let secret = json!({"secretName": name, "defaultMode": 0o400, "items": [{"key": "headers", "path": "headers"}]});
        volumes.push((
            json!({"name": "otlp-headers", "secret": secret}),
            json!({"name": "otlp-headers", "mountPath": HEADERS, "readOnly": true}),
        ));
    }
    if let Some(name) = &otlp.ca_config_map {
        let map = json!({"name": name, "items": [{"key": "ca.crt", "path": "ca.crt"}]});
        volumes.push((json!({"name": "otlp-ca", "configMap": map}), json!({"name": "otlp-ca", "mountPath": CA, "readOnly": true})));
    }
    volumes.into_iter().unzip()
}
